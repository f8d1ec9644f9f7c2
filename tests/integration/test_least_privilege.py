"""Each process works with what it needs alone: see tests/integration/test_grants.py for the database."""

from asyncio import to_thread
from pathlib import Path

from gateway.providers.base import Win
from simulator.history import ReplyMeaning
from simulator.senders import Senders
from tests.support.servers import Servers
from tests.support.system import running_system

PAID = "0b0b77f0-6a3e-4f0f-8f5c-5b6d8c1b9a01"


async def test_gateway_pays_without_knowing_of_database_or_cache(servers: Servers) -> None:
    async with running_system(servers, workers=1) as system:
        await system.add_players(["anna"])
        senders = Senders(system.url, system.providers, [])
        for _ in range(2):
            assert await senders.send_one("klas", Win(PAID, "anna", "")) is ReplyMeaning.PAID
        senders.close()
        known = await to_thread(Path(f"/proc/{system.gateway.pid}/environ").read_text)
        assert servers.database_url.rpartition("/")[0] not in known
        assert servers.cache_url not in known
        ports = {url.rpartition(":")[2].partition("/")[0] for url in (servers.database_url, servers.cache_url)}
        assert not ports & await to_thread(_ports_of_peers, system.gateway.pid)
        assert ports & await to_thread(_ports_of_peers, system.workers[0].pid)


def _ports_of_peers(pid: int) -> set[str]:
    """Return the ports that a process is connected to."""
    sockets = {str(each.readlink()) for each in Path(f"/proc/{pid}/fd").iterdir() if each.is_symlink()}
    rows = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    return {str(int(row[2].partition(":")[2], 16)) for row in rows if f"socket:[{row[9]}]" in sockets}


async def test_gateway_that_the_broker_refuses_does_not_start(servers: Servers) -> None:
    account, place = servers.broker_url.split("@")
    wrong = {"CREDITS_BROKER__URL": f"{account.rpartition(':')[0]}:not-the-password@{place}"}
    async with running_system(servers, wrong, workers=0) as system:
        assert system.gateway.popen is not None
        assert await to_thread(system.gateway.popen.wait, 30) == 3
        *_, line = (await to_thread(system.gateway.log.read_text)).splitlines()
        assert "[broker] url: " in line
        assert "Login was refused" in line
        assert "not-the-password" not in await to_thread(system.gateway.log.read_text)
