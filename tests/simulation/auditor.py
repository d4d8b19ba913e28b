"""The auditor: knows what every session truly used and what arrived, and counts again. Its law stands in faults.py.

It is a second model, made from the truth and not from the rules: it knows which counter run a reading belongs to, and
how often it wrapped, so it need not guess; what it works out is only how much of that anybody could see.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING

from faults import CLOCK, LATE, RESET, SLIP, STALE, UNKNOWN, WRAP, Fault, allowed_names
from network import SECOND
from speech import counters_of, stamp_of
from world import CLOCK_FAULTS, RATE_KBPS, WORD, Clock

from sms_aaa.rules.counters import SLIP_PART
from sms_aaa.rules.session import State

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from network import Delivery
    from world import Nas, Saying, Session, World

NEAR = timedelta(seconds=10)
"""How far a time may be from the true one, where the NAS's clock is right or overruled: delays and whole seconds."""

_BELIEVED_AHEAD, _BELIEVED_BEHIND = 60, 7 * 86_400
_FALLS = {Fault.COUNTER_WRAP, Fault.COUNTER_SLIP, Fault.COUNTER_RESET}
_TRUSTED = {Clock.RIGHT, Clock.EPOCH, Clock.AHEAD}

Key = tuple[int, str, str]


@dataclass(slots=True)
class Counted:
    """A life as the server has it. `sessions`: whose records it took, where that can be seen; `service`: likewise."""

    key: Key
    life: int
    sessions: set[int] = field(default_factory=set)
    state: State = State.NONE
    octets_in: int = 0
    octets_out: int = 0
    started_at: datetime | None = None
    stopped_at: datetime | None = None
    estimated: bool = False
    service: int | None = None
    deltas: list[tuple[int, int, datetime, datetime, bool]] = field(default_factory=list)
    """(in, out, from, to, whether a late reading brought it), in the order in which they were counted."""

    names: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Outcome:
    """`base`: the world's beginning.

    `tried`: which nodes may have records of a session; None: all was settled in the order of the deliveries. Where two
    nodes have some, it is not known in which order they were settled.
    """

    lives: list[Counted]
    quarantined: dict[str, int]
    base: datetime
    tried: dict[int, set[str]] | None = None
    services: list[int] | None = None

    def order_is_known(self, session: int) -> bool:
        return self.tried is None or len(self.tried[session]) == 1


@dataclass(slots=True)
class Bounds:
    """Octets (in, out) that must and may be counted; of each set of names one must stand there."""

    low: list[int] = field(default_factory=lambda: [0, 0])
    high: list[int] = field(default_factory=lambda: [0, 0])
    must: list[set[str]] = field(default_factory=list)


def audit(world: World, deliveries: Sequence[Delivery], outcome: Outcome) -> list[str]:
    """What the server did wrong, in words; nothing if it did all right."""
    arrived: dict[int, list[Delivery]] = defaultdict(list)
    for one in deliveries:
        if one.saying.session >= 0 and one.saying.spoilt is None:
            arrived[one.saying.session].append(one)
    lives: dict[Key, list[Counted]] = defaultdict(list)
    for life in outcome.lives:
        lives[life.key].append(life)
    complaints = [
        f"phantom: {key} life {life.life}" for key, some in lives.items() if not _known(world, key) for life in some
    ]
    for key, sessions in _by_key(world, arrived).items():
        pairs, strays = _pair(sessions, lives.get(key, []))
        complaints += strays
        for session, life in pairs:
            said = f"session {session.number} ({session.name} of {session.nas.name})"
            complaints += [f"{said}: {one}" for one in _Case(session, life, arrived[session.number], outcome).judge()]
    return complaints


def key_of(session: Session) -> Key:
    return session.nas.place + 1, session.nas.name if session.nas.by_prefix else "", session.name


def _known(world: World, key: Key) -> bool:
    return any(key_of(session) == key for session in world.sessions)


def _by_key(world: World, arrived: dict[int, list[Delivery]]) -> dict[Key, list[Session]]:
    heard: dict[Key, list[Session]] = defaultdict(list)
    for session in world.sessions:
        if arrived.get(session.number):
            heard[key_of(session)].append(session)
    return heard


