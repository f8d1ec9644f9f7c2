"""`[gateway]`: the HTTP side, and the bounds that every port has which serves HTTP."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from shared.networks import Networks


class Table(BaseModel):
    """A table of the settings file: no unknown key, and no change after it was read."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class HttpBounds(Table):
    """The bounds on what an unauthenticated client may use of an HTTP port."""

    head_bytes_max: int = Field(default=16_384, ge=1_024, le=1_048_576)
    """Bytes of a request line and its headers; beyond: 431."""

    head_seconds_max: float = Field(default=10, gt=0)
    """Time for a head to come, from its first byte; of a new connection, from its beginning, a TLS handshake
    included. Beyond: 408, and nothing in a handshake."""

    body_seconds_max: float = Field(default=10, gt=0)
    """Time for a body to come, from the end of its head; beyond: 408."""

    idle_seconds_max: float = Field(default=120, gt=0)
    """Time between two requests of a connection. Longer than a proxy in front keeps its connections, so that
    the proxy closes them, not the server."""

    write_seconds_max: float = Field(default=10, gt=0)
    """Time for a client to read on, when replies wait to be sent."""

    connections_max: int = Field(default=10_000, ge=1)
    """Connections, and no more than three quarters of the limit of open files. Beyond, those are closed that
    only ever sent what was not believed, then those that wait for a first request, or idle ones if there are
    more of these."""

    pipelined_requests_max: int = Field(default=8, ge=1)
    """Requests of one connection that may wait for their replies; beyond, they are answered and it closes."""

    buffered_bytes_max: int = Field(default=67_108_864, ge=65_536)
    """Bytes of unanswered requests over all connections, half of it for those on which nothing signed has come
    yet; beyond: 503 for requests of more than 4 KiB."""


class GatewaySettings(HttpBounds):
    """`[gateway]`: the HTTP side."""

    host: Annotated[str, Field(min_length=1)] = "127.0.0.1"
    """Address on which callbacks are served."""

    port: int = Field(default=8080, ge=0, le=65535)
    """Port on which callbacks are served; 0 takes a free one."""

    body_bytes_max: int = Field(default=65_536, ge=1_024)
    """Bytes of a request's body; a larger one is refused unread."""

    served_at: str | None = None
    """The address that others reach it by, "HOST:PORT" or "HOST", where that is not `host`: behind a proxy,
    or a container's mapping of ports. Beyond loopback the gateway does not start with a published secret."""

    in_flight_max: int = Field(default=5_000, ge=1)
    """Credits that may wait for the ledger of one cell; further ones get their provider's retryable reply."""

    operations_host: str = "127.0.0.1"
    """Address on which /healthz, /readyz and /metrics are served, in plain HTTP: keep strangers from it."""

    operations_port: int = Field(default=8081, ge=1, le=65535)
    """Port of the same; never 0, since nobody could know where to ask."""

    trusted_proxies: Networks = ()
    """Networks of proxies whose X-Forwarded-For names the client, where an integration has
    `allowed_addresses`."""

    tls_certificate: str = ""
    """Path of a PEM file; with it and `tls_key` callbacks are served over TLS only."""

    tls_key: str = ""
    """Path of the certificate's key, a PEM file without a passphrase."""
