"""Online charging: sessions reserve what they will use, extend it, and give back or settle what is left.

One rule decides (rules/reserving.py), from rows that are locked: the account, then the buckets by their ids. So however
many ask at once, no two are promised the same. A session that is called by its id has its hold used by its usage, as
the rater rates it; what it holds in the end is released, or ends by itself.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

import msgspec

from sms_aaa.db import bucket_use as db_use
from sms_aaa.db import reservations as db_reservations
from sms_aaa.db.reservations import NewHold, SettledHold
from sms_aaa.flows.bucket_state import session_of
from sms_aaa.rules.buckets import BucketTerms, Grant
from sms_aaa.rules.charging import Total
from sms_aaa.rules.covering import Bucket
from sms_aaa.rules.instants import instant_us
from sms_aaa.rules.money import PICOUNITS, exponent
from sms_aaa.rules.reserving import Promise, Want, cost_of, promise, spread
from sms_aaa.rules.slots import Calendar, band_segments, slot_segments
from sms_aaa.rules.tariff import DEFAULT_KEY, Scope

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence
    from datetime import datetime, timedelta

    from sms_aaa.db.bucket_use import BucketRow
    from sms_aaa.db.engine import Connection
    from sms_aaa.db.reservations import PayerRow, ReservationRow
    from sms_aaa.flows.shelf import PlanShelf, PricedTariff
    from sms_aaa.rules.measure import Measure
    from sms_aaa.rules.tariff import UsageComponent

PREPAID = "prepaid"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a session asks for: so much of a measure, in base units, of the component that usage of it now is of.

    `session`: the id of a session in digits, or any other name. `key`: its rating key.
    """

    account_id: int
    session: str
    measure: Measure
    quantity: int
    lasts: timedelta
    key: str = DEFAULT_KEY


@dataclass(frozen=True, slots=True)
class NoTariff:
    """Nothing is known of what its usage costs: the account, its plan, or a component that counts it is missing."""

    reason: str


def reserve(connection: Connection, shelf: PlanShelf, asked: Asked, *, now: datetime) -> Promise | NoTariff:
    """Holds what there is of it for the session, on top of what it holds, and lets all of that last."""
    payer = db_reservations.lock_payer(connection, asked.account_id)
    if payer is None:
        return NoTariff(f"there is no account {asked.account_id}")
    rows = db_reservations.lock_usable(connection, payer.account_id, payer.head_id, now)
    subscription = db_reservations.find_subscription(connection, payer.account_id, now)
    if subscription is None:
        return NoTariff("the account's services are on no plan")
    tariff = shelf.tariff(connection, subscription.plan_version_id)
    want = _want(asked, payer, tariff, now)
    if want is None:
        return NoTariff(f"no component counts {asked.measure} of key {asked.key} now")
    held = db_reservations.list_reservations(
        connection, account_id=payer.account_id, bucket_ids=[row.id for row in rows]
    )
    buckets = _buckets(connection, rows, held, payer)
    component_id = dict(zip((part.name for part in tariff.tariff.usage), tariff.component_ids, strict=True))
    quantity, numerator = db_reservations.find_total(
        connection, payer.account_id, subscription.subscription_id, component_id[want.part.name], now
    )
    if want.part.scope is Scope.SESSION:
        quantity = _session_total(connection, want, subscription.subscription_id, component_id[want.part.name])
    promised = _promised(held, want, payer, component_id[want.part.name])
    cost = cost_of(want.part, Total(quantity, numerator), quantity, promised)
    made = promise(want, buckets, cost, _credit(payer, held))
    holds = [NewHold(hold.bucket_id, hold.quantity) for hold in made.holds]
    if made.priced:
        holds.append(NewHold(None, made.owed_picounits, component_id[want.part.name], made.priced))
    db_reservations.insert_holds(connection, payer.account_id, asked.session, holds, now + asked.lasts)
    return made


def release(connection: Connection, account_id: int, session: str) -> int:
    """Gives back all that a session holds; of how many buckets that was."""
    held = _lock_session(connection, account_id, session)
    return db_reservations.delete_holds(connection, [SettledHold(one.id) for one in held])


def settle(connection: Connection, account_id: int, session: str, quantity: int) -> int:
    """Uses so much of what a session holds of unit buckets, in the units of those, and gives the rest back.

    For usage that comes by no accounting record; that of sessions the rater takes from what they hold itself. What is
    more than is held is taken from what the buckets have left for the account, and beyond that it is their overrun,
    which is returned. A session that holds of no unit bucket uses nothing of any, and all of it is returned.
    """
    held = _lock_session(connection, account_id, session)
    free = db_reservations.lock_buckets_of(connection, [one.bucket_id for one in held if one.bucket_id is not None])
    for bucket_id, share in db_reservations.list_shares_left(connection, account_id, list(free)).items():
        free[bucket_id] = min(free[bucket_id], share)
    of_units = [one for one in held if one.bucket_id in free]
    used = spread(quantity, [one.quantity for one in of_units])
    beyond = quantity - sum(used)
    more = spread(beyond, [free[one.bucket_id] for one in of_units if one.bucket_id is not None])
    overrun = beyond - sum(more)
    settled = [
        SettledHold(one.id, share + extra, overrun if number == len(of_units) - 1 else 0)
        for number, (one, share, extra) in enumerate(zip(of_units, used, more, strict=True))
    ]
    settled += [SettledHold(one.id) for one in held if one.bucket_id not in free]
    db_reservations.delete_holds(connection, settled)
    return overrun


