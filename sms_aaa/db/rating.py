"""The rater's tables: cycles, totals, rated usage, suspense; and what `usage` and `explain` read of them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING

from msgspec import Struct
from psycopg.rows import class_row

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sms_aaa.db.engine import Connection
    from sms_aaa.db.rating_queue import QueuedDelta


@dataclass(frozen=True, slots=True)
class AccountRow:
    id: int
    currency: str
    zone: str
    anchor_day: int


@dataclass(frozen=True, slots=True)
class SubscriptionRow:
    """`ends_at` None: it goes on."""

    id: int
    service_id: int
    plan_version_id: int
    starts_at: datetime
    ends_at: datetime | None


class TotalKey(Struct, frozen=True, gc=False, order=True):
    """Whose running total it is."""

    account_id: int
    cycle_id: int
    subscription_id: int
    component_id: int


class Total(Struct, frozen=True, gc=False):
    """Octets so far; exact price as a numerator over the component's denominator; what of it the ledger has."""

    quantity: int
    numerator: int
    posted_minor: int


class RatedUsage(Struct, frozen=True, gc=False, kw_only=True):
    key: TotalKey
    session_id: int
    seq: int
    slice: int
    to_at: datetime
    run_id: int
    quantity: int
    total_before: int
    numerator: int


def get_accounts(connection: Connection, ids: Iterable[int]) -> dict[int, AccountRow]:
    """Accounts by their ids."""
    with connection.cursor(row_factory=class_row(AccountRow)) as cursor:
        rows = cursor.execute(
            "select id, currency, zone, anchor_day from account where id = any(%s)", (sorted(set(ids)),)
        )
        return {row.id: row for row in rows}


def list_subscriptions(connection: Connection, service_ids: Iterable[int]) -> list[SubscriptionRow]:
    """All subscriptions of these services, in order of time."""
    with connection.cursor(row_factory=class_row(SubscriptionRow)) as cursor:
        return cursor.execute(
            """select id, service_id, plan_version_id, lower(during) as starts_at, upper(during) as ends_at
               from subscription where service_id = any(%s) order by service_id, lower(during)""",
            (sorted(set(service_ids)),),
        ).fetchall()


def upsert_cycles(
    connection: Connection, cycles: Sequence[tuple[int, datetime, datetime]]
) -> dict[tuple[int, datetime], int]:
    """Ids by (account id, start) of these (account id, start, end); ExclusionViolation if one would overlap another."""
    rows = connection.execute(
        """with wanted as (
             select * from unnest(%s::bigint[], %s::timestamptz[], %s::timestamptz[])
               w(account_id, starts_at, ends_at)),
           added as (
             insert into cycle (account_id, starts_at, ends_at) select * from wanted
             on conflict (account_id, starts_at) do nothing returning id, account_id, starts_at, ends_at)
           select * from added
           union all
           select c.id, c.account_id, c.starts_at, c.ends_at from cycle c join wanted using (account_id, starts_at)""",
        ([c[0] for c in cycles], [c[1] for c in cycles], [c[2] for c in cycles]),
    ).fetchall()
    ends = {(account_id, starts_at): ends_at for account_id, starts_at, ends_at in cycles}
    assert all(row[3] == ends[row[1], row[2]] for row in rows), "an account's cycles keep their bounds"
    return {(row[1], row[2]): int(row[0]) for row in rows}


def list_totals(connection: Connection, keys: Sequence[TotalKey]) -> dict[TotalKey, Total]:
    """The totals that exist; the owners' shard is locked, so they stand still."""
    rows = connection.execute(
        """select t.account_id, t.cycle_id, t.subscription_id, t.component_id, t.quantity, t.numerator, t.posted_minor
           from unnest(%s::bigint[], %s::bigint[], %s::bigint[], %s::int[]) k(account_id, cycle_id, sub, component)
           join usage_total t on t.account_id = k.account_id and t.cycle_id = k.cycle_id
             and t.subscription_id = k.sub and t.component_id = k.component""",
        _columns(keys),
    ).fetchall()
    return {TotalKey(*row[:4]): Total(row[4], int(row[5]), row[6]) for row in rows}


