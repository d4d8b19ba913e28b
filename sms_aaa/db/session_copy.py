"""Sessions into PostgreSQL, a batch at a time: new ones by COPY, changes by COPY beside them and one UPDATE.

What a record changes nearly always is the life; what is known beside it changes once or twice in a session's time. So
there are two such tables and two statements, and the usual one touches no column that an index has: PostgreSQL then
writes the row's new version into the same page (HOT), and no index grows by it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec.structs import astuple
from psycopg import sql

from sms_aaa.db.binary import WIRE_TYPES, cidr, inet, optional_us
from sms_aaa.db.sessions import SessionFacts, StoredSession

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from sms_aaa.db.engine import Connection

_KEY = {"id": "int8", "nas_id": "int4", "nas_key": "text", "acct_session_id": "text", "life": "int4"}
_OWNER = {"service_id": "int8", "account_id": "int8", "excluded": "text"}
_LIFE = {
    "state": "int2", "started_at": "timestamptz", "updated_at": "timestamptz", "stopped_at": "timestamptz",
    "seconds": "int8", "octets_in": "int8", "octets_out": "int8", "reading_at": "timestamptz",
    "reading_seconds": "int8", "reading_in": "int8", "reading_out": "int8", "reading_gigawords": "bool",
    "reading_node": "text", "reading_sequence": "int8", "reading_offset": "int8", "run": "int4", "deltas": "int4",
    "terminate_cause": "int8", "estimated": "bool", "received_at": "timestamptz", "begun_at": "timestamptz",
    "version": "int4",
}  # fmt: skip
_FACT_TYPES = {
    "token": "bytea", "framed_ip": "inet", "framed_ipv6_prefix": "cidr", "delegated_ipv6_prefix": "cidr",
    "framed_ipv6_address": "inet", "nas_ip": "inet", "nas_port": "int8", "nas_port_type": "int8",
    "acct_link_count": "int8", "acct_authentic": "int8", "service_type": "int8", "framed_protocol": "int8",
    "addressed_at": "timestamptz",
}  # fmt: skip
"""Of those facts that are not text."""

_FACTS = {name: _FACT_TYPES.get(name, "text") for name in SessionFacts.__struct_fields__}
_WAYS: dict[str, Callable[[Any], Any]] = {"timestamptz": optional_us, "inet": inet, "cidr": cidr}
_FACT_WAYS = [(at, _WAYS[kind]) for at, kind in enumerate(_FACTS.values()) if kind in _WAYS]

_NEW = _KEY | _OWNER | _LIFE | _FACTS
_STEP = {"id": "int8"} | _LIFE
_KNOWN = {"id": "int8"} | _OWNER | _FACTS


def insert_sessions(connection: Connection, sessions: Collection[StoredSession]) -> None:
    """New sessions. UniqueViolation when another node stored the same life meanwhile: try the batch again.

    In the order of their keys: two nodes that store the same ones wait for each other, and never in a circle.
    """
    ordered = sorted(sessions, key=lambda session: (session.key, session.life.life))
    rows = ((session.id, *session.key, session.life.life, *_owner(session), *_life(session), *_facts(session))
            for session in ordered)  # fmt: skip
    _copy(connection, "session", _NEW, rows)


def update_sessions(
    connection: Connection, stepped: Collection[StoredSession], known: Collection[StoredSession]
) -> None:
    """Sessions that are locked: the lives of `stepped`, of which `known` also have other facts or another owner."""
    _change(connection, "session_step", _STEP, ((session.id, *_life(session)) for session in stepped))
    if known:
        rows = ((session.id, *_owner(session), *_facts(session)) for session in known)
        _change(connection, "session_known", _KNOWN, rows)


def _change(connection: Connection, table: str, columns: Mapping[str, str], rows: Iterable[Sequence[Any]]) -> None:
    """Sets the columns of sessions to these rows, which begin with the id."""
    name = sql.Identifier(table)
    types = sql.SQL(", ").join(sql.SQL("{} {}").format(sql.Identifier(c), sql.SQL(t)) for c, t in columns.items())
    cursor = connection.cursor()
    cursor.execute(sql.SQL("create temporary table if not exists {} ({}) on commit delete rows").format(name, types))
    cursor.execute(sql.SQL("delete from {}").format(name))  # there may be several batches in one transaction
    _copy(connection, table, columns, rows)
    assignments = sql.SQL(", ").join(sql.SQL("{0} = c.{0}").format(sql.Identifier(c)) for c in columns if c != "id")
    # Planned each time: a plan that was made for an empty table reads all of it once it is full.
    cursor.execute(
        sql.SQL("update session s set {} from {} c where c.id = s.id").format(assignments, name),
        prepare=False,
    )


def _copy(connection: Connection, table: str, columns: Mapping[str, str], rows: Iterable[Sequence[Any]]) -> None:
    names = sql.SQL(", ").join(map(sql.Identifier, columns))
    statement = sql.SQL("copy {} ({}) from stdin (format binary)").format(sql.Identifier(table), names)
    with connection.cursor().copy(statement) as copy:
        copy.set_types([WIRE_TYPES.get(kind, kind) for kind in columns.values()])
        for row in rows:
            copy.write_row(row)


def _owner(session: StoredSession) -> tuple[Any, ...]:
    return session.service_id, session.account_id, session.excluded


def _life(session: StoredSession) -> tuple[Any, ...]:
    """In the order of _LIFE."""
    life, place = session.life, session.life.reading_place
    return (
        int(life.state), optional_us(life.started_at), optional_us(life.updated_at), optional_us(life.stopped_at),
        life.seconds, life.octets_in, life.octets_out, optional_us(life.reading_at), life.reading_seconds,
        life.reading_in, life.reading_out, life.reading_gigawords, place.node, place.sequence, place.offset, life.run,
        life.deltas, life.terminate_cause, life.estimated, optional_us(life.received_at),
        optional_us(life.begun_at), session.version,
    )  # fmt: skip


def _facts(session: StoredSession) -> list[Any]:
    """In the order of _FACTS."""
    values = list(astuple(session.facts))
    for at, way in _FACT_WAYS:
        values[at] = way(values[at])
    return values
