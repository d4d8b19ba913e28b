"""The session machine: the table is total, usage never falls, order and repetition change no total."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from sms_aaa.rules.event_time import CLOCK_BEHIND, event_time
from sms_aaa.rules.session import (
    TRANSITIONS,
    AnomalyKind,
    Delta,
    Event,
    Life,
    Place,
    Reading,
    State,
    close,
    find_life,
    step,
)

T0 = datetime(2026, 11, 10, 12, tzinfo=UTC)
GIB4 = 1 << 32


def reading(
    event: Event,
    seconds: int | None,
    octets: tuple[int, int] | None = None,
    *,
    at: datetime | None = None,
    gigawords: bool = False,
) -> Reading:
    moment = at or T0 + timedelta(seconds=seconds or 0)
    return Reading(
        event=event,
        at=moment,
        received_at=moment,
        session_seconds=seconds,
        octets_in=octets[0] if octets else None,
        octets_out=octets[1] if octets else None,
        gigawords=gigawords,
        terminate_cause=1 if event is Event.STOP else None,
        place=Place("node1", 1, seconds or 0),
    )


def play(*readings: Reading, rate_kbps: int = 0) -> tuple[list[Life], list[Delta], list[AnomalyKind]]:
    lives: list[Life] = []
    deltas, anomalies = [], []
    for one in readings:
        found = find_life(lives, one)
        result = step(found, len(lives) + 1, one, rate_kbps=rate_kbps)
        if found is None:
            lives.append(result.life)
        else:
            lives[lives.index(found)] = result.life
        deltas += [result.delta] if result.delta else []
        anomalies += [result.anomaly] if result.anomaly else []
    return lives, deltas, anomalies


def test_every_state_meets_every_event() -> None:
    assert set(TRANSITIONS) == set(itertools.product(State, Event))
    assert all(state is not State.NONE for (before, _), state in TRANSITIONS.items() if before is not State.NONE)


def test_a_wrapped_32_bit_counter_counts_on_when_the_rate_explains_it() -> None:
    lives, _, anomalies = play(
        reading(Event.INTERIM, 300, (1000, GIB4 - 1000)), reading(Event.INTERIM, 600, (2000, 9000)), rate_kbps=100_000
    )
    assert (lives[0].octets_in, lives[0].octets_out) == (2000, GIB4 + 9000)
    assert anomalies == [AnomalyKind.COUNTER_WRAP]


def test_a_wrap_that_the_rate_does_not_explain_is_a_reset() -> None:
    lives, _, anomalies = play(
        reading(Event.INTERIM, 300, (1000, GIB4 - 1000)), reading(Event.INTERIM, 301, (2000, 5000)), rate_kbps=8
    )
    assert (lives[0].octets_in, lives[0].octets_out) == (2000, GIB4 - 1000 + 5000)
    assert anomalies == [AnomalyKind.IMPLAUSIBLE_RATE, AnomalyKind.COUNTER_RESET]


def test_what_may_be_a_wrap_after_all_counts_the_other_direction_by_its_growth() -> None:
    """Without Gigawords a fall from the lower half is taken for a reset; the other octets may not be counted twice."""
    lives, _, anomalies = play(
        reading(Event.INTERIM, 900, (6_000_000, 1_785_000_000)),
        reading(Event.INTERIM, 1800, (6_800_000, 520_000_000)),
        rate_kbps=1_000_000,
    )
    assert (lives[0].octets_in, lives[0].octets_out) == (6_800_000, 1_785_000_000 + 520_000_000)
    assert anomalies == [AnomalyKind.COUNTER_RESET]


def test_with_gigawords_a_fall_is_never_a_wrap() -> None:
    _, _, anomalies = play(
        reading(Event.INTERIM, 300, (5, GIB4 - 1), gigawords=True), reading(Event.INTERIM, 600, (6, 5), gigawords=True)
    )
    assert anomalies == [AnomalyKind.COUNTER_RESET]


def test_both_counters_fallen_are_a_reset_however_fast_the_plan() -> None:
    lives, _, anomalies = play(
        reading(Event.INTERIM, 300, (100, 100)), reading(Event.INTERIM, 600, (10, 10)), rate_kbps=100_000_000
    )
    assert (lives[0].octets_in, anomalies) == (110, [AnomalyKind.COUNTER_RESET])


def test_a_retransmission_dated_a_second_off_is_not_taken_for_a_reset() -> None:
    """Without Event-Timestamp a repeated Interim may seem later than the Stop; Acct-Session-Time knows better."""
    lives, _, anomalies = play(
        reading(Event.INTERIM, 300, (100, 200)),
        reading(Event.STOP, 301, (110, 220)),
        reading(Event.INTERIM, 300, (100, 200), at=T0 + timedelta(seconds=303)),
    )
    assert (lives[0].octets_in, len(lives), anomalies) == (110, 1, [])


def test_a_record_without_counters_says_nothing_about_usage() -> None:
    lives, _, anomalies = play(reading(Event.INTERIM, 300, (100, 200)), reading(Event.STOP, 400))
    assert (lives[0].octets_in, lives[0].seconds, lives[0].state) == (100, 400, State.CLOSED)
    assert anomalies == []


def test_a_stop_with_neither_time_nor_octets_closes_the_session_that_runs() -> None:
    lives, _, _ = play(reading(Event.START, None), reading(Event.STOP, None, at=T0 + timedelta(seconds=50)))
    assert (len(lives), lives[0].state, lives[0].seconds) == (1, State.CLOSED, 50)


def test_a_reboot_closes_at_the_last_known_update_and_says_that_it_is_an_estimate() -> None:
    lives, _, _ = play(reading(Event.START, None), reading(Event.INTERIM, 300, (1, 2)))
    closed = close(lives[0], Event.NAS_REBOOT)
    assert (closed.state, closed.stopped_at, closed.estimated) == (State.LAPSED, T0 + timedelta(seconds=300), True)
    assert close(closed, Event.NAS_REBOOT) == closed


def test_what_lapsed_after_its_start_alone_goes_on_with_a_first_interim_that_is_dated_some_seconds_off() -> None:
    lives, _, _ = play(reading(Event.START, None))
    lapsed = close(lives[0], Event.SILENCE)
    late = reading(Event.INTERIM, 900, (1, 2), at=T0 + timedelta(seconds=904))
    assert find_life([lapsed], late) == lapsed
    assert step(lapsed, 2, late).anomaly is None


def test_silence_closes_softly() -> None:
    lives, _, _ = play(reading(Event.INTERIM, 300, (1, 2)))
    stale = close(lives[0], Event.SILENCE)
    assert (stale.state, stale.stopped_at) == (State.LAPSED, T0 + timedelta(seconds=300))
    result = step(stale, 2, reading(Event.INTERIM, 900, (3, 4)))
    assert (result.life.state, result.life.life, result.life.stopped_at) == (State.OPEN, 1, None)


def test_a_session_that_survives_an_accounting_on_goes_on() -> None:
    lives, _, _ = play(reading(Event.INTERIM, 300, (1, 2)))
    result = step(close(lives[0], Event.NAS_REBOOT), 2, reading(Event.INTERIM, 600, (3, 4)))
    assert (result.life.state, result.life.octets_in, result.life.estimated) == (State.OPEN, 3, False)


def test_a_repeated_record_does_not_open_a_session_that_lapsed() -> None:
    lives, _, _ = play(reading(Event.START, None), reading(Event.INTERIM, 300, (1, 2)))
    lapsed = close(lives[0], Event.NAS_REBOOT)
    for again in (reading(Event.START, None), reading(Event.INTERIM, 300, (1, 2))):
        assert step(lapsed, 2, again).life == lapsed
    late_stop = step(lapsed, 2, reading(Event.STOP, 300, (1, 2))).life
    assert (late_stop.state, late_stop.estimated, late_stop.octets_in) == (State.CLOSED, False, 1)


def test_a_clock_that_is_set_in_mid_session_opens_no_second_life_and_is_named() -> None:
    slow = timedelta(hours=2)
    before = replace(reading(Event.INTERIM, 300, (10, 1000)), at=T0 + timedelta(seconds=300) - slow)
    lives, _, anomalies = play(before, reading(Event.INTERIM, 600, (20, 2000)))
    assert [(life.octets_in, life.octets_out) for life in lives] == [(20, 2000)]
    assert anomalies == [AnomalyKind.CLOCK]


def test_a_counter_that_slips_by_a_few_octets_is_neither_a_wrap_nor_counted_anew() -> None:
    lives, _, anomalies = play(
        reading(Event.INTERIM, 300, (5_000_000, 12_000_000)),
        reading(Event.INTERIM, 700, (4_999_990, 13_000_000)),
        rate_kbps=100_000,
    )
    assert (lives[0].octets_in, lives[0].octets_out) == (5_000_000, 13_000_000)
    assert anomalies == [AnomalyKind.COUNTER_SLIP]


def test_what_makes_up_for_a_slip_is_not_counted_again() -> None:
    lives, deltas, anomalies = play(
        reading(Event.INTERIM, 300, (5_000_000, 12_000_000)),
        reading(Event.INTERIM, 700, (4_999_990, 13_000_000)),
        reading(Event.STOP, 800, (5_000_005, 13_000_000)),
    )
    assert (lives[0].octets_in, lives[0].octets_out) == (5_000_005, 13_000_000)
    assert [(d.before_in, d.after_in, d.octets_in) for d in deltas[1:]] == [
        (5_000_000, 5_000_000, 0),
        (5_000_000, 5_000_005, 5),
    ]
    assert anomalies == [AnomalyKind.COUNTER_SLIP]


def test_an_id_that_is_used_again_soon_after_the_last_word_of_a_life_opens_another() -> None:
    """The Stop was lost and the subscriber was back within the minute: neither usage may be taken for the other's."""
    before = reading(Event.INTERIM, 900, (700, 900))
    after = reading(Event.INTERIM, 1800, (1200, 1400), at=T0 + timedelta(seconds=900 + 38 + 1800))
    for order in ((before, after), (after, before)):
        lives, _, anomalies = play(*order)
        assert sorted((life.octets_in, life.octets_out) for life in lives) == [(700, 900), (1200, 1400)]
        assert anomalies == []


