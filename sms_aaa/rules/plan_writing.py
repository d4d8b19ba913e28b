"""A tariff in the words of its file: the tables that read back to it. What has its default is left out."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

from sms_aaa.rules.bucket_keys import BUCKET, ROLLOVER
from sms_aaa.rules.buckets import FACTOR_PARTS
from sms_aaa.rules.measure import Kind, Unit, quantity_text
from sms_aaa.rules.money import ABSTRACT, PICOUNITS, exponent
from sms_aaa.rules.tariff import DISCOUNT_PARTS, Model, Scope
from sms_aaa.rules.tariff_keys import BAND, BOUND, KEY, ONE_TIME, RECURRING, SLOT, TARIFF
from sms_aaa.rules.usage_keys import TIER, USAGE

if TYPE_CHECKING:
    from sms_aaa.rules.buckets import BucketTerms, Rollover
    from sms_aaa.rules.plan_table import Section
    from sms_aaa.rules.slots import Band, Holiday, Slot
    from sms_aaa.rules.tariff import (
        Bound,
        KeyRule,
        OneTimeComponent,
        RecurringComponent,
        Shape,
        Tariff,
        Tier,
        UsageComponent,
    )

Row = dict[str, object]

_DURATIONS = (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1))


def tables_of_tariff(tariff: Tariff) -> Row:
    """The [tariff] of a file, as texts, whole numbers, truth values, lists and tables."""
    currency = tariff.currency
    return _kept(
        TARIFF,
        currency=currency,
        switch=tariff.switch.value,
        carry=tariff.carry.value,
        holidays=[_day(day) for day in tariff.holidays],
        slot=[_slot(slot) for slot in tariff.slots],
        band=[_band(band) for band in tariff.bands],
        key=[_key(rule) for rule in tariff.keys],
        recurring=[_recurring(fee, currency) for fee in tariff.recurring],
        one_time=[_one_time(fee, currency) for fee in tariff.one_time],
        usage=[_usage(part, currency) for part in tariff.usage],
        bound=[_bound(bound, currency) for bound in tariff.bounds],
        bucket=[table_of_bucket(terms, currency) for terms in tariff.buckets],
    )


def _slot(slot: Slot) -> Row:
    edges = {"from": _clock(slot.from_second), "to": _clock(slot.to_second)}
    return _kept(SLOT, name=slot.name, days=[day.value for day in slot.days], **edges)


def _band(band: Band) -> Row:
    edges = {"from": _time(band.from_seconds), "to": _time(band.to_seconds)}
    return _kept(BAND, name=band.name, **edges)


def _key(rule: KeyRule) -> Row:
    return _kept(
        KEY,
        name=rule.name,
        service_class=list(rule.service_classes),
        nas_zone=list(rule.nas_zones),
        called_station=list(rule.called_stations),
        realm=list(rule.realms),
    )


def _recurring(fee: RecurringComponent, currency: str) -> Row:
    return _kept(
        RECURRING,
        name=fee.name,
        amount=_minor(fee.amount_minor, currency),
        period=fee.period.value,
        due=fee.due.value,
        prorate=fee.proration.value,
        anchor=fee.anchor.value,
        quantity=fee.quantity,
        trial=f"{fee.trial_days}d" if fee.trial_days else None,
    )


def _one_time(fee: OneTimeComponent, currency: str) -> Row:
    return _kept(ONE_TIME, name=fee.name, amount=_minor(fee.amount_minor, currency), quantity=fee.quantity)


def _bound(bound: Bound, currency: str) -> Row:
    return _kept(
        BOUND,
        name=bound.name,
        components=list(bound.components),
        maximum=_price(bound.maximum_picounits, currency),
        minimum=_price(_more_than(0, bound.minimum_picounits), currency),
        prorate_minimum=bound.is_minimum_prorated,
    )


def table_of_bucket(terms: BucketTerms, currency: str) -> Row:
    """A [[tariff.bucket]]."""

    def amount(quantity: int | None) -> str | None:
        return _price(quantity, currency) if terms.measure is None else _quantity(quantity, terms.measure.kind)

    return _kept(
        BUCKET,
        name=terms.name,
        measure=terms.measure.value if terms.measure else None,
        money=terms.measure is None,
        amount=amount(terms.amount),
        kind=terms.kind.value,
        priority=terms.priority,
        components=list(terms.components),
        keys=list(terms.keys),
        slots=list(terms.slots),
        increment=amount(_more_than(1, terms.increment)),
        factor=_decimal(Fraction(terms.factor_parts, FACTOR_PARTS)),
        connect_fee=amount(_more_than(0, terms.connect_fee)),
        blocks=terms.blocks,
        overage=terms.overage.value,
        keeps_overage=terms.keeps_overage,
        shared=terms.is_shared,
        member_maximum=amount(terms.member_maximum),
        prorate=terms.is_prorated,
        valid=_duration(terms.valid_seconds) if terms.valid_seconds else None,
        rollover=_rollover(terms.rollover, terms, currency) if terms.rollover else None,
    )


def _rollover(rule: Rollover, terms: BucketTerms, currency: str) -> Row:
    def amount(quantity: int | None) -> str | None:
        return _price(quantity, currency) if terms.measure is None else _quantity(quantity, terms.measure.kind)

    return _kept(
        ROLLOVER,
        minimum=amount(_more_than(0, rule.minimum)),
        maximum=amount(rule.maximum),
        periods=rule.periods,
    )


def _usage(part: UsageComponent, currency: str) -> Row:
    kind, step = part.measure.kind, part.following_increment
    own = part.tiers[0].rate_unit
    is_package = part.model is Model.PACKAGE
    is_plain = is_package or (part.model is Model.GRADUATED and len(part.tiers) == 1 and _is_price_only(part.tiers[0]))
    # A price per so many of a unit reads as a component in base units: one in another unit says so in its tier.
    is_plain &= is_package or not own or part.rate_unit == min(unit.size for unit in Unit if unit.kind is kind)
    return _kept(
        USAGE,
        name=part.name,
        measure=part.measure.value,
        per=_quantity(own, kind) if is_plain and own else part.unit.label,
        model=part.model.value,
        scope=part.scope.value,
        price=_price(part.tiers[0].price_picounits, currency) if is_plain else None,
        tiers=None if is_plain else [_tier(tier, part, currency) for tier in part.tiers],
        free=_quantity(_more_than(0, part.free_quantity), kind),
        initial_increment=None if part.initial_increment == step else _quantity(part.initial_increment, kind),
        increment=_quantity(_more_than(1, step), kind),
        minimum=_quantity(_more_than(0, part.minimum_quantity), kind),
        grace=_quantity(_more_than(0, part.grace_quantity), kind),
        connect_fee=_price(_more_than(0, part.connect_fee_picounits), currency),
        session_maximum=_price(part.session_maximum_picounits, currency),
        session_limit=part.session_limit.value if part.scope is Scope.SESSION else None,
        keys=list(part.keys),
        slots=list(part.slots),
        bands=list(part.bands),
        **_shape(part.shape, currency),
    )


def _shape(shape: Shape, currency: str) -> Row:
    return {
        "discount": _decimal(Fraction(shape.discount_billionths * 100, DISCOUNT_PARTS)),
        "maximum": _price(shape.maximum_picounits, currency),
        "minimum_charge": _price(_more_than(0, shape.minimum_picounits), currency),
        "prorate_minimum": shape.is_minimum_prorated,
        "round": shape.rounding.value,
        "decimals": shape.rounding_scale,
    }


def _tier(tier: Tier, part: UsageComponent, currency: str) -> Row:
    kind, is_step = part.measure.kind, part.model is Model.STAIRSTEP
    row = _kept(
        TIER,
        up_to=_quantity(tier.up_to, kind),
        price=None if is_step else _price(tier.price_picounits, currency),
        flat=_price(_more_than(0, tier.flat_picounits), currency),
        per=_quantity(tier.rate_unit, kind),
        increment=_quantity(_more_than(1, tier.increment), kind),
    )
    # A step has a flat fee, of nothing too.
    return {**row, "flat": _price(tier.flat_picounits, currency)} if is_step else row


def _is_price_only(tier: Tier) -> bool:
    return not tier.flat_picounits and tier.increment == 1


def _kept(section: Section, **values: object) -> Row:
    """Of a table's values those that are not what is read without them."""
    return {
        key.name: values[key.name]
        for key in section.keys
        if values.get(key.name) not in (None, []) and values[key.name] != key.default
    }


