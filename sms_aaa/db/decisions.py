"""Decisions: each Access answer with its reason, as the settler brought it from a node's journal."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from msgspec import Struct
from psycopg import sql
from psycopg.rows import class_row

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sms_aaa.db.engine import Connection


class DecisionRow(Struct, frozen=True, gc=False, kw_only=True):
    """`reason` and `method` are codes: rules/reasons.py and radius/credentials.py have the words.

    A decision is named by node, sequence and offset of its journal record, and its place (`item`) in that.
    """

    at: datetime
    node: str
    sequence: int
    record_offset: int
    item: int
    nas_id: int
    service_id: int | None
    plan_version_id: int | None
    reason: int
    method: int
    username: str
    calling_station_id: str
    nas_port: str
    token: bytes | None
    sessions_seen: int
    sessions_max: int
    duration_us: int
    saw: str


_TYPES = (
    "timestamptz", "text", "int8", "int8", "int2", "int4", "int8", "int4", "int2", "int2", "text", "text", "text",
    "bytea", "int4", "int4", "int4", "text",
)  # fmt: skip
_LIST = """at, node, sequence, record_offset, item, nas_id, service_id, plan_version_id, reason, method, username,
    calling_station_id, nas_port, token, sessions_seen, sessions_max, duration_us, saw"""
_COLUMNS = sql.SQL(_LIST)


def insert_decisions(connection: Connection, rows: Iterable[tuple[object, ...]]) -> None:
    """`rows`: the fields of a DecisionRow, in their order; plain tuples, since this is done for every login."""
    with connection.cursor().copy(f"copy decision ({_LIST}) from stdin (format binary)") as copy:
        copy.set_types(_TYPES)
        for row in rows:
            copy.write_row(row)


def list_decisions(connection: Connection, username: str, *, limit: int) -> list[DecisionRow]:
    """The last decisions about a user name or device, the newest first."""
    with connection.cursor(row_factory=class_row(DecisionRow)) as cursor:
        return cursor.execute(
            sql.SQL("select {} from decision where username = %s order by at desc limit %s").format(_COLUMNS),
            (username, limit),
        ).fetchall()


def list_spelled_decisions(connection: Connection, service_id: int, *, limit: int) -> list[DecisionRow]:
    r"""The last decisions about a service under REALM\user or user@REALM, the newest first.

    Those are the service's although nobody can guess how they were written. (The condition is that of the index, which
    has no row for a name in the usual spelling: a second index on every login would double what it costs to store.)
    """
    query = """select {} from decision where service_id = %s and username ~ '\\\\|@.*[A-Z]'
               order by at desc limit %s"""
    with connection.cursor(row_factory=class_row(DecisionRow)) as cursor:
        return cursor.execute(sql.SQL(query).format(_COLUMNS), (service_id, limit)).fetchall()


def list_device_decisions(
    connection: Connection, calling_station_ids: list[str], *, since: datetime, limit: int
) -> list[DecisionRow]:
    """The last decisions about a device under whatever user name, the newest first; `since` bounds the search."""
    query = """select {} from decision where at >= %s and calling_station_id = any(%s) order by at desc limit %s"""
    with connection.cursor(row_factory=class_row(DecisionRow)) as cursor:
        return cursor.execute(sql.SQL(query).format(_COLUMNS), (since, calling_station_ids, limit)).fetchall()


def list_refusals(
    connection: Connection,
    *,
    since: datetime,
    nas_id: int | None,
    username: str | None,
    calling_station_ids: list[str] | None,
    reasons: list[int] | None,
    limit: int,
) -> list[DecisionRow]:
    """The last refusals, the newest first; None: whatever it is. The index of refusals brings them in this order."""
    query = """select {} from decision
               where reason <> 0 and at >= %(since)s
                 and (%(nas_id)s::int is null or nas_id = %(nas_id)s)
                 and (%(username)s::text is null or username = %(username)s)
                 and (%(stations)s::text[] is null or calling_station_id = any(%(stations)s))
                 and (%(reasons)s::int[] is null or reason = any(%(reasons)s))
               order by at desc limit %(limit)s"""
    values = {
        "since": since,
        "nas_id": nas_id,
        "username": username,
        "stations": calling_station_ids,
        "reasons": reasons,
        "limit": limit,
    }
    with connection.cursor(row_factory=class_row(DecisionRow)) as cursor:
        return cursor.execute(sql.SQL(query).format(_COLUMNS), values).fetchall()
