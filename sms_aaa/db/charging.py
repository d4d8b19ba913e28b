"""Rating whose price depends on more than a total: groups, what sessions are, their totals, how far a group is rated.

Instants that end in `_us` are as db/binary.py has them.
"""

from __future__ import annotations

from struct import Struct as Layout
from typing import TYPE_CHECKING

from msgspec import Struct

from sms_aaa.db.binary import (
    NULL_FIELD,
    copy_rows,
    field,
    instants,
    int4s,
    int8_array,
    int8s,
    load_ints,
    numeric_field,
)
from sms_aaa.db.rating import TenureRow
from sms_aaa.rules.instants import instant_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from sms_aaa.db.engine import Connection


class GroupRow(Struct, frozen=True, gc=False):
    """An account and the head of its charging group, be it itself."""

    account_id: int
    head_id: int


def list_groups(connection: Connection, account_ids: Iterable[int]) -> list[GroupRow]:
    """Of these accounts, those in a group, with buckets, or whose price was found to depend on the order before."""
    rows = connection.execute(
        """select a.id, coalesce(a.charging_head_id, a.id) from unnest(%s) w(id) join account a on a.id = w.id
           where a.charging_head_id is not null
              or exists (select from bucket b where b.account_id = a.id and b.closed_at is null)
              or exists (select from rated_until u where u.head_account_id = a.id)""",
        (int8s(sorted(account_ids)),),
        binary=True,
    ).fetchall()
    return [GroupRow(*row) for row in rows]


def list_members(connection: Connection, head_id: int) -> list[int]:
    """The accounts of a charging group, its head first."""
    rows = connection.execute("select id from account where charging_head_id = %s order by id", (head_id,)).fetchall()
    return [head_id, *(int(row[0]) for row in rows)]


def list_heads_of(connection: Connection, account_ids: Iterable[int]) -> list[int]:
    """The heads of the charging groups of these accounts."""
    rows = connection.execute(
        "select distinct coalesce(charging_head_id, id) from account where id = any(%s) order by 1",
        (int8s(sorted(account_ids)),),
    ).fetchall()
    return [int(row[0]) for row in rows]


class SessionRow(Struct, frozen=True, gc=False):
    """What rating may ask of a session. `vendor_attributes` is JSON."""

    session_id: int
    started_us: int
    username: str
    called_station_id: str
    zone: str
    vendor_attributes: str | None


def list_sessions(connection: Connection, session_ids: Iterable[int]) -> list[SessionRow]:
    """Live ones and those of the history."""
    with connection.cursor(binary=True) as cursor:
        load_ints(cursor)
        rows = cursor.execute(
            """select s.id, s.started_at, s.username, coalesce(s.called_station_id, ''), coalesce(n.zone, ''),
                      s.vendor_attributes
               from unnest(%s) w(id) join session_all s on s.id = w.id left join nas n on n.id = s.nas_id""",
            (int8s(sorted(session_ids)),),
        ).fetchall()
    return [SessionRow(*row) for row in rows]


class SessionTotal(Struct, frozen=True, gc=False):
    """Priced quantity of a session in a component whose price runs up over a session."""

    session_id: int
    subscription_id: int
    component_id: int
    quantity: int


def list_session_totals(connection: Connection, session_ids: Iterable[int]) -> list[SessionTotal]:
    rows = connection.execute(
        """select t.session_id, t.subscription_id, t.component_id, t.quantity
           from unnest(%s) w(id) join session_total t on t.session_id = w.id""",
        (int8s(sorted(session_ids)),),
        binary=True,
    ).fetchall()
    return [SessionTotal(*row) for row in rows]


def upsert_session_totals(connection: Connection, totals: Sequence[SessionTotal]) -> None:
    connection.execute(
        """insert into session_total (session_id, subscription_id, component_id, quantity)
           select * from unnest(%s, %s, %s, %s)
           on conflict (session_id, subscription_id, component_id) do update set quantity = excluded.quantity""",
        (
            int8s([total.session_id for total in totals]),
            int8s([total.subscription_id for total in totals]),
            int4s([total.component_id for total in totals]),
            int8s([total.quantity for total in totals]),
        ),
    )


Position = tuple[int, int, int]
"""(end of a slice, session id, seq): where in the canonical order."""


