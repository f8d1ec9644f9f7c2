"""Checks the URL of Redis: `redis://user:password@host:6379/0`, `rediss://` over TLS, or `unix:///path`.

For URLs of sentinels, `shared.sentinel_url` reads the part that concerns the sentinels.
"""

import re
from typing import Final
from urllib.parse import SplitResult, urlsplit

from shared import sentinel_url
from shared.server_url import read_options, refuse_account, refuse_host_and_port, refuse_options, refuse_tls_files

_NUMBER: Final = "[0-9]{1,9}"
_YES_OR_NO: Final = "(?i:true|false|yes|no|0|1)"
_ANY: Final = r"(?s:.+)"

_OPTIONS: Final = {
    "db": _NUMBER,
    "username": _ANY,
    "password": _ANY,
    "client_name": _ANY,
    "protocol": "[23]",
    "health_check_interval": _NUMBER,
    "max_connections": "[1-9][0-9]{0,5}",
    "socket_keepalive": _YES_OR_NO,
}
_TLS_OPTIONS: Final = {
    "ssl_ca_certs": _ANY,
    "ssl_ca_path": _ANY,
    "ssl_certfile": _ANY,
    "ssl_keyfile": _ANY,
    "ssl_cert_reqs": "none|optional|required",
    "ssl_check_hostname": _YES_OR_NO,
}
"""The options that are allowed, each with the pattern of its value; these only over TLS."""


def checked(url: str) -> str:
    """Return `url` unchanged if it is valid. Raises ValueError, which does not repeat it: it may hold a password."""
    if re.match("rediss?[+-]cluster://", url):
        raise ValueError("the cache needs no cluster: name one Redis, or sentinels")
    if sentinel_url.is_sentinel_url(url):
        checked(sentinel_url.read(url).redis_url)
        return url
    if not re.match("rediss?://|unix://", url):
        raise ValueError(
            "must be memory:// or begin with redis://, rediss://, redis+sentinel://, rediss+sentinel:// or unix://"
        )
    if defect := refuse_account(url):
        raise ValueError(defect)
    parts = urlsplit(url)
    if defect := _refuse_server(parts) or _refuse_options(parts):
        raise ValueError(defect)
    return url


def _refuse_server(parts: SplitResult) -> str | None:
    if parts.scheme == "unix":
        return None if parts.path else "there is no path"
    if defect := refuse_host_and_port(parts):
        return defect
    return None if re.fullmatch(f"(/({_NUMBER})?)?", parts.path) else "what follows host and port is a number"


def _refuse_options(parts: SplitResult) -> str | None:
    options = read_options(parts.query)
    known = _OPTIONS | _TLS_OPTIONS if parts.scheme == "rediss" else _OPTIONS
    if "socket_timeout" in options or "socket_connect_timeout" in options:
        return "its time limit is [cache] timeout_seconds"
    if any(name in _TLS_OPTIONS for name in options) and parts.scheme != "rediss":
        return "options of TLS need rediss:// or rediss+sentinel://"
    if defect := refuse_options(options, known):
        return defect
    if wrong := [name for name, value in options.items() if not re.fullmatch(known[name], value)]:
        return f"the value of {wrong[0]} is none that it may have"
    return refuse_tls_files(options, "ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
