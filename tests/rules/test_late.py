"""Late readings: whatever order the readings of a life arrive in, and however often, its octets are the same."""

from __future__ import annotations

from bisect import insort
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sms_aaa.rules.late import Known, is_late, known_of, order_of, step_late
from sms_aaa.rules.session import AnomalyKind, Delta, Event, Life, Place, Reading, State, find_life, step

T0 = datetime(2026, 11, 10, 12, tzinfo=UTC)
GIB4 = 1 << 32


def reading(
    event: Event, seconds: int | None, octets: tuple[int, int] | None = None, *, at: int | None = None
) -> Reading:
    """`at`: seconds after T0, if they are not the session's own."""
    moment = T0 + timedelta(seconds=(seconds or 0) if at is None else at)
    return Reading(
        event=event,
        at=moment,
        received_at=moment,
        session_seconds=seconds,
        octets_in=octets[0] if octets else None,
        octets_out=octets[1] if octets else None,
        gigawords=True,
        terminate_cause=None,
        place=Place("node1", 1, seconds or 0),
    )


@dataclass
class Session:
    """One Acct-Session-Id, with what was counted with kept as the settler keeps it: deltas and late readings."""

    lives: list[Life] = field(default_factory=list)
    deltas: dict[int, list[Delta]] = field(default_factory=dict)
    late: dict[int, list[Known]] = field(default_factory=dict)
    anomalies: list[AnomalyKind] = field(default_factory=list)

    def hear(self, *readings: Reading) -> Session:
        for one in readings:
            self._hear(one)
        return self

    def _hear(self, one: Reading) -> None:
        life = find_life(self.lives, one)
        if life is None:
            result, late = step(None, len(self.lives) + 1, one), None
            self.lives.append(result.life)
        else:
            known = known_of(life, self.deltas[life.life], self.late[life.life])
            result, late = step_late(life, one, known) if is_late(life, one) else (step(life, 0, one), None)
            self.lives[self.lives.index(life)] = result.life
        number = result.life.life
        self.deltas.setdefault(number, []).extend([result.delta] if result.delta else [])
        self.late.setdefault(number, []).extend([late] if late else [])
        self.anomalies += [result.anomaly] if result.anomaly else []

    def octets(self) -> list[tuple[int, int]]:
        for life in self.lives:
            deltas = self.deltas[life.life]
            assert [delta.seq for delta in deltas] == list(range(1, life.deltas + 1))
            assert sum(delta.octets_in for delta in deltas) == life.octets_in
            assert sum(delta.octets_out for delta in deltas) == life.octets_out
            assert sum(delta.seconds for delta in deltas) == life.seconds
            assert all(min(d.octets_in, d.octets_out, d.seconds) >= 0 and d.to_at >= d.from_at for d in deltas)
        return [(life.octets_in, life.octets_out) for life in self.lives]


RESET = [
    reading(Event.INTERIM, 300, (100, 1000)),
    reading(Event.INTERIM, 600, (200, 2000)),
    reading(Event.INTERIM, 900, (50, 500)),
    reading(Event.STOP, 1200, (80, 800)),
]


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (0, 2, 1, 3), (0, 2, 3, 1), (3, 2, 1, 0), (2, 3, 0, 1), (1, 3, 0, 2)])
def test_around_a_reset_the_order_changes_no_total(order: tuple[int, ...]) -> None:
    session = Session().hear(*(RESET[at] for at in order))
    assert session.octets() == [(280, 2800)]
    assert AnomalyKind.STALE_READING not in session.anomalies


def test_the_last_words_of_a_run_that_come_after_the_reset_are_a_delta_with_its_own_time() -> None:
    session = Session().hear(RESET[0], RESET[2], RESET[1])
    assert session.anomalies == [AnomalyKind.COUNTER_RESET, AnomalyKind.LATE_READING]
    last = session.deltas[1][-1]
    assert (last.octets_in, last.octets_out, last.seconds, last.late) == (100, 1000, 0, True)
    assert (last.from_at, last.to_at) == (RESET[0].at, RESET[1].at)
    assert (last.before_place, last.after_place) == (RESET[0].place, RESET[1].place)


def test_a_run_of_which_only_one_late_reading_is_left_is_counted() -> None:
    session = Session().hear(RESET[2], RESET[3], RESET[1])
    assert (session.octets(), session.lives[0].run) == ([(280, 2800)], 2)
    assert session.anomalies == [AnomalyKind.LATE_READING]


