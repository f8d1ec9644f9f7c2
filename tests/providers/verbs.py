"""Tests of every provider's verbs by themselves, without a ledger."""

from collections.abc import Mapping
from typing import Any, ClassVar, Final
from uuid import uuid4

import httpx
import pytest

from gateway.providers.base import Callback, CallbackRejected, Provider, Win
from gateway.providers.registry import build
from shared.money import Currencies
from shared.operations import Credit
from shared.outcome import Outcome, OutcomeCode, Receipt
from shared.queries import PlayerRef
from simulator.dialects.base import KEY, SECRETS, Dialect
from simulator.dialects.values import Facts

RECEIPT: Final = Receipt("transfer-1", "EUR", 1050, 0, 2550, 0)


class Verbs:
    """The tests of one provider's file; its test module names the dialect and the table of codes."""

    dialect: ClassVar[Dialect]
    codes: ClassVar[Mapping[OutcomeCode, Any]]

    def provider(self) -> Provider[Any, Any]:
        return build(self.dialect.name, self.dialect.settings, Currencies())

    def test_every_end_of_a_callback_has_its_code(self) -> None:
        assert set(self.codes) == set(OutcomeCode)

    @pytest.mark.parametrize("result", OutcomeCode)
    def test_every_end_of_a_callback_has_its_reply(self, result: OutcomeCode) -> None:
        facts = Facts("player1", "session-1")
        callback, replay = self.dialect.credit(facts), result is OutcomeCode.REPLAYED
        if replay or result is OutcomeCode.POSTED:
            response = self.rendered(callback, Outcome(result, RECEIPT))
            assert self.dialect.read_paid(response, facts, replay=replay).balance == "25.5"
        else:
            for outcome in (
                Outcome(result),
                Outcome(result, detail="x" * 1_000),
                Outcome(result, mismatched_fields=Credit.FINGERPRINT),
            ):
                response = self.rendered(callback, outcome)
                self.dialect.assert_error(response, result, tx=facts.provider_tx_id)

    def rendered(self, callback: Callback, outcome: Outcome) -> httpx.Response:
        reply = self.provider().render(callback, outcome)
        headers = [*reply.headers, ("content-type", "application/json")]
        return httpx.Response(reply.status, headers=headers, content=reply.body)

    def test_sample_is_what_the_provider_would_send(self) -> None:
        win = Win(str(uuid4()), "player1", "session-1")
        composed = self.provider().sample_request(win)
        facts = Facts("player1", "session-1", win.provider_tx_id, win.amount, win.currency, win.round_id)
        assert composed == self.dialect.resigned(composed, facts)

    def test_sample_passes_every_verb(self) -> None:
        provider = self.provider()
        win = Win(str(uuid4()), "player1", "session-1")
        callback = provider.sample_request(win)
        provider.authenticate(callback)
        credit = provider.normalize(provider.parse(callback), PlayerRef("player1", "EUR"))
        assert isinstance(credit, Credit)
        assert credit.identity == (self.dialect.name, win.provider_tx_id)
        assert (credit.player_id, credit.currency, credit.amount_minor) == ("player1", "EUR", 1050)

    def test_secrets_and_signatures_stay_out_of_what_is_shown(self) -> None:
        provider = self.provider()
        facts = Facts("player1", "session-1")
        shown = repr(provider) + repr(provider.secrets)
        for _, forged in self.dialect.forged(facts):
            with pytest.raises(CallbackRejected) as refused:
                provider.authenticate(forged)
            shown += str(refused.value) + repr(refused.value)
        assert not any(secret in shown for secret in SECRETS)
        assert KEY.hex() not in shown
