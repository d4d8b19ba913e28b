"""The [tariff] of a plan file: its calendar and rating keys, then what refers to them."""

from __future__ import annotations

import re
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING

from sms_aaa.rules.measure import Kind
from sms_aaa.rules.money import ABSTRACT, AMOUNT_MINOR_MAX, exponent, minor_of
from sms_aaa.rules.plan_buckets import read_bucket
from sms_aaa.rules.plan_table import Form, PlanInvalidError, lawful
from sms_aaa.rules.plan_usage import Places, amount_picounits, read_usage
from sms_aaa.rules.slots import ANY_BAND, ANYTIME, DAY_SECONDS, Band, Day, Holiday, Slot
from sms_aaa.rules.tariff import (
    DEFAULT_KEY,
    PLACES_MAX,
    TOTAL_NAME,
    Anchor,
    Bound,
    Carry,
    Due,
    KeyRule,
    OneTimeComponent,
    Period,
    Proration,
    RecurringComponent,
    Switch,
    Tariff,
    complete_usage,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sms_aaa.rules.plan_table import Table

_CLOCK = re.compile(r"([0-9]{2}):([0-5][0-9])(?::([0-5][0-9]))?")
_HOLIDAY = re.compile(r"(?:([0-9]{4})-)?([0-9]{2})-([0-9]{2})")
_DAY_SECONDS = 86_400


def read_tariff(table: Table, default_currency: str, *, is_sold: bool) -> Tariff:
    """`default_currency` is for a tariff that names none; one that is sold is not in abstract units (XXX)."""
    currency = _currency(table, default_currency, is_sold=is_sold)
    slots = tuple(_slot(row) for row in table.tables("slot"))
    bands = tuple(_band(row) for row in table.tables("band"))
    keys = tuple(_key(row, is_sold=is_sold) for row in table.tables("key"))
    known = Places(
        keys=(DEFAULT_KEY, *dict.fromkeys(key.name for key in keys)),
        slots=(ANYTIME, *dict.fromkeys(slot.name for slot in slots)),
        bands=(ANY_BAND, *dict.fromkeys(band.name for band in bands)),
    )
    if known.count > PLACES_MAX:
        reason = f"has {known.count} combinations of rating keys, slots and bands"
        raise PlanInvalidError(table.place, reason, f"name fewer of them, for at most {PLACES_MAX}")
    bound_rows, bucket_rows = table.tables("bound"), table.tables("bucket")
    rows = [table.tables(name) for name in ("recurring", "one_time", "usage")]
    _refuse_twins(chain(*rows, bound_rows), "component")
    _refuse_twins(bucket_rows, "bucket")
    recurring = tuple(_recurring(row, currency) for row in rows[0])
    one_time = tuple(_one_time(row, currency) for row in rows[1])
    usage = complete_usage(tuple(read_usage(row, currency, known) for row in rows[2]), known.grid)
    fees = [fee.name for fee in recurring] + [part.name for part in usage]
    remedy = "count upload and download by exactly one component each, or by one of measure total, in each place"
    return lawful(
        table.at("usage"),
        remedy,
        lambda: Tariff(
            currency,
            recurring,
            usage,
            one_time=one_time,
            bounds=tuple(_bound(row, currency, fees) for row in bound_rows),
            buckets=tuple(read_bucket(row, currency, known, usage) for row in bucket_rows),
            slots=slots,
            holidays=table.items("holidays", Form.HOLIDAYS, _holiday_of),
            bands=bands,
            keys=keys,
            switch=table.choice("switch", Switch),
            carry=table.choice("carry", Carry),
        ),
    )


def _currency(table: Table, default: str, *, is_sold: bool) -> str:
    currency = table.text("currency") if table.has("currency") else default
    lawful(table.at("currency"), Form.CURRENCY.remedy, partial(exponent, currency))
    if is_sold and currency == ABSTRACT:
        reason = f"is {ABSTRACT}, abstract units, which nobody can owe"
        raise PlanInvalidError(table.at("currency"), reason, "name the currency that it is sold in")
    return currency


def _slot(table: Table) -> Slot:
    name = table.name()
    days = table.items("days", Form.CHOICES, _day_of)
    from_second, to_second = (table.read(edge, Form.CLOCK, _second_of) for edge in ("from", "to"))
    remedy = 'write from "00:00" to before "24:00", and to after "00:00" up to "24:00"'
    return lawful(table.place, remedy, lambda: Slot(name, days, from_second, to_second))


def _band(table: Table) -> Band:
    name = table.name()
    edge = partial(table.quantity, kind=Kind.SECONDS)
    from_seconds, to_seconds = edge("from"), table.optional("to", edge)
    return lawful(table.place, "let `to` be later than `from`", lambda: Band(name, from_seconds, to_seconds))


def _key(table: Table, *, is_sold: bool) -> KeyRule:
    name = table.name()
    lists = [table.items(part, Form.TEXTS, str) for part in ("service_class", "nas_zone", "called_station", "realm")]
    if is_sold and not any(lists):
        reason = "asks for nothing, so that all usage is of it"
        raise PlanInvalidError(table.place, reason, "write service_class, nas_zone, called_station or realm")
    return lawful(table.at("name"), "leave it out", lambda: KeyRule(name, *lists))


def _recurring(table: Table, currency: str) -> RecurringComponent:
    fee = RecurringComponent(
        table.name(),
        _fee_minor(table, currency),
        table.choice("period", Period),
        due=table.choice("due", Due),
        proration=table.choice("prorate", Proration),
        anchor=table.choice("anchor", Anchor),
        quantity=table.count("quantity"),
        trial_days=(table.optional("trial", table.duration) or 0) // _DAY_SECONDS,
    )
    if table.has("trial") and table.duration("trial") % _DAY_SECONDS:
        raise PlanInvalidError(table.at("trial"), "is not a number of whole days", 'write days such as "14d"')
    return fee


def _one_time(table: Table, currency: str) -> OneTimeComponent:
    return OneTimeComponent(table.name(), _fee_minor(table, currency), table.count("quantity"))


def _fee_minor(table: Table, currency: str) -> int:
    """The amount of one; ValueError of a law if it is negative, or if all of them are too much."""
    amount_minor = table.number("amount", Form.AMOUNT, partial(minor_of, currency=currency))
    if amount_minor < 0:
        raise PlanInvalidError(table.at("amount"), "a fee is negative", Form.AMOUNT.remedy)
    if amount_minor * table.count("quantity") > AMOUNT_MINOR_MAX:
        raise PlanInvalidError(table.at("quantity"), "makes the fee too large", "write fewer of it")
    return amount_minor


def _bound(table: Table, currency: str, fees: Sequence[str]) -> Bound:
    name = table.name()
    components = table.names("components", tuple(fees), "a fee or a price by usage of this name")
    if not components:
        raise PlanInvalidError(table.at("components"), "is missing", "name the components whose sum is bounded")
    amount = partial(amount_picounits, table, currency=currency)
    maximum, minimum = table.optional("maximum", amount), amount("minimum")
    if maximum is None and not minimum:
        raise PlanInvalidError(table.place, "bounds nothing", "write maximum, minimum or both")
    return lawful(
        table.at("minimum"),
        "write a minimum that is not above the maximum",
        lambda: Bound(name, components, maximum, minimum, table.flag("prorate_minimum")),
    )


def _refuse_twins(rows: Iterable[Table], what: str) -> None:
    names: set[str] = set()
    for row in rows:
        name = row.name()
        if name == TOTAL_NAME:
            raise PlanInvalidError(
                row.at("name"), f"is {name!r}, which stands for the sum of all", "write another name"
            )
        if name in names:
            raise PlanInvalidError(row.at("name"), f"is {name!r}, as an earlier {what} is", "name each once")
        names.add(name)


def _day_of(text: str) -> Day:
    if text not in tuple(Day):
        raise ValueError(f"is {text[:40]!r}")
    return Day(text)


def _second_of(clock: str) -> int:
    match = _CLOCK.fullmatch(clock)
    second = int(match[1]) * 3_600 + int(match[2]) * 60 + int(match[3] or 0) if match else DAY_SECONDS + 1
    if second > DAY_SECONDS:
        raise ValueError(f"{clock[:40]!r} is not a time of day")
    return second


def _holiday_of(day: str) -> Holiday:
    match = _HOLIDAY.fullmatch(day)
    if match is None:
        raise ValueError(f"{day[:40]!r} is not a day")
    return Holiday(int(match[2]), int(match[3]), int(match[1]) if match[1] else None)