def test_a_life_whose_start_was_lost_is_told_from_the_one_before_by_where_it_began() -> None:
    lives, _, anomalies = play(
        reading(Event.STOP, 600, (1000, 0)),
        reading(Event.STOP, 300, (900, 0), at=T0 + timedelta(seconds=930)),
    )
    assert [life.octets_in for life in lives] == [1000, 900]
    assert anomalies == []


def test_a_delta_keeps_its_two_readings() -> None:
    _, deltas, _ = play(
        reading(Event.START, None), reading(Event.INTERIM, 300, (10, 20)), reading(Event.STOP, 600, (15, 50))
    )
    assert [(d.before_in, d.after_in, d.before_out, d.after_out) for d in deltas] == [(0, 10, 0, 20), (10, 15, 20, 50)]
    assert [(d.from_at, d.to_at) for d in deltas] == [
        (T0, T0 + timedelta(seconds=300)),
        (T0 + timedelta(seconds=300), T0 + timedelta(seconds=600)),
    ]
    assert [d.before_place.offset if d.before_place else None for d in deltas] == [0, 300]


def test_a_clock_that_is_set_while_the_counters_begin_anew_opens_no_second_life() -> None:
    """By our own clock both readings say that the session began at one moment."""
    slow = timedelta(hours=2)
    before = replace(reading(Event.INTERIM, 3000, (5000, 9000)), at=T0 + timedelta(seconds=3000) - slow)
    lives, _, anomalies = play(before, reading(Event.INTERIM, 3600, (20, 30)))
    assert [(life.octets_in, life.octets_out) for life in lives] == [(5020, 9030)]
    assert anomalies == [AnomalyKind.COUNTER_RESET]


