"""Where settings are written: what stands in a file or a variable is in force, or is refused by name."""

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from shared.settings import load_settings
from tests.support.settings_refusal import refusal
from tests.unit.conftest import WriteFile

pytestmark = pytest.mark.usefixtures("clean_place")


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_file_is_read_with_and_without_the_mark_that_windows_puts_before_it(
    monkeypatch: pytest.MonkeyPatch, mark: bytes
) -> None:
    Path("my.toml").write_bytes(mark + b"[broker]\nshards = 3\n")
    monkeypatch.setenv("CREDITS_CONFIG", "my.toml")
    assert load_settings().broker.shards == 3


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[broker]\nshards = 3\n".encode("utf-16"), "UTF-16"),
        ("[broker]\nshards = 3\n".encode("utf-16-be"), "UTF-16"),
        ("[broker]\n# für Käufer\n".encode("latin-1"), "line 2 is not UTF-8"),
        (b"[broker]\nshards = \n", "at line 2, column 10"),
        (b"[broker]\nshards = 1\nshards = 2\n", "at line 3"),
        (b"a = " + b"[" * 100_000, "nested too deeply"),
        (b"a = " + b"9" * 10_000, "digits"),
        (b"#" * 1_100_000, "larger than 1048576 bytes"),
    ],
)
def test_file_that_cannot_be_read_is_named_with_the_cause(
    monkeypatch: pytest.MonkeyPatch, content: bytes, words: str
) -> None:
    Path("my.toml").write_bytes(content)
    monkeypatch.setenv("CREDITS_CONFIG", "my.toml")
    message = refusal()
    assert "my.toml" in message
    assert words in message


def make_nothing(_path: Path) -> None:
    """Leave the path to nothing."""


def make_link_to_nothing(path: Path) -> None:
    path.symlink_to("nowhere")


def make_link_to_itself(path: Path) -> None:
    path.symlink_to(path.name)


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


@pytest.mark.parametrize("make", [make_nothing, Path.mkdir, make_link_to_nothing, make_link_to_itself, make_pipe])
def test_path_that_is_no_file_is_named_with_its_place(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, make: Callable[[Path], None]
) -> None:
    make(Path("place"))
    monkeypatch.setenv("CREDITS_CONFIG", "place")
    assert re.match(rf"CREDITS_CONFIG names 'place', which .* in {re.escape(str(tmp_path))}", refusal())


@pytest.mark.parametrize("make", [Path.mkdir, make_link_to_nothing])
def test_file_of_the_default_name_that_cannot_be_read_stops_the_start(make: Callable[[Path], None]) -> None:
    make(Path("credits.toml"))
    assert refusal().startswith("credits.toml, which ")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CREDITS_PORT", "tcp://10.0.0.1:8080"),
        ("CREDITS_SERVICE_HOST", "10.0.0.1"),
        ("CREDITS_SERVICE_PORT", "8080"),
        ("CREDITS_GATEWAY_SERVICE_HOST", "fd00::1"),
        ("CREDITS_GATEWAY_SERVICE_PORT", "8080"),
        ("CREDITS_GATEWAY_SERVICE_PORT_HTTP_ALT", "8080"),
        ("CREDITS_GATEWAY_PORT", "tcp://[fd00::1]:8080"),
        ("CREDITS_GATEWAY_PORT_8080_TCP", "tcp://10.0.0.1:8080"),
        ("CREDITS_GATEWAY_PORT_8080_TCP_PROTO", "tcp"),
        ("CREDITS_GATEWAY_PORT_8080_TCP_PORT", "8080"),
        ("CREDITS_GATEWAY_PORT_8080_TCP_ADDR", "10.0.0.1"),
        ("CREDITS_CURRENCIES_OF_2_PORT", "udp://10.0.0.1:53"),
    ],
)
def test_variables_of_kubernetes_are_passed_over(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    assert load_settings().gateway.port == 8080


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("CREDITS_GATEWAY_PORT", "8081", "CREDITS_GATEWAY__PORT"),
        ("CREDITS_SERVICE_HOST", "somewhere", "no setting 'service_host'"),
        ("CREDITS_GATEWAY__PORT", "tcp://10.0.0.1:8080", "[gateway] port"),
        ("CREDITS_CONFIGURATION", "my.toml", "no setting 'configuration'"),
        ("CREDITS_BROKR", "x", "no setting 'brokr'"),
        ("CREDITS_BROKER", "x", "[broker] is a table"),
        ("CREDITS_BROKER", '{"shards": 3', "[broker] is a table"),
        ("CREDITS_BROKER", '{"shards": 0}', "[broker] shards"),
        ("CREDITS_", "x", "no name of a setting"),
        ("CREDITS_BROKER__", "x", "no name of a setting"),
        ("CREDITS_A" + "__A" * 20, "x", "no name of a setting"),
        ("CREDITS_BROKER__SHARDS", "", "[broker] shards"),
        ("CREDITS_BROKER__SHARDS__MORE", "1", "[broker] shards"),
        ("CREDITS_GATEWAY__HOST", "", "[gateway] host"),
        ("CREDITS_INTEGRATIONS__KLAS", "{", "[integrations] klas"),
        ("CREDITS_OPERATOR__TOKENS", '["a', "[operator] tokens: begins with [, and so must be a JSON list"),
        ("CREDITS_OPERATOR__TOKENS", "[" * 100_000, "[operator] tokens: begins with [, and so must be"),
        ("CREDITS_CURRENCIES__mBTC", "5", "[currencies] mBTC"),
    ],
)
def test_variable_that_sets_nothing_is_named_with_its_defect(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, words: str
) -> None:
    monkeypatch.setenv(name, value)
    message = refusal()
    assert message.startswith(f"{name}: ")
    assert words in message


def test_variable_that_is_set_twice_in_different_letters_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CREDITS_BROKER__SHARDS", "1")
    monkeypatch.setenv("credits_broker__shards", "2")
    assert "CREDITS_BROKER__SHARDS and credits_broker__shards" in refusal()


def test_table_in_json_and_a_key_of_it_are_one_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CREDITS_BROKER", '{"shards": 3, "heartbeat_seconds": 7}')
    monkeypatch.setenv("CREDITS_BROKER__SHARDS", "4")
    broker = load_settings().broker
    assert (broker.shards, broker.heartbeat_seconds) == (4, 7)


@pytest.mark.parametrize(
    ("written", "tokens"),
    [
        ("plain-token-of-16-chars", ("plain-token-of-16-chars",)),
        ("env:TOKEN", ("env:TOKEN",)),
        ('["a", "b"]', ("a", "b")),
        ("[]", ()),
        ("{a", ("{a",)),
    ],
)
def test_one_text_is_a_list_of_one(monkeypatch: pytest.MonkeyPatch, written: str, tokens: tuple[str, ...]) -> None:
    monkeypatch.setenv("CREDITS_OPERATOR__TOKENS", written)
    assert load_settings().operator.tokens == tokens


def test_one_text_is_a_list_of_one_in_the_file_too(write_file: WriteFile) -> None:
    write_file('[operator]\ntokens = "plain-token-of-16-chars"\n')
    assert load_settings().operator.tokens == ("plain-token-of-16-chars",)


@pytest.mark.parametrize("code", ["mBTC", "btc", "BT", "BTC-PERP", "ÄÖÜ", "A2345678901"])
def test_code_that_the_tables_cannot_hold_is_refused_instead_of_changed(write_file: WriteFile, code: str) -> None:
    write_file(f'[currencies]\n"{code}" = 5\n')
    assert re.search(rf"my\.toml: \[currencies\] {code}: .*upper-case letters", refusal())
