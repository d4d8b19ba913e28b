"""The session machine: records of one Acct-Session-Id, in any order, become lives, usage deltas and anomalies.

Identity. A session is NAS + Acct-Session-Id + life. NASes use an id again, so records whose time spans
[event time - Acct-Session-Time, event time] overlap, or begin together, are one life; a span that lies apart opens
another, however soon it begins: a NAS that lost a Stop may use the id again within seconds. Except that a NAS whose
clock was set in between has not begun anew: where the span lies apart but the session began at the same moment by our
own clock (receive time - Acct-Session-Time), and the counters fit, it is the same life, and the clock is named.

Order. Packets overtake each other and come through several journals. Within a life the NAS's own Acct-Session-Time
says which of two readings is newer; only where one of them has none do event times decide. (Event time alone is not
enough: a retransmission without Event-Timestamp is dated by receive time minus Acct-Delay-Time, which is a second
off now and then, and a reading that seems newer with lower counters would be taken for a reset and billed.) At
equal times the higher counters are newer, but for a NAS whose Acct-Session-Time stands still.

Usage. The octets of a life are a function of the *set* of its readings: put in order, each adds to the one before it
what counters.py says: growth, wrap, reset or slip. A newer reading is the last of the set and adds its step; what a
late one adds, which stands between two that were counted with, is in late.py. So the order of arrival changes no total,
deltas are only ever added, and usage never falls.

End. CLOSED is what a Stop does. A NAS that rebooted, or fell silent, ends its sessions by inference (LAPSED): a newer
record opens the same one again, since many a NAS says Accounting-On without having lost a session.

Links of a bundle (Acct-Multi-Session-Id) and the services of one login are sessions of their own, each with its own
counters: RFC 2866 section 5.11. A NAS that reports the bundle's total on each of its links cannot be told from one
that does not, and is counted too much.

The table below is total: every state meets every event. Rule of this file: whatever changes a session's state or
counts its usage stands here, but for late readings and the arithmetic of two.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import IntEnum, StrEnum
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from sms_aaa.rules.counters import Fall, goes_on_from, is_implausible, octets_between

if TYPE_CHECKING:
    from collections.abc import Sequence

_TOLERANCE_SECONDS = 60
TOLERANCE = timedelta(seconds=_TOLERANCE_SECONDS)
"""How far apart two records of one life may say that it began."""

RESTART_TOLERANCE = timedelta(seconds=2)
"""What began this much after the last record of a life of the same id is another one, be its Stop heard or not."""

DATING_TOLERANCE = timedelta(seconds=2)
"""Without an Acct-Session-Time nobody knows which of two records came first that are dated so near to each other."""

_DELAY_MAX = timedelta(days=36_500)  # 32 bits of seconds, twice, would leave the calendar

HEARD_SECONDS_MIN = 300
"""NASes round interim intervals up as they like: no session is missed that is heard this often."""

SLIP_PART = 64
"""A counter that fell by no more than this part of itself slipped: NASes count their two directions unevenly."""


class State(IntEnum):
    NONE = 0
    OPEN = 1
    CLOSED = 2
    LAPSED = 3  # ended by inference: for want of interims, or by a reboot of its NAS


class Event(IntEnum):
    START = 1
    STOP = 2
    INTERIM = 3
    NAS_REBOOT = 7  # Accounting-On or -Off
    SILENCE = 100  # no record for a multiple of the interim interval


TRANSITIONS = {
    (State.NONE, Event.START): State.OPEN,
    (State.NONE, Event.INTERIM): State.OPEN,  # the Start was lost or is late: RFC 2866 runs over UDP
    (State.NONE, Event.STOP): State.CLOSED,  # both were lost or are late: counted all the same
    (State.NONE, Event.NAS_REBOOT): State.NONE,
    (State.NONE, Event.SILENCE): State.NONE,
    (State.OPEN, Event.START): State.OPEN,
    (State.OPEN, Event.INTERIM): State.OPEN,
    (State.OPEN, Event.STOP): State.CLOSED,
    (State.OPEN, Event.NAS_REBOOT): State.LAPSED,
    (State.OPEN, Event.SILENCE): State.LAPSED,
    (State.CLOSED, Event.START): State.CLOSED,  # overtaken by its Stop
    (State.CLOSED, Event.INTERIM): State.CLOSED,
    (State.CLOSED, Event.STOP): State.CLOSED,
    (State.CLOSED, Event.NAS_REBOOT): State.CLOSED,
    (State.CLOSED, Event.SILENCE): State.CLOSED,
    (State.LAPSED, Event.START): State.LAPSED,  # a Start says nothing new about a session that has been heard since
    (State.LAPSED, Event.INTERIM): State.OPEN,
    (State.LAPSED, Event.STOP): State.CLOSED,
    (State.LAPSED, Event.NAS_REBOOT): State.LAPSED,
    (State.LAPSED, Event.SILENCE): State.LAPSED,
}
assert len(TRANSITIONS) == len(State) * len(Event), "the session machine must be total"


def silence_seconds(interim_seconds: int, multiple: int) -> int:
    """How long a session with this interim interval may say nothing before it lapses and its place is free."""
    return multiple * max(interim_seconds, HEARD_SECONDS_MIN)


class AnomalyKind(StrEnum):
    """What was odd about a record. It is counted as said here, and named once."""

    STALE_READING = "stale-reading"
    """An older reading that fits between its neighbours no longer. It adds nothing."""

    LATE_READING = "late-reading"
    """An older reading by which more was used than had been counted: a run ended higher, or is heard of only now."""

    COUNTER_WRAP = "counter-wrap"
    """A counter fell, and wrapped at 32 bits: neither reading had Gigawords, and the rate explains it."""

    COUNTER_RESET = "counter-reset"
    """A counter fell: the NAS began to count anew in mid-session, and both count from zero."""

    COUNTER_SLIP = "counter-slip"
    """A counter fell by next to nothing, or so that no rate explains what it shows. It adds nothing."""

    IMPLAUSIBLE_RATE = "implausible-rate"
    """More octets than twice the plan's rate allows for. They are counted all the same: usage is a fact."""

    CLOCK = "nas-clock"
    """The NAS's clock is days off, or was set in mid-session: our own clock took its place."""

    UNKNOWN_SERVICE = "unknown-service"
    """Neither our Class nor the user name tells a service: the session is kept, and belongs to no account."""

    READDRESSED = "re-addressed"
    """An address changed in mid-session, or a late record tells another one: both are kept, with their times."""

    PORT_BLOCK = "bad-port-block"
    """What a record tells of ports behind a NAT could not be read. All else in it counts."""