def test_a_late_reading_of_one_run_adds_nothing_and_is_not_odd() -> None:
    session = Session().hear(RESET[0], reading(Event.INTERIM, 900, (300, 3000)), RESET[1])
    assert (session.octets(), session.anomalies) == ([(300, 3000)], [])
    assert len(session.late[1]) == 1


def test_a_late_reading_shows_a_reset_that_nobody_saw() -> None:
    """Grown from 100 to 300, it seemed; in between it stood at 500."""
    session = Session().hear(
        reading(Event.INTERIM, 300, (100, 100)),
        reading(Event.INTERIM, 900, (300, 300)),
        reading(Event.INTERIM, 600, (500, 500)),
    )
    assert (session.octets(), session.anomalies) == ([(800, 800)], [AnomalyKind.LATE_READING])


def test_late_readings_do_not_count_twice_however_often_they_come() -> None:
    session = Session().hear(RESET[0], RESET[2], RESET[1], RESET[1], RESET[3], RESET[1], RESET[2], RESET[0])
    assert session.octets() == [(280, 2800)]
    assert len(session.late[1]) == 1


def test_a_fall_that_reads_otherwise_now_stays_counted_and_is_named_stale() -> None:
    session = Session().hear(
        reading(Event.INTERIM, 300, (64_000, 1000)),
        reading(Event.INTERIM, 900, (62_100, 3000)),  # a reset, as it seemed
        reading(Event.INTERIM, 600, (63_050, 2000)),  # no: it slipped twice
    )
    assert session.octets() == [(64_000 + 62_100, 1000 + 3000)]
    assert session.anomalies == [AnomalyKind.COUNTER_RESET, AnomalyKind.STALE_READING]


def test_a_slip_that_comes_late_or_again_adds_nothing_and_is_named() -> None:
    before, slip = reading(Event.INTERIM, 300, (64_000, 1000)), reading(Event.INTERIM, 600, (63_900, 2000))
    after = reading(Event.STOP, 900, (70_000, 3000))
    for order in ((before, slip, slip, after), (before, after, slip), (after, slip, before)):
        session = Session().hear(*order)
        assert session.octets() == [(70_000, 3000)]
    assert Session().hear(before, after, slip).anomalies == [AnomalyKind.COUNTER_SLIP]


def test_without_session_time_what_was_before_the_first_record_is_counted_when_it_comes() -> None:
    for first in ((334, 473), (0, 0)):
        session = Session().hear(
            reading(Event.INTERIM, None, first, at=4728), reading(Event.INTERIM, None, (740, 900), at=4427)
        )
        assert session.octets() == [(740 + first[0], 900 + first[1])]
        assert session.anomalies == [AnomalyKind.LATE_READING]


def test_without_session_time_the_word_before_the_stop_may_be_dated_after_it() -> None:
    stop = reading(Event.STOP, None, (3_916_014, 4_000_182), at=600)
    before = reading(Event.INTERIM, None, (3_781_281, 4_000_182), at=601)
    assert Session().hear(stop, before).octets() == [(3_916_014, 4_000_182)]


def test_without_session_time_a_stop_that_repeats_counters_closes_all_the_same() -> None:
    session = Session().hear(
        reading(Event.INTERIM, None, (0, 0), at=300),
        reading(Event.INTERIM, None, (500, 600), at=600),
        reading(Event.STOP, None, (0, 0), at=900),
    )
    assert (session.octets(), session.lives[0].state) == ([(500, 600)], State.CLOSED)


def test_without_session_time_a_repetition_dated_wrongly_is_not_a_reset() -> None:
    repeated = reading(Event.INTERIM, None, (100, 200), at=302)
    session = Session().hear(
        reading(Event.START, None, at=0),
        reading(Event.INTERIM, None, (100, 200), at=300),
        reading(Event.STOP, None, (110, 220), at=301),
        repeated,
    )
    assert (session.octets(), session.anomalies) == ([(110, 220)], [])


def test_a_stop_that_is_late_closes_and_still_adds_the_rest_of_its_run() -> None:
    session = Session().hear(RESET[0], RESET[2], reading(Event.STOP, 600, (200, 2000)))
    assert session.octets() == [(250, 2500)]
    assert session.lives[0].state is State.CLOSED


