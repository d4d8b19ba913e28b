"""Usage deltas -> slices, exact rated usage, running totals, ledger entries.

A batch in one transaction. Its deltas come off the queue in it (so they are rated once, or are still queued), the
shard of the accounts that they belong to is locked, and the totals of a component are moved from P(before) to P(after).
The ledger gets the difference of the rounded totals, once a batch and component, so that its entries add up to the
rounded total whatever the batches were.

A long queue is rated set-wise (flows/bulk.py), as far as its tariffs and buckets allow for it. What else there is goes
delta by delta: a plain tariff's delta that lies in one cycle takes the fast way here; all others go through
flows/charging.py, on the same totals. Members of a charging group are rated where its head is: their deltas are put
into its shard.

Nothing is told to anybody before the commit, and what is in memory of it counts only afterwards: so it may be lost in
a crash of the server, as the queue's rows then are there again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from sms_aaa import __version__
from sms_aaa.db import charging as db_charging
from sms_aaa.db import rating as db_rating
from sms_aaa.db import rating_queue as db_queue
from sms_aaa.db.rating import pack_rated
from sms_aaa.db.usage import SHARDS
from sms_aaa.flows.bulk import rate_in_bulk
from sms_aaa.flows.charging import note_moved, rate_visits
from sms_aaa.flows.meters import Meter, RaterMemory, ShardMemory, Standing
from sms_aaa.flows.placing import Visit, place
from sms_aaa.flows.posting import post
from sms_aaa.rules.pricing import rate, tier_at

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from sms_aaa.db.engine import Connection
    from sms_aaa.db.rating_queue import ClaimedShard, QueuedDelta
    from sms_aaa.flows.placing import Placed
    from sms_aaa.flows.shelf import PlanShelf

LATE_AFTER_CLOSE = "late usage"
"""Reason of an adjustment: usage that came when its cycle was closed."""


@dataclass(frozen=True, slots=True)
class RatedBatch:
    """What a run did; since when the oldest delta had waited. `kept`: for RaterMemory.keep, once it is committed.

    Of `deltas`, those that came off the queue, `sent_home` are members' and were put into the shard of their head. Of a
    bulk batch: `set_wise` were rated so, `not_set_wise` did not fit.
    """

    deltas: int
    slices: int
    entries: int
    in_suspense: int
    queued_at: datetime
    kept: ShardMemory
    run_id: int
    sent_home: int = 0
    set_wise: int = 0
    not_set_wise: int = 0


def rate_batch(
    connection: Connection,
    memory: RaterMemory,
    claimed: ClaimedShard,
    *,
    now: datetime,
    limit: int,
    bulk_min: int | None = None,
) -> RatedBatch:
    """Rates about `limit` queued deltas of a shard that db.rating_queue.claim_shard locked in this transaction.

    Where `bulk_min` deltas and more wait they are rated set-wise, many more than `limit` at once; what does not fit is
    rated here with them, or is put back beyond `limit`. None: never. Nothing is left half done when it raises, for the
    door rolls back.
    """
    kept = memory.recall(connection, claimed, now)
    run_id = memory.find_run(now)
    if run_id is None:
        run_id = db_rating.insert_run(connection, program=__version__, started_at=now)
    bulk = None
    if bulk_min is not None:
        bulk = rate_in_bulk(connection, memory.shelf, claimed.shard, run_id, now=now, at_least=bulk_min)
    if bulk is None:
        queued, queued_at = db_queue.claim_queue(connection, claimed.shard, limit)
        return _rate(connection, memory, _Claimed(claimed.shard, queued, queued_at or now), kept, run_id)
    db_rating.add_to_run(connection, run_id, bulk.deltas)
    if bulk.left[limit:]:
        db_queue.insert_again(connection, claimed.shard, bulk.left[limit:], bulk.queued_at)
    # The totals in memory were moved past it.
    left = _Claimed(claimed.shard, bulk.left[:limit], bulk.queued_at)
    done = _rate(connection, memory, left, ShardMemory(claimed.version), run_id)
    return replace(
        done,
        deltas=bulk.deltas + done.deltas,
        slices=bulk.slices + done.slices,
        entries=bulk.entries + done.entries,
        set_wise=bulk.deltas,
        not_set_wise=len(bulk.left),
    )


class _Claimed(NamedTuple):
    """Deltas that were taken off the queue of a shard, and since when the oldest had waited."""

    shard: int
    deltas: Sequence[QueuedDelta]
    queued_at: datetime


def _rate(connection: Connection, memory: RaterMemory, claimed: _Claimed, kept: ShardMemory, run_id: int) -> RatedBatch:
    """Rates delta by delta."""
    shard, queued, queued_at = claimed
    heads = _heads(connection, queued)
    own = _send_home(connection, shard, queued, heads, queued_at)
    db_rating.add_to_run(connection, run_id, len(own))
    placed = _place(connection, memory.shelf, kept, own, heads)
    rows, moved = _move(own, placed, run_id)
    db_rating.insert_rated(connection, rows)
    visits = [where for where in placed if isinstance(where, Visit)]
    charged, purses = rate_visits(connection, visits, heads, moved, run_id) if visits else (0, {})
    suspended: dict[str, list[QueuedDelta]] = {}
    for delta, where in zip(own, placed, strict=True):
        if isinstance(where, str):
            suspended.setdefault(where, []).append(delta)
    for reason, deltas in suspended.items():
        db_rating.insert_suspense(connection, deltas, reason)
    entries = post(connection, memory.shelf, moved, run_id, reason=LATE_AFTER_CLOSE, purses=purses)
    return RatedBatch(
        len(queued),
        len(rows) + charged,
        entries,
        sum(map(len, suspended.values())),
        queued_at,
        kept,
        run_id,
        sent_home=len(queued) - len(own),
    )


def suspend_next(connection: Connection, shard: int, *, reason: str) -> int:
    """Puts the delta that is first in a shard's queue aside, by name: it was tried alone and cannot be rated."""
    db_queue.lock_shards(connection, [shard])
    queued, _ = db_queue.claim_queue(connection, shard, 1)
    db_rating.insert_suspense(connection, queued, reason)
    return len(queued)


