"""What an overloaded worker drops, before any work is spent on it: by worth, and before the kernel drops blindly.

A worker is behind when a socket's receive queue is fuller than limits.shed_queue_percent of its room, and until half
of that is worked off. It then drops by rules/limits.py Worth: an accounting worker Interim-Updates, an access worker
logins that lay in the queue so long that they have been sent again. Start, Stop, On and Off are never dropped here.
What is dropped is not verified first: if it was not genuine, it would have been dropped as well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sms_aaa.metrics import Word
from sms_aaa.radius.dictionary import ACCT_STATUS_TYPE, STATE
from sms_aaa.radius.packet import Code, find_first
from sms_aaa.rules.limits import Worth, is_behind, is_shed

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sms_aaa.config import LimitsSettings
    from sms_aaa.server.sockets import Arrival, Endpoint

_INTERIM_UPDATE = (3).to_bytes(4, "big")
_SHED_WORDS = {Worth.INTERIM: Word.SHED_INTERIMS, Worth.LOGIN: Word.SHED_STALE}


def worth_of(datagram: bytes) -> Worth:
    """Of a request as it came; what is neither a login nor an Interim-Update counts as what is never dropped."""
    if not datagram:
        return Worth.RECORD
    if datagram[0] == Code.ACCESS_REQUEST:
        return Worth.LOGIN if find_first(datagram, STATE) is None else Worth.CONVERSATION
    if datagram[0] == Code.ACCOUNTING_REQUEST and find_first(datagram, ACCT_STATUS_TYPE) == _INTERIM_UPDATE:
        return Worth.INTERIM
    return Worth.RECORD


class Shedder:
    """One worker's; looks at a socket's queue once a batch."""

    def __init__(self, limits: LimitsSettings, counters: memoryview) -> None:
        self._limit_percent = limits.shed_queue_percent
        self._stale_seconds = limits.stale_seconds
        self._counters = counters
        self._behind: set[Endpoint] = set()

    def is_behind(self, endpoint: Endpoint) -> bool:
        """On this socket, now. Once a batch: it asks the kernel."""
        queued, room, _ = endpoint.queue()
        was_behind = endpoint in self._behind
        if is_behind(was_behind, queued, room, limit_percent=self._limit_percent) != was_behind:
            self._behind ^= {endpoint}
        return endpoint in self._behind

    def count_drops(self, endpoints: Iterable[Endpoint]) -> None:
        """What found no room in the queues. They are older than this worker and go on counting after it."""
        self._counters[Word.KERNEL_DROPS] = sum(endpoint.queue()[2] for endpoint in endpoints)

    def keep(self, timed: Sequence[tuple[Arrival, float]], now: float) -> list[Arrival]:
        """Of a batch of a socket that the worker is behind on: what is to be worked on.

        `timed`: each datagram with when it was received; that and `now` in epoch seconds.
        """
        kept = []
        for arrival, received_at in timed:
            worth = worth_of(arrival[0])
            if is_shed(worth, now - received_at, stale_seconds=self._stale_seconds):
                self._counters[_SHED_WORDS[worth]] += 1
            else:
                kept.append(arrival)
        return kept