_FALLS = {
    Fall.NONE: None,
    Fall.WRAP: AnomalyKind.COUNTER_WRAP,
    Fall.RESET: AnomalyKind.COUNTER_RESET,
    Fall.SLIP: AnomalyKind.COUNTER_SLIP,
}


class Place(Struct, frozen=True, gc=False):
    """Where a record stands: node, journal file (its sequence), offset in it."""

    node: str
    sequence: int
    offset: int


class Reading(Struct, frozen=True, gc=False):
    """One accounting record about one session. `session_seconds` and the counters are None when it had none.

    in = received from the subscriber (upload), out = sent to the subscriber (download): RFC 2866 section 5.3.
    """

    event: Event
    at: datetime
    received_at: datetime
    session_seconds: int | None
    octets_in: int | None
    octets_out: int | None
    gigawords: bool
    terminate_cause: int | None
    place: Place
    delay_seconds: int = 0
    """How long the NAS had been trying to send it: Acct-Delay-Time."""


class Life(Struct, frozen=True, gc=False):
    """What is known of one life of a session: its totals, and the newest reading behind them."""

    life: int
    state: State
    started_at: datetime
    begun_at: datetime | None  # by our own clock, if a Start or an Acct-Session-Time told; see begun_at()
    updated_at: datetime
    stopped_at: datetime | None
    received_at: datetime  # when the last record about it was received: the one clock that is ours
    seconds: int
    octets_in: int
    octets_out: int
    reading_at: datetime
    reading_seconds: int
    reading_in: int
    reading_out: int
    reading_gigawords: bool
    reading_place: Place
    run: int
    deltas: int
    terminate_cause: int | None
    estimated: bool


