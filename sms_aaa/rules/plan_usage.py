"""A price by usage of a plan file, and its tiers."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, NamedTuple

from sms_aaa.rules.measure import Kind, Measure, Unit, quantity_of
from sms_aaa.rules.money import AMOUNT_MINOR_MAX, PICOUNITS, exponent
from sms_aaa.rules.plan_table import Form, PlanInvalidError, lawful
from sms_aaa.rules.tariff import (
    DISCOUNT_PARTS,
    Model,
    Rounding,
    Scope,
    SessionLimit,
    Shape,
    Tier,
    UsageComponent,
    check_tiers,
)
from sms_aaa.rules.usage_keys import PER_UNIT

if TYPE_CHECKING:
    from fractions import Fraction

    from sms_aaa.rules.plan_table import Table

_TIERS_REMEDY = "order the tiers by up_to, above 0, and leave up_to out of the last one only"
_MANY = re.compile(r"[0-9.]+ ?[A-Za-z]+")


@dataclass(frozen=True, slots=True)
class Places:
    """The names that a tariff has for where usage lies, the defaults first."""

    keys: tuple[str, ...]
    slots: tuple[str, ...]
    bands: tuple[str, ...]

    @property
    def count(self) -> int:
        return len(self.keys) * len(self.slots) * len(self.bands)

    @property
    def grid(self) -> list[tuple[str, str, str]]:
        """As rules.tariff.places gives it of a whole tariff."""
        return list(product(self.keys, self.slots, self.bands))


class Per(NamedTuple):
    """What a price is for: `size` base units, which are so many of `unit`."""

    unit: Unit
    size: int


def read_usage(table: Table, currency: str, known: Places) -> UsageComponent:
    """`known`: what it may name."""
    name, measure, model = table.name(), table.choice("measure", Measure), _model(table)
    per = table.read("per", Form.PER, partial(_per_of, kind=measure.kind))
    quantity = partial(table.quantity, kind=measure.kind)
    step = partial(quantity, least=1)
    scope = table.choice("scope", Scope)
    if scope is not Scope.SESSION:
        for key in ("session_maximum", "session_limit"):
            table.refuse(key, "stands beside scope cycle", 'write scope = "session"')
    if model is not Model.PACKAGE:
        table.refuse("free", "is for packages", "write a first tier at price 0")
    tiers = _tiers(table, model, per, measure.kind)
    keys, slots, bands = places_of(table, known)
    increment = table.optional("increment", step) or 1
    return lawful(
        table.place,
        "see docs/tariffs.md for what goes together",
        lambda: UsageComponent(
            name,
            measure,
            per.unit.size,
            tiers,
            model=model,
            scope=scope,
            free_quantity=table.optional("free", quantity) or 0,
            initial_increment=table.optional("initial_increment", step) or increment,
            following_increment=increment,
            minimum_quantity=table.optional("minimum", quantity) or 0,
            grace_quantity=table.optional("grace", quantity) or 0,
            connect_fee_picounits=table.price("connect_fee"),
            session_maximum_picounits=table.optional("session_maximum", table.price),
            session_limit=table.choice("session_limit", SessionLimit),
            keys=keys,
            slots=slots,
            bands=bands,
            shape=_shape(table, currency),
        ),
    )


def places_of(table: Table, known: Places) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """(keys, slots, bands) that a component is for."""
    return (
        table.names("keys", known.keys, "a [[tariff.key]] of this name"),
        table.names("slots", known.slots, "a [[tariff.slot]] of this name"),
        table.names("bands", known.bands, "a [[tariff.band]] of this name"),
    )


def amount_picounits(table: Table, key: str, *, currency: str, form: Form = Form.AMOUNT) -> int:
    """An amount >= 0 of the currency in picounits, no finer than its minor unit."""

    def converted(amount: Fraction) -> int:
        minor = amount * 10 ** exponent(currency)
        if minor.denominator != 1:
            raise ValueError(f"is finer than the minor unit of {currency}, which has {exponent(currency)} decimals")
        if not 0 <= minor <= AMOUNT_MINOR_MAX:
            raise ValueError("is negative" if minor < 0 else "is too large")
        return int(amount * PICOUNITS)

    return table.number(key, form, converted)


def _model(table: Table) -> Model:
    """`per-unit` is graduated, of one price."""
    if table.text("model") != PER_UNIT:
        return table.choice("model", Model)
    for key in ("tiers", "included"):
        table.refuse(key, f"stands beside model {PER_UNIT}", 'write a price, or model = "graduated"')
    return Model.GRADUATED


def _tiers(table: Table, model: Model, per: Per, kind: Kind) -> tuple[Tier, ...]:
    # `included` with `price` is the short form of two tiers.
    if table.has("tiers"):
        for key in ("included", "price"):
            table.refuse(key, "stands beside tiers", "write either tiers, or included and price")
        rows = table.tables("tiers")
        if model is Model.PACKAGE:
            raise PlanInvalidError(table.at("tiers"), "stands beside model package", "write the price of one package")
        tiers = tuple(_tier(row, model, per, kind) for row in rows)
    else:
        if model is Model.STAIRSTEP:
            raise PlanInvalidError(table.at("tiers"), "is missing, and a stairstep is made of tiers", "write tiers")
        if model is not Model.GRADUATED:
            table.refuse("included", f"stands beside model {model}", "write tiers, or of a package what is free")
        included = table.optional("included", partial(table.quantity, kind=kind)) or 0
        beyond = Tier(None, table.price("price"))
        tiers = (Tier(included, 0), beyond) if included else (beyond,)
    lawful(table.at("tiers"), _TIERS_REMEDY, partial(check_tiers, tiers))
    size = per.size if per.size != per.unit.size else None
    return tuple(replace(tier, rate_unit=tier.rate_unit or size) for tier in tiers)


def _tier(table: Table, model: Model, per: Per, kind: Kind) -> Tier:
    up_to = table.optional("up_to", partial(table.quantity, kind=kind))
    if model is Model.STAIRSTEP:
        for key in ("price", "per", "increment"):
            table.refuse(key, "stands in a stairstep, which has flat fees only", "write flat")
    price = 0 if table.has("flat") and not table.has("price") else table.price("price")
    own = table.optional("per", partial(table.read, form=Form.PER, reader=partial(_per_of, kind=kind)))
    increment = table.optional("increment", partial(table.quantity, kind=kind, least=1)) or 1
    return Tier(up_to, price, table.price("flat"), _size_of(own, per), increment)


def _size_of(own: Per | None, per: Per) -> int | None:
    """A tier's own rate unit, where it is another one than the component's."""
    return None if own is None or own.size == per.size == per.unit.size else own.size


def _shape(table: Table, currency: str) -> Shape:
    amount = partial(amount_picounits, table, currency=currency)
    maximum, minimum = table.optional("maximum", amount), amount("minimum_charge")
    return lawful(
        table.at("minimum_charge"),
        "write a minimum that is not above the maximum",
        lambda: Shape(
            discount_billionths=table.number("discount", Form.PERCENT, _billionths_of),
            maximum_picounits=maximum,
            minimum_picounits=minimum,
            is_minimum_prorated=table.flag("prorate_minimum"),
            rounding_scale=table.optional("decimals", table.count),
            rounding=table.choice("round", Rounding),
        ),
    )


def _billionths_of(percent: Fraction) -> int:
    billionths = percent * DISCOUNT_PARTS / 100
    if billionths.denominator != 1 or not 0 <= billionths <= DISCOUNT_PARTS:
        raise ValueError("is not from 0 to 100, with at most 7 decimals")
    return int(billionths)


def _per_of(text: str, *, kind: Kind) -> Per:
    if not _MANY.fullmatch(text):
        unit = Unit.by_label(text)
        if unit.kind is not kind:
            raise ValueError(f"{text!r} counts {unit.kind}, where {kind} are counted")
        return Per(unit, unit.size)
    size = quantity_of(text, kind)
    if not size:
        raise ValueError(f"{text!r} is no unit")
    # 1,000 MB are a GB: equal tariffs are equal.
    units = [unit for unit in Unit if unit.kind is kind]
    exactly = [unit for unit in units if unit.size == size]
    return Per(exactly[0] if exactly else units[0], size)
