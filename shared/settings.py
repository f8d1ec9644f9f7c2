"""The settings: one TOML file, each value of which an environment variable may override.

`CREDITS_CONFIG` names the file (default `credits.toml`, which need not exist); `CREDITS_BROKER__URL`
overrides `[broker] url`, and so on. With no URL set everything runs in one process on one SQLite file.
Integrations stay unread tables here: only a provider's own file in `gateway/providers/` knows its settings.
"""

import os
import tomllib
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)
from pydantic_settings import SettingsError as SourceError

from shared.broker_url import checked, node_urls
from shared.errors import SettingsError

MEMORY: Final = "memory://"
"""The URL of a broker or cache inside this process."""

_PREFIX: Final = "CREDITS_"
_NOT_SETTINGS: Final = ("CREDITS_CONFIG", "CREDITS_TEST_")

IntegrationName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]

# Upper case, because the names of environment variables come here in lower case.
CurrencyCode = Annotated[str, AfterValidator(str.upper), Field(pattern=r"^[A-Za-z0-9]{3,10}$")]


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
    """Of unfinished or waiting requests, over all connections."""


class GatewaySettings(HttpBounds):
    """`[gateway]`: the HTTP side."""

    host: str = "127.0.0.1"
    port: int = Field(default=8080, ge=0, le=65535)
    body_bytes_max: int = Field(default=65_536, ge=1_024)
    in_flight_max: int = Field(default=5_000, ge=1)
    """Credits that may wait for the ledger at once; further ones get their provider's retryable reply."""


def _broker_url(url: str) -> str:
    return url if url == MEMORY else checked(url)


class BrokerSettings(_Table):
    """`[broker]`: RabbitMQ."""

    url: Annotated[str, AfterValidator(_broker_url)] = MEMORY
    """Of a cluster, the URLs of its nodes, separated by commas."""

    shards: int = Field(default=16, ge=1, le=256)
    heartbeat_seconds: int = Field(default=10, ge=1)

    @property
    def urls(self) -> tuple[str, ...]:
        """The URL of each node."""
        return node_urls(self.url)


class LedgerSettings(_Table):
    """`[ledger]`: the SQL database."""

    database_url: str = "sqlite+aiosqlite:///var/credits.db"
    pool_connections_max: int = Field(default=4, ge=1)
    statement_seconds_max: int = Field(default=5, ge=1)


class CacheSettings(_Table):
    """`[cache]`: Redis, the fast memory of posted credits."""

    url: str = MEMORY
    ttl_seconds: int = Field(default=86_400, ge=1)
    timeout_ms: int = Field(default=50, ge=1)


class WorkerSettings(_Table):
    """`[worker]`: the ledger workers."""

    batch_credits_max: int = Field(default=1_000, ge=1, le=5_000)
    metrics_port: int = Field(default=0, ge=0, le=65535)
    """Where a worker serves /metrics; 0 for nowhere."""


class OperatorSettings(_Table):
    """`[operator]`: the operator API."""

    host: str = "127.0.0.1"
    port: int = Field(default=8090, ge=0, le=65535)
    tokens: tuple[str, ...] = ()
    """Each a literal, `env:NAME` or `file:PATH`. Any verifies."""


class LogSettings(_Table):
    """`[log]`."""

    format: Literal["text", "json"] = "text"
    level: Literal["debug", "info", "warning", "error"] = "info"


class Settings(BaseSettings):
    """Everything that an operator can set, validated."""

    model_config = SettingsConfigDict(
        env_prefix=_PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True
    )

    gateway: GatewaySettings = GatewaySettings()
    broker: BrokerSettings = BrokerSettings()
    ledger: LedgerSettings = LedgerSettings()
    cache: CacheSettings = CacheSettings()
    worker: WorkerSettings = WorkerSettings()
    operator: OperatorSettings = OperatorSettings()
    log: LogSettings = LogSettings()
    currencies: dict[CurrencyCode, Annotated[int, Field(ge=0, le=18)]] = {}
    """Currencies beyond ISO 4217: code -> decimals."""

    integrations: dict[IntegrationName, dict[str, Any]] = {}

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003  (pydantic's own signature)
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read what the caller gives, then the environment, then the file."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, _config_path())


def load_settings() -> Settings:
    """Read and validate the settings. Raises SettingsError with one line: what is wrong, and where."""
    try:
        _refuse_unknown_variables()
        return Settings()
    except ValidationError as error:
        raise SettingsError(describe(error)) from None
    except (SourceError, tomllib.TOMLDecodeError, OSError) as error:
        raise SettingsError(str(error)) from None


def describe(error: ValidationError, table: str = "") -> str:
    """Return pydantic's findings as one line, without the values: one of them may be a secret."""
    found = (
        f"[{table}] " * bool(table)
        + ".".join(map(str, e["loc"]))
        + ": "
        + e["msg"].removeprefix("Value error, ")
        for e in error.errors(include_input=False, include_url=False)
    )
    return "; ".join(found)


def _config_path() -> Path | None:
    named = os.environ.get("CREDITS_CONFIG")
    if named is None:
        return Path("credits.toml")
    if not named:
        return None  # set to nothing: the environment says it all
    if not Path(named).is_file():
        raise SettingsError(f"CREDITS_CONFIG names {named!r}, which is no file")
    return Path(named)


def _refuse_unknown_variables() -> None:
    """A misspelt variable would be passed over in silence and leave a default in force."""
    for name in os.environ:
        if name.startswith(_PREFIX) and not name.startswith(_NOT_SETTINGS):
            table = name.removeprefix(_PREFIX).split("__")[0].lower()
            if table not in Settings.model_fields:
                raise SettingsError(f"{name}: there is no setting {table!r}")
