"""What the nodes dropped in silence, by source and fault, in windows of some minutes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg.rows import class_row

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sms_aaa.db.engine import Connection


@dataclass(frozen=True, slots=True, kw_only=True)
class DropRow:
    """`address` "": sources beyond those that a window names. `nas_id` None: nobody's address."""

    node: str
    worker: str
    window_at: datetime
    address: str
    fault: str
    nas_id: int | None
    packets: int
    first_at: datetime
    last_at: datetime
    last_port: int


@dataclass(frozen=True, slots=True)
class DropTotal:
    """As DropRow, over many windows."""

    address: str
    nas_id: int | None
    fault: str
    packets: int
    first_at: datetime
    last_at: datetime
    last_port: int


def upsert_drops(connection: Connection, rows: Sequence[DropRow]) -> None:
    """A window as it is now: storing it again changes nothing, and storing it later what has grown."""
    with connection.cursor() as cursor:
        cursor.executemany(
            """insert into nas_drop (node, worker, window_at, address, fault, nas_id, packets, first_at, last_at,
                   last_port)
               values (%(node)s, %(worker)s, %(window_at)s, %(address)s, %(fault)s, %(nas_id)s, %(packets)s,
                   %(first_at)s, %(last_at)s, %(last_port)s)
               on conflict (node, worker, window_at, address, fault) do update set
                   packets = excluded.packets, last_at = excluded.last_at, last_port = excluded.last_port
               where nas_drop.packets < excluded.packets""",
            [{name: getattr(row, name) for name in DropRow.__slots__} for row in rows],
        )


def total_drops(
    connection: Connection, *, since: datetime, node: str, without: Sequence[tuple[int, str]]
) -> list[DropTotal]:
    """By source and fault, of windows that had a drop after `since`.

    `without`: (start in epoch seconds, worker) of windows of `node` that the caller has itself.
    """
    starts, workers = zip(*without, strict=True) if without else ((), ())
    with connection.cursor(row_factory=class_row(DropTotal)) as cursor:
        return cursor.execute(
            """select address, nas_id, fault, sum(packets)::bigint as packets, min(first_at) as first_at,
                      max(last_at) as last_at, (array_agg(last_port order by last_at desc))[1] as last_port
               from nas_drop
               where last_at >= %(since)s
                 and not (node = %(node)s and (extract(epoch from window_at)::bigint, worker) in
                     (select * from unnest(%(starts)s::bigint[], %(workers)s::text[])))
               group by address, nas_id, fault""",
            {"since": since, "node": node, "starts": list(starts), "workers": list(workers)},
        ).fetchall()


def delete_drops_before(connection: Connection, moment: datetime) -> None:
    connection.execute("delete from nas_drop where last_at < %s", (moment,))
