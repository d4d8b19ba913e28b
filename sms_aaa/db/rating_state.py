"""How the rater does, as its tables say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg.rows import class_row

if TYPE_CHECKING:
    from datetime import datetime

    from sms_aaa.db.engine import Connection


@dataclass(frozen=True, slots=True)
class DirtyGroup:
    """A charging group that is to be rated again, from the slices on that end at `from_at` or later."""

    head_account_id: int
    subscriber: str
    from_at: datetime
    since: datetime
    reason: str


def list_dirty(connection: Connection, *, limit: int) -> list[DirtyGroup]:
    """Those that wait the longest first."""
    with connection.cursor(row_factory=class_row(DirtyGroup)) as cursor:
        return cursor.execute(
            """select g.head_account_id, coalesce(b.name, '') as subscriber, g.from_at, g.since, g.reason
               from dirty_group g left join account a on a.id = g.head_account_id
               left join subscriber b on b.id = a.subscriber_id
               order by g.since, g.head_account_id limit %s""",
            (limit,),
        ).fetchall()


@dataclass(frozen=True, slots=True)
class Run:
    """A rating run: the batches of a rater's hour, or one re-rating."""

    id: int
    kind: str
    program: str
    started_at: datetime
    deltas: int


def list_runs(connection: Connection, *, limit: int) -> list[Run]:
    """The newest first."""
    with connection.cursor(row_factory=class_row(Run)) as cursor:
        return cursor.execute(
            "select id, kind, program, started_at, deltas from rating_run order by id desc limit %s", (limit,)
        ).fetchall()
