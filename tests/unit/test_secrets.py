"""Secrets: read from where the settings say, several at once for rotation, and never shown."""

from pathlib import Path

import pytest

from gateway.signing import Secrets, hmac_sha256_hex
from shared.errors import SettingsError


def signed(key: bytes) -> str:
    return hmac_sha256_hex(key, b"message")


def test_secrets_are_read_from_the_setting_the_environment_and_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEW_SECRET", "from-env")
    (tmp_path / "secret").write_text("from-file\n")
    secrets = Secrets.load(["env:NEW_SECRET", f"file:{tmp_path}/secret", "literal"], "integrations.klas")
    assert secrets.signing == b"from-env"
    assert all(secrets.verify(signed(key), signed) for key in (b"from-env", b"from-file", b"literal"))
    assert not secrets.verify(signed(b"another"), signed)


@pytest.mark.parametrize("named", ["env:NOT_SET_ANYWHERE", "file:/nowhere/secret", ""])
def test_missing_secret_stops_the_start_and_says_which(named: str) -> None:
    with pytest.raises(SettingsError, match=r"integrations\.klas: secret") as refused:
        Secrets.load([named], "integrations.klas")
    assert named in str(refused.value)


def test_secret_is_not_shown() -> None:
    assert "hidden" not in repr(Secrets([b"hidden"]))


def test_signature_that_is_not_ascii_is_a_wrong_one_and_no_fault() -> None:
    assert not Secrets([b"key"]).verify("é" * 64, signed)