def _pair(sessions: list[Session], lives: list[Counted]) -> tuple[list[tuple[Session, Counted]], list[str]]:
    """Each session with its life; and what has no partner."""
    if len(lives) != len(sessions):
        kind = "phantom life" if len(lives) > len(sessions) else "lost life"
        numbers = [session.number for session in sessions]
        return [], [f"{kind}: sessions {numbers} of {key_of(sessions[0])} are {len(lives)} lives"]
    if any(life.sessions for life in lives):
        complaints = [
            f"mixed: life {life.life} of {life.key} took records of {sorted(life.sessions)}"
            for life in lives
            if len(life.sessions) != 1
        ]
        by_session = {next(iter(life.sessions)): life for life in lives}
        if complaints or by_session.keys() != {session.number for session in sessions}:
            return [], complaints or [f"torn: a session of {key_of(sessions[0])} has more than one life"]
        return [(session, by_session[session.number]) for session in sessions], []
    by_time = sorted(lives, key=lambda life: (life.started_at, life.life))
    return list(zip(sorted(sessions, key=lambda session: session.begins), by_time, strict=True)), []


def judge_quarantine(
    deliveries: Iterable[Delivery], found: dict[str, int], *, at_least_once: bool = False
) -> list[str]:
    """Each delivery is a record of its own; at a daemon a duplicate is spared, and what was asked again is one more."""
    reasons = {Fault.NO_SESSION_ID: "no-acct-session-id", Fault.IMPLAUSIBLE: "implausible-counters"}
    spoilt = [(reasons[one.saying.spoilt], one) for one in deliveries if one.saying.spoilt in reasons]
    most = Counter(reason for reason, _ in spoilt)
    least = Counter(reason for reason, _ in {(reason, id(one.saying)) for reason, one in spoilt})
    return [
        f"quarantine: {found.get(reason, 0)} records as {reason}, {least[reason]} to {most[reason]} are right"
        for reason in sorted(most.keys() | found.keys())
        if found.get(reason, 0) < (least if at_least_once else most)[reason]
        or found.get(reason, 0) > most[reason] * (3 if at_least_once else 1)
    ]


