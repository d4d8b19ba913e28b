"""What a settler keeps in memory between its batches: sessions, whose services are whose, ids for what is new.

None of it is trusted. A session counts only if its row, once locked, still has the version that is remembered; whoever
changes a session counts that up, and a life that is added counts up the version of the one before it. A batch's changes
are taken over after its commit and not before, so a batch that is rolled back leaves nothing. Services are forgotten
when the change feed names them, and after a minute, since an assignment may begin by its date alone. All of it belongs
to one connection: a server that crashed may have lost commits that were remembered.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from sms_aaa.db import feed as db_feed
from sms_aaa.db import realms as db_realms
from sms_aaa.db import sessions as db_sessions
from sms_aaa.db import usage as db_usage
from sms_aaa.flows.rollups import Walls
from sms_aaa.radius import dictionary
from sms_aaa.rules.identity import canonical_mac
from sms_aaa.rules.realms import Realms
from sms_aaa.rules.session import State

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from sms_aaa.db.engine import Connection
    from sms_aaa.db.sessions import SessionKey, StoredSession
    from sms_aaa.db.usage import ServiceAccount
    from sms_aaa.flows.hearing import Heard

SESSIONS_MAX = 100_000
SERVICES_MAX = 200_000
SERVICE_SECONDS = 60
IDS_AT_ONCE = 1_000

Lives = list["StoredSession"]


class Memory:
    """One connection's. `sessions_max` bounds how many sessions are remembered, at about 2 kB each."""

    def __init__(self, sessions_max: int = SESSIONS_MAX) -> None:
        self._sessions_max = sessions_max
        self._sessions: dict[SessionKey, Lives] = {}
        self._recalled: set[SessionKey] = set()
        self._chance = random.Random(0)  # noqa: S311 - which sessions are forgotten is no secret
        self._ids: list[int] = []
        self.services = Services()
        self.walls = Walls()

    def recall(self, keys: Iterable[SessionKey]) -> dict[SessionKey, Lives]:
        """Those of the sessions that are remembered, each with all its lives. They are the caller's own."""
        known = self._sessions
        recalled = {key: lives.copy() for key in keys if (lives := known.get(key)) is not None}
        self._recalled = set(recalled)
        return recalled

    def refuse(self) -> None:
        """The batch that recalled sessions last was rolled back: it is not to meet the same again."""
        self.forget(self._recalled)

    def forget(self, keys: Iterable[SessionKey]) -> None:
        for key in keys:
            self._sessions.pop(key, None)

    def keep(self, sessions: Mapping[SessionKey, Lives]) -> None:
        """Takes over what a batch made of its sessions, once that is committed. One that has ended is let go of."""
        for key, lives in sessions.items():
            is_open = lives[0].life.state is State.OPEN if len(lives) == 1 else _has_open(lives)
            if is_open:
                self._sessions[key] = lives
            else:
                self._sessions.pop(key, None)
        if len(self._sessions) > self._sessions_max:
            self._make_room()

    def next_id(self, connection: Connection) -> int:
        """For a new session. They are reserved many at a time; what is not used leaves gaps, which mean nothing."""
        if not self._ids:
            self._ids = db_sessions.reserve_ids(connection, IDS_AT_ONCE)[::-1]
        return self._ids.pop()

    def _make_room(self) -> None:
        """Any tenth goes. Sessions report in turn: to drop the one heard longest ago would always drop the next."""
        room = self._sessions_max * 9 // 10
        chosen = self._chance.sample(list(self._sessions), len(self._sessions) - room)
        self.forget(chosen)


def _has_open(lives: Lives) -> bool:
    return any(session.life.state is State.OPEN for session in lives)


class Services:
    """Whose a service is, by its id and by its identity; and the realms that say what an identity may be."""

    def __init__(self) -> None:
        self._snapshot: str | None = None
        self._second = 0
        self._by_id: dict[int, ServiceAccount] = {}
        self._by_identity: dict[str, ServiceAccount] = {}
        self._missing: set[int | str] = set()
        self._realms: Realms | None = None
        self._names: dict[bytes, tuple[str, ...]] = {}

    def refresh(self, connection: Connection) -> None:
        """Forgets what changed since the last batch, and what there was none of; to be called before a batch."""
        self._missing.clear()
        news = db_feed.list_news(connection, self._snapshot)
        self._snapshot = news.snapshot
        is_long_ago = news.second - self._second >= SERVICE_SECONDS
        if len(self._names) > SERVICES_MAX:
            self._names.clear()
        if news.is_much or is_long_ago or len(self._by_id) > SERVICES_MAX:
            self._by_id.clear()
            self._by_identity.clear()
            self._realms = None
            self._names.clear()
        for service_id in news.services:
            self._forget(service_id)
        if news.second != self._second:
            self._second = news.second
            turn = news.second % SERVICE_SECONDS
            for service_id in [known for known in self._by_id if known % SERVICE_SECONDS == turn]:
                self._forget(service_id)

    def identities(self, connection: Connection, said: Heard) -> tuple[str, ...]:
        """By what a service may be found, as at its login: the user name, what its realm makes of it, or the device."""
        told = said.packet.attributes.get(dictionary.USER_NAME, b"")
        known = self._names.get(told)
        if known is None:
            if self._realms is None:
                self._realms = Realms(db_realms.list_node_realms(connection, None))
            octets = said.username.encode()
            device = canonical_mac(octets)
            found = (*self._realms.identities(octets), *([device] if device is not None else []))
            known = self._names[told] = tuple(one.decode() for one in found)
        return known

    def load(self, connection: Connection, service_ids: Collection[int], identities: Collection[str]) -> None:
        """Knows these services from now on, as far as they exist; of one that does not, for this batch."""
        missing = self._missing
        new_ids = [one for one in service_ids if one not in self._by_id and one not in missing]
        new_names = [one for one in identities if one not in self._by_identity and one not in missing]
        if not new_ids and not new_names:
            return
        asked = set(new_names)
        missing.update(new_ids, new_names)
        for service in db_usage.list_service_accounts(connection, service_ids=new_ids, identities=new_names):
            self._by_id[service.service_id] = service
            if service.identity in asked:
                self._by_identity[service.identity] = service

    def find(self, service_id: int) -> ServiceAccount | None:
        return self._by_id.get(service_id)

    def find_by_identity(self, identity: str) -> ServiceAccount | None:
        return self._by_identity.get(identity)

    def _forget(self, service_id: int) -> None:
        service = self._by_id.pop(service_id, None)
        if service is not None:
            self._by_identity.pop(service.identity, None)
