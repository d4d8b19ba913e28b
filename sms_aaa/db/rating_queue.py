"""The queue to the rater: rows of many deltas, one shard of the accounts each.

The settler writes it (usage.insert_queue). A rater locks a shard, takes rows off it in the order in which they came,
and commits that with what it made of them: a delta is rated once or is queued still.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sms_aaa.db.engine import Connection


class QueuedDelta(Struct, frozen=True, gc=False):
    """A claimed delta with its service; in upload, out download."""

    to_at: datetime
    session_id: int
    seq: int
    account_id: int
    service_id: int
    from_at: datetime
    octets_in: int
    octets_out: int


def find_shard(connection: Connection, *, after: int) -> int | None:
    """Locks the next shard after `after`, in turn, that has something queued and that no other rater is at."""
    row = connection.execute(
        """select s.shard from rating_shard s where exists (select from rating_queue q where q.shard = s.shard)
           order by s.shard <= %s, s.shard limit 1 for no key update skip locked""",
        (after,),
    ).fetchone()
    return int(row[0]) if row is not None else None


def lock_shards(connection: Connection, shards: Iterable[int]) -> None:
    """Waits for these shards, in the order of their numbers: two raters never wait for each other in a circle."""
    connection.execute(
        "select from rating_shard where shard = any(%s) order by shard for no key update", (sorted(set(shards)),)
    )


ROWS_MAX = 2_000
"""Rows of the queue that one batch takes: as many as that only when each has a delta or two."""


def claim_queue(connection: Connection, shard: int, limit: int) -> list[QueuedDelta]:
    """Takes about `limit` deltas off a locked shard, in this transaction: they come back if it is rolled back.

    Whole rows, up to the one that reaches the limit; of a first row that is longer, the rest is written back in its
    place. So a limit of 1 is the delta that came first. Canonical order: end of the delta, session, sequence.
    """
    rows = connection.execute(
        """with waiting as (
             select id, sum(deltas) over (order by id) - deltas as deltas_before
             from (select id, deltas from rating_queue where shard = %(shard)s order by id limit %(rows)s) q)
           delete from rating_queue using waiting
           where rating_queue.shard = %(shard)s and rating_queue.id = waiting.id and deltas_before < %(limit)s
           returning rating_queue.id, queued_at, to_at, session_id, seq, account_id, service_id, from_at, octets_in,
                     octets_out""",
        {"shard": shard, "rows": ROWS_MAX, "limit": limit},
        binary=True,
    ).fetchall()
    if len(rows) == 1 and len(rows[0][2]) > limit:
        queue_id, queued_at, *arrays = rows[0]
        _put_back(connection, shard, queue_id, queued_at, [array[limit:] for array in arrays])
        rows = [(queue_id, queued_at, *(array[:limit] for array in arrays))]
    deltas = [QueuedDelta(*fields) for row in rows for fields in zip(*row[2:], strict=True)]
    return sorted(deltas, key=lambda delta: (delta.to_at, delta.session_id, delta.seq))


def _put_back(
    connection: Connection, shard: int, queue_id: int, queued_at: datetime, arrays: Sequence[Sequence[object]]
) -> None:
    connection.execute(
        """insert into rating_queue (shard, id, queued_at, deltas, to_at, session_id, seq, account_id, service_id,
                                     from_at, octets_in, octets_out)
           values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)""",
        (shard, queue_id, queued_at, len(arrays[0]), *map(list, arrays)),
    )


QUEUE_ROWS_COUNTED_MAX = 100_000


def queue_length(connection: Connection) -> tuple[int, datetime | None]:
    """How many deltas wait, counted no further than QUEUE_ROWS_COUNTED_MAX rows, and since when the oldest does."""
    row = connection.execute(
        """select coalesce(sum(deltas), 0), min(queued_at)
           from (select deltas, queued_at from rating_queue limit %s) q""",
        (QUEUE_ROWS_COUNTED_MAX,),
    ).fetchone()
    assert row is not None
    return int(row[0]), row[1]