class _Case:
    """One true session beside its life."""

    def __init__(self, session: Session, life: Counted, arrived: list[Delivery], outcome: Outcome) -> None:
        self.session, self.life, self.outcome = session, life, outcome
        self.nas = session.nas
        self.arrived = arrived
        self.readings = sorted({one.saying for one in arrived}, key=lambda saying: saying.order)

    def judge(self) -> list[str]:
        return [*self._octets(), *self._names(), *self._end(), *self._times(), *self._deltas(), *self._owner()]

    def bounds(self) -> Bounds:
        """Of the readings in their true order. A name is another one where they came in another order."""
        bounds = _count(self.nas, self.readings)
        if not (self.outcome.order_is_known(self.session.number) and self._came_in_order()):
            bounds.must = [names | {LATE, STALE} for names in bounds.must]
        return bounds

    def _came_in_order(self) -> bool:
        first = list(dict.fromkeys(one.saying.order for one in self.arrived))
        return first == sorted(first)

    def _octets(self) -> list[str]:
        bounds = self.bounds()
        counted = (self.life.octets_in, self.life.octets_out)
        complaints = []
        for way, octets, low, high in zip(("in", "out"), counted, bounds.low, bounds.high, strict=True):
            if octets > high + self._taken_for_a_slip(octets):
                complaints.append(f"{octets - high:,} octets {way} too many: {octets:,} counted, {high:,} used")
            if octets < low and not self._made_of_a_fall(way, octets):
                complaints.append(f"{low - octets:,} octets {way} lost: {octets:,} counted, {low:,} told")
        return complaints

    def _taken_for_a_slip(self, octets: int) -> int:
        """A counter that began anew and stood within a slip of where it was, until a late record showed it."""
        is_so = Fault.COUNTER_RESET in self.session.faults and {SLIP, LATE} <= self.life.names
        return octets // SLIP_PART if is_so else 0

    def _made_of_a_fall(self, way: str, octets: int) -> bool:
        """A late reading that contradicts what was made of a fall: what was counted stays, by name."""
        wire = counters_of(self.nas, self.readings[-1])[way == "out"]
        return STALE in self.life.names and bool(self.session.faults & _FALLS) and octets >= wire

    def _names(self) -> list[str]:
        must = self.bounds().must + self._clock_names() + self._owner_names()
        missing = [
            f"not named: {' or '.join(sorted(names))}; names are {sorted(self.life.names)}"
            for names in must
            if not names & self.life.names
        ]
        allowed = allowed_names(self._faults()) | {name for names in must for name in names}
        return missing + [f"named without a cause: {name}" for name in sorted(self.life.names - allowed)]

    def _faults(self) -> set[Fault]:
        wrong = CLOCK_FAULTS.get(self.nas.clock)
        return self.session.faults | ({wrong} if wrong is not None else set())

    def _clock_names(self) -> list[set[str]]:
        """A time beyond belief must be named, and a leap that leaves a span behind the one before."""
        base = int(self.outcome.base.timestamp())
        for one in self.arrived:
            received = base + one.received / SECOND
            if self.nas.stamps:
                ahead = stamp_of(self.nas, one.saying, base) - received
                if ahead > _BELIEVED_AHEAD or ahead < -_BELIEVED_BEHIND:
                    return [{CLOCK}]
        return [{CLOCK}] if self._leapt() else []

    def _leapt(self) -> bool:
        """Whether the clock was set forward over more than the session's length, with nothing else to be named."""
        if self.nas.clock is not Clock.SET or self.session.faults & _FALLS:
            return False
        sides = {saying.at >= self.nas.set_at for saying in self.readings if saying.seconds or saying.status == "start"}
        length = self.session.ends - self.session.begins
        return len(sides) == 2 and -self.nas.offset_seconds > length + 120 and self._came_in_order()

    def _owner_names(self) -> list[set[str]]:
        return [{UNKNOWN}] if self.outcome.services is not None and self.session.subscriber is None else []

    def _owner(self) -> list[str]:
        if self.outcome.services is None:
            return []
        whose = self.session.subscriber
        right = None if whose is None else self.outcome.services[whose]
        return [] if self.life.service == right else [f"is of service {self.life.service}, not of {right}"]

    def _end(self) -> list[str]:
        stopped = self.readings[-1].status == "stop"
        right = (State.CLOSED, False) if stopped else (State.LAPSED, True)
        found = (self.life.state, self.life.estimated)
        return [] if found == right else [f"ended as {found}, not as {right}"]

    def _times(self) -> list[str]:
        if self.nas.clock not in _TRUSTED:
            return []
        told = self.nas.session_time or self.readings[0].status == "start"
        began, ended = self.session.begins, self.readings[-1].at
        complaints = []
        for what, found, right in (("began", self.life.started_at, began), ("ended", self.life.stopped_at, ended)):
            off = (found or datetime.max.replace(tzinfo=self.outcome.base.tzinfo)) - self.outcome.base
            if (told if what == "began" else not self._repeats()) and abs(off - timedelta(seconds=right)) > NEAR:
                complaints.append(f"{what} at {off}, truly at {timedelta(seconds=right)}")
        return complaints

    def _repeats(self) -> bool:
        """Whether its last reading may be taken for an earlier one that comes again."""
        told = [counters_of(self.nas, saying) for saying in self.readings if saying.status != "start"]
        return not self.nas.session_time and told[-1:] != told[-2:-1] and told.count(told[-1]) > 1 if told else False

    def _deltas(self) -> list[str]:
        deltas = self.life.deltas
        if (sum(d[0] for d in deltas), sum(d[1] for d in deltas)) != (self.life.octets_in, self.life.octets_out):
            return ["its totals are not the sum of its deltas"]
        if any(d[0] < 0 or d[1] < 0 or d[2] > d[3] for d in deltas):
            return ["a delta is negative, in octets or in time"]
        in_time = [delta for delta in deltas if not delta[4]]
        if any(later[2] < earlier[3] for earlier, later in pairwise(in_time)):
            return ["two deltas overlap"]
        return []


