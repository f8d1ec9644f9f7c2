"""What processes cost: time on a CPU, and resident memory, as Linux tells them in /proc."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

TICK_US: Final = 1_000_000 / os.sysconf("SC_CLK_TCK")
_PARENT, _UTIME, _CSTIME = 1, 11, 14
"""Fields of /proc/PID/stat, counted from what follows the program's name."""


class Memory(NamedTuple):
    """Resident memory in MiB, now and at its peak."""

    now_mib: float
    peak_mib: float


def cpu_us(roots: Mapping[str, int]) -> dict[str, float]:
    """Return the CPU microseconds of each process with all its descendants, those that ended included."""
    stats = _stats()
    return {name: sum(_spent_us(stats[pid]) for pid in _tree(stats, root)) for name, root in roots.items()}


def descendants(pid: int) -> set[int]:
    """Return a process and all that it has started, directly or not."""
    return _tree(_stats(), pid)


def memory(pid: int) -> Memory:
    """Return the memory of one process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    kib = {line.split(":")[0]: int(line.split()[1]) for line in lines if line.startswith(("VmRSS", "VmHWM"))}
    return Memory(kib["VmRSS"] / 1024, kib["VmHWM"] / 1024)


def _stats() -> dict[int, list[str]]:
    """Return the fields of every process, from its state on: a name may have spaces in it."""
    found = {}
    for directory in Path("/proc").iterdir():
        if directory.name.isdecimal():
            try:
                content = (directory / "stat").read_text()
            except (FileNotFoundError, ProcessLookupError):
                continue  # it has ended, and its parent has its times
            found[int(directory.name)] = content.rpartition(")")[2].split()
    return found


def _tree(stats: Mapping[int, list[str]], root: int) -> set[int]:
    tree = {root}
    while more := {pid for pid, stat in stats.items() if int(stat[_PARENT]) in tree} - tree:
        tree |= more
    return tree & stats.keys()


def _spent_us(stat: list[str]) -> float:
    """Return user and system time, its own and that of the children it has waited for."""
    return sum(map(int, stat[_UTIME : _CSTIME + 1])) * TICK_US
