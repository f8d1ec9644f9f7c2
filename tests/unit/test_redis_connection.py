"""The connection to Redis: what no driver can use stops the start, and no password is ever in a message."""

from pathlib import Path

import pytest
from redis import exceptions
from redis.asyncio import Redis
from redis.asyncio.connection import SSLConnection

from shared.errors import SettingsError
from shared.settings import CacheSettings
from worker.ledger.cache.circuit import is_refusal
from worker.ledger.cache.connection import CacheServer, connection_pool, reason_of
from worker.ledger.cache.sentinels import PrimaryUnknown

WRONG = (
    "",
    "localhost:6379",
    "http://localhost",
    "redis://:pass/word@localhost/0",
    "redis://:pass#word@localhost/0",
    "redis://localhost:port/0",
    "redis://localhost/0?db=x",
    "redis://localhost/6?family=0",
    "redis://localhost/0?retry=1&nothing=2",
    "redis://localhost/0?ssl_cert_reqs=none",
    "rediss://localhost/0?ssl_cert_reqs=maybe",
    "rediss://localhost/0?ssl_ciphers=none-such",
    "rediss://localhost/0?ssl_ca_certs=/no/such/file",
    "rediss://localhost/0?ssl_ca_certs=/etc",
    "redis+sentinel://:pass/word@localhost/mymaster",
    "redis+sentinel://localhost/0",
    "redis+sentinel://localhost/mymaster?nothing=2",
    "rediss+sentinel://localhost/mymaster?ssl_ciphers=none-such",
)


def settings_of(url: str) -> CacheSettings:
    """Return settings as if nothing had looked at the URL before."""
    return CacheSettings.model_construct(url=url, timeout_seconds=0.05, ttl_seconds=60)


@pytest.mark.parametrize("url", WRONG)
def test_what_the_driver_can_not_use_stops_the_start(url: str) -> None:
    with pytest.raises(SettingsError) as refused:
        connection_pool(settings_of(url))
    message = str(refused.value)
    assert message.startswith("[cache] url: ")
    assert "\n" not in message
    assert "pass" not in message.replace("in a password", "")


def test_file_that_is_no_certificate_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nonsense")
    with pytest.raises(SettingsError, match="certificates, key or ciphers are of no use"):
        connection_pool(settings_of(f"rediss://localhost/0?ssl_ca_certs={tmp_path}/ca.pem"))


@pytest.mark.parametrize(
    "url",
    [
        "redis://localhost",
        "redis://user:p%40ss%2Fword@localhost:6379/0?db=1",
        "rediss://localhost/0?ssl_cert_reqs=required&ssl_check_hostname=yes",
        "unix:///run/redis.sock?db=1",
        "redis://localhost/0?socket_timeout=60&protocol=3&decode_responses=1",
    ],
)
def test_own_limits_count_whatever_the_url_says(url: str) -> None:
    options = connection_pool(settings_of(url)).connection_kwargs
    assert (options["socket_timeout"], options["protocol"]) == (0.05, 2)
    assert options["decode_responses"] is False


async def test_redis_that_sentinels_name_gets_its_own_account_and_limits() -> None:
    url = "rediss+sentinel://me:p%2Fw@a,[::1]:7/m/3?sentinel_username=I&sentinel_password=a+b%26&ssl_cert_reqs=none"
    server = CacheServer(settings_of(url))
    options = server.pool.connection_kwargs
    assert not server.is_known
    assert (options["username"], options["password"], options["db"]) == ("me", "p/w", 3)
    assert (options["socket_timeout"], options["protocol"]) == (0.05, 2)
    assert issubclass(server.pool.connection_class, SSLConnection)
    with pytest.raises(PrimaryUnknown):
        await Redis.from_pool(server.pool).ping()


def test_what_redis_quotes_of_a_command_is_not_logged() -> None:
    error = OSError("unknown command 'HELLO', with args beginning with: '3' 'AUTH' 'credits' 'secret'")
    assert reason_of(error) == "unknown command 'HELLO'"
    assert not reason_of(TypeError("secret"))
    assert len(reason_of(OSError("x" * 10_000))) == 200


OF_A_CLUSTER = (
    exceptions.MovedError("3999 127.0.0.1:6381"),
    exceptions.AskError("3999 127.0.0.1:6381"),
    exceptions.ClusterCrossSlotError("Keys in request don't hash to the same slot"),
    exceptions.TryAgainError("Multiple keys request during rehashing of slot"),
    exceptions.ClusterDownError("Hash slot not served"),
)


@pytest.mark.parametrize("error", OF_A_CLUSTER, ids=lambda error: type(error).__name__)
def test_whatever_a_node_of_a_cluster_says_is_refused_for_one_reason(error: Exception) -> None:
    assert is_refusal(error)
    assert reason_of(error) == "it is a node of a Redis Cluster; the cache needs one Redis, or sentinels"


def test_what_passes_is_told_from_what_stays_until_somebody_acts() -> None:
    wrong_name, away = exceptions.ResponseError("has no primary of that name"), exceptions.TimeoutError()
    assert is_refusal(exceptions.ReadOnlyError("You can't write against a read only replica."))
    assert is_refusal(PrimaryUnknown("one refuses, the other is away", [away, wrong_name]))
    assert not is_refusal(PrimaryUnknown("all are away", [away, exceptions.ConnectionError()]))
    assert not is_refusal(exceptions.MasterDownError("Link with MASTER is down"))
