"""The places of the live set: what an entry is, and the short change in which places are taken and given back.

Per service the set has one value: its entries, 40 octets each in the machine's order, one behind the other.

    token 8    the login, as in our Class            until 8    epoch seconds; afterwards the entry counts no more
    device 8   see `device_key`; zero: none named    nas 4      the NAS's id
    state 4    LiveState                             session 4  of its Acct-Session-Id (`session_key`); 0: none yet
    flags 4    LiveFlag

A limit counts, by the plan's sessions_policy, *devices* (replace-same-device: whoever logs in again takes over its own
place, so a device that lost its power is never locked out by what is left of it) or *logins* (reject-new: a session
that is online keeps its place until its Stop, or until it was silent too long, whoever asks). In both a login that
waits for its Start is replaced by the same device's next one: that is what a retransmission looks like.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import TYPE_CHECKING, Literal, Self
from zlib import crc32

import lmdb
from msgspec import Struct

from sms_aaa.node.environment import StoreFaultKind, kind_of

if TYPE_CHECKING:
    from types import TracebackType

TOKEN_OCTETS = 8
DEVICE_OCTETS = 8
ENTRIES_PER_SERVICE_MAX = 256

ENTRY = struct.Struct("=8s8sQIIII")
ENTRY_OCTETS = ENTRY.size
SERVICE = struct.Struct(">Q")
NO_DEVICE = bytes(DEVICE_OCTETS)
_pack, _unpack_from, _iter_unpack = ENTRY.pack, ENTRY.unpack_from, ENTRY.iter_unpack
_key_of = SERVICE.pack


class LiveState(IntEnum):
    RESERVED = 1
    ONLINE = 2


class LiveFlag(IntFlag):
    NEIGHBOUR = 1  # online at another node: it says when the place is free
    SEVERAL = 2  # more than one Acct-Session-Id stood under this Class


_RESERVED, _ONLINE = int(LiveState.RESERVED), int(LiveState.ONLINE)
_NEIGHBOUR, _SEVERAL = int(LiveFlag.NEIGHBOUR), int(LiveFlag.SEVERAL)


class LiveEntry(Struct, frozen=True, gc=False):
    """One login. `device` is 8 zero octets when the request named none; `until` in epoch seconds; `state` LiveState."""

    token: bytes
    device: bytes
    until: int
    nas_id: int
    state: int
    session: int = 0
    flags: int = 0


class OnlineSession(Struct, frozen=True, gc=False):
    """A session that PostgreSQL or the journal knows as live; `is_neighbour`: another node serves it."""

    service_id: int
    token: bytes
    device: bytes
    nas_id: int
    until: int
    session: int = 0
    is_neighbour: bool = False


class Release(Struct, frozen=True, gc=False):
    """A session of a login that has ended."""

    service_id: int
    token: bytes
    session: int = 0


class Reserved(Struct, frozen=True, gc=False):
    """The login has its place. `sessions_seen`: how many others the service had."""

    token: bytes
    sessions_seen: int


class LimitReached(Struct, frozen=True, gc=False):
    """No place. `sessions_seen`: how many others hold one."""

    sessions_seen: int


@dataclass(frozen=True, slots=True)
class LiveFault:
    """Why the live set could not be used; `detail` names the place and the reason."""

    kind: StoreFaultKind
    detail: str


def device_key(nas_id: int, port: bytes, station: bytes) -> bytes:
    """Which device on which port: 8 octets made of those that the request has; b"" when it has neither.

    `port`: the value of NAS-Port-Id or NAS-Port; `station`: of Calling-Station-Id.
    """
    if not port and not station:
        return b""
    named = struct.pack("<IHH", nas_id, len(port), len(station)) + port + station
    return hashlib.blake2b(named, digest_size=DEVICE_OCTETS).digest()


def session_key(acct_session_id: str) -> int:
    """Tells the sessions under one Class apart; 0 without an id. Of the id as text, which is what PostgreSQL has."""
    return crc32(acct_session_id.encode()) or 1 if acct_session_id else 0


class LiveChange:
    """One short write transaction for a batch, as a context manager; it commits at the end, or aborts on an exception.

    After the block `fault` says whether the batch is stored. If it is set nothing of the batch is, and no login of it
    may be answered as admitted.
    """

    __slots__ = ("_cursor", "_env", "_services", "_transaction", "fault")

    def __init__(self, env: lmdb.Environment, services: object) -> None:
        self._env = env
        self._services = services
        self._transaction: lmdb.Transaction | None = None
        self._cursor: lmdb.Cursor | None = None  # on its way to a place it learns where the next look-up may stay
        self.fault: LiveFault | None = None

    def __enter__(self) -> Self:
        try:
            self._transaction = self._env.begin(write=True, db=self._services)
            self._cursor = self._transaction.cursor()
        except lmdb.Error as error:
            self.fault = fault_of(error)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]:
        transaction, self._transaction, self._cursor = self._transaction, None, None
        if transaction is None:
            return False
        if kind is not None or self.fault is not None:
            transaction.abort()
            return False
        try:
            transaction.commit()
        except lmdb.Error as failed:
            self.fault = fault_of(failed)
        return False

    def reserve(
        self,
        service_id: int,
        *,
        device: bytes,
        nas_id: int,
        sessions_max: int,
        token: bytes,
        now: int,
        until: int,
        replaces: bool = True,
    ) -> Reserved | LimitReached | LiveFault:
        """Takes a place for a login if fewer than `sessions_max` others hold one (0: any number).

        Entries that ran out before `now` are dropped. What the same device (unless b"") reserved is the login itself:
        it is replaced, not counted, and its time is not shortened. `replaces` (replace-same-device): what the device
        has online is taken over likewise, and devices are counted; else (reject-new) logins are. `token`: 8 octets;
        `now`, `until`: epoch seconds.
        """
        if self.fault is not None:
            return self.fault
        cursor = self._cursor
        assert cursor is not None, "a change is used inside its `with` block"
        key = _key_of(service_id)
        try:
            value = cursor.get(key)
            kept, seen, until = ([], 0, until) if value is None else _others(value, token, device, now, until, replaces)
            if 0 < sessions_max <= seen:
                return LimitReached(seen)
            entry = _pack(token, device or NO_DEVICE, until, nas_id, _RESERVED, 0, 0)
            if kept:
                kept.append(entry)
                entry = b"".join(kept) if len(kept) <= ENTRIES_PER_SERVICE_MAX else _bounded(kept)
            cursor.put(key, entry)
            return Reserved(token, seen)
        except (lmdb.Error, struct.error) as error:
            self.fault = fault_of(error)
            return self.fault

    def promote(
        self, service_id: int, token: bytes, *, device: bytes, nas_id: int, until: int, session: int = 0
    ) -> None:
        """Start or Interim heard by this node: the login is online at least to `until`. Again, or late, it is no news.

        The entry is found by its token, else by what its device reserved (then the NAS took another of our Accepts for
        the same login, and that token is the one its Stop will bring), else put in.
        """
        entries = self._load(service_id)
        at = _index_of(entries, token, device)
        if at is None:
            entries.append(_pack(token, device or NO_DEVICE, until, nas_id, _ONLINE, session, 0))
        else:
            _, its_device, its_until, _, _, its_session, its_flags = _unpack_from(entries[at])
            known_device = its_device if its_device != NO_DEVICE else device or NO_DEVICE
            if its_flags & _NEIGHBOUR:
                its_flags &= ~_NEIGHBOUR  # the NAS speaks to this node now
            else:
                until = max(until, its_until)
            if session and its_session and session != its_session:
                its_flags |= _SEVERAL
            entries[at] = _pack(token, known_device, until, nas_id, _ONLINE, session or its_session, its_flags)
        self._store(service_id, _without_others(entries, token, nas_id, session))

    def promote_neighbour(
        self, service_id: int, token: bytes, *, device: bytes, nas_id: int, until: int, session: int = 0
    ) -> None:
        """The session is online at another node, which will say when it ends; `until` is for when it cannot."""
        entries = self._load(service_id)
        at = _index_of(entries, token, b"")
        flags = _NEIGHBOUR
        if at is not None:
            _, its_device, _, _, _, its_session, its_flags = _unpack_from(entries[at])
            device = device or its_device
            flags |= its_flags & _SEVERAL | (_SEVERAL if session and its_session and session != its_session else 0)
        entry = _pack(token, device or NO_DEVICE, until, nas_id, _ONLINE, session, flags)
        if at is None:
            entries.append(entry)
        else:
            entries[at] = entry
        self._store(service_id, _without_others(entries, token, nas_id, session))

    def release(self, service_id: int, token: bytes, *, session: int = 0, is_settled: bool = False) -> None:
        """A session of the login has ended: the place is free, unless another stands there. Again, it is no news.

        Under one Class there may be several sessions (multilink, dual stack). This entry does not count them: the place
        of such a login is given back by what is settled (`is_settled`), when PostgreSQL knows no open session of it.
        """
        entries = self._load(service_id)
        at = _index_of(entries, token, b"")
        if at is None:
            return
        _, _, _, _, _, its_session, its_flags = _unpack_from(entries[at])
        is_its_own = not session or not its_session or session == its_session
        if is_settled if its_flags & _SEVERAL else is_its_own:
            del entries[at]
            self._store(service_id, entries)

    def withdraw(self, service_id: int, token: bytes) -> None:
        """The login was refused after all: its reservation goes."""
        entries = self._load(service_id)
        at = _index_of(entries, token, b"")
        if at is not None and _unpack_from(entries[at])[4] == _RESERVED:
            del entries[at]
            self._store(service_id, entries)

    def forget_neighbours(self, service_id: int, *, before: int) -> None:
        """Drops those that no look at PostgreSQL has prolonged to `before` (epoch seconds)."""
        entries = self._load(service_id)
        left = [entry for entry in entries if not is_old_neighbour(entry, before)]
        if len(left) != len(entries):
            self._store(service_id, left)

    def _load(self, service_id: int) -> list[bytes]:
        """The service's entries, packed; none when there is a fault, which stays."""
        if self.fault is None:
            assert self._cursor is not None, "a change is used inside its `with` block"
            try:
                value = self._cursor.get(_key_of(service_id), b"")
                return entries_of(value)
            except (lmdb.Error, struct.error) as error:
                self.fault = fault_of(error)
        return []

    def _store(self, service_id: int, entries: list[bytes]) -> None:
        if self.fault is not None:
            return
        assert self._transaction is not None
        assert self._cursor is not None
        key = _key_of(service_id)
        try:
            if entries:
                whole = len(entries) <= ENTRIES_PER_SERVICE_MAX
                self._cursor.put(key, b"".join(entries) if whole else _bounded(entries))
            else:
                self._transaction.delete(key)
        except lmdb.Error as error:
            self.fault = fault_of(error)


