"""Buckets as they are granted, shown, closed and rolled over. What rating makes of them is in db/bucket_use.py.

Quantities are whole numbers of base units, of money buckets picounits. Every change of granted, used, reserved or
overrun is an entry, in the same statement.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from psycopg import sql
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from sms_aaa.db.binary import int8s, numerics

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sms_aaa.db.engine import Connection


class NewBucket(Struct, frozen=True, gc=False, kw_only=True):
    """A bucket that is to be granted. `kept`: overage of the bucket before it, used of this one."""

    account_id: int
    subscription_id: int | None = None
    cycle_id: int | None = None
    rolled_from_id: int | None = None
    follows_id: int | None = None
    name: str
    kind: str
    measure: str | None
    currency: str | None
    terms: dict[str, Any]
    priority: int
    from_at: datetime
    until_at: datetime | None
    created_at: datetime
    granted: int
    kept: int = 0


def insert_buckets(connection: Connection, buckets: Sequence[NewBucket]) -> list[int]:
    """Ids of those that are new, with their entries: a cycle's allowance of a name is granted once.

    The thresholds are those of the account.
    """
    rows = connection.execute(
        """with wanted as (
             select * from jsonb_to_recordset(%s) w(
               account_id bigint, subscription_id bigint, cycle_id bigint, rolled_from_id bigint, follows_id bigint,
               name text, kind text, measure text, currency text, terms jsonb, priority int, from_at timestamptz,
               until_at timestamptz, created_at timestamptz, granted numeric, kept numeric)),
           added as (
             insert into bucket (account_id, subscription_id, cycle_id, rolled_from_id, follows_id, name, kind, measure,
                                 currency, terms, priority, from_at, until_at, created_at, granted, used, kept, overrun,
                                 thresholds)
             select w.account_id, w.subscription_id, w.cycle_id, w.rolled_from_id, w.follows_id, w.name, w.kind,
                    w.measure, w.currency, w.terms, w.priority, w.from_at, w.until_at, w.created_at, w.granted,
                    least(w.kept, w.granted), w.kept, w.kept - least(w.kept, w.granted), a.thresholds
             from wanted w join account a on a.id = w.account_id
             on conflict (cycle_id, subscription_id, name) where kind in ('allowance', 'promotion') do nothing
             returning id, kind, granted, used, overrun),
           entries as (
             insert into bucket_entry (bucket_id, kind, quantity)
             select a.id, e.kind, e.quantity from added a
             cross join lateral (values
               (1, case a.kind when 'rollover' then 'roll-in' else 'grant' end, a.granted),
               (2, 'adjust', a.used), (3, 'overrun', a.overrun)) e(number, kind, quantity)
             where e.quantity > 0 or e.number = 1
             order by a.id, e.number)
           select id from added order by id""",
        (Jsonb([_document(bucket) for bucket in buckets]),),
    ).fetchall()
    return [int(row[0]) for row in rows]


def _document(bucket: NewBucket) -> dict[str, Any]:
    """As JSON: numbers beyond 2^53 as texts, which numeric reads."""
    fields = {name: getattr(bucket, name) for name in NewBucket.__struct_fields__}
    for name in ("granted", "kept"):
        fields[name] = str(fields[name])
    for name in ("from_at", "until_at", "created_at"):
        fields[name] = fields[name].isoformat() if fields[name] is not None else None
    return fields


class OverageRow(Struct, frozen=True, gc=False):
    """The last grant of a bucket that keeps overage, and what it has of it."""

    account_id: int
    name: str
    bucket_id: int
    overrun: int


def list_overages(connection: Connection, wanted: Sequence[tuple[int, str]], before: datetime) -> list[OverageRow]:
    """Of these (account id, name), the last that began before an instant, if nothing follows it yet."""
    rows = connection.execute(
        """select distinct on (b.account_id, b.name) b.account_id, b.name, b.id, b.overrun::text
           from unnest(%s, %s::text[]) w(account_id, name)
           join bucket b on b.account_id = w.account_id and b.name = w.name and b.kind = 'allowance'
             and b.from_at < %s and (b.terms->'keeps_overage')::boolean
           where not exists (select from bucket n where n.follows_id = b.id)
           order by b.account_id, b.name, b.from_at desc""",
        (int8s([account_id for account_id, _ in wanted]), [name for _, name in wanted], before),
    ).fetchall()
    return [OverageRow(row[0], row[1], row[2], int(row[3])) for row in rows]


class EndedPlace(Struct, frozen=True, gc=False):
    """Where a bucket that is over stands among them, and whether no open cycle can use it any more."""

    until_at: datetime
    id: int
    is_free: bool


def list_ended(connection: Connection, *, ended_by: datetime, after: EndedPlace | None, limit: int) -> list[EndedPlace]:
    """Up to `limit` buckets that ended by an instant and are not closed, from a place on, the first that ended first.

    Usage of a cycle that is still open may use one: the account's, or a member's of its group.
    """
    rows = connection.execute(
        """select b.until_at, b.id, not exists (
             select from account m join cycle c on c.account_id = m.id
             where (m.id = b.account_id or m.charging_head_id = b.account_id)
               and c.state = 1 and c.starts_at < b.until_at)
           from bucket b
           where b.closed_at is null and b.until_at <= %s and (b.until_at, b.id) > (%s, %s)
           order by b.until_at, b.id limit %s""",
        (ended_by, after.until_at if after else "-infinity", after.id if after else 0, limit),
    ).fetchall()
    return [EndedPlace(*row) for row in rows]


class EndedRow(Struct, frozen=True, gc=False):
    """A bucket that is over, locked."""

    id: int
    account_id: int
    zone: str
    anchor_day: int
    subscription_id: int | None
    name: str
    currency: str | None
    terms: dict[str, Any]
    until_at: datetime
    created_at: datetime
    granted: int
    used: int
    reserved: int
    overrun: int


def lock_ended(connection: Connection, bucket_ids: Sequence[int]) -> list[EndedRow]:
    """Those of them that nobody closed meanwhile, in the order of their ids."""
    rows = connection.execute(
        """select b.id, b.account_id, a.zone, a.anchor_day, b.subscription_id, b.name, b.currency, b.terms, b.until_at,
                  b.created_at, b.granted::text, b.used::text, b.reserved::text, b.overrun::text
           from bucket b join account a on a.id = b.account_id
           where b.id = any(%s) and b.closed_at is null order by b.id for no key update of b""",
        (int8s(bucket_ids),),
    ).fetchall()
    return [EndedRow(*[*row[:10], *map(int, row[10:])]) for row in rows]


def update_closed(connection: Connection, closed: Sequence[tuple[int, int, int]], at: datetime) -> None:
    """Closes these (bucket id, rolled over, expired): an entry of each that is above 0. What is held of them is not."""
    connection.execute(
        """with w as (select * from unnest(%s, %s, %s) w(id, rolled, expired)),
           held as (
             delete from reservation r using w where r.bucket_id = w.id returning r.bucket_id, r.quantity, r.id),
           closed as (
             update bucket b set closed_at = %s, reserved = 0 from w where b.id = w.id returning b.id)
           insert into bucket_entry (bucket_id, kind, quantity, reservation_id)
           select bucket_id, 'release', quantity, id from held where quantity > 0
           union all select w.id, 'roll-out', w.rolled, null from w join closed using (id) where w.rolled > 0
           union all select w.id, 'expire', w.expired, null from w join closed using (id) where w.expired > 0""",
        (
            int8s([bucket_id for bucket_id, _, _ in closed]),
            numerics([rolled for _, rolled, _ in closed]),
            numerics([expired for _, _, expired in closed]),
            at,
        ),
    )


class FollowerRow(Struct, frozen=True, gc=False):
    """A grant that overage of another is taken from, locked."""

    id: int
    account_id: int
    follows_id: int
    from_at: datetime
    granted: int
    used: int
    reserved: int
    overrun: int
    kept: int


def lock_followers(connection: Connection, bucket_ids: Sequence[int]) -> list[FollowerRow]:
    """Those of these buckets, in the order of their ids."""
    rows = connection.execute(
        """select id, account_id, follows_id, from_at, granted::text, used::text, reserved::text, overrun::text,
                  kept::text
           from bucket where follows_id = any(%s) and closed_at is null order by id for no key update""",
        (int8s(bucket_ids),),
    ).fetchall()
    return [FollowerRow(*row[:4], *map(int, row[4:])) for row in rows]


def update_kept(connection: Connection, more: Sequence[tuple[int, int, int]]) -> None:
    """(bucket id, more that is used, more overrun) of overage that was found since; below zero: less."""
    connection.execute(
        """with w as (select * from unnest(%s, %s, %s) w(id, used, overrun)),
           moved as (
             update bucket b set used = b.used + w.used, overrun = b.overrun + w.overrun,
                                 kept = b.kept + w.used + w.overrun
             from w where b.id = w.id)
           insert into bucket_entry (bucket_id, kind, quantity)
           select w.id, e.kind, e.quantity from w
           cross join lateral (values ('adjust', w.used), ('overrun', w.overrun)) e(kind, quantity)
           where e.quantity <> 0""",
        (
            int8s([bucket_id for bucket_id, _, _ in more]),
            numerics([used for _, used, _ in more]),
            numerics([overrun for _, _, overrun in more]),
        ),
    )


@dataclass(frozen=True, slots=True)
class BucketRow:
    """A bucket as it is shown. `terms` is what rules.buckets.BucketTerms says, as a document."""

    id: int
    subscriber: str
    account_id: int
    name: str
    kind: str
    measure: str | None
    currency: str | None
    terms: dict[str, Any]
    priority: int
    from_at: datetime
    until_at: datetime | None
    created_at: datetime
    granted: int
    used: int
    reserved: int
    overrun: int
    is_shared: bool
    closed_at: datetime | None


_SHOWN = sql.SQL(
    """select b.id, s.name as subscriber, b.account_id, b.name, b.kind, b.measure, b.currency, b.terms, b.priority,
       b.from_at, b.until_at, b.created_at, b.granted, b.used, b.reserved, b.overrun,
       coalesce((b.terms->'is_shared')::boolean, false) as is_shared, b.closed_at
     from bucket b join account a on a.id = b.account_id join subscriber s on s.id = a.subscriber_id {}"""
)


def list_buckets(
    connection: Connection, account_ids: Sequence[int], *, also_closed: bool, limit: int
) -> list[BucketRow]:
    """Of these accounts (none: of all), and those shared by the heads of their groups; in the order of use."""
    where = sql.SQL(
        """where (cardinality(%(ids)s::bigint[]) = 0 or b.account_id = any(%(ids)s)
                  or (b.terms->'is_shared')::boolean and b.account_id in (
                    select charging_head_id from account where id = any(%(ids)s)))
             and (%(closed)s or b.closed_at is null)
           order by s.name, b.priority, b.until_at nulls last, b.created_at, b.id limit %(limit)s"""
    )
    with connection.cursor(row_factory=class_row(BucketRow)) as cursor:
        rows = cursor.execute(
            _SHOWN.format(where), {"ids": list(account_ids), "closed": also_closed, "limit": limit}
        ).fetchall()
    return [_whole(row) for row in rows]


def find_bucket(connection: Connection, bucket_id: int) -> BucketRow | None:
    with connection.cursor(row_factory=class_row(BucketRow)) as cursor:
        row = cursor.execute(_SHOWN.format(sql.SQL("where b.id = %s")), (bucket_id,)).fetchone()
    return _whole(row) if row is not None else None


def _whole(row: BucketRow) -> BucketRow:
    """A numeric comes as a Decimal; these have no fraction."""
    return replace(
        row, granted=int(row.granted), used=int(row.used), reserved=int(row.reserved), overrun=int(row.overrun)
    )


@dataclass(frozen=True, slots=True)
class BucketEntryRow:
    """What happened to a bucket."""

    id: int
    kind: str
    quantity: int
    at: datetime
    run_id: int | None
    reservation_id: int | None


def list_entries(connection: Connection, bucket_id: int) -> list[BucketEntryRow]:
    """Oldest first."""
    with connection.cursor(row_factory=class_row(BucketEntryRow)) as cursor:
        rows = cursor.execute(
            "select id, kind, quantity, at, run_id, reservation_id from bucket_entry where bucket_id = %s order by id",
            (bucket_id,),
        ).fetchall()
    return [replace(row, quantity=int(row.quantity)) for row in rows]
