"""The cache's URL: what the driver would fail by at every connection stops the start."""

import pytest
from redis.asyncio import Redis

from shared.sentinel_url import read
from shared.settings import CacheSettings
from tests.support.settings_refusal import refusal


@pytest.mark.parametrize(
    ("url", "defect"),
    [
        ("", "must be memory://"),
        ("localhost:6379", "must be memory://"),
        ("memory://hunter2", "must be memory://"),
        ("http://hunter2@a", "must be memory://"),
        ("redis://:hunter2@", "there is no host"),
        ("redis://:hunter2/x@a", "write %40 for @, %2F for /"),
        ("redis://:12#hunter2@a", "%23 for #"),
        ("redis://:12?hunter2@a", "%3F for ?"),
        ("redis://:hunter2[@a", "is no URL"),
        ("redis://:hunter2@a:port", "the port must be a number"),
        ("redis://:hunter2@a:99999", "the port must be a number up to 65535"),
        ("redis://:hunter2@a/hunter2", "is a number"),
        ("redis://a/6?family=0", "there is no option 'family'"),
        ("redis://a?hunter2", "there is no option of that name"),
        ("redis://a?db=1&db=2", "an option is there twice"),
        ("redis://a?db=hunter2", "the value of db"),
        ("redis://a?decode_responses=1", "there is no option 'decode_responses'"),
        ("redis://a?socket_timeout=hunter2", "[cache] timeout_seconds"),
        ("redis://a?ssl_ca_certs=/etc/ssl/cert.pem", "options of TLS need rediss://"),
        ("rediss://a?ssl_ca_certs=/nowhere", "ssl_ca_certs: /nowhere: No such file"),
        ("rediss://a?ssl_ca_certs=/etc/passwd", "ssl_ca_certs: holds no certificate"),
        ("rediss://a?ssl_cert_reqs=hunter2", "the value of ssl_cert_reqs"),
        ("unix://", "there is no path"),
        ("redis-sentinel://hunter2@a", "redis+sentinel://"),
        ("redis+cluster://hunter2@a", "the cache needs no cluster"),
        ("redis+sentinel://a,b", "what follows the sentinels is the primary's name"),
        ("redis+sentinel://a,b/0", "what follows the sentinels is the primary's name"),
        ("redis+sentinel://a,b/0/mymaster", "what follows the sentinels is the primary's name"),
        ("redis+sentinel://a/my master", "what follows the sentinels is the primary's name"),
        ("redis+sentinel:///mymaster", "sentinel 1 of 1: there is no host"),
        ("redis+sentinel://:hunter2@a,b:port/mymaster", "sentinel 2 of 2: the port must be a number"),
        ("redis+sentinel://:hunter2@a,,c/mymaster", "sentinel 2 of 3: there is no host"),
        ("redis+sentinel://:hunter2@a,[::1/mymaster", "sentinel 2 of 2: is no host and port"),
        ("redis+sentinel://a/mymaster,hunter2", "what follows the sentinels is the primary's name"),
        (f"redis+sentinel://{'a,' * 16}a/mymaster", "more than 16 sentinels"),
        ("redis+sentinel://:hunter2/x@a/mymaster", "write %40 for @, %2F for /"),
        ("redis+sentinel://:12#hunter2@a/mymaster", "%23 for #"),
        ("redis+sentinel://:hunter2[@a/mymaster", "is no URL"),
        ("redis+sentinel://:hunter2%00@a/mymaster", "%00 stands in it"),
        ("redis+sentinel://a/mymaster?sentinel_pasword=hunter2", "there is no option 'sentinel_pasword'"),
        ("redis+sentinel://a/mymaster?sentinel_password=", "the value of sentinel_password"),
        ("redis+sentinel://a/mymaster?sentinel_username=x", "needs sentinel_password"),
        ("redis+sentinel://a/mymaster?sentinel_password=x&sentinel_password=y", "is there twice"),
        ("redis+sentinel://a/mymaster?family=0", "there is no option 'family'"),
        ("redis+sentinel://a/mymaster?socket_timeout=1", "[cache] timeout_seconds"),
        ("redis+sentinel://a/mymaster?ssl_cert_reqs=none", "options of TLS need rediss"),
        ("rediss+sentinel://a/mymaster?ssl_ca_certs=/nowhere", "ssl_ca_certs: /nowhere: No such file"),
    ],
)
@pytest.mark.usefixtures("clean_place")
def test_mistake_is_told_in_one_line_without_the_password(
    monkeypatch: pytest.MonkeyPatch, url: str, defect: str
) -> None:
    monkeypatch.setenv("CREDITS_CACHE__URL", url)
    message = refusal()
    assert message.startswith("CREDITS_CACHE__URL: [cache] url: ")
    assert defect in message
    assert "hunter2" not in message


@pytest.mark.parametrize(
    "url",
    [
        "redis://a",
        "redis://user:p@ss@a:6379/0",
        "redis://a/?db=5&protocol=3&client_name=x&max_connections=5&health_check_interval=5",
        "redis://[::1]:6379/15?socket_keepalive=yes",
        "rediss://a?ssl_cert_reqs=none&ssl_check_hostname=false",
        "unix://user:secret@/run/redis.sock?db=1",
    ],
)
def test_driver_takes_every_option_that_is_let_through(url: str) -> None:
    pool = Redis.from_url(CacheSettings(url=url).url).connection_pool
    assert pool.make_connection() is not None  # type: ignore[no-untyped-call]


def test_sentinels_are_read_with_what_is_theirs_and_what_is_of_redis() -> None:
    url = "rediss+sentinel://me:a,%2Fb@one,[::1]:7,two:8/my-master.1/5?client_name=x&sentinel_password=p+q%2B"
    place = read(CacheSettings(url=url).url)
    assert place.sentinels == (("one", 26_379), ("::1", 7), ("two", 8))
    assert (place.primary_name, place.username, place.password) == ("my-master.1", None, "p+q+")
    assert place.redis_url == "rediss://me:a,%2Fb@one/5?client_name=x"
    assert "p+q" not in repr(place)
    assert "%2Fb" not in repr(place)
