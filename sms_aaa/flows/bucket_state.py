"""Buckets between the database and the rules: read and locked for a batch of rating, stored as what they moved by.

An account's own buckets are for it alone; those of a head that are shared, for all members of its group. A bucket that
was closed covers no more than it did when it was.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import msgspec

from sms_aaa.db import bucket_use as db_use
from sms_aaa.db.bucket_use import BucketUse, Held, MemberUse, SessionUse
from sms_aaa.rules.buckets import BucketTerms, Grant
from sms_aaa.rules.covering import Bucket

if TYPE_CHECKING:
    from collections.abc import Collection, Hashable, Mapping, Sequence
    from fractions import Fraction

    from sms_aaa.db.bucket_use import BucketRow
    from sms_aaa.db.engine import Connection

TERMS_KEPT = 4_096
"""Of buckets: the plans' are the same for all their subscribers."""


@dataclass(slots=True)
class BucketState:
    """A bucket as the rules have it, and what of it is stored."""

    bucket: Bucket
    is_closed: bool
    used: int
    overrun: int
    reserved: dict[Hashable, int]
    covered: dict[Hashable, int]
    taken: dict[int, Fraction | int]


def load_buckets(
    connection: Connection,
    account_ids: Collection[int],
    heads: Mapping[int, int],
    session_ids: Collection[int],
    *,
    since_us: int | None = None,
    also_ids: Collection[int] = (),
) -> dict[int, list[BucketState]]:
    """Buckets that these accounts may use, by the head of their group, locked; with what sessions had of them.

    `since_us`: closed ones too, that were valid then or later; and those of `also_ids`.
    """
    owners = {*account_ids, *(heads[account_id] for account_id in account_ids)}
    rows = db_use.lock_buckets(connection, owners, since_us=since_us, also_ids=also_ids)
    found: dict[int, list[BucketState]] = defaultdict(list)
    if not rows:
        return found
    ids = [row.id for row in rows]
    covered: dict[int, dict[Hashable, int]] = defaultdict(dict)
    for use in db_use.list_session_uses(connection, ids, session_ids):
        covered[use.bucket_id][use.session_id] = use.covered
    taken: dict[int, dict[int, Fraction | int]] = defaultdict(dict)
    for share in db_use.list_member_uses(connection, ids):
        taken[share.bucket_id][share.account_id] = share.taken
    reserved: dict[int, dict[Hashable, int]] = defaultdict(dict)
    for held in db_use.list_held(connection, ids):
        reserved[held.bucket_id][session_of(held.session)] = held.quantity
    for row in rows:
        state = _state(row, reserved[row.id], covered[row.id], taken[row.id])
        is_shared = state.bucket.terms.is_shared and row.account_id in heads.values()
        state.bucket.owner = None if is_shared else row.account_id
        # One that a member used before it left the group is here to be given back to; it is for nobody.
        found[heads.get(row.account_id, next(iter(heads.values())))].append(state)
    return found


def store_buckets(connection: Connection, states: Sequence[BucketState], run_id: int, *, is_again: bool) -> None:
    """What they moved by since they were loaded or stored.

    `is_again`: a re-rating, whose differences are adjustments.
    """
    uses: list[BucketUse] = []
    held: list[Held] = []
    for state in states:
        bucket = state.bucket
        gone = {
            session: quantity - bucket.reserved[session]
            for session, quantity in state.reserved.items()
            if bucket.reserved[session] != quantity
        }
        held += (Held(bucket.grant.bucket_id, str(session), bucket.reserved[session]) for session in gone)
        if bucket.used != state.used or bucket.overrun != state.overrun or gone:
            uses.append(
                BucketUse(
                    bucket.grant.bucket_id,
                    int(bucket.used),
                    int(bucket.used - state.used),
                    bucket.overrun,
                    bucket.overrun - state.overrun,
                    sum(gone.values()),
                )
            )
    if held:
        db_use.update_held(connection, held)
    if uses:
        db_use.update_buckets(connection, uses, kind="adjust" if is_again else "use", run_id=run_id)
    _store_shares(connection, states)
    for state in states:
        bucket = state.bucket
        state.used, state.overrun = int(bucket.used), bucket.overrun
        state.reserved, state.covered, state.taken = dict(bucket.reserved), dict(bucket.covered), dict(bucket.taken)


def session_of(name: str) -> Hashable:
    """Whose a reservation is: a session's, if it is called by its id; else of whom the rater does not know."""
    return int(name) if name.isdecimal() else name


def _store_shares(connection: Connection, states: Sequence[BucketState]) -> None:
    sessions = [
        SessionUse(state.bucket.grant.bucket_id, session, covered)
        for state in states
        for session, covered in state.bucket.covered.items()
        if isinstance(session, int) and covered != state.covered.get(session, 0)
    ]
    if sessions:
        db_use.upsert_session_uses(connection, sessions)
    members = [
        MemberUse(state.bucket.grant.bucket_id, member, int(taken))
        for state in states
        for member, taken in state.bucket.taken.items()
        if taken != state.taken.get(member, 0)
    ]
    if members:
        db_use.upsert_member_uses(connection, members)


def _state(
    row: BucketRow, reserved: dict[Hashable, int], covered: dict[Hashable, int], taken: dict[int, Fraction | int]
) -> BucketState:
    granted = row.used if row.is_closed else row.granted
    grant = Grant(row.id, _terms_of(row.terms), granted, row.from_us, row.until_us, row.created_us)
    bucket = Bucket(grant, row.used, dict(reserved), dict(covered), dict(taken), row.overrun)
    return BucketState(bucket, row.is_closed, row.used, row.overrun, reserved, covered, taken)


@lru_cache(TERMS_KEPT)
def _terms_of(text: str) -> BucketTerms:
    return msgspec.json.decode(text, type=BucketTerms)
