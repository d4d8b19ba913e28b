"""Reservations: what sessions hold of buckets, and of what an account may owe; with the locks that keep two apart.

Who reserves, gives back or settles locks first the account, then the buckets in the order of their ids. A bucket's
`reserved` is the sum of what is held of it, moved in the same statement. Quantities are whole numbers of base units, of
money picounits.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from sms_aaa.db.binary import int4s, int8s, load_ints, numerics
from sms_aaa.db.bucket_use import BucketRow

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sms_aaa.db.engine import Connection


class PayerRow(Struct, frozen=True, gc=False):
    """An account that is charged, locked. `owed_minor`: what it owes by the ledger, unbilled usage included."""

    account_id: int
    head_id: int
    currency: str
    zone: str
    anchor_day: int
    charging_mode: str
    credit_limit_minor: int | None
    owed_minor: int


def lock_payer(connection: Connection, account_id: int) -> PayerRow | None:
    connection.execute("select from account where id = %s for no key update", (account_id,))
    row = connection.execute(
        """select id, coalesce(charging_head_id, id), currency, zone, anchor_day, charging_mode, credit_limit_minor,
                  (select coalesce(sum(case when e.debit = any(%(owed)s) then e.amount_minor else 0 end
                                       - case when e.credit = any(%(owed)s) then e.amount_minor else 0 end), 0)::bigint
                   from entry e where e.account_id = a.id)
           from account a where id = %(id)s""",
        {"id": account_id, "owed": ["receivable", "unbilled-receivable", "customer-credit"]},
    ).fetchone()
    return PayerRow(*row) if row is not None else None


def lock_usable(connection: Connection, account_id: int, head_id: int, at: datetime) -> list[BucketRow]:
    """Open buckets that are valid at an instant: of the account, and shared ones of its group; by their ids."""
    with connection.cursor(binary=True) as cursor:
        load_ints(cursor)
        rows = cursor.execute(
            """select id, account_id, terms, from_at, until_at, created_at, granted::text, used::text, overrun::text,
                      false
               from bucket
               where closed_at is null and from_at <= %(at)s and (until_at is null or until_at > %(at)s)
                 and (account_id = %(account)s or account_id = %(head)s and (terms->'is_shared')::boolean)
               order by id for no key update""",
            {"at": at, "account": account_id, "head": head_id},
        ).fetchall()
    return [BucketRow(*[*row[:6], *map(int, row[6:9]), row[9]]) for row in rows]


class ReservationRow(Struct, frozen=True, gc=False):
    """`bucket_id` None: of what the account may owe."""

    id: int
    bucket_id: int | None
    account_id: int
    session: str
    quantity: int
    component_id: int | None
    priced: int
    expires_at: datetime


def list_reservations(
    connection: Connection, *, account_id: int | None, bucket_ids: Sequence[int] = ()
) -> list[ReservationRow]:
    """What an account's sessions hold, of whatever bucket; and what anybody holds of these buckets."""
    rows = connection.execute(
        """select r.id, r.bucket_id, r.account_id, r.session, r.quantity::text, r.component_id,
                  r.priced, r.expires_at from reservation r
           where r.account_id = %s or r.bucket_id = any(%s) order by r.id""",
        (account_id, int8s(bucket_ids)),
    ).fetchall()
    return [_reservation(row) for row in rows]


class NewHold(Struct, frozen=True, gc=False):
    """What is to be held more. `bucket_id` None: of what the account may owe, for `priced` usage of a component."""

    bucket_id: int | None
    quantity: int
    component_id: int | None = None
    priced: int = 0


def insert_holds(
    connection: Connection, account_id: int, session: str, holds: Sequence[NewHold], expires_at: datetime
) -> None:
    """Adds to what the session holds, of buckets with their entries; and lets all that it holds last so long."""
    connection.execute(
        """with w as (select nullif(id, 0) as id, quantity, component_id, priced
                     from unnest(%(ids)s, %(quantities)s, %(components)s, %(priced)s)
                       w(id, quantity, component_id, priced)),
           counted as (
             update bucket b set reserved = b.reserved + w.quantity from w where b.id = w.id),
           of_buckets as (
             insert into reservation (bucket_id, account_id, session, quantity, expires_at)
             select w.id, %(account)s, %(session)s, w.quantity, %(until)s from w where w.id is not null
             on conflict (bucket_id, session)
               do update set quantity = reservation.quantity + excluded.quantity
             returning id, bucket_id),
           of_money as (
             insert into reservation (account_id, session, quantity, component_id, priced, expires_at)
             select %(account)s, %(session)s, w.quantity, w.component_id, w.priced, %(until)s from w where w.id is null
             on conflict (account_id, session, component_id) where bucket_id is null
               do update set quantity = reservation.quantity + excluded.quantity,
                             priced = reservation.priced + excluded.priced)
           insert into bucket_entry (bucket_id, kind, quantity, reservation_id)
           select w.id, 'reserve', w.quantity, r.id from w join of_buckets r on r.bucket_id = w.id""",
        {
            "ids": int8s([hold.bucket_id or 0 for hold in holds]),
            "quantities": numerics([hold.quantity for hold in holds]),
            "components": int4s([hold.component_id or 0 for hold in holds]),
            "priced": int8s([hold.priced for hold in holds]),
            "account": account_id,
            "session": session,
            "until": expires_at,
        },
    )
    connection.execute(
        "update reservation set expires_at = %s where account_id = %s and session = %s",
        (expires_at, account_id, session),
    )


class SettledHold(Struct, frozen=True, gc=False):
    """A reservation of a bucket that ends: so much of the bucket is used, so much more than it has was used."""

    reservation_id: int
    used: int = 0
    overrun: int = 0


