"""Usage deltas -> slices, exact rated usage, running totals, ledger entries.

A batch in one transaction. Its deltas come off the queue in it (so they are rated once, or are still queued), the
shard of the accounts that they belong to is locked, and the totals of a component are moved from P(before) to P(after).
The ledger gets the difference of the rounded totals, once a batch and component, so that its entries add up to the
rounded total whatever the batches were.

Nothing is told to anybody before the commit, and what is in memory of it counts only afterwards: so it may be lost in
a crash of the server, as the queue's rows then are there again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sms_aaa import __version__
from sms_aaa.db import ledger as db_ledger
from sms_aaa.db import rating as db_rating
from sms_aaa.db import rating_queue as db_queue
from sms_aaa.db.ledger import PostedEntry
from sms_aaa.db.rating import Total, pack_rated
from sms_aaa.flows.meters import Meter, RaterMemory, ShardMemory, Standing
from sms_aaa.rules.ledger import LedgerAccount, difference_entry, revenue
from sms_aaa.rules.pricing import posted_minor, rate, tier_at

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sms_aaa.db.engine import Connection
    from sms_aaa.db.rating_queue import ClaimedShard, QueuedDelta
    from sms_aaa.flows.meters import Placed


@dataclass(frozen=True, slots=True)
class RatedBatch:
    """What a run did; since when the oldest delta had waited. `kept`: for RaterMemory.keep, once it is committed."""

    deltas: int
    slices: int
    entries: int
    in_suspense: int
    queued_at: datetime
    kept: ShardMemory
    run_id: int


def rate_batch(
    connection: Connection, memory: RaterMemory, claimed: ClaimedShard, *, now: datetime, limit: int
) -> RatedBatch:
    """Rates about `limit` queued deltas of a shard that db.rating_queue.claim_shard locked in this transaction.

    Nothing is left half done when it raises, for the door rolls back.
    """
    kept = memory.recall(connection, claimed, now)
    queued, queued_at = db_queue.claim_queue(connection, claimed.shard, limit)
    run_id = memory.find_run(now)
    if run_id is None:
        run_id = db_rating.insert_run(connection, program=__version__, started_at=now)
    db_rating.add_to_run(connection, run_id, len(queued))
    placed = memory.place(connection, kept, queued)
    rows, moved = _move(queued, placed, run_id)
    db_rating.insert_rated(connection, rows)
    suspended: dict[str, list[QueuedDelta]] = {}
    for delta, where in zip(queued, placed, strict=True):
        if isinstance(where, str):
            suspended.setdefault(where, []).append(delta)
    for reason, deltas in suspended.items():
        db_rating.insert_suspense(connection, deltas, reason)
    entries = _post(connection, moved, run_id)
    return RatedBatch(
        len(queued), len(rows), entries, sum(map(len, suspended.values())), queued_at or now, kept, run_id
    )


def suspend_next(connection: Connection, shard: int, *, reason: str) -> int:
    """Puts the delta that is first in a shard's queue aside, by name: it was tried alone and cannot be rated."""
    db_queue.lock_shards(connection, [shard])
    queued, _ = db_queue.claim_queue(connection, shard, 1)
    db_rating.insert_suspense(connection, queued, reason)
    return len(queued)


def _move(queued: Sequence[QueuedDelta], placed: Sequence[Placed], run_id: int) -> tuple[list[bytes], list[Meter]]:
    """Rated rows of the deltas, and the meters that they moved."""
    rows: list[bytes] = []
    moved: list[Meter] = []
    for delta, where in zip(queued, placed, strict=True):
        if isinstance(where, Standing):
            for meter in where.meters:
                quantity = delta.octets_in * meter.counts_in + delta.octets_out * meter.counts_out
                rows.append(_turn(meter, delta, 0, quantity, run_id, moved))
        elif not isinstance(where, str):
            rows += [_turn(part.meter, delta, part.index, part.quantity, run_id, moved) for part in where]
    return rows, moved


def _turn(meter: Meter, delta: QueuedDelta, slice_: int, quantity: int, run_id: int, moved: list[Meter]) -> bytes:
    """Moves a meter by a slice of a delta; its rated row."""
    before = meter.quantity
    after = before + quantity
    if after <= meter.tier_until:
        numerator = quantity * meter.tier_picounits
    else:
        numerator = rate(meter.component, total_before=before, quantity=quantity).numerator
        meter.tier_until, meter.tier_picounits = tier_at(meter.component, after)
    meter.quantity = after
    meter.numerator += numerator
    if not meter.has_moved:
        meter.has_moved = True
        moved.append(meter)
    return pack_rated(meter.owner, delta, slice_, run_id, quantity, before, numerator)


def _post(connection: Connection, moved: Sequence[Meter], run_id: int) -> int:
    """Stores the totals that moved, and posts what each rounded total moved by; how many entries that made."""
    entries = []
    for meter in moved:
        posted = posted_minor(meter.component, meter.currency, meter.quantity) if meter.numerator else 0
        if posted != meter.posted_minor:
            entry = difference_entry(
                before_minor=meter.posted_minor,
                after_minor=posted,
                debit=LedgerAccount.UNBILLED_RECEIVABLE,
                credit=revenue(meter.component.name),
                currency=meter.currency,
            )
            assert entry is not None
            entries.append(PostedEntry(meter.key, run_id, entry))
            meter.posted_minor = posted
    new: list[Total] = []
    known: list[Total] = []
    for meter in moved:
        total = Total(meter.key, meter.quantity, meter.numerator, meter.posted_minor)
        (known if meter.is_stored else new).append(total)
        meter.is_stored, meter.has_moved = True, False
    if new:
        db_rating.insert_totals(connection, new)
    if known:
        db_rating.update_totals(connection, known)
    if entries:
        db_ledger.insert_entries(connection, entries)
    return len(entries)
