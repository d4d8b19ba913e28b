"""The loop of a UDP worker: wait, drain each socket in turn, hand the batch on, send what is due.

asyncio's datagram transport reads one datagram a turn of its loop and manages a ninth of this: it never comes here.
"""

from __future__ import annotations

import select
import socket
import time
from typing import TYPE_CHECKING, Protocol

from sms_aaa.metrics import Word
from sms_aaa.server.dispatch import SILENCE, Asked, Dispatcher
from sms_aaa.server.drops import DropLog
from sms_aaa.server.duplicates import DuplicateCache
from sms_aaa.server.gate import Gate
from sms_aaa.server.shedding import Shedder
from sms_aaa.server.signers import Signers
from sms_aaa.server.sockets import Arrival, Endpoint, granted_buffer_octets
from sms_aaa.server.worker import NodeReader

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sms_aaa.radius.packet import Code
    from sms_aaa.server.worker import Child

SLEEP_SECONDS_MAX = 0.2
DRAIN_SECONDS_MAX = 2.0
SAY_AGAIN_SECONDS = 10.0
HOUSEKEEPING_SECONDS = 0.25
"""How often tables are compared with the replica: a change is live within this time of reaching it."""

SHARING_SECONDS = 1.0
"""How often a worker looks at what the others learned of the NASes, and writes what it did."""


class Bell(Protocol):
    """Something whose descriptor becomes readable."""

    def fileno(self) -> int: ...


class Way(Protocol):
    """What a worker does with its new requests: sets an outcome for each through the dispatcher."""

    batch_max: int
    pace_seconds: float
    """From one look at the sockets that found something to the next, at least; 0: there is no waiting."""

    @property
    def bells(self) -> Sequence[Bell]:
        """What is polled beside the sockets; when one rings, `collect` is called."""

    def collect(self) -> None: ...

    def serve(self, endpoint: Endpoint, asked: Sequence[Asked], began: float) -> None: ...

    def keep_house(self, now: float) -> None:
        """Every HOUSEKEEPING_SECONDS, between batches."""

    def close(self) -> None: ...


