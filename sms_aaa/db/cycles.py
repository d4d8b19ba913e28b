"""Cycles that are due to be opened, and their fees: set-wise, for a month's turn may bring a million."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from sms_aaa.db.binary import instants, int4s, int8s

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sms_aaa.db.engine import Connection


class DueRow(Struct, frozen=True, gc=False):
    """A subscription whose next cycle has begun, with the account that pays for it; or it has ended."""

    subscription_id: int
    has_ended: bool
    account_id: int
    plan_version_id: int
    zone: str
    anchor_day: int


def list_due(connection: Connection, now: datetime, *, limit: int) -> list[DueRow]:
    """Subscriptions that run or have ended, and whose next cycle has begun; idle accounts too."""
    rows = connection.execute(
        """select u.id, upper(u.during) <= %(now)s is true as has_ended, coalesce(a.id, 0), u.plan_version_id,
                  coalesce(a.zone, ''), coalesce(a.anchor_day, 1)
           from cycle_due d
           join subscription u on u.id = d.subscription_id
           left join assignment g on g.service_id = u.service_id and g.during @> %(now)s and u.during @> %(now)s
           left join account a on a.id = g.account_id
           where d.due_at <= %(now)s and (a.id is not null or upper(u.during) <= %(now)s)
           order by d.due_at limit %(limit)s""",
        {"now": now, "limit": limit},
        binary=True,
    ).fetchall()
    return [DueRow(*row) for row in rows]


def update_due(connection: Connection, subscription_ids: Sequence[int], due_us: Sequence[int]) -> None:
    """When the next cycle of these subscriptions begins."""
    connection.execute(
        """update cycle_due d set due_at = n.due_at from unnest(%s, %s) n(subscription_id, due_at)
           where d.subscription_id = n.subscription_id""",
        (int8s(subscription_ids), instants(due_us)),
    )


def delete_due(connection: Connection, subscription_ids: Sequence[int]) -> None:
    """No cycle of these subscriptions is asked for again."""
    connection.execute("delete from cycle_due where subscription_id = any(%s)", (int8s(subscription_ids),))


class OpenedRow(Struct, frozen=True, gc=False):
    """A subscription in a cycle of the account that pays for it."""

    account_id: int
    cycle_id: int
    subscription_id: int
    plan_version_id: int


class FeeRow(Struct, frozen=True, gc=False):
    """What a recurring component of a plan version costs in a cycle, and how it is posted."""

    plan_version_id: int
    component_id: int
    amount_minor: int
    debit: str
    credit: str
    currency: str


def insert_zero_totals(connection: Connection, opened: Sequence[OpenedRow]) -> None:
    """A total of nothing for each usage component, where there is none yet."""
    connection.execute(
        """insert into usage_total (account_id, cycle_id, subscription_id, component_id, quantity, numerator,
                                    posted_minor)
           select w.account_id, w.cycle_id, w.subscription_id, k.id, 0, 0, 0
           from unnest(%s, %s, %s, %s) w(account_id, cycle_id, subscription_id, plan_version_id)
           join component k on k.plan_version_id = w.plan_version_id and k.kind = 'usage'
           on conflict do nothing""",
        _columns(opened),
    )


def insert_charges(connection: Connection, opened: Sequence[OpenedRow], fees: Sequence[FeeRow]) -> int:
    """Charges the fees of their plans to these, once however often it is asked; how many ledger entries that made."""
    done = connection.execute(
        """with opened as (
             select * from unnest(%s, %s, %s, %s) o(account_id, cycle_id, subscription_id, plan_version_id)),
           fee as (
             select * from unnest(%s, %s, %s, %s::text[], %s::text[], %s::text[])
               f(plan_version_id, component_id, amount_minor, debit, credit, currency)),
           charged as (
             insert into charge (account_id, cycle_id, subscription_id, component_id, amount_minor)
             select account_id, cycle_id, subscription_id, component_id, amount_minor
             from opened join fee using (plan_version_id)
             on conflict (cycle_id, subscription_id, component_id, kind, from_at) do nothing
             returning account_id, cycle_id, subscription_id, component_id)
           insert into entry (account_id, cycle_id, subscription_id, component_id, debit, credit, amount_minor,
                              currency)
           select c.*, fee.debit, fee.credit, fee.amount_minor, fee.currency
           from charged c join fee using (component_id) where fee.amount_minor > 0""",
        (
            *_columns(opened),
            int4s([fee.plan_version_id for fee in fees]),
            int4s([fee.component_id for fee in fees]),
            int8s([fee.amount_minor for fee in fees]),
            [fee.debit for fee in fees],
            [fee.credit for fee in fees],
            [fee.currency for fee in fees],
        ),
    )
    return done.rowcount


def _columns(opened: Sequence[OpenedRow]) -> tuple[object, ...]:
    return (
        int8s([row.account_id for row in opened]),
        int8s([row.cycle_id for row in opened]),
        int8s([row.subscription_id for row in opened]),
        int4s([row.plan_version_id for row in opened]),
    )
