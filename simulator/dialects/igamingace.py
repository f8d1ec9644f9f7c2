"""iGamingAce, from its own side.

Its page has it wait for 10 s, and then send up to 50 times more, 10 s apart.
"""

import hashlib
import hmac
from collections.abc import Hashable, Iterable, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any, ClassVar, Final
from urllib.parse import urlencode
from uuid import uuid4

import msgspec

from gateway.providers.base import Callback
from simulator.dialects.base import (
    FOREIGN_KEY,
    KEY,
    PREVIOUS_KEY,
    Dialect,
    Fields,
    Written,
    body_of,
    expect,
    expect_numbers,
    spoken,
    take_message,
)
from simulator.dialects.values import Altered, Facts, HttpResponse, Paid, Retries

AGENT: Final = "Partner01"


class IGamingAceDialect(Dialect):
    """One iGamingAce agent."""

    name = "igamingace"
    path = "Deposit"
    required = ("agentID", "userID", "amount", "transactionID")
    amount_is_number = True
    decimals_max = 2
    number_ids = ("userID", "transactionID")
    tx_field = "transactionID"
    player_field = "userID"
    signature_field = "sign"
    free_text_field = "roundID"
    silent_about = frozenset({"currency"})
    account: ClassVar = {"agent_id": AGENT}
    usual_settings: ClassVar = {"currency": "EUR"}

    retries = Retries(window_seconds=10.0, pause_seconds=10.0)
    paid_codes = frozenset({(200, 0), (200, 11)})
    paid_mark = b'"code":0'
    replay_mark = b'"code":11'
    receipt_fields = ("platformTransactionID", "balance")
    codes: Mapping[str, tuple[int, int]] = {
        "conflict": (200, 2),
        "unknown_player": (200, 5),
        "unknown_session": (200, 1),
        "session_closed": (200, 1),
        "wrong_currency": (200, 2),
        "balance_limit": (200, 1),
        "bad_signature": (200, 3),
        "unknown_caller": (200, 4),
        "malformed": (200, 2),
        "invalid_tx_id": (200, 2),
        "unavailable": (502, 1),
        "unpostable": (502, 1),
    }

    def __init__(self, keys: Sequence[bytes] = (KEY, PREVIOUS_KEY), **options: Any) -> None:
        """Take the status of 'send it again', and the version of the sign, where these are set."""
        super().__init__(keys, **options)
        again = (options.get("unavailable_status", 502), 1)
        self.codes = {**self.codes, "unavailable": again, "unpostable": again}
        self._version = 1 if options.get("sign_version") == 1 else 2

    def fields(self, facts: Facts) -> Fields:
        return {
            "agentID": self.options["agent_id"],
            "userID": facts.player_id,
            "amount": msgspec.Raw(facts.amount.encode()),
            "refTransactionID": "bet-1",
            "transactionID": facts.provider_tx_id,
            "roundID": facts.round_id,
            "gameID": 1566,
            "freeSpinID": None,
        }

    def signed(self, fields: Fields, key: bytes | None = None, *, facts: Facts) -> Callback:
        del facts
        return sent(body_of({**fields, "sign": signature_of(fields, key or self.key, self._version)}))

    def raw(self, body: bytes, *, facts: Facts) -> Callback:
        del facts
        return sent(body)

    def forged(self, facts: Facts) -> Iterable[tuple[str, Callback]]:
        fields = self.fields(facts)
        right = signature_of(fields, self.key, self._version)
        yield "by another's key", self.credit(facts, FOREIGN_KEY)
        yield "none", sent(body_of(fields))
        for wrong in (None, "", "0" * 64, right[:-1], right + "0", right.lower(), "ë"):
            yield repr(wrong), sent(body_of({**fields, "sign": wrong}))
        for name, changed in (
            ("amount", msgspec.Raw(b"10.51")),
            ("userID", facts.player_id + "1"),
            ("transactionID", str(uuid4())),
            ("roundID", "round-2"),
            ("refTransactionID", "bet-2"),
            ("gameID", 1567),
        ):
            yield f"{name} changed", sent(body_of({**fields, name: changed, "sign": right}))

    def altered(self, facts: Facts, other: Facts) -> Iterable[Altered]:
        yield Altered("amount_minor", 1051, self.credit(facts.but(amount="10.51")))
        yield Altered("player_id", other.player_id, self.credit(facts.but(player_id=other.player_id)))
        yield Altered("round_id", "round-2", self.credit(facts.but(round_id="round-2")))
        yield Altered("bet_id", "bet-2", self.saying(facts, refTransactionID="bet-2"))
        yield Altered("game_id", "1567", self.saying(facts, gameID=1567))
        yield Altered("kind", "free_spin", self.saying(facts, freeSpinID="f-1"))

    def redelivered(self, facts: Facts) -> Iterable[tuple[str, Callback]]:
        yield "amount", self.saying(facts, amount=msgspec.Raw(b"10.5000"))
        yield "gameID", self.saying(facts, gameID="1566")
        yield "freeSpinID", self.saying(facts, freeSpinID="")
        yield "encoding", form_of(self.fields(facts))
        yield "secret", self.credit(facts, PREVIOUS_KEY)

    def saying(self, facts: Facts, **changes: Any) -> Callback:
        """Return a request with other fields."""
        return self.signed({**self.fields(facts), **changes}, facts=facts)

    def without_bet(self, facts: Facts) -> Callback:
        return self.signed({**self.fields(facts), "refTransactionID": None}, facts=facts)

    def recorded(self, facts: Facts) -> dict[str, Any]:
        return {
            "kind": "win",
            "round_id": facts.round_id,
            "round_closed": False,
            "game_id": "1566",
            "bet_id": "bet-1",
            "session_id": None,
            "details": {},
        }

    def status_of(self, what: str) -> int:
        return self.codes[what][0]

    def code_of(self, response: HttpResponse, reply: Fields) -> Hashable:
        return response.status_code, int(reply["code"])

    def read_paid(self, response: HttpResponse, facts: Facts, *, replay: bool) -> Paid:
        del facts
        reply = self.exact_fields(response)
        expect(response.status_code, 200)
        expect(list(reply), ["code", "message", "platformTransactionID", "balance"])
        expect(reply["code"], "11" if replay else "0")
        expect(bool(reply["message"]), replay)
        expect_numbers(reply["code"], reply["balance"])
        return Paid(reply["platformTransactionID"], reply["balance"])

    def assert_error(self, response: HttpResponse, what: str, *, tx: str | None) -> None:
        del tx  # its errors name nothing
        status, code = self.codes[what]
        expect(response.status_code, status)
        expect(take_message(self.exact_fields(response), "message"), {"code": Written(code)})


