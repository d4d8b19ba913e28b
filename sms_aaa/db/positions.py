"""How far each journal file of each node is settled, and what of it could not be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg.rows import class_row

if TYPE_CHECKING:
    from datetime import datetime

    from sms_aaa.db.engine import Connection


def list_positions(connection: Connection, node: str, stream: int) -> dict[int, tuple[int, bool]]:
    """(position, finished) by file sequence."""
    rows = connection.execute(
        "select sequence, position, finished from journal_position where node = %s and stream = %s", (node, stream)
    ).fetchall()
    return {int(row[0]): (int(row[1]), bool(row[2])) for row in rows}


@dataclass(frozen=True, slots=True)
class PositionRow:
    """`updated_at`: when it moved last; of a finished file, from when its retention counts."""

    sequence: int
    position: int
    finished: bool
    updated_at: datetime


def list_position_rows(connection: Connection, node: str, stream: int) -> list[PositionRow]:
    with connection.cursor(row_factory=class_row(PositionRow)) as cursor:
        return cursor.execute(
            """select sequence, position, finished, updated_at from journal_position
               where node = %s and stream = %s order by sequence""",
            (node, stream),
        ).fetchall()


def insert_position(connection: Connection, node: str, stream: int, sequence: int, position: int) -> None:
    """A file that is begun; nothing happens when it is known already."""
    connection.execute(
        """insert into journal_position (node, stream, sequence, position) values (%s, %s, %s, %s)
           on conflict do nothing""",
        (node, stream, sequence, position),
    )


def move_position(
    connection: Connection, node: str, stream: int, sequence: int, *, old: int, new: int, finished: bool
) -> bool:
    """J7: compare and set, in the transaction of the rows it stands for. False: another settler was here; roll back."""
    moved = connection.execute(
        """update journal_position set position = %s, finished = %s, updated_at = now()
           where node = %s and stream = %s and sequence = %s and position = %s""",
        (new, finished, node, stream, sequence, old),
    )
    return moved.rowcount == 1


def delete_position(connection: Connection, node: str, stream: int, sequence: int) -> None:
    """After the file itself is gone (J9)."""
    connection.execute(
        "delete from journal_position where node = %s and stream = %s and sequence = %s", (node, stream, sequence)
    )


def list_finished(connection: Connection, node: str, stream: int, *, older_than_days: int) -> list[int]:
    """Sequences of files that are settled and past their retention."""
    rows = connection.execute(
        """select sequence from journal_position where node = %s and stream = %s and finished
             and updated_at < now() - make_interval(days => %s) order by sequence""",
        (node, stream, older_than_days),
    ).fetchall()
    return [int(row[0]) for row in rows]


def find_position(connection: Connection, node: str, stream: int, sequence: int) -> PositionRow | None:
    with connection.cursor(row_factory=class_row(PositionRow)) as cursor:
        return cursor.execute(
            """select sequence, position, finished, updated_at from journal_position
               where node = %s and stream = %s and sequence = %s""",
            (node, stream, sequence),
        ).fetchone()


def list_quarantined_offsets(connection: Connection, node: str, stream: int, sequence: int) -> set[int]:
    """Where in a file records stand that were put aside, whatever became of them."""
    rows = connection.execute(
        "select record_offset from quarantine where node = %s and stream = %s and sequence = %s",
        (node, stream, sequence),
    )
    return {int(row[0]) for row in rows}


def insert_quarantine(
    connection: Connection, node: str, stream: int, sequence: int, record_offset: int, *, reason: str, raw: bytes
) -> None:
    """A record that cannot be settled, whole, with the reason of the last try; the same one once."""
    connection.execute(
        """insert into quarantine (node, stream, sequence, record_offset, reason, raw)
           values (%s, %s, %s, %s, %s, %s) on conflict (node, stream, sequence, record_offset) do update
             set reason = excluded.reason, raw = excluded.raw where quarantine.resolved_at is null""",
        (node, stream, sequence, record_offset, reason, raw),
    )
