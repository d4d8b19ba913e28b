"""The auditor of the rollups: shares every delta over the hours anew and compares, octet for octet.

By the rule for slices: up to each edge round-half-up(octets x elapsed / duration), so that the parts add up; what has
no length lies in the hour of its instant. A day has what its hours have, by the clock of the subscribers' zone.
"""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import date

ZONE = ZoneInfo("Europe/Berlin")
_HOUR = timedelta(hours=1)
_MICROSECOND = timedelta(microseconds=1)

Row = tuple[int, datetime, int, int]
"""(service, hour or day, in, out)."""


def judge_rollups(
    deltas: Iterable[tuple[int, datetime, datetime, int, int]],
    hours: Iterable[tuple[int, datetime, int, int]],
    days: Iterable[tuple[int, date, int, int]],
) -> list[str]:
    """`deltas`: (service, from, to, in, out) of those that belong to one."""
    by_hour: Counter[tuple[int, datetime, str]] = Counter()
    by_day: Counter[tuple[int, date, str]] = Counter()
    for service, begins, ends, octets_in, octets_out in deltas:
        for way, octets in (("in", octets_in), ("out", octets_out)):
            for hour, part in _parts(begins, ends, octets):
                by_hour[service, hour, way] += part
                by_day[service, hour.astimezone(ZONE).date(), way] += part
    return _compare("hour", by_hour, hours) + _compare("day", by_day, days)


def _parts(begins: datetime, ends: datetime, octets: int) -> Iterator[tuple[datetime, int]]:
    hour = begins.replace(minute=0, second=0, microsecond=0)
    duration, shared = (ends - begins) // _MICROSECOND, 0
    while hour + _HOUR < ends:
        elapsed = (hour + _HOUR - begins) // _MICROSECOND
        upto = (2 * octets * elapsed + duration) // (2 * duration)
        yield hour, upto - shared
        shared, hour = upto, hour + _HOUR
    yield hour, octets - shared


def _compare(what: str, right: Counter, rows: Iterable[tuple]) -> list[str]:
    found = Counter({(row[0], row[1], way): int(row[at]) for row in rows for way, at in (("in", 2), ("out", 3))})
    return [
        f"rollup: {what} {key} has {found[key]:,} octets, its deltas {right[key]:,}"
        for key in sorted(found.keys() | right.keys(), key=str)
        if found[key] != right[key]
    ]
