"""The rater's tables: cycles, totals, rated usage, suspense; and what `usage` and `explain` read of them.

Instants that end in `_us` are as db/binary.py has them.
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct as Layout
from typing import TYPE_CHECKING

from msgspec import Struct
from psycopg.rows import class_row

from sms_aaa.db.binary import Packed, copy_rows, instants, int4s, int8s, load_ints, numeric_field, numerics
from sms_aaa.rules.instants import instant_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from sms_aaa.db.engine import Connection
    from sms_aaa.db.rating_queue import QueuedDelta


class TenureRow(Struct, frozen=True, gc=False):
    """A subscription of a service, with the account that pays for the usage that is asked about.

    `subscription_id` None: the service never had one. `ends_us` None: it goes on.
    """

    service_id: int
    account_id: int
    zone: str
    anchor_day: int
    subscription_id: int | None
    plan_version_id: int
    starts_us: int
    ends_us: int | None


class TotalKey(Struct, frozen=True, gc=False, order=True):
    """Whose running total it is."""

    account_id: int
    cycle_id: int
    subscription_id: int
    component_id: int


class Total(Struct, frozen=True, gc=False):
    """What was priced so far, its exact price as a numerator over the component's denominator, what the ledger has.

    `covered`: by buckets, or not charged behind one that blocks.
    """

    key: TotalKey
    quantity: int
    numerator: int
    posted_minor: int
    covered: int = 0


def list_tenures(connection: Connection, owners: Sequence[tuple[int, int]]) -> list[TenureRow]:
    """All subscriptions of the services of these (service id, account id), in order of time."""
    with connection.cursor(binary=True) as cursor:
        load_ints(cursor)
        rows = cursor.execute(
            """select w.service_id, a.id, a.zone, a.anchor_day, u.id, coalesce(u.plan_version_id, 0),
                      coalesce(lower(u.during), '-infinity'), upper(u.during)
               from unnest(%s, %s) w(service_id, account_id) join account a on a.id = w.account_id
               left join subscription u on u.service_id = w.service_id
               order by w.service_id, a.id, lower(u.during)""",
            (int8s([service_id for service_id, _ in owners]), int8s([account_id for _, account_id in owners])),
        ).fetchall()
    return [TenureRow(*row) for row in rows]


def upsert_cycles(connection: Connection, cycles: Sequence[tuple[int, int, int]]) -> dict[tuple[int, int], int]:
    """Ids by (account id, start) of these (account id, start, end); ExclusionViolation if one would overlap another."""
    account_ids, starts_us, ends_us = zip(*cycles, strict=True) if cycles else ((), (), ())
    with connection.cursor(binary=True) as cursor:
        load_ints(cursor)
        rows = cursor.execute(
            """with wanted as (select * from unnest(%s, %s, %s) w(account_id, starts_at, ends_at)),
               added as (
                 insert into cycle (account_id, starts_at, ends_at) select * from wanted
                 on conflict (account_id, starts_at) do nothing returning id, account_id, starts_at, ends_at)
               select * from added
               union all
               select c.id, c.account_id, c.starts_at, c.ends_at from cycle c join wanted using (account_id, starts_at)
            """,
            (int8s(account_ids), instants(starts_us), instants(ends_us)),
        ).fetchall()
    ends = {(account_id, start_us): end_us for account_id, start_us, end_us in cycles}
    assert all(row[3] == ends[row[1], row[2]] for row in rows), "an account's cycles keep their bounds"
    return {(row[1], row[2]): row[0] for row in rows}


class StandingRow(Struct, frozen=True, gc=False):
    """A cycle that was opened, and one of its totals; `component_id` None: the subscription has none in it."""

    index: int
    cycle_id: int
    is_closed: bool
    component_id: int | None
    quantity: int
    numerator: str
    posted_minor: int
    covered: int


def list_standings(connection: Connection, places: Sequence[tuple[int, int, int]]) -> list[StandingRow]:
    """Cycles and totals of these (account id, subscription id, start of the cycle); `index` counts them from 0.

    The owners' shard is locked, so they stand still.
    """
    rows = connection.execute(
        """select w.number - 1, c.id, c.state = 2, t.component_id, t.quantity, t.numerator::text, t.posted_minor,
                  t.covered
           from unnest(%s, %s, %s) with ordinality w(account_id, subscription_id, starts_at, number)
           join cycle c on c.account_id = w.account_id and c.starts_at = w.starts_at
           left join usage_total t on t.account_id = w.account_id and t.cycle_id = c.id
             and t.subscription_id = w.subscription_id""",
        (
            int8s([account_id for account_id, _, _ in places]),
            int8s([subscription_id for _, subscription_id, _ in places]),
            instants([start_us for _, _, start_us in places]),
        ),
        binary=True,
    ).fetchall()
    return [StandingRow(*row) for row in rows]


def insert_totals(connection: Connection, totals: Sequence[Total]) -> None:
    connection.execute(
        """insert into usage_total (account_id, cycle_id, subscription_id, component_id, quantity, numerator,
                                    posted_minor, covered)
           select * from unnest(%s, %s, %s, %s, %s, %s, %s, %s)""",
        _total_columns(totals),
    )


def update_totals(connection: Connection, totals: Sequence[Total]) -> None:
    """AssertionError if one is not there."""
    done = connection.execute(
        """update usage_total t set quantity = w.quantity, numerator = w.numerator, posted_minor = w.posted_minor,
             covered = w.covered
           from unnest(%s, %s, %s, %s, %s, %s, %s, %s)
             w(account_id, cycle_id, subscription_id, component_id, quantity, numerator, posted_minor, covered)
           where t.account_id = w.account_id and t.cycle_id = w.cycle_id and t.subscription_id = w.subscription_id
             and t.component_id = w.component_id""",
        _total_columns(totals),
    )
    assert done.rowcount == len(totals), "a total that was there once stays"


def _total_columns(totals: Sequence[Total]) -> tuple[Packed, ...]:
    keys = [total.key for total in totals]
    return (
        int8s([key.account_id for key in keys]),
        int8s([key.cycle_id for key in keys]),
        int8s([key.subscription_id for key in keys]),
        int4s([key.component_id for key in keys]),
        int8s([total.quantity for total in totals]),
        numerics([total.numerator for total in totals]),
        int8s([total.posted_minor for total in totals]),
        int8s([total.covered for total in totals]),
    )


def insert_run(connection: Connection, *, program: str, started_at: datetime, kind: str = "live") -> int:
    """A rating run, live or rerate; its id stands on all that it writes."""
    row = connection.execute(
        "insert into rating_run (kind, program, started_at, deltas) values (%s, %s, %s, 0) returning id",
        (kind, program, started_at),
    ).fetchone()
    assert row is not None
    return int(row[0])


def add_to_run(connection: Connection, run_id: int, deltas: int) -> None:
    connection.execute("update rating_run set deltas = deltas + %s where id = %s", (deltas, run_id))


_RATED = """copy rated_usage (account_id, cycle_id, subscription_id, component_id, session_id, seq, slice, generation,
    to_at, run_id, quantity, total_before, numerator) from stdin (format binary)"""
_RATED_OWNER = Layout(">hiqiqiqii")
_RATED_DELTA = Layout(">iqiiihihiqiqiqiq")


def pack_owner(key: TotalKey) -> bytes:
    """What all rated rows of a total begin with."""
    return _RATED_OWNER.pack(13, 8, key.account_id, 8, key.cycle_id, 8, key.subscription_id, 4, key.component_id)


def pack_rated(
    owner: bytes, delta: QueuedDelta, run_id: int, quantity: int, total_before: int, numerator: int
) -> bytes:
    """The rated row of a whole delta: `quantity` of it costs `numerator` over the component's denominator."""
    return (
        owner
        + _RATED_DELTA.pack(
            8, delta.session_id, 4, delta.seq, 2, 0, 2, 1, 8, delta.to_us, 8, run_id, 8, quantity, 8, total_before,
        )
        + numeric_field(numerator)
    )  # fmt: skip


