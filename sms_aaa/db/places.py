"""Places over all nodes: which sessions began, ended or moved, for other nodes' live sets; and strict limits.

The feed of changes is read like db/feed.py's, by snapshot: a transaction that commits late is not missed. A change
names its session and nothing else; whoever reads it looks at the session as it is by then.

A strict limit is kept here: who is online is in `session`, who was let in and has not started yet is in `place`, and
`claim_places` counts both under a lock of the service and adds the login, in one statement.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from msgspec import Struct
from psycopg import sql

from sms_aaa.db import feed as db_feed

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from sms_aaa.db.engine import Connection

RETENTION_MINUTES = 15
"""How long a change can be read. A node that heard nothing for longer looks at all open sessions instead."""

_FETCHED_AT_ONCE = 2_000


class LoginSession(Struct, frozen=True, gc=False):
    """A session whose login is ours, with what tells its device; `node` heard it last."""

    service_id: int
    token: bytes
    nas_id: int
    nas_port: int | None
    nas_port_id: str | None
    calling_station_id: str | None
    acct_session_id: str
    node: str
    is_open: bool


@dataclass(frozen=True, slots=True)
class Claim:
    """A login that wants a place; texts as radius.packet.as_text shows them, "" and 0 for what the request lacks."""

    service_id: int
    token: bytes
    nas_id: int
    station: str
    port_id: str
    port: int
    sessions_max: int
    replaces: bool


class Claimed(Struct, frozen=True, gc=False):
    """`seen`: how many others hold a place."""

    is_admitted: bool
    seen: int


_LOGIN = sql.SQL(
    """select s.service_id, s.token, s.nas_id, s.nas_port, s.nas_port_id, s.calling_station_id, s.acct_session_id,
              s.reading_node, s.state = 1
       from session s where s.service_id is not null and s.token is not null and {}"""
)


def tell_nodes(connection: Connection, session_ids: Collection[int]) -> None:
    """These sessions began, ended or are heard by another node now. Part of the transaction that makes it so."""
    if session_ids:
        connection.execute("insert into place_change (session_id) select unnest(%s::bigint[])", (list(session_ids),))


def list_open(connection: Connection) -> Iterator[LoginSession]:
    """All open sessions of logins, as they are fetched; the transaction must stay until the last."""
    with connection.cursor(name="open_places", binary=True) as cursor:
        cursor.itersize = _FETCHED_AT_ONCE
        for row in cursor.execute(_LOGIN.format(sql.SQL("s.state = 1"))):
            yield LoginSession(*row)


def list_changed(connection: Connection, cursor: str) -> list[LoginSession]:
    """The sessions that changed since `cursor` (db_feed.get_cursor), as they are now. In a REPEATABLE READ one."""
    changed = sql.SQL("s.id in (select session_id from place_change where {})").format(db_feed.NEW)
    rows = connection.cursor(binary=True).execute(_LOGIN.format(changed), {"snapshot": db_feed.snapshot_of(cursor)})
    return [LoginSession(*row) for row in rows]


def covers(connection: Connection, cursor: str) -> bool:
    """Whether the changes still reach back to `cursor`."""
    return db_feed.covers(connection, cursor, table="place_change")


def claim(connection: Connection, claims: Sequence[Claim], *, node: str, seconds: int) -> list[Claimed]:
    """Takes places, in the order of `claims`, for `seconds` or until a session of the login is settled.

    Needs a connection with the isolation level READ COMMITTED: a claim is to see what was committed while it waited.
    """
    rows = connection.execute(
        """select is_admitted, seen from claim_places(%s::bigint[], %s::bytea[], %s::int[], %s::text[], %s::text[],
             %s::bigint[], %s::int[], %s::boolean[], %s, %s) order by item""",
        (
            [claim.service_id for claim in claims],
            [claim.token for claim in claims],
            [claim.nas_id for claim in claims],
            [claim.station for claim in claims],
            [claim.port_id for claim in claims],
            [claim.port for claim in claims],
            [claim.sessions_max for claim in claims],
            [claim.replaces for claim in claims],
            node,
            seconds,
        ),
    )
    return [Claimed(*row) for row in rows]


def spend(connection: Connection, logins: Sequence[tuple[int, bytes]]) -> None:
    """A session of these (service id, token) was stored: it holds the place now, or held it.

    A row that somebody claims anew meanwhile is left to them: nobody waits here.
    """
    # Where no plan is strict the table is empty, and to look so costs nothing beside a join with every login.
    if not logins or connection.execute("select from place limit 1").fetchone() is None:
        return
    connection.execute(
        """delete from place where ctid = any(array(
             select p.ctid from unnest(%s::bigint[], %s::bytea[]) l(service_id, token)
             join place p on p.service_id = l.service_id and p.token = l.token for update of p skip locked))""",
        ([service_id for service_id, _ in logins], [token for _, token in logins]),
    )


def delete_old(connection: Connection) -> None:
    """Changes that are too old to be read (the newest stays: `covers` leans on it), places that ran out."""
    connection.execute(
        """delete from place_change where at < now() - make_interval(mins => %s)
             and xid < (select xid from place_change order by xid desc limit 1)""",
        (RETENTION_MINUTES,),
    )
    connection.execute(
        "delete from place where ctid = any(array(select ctid from place where until < now() for update skip locked))"
    )
