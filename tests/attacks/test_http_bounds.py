"""What one client may take of a gateway: bytes and requests of a connection."""

import asyncio

import pytest

from simulator.client import connect, read_response
from tests.support.gateway_process import GatewayProcess, gateway_process, operator_process
from tests.support.wins import assert_paid, bulk_bytes, responses, win_bytes

pytestmark = pytest.mark.slow

LINE = b"POST /klas/credit HTTP/1.1\r\nHost: gateway\r\n"


HEADS = {
    "a request line": b"POST /" + b"a" * 100_000,
    "a request line with an end": b"POST /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
    "a header": LINE + b"x: " + b"y" * 100_000,
    "a header's name": LINE + b"x" * 100_000,
    "headers": LINE + b"".join(b"x%d: %s\r\n" % (n, b"y" * 1_000) for n in range(99)),
    "a hundred and one headers": LINE + b"".join(b"x%d: y\r\n" % n for n in range(100)) + b"\r\n",
}


@pytest.mark.parametrize("size", [None, 1_000], ids=["in one piece", "in many pieces"])
@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
async def test_long_head_is_refused(gateway: GatewayProcess, head: bytes, size: int | None) -> None:
    """In one piece and in many; an honest win beside it is paid."""
    before = await gateway.refused("head_bytes")
    reader, writer = await gateway.connect()
    for begin in range(0, len(head), size or len(head)):
        writer.write(head[begin : begin + (size or len(head))])
        await asyncio.sleep(0)
        if begin == 16_000:
            await gateway.win()
    assert (await read_response(reader)).status == 431
    writer.close()
    await gateway.win()
    assert await gateway.refused("head_bytes") == before + 1


@pytest.mark.parametrize(
    ("header", "status"),
    [(b"x: " + b"y" * 40_000, 431), (b"content-length: " + b"0" * 5_000 + b"2", 400)],
    ids=["a header", "a length"],
)
async def test_long_head_after_a_whole_request_is_refused(gateway: GatewayProcess, header: bytes, status: int) -> None:
    """How much of a packet with two requests belongs to the second head is known at its end only."""
    whole = b"GET / HTTP/1.1\r\nHost: gateway\r\n\r\n"
    before, refused = await responses(await gateway.send(whole + LINE + header, b"\r\n\r\n{}"))
    assert (before.status, refused.status) == (404, status)
    await gateway.win()


@pytest.mark.parametrize("begin", [b"1\r\n{\r\n0\r\nx: ", b"1;"], ids=["a trailer", "a chunk's extension"])
async def test_long_addition_to_a_body_is_refused(gateway: GatewayProcess, begin: bytes) -> None:
    reader, writer = await gateway.connect()
    writer.write(LINE + b"Transfer-Encoding: chunked\r\n\r\n" + begin)
    reply = asyncio.ensure_future(read_response(reader))
    while not reply.done():
        writer.write(b"y" * 1_000)
        await asyncio.wait([reply], timeout=0.01)
    assert reply.result().status == 431
    writer.close()
    await gateway.win()


async def test_framing_of_a_body_is_bounded_by_the_body(gateway: GatewayProcess) -> None:
    """Extensions that are short enough one by one are refused; chunks of a byte are not."""
    reader, writer = await gateway.connect()
    writer.write(LINE + b"Transfer-Encoding: chunked\r\n\r\n")
    reply = asyncio.ensure_future(read_response(reader))
    for _ in range(100):
        writer.write(b"1;" + b"e" * 8_000 + b"\r\n \r\n")
        await asyncio.wait([reply], timeout=0.01)
    assert (await asyncio.wait_for(reply, 10)).status == 431
    writer.close()
    head = LINE + b"Transfer-Encoding: chunked\r\n\r\n"
    (refused,) = await responses(await gateway.send(head, *[b"1\r\n \r\n" * 3_000] * 4, b"0\r\n\r\n"))
    assert refused.json == {"status_code": "ERR_INTEGRITY_CHECK_FAILED"}


async def test_trailers_are_no_headers(gateway: GatewayProcess) -> None:
    """A signature that comes after the body is none."""
    head, body = win_bytes().split(b"\r\n\r\n")
    lines = [line for line in head.split(b"\r\n") if not line.startswith((b"x-signature", b"content-length"))]
    (signature,) = (line for line in head.split(b"\r\n") if line.startswith(b"x-signature"))
    chunked = b"\r\n".join([*lines, b"Transfer-Encoding: chunked", b"", b"%x" % len(body), body, b"0", b""])
    (paid,) = await responses(
        await gateway.send(chunked.replace(b"\r\nTransfer", b"\r\n" + signature + b"\r\nTransfer") + b"\r\n")
    )
    assert_paid(paid)
    (refused,) = await responses(await gateway.send(chunked[:-3] + b"0\r\n" + signature + b"\r\n\r\n"))
    assert refused.json == {"status_code": "ERR_INTEGRITY_CHECK_FAILED"}


async def test_head_of_the_longest_length_is_read(gateway: GatewayProcess) -> None:
    win = win_bytes(*(f"x{n}: {'y' * 1_000}" for n in range(15)))
    for packets in ([win], [win[:9_000], win[9_000:]], [win[:15_500], win[15_500:]]):
        (response,) = await responses(await gateway.send(*packets))
        assert_paid(response)


