"""Reads an account file of the pricing door: docs/pricing-door.md, section 3."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

from sms_aaa.rules.cycle import zone_of
from sms_aaa.rules.cycle_lines import Before
from sms_aaa.rules.evaluation import Account
from sms_aaa.rules.grant_reading import read_grant
from sms_aaa.rules.instants import INSTANT_MIN
from sms_aaa.rules.line_fields import AMOUNT_MAX, Fields
from sms_aaa.rules.plan_table import Form, PlanInvalidError, Table, quantity_in
from sms_aaa.rules.usage_line_keys import ACCOUNT
from sms_aaa.rules.usage_lines import Given, LineInvalidError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sms_aaa.rules.tariff import Tariff

_PERCENT_MAX = 100


def read_currency(document: Mapping[str, object]) -> str | None:
    """The currency that an account file names."""
    found = document.get("currency")
    return found if isinstance(found, str) else None


def read_account(document: Mapping[str, object], tariff: Tariff) -> Account:
    """An account to be priced by a tariff. PlanInvalidError names the place, the reason and the remedy."""
    try:
        return _read(document, tariff)
    except LineInvalidError as wrong:
        raise PlanInvalidError(wrong.field, wrong.reason, wrong.remedy) from wrong


def _read(document: Mapping[str, object], tariff: Tariff) -> Account:
    table, fields = Table(document, "", ACCOUNT), Fields(0, document)
    zone = fields.text("zone", "UTC")
    try:
        zone_of(zone)
    except ValueError:
        raise fields.invalid(
            "zone", f"is {zone!r}, no zone of the tz database", "write one such as Europe/Berlin"
        ) from None
    if document.get("currency", tariff.currency) != tariff.currency:
        raise fields.invalid("currency", f"is not {tariff.currency}, the tariff's", "leave it out")
    mode = fields.text("charging_mode", "postpaid")
    if mode not in {"postpaid", "prepaid"}:
        raise fields.invalid("charging_mode", f"is {mode!r}", "write postpaid or prepaid")
    is_prepaid = mode == "prepaid"
    limit = fields.number("credit_limit")
    if table.has("tax"):
        _check_tax(table, document)
    return Account(
        name=fields.text("name", "account"),
        zone=zone,
        anchor_day=table.count("anchor"),
        is_prepaid=is_prepaid,
        credit_limit=Fraction(0) if limit is None and is_prepaid else limit,
        money=fields.number("money", least=-AMOUNT_MAX) or Fraction(0),
        buckets=tuple(_buckets(table, document, tariff)),
        before=Before(_totals(document, tariff), _billed(document, tariff)),
        start_us=fields.instant("start"),
        subscribed_us=fields.instant("subscribed"),
    )


def _buckets(table: Table, document: Mapping[str, object], tariff: Tariff) -> list[Given]:
    table.tables("bucket")  # each is read strictly
    values = document.get("bucket", [])
    assert isinstance(values, list)
    found = []
    for index, value in enumerate(values):
        fields = Fields(-index, value, f"bucket[{index}].")
        begin = fields.instant("from")
        found.append(read_grant(fields, tariff, INSTANT_MIN if begin is None else begin))
    return found


def _check_tax(table: Table, document: Mapping[str, object]) -> None:
    inner = table.table("tax")
    inner.optional("name", inner.text)
    inner.flag("inclusive")
    values = document["tax"]
    assert isinstance(values, dict)
    if Fields(0, values, "tax.").number("rate", most=_PERCENT_MAX) is None:
        raise PlanInvalidError("tax.rate", "is missing", Form.PERCENT.remedy)


def _totals(document: Mapping[str, object], tariff: Tariff) -> dict[str, int]:
    found = {}
    known = {part.name: part for part in tariff.usage}
    for name, value in _named(document, "totals", set(known)).items():
        try:
            found[name] = quantity_in(value, known[name].measure.kind)
        except ValueError as fault:
            raise PlanInvalidError(f"totals.{name}", str(fault), 'write a quantity such as "40 GB"') from None
    return found


def _billed(document: Mapping[str, object], tariff: Tariff) -> dict[str, Fraction]:
    parts = (tariff.recurring, tariff.one_time, tariff.usage, tariff.bounds)
    known = {part.name for group in parts for part in group}
    fields = Fields(0, _named(document, "billed", known), "billed.")
    return {name: fields.number(name, least=-AMOUNT_MAX) or Fraction(0) for name in fields.values}


def _named(document: Mapping[str, object], key: str, known: set[str]) -> Mapping[str, object]:
    values = document.get(key, {})
    if not isinstance(values, dict):
        raise PlanInvalidError(key, "is no table", "write a table of components")
    for name in values:
        if name not in known:
            place = f"{key}.{ascii(name)[1:-1][:80]}"
            raise PlanInvalidError(place, "is no component of the tariff", f"it has {', '.join(sorted(known))}")
    return values