class Delta(Struct, frozen=True, gc=False):
    """Usage between two readings; `before_place` is None when the Start that would have been the first is missing."""

    seq: int
    from_at: datetime
    to_at: datetime
    octets_in: int
    octets_out: int
    seconds: int
    run: int
    wrapped: bool
    before_in: int
    before_out: int
    after_in: int
    after_out: int
    before_place: Place | None
    after_place: Place
    late: bool = False  # of a late reading: it lies inside of what was counted before


class Step(Struct, frozen=True, gc=False):
    """What one record does: the life after it, the usage it adds, what was odd."""

    life: Life
    delta: Delta | None
    anomaly: AnomalyKind | None


def find_life(lives: Sequence[Life], reading: Reading) -> Life | None:
    """The life that a reading belongs to, of those of its Acct-Session-Id; None: it begins another."""
    seconds = reading.session_seconds
    if len(lives) == 1 and seconds and lives[0].stopped_at is None and _begins_alike(lives[0], reading.at, seconds):
        return lives[0]
    if reading.event is not Event.START and not seconds:
        running = [life for life in lives if life.state is not State.CLOSED]
        if running or seconds is None:  # a Stop that says 0 seconds may have lost count of them
            return max(running or lives, key=lambda life: life.started_at, default=None)
    begin = reading.at - timedelta(seconds=seconds or 0)
    near = [life for life in lives if _belongs(life, begin, reading)]
    if len(near) == 1:
        return near[0]
    found = min(near, key=lambda life: abs(life.started_at - begin), default=None)
    return found or next((life for life in lives if _goes_on(life, reading)), None) or _begun_by(lives, reading)


def _begun_by(lives: Sequence[Life], reading: Reading) -> Life | None:
    """A Start that other records of its life overtook, none of which said when it began: the next such life is its."""
    later = [life for life in lives if life.begun_at is None and life.started_at >= reading.at]
    return min(later, key=lambda life: life.started_at, default=None) if reading.event is Event.START else None


def _begins_alike(life: Life, at: datetime, seconds: int) -> bool:
    """Whether a record of `at`, `seconds` into its life, says that it began when this one did: nearly each does."""
    passed = at - life.started_at  # to make a timedelta of `seconds` would take as long as all the rest of it
    return abs(passed.days * 86_400 + passed.seconds - seconds) < _TOLERANCE_SECONDS


def _belongs(life: Life, begin: datetime, reading: Reading) -> bool:
    if life.state is State.CLOSED and begin > life.updated_at + RESTART_TOLERANCE:
        return False
    if abs(begin - life.started_at) <= TOLERANCE:
        return True
    if reading.session_seconds and (reading.at > life.reading_at) != (reading.session_seconds > life.reading_seconds):
        return False  # later and yet shorter: another session, or another clock
    return begin <= life.updated_at + RESTART_TOLERANCE and reading.at >= life.started_at - RESTART_TOLERANCE


def begun_at(reading: Reading) -> datetime | None:
    """When its session began, by our clock and the NAS's counts of time alone; None: it does not tell.

    Whatever the NAS's clock says, this is the same for all records of a life.
    """
    if reading.session_seconds is None and reading.event is not Event.START:
        return None
    return reading.received_at - min(
        timedelta(seconds=reading.delay_seconds + (reading.session_seconds or 0)), _DELAY_MAX
    )


def _goes_on(life: Life, reading: Reading) -> bool:
    """Whether the NAS's clock was set while this life went on: by our clock both began at one moment."""
    begun = begun_at(reading)
    return begun is not None and life.begun_at is not None and abs(begun - life.begun_at) <= TOLERANCE