def upsert_totals(connection: Connection, totals: dict[TotalKey, Total]) -> None:
    ordered = sorted(totals.items())
    connection.execute(
        """insert into usage_total (account_id, cycle_id, subscription_id, component_id, quantity, numerator,
                                    posted_minor)
           select * from unnest(%s::bigint[], %s::bigint[], %s::bigint[], %s::int[], %s::bigint[], %s::numeric[],
                                %s::bigint[])
           on conflict (account_id, cycle_id, subscription_id, component_id) do update
           set quantity = excluded.quantity, numerator = excluded.numerator, posted_minor = excluded.posted_minor""",
        (
            *_columns([key for key, _ in ordered]),
            [total.quantity for _, total in ordered],
            [Decimal(total.numerator) for _, total in ordered],
            [total.posted_minor for _, total in ordered],
        ),
    )


def _columns(keys: Sequence[TotalKey]) -> tuple[list[int], list[int], list[int], list[int]]:
    """The keys as arrays, a field each."""
    return (
        [key.account_id for key in keys],
        [key.cycle_id for key in keys],
        [key.subscription_id for key in keys],
        [key.component_id for key in keys],
    )


def insert_run(connection: Connection, *, program: str, started_at: datetime, deltas: int) -> int:
    """A live rating run; its id stands on all that it writes."""
    row = connection.execute(
        "insert into rating_run (kind, program, started_at, deltas) values ('live', %s, %s, %s) returning id",
        (program, started_at, deltas),
    ).fetchone()
    assert row is not None
    return int(row[0])


def insert_rated(connection: Connection, rated: Iterable[RatedUsage]) -> None:
    """By COPY. The key (delta, component, slice, generation) refuses what is rated already: exactly once."""
    statement = """copy rated_usage (account_id, cycle_id, subscription_id, component_id, session_id, seq, slice,
        generation, to_at, run_id, quantity, total_before, numerator) from stdin"""
    with connection.cursor().copy(statement) as copy:
        for r in rated:
            k = r.key
            copy.write_row((
                k.account_id, k.cycle_id, k.subscription_id, k.component_id, r.session_id, r.seq, r.slice, 1, r.to_at,
                r.run_id, r.quantity, r.total_before, r.numerator,
            ))  # fmt: skip


def insert_suspense(connection: Connection, deltas: Iterable[QueuedDelta], reason: str) -> None:
    connection.cursor().executemany(
        """insert into suspense (session_id, seq, to_at, account_id, reason) values (%s, %s, %s, %s, %s)
           on conflict do nothing""",
        [(d.session_id, d.seq, d.to_at, d.account_id, reason) for d in deltas],
    )


@dataclass(frozen=True, slots=True)
class DueRow:
    """A subscription whose next cycle is to be opened, with the account that pays for it."""

    account_id: int
    subscription_id: int
    plan_version_id: int
    zone: str
    anchor_day: int


def list_due(connection: Connection, now: datetime, *, limit: int) -> list[DueRow]:
    """Running subscriptions whose next cycle has begun, idle accounts too; what has ended is not asked for again."""
    connection.execute(
        """delete from cycle_due d using subscription u
           where u.id = d.subscription_id and d.due_at <= %(now)s and upper(u.during) <= %(now)s""",
        {"now": now},
    )
    with connection.cursor(row_factory=class_row(DueRow)) as cursor:
        return cursor.execute(
            """select g.account_id, u.id as subscription_id, u.plan_version_id, a.zone, a.anchor_day
               from cycle_due d
               join subscription u on u.id = d.subscription_id and u.during @> %(now)s
               join assignment g on g.service_id = u.service_id and g.during @> %(now)s
               join account a on a.id = g.account_id
               where d.due_at <= %(now)s order by d.due_at limit %(limit)s""",
            {"now": now, "limit": limit},
        ).fetchall()


