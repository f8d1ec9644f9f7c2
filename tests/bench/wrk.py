"""wrk: a closed loop, in which each connection sends its next request when it has the reply to the last."""

import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import msgspec

SCRIPT: Final = Path(__file__).with_suffix(".lua")
TIMEOUT_SECONDS: Final = 10


class VoidRunError(Exception):
    """A run whose number would be worthless; the message says why."""


class ExhaustedError(VoidRunError):
    """wrk came to the end of its requests before its time was over."""


class Wrk(msgspec.Struct, frozen=True):
    """What wrk says of a run. Its percentiles are corrected for what the slow replies held back."""

    completed: int
    seconds: float
    sent: int
    exhausted: int
    unpaid: int
    """Replies that didn't say 'paid', if it was told what says so; else 0."""

    bad_statuses: int
    failed: int
    p50_ms: float
    p90_ms: float
    p99_ms: float
    p999_ms: float
    max_ms: float


def run(url: str, requests: Path, connections: int, seconds: float, paid: Iterable[bytes] = ()) -> Wrk:
    """Send the requests of a file for so long. Raises VoidRunError.

    Given what stands in a reply that says 'paid', replies without any of it are counted; else none may fail.

    One thread: it sends many times what the two cores of a small machine leave it to send.
    """
    done = subprocess.run(
        [
            "wrk",
            "--threads=1",
            f"--connections={connections}",
            f"--duration={seconds:.0f}s",
            f"--timeout={TIMEOUT_SECONDS}s",
            f"--script={SCRIPT}",
            "{0.scheme}://{0.netloc}".format(urlsplit(url)),
            "--",
            str(requests),
            *paid,
        ],
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise VoidRunError(f"wrk failed: {(done.stderr or done.stdout).strip()}")
    return parse(done.stdout, may_be_unpaid=bool(paid))


def parse(output: str, *, may_be_unpaid: bool = False) -> Wrk:
    """Read what wrk printed, the script's line last. Raises VoidRunError."""
    told = msgspec.json.decode(output.strip().rpartition("\n")[2], type=Wrk)
    if told.exhausted:
        raise ExhaustedError("there were too few requests")
    reasons = {
        f"{told.bad_statuses} replies had a status of failure": told.bad_statuses * (not may_be_unpaid),
        f"{told.failed} sockets failed": told.failed,
        "no request was answered": not told.completed,
    }
    if found := [reason for reason, is_so in reasons.items() if is_so]:
        raise VoidRunError("; ".join(found))
    return told