def step(life: Life | None, number: int, reading: Reading, *, rate_kbps: int = 0) -> Step:
    """Applies one record. `number` is the life's number if the record begins one.

    `rate_kbps`, the faster direction of the service's plan, bounds what a wrapped counter may mean; 0: not known.
    A late reading adds nothing here, and is named where it says more than was counted: see late.py.
    """
    if life is None:
        life = _begin(number, reading)
        if reading.event is Event.START or not _has_usage(reading):
            return Step(life, None, None)
        return _count(life, reading, State.NONE, rate_kbps)
    result = _count(life, reading, life.state, rate_kbps) if is_newer(life, reading) else older(life, reading)
    if result.anomaly is None and _clock_was_set(life, reading):
        return Step(result.life, result.delta, AnomalyKind.CLOCK)
    return result


def _clock_was_set(life: Life, reading: Reading) -> bool:
    seconds = reading.session_seconds
    if not seconds or (life.stopped_at is None and _begins_alike(life, reading.at, seconds)):
        return False
    return not _belongs(life, reading.at - timedelta(seconds=seconds), reading)


def close(life: Life, event: Event) -> Life:
    """A session that ends without a Stop, at its last known update: its end is an estimate.

    Reboots and silence end many at once: db/sessions.py says this in SQL, and its stories are told against this table.
    """
    state = TRANSITIONS[life.state, event]
    return life if state is life.state else replace(life, state=state, stopped_at=life.updated_at, estimated=True)


def _has_usage(reading: Reading) -> bool:
    return bool(reading.octets_in or reading.octets_out or reading.session_seconds)


def _begin(number: int, reading: Reading) -> Life:
    """A life with nothing counted yet: its first reading is zero at its beginning."""
    started_at = reading.at - timedelta(seconds=reading.session_seconds or 0)
    closed = TRANSITIONS[State.NONE, reading.event] is State.CLOSED
    return Life(
        life=number,
        state=TRANSITIONS[State.NONE, reading.event],
        started_at=started_at,
        begun_at=begun_at(reading),
        updated_at=reading.at,
        stopped_at=reading.at if closed else None,
        received_at=reading.received_at,
        seconds=0,
        octets_in=0,
        octets_out=0,
        reading_at=started_at,
        reading_seconds=0,
        reading_in=0,
        reading_out=0,
        reading_gigawords=False,
        reading_place=reading.place,
        run=1,
        deltas=0,
        terminate_cause=reading.terminate_cause,
        estimated=False,
    )


def is_newer(life: Life, reading: Reading) -> bool:
    """Whether a reading is past the newest one; an equal one is not."""
    if reading.event is Event.START:
        return False
    if reading.session_seconds is not None:
        if reading.session_seconds != life.reading_seconds:
            return reading.session_seconds > life.reading_seconds
    elif abs(reading.at - life.reading_at) > DATING_TOLERANCE:
        return reading.at > life.reading_at
    octets_in, octets_out = counters_of(life, reading)
    if octets_in == life.reading_in and octets_out == life.reading_out:
        return False
    if octets_in >= life.reading_in and octets_out >= life.reading_out:
        return True
    return reading.at > life.reading_at + TOLERANCE  # the NAS's Acct-Session-Time stands still


def counters_of(life: Life, reading: Reading) -> tuple[int, int]:
    """A record without a counter says nothing about it: the last reading stands."""
    octets_in = life.reading_in if reading.octets_in is None else reading.octets_in
    octets_out = life.reading_out if reading.octets_out is None else reading.octets_out
    return octets_in, octets_out


def seconds_of(life: Life, reading: Reading) -> int:
    """How long the life had lasted, by the NAS's own count, else by the clock."""
    if reading.session_seconds is not None:
        return reading.session_seconds
    return life.reading_seconds + round((reading.at - life.reading_at).total_seconds())


