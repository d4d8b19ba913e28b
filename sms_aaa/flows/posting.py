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
from sms_aaa.rules.ledger import LedgerAccount, difference_entry, revenue
from sms_aaa.rules.pricing import amount_minor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sms_aaa.db.engine import Connection
    from sms_aaa.flows.meters import Meter
    from sms_aaa.flows.shelf import PlanShelf


def post(connection: Connection, shelf: PlanShelf, moved: Sequence[Meter], run_id: int, *, reason: str) -> int:
    """Stores the totals that moved, and posts what each rounded total moved by; how many entries that made.

    `reason` stands on the adjustments of closed cycles.
    """
    entries: list[PostedEntry] = []
    for meter in moved:
        posted = amount_minor(meter.component, meter.currency, meter.numerator)
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
    _store_totals(connection, moved)
    if entries:
        db_ledger.insert_entries(connection, entries)
    closed = {meter.key.cycle_id for meter in moved if meter.is_closed}
    adjusted = adjust_closed(connection, shelf, closed, run_id=run_id, reason=reason) if closed else 0
    return len(entries) + adjusted


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