def delete_holds(connection: Connection, settled: Sequence[SettledHold]) -> int:
    """Ends these, with the entries of their buckets, which are locked; how many were there still."""
    row = connection.execute(
        """with w as (select * from unnest(%s, %s, %s) w(id, used, overrun)),
           gone as (
             delete from reservation r using w where r.id = w.id
             returning r.id, r.bucket_id, r.account_id, r.quantity, w.used, w.overrun),
           counted as (
             update bucket b set reserved = b.reserved - g.quantity, used = b.used + g.used,
                                 overrun = b.overrun + g.overrun
             from (select bucket_id, sum(quantity) as quantity, sum(used) as used, sum(overrun) as overrun
                   from gone group by bucket_id) g
             where b.id = g.bucket_id),
           shares as (
             insert into bucket_member (bucket_id, account_id, taken)
             select g.bucket_id, g.account_id, sum(g.used) from gone g
             join bucket b on b.id = g.bucket_id and b.terms->>'member_maximum' is not null
             where g.used > 0 group by 1, 2
             on conflict (bucket_id, account_id) do update set taken = bucket_member.taken + excluded.taken),
           noted as (
             insert into bucket_entry (bucket_id, kind, quantity, reservation_id)
             select g.bucket_id, e.kind, e.quantity, g.id from gone g
             cross join lateral (values ('release', g.quantity), ('use', g.used), ('overrun', g.overrun))
               e(kind, quantity)
             where g.bucket_id is not null and e.quantity > 0)
           select count(*) from gone""",
        (
            int8s([one.reservation_id for one in settled]),
            numerics([one.used for one in settled]),
            numerics([one.overrun for one in settled]),
        ),
    ).fetchone()
    assert row is not None
    return int(row[0])


def lock_buckets_of(connection: Connection, bucket_ids: Sequence[int]) -> dict[int, int]:
    """Locks these in the order of their ids; what each unit bucket has that is neither used nor held."""
    rows = connection.execute(
        """select id, (granted - used - reserved)::text, measure is not null from bucket
           where id = any(%s) order by id for no key update""",
        (int8s(sorted(bucket_ids)),),
    ).fetchall()
    return {int(row[0]): int(row[1]) for row in rows if row[2]}


def list_shares_left(connection: Connection, account_id: int, bucket_ids: Sequence[int]) -> dict[int, int]:
    """Of those of these that bound a member's share, what the account has not taken and its sessions do not hold."""
    rows = connection.execute(
        """select b.id, ((b.terms->>'member_maximum')::numeric - coalesce(m.taken, 0)
                         - coalesce((select sum(r.quantity) from reservation r
                                     where r.bucket_id = b.id and r.account_id = %(account)s), 0))::text
           from bucket b left join bucket_member m on m.bucket_id = b.id and m.account_id = %(account)s
           where b.id = any(%(ids)s) and b.terms->>'member_maximum' is not null""",
        {"account": account_id, "ids": int8s(bucket_ids)},
    ).fetchall()
    return {int(row[0]): max(int(row[1]), 0) for row in rows}


def list_expired(connection: Connection, now: datetime, *, limit: int) -> list[ReservationRow]:
    """The first that have ended by themselves."""
    rows = connection.execute(
        """select r.id, r.bucket_id, r.account_id, r.session, r.quantity::text, r.component_id,
                  r.priced, r.expires_at from reservation r
           where r.expires_at <= %s order by r.expires_at limit %s""",
        (now, limit),
    ).fetchall()
    return [_reservation(row) for row in rows]


def list_still_expired(connection: Connection, ids: Sequence[int], now: datetime) -> list[int]:
    """Of these, read again once their buckets are locked, those that nobody has extended or ended."""
    rows = connection.execute(
        "select id from reservation where id = any(%s) and expires_at <= %s", (int8s(ids), now)
    ).fetchall()
    return [int(row[0]) for row in rows]


class ChargingPlaceRow(Struct, frozen=True, gc=False):
    """The subscription that an account's usage belongs to at an instant."""

    subscription_id: int
    plan_version_id: int


def find_subscription(connection: Connection, account_id: int, at: datetime) -> ChargingPlaceRow | None:
    """That of the service that was assigned to it first."""
    row = connection.execute(
        """select u.id, u.plan_version_id from assignment g join subscription u on u.service_id = g.service_id
           where g.account_id = %(id)s and g.during @> %(at)s and u.during @> %(at)s order by g.service_id limit 1""",
        {"id": account_id, "at": at},
    ).fetchone()
    return ChargingPlaceRow(*row) if row is not None else None


def find_total(
    connection: Connection, account_id: int, subscription_id: int, component_id: int, at: datetime
) -> tuple[int, int]:
    """(priced quantity, numerator) of a component in the account's cycle at an instant."""
    row = connection.execute(
        """select t.quantity, t.numerator::text from usage_total t join cycle c on c.id = t.cycle_id
           where t.account_id = %(account)s and t.subscription_id = %(subscription)s
             and t.component_id = %(component)s and c.starts_at <= %(at)s and c.ends_at > %(at)s""",
        {"account": account_id, "subscription": subscription_id, "component": component_id, "at": at},
    ).fetchone()
    return (int(row[0]), int(row[1])) if row is not None else (0, 0)


def find_session_total(connection: Connection, session_id: int, subscription_id: int, component_id: int) -> int:
    row = connection.execute(
        """select quantity from session_total
           where session_id = %s and subscription_id = %s and component_id = %s""",
        (session_id, subscription_id, component_id),
    ).fetchone()
    return int(row[0]) if row is not None else 0


def _reservation(row: tuple[Any, ...]) -> ReservationRow:
    return ReservationRow(row[0], row[1], row[2], row[3], int(row[4]), *row[5:])
