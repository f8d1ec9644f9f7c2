"""The certificate of a server: what is wrong with it is one line at the start, without the key."""

import ssl
from pathlib import Path

import pytest

from shared.errors import SettingsError
from shared.http.tls import server_context
from tests.support.certificates import Certificate, encrypt_key, make_authority, make_certificate


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_authority(tmp_path_factory.mktemp("authority"), "authority")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, authority: Certificate) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("server"), "server", authority)


def refusal(certificate: Path | str, key: Path | str) -> str:
    with pytest.raises(SettingsError) as refused:
        server_context(str(certificate), str(key), "gateway")
    said = str(refused.value)
    assert "\n" not in said
    return said


def test_without_paths_there_is_no_tls() -> None:
    assert server_context("", "", "gateway") is None


def test_versions_before_1_2_are_not_spoken(server: Certificate) -> None:
    context = server_context(str(server.certificate), str(server.key), "gateway")
    assert context is not None
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2


def test_one_path_without_the_other_is_told(server: Certificate) -> None:
    assert refusal(server.certificate, "").startswith("[gateway] tls_key: missing")
    assert refusal("", server.key).startswith("[gateway] tls_certificate: missing")


def test_file_that_cannot_be_read_is_named(server: Certificate, tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere.pem"
    assert refusal(nowhere, server.key) == (
        f"[gateway] tls_certificate: '{nowhere}' can't be read: No such file or directory"
    )
    assert refusal(server.certificate, tmp_path) == (f"[gateway] tls_key: '{tmp_path}' can't be read: Is a directory")
    assert refusal("a\0b", server.key) == "[gateway] tls_certificate: is not a path"


def test_key_of_another_certificate_is_told(server: Certificate, authority: Certificate) -> None:
    assert refusal(server.certificate, authority.key) == ("[gateway] tls_key: is not the key of tls_certificate")


def test_encrypted_key_is_told_and_nobody_is_asked_for_its_passphrase(server: Certificate) -> None:
    encrypted = encrypt_key(server.key, "hunter2")
    said = refusal(server.certificate, encrypted)
    assert said == "[gateway] tls_key: the key is encrypted; give one without a passphrase"


def test_what_is_no_pem_is_told_and_not_repeated(server: Certificate, tmp_path: Path) -> None:
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_text("hunter2\n")
    for said in (refusal(nonsense, server.key), refusal(server.certificate, nonsense)):
        assert said.startswith("[gateway] tls_certificate, tls_key: ")
        assert "hunter2" not in said


def test_key_in_place_of_a_certificate_is_told(server: Certificate) -> None:
    assert refusal(server.key, server.key).startswith("[gateway] tls_certificate, tls_key: ")
