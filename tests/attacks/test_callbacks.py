"""Signed requests over the real port: what providers really send is paid, what a thief makes of it is not."""

import asyncio
import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from typing import Any, Final
from uuid import uuid4

import pytest

from gateway.providers.base import Callback, Win
from simulator.client import Response, connect, http_bytes, read_response, send_all
from tests.support.servers import Servers
from tests.support.system import INTEGRATIONS, SESSION, System, running_system

PLAYER: Final = "Player01"
BULKS: Final = 8
NOTHINGS: Final = http_bytes(
    "hpgames",
    Callback(
        "bulkCredit",
        b'{"creditRequests":[' + b",".join([b"{}"] * 1_000) + b"]}",
        {"content-type": "application/json"},
    ),
)


@pytest.fixture(scope="module")
async def system(servers: Servers) -> AsyncIterator[System]:
    async with running_system(servers, workers=1) as running:
        await running.add_players([PLAYER])
        yield running


def _win(amount: str = "1.00") -> Win:
    return Win(str(uuid4()), PLAYER, SESSION + PLAYER, amount)


async def _send(system: System, integration: str, callback: Callback) -> Any:
    (response,) = await send_all(system.url, [http_bytes(integration, callback)], 1)
    return response.json


def _klas(system: System, **changes: Any) -> Callback:
    """Return a win of klas with other fields, signed."""
    composed = system.providers["klas"].sample_request(_win())
    body = json.dumps({**json.loads(composed.body), **changes}).encode()
    signature = hmac.new(INTEGRATIONS["klas"]["secrets"].encode(), body, hashlib.sha256).hexdigest()
    return composed._replace(body=body, headers={**composed.headers, "x-signature": signature})


async def test_bulks_of_nothings_hold_up_no_honest_win_and_are_one_line_each(system: System) -> None:
    done = asyncio.Event()

    async def attack() -> int:
        reader, writer = await connect(system.url)
        sent = 0
        while not done.is_set():
            writer.write(NOTHINGS)
            await read_response(reader)
            sent += 1
        writer.close()
        return sent

    provider = system.providers["hpgames"]
    honest = [http_bytes("hpgames", provider.sample_request(_win("0.01"))) for _ in range(50)]
    attackers = [asyncio.create_task(attack()) for _ in range(BULKS)]
    responses: list[Response] = await send_all(system.url, honest, 10)
    done.set()
    attacks = sum(await asyncio.gather(*attackers))
    assert [response.json["errorCode"] for response in responses] == [0] * 50
    lines = [json.loads(line) for line in system.gateway.log.read_text().splitlines()]
    refused = [line for line in lines if line["event"] == "items summed up"]
    assert 0 < len(refused) <= attacks
    assert {line.get("outcome") for line in lines if line.get("integration") == "hpgames"} <= {"posted", None}


async def test_bet_of_klas_is_not_paid_as_a_win(system: System) -> None:
    for reason in ("BET", "bet"):
        reply = await _send(system, "klas", _klas(system, reason=reason, round_completed=False))
        assert reply == {"status_code": "ERR_UNKNOWN"}


@pytest.mark.parametrize(
    "changes",
    [{"round_id": ""}, {"round_id": None}, {"game_code": None}, {"timestamp": None}, {"session_id": 5}],
    ids=str,
)
async def test_promotion_of_klas_without_a_round_is_paid(system: System, changes: dict[str, Any]) -> None:
    assert (await _send(system, "klas", _klas(system, **changes)))["status_code"] == "OK"


async def test_ten_million_as_a_java_double_writes_it_is_paid(system: System) -> None:
    paid = {"klas": ("status_code", "OK"), "gpas": ("status", "CONFIRMED"), "hpgames": ("errorCode", 0)}
    for integration, (field, success) in paid.items():
        callback = system.providers[integration].sample_request(_win("1.0E7"))
        assert (await _send(system, integration, callback))[field] == success
    win = system.providers["igamingace"].sample_request(_win("10000000"))
    spelled = win._replace(body=win.body.replace(b"10000000.00", b"1.0E7"))
    assert (await _send(system, "igamingace", spelled))["code"] == 0


async def test_jackpot_of_hpgames_without_a_token_is_paid(system: System) -> None:
    composed = system.providers["hpgames"].sample_request(_win())
    fields = {**json.loads(composed.body), "authToken": None, "type": "JACKPOT", "jackpotId": None}
    body = json.dumps(fields).replace('"amount": 1.0,', '"amount": 1.00,').encode()
    assert (await _send(system, "hpgames", composed._replace(body=body)))["errorCode"] == 0


async def test_json_of_igamingace_under_a_forms_name_is_paid_and_not_logged(system: System) -> None:
    composed = system.providers["igamingace"].sample_request(_win())
    form = composed._replace(headers={"content-type": "application/x-www-form-urlencoded"})
    assert (await _send(system, "igamingace", form))["code"] == 0
    broken = form._replace(body=composed.body[:-1] + b"&")
    assert (await _send(system, "igamingace", broken))["code"] == 2
    sign = json.loads(composed.body)["sign"]
    assert sign not in system.gateway.log.read_text()
