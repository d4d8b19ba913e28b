"""Rates, lockouts and the order of shedding, as arithmetic: properties over whatever times and numbers come."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sms_aaa.rules.limits import (
    NO_FAILURES,
    LockoutRule,
    Tally,
    Worth,
    count_failure,
    is_behind,
    is_shed,
    step_rate,
)

RULE = LockoutRule(failures_max=3, window_seconds=60, lockout_seconds=300)
NOW = 1_800_000_000
INTERVAL_NS = 1_000_000  # 1000 requests a second
gaps_ns = st.lists(st.integers(0, 20 * INTERVAL_NS), min_size=1, max_size=300)


def admitted(gaps: list[int], burst: int, *, start: int = 10**12) -> list[int]:
    """The instants at which a source that asks after each gap is let through."""
    due, now, found = 0, start, []
    for gap in gaps:
        now += gap
        stepped = step_rate(due, now, interval_ns=INTERVAL_NS, burst=burst)
        if stepped is not None:
            due = stepped
            found.append(now)
    return found


@given(gaps_ns, st.integers(1, 20))
def test_in_no_span_of_time_does_a_source_get_more_than_its_burst_and_its_rate(gaps, burst):
    instants = admitted(gaps, burst)
    for first in range(len(instants)):
        for last in range(first, min(len(instants), first + 40)):
            span = instants[last] - instants[first]
            assert last - first + 1 <= burst + span / INTERVAL_NS + 1e-9


@given(st.lists(st.integers(INTERVAL_NS, 20 * INTERVAL_NS), min_size=1, max_size=300), st.integers(1, 20))
def test_a_source_that_keeps_to_its_rate_is_never_refused(gaps, burst):
    assert len(admitted(gaps, burst)) == len(gaps)


def test_a_burst_goes_through_at_once_and_one_more_does_not():
    assert len(admitted([0] * 30, 20)) == 20


def test_after_silence_the_burst_is_whole_again():
    assert len(admitted([0] * 30 + [20 * INTERVAL_NS] + [0] * 30, 20)) == 40


def test_a_state_of_another_boots_clock_counts_as_none():
    assert step_rate(10**15, 5 * INTERVAL_NS, interval_ns=INTERVAL_NS, burst=20) == 6 * INTERVAL_NS


@given(st.lists(st.integers(0, 100), min_size=1, max_size=200))
def test_who_is_locked_had_as_many_failures_in_a_window_and_is_so_for_as_long_as_is_set(gaps):
    tally, now, counted = NO_FAILURES, NOW, []
    for gap in gaps:
        now += gap
        was_locked = tally.is_locked(now)
        stepped = count_failure(tally, now, RULE)
        if was_locked:
            assert stepped == tally, "trying does not prolong it"
            continue
        counted.append(now)
        if stepped.is_locked(now):
            assert stepped.until == now + 300
            assert now - counted[-3] < 60
            counted.clear()
        tally = stepped


def test_the_lockout_sets_in_with_the_last_failure_that_is_allowed_and_not_before():
    tally = NO_FAILURES
    for _ in range(2):
        tally = count_failure(tally, NOW, RULE)
        assert not tally.is_locked(NOW)
    tally = count_failure(tally, NOW, RULE)
    assert tally.is_locked(NOW)
    assert tally.is_locked(NOW + 299)
    assert not tally.is_locked(NOW + 300)


def test_after_a_lockout_the_count_begins_anew():
    tally = Tally(failures=3, first_at=NOW - 10, locked_at=NOW - 310, until=NOW - 10)
    assert count_failure(tally, NOW, RULE) == Tally(failures=1, first_at=NOW)


def test_failures_that_are_far_apart_are_never_too_many():
    tally = NO_FAILURES
    for minute in range(100):
        tally = count_failure(tally, NOW + 60 * minute, RULE)
        assert tally == Tally(failures=1, first_at=NOW + 60 * minute)


def test_no_limit_counts_nothing():
    assert count_failure(NO_FAILURES, NOW, LockoutRule(0, 60, 300)) is NO_FAILURES


def test_a_clock_that_is_set_back_frees_whom_it_would_keep_out_for_longer():
    tally = Tally(failures=3, first_at=NOW, locked_at=NOW, until=NOW + 300)
    assert not tally.is_locked(NOW - 3600)
    assert count_failure(tally, NOW - 3600, RULE).failures == 1


def test_a_tally_matters_as_long_as_its_window_or_its_lockout_lasts():
    assert Tally(failures=1, first_at=NOW).matters_until(RULE) == NOW + 60
    assert Tally(failures=3, first_at=NOW, locked_at=NOW + 9, until=NOW + 309).matters_until(RULE) == NOW + 309


@pytest.mark.parametrize(
    ("was_behind", "queued", "expected"),
    [(False, 49, False), (False, 50, True), (True, 49, True), (True, 25, True), (True, 24, False)],
)
def test_a_worker_is_behind_from_the_limit_on_until_half_of_it(was_behind, queued, expected):
    assert is_behind(was_behind, queued * 1000, 100_000, limit_percent=50) is expected


@given(st.booleans(), st.integers(0, 10**9), st.integers(1, 10**9), st.integers(1, 100))
def test_who_is_not_behind_with_a_queue_is_not_with_a_shorter_one(was_behind, queued, room, percent):
    if not is_behind(was_behind, queued, room, limit_percent=percent):
        assert not is_behind(was_behind, queued // 2, room, limit_percent=percent)


@given(st.floats(0, 1000))
def test_what_is_worth_more_goes_only_if_all_that_is_worth_less_goes(age):
    shed = [is_shed(worth, age, stale_seconds=2.0) for worth in sorted(Worth)]
    assert shed == sorted(shed, reverse=True)
    assert shed[-1] is False, "a record is never dropped"


def test_a_login_goes_when_it_has_been_sent_again_and_a_conversation_never():
    assert not is_shed(Worth.LOGIN, 2.0, stale_seconds=2.0)
    assert is_shed(Worth.LOGIN, 2.1, stale_seconds=2.0)
    assert not is_shed(Worth.CONVERSATION, 100.0, stale_seconds=2.0)
