"""Late readings of a batch: what their sessions were counted with is loaded when the first one comes, and kept up."""

from __future__ import annotations

from bisect import insort
from typing import TYPE_CHECKING

from sms_aaa.db import late_readings as db_late
from sms_aaa.rules.late import Known, known_of, order_of
from sms_aaa.rules.session import TOLERANCE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sms_aaa.db.engine import Connection
    from sms_aaa.db.sessions import StoredSession
    from sms_aaa.db.usage import UsageDelta
    from sms_aaa.rules.session import Step


class LateReadings:
    """One batch's. `kept`: (session id, reading), to be stored with it."""

    __slots__ = ("_connection", "_known", "kept")

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._known: dict[int, list[Known]] = {}
        self.kept: list[tuple[int, Known]] = []

    def known(self, session: StoredSession, batch: Iterable[UsageDelta]) -> list[Known]:
        """What a session was counted with up to now, `batch` included; nothing when not all of it is there any more."""
        known = self._known.get(session.id)
        if known is None:
            begun = session.life.started_at
            deltas = db_late.list_session_deltas(self._connection, session.id, since=begun - TOLERANCE)
            deltas += [usage.delta for usage in batch if usage.session_id == session.id]
            is_whole = len(deltas) == session.life.deltas
            late = db_late.list_late(self._connection, session.id) if is_whole else []
            known = self._known[session.id] = known_of(begun, deltas, late) if is_whole else []
        return known

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
