"""A NAS that never forgets: sessions with known counters from several ports, sent again until they are answered.

It keeps a ledger of every record: whether it was sent, and whether an authentic answer came. Counters only rise, a
record is sent when the one before it was answered, and the last of some sessions is given up after a few tries: what
was sent and not answered may be in effect or not, everything else is certain.
"""

from __future__ import annotations

import select
import socket
import threading
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING

from make import SECRET, STATUS

from sms_aaa.radius import dictionary
from sms_aaa.radius.digest import SecretDigests
from sms_aaa.radius.packet import attribute, integer
from sms_aaa.radius.request import accounting_request, reply_is_authentic

if TYPE_CHECKING:
    from collections.abc import Iterator

LINES = 6
WINDOW = 60
"""Records of one port that wait for an answer."""
PATIENCE_SECONDS = 0.8
SAME_TRIES = 3
"""So often a record is sent as it is; then with a new Identifier and Acct-Delay-Time, from another port."""
GIVEN_UP_AFTER = 5
STEP_SECONDS = 240
USERS = 40
FINISH_SECONDS_MAX = 120.0


@dataclass(slots=True)
class Session:
    """`counters`: (in, out) of each of its records, the first of them zero; `is_meek`: its Stop is given up at last."""

    name: str
    user: int
    began: int
    counters: list[tuple[int, int]]
    is_meek: bool
    sent: int = 0
    answered: int = 0

    @property
    def is_over(self) -> bool:
        return self.answered == len(self.counters)

    @property
    def least(self) -> tuple[int, int] | None:
        """What is certainly counted; None: nothing was answered."""
        return self.counters[self.answered - 1] if self.answered else None

    @property
    def most(self) -> tuple[int, int]:
        return self.counters[self.sent - 1] if self.sent else (0, 0)


@dataclass(slots=True)
class Waiting:
    """A record on its way."""

    session: Session
    step: int
    first_sent: float
    datagram: bytes
    due: float
    tries: int = 1


@dataclass(slots=True)
class Line:
    socket: socket.socket
    free: deque[int] = field(default_factory=lambda: deque(range(256)))
    waiting: dict[int, Waiting] = field(default_factory=dict)

    def send(self, datagram: bytes) -> None:
        with suppress(ConnectionRefusedError, BlockingIOError):  # nobody there just now: it is sent again
            self.socket.send(datagram)

    def receive(self) -> Iterator[bytes]:
        while True:
            try:
                yield self.socket.recv(4096)
            except ConnectionRefusedError:
                continue
            except BlockingIOError:
                return