def list_rated_until(connection: Connection, head_ids: Iterable[int]) -> dict[int, Position]:
    """How far each of these groups was rated, by head; of a group that is not there nothing was."""
    with connection.cursor(binary=True) as cursor:
        load_ints(cursor)
        rows = cursor.execute(
            """select u.head_account_id, u.to_at, u.session_id, u.seq
               from unnest(%s) w(id) join rated_until u on u.head_account_id = w.id""",
            (int8s(sorted(head_ids)),),
        ).fetchall()
    return {row[0]: (row[1], row[2], row[3]) for row in rows}


def upsert_rated_until(connection: Connection, positions: dict[int, Position]) -> None:
    """By head."""
    connection.execute(
        """insert into rated_until (head_account_id, to_at, session_id, seq) select * from unnest(%s, %s, %s, %s)
           on conflict (head_account_id) do update
             set to_at = excluded.to_at, session_id = excluded.session_id, seq = excluded.seq""",
        (
            int8s(list(positions)),
            instants([position[0] for position in positions.values()]),
            int8s([position[1] for position in positions.values()]),
            int4s([position[2] for position in positions.values()]),
        ),
    )


class DirtyRow(Struct, frozen=True, gc=False):
    """A group that is to be rated again, from the slices on that end at `from_us` or later."""

    head_id: int
    from_us: int
    reason: str


def upsert_dirty(connection: Connection, rows: Sequence[DirtyRow]) -> None:
    """Of a group that is dirty already the earlier instant counts."""
    connection.execute(
        """insert into dirty_group (head_account_id, from_at, reason) select * from unnest(%s, %s, %s::text[])
           on conflict (head_account_id) do update set from_at = least(dirty_group.from_at, excluded.from_at)""",
        (
            int8s([row.head_id for row in rows]),
            instants([row.from_us for row in rows]),
            [row.reason for row in rows],
        ),
    )


def delete_dirty(connection: Connection, head_id: int) -> None:
    """It is as clean as its slices in canonical order make it."""
    connection.execute("delete from dirty_group where head_account_id = %s", (head_id,))


def find_dirty(connection: Connection, *, after: int, since: datetime) -> DirtyRow | None:
    """The first group above `after` that has been dirty since an instant or longer, if nobody works at its shard."""
    with connection.cursor(binary=True) as cursor:
        load_ints(cursor)
        row = cursor.execute(
            """select g.head_account_id, g.from_at, g.reason
               from dirty_group g join rating_shard s on s.shard = g.head_account_id %% 8
               where g.head_account_id > %s and g.since <= %s
               order by g.head_account_id limit 1 for no key update of s skip locked""",
            (after, since),
        ).fetchone()
    return DirtyRow(*row) if row is not None else None


class RatedDeltaRow(Struct, frozen=True, gc=False):
    """A delta that was rated, and one slice of the highest generation of a component in it."""

    session_id: int
    seq: int
    account_id: int
    service_id: int
    from_us: int
    to_us: int
    octets_in: int
    octets_out: int
    seconds: int
    cycle_id: int
    subscription_id: int
    component_id: int
    slice: int
    generation: int
    quantity: int
    covered: int
    uncovered: int
    total_before: int
    numerator: int
    uses: tuple[int, ...] | None


def list_rated_deltas(connection: Connection, account_ids: Sequence[int], since_us: int) -> list[RatedDeltaRow]:
    """Everything that was rated of what these accounts used in deltas that end at an instant or later."""
    with connection.cursor(binary=True) as cursor:
        load_ints(cursor)
        rows = cursor.execute(
            """select d.session_id, d.seq, d.account_id, d.service_id, d.from_at, d.to_at, d.octets_in, d.octets_out,
                      d.seconds, r.cycle_id, r.subscription_id, r.component_id, r.slice, r.generation, r.quantity,
                      r.covered, r.uncovered, r.total_before, r.numerator::text, r.uses,
                      max(r.generation) over (partition by r.session_id, r.seq, r.component_id)
               from usage_delta d
               join rated_usage r on r.session_id = d.session_id and r.seq = d.seq and r.to_at = d.to_at
               where d.account_id = any(%(accounts)s) and d.to_at >= %(since)s and r.to_at >= %(since)s""",
            {"accounts": int8s(account_ids), "since": instant_of(since_us)},
        ).fetchall()
    return [RatedDeltaRow(*[*row[:18], int(row[18]), row[19]]) for row in rows if row[13] == row[20]]


