"""The readings that a session was counted with: its deltas, and the late readings that are kept beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sms_aaa.rules.late import Known
from sms_aaa.rules.session import Delta, Place

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sms_aaa.db.engine import Connection


def list_session_deltas(connection: Connection, session_id: int, since: datetime) -> list[Delta]:
    """In the order of their numbers. `since`: the session's start; no month before it is looked into."""
    rows = connection.execute(
        """select seq, from_at, to_at, octets_in, octets_out, seconds, run, wrapped, before_in, before_out, after_in,
                  after_out, late, before_node, before_sequence, before_offset, after_node, after_sequence, after_offset
           from usage_delta where session_id = %s and to_at >= %s order by seq""",
        (session_id, since),
    )
    return [
        Delta(
            seq=row[0],
            from_at=row[1],
            to_at=row[2],
            octets_in=row[3],
            octets_out=row[4],
            seconds=row[5],
            run=row[6],
            wrapped=row[7],
            before_in=row[8],
            before_out=row[9],
            after_in=row[10],
            after_out=row[11],
            late=row[12],
            before_place=None if row[13] is None else Place(row[13], row[14], row[15]),
            after_place=Place(row[16], row[17], row[18]),
        )
        for row in rows
    ]


def list_late(connection: Connection, session_id: int) -> list[Known]:
    rows = connection.execute(
        """select seconds, octets_in, octets_out, at, node, sequence, record_offset from late_reading
           where session_id = %s""",
        (session_id,),
    )
    return [Known(row[0], row[1], row[2], row[3], Place(row[4], row[5], row[6])) for row in rows]


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