def insert_rated(connection: Connection, rows: Sequence[bytes]) -> None:
    """By COPY. The key (delta, component, slice, generation) refuses what is rated already: exactly once."""
    copy_rows(connection, _RATED, rows)


class Adjustment(Struct, frozen=True, gc=False):
    """What a component of a closed cycle, with its minimum, or a bound moved by; `charge_id`: what it corrects."""

    key: TotalKey
    amount_minor: int
    charge_id: int | None


def insert_adjustments(connection: Connection, adjustments: Sequence[Adjustment], *, run_id: int, reason: str) -> None:
    connection.cursor().executemany(
        """insert into adjustment (account_id, cycle_id, subscription_id, component_id, charge_id, run_id,
                                   amount_minor, reason)
           values (%s, %s, %s, %s, %s, %s, %s, %s)""",
        [
            (
                one.key.account_id, one.key.cycle_id, one.key.subscription_id, one.key.component_id, one.charge_id,
                run_id, one.amount_minor, reason,
            )
            for one in adjustments
        ],
    )  # fmt: skip


def get_component_name(connection: Connection, component_id: int) -> str:
    row = connection.execute("select name from component where id = %s", (component_id,)).fetchone()
    assert row is not None
    return str(row[0])


def insert_suspense(connection: Connection, deltas: Iterable[QueuedDelta], reason: str) -> None:
    connection.cursor().executemany(
        """insert into suspense (session_id, seq, to_at, account_id, reason) values (%s, %s, %s, %s, %s)
           on conflict do nothing""",
        [(d.session_id, d.seq, instant_of(d.to_us), d.account_id, reason) for d in deltas],
    )


