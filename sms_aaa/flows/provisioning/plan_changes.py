"""A subscriber's services go from one plan to another, now or on a day that is still to come.

What that costs follows from the dates: the rater gives back what was charged of the old plan for the rest of its
period, charges the new plan from there on, and prices usage by the plan of its time (flows/cycles.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sms_aaa.db import subscriptions as db_subscriptions
from sms_aaa.flows.provisioning.desk import Desk, Invalid, Refused, RefusedKind
from sms_aaa.flows.provisioning.planned_changes import take_back
from sms_aaa.flows.provisioning.subscribers import get_sold, get_subscriber

if TYPE_CHECKING:
    from datetime import datetime

    from sms_aaa.db.plans import PlanVersionRow
    from sms_aaa.db.subscribers import SubscriberRow


def change_plan(desk: Desk, name: str, plan_name: str, *, at: datetime | None = None) -> int:
    """Puts every service of a subscriber on a plan at an instant (None: now), in the version in force then; how many.

    One that is on it already stays. Refused where another change is to come, or the plan is in another currency.
    """
    plan = get_sold(desk.connection, plan_name, at)
    rows = [row for row in get_subscriber(desk.connection, name) if row.service_id is not None]
    return sum(_change(desk, row, plan, at) for row in rows)


def keep_plan(desk: Desk, name: str) -> datetime:
    """Takes back the change of a subscriber's services that is still to come; when it was to be.

    Refused where none is: what has come was charged and given back, and is followed by another change.
    """
    rows = [row for row in get_subscriber(desk.connection, name) if row.service_id is not None]
    taken_back = [at for row in rows if (at := take_back(desk, row)) is not None]
    if not taken_back:
        raise Refused(
            RefusedKind.CONFLICT,
            f"no change of {name} is still to come",
            "`sms-aaa subscriber set-plan` puts it on another plan, or back on one, from now on",
        )
    return min(taken_back)


def _change(desk: Desk, row: SubscriberRow, plan: PlanVersionRow, at: datetime | None) -> bool:
    currency = str(plan.document["tariff"]["currency"])
    if row.currency not in {None, currency}:
        raise Refused(
            RefusedKind.CONFLICT, f"plan {plan.name} is in {currency}, the account in {row.currency}", "choose another"
        )
    assert row.service_id is not None
    last = db_subscriptions.lock_last(desk.connection, row.service_id)
    since = at
    if last is not None:
        if last.starts_at > last.now or (last.ends_at is not None and last.ends_at > last.now):
            raise Refused(
                RefusedKind.CONFLICT,
                f"{row.identity} is to change at {last.starts_at if last.ends_at is None else last.ends_at} already",
                "wait until it has, or take that back: `sms-aaa subscriber keep-plan`",
            )
        if at is not None and at < last.now:
            raise Invalid("at", "it lies in the past, and what was used since is rated", "name a day to come")
        if last.ends_at is None and last.plan_version_id == plan.id:
            return False
        since = at or last.now
        if last.ends_at is None:
            db_subscriptions.update_end(desk.connection, last.id, since)
    assert since is not None, "a service is put on a plan when it is added"
    db_subscriptions.insert_subscription(desk.connection, row.service_id, plan.id, since=since)
    before = {"plan": last.plan, "version": last.version} if last is not None else None
    after = {"plan": plan.name, "version": plan.version, "since": since.isoformat()}
    desk.record("changed-plan", "service", row.service_id, before=before, after=after)
    return True
