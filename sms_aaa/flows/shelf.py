"""The plans that are being priced by, read once each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from msgspec import Struct

from sms_aaa.db import plans as db_plans
from sms_aaa.flows.cycle_book import CycleBook
from sms_aaa.rules.measure import Kind
from sms_aaa.rules.plan import Plan, plan_from_document
from sms_aaa.rules.pricing import is_plain
from sms_aaa.rules.tariff import Scope, Switch, Tariff

if TYPE_CHECKING:
    from sms_aaa.db.engine import Connection


@dataclass(frozen=True, slots=True)
class PricedPlan:
    """A plan version with the ids of its components."""

    plan: Plan
    component_ids: dict[str, int]


class PricedTariff(Struct, frozen=True, gc=False):
    """A plan version's tariff with the ids of its usage components, in its order.

    `is_plain`: a delta within a cycle costs what its quantities cost, and nothing else is to be known of it.
    `is_ordered`: prices depend on the order of slices, buckets aside.
    """

    plan_version_id: int
    tariff: Tariff
    component_ids: tuple[int, ...]
    is_plain: bool
    is_ordered: bool


class PlanShelf:
    """Plan versions, read once each: they never change. The rater's, for as long as it lives; and the cycles it met."""

    __slots__ = ("_plans", "_tariffs", "cycles")

    def __init__(self) -> None:
        self.cycles = CycleBook()
        self._plans: dict[int, PricedPlan] = {}
        self._tariffs: dict[int, PricedTariff] = {}

    def get(self, connection: Connection, plan_version_id: int) -> PricedPlan:
        if plan_version_id not in self._plans:
            [row] = db_plans.list_versions(connection, [plan_version_id])
            component_ids = db_plans.list_components(connection, plan_version_id)
            self._plans[plan_version_id] = PricedPlan(plan_from_document(row.document), component_ids)
        return self._plans[plan_version_id]

    def tariff(self, connection: Connection, plan_version_id: int) -> PricedTariff:
        """As the rater needs it."""
        found = self._tariffs.get(plan_version_id)
        if found is None:
            found = self._tariffs[plan_version_id] = _priced(plan_version_id, self.get(connection, plan_version_id))
        return found


def _priced(plan_version_id: int, priced: PricedPlan) -> PricedTariff:
    tariff = priced.plan.tariff
    return PricedTariff(
        plan_version_id,
        tariff,
        tuple(priced.component_ids[part.name] for part in tariff.usage),
        is_plain=(
            all(is_plain(part) and part.measure.kind is not Kind.UNITS for part in tariff.usage)
            and not (tariff.slots or tariff.bands or tariff.keys or tariff.buckets)
            and tariff.switch is Switch.LINEAR
        ),
        is_ordered=any(part.scope is Scope.SESSION for part in tariff.usage),
    )
