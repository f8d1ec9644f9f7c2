"""A certificate authority of a test's own, by the openssl command."""

import subprocess
from pathlib import Path
from typing import NamedTuple

_BITS = "rsa:2048"


class Certificate(NamedTuple):
    """Paths of PEM files."""

    certificate: Path
    key: Path


def make_authority(directory: Path, name: str) -> Certificate:
    """Make a CA."""
    made = Certificate(directory / f"{name}.pem", directory / f"{name}.key")
    _openssl(
        "req", "-x509", "-newkey", _BITS, "-nodes", "-days", "1", "-subj", f"/CN={name}",
        "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign",
        "-keyout", made.key, "-out", made.certificate,
    )  # fmt: skip
    return made


def make_certificate(directory: Path, name: str, authority: Certificate) -> Certificate:
    """Make a server's certificate for 127.0.0.1, signed by a CA."""
    made, request = (
        Certificate(directory / f"{name}.pem", directory / f"{name}.key"),
        directory / f"{name}.csr",
    )
    extensions = directory / f"{name}.ext"
    extensions.write_text("subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth\n")
    _openssl("req", "-newkey", _BITS, "-nodes", "-subj", f"/CN={name}", "-keyout", made.key, "-out", request)
    _openssl(
        "x509", "-req", "-days", "1", "-in", request, "-CA", authority.certificate, "-CAkey", authority.key,
        "-CAcreateserial", "-extfile", extensions, "-out", made.certificate,
    )  # fmt: skip
    return made


def encrypt_key(key: Path, passphrase: str) -> Path:
    """Return the path of a copy of a key that only a passphrase opens."""
    encrypted = key.with_suffix(".encrypted")
    _openssl("pkey", "-in", key, "-aes256", "-passout", f"pass:{passphrase}", "-out", encrypted)
    return encrypted


def _openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)
