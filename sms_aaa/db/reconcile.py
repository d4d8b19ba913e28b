"""Queries that prove counted = rated = posted: they count again from the facts, not from running totals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, LiteralString

from psycopg import sql
from psycopg.rows import class_row

if TYPE_CHECKING:
    from sms_aaa.db.engine import Connection


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
               left join rating_queue q on q.session_id = d.session_id and q.seq = d.seq
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
            """select coalesce(s.excluded, 'no-account') as reason, sum(d.octets_in)::bigint as octets_in,
                      sum(d.octets_out)::bigint as octets_out
               from usage_delta d join session s on s.id = d.session_id
               where d.account_id is null group by 1 order by 1"""
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
           from session s left join usage_delta d on d.session_id = s.id group by s.id
           having s.octets_in <> coalesce(sum(d.octets_in), 0) or s.octets_out <> coalesce(sum(d.octets_out), 0)
             or s.deltas <> count(d.seq)""",
    ),
    (
        "every delta of an account is queued, rated or in suspense",
        """select format('session %s delta %s', d.session_id, d.seq), 'nowhere' from usage_delta d
           where d.account_id is not null
             and not exists (select from rating_queue q where q.session_id = d.session_id and q.seq = d.seq)
             and not exists (select from suspense x where x.session_id = d.session_id and x.seq = d.seq)
             and not exists (select from rated_usage r where r.account_id = d.account_id
                             and r.session_id = d.session_id and r.seq = d.seq and r.to_at = d.to_at)""",
    ),
    (
        "no delta is both rated and waiting",
        """select format('session %s delta %s', r.session_id, r.seq), 'rated and queued' from rated_usage r
           where exists (select from rating_queue q where q.session_id = r.session_id and q.seq = r.seq)
              or exists (select from suspense x where x.session_id = r.session_id and x.seq = r.seq)""",
    ),
    (
        "a total is the sum of its rated usage",
        """select format('account %s cycle %s component %s', t.account_id, t.cycle_id, t.component_id),
                  format('total %s (%s), rated %s (%s)', t.quantity, t.numerator, coalesce(r.quantity, 0),
                         coalesce(r.numerator, 0))
           from usage_total t join component k on k.id = t.component_id
           left join (select account_id, cycle_id, subscription_id, component_id, sum(quantity) as quantity,
                             sum(numerator) as numerator from rated_usage group by 1, 2, 3, 4) r
             using (account_id, cycle_id, subscription_id, component_id)
           where t.quantity <> coalesce(r.quantity, 0) or t.numerator <> coalesce(r.numerator, 0)""",
    ),
    (
        "the ledger has what the totals and charges say",
        """select format('account %s cycle %s component %s', t.account_id, t.cycle_id, t.component_id),
                  format('sub-ledger %s, ledger %s', t.posted, coalesce(e.posted, 0))
           from (select account_id, cycle_id, subscription_id, component_id, posted_minor as posted from usage_total
                 union all
                 select account_id, cycle_id, subscription_id, component_id, amount_minor from charge) t
           left join (select account_id, cycle_id, subscription_id, component_id,
                             sum(case when debit = 'unbilled-receivable' then amount_minor else -amount_minor end)
                               as posted
                      from entry group by 1, 2, 3, 4) e
             using (account_id, cycle_id, subscription_id, component_id)
           where t.posted <> coalesce(e.posted, 0)""",
    ),
    (
        "a session's deltas are numbered without a gap",
        """select 'session ' || session_id, format('%s deltas, last number %s', count(*), max(seq))
           from usage_delta group by session_id having count(*) <> max(seq)""",
    ),
)


def list_violations(connection: Connection, *, limit: int = 20) -> list[tuple[str, list[Violation]]]:
    """Every law with the rows that break it: an empty list is the proof."""
    found = []
    for law, query in _LAWS:
        bounded = sql.SQL(query) + sql.SQL(" limit ") + sql.Literal(limit)
        rows = connection.execute(bounded).fetchall()
        found.append((law, [Violation(law, str(row[0]), str(row[1])) for row in rows]))
    return found
