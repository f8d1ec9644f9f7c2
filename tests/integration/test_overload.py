"""More wins than the ledger can pay: who is turned away is told so in time, and everyone is paid once."""

import asyncio
import json
from collections import Counter
from collections.abc import Sequence

import pytest

from gateway.providers.base import Win
from simulator.client import Response, http_bytes, send_all
from simulator.dialects import read_reply
from simulator.history import ReplyMeaning
from tests.bench.sizing import delay_commits
from tests.support.servers import Servers
from tests.support.system import INTEGRATIONS, SESSION, System, running_system

WINS_OF_EACH = 50
PLAYERS = [f"player{n}" for n in range(10)]
CONNECTIONS = 100
IN_FLIGHT_MAX = 16
COMMIT_MS = 50
ROUNDS_MAX = 100
LOGGED_WITHIN_SECONDS = 10.0


def requests_of(system: System) -> list[tuple[str, bytes]]:
    """Return signed wins of every provider, by turns, with the names of their integrations."""
    made = []
    for number in range(WINS_OF_EACH):
        for name in INTEGRATIONS:
            player_id = PLAYERS[number % len(PLAYERS)]
            tx_id = f"00000000-0000-4000-8000-{number:012}"
            win = Win(tx_id, player_id, f"{SESSION}{player_id}", round_id=f"round-{number}")
            made.append((name, http_bytes(name, system.providers[name].sample_request(win))))
    return made


def said(system: System, requests: Sequence[tuple[str, bytes]], responses: Sequence[Response]) -> list[ReplyMeaning]:
    return [
        read_reply(system.providers[name], "EUR", response)[0]
        for (name, _), response in zip(requests, responses, strict=True)
    ]


async def posted(system: System) -> int:
    ((number,),) = await system.query("SELECT count(*) FROM transfers")
    return int(number)


def refusals_logged(system: System) -> Counter[str]:
    """Return how many refusals the gateway's log tells of, by integration: a line for many, or for one."""
    told_of = Counter[str]()
    for line in map(json.loads, system.gateway.log.read_text().splitlines()):
        if line["event"] == "turned away under overload":
            told_of[line["integration"]] += line["callbacks"]
        elif line.get("outcome") == "unavailable":
            told_of[line["integration"]] += 1
    return told_of


@pytest.mark.any_server
async def test_wins_beyond_what_the_ledger_can_pay_are_turned_away_and_paid_when_sent_again(
    servers: Servers,
) -> None:
    """Two hundred at once, of which sixteen may wait; then all that were turned away, at once, and again."""
    async with running_system(servers, {"CREDITS_GATEWAY__IN_FLIGHT_MAX": str(IN_FLIGHT_MAX)}, workers=1) as system:
        await system.add_players(PLAYERS)
        await delay_commits(system.engine, COMMIT_MS)
        requests = left = requests_of(system)
        turned_away = 0
        for _ in range(ROUNDS_MAX):
            answers = said(system, left, await send_all(system.url, [request for _, request in left], CONNECTIONS))
            assert set(answers) <= {ReplyMeaning.PAID, ReplyMeaning.ASK_AGAIN}
            paid_before = len(requests) - len(left)
            left = [each for each, answer in zip(left, answers, strict=True) if answer is ReplyMeaning.ASK_AGAIN]
            turned_away += len(left)
            # Who was turned away was never sent: it can't be posted behind its provider's back.
            assert await posted(system) == len(requests) - len(left) > paid_before
            if not left:
                break
        assert not left
        assert turned_away > len(requests)
        async with asyncio.timeout(LOGGED_WITHIN_SECONDS):
            while (logged := refusals_logged(system)).total() < turned_away:
                await asyncio.sleep(0.1)
        assert logged.total() == turned_away
        assert set(logged) == set(INTEGRATIONS)
        await system.until_ready()
        audited = await system.command("verify", "--full")
        assert audited.returncode == 0, audited.stdout + audited.stderr
