"""Work that takes longer than a worker's loop may wait, done beside it by a few threads.

The loop puts work in and goes on; a descriptor that it polls becomes readable when some is done. The threads run what
waits elsewhere or lets go of Python's lock (a slow hash, a question to PostgreSQL); what is quick does not belong here.
They stand back behind the loop: the kernel gives it the processor first.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from contextlib import suppress
from queue import SimpleQueue
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

NICENESS = 10
"""Of the threads, above the loop's own."""

Told = TypeVar("Told")
What = TypeVar("What")


class Done(NamedTuple, Generic[What, Told]):
    """`told`: what the work returned; `bug`: what it raised, which is a fault of ours."""

    what: What
    told: Told | None
    bug: Exception | None


class Beside(Generic[What, Told]):
    """`what` names a piece of work to whoever collects it. At most `waiting_max` pieces are inside at a time.

    `worked`: how often work was done; that for several counts once.
    """

    def __init__(self, *, threads: int, waiting_max: int, name: str) -> None:
        self._waiting_max = waiting_max
        self._inside = 0
        self.worked = 0
        self._joined: dict[bytes, list[What]] = {}
        self._asked: SimpleQueue[tuple[What, Callable[[], Told], bytes] | None] = SimpleQueue()
        self._done: deque[tuple[Done[What, Told], bytes]] = deque()
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._threads = [
            threading.Thread(target=self._work, name=f"{name}-{number}", daemon=True) for number in range(threads)
        ]
        self._started = False

    def fileno(self) -> int:
        """Readable when there is something to collect."""
        return self._bell

    def __len__(self) -> int:
        """How many pieces are inside."""
        return self._inside

    def put(self, what: What, work: Callable[[], Told], *, key: bytes = b"") -> bool:
        """False: there is too much already, and this is not taken.

        Work with the key of some that is inside is not done again: what that comes to is told for both.
        """
        if self._inside >= self._waiting_max:
            return False
        if not self._started:  # a worker that never needs them has no threads
            self._started = True
            for thread in self._threads:
                thread.start()
        self._inside += 1
        if key in self._joined:
            self._joined[key].append(what)
            return True
        if key:
            self._joined[key] = []
        self._asked.put((what, work, key))
        return True

    def collect(self) -> list[Done[What, Told]]:
        """What is done, in the order in which it was."""
        try:
            os.eventfd_read(self._bell)
        except BlockingIOError:
            return []
        collected: list[Done[What, Told]] = []
        while self._done:
            done, key = self._done.popleft()
            self.worked += 1
            collected.append(done)
            collected += [Done(what, done.told, done.bug) for what in self._joined.pop(key, ())]
        self._inside -= len(collected)
        return collected

    def close(self) -> None:
        """Asks the threads to end after what waits; nobody waits for them."""
        for _ in self._threads:
            self._asked.put(None)

    def _work(self) -> None:
        with suppress(OSError):  # a sandbox may forbid it, and then the work is to be done all the same
            # Linux has a niceness for each thread.
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), os.getpriority(os.PRIO_PROCESS, 0) + NICENESS)
        while (asked := self._asked.get()) is not None:
            what, work, key = asked
            try:
                done = Done(what, work(), None)
            except Exception as bug:  # noqa: BLE001 - the door's last resort: the loop says it
                done = Done(what, None, bug)
            self._done.append((done, key))
            os.eventfd_write(self._bell, 1)
