"""Partitions by month (UTC): made ahead, so that no row waits for one, and dropped whole when their time is over.

A partition is filled and indexed beside its table and then attached: that takes no lock that a writer or reader of
other months waits for, except for an instant on the default partition. That one is a net for rows of months that nobody
foresaw; `sweep` makes these months and moves the rows there. Whoever wants a lock here waits for it briefly and leaves
the rest for the next time, since behind one that waits everybody else would queue.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from psycopg import sql

from sms_aaa.db.engine import TimedOut

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from sms_aaa.db.engine import Connection


class Parted(NamedTuple):
    """A table by months of `column`; `room`: per cent of a page that inserts fill, the rest is for updates in place."""

    table: str
    column: str
    room: int = 100


PARTITIONED = (
    Parted("usage_delta", "to_at"),
    Parted("decision", "at"),
    Parted("rated_usage", "to_at"),
    Parted("session_history", "stopped_at"),
    Parted("usage_hour", "hour_at", room=80),
    Parted("usage_day", "day", room=80),
    Parted("port_block", "from_at"),
)
MONTHS_AHEAD = 2
MONTHS_BEHIND = 1
YEAR_MIN = 2000
"""Before it no row is of a month: it is of a clock that was never set."""

LOCK_MS = 200
_LOCK = 0x736D7370  # "smsp"


class Month(NamedTuple):
    year: int
    month: int

    @classmethod
    def of(cls, moment: datetime) -> Month:
        """`moment` in UTC."""
        return cls(moment.year, moment.month)

    def plus(self, months: int) -> Month:
        count = self.year * 12 + self.month - 1 + months
        return Month(count // 12, count % 12 + 1)

    def first_day(self) -> str:
        return f"{self.year:04d}-{self.month:02d}-01 00:00:00+00"

    def suffix(self) -> str:
        return f"{self.year:04d}{self.month:02d}"


def create_ahead(connection: Connection, now: datetime) -> int:
    """How many partitions had to be made, from the last month to two months ahead."""
    months = [Month.of(now).plus(count) for count in range(-MONTHS_BEHIND, MONTHS_AHEAD + 1)]
    wanted = [(parted, month) for parted in PARTITIONED for month in months]
    names = [f"{parted.table}_{month.suffix()}" for parted, month in wanted]
    there = connection.execute("select relname from pg_class where relname = any(%s)", (names,)).fetchall()
    existing = {str(row[0]) for row in there}
    missing = [one for one, name in zip(wanted, names, strict=True) if name not in existing]
    return sum(_create(connection, parted, month) for parted, month in missing)


def sweep(connection: Connection, now: datetime) -> list[str]:
    """Makes the months that rows in the default partitions are of, and moves them there; the partitions' names."""
    made = []
    last = Month.of(now).plus(MONTHS_AHEAD)
    for parted in PARTITIONED:
        rows = connection.execute(
            sql.SQL(
                """select distinct extract(year from at)::int, extract(month from at)::int
                   from (select {}::timestamptz at time zone 'UTC' as at from {}) d
                   where at >= make_timestamp(%s, 1, 1, 0, 0, 0) and at < make_timestamp(%s, %s, 1, 0, 0, 0)"""
            ).format(sql.Identifier(parted.column), sql.Identifier(f"{parted.table}_default")),
            (YEAR_MIN, *last.plus(1)),
        ).fetchall()
        for year, month in sorted(rows):
            if _create(connection, parted, Month(year, month)):
                made.append(f"{parted.table}_{Month(year, month).suffix()}")
    return made


def list_months(connection: Connection, table: str) -> list[Month]:
    """The months that a table has a partition for, the oldest first."""
    rows = connection.execute(
        """select right(c.relname, 6) from pg_inherits i join pg_class c on c.oid = i.inhrelid
           where i.inhparent = %s::regclass and c.relname ~ ('^' || %s || '_[0-9]{6}$') order by 1""",
        (table, table),
    ).fetchall()
    return [Month(int(row[0][:4]), int(row[0][4:])) for row in rows]


def drop(connection: Connection, table: str, month: Month) -> bool:
    """Drops a partition; False when somebody is at work in the table for longer than LOCK_MS."""
    with impatient(connection) as attempt:
        connection.execute(sql.SQL("drop table {}").format(sql.Identifier(f"{table}_{month.suffix()}")))
    return attempt.succeeded


def drop_decisions_before(connection: Connection, moment: datetime) -> list[str]:
    """Drops the decision partitions that end before `moment`; their names.

    A decision that fell into no month (a node's clock in 1970) goes by itself.
    """
    connection.execute("delete from decision_default where at < %s", (moment,))
    old = [month for month in list_months(connection, "decision") if month < Month.of(moment)]
    return [f"decision_{month.suffix()}" for month in old if drop(connection, "decision", month)]


class Attempt:
    """What became of statements that may be given up."""

    succeeded = False


@contextmanager
def impatient(connection: Connection) -> Iterator[Attempt]:
    """Statements that are taken back as a whole if one of them would wait for a lock longer than LOCK_MS.

    The caller's transaction has begun by then, and goes on.
    """
    attempt = Attempt()
    row = connection.execute("select current_setting('lock_timeout')").fetchone()
    assert row is not None
    try:
        with connection.transaction():
            connection.execute("select set_config('lock_timeout', %s, true)", (f"{LOCK_MS}ms",))
            yield attempt
            connection.execute("select set_config('lock_timeout', %s, true)", row)
        attempt.succeeded = True
    except TimedOut:
        pass


def _create(connection: Connection, parted: Parted, month: Month) -> bool:
    """False when it is there already, or when somebody else is in the way."""
    bounds = {"first": sql.Literal(month.first_day()), "end": sql.Literal(month.plus(1).first_day())}
    named = {
        "table": sql.Identifier(parted.table),
        "default": sql.Identifier(f"{parted.table}_default"),
        "name": sql.Identifier(f"{parted.table}_{month.suffix()}"),
        "column": sql.Identifier(parted.column),
        "room": sql.Literal(parted.room),
    }
    is_new = False
    with impatient(connection) as attempt:
        # Settlers and recorders of all nodes make them: the second waits, and finds it made.
        connection.execute("select pg_advisory_xact_lock(%s)", (_LOCK,))
        exists = connection.execute(
            "select to_regclass(%s) is not null", (f"{parted.table}_{month.suffix()}",)
        ).fetchone()
        is_new = not (exists and exists[0])
        for statement in _CREATE if is_new else ():
            connection.execute(sql.SQL(statement).format(**named, **bounds))
    return is_new and attempt.succeeded


_CREATE = (
    "lock table {default} in access exclusive mode",  # no row of the month may slip in behind the next but one
    "create table {name} (like {table} including defaults including constraints) with (fillfactor = {room})",
    """with moved as (delete from {default} where {column} >= {first} and {column} < {end} returning *)
       insert into {name} select * from moved""",
    "alter table {table} attach partition {name} for values from ({first}) to ({end})",
)
