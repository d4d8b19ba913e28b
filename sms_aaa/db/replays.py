"""What a record left behind when it was settled: asked for by its place before it is settled again.

A place is looked for among the deltas of the sessions that the record may belong to: there is no index on places, since
nobody else asks by them, and a session's own deltas are few.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from psycopg import sql

from sms_aaa.rules.session import Life, Place, State

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sms_aaa.db.engine import Connection
    from sms_aaa.db.sessions import SessionKey

_PLACE = ("reading_node", "reading_sequence", "reading_offset")
_FIELDS = tuple(name for name in Life.__struct_fields__ if name != "reading_place")
_COLUMNS = sql.SQL(", ").join(sql.Identifier("s", name) for name in ("id", *_FIELDS, *_PLACE))


class StoredLife(NamedTuple):
    """A life as it is stored, among the sessions or in the history."""

    session_id: int
    life: Life


def list_lives(connection: Connection, keys: Sequence[SessionKey]) -> dict[SessionKey, list[StoredLife]]:
    """Every life of these sessions, of the history too; not locked."""
    nas_ids, nas_keys, session_ids = zip(*keys, strict=True) if keys else ((), (), ())
    query = sql.SQL(
        """select s.nas_id, s.nas_key, s.acct_session_id, {}
           from unnest(%s::int[], %s::text[], %s::text[]) k(nas_id, nas_key, name)
           join session_all s on s.acct_session_id = k.name and s.nas_id = k.nas_id and s.nas_key = k.nas_key"""
    ).format(_COLUMNS)
    lives: dict[SessionKey, list[StoredLife]] = {key: [] for key in keys}
    for row in connection.execute(query, (list(nas_ids), list(nas_keys), list(session_ids))):
        values = dict(zip(_FIELDS, row[4:], strict=False))
        values["state"] = State(values["state"])
        lives[row[0], row[1], row[2]].append(StoredLife(row[3], Life(**values, reading_place=Place(*row[-3:]))))
    return lives


def list_known_offsets(
    connection: Connection, session_ids: Sequence[int], node: str, sequence: int, offsets: Sequence[int]
) -> set[int]:
    """Those of the offsets in a file at which a delta of these sessions begins or ends, or anything was kept."""
    rows = connection.execute(
        """select after_offset from usage_delta
           where session_id = any(%(ids)s) and after_node = %(node)s and after_sequence = %(sequence)s
             and after_offset = any(%(offsets)s)
           union select before_offset from usage_delta
           where session_id = any(%(ids)s) and before_node = %(node)s and before_sequence = %(sequence)s
             and before_offset = any(%(offsets)s)
           union select record_offset from late_reading
           where session_id = any(%(ids)s) and node = %(node)s and sequence = %(sequence)s
             and record_offset = any(%(offsets)s)
           union select record_offset from anomaly
           where session_id = any(%(ids)s) and node = %(node)s and sequence = %(sequence)s
             and record_offset = any(%(offsets)s)""",
        {"ids": list(session_ids), "node": node, "sequence": sequence, "offsets": list(offsets)},
    )
    return {int(row[0]) for row in rows}


def list_sessions_of_other_clocks(connection: Connection, session_ids: Sequence[int]) -> set[int]:
    """Those of the sessions whose NAS set its clock while they ran: their records' times do not lie together."""
    rows = connection.execute(
        "select session_id from anomaly where session_id = any(%s) and kind = 'nas-clock'", (list(session_ids),)
    )
    return {int(row[0]) for row in rows}


class Added(NamedTuple):
    sessions: int
    octets_in: int
    octets_out: int


def sum_added(
    connection: Connection, session_ids: Sequence[int], node: str, sequence: int, offsets: Sequence[int]
) -> Added:
    """What the deltas that end at these places hold."""
    row = connection.execute(
        """select count(distinct session_id), coalesce(sum(octets_in), 0), coalesce(sum(octets_out), 0)
           from usage_delta where session_id = any(%s) and after_node = %s and after_sequence = %s
             and after_offset = any(%s)""",
        (list(session_ids), node, sequence, list(offsets)),
    ).fetchone()
    assert row is not None
    return Added(int(row[0]), int(row[1]), int(row[2]))
