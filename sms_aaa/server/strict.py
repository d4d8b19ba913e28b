"""Strict places: logins ask PostgreSQL beside the loop, as many as wait in one statement, and nobody waits for ever.

One thread has a connection and asks. Another looks at the clock, because a database that hangs does not say so: what
has no answer at its deadline is handed back without one. While PostgreSQL is known to be away nothing is taken in, so
that no login waits for what will not come; the asking thread looks for it meanwhile.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Generic, TypeVar

from sms_aaa.db.engine import connect
from sms_aaa.db.places import Claim, Claimed, claim

if TYPE_CHECKING:
    from sms_aaa.db.engine import Connection
    from sms_aaa.server.worker import Child

ASKED_AT_ONCE_MAX = 256
WAITING_MAX = 4_096
RETRY_SECONDS = 0.5

What = TypeVar("What")


class _Asked(Generic[What]):
    """A claim on its way; `is_answered` once it was handed back."""

    __slots__ = ("claim", "due", "is_answered", "what")

    def __init__(self, what: What, asked: Claim, due: float) -> None:
        self.what = what
        self.claim = asked
        self.due = due
        self.is_answered = False


class StrictPlaces(Generic[What]):
    """`what` names a claim to whoever collects it."""

    def __init__(self, child: Child) -> None:
        access = child.settings.access
        self._child = child
        self._node = child.settings.node.name
        self._seconds = access.reservation_seconds
        self._deadline = access.strict_deadline_ms / 1000
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._lock = threading.Lock()
        self._to_ask = threading.Condition(self._lock)
        self._to_watch = threading.Condition(self._lock)
        # All of this is looked at and changed under the lock.
        self._waiting: deque[_Asked[What]] = deque()
        self._watched: deque[_Asked[What]] = deque()  # in the order of their deadlines, with those that are answered
        self._unanswered = 0
        self._done: list[tuple[What, Claimed | None]] = []
        self._is_away = False
        self._has_said = False
        self._is_closing = False
        self._threads: list[threading.Thread] = []

    def fileno(self) -> int:
        """Readable when there is something to collect."""
        return self._bell

    def put(self, what: What, asked: Claim, now: float) -> bool:
        """False: PostgreSQL is away, or far too many wait; `now`: monotonic seconds."""
        if not self._threads:  # a worker that never needs them has none
            for work in (self._ask_on, self._watch):
                self._threads.append(threading.Thread(target=work, name=f"strict{work.__name__}", daemon=True))
                self._threads[-1].start()
        with self._lock:
            if self._is_away or self._unanswered >= WAITING_MAX:
                return False
            one = _Asked(what, asked, now + self._deadline)
            self._unanswered += 1
            self._waiting.append(one)
            self._to_ask.notify()
            self._watched.append(one)
            if len(self._watched) == 1:
                self._to_watch.notify()
        return True

    def collect(self) -> list[tuple[What, Claimed | None]]:
        """What PostgreSQL said; None: nothing in time."""
        try:
            os.eventfd_read(self._bell)
        except BlockingIOError:
            return []
        with self._lock:
            done, self._done = self._done, []
        return done

    def close(self) -> None:
        """Nobody waits for the threads."""
        with self._lock:
            self._is_closing = True
            self._to_ask.notify()
            self._to_watch.notify()

    def _ask_on(self) -> None:
        connection: Connection | None = None
        while not self._is_closing:
            with self._lock:
                self._to_ask.wait_for(lambda: self._waiting or self._is_away or self._is_closing)
                asked = [self._waiting.popleft() for _ in range(min(len(self._waiting), ASKED_AT_ONCE_MAX))]
                asked = [one for one in asked if not one.is_answered]
            try:
                if connection is None:
                    connection = self._connect()
                told = claim(connection, [one.claim for one in asked], node=self._node, seconds=self._seconds)
                self._answer(asked, told)
            except Exception as fault:  # noqa: BLE001 - whatever it was: these logins are decided without PostgreSQL
                if connection is not None:
                    connection.close()
                connection = None
                self._answer(asked, None)
                self._say(fault)
                time.sleep(RETRY_SECONDS)

    def _connect(self) -> Connection:
        """In autocommit: a claim is a transaction."""
        dsn = self._child.find_dsn()
        if not dsn:
            raise ConnectionError("the embedded PostgreSQL is not up")
        connection = connect(dsn, name=f"{self._child.order.name} strict", statement_timeout_seconds=5)
        connection.autocommit = True
        return connection

    def _answer(self, asked: list[_Asked[What]], told: list[Claimed] | None) -> None:
        with self._lock:
            self._is_away = told is None
            self._has_said = self._has_said and self._is_away
            for at, one in enumerate(asked):
                self._hand_back(one, told[at] if told is not None else None)
            if told is None:
                for one in self._waiting:
                    self._hand_back(one, None)

    def _hand_back(self, one: _Asked[What], told: Claimed | None) -> None:
        if not one.is_answered:
            one.is_answered = True
            self._unanswered -= 1
            self._done.append((one.what, told))
            os.eventfd_write(self._bell, 1)

    def _watch(self) -> None:
        """At its deadline a claim goes back without an answer, and PostgreSQL counts as away until it answers again."""
        with self._lock:
            while not self._is_closing:
                now = time.monotonic()
                while self._watched and (self._watched[0].is_answered or self._watched[0].due <= now):
                    one = self._watched.popleft()
                    self._is_away = self._is_away or not one.is_answered
                    self._hand_back(one, None)
                self._to_watch.wait(self._watched[0].due - now if self._watched else None)

    def _say(self, fault: Exception) -> None:
        if self._has_said:
            return
        self._has_said = True
        reason = str(fault).strip().partition("\n")[0]
        self._child.log.warning("strict-places-away", kind=type(fault).__name__, reason=reason)
