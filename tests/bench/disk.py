"""How long the disk takes to keep what it is given, while something else is measured.

Every commit and every message waits for the disk. On a machine whose disk is shared, a write now and then
takes a hundred times as long as usual, and that is the tail of whatever waits for it.
"""

import os
import tempfile
import threading
import time
from types import TracebackType
from typing import Final, Self

EVERY_SECONDS: Final = 0.05
_BLOCK: Final = bytes(4_096)


class DiskProbe:
    """Within it, a block is written and synced every so often, beside the files of local servers."""

    def __init__(self) -> None:
        """Measure nothing yet."""
        self.longest_seconds = 0.0
        self._ends: Final = threading.Event()
        self._thread: Final = threading.Thread(target=self._probe)

    def __enter__(self) -> Self:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End, when the last block is synced."""
        self._ends.set()
        self._thread.join()

    def _probe(self) -> None:
        with tempfile.TemporaryFile() as file:
            while not self._ends.wait(EVERY_SECONDS):
                began = time.monotonic()
                os.pwrite(file.fileno(), _BLOCK, 0)
                os.fdatasync(file.fileno())
                self.longest_seconds = max(self.longest_seconds, time.monotonic() - began)
