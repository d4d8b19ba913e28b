"""Everybody's usage in a span of time, row by row by a cursor on the server, and what it adds up to."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from psycopg import sql

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import date, datetime

    from sms_aaa.db.engine import Connection

PAGE_ROWS = 5_000


class ExportBy(StrEnum):
    DELTA = "delta"
    SESSION = "session"
    HOUR = "hour"
    DAY = "day"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportFilter:
    """A delta, or a session's deltas, that *ended* in [start, end): so each is in one of two exports that adjoin.

    Hours that began in it; days from that of `start` to the last before that of `end`, as dates. `nas_id`: not for
    hours and days, which know of no NAS.
    """

    by: ExportBy
    start: datetime
    end: datetime
    first_day: date
    end_day: date
    nas_id: int | None = None
    subscriber_id: int | None = None


@dataclass(frozen=True, slots=True)
class Totals:
    """What an export comes to."""

    rows: int
    octets_in: int
    octets_out: int


COLUMNS: dict[ExportBy, tuple[str, ...]] = {
    ExportBy.DELTA: (
        "session_id", "seq", "account_id", "service_id", "subscriber", "username", "nas", "acct_session_id", "from_at",
        "to_at", "octets_up", "octets_down", "seconds", "run", "wrapped",
    ),
    ExportBy.SESSION: (
        "session_id", "account_id", "service_id", "subscriber", "username", "nas", "acct_session_id", "started_at",
        "stopped_at", "octets_up", "octets_down", "seconds", "deltas",
    ),
    ExportBy.HOUR: (
        "account_id", "service_id", "subscriber", "username", "zone", "hour_at", "octets_up", "octets_down", "seconds",
    ),
    ExportBy.DAY: (
        "account_id", "service_id", "subscriber", "username", "zone", "day", "octets_up", "octets_down", "seconds",
    ),
}  # fmt: skip

PERSONAL = ("subscriber", "username")
"""The columns that name a person."""

_QUERIES = {
    ExportBy.DELTA: """
        select d.session_id, d.seq, d.account_id, d.service_id, b.name, s.username, n.name, s.acct_session_id,
               d.from_at, d.to_at, d.octets_in, d.octets_out, d.seconds, d.run, d.wrapped
        from usage_delta d left join session_all s on s.id = d.session_id left join nas n on n.id = s.nas_id
        left join service v on v.id = d.service_id left join subscriber b on b.id = v.subscriber_id
        where {where}""",
    ExportBy.SESSION: """
        select d.session_id, d.account_id, d.service_id, b.name, s.username, n.name, s.acct_session_id, s.started_at,
               s.stopped_at, d.octets_in, d.octets_out, d.seconds, d.deltas
        from (select session_id, account_id, service_id, sum(octets_in)::bigint as octets_in,
                     sum(octets_out)::bigint as octets_out, sum(seconds)::bigint as seconds, count(*) as deltas
              from usage_delta d where {where} group by session_id, account_id, service_id) d
        left join session_all s on s.id = d.session_id left join nas n on n.id = s.nas_id
        left join service v on v.id = d.service_id left join subscriber b on b.id = v.subscriber_id""",
    ExportBy.HOUR: """
        select d.account_id, d.service_id, b.name, v.identity, a.zone, d.hour_at, d.octets_in, d.octets_out, d.seconds
        from usage_hour d left join service v on v.id = d.service_id left join subscriber b on b.id = v.subscriber_id
        left join account a on a.id = d.account_id
        where {where}""",
    ExportBy.DAY: """
        select d.account_id, d.service_id, b.name, v.identity, a.zone, d.day, d.octets_in, d.octets_out, d.seconds
        from usage_day d left join service v on v.id = d.service_id left join subscriber b on b.id = v.subscriber_id
        left join account a on a.id = d.account_id
        where {where}""",
}

_TOTALS = {
    ExportBy.DELTA: ("usage_delta", "count(*)"),
    ExportBy.SESSION: ("usage_delta", "count(distinct (session_id, account_id, service_id))"),
    ExportBy.HOUR: ("usage_hour", "count(*)"),
    ExportBy.DAY: ("usage_day", "count(*)"),
}


def iterate_usage(connection: Connection, wanted: ExportFilter) -> Iterator[tuple[Any, ...]]:
    """Rows of COLUMNS in no order. In a transaction of one snapshot they are what `get_totals` counts."""
    query = sql.SQL(_QUERIES[wanted.by]).format(where=_where(wanted))
    with connection.cursor("usage_export") as cursor:
        cursor.itersize = PAGE_ROWS
        yield from cursor.execute(query)


def get_totals(connection: Connection, wanted: ExportFilter) -> Totals:
    """Counted by themselves, without the names that an export joins to them."""
    table, counted = _TOTALS[wanted.by]
    row = connection.execute(
        sql.SQL(
            """select {counted}, coalesce(sum(d.octets_in), 0)::bigint, coalesce(sum(d.octets_out), 0)::bigint
               from {table} d where {where}"""
        ).format(counted=sql.SQL(counted), table=sql.Identifier(table), where=_where(wanted))
    ).fetchone()
    assert row is not None
    return Totals(*row)


def _where(wanted: ExportFilter) -> sql.Composable:
    if wanted.by is ExportBy.DAY:
        conditions = [_condition("d.day >= {} and d.day < {}", wanted.first_day, wanted.end_day)]
    else:
        column = "d.hour_at" if wanted.by is ExportBy.HOUR else "d.to_at"
        conditions = [_condition(f"{column} >= {{}} and {column} < {{}}", wanted.start, wanted.end)]
    if wanted.subscriber_id is not None:
        conditions.append(
            _condition(
                "d.account_id = any(array(select id from account where subscriber_id = {}))", wanted.subscriber_id
            )
        )
    if wanted.nas_id is not None:
        conditions.append(
            _condition("exists (select from session_all o where o.id = d.session_id and o.nas_id = {})", wanted.nas_id)
        )
    return sql.SQL(" and ").join(conditions)


def _condition(text: str, *values: Any) -> sql.Composable:
    return sql.SQL(text).format(*map(sql.Literal, values))
