"""Usage deltas -> slices, exact rated usage, running totals, ledger entries; and cycles, opened with their fees.

A batch in one transaction. Its deltas come off the queue in it (so they are rated once, or are still queued), the
accounts they belong to are locked in the order of their ids, and the totals of a component are moved from P(before) to
P(after). The ledger gets the difference of the rounded totals, once a batch and component, so that its entries add up
to the rounded total whatever the batches were.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sms_aaa import __version__
from sms_aaa.db import ledger as db_ledger
from sms_aaa.db import plans as db_plans
from sms_aaa.db import rating as db_rating
from sms_aaa.db.ledger import PostedEntry
from sms_aaa.db.rating import AccountRow, QueuedDelta, RatedUsage, SubscriptionRow, Total, TotalKey
from sms_aaa.rules.cycle import Cycle, cycle_at
from sms_aaa.rules.ledger import LedgerAccount, difference_entry, revenue
from sms_aaa.rules.plan import Plan, plan_from_document
from sms_aaa.rules.rating import Slice, UsageFact, is_plausible, posted_minor, rate, slices

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from sms_aaa.db.engine import Connection

NO_SUBSCRIPTION = "no-subscription"
"""Suspense: the service was never on a plan, so no tariff says what its usage costs."""

IMPLAUSIBLE_TIMES = "implausible-times"
"""Suspense: the delta crosses more cycles than any usage can; its NAS's clock is to be looked at."""

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
    """Plan versions, read once each: they never change. The rater's, for as long as it lives."""

    __slots__ = ("_plans",)

    def __init__(self) -> None:
        self._plans: dict[int, PricedPlan] = {}

    def get(self, connection: Connection, plan_version_id: int) -> PricedPlan:
        if plan_version_id not in self._plans:
            [row] = db_plans.list_versions(connection, [plan_version_id])
            components = db_plans.list_components(connection, plan_version_id)
            self._plans[plan_version_id] = PricedPlan(plan_from_document(row.document), components)
        return self._plans[plan_version_id]

    def by_component(self) -> dict[int, tuple[str, Plan]]:
        """Name and plan of every component id read so far."""
        return {
            component_id: (name, priced.plan)
            for priced in self._plans.values()
            for name, component_id in priced.component_ids.items()
        }


class _Batch:
    """Totals and entries of one transaction, in memory until all of it is priced."""

    def __init__(self, connection: Connection, shelf: PlanShelf) -> None:
        self.connection = connection
        self.shelf = shelf
        self.cycles: dict[tuple[int, datetime], int] = {}
        self.opened: set[tuple[int, int]] = set()
        self.totals: dict[TotalKey, Total] = {}
        self.fees: list[PostedEntry] = []

    def cycle_id(self, account: AccountRow, cycle: Cycle) -> int:
        at = (account.id, cycle.start)
        if at not in self.cycles:
            self.cycles[at] = db_rating.upsert_cycle(self.connection, account.id, cycle.start, cycle.end)
        return self.cycles[at]

    def open(self, account: AccountRow, cycle: Cycle, subscription: SubscriptionRow) -> int:
        """The cycle's id; the first time that a subscription meets it, its fees are charged and its totals begin at 0.

        The fee is due in advance and whole; a subscription that does not touch the cycle owes none for it, though
        usage of a session that outlives its subscription may fall into it.
        """
        cycle_id = self.cycle_id(account, cycle)
        if (cycle_id, subscription.id) in self.opened:
            return cycle_id
        self.opened.add((cycle_id, subscription.id))
        priced = self.shelf.get(self.connection, subscription.plan_version_id)
        keys = {
            name: TotalKey(account.id, cycle_id, subscription.id, component_id)
            for name, component_id in priced.component_ids.items()
        }
        usage = [keys[component.name] for component in priced.plan.tariff.usage]
        stored = db_rating.list_totals(self.connection, usage)
        self.totals.update({key: stored.get(key, _NOTHING) for key in usage})
        if subscription.starts_at < cycle.end and (subscription.ends_at is None or subscription.ends_at > cycle.start):
            for fee in priced.plan.tariff.recurring:
                if db_rating.insert_charge(self.connection, keys[fee.name], fee.amount_minor):
                    self.fees.extend(_posted(keys[fee.name], None, 0, fee.amount_minor, fee.name, priced.plan))
        return cycle_id


