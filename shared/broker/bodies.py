"""Keeps oversized message bodies out of memory: a message may have 16 MiB, far more than any of ours.

AMQP announces a message's size before its body, but aiormq collects the body whatever the size. It has no
hook between the two, and RabbitMQ neither bounds unacknowledged messages by bytes nor pauses a channel. So
the channel's method that collects bodies is replaced; `tests/attacks/test_broker_floods.py` checks that it
works.
"""

from collections.abc import Callable
from typing import Any, Final

from aiormq import Channel
from aiormq.abc import DeliveredMessage
from pamqp.body import ContentBody
from pamqp.commands import Basic
from pamqp.header import ContentHeader

HEAD_BYTES: Final = 4_096
"""How much of a discarded body is kept, so that a person can see what it was."""


def gather_bodies_if(channel: Channel, is_wanted: Callable[[int], bool]) -> None:
    """Collect the bodies of this channel's deliveries only if `is_wanted` returns True for their size in bytes.

    Of other bodies only the first HEAD_BYTES are kept; see `is_cut`.
    """
    gather = channel._read_content  # noqa: SLF001  (see above)

    async def gather_or_skip(frame: Any, header: ContentHeader) -> DeliveredMessage:
        if not isinstance(frame, Basic.Deliver) or is_wanted(header.body_size or 0):
            return await gather(frame, header)
        return DeliveredMessage(frame, header, await _head(channel, header.body_size or 0), channel)

    channel._read_content = gather_or_skip  # type: ignore[method-assign]  # noqa: SLF001


def is_cut(message: DeliveredMessage) -> bool:
    """Return whether only the head of a message's body was kept."""
    return (message.header.body_size or 0) > len(message.body)


async def _head(channel: Channel, size: int) -> bytes:
    """Read a body of `size` bytes to its end, and return its beginning."""
    head, read_bytes = b"", 0
    while read_bytes < size:
        content = await channel._get_frame()  # noqa: SLF001
        if not isinstance(content, ContentBody):
            raise ValueError(f"not a part of a body: {content!r}")  # noqa: TRY004  (as aiormq raises)
        head += content.value[: HEAD_BYTES - len(head)]
        read_bytes += len(content.value)
    return head[: size - 1]