def truth_of(random: Random, resets: int) -> tuple[list[Reading], int, int]:
    """Readings of a session with honest counters that begin anew `resets` times, and the octets truly used."""
    interims = random.randint(resets + 1, 12)
    anew = set(random.sample(range(1, interims), resets)) if resets else set()
    readings, run_in, run_out, total_in, total_out = [reading(Event.START, None)], 0, 0, 0, 0
    for number in range(interims):
        if number in anew:
            run_in = run_out = 0
        used_in, used_out = random.randint(0, 10**9), random.randint(0, 10**9)
        run_in, run_out, total_in, total_out = (
            run_in + used_in,
            run_out + used_out,
            total_in + used_in,
            total_out + used_out,
        )
        event = Event.STOP if number == interims - 1 else Event.INTERIM
        readings.append(reading(event, 300 * (number + 1), (run_in, run_out)))
    return readings, total_in, total_out


NAMED = {AnomalyKind.COUNTER_SLIP, AnomalyKind.STALE_READING}


def test_of_honest_counters_all_is_counted_in_any_order_whatever_is_lost_or_comes_twice() -> None:
    """But for a run that begins within a part in 64 of where the one before it ended: that is taken for a slip."""
    odd = 0
    for seed in range(400):
        random = Random(seed)
        readings = truth_of(random, random.choice((0, 1, 1, 2, 3)))[0]
        heard = random.sample(readings, random.randint(1, len(readings)))
        shuffled = [*heard, *random.choices(heard, k=random.randint(0, 6))]
        random.shuffle(shuffled)
        in_order, in_disorder = Session().hear(*sorted(heard, key=readings.index)), Session().hear(*shuffled)
        if in_order.octets() != in_disorder.octets():
            assert NAMED & {*in_order.anomalies, *in_disorder.anomalies}, seed
            odd += 1
    assert odd < 10


def test_without_a_reset_the_last_word_says_it_all() -> None:
    for seed in range(200):
        random = Random(seed)
        readings, total_in, total_out = truth_of(random, 0)
        heard = [*random.sample(readings[:-1], random.randint(0, len(readings) - 1)), readings[-1]]
        random.shuffle(heard)
        session = Session().hear(*heard)
        assert (session.octets(), session.lives[0].state) == ([(total_in, total_out)], State.CLOSED), seed


def test_of_the_last_deltas_alone_the_last_of_what_was_counted_with_is_known() -> None:
    for seed in range(60):
        random = Random(seed)
        readings = truth_of(random, random.choice((0, 1, 2)))[0]
        random.shuffle(readings)
        session = Session().hear(*readings)
        life, deltas, late = session.lives[0], session.deltas[1], session.late[1]
        whole = known_of(life, deltas, late)
        assert len(whole) >= len(deltas)
        for first in range(1, len(deltas)):
            some = known_of(life, deltas[first:], late)
            assert some == whole[len(whole) - len(some) :]
        assert known_of(life, [*deltas[:-2], *deltas[-1:]], late) == [] or len(deltas) < 3


anything = st.builds(
    reading,
    st.sampled_from([Event.START, Event.INTERIM, Event.STOP]),
    st.none() | st.integers(0, 5000),
    st.none() | st.tuples(st.integers(0, 2**40), st.integers(0, 2**40)),
    at=st.none() | st.integers(0, 10_000),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(anything, max_size=14))
def test_whatever_a_nas_says_the_sums_hold_and_saying_it_again_adds_nothing(readings: list[Reading]) -> None:
    session = Session().hear(*readings)
    session.octets()
    for life in session.lives:
        known = known_of(life, session.deltas[life.life], session.late[life.life])
        assert known == sorted(known, key=order_of)
        for late in session.late[life.life]:
            again = reading(Event.INTERIM, late.seconds, (late.octets_in, late.octets_out))
            if is_late(life, again):
                assert step_late(life, again, known)[0].delta is None
        copy = list(known)
        insort(copy, Known(10**9, 0, 0, T0, None), key=order_of)
        assert copy[:-1] == known


def test_a_stop_that_says_what_was_heard_before_closes_all_the_same() -> None:
    """Of a NAS that sends no Acct-Session-Time and had begun to count anew."""
    told = Session().hear(
        reading(Event.START, None, at=0),
        reading(Event.INTERIM, None, (7, 9), at=300),
        reading(Event.STOP, None, (0, 0), at=345),
    )
    assert [(life.state, life.octets_in, life.octets_out) for life in told.lives] == [(State.CLOSED, 7, 9)]
    assert told.lives[0].stopped_at == T0 + timedelta(seconds=345)
