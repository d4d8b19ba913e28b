"""Buckets that are not of a plan: granted, bought, ended. And money that comes in."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from sms_aaa.db import bucket_changes as db_changes
from sms_aaa.db import buckets as db_buckets
from sms_aaa.db import charging as db_charging
from sms_aaa.db import rating_queue as db_queue
from sms_aaa.db.charging import DirtyRow
from sms_aaa.db.usage import SHARDS
from sms_aaa.flows.granting import bucket_of
from sms_aaa.flows.provisioning.accounts import get_account
from sms_aaa.flows.provisioning.desk import Desk, Invalid, Refused, RefusedKind
from sms_aaa.rules.instants import instant_us
from sms_aaa.rules.ledger import Event, post
from sms_aaa.rules.money import PICOUNITS, minor_of

if TYPE_CHECKING:
    from datetime import datetime

    from sms_aaa.db.buckets import BucketRow
    from sms_aaa.db.engine import Connection
    from sms_aaa.rules.buckets import BucketTerms

GRANTED_LATE = "granted-in-retrospect"
ENDED_LATE = "ended-in-retrospect"
"""Why a group is dirty: usage that was rated already may use a bucket from an instant on, or may not any more."""


@dataclass(frozen=True, slots=True)
class ToGrant:
    """A bucket for a subscriber's account, usable in [from_at, until_at); None: without end."""

    name: str
    terms: BucketTerms
    from_at: datetime
    until_at: datetime | None


def grant_bucket(desk: Desk, new: ToGrant, *, now: datetime) -> int:
    """Its id. Money that it is of is a gift: nothing is posted."""
    if new.until_at is not None and new.until_at <= max(new.from_at, now):
        raise Invalid("--until", "it would be over before it can be used", "let it end later")
    account = get_account(desk.connection, new.name)
    head_id = account.head_id or account.id
    db_queue.lock_shards(desk.connection, [head_id % SHARDS])
    bucket = bucket_of(
        new.terms,
        account_id=account.id,
        currency=account.currency,
        from_at=new.from_at,
        until_at=new.until_at,
        created_at=now,
        granted=new.terms.amount,
    )
    [bucket_id] = db_buckets.insert_buckets(desk.connection, [bucket])
    _rate_again(desk.connection, head_id, new.from_at, GRANTED_LATE)
    after = {"subscriber": new.name, "bucket": new.terms.name, "kind": new.terms.kind, "granted": str(bucket.granted)}
    desk.record("granted", "bucket", bucket_id, before=None, after=after)
    return bucket_id


def top_up(desk: Desk, new: ToGrant, *, now: datetime) -> int:
    """A bucket that was bought; of money the ledger has it as deferred revenue, for it is not earned before its use."""
    bucket_id = grant_bucket(desk, new, now=now)
    if new.terms.measure is None:
        account = get_account(desk.connection, new.name)
        amount_minor = _paid_minor(Fraction(new.terms.amount, PICOUNITS), account.currency)
        entry = post(Event.TOP_UP, amount_minor, account.currency)
        assert entry is not None
        db_changes.insert_money(desk.connection, account.id, entry, bucket_id=bucket_id)
    return bucket_id


def take_payment(desk: Desk, name: str, amount: Fraction, note: str) -> int:
    """Money that came in for no invoice and no bucket is the customer's credit; minor units."""
    account = get_account(desk.connection, name)
    amount_minor = _paid_minor(amount, account.currency)
    entry = post(Event.PAYMENT, amount_minor, account.currency)
    assert entry is not None
    db_changes.insert_money(desk.connection, account.id, entry, note=note)
    desk.record("paid", "account", account.id, before=None, after={"amount_minor": amount_minor, "note": note})
    return amount_minor


def get_bucket(connection: Connection, bucket_id: int) -> BucketRow:
    row = db_buckets.find_bucket(connection, bucket_id)
    if row is None:
        raise Refused(RefusedKind.NOT_FOUND, f"there is no bucket {bucket_id}", "see `sms-aaa bucket list`")
    return row


def end_bucket(desk: Desk, bucket_id: int, *, now: datetime) -> None:
    """It can be used no more from now on, nothing of it rolls over, and what is held of it is given back."""
    account_id = get_bucket(desk.connection, bucket_id).account_id
    [head_id] = db_charging.list_heads_of(desk.connection, [account_id])
    db_queue.lock_shards(desk.connection, [head_id % SHARDS])
    row = get_bucket(desk.connection, bucket_id)
    if row.closed_at is not None or (row.until_at is not None and row.until_at <= now):
        raise Refused(RefusedKind.CONFLICT, f"bucket {bucket_id} is over", "see `sms-aaa bucket show`")
    if row.from_at >= now:
        raise Refused(RefusedKind.CONFLICT, f"bucket {bucket_id} has not begun", "expire it when it has")
    db_changes.update_ended(desk.connection, bucket_id, now)
    _rate_again(desk.connection, head_id, now, ENDED_LATE)
    after = {"until": now.isoformat()}
    before = {"until": row.until_at.isoformat() if row.until_at is not None else None}
    desk.record("expired", "bucket", bucket_id, before=before, after=after)


def _rate_again(connection: Connection, head_id: int, since: datetime, reason: str) -> None:
    """Has the rater rate the group again from an instant on, if it has rated later usage; its shard is locked."""
    if db_charging.is_rated_since(connection, db_charging.list_members(connection, head_id), since):
        db_charging.upsert_dirty(connection, [DirtyRow(head_id, instant_us(since), reason)])


def _paid_minor(amount: Fraction, currency: str) -> int:
    remedy = 'write an amount such as "10.00"'
    try:
        amount_minor = minor_of(amount, currency)
    except ValueError as fault:
        raise Invalid("AMOUNT", str(fault), remedy) from fault
    if amount_minor <= 0:
        raise Invalid("AMOUNT", "is not above zero", remedy)
    return amount_minor
