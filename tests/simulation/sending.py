"""The boxes of several worlds at real sockets: each sends its deliveries one after the other until each is answered.

What the network lost is not among the deliveries; what a node does not answer is asked again with a new Identifier and
a grown Acct-Delay-Time, and now and then of the other node. Hours of the worlds lie in the past: Acct-Delay-Time, and
Event-Timestamp where the box has a clock, say when it was.
"""

from __future__ import annotations

import select
import socket
import threading
import time
from collections import Counter, deque
from dataclasses import dataclass, field, replace
from random import Random
from typing import TYPE_CHECKING

from faults import Fault
from make import SECRET
from network import NODES, SECOND
from speech import attributes_of

from sms_aaa.radius.digest import SecretDigests
from sms_aaa.radius.request import accounting_request, reply_is_authentic

if TYPE_CHECKING:
    from collections.abc import Sequence

    from network import Delivery
    from world import Nas, World

PATIENCE_SECONDS = 0.4
GIVE_UP_SECONDS = 90.0
AGAIN_ELSEWHERE = 0.4
"""How often a box that hears nothing asks the other node."""

DIGESTS = SecretDigests(SECRET)


class SilenceError(Exception):
    """A record was not answered, for longer than any of the troubles lasts."""


@dataclass
class Play:
    """A world on the stage: its subscribers' services, and what was answered, in that order.

    `tried`: which nodes may have a record of a session.
    """

    world: World
    deliveries: list[Delivery]
    services: list[int]
    addresses: dict[str, str]
    answered: list[Delivery] = field(default_factory=list)
    tried: dict[int, set[str]] = field(default_factory=dict)


class Lane:
    """A box's socket; it waits for one answer at a time."""

    def __init__(self, play: Play, nas: Nas, deliveries: Sequence[Delivery]) -> None:
        self.play = play
        self.waiting = deque(deliveries)
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((play.addresses[nas.name], 0))
        self.socket.setblocking(False)
        self.identifier = 0
        self.sent: dict[int, bytes] = {}
        self.now: Delivery | None = None
        self.node = NODES[0]
        self.due = self.gives_up = 0.0
        self.last: tuple[int, bytes] = (-1, b"")  # what the network may bring twice


class Sender(threading.Thread):
    """Sends everything, at most `rate` new records a second. `ports`: of the nodes that there are."""

    def __init__(self, plays: Sequence[Play], *, ports: dict[str, int], base: int, rate: float, seed: int) -> None:
        super().__init__(daemon=True)
        self.ports, self.base, self.rate = ports, base, rate
        self.random = Random(f"sender {seed}")
        self.faults: Counter[Fault] = Counter()
        self.asked_again = 0
        self.done = 0
        self.failed: Exception | None = None
        self.lanes = [lane for play in plays for lane in _lanes(play)]
        self.total = sum(len(lane.waiting) for lane in self.lanes)

    def run(self) -> None:
        try:
            self._run()
        except Exception as failed:  # noqa: BLE001 - raised again by who joins
            self.failed = failed
        finally:
            for lane in self.lanes:
                lane.socket.close()

    def _run(self) -> None:
        by_descriptor = {lane.socket.fileno(): lane for lane in self.lanes}
        poller = select.epoll()
        for descriptor in by_descriptor:
            poller.register(descriptor, select.EPOLLIN)
        began, busy = time.monotonic(), list(self.lanes)
        begun = 0
        while busy:
            now = time.monotonic()
            for lane in busy:
                if lane.now is None and lane.waiting and begun < (now - began) * self.rate:
                    begun += 1
                    self._begin(lane, now)
                elif lane.now is not None and now >= lane.due:
                    self._again(lane, now)
            for descriptor, _ in poller.poll(0.005):
                self._hear(by_descriptor[descriptor])
            busy = [lane for lane in busy if lane.now is not None or lane.waiting]

    def _begin(self, lane: Lane, now: float) -> None:
        lane.now = lane.waiting.popleft()
        lane.node = lane.now.node if lane.now.node in self.ports else NODES[0]
        lane.gives_up = now + GIVE_UP_SECONDS
        identifier, datagram = lane.last
        if lane.now.identifier != identifier:
            lane.sent.clear()
            datagram = self._datagram(lane)
            lane.last = lane.now.identifier, datagram
        lane.sent[datagram[1]] = datagram
        self._send(lane, datagram, now)

    def _again(self, lane: Lane, now: float) -> None:
        assert lane.now is not None
        if now > lane.gives_up:
            raise SilenceError(f"not answered for {GIVE_UP_SECONDS:.0f} s: {lane.now}")
        self.asked_again += 1
        if len(self.ports) > 1 and self.random.random() < AGAIN_ELSEWHERE:
            lane.node = NODES[1 - NODES.index(lane.node)]
            self.faults[Fault.FAILED_OVER] += 1
        datagram = self._datagram(lane)
        lane.sent[datagram[1]] = datagram
        lane.last = lane.now.identifier, datagram
        self._send(lane, datagram, now)

    def _send(self, lane: Lane, datagram: bytes, now: float) -> None:
        assert lane.now is not None
        lane.play.tried.setdefault(lane.now.saying.session, set()).add(lane.node)
        lane.due = now + PATIENCE_SECONDS
        lane.socket.sendto(datagram, ("127.0.0.1", self.ports[lane.node]))

    def _datagram(self, lane: Lane) -> bytes:
        one = lane.now
        assert one is not None
        delay = max(int(time.time()) - self.base - one.saying.at, 0)
        lane.identifier = (lane.identifier + 1) % 256
        attributes = attributes_of(
            lane.play.world, replace(one, delay=delay), base=self.base, services=lane.play.services
        )
        return accounting_request(lane.identifier, attributes, DIGESTS)

    def _hear(self, lane: Lane) -> None:
        while True:
            try:
                reply = lane.socket.recv(4096)
            except BlockingIOError:
                return
            except ConnectionRefusedError:
                continue  # the node is being started again
            asked = lane.sent.get(reply[1])
            if lane.now is None or asked is None or not reply_is_authentic(reply, asked[4:20], DIGESTS):
                continue
            received = int(time.time() * SECOND) - self.base * SECOND
            lane.play.answered.append(replace(lane.now, node=lane.node, received=received, settled=received))
            self.done += 1
            lane.now = None


def _lanes(play: Play) -> list[Lane]:
    lanes = []
    for nas in play.world.nases:
        of_it = sorted((one for one in play.deliveries if one.nas == nas), key=lambda one: one.received)
        if of_it:
            lanes.append(Lane(play, nas, of_it))
    return lanes
