"""What the live set is told beside the packets' own way: other nodes' sessions, and after a boot what was online.

PostgreSQL knows the sessions that are settled, of all nodes; this node's journal knows the rest of its own. An
accounting record is read here only as far as a place needs it (flows/settling.py reads it whole): whose login, which
device, begun or ended.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from sms_aaa.db import places as db_places
from sms_aaa.db import sessions as db_sessions
from sms_aaa.flows.access import device_of, name_device, read_class
from sms_aaa.node.live_change import OnlineSession, Release, session_key
from sms_aaa.radius import dictionary
from sms_aaa.radius.packet import Packet, as_text, parse

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sms_aaa.db.engine import Connection
    from sms_aaa.db.places import LoginSession
    from sms_aaa.node.records import AccountingRecord

NEIGHBOUR_SECONDS = 48 * 3600
"""How long another node's session holds its place here although nothing is heard of it: as long as PostgreSQL may be
away. Normally the change feed ends it, or the next look at all open sessions prolongs it."""

_START, _STOP, _INTERIM, _ON, _OFF = (status.to_bytes(4, "big") for status in (1, 2, 3, 7, 8))
_ONE_SESSION = frozenset((_START, _STOP, _INTERIM))
_ALL_SESSIONS = frozenset((_ON, _OFF))


def list_online(connection: Connection, *, node: str, now: int, own_until: int | None) -> Iterator[OnlineSession]:
    """The open sessions of all nodes, as they are fetched; those of this `node` keep their places to `own_until`.

    `own_until` None leaves them out: their packets tell more. `now`, `own_until`: epoch seconds.
    """
    for login in db_places.list_open(connection):
        if login.node != node:
            yield _online(login, now + NEIGHBOUR_SECONDS, is_neighbour=True)
        elif own_until is not None:
            yield _online(login, own_until, is_neighbour=False)


def list_changes(
    connection: Connection, cursor: str, *, node: str, now: int
) -> tuple[list[OnlineSession], list[Release]]:
    """What began at other nodes since `cursor`, and what ended anywhere and left no other session under its Class."""
    changed = db_places.list_changed(connection, cursor)
    began = [
        _online(login, now + NEIGHBOUR_SECONDS, is_neighbour=True)
        for login in changed
        if login.is_open and login.node != node
    ]
    ended = [login for login in changed if not login.is_open]
    held = db_sessions.list_held(connection, [(one.service_id, one.token) for one in ended]) if ended else set()
    return began, [
        Release(one.service_id, one.token, session_key(one.acct_session_id)) for one in ended if one.token not in held
    ]


def _online(login: LoginSession, until: int, *, is_neighbour: bool) -> OnlineSession:
    """With the device as flows.access.device_of made it from the packet."""
    port = (login.nas_port or 0).to_bytes(4, "big")
    station, port_id = (login.calling_station_id or "").encode(), (login.nas_port_id or "").encode()
    device = name_device(login.nas_id, station=station, port_id=port_id, port=port)
    session = session_key(login.acct_session_id)
    return OnlineSession(login.service_id, login.token, device, login.nas_id, until, session, is_neighbour)


class _Known(Struct, gc=False):
    """What the journal says of a session: by its latest record, unless there was a Stop."""

    heard_ns: int
    is_over: bool
    device: bytes
    nas_id: int
    nas_name: bytes


class JournalSessions:
    """The sessions that a stretch of journal speaks of; its records may come in any order."""

    def __init__(self) -> None:
        self._sessions: dict[tuple[int, bytes, int], _Known] = {}
        self._rebooted_ns: dict[tuple[int, bytes], int] = {}

    def note(self, record: AccountingRecord) -> None:
        """A record that no place depends on is passed over."""
        packet = parse(record.packet)
        if not isinstance(packet, Packet):
            return
        attributes = packet.attributes
        status = attributes.get(dictionary.ACCT_STATUS_TYPE)
        name = attributes.get(dictionary.NAS_IDENTIFIER) or attributes.get(dictionary.NAS_IP_ADDRESS, b"")
        if status in _ALL_SESSIONS:
            nas = (record.nas_id, name)
            self._rebooted_ns[nas] = max(record.received_ns, self._rebooted_ns.get(nas, 0))
            return
        named = read_class(packet)
        if status not in _ONE_SESSION or named is None:
            return
        session = session_key(as_text(attributes.get(dictionary.ACCT_SESSION_ID, b"")))
        known = self._sessions.get((*named, session))
        if known is None:
            device = device_of(packet, record.nas_id)
            known = _Known(record.received_ns, status == _STOP, device, record.nas_id, name)
            self._sessions[*named, session] = known
        else:
            known.heard_ns = max(known.heard_ns, record.received_ns)
            known.is_over |= status == _STOP

    def online(self, *, silence_seconds: int) -> Iterator[OnlineSession]:
        """Those that have not ended; each keeps its place for `silence_seconds` after its latest record."""
        for (service_id, token, session), known in self._sessions.items():
            if not self._has_ended(known):
                until = known.heard_ns // 1_000_000_000 + silence_seconds
                yield OnlineSession(service_id, token, known.device, known.nas_id, until, session)

    def ended(self) -> Iterator[Release]:
        for (service_id, token, session), known in self._sessions.items():
            if self._has_ended(known):
                yield Release(service_id, token, session)

    def _has_ended(self, known: _Known) -> bool:
        return known.is_over or known.heard_ns < self._rebooted_ns.get((known.nas_id, known.nas_name), 0)
