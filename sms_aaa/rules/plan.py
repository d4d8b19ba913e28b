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
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import msgspec

from sms_aaa.rules.entitlement import Policy
from sms_aaa.rules.plan_examples import price_example
from sms_aaa.rules.plan_keys import PLAN
from sms_aaa.rules.plan_policy import read_policy
from sms_aaa.rules.plan_table import PlanInvalidError, Table
from sms_aaa.rules.plan_tariff import read_tariff
from sms_aaa.rules.tariff import Tariff  # noqa: TC001 - msgspec reads the annotations of what it converts

if TYPE_CHECKING:
    from sms_aaa.rules.plan_examples import Outcome

UNNAMED = "tariff"
"""The name of what is not to be sold and has none."""

_LATER_RIGHTS = ("sessions_policy", "sessions_strict")
"""Not in the documents of older plans: at their defaults they are left out, so that an equal plan keeps its digest."""

_STORED_NAMES = {"up_to": "up_to_octets", "rate_unit": "unit_octets"}
"""Of a tier and of a usage component, as documents have called them since there were only octets."""

_UNSET = Policy()


@dataclass(frozen=True, slots=True)
class Plan:
    """One version of what is sold."""

    name: str
    description: str
    policy: Policy
    tariff: Tariff


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
    root = Table(document, "", PLAN)
    plan = Plan(
        name=root.name() if is_sold or root.has("name") else UNNAMED,
        description=root.optional("description", root.text) or "",
        policy=read_policy(root.table("policy")) if is_sold or root.has("policy") else _UNSET,
        tariff=read_tariff(root.table("tariff"), default_currency, is_sold=is_sold),
    )
    examples = root.tables("example")
    return plan, tuple(price_example(number, example, plan.tariff) for number, example in enumerate(examples))


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
