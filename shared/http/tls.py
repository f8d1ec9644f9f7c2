"""Loads a server's TLS certificate and checks it at the start of the process."""

import ssl
from pathlib import Path
from typing import Final

from shared.errors import SettingsError

PROTOCOLS: Final = ("http/1.1",)


def server_context(certificate: str, key: str, table: str) -> ssl.SSLContext | None:
    """Return the TLS 1.2 and 1.3 context of the server of `[table]`, or None where neither path is set.

    `certificate` is a PEM file with the server's certificate, then the intermediate ones; `key` is the PEM file
    of its private key, without a passphrase. Raises SettingsError with one line that shows neither.
    """
    if not certificate and not key:
        return None
    if not certificate or not key:
        missing = "tls_key" if certificate else "tls_certificate"
        raise SettingsError(f"[{table}] {missing}: missing; set both tls_certificate and tls_key, or neither")
    for setting, path in (("tls_certificate", certificate), ("tls_key", key)):
        _require_readable(f"[{table}] {setting}", path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(PROTOCOLS)
    _load(context, certificate, key, table)
    return context


def _load(context: ssl.SSLContext, certificate: str, key: str, table: str) -> None:
    is_encrypted = False

    def no_passphrase() -> str:  # without a callback OpenSSL would prompt at the terminal
        nonlocal is_encrypted
        is_encrypted = True
        return ""

    try:
        context.load_cert_chain(certificate, key, no_passphrase)
    except (ssl.SSLError, OSError, ValueError) as error:
        if is_encrypted:
            raise SettingsError(f"[{table}] tls_key: the key is encrypted; give one without a passphrase") from None
        reason = getattr(error, "reason", None)
        if reason == "KEY_VALUES_MISMATCH":
            raise SettingsError(f"[{table}] tls_key: is not the key of tls_certificate") from None
        detail = reason or type(error).__name__
        raise SettingsError(f"[{table}] tls_certificate, tls_key: no usable PEM: {detail}") from None


def _require_readable(setting: str, path: str) -> None:
    try:
        with Path(path).open("rb") as file:
            file.read(1)
    except OSError as error:
        raise SettingsError(f"{setting}: {path!r} can't be read: {error.strerror}") from None
    except ValueError:
        raise SettingsError(f"{setting}: is not a path") from None
