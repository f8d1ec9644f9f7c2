"""What a provider makes of a reply: whether its win is paid, and what it was told about it.

Written from the providers' pages, like the adapters, but from the other side; nothing is taken from them but
an integration's settings.
"""

import hmac
import json
from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Any, Final
from uuid import UUID

from gateway.providers.base import Provider
from shared.errors import MoneyError
from shared.outcome import OutcomeCode
from simulator.client import Response
from simulator.history import Receipt, Said

Told = tuple[Said, Receipt | None]
Content = Mapping[str, Any]
Reading = tuple[Said, Any, Any]
"""What it says; of a paid win the transfer's id and the balance, both as they stand there."""

_KLAS: Final = {
    "OK": Said.PAID,
    "ERR_TIMEOUT": Said.ASK_AGAIN,
    "ERR_UNKNOWN": Said.REFUSED,
    "ERR_INTEGRITY_CHECK_FAILED": Said.REFUSED,
}
_HPGAMES_ASK_AGAIN: Final = {OutcomeCode.UNPOSTABLE: 1000, OutcomeCode.UNAVAILABLE: 1008}
_IGAMINGACE: Final = {
    "0": Said.PAID,
    "11": Said.PAID,
    **dict.fromkeys(["1", "2", "3", "4", "5"], Said.REFUSED),
}


def told(provider: Provider[Any, Any], currency: str, response: Response) -> Told:
    """Return what a reply to a credit says. `currency` is that of the win."""
    try:
        content = json.loads(response.body, parse_int=str, parse_float=str)
        said, transfer_id, balance = _READERS[provider.settings.provider](provider, response, content)
        if said is not Said.PAID:
            return said, None
        return said, Receipt(str(UUID(transfer_id)), provider.currencies.to_minor(balance, currency))
    except (ValueError, KeyError, TypeError, AttributeError, MoneyError):
        return Said.GARBLED, None


def _klas(provider: Provider[Any, Any], response: Response, content: Content) -> Reading:
    right = hmac.new(provider.secrets.signing, response.body, sha256).hexdigest()
    if response.status != 200 or not hmac.compare_digest(right, response.headers["x-signature"].lower()):
        raise ValueError("not klas's status, or not signed")
    return _KLAS[content["status_code"]], content.get("casino_transfer_id"), content.get("balance")


def _gpas(provider: Provider[Any, Any], response: Response, content: Content) -> Reading:
    del provider
    if response.status == 200:
        if content["status"] != "CONFIRMED":
            raise ValueError("neither confirmed nor an error")
        return Said.PAID, content["movementId"], content["leftBalance"]
    retryable = response.status == 500 and content["code"] == "1001"
    if not retryable and response.status != 400:
        raise ValueError("a status that gpas does not know")
    return Said.ASK_AGAIN if retryable else Said.REFUSED, None, None


def _hpgames(provider: Provider[Any, Any], response: Response, content: Content) -> Reading:
    if response.status != 200:
        raise ValueError("a status that HPGames does not know")
    code = int(content["errorCode"])
    if not code:
        return Said.PAID, content["accountTransactionId"], content["balance"]
    ask_again = {provider.settings.error_codes.get(*ours) for ours in _HPGAMES_ASK_AGAIN.items()}
    return Said.ASK_AGAIN if code in ask_again else Said.REFUSED, None, None


def _igamingace(provider: Provider[Any, Any], response: Response, content: Content) -> Reading:
    code, unavailable_status = content["code"], provider.settings.unavailable_status
    if code == "1" and response.status == unavailable_status:
        return Said.ASK_AGAIN, None, None
    if response.status != 200:
        raise ValueError("a status that iGamingAce does not know")
    return _IGAMINGACE[code], content.get("platformTransactionID"), content.get("balance")


_READERS: Final[Mapping[str, Callable[[Provider[Any, Any], Response, Content], Reading]]] = {
    "klas": _klas,
    "gpas": _gpas,
    "hpgames": _hpgames,
    "igamingace": _igamingace,
}
