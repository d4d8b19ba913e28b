"""What an account used in a span of time, by hour, day, month or session.

Hours and days were shared out when the deltas were settled; a session's part of a span is cut here by the same rule,
so that whichever way it is asked for, the same span comes to the same octets.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from itertools import groupby
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from sms_aaa.db import usage_spans as db_spans
from sms_aaa.rules.rating import slice_quantities

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sms_aaa.db.engine import Connection
    from sms_aaa.db.usage_spans import AccountRow, SessionName, SessionPart

_HOUR = timedelta(hours=1)


class By(StrEnum):
    HOUR = "hour"
    DAY = "day"
    MONTH = "month"
    SESSION = "session"


@dataclass(frozen=True, slots=True)
class SpanUsage:
    """What was used in [from_at, to_at). `session`: of that session alone."""

    from_at: datetime
    to_at: datetime
    octets_in: int
    octets_out: int
    seconds: int
    session: SessionName | None = None


@dataclass(frozen=True, slots=True)
class Span:
    """Whose usage is asked for, and when: [start, end). `service_id` None: of all services of the account."""

    account: AccountRow
    service_id: int | None
    start: datetime
    end: datetime

    @property
    def zone(self) -> ZoneInfo:
        return ZoneInfo(self.account.zone)


def widen(span: Span, by: By) -> Span:
    """To whole hours, days or months of the account's clock; by session it stays as it is."""
    if by is By.SESSION:
        return span
    if by is By.HOUR:
        start, end = _hour_of(span.start, span.zone), _hour_of(span.end, span.zone)
        return Span(span.account, span.service_id, start, end if end == span.end else end + _HOUR)
    first, last = _days(span)
    if by is By.MONTH:
        first, last = first.replace(day=1), _next_month(last) - timedelta(days=1)
    start, end = _midnight(first, span.zone), _midnight(last + timedelta(days=1), span.zone)
    return Span(span.account, span.service_id, start, end)


def list_usage_by(connection: Connection, span: Span, by: By) -> list[SpanUsage]:
    """The parts of a span in which something was used, in order. `span`: as `widen` makes it."""
    if by is By.SESSION:
        return _by_session(connection, span)
    if by is By.HOUR:
        hours = db_spans.list_hours(
            connection, span.account.id, service_id=span.service_id, start=span.start, end=span.end
        )
        return [
            SpanUsage(row.hour_at, row.hour_at + _HOUR, row.octets_in, row.octets_out, row.seconds) for row in hours
        ]
    first, last = _days(span)
    days = [
        SpanUsage(
            _midnight(row.day, span.zone),
            _midnight(row.day + timedelta(days=1), span.zone),
            row.octets_in,
            row.octets_out,
            row.seconds,
        )
        for row in db_spans.list_days(connection, span.account.id, service_id=span.service_id, first=first, last=last)
    ]
    return days if by is By.DAY else _months(days, span.zone)


def fill_gaps(parts: Iterable[SpanUsage], span: Span, by: By) -> list[SpanUsage]:
    """With the hours, days or months in which nothing was used, too."""
    found = {part.from_at: part for part in parts}
    at = span.start
    while at < span.end:
        after = _next(at, span.zone, by)
        found.setdefault(at, SpanUsage(at, after, 0, 0, 0))
        at = after
    return [found[at] for at in sorted(found)]


def _next(at: datetime, zone: ZoneInfo, by: By) -> datetime:
    if by is By.HOUR:
        return at + _HOUR
    day = at.astimezone(zone).date()
    return _midnight(_next_month(day) if by is By.MONTH else day + timedelta(days=1), zone)


def _months(days: list[SpanUsage], zone: ZoneInfo) -> list[SpanUsage]:
    found = []
    for first, group in groupby(days, key=lambda part: part.from_at.astimezone(zone).date().replace(day=1)):
        parts = list(group)
        found.append(
            SpanUsage(
                _midnight(first, zone),
                _midnight(_next_month(first), zone),
                sum(part.octets_in for part in parts),
                sum(part.octets_out for part in parts),
                sum(part.seconds for part in parts),
            )
        )
    return found


def _by_session(connection: Connection, span: Span) -> list[SpanUsage]:
    account_id, service_id, start, end = span.account.id, span.service_id, span.start, span.end
    parts = db_spans.list_whole(connection, account_id, service_id=service_id, start=start, end=end)
    crossing = db_spans.list_crossing(connection, account_id, service_id=service_id, start=start, end=end)
    parts += [_cut(part, span) for part in crossing]
    by_session: dict[int, list[SessionPart]] = {}
    for part in parts:
        by_session.setdefault(part.session_id, []).append(part)
    return [
        SpanUsage(
            min(part.from_at for part in by_session[name.id]),
            max(part.to_at for part in by_session[name.id]),
            sum(part.octets_in for part in by_session[name.id]),
            sum(part.octets_out for part in by_session[name.id]),
            sum(part.seconds for part in by_session[name.id]),
            name,
        )
        for name in db_spans.list_session_names(connection, list(by_session))
    ]


def _cut(part: SessionPart, span: Span) -> SessionPart:
    """What of a delta lies in the span."""
    edges = [edge for edge in (span.start, span.end) if part.from_at < edge < part.to_at]
    index = int(part.from_at < span.start)

    def within(quantity: int) -> int:
        return slice_quantities(quantity, start=part.from_at, end=part.to_at, edges=edges)[index]

    return db_spans.SessionPart(
        part.session_id,
        max(part.from_at, span.start),
        min(part.to_at, span.end),
        within(part.octets_in),
        within(part.octets_out),
        within(part.seconds),
    )


def _days(span: Span) -> tuple[date, date]:
    """The first and the last day of a span, by the account's clock."""
    last = max(span.start, span.end - timedelta(microseconds=1))
    return span.start.astimezone(span.zone).date(), last.astimezone(span.zone).date()


def _hour_of(at: datetime, zone: ZoneInfo) -> datetime:
    """When the hour of the zone's clock began: a quarter past, in a zone that is so far off."""
    local = at.astimezone(zone)
    into = timedelta(minutes=local.minute, seconds=local.second, microseconds=local.microsecond)
    return at.astimezone(UTC) - into  # in UTC: of an hour that comes twice, the one that is meant


def _midnight(day: date, zone: ZoneInfo) -> datetime:
    return datetime.combine(day, time(), zone).astimezone(UTC)


def _next_month(day: date) -> date:
    return (day.replace(day=1) + timedelta(days=32)).replace(day=1)
