"""Nothing is lost, doubled or untrue, whatever fails: the faults that are quick, on real processes.

`make faults` lets a system undergo all of them.
"""

import asyncio
from contextlib import suppress

import pytest

from simulator.history import Violation
from tests.faults.experiment import Fault, run
from tests.faults.faults import FAULTS
from tests.faults.proxy import wired
from tests.faults.rig import Rig
from tests.support.servers import Servers

pytestmark = pytest.mark.own_servers("rabbitmq", "postgres", "redis")


@pytest.mark.any_server
@pytest.mark.parametrize("name", [name for name, fault in FAULTS.items() if fault.in_ci])
async def test_nothing_is_lost_when(servers: Servers, name: str) -> None:
    trial = await run(servers, FAULTS[name])
    assert trial.service.wins > 150
    assert trial.confirmed > 150
    assert trial.holds, trial.complaints


@pytest.mark.any_server
async def test_worker_that_says_paid_and_pays_nothing_is_found_out(servers: Servers) -> None:
    async def strike(rig: Rig) -> None:
        for worker in rig.system.workers:
            worker.arguments = ("tests.faults.lying", "run")
            await rig.restart(worker)

    trial = await run(servers, Fault("lies", strike))
    assert not trial.holds
    assert trial.verdict.counts[Violation.MISSING]


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while line := await reader.readline():
            writer.write(line)
    writer.close()


async def test_wire_fails_as_it_is_told() -> None:
    server = await asyncio.start_server(_echo, "127.0.0.1", 0)
    async with server, wired(f"redis://user@127.0.0.1:{server.sockets[0].getsockname()[1]}/0") as (url, wire):
        (port,) = wire.ports
        assert url == f"redis://user@127.0.0.1:{port}/0"
        reader, writer = await asyncio.open_connection("127.0.0.1", port)

        async def said(line: bytes, within_seconds: float = 5) -> bytes:
            writer.write(line)
            return await asyncio.wait_for(reader.readline(), within_seconds)

        assert await said(b"open\n") == b"open\n"
        wire.freeze()
        with pytest.raises(TimeoutError):
            await said(b"held back\n", within_seconds=0.2)
        await wire.mend()
        assert await asyncio.wait_for(reader.readline(), 5) == b"held back\n"
        wire.slow(0.2)
        with pytest.raises(TimeoutError):
            await said(b"slow\n", within_seconds=0.3)
        assert await asyncio.wait_for(reader.readline(), 5) == b"slow\n"
        await wire.cut()
        with pytest.raises(ConnectionResetError):
            await reader.readline()
        writer.close()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)
        await wire.mend()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert await said(b"mended\n") == b"mended\n"
        writer.close()
        await writer.wait_closed()
