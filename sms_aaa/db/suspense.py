"""Usage that could not be rated, by name, and its way back into the queue."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg.rows import class_row

from sms_aaa.db.binary import int4s, int8s, load_ints
from sms_aaa.db.rating_queue import QueuedDelta

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sms_aaa.db.engine import Connection


@dataclass(frozen=True, slots=True)
class SuspenseRow:
    """A delta in suspense, with whose it is."""

    session_id: int
    seq: int
    account_id: int
    subscriber: str
    reason: str
    since: datetime
    from_at: datetime
    to_at: datetime
    octets_in: int
    octets_out: int
    seconds: int


def list_suspense(connection: Connection, *, reason: str | None, limit: int) -> list[SuspenseRow]:
    """The newest first."""
    with connection.cursor(row_factory=class_row(SuspenseRow)) as cursor:
        return cursor.execute(
            """select x.session_id, x.seq, x.account_id, coalesce(b.name, '') as subscriber, x.reason, x.since,
                      d.from_at, d.to_at, d.octets_in, d.octets_out, d.seconds
               from suspense x
               join usage_delta d on d.session_id = x.session_id and d.seq = x.seq and d.to_at = x.to_at
               left join account a on a.id = x.account_id left join subscriber b on b.id = a.subscriber_id
               where %(reason)s::text is null or x.reason = %(reason)s
               order by x.since desc, x.session_id, x.seq limit %(limit)s""",
            {"reason": reason, "limit": limit},
        ).fetchall()


def count_suspense(connection: Connection) -> list[tuple[str, int]]:
    """(reason, deltas), by reason."""
    return connection.execute("select reason, count(*) from suspense group by 1 order by 1").fetchall()


def lock_suspended(
    connection: Connection, *, reason: str | None, after: tuple[int, int], limit: int
) -> list[tuple[QueuedDelta, str]]:
    """Deltas in suspense above `after`, (session id, seq), with the reason of each; those that nobody else works at."""
    with connection.cursor(binary=True) as cursor:
        load_ints(cursor)
        rows = cursor.execute(
            """select d.to_at, d.session_id, d.seq, d.account_id, d.service_id, d.from_at, d.octets_in, d.octets_out,
                      d.seconds, x.reason
               from suspense x
               join usage_delta d on d.session_id = x.session_id and d.seq = x.seq and d.to_at = x.to_at
               where (x.session_id, x.seq) > (%(session)s, %(seq)s)
                 and (%(reason)s::text is null or x.reason = %(reason)s)
               order by x.session_id, x.seq limit %(limit)s for update of x skip locked""",
            {"session": after[0], "seq": after[1], "reason": reason, "limit": limit},
        ).fetchall()
    return [(QueuedDelta(*row[:9]), row[9]) for row in rows]


def delete_suspended(connection: Connection, deltas: Sequence[QueuedDelta]) -> None:
    connection.execute(
        """delete from suspense x using unnest(%s, %s) w(session_id, seq)
           where x.session_id = w.session_id and x.seq = w.seq""",
        (int8s([delta.session_id for delta in deltas]), int4s([delta.seq for delta in deltas])),
    )
