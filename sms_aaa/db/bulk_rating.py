"""Rating set-wise: a batch of a shard's queue becomes slices, uses of buckets, prices, totals and entries in SQL.

Nothing of it leaves the server, and each step is one statement over the whole batch. The steps hand rows to each other
in temporary tables of the connection, which are emptied when the transaction ends:

    bulk_delta     what was taken off the queue
    bulk_owner     an account's service, with the one subscription that all its usage of the batch belongs to
    bulk_calendar  where slots and cycles begin, by tariff and zone
    bulk_part      usage components, with their prices in closed form (rules/set_wise.py)
    bulk_meter     totals that the batch may move
    bulk_bucket    buckets that it may use, and bulk_purse: those of an account in a cycle, side by side, in the
                   order of their use
    bulk_priced    the result: a row a slice and component (db/bulk_pricing.py)

An account of which anything does not fit stays out as a whole, with its reason, and is rated slice by slice: what its
buckets have left depends on all of its usage.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import Struct

from sms_aaa.db.binary import instants, int4s, load_ints
from sms_aaa.db.rating_queue import QueuedDelta
from sms_aaa.rules.buckets import FACTOR_PARTS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sms_aaa.db.engine import Connection

BUCKETS_MAX = 6
"""Of an account in one batch: each is a pass over all slices."""

QUEUE_ROWS_MAX = 20_000
"""Rows of the queue that one batch takes."""

_ROUNDS = range(1, BUCKETS_MAX + 1)
_PURSE = ", ".join(
    f"b{r} bigint, row{r} tid, left{r} bigint, from{r} timestamptz, until{r} timestamptz, terms{r} integer"
    for r in _ROUNDS
)
_COVERS = ", ".join(f"cov{r} bigint, over{r} bigint" for r in _ROUNDS)

_TABLES = f"""
create temp table if not exists bulk_delta (
    session_id bigint, seq integer, account_id bigint, service_id bigint, from_at timestamptz, to_at timestamptz,
    octets_in bigint, octets_out bigint, seconds bigint) on commit delete rows;
create temp table if not exists bulk_owner (
    n bigint, account_id bigint, service_id bigint, first_at timestamptz, last_at timestamptz, subscription_id bigint,
    plan_version_id integer, zone text, anchor_day integer, calendar_n bigint, reason text) on commit delete rows;
create temp table if not exists bulk_calendar (
    n bigint, plan_version_id integer, parts integer, switch integer,
    edges timestamptz[], slots integer[], cycles integer[], cycle_starts timestamptz[]) on commit delete rows;
alter table bulk_calendar alter edges set storage plain, alter slots set storage plain, alter cycles set storage plain,
    alter cycle_starts set storage plain;
create temp table if not exists bulk_part (
    n integer, plan_version_id integer, ordinal integer, component_id integer, slots bigint, covers bigint[],
    is_in integer, is_out integer, is_seconds integer, is_event integer, is_session boolean,
    grace bigint, least bigint, initial bigint, following bigint,
    begins bigint[], origins bigint[], increments bigint[], units numeric[], bases numeric[], connect numeric,
    maximum numeric, factor numeric, narrow_max bigint, narrow_units bigint[], narrow_bases bigint[],
    narrow_connect bigint, narrow_maximum bigint, denominator numeric, kept numeric, cap numeric, scale numeric,
    minor_scale numeric, mode integer, currency text, debit text, credit text) on commit delete rows;
create temp table if not exists bulk_meter (
    n bigint, owner_n bigint, cycle_no integer, part_n integer, account_id bigint, cycle_id bigint,
    subscription_id bigint, component_id integer, row_id tid, quantity bigint, numerator numeric, posted_minor bigint)
    on commit delete rows;
create temp table if not exists bulk_bucket (
    account_id bigint, cycle_no integer, rank integer, bucket_id bigint, row_id tid, available bigint,
    from_at timestamptz, until_at timestamptz, terms_hash bigint, is_unfit boolean) on commit delete rows;
create temp table if not exists bulk_terms (
    n integer, terms_hash bigint, is_fit boolean, stops boolean, swallows boolean) on commit delete rows;
create temp table if not exists bulk_purse (
    account_id bigint, cycle_no integer, {_PURSE}, stops integer, swallows integer) on commit delete rows;
create temp table if not exists bulk_priced (
    session_id bigint, seq integer, to_at timestamptz, slice integer, end_at timestamptz, account_id bigint,
    cycle_no integer, meter_n bigint, part_n integer, quantity bigint, priced bigint, total_before bigint,
    numerator numeric, is_last boolean, {_COVERS}) on commit delete rows;
