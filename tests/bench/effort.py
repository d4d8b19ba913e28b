"""Processor time that a measurement took: of a process, and of a PostgreSQL server with all that it started."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """User and system time so far, with that of the children it has waited for; 0 when it is gone."""
    with suppress(OSError):
        words = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        return sum(map(int, words[11:15])) / TICKS_PER_SECOND
    return 0.0


def server_cpu_seconds(data_folder: Path) -> float:
    """Of the processes that work in the server's data folder: it and its backends, those that ended too."""
    found = 0.0
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdigit() and (entry / "cwd").readlink() == data_folder:
                found += cpu_seconds(int(entry.name))
    return found
