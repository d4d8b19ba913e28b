"""How much is too much: a NAS's rate, failed logins and the lockout after them, and what an overloaded worker drops.

All of it is arithmetic on numbers that somebody else keeps; times are arguments. A lockout has three scopes, because a
single one helps the attacker or hurts the subscriber: keyed by user name alone, anybody could lock anybody out from
anywhere; keyed by user name and device alone, a thousand devices could try a thousand times, and one device could try
one password on a million users. So the usual one is per user *and* device, and the two wide ones stand much higher.
"""

from __future__ import annotations

from enum import IntEnum
from math import ceil
from typing import Self

from msgspec import Struct


def step_rate(due_ns: int, now_ns: int, *, interval_ns: int, burst: int) -> int | None:
    """One request of a source that may make `burst` at once and one each `interval_ns`: the new state, None: too many.

    The state is one number, 0 at first: when the source will have paid for all it had (the generic cell rate algorithm
    of ITU-T I.371, which is a token bucket without the bucket). A state further ahead than any of these steps leads is
    of another boot's clock and counts as none.
    """
    if due_ns <= now_ns or due_ns - now_ns > burst * interval_ns:
        return now_ns + interval_ns
    return None if due_ns - now_ns > (burst - 1) * interval_ns else due_ns + interval_ns


class Scope(IntEnum):
    """Whom a lockout keeps out: (number as stored, label for people)."""

    USER_AND_DEVICE = 1, "user on device"
    USER = 2, "user"  # on whatever device
    DEVICE = 3, "device"  # under whatever user name

    label: str

    def __new__(cls, number: int, label: str) -> Self:
        made = int.__new__(cls, number)
        made._value_, made.label = number, label
        return made


class LockoutRule(Struct, frozen=True):
    """After `failures_max` failures within `window_seconds`: no login for `lockout_seconds`. 0 failures: never."""

    failures_max: int
    window_seconds: int
    lockout_seconds: int


class Tally(Struct, frozen=True, gc=False):
    """Failures since `first_at`; locked from `locked_at` until `until` if that is not 0. Epoch seconds."""

    failures: int = 0
    first_at: int = 0
    locked_at: int = 0
    until: int = 0

    def is_locked(self, now: int) -> bool:
        """Before `locked_at` the clock was set back: nobody is to be kept out for the time that it lost."""
        return self.locked_at <= now < self.until

    def matters_until(self, rule: LockoutRule) -> int:
        """From then on it is as good as none."""
        return max(self.until, self.first_at + rule.window_seconds)


NO_FAILURES = Tally()


def count_failure(tally: Tally, now: int, rule: LockoutRule) -> Tally:
    """The tally after one more failed login; one that is locked stays as it is, so that trying does not prolong it."""
    if not rule.failures_max or tally.is_locked(now):
        return tally
    # A lockout that is over is a fresh start.
    goes_on = not tally.until and tally.first_at <= now < tally.first_at + rule.window_seconds
    failures, first_at = (tally.failures + 1, tally.first_at) if goes_on else (1, now)
    if failures < rule.failures_max:
        return Tally(failures, first_at)
    return Tally(failures, first_at, now, now + rule.lockout_seconds)


class Worth(IntEnum):
    """What a datagram is worth to a worker that cannot do all; what is worth least is dropped first.

    An Interim-Update is made good by the next one, whose counters hold all that it said. A login is made good by its
    retransmission. RFC 5080 section 2.2.3: rather one that carries State, since work was spent on it already. What a
    Start, a Stop, an On or an Off says nothing says again: it is never dropped.
    """

    INTERIM = 1
    LOGIN = 2
    CONVERSATION = 3
    RECORD = 4


def is_behind(was_behind: bool, queued_octets: int, room_octets: int, *, limit_percent: int) -> bool:
    """Whether a receive queue is so full that something has to go; once it is, until half of that is worked off.

    Beyond the room the kernel drops whatever comes, Stops too: so this comes before.
    """
    percent = ceil(limit_percent / 2) if was_behind else limit_percent
    return queued_octets * 100 >= room_octets * percent


def is_shed(worth: Worth, age_seconds: float, *, stale_seconds: float) -> bool:
    """Whether a worker that is behind drops it unanswered. `age_seconds`: how long it lay in the queue.

    A login that is older than a NAS's first timeout has been sent again: its answer would be one to nobody, or comes
    from the retransmission that lies behind it. So the newest are answered, and the queue is short again.
    """
    return worth is Worth.INTERIM or (worth is Worth.LOGIN and age_seconds > stale_seconds)
