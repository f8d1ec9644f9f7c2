"""What holds of every provider's verbs by themselves, without a ledger."""

from collections.abc import Mapping
from typing import Any, ClassVar
from uuid import uuid4

import pytest

from gateway.providers import build
from gateway.providers.contract import Provider, Refused, Win
from shared.credit import Credit
from shared.money import Currencies
from shared.outcome import Holder, Outcome, Receipt, Result
from tests.providers.dialect import KEY, SECRETS, Dialect, Facts

RECEIPT = Receipt("transfer-1", "EUR", 1050, 0, 2050, 500)


class Verbs:
    """The tests of one provider's file; its test module names the dialect and the table of codes."""

    dialect: ClassVar[Dialect]
    codes: ClassVar[Mapping[Result, Any]]

    def provider(self) -> Provider[Any, Any]:
        return build(self.dialect.name, self.dialect.settings, Currencies())

    def test_every_end_of_a_callback_has_its_code(self) -> None:
        assert set(self.codes) == set(Result)

    @pytest.mark.parametrize("result", Result)
    def test_every_end_of_a_callback_has_its_reply(self, result: Result) -> None:
        facts = Facts("player1", "session-1")
        paid = result in {Result.POSTED, Result.REPLAYED}
        reply = self.provider().render(
            self.dialect.credit(facts), Outcome(result, RECEIPT if paid else None, detail="")
        )
        assert (b"transfer-1" in reply.body) is paid

    def test_sample_is_what_the_provider_would_send(self) -> None:
        win = Win(str(uuid4()), "player1", "session-1")
        composed = self.provider().compose(win)
        facts = Facts("player1", "session-1", win.provider_tx_id, win.amount, win.currency, win.round_id)
        assert composed == self.dialect.resigned(composed, facts)

    def test_sample_passes_every_verb(self) -> None:
        provider = self.provider()
        win = Win(str(uuid4()), "player1", "session-1")
        callback = provider.compose(win)
        provider.authenticate(callback)
        credit = provider.normalize(provider.parse(callback), Holder("player1", "EUR", 0, 0))
        assert isinstance(credit, Credit)
        assert credit.identity == (self.dialect.name, win.provider_tx_id)
        assert (credit.player_id, credit.currency, credit.amount_minor) == ("player1", "EUR", 1050)

    def test_secrets_and_signatures_stay_out_of_what_is_shown(self) -> None:
        provider = self.provider()
        facts = Facts("player1", "session-1")
        shown = repr(provider) + repr(provider.secrets)
        for _, forged in self.dialect.forged(facts):
            with pytest.raises(Refused) as refused:
                provider.authenticate(forged)
            shown += str(refused.value) + repr(refused.value)
        assert not any(secret in shown for secret in SECRETS)
        assert KEY.hex() not in shown
