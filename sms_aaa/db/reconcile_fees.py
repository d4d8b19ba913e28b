"""What the proof of fees reads: the cycles that were opened for each subscription, and what was charged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg.rows import class_row

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sms_aaa.db.engine import Connection


@dataclass(frozen=True, slots=True)
class OpenedFeeRow:
    """A cycle that was opened for a subscription: it has totals, be they zero.

    What is due at `due_at` or later is open yet; None: nothing is.
    """

    account_id: int
    cycle_id: int
    starts_at: datetime
    ends_at: datetime
    is_closed: bool
    zone: str
    anchor_day: int
    subscription_id: int
    plan_version_id: int
    due_at: datetime | None


@dataclass(frozen=True, slots=True)
class ChargedRow:
    """A fee that was charged, or given back."""

    account_id: int
    cycle_id: int
    subscription_id: int
    component_id: int
    kind: str
    from_at: datetime
    amount_minor: int


def list_subscriptions(connection: Connection, *, after: int, limit: int) -> list[int]:
    """Ids of subscriptions with an id above `after`, and of those that were charged though nobody has them."""
    rows = connection.execute(
        """select id from (select id from subscription where id > %(after)s
                           union select subscription_id from charge where subscription_id > %(after)s) s
           order by id limit %(limit)s""",
        {"after": after, "limit": limit},
    )
    return [int(row[0]) for row in rows.fetchall()]


def list_opened(connection: Connection, subscription_ids: Sequence[int]) -> list[OpenedFeeRow]:
    with connection.cursor(row_factory=class_row(OpenedFeeRow)) as cursor:
        return cursor.execute(
            """select o.account_id, o.cycle_id, c.starts_at, c.ends_at, c.state = 2 as is_closed, a.zone, a.anchor_day,
                      u.id as subscription_id, u.plan_version_id, d.due_at
               from (select distinct account_id, cycle_id, subscription_id from usage_total
                     where subscription_id = any(%s)) o
               join cycle c on c.id = o.cycle_id join account a on a.id = o.account_id
               join subscription u on u.id = o.subscription_id
               left join cycle_due d on d.subscription_id = u.id
               order by u.id, c.starts_at""",
            (list(subscription_ids),),
        ).fetchall()


def list_charged(connection: Connection, subscription_ids: Sequence[int]) -> list[ChargedRow]:
    with connection.cursor(row_factory=class_row(ChargedRow)) as cursor:
        return cursor.execute(
            """select account_id, cycle_id, subscription_id, component_id, kind, from_at, amount_minor from charge
               where subscription_id = any(%s) and kind in ('recurring', 'credit', 'one-time')""",
            (list(subscription_ids),),
        ).fetchall()
