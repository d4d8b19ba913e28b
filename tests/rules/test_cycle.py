"""Cycles tile time in every zone, over every kind of clock change."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sms_aaa.rules.cycle import Cycle, ZoneUnknownError, cycle_at, next_cycle

ZONES = [
    "UTC",
    "Europe/Berlin",
    "America/Santiago",  # skips midnight in spring
    "Africa/Cairo",  # skips midnight in spring
    "America/Havana",  # has midnight twice in autumn
    "America/St_Johns",  # until 2011 went from 00:01 back to 23:01 of the day before
    "Pacific/Apia",  # had no 2011-12-30
    "Asia/Kathmandu",  # 5:45
    "Australia/Lord_Howe",  # shifts by half an hour
    "Africa/Monrovia",  # had an offset of 44 minutes 30 seconds until 1972
    "America/Toronto",  # in 1919 skipped from 23:30 to 00:30
]
INSTANTS = st.datetimes(datetime(1910, 1, 1), datetime(2040, 1, 1)).map(lambda instant: instant.replace(tzinfo=UTC))
ANCHORS = st.integers(1, 31)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@settings(max_examples=300, deadline=None)
@given(INSTANTS, st.sampled_from(ZONES), ANCHORS)
def test_every_instant_lies_in_its_cycle(instant: datetime, zone: str, anchor_day: int) -> None:
    cycle = cycle_at(instant, zone, anchor_day)
    assert cycle.start <= instant < cycle.end
    # 27 days and not 28: Samoa's skipped day.
    assert timedelta(days=27) <= cycle.end - cycle.start < timedelta(days=32)


@settings(max_examples=300, deadline=None)
@given(INSTANTS, st.sampled_from(ZONES), ANCHORS)
def test_cycles_tile_without_gap_or_overlap(instant: datetime, zone: str, anchor_day: int) -> None:
    cycle = cycle_at(instant, zone, anchor_day)
    following = next_cycle(cycle, zone, anchor_day)
    assert following.start == cycle.end
    # Every instant of a cycle gives that very cycle, up to both of its edges.
    tick = timedelta(microseconds=1)
    assert cycle_at(cycle.start, zone, anchor_day) == cycle
    assert cycle_at(cycle.end - tick, zone, anchor_day) == cycle
    assert cycle_at(cycle.start - tick, zone, anchor_day).end == cycle.start


@settings(max_examples=300, deadline=None)
@given(INSTANTS, st.sampled_from(ZONES), ANCHORS)
def test_a_cycle_begins_at_the_first_instant_of_its_day(instant: datetime, zone: str, anchor_day: int) -> None:
    start = cycle_at(instant, zone, anchor_day).start
    wall = ZoneInfo(zone)
    local, before = start.astimezone(wall), (start - timedelta(microseconds=1)).astimezone(wall)
    assert before.date() < local.date()


@pytest.mark.parametrize("zone", ZONES)
def test_a_hundred_and_thirty_years_of_cycles_tile(zone: str) -> None:
    cycle = cycle_at(utc("1910-01-10"), zone, 1)
    while cycle.end < utc("2040-01-01"):
        following = next_cycle(cycle, zone, 1)
        assert following.start == cycle.end
        cycle = following


@pytest.mark.parametrize(
    ("instant", "zone", "anchor_day", "start", "end"),
    [
        # Months with a day of 23 and of 25 hours.
        ("2026-03-15", "Europe/Berlin", 1, "2026-02-28T23:00", "2026-03-31T22:00"),
        ("2026-10-15", "Europe/Berlin", 1, "2026-09-30T22:00", "2026-10-31T23:00"),
        # Anchors beyond the month fall on its last day.
        ("2026-02-10", "UTC", 31, "2026-01-31", "2026-02-28"),
        ("2028-03-01", "UTC", 30, "2028-02-29", "2028-03-30"),
        ("2026-12-31", "UTC", 31, "2026-12-31", "2027-01-31"),
        ("2026-01-01", "UTC", 2, "2025-12-02", "2026-01-02"),
        # Santiago, 2026-09-06: after 23:59:59 comes 01:00.
        ("2026-09-06T04:00", "America/Santiago", 6, "2026-09-06T04:00", "2026-10-06T03:00"),
        ("2026-09-06T03:59:59", "America/Santiago", 6, "2026-08-06T04:00", "2026-09-06T04:00"),
        # Havana, 2026-11-01: 00:00 comes twice; the first counts.
        ("2026-11-15", "America/Havana", 1, "2026-11-01T04:00", "2026-12-01T05:00"),
        # St. John's, 2009-11-01: back from 00:01 to 23:01 of October, which is in November's cycle by then.
        ("2009-11-01T02:31", "America/St_Johns", 1, "2009-11-01T02:30", "2009-12-01T03:30"),
        # Apia: the 30th was skipped, so the cycle begins with the 31st.
        ("2011-12-30T10:00", "Pacific/Apia", 30, "2011-12-30T10:00", "2012-01-29T10:00"),
        # Toronto, 1919-03-30: 23:30 became 00:30 of the 31st, so the 31st began in the middle of its first hour.
        ("1919-03-31T12:00", "America/Toronto", 31, "1919-03-31T04:30", "1919-04-30T04:00"),
        ("2026-05-01", "Asia/Kathmandu", 1, "2026-04-30T18:15", "2026-05-31T18:15"),
    ],
)
def test_cycles_on_the_calendar(instant: str, zone: str, anchor_day: int, start: str, end: str) -> None:
    assert cycle_at(utc(instant), zone, anchor_day) == Cycle(utc(start), utc(end))


def test_the_zone_of_the_instant_does_not_matter() -> None:
    instant = utc("2026-03-31T22:30")
    same = instant.astimezone(ZoneInfo("Asia/Kathmandu"))
    assert cycle_at(same, "Europe/Berlin", 1) == cycle_at(instant, "Europe/Berlin", 1)


@pytest.mark.parametrize("zone", ["", "Mars/Olympus", "America", "../etc/passwd", "UTC\0"])
def test_an_unknown_zone_is_refused_with_a_remedy(zone: str) -> None:
    with pytest.raises(ZoneUnknownError, match="write one such as Europe/Berlin"):
        cycle_at(utc("2026-01-01"), zone, 1)


@pytest.mark.parametrize("anchor_day", [0, 32, -1])
def test_an_anchor_day_out_of_range_is_refused(anchor_day: int) -> None:
    with pytest.raises(ValueError, match=r"1\.\.31"):
        cycle_at(utc("2026-01-01"), "UTC", anchor_day)


def test_an_instant_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="give it in UTC"):
        cycle_at(datetime(2026, 1, 1), "UTC", 1)
