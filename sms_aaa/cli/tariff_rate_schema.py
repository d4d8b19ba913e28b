"""The JSON Schema of what `sms-aaa tariff rate --json` answers: docs/pricing-door.md, section 4.

Fields may be added without a new `schema_version`, so others than these are not forbidden.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sms_aaa.rules.buckets import BucketKind, Overage
from sms_aaa.rules.cycle_lines import ComponentKind
from sms_aaa.rules.evaluation_result import HoldState, Reason
from sms_aaa.rules.measure import Measure
from sms_aaa.rules.plan_schema import DIALECT, or_null
from sms_aaa.rules.rated_rows import What
from sms_aaa.rules.recurring import FeeKind
from sms_aaa.rules.session import AnomalyKind

if TYPE_CHECKING:
    from enum import StrEnum

    Schema = dict[str, object]

_DECIMAL: Schema = {"type": "string", "pattern": r"^-?[0-9]+(\.[0-9]+)?$"}
_FRACTION: Schema = {"type": "string", "pattern": r"^-?[0-9]+/[0-9]+$"}
_TEXT: Schema = {"type": "string"}
_INSTANT: Schema = {"type": "string", "format": "date-time"}
_COUNT: Schema = {"type": "integer"}
_FLAG: Schema = {"type": "boolean"}


def answer_schema(version: int) -> Schema:
    """Of the answer as a whole; `rated` is not there with --summary."""
    whole = _object(
        schema_version={"const": version}, currency={"type": "string", "pattern": "^[A-Z]{3}$"}, **_sums(),
        components=_list(_component()), rated=_list(_rated()), buckets=_list(_bucket()), money=_money(),
        grants=_list(_grant()), uncovered=_list(_uncovered()), adjustments=_list(_adjustment()), cycles=_list(_cycle()),
        anomalies=_list(_object(line=_COUNT, session=_TEXT, kind=_one(AnomalyKind))), duplicates=_COUNT,
    )  # fmt: skip
    required = whole["required"]
    assert isinstance(required, list)
    title = "What `sms-aaa tariff rate --json` answers"
    return {"$schema": DIALECT, "title": title, **whole, "required": [name for name in required if name != "rated"]}


def _component(**first: Schema) -> Schema:
    counts = {name: or_null(_DECIMAL) for name in ("quantity", "covered", "uncovered", "priced")}
    amounts = _amounts("price_exact", "minimum_exact") | _amounts("billed", is_there=False)
    kinds = {"kind": _one(ComponentKind), "measure": or_null(_one(Measure)), "unit": or_null(_TEXT)}
    return _object(**first, name=_TEXT, **kinds, **counts, **amounts, **_sums())


def _rated() -> Schema:
    return _object(
        line=or_null(_COUNT), session=or_null(_TEXT), member=or_null(_TEXT), **_period(), cycle=_INSTANT,
        subscription=_COUNT, component=_TEXT, key=or_null(_TEXT), slot=or_null(_TEXT), band=or_null(_TEXT),
        what=_one(What), tier=or_null(_COUNT), bucket=or_null(_TEXT), quantity=_DECIMAL, billed=or_null(_DECIMAL),
        taken=or_null(_DECIMAL), **_amounts("amount"), paid=_list(_object(bucket=_TEXT, **_amounts("amount"))),
    )  # fmt: skip


def _bucket() -> Schema:
    return _object(
        bucket_id=_COUNT, name=_TEXT, source=_one(BucketKind), measure=or_null(_one(Measure)), member=or_null(_TEXT),
        priority=_COUNT, **{"from": _INSTANT}, until=or_null(_INSTANT),
        **_amounts("granted", "used", "rolled_over", "reserved", "left", "overrun"),
    )  # fmt: skip


def _money() -> Schema:
    known = _amounts("opening", "payments", "charged", "from_buckets", "balance", "reserved")
    return _object(
        charging_mode={"enum": ["postpaid", "prepaid"]}, **known,
        **_amounts("credit_limit", "available", is_there=False),
    )  # fmt: skip


def _grant() -> Schema:
    return _object(
        line=_COUNT, at=_INSTANT, session=_TEXT, measure=or_null(_one(Measure)), **_amounts("asked", "granted"),
        final=_FLAG, held=_list(_object(bucket=_TEXT, **_amounts("quantity"))), **_amounts("amount_held"),
        state=_one(HoldState),
    )  # fmt: skip


def _uncovered() -> Schema:
    return _object(component=_TEXT, measure=_one(Measure), bucket=_TEXT, overage=_one(Overage), quantity=_DECIMAL)


def _adjustment() -> Schema:
    return _object(
        **_period(), booked=_INSTANT, component=_TEXT, kind=_one(ComponentKind), reason=_one(Reason),
        quantity=or_null(_DECIMAL), **_sums(),
    )  # fmt: skip


def _cycle() -> Schema:
    fee = _object(
        component=_TEXT, kind=_one(FeeKind), subscription=_COUNT, **_period(), due=_INSTANT, quantity=_COUNT,
        parts=_COUNT, whole=_COUNT, **_amounts("amount_exact"), amount_minor=_COUNT,
    )  # fmt: skip
    return _object(
        **_period(), state={"enum": ["open", "closed"]}, components=_list(_component(subscription=_COUNT)),
        fees=_list(fee), **_sums(),
    )  # fmt: skip


def _sums() -> dict[str, Schema]:
    return {**_amounts("amount_exact", "amount_rounded"), "amount_minor": or_null(_COUNT)}


def _period() -> dict[str, Schema]:
    return {"from": _INSTANT, "to": _INSTANT}


def _amounts(*names: str, is_there: bool = True) -> dict[str, Schema]:
    """Each with the fraction that stands beside it where no decimal is exact; `is_there`: never null."""
    value = _DECIMAL if is_there else or_null(_DECIMAL)
    return {each: schema for name in names for each, schema in ((name, value), (f"{name}_fraction", _FRACTION))}


def _object(**properties: Schema) -> Schema:
    required = [name for name, schema in properties.items() if schema is not _FRACTION]
    return {"type": "object", "properties": properties, "required": required}


def _list(item: Schema) -> Schema:
    return {"type": "array", "items": item}


def _one(choices: type[StrEnum]) -> Schema:
    return {"enum": [choice.value for choice in choices]}
