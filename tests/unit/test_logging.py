"""What is logged leaves in its order, each turn's lines together, and none is left behind."""

import asyncio
import io
import logging
from importlib.metadata import files

from shared.logging import BufferedLogger, is_new


class Written(io.StringIO):
    """A file that counts how often it was written to."""

    times = 0

    def write(self, text: str) -> int:
        """Write."""
        self.times += 1
        return super().write(text)


async def test_lines_of_one_turn_leave_together_and_in_their_order() -> None:
    file = Written()
    logger = BufferedLogger(file)
    logger.info("first")
    logger.error("second")
    assert file.times == 0
    await asyncio.sleep(0)
    logger.info("of the next turn")
    await asyncio.sleep(0)
    assert (file.times, file.getvalue()) == (2, "first\nsecond\nof the next turn\n")


def test_line_leaves_at_once_where_there_is_no_loop() -> None:
    file = Written()
    logger = BufferedLogger(file)
    logger.warning("first")
    logger.info("second")
    assert (file.times, file.getvalue()) == (2, "first\nsecond\n")


def test_line_that_a_loop_left_behind_leaves_with_the_next() -> None:
    file = Written()
    logger = BufferedLogger(file)

    async def say(line: str) -> None:
        logger.info(line)
        await asyncio.sleep(0)

    ending = asyncio.new_event_loop()
    ending.call_soon(logger.info, "the last of one loop")
    ending.call_soon(ending.stop)
    ending.run_forever()
    ending.close()
    assert file.getvalue() == ""
    asyncio.run(say("the first of another"))
    assert file.getvalue() == "the last of one loop\nthe first of another\n"


def test_lost_broker_is_no_traceback() -> None:
    error = ConnectionResetError(104, "reset by peer")
    said = "Cancelling cause reader exited abnormally"
    record = logging.LogRecord("aiormq", logging.WARNING, "", 0, said, None, (type(error), error, None))
    assert is_new(record)
    assert record.getMessage() == "reader of the broker ended: ConnectionResetError(104, 'reset by peer')"
    assert record.exc_info is None


def test_consumer_that_the_broker_ends_is_logged_by_us_alone() -> None:
    """The line is aiormq's own, so that one of other words would be noticed."""
    (source,) = (file for file in files("aiormq") or () if file.name == "channel.py")
    said = "Consumer %r cancelled by the broker on %r"
    assert f'"{said}"' in source.read_text()
    assert not is_new(logging.LogRecord("aiormq.channel", logging.WARNING, "", 0, said, ("q", "c"), None))