def rate_batch(connection: Connection, shelf: PlanShelf, *, now: datetime, limit: int) -> RatedBatch:
    """Rates up to `limit` queued deltas; nothing is left half done when it raises, for the door rolls back."""
    queued = db_rating.claim_queue(connection, limit)
    if not queued:
        return RatedBatch(0, 0, 0, 0)
    accounts = db_rating.lock_accounts(connection, (delta.account_id for delta in queued))
    subscriptions = _by_service(db_rating.list_subscriptions(connection, (delta.service_id for delta in queued)))
    run_id = db_rating.insert_run(connection, program=__version__, started_at=now, deltas=len(queued))
    batch = _Batch(connection, shelf)
    rated: list[RatedUsage] = []
    in_suspense: list[QueuedDelta] = []
    implausible: list[QueuedDelta] = []
    before: dict[TotalKey, Total] = {}
    for delta in queued:
        subscription = find_subscription(subscriptions.get(delta.service_id, ()), delta.to_at)
        if subscription is None:
            in_suspense.append(delta)
            continue
        if not is_plausible(_fact(delta)):
            implausible.append(delta)
            continue
        rated.extend(_rate_delta(batch, accounts[delta.account_id], subscription, delta, run_id, before))
    db_rating.insert_rated(connection, rated)
    db_rating.insert_suspense(connection, in_suspense, NO_SUBSCRIPTION)
    db_rating.insert_suspense(connection, implausible, IMPLAUSIBLE_TIMES)
    entries = batch.fees + _post(batch, before, run_id)
    db_rating.upsert_totals(connection, batch.totals)
    db_ledger.insert_entries(connection, entries)
    return RatedBatch(len(queued), len(rated), len(entries), len(in_suspense) + len(implausible))


def open_cycles(connection: Connection, shelf: PlanShelf, *, now: datetime, limit: int) -> int:
    """Opens the present cycle of up to `limit` subscriptions that have none, idle ones too; how many it was."""
    missing = db_rating.list_without_cycle(connection, now, limit=limit)
    accounts = db_rating.lock_accounts(connection, (row.account_id for row in missing))
    batch = _Batch(connection, shelf)
    for row in missing:
        account = accounts[row.account_id]
        # Begun before now, as the listing says: so its fee is due.
        subscription = SubscriptionRow(row.subscription_id, 0, row.plan_version_id, now, None)
        batch.open(account, cycle_at(now, account.zone, account.anchor_day), subscription)
    db_rating.upsert_totals(connection, batch.totals)
    db_ledger.insert_entries(connection, batch.fees)
    return len(missing)


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


def _rate_delta(
    batch: _Batch,
    account: AccountRow,
    subscription: SubscriptionRow,
    delta: QueuedDelta,
    run_id: int,
    before: dict[TotalKey, Total],
) -> list[RatedUsage]:
    priced = batch.shelf.get(batch.connection, subscription.plan_version_id)
    fact = _fact(delta)
    rows = []
    for component in priced.plan.tariff.usage:
        for part in slices(fact, component, account.zone, account.anchor_day):
            cycle_id = batch.open(account, part.cycle, subscription)
            key = TotalKey(account.id, cycle_id, subscription.id, priced.component_ids[component.name])
            total = batch.totals[key]
            before.setdefault(key, total)
            result = rate(component, total_before=total.quantity, quantity=part.quantity)
            posted = posted_minor(component, priced.plan.tariff.currency, result.total_after)
            batch.totals[key] = Total(result.total_after, total.numerator + result.numerator, posted)
            rows.append(_rated_usage(key, delta, part, run_id, result.total_before, result.numerator))
    return rows


def _fact(delta: QueuedDelta) -> UsageFact:
    return UsageFact(delta.octets_in, delta.octets_out, delta.from_at, delta.to_at)


def _rated_usage(
    key: TotalKey, delta: QueuedDelta, part: Slice, run_id: int, total_before: int, numerator: int
) -> RatedUsage:
    return RatedUsage(
        key=key,
        session_id=delta.session_id,
        seq=delta.seq,
        slice=part.index,
        to_at=delta.to_at,
        run_id=run_id,
        quantity=part.quantity,
        total_before=total_before,
        numerator=numerator,
    )


def _post(batch: _Batch, before: dict[TotalKey, Total], run_id: int) -> list[PostedEntry]:
    """What the batch moved each rounded total by."""
    entries: list[PostedEntry] = []
    plans = batch.shelf.by_component()
    for key, was in sorted(before.items()):
        name, plan = plans[key.component_id]
        entries.extend(_posted(key, run_id, was.posted_minor, batch.totals[key].posted_minor, name, plan))
    return entries


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
