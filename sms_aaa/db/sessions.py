"""Sessions: locked and loaded a batch at a time, stored by COPY and one merge."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from psycopg import sql

from sms_aaa.rules.session import HEARD_SECONDS_MIN, Life, Place, State

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sms_aaa.db.engine import Connection

assert int(State.OPEN) == 1, "the statements below say 1: the indexes of open sessions are found by the very constant"

SessionKey = tuple[int, str, str]
"""(nas id, NAS key, Acct-Session-Id): what a NAS calls a session."""


class SessionFacts(Struct, frozen=True, gc=False, kw_only=True):
    """What a session's records say of it beside its usage: identifiers exactly as the NAS sent them."""

    username: str
    token: bytes | None
    framed_ip: str | None
    framed_ipv6_prefix: str | None
    delegated_ipv6_prefix: str | None
    framed_ipv6_address: str | None
    nas_ip: str | None
    nas_identifier: str | None
    nas_port: int | None
    nas_port_id: str | None
    nas_port_type: int | None
    calling_station_id: str | None
    called_station_id: str | None
    framed_interface_id: str | None = None
    acct_multi_session_id: str | None = None
    acct_link_count: int | None = None
    acct_authentic: int | None = None
    service_type: int | None = None
    framed_protocol: int | None = None
    connect_info: str | None = None
    circuit_id: str | None = None
    remote_id: str | None = None
    vendor_attributes: str | None = None
    """A JSON object: name -> text, or texts."""
    addressed_at: datetime | None = None
    """Since when it has these addresses; None: since its start. What it had before is in session_address."""


class StoredSession(Struct, frozen=True, gc=False, kw_only=True):
    """One life of a session as it is stored; `service_id` None: excluded by name."""

    id: int
    key: SessionKey
    life: Life
    facts: SessionFacts
    service_id: int | None
    account_id: int | None
    excluded: str | None
    fingerprint: int | None = None
    """Heard.fingerprint of the newest record, for who keeps sessions in memory; it is not stored."""


class EndedSession(Struct, frozen=True, gc=False):
    """A session that was ended for its NAS; `service_id` None: excluded by name; `token` None: it had no Class."""

    id: int
    service_id: int | None
    token: bytes | None
    acct_session_id: str


_FACTS = tuple(field for field in SessionFacts.__struct_fields__)
_COLUMNS = (
    "id", "nas_id", "nas_key", "acct_session_id", "life", "state", "service_id", "account_id", "excluded",
    "started_at", "updated_at", "stopped_at", "seconds", "octets_in", "octets_out", "reading_at", "reading_seconds",
    "reading_in", "reading_out", "reading_gigawords", "reading_node", "reading_sequence", "reading_offset", "run",
    "deltas", "terminate_cause", "estimated", "received_at", *_FACTS,
)  # fmt: skip
_ADDRESSES = {"framed_ip", "framed_ipv6_address", "nas_ip"}
_PREFIXES = {"framed_ipv6_prefix", "delegated_ipv6_prefix"}

# COPY goes as text here: an address is text on both sides, and only an object of its own has the binary form.
_NAMES = sql.SQL(", ").join(map(sql.Identifier, _COLUMNS))
# host() and ::text: addresses are handed around as text, exactly as PostgreSQL prints them.
_SELECT = sql.SQL(", ").join(
    sql.SQL("host({})").format(sql.Identifier(name)) if name in _ADDRESSES else
    sql.SQL("{}::text").format(sql.Identifier(name)) if name in _PREFIXES else
    sql.Identifier(name)
    for name in _COLUMNS
)  # fmt: skip


def lock_sessions(connection: Connection, keys: Sequence[SessionKey]) -> list[StoredSession]:
    """Every life of these sessions, locked in the order of their ids, so that two batches never wait in a circle."""
    nas_ids, nas_keys, session_ids = zip(*keys, strict=True) if keys else ((), (), ())
    query = sql.SQL(
        """select {} from session where (nas_id, nas_key, acct_session_id) in
             (select * from unnest(%s::int[], %s::text[], %s::text[])) order by id for update"""
    ).format(_SELECT)
    cursor = connection.cursor(binary=True)
    return [_stored(row) for row in cursor.execute(query, (list(nas_ids), list(nas_keys), list(session_ids)))]


def reserve_ids(connection: Connection, count: int) -> list[int]:
    """Ids for sessions that are about to be stored."""
    rows = connection.execute(
        "select nextval(pg_get_serial_sequence('session', 'id')) from generate_series(1, %s)", (count,)
    )
    return [int(row[0]) for row in rows.fetchall()]


def insert_sessions(connection: Connection, sessions: Iterable[StoredSession]) -> None:
    """New sessions. UniqueViolation when another node stored the same life meanwhile: try the batch again."""
    with connection.cursor().copy(sql.SQL("copy session ({}) from stdin").format(_NAMES)) as copy:
        for session in sessions:
            copy.write_row(_row(session))