@dataclass(frozen=True, slots=True)
class UsageTotalRow:
    """A component's total in a cycle, as `usage` shows it; of kind `minimum` what its usage was short of it.

    `quantity` is what was priced, `carried` of it by the plan before; `covered` by buckets is beside it.
    """

    account_id: int
    cycle_id: int
    starts_at: datetime
    ends_at: datetime
    currency: str
    zone: str
    subscription_id: int
    plan_version_id: int
    plan: str
    component: str
    component_id: int
    kind: str
    quantity: int
    carried: int
    covered: int
    numerator: int
    posted_minor: int


def list_usage_totals(connection: Connection, account_id: int, at: datetime | None) -> list[UsageTotalRow]:
    """The components of the account's cycle at an instant (None: of all its cycles); fees as kind `recurring`."""
    with connection.cursor(row_factory=class_row(UsageTotalRow)) as cursor:
        return cursor.execute(
            """select c.account_id, c.id as cycle_id, c.starts_at, c.ends_at, a.currency, t.subscription_id,
                      a.zone, k.plan_version_id, p.name as plan, k.name as component, k.id as component_id,
                      coalesce(t.kind, k.kind) as kind, t.quantity, t.carried, t.covered, t.numerator, t.posted_minor
               from cycle c join account a on a.id = c.account_id
               join (select account_id, cycle_id, subscription_id, component_id, null as kind, quantity, carried,
                            covered, numerator, posted_minor
                     from usage_total
                     union all
                     select account_id, cycle_id, subscription_id, component_id,
                            case when kind = 'minimum' then kind end, 0, 0, 0, 0, sum(amount_minor)::bigint
                     from charge where kind <> 'usage' group by 1, 2, 3, 4, 5) t
                 on t.account_id = c.account_id and t.cycle_id = c.id
               join component k on k.id = t.component_id
               join plan_version v on v.id = k.plan_version_id join plan p on p.id = v.plan_id
               where c.account_id = %(account)s
                 and (%(at)s::timestamptz is null or c.starts_at <= %(at)s and c.ends_at > %(at)s)
               order by c.starts_at, t.subscription_id, k.kind, k.id, t.kind nulls first""",
            {"account": account_id, "at": at},
        ).fetchall()


