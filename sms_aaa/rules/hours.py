"""Hours and days of a zone's wall clock, and how a delta is shared over the hours that it touches.

An hour begins where the clock on the wall shows a full hour, and where it is set: put forward or back by half an hour
(Lord Howe) it cuts an hour short. Zones of half and quarter hours have their edges there. A day is the date that the
wall shows, so it has 23 or 25 hours now and then, and every hour lies in one day. Hours are known by the instant at
which they begin, which no two of them share, though their names on the wall may be the same.

What a delta uses in an hour is what the rule for slices gives (rating.slice_quantities): so the hours of a delta add up
to it to the octet, and its days, its months are sums of them.

The rules of zones come from the tz database, as in cycle.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from sms_aaa.rules.rating import DELTA_MAX, slice_quantities

if TYPE_CHECKING:
    from collections.abc import Iterator

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_HOUR = timedelta(hours=1)
_SECOND = timedelta(seconds=1)
_INSTANT = timedelta(microseconds=1)
HOURS_KEPT = 20_000
"""More than two years of a zone's hours; then they are reckoned anew."""


@dataclass(frozen=True, slots=True)
class Hour:
    """[start, end) in UTC, an hour or less; `day`: the date that the wall shows in it."""

    start: datetime
    end: datetime
    day: date


@dataclass(frozen=True, slots=True)
class Share:
    """What a delta uses in one hour."""

    hour: Hour
    octets_in: int
    octets_out: int
    seconds: int


class Hours:
    """The hours of one zone, each reckoned once. ZoneInfoNotFoundError for a zone that the tz database lacks."""

    def __init__(self, zone: str) -> None:
        self._wall = ZoneInfo(zone)
        self._known: dict[int, list[Hour]] = {}
        self._last = self._hour_at(_EPOCH)

    def find(self, at: datetime) -> Hour:
        """The hour that an instant lies in."""
        last = self._last
        if last.start <= at < last.end:
            return last
        number = (at - _EPOCH) // _HOUR
        hours = self._known.get(number)
        if hours is None:
            hours = self._hours_of(_EPOCH + number * _HOUR)
            if len(self._known) >= HOURS_KEPT:
                self._known.clear()
            self._known[number] = hours
        self._last = last = next(hour for hour in hours if at < hour.end)
        return last

    def share(
        self, start: datetime, end: datetime, *, octets_in: int, octets_out: int, seconds: int
    ) -> Iterator[Share]:
        """A delta of [start, end) over its hours, in order; together they are all of it.

        One without length lies at its instant. One that is longer than a delta can be has wrong times: it is not
        spread over years but lies in its last hour.
        """
        first = self.find(start)
        if end <= first.end:
            yield Share(first, octets_in, octets_out, seconds)
            return
        if end - start > DELTA_MAX:
            yield Share(self.find(end - _INSTANT), octets_in, octets_out, seconds)
            return
        hours = [first]
        while hours[-1].end < end:
            hours.append(self.find(hours[-1].end))
        edges = [hour.start for hour in hours[1:]]
        shares = (
            slice_quantities(quantity, start=start, end=end, edges=edges)
            for quantity in (octets_in, octets_out, seconds)
        )
        for hour, *parts in zip(hours, *shares, strict=True):
            yield Share(hour, *parts)

    def _hours_of(self, start: datetime) -> list[Hour]:
        """Those that an hour of UTC touches, which begins at `start`: two, if the zone's are cut elsewhere."""
        hours = [self._hour_at(start)]
        while hours[-1].end < start + _HOUR:
            hours.append(self._hour_at(hours[-1].end))
        return hours

    def _hour_at(self, at: datetime) -> Hour:
        wall = at.astimezone(self._wall)
        into = timedelta(minutes=wall.minute, seconds=wall.second, microseconds=wall.microsecond)
        start, end = at - into, at - into + _HOUR
        offset = wall.utcoffset()
        # Where the clock is set within the hour it is cut. (No zone sets its clock twice in an hour.)
        if self._offset(start) != offset:
            start = self._find_change(start, at)
        if self._offset(end - _SECOND) != offset:
            end = self._find_change(at, end)
        return Hour(start, end, start.astimezone(self._wall).date())

    def _offset(self, at: datetime) -> timedelta | None:
        return at.astimezone(self._wall).utcoffset()

    def _find_change(self, before: datetime, after: datetime) -> datetime:
        """The second at which the clock was set, of two instants between which that happened once."""
        old = self._offset(before)
        while after - before > _SECOND:
            middle = before + (after - before) // _SECOND // 2 * _SECOND
            if self._offset(middle) == old:
                before = middle
            else:
                after = middle
        return after
