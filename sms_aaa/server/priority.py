"""Which process steps back when cores are short: those that answer NASes never do.

They are not put above everybody either: a worker that runs at each datagram takes them one by one, and answers fewer
than one that finds a batch waiting.

With sched_autogroup a process's nice counts only within its session. Each child has a session, and so a group, of its
own (supervisor.py); the group's nice is what the kernel weighs against others, and so both are set.
"""

from __future__ import annotations

import os
from contextlib import suppress
from enum import IntEnum
from pathlib import Path


class Priority(IntEnum):
    """As nice counts: less is more."""

    SETTLING = 5
    WAITING = 19


def take(priority: Priority) -> None:
    """From now on."""
    os.setpriority(os.PRIO_PROCESS, 0, priority)
    with suppress(OSError):  # a kernel without autogroups
        Path("/proc/self/autogroup").write_text(str(int(priority)), encoding="ascii")
