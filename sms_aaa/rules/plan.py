"""What is sold: a Policy (what the network does) and a Tariff (what it costs), read from a plan file.

The file is TOML (policies/ holds commented samples) and is read strictly: a key that is not known, a value of the wrong
type, a number that is not exact stop it with the place, the reason and the remedy, for a plan that means something else
than its author thinks is found on invoices. Its [[example]] cases are priced while it is read, and a plan that does
not keep its own examples is refused.

A plan is stored as its document: the same content in one canonical form of integers and texts, which reads back to
an equal plan and has a digest.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from enum import StrEnum
from fractions import Fraction
from functools import partial
from typing import TypeVar

import msgspec

from sms_aaa.rules.entitlement import Policy, SessionsPolicy
from sms_aaa.rules.measure import Kind, Measure, Unit, quantity_of
from sms_aaa.rules.money import ABSTRACT, exact, exponent, format_minor, minor_of, picounits_of
from sms_aaa.rules.rating import price_cycle
from sms_aaa.rules.tariff import (
    COMPONENTS_MAX,
    TIERS_MAX,
    TOTAL_NAME,
    Period,
    RecurringComponent,
    Tariff,
    Tier,
    UsageComponent,
    complete_usage,
    named,
)

UNNAMED = "tariff"
"""The name of what is not to be sold and has none."""

TEXT_LENGTH_MAX = 200
EXAMPLES_MAX = 100
RATE_KBPS_MAX = 10**9  # 1 Tbit/s
SESSIONS_MAX = 10_000
TIMEOUT_SECONDS_MAX = 365 * 86_400  # the attributes have 32 bits; a year is enough
# RFC 2869 section 5.16: Acct-Interim-Interval MUST NOT be smaller than 60.
INTERIM_SECONDS_MIN = 60
INTERIM_SECONDS_MAX = 86_400

_DURATION = re.compile(r"([0-9]{1,9}) ?([smhd])")
_SECONDS_BY_UNIT = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_RATE = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?) ?([kMG]bit/s)")
_KBPS_BY_UNIT = {"kbit/s": 1, "Mbit/s": 1_000, "Gbit/s": 1_000_000}
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]{1,64}")

_POLICY_KEYS = (
    "rate_up", "rate_down", "session_timeout", "idle_timeout", "interim",
    "sessions", "sessions_policy", "sessions_strict",
)  # fmt: skip
_LATER_RIGHTS = ("sessions_policy", "sessions_strict")
"""Not in the documents of older plans: at their defaults they are left out, so that an equal plan keeps its digest."""

_STORED_NAMES = {"up_to": "up_to_octets", "rate_unit": "unit_octets"}
"""Of a tier and of a usage component, as documents have called them since there were only octets."""

_TARIFF_KEYS = ("currency", "recurring", "usage")
_USAGE_KEYS = ("name", "measure", "per", "included", "price", "tiers")

_AMOUNT_REMEDY = 'write an amount with no more decimals than the currency has, such as "29.90"'
_PRICE_REMEDY = 'write the price per unit, such as "0.05": not negative, with at most 12 decimals'
_VOLUME_REMEDY = 'write a volume such as "50 GB" or "50 GiB"'
_RATE_REMEDY = 'write a rate such as "20 Mbit/s", or leave it out for no limit'
_TIMEOUT_REMEDY = 'write a time of s, m, h or d such as "24h", or leave it out for no limit'

_UNSET = Policy()

T = TypeVar("T")
E = TypeVar("E", bound=StrEnum)


class PlanInvalidError(ValueError):
    """Why a plan is refused: `place` in the file ("tariff.usage[0].price"), `reason`, `remedy`; str() is one line."""

    def __init__(self, place: str, reason: str, remedy: str) -> None:
        super().__init__(f"{place}: {reason}; {remedy}")
        self.place = place
        self.reason = reason
        self.remedy = remedy


@dataclass(frozen=True, slots=True)
class Plan:
    """One version of what is sold."""

    name: str
    description: str
    policy: Policy
    tariff: Tariff


@dataclass(frozen=True, slots=True)
class Comparison:
    """What an example expects of one component (None: nothing), and what the tariff makes it, as text."""

    name: str
    place: str
    expected: str | None
    found: str

    @property
    def holds(self) -> bool:
        return self.expected in {None, self.found}


@dataclass(frozen=True, slots=True)
class Outcome:
    """An example, priced; `number` counts them from 0, as places do."""

    number: int
    comparisons: tuple[Comparison, ...]

    @property
    def broken(self) -> PlanInvalidError | None:
        """The first expectation that the tariff does not keep."""
        for each in self.comparisons:
            if not each.holds:
                reason = f"is {each.expected}, the tariff makes it {each.found}"
                return PlanInvalidError(each.place, reason, "correct one of them")
        return None


def parse_plan(document: Mapping[str, object], *, default_currency: str) -> Plan:
    """A plan that is to be sold, from its file's tables: `read_plan`, and every example must come out."""
    plan, outcomes = read_plan(document, default_currency=default_currency)
    for outcome in outcomes:
        if (broken := outcome.broken) is not None:
            raise broken
    return plan


