"""The operator's platform makes players and sessions and asks about money over HTTP: true answers."""

from asyncio import gather
from collections.abc import AsyncIterator

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.ids import ROUND_ID_CHARACTERS_MAX
from shared.operations import Wallet
from tests.support.credits import win
from tests.support.ledgers import assert_books_hold
from tests.support.operator_api import Api, operator_api, path_of, settings_for
from worker.ledger.transaction import Ledger
from worker.players import add_player

pytestmark = pytest.mark.any_server


@pytest.fixture
async def api(engine: AsyncEngine) -> AsyncIterator[Api]:
    """The API on a ledger with player anna."""
    await add_player(engine, "anna", "EUR")
    async with operator_api(settings_for(engine, "klas", "gpas")) as served:
        yield served


EUR_10_50 = {"minor": 1050, "currency": "EUR", "text": "10.50"}
EUR_0 = {"minor": 0, "currency": "EUR", "text": "0.00"}
SESSION = path_of("integrations", "gpas", "sessions", "s")


async def test_player_is_created_once_and_further_wallets_are_added(api: Api) -> None:
    answers = [await api.put("/v1/players/ben", {"currency": c}) for c in ("EUR", "EUR", "JPY", "JPY")]
    assert [a.status_code for a in answers] == [201, 200, 200, 200]
    assert [a.json()["added"] for a in answers] == ["player", "nothing", "wallets", "nothing"]
    assert {a.json()["currency"] for a in answers} == {"EUR"}, "the player's own currency never changes"
    held = await api.get("/v1/players/ben/wallets")
    assert [(w["kind"], w["balance"]["currency"], w["entries"]) for w in held["wallets"]] == [
        ("REAL", "EUR", 0),
        ("BONUS", "EUR", 0),
        ("REAL", "JPY", 0),
        ("BONUS", "JPY", 0),
    ]


async def test_player_created_by_twenty_requests_at_once_is_one_player(api: Api, engine: AsyncEngine) -> None:
    answers = await gather(*(api.put("/v1/players/ben", {"currency": "EUR"}) for _ in range(20)))
    assert sorted(a.status_code for a in answers) == [200] * 19 + [201]
    assert len((await api.get("/v1/players/ben/wallets"))["wallets"]) == 2
    await assert_books_hold(engine)


async def test_platform_sees_what_a_player_has_and_won(api: Api, engine: AsyncEngine) -> None:
    await Ledger(engine).post([win("w"), win("free", amount_minor=7, wallet=Wallet.BONUS)])
    balances = await api.get("/v1/players/anna/balances")
    assert balances == {
        "player_id": "anna",
        "balances": [
            {
                "currency": "EUR",
                "real": EUR_10_50,
                "bonus": {"minor": 7, "currency": "EUR", "text": "0.07"},
                "total": {"minor": 1057, "currency": "EUR", "text": "10.57"},
            }
        ],
    }
    shown = await api.get("/v1/players/anna")
    assert [t["provider_tx_id"] for t in shown["transfers"]] == ["free", "w"]
    assert shown["wallets"] == (await api.get("/v1/players/anna/wallets"))["wallets"]


async def test_player_without_a_win_has_nothing_and_not_no_answer(api: Api) -> None:
    (balance,) = (await api.get("/v1/players/anna/balances"))["balances"]
    assert (balance["real"], balance["bonus"], balance["total"]) == (EUR_0, EUR_0, EUR_0)
    assert await api.get("/v1/players/anna/transfers") == {"transfers": [], "next_cursor": None}


async def test_paid_win_is_found_by_its_providers_id_and_by_ours(api: Api, engine: AsyncEngine) -> None:
    await Ledger(engine).post([win("w", details={"hash": "x"}), win("other")])
    found = await api.get(path_of("integrations", "klas", "transfers", "w"))
    assert (found["posted"], found["integration"], found["provider_tx_id"]) == (True, "klas", "w")
    transfer = found["transfer"]
    assert (transfer["amount"], transfer["details"]) == (EUR_10_50, {"hash": "x"})
    assert [(e["account"], e["amount"]["minor"]) for e in transfer["entries"]] == [
        ("REAL", 1050),
        ("SETTLEMENT", -1050),
    ]
    assert await api.get(path_of("transfers", transfer["transfer_id"])) == found


async def test_win_that_was_not_paid_is_told_from_a_misspelt_integration(api: Api, engine: AsyncEngine) -> None:
    await Ledger(engine).post([win("w", integration="retired")])
    unpaid = await api.get(path_of("integrations", "klas", "transfers", "w"), 404)
    assert (unpaid["code"], unpaid["detail"]) == ("not_paid", "'klas' has no transfer with id 'w'")
    misspelt = await api.get(path_of("integrations", "klass", "transfers", "w"), 404)
    assert misspelt["code"] == "unknown_integration"
    assert "configured: gpas, klas" in misspelt["detail"]
    # One that was configured once still finds its own.
    assert (await api.get(path_of("integrations", "retired", "transfers", "w")))["posted"]