"""


class BulkPart(Struct, frozen=True, gc=False):
    """A row of bulk_part, in its order; instants and arrays as psycopg adapts them."""

    values: tuple[Any, ...]


class CalendarRow(Struct, frozen=True, gc=False):
    """A row of bulk_calendar: the slots and the cycles that begin at each edge, by their numbers.

    Instants as db/binary.py has them. `edges` has one more, past all others, where nothing begins.
    """

    n: int
    plan_version_id: int
    parts: int
    switch: int
    edges: list[int]
    slots: list[int]
    cycles: list[int]
    cycle_starts: list[int]


class TermsRow(Struct, frozen=True, gc=False):
    """Terms that a bucket of the batch has, as a document."""

    terms_hash: int
    terms: dict[str, Any]


class JudgedTerms(Struct, frozen=True, gc=False):
    """Whether they can be rated set-wise, and what becomes of usage beyond a bucket of them."""

    terms_hash: int
    is_fit: bool
    stops: bool
    swallows: bool


class CalendarAsked(Struct, frozen=True, gc=False):
    """A tariff in a zone, and the span that the batch has of it. Instants as db/binary.py has them."""

    n: int
    plan_version_id: int
    zone: str
    anchor_day: int
    first_us: int
    last_us: int


def create_bulk_tables(connection: Connection) -> None:
    """The temporary tables, empty: a transaction may have more than one batch."""
    row = connection.execute("select to_regclass('pg_temp.bulk_priced') is null").fetchone()
    if row is not None and row[0]:
        connection.execute("set temp_buffers = '256MB'")
        connection.execute(_TABLES.encode())
    else:
        connection.execute(
            """truncate bulk_delta, bulk_owner, bulk_calendar, bulk_part, bulk_meter, bulk_bucket, bulk_terms,
                        bulk_purse, bulk_priced"""
        )


def count_waiting(connection: Connection, shard: int, limit: int) -> tuple[int, datetime | None]:
    """How many deltas wait in a shard, counted no further than `limit` of them lead, and since when the first does."""
    row = connection.execute(
        """select coalesce(sum(deltas), 0), min(queued_at)
           from (select deltas, queued_at from rating_queue where shard = %s order by id limit %s) q""",
        (shard, min(limit, QUEUE_ROWS_MAX)),
    ).fetchone()
    assert row is not None
    return int(row[0]), row[1]


def claim_bulk(connection: Connection, shard: int, limit: int) -> int:
    """Takes about `limit` deltas off a locked shard's queue, whole rows, into bulk_delta; how many."""
    return connection.execute(
        """with waiting as (
             select id, sum(deltas) over (order by id) - deltas as deltas_before
             from (select id, deltas from rating_queue where shard = %(shard)s order by id limit %(rows)s) q),
           taken as (
             delete from rating_queue q using waiting
             where q.shard = %(shard)s and q.id = waiting.id and deltas_before < %(limit)s
             returning q.session_id, q.seq, q.account_id, q.service_id, q.from_at, q.to_at, q.octets_in, q.octets_out,
                       q.seconds)
           insert into bulk_delta
           select d.* from taken q
           cross join unnest(q.session_id, q.seq, q.account_id, q.service_id, q.from_at, q.to_at, q.octets_in,
                             q.octets_out, q.seconds) d""",
        {"shard": shard, "rows": QUEUE_ROWS_MAX, "limit": limit},
    ).rowcount


def insert_owners(connection: Connection, since: datetime, until: datetime) -> list[CalendarAsked]:
    """Who the deltas belong to; those out of [since, until) stay out. The calendars that the others ask for.

    The last subscription before is asked for by (service, begin) as one, which only the index subscription_service
    answers: that of the exclusion, which the planner takes for the cheaper one, takes longer.
    """
    connection.execute(
        """insert into bulk_owner
           select row_number() over (), w.*, u.id, u.plan_version_id, a.zone, a.anchor_day,
                  dense_rank() over (order by u.plan_version_id, a.zone, a.anchor_day),
                  case when a.charging_head_id is not null then 'group'
                       when u.id is null or u.starts_at > w.first_at then 'subscription'
                       when w.first_at < %s or w.last_at >= %s then 'times' end
           from (select account_id, service_id, min(from_at) as first_at, max(to_at) as last_at
                 from bulk_delta group by 1, 2) w
           left join lateral (
             select id, zone, anchor_day, charging_head_id from account where id = w.account_id offset 0) a on true
           left join lateral (
             select id, plan_version_id, service_id, lower(during) as starts_at from subscription
             where (service_id, lower(during)) <= (w.service_id, w.last_at)
             order by service_id desc, lower(during) desc limit 1) u
             on a.id is not null and u.service_id = w.service_id""",
        (since, until),
    )
    with connection.cursor(binary=True) as cursor:
        load_ints(cursor)
        rows = cursor.execute(
            """select calendar_n, plan_version_id, zone, anchor_day, min(first_at), max(last_at)
               from bulk_owner where reason is null group by 1, 2, 3, 4 order by 1"""
        ).fetchall()
    return [CalendarAsked(*row) for row in rows]


