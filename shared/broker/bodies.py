"""Bodies of deliveries that are not gathered: a message may be 16 MiB, of which nobody here has any use.

AMQP tells the size of a message before its body comes, and aiormq gathers the body whatever it is. It has no
hook between the two, and RabbitMQ neither bounds unsettled messages by bytes nor pauses a channel. So the
method of a channel that gathers is replaced; `tests/attacks/test_broker_floods.py` sees that it works.
"""

from collections.abc import Callable
from typing import Any, Final

from aiormq import Channel
from aiormq.abc import DeliveredMessage
from pamqp.body import ContentBody
from pamqp.commands import Basic
from pamqp.header import ContentHeader

HEAD_BYTES: Final = 4_096
"""Of a body that is not gathered whole, so that a person can see what it was."""


def gather_bodies_if(channel: Channel, is_wanted: Callable[[int], bool]) -> None:
    """Gather the bodies of this channel's deliveries only where `is_wanted` says so of their size in bytes.

    Of others come the first HEAD_BYTES; see `is_cut`.
    """
    gather = channel._read_content  # noqa: SLF001  (see above)

    async def gather_or_pass_over(frame: Any, header: ContentHeader) -> DeliveredMessage:
        if not isinstance(frame, Basic.Deliver) or is_wanted(header.body_size or 0):
            return await gather(frame, header)
        return DeliveredMessage(frame, header, await _head(channel, header.body_size or 0), channel)

    channel._read_content = gather_or_pass_over  # type: ignore[method-assign]  # noqa: SLF001


def is_cut(message: DeliveredMessage) -> bool:
    """Tell whether a message is larger than what was gathered of it."""
    return (message.header.body_size or 0) > len(message.body)


async def _head(channel: Channel, size: int) -> bytes:
    """Read a body of so many bytes to its end; return how it begins."""
    head, passed = b"", 0
    while passed < size:
        content = await channel._get_frame()  # noqa: SLF001
        if not isinstance(content, ContentBody):
            raise ValueError(f"not a part of a body: {content!r}")  # noqa: TRY004  (as aiormq raises)
        head += content.value[: HEAD_BYTES - len(head)]
        passed += len(content.value)
    return head[: size - 1]
