"""Sessions that ended for good: moved from `session` to `session_history`, and found there again.

Why a late record cannot slip between the two. A settler first locks the lives of its records in `session`, and reads
the boundary in a later statement; the mover deletes, inserts and moves the boundary in one transaction, and skips what
is locked. So if the settler's lock does not find a life because it was moved, that transaction has been committed by
then (the lock waits for a delete that is under way), and what is read afterwards shows the boundary behind it and the
life in the history. If the settler's lock does find it, the mover leaves it for another time. Both need READ COMMITTED,
where each statement sees what was committed before it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sms_aaa.rules.lateness import PastLife
from sms_aaa.rules.session import State

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sms_aaa.db.engine import Connection
    from sms_aaa.db.sessions import SessionKey

_LOCK = 0x736D7368  # "smsh"


def find_boundary(connection: Connection) -> datetime | None:
    """What ended before it may have been moved; None: nothing was yet. After the lock of sessions, never before it."""
    row = connection.execute("select before from session_boundary where isfinite(before)").fetchone()
    return None if row is None else row[0]


def list_past_lives(
    connection: Connection, keys: Sequence[SessionKey], *, ended_since: datetime | None
) -> list[tuple[SessionKey, PastLife]]:
    """Lives of these sessions in the history that ended at `ended_since` (None: ever) or later."""
    nas_ids, nas_keys, session_ids = zip(*keys, strict=True)
    rows = connection.execute(
        """select h.nas_id, h.nas_key, h.acct_session_id, h.id, h.state, h.started_at, h.updated_at, h.stopped_at
           from unnest(%s::int[], %s::text[], %s::text[]) k(nas_id, nas_key, acct_session_id)
           join session_history h on h.acct_session_id = k.acct_session_id and h.nas_id = k.nas_id
             and h.nas_key = k.nas_key
           where h.stopped_at >= coalesce(%s, '-infinity'::timestamptz)""",
        (list(nas_ids), list(nas_keys), list(session_ids), ended_since),
    ).fetchall()
    return [
        (
            (nas_id, nas_key, name),
            PastLife(id=id_, state=State(state), started_at=started_at, updated_at=updated_at, stopped_at=stopped_at),
        )
        for nas_id, nas_key, name, id_, state, started_at, updated_at, stopped_at in rows
    ]


def bring_back(connection: Connection, lives: Sequence[PastLife]) -> None:
    """Moves lives, one of each session, from the history among the sessions again, unless somebody has just done so."""
    which = ([life.id for life in lives], [life.stopped_at for life in lives])
    # A life that began meanwhile may have the number.
    connection.execute(
        """update session_history h set version = version + 1, life = greatest(h.life, 1 + coalesce((
             select max(s.life) from session s where s.nas_id = h.nas_id and s.nas_key = h.nas_key
               and s.acct_session_id = h.acct_session_id), 0))
           from unnest(%s::bigint[], %s::timestamptz[]) back(id, stopped_at)
           where h.id = back.id and h.stopped_at = back.stopped_at""",
        which,
    )
    connection.execute(
        """with gone as (
             delete from session_history h using unnest(%s::bigint[], %s::timestamptz[]) back(id, stopped_at)
             where h.id = back.id and h.stopped_at = back.stopped_at returning h.*)
           insert into session select * from gone""",
        which,
    )


def take_turn(connection: Connection) -> bool:
    """Whether this node may move sessions in this transaction: one at a time does."""
    row = connection.execute("select pg_try_advisory_xact_lock(%s)", (_LOCK,)).fetchone()
    return bool(row and row[0])


def move_ended(connection: Connection, *, before: datetime, limit: int) -> int:
    """Moves up to `limit` sessions that ended before `before`, the oldest first, and the boundary behind them.

    One that was closed just now, at a last update of long ago, stays until other nodes have heard of that.
    """
    row = connection.execute(
        """with ended as (
             select id from session s where stopped_at < %(before)s
               and not exists (select from place_change c where c.session_id = s.id)
             order by stopped_at limit %(limit)s for update skip locked),
           gone as (delete from session s using ended where s.id = ended.id returning s.*),
           kept as (insert into session_history select * from gone order by id returning stopped_at)
           select count(*), max(stopped_at) from kept""",
        {"before": before, "limit": limit},
    ).fetchone()
    assert row is not None
    moved, newest = row
    if moved:
        connection.execute(
            "update session_boundary set before = greatest(before, %s + interval '1 microsecond')", (newest,)
        )
    return int(moved)
