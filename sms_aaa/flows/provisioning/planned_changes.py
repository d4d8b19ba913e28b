"""A change that is still to come is taken back: the service stays on its plan, as if nobody had said anything.

What has come can't be: the old plan's fees were given back and the new one's charged, for good. It is followed by
another change, which has its own credit and charge.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sms_aaa.db import rating_queue as db_queue
from sms_aaa.db import subscriptions as db_subscriptions
from sms_aaa.flows.provisioning.desk import Desk, Refused, RefusedKind

if TYPE_CHECKING:
    from datetime import datetime

    from sms_aaa.db.subscribers import SubscriberRow


def take_back(desk: Desk, row: SubscriberRow) -> datetime | None:
    """Takes back what is to become of a service's plan; when it was to be, None where nothing is to change."""
    assert row.service_id is not None
    if row.account_id is not None:
        db_queue.lock_accounts(desk.connection, [row.account_id])  # the rater, which charges what falls due
    planned = db_subscriptions.lock_planned(desk.connection, row.service_id)
    if planned is None:
        return None
    if planned.is_charged:
        raise Refused(
            RefusedKind.CONFLICT,
            f"the change of {row.identity} at {planned.at} was charged already",
            "wait until then; `sms-aaa subscriber set-plan` then puts it back, and gives back what is not used",
        )
    if planned.begins_id is not None:
        db_subscriptions.delete_subscription(desk.connection, planned.begins_id)
    db_subscriptions.update_end(desk.connection, planned.ends_id, None)
    before = {"plan": planned.plan, "since": planned.at.isoformat()}
    desk.record("kept-plan", "service", row.service_id, before=before, after={"plan": row.plan})
    return planned.at
