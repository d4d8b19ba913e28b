"""Usage deltas, the queue to the rater, anomalies: what the settler stores of a batch, and what is asked of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from struct import Struct as Packer
from struct import pack
from typing import TYPE_CHECKING

from msgspec import Struct
from psycopg.rows import class_row

from sms_aaa.db.binary import NULL_FIELD, copy_rows, field, instant_array, int4_array, int8_array, node_field
from sms_aaa.db.sessions import array_of
from sms_aaa.rules.instants import instant_us
from sms_aaa.rules.session import AnomalyKind, Delta, Place

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sms_aaa.db.engine import Connection


class UsageDelta(Struct, frozen=True, gc=False):
    """A delta with whose it is; `account_id` None: the session belongs to no service."""

    session_id: int
    account_id: int | None
    service_id: int | None
    delta: Delta


class Anomaly(Struct, frozen=True, gc=False):
    session_id: int | None
    nas_id: int
    kind: AnomalyKind
    event_at: datetime
    octets_in: int
    octets_out: int
    place: Place


_DELTA = Packer(">hiqiiiqiqiqiqiqiii?iqiqiqiqi?")
_TWO_INT8 = Packer(">iqiq")
_DELTA_FIELDS = 22
_COPY_DELTAS = """copy usage_delta (session_id, seq, from_at, to_at, octets_in, octets_out, seconds, run, wrapped,
    before_in, before_out, after_in, after_out, late, account_id, service_id, before_sequence, before_offset,
    before_node, after_sequence, after_offset, after_node) from stdin (format binary)"""


def insert_deltas(connection: Connection, deltas: Iterable[UsageDelta]) -> None:
    """By COPY. The key (session, seq) refuses a delta that is there already."""
    copy_rows(connection, _COPY_DELTAS, map(_delta_row, deltas))


def _delta_row(usage: UsageDelta) -> bytes:
    """Each field with its length before it; what may be null, or is text, behind what has one form."""
    delta = usage.delta
    if usage.account_id is not None and usage.service_id is not None:
        owner = _TWO_INT8.pack(8, usage.account_id, 8, usage.service_id)
    else:
        owner = _optional_int8(usage.account_id) + _optional_int8(usage.service_id)
    return (
        _DELTA.pack(
            _DELTA_FIELDS, 8, usage.session_id, 4, delta.seq, 8, instant_us(delta.from_at), 8, instant_us(delta.to_at),
            8, delta.octets_in, 8, delta.octets_out, 8, delta.seconds, 4, delta.run, 1, delta.wrapped,
            8, delta.before_in, 8, delta.before_out, 8, delta.after_in, 8, delta.after_out, 1, delta.late,
        )
        + owner
        + (NULL_FIELD * 3 if delta.before_place is None else _place(delta.before_place))
        + _place(delta.after_place)
    )  # fmt: skip


def _place(place: Place) -> bytes:
    return _TWO_INT8.pack(8, place.sequence, 8, place.offset) + node_field(place.node)


def _optional_int8(number: int | None) -> bytes:
    return NULL_FIELD if number is None else pack(">iq", 8, number)


SHARDS = 8
"""Of the accounts, by `account_id % SHARDS`; the schema knows the number too."""

QUEUE_ROW_MAX = 500
"""Deltas in one row of the queue: the rater takes whole rows, and writes back what is too much for it."""


def insert_queue(connection: Connection, deltas: Iterable[UsageDelta]) -> None:
    """Hands the deltas to the rater, in the transaction that stores them: a row for each shard that they belong to.

    All of them belong to an account. The rater needs nothing else of them, and reads no delta back.
    """
    shards: dict[int, list[tuple[int, int, UsageDelta]]] = {}
    for usage in deltas:
        account_id, service_id = usage.account_id, usage.service_id
        assert account_id is not None
        assert service_id is not None
        shards.setdefault(account_id % SHARDS, []).append((account_id, service_id, usage))
    statement = """copy rating_queue (shard, deltas, session_id, seq, account_id, service_id, from_at, to_at, octets_in,
        octets_out, seconds) from stdin (format binary)"""
    rows = [
        _queue_row(shard, of_shard[start : start + QUEUE_ROW_MAX])
        for shard, of_shard in sorted(shards.items())
        for start in range(0, len(of_shard), QUEUE_ROW_MAX)
    ]
    if rows:
        copy_rows(connection, statement, rows)


def _queue_row(shard: int, owned: Sequence[tuple[int, int, UsageDelta]]) -> bytes:
    account_ids, service_ids, usages = zip(*owned, strict=True)
    arrays = (
        int8_array([usage.session_id for usage in usages]),
        int4_array([usage.delta.seq for usage in usages]),
        int8_array(account_ids),
        int8_array(service_ids),
        instant_array([instant_us(usage.delta.from_at) for usage in usages]),
        instant_array([instant_us(usage.delta.to_at) for usage in usages]),
        int8_array([usage.delta.octets_in for usage in usages]),
        int8_array([usage.delta.octets_out for usage in usages]),
        int8_array([usage.delta.seconds for usage in usages]),
    )
    return pack(">hihii", 2 + len(arrays), 2, shard, 4, len(usages)) + b"".join(map(field, arrays))


def insert_anomalies(connection: Connection, anomalies: Sequence[Anomaly]) -> None:
    """In one statement; the same oddity of the same reading is there once."""
    connection.execute(
        """insert into anomaly (session_id, nas_id, kind, event_at, octets_in, octets_out, node, sequence,
                                record_offset)
           select * from unnest(%s::bigint[], %s::int[], %s::text[], %s::timestamptz[], %s::bigint[], %s::bigint[],
                                %s::text[], %s::bigint[], %s::bigint[])
           on conflict do nothing""",
        (
            [one.session_id for one in anomalies],
            [one.nas_id for one in anomalies],
            [one.kind.value for one in anomalies],
            [one.event_at for one in anomalies],
            [one.octets_in for one in anomalies],
            [one.octets_out for one in anomalies],
            [one.place.node for one in anomalies],
            [one.place.sequence for one in anomalies],
            [one.place.offset for one in anomalies],
        ),
    )


@dataclass(frozen=True, slots=True)
class ServiceAccount:
    """Who a session's usage belongs to, and the faster direction of the plan in kbit/s (0: no limit)."""

    service_id: int
    identity: str
    account_id: int | None
    rate_kbps: int


