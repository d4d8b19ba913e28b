"""Money buckets pay for usage when it is posted, in whole minor units.

Of what a total rises by they pay what they have, in the order of buckets, and the rest is owed. Of what it falls by
first what is still owed of it is taken back; the rest is given back to the buckets that paid for it, the last first.

A bucket that came to be in retrospect, or has something again, pays what is still owed of the usage of its time when
that is rated again.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sms_aaa.db import ledger as db_ledger
from sms_aaa.rules.money import PICOUNITS, exponent
from sms_aaa.rules.pricing import amount_minor

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sms_aaa.db.engine import Connection
    from sms_aaa.flows.bucket_state import BucketState
    from sms_aaa.flows.meters import Meter
    from sms_aaa.rules.charging import Slice
    from sms_aaa.rules.covering import Bucket

Purses = dict[int, list["BucketState"]]
"""Money buckets by the account that may use them, in their order."""


def purses_of(states_by_head: Mapping[int, Sequence[BucketState]], heads: Mapping[int, int]) -> Purses:
    """Of accounts in groups or with buckets, by what was loaded of their groups."""
    found: Purses = {}
    for account_id, head_id in heads.items():
        mine = [
            state
            for state in states_by_head.get(head_id, ())
            if state.bucket.terms.measure is None and state.bucket.is_of(account_id)
        ]
        if mine:
            found[account_id] = sorted(mine, key=lambda state: state.bucket.grant.order)
    return found


def pay(
    connection: Connection, states: Sequence[BucketState], meter: Meter, difference_minor: int
) -> list[tuple[int, int]]:
    """(bucket id, minor units) that these pay of what a total moves by; below zero they are given back."""
    if difference_minor < 0:
        return _give_back(connection, states, meter, -difference_minor)
    paid: list[tuple[int, int]] = []
    for state in states:
        bucket = state.bucket
        if not difference_minor or not _pays_for(bucket, meter):
            continue
        share = _take(bucket, meter, difference_minor)
        if share:
            difference_minor -= share
            paid.append((bucket.grant.bucket_id, share))
    return paid


def _take(bucket: Bucket, meter: Meter, wanted_minor: int) -> int:
    """Takes of a bucket what it has for the member; how many minor units."""
    minor, member = _minor_of(meter), meter.key.account_id
    share = max(min(wanted_minor, int(bucket.left_for(None, member)) // minor), 0)
    if share:
        _move(bucket, member, share * minor)
    return share


@dataclass(frozen=True, slots=True)
class Paid:
    """What a bucket pays of a total."""

    meter: Meter
    bucket_id: int
    share_minor: int


def pay_owed(connection: Connection, purses: Purses, charged: Iterable[tuple[Slice, Meter, int]]) -> list[Paid]:
    """What money buckets pay of what is posted and still owed.

    `charged`: slices in open cycles, in their order, with the numerators that they moved their meters by. What buckets
    paid before counts as paid for the first of these slices that they could pay for: so it is never paid twice.
    """
    moved: dict[int, list[tuple[Slice, int]]] = defaultdict(list)
    meters: dict[int, Meter] = {}
    for piece, meter, numerator in charged:
        if meter.key.account_id in purses and not meter.is_closed:
            meters[id(meter)] = meter
            moved[id(meter)].append((piece, numerator))
    paid: list[Paid] = []
    for number, meter in meters.items():
        had = db_ledger.get_paid_by_buckets(connection, meter.key)
        owed_minor = meter.posted_minor - sum(had.values())
        states = [state for state in purses[meter.key.account_id] if _is_for(state.bucket, meter)]
        if owed_minor <= 0 or not states:
            continue
        unpaid = _unpaid(meter, moved[number])
        for state in states:
            _pay_slices(unpaid, state.bucket, had.get(state.bucket.grant.bucket_id, 0))
        for state in states:
            most_minor = sum(amount for piece, amount in unpaid if _is_in(state.bucket, piece))
            share = _take(state.bucket, meter, min(owed_minor, most_minor))
            if share:
                _pay_slices(unpaid, state.bucket, share)
                owed_minor -= share
                paid.append(Paid(meter, state.bucket.grant.bucket_id, share))
    return paid


def _unpaid(meter: Meter, moved: Sequence[tuple[Slice, int]]) -> list[tuple[Slice, int]]:
    """What the posted amount rose by with each slice."""
    numerator = meter.numerator - sum(numerator for _, numerator in moved)
    before = amount_minor(meter.component, meter.currency, numerator)
    found = []
    for piece, more in moved:
        numerator += more
        after = amount_minor(meter.component, meter.currency, numerator)
        found.append((piece, max(after - before, 0)))
        before = after
    return found


def _pay_slices(unpaid: list[tuple[Slice, int]], bucket: Bucket, share_minor: int) -> None:
    """Takes what a bucket pays off the slices of its time, the first first."""
    for number, (piece, amount) in enumerate(unpaid):
        if _is_in(bucket, piece):
            part = min(amount, share_minor)
            unpaid[number] = (piece, amount - part)
            share_minor -= part


def _is_in(bucket: Bucket, piece: Slice) -> bool:
    return bucket.is_usable(piece.from_us, piece.to_us)


def _give_back(
    connection: Connection, states: Sequence[BucketState], meter: Meter, fallen_minor: int
) -> list[tuple[int, int]]:
    minor = _minor_of(meter)
    had = db_ledger.get_paid_by_buckets(connection, meter.key)
    fallen_minor -= max(meter.posted_minor - sum(had.values()), 0)
    given: list[tuple[int, int]] = []
    for state in reversed(states):
        bucket_id = state.bucket.grant.bucket_id
        share = min(fallen_minor, had.get(bucket_id, 0), int(state.bucket.used) // minor)
        if share > 0:
            _move(state.bucket, meter.key.account_id, -share * minor)
            fallen_minor -= share
            given.append((bucket_id, -share))
    return given


def _minor_of(meter: Meter) -> int:
    """Picounits of a minor unit."""
    minor: int = PICOUNITS // 10 ** exponent(meter.currency)
    return minor


def _move(bucket: Bucket, member: int, picounits: int) -> None:
    bucket.used += picounits
    if bucket.terms.member_maximum is not None:
        bucket.taken[member] = bucket.taken.get(member, 0) + picounits


def _pays_for(bucket: Bucket, meter: Meter) -> bool:
    """By the end of what moved the total last."""
    grant = bucket.grant
    is_its_time = grant.from_us <= meter.at_us and (grant.until_us is None or meter.at_us <= grant.until_us)
    return is_its_time and _is_for(bucket, meter)


def _is_for(bucket: Bucket, meter: Meter) -> bool:
    """Where the terms name keys or slots, by those of the component."""
    terms, part = bucket.terms, meter.component
    return (
        (not terms.components or part.name in terms.components)
        and (not terms.keys or (bool(part.keys) and set(part.keys) <= set(terms.keys)))
        and (not terms.slots or (bool(part.slots) and set(part.slots) <= set(terms.slots)))
    )
