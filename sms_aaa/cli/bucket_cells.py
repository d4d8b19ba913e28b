"""A bucket as listings show it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sms_aaa.cli.output import Cell, Shown, octets, seconds

if TYPE_CHECKING:
    from sms_aaa.db.buckets import BucketRow

_OCTETS = ("upload", "download", "total")


def quantity_cell(row: BucketRow, quantity: int) -> Shown:
    """Base units; of money picounits. People read GB, days, units, or an amount."""
    from sms_aaa.rules.measure import UNIT_PARTS
    from sms_aaa.rules.money import PICOUNITS, format_exact

    if row.currency is not None:
        return Shown(quantity, format_exact(quantity, PICOUNITS, row.currency))
    if row.measure in _OCTETS:
        return octets(quantity)
    if row.measure == "seconds":
        return seconds(quantity)
    if row.measure == "units":
        whole, rest = divmod(quantity, UNIT_PARTS)
        return Shown(quantity, f"{whole}.{rest:06d}".rstrip("0").rstrip("."))
    return Shown(quantity, str(quantity))


def bucket_cells(row: BucketRow) -> dict[str, Cell]:
    """By their names. `left`: neither used nor held; of one that is closed nothing is."""
    left = row.granted - row.used - row.reserved if row.closed_at is None else 0
    return {
        "id": row.id,
        "subscriber": row.subscriber,
        "name": row.name,
        "kind": row.kind,
        "measure": row.measure,
        "currency": row.currency,
        "priority": row.priority,
        "shared": row.is_shared,
        "from": row.from_at,
        "until": row.until_at,
        "granted": quantity_cell(row, row.granted),
        "used": quantity_cell(row, row.used),
        "reserved": quantity_cell(row, row.reserved),
        "left": quantity_cell(row, left),
        "overrun": quantity_cell(row, row.overrun),
        "closed_at": row.closed_at,
    }
