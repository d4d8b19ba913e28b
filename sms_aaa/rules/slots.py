"""When usage happens: slots by the clock on the account's wall, bands by the time since the session began.

Slots are tried in their order, and the first that matches an instant has it; what none matches is the slot `anytime`.
So the slots of a tariff tile time whatever they are, on days of 23 and 25 hours too. Bands tile a session's life in
the same way, from 0 on.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from functools import lru_cache
from typing import TYPE_CHECKING

from sms_aaa.rules.cycle import wall_instant, zone_of
from sms_aaa.rules.instants import SECOND_US, instant_of, instant_us

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

ANYTIME = "anytime"
"""The slot of instants that no slot of the tariff matches."""

ANY_BAND = "whole-session"
"""The band of instants that no band of the tariff matches."""

DAY_SECONDS = 86_400
DAYS_KEPT = 4096
"""Days whose slots are remembered: a year of ten tariffs in one zone."""

_ONE_DAY = timedelta(days=1)


class Day(StrEnum):
    """The kinds of days. Where a slot of the tariff names holidays, a holiday is not also the weekday it falls on."""

    MONDAY = "mon"
    TUESDAY = "tue"
    WEDNESDAY = "wed"
    THURSDAY = "thu"
    FRIDAY = "fri"
    SATURDAY = "sat"
    SUNDAY = "sun"
    HOLIDAY = "holiday"


WEEKDAYS = tuple(day for day in Day if day is not Day.HOLIDAY)


@dataclass(frozen=True, slots=True)
class Holiday:
    """A day of a year; `year` None: of every year. 29 February is one only in leap years."""

    month: int
    day: int
    year: int | None = None

    def __post_init__(self) -> None:
        date(self.year or 2000, self.month, self.day)  # ValueError: there is no such day

    def is_on(self, day: date) -> bool:
        return (day.month, day.day) == (self.month, self.day) and self.year in {None, day.year}


@dataclass(frozen=True, slots=True)
class Slot:
    """[from_second, to_second) of the wall's clock on these days; with from >= to it goes on over midnight.

    A slot over midnight belongs to the day that it begins on. `days` empty: all, holidays too. 0 to 86,400 is the day.
    """

    name: str
    days: tuple[Day, ...]
    from_second: int
    to_second: int

    def __post_init__(self) -> None:
        if not (0 <= self.from_second < DAY_SECONDS and 0 < self.to_second <= DAY_SECONDS):
            raise ValueError("a slot lies between 00:00 and 24:00")
        if self.name == ANYTIME:
            raise ValueError(f"{ANYTIME!r} is the slot of all other times, and needs no description")


@dataclass(frozen=True, slots=True)
class Band:
    """[from_seconds, to_seconds) since the session began; `to_seconds` None: to its end."""

    name: str
    from_seconds: int
    to_seconds: int | None

    def __post_init__(self) -> None:
        if self.from_seconds < 0 or (self.to_seconds is not None and self.to_seconds <= self.from_seconds):
            raise ValueError("a band ends after it begins")
        if self.name == ANY_BAND:
            raise ValueError(f"{ANY_BAND!r} is the band of all other times, and needs no description")


@dataclass(frozen=True, slots=True)
class Calendar:
    """The slots of a tariff on the wall of an account: what tells two accounts' slots apart. Hashable."""

    zone: str
    slots: tuple[Slot, ...]
    holidays: tuple[Holiday, ...]


def slot_segments(calendar: Calendar, from_us: int, to_us: int) -> list[tuple[int, str]]:
    """(begin, slot) of the stretches that tile [from_us, to_us), in order; the first begins at `from_us`.

    Without length it is the one stretch that the instant lies in.
    """
    if not calendar.slots:
        return [(from_us, ANYTIME)]
    found: list[tuple[int, str]] = []
    day = instant_of(from_us).astimezone(zone_of(calendar.zone)).date()
    last = instant_of(max(from_us, to_us - 1)).astimezone(zone_of(calendar.zone)).date()
    while day <= last:
        for begin_us, slot in _day_segments(calendar, day):
            if begin_us <= from_us:
                found = [(from_us, slot)]
            elif begin_us < to_us and slot != found[-1][1]:
                found.append((begin_us, slot))
        day += _ONE_DAY
    return found


def band_segments(bands: tuple[Band, ...], session_from_us: int, from_us: int, to_us: int) -> list[tuple[int, str]]:
    """(begin, band) of the stretches that tile [from_us, to_us) of a session, as `slot_segments` has slots."""
    edges = {
        session_from_us + second * SECOND_US for band in bands for second in (band.from_seconds, band.to_seconds or 0)
    }
    begins = [from_us, *sorted(edge for edge in edges if from_us < edge < to_us)]
    return [(begin, _band_at(bands, begin - session_from_us)) for begin in begins]


def _band_at(bands: tuple[Band, ...], elapsed_us: int) -> str:
    for band in bands:
        if band.from_seconds * SECOND_US <= elapsed_us and (
            band.to_seconds is None or elapsed_us < band.to_seconds * SECOND_US
        ):
            return band.name
    return ANY_BAND


@lru_cache(DAYS_KEPT)
def _day_segments(calendar: Calendar, day: date) -> tuple[tuple[int, str], ...]:
    """The stretches of one day of the wall, from its first instant on."""
    wall = zone_of(calendar.zone)
    begin, end = (wall_instant(datetime.combine(each, time.min), wall) for each in (day, day + _ONE_DAY))
    seconds = {0} | {second for slot in calendar.slots for second in (slot.from_second, slot.to_second)}
    edges = {begin}
    for local in (datetime.combine(day, time.min) + timedelta(seconds=second) for second in seconds):
        edges |= {local.replace(tzinfo=wall, fold=fold).astimezone(UTC) for fold in (0, 1)}
    if begin.astimezone(wall).utcoffset() != end.astimezone(wall).utcoffset():
        edges.add(_change_between(begin, end, wall))
    found: list[tuple[int, str]] = []
    for edge in sorted(edges):
        slot = _slot_at(calendar, edge.astimezone(wall))
        if begin <= edge < end and (not found or slot != found[-1][1]):
            found.append((instant_us(edge), slot))
    return tuple(found)


def _change_between(begin: datetime, end: datetime, wall: ZoneInfo) -> datetime:
    """The second in which the wall's clock was put forward or back."""
    second = timedelta(seconds=1)
    offset = begin.astimezone(wall).utcoffset()
    while end - begin > second:
        middle = begin + (end - begin) // second // 2 * second
        if middle.astimezone(wall).utcoffset() == offset:
            begin = middle
        else:
            end = middle
    return end


def _slot_at(calendar: Calendar, local: datetime) -> str:
    second = local.hour * 3600 + local.minute * 60 + local.second
    today, yesterday = (_kind_of(calendar, day) for day in (local.date(), local.date() - _ONE_DAY))
    for slot in calendar.slots:
        is_over_midnight = slot.from_second >= slot.to_second
        begins_today = second >= slot.from_second and (is_over_midnight or second < slot.to_second)
        if begins_today and (not slot.days or today in slot.days):
            return slot.name
        if is_over_midnight and second < slot.to_second and (not slot.days or yesterday in slot.days):
            return slot.name
    return ANYTIME


def _kind_of(calendar: Calendar, day: date) -> Day:
    if any(Day.HOLIDAY in slot.days for slot in calendar.slots) and any(each.is_on(day) for each in calendar.holidays):
        return Day.HOLIDAY
    return WEEKDAYS[day.weekday()]
