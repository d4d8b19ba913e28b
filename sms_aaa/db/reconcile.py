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

if TYPE_CHECKING:
    from collections.abc import Iterator
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
    """Rated octets of one component of an account, summed from the rated rows."""

    account_id: int
    plan_version_id: int
    component: str
    quantity: int
    octets_in: int
    octets_out: int


def list_rated_sums(connection: Connection) -> list[RatedSumRow]:
    """Per account and component: what was rated, and what the deltas behind it hold in each direction.

    A component measures one direction or both, so its quantity must equal its share of the very same deltas.
    """
    with connection.cursor(row_factory=class_row(RatedSumRow)) as cursor:
        return cursor.execute(
            """select r.account_id, k.plan_version_id, k.name as component, sum(r.quantity)::bigint as quantity,
                      sum(d.octets_in)::bigint as octets_in, sum(d.octets_out)::bigint as octets_out
               from (select account_id, session_id, seq, component_id, to_at, sum(quantity) as quantity
                     from rated_usage group by 1, 2, 3, 4, 5) r
               join usage_delta d on d.session_id = r.session_id and d.seq = r.seq and d.to_at = r.to_at
               join component k on k.id = r.component_id
               group by 1, 2, 3 order by 1, 2, 3"""
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


@dataclass(frozen=True, slots=True)
class Violation:
    """A row that must not exist: which law, where, what was found."""

    law: str
    where: str
    found: str


_LAWS: tuple[tuple[str, LiteralString], ...] = (
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
        "every delta of an account is queued, rated or in suspense",
        """select format('session %s delta %s', d.session_id, d.seq), 'nowhere' from usage_delta d
           where d.account_id is not null
             and not exists (select from queued_delta q where q.session_id = d.session_id and q.seq = d.seq)
             and not exists (select from suspense x where x.session_id = d.session_id and x.seq = d.seq)
             and not exists (select from rated_usage r where r.account_id = d.account_id
                             and r.session_id = d.session_id and r.seq = d.seq and r.to_at = d.to_at)""",
    ),
    (
        "no delta is both rated and waiting",
        """select format('session %s delta %s', r.session_id, r.seq), 'rated and queued' from rated_usage r
           where exists (select from queued_delta q where q.session_id = r.session_id and q.seq = r.seq)
              or exists (select from suspense x where x.session_id = r.session_id and x.seq = r.seq)""",
    ),
    (
        "a total is the sum of its rated usage",
        """select format('account %s cycle %s subscription %s component %s', account_id, cycle_id, subscription_id,
                         component_id),
                  format('total %s, rated %s', coalesce(t.quantity || ' (' || t.numerator || ')', 'nothing'),
                         coalesce(r.quantity || ' (' || r.numerator || ')', 'nothing'))
           from (select account_id, cycle_id, subscription_id, component_id, quantity - carried as quantity, numerator
                 from usage_total) t
           full join (select account_id, cycle_id, subscription_id, component_id, sum(quantity) as quantity,
                             sum(numerator) as numerator from rated_usage group by 1, 2, 3, 4) r
             using (account_id, cycle_id, subscription_id, component_id)
           left join component k on k.id = component_id
           where t.quantity is null or t.quantity <> coalesce(r.quantity, 0)
             or t.numerator - coalesce(r.numerator, 0) not in (0, k.opening)""",
    ),
    (
        "the ledger has what the totals and charges say",
        """select format('account %s cycle %s subscription %s component %s', account_id, cycle_id, subscription_id,
                         component_id),
                  format('sub-ledger %s, ledger %s', coalesce(t.posted::text, 'nothing'),
                         coalesce(s.ledger::text, 'nothing'))
           from (select account_id, cycle_id, subscription_id, component_id, sum(posted) as posted
                 from (select u.account_id, u.cycle_id, u.subscription_id, u.component_id, u.posted_minor as posted
                       from usage_total u join cycle c on c.id = u.cycle_id and c.state = 1
                       union all
                       select h.account_id, h.cycle_id, h.subscription_id, h.component_id, h.amount_minor
                       from charge h
                       union all
                       select account_id, cycle_id, subscription_id, component_id, amount_minor from adjustment
                       union all
                       select h.account_id, e.cycle_id, h.subscription_id, h.component_id, 0
                       from earning e join charge h on h.id = e.charge_id) p
                 group by 1, 2, 3, 4) t
           full join (select account_id, cycle_id, subscription_id, component_id,
                             sum(case when credit like 'revenue:%' then amount_minor
                                      when debit like 'revenue:%' then -amount_minor else 0 end) as earned,
                             sum(case 'unbilled-receivable' when debit then amount_minor
                                      when credit then -amount_minor else 0 end) as owed
                      from entry group by 1, 2, 3, 4) e
             using (account_id, cycle_id, subscription_id, component_id)
           left join component k on k.id = component_id
           cross join lateral (select case when k.kind = 'recurring' then e.owed else e.earned end as ledger) s
           where t.posted is null or t.posted <> coalesce(s.ledger, 0)""",
    ),
    (
        "what is deferred is what fees beyond their cycle have not earned yet",
        """select format('subscription %s component %s', subscription_id, component_id),
                  format('deferred %s, ledger %s', coalesce(h.deferred, 0), coalesce(e.deferred, 0))
           from (select h.subscription_id, h.component_id, sum(h.amount_minor - coalesce(e.earned, 0)) as deferred
                 from charge h join cycle c on c.id = h.cycle_id
                 left join (select charge_id, sum(amount_minor) as earned from earning group by 1) e
                   on e.charge_id = h.id
                 where h.kind in ('recurring', 'credit') and h.until_at > c.ends_at group by 1, 2) h
           full join (select subscription_id, component_id,
                             sum(case when credit = 'deferred-revenue' then amount_minor
                                      else -amount_minor end) as deferred
                      from entry join component k on k.id = component_id and k.kind = 'recurring'
                      where 'deferred-revenue' in (debit, credit) group by 1, 2) e
             using (subscription_id, component_id)
           where coalesce(h.deferred, 0) <> coalesce(e.deferred, 0)""",
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
        "what an account pays stands in a cycle of that account, for a subscription that exists",
        """select format('account %s cycle %s subscription %s', x.account_id, x.cycle_id, x.subscription_id),
                  x.kind || ' of ' || case when c.id is null then 'no such cycle' else 'no such subscription' end
           from (select 'total' as kind, account_id, cycle_id, subscription_id from usage_total
                 union select 'charge', account_id, cycle_id, subscription_id from charge
                 union select 'entry', account_id, cycle_id, subscription_id from entry) x
           left join cycle c on c.id = x.cycle_id and c.account_id = x.account_id
           left join subscription u on u.id = x.subscription_id
           where c.id is null or u.id is null""",
    ),
    (
        "a session's deltas are numbered without a gap",
        """select 'session ' || session_id, format('%s deltas, numbers %s to %s', count(*), min(seq), max(seq))
           from usage_delta group by session_id
           having count(*) <> max(seq) - min(seq) + 1
             or min(seq) > 1 and min(from_at) >= (select erased_before from session_boundary)""",
    ),
)


def list_violations(connection: Connection, *, limit: int = 20) -> list[tuple[str, list[Violation]]]:
    """Every law of the tables with up to `limit` rows that break it: none is the proof."""
    found = []
    for law, query in _LAWS:
        bounded = sql.SQL(query) + sql.SQL(" limit ") + sql.Literal(limit)
        rows = connection.execute(bounded).fetchall()
        found.append((law, [Violation(law, str(row[0]), str(row[1])) for row in rows]))
    return found
