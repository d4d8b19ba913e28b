"""Usage deltas -> slices, exact rated usage, running totals, ledger entries; and cycles, opened with their fees.

A batch in one transaction. Its deltas come off the queue in it (so they are rated once, or are still queued), the
shard of the accounts that they belong to is locked, and the totals of a component are moved from P(before) to P(after).
The ledger gets the difference of the rounded totals, once a batch and component, so that its entries add up
to the rounded total whatever the batches were.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from msgspec import Struct

from sms_aaa import __version__
from sms_aaa.db import ledger as db_ledger
from sms_aaa.db import plans as db_plans
from sms_aaa.db import rating as db_rating
from sms_aaa.db import rating_queue as db_queue
from sms_aaa.db.ledger import PostedEntry
from sms_aaa.db.rating import AccountRow, RatedUsage, SubscriptionRow, Total, TotalKey
from sms_aaa.db.rating_queue import QueuedDelta
from sms_aaa.db.usage import SHARDS
from sms_aaa.rules.cycle import Cycle, cycle_at
from sms_aaa.rules.ledger import LedgerAccount, difference_entry, revenue
from sms_aaa.rules.plan import Plan, plan_from_document
from sms_aaa.rules.rating import Slice, UsageFact, cycles_of, is_plausible, posted_minor, rate, slices
from sms_aaa.rules.tariff import UsageComponent

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from sms_aaa.db.engine import Connection

NO_SUBSCRIPTION = "no-subscription"
"""Suspense: the service was never on a plan, so no tariff says what its usage costs."""

IMPLAUSIBLE_TIMES = "implausible-times"
"""Suspense: the delta is longer than any session is without a reading; its NAS's clock is to be looked at."""

_NOTHING = Total(0, 0, 0)


@dataclass(frozen=True, slots=True)
class PricedPlan:
    """A plan version with the ids of its components."""

    plan: Plan
    component_ids: dict[str, int]


@dataclass(frozen=True, slots=True)
class RatedBatch:
    """What a run did."""

    deltas: int
    slices: int
    entries: int
    in_suspense: int


class PlanShelf:
    """Plan versions, read once each: they never change. The rater's, for as long as it lives.

    `by_component`: name and plan of every component id on it.
    """

    __slots__ = ("_plans", "by_component")

    def __init__(self) -> None:
        self._plans: dict[int, PricedPlan] = {}
        self.by_component: dict[int, tuple[str, Plan]] = {}

    def get(self, connection: Connection, plan_version_id: int) -> PricedPlan:
        if plan_version_id not in self._plans:
            [row] = db_plans.list_versions(connection, [plan_version_id])
            component_ids = db_plans.list_components(connection, plan_version_id)
            plan = plan_from_document(row.document)
            self._plans[plan_version_id] = PricedPlan(plan, component_ids)
            self.by_component.update({number: (name, plan) for name, number in component_ids.items()})
        return self._plans[plan_version_id]


class _Opening(Struct, frozen=True):
    """A subscription in a cycle of the account that pays for it."""

    account_id: int
    cycle: Cycle
    subscription: SubscriptionRow


class _Part(Struct, frozen=True, gc=False):
    """A slice of a delta that waits for its price."""

    delta: QueuedDelta
    opening: _Opening
    component: UsageComponent
    component_id: int
    slice: Slice


@dataclass(slots=True)
class _Books:
    """Cycles and totals of one transaction: loaded set-wise, moved in memory, stored set-wise."""

    cycle_ids: dict[tuple[int, datetime], int]
    totals: dict[TotalKey, Total]
    before: dict[TotalKey, Total]
    fees: list[PostedEntry]

    def key(self, opening: _Opening, component_id: int) -> TotalKey:
        cycle_id = self.cycle_ids[opening.account_id, opening.cycle.start]
        return TotalKey(opening.account_id, cycle_id, opening.subscription.id, component_id)


