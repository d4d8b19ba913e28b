"""Whether the cores are short because NASes are being answered: then whoever can wait rests between its batches.

A priority alone does not see to it (priority.py): most of what the settler and the rater cost is PostgreSQL's work, and
that runs at PostgreSQL's own priority, beside the workers or on another machine. So they look at what the cores do. The
journal holds what is answered meanwhile; nobody rests for good, since a share of the time is always worked in.
"""

from __future__ import annotations

import os
from pathlib import Path

from sms_aaa.server.runfile import find_running

BUSY_SHARE = 0.85
"""Of the cores' time: above it there is none to spare."""

ANSWERING_SHARE = 0.3
"""Of the cores' time: above it the workers are what they are short for. A worker that has all it wants takes a core of
two; one that answers what settling can just keep up with takes a fifth of them, and settling must not rest for that."""

WORKED_SHARE = 0.2
"""Of its time, what somebody who rests still works in."""

REST_SECONDS_MAX = 2.0
LOOK_SECONDS = 0.5
"""Between two looks. The kernel counts in hundredths of a second, and records come in waves."""

PROC = Path("/proc")
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_ANSWERING = ("access", "accounting")


class Load:
    """How busy the machine's cores were since it was last asked."""

    def __init__(self, proc: Path = PROC) -> None:
        self._stat = proc / "stat"
        self._total, self._idle = self._read()

    def is_high(self) -> bool:
        total, idle = self._read()
        passed, rested = total - self._total, idle - self._idle
        self._total, self._idle = total, idle
        return passed > 0 and 1 - rested / passed > BUSY_SHARE

    def _read(self) -> tuple[int, int]:
        """(all, idle) in ticks over all cores."""
        fields = [int(field) for field in self._stat.read_text(encoding="ascii").partition("\n")[0].split()[1:9]]
        return sum(fields), fields[3] + fields[4]


class Pressure:
    """Of the workers of the node whose state folder it is, on whoever asks. `now`: seconds of a steady clock."""

    def __init__(self, state_folder: Path, now: float, *, proc: Path = PROC, cores: int = os.cpu_count() or 1) -> None:
        self._state_folder = state_folder
        self._proc = proc
        self._cores = cores
        self._load = Load(proc)
        self._looked = now
        self._ticks = self._answering_ticks()
        self._is_high = False

    def rest_seconds(self, worked_seconds: float, now: float) -> float:
        """How long to rest after so much work; 0 while the cores are not short, or not for answering."""
        if now - self._looked >= LOOK_SECONDS:
            self._look(now)
        return min(REST_SECONDS_MAX, worked_seconds * (1 / WORKED_SHARE - 1)) if self._is_high else 0.0

    def _look(self, now: float) -> None:
        ticks = self._answering_ticks()
        # A worker that began or ended in between is seen at the next look.
        spent = sum(count - self._ticks[pid] for pid, count in ticks.items() if pid in self._ticks)
        share = spent / TICKS_PER_SECOND / (now - self._looked) / self._cores
        # Who rests makes room. So it lasts for as long as the workers take what pressed, not until there is room.
        self._is_high = share > ANSWERING_SHARE and (self._load.is_high() or self._is_high)
        self._looked, self._ticks = now, ticks

    def _answering_ticks(self) -> dict[int, int]:
        """Processor time by pid of each worker."""
        running = find_running(self._state_folder)
        processes = running.processes if running is not None else ()
        workers = [process.pid for process in processes if process.name.startswith(_ANSWERING)]
        return {pid: self._ticks_of(pid) for pid in workers}

    def _ticks_of(self, pid: int) -> int:
        """User and system time of a process; 0 when it is gone."""
        try:
            told = (self._proc / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return 0
        user, system = told.rpartition(")")[2].split()[11:13]
        return int(user) + int(system)
