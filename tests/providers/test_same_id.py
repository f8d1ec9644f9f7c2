"""The whole matrix of what may come under an id that is paid: every field that makes it another win, and
every one that only makes it another delivery, for each provider that has such a field.
"""

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any
from uuid import uuid4

import pytest
import structlog.testing
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import select

from gateway.providers.contract import Callback
from shared.credit import FINGERPRINT
from tests.providers.dialect import PREVIOUS_KEY, Dialect, Facts
from tests.providers.dialects import gpas, hpgames, igamingace, klas
from tests.providers.stack import EmbeddedStack, embedded_stack
from worker import schema

DIALECTS: dict[str, Dialect] = {
    d.name: d for d in (klas.DIALECT, gpas.DIALECT, hpgames.DIALECT, igamingace.DIALECT)
}
FIELDS: Mapping[str, str] = {
    "amount": "amount_minor",
    "player": "player_id",
    "currency": "currency",
    "round": "round_id",
    "game": "game_id",
    "bet": "bet_id",
    "kind": "kind",
    "type": "kind",
}
"""What a dialect calls a change, and the field of the fingerprint that it is."""

ELSEWHERE = Facts(player_id="someoneelse", session_id="session-of-someone-else")
MATRIX = [
    (name, what)
    for name, dialect in DIALECTS.items()
    for what, _ in dialect.altered(Facts(player_id="anybody", session_id="s"), ELSEWHERE)
]

DELIVERIES: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "klas": {
        "request_id": {"request_id": "another"},
        "timestamp": {"timestamp": 1_710_000_000_999},
        "session": {"session_id": "another"},
        "end of the round": {"round_completed": False},
        "reason": {"reason": "another"},
    },
    "gpas": {"description": {"description": "another"}},
    "hpgames": {
        "timestamp": {"timestamp": 1_999_999_999_999},
        "token": {"authToken": "another"},
        "creation": {"created": "2027-01-01T00:00:00Z"},
    },
    "igamingace": {},
}
"""Fields that name a delivery attempt, with another value than the first delivery had."""


@pytest.fixture(scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EmbeddedStack]:
    database_url = f"sqlite+aiosqlite:///{tmp_path_factory.mktemp('ledger')}/credits.db"
    integrations = {name: {**d.settings, "reply_within_seconds": 30} for name, d in DIALECTS.items()}
    async with embedded_stack(database_url, integrations) as running:
        yield running
        assert await running.broken_invariants() == []


async def new_player(stack: EmbeddedStack) -> Facts:
    facts = Facts(player_id=f"player{uuid4().hex[:12]}", session_id=f"session-{uuid4()}")
    await stack.add_player(facts.player_id, "EUR")
    await stack.open_session("gpas", facts.session_id, facts.player_id)
    return facts


async def counted(stack: EmbeddedStack, integration: str) -> dict[str, float]:
    """Return how many conflicts were counted, by field."""
    exposition = (await stack.http.get("/metrics")).text
    return {
        sample.labels["field"]: sample.value
        for family in text_string_to_metric_families(exposition)
        for sample in family.samples
        if sample.name == "credits_conflicts_total" and sample.labels["integration"] == integration
    }


async def offered(stack: EmbeddedStack, provider_tx_id: str) -> list[dict[str, Any]]:
    """Return what is written down of the conflicts with a transfer."""
    of_transfer = schema.transfers.c.provider_tx_id == provider_tx_id
    written = (
        select(schema.conflicts.c.offered).join_from(schema.conflicts, schema.transfers).where(of_transfer)
    )
    async with stack.engine.connect() as connection:
        return [json.loads(row) for row in (await connection.execute(written)).scalars()]


@pytest.mark.parametrize(("name", "what"), MATRIX)
async def test_other_content_under_a_paid_id_moves_nothing_and_is_named(
    stack: EmbeddedStack, name: str, what: str
) -> None:
    dialect, facts, other = DIALECTS[name], await new_player(stack), await new_player(stack)
    field = FIELDS[what]
    paid = dialect.read_paid(await stack.send(name, dialect.credit(facts)), facts, replay=False)
    before = (await counted(stack, name)).get(field, 0)
    altered = dict(dialect.altered(facts, other))[what]
    with structlog.testing.capture_logs() as logs:
        response = await stack.send(name, altered)
    dialect.assert_error(response, "conflict", tx=facts.provider_tx_id)
    [logged] = [entry for entry in logs if entry["event"] == "callback"]
    assert (logged["log_level"], logged["outcome"]) == ("error", "conflict")
    assert logged["differing"] == (field,)
    assert logged["provider_tx_id"] == facts.provider_tx_id
    assert (await counted(stack, name))[field] == before + 1
    [written] = await offered(stack, facts.provider_tx_id)
    assert set(written) == {field}
    assert await stack.balance(facts.player_id) == 1_050
    assert await stack.balance(other.player_id) == 0
    repeated = dialect.read_paid(await stack.send(name, dialect.credit(facts)), facts, replay=True)
    assert repeated.transfer_id == paid.transfer_id


def deliveries(dialect: Dialect, facts: Facts) -> dict[str, Callback]:
    """Return the win of `facts`, delivered again in every way that this provider has."""
    first = dialect.fields(facts)
    again = {
        what: dialect.signed({**first, **changes}, facts=facts)
        for what, changes in DELIVERIES[dialect.name].items()
    }
    again["a rotated secret"] = dialect.credit(facts, PREVIOUS_KEY)
    again["a delivery that tells its number"] = dialect.credit(facts.but(delivery=2))
    return again


@pytest.mark.parametrize("name", DIALECTS)
async def test_other_delivery_of_a_paid_win_repeats_the_original_reply(
    stack: EmbeddedStack, name: str
) -> None:
    dialect, facts = DIALECTS[name], await new_player(stack)
    paid = dialect.read_paid(await stack.send(name, dialect.credit(facts)), facts, replay=False)
    later = facts.another(amount="0.25")
    dialect.read_paid(await stack.send(name, dialect.credit(later)), later, replay=False)
    for callback in deliveries(dialect, facts).values():
        assert dialect.read_paid(await stack.send(name, callback), facts, replay=True) == paid
    assert await stack.balance(facts.player_id) == 1_075
    assert await offered(stack, facts.provider_tx_id) == []


def test_matrix_has_every_field_that_makes_another_win() -> None:
    assert {FIELDS[what] for _, what in MATRIX} == set(FINGERPRINT)