def rate_batch(connection: Connection, shelf: PlanShelf, shard: int, *, now: datetime, limit: int) -> RatedBatch:
    """Rates about `limit` queued deltas of a shard that db.rating_queue.find_shard locked in this transaction.

    Nothing is left half done when it raises, for the door rolls back.
    """
    queued = db_queue.claim_queue(connection, shard, limit)
    accounts = db_rating.get_accounts(connection, (delta.account_id for delta in queued))
    subscriptions = _by_service(db_rating.list_subscriptions(connection, (delta.service_id for delta in queued)))
    run_id = db_rating.insert_run(connection, program=__version__, started_at=now, deltas=len(queued))
    parts: list[_Part] = []
    suspended: dict[str, list[QueuedDelta]] = {NO_SUBSCRIPTION: [], IMPLAUSIBLE_TIMES: []}
    calendar = _Calendar()
    for delta in queued:
        subscription = find_subscription(subscriptions.get(delta.service_id, ()), delta.to_at)
        if subscription is None:
            suspended[NO_SUBSCRIPTION].append(delta)
        elif not is_plausible(_fact(delta)):
            suspended[IMPLAUSIBLE_TIMES].append(delta)
        else:
            priced = shelf.get(connection, subscription.plan_version_id)
            parts.extend(_cut(delta, accounts[delta.account_id], subscription, priced, calendar))
    books = _open_books(connection, shelf, [part.opening for part in parts])
    db_rating.insert_rated(connection, [_rate(books, part, run_id, shelf) for part in parts])
    for reason, deltas in suspended.items():
        db_rating.insert_suspense(connection, deltas, reason)
    entries = _close_books(connection, shelf, books, run_id)
    return RatedBatch(len(queued), len(parts), entries, sum(map(len, suspended.values())))


def suspend_next(connection: Connection, shard: int, *, reason: str) -> int:
    """Puts the delta that is first in a shard's queue aside, by name: it was tried alone and cannot be rated."""
    db_queue.lock_shards(connection, [shard])
    queued = db_queue.claim_queue(connection, shard, 1)
    db_rating.insert_suspense(connection, queued, reason)
    return len(queued)


def open_cycles(connection: Connection, shelf: PlanShelf, *, now: datetime, limit: int) -> int:
    """Opens the present cycle of up to `limit` subscriptions that have none, idle ones too; how many it was."""
    due = db_rating.list_due(connection, now, limit=limit)
    db_queue.lock_shards(connection, (row.account_id % SHARDS for row in due))
    accounts = db_rating.get_accounts(connection, (row.account_id for row in due))
    openings = []
    for row in due:
        account = accounts[row.account_id]
        # Begun before now, as the listing says: so its fee is due.
        subscription = SubscriptionRow(row.subscription_id, 0, row.plan_version_id, now, None)
        openings.append(_Opening(account.id, cycle_at(now, account.zone, account.anchor_day), subscription))
    books = _open_books(connection, shelf, openings)
    _close_books(connection, shelf, books, None)
    db_rating.update_due(connection, [(opening.subscription.id, opening.cycle.end) for opening in openings])
    return len(due)


class _Calendar:
    """The cycles that a batch has met: most deltas lie in one that an earlier delta lay in."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[tuple[str, int], Cycle] = {}

    def cycles(self, fact: UsageFact, account: AccountRow) -> list[Cycle]:
        at = (account.zone, account.anchor_day)
        known = self._known.get(at)
        if known is not None and known.start <= fact.from_at and fact.to_at < known.end:
            return [known]
        cycles = cycles_of(fact, account.zone, account.anchor_day)
        self._known[at] = cycles[-1]
        return cycles


def _cut(
    delta: QueuedDelta, account: AccountRow, subscription: SubscriptionRow, priced: PricedPlan, calendar: _Calendar
) -> list[_Part]:
    """The delta's slices in every component of its tariff."""
    fact = _fact(delta)
    cycles = calendar.cycles(fact, account)
    openings = {cycle: _Opening(account.id, cycle, subscription) for cycle in cycles}
    return [
        _Part(delta, openings[part.cycle], component, priced.component_ids[component.name], part)
        for component in priced.plan.tariff.usage
        for part in slices(fact, component, cycles)
    ]


def _open_books(connection: Connection, shelf: PlanShelf, openings: Iterable[_Opening]) -> _Books:
    """Cycles and totals of these openings; those that are opened now begin at zero and get their fees."""
    by_place = {(o.account_id, o.cycle.start, o.subscription.id): o for o in openings}
    cycles = {(o.account_id, o.cycle.start): (o.account_id, o.cycle.start, o.cycle.end) for o in by_place.values()}
    books = _Books(db_rating.upsert_cycles(connection, sorted(cycles.values())), {}, {}, [])
    usage = {place: _usage_keys(connection, shelf, books, opening) for place, opening in by_place.items()}
    stored = db_rating.list_totals(connection, [key for keys in usage.values() for key in keys])
    charges: dict[TotalKey, tuple[int, str, Plan]] = {}
    for place, opening in by_place.items():
        books.totals.update({key: stored.get(key, _NOTHING) for key in usage[place]})
        if not any(key in stored for key in usage[place]):
            books.before.update(dict.fromkeys(usage[place], _NOTHING))
            charges.update(_fees(connection, shelf, books, opening))
    amounts = [(key, amount_minor) for key, (amount_minor, _, _) in charges.items()]
    for key in db_rating.insert_charges(connection, amounts):
        amount_minor, name, plan = charges[key]
        books.fees.extend(_posted(key, None, 0, amount_minor, name, plan))
    return books


