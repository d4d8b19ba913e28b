"""What becomes of a request: an answer now, an answer later, or silence. And the table of who answers what.

| request            | outcome               | reply                                                     |
|--------------------|-----------------------|-----------------------------------------------------------|
| Access-Request     | granted               | Access-Accept                                             |
| Access-Request     | refused               | Access-Reject, deferred by the reject delay               |
| Access-Request     | our fault             | silence: the NAS tries the next server                    |
| Accounting-Request | on disk               | Accounting-Response                                       |
| Accounting-Request | not on disk           | silence: RFC 2866 section 4.1 forbids an answer           |
| Status-Server      | we serve              | Access-Accept or Accounting-Response, by port (RFC 5997)  |
| anything else      | a fault of the peer's | silence and a counter                                     |
"""

from __future__ import annotations

import heapq
from itertools import count
from typing import TYPE_CHECKING

from msgspec import Struct

from sms_aaa.server.gate import Admitted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sms_aaa.server.duplicates import DuplicateCache, Entry
    from sms_aaa.server.sockets import Endpoint, WayBack

DEFERRED_MAX = 65_536
"""Answers that wait for their time. Beyond it a refusal is not answered at all; the NAS asks again."""


class Answer(Struct, frozen=True, gc=False):
    """To be sent now."""

    reply: bytes


class Deferred(Struct, frozen=True, gc=False):
    """To be sent at `due`, in seconds of the worker's clock."""

    reply: bytes
    due: float


class Silence(Struct, frozen=True, gc=False):
    """Nothing is sent; a retransmission is worked on anew."""


SILENCE = Silence()
Outcome = Answer | Deferred | Silence


class Asked(Struct, frozen=True, gc=False):
    """A request that waits for its outcome: what was admitted, and the way back."""

    admitted: Admitted
    way_back: tuple[object, ...]


class Dispatcher:
    """Carries outcomes out for one worker: sends, remembers in the duplicate cache, keeps what is deferred.

    The cache learns a reply when it is sent, not before: while it is deferred, a retransmission meets "pending".
    """

    __slots__ = ("_cache", "_later", "_order", "sent", "shed", "unsent")

    def __init__(self, cache: DuplicateCache) -> None:
        self._cache = cache
        # Not the requests: what is left of one is its place in the cache, a third of its octets.
        self._later: list[tuple[float, int, Endpoint, Entry, WayBack, bytes]] = []
        self._order = count()
        self.sent = 0
        self.unsent = 0
        self.shed = 0

    def carry_out(self, endpoint: Endpoint, asked: Asked, outcome: Outcome) -> None:
        entry, way_back = asked.admitted.entry, asked.way_back
        if type(outcome) is Answer:
            self._send(endpoint, entry, way_back, outcome.reply)
        elif type(outcome) is Deferred and len(self._later) < DEFERRED_MAX:
            heapq.heappush(self._later, (outcome.due, next(self._order), endpoint, entry, way_back, outcome.reply))
        else:
            self.shed += type(outcome) is Deferred
            self._cache.forget(entry)

    def answer_all(self, endpoint: Endpoint, answers: Sequence[tuple[Asked, bytes]]) -> None:
        """As carry_out of an Answer for each, together: the way of a batch."""
        replies = []
        for asked, reply in answers:
            asked.admitted.entry.reply = reply
            replies.append((reply, asked.way_back))
        unsent = endpoint.send_many(replies)
        self.sent += len(replies) - unsent
        self.unsent += unsent

    def send_due(self, now: float) -> None:
        """Sends what has waited long enough."""
        while self._later and self._later[0][0] <= now:
            _, _, endpoint, entry, way_back, reply = heapq.heappop(self._later)
            self._send(endpoint, entry, way_back, reply)

    def seconds_to_next(self, now: float, longest: float) -> float:
        """How long the worker may sleep before something is due."""
        return min(longest, max(0.0, self._later[0][0] - now)) if self._later else longest

    def _send(self, endpoint: Endpoint, entry: Entry, way_back: WayBack, reply: bytes) -> None:
        entry.reply = reply
        if endpoint.send(reply, way_back):
            self.sent += 1
        else:
            self.unsent += 1
