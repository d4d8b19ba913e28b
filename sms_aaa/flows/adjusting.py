"""Closed cycles that moved after all: the charges stay as they were made, and what they are off by is an adjustment.

The lines of the cycle are worked out anew, as if it were closed now: late usage may cost something, or be within a
minimum that was charged, or fall under a maximum. So what was frozen and the adjustments add up to the lines, whatever
came late and how often it is looked at.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from sms_aaa.db import closing as db_closing
from sms_aaa.db import ledger as db_ledger
from sms_aaa.db import rating as db_rating
from sms_aaa.db.closing import FrozenRow
from sms_aaa.db.ledger import PostedEntry
from sms_aaa.db.rating import Adjustment, TotalKey
from sms_aaa.flows.freezing import list_lines
from sms_aaa.rules.ledger import Event, post

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sms_aaa.db.engine import Connection
    from sms_aaa.flows.shelf import PlanShelf

Line = tuple[int, int, int]
"""(cycle id, subscription id, component id)."""


def adjust_closed(
    connection: Connection, shelf: PlanShelf, cycle_ids: Iterable[int], *, run_id: int, reason: str
) -> int:
    """Adjusts what these closed cycles were frozen with to what stands in them now; how many ledger entries that made.

    What their usage moved by has been posted: the entries here are of minimums and bounds.
    """
    rows = db_closing.list_closed(connection, sorted(set(cycle_ids)))
    cycles = {row.cycle_id: row for row in rows}
    lines: dict[Line, int] = defaultdict(int)
    names: dict[Line, str] = {}
    for opened, _, _, line in list_lines(connection, shelf, rows):
        component_id = shelf.get(connection, opened.plan_version_id).component_ids[line.name]
        key = (opened.cycle_id, opened.subscription_id, component_id)
        lines[key] += line.amount_minor
        names[key] = line.name
    frozen = {
        (row.cycle_id, row.subscription_id, row.component_id): row
        for row in db_closing.list_frozen(connection, list(cycles))
    }
    adjustments: list[Adjustment] = []
    entries: list[PostedEntry] = []
    for key in sorted({*lines, *frozen}):
        was = frozen.get(key, FrozenRow(*key, 0, 0, None))
        cycle = cycles[key[0]]
        total = TotalKey(cycle.account_id, *key)
        if lines[key] != was.amount_minor:
            adjustments.append(Adjustment(total, lines[key] - was.amount_minor, was.charge_id))
        entry = post(
            Event.ADJUSTMENT,
            lines[key] - was.earned_minor,
            cycle.currency,
            component=names.get(key) or db_rating.get_component_name(connection, key[2]),
        )
        if entry is not None:
            entries.append(PostedEntry(total, run_id, entry))
    if adjustments:
        db_rating.insert_adjustments(connection, adjustments, run_id=run_id, reason=reason)
    if entries:
        db_ledger.insert_entries(connection, entries)
    return len(entries)