def unpack_entries(octets: bytes | None) -> list[LiveEntry]:
    """struct.error when they are damaged."""
    return [] if octets is None else [LiveEntry(*fields) for fields in ENTRY.iter_unpack(octets)]


def entries_of(value: bytes) -> list[bytes]:
    """The packed entries in a service's value; struct.error when they are damaged."""
    if len(value) % ENTRY_OCTETS:
        raise struct.error(f"{len(value)} octets are no whole entries")
    return [value[at : at + ENTRY_OCTETS] for at in range(0, len(value), ENTRY_OCTETS)]


def is_old_neighbour(entry: bytes, before: int) -> bool:
    _, _, until, _, _, _, flags = _unpack_from(entry)
    return bool(flags & _NEIGHBOUR and until < before)


def fault_of(error: lmdb.Error | struct.error) -> LiveFault:
    kind = StoreFaultKind.DAMAGED if isinstance(error, struct.error) else kind_of(error)
    return LiveFault(kind, f"live set: {error}; discarding its folder while `serve` is stopped starts a new one")


def _others(
    value: bytes, token: bytes, device: bytes, now: int, until: int, replaces: bool
) -> tuple[list[bytes], int, int]:
    """For a login that wants a place: the entries that stay, how many places of others they are, and its own time."""
    kept = []
    seen = at = 0
    for its_token, its_device, its_until, _, its_state, _, its_flags in _iter_unpack(value):
        is_own_device = its_device == device
        if its_until < now:
            pass
        elif its_token == token or (
            is_own_device and (its_state == _RESERVED or (replaces and not its_flags & _NEIGHBOUR))
        ):
            if its_until > until:  # noqa: PLR1730 - max() would cost a tenth of the whole look
                until = its_until
        else:
            kept.append(value[at : at + ENTRY_OCTETS])
            seen += not (is_own_device and replaces)
        at += ENTRY_OCTETS
    if seen > 1 and replaces:
        seen = _count_devices(kept, device)
    return kept, seen, until


