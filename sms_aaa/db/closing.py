"""Cycles that are over: which can be closed, what stands in them, and that they are."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from psycopg.rows import class_row

from sms_aaa.db.binary import int4s, int8s

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from datetime import timedelta

    from sms_aaa.db.cycles import OpeningRow
    from sms_aaa.db.engine import Connection


@dataclass(frozen=True, slots=True)
class ClosableRow:
    """A cycle that is over, with the head of the account's charging group, and whether it can be closed."""

    cycle_id: int
    account_id: int
    head_id: int
    starts_at: datetime
    ends_at: datetime
    zone: str
    anchor_day: int
    currency: str
    is_closable: bool


PAGE_BY_LIMIT = 2
"""So many times as many cycles as are asked for are looked at together: few of them have to wait."""

_CLOSABLE = """
    with over as materialized (
      select * from cycle c
      where c.state = 1 and c.ends_at <= %(now)s::timestamptz - %(grace)s::interval
        and (c.ends_at, c.id) > (%(after_at)s, %(after_id)s)
        and (%(only)s::bigint[] is null or c.id = any(%(only)s)) and c.id <> all(%(but)s)
      order by c.ends_at, c.id limit %(page)s)
    select c.id as cycle_id, c.account_id, a.head_id, c.starts_at, c.ends_at, a.zone, a.anchor_day, a.currency,
           not (exists (select from dirty_group d where d.head_account_id = a.head_id)
                or exists (select from cycle o
                           where o.account_id = c.account_id and o.state = 1 and o.ends_at <= c.starts_at)
                or exists (select from rating_queue q
                           where q.shard in (a.id %% 8, a.head_id %% 8) and q.queued_at < c.ends_at + %(grace)s)
                or exists (select from assignment g
                           join subscription u on u.service_id = g.service_id
                           join cycle_due d on d.subscription_id = u.id
                           where g.account_id = c.account_id and d.due_at <= c.ends_at
                             and g.during && tstzrange(c.starts_at, c.ends_at))) as is_closable
    from over c
    join (select *, coalesce(charging_head_id, id) as head_id from account) a on a.id = c.account_id
    order by c.ends_at, c.id"""


def list_closable(
    connection: Connection,
    *,
    now: datetime,
    grace: timedelta,
    limit: int,
    only: Collection[int] | None = None,
    but: Collection[int] = (),
) -> list[ClosableRow]:
    """Open cycles that ended a grace ago and of which nothing is missing any more, the earliest first.

    Not before everything that was settled within the grace is rated, groups that late usage disordered are rated again,
    all fees of the time are charged, and the account's cycle before is closed. `only` and `but` name cycles.
    """
    asked = {
        "now": now,
        "grace": grace,
        "page": limit * PAGE_BY_LIMIT,
        "only": None if only is None else list(only),
        "but": list(but),
        "after_at": datetime.min.replace(tzinfo=UTC),
        "after_id": 0,
    }
    found: list[ClosableRow] = []
    while len(found) < limit:
        with connection.cursor(row_factory=class_row(ClosableRow)) as cursor:
            rows = cursor.execute(_CLOSABLE, asked).fetchall()
        if not rows:
            break
        found += (row for row in rows if row.is_closable)
        asked |= {"after_at": rows[-1].ends_at, "after_id": rows[-1].cycle_id}
    return found[:limit]


def list_closed(connection: Connection, cycle_ids: Sequence[int]) -> list[ClosableRow]:
    """Of these cycles the closed ones, as they were closed."""
    with connection.cursor(row_factory=class_row(ClosableRow)) as cursor:
        return cursor.execute(
            """select c.id as cycle_id, c.account_id, coalesce(a.charging_head_id, a.id) as head_id, c.starts_at,
                      c.ends_at, a.zone, a.anchor_day, a.currency, false as is_closable
               from cycle c join account a on a.id = c.account_id where c.id = any(%s) and c.state = 2
               order by c.id""",
            (int8s(cycle_ids),),
        ).fetchall()