def signature_of(fields: Fields, key: bytes = KEY, version: int = 2) -> str:
    """Return the sign of these fields, whatever they are; an amount gets two decimals where it can."""
    names = ["agentID", "userID", "amount", "refTransactionID", "transactionID", "roundID", "gameID"]
    signed = {**fields, "amount": two_decimals(spoken(fields.get("amount")))}
    message = "".join(spoken(signed.get(name)) for name in (names if version == 2 else names[:-1]))
    return hmac.new(key, message.encode(), hashlib.sha256).hexdigest().upper()


def two_decimals(written: str) -> str:
    """Return an amount as iGamingAce signs it, or as it is where that can't be done."""
    try:
        value = Decimal(written)
        rounded = value.quantize(Decimal("0.01"))
    except InvalidOperation:
        return written
    return f"{rounded:f}" if rounded == value else written


def sent(body: bytes) -> Callback:
    """Return a request of this body."""
    return Callback("Deposit", body, {"content-type": "application/json"})


def form_of(fields: Fields, content_type: str = "application/x-www-form-urlencoded") -> Callback:
    """Return a signed request whose body is a form."""
    texts = {name: spoken(value) for name, value in fields.items()}
    body = urlencode({**texts, "sign": signature_of(texts)}).encode()
    return Callback("Deposit", body, {"content-type": content_type})


DIALECT: Final = IGamingAceDialect()
