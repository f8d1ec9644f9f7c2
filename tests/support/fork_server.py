"""Runs the product's commands in processes that begin with the product's modules imported.

To import them takes most of a command's time: 0.6 s of the processor, hundreds of times. So a server process,
which ends with the process of the tests, imports them once and forks for each command. A command still is a
process of its own: with its own environment, output, signals and exit code, and with what it runs at its end.
"""

import atexit
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from threading import Lock
from typing import Final

from tests.support.paths import ROOT

PRELOADED: Final = (
    *("aiosqlite", "asyncpg", "gateway.__main__", "worker.cli", "worker.database.migrate", "worker.verify"),
    *("worker.messaging.process", "worker.operator.app"),
)
LENGTH_BYTES: Final = 4

_starting: Final = Lock()


def run(
    module: str, arguments: Sequence[str], environment: Mapping[str, str], timeout_seconds: float
) -> subprocess.CompletedProcess[str]:
    """Run a module in the project's directory, as `subprocess.run` does; TimeoutExpired when it takes longer."""
    with _starting:
        server = _server()
    ours, theirs = socket.socketpair()
    with ours, tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        with theirs:
            socket.send_fds(server, [b"!"], [theirs.fileno(), out.fileno(), err.fileno()])
        request = json.dumps([module, list(arguments), dict(environment)]).encode()
        ours.sendall(len(request).to_bytes(LENGTH_BYTES) + request)
        ours.settimeout(timeout_seconds)
        code = _wait_for(ours, [module, *arguments], timeout_seconds)
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess([module, *arguments], code, out.read(), err.read())


def _wait_for(process: socket.socket, command: Sequence[str], timeout_seconds: float) -> int:
    """Return the exit code of a process that tells first its id and then its code."""
    with process.makefile() as lines:
        pid = int(lines.readline())
        try:
            return int(lines.readline())
        except TimeoutError:
            os.kill(pid, signal.SIGKILL)
            raise subprocess.TimeoutExpired(list(command), timeout_seconds) from None


@cache
def _server() -> socket.socket:
    """Start the server of this process, which ends when our end of its connection is closed."""
    ours, theirs = socket.socketpair()
    with theirs:
        number = theirs.fileno()
        server = subprocess.Popen(
            [sys.executable, "-m", __name__, str(number)], cwd=ROOT, stdin=subprocess.DEVNULL, pass_fds=[number]
        )
    atexit.register(_end, server, ours)
    return ours


def _end(server: subprocess.Popen[bytes], connection: socket.socket) -> None:
    connection.close()
    server.wait()


def serve(control: socket.socket) -> None:
    """Fork for each command until the tests' end of the connection is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that wait for the commands
    for name in PRELOADED:
        import_module(name)
    while True:
        _, files, _, _ = socket.recv_fds(control, 1, 3)
        if not files:
            return
        if not os.fork():
            control.close()
            _run_and_tell(socket.socket(fileno=files[0]), *files[1:])
            return
        for file in files:
            os.close(file)


def _run_and_tell(connection: socket.socket, out: int, err: int) -> None:
    """Be the process that waits for a command and tells its exit code, or the command."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with connection.makefile("rb") as request:
        module, arguments, environment = json.loads(request.read(int.from_bytes(request.read(LENGTH_BYTES))))
    if pid := os.fork():
        connection.sendall(f"{pid}\n".encode())
        _, status = os.waitpid(pid, 0)
        connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
        os._exit(0)
    connection.close()
    for file, number in ((out, 1), (err, 2)):
        os.dup2(file, number)
        os.close(file)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
