"""Hours of a zone's wall clock: they tile, days are sums of them, and a delta's shares add up to it."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sms_aaa.rules.hours import Hour, Hours
from sms_aaa.rules.rating import DELTA_MAX

ZONES = ("UTC", "Europe/Berlin", "Asia/Kolkata", "Asia/Kathmandu", "Australia/Lord_Howe", "America/St_Johns",
         "America/Sao_Paulo", "Pacific/Apia", "America/New_York")  # fmt: skip
MINUTE = timedelta(minutes=1)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def hours_from(zone: str, start: datetime, end: datetime) -> list[Hour]:
    hours = Hours(zone)
    found = [hours.find(start)]
    while found[-1].end < end:
        found.append(hours.find(found[-1].end))
    return found


@pytest.mark.parametrize(
    ("zone", "day", "count"),
    [
        ("Europe/Berlin", "2026-03-29", 23), ("Europe/Berlin", "2026-10-25", 25), ("Europe/Berlin", "2026-11-28", 24),
        ("America/New_York", "2026-03-08", 23), ("Asia/Kolkata", "2026-11-28", 24),
        # Lord Howe's clocks go by half an hour: 24 hours, of which one is a half; 25, of which one is.
        ("Australia/Lord_Howe", "2026-10-04", 24), ("Australia/Lord_Howe", "2026-04-05", 25),
        # Samoa had no 30th of December 2011 at all; Sao Paulo's day of 2018-11-04 began at one o'clock.
        ("Pacific/Apia", "2011-12-30", 0), ("America/Sao_Paulo", "2018-11-04", 23),
    ],
)  # fmt: skip
def test_a_day_has_the_hours_that_its_wall_shows(zone: str, day: str, count: int) -> None:
    noon = utc(f"{day} 12:00")
    hours = hours_from(zone, noon - timedelta(days=2), noon + timedelta(days=2))
    assert sum(hour.day == date.fromisoformat(day) for hour in hours) == count


def test_zones_of_half_and_quarter_hours_have_their_edges_there() -> None:
    assert Hours("Asia/Kolkata").find(utc("2026-11-28 12:29")).start == utc("2026-11-28 11:30")
    assert Hours("Asia/Kathmandu").find(utc("2026-11-28 12:15")).start == utc("2026-11-28 12:15")


def test_an_hour_that_the_clock_shows_twice_is_two_hours() -> None:
    hours = Hours("Europe/Berlin")
    summer, winter = hours.find(utc("2026-10-25 00:30")), hours.find(utc("2026-10-25 01:30"))
    assert (summer.end, winter.start) == (utc("2026-10-25 01:00"), utc("2026-10-25 01:00"))
    assert summer.day == winter.day == date(2026, 10, 25)


def test_a_delta_is_shared_by_the_time_it_has_in_each_hour() -> None:
    shares = list(
        Hours("Europe/Berlin").share(
            utc("2026-11-28 12:45"), utc("2026-11-28 14:15"), octets_in=900, octets_out=90, seconds=5400
        )
    )
    assert [(s.octets_in, s.octets_out, s.seconds) for s in shares] == [(150, 15, 900), (600, 60, 3600), (150, 15, 900)]


def test_a_delta_that_ends_on_an_edge_has_nothing_in_the_hour_that_begins_there() -> None:
    [share] = Hours("UTC").share(utc("2026-11-28 12:45"), utc("2026-11-28 13:00"), octets_in=7, octets_out=8, seconds=9)
    assert (share.hour.start, share.octets_in) == (utc("2026-11-28 12:00"), 7)


def test_a_delta_without_length_lies_at_its_instant() -> None:
    at = utc("2026-11-28 13:00")
    [share] = Hours("UTC").share(at, at, octets_in=7, octets_out=8, seconds=0)
    assert share.hour.start == at


def test_a_delta_of_years_lies_in_its_last_hour() -> None:
    end = utc("2026-11-28 13:20")
    [share] = Hours("UTC").share(end - DELTA_MAX - MINUTE, end, octets_in=7, octets_out=8, seconds=9)
    assert share.hour.start == utc("2026-11-28 13:00")


@settings(max_examples=60)
@given(
    zone=st.sampled_from(ZONES),
    start=st.datetimes(datetime(2010, 1, 1), datetime(2027, 1, 1)),
    length=st.timedeltas(timedelta(0), timedelta(days=9)),
    octets=st.tuples(st.integers(0, 1 << 56), st.integers(0, 1 << 56)),
)
def test_shares_add_up_and_their_hours_tile_the_delta(
    zone: str, start: datetime, length: timedelta, octets: tuple[int, int]
) -> None:
    start = start.replace(tzinfo=UTC)
    end = start + length
    shares = list(Hours(zone).share(start, end, octets_in=octets[0], octets_out=octets[1], seconds=60))
    assert sum(share.octets_in for share in shares) == octets[0]
    assert sum(share.octets_out for share in shares) == octets[1]
    assert sum(share.seconds for share in shares) == 60
    assert min(min(share.octets_in, share.octets_out, share.seconds) for share in shares) >= 0
    hours = [share.hour for share in shares]
    assert all(earlier.end == later.start for earlier, later in pairwise(hours))
    assert hours[0].start <= start < hours[0].end
    assert hours[-1].start < end <= hours[-1].end or (start == end and len(hours) == 1)
