"""Large wins: a batch that is too large for one message goes in several, and each win is answered."""

import asyncio
from uuid import uuid4

from gateway.ledger_client.concurrency import ConcurrencyLimit
from gateway.ledger_client.rabbit import RabbitLedgerClient
from shared.errors import LedgerUnavailable
from shared.outcome import Outcome, OutcomeCode
from shared.queries import FindPlayer
from shared.settings import BrokerSettings
from shared.wire import MESSAGE_BYTES_MAX, Question
from tests.support.credits import win
from tests.support.servers import Servers
from tests.support.system import KEYS, System, running_system

LARGE_WINS = 288
ANSWER_SECONDS_MAX = 30.0
DETAILS = {f"jackpot {number}": "1" * 1_000 for number in range(62)}
"""With these a win has the 63 KB of the largest body."""


async def ask_for_nobody(client: RabbitLedgerClient) -> object:
    (answer,) = await client.call_all([FindPlayer("")], asyncio.get_running_loop().time() + 1.0)
    return answer


async def answers_to(system: System, *questions: Question) -> list[object]:
    settings = BrokerSettings(url=system.environment["CREDITS_BROKER__URL"])
    async with RabbitLedgerClient(settings, KEYS, ConcurrencyLimit(1_000)) as client:
        clock = asyncio.get_running_loop().time
        async with asyncio.timeout(ANSWER_SECONDS_MAX):
            while isinstance(await ask_for_nobody(client), LedgerUnavailable):
                await asyncio.sleep(0.02)
        return list(await client.call_all(questions, clock() + ANSWER_SECONDS_MAX))


def results(answers: list[object]) -> list[OutcomeCode]:
    return [answer.code for answer in answers if isinstance(answer, Outcome)]


async def test_large_wins_at_once_are_all_paid(servers: Servers) -> None:
    """In one message they were more than RabbitMQ takes, and all of them failed again and again."""
    async with running_system(servers, workers=1) as system:
        await system.add_players(["anna"])
        wins = [win(str(uuid4()), details=DETAILS) for _ in range(LARGE_WINS)]
        assert results(await answers_to(system, *wins)) == [OutcomeCode.POSTED] * LARGE_WINS
        assert await system.balances() == {"anna": 1050 * LARGE_WINS}

        larger = win("too large", details={"note": "n" * MESSAGE_BYTES_MAX})
        refused, paid = await answers_to(system, larger, win("beside it"))
        assert results([refused, paid]) == [OutcomeCode.UNAVAILABLE, OutcomeCode.POSTED]
        assert await system.query("SELECT 1 FROM transfers WHERE provider_tx_id = 'too large'") == []
