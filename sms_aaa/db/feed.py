"""The change feed: which NASes, plans, realms and services changed since a node last looked.

The cursor is the `pg_snapshot` of the last look. A row is new when it was not visible in it: so a transaction that
began early and committed late is not missed (tailing by id misses it), and no open transaction anywhere holds the
feed up (tailing below the oldest does).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg import sql

if TYPE_CHECKING:
    from sms_aaa.db.engine import Connection

CHANNEL = "sms_aaa_feed"
RETENTION_DAYS = 7
NEWS_MAX = 10_000


@dataclass(frozen=True, slots=True)
class Changes:
    """Ids of what changed, and the cursor for the next look. The ids may repeat what was seen; never miss."""

    services: list[int]
    nas: list[int]
    plans: list[int]
    realms: list[int]
    cursor: str


def get_database_id(connection: Connection) -> bytes:
    """16 octets that name this database (J8)."""
    row = connection.execute("select database_id from installation").fetchone()
    assert row is not None
    return bytes(row[0].bytes)


def get_cursor(connection: Connection) -> str:
    """`cluster timeline snapshot`: a snapshot means something in the history that it was taken in, and nowhere else."""
    row = connection.execute(sql.SQL("select {} || ' ' || pg_current_snapshot()::text").format(_HISTORY)).fetchone()
    assert row is not None
    return str(row[0])


_HISTORY = sql.SQL("(select system_identifier || '.' || timeline_id from pg_control_system(), pg_control_checkpoint())")
NEW = sql.SQL("""xid >= pg_snapshot_xmin(%(snapshot)s::pg_snapshot)
    and not pg_visible_in_snapshot(xid, %(snapshot)s::pg_snapshot)
    and xid < pg_snapshot_xmax(pg_current_snapshot())""")
"""Rows that a cursor has not seen. (Rows with numbers that are still to come were restored from another cluster.)"""


def snapshot_of(cursor: str) -> str:
    """The parameter `snapshot` of NEW."""
    return cursor.rpartition(" ")[2]


def list_changes(connection: Connection, cursor: str, *, services_max: int) -> Changes:
    """What is visible to this transaction and was not in `cursor`. To be called first in a REPEATABLE READ one.

    Of the services `services_max` at most, any of them: who gets so many does not know them all.
    """
    rows = connection.execute(
        sql.SQL(
            """select distinct kind, object_id from feed where {new} and kind <> 'service'
               union all
               (select distinct kind, object_id from feed where {new} and kind = 'service' limit %(services_max)s)"""
        ).format(new=NEW),
        {"snapshot": snapshot_of(cursor), "services_max": services_max},
    ).fetchall()
    by_kind: dict[str, list[int]] = {"service": [], "nas": [], "plan": [], "realm": []}
    for kind, object_id in rows:
        by_kind[kind].append(int(object_id))
    return Changes(by_kind["service"], by_kind["nas"], by_kind["plan"], by_kind["realm"], get_cursor(connection))


@dataclass(frozen=True, slots=True)
class News:
    """Which services changed since a snapshot. `is_much`: so many, or plans or realms too: forget everything.

    `snapshot` is for the next look, `second` the server's clock in epoch seconds.
    """

    snapshot: str
    second: int
    services: list[int]
    is_much: bool


def list_news(connection: Connection, snapshot: str | None) -> News:
    """For who remembers services over a connection's life; None: for the first time.

    It is one statement, so that what is committed while it runs is in the next answer, whatever the isolation.
    """
    row = connection.execute(
        sql.SQL(
            """select pg_current_snapshot()::text, extract(epoch from clock_timestamp())::bigint,
                      array(select distinct object_id from feed where {new} and kind = 'service' limit %(most)s),
                      exists (select from feed where {new} and kind in ('plan', 'realm'))"""
        ).format(new=NEW)
        if snapshot is not None
        else "select pg_current_snapshot()::text, extract(epoch from clock_timestamp())::bigint, '{}'::bigint[], true",
        {"snapshot": snapshot, "most": NEWS_MAX + 1},
    ).fetchone()
    assert row is not None
    return News(row[0], row[1], row[2], is_much=row[3] or len(row[2]) > NEWS_MAX)


def count_changes(connection: Connection, cursor: str) -> int:
    """How many things changed since `cursor`."""
    row = connection.execute(
        sql.SQL("select count(distinct (kind, object_id)) from feed where {}").format(NEW),
        {"snapshot": snapshot_of(cursor)},
    ).fetchone()
    return int(row[0]) if row else 0


def covers(connection: Connection, cursor: str, *, table: str = "feed") -> bool:
    """Whether the feed, or another table that is kept likewise, still has everything since `cursor`.

    Not after its retention, nor in another history: a restored copy, a server gone back in time, a promoted standby.
    """
    history, _, snapshot = cursor.rpartition(" ")
    row = connection.execute(
        sql.SQL(
            """select {} = %(history)s
                  and coalesce((select xid from {} where xid < pg_snapshot_xmax(pg_current_snapshot())
                                order by xid limit 1), pg_snapshot_xmax(%(snapshot)s::pg_snapshot))
                      <= pg_snapshot_xmax(%(snapshot)s::pg_snapshot)
                  and pg_snapshot_xmax(%(snapshot)s::pg_snapshot) <= pg_snapshot_xmax(pg_current_snapshot())"""
        ).format(_HISTORY, sql.Identifier(table)),
        {"history": history, "snapshot": snapshot},
    ).fetchone()
    return bool(row and row[0])


def delete_old(connection: Connection) -> None:
    """The newest row stays, whatever its age: `covers` leans on it."""
    connection.execute(
        "delete from feed where at < now() - make_interval(days => %s) and id < (select max(id) from feed)",
        (RETENTION_DAYS,),
    )
