"""Plans: what is sold. A changed document is a new version; what was sold stays as it was."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sms_aaa.db import plans as db_plans
from sms_aaa.rules.plan import parse_plan, plan_digest, plan_to_document
from sms_aaa.rules.pricing import opening_numerator

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from sms_aaa.flows.provisioning.desk import Desk


def add_plan(
    desk: Desk, document: Mapping[str, object], *, default_currency: str, effective_at: datetime | None = None
) -> tuple[str, int, bool]:
    """(name, version, whether it is new) of the plan in a file's document, in force from an instant on (None: now).

    A document equal to the version that is in force then makes no new one. PlanInvalidError when it is wrong.
    """
    plan = parse_plan(document, default_currency=default_currency)
    digest = plan_digest(plan)
    same = db_plans.find_in_force(desk.connection, plan.name, effective_at)
    if same is not None and same.digest == digest:
        return plan.name, same.version, False
    tariff = plan.tariff
    components = [(fee.name, "recurring", 0) for fee in tariff.recurring]
    components += [(fee.name, "one-time", 0) for fee in tariff.one_time]
    components += [(component.name, "usage", opening_numerator(component)) for component in tariff.usage]
    components += [(bound.name, "bound", 0) for bound in tariff.bounds]
    version_id, version = db_plans.insert_version(
        desk.connection,
        plan.name,
        document=plan_to_document(plan),
        digest=digest,
        components=components,
        effective_at=effective_at,
    )
    after = {"name": plan.name, "version": version, "digest": digest}
    if effective_at is not None:
        after["effective_at"] = effective_at.isoformat()
    desk.record("added", "plan", version_id, before=None, after=after)
    return plan.name, version, True