def test_a_record_that_is_later_and_yet_of_a_shorter_session_is_of_another_one() -> None:
    """It began in the very second in which the one before stopped, by a clock that is some seconds ahead."""
    lives, _, _ = play(
        reading(Event.STOP, 410, (187, 319)), reading(Event.STOP, 276, (845, 458), at=T0 + timedelta(seconds=410 + 275))
    )
    assert [(life.octets_in, life.octets_out) for life in lives] == [(187, 319), (845, 458)]


def test_a_start_that_was_overtaken_tells_when_its_session_began_where_nothing_else_does() -> None:
    """Without Acct-Session-Time. Where that told when the session began, an earlier Start is of an earlier one."""
    later = T0 + timedelta(seconds=900)
    lives, _, _ = play(reading(Event.INTERIM, None, (10, 20), at=later), reading(Event.START, None, at=T0))
    assert [(life.started_at, life.octets_in, life.state) for life in lives] == [(T0, 10, State.OPEN)]
    told = play(reading(Event.INTERIM, 300, (10, 20), at=later), reading(Event.START, None, at=T0))[0]
    assert [life.started_at for life in told] == [T0 + timedelta(seconds=600), T0]


def test_event_time_believes_a_clock_within_reason_only() -> None:
    near = T0 - timedelta(seconds=30)
    assert event_time(near, 0, T0) == (near, False)
    assert event_time(None, 30, T0) == (near, False)
    assert event_time(datetime(1970, 1, 1, tzinfo=UTC), 30, T0) == (near, True)
    assert event_time(T0 + timedelta(days=1), 0, T0) == (T0, True)
    assert event_time(T0 + timedelta(seconds=5), 0, T0) == (T0, False), "a clock a little ahead: not after the receipt"
    assert event_time(T0, 300, T0) == (T0 - timedelta(seconds=300), True), "it was sent before it happened"
    assert event_time(T0, 20, T0) == (T0 - timedelta(seconds=20), False), "a little ahead: not after it was sent"
    assert event_time(near, 0xFFFFFFFF, T0) == (near, False), "a delay of years proves nothing"
    assert event_time(None, 0xFFFFFFFF, T0) == (T0 - CLOCK_BEHIND, False)


