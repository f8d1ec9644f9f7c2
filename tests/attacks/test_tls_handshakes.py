"""TLS handshakes that never end, or are none: bounded in number and time, and counted."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

from simulator.client import http_bytes, read_response
from tests.support.certificates import make_authority, make_certificate
from tests.support.gateway_process import REPLY_WITHIN_SECONDS, GatewayProcess, gateway_process
from tests.support.wins import assert_paid, win, win_bytes

pytestmark = pytest.mark.slow

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]

FILES_MAX = 300


class Tls(NamedTuple):
    """What a gateway speaks TLS with, and a client that believes it."""

    settings: Mapping[str, Path]
    client: ssl.SSLContext


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    directory = tmp_path_factory.mktemp("pki")
    authority = make_authority(directory, "authority")
    server = make_certificate(directory, "server", authority)
    settings = {"tls_certificate": server.certificate, "tls_key": server.key}
    return Tls(settings, ssl.create_default_context(cafile=authority.certificate))


@pytest.fixture(scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory, tls: Tls) -> AsyncIterator[GatewayProcess]:
    directory = tmp_path_factory.mktemp("handshakes")
    async with gateway_process(directory, FILES_MAX, head_seconds_max=2, **tls.settings) as process:
        yield process


async def connect(gateway: GatewayProcess, tls: Tls) -> Connection:
    host, _, port = gateway.url.removeprefix("https://").partition(":")
    return await asyncio.wait_for(asyncio.open_connection(host, int(port), ssl=tls.client), REPLY_WITHIN_SECONDS)


async def pay(connection: Connection) -> None:
    reader, writer = connection
    writer.write(http_bytes("klas", win()))
    assert_paid(await asyncio.wait_for(read_response(reader), REPLY_WITHIN_SECONDS))


async def pay_once(gateway: GatewayProcess, tls: Tls) -> None:
    connection = await connect(gateway, tls)
    await pay(connection)
    connection[1].close()


async def test_silent_connections_keep_no_honest_client_out(gateway: GatewayProcess, tls: Tls) -> None:
    """More than there are files; who was there before stays, and honest newcomers come in all the time."""
    before = await gateway.refused("connections")
    kept = await connect(gateway, tls)
    await pay(kept)
    silent: list[Connection] = []
    for _ in range(20):
        silent += await asyncio.gather(*(gateway.connect() for _ in range(25)))
        await pay_once(gateway, tls)
    await pay(kept)
    assert await gateway.refused("connections") >= before + 250
    assert 0 < len(await gateway.until_logged("connections")) < 20
    for _, writer in [*silent, kept]:
        writer.close()


async def test_handshake_that_takes_too_long_is_hung_up_on(gateway: GatewayProcess) -> None:
    """Whether nothing comes or it stops in the middle."""
    before = await gateway.refused("tls_handshake_seconds")
    for begun in (b"", b"\x16\x03\x01\x02\x00\x01"):
        reader, writer = await gateway.connect()
        writer.write(begun)
        assert await asyncio.wait_for(reader.read(), REPLY_WITHIN_SECONDS) == b""
        writer.close()
    assert await gateway.refused("tls_handshake_seconds") == before + 2
    await gateway.until_logged("tls_handshake_seconds")


async def test_what_is_no_handshake_is_counted(gateway: GatewayProcess, tls: Tls) -> None:
    before = await gateway.refused("tls_handshake")
    reader, writer = await gateway.connect()
    writer.write(win_bytes())
    assert b"HTTP" not in await asyncio.wait_for(reader.read(), REPLY_WITHIN_SECONDS)
    writer.close()
    assert await gateway.refused("tls_handshake") == before + 1
    await gateway.until_logged("tls_handshake")
    await pay_once(gateway, tls)


async def test_client_that_hangs_up_in_its_handshake_leaves_nothing(gateway: GatewayProcess, tls: Tls) -> None:
    """Neither a place nor a file: three times as many as there are come and go."""
    before = await gateway.refused("connections")
    for _ in range(30):
        connections = await asyncio.gather(*(gateway.connect() for _ in range(30)))
        for _, writer in connections:
            writer.write(b"\x16\x03\x01\x02\x00\x01")
            writer.close()
        await pay_once(gateway, tls)
    assert await gateway.refused("connections") == before


async def test_request_right_behind_the_handshake_is_answered(gateway: GatewayProcess, tls: Tls) -> None:
    """Its bytes may come in one packet with the end of the handshake."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = tls.client.wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
    reader, writer = await gateway.connect()
    try:
        while True:
            try:
                client.do_handshake()
                break
            except ssl.SSLWantReadError:
                writer.write(outgoing.read())
                incoming.write(await asyncio.wait_for(reader.read(65_536), REPLY_WITHIN_SECONDS))
        client.write(win_bytes("Connection: close"))
        writer.write(outgoing.read())  # the client's last word of the handshake, and its request
        incoming.write(await asyncio.wait_for(reader.read(), REPLY_WITHIN_SECONDS))
        reply = asyncio.StreamReader()
        reply.feed_data(client.read() + client.read())
        assert_paid(await asyncio.wait_for(read_response(reply), REPLY_WITHIN_SECONDS))
    finally:
        writer.close()
