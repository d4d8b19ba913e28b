"""Billing cycles: an account's months, which tile time without gap or overlap.

A cycle begins at midnight of the account's anchor day, by the clock on the account's wall, and ends where the next one
begins. It is kept as two UTC instants, so its length is what the calendar makes of it: clocks that are put forward or
back give days of 23 or 25 hours, and Samoa's December 2011 had no 30th at all.

The zone's rules come from the tz database, which zoneinfo reads and caches: the one table that these pure rules look
up outside themselves.
"""

from __future__ import annotations

import calendar
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

ANCHOR_DAY_MAX = 31


class ZoneUnknownError(ValueError):
    """A name that the tz database does not have."""

    def __init__(self, zone: str) -> None:
        super().__init__(f"{zone!r} is not a zone of the tz database; write one such as Europe/Berlin")


@dataclass(frozen=True, slots=True)
class Cycle:
    """[start, end) in UTC."""

    start: datetime
    end: datetime


def cycle_at(instant: datetime, zone: str, anchor_day: int) -> Cycle:
    """The cycle that `instant` (with its zone) lies in, for an account in `zone`.

    `anchor_day` is 1..31; in a month that is too short for it, the month's last day stands in for it. ZoneUnknownError
    for an unknown zone; ValueError for an anchor day out of range or an instant without a zone.
    """
    if instant.tzinfo is None:
        raise ValueError("an instant without a zone names no instant; give it in UTC")
    if not 1 <= anchor_day <= ANCHOR_DAY_MAX:
        raise ValueError(f"an anchor day is 1..{ANCHOR_DAY_MAX}, not {anchor_day}")
    wall = zone_of(zone)
    local = instant.astimezone(wall)
    start = month_start(local.year, local.month, wall, anchor_day)
    if instant < start:
        return Cycle(month_start(*_month_before(local.year, local.month), wall, anchor_day), start)
    following = _month_after(local.year, local.month)
    end = month_start(*following, wall, anchor_day)
    if instant < end:
        return Cycle(start, end)
    # The wall shows the old month again after the new one began: Newfoundland's clocks went from 00:01 back to 23:01.
    return Cycle(end, month_start(*_month_after(*following), wall, anchor_day))


def next_cycle(cycle: Cycle, zone: str, anchor_day: int) -> Cycle:
    """The cycle that begins where `cycle` ends."""
    return cycle_at(cycle.end, zone, anchor_day)


def zone_of(zone: str) -> ZoneInfo:
    """The zone of a name; ZoneUnknownError if the tz database does not have it."""
    try:
        return ZoneInfo(zone)
    except (KeyError, ValueError, OSError):  # OSError: the name of a folder of the database, such as "America"
        raise ZoneUnknownError(zone) from None


def month_start(year: int, month: int, wall: ZoneInfo, anchor_day: int) -> datetime:
    """When the cycle of a month begins: midnight of its anchor day, or, where that was skipped, the end of the skip."""
    day = min(anchor_day, calendar.monthrange(year, month)[1])
    return wall_instant(datetime(year, month, day), wall)  # noqa: DTZ001 - by the clock on a wall, whose zone is beside it


def _month_before(year: int, month: int) -> tuple[int, int]:
    return (year, month - 1) if month > 1 else (year - 1, 12)


def _month_after(year: int, month: int) -> tuple[int, int]:
    return (year, month + 1) if month < 12 else (year + 1, 1)


def wall_instant(local: datetime, wall: ZoneInfo) -> datetime:
    """When the wall's clock first shows `local` (without a zone), in UTC; if that was skipped, the end of the skip."""
    shown = local.replace(tzinfo=wall)  # fold 0: of a time that comes twice, the first
    instant = shown.astimezone(UTC)
    if _wall_clock(instant, wall) == local:
        return instant
    # The time was skipped. By the offset from before the skip it would be `instant`, by the one from after it an
    # earlier instant, when the wall has not come so far: the skip lies in between, and a search finds its second.
    before = shown.replace(fold=1).astimezone(UTC)
    second = timedelta(seconds=1)
    while instant - before > second:
        middle = before + (instant - before) // second // 2 * second
        if _wall_clock(middle, wall) < local:
            before = middle
        else:
            instant = middle
    return instant


def _wall_clock(instant: datetime, wall: ZoneInfo) -> datetime:
    return instant.astimezone(wall).replace(tzinfo=None)
