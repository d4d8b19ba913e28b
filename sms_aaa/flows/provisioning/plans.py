"""Plans: what is sold. A changed document is a new version; what was sold stays as it was."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sms_aaa.db import plans as db_plans
from sms_aaa.rules.plan import parse_plan, plan_digest, plan_to_document

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sms_aaa.flows.provisioning.desk import Desk


def add_plan(desk: Desk, document: Mapping[str, object], *, default_currency: str) -> tuple[str, int, bool]:
    """(name, version, whether it is new) of the plan in a file's document.

    A document equal to the newest version makes no new one. PlanInvalidError when it is wrong.
    """
    plan = parse_plan(document, default_currency=default_currency)
    digest = plan_digest(plan)
    latest = db_plans.find_latest(desk.connection, plan.name)
    if latest is not None and latest.digest == digest:
        return plan.name, latest.version, False
    tariff = plan.tariff
    components = [(fee.name, "recurring") for fee in tariff.recurring]
    components += [(fee.name, "one-time") for fee in tariff.one_time]
    components += [(component.name, "usage") for component in tariff.usage]
    components += [(bound.name, "bound") for bound in tariff.bounds]
    version_id, version = db_plans.insert_version(
        desk.connection, plan.name, document=plan_to_document(plan), digest=digest, components=components
    )
    after = {"name": plan.name, "version": version, "digest": digest}
    desk.record("added", "plan", version_id, before=None, after=after)
    return plan.name, version, True
