"""The queue to the rater: rows of many deltas, one shard of the accounts each.

The settler writes it (usage.insert_queue). A rater locks a shard, takes rows off it in the order in which they came,
and commits that with what it made of them: a delta is rated once or is queued still.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

from msgspec import Struct

from sms_aaa.db.binary import instants, int4s, int8s, load_ints
from sms_aaa.db.usage import QUEUE_ROW_MAX
from sms_aaa.rules.instants import instant_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from sms_aaa.db.engine import Connection


class QueuedDelta(Struct, frozen=True, gc=False):
    """A claimed delta with its service; in upload, out download; instants as db/binary.py has them."""

    to_us: int
    session_id: int
    seq: int
    account_id: int
    service_id: int
    from_us: int
    octets_in: int
    octets_out: int
    seconds: int


class ClaimedShard(NamedTuple):
    """A shard that is locked until the end of the transaction. `version`: what it has if that is committed."""

    shard: int
    version: int


def claim_shard(connection: Connection, *, after: int) -> ClaimedShard | None:
    """Locks the first shard above `after` that has something queued and that no other rater is at.

    Whoever changes totals counts the version up, as this does: who finds it as he left it, knows them still.
    """
    row = connection.execute(
        """update rating_shard set version = version + 1
           where shard = (
             select s.shard from rating_shard s
             where s.shard > %s and exists (select from rating_queue q where q.shard = s.shard)
             order by s.shard limit 1 for no key update skip locked)
           returning shard, version""",
        (after,),
    ).fetchone()
    return ClaimedShard(*row) if row is not None else None


def lock_shards(connection: Connection, shards: Iterable[int]) -> None:
    """Waits for these shards, in the order of their numbers: two raters never wait for each other in a circle."""
    connection.execute(
        "select from rating_shard where shard = any(%s) order by shard for no key update", (sorted(set(shards)),)
    )


def touch_shards(connection: Connection, shards: Iterable[int]) -> None:
    """Locks these shards, and tells raters that totals in them are not what they remember."""
    numbers = sorted(set(shards))
    lock_shards(connection, numbers)
    connection.execute("update rating_shard set version = version + 1 where shard = any(%s)", (numbers,))


def lock_accounts(connection: Connection, account_ids: Iterable[int]) -> None:
    """Waits for the shards of these accounts and of the heads of their groups, in which they are rated."""
    rows = connection.execute(
        """select distinct unnest(array[id %% 8, coalesce(charging_head_id, id) %% 8]) from account
           where id = any(%s)""",
        (int8s(sorted(account_ids)),),
    ).fetchall()
    lock_shards(connection, [row[0] for row in rows])


ROWS_MAX = 2_000
"""Rows of the queue that one batch takes: as many as that only when each has a delta or two."""


def claim_queue(connection: Connection, shard: int, limit: int) -> tuple[list[QueuedDelta], datetime | None]:
    """Takes about `limit` deltas off a locked shard, and since when the oldest waited (None: there was none).

    They come back if the transaction is rolled back.

    Whole rows, up to the one that reaches the limit; of a first row that is longer, the rest is written back in its
    place. So a limit of 1 is the delta that came first. Canonical order: end of the delta, session, sequence.
    """
    with connection.cursor(binary=True) as cursor:
        load_ints(cursor)
        rows = cursor.execute(
            """with waiting as (
                 select id, sum(deltas) over (order by id) - deltas as deltas_before
                 from (select id, deltas from rating_queue where shard = %(shard)s order by id limit %(rows)s) q)
               delete from rating_queue using waiting
               where rating_queue.shard = %(shard)s and rating_queue.id = waiting.id and deltas_before < %(limit)s
               returning rating_queue.id, queued_at, to_at, session_id, seq, account_id, service_id, from_at,
                         octets_in, octets_out, seconds""",
            {"shard": shard, "rows": ROWS_MAX, "limit": limit},
        ).fetchall()
    if len(rows) == 1 and len(rows[0][2]) > limit:
        queue_id, queued_us, *arrays = rows[0]
        _put_back(connection, shard, queue_id, queued_us, [array[limit:] for array in arrays])
        rows = [(queue_id, queued_us, *(array[:limit] for array in arrays))]
    fields = sorted(chain.from_iterable(zip(*row[2:], strict=True) for row in rows))
    queued_at = instant_of(min(row[1] for row in rows)) if rows else None
    return [QueuedDelta(*one) for one in fields], queued_at


def _put_back(
    connection: Connection, shard: int, queue_id: int, queued_us: int, arrays: Sequence[Sequence[int]]
) -> None:
    to_us, session_ids, seqs, account_ids, service_ids, from_us, octets_in, octets_out, seconds = arrays
    connection.execute(
        """insert into rating_queue (shard, id, queued_at, deltas, to_at, session_id, seq, account_id, service_id,
                                     from_at, octets_in, octets_out, seconds)
           values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)""",
        (
            shard, queue_id, instant_of(queued_us), len(to_us), instants(to_us), int8s(session_ids), int4s(seqs),
            int8s(account_ids), int8s(service_ids), instants(from_us), int8s(octets_in), int8s(octets_out),
            int8s(seconds),
        ),
    )  # fmt: skip


def insert_again(connection: Connection, shard: int, deltas: Sequence[QueuedDelta], queued_at: datetime) -> None:
    """Queues these in a shard, as having waited since `queued_at`, QUEUE_ROW_MAX in a row."""
    for start in range(0, len(deltas), QUEUE_ROW_MAX):
        part = deltas[start : start + QUEUE_ROW_MAX]
        columns = [
            int8s([delta.session_id for delta in part]),
            int4s([delta.seq for delta in part]),
            int8s([delta.account_id for delta in part]),
            int8s([delta.service_id for delta in part]),
            instants([delta.from_us for delta in part]),
            instants([delta.to_us for delta in part]),
            int8s([delta.octets_in for delta in part]),
            int8s([delta.octets_out for delta in part]),
            int8s([delta.seconds for delta in part]),
        ]
        connection.execute(
            """insert into rating_queue (shard, queued_at, deltas, session_id, seq, account_id, service_id, from_at,
                                         to_at, octets_in, octets_out, seconds)
               values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)""",
            (shard, queued_at, len(part), *columns),
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
