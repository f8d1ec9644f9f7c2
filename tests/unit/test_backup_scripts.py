"""The scripts of deploy/backup say no where they would lose something, in one line."""

import subprocess
from pathlib import Path

import pytest

from tests.support.servers.restorable import SCRIPTS

SEGMENT = "000000010000000000000001"


def archive(source: Path, directory: Path) -> subprocess.CompletedProcess[str]:
    return run("archive", str(source), SEGMENT, str(directory))


def run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(SCRIPTS / script), *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True)


@pytest.fixture
def segment(tmp_path: Path) -> Path:
    path = tmp_path / "segment"
    path.write_bytes(bytes(range(256)))
    return path


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    path = tmp_path / "wal"
    path.mkdir()
    return path


def test_segment_is_archived_once_and_the_same_one_again(segment: Path, kept: Path) -> None:
    for _ in range(2):
        archived = archive(segment, kept)
        assert (archived.returncode, archived.stderr) == (0, "")
    assert [path.name for path in kept.iterdir()] == [SEGMENT]
    assert (kept / SEGMENT).read_bytes() == segment.read_bytes()


def test_segment_of_another_server_overwrites_nothing(segment: Path, kept: Path) -> None:
    (kept / SEGMENT).write_bytes(b"another server's")
    archived = archive(segment, kept)
    assert archived.returncode != 0
    assert "other content" in archived.stderr
    assert (kept / SEGMENT).read_bytes() == b"another server's"


def test_segment_that_can_not_be_archived_leaves_nothing(tmp_path: Path, kept: Path) -> None:
    assert archive(tmp_path / "none", kept).returncode != 0
    assert not list(kept.iterdir())


@pytest.mark.parametrize(
    ("target", "fault"),
    [
        (("name", ""), "which name?"),
        (("moment", "now"), "the target is a time, a name, an lsn or latest, not 'moment'"),
        (("name", "it's"), "no quote or percent sign is possible in a path or a target"),
        ((), "expected BASE_BACKUP WAL_ARCHIVE DATA_DIRECTORY TARGET"),
    ],
)
def test_restore_to_nowhere_is_refused_in_one_line(
    tmp_path: Path, kept: Path, target: tuple[str, ...], fault: str
) -> None:
    base, data = tmp_path / "base", tmp_path / "data"
    for directory in (base, data):
        directory.mkdir()
    (base / "backup_label").touch()
    restored = run("restore", str(base), str(kept), str(data), *target)
    assert (restored.returncode, restored.stderr) == (1, f"restore: {fault}\n")
    assert data.exists()


def test_restore_of_what_is_no_backup_is_refused(tmp_path: Path, kept: Path) -> None:
    restored = run("restore", str(tmp_path), str(kept), str(tmp_path / "data"), "latest")
    assert (restored.returncode, restored.stderr) == (1, f"restore: {tmp_path} is no base backup\n")
