"""A plan as people read it: prices, then whatever else its tariff says, in the words of its file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sms_aaa.cli.output import Cell, Format, heading, listing, money

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sms_aaa.rules.tariff import Tariff, Tier, UsageComponent

_SHOWN_WITH_PRICES = {"name", "amount", "period", "measure", "per", "price", "included", "tiers", "components"}
"""Of fees, usage and bounds: what the table of prices has."""

_TABLES = ("recurring", "one_time", "usage", "bound")


def show_tariff(tariff: Tariff) -> None:
    """Tables for people: prices; then, where there are some, conditions, buckets, and when and where usage lies."""
    from sms_aaa.rules.plan_writing import tables_of_tariff

    tables = tables_of_tariff(tariff)
    heading("tariff")
    listing(("component", "kind", "from", "up_to", "price"), _prices(tariff), Format.TABLE)
    conditions = [
        (str(row["name"]), key, _text(value))
        for name in _TABLES
        for row in _rows(tables, name)
        for key, value in row.items()
        if key not in _SHOWN_WITH_PRICES
    ]
    _part("conditions", ("component", "key", "value"), conditions)
    buckets = [
        (str(row["name"]), key, _text(value))
        for row in _rows(tables, "bucket")
        for key, value in row.items()
        if key != "name"
    ]
    _part("buckets", ("bucket", "key", "value"), buckets)
    places = [
        (kind, str(row["name"]), ", ".join(f"{key} {_text(value)}" for key, value in row.items() if key != "name"))
        for kind in ("slot", "band", "key")
        for row in _rows(tables, kind)
    ]
    _part("slots, bands and rating keys", ("kind", "name", "what"), places)
    rest = [(key, _text(tables[key])) for key in ("switch", "carry", "holidays") if key in tables]
    _part("calendar and changes", ("key", "value"), rest)


def _part(title: str, columns: tuple[str, ...], rows: Sequence[Sequence[Cell]]) -> None:
    if rows:
        heading(title)
        listing(columns, rows, Format.TABLE)


def _rows(tables: dict[str, object], name: str) -> list[dict[str, object]]:
    rows = tables.get(name, [])
    assert isinstance(rows, list)
    return rows


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, dict):
        return ", ".join(f"{key} {_text(part)}" for key, part in value.items())
    return str(value)


def _prices(tariff: Tariff) -> Iterator[tuple[Cell, ...]]:
    for fee in tariff.recurring:
        yield fee.name, f"each {fee.period}", None, None, money(fee.amount_minor, tariff.currency)
    for once in tariff.one_time:
        yield once.name, "once", None, None, money(once.amount_minor, tariff.currency)
    for part in tariff.usage:
        position = 0
        for tier in part.tiers:
            bound = None if tier.up_to is None else _shown(part, tier.up_to)
            yield part.name, part.measure.value, _shown(part, position), bound, _price(tier, part, tariff.currency)
            position = tier.up_to or position
    for bound_ in tariff.bounds:
        yield bound_.name, "bound", None, None, f"over {', '.join(bound_.components)}"


def _price(tier: Tier, part: UsageComponent, currency: str) -> str:
    from sms_aaa.rules.measure import quantity_text
    from sms_aaa.rules.money import PICOUNITS, format_exact
    from sms_aaa.rules.tariff import Model

    per = quantity_text(tier.rate_unit, part.measure.kind) if tier.rate_unit else part.unit.label
    price = f"{format_exact(tier.price_picounits, PICOUNITS, currency)} per {per}"
    flat = format_exact(tier.flat_picounits, PICOUNITS, currency)
    if part.model is Model.STAIRSTEP:
        return flat
    steps = f", in steps of {quantity_text(tier.increment, part.measure.kind)}" if tier.increment > 1 else ""
    return f"{f'{flat} and ' if tier.flat_picounits else ''}{price}{steps}"


def _shown(part: UsageComponent, quantity: int) -> Cell:
    from sms_aaa.cli.output import Shown, octets
    from sms_aaa.rules.measure import Kind, quantity_text

    kind = part.measure.kind
    return octets(quantity) if kind is Kind.OCTETS else Shown(quantity, quantity_text(quantity, kind))