@dataclass(frozen=True, slots=True)
class FrozenRow:
    """What usage of a component, with its minimum, or a bound came to in a closed cycle, adjustments counted in.

    `earned_minor`: what the ledger has of it as revenue. `charge_id`: of the usage or the bound, if there was one.
    """

    cycle_id: int
    subscription_id: int
    component_id: int
    amount_minor: int
    earned_minor: int
    charge_id: int | None


def list_frozen(connection: Connection, cycle_ids: Sequence[int]) -> list[FrozenRow]:
    with connection.cursor(row_factory=class_row(FrozenRow)) as cursor:
        return cursor.execute(
            """select f.cycle_id, f.subscription_id, f.component_id, sum(f.amount)::bigint as amount_minor,
                      sum(f.earned)::bigint as earned_minor, max(f.charge_id) as charge_id
               from cycle c
               cross join lateral (
                 select h.cycle_id, h.subscription_id, h.component_id, h.amount_minor as amount, 0 as earned,
                        case when h.kind in ('usage', 'bound') then h.id end as charge_id
                 from charge h where h.account_id = c.account_id and h.cycle_id = c.id
                 union all
                 select j.cycle_id, j.subscription_id, j.component_id, j.amount_minor, 0, null
                 from adjustment j where j.account_id = c.account_id and j.cycle_id = c.id
                 union all
                 select e.cycle_id, e.subscription_id, e.component_id, 0,
                        case when e.credit like 'revenue:%%' then e.amount_minor
                             when e.debit like 'revenue:%%' then -e.amount_minor else 0 end, null
                 from entry e where e.account_id = c.account_id and e.cycle_id = c.id) f
               join component k on k.id = f.component_id and k.kind in ('usage', 'bound')
               where c.id = any(%s) group by 1, 2, 3""",
            (int8s(cycle_ids),),
        ).fetchall()


@dataclass(frozen=True, slots=True)
class ClosingTotalRow:
    """A total as it stands; `quantity` is what was priced."""

    account_id: int
    cycle_id: int
    subscription_id: int
    plan_version_id: int
    component: str
    component_id: int
    quantity: int
    numerator: int
    posted_minor: int


def list_closing_totals(connection: Connection, cycle_ids: Sequence[int]) -> list[ClosingTotalRow]:
    """The totals of these cycles, by cycle and subscription."""
    with connection.cursor(row_factory=class_row(ClosingTotalRow)) as cursor:
        return cursor.execute(
            """select t.account_id, t.cycle_id, t.subscription_id, k.plan_version_id, k.name as component,
                      k.id as component_id, t.quantity - t.carried as quantity, t.numerator, t.posted_minor
               from cycle c join usage_total t on t.account_id = c.account_id and t.cycle_id = c.id
               join component k on k.id = t.component_id
               where c.id = any(%s) order by t.cycle_id, t.subscription_id, k.id""",
            (int8s(cycle_ids),),
        ).fetchall()


@dataclass(frozen=True, slots=True)
class ClosingFeeRow:
    """A fee that stands in a cycle, exactly as a fraction of units of the currency, and rounded."""

    cycle_id: int
    subscription_id: int
    component: str
    numerator: int
    denominator: int
    amount_minor: int


def list_closing_fees(connection: Connection, cycle_ids: Sequence[int]) -> list[ClosingFeeRow]:
    """The recurring fees of these cycles and what came back of them."""
    with connection.cursor(row_factory=class_row(ClosingFeeRow)) as cursor:
        return cursor.execute(
            """select h.cycle_id, h.subscription_id, k.name as component, coalesce(h.numerator, 0) as numerator,
                      coalesce(h.denominator, 1) as denominator, h.amount_minor
               from cycle c join charge h on h.account_id = c.account_id and h.cycle_id = c.id
               join component k on k.id = h.component_id
               where c.id = any(%s) and h.kind in ('recurring', 'credit')""",
            (int8s(cycle_ids),),
        ).fetchall()