class Ledger:
    """Sends from a thread of its own, `records_per_second` at most, until it is told to finish."""

    def __init__(self, port: int, *, seed: int, records_per_second: int) -> None:
        self._random = Random(f"{seed} load")
        self._seed = seed
        self._rate = records_per_second
        self._digests = SecretDigests(SECRET)
        self._lines = [self._line(port) for _ in range(LINES)]
        self._ready: deque[Session] = deque()
        self._thread = threading.Thread(target=self._run, name="load")
        self._finishing = threading.Event()
        self._fault: BaseException | None = None
        self.sessions: list[Session] = []
        self.datagrams = 0
        self.seconds = 0.0

    @property
    def records_sent(self) -> int:
        return sum(session.sent for session in self.sessions)

    @property
    def records_answered(self) -> int:
        return sum(session.answered for session in self.sessions)

    def start(self) -> None:
        self._thread.start()

    def finish(self) -> None:
        """No new sessions; those that are open are brought to their end as far as they are answered in time."""
        self._finishing.set()
        self._thread.join(FINISH_SECONDS_MAX + 30)
        self.close()
        assert not self._thread.is_alive(), "the load did not end"
        if self._fault is not None:
            raise self._fault

    def close(self) -> None:
        for line in self._lines:
            line.socket.close()

    def _line(self, port: int) -> Line:
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        made.bind(("127.0.0.1", 0))
        made.connect(("127.0.0.1", port))
        made.setblocking(False)
        return Line(made)

    def _run(self) -> None:
        try:
            self._play()
        except BaseException as fault:  # noqa: BLE001 - told to whoever joins
            self._fault = fault

    def _play(self) -> None:
        began = time.monotonic()
        finish_by = float("inf")
        looked = 0.0
        while True:
            now = time.monotonic()
            if self._finishing.is_set():
                finish_by = min(finish_by, now + FINISH_SECONDS_MAX)
                if now > finish_by or not (self._ready or any(line.waiting for line in self._lines)):
                    break
            select.select([line.socket for line in self._lines], [], [], 0.005)
            for line in self._lines:
                self._hear(line)
            now = time.monotonic()
            if now - looked > 0.05:
                looked = now
                self._repeat(now)
            self._send(now, allowed=int((now - began) * self._rate))
        self.seconds = time.monotonic() - began

    def _hear(self, line: Line) -> None:
        for reply in line.receive():
            waiting = line.waiting.get(reply[1])
            if waiting is None or not reply_is_authentic(reply, waiting.datagram[4:20], self._digests):
                continue  # late, to what was asked with this Identifier before
            del line.waiting[reply[1]]
            line.free.append(reply[1])
            session = waiting.session
            assert session.answered == waiting.step
            session.answered += 1
            if not session.is_over:
                self._ready.append(session)

    def _repeat(self, now: float) -> None:
        for line in self._lines:
            for identifier, waiting in list(line.waiting.items()):
                if now < waiting.due:
                    continue
                session = waiting.session
                is_last = waiting.step == len(session.counters) - 1
                if session.is_meek and is_last and waiting.tries >= GIVEN_UP_AFTER:
                    del line.waiting[identifier]
                    line.free.append(identifier)
                elif waiting.tries < SAME_TRIES:
                    waiting.tries += 1
                    waiting.due = now + PATIENCE_SECONDS
                    self.datagrams += 1
                    line.send(waiting.datagram)
                else:
                    del line.waiting[identifier]
                    line.free.append(identifier)
                    others = (other for other in self._lines if other is not line)
                    self._post(
                        min(others, key=lambda other: len(other.waiting)), waiting.session, waiting.step, now, waiting
                    )

    def _send(self, now: float, *, allowed: int) -> None:
        """New records, on the port with the fewest that wait; as many wait at once as all ports have room for."""
        room = LINES * WINDOW - sum(len(line.waiting) for line in self._lines)
        for line in sorted(self._lines, key=lambda one: len(one.waiting)):
            while room > 0 and len(line.waiting) < WINDOW and self.datagrams < allowed:
                session = self._next()
                if session is None:
                    return
                room -= 1
                session.sent += 1
                self._post(line, session, session.sent - 1, now, None)

    def _next(self) -> Session | None:
        if self._ready:
            return self._ready.popleft()
        if self._finishing.is_set():
            return None
        session = self.new_session()
        self.sessions.append(session)
        return session

    def new_session(self) -> Session:
        number, random = len(self.sessions), self._random
        counters = [(0, 0)]
        for _ in range(random.randint(1, 5)):
            octets_in, octets_out = counters[-1]
            counters.append((octets_in + random.randint(1, 10**6), octets_out + random.randint(1, 10**8)))
        began = int(time.time()) - 3600
        return Session(f"k-{self._seed}-{number}", number % USERS, began, counters, is_meek=random.random() < 0.1)

    def _post(self, line: Line, session: Session, step: int, now: float, before: Waiting | None) -> None:
        identifier = line.free.popleft()
        first_sent = before.first_sent if before is not None else now
        datagram = self.datagram(identifier, session, step, delay=int(now - first_sent))
        tries = before.tries + 1 if before is not None else 1
        line.waiting[identifier] = Waiting(session, step, first_sent, datagram, now + PATIENCE_SECONDS, tries)
        self.datagrams += 1
        line.send(datagram)

    def datagram(self, identifier: int, session: Session, step: int, *, delay: int) -> bytes:
        last = len(session.counters) - 1
        status = "start" if step == 0 else "stop" if step == last else "interim"
        octets_in, octets_out = session.counters[step]
        key = dictionary
        parts = [
            attribute(key.USER_NAME, b"user%d" % session.user),
            attribute(key.ACCT_STATUS_TYPE, integer(STATUS[status])),
            attribute(key.ACCT_SESSION_ID, session.name.encode()),
            attribute(key.EVENT_TIMESTAMP, integer(session.began + step * STEP_SECONDS)),
            attribute(key.ACCT_DELAY_TIME, integer(delay)),
        ]
        if step:
            parts += [
                attribute(key.ACCT_SESSION_TIME, integer(step * STEP_SECONDS)),
                attribute(key.ACCT_INPUT_OCTETS, integer(octets_in & 0xFFFFFFFF)),
                attribute(key.ACCT_INPUT_GIGAWORDS, integer(octets_in >> 32)),
                attribute(key.ACCT_OUTPUT_OCTETS, integer(octets_out & 0xFFFFFFFF)),
                attribute(key.ACCT_OUTPUT_GIGAWORDS, integer(octets_out >> 32)),
            ]
        return accounting_request(identifier, b"".join(parts), self._digests)
