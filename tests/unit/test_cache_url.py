"""`[cache] url`: what is wrong with it is said at the start, in one line, without the password."""

import re
from pathlib import Path

import pytest

from shared.errors import SettingsError
from shared.settings import CacheSettings
from worker.redis_connection import connection_pool, reason_of

WRONG = {
    "": "must be memory:// or redis://",
    "localhost:6379": "must be memory:// or redis://",
    "http://localhost": "must be memory:// or redis://",
    "redis://:pass/word@localhost/0": "%2F for /",
    "redis://:pass#word@localhost/0": "%23 for #",
    "redis://localhost:port/0": "the port a number",
    "redis://localhost/0x": "number of a database",
    "redis://localhost/0?db=x": "each option NAME=VALUE",
    "redis://localhost/0?ssl_ca_certs": "each option NAME=VALUE",
    "redis://localhost/6?family=0": "no option 'family'",
    "redis://localhost/0?socket_timeout=60": "no option 'socket_timeout'",
    "redis://localhost/0?password=pass": "no option 'password'",
    "redis://localhost/0?protocol=3": "no option 'protocol'",
    "redis://localhost/0?ssl_cert_reqs=none": "need rediss://",
    "rediss://localhost/0?ssl_cert_reqs=maybe": "none, optional or required",
    "rediss://localhost/0?ssl_ciphers=none-such": "are of no use: No cipher",
    "rediss://localhost/0?ssl_ca_certs=/no/such/file": "ssl_ca_certs: there is no file '/no/such/file'",
    "rediss://localhost/0?ssl_ca_certs=/etc": "ssl_ca_certs: there is no file '/etc'",
}


@pytest.mark.parametrize("url", WRONG)
def test_wrong_url_stops_the_start(url: str) -> None:
    with pytest.raises(SettingsError, match=re.escape("[cache] url: ")) as refused:
        connection_pool(CacheSettings(url=url))
    message = str(refused.value)
    assert WRONG[url] in message
    assert "\n" not in message
    assert "pass" not in message.replace("in a password", "").replace("'password'", "")


def test_file_that_is_no_certificate_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nonsense")
    with pytest.raises(SettingsError, match="certificates, key or ciphers are of no use"):
        connection_pool(CacheSettings(url=f"rediss://localhost/0?ssl_ca_certs={tmp_path}/ca.pem"))


@pytest.mark.parametrize(
    "url",
    [
        "redis://localhost",
        "redis://localhost:6379/5",
        "redis://user:p%40ss%2Fword@localhost:6379/0?db=1",
        "rediss://localhost/0?ssl_cert_reqs=required&ssl_check_hostname=yes",
        "unix:///run/redis.sock?db=1",
    ],
)
def test_right_url_is_taken(url: str) -> None:
    pool = connection_pool(CacheSettings(url=url, timeout_ms=50))
    assert pool.connection_kwargs["socket_timeout"] == 0.05


def test_what_redis_quotes_of_a_command_is_not_logged() -> None:
    error = OSError("unknown command 'HELLO', with args beginning with: '3' 'AUTH' 'credits' 'secret'")
    assert reason_of(error) == "unknown command 'HELLO'"
    assert reason_of(TypeError("secret")) == ""
    assert len(reason_of(OSError("x" * 10_000))) == 200