def update_due(connection: Connection, due: Sequence[tuple[int, datetime]]) -> None:
    """(subscription id, when its next cycle begins) of subscriptions whose present cycle is open."""
    connection.execute(
        """update cycle_due d set due_at = n.due_at
           from unnest(%s::bigint[], %s::timestamptz[]) n(subscription_id, due_at)
           where d.subscription_id = n.subscription_id""",
        ([subscription_id for subscription_id, _ in due], [due_at for _, due_at in due]),
    )


def insert_charges(connection: Connection, charges: Sequence[tuple[TotalKey, int]]) -> list[TotalKey]:
    """Recurring fees of cycles, as (key, amount in minor units); which of them were not there already."""
    rows = connection.execute(
        """insert into charge (account_id, cycle_id, subscription_id, component_id, amount_minor)
           select * from unnest(%s::bigint[], %s::bigint[], %s::bigint[], %s::int[], %s::bigint[])
           on conflict (cycle_id, subscription_id, component_id) do nothing
           returning account_id, cycle_id, subscription_id, component_id""",
        (*_columns([key for key, _ in charges]), [amount_minor for _, amount_minor in charges]),
    ).fetchall()
    return [TotalKey(*row) for row in rows]


@dataclass(frozen=True, slots=True)
class UsageTotalRow:
    """A component's total in a cycle, as `usage` shows it."""

    account_id: int
    cycle_id: int
    starts_at: datetime
    ends_at: datetime
    currency: str
    subscription_id: int
    plan_version_id: int
    plan: str
    component: str
    component_id: int
    kind: str
    quantity: int
    numerator: int
    posted_minor: int


def list_usage_totals(connection: Connection, account_id: int, at: datetime | None) -> list[UsageTotalRow]:
    """The components of the account's cycle at an instant (None: of all its cycles); fees as kind `recurring`."""
    with connection.cursor(row_factory=class_row(UsageTotalRow)) as cursor:
        return cursor.execute(
            """select c.account_id, c.id as cycle_id, c.starts_at, c.ends_at, a.currency, t.subscription_id,
                      k.plan_version_id, p.name as plan, k.name as component, k.id as component_id, k.kind,
                      t.quantity, t.numerator, t.posted_minor
               from cycle c join account a on a.id = c.account_id
               join (select account_id, cycle_id, subscription_id, component_id, quantity, numerator, posted_minor
                     from usage_total
                     union all
                     select account_id, cycle_id, subscription_id, component_id, 0, 0, amount_minor from charge) t
                 on t.account_id = c.account_id and t.cycle_id = c.id
               join component k on k.id = t.component_id
               join plan_version v on v.id = k.plan_version_id join plan p on p.id = v.plan_id
               where c.account_id = %(account)s
                 and (%(at)s::timestamptz is null or c.starts_at <= %(at)s and c.ends_at > %(at)s)
               order by c.starts_at, t.subscription_id, k.kind, k.id""",
            {"account": account_id, "at": at},
        ).fetchall()


@dataclass(frozen=True, slots=True)
class RatedRow:
    """What one slice of a delta cost in one component."""

    session_id: int
    seq: int
    subscription_id: int
    component_id: int
    slice: int
    generation: int
    run_id: int
    cycle_id: int
    quantity: int
    total_before: int
    numerator: int


def list_rated(connection: Connection, account_id: int, deltas: Sequence[tuple[int, int]]) -> list[RatedRow]:
    """The rated slices of these (session, seq) deltas."""
    with connection.cursor(row_factory=class_row(RatedRow)) as cursor:
        return cursor.execute(
            """select session_id, seq, subscription_id, component_id, slice, generation, run_id, cycle_id, quantity,
                      total_before, numerator
               from rated_usage
               where account_id = %s and (session_id, seq) in (select * from unnest(%s::bigint[], %s::int[]))
               order by session_id, seq, component_id, slice""",
            (account_id, [session for session, _ in deltas], [seq for _, seq in deltas]),
        ).fetchall()