def insert_calendars(connection: Connection, rows: Sequence[CalendarRow]) -> None:
    connection.cursor().executemany(
        "insert into bulk_calendar values (%s, %s, %s, %s, %s::timestamptz[], %s::int[], %s::int[], %s::timestamptz[])",
        [
            (
                row.n, row.plan_version_id, row.parts, row.switch, instants(row.edges), int4s(row.slots),
                int4s(row.cycles), instants(row.cycle_starts),
            )
            for row in rows
        ],
    )  # fmt: skip


def insert_parts(connection: Connection, parts: Sequence[BulkPart]) -> None:
    if parts:
        marks = ", ".join(["%s"] * len(parts[0].values))
        connection.cursor().executemany(
            f"insert into bulk_part values ({marks})".encode(),  # noqa: S608 - marks only
            [part.values for part in parts],
        )


def exclude_plans(connection: Connection, plan_version_ids: Sequence[int]) -> None:
    """What is on these plans stays out: their tariffs are not set-wise."""
    connection.execute(
        "update bulk_owner set reason = 'tariff' where reason is null and plan_version_id = any(%s)",
        (list(plan_version_ids),),
    )


def insert_meters(connection: Connection) -> None:
    """The totals in the cycles that the owners touch; an owner stays out who has not all of them, in open cycles."""
    connection.execute(
        """with wanted as materialized (
             select o.n, o.account_id, o.subscription_id, g.no, c.cycle_starts[g.no] as starts_at
             from bulk_owner o
             join bulk_calendar c on c.n = o.calendar_n
             cross join lateral generate_series(c.cycles[width_bucket(o.first_at, c.edges)],
                                                c.cycles[width_bucket(o.last_at, c.edges)]) g(no)
             where o.reason is null),
           found as materialized (
             select w.*, y.id as cycle_id
             from wanted w cross join lateral (
               select id from cycle where account_id = w.account_id and starts_at = w.starts_at and state = 1 offset 0
             ) y)
           insert into bulk_meter
           select row_number() over (), f.n, f.no, p.n, f.account_id, f.cycle_id, f.subscription_id, t.component_id,
                  t.row_id, t.quantity, t.numerator, t.posted_minor
           from found f
           cross join lateral (
             select component_id, ctid as row_id, quantity, numerator, posted_minor from usage_total
             where account_id = f.account_id and cycle_id = f.cycle_id and subscription_id = f.subscription_id offset 0
           ) t
           join bulk_part p on p.component_id = t.component_id"""
    )
    connection.execute(
        """update bulk_owner o set reason = 'cycle'
           from (select o.n from bulk_owner o join bulk_calendar c on c.n = o.calendar_n
                 left join (select owner_n, count(*) as meters from bulk_meter group by 1) m on m.owner_n = o.n
                 where o.reason is null and coalesce(m.meters, 0) <> c.parts
                   * (c.cycles[width_bucket(o.last_at, c.edges)] - c.cycles[width_bucket(o.first_at, c.edges)] + 1)) w
           where o.n = w.n"""
    )


def insert_buckets(connection: Connection) -> list[TermsRow]:
    """The buckets that the owners may use, ranked by the order of their use, and all terms that these have.

    A bucket that can neither cover nor block is left out. Though nothing is left of it, one in steps may cover the rest
    of the last, and one of money gets back what a price that falls gives back. They are not locked: `use_buckets` finds
    out whether one moved meanwhile. Terms are told apart by a hash of 64 bits.
    """
    connection.execute(
        """with owner as materialized (
             select account_id, min(first_at) as first_at, max(last_at) as last_at, min(calendar_n) as calendar_n
             from bulk_owner where reason is null group by 1),
           found as materialized (
             select o.*, b.* from owner o cross join lateral (
               select id, ctid as row_id, jsonb_hash_extended(terms, 0) as terms_hash, priority, created_at,
                      granted - used as available, reserved, from_at, until_at
               from bucket where account_id = o.account_id and closed_at is null and from_at <= o.last_at
               and (until_at is null or until_at > o.first_at)
               and (granted > used or measure is null or (terms -> 'blocks')::boolean
                 or (terms -> 'increment')::bigint <> 1 or (terms -> 'connect_fee')::bigint <> 0
                 or (terms -> 'factor_parts')::bigint <> %s) offset 0) b)
           insert into bulk_bucket
           select w.account_id, w.first_no,
                  row_number() over (partition by w.account_id, w.first_no
                    order by w.priority, w.until_at nulls last, w.created_at, w.id),
                  w.id, w.row_id, least(w.available, 9223372036854775807), w.from_at, w.until_at, w.terms_hash,
                  w.reserved <> 0 or w.first_no <> w.last_no
                    or (w.from_at > w.first_at and w.from_at < w.last_at and w.from_at <> all(w.cycle_starts))
                    or (w.until_at > w.first_at and w.until_at < w.last_at and w.until_at <> all(w.cycle_starts))
           from (select f.*, c.cycle_starts,
                        c.cycles[width_bucket(greatest(f.from_at, f.first_at), c.edges)] as first_no,
                        c.cycles[width_bucket(least(f.until_at - interval '1 microsecond', f.last_at), c.edges)]
                          as last_no
                 from found f join bulk_calendar c on c.n = f.calendar_n) w""",
        (FACTOR_PARTS,),
    )
    rows = connection.execute(
        """select terms_hash, (select terms from bucket b where b.id = w.bucket_id)
           from (select terms_hash, max(bucket_id) as bucket_id from bulk_bucket group by 1) w order by 1"""
    ).fetchall()
    return [TermsRow(*row) for row in rows]


