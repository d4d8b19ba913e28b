"""Usage as it was kept by hours and days, and by sessions: what is asked of it for a span of time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg.rows import class_row

if TYPE_CHECKING:
    from datetime import date, datetime

    from sms_aaa.db.engine import Connection


@dataclass(frozen=True, slots=True)
class AccountRow:
    """Who pays, and by which clock."""

    id: int
    zone: str
    currency: str


def list_accounts(connection: Connection, subscriber_id: int) -> list[AccountRow]:
    with connection.cursor(row_factory=class_row(AccountRow)) as cursor:
        return cursor.execute(
            "select id, zone, currency from account where subscriber_id = %s order by id", (subscriber_id,)
        ).fetchall()


def list_services(connection: Connection, subscriber_id: int) -> list[tuple[int, str]]:
    """(id, identity) of all that the subscriber has or had."""
    rows = connection.execute(
        "select id, identity from service where subscriber_id = %s order by id", (subscriber_id,)
    ).fetchall()
    return [(int(service_id), str(identity)) for service_id, identity in rows]


@dataclass(frozen=True, slots=True)
class HourRow:
    """Usage of an hour of the account's zone, which begins at `hour_at`."""

    hour_at: datetime
    octets_in: int
    octets_out: int
    seconds: int


def list_hours(
    connection: Connection, account_id: int, *, service_id: int | None, start: datetime, end: datetime
) -> list[HourRow]:
    """The hours that begin in [start, end), of one service or of all together."""
    with connection.cursor(row_factory=class_row(HourRow)) as cursor:
        return cursor.execute(
            """select hour_at, sum(octets_in)::bigint as octets_in, sum(octets_out)::bigint as octets_out,
                      sum(seconds)::bigint as seconds
               from usage_hour
               where account_id = %s and (%s::bigint is null or service_id = %s) and hour_at >= %s and hour_at < %s
               group by hour_at order by hour_at""",
            (account_id, service_id, service_id, start, end),
        ).fetchall()


@dataclass(frozen=True, slots=True)
class DayRow:
    """Usage of a day of the account's zone."""

    day: date
    octets_in: int
    octets_out: int
    seconds: int


def list_days(
    connection: Connection, account_id: int, *, service_id: int | None, first: date, last: date
) -> list[DayRow]:
    """The days from `first` to `last`, both included, of one service or of all together."""
    with connection.cursor(row_factory=class_row(DayRow)) as cursor:
        return cursor.execute(
            """select day, sum(octets_in)::bigint as octets_in, sum(octets_out)::bigint as octets_out,
                      sum(seconds)::bigint as seconds
               from usage_day
               where account_id = %s and (%s::bigint is null or service_id = %s) and day between %s and %s
               group by day order by day""",
            (account_id, service_id, service_id, first, last),
        ).fetchall()


@dataclass(frozen=True, slots=True)
class SessionPart:
    """Usage of a session in [from_at, to_at): that of one delta, or of several that lie together."""

    session_id: int
    from_at: datetime
    to_at: datetime
    octets_in: int
    octets_out: int
    seconds: int


def list_whole(
    connection: Connection, account_id: int, *, service_id: int | None, start: datetime, end: datetime
) -> list[SessionPart]:
    """By session, the sum of the deltas that lie in [start, end) altogether."""
    with connection.cursor(row_factory=class_row(SessionPart)) as cursor:
        return cursor.execute(
            """select session_id, min(from_at) as from_at, max(to_at) as to_at, sum(octets_in)::bigint as octets_in,
                      sum(octets_out)::bigint as octets_out, sum(seconds)::bigint as seconds
               from usage_delta
               where account_id = %(account)s and to_at between %(start)s and %(end)s
                 and from_at >= %(start)s and from_at < %(end)s
                 and (%(service)s::bigint is null or service_id = %(service)s)
               group by session_id""",
            {"account": account_id, "service": service_id, "start": start, "end": end},
        ).fetchall()


def list_crossing(
    connection: Connection, account_id: int, *, service_id: int | None, start: datetime, end: datetime
) -> list[SessionPart]:
    """The deltas that lie in [start, end) in part, whole."""
    with connection.cursor(row_factory=class_row(SessionPart)) as cursor:
        return cursor.execute(
            """select session_id, from_at, to_at, octets_in, octets_out, seconds from usage_delta
               where account_id = %(account)s and to_at > %(start)s and from_at < %(end)s
                 and (from_at < %(start)s or to_at > %(end)s)
                 and (%(service)s::bigint is null or service_id = %(service)s)""",
            {"account": account_id, "service": service_id, "start": start, "end": end},
        ).fetchall()


@dataclass(frozen=True, slots=True)
class SessionName:
    """A session by what its NAS calls it."""

    id: int
    nas: str
    acct_session_id: str
    username: str
    state: int
    started_at: datetime
    stopped_at: datetime | None


def list_session_names(connection: Connection, session_ids: list[int]) -> list[SessionName]:
    """In the order of their beginning."""
    with connection.cursor(row_factory=class_row(SessionName)) as cursor:
        return cursor.execute(
            """select s.id, n.name as nas, s.acct_session_id, s.username, s.state, s.started_at, s.stopped_at
               from session_all s join nas n on n.id = s.nas_id where s.id = any(%s) order by s.started_at, s.id""",
            (session_ids,),
        ).fetchall()