def _index_of(entries: list[bytes], token: bytes, device: bytes) -> int | None:
    """Where the login stands: by its token, else by what its device (unless b"") has reserved."""
    reserved = None
    for index, entry in enumerate(entries):
        if entry.startswith(token):
            return index
        if device and entry[8:16] == device and _unpack_from(entry)[4] == _RESERVED:
            reserved = index
    return reserved


def _without_others(entries: list[bytes], token: bytes, nas_id: int, session: int) -> list[bytes]:
    """Without what the same session held under another token: the NAS authenticated it anew."""
    if not session or len(entries) == 1:
        return entries
    held = (nas_id, _ONLINE, session)
    return [entry for entry in entries if entry.startswith(token) or _unpack_from(entry)[3:6] != held]


def _count_devices(entries: list[bytes], own: bytes) -> int:
    """How many devices but `own` have these entries; one without a device is one of its own."""
    devices = {entry[8:16] if entry[8:16] != NO_DEVICE else entry[:8] for entry in entries}
    return len(devices - {own})


def _bounded(entries: list[bytes]) -> bytes:
    """Without the one of the earlier entries that runs out first."""
    first = min(range(len(entries) - 1), key=lambda at: _unpack_from(entries[at])[2])
    return b"".join(entries[:first] + entries[first + 1 :])
