"""A small world from a seed: NASes with habits and clocks, subscribers, and what every session truly used.

A world is written before anything is sent: each session's records in their true order, with what the NAS will say and
what is true beside it. Times are whole seconds after the world's beginning. Nothing here knows the product.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import Enum
from random import Random

from faults import Fault

SPAN_SECONDS = 4 * 3600
WORD = 1 << 32
RATE_KBPS = 1_000_000
APART_SECONDS = 120
"""An id is used again only by a session that began so much after the one before: closer nobody could tell them."""

_LIGHT, _HEAVY = 1_000_000, WORD // 2  # octets between two readings, at most


class Clock(Enum):
    RIGHT = "right"
    EPOCH = "begins at 1970 with each boot"
    AHEAD = "days ahead"
    BEHIND = "hours behind"
    DRIFTING = "drifting"
    SET = "set in mid-session"


CLOCK_FAULTS = {
    Clock.EPOCH: Fault.CLOCK_1970,
    Clock.AHEAD: Fault.CLOCK_AHEAD,
    Clock.BEHIND: Fault.CLOCK_BEHIND,
    Clock.DRIFTING: Fault.CLOCK_DRIFTING,
    Clock.SET: Fault.CLOCK_SET,
}


@dataclass(frozen=True, slots=True)
class Nas:
    """A box and its habits. `place`: which NAS the server knows it as; boxes of one prefix share it."""

    place: int
    name: str
    by_prefix: bool
    clock: Clock
    offset_seconds: int
    set_at: int
    stamps: bool
    session_time: bool
    gigawords: bool
    echoes_class: bool
    interim_seconds: int
    uses_ids_again: bool
    last_words: bool  # an Interim in the second of the Stop

    def clock_at(self, second: int) -> int:
        """What its clock shows, in seconds after the world's beginning; 1970 is `EPOCH`, its own count."""
        if self.clock is Clock.DRIFTING:
            return second + second * self.offset_seconds // SPAN_SECONDS
        if self.clock is Clock.SET:
            return second + (self.offset_seconds if second < self.set_at else 0)
        return second + self.offset_seconds


@dataclass(frozen=True, slots=True)
class Saying:
    """One record. `run_in`, `run_out`: octets since the NAS began to count; `total_in`, `total_out`: since the login.

    `status` beside those of RFC 2866: "on", "off". `session` -1: of the NAS itself.
    """

    session: int
    order: int
    status: str
    at: int
    seconds: int = 0
    run: int = 1
    run_in: int = 0
    run_out: int = 0
    total_in: int = 0
    total_out: int = 0
    login: int = 0
    spoilt: Fault | None = None


@dataclass(slots=True)
class Session:
    """A true session. `subscriber` None: a stranger. `ended`: its NAS will say so."""

    number: int
    nas: Nas
    name: str
    subscriber: int | None
    begins: int
    ends: int
    ended: bool
    bundle: int | None = None
    sayings: list[Saying] = field(default_factory=list)
    faults: set[Fault] = field(default_factory=set)


@dataclass(slots=True)
class World:
    seed: int
    nases: list[Nas]
    sessions: list[Session]
    spoken: list[tuple[Nas, Saying]]  # of the boxes themselves
    faults: Counter[Fault]

    def sayings(self) -> list[tuple[Nas, Saying]]:
        """Everything that the boxes want to say, in the order of its time."""
        said = [(session.nas, saying) for session in self.sessions for saying in session.sayings]
        return sorted(said + self.spoken, key=lambda pair: (pair[1].at, pair[1].session, pair[1].order))


def make_world(seed: int, *, compressed: bool = False) -> World:
    """`compressed`: hours pass in seconds of the server's own clock, so nothing that it tells by its clock occurs."""
    return _Maker(seed, compressed).make()


