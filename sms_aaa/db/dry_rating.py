"""What is read to price past usage by another tariff: who was on a plan, what their cycles came to, what they used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from sms_aaa.db.binary import int8s, load_ints
from sms_aaa.db.rating_queue import QueuedDelta
from sms_aaa.rules.instants import instant_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sms_aaa.db.engine import Connection


def list_heads(connection: Connection, plan: str, *, start: datetime, end: datetime) -> list[int]:
    """Heads of the charging groups in which an account has a cycle that begins in [start, end) on the plan."""
    rows = connection.execute(
        """select distinct coalesce(a.charging_head_id, a.id)
           from plan p join plan_version v on v.plan_id = p.id
           join subscription u on u.plan_version_id = v.id and u.during && tstzrange(%(start)s, null)
           join usage_total t on t.subscription_id = u.id
           join cycle c on c.id = t.cycle_id and c.starts_at >= %(start)s and c.starts_at < %(end)s
           join account a on a.id = t.account_id
           where p.name = %(plan)s order by 1""",
        {"plan": plan, "start": start, "end": end},
    ).fetchall()
    return [int(row[0]) for row in rows]


class PastTotal(Struct, frozen=True, gc=False):
    """A component's total of a subscription in a past cycle; `starts_us` and so on bound the cycle."""

    account_id: int
    zone: str
    subscription_id: int
    plan_version_id: int
    during_from_us: int
    during_to_us: int
    cycle_id: int
    starts_us: int
    ends_us: int
    component: str
    numerator: int


def list_past_totals(
    connection: Connection, account_ids: Sequence[int], plan: str, *, start: datetime, end: datetime
) -> list[PastTotal]:
    """Of the accounts' cycles that begin in [start, end), in subscriptions to the plan."""
    with connection.cursor(binary=True) as cursor:
        load_ints(cursor)
        rows = cursor.execute(
            """select t.account_id, a.zone, t.subscription_id, u.plan_version_id,
                      coalesce(lower(u.during), '-infinity'), coalesce(upper(u.during), 'infinity'), t.cycle_id,
                      c.starts_at, c.ends_at, k.name, t.numerator::text
               from usage_total t join cycle c on c.id = t.cycle_id join account a on a.id = t.account_id
               join subscription u on u.id = t.subscription_id
               join plan_version v on v.id = u.plan_version_id join plan p on p.id = v.plan_id
               join component k on k.id = t.component_id
               where t.account_id = any(%s) and c.starts_at >= %s and c.starts_at < %s and p.name = %s
               order by t.account_id, c.starts_at, t.subscription_id""",
            (int8s(account_ids), start, end, plan),
        ).fetchall()
    return [PastTotal(*[*row[:10], int(row[10])]) for row in rows]


def list_past_deltas(connection: Connection, account_ids: Sequence[int], from_us: int, to_us: int) -> list[QueuedDelta]:
    """Deltas of these accounts that lie at least in part in [from_us, to_us), and were rated."""
    with connection.cursor(binary=True) as cursor:
        load_ints(cursor)
        rows = cursor.execute(
            """select d.to_at, d.session_id, d.seq, d.account_id, d.service_id, d.from_at, d.octets_in, d.octets_out,
                      d.seconds
               from usage_delta d
               where d.account_id = any(%s) and d.to_at >= %s and d.from_at < %s
                 and exists (select from rated_usage r where r.session_id = d.session_id and r.seq = d.seq
                             and r.to_at = d.to_at)""",
            (int8s(account_ids), instant_of(from_us), instant_of(to_us)),
        ).fetchall()
    return [QueuedDelta(*row) for row in rows]
