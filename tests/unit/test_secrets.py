"""Secrets: read from where the settings say, several at once for rotation, and never shown."""

import os
from pathlib import Path

import pytest

from gateway.providers.signing import SigningKeys, hmac_sha256_hex
from shared.errors import SettingsError
from shared.secrets import read_secret


def signed(key: bytes) -> str:
    return hmac_sha256_hex(key, b"message")


def test_secrets_are_read_from_the_setting_the_environment_and_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEW_SECRET", "from-env")
    (tmp_path / "secret").write_text("from-file\n")
    secrets = SigningKeys.load(["env:NEW_SECRET", f"file:{tmp_path}/secret", "literal"], "integrations.klas")
    assert secrets.signing == b"from-env"
    assert all(secrets.verify(signed(key), signed) for key in (b"from-env", b"from-file", b"literal"))
    assert not secrets.verify(signed(b"another"), signed)


@pytest.mark.parametrize("named", ["env:NOT_SET_ANYWHERE", "file:/nowhere/secret", ""])
def test_missing_secret_stops_the_start_and_says_which(named: str) -> None:
    with pytest.raises(SettingsError, match=r"integrations\.klas: secret") as refused:
        SigningKeys.load([named], "integrations.klas")
    assert named in str(refused.value)


@pytest.mark.parametrize("end", ["\n", "\r\n", " ", "\t\n"])
def test_end_of_line_is_no_part_of_a_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str) -> None:
    monkeypatch.setenv("SECRET", f"secret{end}")
    (tmp_path / "secret").write_bytes(b"\xef\xbb\xbfsecret" + end.encode())
    named = ["env:SECRET", f"file:{tmp_path}/secret"]
    assert [read_secret(each, "here") for each in named] == [b"secret"] * 2
    with pytest.raises(SettingsError, match=r"^here: secret \(literal\) begins or ends with white space$"):
        read_secret(f"secret{end}", "here")


def test_secret_that_is_no_text_is_taken_byte_for_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environb, b"SECRET", b"\xff\xfe")
    assert read_secret("env:SECRET", "here") == b"\xff\xfe"
    assert read_secret(os.environ["SECRET"], "here") == b"\xff\xfe"


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("", "is no file"),
        (".", "is no file"),
        ("pipe", "is no file"),
        ("large", "is larger than 65536 bytes"),
        ("a\0b", "embedded null"),
        ("x" * 5_000, "File name too long"),
        ("blank", "is missing or empty"),
    ],
)
def test_file_that_can_hold_no_secret_stops_the_start_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, reason: str
) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    Path("large").write_bytes(b"x" * 65_537)
    Path("blank").write_bytes(b" \r\n")
    with pytest.raises(SettingsError, match=r"^here: secret .*file:") as refused:
        read_secret(f"file:{path}", "here")
    assert reason in str(refused.value)


def test_secret_is_not_shown() -> None:
    assert "hidden" not in repr(SigningKeys([b"hidden"]))


def test_signature_that_is_not_ascii_is_a_wrong_one_and_no_fault() -> None:
    assert not SigningKeys([b"key"]).verify("é" * 64, signed)
