"""TLS of the gateway and of the operator API, through the real ports, by a CA of the test's own."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from simulator.client import Response, connect, http_bytes, send_all
from tests.support.certificates import Certificate, encrypt_key, make_authority, make_certificate
from tests.support.gateway_process import (
    GatewayProcess,
    environment_of,
    gateway_process,
    operator_process,
    start_in_vain,
)
from tests.support.operator_api import TOKEN
from tests.support.system import INTEGRATIONS
from tests.support.wins import PLAYER, is_paid, win

pytestmark = pytest.mark.slow


class Pki(NamedTuple):
    """A CA with a server's certificate, and another CA that knows nothing of it."""

    authority: Certificate
    server: Certificate
    stranger: Certificate


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    directory = tmp_path_factory.mktemp("pki")
    authority, stranger = make_authority(directory, "authority"), make_authority(directory, "stranger")
    return Pki(authority, make_certificate(directory, "server", authority), stranger)


def settings_of(table: str, server: Certificate) -> Mapping[str, str]:
    return {
        f"CREDITS_{table}__TLS_CERTIFICATE": str(server.certificate),
        f"CREDITS_{table}__TLS_KEY": str(server.key),
    }


@pytest.fixture(scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory, pki: Pki) -> AsyncIterator[GatewayProcess]:
    directory = tmp_path_factory.mktemp("tls")
    async with gateway_process(directory, **settings_of("GATEWAY", pki.server)) as running:
        yield running
        assert "PRIVATE KEY" not in running.log.read_text()


def client_of(authority: Certificate) -> httpx.AsyncClient:
    return httpx.AsyncClient(verify=ssl.create_default_context(cafile=authority.certificate))


async def pay(gateway: GatewayProcess, authority: Certificate) -> None:
    """Send a win of each provider over one connection."""
    async with client_of(authority) as client:
        for name in INTEGRATIONS:
            callback = win(name)
            response = await client.post(
                f"{gateway.url}/{name}/{callback.path}",
                content=callback.body,
                headers=dict(callback.headers),
                params=dict(callback.query),
            )
            got = Response(response.status_code, response.content, dict(response.headers))
            assert is_paid(name, got)


async def test_wins_are_paid_over_tls(gateway: GatewayProcess, pki: Pki) -> None:
    before = gateway.posted()
    await pay(gateway, pki.authority)
    assert gateway.posted() == before + len(INTEGRATIONS)


async def test_client_that_knows_another_ca_sends_nothing(gateway: GatewayProcess, pki: Pki) -> None:
    async with client_of(pki.stranger) as client:
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            await client.get(gateway.url)


async def test_plain_http_is_not_answered_and_harms_nobody(gateway: GatewayProcess, pki: Pki) -> None:
    before = gateway.posted()
    for name in INTEGRATIONS:
        reader, writer = await connect(gateway.url)
        writer.write(http_bytes(name, win(name)))
        said = await asyncio.wait_for(reader.read(), 10)
        assert b"HTTP" not in said
        writer.close()
    assert gateway.posted() == before
    await pay(gateway, pki.authority)


async def test_silent_connections_keep_nobody_from_being_paid_nor_the_gateway_from_ending(
    pki: Pki, tmp_path: Path
) -> None:
    async with gateway_process(tmp_path, **settings_of("GATEWAY", pki.server)) as gateway:
        silent = [await connect(gateway.url) for _ in range(50)]
        try:
            await pay(gateway, pki.authority)
            assert await gateway.end() == 0
        finally:
            for _, writer in silent:
                writer.close()


async def test_operations_stay_plain(gateway: GatewayProcess) -> None:
    (response,) = await send_all(gateway.operations_url, [b"GET /readyz HTTP/1.1\r\nhost: x\r\n\r\n"], 1)
    assert response.json == {"status": "ready"}


async def test_operator_api_is_served_over_tls(gateway: GatewayProcess, pki: Pki) -> None:
    directory, settings = gateway.database.parent, settings_of("OPERATOR", pki.server)
    async with operator_process(directory, None, client_of(pki.authority), **settings) as url:
        player = f"{url}/v1/players/{PLAYER}"
        async with client_of(pki.authority) as client:
            asked = await client.get(player, headers={"authorization": f"Bearer {TOKEN}"})
            assert asked.json()["player_id"] == PLAYER
        async with httpx.AsyncClient() as plain:
            with pytest.raises(httpx.TransportError):
                await plain.get(player.replace("https", "http"))


async def test_key_that_does_not_fit_is_one_line(gateway: GatewayProcess, pki: Pki) -> None:
    other = pki.server._replace(key=pki.stranger.key)
    for table, command in (("GATEWAY", ("gateway",)), ("OPERATOR", ("worker", "operator"))):
        environment = environment_of(gateway.database.parent, **settings_of(table, other))
        code, said = await start_in_vain(environment, *command)
        assert (code, len(said)) == (3, 1)
        assert said[0].endswith(f"[{table.lower()}] tls_key: is not the key of tls_certificate")


async def test_encrypted_key_is_one_line_and_asks_nobody(gateway: GatewayProcess, pki: Pki) -> None:
    other = pki.server._replace(key=encrypt_key(pki.server.key, "hunter2"))
    environment = environment_of(gateway.database.parent, **settings_of("GATEWAY", other))
    code, (line,) = await start_in_vain(environment)
    assert code == 3
    assert line.endswith("[gateway] tls_key: the key is encrypted; give one without a passphrase")
