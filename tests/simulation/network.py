"""What becomes of the records on their way: lost, duplicated, delayed, asked again, through another node, late settled.

A Delivery is one datagram that reached a node. Every decision comes from the seed; each fault is counted by kind.
Times are microseconds after the world's beginning, except that a NAS counts its delays in whole seconds.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from random import Random
from typing import TYPE_CHECKING

from faults import Fault
from world import SPAN_SECONDS

if TYPE_CHECKING:
    from world import Nas, Saying, World

SECOND = 1_000_000
TRIES_MAX = 6
NODES = ("node1", "node2")


@dataclass(frozen=True, slots=True)
class Delivery:
    """`settled`: when its node's settler comes to it. `delay`: Acct-Delay-Time."""

    nas: Nas
    saying: Saying
    node: str
    received: int
    settled: int
    delay: int
    identifier: int


@dataclass(frozen=True, slots=True)
class Weather:
    """How bad it is: shares of datagrams."""

    lost: float
    answer_lost: float
    duplicated: float
    delayed: float
    failed_over: float
    held_back: float
    given_up: float


def carry(world: World) -> tuple[list[Delivery], Counter[Fault]]:
    """Everything that arrives, in the order in which it is settled."""
    network = _Network(world)
    for nas, saying in world.sayings():
        network.send(nas, saying)
    return network.settle(), network.faults


class _Network:
    def __init__(self, world: World) -> None:
        self.random = Random(f"network {world.seed}")
        worst = self.random.choice((0.0, 0.03, 0.1, 0.25))

        def share() -> float:
            return self.random.random() * worst

        self.weather = Weather(share(), share(), share(), share(), share(), share() / 2, share())
        self.faults: Counter[Fault] = Counter()
        self.arrived: list[Delivery] = []
        self.identifier = 0

    def chance(self, share: float) -> bool:
        return self.random.random() < share

    def send(self, nas: Nas, saying: Saying) -> None:
        """As a NAS does: until it hears an answer, or loses patience; then perhaps through the other node."""
        node = self.random.randrange(2) if self.chance(self.weather.failed_over) else 0
        if node:
            self.faults[Fault.FAILED_OVER] += 1
        began = saying.at * SECOND + self.random.randrange(SECOND)
        sent = began
        if self.chance(self.weather.held_back):
            sent += self.random.randint(60, 5400) * SECOND
            self.faults[Fault.HELD_BACK] += 1
        if self.chance(self.weather.given_up):
            self.faults[Fault.LOST] += 1
            return
        for attempt in range(TRIES_MAX):
            if not self.chance(self.weather.lost):
                self._arrive(nas, saying, NODES[node], sent, (sent - began) // SECOND)
                if not self.chance(self.weather.answer_lost):
                    return
                self.faults[Fault.ANSWER_LOST] += 1
            sent += self.random.randint(3, 12) * SECOND
            if attempt >= 2 and self.chance(0.7):
                node = 1 - node
                self.faults[Fault.FAILED_OVER] += 1
        self.faults[Fault.LOST] += not any(one.saying is saying for one in self.arrived[-2 * TRIES_MAX :])

    def _arrive(self, nas: Nas, saying: Saying, node: str, sent: int, delay: int) -> None:
        self.identifier = (self.identifier + 1) % 256
        copies = 1
        if self.chance(self.weather.duplicated):
            copies = 2
            self.faults[Fault.DUPLICATED] += 1
        for _ in range(copies):
            under_way = self.random.randrange(SECOND // 10)
            if self.chance(self.weather.delayed):
                under_way += self.random.randint(1, 5) * SECOND
                self.faults[Fault.DELAYED] += 1
            self.arrived.append(Delivery(nas, saying, node, sent + under_way, 0, delay, self.identifier))

    def settle(self) -> list[Delivery]:
        """Each node settles in the order of its journal, but now and then a node is behind for a while."""
        backlogs = {node: self._backlog() for node in NODES}
        settled = []
        for node, (begins, ends) in backlogs.items():
            here = sorted((one for one in self.arrived if one.node == node), key=lambda one: one.received)
            self.faults[Fault.BACKLOG] += any(begins <= one.received < ends for one in here)
            settled += [replace(one, settled=ends if begins <= one.received < ends else one.received) for one in here]
        return sorted(settled, key=lambda one: (one.settled, one.received))

    def _backlog(self) -> tuple[int, int]:
        if not self.chance(0.3):
            return 0, 0
        begins = self.random.randrange(SPAN_SECONDS)
        return begins * SECOND, (begins + self.random.randint(60, 7200)) * SECOND
