"""The simulated providers understand every reply that the gateway gives, and nothing else."""

from typing import Any

import pytest
from typer.testing import CliRunner

from gateway.providers.base import CallbackRejected, Provider, Win
from gateway.providers.registry import build
from shared.money import Currencies
from shared.outcome import Outcome, OutcomeCode, Receipt
from simulator import history
from simulator.__main__ import app
from simulator.client import Response
from simulator.dialects import DIALECTS, dialect_of, read_reply
from simulator.dialects.base import FOREIGN_KEY
from simulator.dialects.values import Facts
from simulator.history import ReplyMeaning
from tests.support.paths import ROOT
from tests.support.system import INTEGRATIONS
from worker.cli.exit_codes import ExitCode

TRANSFER_ID = "01a1fe25-4589-77e0-bd12-b262aa440f3e"
RECEIPT = Receipt(TRANSFER_ID, "EUR", 1050, 0, 2050, 50)
MEANINGS = {
    OutcomeCode.POSTED: ReplyMeaning.PAID,
    OutcomeCode.REPLAYED: ReplyMeaning.PAID,
    OutcomeCode.UNAVAILABLE: ReplyMeaning.ASK_AGAIN,
    OutcomeCode.UNPOSTABLE: ReplyMeaning.ASK_AGAIN,
}
PROVIDERS = {name: build(name, table, Currencies()) for name, table in INTEGRATIONS.items()}
everyone = pytest.mark.parametrize("provider", PROVIDERS.values(), ids=PROVIDERS)


def replied(provider: Provider[Any, Any], result: OutcomeCode) -> Response:
    """Return what the gateway replies to a win with this result."""
    callback = provider.sample_request(Win("3f0a7d3e-8d0c-4b32-8cfd-0d2e0a6f5c11", "anna", "session"))
    receipt = RECEIPT if MEANINGS.get(result) is ReplyMeaning.PAID else None
    reply = provider.render(callback, Outcome(result, receipt))
    return Response(reply.status, reply.body, {name.lower(): value for name, value in reply.headers})


@everyone
@pytest.mark.parametrize("result", OutcomeCode)
def test_every_reply_is_understood(provider: Provider[Any, Any], result: OutcomeCode) -> None:
    meaning, receipt = read_reply(provider, "EUR", replied(provider, result))
    codes = DIALECTS[provider.name].codes
    means_again = codes.get(result) in {codes["unavailable"], codes["unpostable"]}  # as HPGames's general code does
    assert meaning is MEANINGS.get(result, ReplyMeaning.ASK_AGAIN if means_again else ReplyMeaning.REFUSED)
    assert receipt == (history.Receipt(TRANSFER_ID, 2100) if meaning is ReplyMeaning.PAID else None)


@everyone
@pytest.mark.parametrize("result", OutcomeCode)
def test_marks_of_paid_wins_are_in_no_other_reply(provider: Provider[Any, Any], result: OutcomeCode) -> None:
    dialect, body = DIALECTS[provider.name], replied(provider, result).body
    replay_mark = dialect.replay_mark or dialect.paid_mark
    assert (dialect.paid_mark in body) is (
        result is OutcomeCode.POSTED or (result is OutcomeCode.REPLAYED and dialect.replay_mark is None)
    )
    assert (replay_mark in body) is (
        result is OutcomeCode.REPLAYED or (result is OutcomeCode.POSTED and dialect.replay_mark is None)
    )


@everyone
@pytest.mark.parametrize(
    "response",
    [
        Response(200, b""),
        Response(200, b"{}"),
        Response(200, b"[]"),
        Response(200, b"Internal Server Error"),
        Response(503, b"<html>"),
    ],
)
def test_what_is_in_no_protocol_is_garbled(provider: Provider[Any, Any], response: Response) -> None:
    assert read_reply(provider, "EUR", response) == (ReplyMeaning.GARBLED, None)


@everyone
def test_a_reply_of_another_status_is_garbled(provider: Provider[Any, Any]) -> None:
    paid = replied(provider, OutcomeCode.POSTED)
    assert read_reply(provider, "EUR", paid._replace(status=404)) == (ReplyMeaning.GARBLED, None)


def test_a_reply_that_is_not_signed_is_garbled() -> None:
    paid = replied(PROVIDERS["klas"], OutcomeCode.POSTED)
    altered = paid._replace(body=paid.body.replace(b"10.5", b"99.5"))
    assert altered != paid
    for forged in (altered, paid._replace(headers={})):
        assert read_reply(PROVIDERS["klas"], "EUR", forged) == (ReplyMeaning.GARBLED, None)


def test_pauses_grow_up_to_a_bound() -> None:
    assert [DIALECTS["klas"].retries.pause_before(n) for n in (2, 3, 4, 50)] == [1, 2, 4, 60]
    assert {DIALECTS["igamingace"].retries.pause_before(n) for n in range(2, 52)} == {10}


def test_player_without_a_session_has_no_wins_of_a_provider_that_names_sessions_only() -> None:
    arguments = ["http://127.0.0.1:1", "--player", "anna", "--only", "gpas"]
    ended = CliRunner().invoke(app, arguments, env={"CREDITS_CONFIG": str(ROOT / "gateway/demo.toml")})
    assert ended.exit_code == ExitCode.USAGE
    assert "ID=SESSION" in ended.stderr


def configured(name: str, **settings: object) -> Provider[Any, Any]:
    return build(name, {**INTEGRATIONS[name], **settings}, Currencies())


def test_integration_is_read_by_its_own_settings() -> None:
    confirmed = configured("hpgames", error_codes={"unavailable": 4711, "conflict": 4712})
    polite = configured("igamingace", unavailable_status=200)
    for provider in (confirmed, polite):
        again = replied(provider, OutcomeCode.UNAVAILABLE)
        assert read_reply(provider, "EUR", again) == (ReplyMeaning.ASK_AGAIN, None)
        assert read_reply(PROVIDERS[provider.name], "EUR", again)[0] is not ReplyMeaning.ASK_AGAIN
        conflict = replied(provider, OutcomeCode.CONFLICT)
        assert read_reply(provider, "EUR", conflict) == (ReplyMeaning.REFUSED, None)


@pytest.mark.parametrize(
    "provider",
    [
        *PROVIDERS.values(),
        configured("gpas", parent_system_id="other"),
        configured("hpgames", merchant_id="2387a6cc-3651-4473-ae52-e415caea3395"),
        configured("igamingace", agent_id="Partner02", sign_version=1),
        configured("igamingace", sign_version="2"),
        configured("klas", secrets=["new", "old"]),
    ],
)
def test_integration_is_signed_to_by_its_own_settings(provider: Provider[Any, Any]) -> None:
    request = dialect_of(provider).credit(Facts("player01", "session-1"))
    provider.authenticate(request)
    with pytest.raises(CallbackRejected):
        provider.authenticate(dialect_of(provider).credit(Facts("player01", "session-1"), FOREIGN_KEY))
