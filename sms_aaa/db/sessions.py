"""Sessions: found and locked a batch at a time, ended for their NASes. session_copy.py stores them."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from psycopg import sql

from sms_aaa.rules.session import HEARD_SECONDS_MIN, Life, Place, State

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

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
    version: int = 1
    """What the row's is; counted up with each change, so that who remembers the session sees that it changed."""
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
    "deltas", "terminate_cause", "estimated", "received_at", "begun_at", "version", *_FACTS,
)  # fmt: skip
_ADDRESSES = {"framed_ip", "framed_ipv6_address", "nas_ip"}
_PREFIXES = {"framed_ipv6_prefix", "delegated_ipv6_prefix"}

# host() and ::text: addresses are handed around as text, exactly as PostgreSQL prints them.
_SELECT = sql.SQL(", ").join(
    sql.SQL("host(s.{})").format(sql.Identifier(name)) if name in _ADDRESSES else
    sql.SQL("s.{}::text").format(sql.Identifier(name)) if name in _PREFIXES else
    sql.SQL("s.{}").format(sql.Identifier(name))
    for name in _COLUMNS
)  # fmt: skip


def prefer_indexes(connection: Connection) -> None:
    """For the rest of this transaction: a batch knows the keys of all that it wants.

    A plan that reads a whole table looks good while the table is small or not yet analysed, and is kept while it grows.
    """
    connection.execute("set local enable_seqscan = off")


def find_sessions(connection: Connection, keys: Collection[SessionKey]) -> list[StoredSession]:
    """Every life of these sessions, as it is now; who wants to change one locks it and looks at its version."""
    nas_ids, nas_keys, session_ids = zip(*keys, strict=True) if keys else ((), (), ())
    query = sql.SQL(
        """select {} from unnest(%s::int[], %s::text[], %s::text[]) k(nas_id, nas_key, acct_session_id)
           join session s using (nas_id, nas_key, acct_session_id)"""
    ).format(_SELECT)
    cursor = connection.cursor(binary=True)
    cursor.execute(query, (array_of(nas_ids), list(nas_keys), list(session_ids)))
    return [_stored(row) for row in cursor]


def lock_sessions(connection: Connection, ids: Collection[int]) -> dict[int, int]:
    """Locks sessions, in the order of their ids, so that two batches never wait in a circle: the version of each.

    One that is not among them is no longer there.
    """
    rows = connection.cursor(binary=True).execute(
        """select s.id, s.version from unnest(%s::bigint[]) k(id) join session s on s.id = k.id
           order by s.id for no key update of s""",
        (array_of(ids),),
    )
    return dict(rows)


def array_of(numbers: Iterable[int]) -> str:
    """An array of integers as a parameter; psycopg takes four times as long for a list of them."""
    return "{" + ",".join(map(str, numbers)) + "}"


def reserve_ids(connection: Connection, count: int) -> list[int]:
    """Ids for sessions that are about to be stored."""
    rows = connection.execute(
        "select nextval(pg_get_serial_sequence('session', 'id')) from generate_series(1, %s)", (count,)
    )
    return [int(row[0]) for row in rows.fetchall()]


def list_running(connection: Connection, nas_id: int, nas_key: str, before: datetime) -> list[int]:
    """Ids of the NAS's open sessions that started before an instant: those that its reboot ended."""
    rows = connection.execute(
        "select id from session where nas_id = %s and nas_key = %s and state = 1 and started_at < %s",
        (nas_id, nas_key, before),
    ).fetchall()
    return [int(row[0]) for row in rows]


def close_rebooted(connection: Connection, ids: Collection[int], before: datetime) -> list[EndedSession]:
    """Accounting-On or -Off: of these sessions, which are locked, ends the open ones at their last known update."""
    rows = connection.execute(
        """update session s set state = %s, stopped_at = updated_at, estimated = true, version = version + 1
           from unnest(%s::bigint[]) k(id) where s.id = k.id and s.state = 1 and s.started_at < %s
           returning s.id, s.service_id, s.token, s.acct_session_id""",
        (int(State.LAPSED), array_of(ids), before),
    ).fetchall()
    return [EndedSession(*row) for row in rows]


def close_stale(connection: Connection, *, now: datetime, multiple: int, limit: int) -> list[EndedSession]:
    """Ends softly the sessions from which nothing was *received* for a multiple of their plan's interim interval.

    As rules.session.silence_seconds has it. This reads all open sessions: an index by receive time would cost every
    interim an entry in it, and so in all others.
    """
    rows = connection.execute(
        """update session s set state = %(lapsed)s, stopped_at = updated_at, estimated = true, version = version + 1
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
        version=values["version"],
    )