def _more_than(least: int, quantity: int) -> int | None:
    return quantity if quantity > least else None


def _day(day: Holiday) -> str:
    return f"{day.year:04d}-{day.month:02d}-{day.day:02d}" if day.year else f"{day.month:02d}-{day.day:02d}"


def _clock(second: int) -> str:
    clock = f"{second // 3600:02d}:{second // 60 % 60:02d}"
    return f"{clock}:{second % 60:02d}" if second % 60 else clock


def _time(seconds: int | None) -> str | None:
    return None if seconds is None else f"{seconds} s" if not seconds else quantity_text(seconds, Kind.SECONDS)


def _duration(seconds: int) -> str:
    """In the largest unit that it is a whole number of."""
    unit, size = next((unit, size) for unit, size in _DURATIONS if seconds % size == 0)
    return f"{seconds // size}{unit}"


def _quantity(quantity: int | None, kind: Kind) -> str | None:
    return None if quantity is None else quantity_text(quantity, kind)


def _price(picounits: int | None, currency: str) -> str | None:
    """With at least the currency's decimals."""
    if picounits is None:
        return None
    whole, _, rest = _decimal(Fraction(picounits, PICOUNITS)).partition(".")
    rest = rest.ljust(0 if currency == ABSTRACT else exponent(currency), "0")
    return f"{whole}.{rest}" if rest else whole


def _minor(amount_minor: int, currency: str) -> str:
    decimals = exponent(currency)
    whole, rest = divmod(amount_minor, 10**decimals)
    return f"{whole}.{rest:0{decimals}d}" if decimals else str(whole)


def _decimal(number: Fraction) -> str:
    """A number >= 0 of at most 12 decimals."""
    scaled = number * PICOUNITS
    assert scaled.denominator == 1
    whole, rest = divmod(int(scaled), PICOUNITS)
    return f"{whole}.{rest:012d}".rstrip("0").rstrip(".")