def _count(nas: Nas, chain: Sequence[Saying]) -> Bounds:
    """What readings in this order tell somebody who knows what happened between them."""
    bounds = Bounds()
    before: Saying | None = None
    top = [0, 0]
    told: set[tuple[int, int]] = set()
    for saying in chain:
        if saying.status == "start":
            continue
        run = [saying.run_in, saying.run_out]
        old = counters_of(nas, before) if before is not None else (0, 0)
        new = counters_of(nas, saying)
        if before is not None and saying.run != before.run:
            repeats = not nas.session_time and new in told
            _count_reset(bounds, old, new, run, may_repeat=repeats)
            top = run
        else:
            grown = [max(now - high, 0) for now, high in zip(run, top, strict=True)]
            _count_on(bounds, nas, (before, saying), (old, new), grown)
            top = [max(pair) for pair in zip(top, run, strict=True)]
        before = saying
        told.add(new)
    bounds.low = [max(low, 0) for low in bounds.low]
    return bounds


def _count_on(
    bounds: Bounds,
    nas: Nas,
    readings: tuple[Saying | None, Saying],
    wires: tuple[tuple[int, int], tuple[int, int]],
    grown: list[int],
) -> None:
    """One counter run: what the counters grew by; less only where 32 bits were too few to tell."""
    before, saying = readings
    old, new = wires
    fell = [now < then for then, now in zip(old, new, strict=True)]
    for way in (0, 1):
        bounds.high[way] += grown[way]
    wraps = _wraps(nas, before, saying)
    if sum(wraps) == 0:
        for way in (0, 1):
            bounds.low[way] += grown[way]
        if any(fell):
            bounds.must.append({SLIP})
    elif sum(wraps) == 1 and _explains(old, new, wraps.index(1), saying.at - (before.at if before else 0)):
        for way in (0, 1):
            bounds.low[way] += grown[way]
        bounds.must.append({WRAP})
    else:
        for way in (0, 1):
            bounds.low[way] += new[way] - old[way]  # it may look like a slip: what makes up for it counts nothing
        if any(fell):
            bounds.must.append({WRAP, RESET, SLIP})


def _wraps(nas: Nas, before: Saying | None, saying: Saying) -> list[int]:
    if nas.gigawords:
        return [0, 0]
    old = (before.run_in, before.run_out) if before is not None else (0, 0)
    return [saying.run_in // WORD - old[0] // WORD, saying.run_out // WORD - old[1] // WORD]


def _explains(old: tuple[int, int], new: tuple[int, int], way: int, seconds: int) -> bool:
    """Whether one wrap is what anybody would take it for: it stood high, stands low, and the rate reaches."""
    reached = new[way] + WORD - old[way] <= RATE_KBPS * 125 * seconds
    return reached and old[way] >= WORD // 2 > new[way] and new[1 - way] >= old[1 - way]


def _count_reset(
    bounds: Bounds, old: tuple[int, int], new: tuple[int, int], run: list[int], *, may_repeat: bool
) -> None:
    """Counted anew in between: seen by what fell, unless it looks like a repetition of an earlier record."""
    fell = [now < then for then, now in zip(old, new, strict=True)]
    slight = all(fell) and all(then - then // SLIP_PART <= now for then, now in zip(old, new, strict=True))
    for way in (0, 1):
        bounds.high[way] += run[way]
        if not fell[way]:
            bounds.low[way] += new[way] - old[way]
        elif (all(fell) and not slight) or new[way] < old[way] // 2:
            bounds.low[way] += new[way]
        else:
            # It looks like a slip: what makes up for it is not counted either.
            bounds.low[way] += new[way] - old[way]
    if may_repeat:
        # Then the next reading may be no lower than the one before it: what that one stood for is not counted again.
        bounds.low = [low - max(then, now) for low, then, now in zip(bounds.low, old, new, strict=True)]
    elif any(fell):
        bounds.must.append({RESET} if all(fell) and not slight else {RESET, SLIP})