def update_sessions(connection: Connection, sessions: Iterable[StoredSession]) -> None:
    """Sessions that are locked: COPY beside them, one UPDATE."""
    cursor = connection.cursor()
    cursor.execute("create temporary table if not exists session_change (like session including defaults)")
    cursor.execute("truncate session_change")  # there may be several batches in one transaction
    with cursor.copy(sql.SQL("copy session_change ({}) from stdin").format(_NAMES)) as copy:
        for session in sessions:
            copy.write_row(_row(session))
    changed = [name for name in _COLUMNS if name not in {"id", "nas_id", "nas_key", "acct_session_id", "life"}]
    assignments = sql.SQL(", ").join(sql.SQL("{0} = c.{0}").format(sql.Identifier(name)) for name in changed)
    cursor.execute(
        sql.SQL("update session s set {}, version = s.version + 1 from session_change c where c.id = s.id").format(
            assignments
        )
    )


def close_rebooted(connection: Connection, nas_id: int, nas_key: str, before: datetime) -> list[EndedSession]:
    """Accounting-On or -Off: ends this NAS's sessions that started before it, at their last known update."""
    rows = connection.execute(
        """update session set state = %s, stopped_at = updated_at, estimated = true
           where nas_id = %s and nas_key = %s and state = 1 and started_at < %s
           returning id, service_id, token, acct_session_id""",
        (int(State.LAPSED), nas_id, nas_key, before),
    ).fetchall()
    return [EndedSession(*row) for row in rows]


def close_stale(connection: Connection, *, now: datetime, multiple: int, limit: int) -> list[EndedSession]:
    """Ends softly the sessions from which nothing was *received* for a multiple of their plan's interim interval.

    As rules.session.silence_seconds has it; nothing younger than its least is looked at, by the index of open sessions.
    """
    rows = connection.execute(
        """update session s set state = %(lapsed)s, stopped_at = updated_at, estimated = true
           where id in (
             select s.id from session s
             left join subscription u on u.service_id = s.service_id and u.during @> %(now)s
             left join plan_version v on v.id = u.plan_version_id
             where s.state = 1 and s.received_at < %(now)s - %(multiple)s * make_interval(secs => %(least)s)
               and s.received_at < %(now)s - %(multiple)s * make_interval(
                 secs => greatest(coalesce((v.document->'policy'->>'interim_seconds')::int, 0), %(least)s))
             order by s.id limit %(limit)s for update of s skip locked)
           returning id, service_id, token, acct_session_id""",
        {
            "lapsed": int(State.LAPSED),
            "now": now,
            "multiple": multiple,
            "least": HEARD_SECONDS_MIN,
            "limit": limit,
        },
    ).fetchall()
    return [EndedSession(*row) for row in rows]


def list_held(connection: Connection, logins: Sequence[tuple[int, bytes]]) -> set[bytes]:
    """Tokens of these (service id, token) that an open session still stands under: several may share one Class."""
    rows = connection.execute(
        """select s.token from unnest(%s::bigint[], %s::bytea[]) l(service_id, token)
           join session s on s.service_id = l.service_id and s.token = l.token where s.state = 1""",
        ([service_id for service_id, _ in logins], [token for _, token in logins]),
    ).fetchall()
    return {bytes(row[0]) for row in rows}


def _row(session: StoredSession) -> tuple[Any, ...]:
    life, place = session.life, session.life.reading_place
    facts = session.facts
    return (
        session.id, *session.key, life.life, int(life.state), session.service_id, session.account_id,
        session.excluded, life.started_at, life.updated_at, life.stopped_at, life.seconds, life.octets_in,
        life.octets_out, life.reading_at, life.reading_seconds, life.reading_in, life.reading_out,
        life.reading_gigawords, place.node, place.sequence, place.offset, life.run, life.deltas,
        life.terminate_cause, life.estimated, life.received_at, *[getattr(facts, name) for name in _FACTS],
    )  # fmt: skip


def _stored(row: Sequence[Any]) -> StoredSession:
    values = dict(zip(_COLUMNS, row, strict=True))
    place = Place(values["reading_node"], values["reading_sequence"], values["reading_offset"])
    shared = {name: values[name] for name in Life.__struct_fields__ if name not in {"state", "reading_place"}}
    return StoredSession(
        id=values["id"],
        key=(values["nas_id"], values["nas_key"], values["acct_session_id"]),
        life=Life(state=State(values["state"]), reading_place=place, **shared),
        facts=SessionFacts(**{name: values[name] for name in _FACTS}),
        service_id=values["service_id"],
        account_id=values["account_id"],
        excluded=values["excluded"],
    )
