"""deploy/backup/restore when something fails in its middle, which no real server is needed for."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.support.paths import DEPLOY

SCRIPT = DEPLOY / "backup/restore"
PATH_OF_DEBIAN = "/usr/bin:/bin"
SEGMENT = "000000010000000000000009"


class Machine:
    """A stopped server's data, a base backup and an empty archive, with programs that a test replaces."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self.data = home / "data"
        for directory in ("programs", "wal", "base/pg_wal", "data/pg_wal"):
            (home / directory).mkdir(parents=True)
        for file in ("base/backup_label", "base/postgresql.auto.conf", f"data/pg_wal/{SEGMENT}"):
            (home / file).write_text("")
        (home / "base/PG_VERSION").write_text("no version\n")  # so that no program of this machine is found
        self.program("pg_verifybackup", "exit 0")
        self.pg_ctl = self.program("pg_ctl", "exit 3")

    def program(self, name: str, lines: str) -> Path:
        file = self._home / "programs" / name
        file.write_text(f"#!/bin/sh\n{lines}\n")
        file.chmod(0o755)
        return file

    def restore(self, path: str = os.environ["PATH"]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["sh", SCRIPT, self._home / "base", self._home / "wal", self.data, "latest"],
            env={"PATH": f"{self._home / 'programs'}:{path}"},
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_restore_that_fails_leaves_the_old_data_and_can_be_repeated(machine: Machine) -> None:
    """Else the second would find half a copy in their place, without what was not yet archived."""
    full_disk = machine.program("cp", 'mkdir -p "$3/pg_wal"; echo "no space left" >&2; exit 1')
    failed = machine.restore()
    assert (failed.returncode, failed.stdout) == (1, "")
    assert [file.name for file in machine.data.parent.glob("data*")] == ["data"]
    assert (machine.data / "pg_wal" / SEGMENT).exists()
    full_disk.unlink()
    restored = machine.restore()
    assert restored.returncode == 0, restored.stderr
    assert (machine.data / "recovery.signal").exists()
    assert (machine.data / "pg_wal" / SEGMENT).exists()
    assert (Path(restored.stdout.strip()) / "pg_wal" / SEGMENT).exists()


def test_server_that_may_be_running_is_not_restored(machine: Machine) -> None:
    (machine.data / "postmaster.pid").touch()
    machine.program("pg_ctl", "exit 0")
    refused = machine.restore()
    assert (refused.returncode, refused.stderr) == (
        1,
        f"restore: the server on {machine.data} is running\n",
    )
    machine.program("pg_ctl", "exit 1")  # what it tells root
    refused = machine.restore()
    assert (refused.returncode, refused.stderr) == (
        1,
        f"restore: pg_ctl does not say that the server on {machine.data} has stopped\n",
    )
    machine.pg_ctl.unlink()
    refused = machine.restore(PATH_OF_DEBIAN)
    assert (refused.returncode, refused.stderr) == (1, "restore: there is no pg_ctl on the PATH\n")
    assert (machine.data / "postmaster.pid").exists()


def test_restore_in_the_place_of_nothing(machine: Machine) -> None:
    machine.data.rename(machine.data.with_name("lost"))
    restored = machine.restore()
    assert (restored.returncode, restored.stdout) == (0, ""), restored.stderr
    assert (machine.data / "recovery.signal").exists()
