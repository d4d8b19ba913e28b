"""What stands between the gate and a login's decision: rates, lockouts, and who has proved himself here.

The settings of [limits] say how much is too much, rules/limits.py what follows from it; here the state is kept. A
login that nobody has anything against costs half a microsecond: a count in a dict and a look at a mark.

- A NAS above its rate meets silence, as a full queue would: it asks again, later. All workers count together.
- A user on one device who asks again and again is refused. Each worker counts what comes to it; the kernel sends all
  that one port of a NAS sends to the same worker.
- Who fails too often is locked out (rules/limits.py Scope), whatever he offers; all workers count together. A device
  that has logged in under a user name through this worker is spared what others do to that name, or under that device.

What a stranger can make grow on a login's way, and how far; whatever is lost there is counted:

| what                               | its bound                                | what happens there          |
|------------------------------------|------------------------------------------|-----------------------------|
| datagrams in a socket              | access.receive_buffer_octets             | shed by worth, then dropped |
| octets of a datagram               | server.sockets.DATAGRAM_OCTETS_MAX       | dropped                     |
| attributes of a packet             | radius.packet.ATTRIBUTES_MAX             | dropped                     |
| Proxy-State in a reply             | flows.access.REPLY_OCTETS_MAX            | silence                     |
| requests in a batch                | server.access.BATCH_MAX                  | the next batch              |
| source addresses remembered        | flows.tables.ADDRESSES_REMEMBERED_MAX    | all forgotten               |
| answers kept to be sent again      | server.duplicates.ENTRIES_MAX            | the oldest go               |
| logins worked on beside the loop   | server.access.WORK_WAITING_MAX           | silence                     |
| logins that wait for PostgreSQL    | server.strict.WAITING_MAX                | silence                     |
| refusals that wait for their delay | server.dispatch.DEFERRED_MAX             | silence                     |
| users counted in a window          | server.defence.CALLERS_MAX               | the next window             |
| users told of in a second          | server.defence.TOLD_MAX                  | counted only                |
| users that proved themselves       | server.defence.PROVEN_CELLS              | the newest stays            |
| failing users and devices          | node.lockouts.ENTRIES_MAX                | the oldest go               |
| sources in a rotation of secrets   | server.rotation.SOURCES_MAX              | learn again                 |
| NASes with a rate                  | node.lockouts.NAS_WORDS                  | share one                   |
| NASes with counters                | node.nas_rows.ROWS_MAX                   | share the last              |
| sources that the drop log names    | server.drops.STRANGERS_MAX               | counted together            |
| places of a service                | node.live_change.ENTRIES_PER_SERVICE_MAX | the first to end goes       |
| passwords known to be right        | flows.passwords.REMEMBERED_MAX           | longest unused goes         |
| the stream of decisions            | journal.decisions_octets_max             | dropped                     |
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple
from zlib import crc32

from sms_aaa.flows.access import AccessRequest
from sms_aaa.metrics import Word
from sms_aaa.node.lockouts import MARKS
from sms_aaa.radius.dictionary import CALLING_STATION_ID, NAS_PORT_ID, USER_NAME
from sms_aaa.rules.limits import LockoutRule, Scope, Tally, count_failure, step_rate
from sms_aaa.rules.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sms_aaa.config import LimitsSettings
    from sms_aaa.flows.access import Case
    from sms_aaa.node.lockouts import Lockouts
    from sms_aaa.radius.packet import Packet
    from sms_aaa.rules.realms import Realms
    from sms_aaa.server.dispatch import Asked

CALLERS_MAX = 65_536
TOLD_MAX = 4_096
PROVEN_CELLS = 524_288
"""8 octets each: the hash of whoever logged in last of those that share the cell. A power of two."""

_PROVEN_CELL = PROVEN_CELLS - 1
_MARK = MARKS - 1
_NO_LIMIT = 1 << 62
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


def user_and_device(packet: Packet, realms: Realms | None) -> tuple[bytes, bytes]:
    """As rates and lockouts know them. Without an address the line is the device.

    Not NAS-Port: many number their ports by session. However a realm is spelled, it is the same user's.
    """
    attributes = packet.attributes
    device = attributes.get(CALLING_STATION_ID) or attributes.get(NAS_PORT_ID, b"")
    user = attributes.get(USER_NAME, b"")
    return user if realms is None else realms.key(user), device


class Defence:
    """One access worker's. `now`: epoch seconds, because lockouts outlive the boot; `began`: the worker's clock."""

    def __init__(self, limits: LimitsSettings, lockouts: Lockouts, counters: memoryview) -> None:
        self._lockouts = lockouts
        self._realms: Realms | None = None
        self._counters = counters
        self._nas_interval_ns = 1_000_000_000 // limits.nas_requests_per_second if limits.nas_requests_per_second else 0
        self._nas_burst = limits.nas_burst
        self._logins_max = limits.user_logins or _NO_LIMIT
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
        self._proven = memoryview(bytearray(8 * PROVEN_CELLS)).cast("q")
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

    def screen(
        self, asked: Sequence[Asked], began: float, now: int, realms: Realms | None = None
    ) -> tuple[list[AccessRequest], dict[int, Refused]]:
        """A batch as requests, and who of it is turned away, by index: nearly always nobody."""
        self._realms = realms
        logins, logins_max = self._logins, self._logins_max
        if began >= self._window_ends or len(logins) >= CALLERS_MAX:
            self._logins = logins = {}
            self._window_ends = began + self._window_seconds
        marks, seed = self._lockouts.marks, self._lockouts.seed
        is_wide = self._lockouts.wide_until > now
        watches = self._lockouts.matters_until > now
        self._looks_closely = False
        requests: list[AccessRequest] = []
        refused: dict[int, Refused] = {}
        for one in asked:
            admitted = one.admitted
            packet = admitted.packet
            attributes = packet.attributes
            device = attributes.get(CALLING_STATION_ID) or attributes.get(NAS_PORT_ID, b"")
            user = attributes.get(USER_NAME, b"")
            caller = (user if realms is None else realms.key(user)) + device
            logins[caller] = count = logins.get(caller, 0) + 1
            if count > logins_max:
                refused[len(requests)] = self._refuse(_RATE_LIMITED, caller, now, None)
            elif watches and (is_wide or marks[crc32(caller, seed) & _MARK] > now):
                self._looks_closely = True
                locked = self._find_lock(packet, caller, now)
                if locked is not None:
                    refused[len(requests)] = self._refuse(_LOCKED_OUT, caller, now, locked)
            requests.append(AccessRequest(packet, admitted.nas, admitted.digests, admitted.other, caller))
        return requests, refused

    def note(self, ready: Sequence[tuple[Asked, Case]], now: int, *, is_late: bool) -> None:
        """Learns from what was decided, in order; a case whose lockout set in after its screening is refused here.

        `is_late`: these were worked on beside the loop, so that others may have come in between.
        """
        self._looks_closely |= is_late
        proven = self._proven
        for _, case in ready:
            reason = case.reason
            if reason is _ACCEPTED:
                if self._looks_closely and not self._pass_closely(case, now):
                    continue
                hashed = hash(case.request.caller)
                proven[hashed & _PROVEN_CELL] = hashed
            elif reason in _FAILURES and case.proof is not None:
                self._note_failure(case, now)

    def _pass_closely(self, case: Case, now: int) -> bool:
        if self._find_lock(case.request.packet, case.request.caller, now) is not None:
            case.reason = _LOCKED_OUT
            return False
        self._lockouts.forget(Scope.USER_AND_DEVICE, *user_and_device(case.request.packet, self._realms))
        return True

    def _note_failure(self, case: Case, now: int) -> None:
        """A wrong password counts for user and device; a name that nobody has counts for the device alone."""
        packet = case.request.packet
        if self._find_lock(packet, case.request.caller, now) is not None:
            case.reason = _LOCKED_OUT
            return
        user, device = user_and_device(packet, self._realms)
        if case.reason is Reason.BAD_PASSWORD:
            self._count(Scope.USER_AND_DEVICE, user, device, now)
            self._count(Scope.USER, user, b"", now)
        if CALLING_STATION_ID in packet.attributes:
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

    def _find_lock(self, packet: Packet, caller: bytes, now: int) -> tuple[Scope, Tally] | None:
        """What keeps this user on this device out."""
        user, device = user_and_device(packet, self._realms)
        find = self._lockouts.find
        tally = find(Scope.USER_AND_DEVICE, user, device)
        if tally.is_locked(now):
            return Scope.USER_AND_DEVICE, tally
        hashed = hash(caller)
        if self._lockouts.wide_until <= now or self._proven[hashed & _PROVEN_CELL] == hashed:
            return None
        for scope, of_user, of_device in ((Scope.USER, user, b""), (Scope.DEVICE, b"", device)):
            tally = find(scope, of_user, of_device)
            if tally.is_locked(now):
                return scope, tally
        return None

    def _refuse(self, reason: Reason, caller: bytes, now: int, locked: tuple[Scope, Tally] | None) -> Refused:
        """Of each user on a device one refusal a second is told, so that nobody writes the decision stream full."""
        if now != self._told_at:
            self._told_at, self._told = now, set()
        if caller in self._told or len(self._told) >= TOLD_MAX:
            self._counters[Word.DECISIONS_UNTOLD] += 1
            return Refused(reason, b"", is_told=False)
        self._told.add(caller)
        if locked is None:
            saw = f"more than {self._logins_max} logins in {self._window_seconds} s"
        else:
            scope, tally = locked
            until = time.strftime("%H:%M:%SZ", time.gmtime(tally.until))
            saw = f"{tally.failures} failures of this {scope.label}, until {until}"
        return Refused(reason, saw.encode(), is_told=True)
