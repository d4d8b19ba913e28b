"""The plans that services are on, dated: a change ends one subscription and begins the next, at the same instant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg.rows import class_row

if TYPE_CHECKING:
    from datetime import datetime

    from sms_aaa.db.engine import Connection


@dataclass(frozen=True, slots=True)
class LastSubscription:
    """The subscription of a service that begins last; `now` is the database's clock."""

    id: int
    plan: str
    version: int
    plan_version_id: int
    starts_at: datetime
    ends_at: datetime | None
    now: datetime


def lock_last(connection: Connection, service_id: int) -> LastSubscription | None:
    """None: the service never was on a plan."""
    with connection.cursor(row_factory=class_row(LastSubscription)) as cursor:
        return cursor.execute(
            """select u.id, p.name as plan, v.version, u.plan_version_id, lower(u.during) as starts_at,
                      upper(u.during) as ends_at, clock_timestamp() as now
               from subscription u join plan_version v on v.id = u.plan_version_id join plan p on p.id = v.plan_id
               where u.service_id = %s order by lower(u.during) desc limit 1 for no key update of u""",
            (service_id,),
        ).fetchone()


@dataclass(frozen=True, slots=True)
class PlannedChange:
    """What is to become of a service: its subscription `ends_id` ends, and (`begins_id`, to `plan`) another begins.

    `is_charged`: something of that was charged, given back or rated already.
    """

    at: datetime
    ends_id: int
    begins_id: int | None
    plan: str | None
    is_charged: bool


def lock_planned(connection: Connection, service_id: int) -> PlannedChange | None:
    """The change that is still to come by the database's clock; None: there is none."""
    with connection.cursor(row_factory=class_row(PlannedChange)) as cursor:
        return cursor.execute(
            """select upper(u.during) as at, u.id as ends_id, n.id as begins_id, p.name as plan,
                      exists (select from usage_total t where t.subscription_id = n.id)
                      or exists (select from charge h where h.subscription_id = n.id
                                 or h.subscription_id = u.id and h.kind = 'credit') as is_charged
               from subscription u
               left join subscription n on n.service_id = u.service_id and lower(n.during) = upper(u.during)
               left join plan_version v on v.id = n.plan_version_id left join plan p on p.id = v.plan_id
               where u.service_id = %s and upper(u.during) > clock_timestamp() and lower(u.during) <= clock_timestamp()
               for no key update of u""",
            (service_id,),
        ).fetchone()


def delete_subscription(connection: Connection, subscription_id: int) -> None:
    """One that never began."""
    connection.execute("delete from subscription where id = %s", (subscription_id,))


def update_end(connection: Connection, subscription_id: int, at: datetime | None) -> None:
    """None: it has no end."""
    connection.execute(
        "update subscription set during = tstzrange(lower(during), %s) where id = %s", (at, subscription_id)
    )


def insert_subscription(connection: Connection, service_id: int, plan_version_id: int, *, since: datetime) -> None:
    """Without an end."""
    connection.execute(
        "insert into subscription (service_id, plan_version_id, during) values (%s, %s, tstzrange(%s, null))",
        (service_id, plan_version_id, since),
    )
