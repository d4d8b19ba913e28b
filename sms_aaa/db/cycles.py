"""Cycles that are due to be opened, and what is charged in them: set-wise, for a month's turn may bring a million."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from sms_aaa.db.binary import instants, int4s, int8s, load_ints, numerics

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sms_aaa.db.engine import Connection


class DueRow(Struct, frozen=True, gc=False):
    """A subscription of which something is due; `at_us`: an instant of the cycle that it is due in.

    The account is the one that pays at that instant, its head that of its charging group; 0: nobody ever paid, and the
    subscription has ended.
    """

    subscription_id: int
    plan_version_id: int
    at_us: int
    has_ended: bool
    account_id: int
    head_id: int
    zone: str
    anchor_day: int


def list_due(connection: Connection, now: datetime, *, limit: int) -> list[DueRow]:
    """Subscriptions of which something is due, those that it was due of first; idle accounts too.

    Before somebody pays for a service nothing of it is due.
    """
    with connection.cursor(binary=True) as cursor:
        load_ints(cursor)
        rows = cursor.execute(
            """select u.id, u.plan_version_id, greatest(w.at, coalesce(lower(g.during), w.at)),
                      upper(u.during) <= %(now)s is true, coalesce(a.id, 0), coalesce(a.charging_head_id, a.id, 0),
                      coalesce(a.zone, ''), coalesce(a.anchor_day, 1)
               from cycle_due d
               join subscription u on u.id = d.subscription_id
               cross join lateral (
                 select least(greatest(d.due_at, lower(u.during)), upper(u.during) - interval '1 microsecond') as at) w
               left join lateral (
                 select * from assignment g
                 where g.service_id = u.service_id and g.during && tstzrange(w.at, greatest(w.at, %(now)s), '[]')
                 order by lower(g.during) limit 1) g on true
               left join account a on a.id = g.account_id
               where d.due_at <= %(now)s and lower(u.during) <= %(now)s
                 and (a.id is not null or upper(u.during) <= %(now)s)
               order by d.due_at limit %(limit)s""",
            {"now": now, "limit": limit},
        ).fetchall()
    return [DueRow(*row) for row in rows]


def update_due(connection: Connection, subscription_ids: Sequence[int], due_us: Sequence[int]) -> None:
    """When something of these subscriptions is due next."""
    connection.execute(
        """update cycle_due d set due_at = n.due_at from unnest(%s, %s) n(subscription_id, due_at)
           where d.subscription_id = n.subscription_id""",
        (int8s(subscription_ids), instants(due_us)),
    )


def delete_due(connection: Connection, subscription_ids: Sequence[int]) -> None:
    """Nothing of these subscriptions is due any more."""
    connection.execute("delete from cycle_due where subscription_id = any(%s)", (int8s(subscription_ids),))


class OpenedRow(Struct, frozen=True, gc=False):
    """A subscription in a cycle of the account that pays for it."""

    account_id: int
    cycle_id: int
    subscription_id: int
    plan_version_id: int


class CycleRow(Struct, frozen=True, gc=False):
    """A cycle with what its account reckons time by."""

    cycle_id: int
    starts_us: int
    ends_us: int
    is_closed: bool
    zone: str
    anchor_day: int


def list_cycles(connection: Connection, cycle_ids: Sequence[int]) -> list[CycleRow]:
    with connection.cursor(binary=True) as cursor:
        load_ints(cursor)
        rows = cursor.execute(
            """select c.id, c.starts_at, c.ends_at, c.state = 2, a.zone, a.anchor_day
               from cycle c join account a on a.id = c.account_id where c.id = any(%s)""",
            (int8s(cycle_ids),),
        ).fetchall()
    return [CycleRow(*row) for row in rows]


class SpanRow(Struct, frozen=True, gc=False):
    """One of the subscriptions of a service; `ends_us` None: it goes on."""

    service_id: int
    subscription_id: int
    plan_version_id: int
    starts_us: int
    ends_us: int | None


def list_spans(connection: Connection, subscription_ids: Sequence[int]) -> list[SpanRow]:
    """All subscriptions of the services that these are of, in order of time within a service."""
    with connection.cursor(binary=True) as cursor:
        load_ints(cursor)
        rows = cursor.execute(
            """select u.service_id, u.id, u.plan_version_id, lower(u.during), upper(u.during) from subscription u
               where u.service_id in (select service_id from subscription where id = any(%s))
               order by u.service_id, lower(u.during)""",
            (int8s(subscription_ids),),
        ).fetchall()
    return [SpanRow(*row) for row in rows]


class OpeningRow(Struct, frozen=True, gc=False):
    """What a usage component of a plan version costs in a cycle that nothing is used in, and how that is posted."""

    plan_version_id: int
    component_id: int
    numerator: int
    posted_minor: int
    debit: str
    credit: str
    currency: str
    is_carried: bool


def insert_totals(connection: Connection, opened: Sequence[OpenedRow], openings: Sequence[OpeningRow]) -> int:
    """The totals that these begin with, where there is none yet, and P(0) in the ledger; how many were new.

    A component whose tiers are carried on begins with the quantity of the one of its name on the plan that the
    subscription was changed from in the same cycle; that has cost already what it costs.
    """
    row = connection.execute(
        """with wanted as (
             select * from unnest(%s, %s, %s, %s) o(account_id, cycle_id, subscription_id, plan_version_id)
             join unnest(%s, %s, %s, %s, %s::text[], %s::text[], %s::text[], %s::bool[])
               z(plan_version_id, component_id, numerator, posted_minor, debit, credit, currency, is_carried)
               using (plan_version_id)),
           earlier as (
             select w.account_id, w.cycle_id, w.subscription_id, w.component_id, t.quantity
             from wanted w
             join subscription u on u.id = w.subscription_id
             join subscription o on o.service_id = u.service_id and upper(o.during) = lower(u.during)
             join component k on k.id = w.component_id
             join component q on q.plan_version_id = o.plan_version_id and q.name = k.name and q.kind = 'usage'
             join usage_total t on t.account_id = w.account_id and t.cycle_id = w.cycle_id
               and t.subscription_id = o.id and t.component_id = q.id
             where w.is_carried),
           added as (
             insert into usage_total (account_id, cycle_id, subscription_id, component_id, quantity, carried,
                                      numerator, posted_minor)
             select w.account_id, w.cycle_id, w.subscription_id, w.component_id, coalesce(e.quantity, 0),
                    coalesce(e.quantity, 0), case when e.quantity is null then w.numerator else 0 end,
                    case when e.quantity is null then w.posted_minor else 0 end
             from wanted w left join earlier e using (account_id, cycle_id, subscription_id, component_id)
             on conflict do nothing
             returning account_id, cycle_id, subscription_id, component_id, posted_minor),
           posted as (
             insert into entry (account_id, cycle_id, subscription_id, component_id, debit, credit, amount_minor,
                                currency)
             select a.account_id, a.cycle_id, a.subscription_id, a.component_id, w.debit, w.credit, a.posted_minor,
                    w.currency
             from added a join wanted w using (account_id, cycle_id, subscription_id, component_id)
             where a.posted_minor > 0)
           select count(*) from added""",
        (
            *_columns(opened),
            int4s([each.plan_version_id for each in openings]),
            int4s([each.component_id for each in openings]),
            numerics([each.numerator for each in openings]),
            int8s([each.posted_minor for each in openings]),
            [each.debit for each in openings],
            [each.credit for each in openings],
            [each.currency for each in openings],
            [each.is_carried for each in openings],
        ),
    ).fetchone()
    assert row is not None
    return int(row[0])


class ChargeRow(Struct, frozen=True, gc=False):
    """A charge of a component, below zero for what comes back, and the sides of an entry over a rise.

    The exact amount is `numerator` over `denominator` units of the currency; [from_us, until_us) its service period.
    """

    account_id: int
    cycle_id: int
    subscription_id: int
    component_id: int
    kind: str
    from_us: int
    until_us: int
    quantity: int
    numerator: int
    denominator: int
    amount_minor: int
    debit: str
    credit: str
    currency: str


def insert_charges(connection: Connection, charges: Sequence[ChargeRow], *, is_posted: bool = True) -> int:
    """These charges, each once however often it is asked, and (`is_posted`) their ledger entries; how many were new."""
    row = connection.execute(
        """with wanted as (
             select * from unnest(%s, %s, %s, %s, %s::text[], %s, %s, %s, %s, %s, %s, %s::text[], %s::text[],
                                  %s::text[])
               w(account_id, cycle_id, subscription_id, component_id, kind, from_at, until_at, quantity, numerator,
                 denominator, amount_minor, debit, credit, currency)),
           charged as (
             insert into charge (account_id, cycle_id, subscription_id, component_id, kind, from_at, until_at, quantity,
                                 numerator, denominator, amount_minor)
             select account_id, cycle_id, subscription_id, component_id, kind, from_at, until_at, quantity, numerator,
                    denominator, amount_minor
             from wanted on conflict do nothing
             returning account_id, cycle_id, subscription_id, component_id, kind, from_at, amount_minor),
           posted as (
             insert into entry (account_id, cycle_id, subscription_id, component_id, debit, credit, amount_minor,
                                currency)
             select account_id, cycle_id, subscription_id, component_id,
                    case when amount_minor > 0 then w.debit else w.credit end,
                    case when amount_minor > 0 then w.credit else w.debit end, abs(amount_minor), w.currency
             from charged join wanted w
               using (account_id, cycle_id, subscription_id, component_id, kind, from_at, amount_minor)
             where amount_minor <> 0 and %s)
           select count(*) from charged""",
        (
            int8s([each.account_id for each in charges]),
            int8s([each.cycle_id for each in charges]),
            int8s([each.subscription_id for each in charges]),
            int4s([each.component_id for each in charges]),
            [each.kind for each in charges],
            instants([each.from_us for each in charges]),
            instants([each.until_us for each in charges]),
            int8s([each.quantity for each in charges]),
            numerics([each.numerator for each in charges]),
            numerics([each.denominator for each in charges]),
            int8s([each.amount_minor for each in charges]),
            [each.debit for each in charges],
            [each.credit for each in charges],
            [each.currency for each in charges],
            is_posted,
        ),
    ).fetchone()
    assert row is not None
    return int(row[0])


class DeferredRow(Struct, frozen=True, gc=False):
    """A fee that goes beyond the cycle that it was charged in."""

    charge_id: int
    subscription_id: int
    component_id: int
    amount_minor: int
    from_us: int
    until_us: int


def list_deferred(connection: Connection, subscription_ids: Sequence[int], since: datetime) -> list[DeferredRow]:
    """The fees of these subscriptions that go beyond the cycle that they were charged in, and end after an instant."""
    with connection.cursor(binary=True) as cursor:
        load_ints(cursor)
        rows = cursor.execute(
            """select h.id, h.subscription_id, h.component_id, h.amount_minor, h.from_at, h.until_at
               from charge h join cycle c on c.id = h.cycle_id
               where h.subscription_id = any(%s) and h.kind in ('recurring', 'credit') and h.until_at > %s
                 and h.until_at > c.ends_at""",
            (int8s(subscription_ids), since),
        ).fetchall()
    return [DeferredRow(*row) for row in rows]


class EarningRow(Struct, frozen=True, gc=False):
    """What of a deferred fee is earned in a cycle, for the time up to `until_us`, and the sides of its entry."""

    charge_id: int
    until_us: int
    opened: OpenedRow
    component_id: int
    amount_minor: int
    debit: str
    credit: str
    currency: str


def insert_earnings(connection: Connection, earnings: Sequence[EarningRow]) -> int:
    """Moves these from deferred revenue to revenue, once however often it is asked; how many were new."""
    row = connection.execute(
        """with wanted as (
             select * from unnest(%s, %s, %s, %s, %s, %s, %s, %s::text[], %s::text[], %s::text[])
               w(charge_id, until_at, account_id, cycle_id, subscription_id, component_id, amount_minor, debit, credit,
                 currency)),
           earned as (
             insert into earning (charge_id, until_at, cycle_id, amount_minor)
             select charge_id, until_at, cycle_id, amount_minor from wanted
             on conflict do nothing returning charge_id, until_at),
           posted as (
             insert into entry (account_id, cycle_id, subscription_id, component_id, debit, credit, amount_minor,
                                currency)
             select account_id, cycle_id, subscription_id, component_id,
                    case when amount_minor > 0 then debit else credit end,
                    case when amount_minor > 0 then credit else debit end, abs(amount_minor), currency
             from wanted join earned using (charge_id, until_at) where amount_minor <> 0)
           select count(*) from earned""",
        (
            int8s([each.charge_id for each in earnings]),
            instants([each.until_us for each in earnings]),
            int8s([each.opened.account_id for each in earnings]),
            int8s([each.opened.cycle_id for each in earnings]),
            int8s([each.opened.subscription_id for each in earnings]),
            int4s([each.component_id for each in earnings]),
            int8s([each.amount_minor for each in earnings]),
            [each.debit for each in earnings],
            [each.credit for each in earnings],
            [each.currency for each in earnings],
        ),
    ).fetchone()
    assert row is not None
    return int(row[0])


def _columns(opened: Sequence[OpenedRow]) -> tuple[object, ...]:
    return (
        int8s([row.account_id for row in opened]),
        int8s([row.cycle_id for row in opened]),
        int8s([row.subscription_id for row in opened]),
        int4s([row.plan_version_id for row in opened]),
    )
