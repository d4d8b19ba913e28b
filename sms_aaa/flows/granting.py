"""What a plan grants when a cycle opens, and what becomes of buckets that are over.

A cycle's allowance is granted once, however often it is asked for. Overage that a bucket keeps is taken from the grant
that follows it: what is known of it at once, the rest when the earlier bucket is closed. A bucket is closed when no
open cycle can use it any more, so that late usage of its time still finds it; what it rolls over can be used from its
end on, and what was charged meanwhile is rated again.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import timedelta
from fractions import Fraction
from typing import TYPE_CHECKING

import msgspec

from sms_aaa.db import bucket_changes as db_changes
from sms_aaa.db import buckets as db_buckets
from sms_aaa.db import charging as db_charging
from sms_aaa.db.buckets import NewBucket
from sms_aaa.db.charging import DirtyRow
from sms_aaa.rules.buckets import BucketKind, BucketTerms
from sms_aaa.rules.closing import granted_amount, roll_over
from sms_aaa.rules.cycle import Cycle
from sms_aaa.rules.instants import instant_of, instant_us
from sms_aaa.rules.ledger import Event, post
from sms_aaa.rules.money import PICOUNITS, exponent
from sms_aaa.rules.recurring import share_run

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime

    from sms_aaa.db.buckets import EndedPlace, EndedRow, OverageRow
    from sms_aaa.db.cycles import CycleRow, OpenedRow
    from sms_aaa.db.engine import Connection
    from sms_aaa.flows.fees import Contract
    from sms_aaa.flows.shelf import PlanShelf

ROLLED_OVER = "rolled-over"
KEPT_OVERAGE = "kept-overage"
"""Why a group is dirty: a bucket that may be used since its cycle began came to be, or to be less, when the one before
it was closed."""


def grant_allowances(
    connection: Connection,
    shelf: PlanShelf,
    opened: Sequence[OpenedRow],
    cycles: Mapping[int, CycleRow],
    contracts: Mapping[tuple[int, int], Contract],
) -> int:
    """Grants the allowances of their plans to these subscriptions in these cycles, and promotions where they begin.

    Once: what was granted is not granted again. How many buckets were new. The shards of their groups are locked.
    """
    wanted = []
    for row in opened:
        tariff = shelf.get(connection, row.plan_version_id).plan.tariff
        cycle, contract = cycles[row.cycle_id], contracts[row.subscription_id, row.cycle_id]
        for terms in () if cycle.is_closed else tariff.buckets:
            bucket = _of_plan(row, cycle, contract, terms, tariff.currency)
            if bucket is not None:
                wanted.append(bucket)
    return len(db_buckets.insert_buckets(connection, _with_overage(connection, wanted))) if wanted else 0


def bucket_of(
    terms: BucketTerms,
    *,
    account_id: int,
    currency: str,
    from_at: datetime,
    until_at: datetime | None,
    created_at: datetime,
    granted: int,
) -> NewBucket:
    """A grant of these terms as it is stored."""
    return NewBucket(
        account_id=account_id,
        name=terms.name,
        kind=terms.kind,
        measure=terms.measure,
        currency=currency if terms.measure is None else None,
        terms=msgspec.to_builtins(terms),
        priority=terms.priority,
        from_at=from_at,
        until_at=until_at,
        created_at=created_at,
        granted=granted,
    )


@dataclass(frozen=True, slots=True)
class ClosedBuckets:
    """How many a look closed, and where it came to; None: there are no more."""

    count: int
    after: EndedPlace | None


def close_buckets(
    connection: Connection, *, now: datetime, grace: timedelta, limit: int, after: EndedPlace | None = None
) -> ClosedBuckets:
    """Of up to `limit` buckets that ended a `grace` ago or more, closes those that no open cycle can use.

    What is left of them rolls over by their terms, or expires. `after`: where the look before came to.
    """
    places = db_buckets.list_ended(connection, ended_by=now - grace, after=after, limit=limit)
    ended = db_buckets.lock_ended(connection, [place.id for place in places if place.is_free])
    if ended:
        _close(connection, ended, now)
    return ClosedBuckets(len(ended), places[-1] if len(places) == limit else None)


def _close(connection: Connection, ended: Sequence[EndedRow], now: datetime) -> None:
    rolled = {row.id: bucket for row in ended if (bucket := _rolled(row)) is not None}
    if rolled:
        db_buckets.insert_buckets(connection, list(rolled.values()))
    closed = []
    for row in ended:
        share = rolled[row.id].granted if row.id in rolled else 0
        closed.append((row.id, share, row.granted - row.used - share))
    db_buckets.update_closed(connection, closed, now)
    _post_breakage(connection, ended, closed)
    dirty = [DirtyRow(bucket.account_id, instant_us(bucket.from_at), ROLLED_OVER) for bucket in rolled.values()]
    dirty += _keep_overage(connection, [row for row in ended if row.terms.get("keeps_overage")])
    _note_dirty(connection, dirty)


def _of_plan(
    row: OpenedRow, place: CycleRow, contract: Contract, terms: BucketTerms, currency: str
) -> NewBucket | None:
    """What the plan grants of these terms in a cycle, in the part of it that the subscription runs."""
    term, is_promotion = contract.term, terms.kind is BucketKind.PROMOTION
    cycle = Cycle(instant_of(place.starts_us), instant_of(place.ends_us))
    from_at = max(cycle.start, term.start)
    ends = [end for end in (term.end, None if is_promotion else cycle.end) if end is not None]
    if from_at >= min([*ends, cycle.end]) or (is_promotion and (term.start < cycle.start or contract.plans_before)):
        return None
    until_at = min(ends, default=None)
    if terms.valid_seconds is not None:
        until_at = from_at + timedelta(seconds=terms.valid_seconds)
    bucket = bucket_of(
        terms,
        account_id=row.account_id,
        currency=currency,
        from_at=from_at,
        until_at=until_at,
        created_at=from_at,
        granted=granted_amount(terms, share_run(term, cycle)),
    )
    return msgspec.structs.replace(bucket, subscription_id=row.subscription_id, cycle_id=row.cycle_id)


def _with_overage(connection: Connection, wanted: Sequence[NewBucket]) -> list[NewBucket]:
    """The same, where the bucket before one keeps its overage less that: what is more than a grant is kept on."""
    keeping = [bucket for bucket in wanted if bucket.terms["keeps_overage"]]
    if not keeping:
        return list(wanted)
    before: dict[datetime, set[tuple[int, str]]] = defaultdict(set)
    for bucket in keeping:
        before[bucket.from_at].add((bucket.account_id, bucket.name))
    overages: dict[tuple[int, str, datetime], OverageRow] = {
        (row.account_id, row.name, from_at): row
        for from_at, names in before.items()
        for row in db_buckets.list_overages(connection, sorted(names), from_at)
    }
    return [_less_overage(bucket, overages.get((bucket.account_id, bucket.name, bucket.from_at))) for bucket in wanted]


def _less_overage(bucket: NewBucket, overage: OverageRow | None) -> NewBucket:
    if overage is None or not bucket.terms["keeps_overage"]:
        return bucket
    return msgspec.structs.replace(bucket, follows_id=overage.bucket_id, kept=overage.overrun)


def _rolled(row: EndedRow) -> NewBucket | None:
    """What becomes of what is left of it. It is as old as that, so it is used before what was granted later."""
    terms = msgspec.convert(row.terms, BucketTerms)
    left = Fraction(row.granted - row.used)
    rolled = roll_over(terms, left, at=row.until_at, zone=row.zone, anchor_day=row.anchor_day)
    if rolled is None:
        return None
    bucket = bucket_of(
        rolled.terms,
        account_id=row.account_id,
        currency=row.currency or "",
        from_at=row.until_at,
        until_at=rolled.until,
        created_at=row.created_at,
        granted=rolled.granted,
    )
    return msgspec.structs.replace(bucket, rolled_from_id=row.id, subscription_id=row.subscription_id)


def _keep_overage(connection: Connection, ended: Sequence[EndedRow]) -> Iterator[DirtyRow]:
    """Takes from the grants that follow these what their overage has come to since; the groups that this disorders."""
    if not ended:
        return
    overruns = {row.id: row.overrun for row in ended}
    more = []
    for row in db_buckets.lock_followers(connection, list(overruns)):
        missing = overruns[row.follows_id] - row.kept
        if missing > 0:
            used = min(missing, row.granted - row.used - row.reserved)
            more.append((row.id, used, missing - used))
        elif missing < 0:
            overrun = -min(-missing, max(row.kept - row.granted, 0), row.overrun)
            more.append((row.id, missing - overrun, overrun))
        if missing:
            yield DirtyRow(row.account_id, instant_us(row.from_at), KEPT_OVERAGE)
    if more:
        db_buckets.update_kept(connection, more)


def _post_breakage(connection: Connection, ended: Sequence[EndedRow], closed: Sequence[tuple[int, int, int]]) -> None:
    """What was paid for and is lost is earned by that, in whole minor units."""
    for row, (_, _, expired) in zip(ended, closed, strict=True):
        if row.currency is not None and row.terms["kind"] == BucketKind.TOP_UP:
            amount_minor = expired * 10 ** exponent(row.currency) // PICOUNITS
            entry = post(Event.BUCKET_EXPIRY, amount_minor, row.currency)
            if entry is not None:
                db_changes.insert_money(connection, row.account_id, entry, bucket_id=row.id)


def _note_dirty(connection: Connection, rows: Sequence[DirtyRow]) -> None:
    """Of each group once, from the earliest instant on."""
    first: dict[int, DirtyRow] = {}
    for row in rows:
        known = first.get(row.head_id)
        if known is None or row.from_us < known.from_us:
            first[row.head_id] = row
    members = db_charging.list_groups(connection, first)
    heads = {row.account_id: row.head_id for row in members}
    dirty: dict[int, DirtyRow] = {}
    for account_id, row in first.items():
        head_id = heads.get(account_id, account_id)
        known = dirty.get(head_id)
        if known is None or row.from_us < known.from_us:
            dirty[head_id] = msgspec.structs.replace(row, head_id=head_id)
    if dirty:
        db_charging.upsert_dirty(connection, list(dirty.values()))
