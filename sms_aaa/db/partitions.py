"""Partitions by month: made ahead, so that no row waits for one. Old decisions go with their partition."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from psycopg import sql

if TYPE_CHECKING:
    from datetime import datetime

    from sms_aaa.db.engine import Connection

PARTITIONED = ("usage_delta", "decision", "rated_usage", "session_history", "usage_hour", "usage_day")
MONTHS_AHEAD = 2
MONTHS_BEHIND = 1
_LOCK = 0x736D7370  # "smsp"


class _Month(NamedTuple):
    year: int
    month: int

    def plus(self, months: int) -> _Month:
        count = self.year * 12 + self.month - 1 + months
        return _Month(count // 12, count % 12 + 1)

    def first_day(self) -> str:
        return f"{self.year:04d}-{self.month:02d}-01 00:00:00+00"


def create_ahead(connection: Connection, now: datetime) -> int:
    """How many partitions had to be made, from the last month to two months ahead (UTC)."""
    made = 0
    this = _Month(now.year, now.month)
    for table in PARTITIONED:
        for months in range(-MONTHS_BEHIND, MONTHS_AHEAD + 1):
            made += _create(connection, table, this.plus(months))
    return made


def _create(connection: Connection, table: str, month: _Month) -> bool:
    name = f"{table}_{month.year:04d}{month.month:02d}"
    exists = connection.execute("select to_regclass(%s) is not null", (name,)).fetchone()
    if exists and exists[0]:
        return False
    # Settler and recorder make them both: the second waits, and finds it made.
    connection.execute("select pg_advisory_xact_lock(%s)", (_LOCK,))
    connection.execute(
        sql.SQL("create table if not exists {} partition of {} for values from ({}) to ({})").format(
            sql.Identifier(name),
            sql.Identifier(table),
            sql.Literal(month.first_day()),
            sql.Literal(month.plus(1).first_day()),
        )
    )
    return True


def drop_decisions_before(connection: Connection, moment: datetime) -> list[str]:
    """Drops the decision partitions that end before `moment`; their names.

    A decision that fell into no month (a node's clock in 1970) goes by itself.
    """
    connection.execute("delete from decision_default where at < %s", (moment,))
    rows = connection.execute(
        "select c.relname from pg_inherits i join pg_class c on c.oid = i.inhrelid "
        "where i.inhparent = 'decision'::regclass and c.relname ~ '^decision_[0-9]{6}$'"
    ).fetchall()
    first_kept = f"decision_{moment.year:04d}{moment.month:02d}"
    dropped = sorted(str(row[0]) for row in rows if str(row[0]) < first_kept)
    for name in dropped:
        connection.execute(sql.SQL("drop table {}").format(sql.Identifier(name)))
    return dropped