def older(life: Life, reading: Reading) -> Step:
    """No usage. A Stop closes whenever it comes; a repetition opens nothing; one beyond what was counted is named.

    A Start that was overtaken may be the first to tell when the session began.
    """
    if reading.event is Event.STOP:
        ended_at = max(reading.at, life.updated_at)
        life = replace(
            life,
            state=TRANSITIONS[life.state, reading.event],
            updated_at=ended_at,
            stopped_at=ended_at,
            terminate_cause=reading.terminate_cause,
            estimated=False,
        )
    if reading.received_at > life.received_at:
        life = replace(life, received_at=reading.received_at)
    if life.begun_at is None and reading.event is Event.START:
        life = replace(life, started_at=min(reading.at, life.started_at), begun_at=begun_at(reading))
    octets_in, octets_out = counters_of(life, reading)
    odd = octets_in > life.reading_in or octets_out > life.reading_out
    return Step(life, None, AnomalyKind.STALE_READING if odd else None)


def _count(life: Life, reading: Reading, before: State, rate_kbps: int) -> Step:
    """A newer reading: the delta from the one before it."""
    octets_in, octets_out = counters_of(life, reading)
    seconds = max(life.reading_seconds, seconds_of(life, reading))
    elapsed = seconds - life.reading_seconds
    used = octets_between(
        life.reading_in,
        life.reading_out,
        octets_in,
        octets_out,
        narrow=not (reading.gigawords or life.reading_gigawords),
        elapsed_seconds=elapsed,
        rate_kbps=rate_kbps,
    )
    anomaly = _FALLS[used.fall]
    if used.fall is Fall.SLIP:
        octets_in, octets_out = goes_on_from(life.reading_in, octets_in), goes_on_from(life.reading_out, octets_out)
    elif is_implausible(used.octets_in, used.octets_out, elapsed_seconds=elapsed, rate_kbps=rate_kbps):
        anomaly = anomaly or AnomalyKind.IMPLAUSIBLE_RATE
    from_at, to_at = _span(life, reading, elapsed)
    counted = Delta(
        life.deltas + 1, from_at, to_at, used.octets_in, used.octets_out, elapsed,
        life.run + (used.fall is Fall.RESET), used.fall is Fall.WRAP,
        life.reading_in, life.reading_out, octets_in, octets_out,
        None if before is State.NONE else life.reading_place, reading.place,
    )  # fmt: skip
    is_usage = used.octets_in or used.octets_out or elapsed
    after = _advance(life, reading, counted, seconds, life.deltas + 1 if is_usage else life.deltas)
    return Step(after, counted if is_usage else None, anomaly)


def _advance(life: Life, reading: Reading, counted: Delta, seconds: int, deltas: int) -> Life:
    state = TRANSITIONS[life.state, reading.event]
    updated_at = max(reading.at, life.updated_at)
    # In the order of the fields: by their names it would take as long as everything else of a step.
    return Life(
        life.life, state, life.started_at, life.begun_at or begun_at(reading), updated_at,
        updated_at if state is State.CLOSED else None, max(reading.received_at, life.received_at),
        life.seconds + counted.seconds, life.octets_in + counted.octets_in, life.octets_out + counted.octets_out,
        counted.to_at, seconds, counted.after_in, counted.after_out, reading.gigawords, reading.place,
        counted.run, deltas, reading.terminate_cause if reading.event is Event.STOP else life.terminate_cause,
        False,
    )  # fmt: skip


def _span(life: Life, reading: Reading, elapsed_seconds: int) -> tuple[datetime, datetime]:
    """From when to when: between the two event times, unless the NAS's clock was set in between.

    Then the NAS's own count of the time says how long it was: over an instant or over hours nothing is rated right.
    """
    from_at, to_at = life.reading_at, reading.at
    if to_at < from_at:
        return from_at, min(from_at + timedelta(seconds=elapsed_seconds), max(reading.received_at, from_at))
    passed = to_at - from_at
    if elapsed_seconds and passed.days * 86_400 + passed.seconds > elapsed_seconds + _TOLERANCE_SECONDS:
        return to_at - timedelta(seconds=elapsed_seconds), to_at
    return from_at, to_at