def judge_buckets(connection: Connection, terms: Sequence[JudgedTerms]) -> int:
    """Tells what terms say; accounts of which a bucket does not fit stay out. The most buckets one has in a cycle."""
    connection.cursor().executemany(
        "insert into bulk_terms values (%s, %s, %s, %s, %s)",
        [(number, one.terms_hash, one.is_fit, one.stops, one.swallows) for number, one in enumerate(terms, 1)],
    )
    row = connection.execute("select bool_or(is_unfit), max(rank) from bulk_bucket").fetchone()
    assert row is not None
    is_unfit, rounds = row
    if is_unfit or (rounds or 0) > BUCKETS_MAX or not all(one.is_fit for one in terms):
        connection.execute(
            """update bulk_owner o set reason = 'bucket'
               from (select distinct account_id from bulk_bucket b join bulk_terms t using (terms_hash)
                     where b.is_unfit or b.rank > %s or not t.is_fit) w
               where o.account_id = w.account_id and o.reason is null""",
            (BUCKETS_MAX,),
        )
    return min(rounds or 0, BUCKETS_MAX)


def fill_purses(connection: Connection, rounds: int) -> None:
    """The buckets of an account in a cycle side by side."""
    names = ", ".join(f"b{r}, row{r}, left{r}, from{r}, until{r}, terms{r}" for r in range(1, rounds + 1))
    columns = ", ".join(
        f"max({column}) filter (where rank = {r})"
        for r in range(1, rounds + 1)
        for column in ("bucket_id", "row_id", "available", "from_at", "until_at", "t.n")
    )
    connection.execute(
        f"""insert into bulk_purse (account_id, cycle_no, {names}, stops, swallows)
            select account_id, cycle_no, {columns}, coalesce(bit_or(1 << rank) filter (where t.stops), 0),
                   coalesce(bit_or(1 << rank) filter (where t.swallows), 0)
            from bulk_bucket b join bulk_terms t using (terms_hash)
            where rank <= {rounds} group by 1, 2""".encode()  # noqa: S608 - numbers only
    )


def take_out(connection: Connection) -> list[QueuedDelta]:
    """Removes the deltas of accounts that stay out, and gives them back in canonical order."""
    connection.execute(
        """update bulk_owner o set reason = w.reason
           from (select account_id, min(reason) as reason from bulk_owner where reason is not null group by 1) w
           where o.account_id = w.account_id and o.reason is null"""
    )
    with connection.cursor(binary=True) as cursor:
        load_ints(cursor)
        rows = cursor.execute(
            """delete from bulk_delta d using bulk_owner o
               where o.account_id = d.account_id and o.service_id = d.service_id and o.reason is not null
               returning d.to_at, d.session_id, d.seq, d.account_id, d.service_id, d.from_at, d.octets_in, d.octets_out,
                         d.seconds"""
        ).fetchall()
    return [QueuedDelta(*row) for row in sorted(rows)]


def is_ordered(connection: Connection) -> bool:
    """Whether an account of the batch has buckets, or was found to depend on the order before."""
    row = connection.execute(
        """select exists (select from bulk_bucket)
             or exists (select from bulk_owner o join rated_until u on u.head_account_id = o.account_id)"""
    ).fetchone()
    return row is not None and bool(row[0])


def set_planner(connection: Connection, settings: dict[str, str]) -> dict[str, str]:
    """Sets these until the transaction ends; what they were."""
    row = connection.execute(
        "select array(select current_setting(name) from unnest(%s::text[]) with ordinality n(name, o) order by o)",
        (list(settings),),
    ).fetchone()
    assert row is not None
    connection.execute(
        "select set_config(name, value, true) from unnest(%s::text[], %s::text[]) n(name, value)",
        (list(settings), list(settings.values())),
    )
    return dict(zip(settings, row[0], strict=True))
