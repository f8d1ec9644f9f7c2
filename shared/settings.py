"""The settings: one TOML file, each value of which an environment variable may override.

`CREDITS_CONFIG` names the file (default `credits.toml`, which need not exist); `CREDITS_BROKER__URL`
overrides `[broker] url`, and so on. With no URL set everything runs in one process on one SQLite file.
Integrations are plain dicts here, because only a provider's own file in `gateway/providers/` knows its settings.
"""

from enum import StrEnum
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
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
from shared.settings_sources import origin, read_config_file, read_environment
from shared.settings_types import CellName, CurrencyCode, IntegrationName, StringList, UserName, string_list

MEMORY: Final = "memory://"
"""The URL of a broker or cache inside this process."""


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class HttpBounds(_Table):
    """What a client may take of a port that serves HTTP before anybody knows who it is."""

    head_bytes_max: int = Field(default=16_384, ge=1_024, le=1_048_576)
    """Of a request line and its headers."""

    head_seconds_max: float = Field(default=10, gt=0)
    """For a head to come, from its first byte; of a new connection, from its beginning."""

    body_seconds_max: float = Field(default=10, gt=0)
    """For a body to come, from the end of its head."""

    idle_seconds_max: float = Field(default=120, gt=0)
    """Between two requests. Longer than proxies keep connections, so that they close them, not we."""

    write_seconds_max: float = Field(default=10, gt=0)
    """For a client to read on, when replies wait to be sent."""

    connections_max: int = Field(default=10_000, ge=1)
    pipelined_requests_max: int = Field(default=8, ge=1)
    """Requests of one connection that may wait for their replies."""

    buffered_bytes_max: int = Field(default=67_108_864, ge=65_536)
    """Of unanswered requests, over all connections."""


class GatewaySettings(HttpBounds):
    """`[gateway]`: the HTTP side."""

    host: Annotated[str, Field(min_length=1)] = "127.0.0.1"
    port: int = Field(default=8080, ge=0, le=65535)
    body_bytes_max: int = Field(default=65_536, ge=1_024)
    served_at: str | None = None
    """The address that others reach it by, "HOST:PORT" or "HOST", where that is not `host`: behind a proxy,
    or a container's mapping of ports. Beyond loopback no published secret may be in force."""

    in_flight_max: int = Field(default=5_000, ge=1)
    """Credits that may wait for the ledger at once; further ones get their provider's retryable reply."""

    operations_host: str = "127.0.0.1"
    operations_port: int = Field(default=8081, ge=1, le=65535)
    """Where /healthz, /readyz and /metrics are served; never 0, since nobody could know where to ask."""

    trusted_proxies: Networks = ()
    """Peers whose X-Forwarded-For says who the client is, where an integration has `allowed_addresses`."""

    tls_certificate: str = ""
    tls_key: str = ""
    """Paths of PEM files, both or none; with them callbacks are served over TLS only."""


def _broker_url(url: str) -> str:
    return url if url == MEMORY else broker_url.checked(url)


def _cache_url(url: str) -> str:
    return url if url == MEMORY else cache_url.checked(url)


class BrokerSettings(_Table):
    """`[broker]`: RabbitMQ."""

    url: Annotated[str, AfterValidator(_broker_url), Field(repr=False)] = MEMORY
    """Of a cluster, the URLs of its nodes, separated by commas."""

    shards: int = Field(default=16, ge=1, le=256)
    heartbeat_seconds: int = Field(default=10, ge=1)
    keys: Annotated[StringList, Field(max_length=8, repr=False)] = ()
    """Each a literal, `env:NAME` or `file:PATH`. The first signs messages, any verifies them."""

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


class LedgerSettings(_Table):
    """`[ledger]`: the SQL database."""

    database_url: Annotated[str, Field(repr=False)] = "sqlite+aiosqlite:///var/credits.db"
    pooler: Literal["none", "session", "transaction"] = "none"
    """What stands between us and PostgreSQL: PgBouncer's pool_mode."""

    pool_connections_max: int = Field(default=4, ge=1)
    statement_seconds_max: int = Field(default=5, ge=1)


class CacheSettings(_Table):
    """`[cache]`: Redis, the fast memory of posted credits."""

    url: Annotated[str, AfterValidator(_cache_url), Field(repr=False)] = MEMORY
    ttl_seconds: int = Field(default=86_400, ge=1)
    timeout_ms: int = Field(default=50, ge=1)


class CellSettings(_Table):
    """`[cells.NAME]`: a cell beside the default one; see `shared.cells` for what it leaves out."""

    broker: BrokerSettings = BrokerSettings()
    ledger: LedgerSettings = LedgerSettings()
    cache: CacheSettings = CacheSettings()


class WorkerSettings(_Table):
    """`[worker]`: the ledger workers."""

    batch_credits_max: int = Field(default=1_000, ge=1, le=5_000)
    metrics_host: Annotated[str, Field(min_length=1)] = "127.0.0.1"
    metrics_port: int = Field(default=0, ge=0, le=65535)
    """Where a worker serves /metrics; 0 for nowhere."""


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


class OperatorUser(_Table):
    """`[operator.users.NAME]`: a user of the operator API."""

    role: Role
    token_sha256: Annotated[
        tuple[Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")], ...],
        BeforeValidator(string_list),
        Field(min_length=1),
    ]
    """SHA-256 of each token, in hex; any of them verifies."""


class OperatorSettings(_Table):
    """`[operator]`: the operator API."""

    host: Annotated[str, Field(min_length=1)] = "127.0.0.1"
    port: int = Field(default=8090, ge=0, le=65535)
    served_at: str | None = None
    """As of [gateway]."""

    users: dict[UserName, OperatorUser] = {}
    tokens: Annotated[StringList, Field(repr=False)] = ()
    """Each a literal, `env:NAME` or `file:PATH`. Any verifies, as role admin, under a number for a name."""

    refusals_max: int = Field(default=10, ge=1)
    """So many refused requests are answered 401 or 403 within the window; further ones are answered 429."""

    refusals_seconds: int = Field(default=60, ge=1, le=86_400)

    trusted_proxies: Networks = ()
    """Peers whose X-Forwarded-For says whose refusals are counted."""

    tls_certificate: str = ""
    tls_key: str = ""
    """Paths of PEM files, both or none; with them the API is served over TLS only."""


class LogSettings(_Table):
    """`[log]`."""

    format: Literal["text", "json"] = "text"
    level: Literal["debug", "info", "warning", "error"] = "info"


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
    """Currencies beyond ISO 4217: code -> decimals."""

    integrations: Annotated[dict[IntegrationName, dict[str, Any]], Field(repr=False)] = {}
    cells: dict[CellName, CellSettings] = {}

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
