"""The plans that are being priced by, read once each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sms_aaa.db import plans as db_plans
from sms_aaa.rules.plan import Plan, plan_from_document

if TYPE_CHECKING:
    from sms_aaa.db.engine import Connection


@dataclass(frozen=True, slots=True)
class PricedPlan:
    """A plan version with the ids of its components."""

    plan: Plan
    component_ids: dict[str, int]


class PlanShelf:
    """Plan versions, read once each: they never change. The rater's, for as long as it lives."""

    __slots__ = ("_plans",)

    def __init__(self) -> None:
        self._plans: dict[int, PricedPlan] = {}

    def get(self, connection: Connection, plan_version_id: int) -> PricedPlan:
        if plan_version_id not in self._plans:
            [row] = db_plans.list_versions(connection, [plan_version_id])
            component_ids = db_plans.list_components(connection, plan_version_id)
            self._plans[plan_version_id] = PricedPlan(plan_from_document(row.document), component_ids)
        return self._plans[plan_version_id]