@dataclass(frozen=True, slots=True)
class RatedRow:
    """What one slice of a delta cost in one component: quantity = covered + uncovered + what was priced.

    `uses`: bucket id, usage covered, amount taken, three numbers a bucket. `run`: the kind of the rating run.
    """

    session_id: int
    seq: int
    subscription_id: int
    component_id: int
    slice: int
    generation: int
    run_id: int
    run: str | None
    cycle_id: int
    quantity: int
    covered: int
    uncovered: int
    total_before: int
    numerator: int
    uses: list[int] | None

    @property
    def priced(self) -> int:
        return self.quantity - self.covered - self.uncovered


def list_rated(connection: Connection, account_id: int, deltas: Sequence[tuple[int, int]]) -> list[RatedRow]:
    """The rated slices of these (session, seq) deltas that count: of each component the highest generation."""
    with connection.cursor(row_factory=class_row(RatedRow)) as cursor:
        return cursor.execute(
            """select r.session_id, r.seq, r.subscription_id, r.component_id, r.slice, r.generation, r.run_id,
                      n.kind as run, r.cycle_id, r.quantity, r.covered, r.uncovered, r.total_before, r.numerator, r.uses
               from (select r.*, max(r.generation) over (partition by r.session_id, r.seq, r.component_id) as latest
                     from unnest(%s::bigint[], %s::int[]) w(session_id, seq)
                     join rated_usage r on r.session_id = w.session_id and r.seq = w.seq
                     where r.account_id = %s) r
               left join rating_run n on n.id = r.run_id
               where r.generation = r.latest
               order by r.session_id, r.seq, r.component_id, r.slice""",
            ([session for session, _ in deltas], [seq for _, seq in deltas], account_id),
        ).fetchall()


def list_edges(connection: Connection, account_id: int) -> list[datetime]:
    """Where an account's deltas are cut whatever the tariff: at its cycles, changes of plan and buckets."""
    rows = connection.execute(
        """with payer as (select id, coalesce(charging_head_id, id) as head_id from account where id = %s),
           used as (select b.from_at, b.until_at from payer p join bucket b on b.account_id in (p.id, p.head_id))
           select starts_at from payer p join cycle c on c.account_id = p.id
           union select lower(u.during) from payer p join assignment g on g.account_id = p.id
                 join subscription u on u.service_id = g.service_id where not lower_inf(u.during)
           union select from_at from used union select until_at from used where until_at is not null""",
        (account_id,),
    ).fetchall()
    return [row[0] for row in rows]


def list_bucket_names(connection: Connection, bucket_ids: Sequence[int]) -> dict[int, str]:
    rows = connection.execute("select id, name from bucket where id = any(%s)", (int8s(bucket_ids),)).fetchall()
    return {int(row[0]): str(row[1]) for row in rows}


@dataclass(frozen=True, slots=True)
class AdjustmentRow:
    """What a closed cycle was corrected by."""

    id: int
    at: datetime
    component: str
    charge_id: int | None
    run_id: int | None
    amount_minor: int
    reason: str


def list_adjustments(connection: Connection, account_id: int, cycle_id: int) -> list[AdjustmentRow]:
    with connection.cursor(row_factory=class_row(AdjustmentRow)) as cursor:
        return cursor.execute(
            """select j.id, j.at, k.name as component, j.charge_id, j.run_id, j.amount_minor, j.reason
               from adjustment j join component k on k.id = j.component_id
               where j.account_id = %s and j.cycle_id = %s order by j.id""",
            (account_id, cycle_id),
        ).fetchall()
