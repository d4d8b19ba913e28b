"""A bucket of a plan file."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from sms_aaa.rules.buckets import FACTOR_PARTS, BucketKind, BucketTerms, Overage, Rollover
from sms_aaa.rules.measure import Kind, Measure
from sms_aaa.rules.plan_table import Form, PlanInvalidError, lawful
from sms_aaa.rules.plan_usage import Places, amount_picounits

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from fractions import Fraction

    from sms_aaa.rules.plan_table import Table
    from sms_aaa.rules.tariff import UsageComponent

FACTOR_MAX = 1_000
_OF_UNITS = ("increment", "factor", "connect_fee", "blocks", "overage", "keeps_overage")
"""Money is paid to the last fraction, in order, and what it does not pay is owed: it has none of these."""


def read_bucket(table: Table, currency: str, known: Places, usage: Sequence[UsageComponent]) -> BucketTerms:
    """`known` and `usage`: what it may name and cover."""
    name, measure = table.name(), _measure(table)
    quantity = _reader_of(table, measure, currency)
    if not table.flag("blocks"):
        table.refuse("overage", "is for a bucket that blocks", "write blocks = true")
    if not table.flag("shared"):
        table.refuse("member_maximum", "is for a shared bucket", "write shared = true")
    terms = lawful(
        table.place,
        "see docs/tariffs.md for what goes together",
        lambda: BucketTerms(
            name,
            measure,
            quantity("amount"),
            kind=table.choice("kind", BucketKind),
            priority=table.count("priority"),
            components=_components(table, measure, usage),
            keys=table.names("keys", known.keys, "a [[tariff.key]] of this name"),
            slots=table.names("slots", known.slots, "a [[tariff.slot]] of this name"),
            increment=table.optional("increment", partial(quantity, least=1)) or 1,
            factor_parts=table.number("factor", Form.FACTOR, _parts_of),
            connect_fee=table.optional("connect_fee", quantity) or 0,
            blocks=table.flag("blocks"),
            overage=table.choice("overage", Overage),
            keeps_overage=table.flag("keeps_overage"),
            is_shared=table.flag("shared"),
            member_maximum=table.optional("member_maximum", quantity),
            is_prorated=table.flag("prorate"),
            valid_seconds=table.optional("valid", table.duration),
            rollover=_rollover(table, measure, currency),
        ),
    )
    if not any(terms.can_cover(part.measure) for part in usage):
        raise PlanInvalidError(table.at("measure"), f"is {measure}, which no component counts", "count what one counts")
    return terms


def _measure(table: Table) -> Measure | None:
    """None of money."""
    if not table.flag("money"):
        return table.choice("measure", Measure)
    table.refuse("measure", "stands beside money", "write either")
    for key in _OF_UNITS:
        table.refuse(key, "stands beside money", "leave it out: money pays for any component, exactly")
    return None


def _reader_of(table: Table, measure: Measure | None, currency: str) -> Callable[..., int]:
    """Of quantities of a bucket; of money they are amounts in picounits."""
    if measure is not None:
        return partial(table.quantity, kind=measure.kind)
    return partial(amount_picounits, table, currency=currency, form=Form.QUANTITY)


def _components(table: Table, measure: Measure | None, usage: Sequence[UsageComponent]) -> tuple[str, ...]:
    by_name = {part.name: part for part in usage}
    names = table.names("components", tuple(by_name), "a price by usage of this name")
    for index, name in enumerate(names):
        counted = by_name[name].measure
        if measure not in {None, counted} and not (measure is Measure.TOTAL and counted.kind is Kind.OCTETS):
            place = f"{table.at('components')}[{index}]"
            raise PlanInvalidError(place, f"is {name!r}, which counts {counted}, not {measure}", "name what it covers")
    return names


def _rollover(table: Table, measure: Measure | None, currency: str) -> Rollover | None:
    if not table.has("rollover"):
        return None
    inner = table.table("rollover")
    quantity = _reader_of(inner, measure, currency)
    return Rollover(
        minimum=inner.optional("minimum", quantity) or 0,
        maximum=inner.optional("maximum", quantity),
        periods=inner.count("periods"),
    )


def _parts_of(factor: Fraction) -> int:
    parts = factor * FACTOR_PARTS
    if parts.denominator != 1 or not 0 <= factor <= FACTOR_MAX:
        raise ValueError(f"is not from 0 to {FACTOR_MAX}, with at most 6 decimals")
    return int(parts)
