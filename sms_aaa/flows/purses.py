"""Money buckets pay for usage when it is posted, in whole minor units.

Of what a total rises by they pay what they have, in the order of buckets, and the rest is owed. Of what it falls by
first what is still owed of it is taken back; the rest is given back to the buckets that paid for it, the last first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sms_aaa.db import ledger as db_ledger
from sms_aaa.rules.money import PICOUNITS, exponent

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sms_aaa.db.engine import Connection
    from sms_aaa.flows.bucket_state import BucketState
    from sms_aaa.flows.meters import Meter
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
    minor = PICOUNITS // 10 ** exponent(meter.currency)
    if difference_minor < 0:
        return _give_back(connection, states, meter, -difference_minor, minor)
    paid: list[tuple[int, int]] = []
    member = meter.key.account_id
    for state in states:
        bucket = state.bucket
        if not difference_minor or not _pays_for(bucket, meter):
            continue
        share = min(difference_minor, int(bucket.left_for(None, member)) // minor)
        if share > 0:
            _move(bucket, member, share * minor)
            difference_minor -= share
            paid.append((bucket.grant.bucket_id, share))
    return paid


def _give_back(
    connection: Connection, states: Sequence[BucketState], meter: Meter, amount_minor: int, minor: int
) -> list[tuple[int, int]]:
    had = db_ledger.get_paid_by_buckets(connection, meter.key)
    amount_minor -= max(meter.posted_minor - sum(had.values()), 0)
    given: list[tuple[int, int]] = []
    for state in reversed(states):
        bucket_id = state.bucket.grant.bucket_id
        share = min(amount_minor, had.get(bucket_id, 0), int(state.bucket.used) // minor)
        if share > 0:
            _move(state.bucket, meter.key.account_id, -share * minor)
            amount_minor -= share
            given.append((bucket_id, -share))
    return given


def _move(bucket: Bucket, member: int, picounits: int) -> None:
    bucket.used += picounits
    if bucket.terms.member_maximum is not None:
        bucket.taken[member] = bucket.taken.get(member, 0) + picounits


def _pays_for(bucket: Bucket, meter: Meter) -> bool:
    """By the end of what moved the total last, and where the terms name keys or slots by those of the component."""
    terms, part, grant = bucket.terms, meter.component, bucket.grant
    return (
        grant.from_us <= meter.at_us
        and (grant.until_us is None or meter.at_us <= grant.until_us)
        and (not terms.components or part.name in terms.components)
        and (not terms.keys or (bool(part.keys) and set(part.keys) <= set(terms.keys)))
        and (not terms.slots or (bool(part.slots) and set(part.slots) <= set(terms.slots)))
    )
