"""Reads what grants a bucket, on a usage line or in an account file: terms as of a tariff's, and whose it is."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING

from sms_aaa.rules.bucket_keys import BUCKET
from sms_aaa.rules.buckets import BucketKind
from sms_aaa.rules.instants import INSTANT_MIN, SECOND_US
from sms_aaa.rules.measure import Kind, Unit
from sms_aaa.rules.money import PICOUNITS
from sms_aaa.rules.plan_buckets import read_bucket
from sms_aaa.rules.plan_table import PlanInvalidError, Table
from sms_aaa.rules.plan_usage import Places
from sms_aaa.rules.tariff import places
from sms_aaa.rules.usage_lines import ITSELF, Given

if TYPE_CHECKING:
    from sms_aaa.rules.buckets import BucketTerms
    from sms_aaa.rules.line_fields import Fields
    from sms_aaa.rules.tariff import Tariff

_OWN = frozenset(("kind", "id", "at", "from", "source", "until", "member", "bucket", "quantity", "unit", "used"))

_UNITS = {
    Kind.OCTETS: ("total", Unit.OCTET),
    Kind.SECONDS: ("seconds", Unit.SECOND),
    Kind.EVENTS: ("events", Unit.EVENT),
}


def read_grant(line: Fields, tariff: Tariff, at_us: int) -> Given:
    """`at_us`: when it is granted, or INSTANT_MIN where that is not told. LineInvalidError."""
    terms = _terms(line, tariff)
    until_us = line.end("until")
    if until_us is not None and terms.valid_seconds is not None and line.has("valid"):
        raise line.invalid("valid", "stands beside until", "write either")
    if until_us is not None and until_us <= at_us:
        raise line.invalid("until", "is not after its beginning", "write a later instant")
    valid_us = None if until_us is not None or terms.valid_seconds is None else terms.valid_seconds * SECOND_US
    if valid_us is not None and at_us != INSTANT_MIN:
        until_us = at_us + valid_us
    member = None if terms.is_shared else line.text("member", ITSELF)
    return Given(line.line, at_us, terms, terms.amount, until_us, member, _used(line, terms), valid_us)


def _terms(line: Fields, tariff: Tariff) -> BucketTerms:
    source = _source(line)
    base = _template(line, tariff)
    values = {name: value for name, value in line.values.items() if name not in _OWN}
    if base is not None and not values and not line.has("quantity"):
        return replace(base, kind=source)
    if base is not None:
        return _replaced(line, tariff, base, values, source)
    values.setdefault("name", f"grant-{line.line}" if line.line > 0 else f"bucket-{1 - line.line}")
    _put_quantity(line, values, None)
    return replace(_read(line, tariff, values), kind=source)


def _replaced(
    line: Fields, tariff: Tariff, base: BucketTerms, values: dict[str, object], source: BucketKind
) -> BucketTerms:
    """The terms of a bucket of the tariff, but for what the line says."""
    said = set(values)
    values.setdefault("name", base.name)
    if base.measure is None:
        values.setdefault("money", True)
    else:
        values.setdefault("measure", base.measure.value)
    _put_quantity(line, values, base)
    if "amount" not in values:
        values["amount"] = "0" if base.measure is None else f"0 {_label(base)}"
    if base.blocks:
        values.setdefault("blocks", True)
    if base.is_shared:
        values.setdefault("shared", True)
    read = _read(line, tariff, values)
    fields = {_FIELD.get(name, name): getattr(read, _FIELD.get(name, name)) for name in said if name != "money"}
    if line.has("quantity") or "amount" in said:
        fields["amount"] = read.amount
    return replace(base, **{**fields, "kind": source})


_FIELD = {"factor": "factor_parts", "shared": "is_shared", "valid": "valid_seconds"}


def _template(line: Fields, tariff: Tariff) -> BucketTerms | None:
    name = line.optional_text("bucket")
    if name is None:
        return None
    found = next((terms for terms in tariff.buckets if terms.name == name), None)
    if found is None:
        known = ", ".join(terms.name for terms in tariff.buckets) or "none"
        raise line.invalid("bucket", f"is {name!r}, which the tariff does not have", f"it has {known}")
    return found


def _source(line: Fields) -> BucketKind:
    text = line.text("source", BucketKind.TOP_UP.value)
    try:
        return BucketKind(text)
    except ValueError:
        raise line.invalid("source", f"is {text!r}", f"write one of {', '.join(BucketKind)}") from None


def _put_quantity(line: Fields, values: dict[str, object], base: BucketTerms | None) -> None:
    """`quantity` and `unit` as the amount of a bucket says it."""
    if not line.has("quantity"):
        if line.has("unit"):
            raise line.invalid("unit", "stands without a quantity", "write both")
        return
    if "amount" in values:
        raise line.invalid("amount", "stands beside quantity", "write either")
    size, kind = line.quantity()
    if kind is Kind.UNITS:
        values["amount"] = f"{size // 10**6}.{size % 10**6:06d} unit"
        measure = "units"
    else:
        measure, unit = _UNITS[kind]
        values["amount"] = f"{size} {unit.label}"
    if base is None:
        values.setdefault("measure", measure)


def _label(terms: BucketTerms) -> str:
    assert terms.measure is not None
    return Unit.UNIT.label if terms.measure.kind is Kind.UNITS else _UNITS[terms.measure.kind][1].label


def _read(line: Fields, tariff: Tariff, values: dict[str, object]) -> BucketTerms:
    grid = places(tariff)
    known = Places(*(tuple(dict.fromkeys(place[at] for place in grid)) for at in range(3)))
    try:
        return read_bucket(Table(values, "", BUCKET), tariff.currency, known, tariff.usage)
    except PlanInvalidError as wrong:
        raise line.invalid(wrong.place, wrong.reason, wrong.remedy) from wrong


def _used(line: Fields, terms: BucketTerms) -> Fraction:
    """What was used of it before: as its amount is written."""
    if not line.has("used"):
        return Fraction(0)
    if terms.measure is None:
        used = line.number("used")
        assert used is not None
        return used * PICOUNITS
    inner = Table({"name": "used", "measure": terms.measure.value, "amount": line.values["used"]}, "", BUCKET)
    try:
        found = inner.quantity("amount", terms.measure.kind)
    except PlanInvalidError as wrong:
        raise line.invalid("used", wrong.reason, wrong.remedy) from wrong
    if found > terms.amount:
        raise line.invalid("used", "is more than its amount", "write at most that")
    return Fraction(found)
