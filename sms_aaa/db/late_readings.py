"""The readings that a session was counted with: its deltas, and the late readings that are kept beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sms_aaa.rules.late import Known
from sms_aaa.rules.session import Delta, Place

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from sms_aaa.db.engine import Connection


def list_deltas_since(connection: Connection, since: Mapping[int, datetime]) -> dict[int, list[Delta]]:
    """By session id, the deltas that end at or after an instant, in the order of their numbers."""
    rows = connection.execute(
        """select d.session_id, seq, from_at, to_at, octets_in, octets_out, seconds, run, wrapped, before_in,
                  before_out, after_in, after_out, before_node, before_sequence, before_offset, after_node,
                  after_sequence, after_offset, late
           from unnest(%s::bigint[], %s::timestamptz[]) w(session_id, since)
           join usage_delta d on d.session_id = w.session_id and d.to_at >= w.since
           where d.to_at >= %s order by d.session_id, seq""",
        (list(since), list(since.values()), min(since.values())),  # by the least of them, months are passed over
    )
    found: dict[int, list[Delta]] = {session_id: [] for session_id in since}
    for row in rows:
        before = None if row[13] is None else Place(*row[13:16])
        values: tuple[Any, ...] = (*row[1:13], before, Place(*row[16:19]), row[19])
        found[row[0]].append(Delta(*values))
    return found


def list_late(connection: Connection, session_ids: Iterable[int]) -> dict[int, list[Known]]:
    """The late readings that are kept, by session id."""
    found: dict[int, list[Known]] = {session_id: [] for session_id in session_ids}
    rows = connection.execute(
        """select session_id, seconds, octets_in, octets_out, at, node, sequence, record_offset from late_reading
           where session_id = any(%s)""",
        (list(found),),
    )
    for row in rows:
        found[row[0]].append(Known(row[1], row[2], row[3], row[4], Place(row[5], row[6], row[7])))
    return found


def insert_late(connection: Connection, late: Sequence[tuple[int, Known]]) -> None:
    """(session id, reading) each."""
    connection.cursor().executemany(
        """insert into late_reading (session_id, seconds, octets_in, octets_out, at, node, sequence, record_offset)
           values (%s, %s, %s, %s, %s, %s, %s, %s) on conflict do nothing""",
        [
            (session_id, one.seconds, one.octets_in, one.octets_out, one.at, place.node, place.sequence, place.offset)
            for session_id, one in late
            if (place := one.place) is not None
        ],
    )