class UdpWorker:
    """Endpoints, gate, dispatcher and tables of one worker; the way is the role's own."""

    def __init__(self, child: Child, *, code: Code, duplicate_seconds: int) -> None:
        self.child = child
        self.reader = NodeReader(child)
        self.cache = DuplicateCache(duplicate_seconds)
        self.dispatcher = Dispatcher(self.cache)
        name, database_id = child.order.name, self.reader.meta().database_id
        self.gate = Gate(
            code=code,
            tables=self.reader.tables,
            cache=self.cache,
            counters=child.counters,
            signers=Signers(child.counters, child.state_folder, name=name, database_id=database_id),
            drops=DropLog(child.state_folder, name=name, database_id=database_id),
        )
        # What the predecessor in this slot counted goes on: for Prometheus a counter only ever rises.
        self.dispatcher.sent = child.counters[Word.REPLIES]
        self.dispatcher.shed = child.counters[Word.SHED]
        self.dispatcher.unsent = child.counters[Word.SEND_FAULTS]
        self._others = [child.board.slot(at).counters for at in range(child.board.slot_count) if at != child.order.slot]
        self._sharing_due = 0.0
        self.shedder = Shedder(child.settings.limits, child.counters)
        self._said_at = float("-inf")
        self.endpoints = {fd: Endpoint(socket.socket(fileno=fd)) for fd in child.order.sockets}
        granted = min(granted_buffer_octets(endpoint.socket) for endpoint in self.endpoints.values())
        child.counters[Word.RECEIVE_BUFFER_OCTETS] = granted
        self._use_tables()

    def run(self, way: Way) -> None:
        """Serves until asked to end; then what the sockets still hold, and then what is deferred."""
        poll = select.epoll()
        for descriptor in self.endpoints:
            poll.register(descriptor, select.EPOLLIN)
        for bell in way.bells:
            poll.register(bell.fileno(), select.EPOLLIN)
        next_housekeeping = 0.0
        while not self.child.stopping:
            now = time.monotonic()
            if now >= next_housekeeping:
                self._keep_house(now)
                way.keep_house(now)
                next_housekeeping = now + HOUSEKEEPING_SECONDS
            ready = poll.poll(self.dispatcher.seconds_to_next(now, SLEEP_SECONDS_MAX))
            began = time.monotonic()
            for descriptor, _ in ready:
                if descriptor in self.endpoints:
                    self._serve(self.endpoints[descriptor], way)
                else:
                    way.collect()
            self.dispatcher.send_due(time.monotonic())
            self._count()
            if ready and (rest := began + way.pace_seconds - time.monotonic()) > 0:
                time.sleep(rest)
        # What is still in the sockets after this time is for the successor, who gets the same sockets.
        until = time.monotonic() + DRAIN_SECONDS_MAX
        for endpoint in self.endpoints.values():
            while self._serve(endpoint, way) and time.monotonic() < until:
                pass
        self.dispatcher.send_due(float("inf"))
        way.close()
        self._count()

    def _serve(self, endpoint: Endpoint, way: Way) -> int:
        """One batch from one socket; how many datagrams it had."""
        if self.shedder.is_behind(endpoint):
            timed = endpoint.drain_timed(way.batch_max)
            drained, arrivals = len(timed), self.shedder.keep(timed, time.time())
        else:
            arrivals = endpoint.drain(way.batch_max)
            drained = len(arrivals)
        if not arrivals:
            return drained
        began = time.monotonic()
        asked = self._admit(endpoint, arrivals)
        if asked:
            self._serve_asked(endpoint, way, asked, began)
        return drained

    def _serve_asked(self, endpoint: Endpoint, way: Way, asked: list[Asked], began: float) -> None:
        """A bug of ours that one request sets off costs that request its answer, and nobody else's."""
        try:
            way.serve(endpoint, asked, began)
        except Exception:  # noqa: BLE001 - the door's last resort: said, counted, met with silence
            if len(asked) > 1:
                for one in asked:
                    self._serve_asked(endpoint, way, [one], began)
                return
            self.give_up(endpoint, asked[0])

    def give_up(self, endpoint: Endpoint, one: Asked) -> None:
        """What is being handled is our bug: it is counted, said now and then, and met with silence."""
        self.child.counters[Word.OUR_FAULTS] += 1
        self.dispatcher.carry_out(endpoint, one, SILENCE)
        now = time.monotonic()
        if now - self._said_at > SAY_AGAIN_SECONDS:
            self._said_at = now
            self.child.log.bug("bug-in-request")

    def _admit(self, endpoint: Endpoint, arrivals: list[Arrival]) -> list[Asked]:
        asked = []
        admit = self.gate.admit
        for data, source, way_back in arrivals:
            admitted = admit(data, source)
            if admitted is None:
                continue
            if isinstance(admitted, bytes):
                endpoint.send(admitted, way_back)
            else:
                asked.append(Asked(admitted, way_back))
        return asked

    def _keep_house(self, now: float) -> None:
        now_ns = time.time_ns()
        self.child.beat()
        self.cache.expire(now)
        self.shedder.count_drops(self.endpoints.values())
        if self.reader.refresh(now_ns):
            self._use_tables()
            self.child.log.info("tables-renewed", nas=len(self.gate.tables.nases), plans=len(self.gate.tables.plans))
        if now >= self._sharing_due:
            self._sharing_due = now + SHARING_SECONDS
            self.gate.share(self._others, now_ns)
            self._say_what_failed(now)

    def _say_what_failed(self, now: float) -> None:
        """What is learned of NASes is written beside the packets' way: a full disk stops nobody, and is said."""
        faults = [fault for fault in (self.gate.signers.fault, self.gate.drops.fault) if fault is not None]
        if faults and now - self._said_at > SAY_AGAIN_SECONDS:
            self._said_at = now
            self.child.log.warning("not-written", reason="; ".join(faults), remedy="free space, or see the disk")

    def _use_tables(self) -> None:
        tables = self.reader.tables
        self.gate.use(tables)
        self.child.counters[Word.NAS_UNREADABLE] = len(tables.unreadable)
        self.child.counters[Word.NAS_WEAK] = tables.weak

    def _count(self) -> None:
        counters, dispatcher = self.child.counters, self.dispatcher
        counters[Word.REPLIES] = dispatcher.sent
        counters[Word.SHED] = dispatcher.shed
        counters[Word.SEND_FAULTS] = dispatcher.unsent