async def test_large_body_before_the_next_head_is_not_counted_to_it(gateway: GatewayProcess) -> None:
    large = LINE + b"Content-Length: 65000\r\n\r\n" + b" " * 65_000
    win = win_bytes()
    refused, paid = await responses(await gateway.send(large + win[:60], win[60:]))
    assert refused.json == {"status_code": "ERR_INTEGRITY_CHECK_FAILED"}
    assert_paid(paid)


@pytest.mark.parametrize("length", [b"0" * 5_000, b"0" * 5_000 + b"2", b"9" * 5_000, b"9" * 30, b"-1", b"+1"])
async def test_length_that_is_none_is_a_bad_request(gateway: GatewayProcess, length: bytes) -> None:
    (response,) = await responses(await gateway.send(LINE + b"Content-Length: " + length + b"\r\n\r\n{}"))
    assert response.status == 400
    await gateway.until_logged("bad_request")


async def test_target_is_a_path_or_an_absolute_url(gateway: GatewayProcess) -> None:
    for prefix in (b"http://elsewhere", b"HTTPS://gateway:443"):
        (paid,) = await responses(await gateway.send(win_bytes().replace(b"/klas", prefix + b"/klas", 1)))
        assert_paid(paid)
    for target in (b"*", b"ftp://gateway/klas/credit", b"http://?/klas/credit", b"gateway:80"):
        (refused,) = await responses(await gateway.send(win_bytes().replace(b"/klas/credit", target, 1) + win_bytes()))
        assert refused.status == 400


async def test_operator_api_has_the_same_bounds(gateway: GatewayProcess) -> None:
    async with operator_process(gateway.log.parent) as url:
        for headers, status in ((b"Content-Length: " + b"0" * 5_000, 400), (b"x: " + b"y" * 20_000, 431)):
            reader, writer = await connect(url)
            writer.write(b"PUT /v1/players/anna HTTP/1.1\r\nHost: x\r\n" + headers + b"\r\n\r\n")
            assert (await read_response(reader)).status == status
            writer.close()


async def test_only_so_many_requests_may_wait_on_a_connection(gateway: GatewayProcess) -> None:
    """Those that may are answered, all paid, and then the connection closes."""
    before = await gateway.refused("pipelined_requests")
    answered = await responses(await gateway.send(b"".join(win_bytes() for _ in range(20))))
    assert len(answered) == 8
    for response in answered:
        assert_paid(response)
    assert await gateway.refused("pipelined_requests") == before + 1


async def test_client_that_half_closes_gets_its_reply(gateway: GatewayProcess) -> None:
    win = win_bytes()
    (response,) = await responses(await gateway.send(win))
    assert_paid(response)
    assert await gateway.send(win[:-1]) == b""
    assert await gateway.send(win[:50]) == b""
    assert await gateway.send() == b""


async def test_body_that_came_after_its_refusal_is_passed_over_for_a_while_only(
    gateway: GatewayProcess,
) -> None:
    reader, writer = await gateway.connect()
    writer.write(LINE.replace(b"POST", b"PUT") + b"Content-Length: 100000000\r\n\r\n")
    assert (await read_response(reader)).status == 405
    with pytest.raises(ConnectionError):
        await _pour(writer, 100_000_000)
    writer.close()
    await gateway.win()


async def test_bodies_that_nobody_signed_leave_room_for_a_provider_that_was_paid(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Its bulk is larger than each of theirs, so that it would be the first to be refused."""
    bulk = bulk_bytes(1_000)
    directory = tmp_path_factory.mktemp("trusted")
    async with gateway_process(directory, buffered_bytes_max=2 * len(bulk) + 200_000) as gateway:
        reader, writer = await gateway.connect()
        writer.write(bulk_bytes(1))
        assert (await read_response(reader)).status == 200
        strangers = [await gateway.connect() for _ in range(40)]
        for _, each in strangers:
            each.write(LINE + b"Content-Length: 60000\r\n\r\n" + b" " * 50_000)
        await gateway.until_logged("buffered_bytes")
        writer.write(bulk)
        replies = (await read_response(reader)).json["creditResponses"]
        assert [reply["errorCode"] for reply in replies] == [0] * 1_000
        for _, each in [*strangers, (reader, writer)]:
            each.close()


async def _pour(writer: asyncio.StreamWriter, bytes_sent: int) -> None:
    for _ in range(bytes_sent // 100_000):
        writer.write(b" " * 100_000)
        await writer.drain()


async def test_bodies_that_fill_the_memory_are_refused_before_honest_wins(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    async with gateway_process(tmp_path_factory.mktemp("buffered"), buffered_bytes_max=300_000) as gateway:
        connections = [await gateway.connect() for _ in range(12)]
        for _, writer in connections:
            writer.write(LINE + b"Content-Length: 60000\r\n\r\n" + b" " * 50_000)
            await writer.drain()
        replies = [asyncio.ensure_future(read_response(reader)) for reader, _ in connections]
        done, _ = await asyncio.wait(replies, return_when=asyncio.FIRST_COMPLETED)
        assert {reply.result().status for reply in done} == {503}
        assert len(await gateway.until_logged("buffered_bytes")) == 1
        head, body = (request := win_bytes())[:200], request[200:]
        (response,) = await responses(await gateway.send(head, body))
        assert_paid(response)
        assert sum(reply.done() for reply in replies) == await gateway.refused("buffered_bytes") < 12
        for reply in replies:
            reply.cancel()
        for _, writer in connections:
            writer.close()
        await gateway.win()