def _heads(connection: Connection, deltas: Iterable[QueuedDelta]) -> dict[int, int]:
    """Heads of the accounts that are in a group or have buckets."""
    rows = db_charging.list_groups(connection, {delta.account_id for delta in deltas})
    return {row.account_id: row.head_id for row in rows}


def _send_home(
    connection: Connection, shard: int, queued: Sequence[QueuedDelta], heads: dict[int, int], queued_at: datetime
) -> Sequence[QueuedDelta]:
    """Puts deltas of groups whose head is another shard's there; what is left."""
    if all(head_id % SHARDS == shard for head_id in heads.values()):
        return queued
    own: list[QueuedDelta] = []
    elsewhere: dict[int, list[QueuedDelta]] = {}
    for delta in queued:
        home = heads.get(delta.account_id, delta.account_id) % SHARDS
        if home == shard:
            own.append(delta)
        else:
            elsewhere.setdefault(home, []).append(delta)
    for home, deltas in elsewhere.items():
        db_queue.insert_again(connection, home, deltas, queued_at)
    return own


def _place(
    connection: Connection, shelf: PlanShelf, kept: ShardMemory, deltas: Sequence[QueuedDelta], heads: dict[int, int]
) -> list[Placed]:
    """As `place` does; and again where a cycle that was opened by it brought buckets with it."""
    placed = place(connection, shelf, kept, deltas, heads)
    visits = [where for where in placed if isinstance(where, Visit) and where.delta.account_id not in heads]
    found = _heads(connection, [visit.delta for visit in visits]) if visits else {}
    if not found:
        return placed
    heads.update(found)
    return place(connection, shelf, kept, deltas, heads)


def _move(queued: Sequence[QueuedDelta], placed: Sequence[Placed], run_id: int) -> tuple[list[bytes], list[Meter]]:
    """The fast way: rated rows of the deltas that are plain, and the meters that they moved."""
    rows: list[bytes] = []
    moved: list[Meter] = []
    for delta, where in zip(queued, placed, strict=True):
        if isinstance(where, Standing):
            for meter in where.meters:
                quantity = delta.octets_in * meter.counts_in + delta.octets_out * meter.counts_out
                if meter.counts_seconds:
                    quantity = delta.seconds
                elif meter.counts_events:
                    quantity = int(delta.seq == 1)
                rows.append(_turn(meter, delta, quantity, run_id, moved))
    return rows, moved


def _turn(meter: Meter, delta: QueuedDelta, quantity: int, run_id: int, moved: list[Meter]) -> bytes:
    """Moves a meter by a delta; its rated row."""
    before = meter.quantity
    after = before + quantity
    if after <= meter.tier_until:
        numerator = quantity * meter.tier_picounits
    else:
        numerator = rate(meter.component, total_before=before, quantity=quantity).numerator
        meter.tier_until, meter.tier_picounits = tier_at(meter.component, after)
    meter.quantity = after
    meter.numerator += numerator
    note_moved(moved, meter)
    return pack_rated(meter.owner, delta, run_id, quantity, before, numerator)