class _Maker:
    def __init__(self, seed: int, compressed: bool) -> None:
        self.random = Random(f"world {seed}")
        self.compressed = compressed
        self.world = World(seed, [], [], [], Counter())

    def chance(self, share: float) -> bool:
        return self.random.random() < share

    def note(self, fault: Fault, session: Session | None = None) -> None:
        self.world.faults[fault] += 1
        if session is not None:
            session.faults.add(fault)

    def make(self) -> World:
        boxes = self.random.choice((1, 1, 2, 2, 3))
        is_prefix = boxes > 1 and self.chance(0.4)
        for number in range(boxes):
            nas = self._nas(0 if is_prefix else number, number, is_prefix)
            self.world.nases.append(nas)
            if is_prefix and number:
                self.note(Fault.SHARED_PREFIX)
        for nas in self.world.nases:
            self._live(nas)
        return self.world

    def _nas(self, place: int, number: int, by_prefix: bool) -> Nas:
        clocks = [Clock.RIGHT] * 8 + [Clock.EPOCH, Clock.AHEAD, Clock.BEHIND, Clock.DRIFTING]
        clock = self.random.choice(clocks if self.compressed else [*clocks, Clock.SET])
        offset = {
            Clock.RIGHT: 0,
            Clock.EPOCH: 0,
            Clock.AHEAD: self.random.randint(2, 400) * 86_400,
            Clock.BEHIND: -self.random.randint(1, 20) * 3600,
            Clock.DRIFTING: self.random.choice((-300, -20, 20, 300)),
            Clock.SET: self.random.choice((-1, 1)) * self.random.randint(600, 20_000),
        }[clock]
        stamps = clock is not Clock.RIGHT or not self.chance(0.2)
        # Whose clock leaps needs a time of its own in its sessions, and so does one that uses an id again.
        session_time = clock is Clock.SET or not self.chance(0.15)
        nas = Nas(
            place=place,
            name=f"w{self.world.seed}-nas{number}",
            by_prefix=by_prefix,
            clock=clock,
            offset_seconds=offset,
            set_at=self.random.randint(SPAN_SECONDS // 4, SPAN_SECONDS * 3 // 4),
            stamps=stamps,
            session_time=session_time,
            gigawords=not self.chance(0.3),
            echoes_class=not self.chance(0.2),
            interim_seconds=self.random.choice((60, 300, 300, 600, 900)),
            uses_ids_again=session_time and clock is not Clock.SET and abs(offset) != 300 and self.chance(0.25),
            last_words=self.chance(0.1),
        )
        self._note_habits(nas)
        return nas

    def _note_habits(self, nas: Nas) -> None:
        if nas.clock in CLOCK_FAULTS:
            self.note(CLOCK_FAULTS[nas.clock])
        for is_so, fault in (
            (not nas.stamps, Fault.NO_TIMESTAMP),
            (not nas.session_time, Fault.NO_SESSION_TIME),
            (not nas.gigawords, Fault.NO_GIGAWORDS),
            (not nas.echoes_class, Fault.NO_CLASS),
        ):
            if is_so:
                self.note(fault)

    def _live(self, nas: Nas) -> None:
        """Some ports, on each one session after the other; perhaps a reboot in between."""
        reboot_at = self.random.randint(1800, SPAN_SECONDS - 1800) if self.chance(0.3) else None
        in_order = reboot_at is not None and self.chance(0.4)
        for port in range(self.random.randint(1, 3)):
            at = self.random.randint(0, SPAN_SECONDS // 2)
            for turn in range(self.random.randint(1, 3)):
                name = f"{port:04x}" if nas.uses_ids_again else f"{nas.name}-{port}-{turn}"
                ends = min(at + self.random.choice((30, 400, 2000, 6000)) + self.random.randint(0, 900), SPAN_SECONDS)
                cut = reboot_at if reboot_at is not None and at < reboot_at <= ends else None
                session = self._session(nas, name, at, cut or ends, ended=in_order if cut else not self.chance(0.12))
                if not cut and not session.ended:
                    self.note(Fault.SILENT_DEATH, session)
                if nas.uses_ids_again and turn:
                    self.note(Fault.ID_AGAIN, session)
                gap = self.random.choice((10, 20, 50, 130, 700, 2500)) + self.random.randint(0, 20)
                at = max(session.ends + gap + (60 if cut else 0), at + APART_SECONDS)
                if at > SPAN_SECONDS - 60:
                    break
        if reboot_at is not None:
            self._reboot(nas, reboot_at, in_order)
        elif self.chance(0.05):
            # It says so and has lost nothing: a restarted accounting client.
            self._say(nas, "on", self.random.randint(600, SPAN_SECONDS), Fault.REBOOT_IN_WORD)

    def _reboot(self, nas: Nas, at: int, in_order: bool) -> None:
        if in_order:
            self._say(nas, "off", at + 1, Fault.REBOOT_OFF)
        self._say(nas, "on", at + 40, Fault.REBOOT)

    def _say(self, nas: Nas, status: str, at: int, fault: Fault) -> None:
        self.world.spoken.append((nas, Saying(-1, len(self.world.spoken), status, at)))
        self.note(fault)

    def _session(self, nas: Nas, name: str, begins: int, ends: int, *, ended: bool) -> Session:
        subscriber = None if self.chance(0.08) else self.random.randrange(3)
        session = Session(len(self.world.sessions), nas, name, subscriber, begins, ends, ended)
        self.world.sessions.append(session)
        if subscriber is None:
            self.note(Fault.STRANGER, session)
        self._speak(session)
        if self.chance(0.1) and not nas.uses_ids_again:
            self._second_link(session)
        return session

    def _second_link(self, session: Session) -> None:
        """Another session under the same Class, with counters of its own."""
        link = Session(
            len(self.world.sessions),
            session.nas,
            f"{session.name}-link",
            session.subscriber,
            min(session.begins + 2, session.ends - 1),
            session.ends,
            session.ended,
            bundle=session.number,
            faults={Fault.SILENT_DEATH} & session.faults,
        )
        session.bundle = session.number
        self.world.sessions.append(link)
        self.note(Fault.MULTILINK, link)
        self._speak(link)

    def _speak(self, session: Session) -> None:
        """Its records, with what was used between them."""
        nas, times = session.nas, self._times(session)
        heavy = not nas.gigawords and self.chance(0.5)
        may_fall = len(times) >= 4 and not heavy
        reset = self.random.randrange(2, len(times)) if may_fall and self.chance(0.2) else -1
        if reset > 0 and times[reset][1] == times[reset - 1][1]:
            reset = -1  # nothing begins anew between two words of one second
        slip = self.random.randrange(2, len(times) - 1) if may_fall and reset < 0 and self.chance(0.06) else -1
        if slip > 0 and times[slip][1] == times[slip + 1][1] and not nas.session_time:
            slip = -1  # without a time of its own it may be dated after the Stop, and then it says nothing
        login, relogin = 0, self.random.randrange(1, len(times)) if len(times) > 2 and self.chance(0.12) else -1
        run, run_in, run_out, total_in, total_out = 1, 0, 0, 0, 0
        for order, (status, at) in enumerate(times):
            if order == reset:
                run, run_in, run_out = 2, 0, 0
                self.note(Fault.COUNTER_RESET, session)
            if order == relogin:
                login = 1
                self.note(Fault.RELOGIN, session)
            if order:
                passed = max(at - times[order - 1][1], 0)
                grown_in, grown_out = self._usage(passed, heavy)
                wraps = not nas.gigawords and run_out // WORD != (run_out + grown_out) // WORD
                if wraps:
                    self.note(Fault.COUNTER_WRAP, session)
                run_in, run_out = run_in + grown_in, run_out + grown_out
                total_in, total_out = total_in + grown_in, total_out + grown_out
            slipped = 0
            if order == slip and run_in - grown_in > 1000:
                # It reports a little less than it did before, and then goes on.
                slipped = grown_in + self.random.randint(1, (run_in - grown_in) // 100)
                self.note(Fault.COUNTER_SLIP, session)
            session.sayings.append(
                Saying(
                    session.number, order, status, at, at - session.begins, run, run_in - slipped, run_out,
                    total_in, total_out, login,
                )
            )  # fmt: skip
        if self.chance(0.04):
            self._spoil(session)

    def _times(self, session: Session) -> list[tuple[str, int]]:
        nas, at = session.nas, session.begins
        times = [("start", at)]
        while (at := at + nas.interim_seconds + self.random.randint(0, 3)) < session.ends - 5:
            times.append(("interim", at))
        if session.ended:
            if nas.last_words:
                times.append(("interim", session.ends))
            times.append(("stop", session.ends))
        return times

    def _usage(self, seconds: int, heavy: bool) -> tuple[int, int]:
        most = min(_HEAVY if heavy else _LIGHT, RATE_KBPS * 125 * seconds // 2)
        if self.chance(0.1):
            return 0, 0
        return self.random.randint(0, min(most, _LIGHT)), self.random.randint(most // 4, most)

    def _spoil(self, session: Session) -> None:
        """One more record of it that cannot be settled, or says nothing."""
        fault = self.random.choice((Fault.NO_SESSION_ID, Fault.IMPLAUSIBLE, Fault.UNKNOWN_STATUS))
        near = self.random.choice(session.sayings)
        session.sayings.append(
            Saying(session.number, len(session.sayings), "interim", near.at + 1, near.seconds + 1, spoilt=fault)
        )
        self.note(fault, session)