def is_rated_since(connection: Connection, account_ids: Sequence[int], since: datetime) -> bool:
    """Whether anything was rated of what these accounts used after an instant."""
    row = connection.execute(
        """select exists (select from usage_delta d
                          join rated_usage r on r.session_id = d.session_id and r.seq = d.seq and r.to_at = d.to_at
                          where d.account_id = any(%(accounts)s) and d.to_at > %(since)s and r.to_at > %(since)s)""",
        {"accounts": int8s(account_ids), "since": since},
    ).fetchone()
    assert row is not None
    return bool(row[0])


def list_places(connection: Connection, wanted: Sequence[tuple[int, int]]) -> list[tuple[TenureRow, int, int]]:
    """Of these (subscription id, cycle id) the tenure, and the start and the end of the cycle."""
    with connection.cursor(binary=True) as cursor:
        load_ints(cursor)
        rows = cursor.execute(
            """select u.service_id, a.id, a.zone, a.anchor_day, u.id, u.plan_version_id,
                      coalesce(lower(u.during), '-infinity'), upper(u.during), c.starts_at, c.ends_at
               from unnest(%s, %s) w(subscription_id, cycle_id)
               join subscription u on u.id = w.subscription_id
               join cycle c on c.id = w.cycle_id join account a on a.id = c.account_id""",
            (int8s([one for one, _ in wanted]), int8s([cycle_id for _, cycle_id in wanted])),
        ).fetchall()
    return [(TenureRow(*row[:8]), row[8], row[9]) for row in rows]


def get_open_since(connection: Connection, account_ids: Sequence[int]) -> int:
    """When the earliest cycle of these accounts begins that is not closed; the last instant if there is none."""
    with connection.cursor(binary=True) as cursor:
        load_ints(cursor)
        row = cursor.execute(
            """select coalesce(min(starts_at), 'infinity') from cycle where account_id = any(%s) and state = 1""",
            (int8s(account_ids),),
        ).fetchone()
    assert row is not None
    return int(row[0])


def insert_cost_limits(connection: Connection, ended: Sequence[tuple[int, str]]) -> None:
    """An event for each session that has cost as much as one may: (session id, component)."""
    connection.execute(
        """insert into event (kind, object_kind, object_id, payload)
           select 'session.cost-limit', 'session', w.session_id, jsonb_build_object('component', w.component)
           from unnest(%s, %s::text[]) w(session_id, component)""",
        (int8s([session_id for session_id, _ in ended]), [component for _, component in ended]),
    )


_CHARGED = """copy rated_usage (account_id, cycle_id, subscription_id, component_id, session_id, seq, slice, generation,
    to_at, run_id, quantity, total_before, covered, uncovered, numerator, uses) from stdin (format binary)"""
_CHARGED_SLICE = Layout(">iqiiihihiqiqiqiqiqiq")
_FIELDS = (16).to_bytes(2, "big")


class ChargedRow(Struct, frozen=True, gc=False):
    """What a slice of a delta cost in a component. `owner`: rating.pack_owner of its total.

    `uses`: bucket id, usage covered and amount taken, three numbers a bucket; behind a bucket that blocks, that one is
    the last.
    """

    owner: bytes
    session_id: int
    seq: int
    to_us: int
    slice: int
    generation: int
    quantity: int
    covered: int
    uncovered: int
    total_before: int
    numerator: int
    uses: tuple[int, ...]


def insert_charged(connection: Connection, rows: Iterable[ChargedRow], run_id: int) -> None:
    """By COPY. The key (delta, component, slice, generation) refuses what is rated already: exactly once."""
    copy_rows(connection, _CHARGED, (_pack(row, run_id) for row in rows))


def _pack(row: ChargedRow, run_id: int) -> bytes:
    return (
        _FIELDS
        + row.owner[2:]
        + _CHARGED_SLICE.pack(
            8, row.session_id, 4, row.seq, 2, row.slice, 2, row.generation, 8, row.to_us, 8, run_id, 8, row.quantity,
            8, row.total_before, 8, row.covered, 8, row.uncovered,
        )
        + numeric_field(row.numerator)
        + (field(int8_array(row.uses)) if row.uses else NULL_FIELD)
    )  # fmt: skip
