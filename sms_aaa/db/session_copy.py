"""Sessions into PostgreSQL, a batch at a time: new ones by COPY, changes by COPY beside them and one UPDATE.

What a record changes nearly always is the life; what is known beside it changes once or twice in a session's time. So
there are two such tables and two statements, and the usual one touches no column that an index has: PostgreSQL then
writes the row's new version into the same page (HOT), and no index grows by it.
"""

from __future__ import annotations

from struct import Struct as Packer
from struct import pack
from typing import TYPE_CHECKING, Any

from msgspec.structs import astuple
from psycopg import sql

from sms_aaa.db.binary import NULL_FIELD, WIRE_TYPES, cidr, copy_rows, inet, node_field, optional_us
from sms_aaa.db.sessions import SessionFacts, StoredSession
from sms_aaa.rules.instants import instant_us

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
_STEP = {
    "id": "int8", "state": "int2", "started_at": "timestamptz", "updated_at": "timestamptz", "seconds": "int8",
    "octets_in": "int8", "octets_out": "int8", "reading_at": "timestamptz", "reading_seconds": "int8",
    "reading_in": "int8", "reading_out": "int8", "reading_gigawords": "bool", "reading_sequence": "int8",
    "reading_offset": "int8", "run": "int4", "deltas": "int4", "estimated": "bool", "received_at": "timestamptz",
    "version": "int4", "stopped_at": "timestamptz", "begun_at": "timestamptz", "terminate_cause": "int8",
    "reading_node": "text",
}  # fmt: skip
_STEP_ROW = Packer(">hiqihiqiqiqiqiqiqiqiqiqi?iqiqiiiii?iqii")
"""Those that are never null and have one length, each with that before it."""

assert _STEP.keys() == _LIFE.keys() | {"id"}
_KNOWN = {"id": "int8"} | _OWNER | _FACTS


def _copy_into(table: str, columns: Mapping[str, str]) -> sql.Composed:
    names = sql.SQL(", ").join(map(sql.Identifier, columns))
    return sql.SQL("copy {} ({}) from stdin (format binary)").format(sql.Identifier(table), names)


class _Stage:
    """A temporary table beside `session`: rows with an id and new values of some columns."""

    def __init__(self, table: str, columns: Mapping[str, str]) -> None:
        name = sql.Identifier(table)
        types = sql.SQL(", ").join(sql.SQL("{} {}").format(sql.Identifier(c), sql.SQL(t)) for c, t in columns.items())
        values = sql.SQL(", ").join(sql.SQL("{0} = c.{0}").format(sql.Identifier(c)) for c in columns if c != "id")
        self._make = sql.SQL("create temporary table if not exists {} ({}) on commit delete rows").format(name, types)
        self._empty = sql.SQL("delete from {}").format(name)
        self._apply = sql.SQL("update session s set {} from {} c where c.id = s.id").format(values, name)
        self.copy = _copy_into(table, columns)

    def prepare(self, connection: Connection) -> None:
        connection.execute(self._make)
        connection.execute(self._empty)  # there may be several batches in one transaction

    def apply(self, connection: Connection) -> None:
        connection.execute(self._apply, prepare=False)  # a plan of its own: by how many rows there are


_COPY_NEW = _copy_into("session", _NEW)
_STEPPED = _Stage("session_step", _STEP)
_FOUND_OUT = _Stage("session_known", _KNOWN)


def insert_sessions(connection: Connection, sessions: Collection[StoredSession]) -> None:
    """New sessions. UniqueViolation when another node stored the same life meanwhile: try the batch again.

    In the order of their keys: two nodes that store the same ones wait for each other, and never in a circle.
    """
    ordered = sorted(sessions, key=lambda session: (session.key, session.life.life))
    rows = (
        (session.id, *session.key, session.life.life, *_owner(session), *_life(session), *_facts(session))
        for session in ordered
    )
    _copy_values(connection, _COPY_NEW, _NEW, rows)


def update_sessions(
    connection: Connection, stepped: Collection[StoredSession], known: Collection[StoredSession]
) -> None:
    """Sessions that are locked: the lives of `stepped`, of which `known` also have other facts or another owner."""
    _STEPPED.prepare(connection)
    copy_rows(connection, _STEPPED.copy, map(_step_row, stepped))
    _STEPPED.apply(connection)
    if known:
        _FOUND_OUT.prepare(connection)
        rows = ((session.id, *_owner(session), *_facts(session)) for session in known)
        _copy_values(connection, _FOUND_OUT.copy, _KNOWN, rows)
        _FOUND_OUT.apply(connection)


def _copy_values(
    connection: Connection, statement: sql.Composed, columns: Mapping[str, str], rows: Iterable[Sequence[Any]]
) -> None:
    with connection.cursor().copy(statement) as copy:
        copy.set_types([WIRE_TYPES.get(kind, kind) for kind in columns.values()])
        for row in rows:
            copy.write_row(row)


def _step_row(session: StoredSession) -> bytes:
    """Packed here: of all rows this is the one that there are most of."""
    life, place = session.life, session.life.reading_place
    return (
        _STEP_ROW.pack(
            len(_STEP), 8, session.id, 2, life.state, 8, instant_us(life.started_at), 8, instant_us(life.updated_at),
            8, life.seconds, 8, life.octets_in, 8, life.octets_out, 8, instant_us(life.reading_at),
            8, life.reading_seconds, 8, life.reading_in, 8, life.reading_out, 1, life.reading_gigawords,
            8, place.sequence, 8, place.offset, 4, life.run, 4, life.deltas, 1, life.estimated,
            8, instant_us(life.received_at), 4, session.version,
        )
        + (NULL_FIELD if life.stopped_at is None else pack(">iq", 8, instant_us(life.stopped_at)))
        + (NULL_FIELD if life.begun_at is None else pack(">iq", 8, instant_us(life.begun_at)))
        + (NULL_FIELD if life.terminate_cause is None else pack(">iq", 8, life.terminate_cause))
        + node_field(place.node)
    )  # fmt: skip


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
