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


def update_end(connection: Connection, subscription_id: int, at: datetime) -> None:
    connection.execute(
        "update subscription set during = tstzrange(lower(during), %s) where id = %s", (at, subscription_id)
    )


def insert_subscription(connection: Connection, service_id: int, plan_version_id: int, *, since: datetime) -> None:
    """Without an end."""
    connection.execute(
        "insert into subscription (service_id, plan_version_id, during) values (%s, %s, tstzrange(%s, null))",
        (service_id, plan_version_id, since),
    )
