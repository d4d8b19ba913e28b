"""Late readings of a batch: what their sessions were counted with is loaded when the first one comes, and kept up."""

from __future__ import annotations

from bisect import insort
from datetime import timedelta
from typing import TYPE_CHECKING

from sms_aaa.db import late_readings as db_late
from sms_aaa.rules.late import Known, known_of, order_of
from sms_aaa.rules.session import seconds_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from sms_aaa.db.engine import Connection
    from sms_aaa.db.sessions import StoredSession
    from sms_aaa.db.usage import UsageDelta
    from sms_aaa.rules.session import Reading, Step


LOOK_BACK = timedelta(days=1)
"""How much of a session is loaded for a late reading at first: few come later, and some sessions last for months."""


class LateReadings:
    """One batch's. `kept`: (session id, reading), to be stored with it."""

    __slots__ = ("_connection", "_known", "_whole", "kept")

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._known: dict[int, list[Known]] = {}
        self._whole: set[int] = set()
        self.kept: list[tuple[int, Known]] = []

    def load(self, late: Iterable[tuple[StoredSession, Reading]]) -> None:
        """Before the batch, what its records will ask for, as far as that can be seen."""
        since: dict[int, datetime] = {}
        sessions = {}
        for session, reading in late:
            sessions[session.id] = session
            since[session.id] = min(since.get(session.id, reading.at), reading.at)
        if since:
            self._load(sessions, {session_id: at - LOOK_BACK for session_id, at in since.items()}, ())

    def known(self, session: StoredSession, reading: Reading, batch: Iterable[UsageDelta]) -> list[Known]:
        """What a session was counted with up to now, `batch` included; nothing when not all of it is there any more."""
        known = self._known.get(session.id)
        if known is None:
            self._load({session.id: session}, {session.id: reading.at - LOOK_BACK}, batch)
            known = self._known[session.id]
        is_short = not known or known[0].seconds > seconds_of(session.life, reading)
        if is_short and session.id not in self._whole:
            self._whole.add(session.id)
            self._load({session.id: session}, {session.id: session.life.started_at - LOOK_BACK}, batch)
            known = self._known[session.id]
        return known

    def _load(
        self, sessions: Mapping[int, StoredSession], since: Mapping[int, datetime], batch: Iterable[UsageDelta]
    ) -> None:
        deltas = db_late.list_deltas_since(self._connection, since)
        late = db_late.list_late(self._connection, since)
        for usage in batch:
            if usage.session_id in deltas:
                deltas[usage.session_id].append(usage.delta)
        for session_id, one in self.kept:
            if session_id in late:
                late[session_id].append(one)
        for session_id, session in sessions.items():
            self._known[session_id] = known_of(session.life, deltas[session_id], late[session_id])

    def note(self, session_id: int, result: Step, late: Known | None) -> None:
        """What a record of a session did, late or not."""
        if late is not None:
            self.kept.append((session_id, late))
        known = self._known.get(session_id)
        if not known:
            return
        if late is not None:
            insort(known, late, key=order_of)
        elif result.delta is not None:
            life = result.life
            place = life.reading_place
            newest = Known(life.reading_seconds, life.reading_in, life.reading_out, life.reading_at, place)
            insort(known, newest, key=order_of)