async def test_round_is_shown_with_the_wins_of_all_its_players(api: Api, engine: AsyncEngine) -> None:
    await add_player(engine, "ben", "EUR")
    credits_ = (win("a", round_id="r"), win("b", round_id="r", player_id="ben"), win("other"))
    await Ledger(engine).post(credits_)
    shown = await api.get(path_of("integrations", "klas", "rounds", "r"))
    assert {(w["provider_tx_id"], w["player_id"]) for w in shown["wins"]} == {("a", "anna"), ("b", "ben")}
    assert shown["next_cursor"] is None
    for name, code in (("klas", "unknown_round"), ("klass", "unknown_integration")):
        assert (await api.get(path_of("integrations", name, "rounds", "none"), 404))["code"] == code


async def test_session_is_opened_once_and_closed_once(api: Api) -> None:
    body = {"player_id": "anna"}
    opened, again = [await api.put(SESSION, body) for _ in range(2)]
    assert (opened.status_code, again.status_code) == (201, 200)
    assert (opened.json()["result"], again.json()["result"]) == ("opened", "already_open")
    assert again.json()["session"] == opened.json()["session"] == await api.get(SESSION)
    closed, twice = [await api.ask("POST", f"{SESSION}/close") for _ in range(2)]
    assert (closed.status_code, twice.status_code) == (200, 200)
    assert (closed.json()["result"], twice.json()["result"]) == ("closed", "already_closed")
    assert closed.json()["session"] == twice.json()["session"] == await api.get(SESSION)
    revived = await api.put(SESSION, body)
    assert (revived.status_code, revived.json()["code"]) == (409, "session_ended")


async def test_session_never_changes_its_player_or_currency(api: Api) -> None:
    await api.put("/v1/players/ben", {"currency": "EUR"})
    await api.put("/v1/players/anna", {"currency": "JPY"})
    await api.put(SESSION, {"player_id": "anna"})
    for others in ({"player_id": "ben"}, {"player_id": "anna", "currency": "JPY"}):
        refused = await api.put(SESSION, others)
        assert (refused.status_code, refused.json()["code"]) == (409, "session_of_another")
        assert refused.json()["detail"] == "it is of player 'anna' in EUR"
    assert (await api.get(SESSION))["player_id"] == "anna"


async def test_session_needs_a_known_player_with_wallets_and_a_configured_integration(api: Api) -> None:
    refusals = {
        "unknown_player": (404, SESSION, {"player_id": "nobody"}),
        "no_wallets": (409, SESSION, {"player_id": "anna", "currency": "JPY"}),
        "unknown_currency": (422, SESSION, {"player_id": "anna", "currency": "XXXX"}),
        "unknown_integration": (404, SESSION.replace("gpas", "gpass"), {"player_id": "anna"}),
        "invalid_body": (422, SESSION, {"player_id": "line\nbreak"}),
    }
    for code, (status, path, body) in refusals.items():
        refused = await api.put(path, body)
        assert (refused.status_code, refused.json()["code"]) == (status, code)
    assert (await api.get(SESSION, 404))["code"] == "unknown_session"
    closing = await api.ask("POST", f"{SESSION}/close")
    assert (closing.status_code, closing.json()["code"]) == (404, "unknown_session")


HOSTILE_IDS = [
    "a/b",
    "%2F",
    "50%",
    "..%2f..",
    "anna?x=1#y",
    "anna/wallets",
    "a b+c",
    "ünïcødé-玩家-🎰",
    "'; DROP TABLE players; --",
    "x" * 128,
    "🎰" * 128,
    "{player_id}",
    "\\",
]


async def test_round_of_a_thousand_characters_is_found(api: Api, engine: AsyncEngine) -> None:
    longest = "r" * ROUND_ID_CHARACTERS_MAX
    await Ledger(engine).post([win("w", round_id=longest)])
    assert len((await api.get(path_of("integrations", "klas", "rounds", longest)))["wins"]) == 1


@pytest.mark.parametrize("strange", HOSTILE_IDS)
async def test_no_id_is_mistaken_for_another(api: Api, engine: AsyncEngine, strange: str) -> None:
    player = path_of("players", strange)
    assert (await api.put(player, {"currency": "EUR"})).json()["player_id"] == strange
    await Ledger(engine).post([win(strange, player_id=strange, round_id=strange)])
    assert (await api.get(player))["player_id"] == strange
    assert (await api.get(f"{player}/balances"))["balances"][0]["total"] == EUR_10_50
    paid = await api.get(path_of("integrations", "klas", "transfers", strange))
    assert (paid["provider_tx_id"], paid["transfer"]["player_id"]) == (strange, strange)
    assert len((await api.get(path_of("integrations", "klas", "rounds", strange)))["wins"]) == 1
    session = path_of("integrations", "klas", "sessions", strange)
    assert (await api.put(session, {"player_id": strange})).status_code == 201
    assert (await api.ask("POST", f"{session}/close")).json()["session"]["session_id"] == strange


async def test_served_document_is_valid_and_tells_of_itself(api: Api) -> None:
    OpenAPIV31SpecValidator(api.document).validate()
    assert await api.get("/openapi.json", headers={"authorization": ""}) == api.document


async def test_process_says_whether_it_is_up_and_ready_and_counts_without_a_token(api: Api) -> None:
    nobody = {"authorization": ""}
    assert await api.get("/healthz", headers=nobody) == {"status": "up"}
    assert await api.get("/readyz", headers=nobody) == {"status": "ready"}
    await api.get("/v1/players/anna")
    counted = (await api.ask("GET", "/metrics", headers=nobody)).text
    assert 'credits_operator_requests_total{operation="show_player",status="200"} 1.0' in counted
    assert "anna" not in counted
