"""What stands between the gate and a login's decision: rates, lockouts, and who has proved himself here.

The settings of [limits] say how much is too much, rules/limits.py what follows from it; here the state is kept. A
login that nobody has anything against costs half a microsecond: a count in a dict and a look at a mark.

- A NAS above its rate meets silence, as a full queue would: it asks again, later. All workers count together.
- A user on one device who asks again and again is refused. Each worker counts what comes to it; the kernel sends all
  that one port of a NAS sends to the same worker.
- Who fails too often is locked out (rules/limits.py Scope), whatever he offers; all workers count together. A device
  that has logged in under a user name through this worker is spared what others do to that name, or under that device.

What a stranger can make grow on a login's way, and how far; whatever is lost there is counted:

| what                               | its bound                             | what happens there          |
|------------------------------------|---------------------------------------|-----------------------------|
| datagrams in a socket              | access.receive_buffer_octets          | shed by worth, then dropped |
| octets of a datagram               | server.sockets.DATAGRAM_OCTETS_MAX    | dropped                     |
| attributes of a packet             | radius.packet.ATTRIBUTES_MAX          | dropped                     |
| Proxy-State in a reply             | flows.access.REPLY_OCTETS_MAX         | silence                     |
| requests in a batch                | server.access.BATCH_MAX               | the next batch              |
| source addresses remembered        | flows.tables.ADDRESSES_REMEMBERED_MAX | all forgotten               |
| answers kept to be sent again      | server.duplicates.ENTRIES_MAX         | the oldest go               |
| logins worked on beside the loop   | server.access.WORK_WAITING_MAX        | silence                     |
| refusals that wait for their delay | server.dispatch.DEFERRED_MAX          | silence                     |
| users counted in a window          | server.defence.CALLERS_MAX            | the next window             |
| users told of in a second          | server.defence.TOLD_MAX               | counted only                |
| users that proved themselves       | server.defence.PROVEN_CELLS           | the newest stays            |
| failing users and devices          | node.lockouts.ENTRIES_MAX             | the oldest go               |
| NASes with a rate                  | node.lockouts.NAS_WORDS               | share one                   |
| NASes with counters                | metrics.NAS_ROWS_MAX                  | share the last              |
| places of a service                | node.live.ENTRIES_PER_SERVICE_MAX     | the first to end goes       |
| the stream of decisions            | journal.decisions_octets_max          | dropped                     |
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple
from zlib import crc32

from sms_aaa.metrics import Word
from sms_aaa.node.lockouts import MARKS, pair_of
from sms_aaa.radius.dictionary import CALLING_STATION_ID, NAS_PORT_ID, USER_NAME
from sms_aaa.rules.limits import LockoutRule, Scope, Tally, count_failure, step_rate
from sms_aaa.rules.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sms_aaa.config import LimitsSettings
    from sms_aaa.flows.access import AccessRequest, Case
    from sms_aaa.node.lockouts import Lockouts
    from sms_aaa.radius.packet import Packet
    from sms_aaa.server.dispatch import Asked

CALLERS_MAX = 65_536
TOLD_MAX = 4_096
PROVEN_CELLS = 524_288
"""8 octets each."""

_HASH_BITS = (1 << 64) - 1
_ACCEPTED, _RATE_LIMITED, _LOCKED_OUT = Reason.ACCEPTED, Reason.RATE_LIMITED, Reason.LOCKED_OUT
_FAILURES = frozenset((Reason.BAD_PASSWORD, Reason.UNKNOWN_USER))
_LOCKOUT_WORDS = {
    Scope.USER_AND_DEVICE: Word.LOCKOUTS,
    Scope.USER: Word.LOCKOUTS_USER,
    Scope.DEVICE: Word.LOCKOUTS_DEVICE,
}


class Refused(NamedTuple):
    """Turned away before anything was looked up. `saw` in words; `is_told`: it goes into the decision stream."""

    reason: Reason
    saw: bytes
    is_told: bool


def caller_of(packet: Packet) -> tuple[bytes, bytes]:
    """(user, device) as rates and lockouts know them. Without an address the line is the device.

    Not NAS-Port: many number their ports by session.
    """
    attributes = packet.attributes
    device = attributes.get(CALLING_STATION_ID) or attributes.get(NAS_PORT_ID, b"")
    return attributes.get(USER_NAME, b""), device


class Defence:
    """One access worker's. `now`: epoch seconds, because lockouts outlive the boot; `began`: the worker's clock."""

    def __init__(self, limits: LimitsSettings, lockouts: Lockouts, counters: memoryview) -> None:
        self._lockouts = lockouts
        self._counters = counters
        self._nas_interval_ns = 1_000_000_000 // limits.nas_requests_per_second if limits.nas_requests_per_second else 0
        self._nas_burst = limits.nas_burst
        self._logins_max = limits.user_logins
        self._window_seconds = limits.user_window_seconds
        self._window_ends = 0.0
        self._logins: dict[bytes, int] = {}
        self._rules = {
            scope: LockoutRule(failures_max, limits.lockout_window_seconds, limits.lockout_seconds)
            for scope, failures_max in (
                (Scope.USER_AND_DEVICE, limits.lockout_failures),
                (Scope.USER, limits.lockout_user_failures),
                (Scope.DEVICE, limits.lockout_device_failures),
            )
        }
        self._proven = memoryview(bytearray(8 * PROVEN_CELLS)).cast("Q")
        self._told: set[bytes] = set()
        self._told_at = 0
        self._looks_closely = False
        """Somebody of this batch has failed lately, or locked himself out in it."""

    def hold_rate(self, asked: Sequence[Asked], now_ns: int) -> tuple[list[Asked], list[Asked]]:
        """(those within their NAS's rate, those above it). `now_ns`: monotonic, the same for all workers."""
        within: list[Asked] = []
        above: list[Asked] = []
        words, size = self._lockouts.nas_words, len(self._lockouts.nas_words)
        for one in asked:
            at = one.admitted.nas.nas_id % size
            due_ns = step_rate(words[at], now_ns, interval_ns=self._nas_interval_ns, burst=self._nas_burst)
            if due_ns is None:
                above.append(one)
            else:
                words[at] = due_ns
                within.append(one)
        return within, above

    @property
    def holds_rates(self) -> bool:
        return self._nas_interval_ns > 0

    def screen(self, requests: Sequence[AccessRequest], began: float, now: int) -> dict[int, Refused]:
        """Who of a batch is turned away, by index: nearly always nobody."""
        logins, logins_max = self._logins, self._logins_max
        if began >= self._window_ends or len(logins) >= CALLERS_MAX:
            self._logins = logins = {}
            self._window_ends = began + self._window_seconds
        marks, seed = self._lockouts.marks, self._lockouts.seed
        is_wide = self._lockouts.wide_until > now
        self._looks_closely = False
        refused: dict[int, Refused] = {}
        for index, request in enumerate(requests):
            attributes = request.packet.attributes
            device = attributes.get(CALLING_STATION_ID) or attributes.get(NAS_PORT_ID, b"")
            pair = b"%b\0%b" % (attributes.get(USER_NAME, b""), device)
            logins[pair] = count = logins.get(pair, 0) + 1
            if count > logins_max > 0:
                refused[index] = self._refuse(_RATE_LIMITED, pair, now, None)
            elif is_wide or marks[crc32(pair, seed) % MARKS] > now:
                self._looks_closely = True
                locked = self._find_lock(attributes.get(USER_NAME, b""), device, now)
                if locked is not None:
                    refused[index] = self._refuse(_LOCKED_OUT, pair, now, locked)
        return refused

    def note(self, ready: Sequence[tuple[Asked, Case]], now: int, *, is_late: bool) -> None:
        """Learns from what was decided, in order; a case whose lockout set in after its screening is refused here.

        `is_late`: these were worked on beside the loop, so that others may have come in between.
        """
        proven = self._proven
        self._looks_closely |= is_late
        for _, case in ready:
            reason = case.reason
            if reason is _ACCEPTED:
                user, device = caller_of(case.request.packet)
                if self._looks_closely and not self._pass_closely(case, user, device, now):
                    continue
                hashed = hash(b"%b\0%b" % (user, device))
                proven[hashed % PROVEN_CELLS] = hashed & _HASH_BITS
            elif reason in _FAILURES and case.proof is not None:
                self._note_failure(case, now)

    def _pass_closely(self, case: Case, user: bytes, device: bytes, now: int) -> bool:
        if self._find_lock(user, device, now) is not None:
            case.reason = _LOCKED_OUT
            return False
        self._lockouts.forget(Scope.USER_AND_DEVICE, user, device)
        return True

    def _note_failure(self, case: Case, now: int) -> None:
        """A wrong password counts for user and device; a name that nobody has counts for the device alone."""
        user, device = caller_of(case.request.packet)
        locked = self._find_lock(user, device, now)
        if locked is not None:
            case.reason = _LOCKED_OUT
            return
        if case.reason is Reason.BAD_PASSWORD:
            self._count(Scope.USER_AND_DEVICE, user, device, now)
            self._count(Scope.USER, user, b"", now)
        if CALLING_STATION_ID in case.request.packet.attributes:
            self._count(Scope.DEVICE, b"", device, now)

    def _count(self, scope: Scope, user: bytes, device: bytes, now: int) -> None:
        rule = self._rules[scope]
        if not rule.failures_max:
            return
        tally = count_failure(self._lockouts.find(scope, user, device), now, rule)
        self._lockouts.store(scope, user, device, tally, now=now, matters_until=tally.matters_until(rule))
        if tally.until:
            self._counters[_LOCKOUT_WORDS[scope]] += 1
            self._looks_closely = True

    def _find_lock(self, user: bytes, device: bytes, now: int) -> tuple[Scope, Tally] | None:
        """What keeps this user on this device out."""
        find = self._lockouts.find
        tally = find(Scope.USER_AND_DEVICE, user, device)
        if tally.is_locked(now):
            return Scope.USER_AND_DEVICE, tally
        if self._lockouts.wide_until <= now or self._has_proved(user, device):
            return None
        for scope, of_user, of_device in ((Scope.USER, user, b""), (Scope.DEVICE, b"", device)):
            tally = find(scope, of_user, of_device)
            if tally.is_locked(now):
                return scope, tally
        return None

    def _has_proved(self, user: bytes, device: bytes) -> bool:
        hashed = hash(pair_of(user, device))
        return self._proven[hashed % PROVEN_CELLS] == hashed & _HASH_BITS

    def _refuse(self, reason: Reason, pair: bytes, now: int, locked: tuple[Scope, Tally] | None) -> Refused:
        """Of each user on a device one refusal a second is told, so that nobody writes the decision stream full."""
        if now != self._told_at:
            self._told_at, self._told = now, set()
        if pair in self._told or len(self._told) >= TOLD_MAX:
            self._counters[Word.DECISIONS_UNTOLD] += 1
            return Refused(reason, b"", is_told=False)
        self._told.add(pair)
        if locked is None:
            saw = f"more than {self._logins_max} logins in {self._window_seconds} s"
        else:
            scope, tally = locked
            until = time.strftime("%H:%M:%SZ", time.gmtime(tally.until))
            saw = f"{tally.failures} failures of this {scope.label}, until {until}"
        return Refused(reason, saw.encode(), is_told=True)
