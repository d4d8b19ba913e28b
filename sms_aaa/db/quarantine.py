"""Records that could not be settled, for whoever looks after them. They are put there by db/positions.py."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg.rows import class_row

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sms_aaa.db.engine import Connection


@dataclass(frozen=True, slots=True)
class AsideRow:
    """A record that was put aside; `resolution`: settled or dismissed, None while it waits. `raw`: see the table."""

    id: int
    node: str
    stream: int
    sequence: int
    record_offset: int
    reason: str
    at: datetime
    tries: int
    resolution: str | None
    resolved_at: datetime | None
    resolved_by: str | None
    note: str
    raw: bytes


def list_aside(
    connection: Connection, *, reason: str | None, node: str | None, resolved: bool, limit: int
) -> list[AsideRow]:
    """The newest first; with `resolved` those that wait no longer, too."""
    with connection.cursor(row_factory=class_row(AsideRow)) as cursor:
        return cursor.execute(
            """select id, node, stream, sequence, record_offset, reason, at, tries, resolution, resolved_at,
                      resolved_by, note, raw
               from quarantine
               where (%(resolved)s or resolved_at is null) and (%(reason)s::text is null or reason = %(reason)s)
                 and (%(node)s::text is null or node = %(node)s)
               order by id desc limit %(limit)s""",
            {"resolved": resolved, "reason": reason, "node": node, "limit": limit},
        ).fetchall()


def list_waiting_ids(connection: Connection, reason: str | None) -> list[int]:
    """In the order in which they were put aside; `reason` None: whatever it is."""
    rows = connection.execute(
        "select id from quarantine where resolved_at is null and (%(r)s::text is null or reason = %(r)s) order by id",
        {"r": reason},
    ).fetchall()
    return [int(row[0]) for row in rows]


def find_aside(connection: Connection, row_id: int, *, lock: bool) -> AsideRow | None:
    """With `lock` it is this transaction's: two that try the same record again do so one after the other."""
    query = """select id, node, stream, sequence, record_offset, reason, at, tries, resolution, resolved_at,
                      resolved_by, note, raw
               from quarantine where id = %s"""
    with connection.cursor(row_factory=class_row(AsideRow)) as cursor:
        return cursor.execute(f"{query} for update" if lock else query, (row_id,)).fetchone()


def count_try(connection: Connection, row_id: int, reason: str | None) -> None:
    """It was tried and failed; `reason` None: the reason is written already."""
    connection.execute(
        "update quarantine set tries = tries + 1, reason = coalesce(%s, reason) where id = %s", (reason, row_id)
    )


def resolve(connection: Connection, row_id: int, *, resolution: str, who: str, note: str, tried: bool) -> None:
    """It waits no longer."""
    connection.execute(
        """update quarantine set resolved_at = now(), resolution = %s, resolved_by = %s, note = %s, tries = tries + %s
           where id = %s and resolved_at is null""",
        (resolution, who, note, int(tried), row_id),
    )


def count_waiting(connection: Connection) -> Sequence[tuple[str, int]]:
    """How many wait, by reason."""
    return connection.execute(
        "select reason, count(*) from quarantine where resolved_at is null group by 1 order by 1"
    ).fetchall()