def read_plan(
    document: Mapping[str, object], *, default_currency: str, is_sold: bool = True
) -> tuple[Plan, tuple[Outcome, ...]]:
    """A plan and its priced examples, from its TOML or JSON file, loaded with `parse_float=decimal.Decimal`.

    Prices are texts ("0.05"), whole numbers, or decimals as Decimal: a binary float is refused. `default_currency`
    (ISO 4217) is for a tariff that names none. What is not to be sold (`is_sold` False) may leave out its name and its
    policy, and may be in abstract units (XXX). PlanInvalidError names what is wrong, where, and what to do.
    """
    root = _Table(document, "", ("name", "description", "policy", "tariff", "example"))
    tariff = _tariff(root.table("tariff", _TARIFF_KEYS), default_currency)
    if is_sold and tariff.currency == ABSTRACT:
        reason = f"is {ABSTRACT}, abstract units, which nobody can owe"
        raise PlanInvalidError("tariff.currency", reason, "name the currency that it is sold in")
    plan = Plan(
        name=root.name() if is_sold or root.has("name") else UNNAMED,
        description=root.text("description", ""),
        policy=_policy(root.table("policy", _POLICY_KEYS)) if is_sold or root.has("policy") else Policy(),
        tariff=tariff,
    )
    examples = root.tables("example", ("usage", "expect"), EXAMPLES_MAX)
    return plan, tuple(_outcome(number, example, plan.tariff) for number, example in enumerate(examples))


def plan_to_document(plan: Plan) -> dict[str, object]:
    """The plan in canonical form, as JSON has it: integers, texts, truth values, tables, lists.

    The bound of an open tier is null.
    """
    policy: dict[str, object] = msgspec.to_builtins(plan.policy)
    for key in _LATER_RIGHTS:
        if policy[key] == msgspec.to_builtins(getattr(_UNSET, key)):
            del policy[key]
    return {
        "name": plan.name,
        "description": plan.description,
        "policy": policy,
        "tariff": _document_of(plan.tariff),
    }


def plan_from_document(document: Mapping[str, object]) -> Plan:
    """The plan of a document that `plan_to_document` made; PlanInvalidError if it cannot be one.

    A right that an older document does not know yet gets the Policy's default.
    """
    try:
        return msgspec.convert(_renamed(document, {old: new for new, old in _STORED_NAMES.items()}), Plan)
    except msgspec.ValidationError as fault:
        raise PlanInvalidError("stored plan", str(fault), "store it anew from its plan file") from fault


def _document_of(value: object) -> object:
    """A tariff's value as JSON has it. What has its default is left out: an older, equal plan keeps its digest."""
    if isinstance(value, tuple):
        return [_document_of(item) for item in value]
    if not is_dataclass(value):
        return value.value if isinstance(value, StrEnum) else value
    kept = ((field, getattr(value, field.name)) for field in fields(value))
    names = {("Tier", "up_to"), ("UsageComponent", "rate_unit")}
    return {
        _STORED_NAMES[field.name] if (type(value).__name__, field.name) in names else field.name: _document_of(part)
        for field, part in kept
        if field.default is MISSING or part != field.default
    }


def _renamed(value: object, names: Mapping[str, str]) -> object:
    if isinstance(value, Mapping):
        return {names.get(key, key): _renamed(part, names) for key, part in value.items()}
    return [_renamed(part, names) for part in value] if isinstance(value, list | tuple) else value


