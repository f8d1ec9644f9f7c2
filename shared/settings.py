"""The settings: one TOML file, each value of which an environment variable may override.

`CREDITS_CONFIG` names the file (default `credits.toml`, which need not exist); `CREDITS_BROKER__URL`
overrides `[broker] url`, and so on. With no URL set everything runs in one process on one SQLite file.
Integrations are plain dicts here, because only a provider's own file in `gateway/providers/` knows its settings.
"""

from enum import StrEnum
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PrivateAttr,
    ValidationError,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from shared import broker_url, cache_url
from shared.cell_places import MAIN, CellUrls, find_defect
from shared.errors import SettingsError
from shared.networks import Networks
from shared.settings_defects import defects_of
from shared.settings_http import GatewaySettings, Table
from shared.settings_sources import origin, read_config_file, read_environment
from shared.settings_types import CellName, CurrencyCode, IntegrationName, StringList, UserName, rename, string_list

MEMORY: Final = "memory://"
"""The URL of a broker or cache inside this process."""


def _broker_url(url: str) -> str:
    return url if url == MEMORY else broker_url.checked(url)


def _cache_url(url: str) -> str:
    return url if url == MEMORY else cache_url.checked(url)


class BrokerSettings(Table):
    """`[broker]`: RabbitMQ."""

    url: Annotated[str, AfterValidator(_broker_url), Field(repr=False)] = MEMORY
    """`amqp://` or `amqps://`; of a cluster the URLs of its nodes, separated by commas. `memory://` is the
    ledger embedded in the gateway's process."""

    shards: int = Field(default=16, ge=1, le=256)
    """Queues that carry credits. Bounds the useful number of workers; may differ between processes while it
    is changed."""

    heartbeat_seconds: int = Field(default=10, ge=1)
    """Interval of heartbeats; a node that has gone without a word is left after three of them."""

    keys: Annotated[StringList, Field(max_length=8, repr=False)] = ()
    """Keys of 32 bytes or more, the same in all processes, needed with RabbitMQ. Each is a literal, `env:NAME`
    or `file:PATH`. The first signs messages, any verifies them."""

    @property
    def urls(self) -> tuple[str, ...]:
        """The URL of each node."""
        return broker_url.node_urls(self.url)

    _cell: str = PrivateAttr(default=MAIN)

    @property
    def cell(self) -> str:
        """The cell that this broker belongs to."""
        return self._cell

    def in_cell(self, name: str, given: dict[str, Any]) -> "BrokerSettings":
        """Return a copy for another cell, with the fields in `given` replaced."""
        copy = self.model_copy(update=given)
        copy._cell = name  # noqa: SLF001  (of our own copy)
        return copy


class LedgerSettings(Table):
    """`[ledger]`: the SQL database."""

    database_url: Annotated[str, Field(repr=False)] = "sqlite+aiosqlite:///var/credits.db"
    """In production `postgresql+asyncpg://...`, with libpq's `sslmode`, `sslrootcert`, `sslcert`, `sslkey`,
    `connect_timeout`, `application_name`, `target_session_attrs`; several servers as
    `?host=a:5432&host=b:5432`."""

    pooler: Literal["none", "session", "transaction"] = "none"
    """The pool_mode of a PgBouncer between the processes and PostgreSQL."""

    pool_connections_max: int = Field(default=4, ge=1)
    """Database connections of one process."""

    statement_seconds_max: int = Field(default=5, ge=1)
    """Time for one statement, and for the replicas to confirm a commit."""


class CacheSettings(Table):
    """`[cache]`: Redis, the fast memory of posted credits."""

    url: Annotated[str, AfterValidator(_cache_url), Field(repr=False)] = MEMORY
    """In production `redis://...`, `rediss://...?ssl_ca_certs=` over TLS, or
    `redis+sentinel://user:password@a,b,c/mymaster/0`. `memory://` is each worker's own memory alone."""

    ttl_seconds: int = Field(default=86_400, ge=1)
    """Time for which Redis keeps an outcome."""

    timeout_seconds: float = Field(default=0.05, gt=0)
    """Time for one call of Redis; then the cache is left alone for a second. `timeout_ms`, its former name, is in
    milliseconds."""

    @model_validator(mode="before")
    @classmethod
    def _read_former_name(cls, given: Any) -> Any:
        return rename(given, "timeout_ms", "timeout_seconds", lambda ms: int(ms) / 1_000)


class CellSettings(Table):
    """`[cells.NAME]`: a cell beside `main`. What it leaves out is as in the top-level tables, but for URLs."""

    broker: BrokerSettings = BrokerSettings()
    """As `[broker]`, of this cell."""

    ledger: LedgerSettings = LedgerSettings()
    """As `[ledger]`, of this cell."""

    cache: CacheSettings = CacheSettings()
    """As `[cache]`, of this cell."""


