"""Laws of rated usage, totals, charges and the ledger: each a query that must return no row.

Of a delta in a component only its highest generation counts (the view rated_now).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, LiteralString

from psycopg.rows import class_row

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from decimal import Decimal

    from sms_aaa.db.engine import Connection

MONEY_LAWS: tuple[tuple[str, LiteralString], ...] = (
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
        "of each rated delta the components count all octets, once",
        """select format('session %s delta %s', r.session_id, r.seq),
                  format('%s octets rated, the delta has %s up and %s down', r.up + r.down + r.total, d.octets_in,
                         d.octets_out)
           from (select session_id, seq, to_at,
                        coalesce(sum(quantity) filter (where measure = 'upload'), 0) as up,
                        coalesce(sum(quantity) filter (where measure = 'download'), 0) as down,
                        coalesce(sum(quantity) filter (where measure = 'total'), 0) as total,
                        coalesce(max(quantity) filter (where measure = 'seconds'), 0) as seconds,
                        bool_or(measure is null) as is_odd
                 from (select r.session_id, r.seq, r.to_at, m.measure, r.component_id, sum(r.quantity) as quantity
                       from rated_now r left join component_measure m on m.component_id = r.component_id
                       group by 1, 2, 3, 4, 5) part group by 1, 2, 3) r
           join usage_delta d on d.session_id = r.session_id and d.seq = r.seq and d.to_at = r.to_at
           where r.up + r.down + r.total <> d.octets_in + d.octets_out or r.up > d.octets_in
             or r.down > d.octets_out or r.seconds > coalesce(d.seconds, 0) or r.is_odd""",
    ),
    (
        "the generations of a delta in a component follow each other",
        """select format('session %s delta %s component %s', r.session_id, r.seq, r.component_id),
                  format('generation %s without the one before it', r.generation)
           from rated_usage r where r.generation > 1
             and not exists (select from rated_usage b where b.session_id = r.session_id and b.seq = r.seq
                             and b.component_id = r.component_id and b.generation = r.generation - 1)""",
    ),
    (
        "a total is the sum of its rated usage",
        """select format('account %s cycle %s subscription %s component %s', account_id, cycle_id, subscription_id,
                         component_id),
                  format('total %s, rated %s',
                         case when t.quantity is null then 'nothing'
                              else format('%s and %s covered (%s)', t.quantity, t.covered, t.numerator) end,
                         case when r.quantity is null then 'nothing'
                              else format('%s and %s covered (%s)', r.quantity, r.covered, r.numerator) end)
           from (select account_id, cycle_id, subscription_id, component_id, quantity - carried as quantity, covered,
                        numerator from usage_total) t
           full join (select account_id, cycle_id, subscription_id, component_id,
                             sum(quantity - covered - uncovered) as quantity, sum(covered + uncovered) as covered,
                             sum(numerator) as numerator from rated_now group by 1, 2, 3, 4) r
             using (account_id, cycle_id, subscription_id, component_id)
           left join component k on k.id = component_id
           where t.quantity is null or t.quantity <> coalesce(r.quantity, 0) or t.covered <> coalesce(r.covered, 0)
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
                      from entry where cycle_id is not null group by 1, 2, 3, 4) e
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
        "a charge that an adjustment corrects stands in the same cycle",
        """select 'adjustment ' || j.id, format('cycle %s, charge %s of cycle %s', j.cycle_id, j.charge_id, h.cycle_id)
           from adjustment j left join charge h on h.id = j.charge_id
           where j.charge_id is not null and (h.cycle_id, h.subscription_id) is distinct from (j.cycle_id,
                 j.subscription_id)""",
    ),
    (
        "what an account pays stands in a cycle of that account, for a subscription that exists",
        """select format('account %s cycle %s subscription %s', x.account_id, x.cycle_id, x.subscription_id),
                  x.kind || ' of ' || case when c.id is null then 'no such cycle' else 'no such subscription' end
           from (select 'total' as kind, account_id, cycle_id, subscription_id from usage_total
                 union select 'charge', account_id, cycle_id, subscription_id from charge
                 union select 'entry', account_id, cycle_id, subscription_id from entry
                 where cycle_id is not null) x
           left join cycle c on c.id = x.cycle_id and c.account_id = x.account_id
           left join subscription u on u.id = x.subscription_id
           where c.id is null or u.id is null""",
    ),
)


@dataclass(frozen=True, slots=True)
class SessionPriceRow:
    """What a session came to in a component whose price runs up over sessions: priced quantity and exact price.

    `total`: what the running total of the session says; None: there is none.
    """

    session_id: int
    subscription_id: int
    component_id: int
    quantity: int
    numerator: Decimal
    total: int | None


def stream_session_prices(connection: Connection, component_ids: Sequence[int]) -> Iterator[SessionPriceRow]:
    """Of these components, ROWS_AT_ONCE in memory."""
    with connection.cursor(name="session_prices", row_factory=class_row(SessionPriceRow)) as cursor:
        cursor.itersize = ROWS_AT_ONCE
        yield from cursor.execute(
            """select session_id, subscription_id, component_id, coalesce(r.quantity, 0)::bigint as quantity,
                      coalesce(r.numerator, 0) as numerator, t.quantity as total
               from (select session_id, subscription_id, component_id, sum(quantity - covered - uncovered) as quantity,
                            sum(numerator) as numerator
                     from rated_now where component_id = any(%(ids)s) group by 1, 2, 3) r
               full join (select * from session_total where component_id = any(%(ids)s)) t
                 using (session_id, subscription_id, component_id)""",
            {"ids": list(component_ids)},
        )


ROWS_AT_ONCE = 2_000
"""Of a table that is read whole, how many rows a round trip brings."""