octet_steps = st.lists(st.tuples(st.integers(0, 10**12), st.integers(0, 10**12)), min_size=1, max_size=6)


@settings(max_examples=200, deadline=None)
@given(octet_steps, st.data())
def test_order_loss_and_repetition_of_interims_change_no_total(
    steps: list[tuple[int, int]], data: st.DataObject
) -> None:
    """Records of one session, as a NAS sends them: whichever arrive, in whatever order, however often."""
    records = [reading(Event.START, None)]
    total_in = total_out = 0
    for number, (octets_in, octets_out) in enumerate(steps, 1):
        total_in, total_out = total_in + octets_in, total_out + octets_out
        event = Event.STOP if number == len(steps) else Event.INTERIM
        records.append(reading(event, 300 * number, (total_in, total_out), gigawords=True))
    kept = data.draw(st.lists(st.sampled_from(records[:-1]), max_size=12))
    arrived = data.draw(st.permutations([*kept, records[-1]]))
    lives, deltas, anomalies = play(*arrived)
    assert [(life.octets_in, life.octets_out, life.state) for life in lives] == [(total_in, total_out, State.CLOSED)]
    assert (sum(d.octets_in for d in deltas), sum(d.octets_out for d in deltas)) == (total_in, total_out)
    assert anomalies == []
    assert [d.seq for d in deltas] == list(range(1, len(deltas) + 1))


anything = st.builds(
    reading,
    st.sampled_from([Event.START, Event.INTERIM, Event.STOP]),
    st.none() | st.integers(0, 2**32 - 1),
    st.none() | st.tuples(st.integers(0, 2**40), st.integers(0, 2**40)),
    at=st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1)).map(lambda moment: moment.replace(tzinfo=UTC)),
    gigawords=st.booleans(),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(anything, max_size=12), st.integers(0, 10**7))
def test_whatever_a_nas_says_totals_are_the_sum_of_deltas_that_are_never_negative(
    records: list[Reading], rate_kbps: int
) -> None:
    lives, deltas, _ = play(*records, rate_kbps=rate_kbps)
    assert all(d.octets_in >= 0 and d.octets_out >= 0 and d.seconds >= 0 and d.to_at >= d.from_at for d in deltas)
    assert sum(life.octets_in for life in lives) == sum(d.octets_in for d in deltas)
    assert sum(life.octets_out for life in lives) == sum(d.octets_out for d in deltas)
    assert all(life.updated_at >= life.started_at for life in lives)
    assert all(life.stopped_at is not None for life in lives if life.state is State.CLOSED)