class WorkerSettings(Table):
    """`[worker]`: the ledger workers."""

    batch_operations_max: int = Field(default=1_000, ge=1, le=5_000)
    """Operations of a transaction; one that has so many takes no further message. Its former name is
    `batch_credits_max`."""

    @model_validator(mode="before")
    @classmethod
    def _read_former_name(cls, given: Any) -> Any:
        return rename(given, "batch_credits_max", "batch_operations_max")

    metrics_host: Annotated[str, Field(min_length=1)] = "127.0.0.1"
    """Address on which a worker serves /metrics, in plain HTTP: keep strangers from it."""

    metrics_port: int = Field(default=0, ge=0, le=65535)
    """Port of the same; 0 serves it nowhere."""


class Role(StrEnum):
    """What a user of the operator API may do; each role includes those before it."""

    SUPPORT = "support"
    """Reads players, sessions, transfers and rounds."""

    PLATFORM = "platform"
    """Adds players, opens and closes sessions."""

    ADMIN = "admin"
    """Reads the audit log."""

    def includes(self, needed: "Role") -> bool:
        """Return whether this role may do what `needed` may."""
        order = list(Role)
        return order.index(self) >= order.index(needed)


class OperatorUser(Table):
    """`[operator.users.NAME]`: a user of the operator API."""

    role: Role
    """What the user may do; each role includes those before it."""

    token_sha256: Annotated[
        tuple[Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")], ...],
        BeforeValidator(string_list),
        Field(min_length=1),
    ]
    """SHA-256 of each token, in hex; any of them verifies. To replace a token, add the new one's, then remove
    the old one's."""


class OperatorSettings(Table):
    """`[operator]`: the operator API."""

    host: Annotated[str, Field(min_length=1)] = "127.0.0.1"
    """Address on which the API is served."""

    port: int = Field(default=8090, ge=0, le=65535)
    """Port on which the API is served; 0 takes a free one."""

    served_at: str | None = None
    """The address that others reach it by, as in `[gateway]`."""

    users: dict[UserName, OperatorUser] = Field(default={})
    """The API's users by name."""

    tokens: Annotated[StringList, Field(repr=False)] = ()
    """Tokens of 16 characters or more, each a literal, `env:NAME` or `file:PATH`, of role admin and named
    `token-1`, `token-2`, ...; users are better."""

    refusals_max: int = Field(default=10, ge=1)
    """Refused requests of an address or a user within the window that are answered 401 or 403; further ones
    are answered 429. As many refused changes of a user are written into the audit log."""

    refusals_seconds: int = Field(default=60, ge=1, le=86_400)
    """Length of that window."""

    trusted_proxies: Networks = ()
    """Networks of proxies whose X-Forwarded-For names the client whose refusals are counted."""

    tls_certificate: str = ""
    """Path of a PEM file; with it and `tls_key` the API is served over TLS only."""

    tls_key: str = ""
    """Path of the certificate's key, a PEM file without a passphrase."""


class LogSettings(Table):
    """`[log]`: what every process writes to standard error."""

    format: Literal["text", "json"] = "text"
    """Form of a line; `json` is for programs."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """The lowest level that is written."""


class Settings(BaseSettings):
    """Everything that an operator can set, validated."""

    model_config = SettingsConfigDict(extra="forbid", frozen=True)

    gateway: GatewaySettings = GatewaySettings()
    broker: BrokerSettings = BrokerSettings()
    ledger: LedgerSettings = LedgerSettings()
    cache: CacheSettings = CacheSettings()
    worker: WorkerSettings = WorkerSettings()
    operator: OperatorSettings = OperatorSettings()
    log: LogSettings = LogSettings()
    currencies: dict[CurrencyCode, Annotated[int, Field(ge=0, le=18)]] = {}
    """Decimals of a currency that ISO 4217 lacks, by its code in upper case, such as `USDT = 6`."""

    integrations: Annotated[dict[IntegrationName, dict[str, Any]], Field(repr=False)] = {}
    """Integrations by name; the tables of their providers read them."""

    cells: dict[CellName, CellSettings] = {}
    """Cells beside `main`, by name."""

    @model_validator(mode="after")
    def _cells_are_separate(self) -> Self:
        urls = {MAIN: _urls_of("", self.broker, self.ledger)}
        urls |= {n: _urls_of(f"cells.{n}.", c.broker, c.ledger) for n, c in self.cells.items()}
        if defect := find_defect(urls, self.integrations):
            raise ValueError(defect)
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003  (pydantic's own signature)
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Give precedence to the caller's values, then the environment, then the file."""
        variables = InitSettingsSource(settings_cls, read_environment(cls.model_fields))
        return init_settings, variables, InitSettingsSource(settings_cls, read_config_file())


def _urls_of(table: str, broker: BrokerSettings, ledger: LedgerSettings) -> CellUrls:
    return CellUrls(
        table,
        broker.url if "url" in broker.model_fields_set else None,
        ledger.database_url if "database_url" in ledger.model_fields_set else None,
    )


def load_settings() -> Settings:
    """Read and validate the settings. Raises SettingsError with one line that names the faults and their settings."""
    try:
        return Settings()
    except ValidationError as error:
        defects = [f"{origin(keys)}{defect}" if keys else defect for keys, defect in defects_of(error)]
        raise SettingsError("; ".join(defects)) from None