def plan_digest(plan: Plan) -> str:
    """SHA-256 in hex over the document as JSON with sorted keys: equal digests, equal plans."""
    text = json.dumps(plan_to_document(plan), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _policy(table: _Table) -> Policy:
    unset = _UNSET
    timeout = partial(_seconds_of, minimum=1, maximum=TIMEOUT_SECONDS_MAX)
    interim = partial(_seconds_of, minimum=INTERIM_SECONDS_MIN, maximum=INTERIM_SECONDS_MAX)
    interim_remedy = f"write a time from {INTERIM_SECONDS_MIN}s to {INTERIM_SECONDS_MAX}s"
    return Policy(
        rate_up_kbps=table.read("rate_up", _kbps_of, _RATE_REMEDY, unset.rate_up_kbps),
        rate_down_kbps=table.read("rate_down", _kbps_of, _RATE_REMEDY, unset.rate_down_kbps),
        session_timeout_seconds=table.read("session_timeout", timeout, _TIMEOUT_REMEDY, unset.session_timeout_seconds),
        idle_timeout_seconds=table.read("idle_timeout", timeout, _TIMEOUT_REMEDY, unset.idle_timeout_seconds),
        interim_seconds=table.read("interim", interim, interim_remedy, unset.interim_seconds),
        sessions_max=table.count("sessions", unset.sessions_max, SESSIONS_MAX),
        sessions_policy=_sessions_policy(table, unset.sessions_policy),
        sessions_strict=table.flag("sessions_strict", unset.sessions_strict),
    )


def _sessions_policy(table: _Table, default: SessionsPolicy) -> SessionsPolicy:
    key = "sessions_policy"
    if table.has(key) and table.text(key) == "kick-oldest":
        raise PlanInvalidError(
            table.at(key),
            "is kick-oldest, which needs Disconnect-Requests, and this program does not send any yet",
            f"write one of {', '.join(SessionsPolicy)}",
        )
    return table.choice(key, SessionsPolicy, default)


def _tariff(table: _Table, default_currency: str) -> Tariff:
    currency = table.text("currency", default_currency)
    _lawful(table.at("currency"), "name a currency of ISO 4217", partial(exponent, currency))
    fees = table.tables("recurring", ("name", "amount", "period"), COMPONENTS_MAX)
    recurring = tuple(_recurring(fee, currency) for fee in fees)
    usage = tuple(_usage(component) for component in table.tables("usage", _USAGE_KEYS, COMPONENTS_MAX))
    remedy = "name each component once, and count upload and download by one component each or by one of measure total"
    return _lawful(table.place, remedy, lambda: Tariff(currency, recurring, complete_usage(usage)))


def _recurring(table: _Table, currency: str) -> RecurringComponent:
    name, period = table.name(), table.choice("period", Period)
    if period is not Period.MONTH:
        raise PlanInvalidError(table.at("period"), f"is {period}, which is not built yet", "write month")
    amount_minor = table.number("amount", partial(minor_of, currency=currency), _AMOUNT_REMEDY)
    return _lawful(table.at("amount"), _AMOUNT_REMEDY, lambda: RecurringComponent(name, amount_minor, period))


def _usage(table: _Table) -> UsageComponent:
    name, measure = table.name(), table.choice("measure", Measure)
    if measure.kind is not Kind.OCTETS:
        raise PlanInvalidError(table.at("measure"), f"is {measure}, which is not built yet", "count octets")
    unit = table.read("per", Unit.by_label, 'write the unit that the price is for, such as "GB"')
    # `included` with `price` is the short form of two tiers.
    if table.has("tiers"):
        for key in ("included", "price"):
            table.refuse(key, "stands beside tiers", "write either tiers, or included and price")
        tiers = tuple(_tier(tier) for tier in table.tables("tiers", ("up_to", "price"), TIERS_MAX))
    else:
        included = table.read("included", quantity_of, _VOLUME_REMEDY, 0)
        beyond = Tier(None, table.number("price", picounits_of, _PRICE_REMEDY))
        tiers = (Tier(included, 0), beyond) if included else (beyond,)
    remedy = "order the tiers by up_to, above 0, and leave up_to out of the last one only"
    return _lawful(table.at("tiers"), remedy, lambda: UsageComponent(name, measure, unit.size, tiers))


def _tier(table: _Table) -> Tier:
    up_to = table.read("up_to", quantity_of, _VOLUME_REMEDY) if table.has("up_to") else None
    return Tier(up_to, table.number("price", picounits_of, _PRICE_REMEDY))


def _outcome(number: int, table: _Table, tariff: Tariff) -> Outcome:
    """One cycle with the example's usage, beside each amount that it expects; the total is obligatory."""
    usage = table.table("usage", ("upload", "download"))
    priced = price_cycle(
        tariff,
        octets_upload=usage.read("upload", quantity_of, _VOLUME_REMEDY, 0),
        octets_download=usage.read("download", quantity_of, _VOLUME_REMEDY, 0),
    )
    costs = {component.name: component.amount_minor for component in priced}
    costs[TOTAL_NAME] = sum(costs.values())
    expect = table.table("expect", tuple(costs))
    comparisons = []
    for name, cost_minor in costs.items():
        expected = None
        if name == TOTAL_NAME or expect.has(name):
            expected_minor = expect.number(name, partial(minor_of, currency=tariff.currency), _AMOUNT_REMEDY)
            expected = format_minor(expected_minor, tariff.currency)
        comparisons.append(Comparison(name, expect.at(name), expected, format_minor(cost_minor, tariff.currency)))
    return Outcome(number, tuple(comparisons))


def _kbps_of(rate: str) -> int:
    match = _RATE.fullmatch(rate)
    if match is None:
        raise ValueError(f"{rate[:40]!r} is not a rate in kbit/s, Mbit/s or Gbit/s")
    kbps = Fraction(match[1]) * _KBPS_BY_UNIT[match[2]]
    if kbps.denominator != 1 or not 1 <= kbps <= RATE_KBPS_MAX:
        raise ValueError(f"{rate!r} is not a whole number of kbit/s from 1 to {RATE_KBPS_MAX}")
    return int(kbps)


def _seconds_of(time: str, *, minimum: int, maximum: int) -> int:
    match = _DURATION.fullmatch(time)
    if match is None:
        raise ValueError(f"{time[:40]!r} is not a time in s, m, h or d")
    seconds = int(match[1]) * _SECONDS_BY_UNIT[match[2]]
    if not minimum <= seconds <= maximum:
        raise ValueError(f"{time!r} is not from {minimum} to {maximum} seconds")
    return seconds


def _lawful(place: str, remedy: str, make: Callable[[], T]) -> T:
    """What `make` makes; the ValueError of a law that it breaks becomes a PlanInvalidError of this place."""
    try:
        return make()
    except ValueError as fault:
        raise PlanInvalidError(place, str(fault), remedy) from fault


class _Table:
    """A table of the file and its place. It admits only the keys it is told, and reads each as one type."""

    def __init__(self, value: object, place: str, keys: tuple[str, ...]) -> None:
        self.place = place
        if not isinstance(value, Mapping):
            raise PlanInvalidError(place, f"is of type {type(value).__name__}", "write a table")
        self._values = value
        for key in value:
            if key not in keys:
                raise PlanInvalidError(self.at(key), "is not a key of this table", f"known are {', '.join(keys)}")

    def at(self, key: str) -> str:
        """The place of a key; one that TOML would quote is quoted, so that the place stays on one line."""
        shown = key if _BARE_KEY.fullmatch(key) else ascii(key[:80])
        return f"{self.place}.{shown}" if self.place else shown

    def has(self, key: str) -> bool:
        return key in self._values

    def refuse(self, key: str, reason: str, remedy: str) -> None:
        """PlanInvalidError if the key is there."""
        if self.has(key):
            raise PlanInvalidError(self.at(key), reason, remedy)

    def text(self, key: str, default: str | None = None) -> str:
        """One printable line; without `default` the key is obligatory."""
        value = self._value(key, default)
        if not isinstance(value, str):
            raise PlanInvalidError(self.at(key), f"is of type {type(value).__name__}", "write a text in quotes")
        if len(value) > TEXT_LENGTH_MAX or not value.isprintable():
            raise PlanInvalidError(
                self.at(key), "is too long or not printable", f"write one line of at most {TEXT_LENGTH_MAX} characters"
            )
        return value

    def read(self, key: str, reader: Callable[[str], T], remedy: str, default: T | None = None) -> T:
        """A text's meaning. `reader` raises ValueError; without `default` the key is obligatory."""
        if default is not None and not self.has(key):
            return default
        return _lawful(self.at(key), remedy, partial(reader, self.text(key)))

    def name(self) -> str:
        remedy = "write lower-case letters, digits and hyphens, at most 64"
        return self.read("name", named, remedy)

    def choice(self, key: str, choices: type[E], default: E | None = None) -> E:
        """A text that is one of an enum's values; without `default` the key is obligatory."""
        return self.read(key, choices, f"write one of {', '.join(choices)}", default)

    def flag(self, key: str, default: bool) -> bool:
        value = self._value(key, default)
        if not isinstance(value, bool):
            raise PlanInvalidError(self.at(key), f"is of type {type(value).__name__}", "write true or false")
        return value

    def number(self, key: str, convert: Callable[[Fraction], int], remedy: str) -> int:
        """An exact number, obligatory; `convert` raises ValueError."""
        value = self._value(key)
        return _lawful(self.at(key), remedy, lambda: convert(exact(value)))

    def count(self, key: str, default: int, maximum: int) -> int:
        value = self._value(key, default)
        # A bool is an int in Python, and not a number to whoever writes a plan.
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= maximum:
            raise PlanInvalidError(
                self.at(key), "is not a whole number in bounds", f"write a number from 0 to {maximum}"
            )
        return value

    def table(self, key: str, keys: tuple[str, ...]) -> _Table:
        return _Table(self._value(key), self.at(key), keys)

    def tables(self, key: str, keys: tuple[str, ...], count_max: int) -> list[_Table]:
        """The tables of a list; none if the key is not there."""
        value = self._value(key, [])
        if not isinstance(value, list) or len(value) > count_max:
            raise PlanInvalidError(self.at(key), "is not a list in bounds", f"write at most {count_max} tables")
        return [_Table(item, f"{self.at(key)}[{index}]", keys) for index, item in enumerate(value)]

    def _value(self, key: str, default: object = None) -> object:
        value = self._values.get(key, default)
        if value is None:
            raise PlanInvalidError(self.at(key), "is missing", "write it; the samples in policies/ show how")
        return value
