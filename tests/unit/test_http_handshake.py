"""A TLS port accepts by itself: also where the process has no file left for a while."""

import asyncio
import os
import resource
import socket
import ssl

from uvicorn.server import ServerState

from shared.http import RefusalLog
from shared.http.handshake import TlsListener
from shared.http.registry import ConnectionRegistry
from shared.settings_http import HttpBounds
from tests.support.http_wire import turns


async def test_port_goes_on_accepting_once_there_is_a_file_again() -> None:
    refused, server = list[str](), ServerState()
    log = RefusalLog(refused.append)
    listening, client = socket.create_server(("127.0.0.1", 0)), socket.socket()
    for each in (listening, client):
        each.settimeout(0)
    listener = TlsListener(
        listening,
        ConnectionRegistry(HttpBounds(), log),
        server,
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER),
        asyncio.Protocol,
    )
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, before[1]))
    try:
        client.connect_ex(listening.getsockname())
        async with asyncio.timeout(10):
            while len(refused) < 2:
                await asyncio.sleep(0.01)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert set(refused) == {"files"}
    async with asyncio.timeout(10):
        while not server.connections:
            await asyncio.sleep(0.01)
    for connection in list(server.connections):
        connection.shutdown()
    async with asyncio.timeout(10):
        while server.connections:
            await asyncio.sleep(0.01)
    listener.close()
    await listener.wait_closed()
    await turns()
    log.flush()
    for each in (listening, client):
        each.close()