def update_carried(
    connection: Connection, cycle_ids: Sequence[int], openings: Sequence[OpeningRow]
) -> dict[int, datetime]:
    """Lets tiers that are carried on begin where those before them ended, be it later than was known.

    Of these cycles, for the components of `openings`. The accounts whose totals began elsewhere, each with the begin of
    the subscription from which on it is to be rated again.
    """
    rows = connection.execute(
        """with stale as (
             select t.account_id, t.cycle_id, t.subscription_id, t.component_id, lower(u.during) as since,
                    o.quantity as carried
             from cycle c
             join usage_total t on t.account_id = c.account_id and t.cycle_id = c.id
             join subscription u on u.id = t.subscription_id
             join component k on k.id = t.component_id
             join subscription w on w.service_id = u.service_id and upper(w.during) = lower(u.during)
             join component q on q.plan_version_id = w.plan_version_id and q.name = k.name and q.kind = 'usage'
             join usage_total o on o.account_id = t.account_id and o.cycle_id = t.cycle_id
               and o.subscription_id = w.id and o.component_id = q.id
             where c.id = any(%s) and k.id = any(%s) and o.quantity <> t.carried),
           moved as (
             update usage_total t set quantity = t.quantity - t.carried + s.carried, carried = s.carried
             from stale s
             where t.account_id = s.account_id and t.cycle_id = s.cycle_id
               and t.subscription_id = s.subscription_id and t.component_id = s.component_id)
           select account_id, min(since) from stale group by account_id""",
        (int8s(cycle_ids), int4s([each.component_id for each in openings if each.is_carried])),
    ).fetchall()
    return {int(row[0]): row[1] for row in rows}


def update_closed(connection: Connection, cycle_ids: Sequence[int], at: datetime) -> None:
    """These cycles are closed; AssertionError if one was already."""
    done = connection.execute(
        "update cycle set state = 2, closed_at = %s where id = any(%s) and state = 1", (at, int8s(cycle_ids))
    )
    assert done.rowcount == len(cycle_ids), "a cycle is closed once"


@dataclass(frozen=True, slots=True)
class CycleSummary:
    """A cycle of an account, with what stands in it, in minor units; `other_minor`: minimums and bounds."""

    cycle_id: int
    account_id: int
    starts_at: datetime
    ends_at: datetime
    closed_at: datetime | None
    currency: str
    fees_minor: int
    usage_minor: int
    other_minor: int
    adjusted_minor: int


def list_cycle_summaries(connection: Connection, account_ids: Sequence[int], *, limit: int) -> list[CycleSummary]:
    """The cycles of these accounts, the latest first."""
    with connection.cursor(row_factory=class_row(CycleSummary)) as cursor:
        return cursor.execute(
            """select c.id as cycle_id, c.account_id, c.starts_at, c.ends_at, c.closed_at, a.currency,
                      coalesce(h.fees, 0) as fees_minor, coalesce(h.usage, t.posted, 0) as usage_minor,
                      coalesce(h.other, 0) as other_minor, coalesce(j.adjusted, 0) as adjusted_minor
               from cycle c join account a on a.id = c.account_id
               left join lateral (
                 select sum(amount_minor) filter (where kind in ('recurring', 'credit', 'one-time'))::bigint as fees,
                        sum(amount_minor) filter (where kind = 'usage')::bigint as usage,
                        sum(amount_minor) filter (where kind in ('minimum', 'bound'))::bigint as other
                 from charge h where h.account_id = c.account_id and h.cycle_id = c.id) h on true
               left join lateral (
                 select sum(posted_minor)::bigint as posted
                 from usage_total t where t.account_id = c.account_id and t.cycle_id = c.id) t on true
               left join lateral (
                 select sum(amount_minor)::bigint as adjusted
                 from adjustment j where j.account_id = c.account_id and j.cycle_id = c.id) j on true
               where c.account_id = any(%s) order by c.starts_at desc, c.id desc limit %s""",
            (int8s(account_ids), limit),
        ).fetchall()