def list_service_accounts(
    connection: Connection, *, service_ids: list[int], identities: list[str]
) -> list[ServiceAccount]:
    """Services by the id in our Class, or by their identity, with their account and plan of now.

    Of two services that had one identity the living one, else the latest, is given last.
    """
    with connection.cursor(row_factory=class_row(ServiceAccount)) as cursor:
        return cursor.execute(
            """select s.id as service_id, s.identity, g.account_id,
                      coalesce(greatest((v.document->'policy'->>'rate_up_kbps')::int,
                                        (v.document->'policy'->>'rate_down_kbps')::int), 0) as rate_kbps
               from service s
               left join lateral (select account_id from assignment where service_id = s.id
                                  order by during @> now() desc, during desc limit 1) g on true
               left join subscription u on u.service_id = s.id and u.during @> now()
               left join plan_version v on v.id = u.plan_version_id
               where s.id = any(%s) or s.identity = any(%s)
               order by s.state = 3 desc, s.id""",
            (service_ids, identities),
        ).fetchall()


def list_zones(connection: Connection, account_ids: Iterable[int]) -> list[tuple[int, str]]:
    """(account id, the name of its zone)."""
    return connection.execute(
        "select a.id, a.zone from unnest(%s::bigint[]) k(id) join account a on a.id = k.id", (array_of(account_ids),)
    ).fetchall()


@dataclass(frozen=True, slots=True)
class DeltaRow:
    """A delta as `explain` shows it, with the places of its two readings."""

    session_id: int
    acct_session_id: str
    nas: str
    seq: int
    from_at: datetime
    to_at: datetime
    octets_in: int
    octets_out: int
    seconds: int
    run: int
    wrapped: bool
    before_in: int
    before_out: int
    after_in: int
    after_out: int
    before_node: str | None
    before_sequence: int | None
    before_offset: int | None
    after_node: str
    after_sequence: int
    after_offset: int


def list_deltas(
    connection: Connection,
    *,
    account_id: int,
    start: datetime,
    end: datetime,
    session_id: int | None,
    limit: int,
    offset: int = 0,
) -> list[DeltaRow]:
    """The account's deltas that lie at least in part in [start, end), in order of time, those behind `offset`."""
    with connection.cursor(row_factory=class_row(DeltaRow)) as cursor:
        return cursor.execute(
            """select d.session_id, s.acct_session_id, n.name as nas, d.seq, d.from_at, d.to_at, d.octets_in,
                      d.octets_out, d.seconds, d.run, d.wrapped, d.before_in, d.before_out, d.after_in, d.after_out,
                      d.before_node, d.before_sequence, d.before_offset, d.after_node, d.after_sequence,
                      d.after_offset
               from usage_delta d join session_all s on s.id = d.session_id join nas n on n.id = s.nas_id
               where d.account_id = %(account)s and d.to_at >= %(start)s and d.from_at < %(end)s
                 and (%(session)s::bigint is null or d.session_id = %(session)s)
               order by d.to_at, d.session_id, d.seq limit %(limit)s offset %(offset)s""",
            {
                "account": account_id,
                "start": start,
                "end": end,
                "session": session_id,
                "limit": limit,
                "offset": offset,
            },
        ).fetchall()