def _usage_keys(connection: Connection, shelf: PlanShelf, books: _Books, opening: _Opening) -> list[TotalKey]:
    priced = shelf.get(connection, opening.subscription.plan_version_id)
    return [books.key(opening, priced.component_ids[component.name]) for component in priced.plan.tariff.usage]


def _fees(
    connection: Connection, shelf: PlanShelf, books: _Books, opening: _Opening
) -> dict[TotalKey, tuple[int, str, Plan]]:
    """The fees of a cycle that is opened: due in advance and whole.

    A subscription that does not touch the cycle owes none for it, though usage of a session that outlives its
    subscription may fall into it.
    """
    subscription, cycle = opening.subscription, opening.cycle
    if subscription.starts_at >= cycle.end or (
        subscription.ends_at is not None and subscription.ends_at <= cycle.start
    ):
        return {}
    priced = shelf.get(connection, subscription.plan_version_id)
    return {
        books.key(opening, priced.component_ids[fee.name]): (fee.amount_minor, fee.name, priced.plan)
        for fee in priced.plan.tariff.recurring
    }


def _rate(books: _Books, part: _Part, run_id: int, shelf: PlanShelf) -> RatedUsage:
    """Moves the part's total by its price."""
    key = books.key(part.opening, part.component_id)
    total = books.totals[key]
    books.before.setdefault(key, total)
    result = rate(part.component, total_before=total.quantity, quantity=part.slice.quantity)
    currency = shelf.by_component[part.component_id][1].tariff.currency
    posted = posted_minor(part.component, currency, result.total_after)
    books.totals[key] = Total(result.total_after, total.numerator + result.numerator, posted)
    return RatedUsage(
        key=key,
        session_id=part.delta.session_id,
        seq=part.delta.seq,
        slice=part.slice.index,
        to_at=part.delta.to_at,
        run_id=run_id,
        quantity=part.slice.quantity,
        total_before=result.total_before,
        numerator=result.numerator,
    )


def _close_books(connection: Connection, shelf: PlanShelf, books: _Books, run_id: int | None) -> int:
    """Stores the totals that moved, and posts what each rounded total moved by; how many entries that made."""
    entries = list(books.fees)
    for key, was in sorted(books.before.items()):
        name, plan = shelf.by_component[key.component_id]
        entries.extend(_posted(key, run_id, was.posted_minor, books.totals[key].posted_minor, name, plan))
    db_rating.upsert_totals(connection, {key: books.totals[key] for key in books.before})
    db_ledger.insert_entries(connection, entries)
    return len(entries)


def find_subscription(subscriptions: Sequence[SubscriptionRow], at: datetime) -> SubscriptionRow | None:
    """The one that ran at an instant, else the last that had begun, else the first.

    Usage after the end of a subscription, or a moment before its beginning by a NAS's clock, belongs to it.
    """
    begun = [subscription for subscription in subscriptions if subscription.starts_at <= at]
    return begun[-1] if begun else next(iter(subscriptions), None)


def _by_service(rows: Iterable[SubscriptionRow]) -> dict[int, list[SubscriptionRow]]:
    found: dict[int, list[SubscriptionRow]] = {}
    for row in rows:
        found.setdefault(row.service_id, []).append(row)
    return found


def _fact(delta: QueuedDelta) -> UsageFact:
    return UsageFact(delta.octets_in, delta.octets_out, delta.from_at, delta.to_at)


def _posted(
    key: TotalKey, run_id: int | None, before_minor: int, after_minor: int, component: str, plan: Plan
) -> list[PostedEntry]:
    entry = difference_entry(
        before_minor=before_minor,
        after_minor=after_minor,
        debit=LedgerAccount.UNBILLED_RECEIVABLE,
        credit=revenue(component),
        currency=plan.tariff.currency,
    )
    return [PostedEntry(key, run_id, entry)] if entry is not None else []
