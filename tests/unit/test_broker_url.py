"""The broker's URLs: every node of a cluster is known, and a mistake stops the start, not a failover."""

import pytest

from shared.errors import SettingsError
from shared.settings import BrokerSettings, load_settings

NODES = ("amqp://ann:pa,ss@a:5672/credits", "amqps://ann:pa,ss@b/credits", "amqp://[::1]:5674/credits")


def refusal(monkeypatch: pytest.MonkeyPatch, url: str) -> str:
    monkeypatch.setenv("CREDITS_CONFIG", "")
    monkeypatch.setenv("CREDITS_BROKER__URL", url)
    with pytest.raises(SettingsError) as refused:
        load_settings()
    return str(refused.value)


@pytest.mark.parametrize("between", [",", ", ", " ,\n  "])
def test_every_node_is_known_though_a_password_has_a_comma(between: str) -> None:
    assert BrokerSettings(url=between.join(NODES)).urls == NODES


def test_one_variable_names_every_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CREDITS_CONFIG", "")
    monkeypatch.setenv("CREDITS_BROKER__URL", ",".join(NODES))
    assert load_settings().broker.urls == NODES


@pytest.mark.parametrize(
    ("url", "defect"),
    [
        ("amqp://ann:hunter2@a:5672,b:5672/", "URL 1 of 1: a comma"),
        ("amqp://ann:hunter2@a/credits,b", "URL 1 of 1: a comma"),
        ("amqp://ann:hunter2@a,amqp://ann:hunter2@b,", "URL 2 of 2: a comma"),
        ("amqp://ann:hunter2@a,amqp://ann:hunter2@:5672", "URL 2 of 2: there is no host"),
        ("amqp://ann:hunter2@a,amqp://ann:hunter2@b:56x", "URL 2 of 2: the port"),
        ("amqp://ann:hunter2@a:65536", "URL 1 of 1: the port"),
        ("amqp://ann:hunter2/x@a", "write %40 for @, %2F for /"),
        ("amqp://ann:12#hunter2@a", "%23 for #"),
        ("amqp://ann:12?hunter2@a", "%3F for ?"),
        ("amqp://ann:hunter2@a?hunter2", "there is no option of that name"),
        ("amqp://ann:hunter2@a?family=0", "there is no option 'family'; there are auth, name"),
        ("amqp://ann:hunter2@a?heartbeat=hunter2", "set [broker] heartbeat_seconds"),
        ("amqp://ann:hunter2@a?timeout=hunter2", "timeout does not stand in the URL"),
        ("amqp://ann:hunter2@a?name=x&name=y", "an option is there twice"),
        ("amqp://ann:hunter2@a?auth=hunter2", "auth is one of plain"),
        ("amqp://ann:hunter2@a?cafile=/nowhere", "need amqps://"),
        ("amqps://ann:hunter2@a?cafile=/nowhere", "cafile: /nowhere: No such file"),
        ("amqps://ann:hunter2@a?cafile=/", "cafile: /: Is a directory"),
        ("amqps://ann:hunter2@a?cafile=/etc/passwd", "cafile: holds no certificate"),
        ("amqps://ann:hunter2@a?certfile=/etc/passwd", "certfile: holds no certificate"),
        ("amqps://ann:hunter2@a?keyfile=/etc/passwd", "keyfile needs certfile"),
        ("amqp://ann:hunter2[@a", "URL 1 of 1: is no URL"),
        ("http://ann:hunter2@a,amqp://b", "URL 1 of 2: must be"),
        ("memory://,amqp://ann:hunter2@a", "URL 1 of 2: must be"),
        ("memory://hunter2", "URL 1 of 1: must be"),
        ("amqp://ann:hunter2@a/credits,amqp://ann:hunter2@b", "virtual host"),
        ("", "URL 1 of 1: must be"),
    ],
)
def test_mistake_is_told_in_one_line_without_the_password(
    monkeypatch: pytest.MonkeyPatch, url: str, defect: str
) -> None:
    told = refusal(monkeypatch, url)
    assert told.startswith("CREDITS_BROKER__URL: [broker] url: ")
    assert defect in told
    assert "hunter2" not in told
    assert "\n" not in told


def test_virtual_host_may_be_written_in_two_ways() -> None:
    assert len(BrokerSettings(url="amqp://a,amqp://b/,amqp://c/%2F,amqp://d/%2f").urls) == 4


@pytest.mark.parametrize(
    "url",
    ["amqp://ann:p@ss@a", "amqp://ann:100%@a/%2F", "amqps://a?auth=EXTERNAL", "amqp://a?name=x"],
)
def test_url_that_the_driver_reads_as_it_is_meant_is_taken(url: str) -> None:
    assert BrokerSettings(url=url).urls == (url,)
