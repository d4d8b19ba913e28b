"""Queries that prove counted = rated = posted: they count again from the facts, not from running totals.

A law that compares two tables joins them fully: what only one of them has is the worst difference there is. Where
deltas are past their retention and erased, nothing is asked of them. What takes a tariff to judge is not judged here
but read out row by row, for flows/reconciling.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, LiteralString

from psycopg import sql
from psycopg.rows import class_row

from sms_aaa.db.reconcile_buckets import BUCKET_LAWS
from sms_aaa.db.reconcile_money import MONEY_LAWS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime
    from decimal import Decimal

    from sms_aaa.db.engine import Connection

ROWS_AT_ONCE = 2_000
"""Of a table that is read whole, how many rows a round trip brings."""


@dataclass(frozen=True, slots=True)
class CountedRow:
    """Octets of an account (None: of sessions without a service), by where they are on their way to money."""

    account_id: int | None
    counted_in: int
    counted_out: int
    open_in: int
    open_out: int
    suspense_in: int
    suspense_out: int


def list_counted(connection: Connection) -> list[CountedRow]:
    """What the deltas hold, what of it still waits in the queue, and what is in suspense."""
    with connection.cursor(row_factory=class_row(CountedRow)) as cursor:
        return cursor.execute(
            """select d.account_id, sum(d.octets_in)::bigint as counted_in, sum(d.octets_out)::bigint as counted_out,
                      coalesce(sum(d.octets_in) filter (where q.seq is not null), 0)::bigint as open_in,
                      coalesce(sum(d.octets_out) filter (where q.seq is not null), 0)::bigint as open_out,
                      coalesce(sum(d.octets_in) filter (where x.seq is not null), 0)::bigint as suspense_in,
                      coalesce(sum(d.octets_out) filter (where x.seq is not null), 0)::bigint as suspense_out
               from usage_delta d
               left join queued_delta q on q.session_id = d.session_id and q.seq = d.seq
               left join suspense x on x.session_id = d.session_id and x.seq = d.seq
               group by d.account_id order by d.account_id nulls last"""
        ).fetchall()


@dataclass(frozen=True, slots=True)
class ExcludedRow:
    """Octets that belong to no account, by the reason for which their sessions are excluded."""

    reason: str
    octets_in: int
    octets_out: int


def list_excluded(connection: Connection) -> list[ExcludedRow]:
    with connection.cursor(row_factory=class_row(ExcludedRow)) as cursor:
        return cursor.execute(
            """select case when s.id is null then 'no-session' else coalesce(s.excluded, 'no-account') end as reason,
                      sum(d.octets_in)::bigint as octets_in, sum(d.octets_out)::bigint as octets_out
               from usage_delta d left join session_all s on s.id = d.session_id
               where d.account_id is null group by 1 order by 1"""
        ).fetchall()


@dataclass(frozen=True, slots=True)
class QuarantinedRow:
    """Records that could not be settled and still wait for somebody, by the reason; their octets are in no session."""

    reason: str
    records: int


def list_quarantined(connection: Connection) -> list[QuarantinedRow]:
    with connection.cursor(row_factory=class_row(QuarantinedRow)) as cursor:
        return cursor.execute(
            "select reason, count(*) as records from quarantine where resolved_at is null group by 1 order by 1"
        ).fetchall()


@dataclass(frozen=True, slots=True)
class RatedSumRow:
    """Octets of the deltas of an account that are rated; each of them once, whatever components count it."""

    account_id: int
    octets_in: int
    octets_out: int


def list_rated_sums(connection: Connection) -> list[RatedSumRow]:
    with connection.cursor(row_factory=class_row(RatedSumRow)) as cursor:
        return cursor.execute(
            """select r.account_id, sum(d.octets_in)::bigint as octets_in, sum(d.octets_out)::bigint as octets_out
               from (select distinct account_id, session_id, seq, to_at from rated_usage) r
               join usage_delta d on d.session_id = r.session_id and d.seq = r.seq and d.to_at = r.to_at
               group by 1 order by 1"""
        ).fetchall()


@dataclass(frozen=True, slots=True)
class CycleBalance:
    """Octets of an account in one of its cycles, both directions: counted = priced + covered + uncovered + the rest.

    `cycle_id` None: of usage in whose time no cycle is open yet. What waits or is in suspense stands whole where it
    ended; of what is rated each part in the cycle in which it lies.
    """

    account_id: int
    cycle_id: int | None
    starts_at: datetime | None
    counted: int
    priced: int
    covered: int
    uncovered: int
    waiting: int
    suspense: int

    @property
    def balances(self) -> bool:
        return self.counted == self.priced + self.covered + self.uncovered + self.waiting + self.suspense


def list_cycle_balances(connection: Connection) -> list[CycleBalance]:
    """Of cycles whose deltas are all there still, by account and time.

    What lies whole in a cycle is counted from the deltas; of what crosses an edge of it, the parts that were cut are
    taken as counted, for another law says that they are the whole.
    """
    with connection.cursor(row_factory=class_row(CycleBalance)) as cursor:
        return cursor.execute(
            """with placed as (
                 select d.account_id, d.session_id, d.seq, d.to_at, c.id as cycle_id,
                        d.octets_in + d.octets_out as octets, c.starts_at > d.from_at as crosses,
                        q.seq is not null as waits, x.seq is not null as suspended
                 from usage_delta d
                 left join cycle c on c.account_id = d.account_id and c.starts_at <= d.to_at and d.to_at <= c.ends_at
                   and case when d.from_at < d.to_at then c.starts_at < d.to_at else d.to_at < c.ends_at end
                 left join queued_delta q on q.session_id = d.session_id and q.seq = d.seq
                 left join suspense x on x.session_id = d.session_id and x.seq = d.seq
                 where d.account_id is not null),
               counted as (
                 select account_id, cycle_id,
                        coalesce(sum(octets) filter (where not crosses is true or waits or suspended), 0) as whole,
                        coalesce(sum(octets) filter (where waits), 0) as waiting,
                        coalesce(sum(octets) filter (where suspended), 0) as suspense
                 from placed group by 1, 2),
               parts as (
                 select r.account_id, r.cycle_id, sum(r.quantity) as octets
                 from placed p
                 join rated_now r on r.session_id = p.session_id and r.seq = p.seq and r.to_at = p.to_at
                 join component_measure m on m.component_id = r.component_id and m.is_traffic
                 where p.crosses group by 1, 2),
               rated as (
                 select r.account_id, r.cycle_id, sum(r.quantity - r.covered - r.uncovered) as priced,
                        sum(r.covered) as covered, sum(r.uncovered) as uncovered
                 from rated_now r join component_measure m on m.component_id = r.component_id and m.is_traffic
                 group by 1, 2)
               select s.account_id, s.cycle_id, c.starts_at,
                      sum(counted)::bigint as counted, sum(priced)::bigint as priced, sum(covered)::bigint as covered,
                      sum(uncovered)::bigint as uncovered, sum(waiting)::bigint as waiting,
                      sum(suspense)::bigint as suspense
               from (select account_id, cycle_id, whole as counted, 0 as priced, 0 as covered, 0 as uncovered, waiting,
                            suspense from counted
                     union all select account_id, cycle_id, octets, 0, 0, 0, 0, 0 from parts
                     union all select account_id, cycle_id, 0, priced, covered, uncovered, 0, 0 from rated) s
               left join cycle c on c.id = s.cycle_id
               where c.starts_at is null
                 or c.starts_at >= (select erased_before + interval '3 days' from session_boundary)
               group by 1, 2, 3 order by 1, 3 nulls last, 2"""
        ).fetchall()


@dataclass(frozen=True, slots=True)
class PricedTotalRow:
    """A running total with what it is priced by; `component` None: the subscription's plan has none with this id.

    `numerator` is a whole number, as PostgreSQL's numeric comes.
    """

    account_id: int
    cycle_id: int
    subscription_id: int
    component_id: int
    plan_version_id: int
    component: str | None
    quantity: int
    carried: int
    numerator: Decimal
    posted_minor: int


def stream_totals(connection: Connection) -> Iterator[PricedTotalRow]:
    """Every running total, ROWS_AT_ONCE in memory."""
    with connection.cursor(name="totals", row_factory=class_row(PricedTotalRow)) as cursor:
        cursor.itersize = ROWS_AT_ONCE
        yield from cursor.execute(
            """select t.account_id, t.cycle_id, t.subscription_id, t.component_id, u.plan_version_id,
                      k.name as component, t.quantity, t.carried, t.numerator, t.posted_minor
               from usage_total t join subscription u on u.id = t.subscription_id
               left join component k on k.id = t.component_id and k.plan_version_id = u.plan_version_id"""
        )


def list_usage_components(connection: Connection) -> list[tuple[int, int]]:
    """(component id, plan version id) of all usage components."""
    rows = connection.execute("select id, plan_version_id from component where kind = 'usage' order by id").fetchall()
    return [(int(row[0]), int(row[1])) for row in rows]


def list_closed_ids(connection: Connection, *, after: int, limit: int) -> list[int]:
    """Ids of closed cycles above `after`, in their order."""
    rows = connection.execute(
        "select id from cycle where state = 2 and id > %s order by id limit %s", (after, limit)
    ).fetchall()
    return [int(row[0]) for row in rows]


@dataclass(frozen=True, slots=True)
class Violation:
    """A row that must not exist: which law, where, what was found."""

    law: str
    where: str
    found: str


USAGE_LAWS: tuple[tuple[str, LiteralString], ...] = (
    (
        "a session's totals are the sum of its deltas",
        """select 'session ' || s.id, format('session %s/%s, deltas %s/%s', s.octets_in, s.octets_out,
                  coalesce(sum(d.octets_in), 0), coalesce(sum(d.octets_out), 0))
           from session_all s left join usage_delta d on d.session_id = s.id
           where s.started_at >= (select erased_before from session_boundary)
           group by s.id, s.octets_in, s.octets_out, s.deltas
           having s.octets_in <> coalesce(sum(d.octets_in), 0) or s.octets_out <> coalesce(sum(d.octets_out), 0)
             or s.deltas <> count(d.seq)""",
    ),
    (
        "a session is live or in the history, and every delta has one",
        """select 'session ' || id, 'both live and in the history' from session join session_history using (id)
           union all
           select format('session %s delta %s', d.session_id, d.seq), 'no session' from usage_delta d
           where not exists (select from session_all s where s.id = d.session_id)""",
    ),
    (
        "usage by day is the sum of the deltas",
        # Where deltas were erased, their part of the days that are left is not known any more, but bounded.
        """select format('account %s service %s', account_id, service_id),
                  format('deltas %s/%s/%s, days %s/%s/%s', d.upload, d.download, d.seconds, y.upload, y.download,
                         y.seconds)
           from (select account_id, service_id, sum(octets_in) as upload, sum(octets_out) as download,
                        sum(seconds) as seconds, sum(octets_in) filter (where is_whole) as upload_min,
                        sum(octets_out) filter (where is_whole) as download_min,
                        sum(seconds) filter (where is_whole) as seconds_min
                 from (select *, from_at >= (select erased_before + interval '3 days' from session_boundary) as is_whole
                       from usage_delta where account_id is not null) u group by 1, 2) d
           full join (select account_id, service_id, sum(octets_in) as upload, sum(octets_out) as download,
                             sum(seconds) as seconds
                      from usage_day where day > (select erased_before::date + 1 from session_boundary) group by 1, 2) y
             using (account_id, service_id)
           where coalesce(y.upload, 0) not between coalesce(d.upload_min, 0) and coalesce(d.upload, 0)
              or coalesce(y.download, 0) not between coalesce(d.download_min, 0) and coalesce(d.download, 0)
              or coalesce(y.seconds, 0) not between coalesce(d.seconds_min, 0) and coalesce(d.seconds, 0)""",
    ),
    (
        "usage by day is the sum of its hours",
        """select format('account %s service %s day %s', account_id, service_id, day),
                  format('day %s, hours %s', coalesce(y.sums, 'nothing'), coalesce(h.sums, 'nothing'))
           from (select account_id, service_id, day, row(octets_in, octets_out, seconds)::text as sums
                 from usage_day) y
           full join (select u.account_id, u.service_id, (u.hour_at at time zone a.zone)::date as day,
                             row(sum(u.octets_in), sum(u.octets_out), sum(u.seconds))::text as sums
                      from usage_hour u join account a on a.id = u.account_id group by 1, 2, 3) h
             using (account_id, service_id, day)
           where y.sums is distinct from h.sums
             and day > (select coalesce(max(to_date(object_id::text, 'YYYYMM') + interval '1 month'), '-infinity')::date
                               + 1
                        from audit where action = 'drop' and object_kind = 'partition'
                          and before->>'table' = 'usage_hour')""",
    ),
    (
        "every session's NAS, service and account are there",
        """select 'session ' || s.id, format('NAS %s, service %s, account %s', s.nas_id, s.service_id, s.account_id)
           from session_all s
           where not exists (select from nas n where n.id = s.nas_id)
              or s.service_id is not null and not exists (select from service v where v.id = s.service_id)
              or s.account_id is not null and not exists (select from account a where a.id = s.account_id)""",
    ),
    (
        "a session's deltas are numbered without a gap",
        """select 'session ' || session_id, format('%s deltas, numbers %s to %s', count(*), min(seq), max(seq))
           from usage_delta group by session_id
           having count(*) <> max(seq) - min(seq) + 1
             or min(seq) > 1 and min(from_at) >= (select erased_before from session_boundary)""",
    ),
)


LAWS = USAGE_LAWS + MONEY_LAWS + BUCKET_LAWS


def list_violations(connection: Connection, *, limit: int = 20) -> Iterator[tuple[str, list[Violation]]]:
    """Every law of the tables, one after the other, with up to `limit` rows that break it: none is the proof."""
    for law, query in LAWS:
        bounded = sql.SQL(query) + sql.SQL(" limit ") + sql.Literal(limit)
        rows = connection.execute(bounded).fetchall()
        yield law, [Violation(law, str(row[0]), str(row[1])) for row in rows]
