"""Requests that are refused in the provider's own words, and move nothing."""

import json
from typing import Any

import msgspec
import pytest

from simulator.dialects.base import FOREIGN_KEY, PREVIOUS_KEY, readable
from simulator.dialects.values import Facts
from tests.providers.conformance.case import ConformanceCase
from tests.support.hostile import INJECTIONS, NO_AMOUNT_TEXTS, NO_AMOUNTS, NO_JSON
from tests.support.stack import Stack


class RefusesOthers(ConformanceCase):
    """Tests of requests that are no wins."""

    async def test_forged_win_moves_nothing(self, stack: Stack, facts: Facts) -> None:
        before = await stack.transfers()
        for what, callback in self.dialect.forged(facts):
            response = await self.send(stack, callback)
            tx = readable(callback.body, self.dialect.tx_field)
            try:
                self.dialect.assert_error(response, "bad_signature", tx=tx)
            except AssertionError as error:
                raise AssertionError(f"signature {what}: {response.text}") from error
        assert await stack.transfers() == before

    async def test_both_secrets_pass_while_one_replaces_the_other(self, stack: Stack, facts: Facts) -> None:
        response = await self.send(stack, self.dialect.credit(facts, PREVIOUS_KEY))
        paid = self.dialect.read_paid(response, facts, replay=False)
        assert await self.pay(stack, facts, replay=True) == paid
        await self.assert_refused(stack, self.dialect.credit(facts.another(), FOREIGN_KEY), "bad_signature")

    @pytest.mark.parametrize("body", NO_JSON.values(), ids=NO_JSON)
    async def test_body_that_is_no_request_gets_the_providers_own_error(
        self, stack: Stack, facts: Facts, body: bytes
    ) -> None:
        await self.assert_refused(stack, self.dialect.raw(body, facts=facts), "malformed")

    async def test_win_that_is_nested_too_deeply_is_asked_for_again_if_it_is_signed(
        self, stack: Stack, facts: Facts
    ) -> None:
        """A signature within the body can't be read there, so 'send it again' would be the reply to a stranger, too."""
        body = self.dialect.credit(facts).body[:-1] + b',"nobody reads this":' + b"[" * 3_000 + b"]" * 3_000
        what = "malformed" if self.dialect.signature_field else "unavailable"
        await self.assert_refused(stack, self.dialect.raw(body + b"}", facts=facts), what)

    @pytest.mark.parametrize("half", [rb"\ud83d", rb"\uDE00x"])
    async def test_half_of_a_surrogate_pair_in_a_needed_field_is_refused(
        self, stack: Stack, facts: Facts, half: bytes
    ) -> None:
        marked = facts.but(provider_tx_id=f"{facts.provider_tx_id}MARK")
        body = self.dialect.credit(marked).body.replace(b"MARK", half)
        response = await self.send(stack, self.dialect.raw(body, facts=marked))
        self.dialect.assert_error(response, "malformed", tx=None)
        assert await stack.transfers(facts.player_id) == []

    async def test_byte_order_mark_costs_no_win(self, stack: Stack, facts: Facts) -> None:
        marked = self.dialect.raw(b"\xef\xbb\xbf" + self.dialect.credit(facts).body, facts=facts)
        self.dialect.read_paid(await self.send(stack, marked), facts, replay=False)

    async def test_cut_request_moves_nothing(self, stack: Stack, facts: Facts) -> None:
        whole = self.dialect.credit(facts).body
        for size in range(1, len(whole), 11):
            await self.assert_refused(stack, self.dialect.raw(whole[:size], facts=facts), "malformed")

    async def test_bytes_that_are_no_text_are_told_wherever_they_stand(self, stack: Stack, facts: Facts) -> None:
        for strange in (b"\xff", b"\xed\xa0\x80", b"\xc0\x80"):
            body = self.dialect.credit(facts).body[:-1] + b',"nobody reads this":"' + strange + b'"}'
            await self.assert_refused(stack, self.dialect.raw(body, facts=facts), "malformed")

    async def test_required_field_that_is_missing_or_of_another_kind_is_told(self, stack: Stack, facts: Facts) -> None:
        fields = self.dialect.fields(facts)
        for name in self.dialect.required:
            without = {key: value for key, value in fields.items() if key != name}
            for changed in (without, {**fields, name: None}, {**fields, name: []}, {**fields, name: {}}):
                await self.assert_refused(stack, self.dialect.signed(changed, facts=facts), "malformed")

    @pytest.mark.parametrize("written", ["-5", "1.5", "1.0", "-0.0", "1e3", "12E0", "true", "012", "+12", "9" * 4_301])
    async def test_number_that_is_no_id_moves_nothing(self, stack: Stack, facts: Facts, written: str) -> None:
        for name in self.dialect.number_ids:
            fields = {**self.dialect.fields(facts), name: msgspec.Raw(written.encode())}
            await self.assert_refused(stack, self.dialect.signed(fields, facts=facts), "malformed")

    async def test_number_of_more_digits_than_an_id_has_moves_nothing(self, stack: Stack, facts: Facts) -> None:
        for name in self.dialect.number_ids:
            fields = {**self.dialect.fields(facts), name: msgspec.Raw(b"9" * 129)}
            what = "invalid_tx_id" if name == self.dialect.tx_field else "malformed"
            await self.assert_refused(stack, self.dialect.signed(fields, facts=facts), what)

    async def test_needed_field_that_is_too_long_is_told(self, stack: Stack, facts: Facts) -> None:
        for name in self.needed_texts(facts):
            changed = {**self.dialect.fields(facts), name: "x" * 2_000}
            await self.assert_refused(stack, self.dialect.signed(changed, facts=facts), "malformed")

    async def test_needed_text_that_no_database_holds_is_told(self, stack: Stack, facts: Facts) -> None:
        for name in self.needed_texts(facts):
            fields = self.dialect.fields(facts)
            request = self.dialect.signed({**fields, name: f"{fields[name]}\0"}, facts=facts)
            before = await stack.transfers()
            response = await self.send(stack, request)
            assert response.status_code < 500
            assert await stack.transfers() == before, name

    def needed_texts(self, facts: Facts) -> list[str]:
        fields = self.dialect.fields(facts)
        return [name for name in self.dialect.required if isinstance(fields[name], str)]

    async def test_fields_that_nobody_announced_cost_no_win(self, stack: Stack, facts: Facts) -> None:
        more: dict[str, Any] = {"new": {"deep": [1, 2.5, None]}, "Ünï": "çødé", "": ""}
        request = self.dialect.signed({**self.dialect.fields(facts), **more}, facts=facts)
        response = await self.send(stack, request)
        assert self.dialect.read_paid(response, facts, replay=False).balance == "10.5"

    @pytest.mark.parametrize("text", INJECTIONS)
    async def test_any_text_is_kept_as_it_came(self, stack: Stack, facts: Facts, text: str) -> None:
        fields = {**self.dialect.fields(facts), self.dialect.free_text_field: text}
        for replay in (False, True):
            response = await self.send(stack, self.dialect.signed(fields, facts=facts))
            self.dialect.read_paid(response, facts, replay=replay)
        [posted] = await stack.transfers(facts.player_id)
        assert text in {posted.round_id, *posted.details.values()}

    @pytest.mark.parametrize("written", NO_AMOUNTS)
    async def test_amount_that_is_no_amount_moves_nothing(self, stack: Stack, facts: Facts, written: str) -> None:
        await self.assert_refused(stack, self.dialect.with_amount(facts, written), "malformed")

    @pytest.mark.parametrize("text", NO_AMOUNT_TEXTS)
    async def test_amount_text_with_anything_around_it_moves_nothing(
        self, stack: Stack, facts: Facts, text: str
    ) -> None:
        written = json.dumps(text) if self.dialect.amount_is_number else text
        await self.assert_refused(stack, self.dialect.with_amount(facts, written), "malformed")

    async def test_unknown_player_is_told_so(self, stack: Stack, facts: Facts) -> None:
        for player_id in ("nobody", "DROPTABLEplayers"):
            nobody = facts.another(player_id=player_id, session_id="of-nobody")
            await self.assert_refused(stack, self.dialect.credit(nobody), self.dialect.unknown_player)

    async def test_players_ids_are_matched_to_the_letter(self, stack: Stack, facts: Facts) -> None:
        shouted = facts.but(player_id=facts.player_id.upper(), session_id=facts.session_id.upper())
        await self.assert_refused(stack, self.dialect.credit(shouted), self.dialect.unknown_player)

    @pytest.mark.parametrize(
        "content_type",
        [
            "application/json; charset=utf-8",
            "application/json, application/json",
            "application/x-www-form-urlencoded",
            "text/json",
            "json",
            None,
        ],
    )
    async def test_no_content_type_costs_a_win(self, stack: Stack, facts: Facts, content_type: str | None) -> None:
        """It is neither signed nor needed: the body is what it is."""
        for _ in range(3):
            right = self.dialect.credit(facts.another())
            headers = {name: value for name, value in right.headers.items() if name != "content-type"}
            if content_type is not None:
                headers["content-type"] = content_type
            response = await self.send(stack, right._replace(headers=headers))
            assert response.status_code == 200
        assert await stack.balance(facts.player_id) == 3 * 1050

    async def test_body_that_is_too_big_is_told_and_moves_nothing(self, stack: Stack, facts: Facts) -> None:
        padded = self.dialect.credit(facts).body + b" " * 70_000
        before = await stack.transfers()
        response = await self.send(stack, self.dialect.raw(padded, facts=facts))
        self.dialect.assert_error(response, "malformed", tx=None)
        assert await stack.transfers() == before

    @pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH"])
    async def test_another_method_moves_nothing(self, stack: Stack, facts: Facts, method: str) -> None:
        before = await stack.transfers()
        response = await self.send(stack, self.dialect.credit(facts), method)
        assert response.status_code == 405
        assert response.headers["allow"] == "POST"
        assert await stack.transfers() == before
