"""What becomes of sessions after their end: some days of grace among the living, then the history."""

from __future__ import annotations

from collections import defaultdict
from datetime import timedelta
from typing import TYPE_CHECKING

from sms_aaa.db import history as db_history
from sms_aaa.db import sessions as db_sessions
from sms_aaa.db.engine import Outrun
from sms_aaa.rules.lateness import begins_at, may_be_past, speaks_of
from sms_aaa.rules.session import TOLERANCE, State, find_life

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sms_aaa.db.engine import Connection
    from sms_aaa.db.sessions import SessionKey, StoredSession
    from sms_aaa.flows.hearing import Heard
    from sms_aaa.rules.lateness import PastLife
    from sms_aaa.rules.session import Place

TOO_LATE = "too-late"
"""The reason in the quarantine."""


def meet_history(
    connection: Connection, heard: Sequence[Heard], sessions: dict[SessionKey, list[StoredSession]]
) -> set[Place]:
    """Where those of the records stand that come too late: a Stop closed their session, and it lies in the history.

    `sessions`: what is stored under every key, and locked in this transaction by now (db/history.py says why the order
    matters; a session that is held in memory and gone from the table is to be left out). A session that had only lapsed
    is brought back, and put among them.
    """
    before = db_history.find_boundary(connection) if heard else None
    if before is None:
        return set()
    too_late: set[Place] = set()
    alive: dict[SessionKey, PastLife] = {}
    suspects = [
        said
        for said in heard
        if may_be_past(said.reading, before)
        and find_life([stored.life for stored in sessions[said.key]], said.reading) is None
    ]
    past = _past_lives(connection, suspects)
    for said in suspects:
        met = [life for life in past.get(said.key, ()) if speaks_of(said.reading, life)]
        latest = max(met, key=lambda life: life.stopped_at, default=None)
        if latest is not None and latest.state is State.LAPSED:
            alive[said.key] = latest
        elif latest is not None:
            too_late.add(said.reading.place)
    if alive:
        db_history.bring_back(connection, list(alive.values()))
        _meet(connection, sessions, alive)
    return too_late


def _meet(
    connection: Connection, sessions: dict[SessionKey, list[StoredSession]], alive: dict[SessionKey, PastLife]
) -> None:
    """Puts the sessions that came back among the others, locked; another node may have brought them and gone on."""
    found = db_sessions.find_sessions(connection, alive.keys())
    versions = db_sessions.lock_sessions(connection, [stored.id for stored in found])
    if any(versions.get(stored.id) != stored.version for stored in found):
        raise Outrun
    for stored in found:
        if all(stored.id != known.id for known in sessions[stored.key]):
            sessions[stored.key].append(stored)


def _past_lives(connection: Connection, suspects: Sequence[Heard]) -> dict[SessionKey, list[PastLife]]:
    lives: dict[SessionKey, list[PastLife]] = defaultdict(list)
    if not suspects:
        return lives
    earliest = min(begins_at(said.reading) for said in suspects)
    # Most say how long they last; then only the months since are looked into.
    since = earliest - TOLERANCE if earliest.year > 1 else None
    for key, life in db_history.list_past_lives(connection, sorted({said.key for said in suspects}), ended_since=since):
        lives[key].append(life)
    return lives


def move_ended(connection: Connection, *, now: datetime, grace_days: int, limit: int) -> int:
    """Moves a batch of sessions whose grace is over to the history; how many. 0 too while another node does that."""
    if not db_history.take_turn(connection):
        return 0
    return db_history.move_ended(connection, before=now - timedelta(days=grace_days), limit=limit)
