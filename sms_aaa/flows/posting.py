"""From totals that moved to the ledger: what each rounded total moved by, once a batch and component.

So the entries add up to the rounded total whatever the batches were. In a cycle that is closed the charge stays as it
was made: the difference is an adjustment that points at it, with its entry.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sms_aaa.db import ledger as db_ledger
from sms_aaa.db import rating as db_rating
from sms_aaa.db.ledger import PostedEntry
from sms_aaa.db.rating import Total
from sms_aaa.flows.adjusting import adjust_closed
from sms_aaa.flows.bucket_state import store_buckets
from sms_aaa.flows.purses import pay
from sms_aaa.rules import ledger
from sms_aaa.rules.ledger import Event
from sms_aaa.rules.pricing import amount_minor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sms_aaa.db.engine import Connection
    from sms_aaa.flows.meters import Meter
    from sms_aaa.flows.purses import Paid, Purses
    from sms_aaa.flows.shelf import PlanShelf


def post(
    connection: Connection,
    shelf: PlanShelf,
    moved: Sequence[Meter],
    run_id: int,
    *,
    reason: str,
    purses: Purses | None = None,
) -> int:
    """Stores the totals that moved, and posts what each rounded total moved by; how many entries that made.

    `reason` stands on the adjustments of closed cycles. `purses`: the money buckets that pay; they are stored too.
    """
    entries: list[PostedEntry] = []
    for meter in moved:
        posted = amount_minor(meter.component, meter.currency, meter.numerator)
        if posted != meter.posted_minor:
            entries += _entries(connection, meter, posted - meter.posted_minor, run_id, purses or {})
            meter.posted_minor = posted
    _store_totals(connection, moved)
    if entries:
        db_ledger.insert_entries(connection, entries)
    if purses:
        states = {id(state): state for of_account in purses.values() for state in of_account}
        store_buckets(connection, list(states.values()), run_id, is_again=False)
    closed = {meter.key.cycle_id for meter in moved if meter.is_closed}
    adjusted = adjust_closed(connection, shelf, closed, run_id=run_id, reason=reason) if closed else 0
    return len(entries) + adjusted


def post_paid(connection: Connection, paid: Sequence[Paid], purses: Purses, run_id: int) -> int:
    """What money buckets pay of usage that was posted as owed: how many entries that made. The buckets are stored."""
    found: list[PostedEntry] = []
    for one in paid:
        name, currency = one.meter.component.name, one.meter.currency
        taken_back = ledger.post(Event.USAGE, -one.share_minor, currency, component=name)
        used = ledger.post(Event.BUCKET_USE, one.share_minor, currency, component=name)
        assert taken_back is not None
        assert used is not None
        found.append(PostedEntry(one.meter.key, run_id, taken_back))
        found.append(PostedEntry(one.meter.key, run_id, used, one.bucket_id))
    db_ledger.insert_entries(connection, found)
    states = {id(state): state for of_account in purses.values() for state in of_account}
    store_buckets(connection, list(states.values()), run_id, is_again=True)
    return len(found)


def _entries(
    connection: Connection, meter: Meter, difference_minor: int, run_id: int, purses: Purses
) -> list[PostedEntry]:
    """What money buckets pay of a difference, and what is owed of it."""
    name, currency = meter.component.name, meter.currency
    states = purses.get(meter.key.account_id)
    paid = pay(connection, states, meter, difference_minor) if states else []
    found: list[tuple[ledger.Entry | None, int | None]] = [
        (ledger.post(Event.BUCKET_USE, share, currency, component=name), bucket_id) for bucket_id, share in paid
    ]
    owed = difference_minor - sum(share for _, share in paid)
    event = Event.ADJUSTMENT if meter.is_closed else Event.USAGE
    found.append((ledger.post(event, owed, currency, component=name), None))
    return [PostedEntry(meter.key, run_id, entry, bucket_id) for entry, bucket_id in found if entry is not None]


def _store_totals(connection: Connection, moved: Sequence[Meter]) -> None:
    new: list[Total] = []
    known: list[Total] = []
    for meter in moved:
        total = Total(meter.key, meter.quantity, meter.numerator, meter.posted_minor, meter.covered)
        (known if meter.is_stored else new).append(total)
        meter.is_stored, meter.has_moved = True, False
    if new:
        db_rating.insert_totals(connection, new)
    if known:
        db_rating.update_totals(connection, known)
