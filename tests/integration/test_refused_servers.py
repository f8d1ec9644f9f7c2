"""What a server will refuse until somebody acts is said in one line, and not taken for an outage."""

import asyncio
import json

import pytest

from tests.support.commands import CONFIGURED, INHERITED, run
from tests.support.gateway_process import start_in_vain
from tests.support.servers import Servers, fresh_vhost
from tests.support.servers.server import free_ports
from tests.support.stranger import WAIT_SECONDS
from tests.support.system import BROKER_KEY, System, running_system
from worker.cli.exit_codes import ExitCode

NOWHERE = "no-such-vhost"
SECRETS = {
    "CREDITS_CONFIG": "",
    "CREDITS_BROKER__KEYS": f'["{BROKER_KEY}"]',
    "CREDITS_INTEGRATIONS__KLAS__PROVIDER": "klas",
    "CREDITS_INTEGRATIONS__KLAS__SECRETS": "klas-secret",
}


@pytest.mark.parametrize("process", ["gateway", "worker run"])
async def test_virtual_host_that_is_not_there_stops_the_start(servers: Servers, process: str) -> None:
    url = f"{servers.broker_url}{NOWHERE}"
    environment = {**INHERITED, **SECRETS, "CREDITS_BROKER__URL": url}
    code, said = await start_in_vain(environment, *process.split())
    assert code == ExitCode.SETTINGS
    (line,) = said
    assert "CREDITS_BROKER__URL: [broker] url: " in line
    assert f"'{NOWHERE}' is not found or not permitted" in line


@pytest.mark.parametrize("command", ["worker run", "worker migrate", "worker verify"])
async def test_database_that_is_not_there_stops_the_start(servers: Servers, command: str) -> None:
    url = f"{servers.database_url.rpartition('/')[0]}/no_such_database"
    environment = {**INHERITED, **SECRETS, "CREDITS_BROKER__URL": await fresh_vhost(servers)}
    code, said = await start_in_vain({**environment, "CREDITS_LEDGER__DATABASE_URL": url}, *command.split())
    assert code == ExitCode.SETTINGS
    assert 'database "no_such_database" does not exist' in said[-1]


async def test_virtual_host_that_is_not_permitted_stops_the_start(servers: Servers) -> None:
    url = await fresh_vhost(servers)
    user, vhost = url.partition("//")[2].partition(":")[0], url.rpartition("/")[2]
    servers.rabbitmq.run("rabbitmqctl", "--quiet", "clear_permissions", "-p", vhost, user)
    code, (line,) = await start_in_vain({**INHERITED, **SECRETS, "CREDITS_BROKER__URL": url}, "worker", "run")
    assert code == ExitCode.SETTINGS
    assert f"'{vhost}' is not found or not permitted" in line


@pytest.mark.parametrize("wrong", ["password", "vhost"])
async def test_command_that_the_broker_refuses_ends_as_with_wrong_settings(servers: Servers, wrong: str) -> None:
    good = await fresh_vhost(servers)
    user, _, rest = good.partition("//")[2].partition(":")
    url = f"{good}-gone" if wrong == "vhost" else f"amqp://{user}:not-the-password@{rest.partition('@')[2]}"
    broker = {"CREDITS_BROKER__URL": url, "CREDITS_BROKER__KEYS": SECRETS["CREDITS_BROKER__KEYS"]}
    ended = await run(servers.database_url, "dead", "list", **broker)
    assert "[broker] url: 127.0.0.1:" in ended.error(ExitCode.SETTINGS)
    assert "not-the-password" not in ended.err


async def lines_of(system: System, event: str) -> list[dict[str, str]]:
    """Return the lines of the worker's log about an event, once there are any."""
    log = system.workers[0].log
    async with asyncio.timeout(WAIT_SECONDS):
        while True:
            lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
            if found := [line for line in lines if line["event"] == event]:
                return found
            await asyncio.sleep(0.1)


async def test_virtual_host_that_goes_while_a_worker_serves_is_named(servers: Servers) -> None:
    url = await fresh_vhost(servers)
    vhost = url.rpartition("/")[2]
    async with running_system(servers, CREDITS_BROKER__URL=url, CREDITS_LOG__FORMAT="json", workers=1) as system:
        servers.rabbitmq.run("rabbitmqctl", "--quiet", "delete_vhost", vhost)
        async with asyncio.timeout(WAIT_SECONDS):
            while not any(vhost in line["reason"] for line in await lines_of(system, "broker lost")):
                await asyncio.sleep(0.1)


async def test_broker_that_is_down_is_said_by_us_alone(servers: Servers) -> None:
    async with running_system(servers, CREDITS_LOG__FORMAT="json", workers=0) as system:
        (port,) = free_ports(1)
        worker = system.new_worker()
        worker.environment = {**worker.environment, "CREDITS_BROKER__URL": f"amqp://127.0.0.1:{port}/"}
        system.workers.append(worker)
        worker.start()
        assert (await lines_of(system, "broker lost"))[0]["node"] == f"127.0.0.1:{port}"
        assert "transport" not in worker.log.read_text()


async def test_host_that_nobody_knows_yet_is_an_outage(servers: Servers) -> None:
    """A name may come to be known: as that of a container that starts later."""
    ended = await run(
        servers.database_url.replace("127.0.0.1", "no-such-host.invalid"),
        "player",
        "show",
        "anna",
        **CONFIGURED,
    )
    assert "no answer from" in ended.error(ExitCode.DATABASE)