def expire_holds(connection: Connection, *, now: datetime, limit: int) -> int:
    """Gives back up to `limit` holds that have lasted as long as they should; how many."""
    found = db_reservations.list_expired(connection, now, limit=limit)
    if not found:
        return 0
    db_reservations.lock_buckets_of(connection, [one.bucket_id for one in found if one.bucket_id is not None])
    still = db_reservations.list_still_expired(connection, [one.id for one in found], now)
    return db_reservations.delete_holds(connection, [SettledHold(reservation_id) for reservation_id in still])


def _lock_session(connection: Connection, account_id: int, session: str) -> list[ReservationRow]:
    db_reservations.lock_payer(connection, account_id)

    def found() -> list[ReservationRow]:
        rows = db_reservations.list_reservations(connection, account_id=account_id)
        return [row for row in rows if row.session == session]

    db_reservations.lock_buckets_of(connection, [row.bucket_id for row in found() if row.bucket_id is not None])
    return found()  # the rater may have used some of it meanwhile


def _want(asked: Asked, payer: PayerRow, tariff: PricedTariff, now: datetime) -> Want | None:
    at_us = instant_us(now)
    calendar = Calendar(payer.zone, tariff.tariff.slots, tariff.tariff.holidays)
    [(_, slot)] = slot_segments(calendar, at_us, at_us)
    [(_, band)] = band_segments(tariff.tariff.bands, at_us, at_us, at_us)
    fitting = [part for part in tariff.tariff.usage if part.is_for(asked.key, slot, band)]
    part = _component(fitting, asked.measure)
    if part is None:
        return None
    return Want(part, asked.quantity, session_of(asked.session), payer.account_id, asked.key, slot, at_us)


def _component(fitting: Sequence[UsageComponent], measure: Measure) -> UsageComponent | None:
    """The first that counts this measure, else the first that counts of its kind."""
    exact = (part for part in fitting if part.measure is measure)
    return next(exact, next((part for part in fitting if part.measure.directions & measure.directions), None))


def _buckets(
    connection: Connection, rows: Sequence[BucketRow], held: Sequence[ReservationRow], payer: PayerRow
) -> list[Bucket]:
    ids = [row.id for row in rows]
    reserved: dict[int, dict[Hashable, int]] = defaultdict(dict)
    taken: dict[int, dict[int, Fraction | int]] = defaultdict(lambda: defaultdict(int))
    for share in db_use.list_member_uses(connection, ids):
        taken[share.bucket_id][share.account_id] += share.taken
    for one in held:
        if one.bucket_id is not None:
            reserved[one.bucket_id][session_of(one.session)] = one.quantity
            taken[one.bucket_id][one.account_id] += one.quantity  # a member's share is spoken for, too
    terms = {row.id: msgspec.convert(row.terms, BucketTerms) for row in rows}
    return [
        Bucket(
            Grant(row.id, terms[row.id], row.granted, row.from_us, row.until_us, row.created_us),
            Fraction(row.used),
            reserved[row.id],
            taken=dict(taken[row.id]),
            owner=None if row.account_id != payer.account_id else payer.account_id,
        )
        for row in rows
    ]  # fmt: skip


def _credit(payer: PayerRow, held: Sequence[ReservationRow]) -> Fraction | None:
    """What the account may still owe, in units of the currency; None: without limit."""
    if payer.credit_limit_minor is None and payer.charging_mode != PREPAID:
        return None
    owed = sum(one.quantity for one in held if one.bucket_id is None and one.account_id == payer.account_id)
    limit_minor = payer.credit_limit_minor or 0
    return Fraction(limit_minor - payer.owed_minor, 10 ** exponent(payer.currency)) - Fraction(owed, PICOUNITS)


def _promised(held: Sequence[ReservationRow], want: Want, payer: PayerRow, component_id: int) -> int:
    """Usage beyond buckets that is promised already, in the scope of the component's price."""
    return sum(
        one.priced
        for one in held
        if one.component_id == component_id
        and one.account_id == payer.account_id
        and (want.part.scope is Scope.CYCLE or session_of(one.session) == want.session)
    )


def _session_total(connection: Connection, want: Want, subscription_id: int, component_id: int) -> int:
    if not isinstance(want.session, int):
        return 0
    return db_reservations.find_session_total(connection, want.session, subscription_id, component_id)
