"""The live set: who is logging in and who is online on this node, so that a plan's limit on sessions holds.

It is an LMDB environment that all access and accounting workers and the settler write, in short transactions. Per
service there is a set of entries, never a counter: an entry stands for one login, is named by that login's token, and
is reserved until a time or online until a time. To admit is to read the set, drop what has run out, compare and add,
all under LMDB's one writer lock; so of fifty simultaneous logins on a one-session plan one is admitted, whatever
processes they reach.

Two things a counter could not do. A retransmission, or a device that dials in again through another worker, replaces
its own entry instead of being refused by it: the entry is found by its device. And a Stop that comes twice, or after
the entry ran out, releases nothing that is another's: it is found by its token.

Nothing here is synced: the set is discarded after a reboot, when it may be torn, and rebuilt from PostgreSQL's live
sessions and the unsettled journal. Until that is done `is_rebuilt` is false, and a setting says whom to admit. The
file is allocated whole and changed in place, so that a reservation costs no system call (environment.py).

Mind what environment.py says about opening twice and about forks.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import struct
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import IntEnum
from itertools import islice
from typing import TYPE_CHECKING, Literal, Self, TypeVar

import lmdb
from msgspec import Struct

from sms_aaa.node.environment import DAMAGE_ERRORS, StoreFaultKind, kind_of, open_allocated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path
    from types import TracebackType

OCTETS = 64 * 1024**2  # of the file; who opens it for a node says how many
TOKEN_OCTETS = 8
DEVICE_OCTETS = 8
ENTRIES_PER_SERVICE_MAX = 256
LOAD_ENTRIES_PER_CHANGE = 1_000  # so that a login waits a few milliseconds for a rebuild, not for all of it
SCAN_SERVICES_MAX = 1_000_000

_ENTRY = struct.Struct("=8s8sQII8x")  # token, device, until, nas, state; spare. In the machine's order, for counts()
_SERVICE = struct.Struct(">Q")
_ENTRY_OCTETS = _ENTRY.size
_UNTIL_OFFSET, _STATE_OFFSET = 16, 28
_SCAN_SERVICES = 10_000  # whose values are looked at in one go
_REBUILT = b"rebuilt"
_NO_DEVICE = bytes(DEVICE_OCTETS)

Seen = TypeVar("Seen")


class LiveState(IntEnum):
    RESERVED = 1
    ONLINE = 2


_RESERVED, _ONLINE = int(LiveState.RESERVED), int(LiveState.ONLINE)


class LiveEntry(Struct, frozen=True, gc=False):
    """One login. `device` is 8 zero octets when the request named none; `until` in epoch seconds; `state` LiveState."""

    token: bytes
    device: bytes
    until: int
    nas_id: int
    state: int


class OnlineSession(Struct, frozen=True, gc=False):
    """What a rebuild puts in for each session that PostgreSQL or the journal knows as live."""

    service_id: int
    token: bytes
    device: bytes
    nas_id: int
    until: int


class Reserved(Struct, frozen=True, gc=False):
    """The login has its place. `sessions_seen`: how many others the service had."""

    token: bytes
    sessions_seen: int


class LimitReached(Struct, frozen=True, gc=False):
    """No place. `sessions_seen`: how many others hold one."""

    sessions_seen: int


class LiveCounts(Struct, frozen=True, gc=False):
    """`is_whole` is false when there are more than SCAN_SERVICES_MAX services and the rest was not counted."""

    reserved: int
    online: int
    is_whole: bool


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


class LiveChange:
    """One short write transaction for a batch, as a context manager; it commits at the end, or aborts on an exception.

    After the block `fault` says whether the batch is stored. If it is set nothing of the batch is, and no login of it
    may be answered as admitted.
    """

    __slots__ = ("_env", "_services", "_transaction", "fault")

    def __init__(self, env: lmdb.Environment, services: object) -> None:
        self._env = env
        self._services = services
        self._transaction: lmdb.Transaction | None = None
        self.fault: LiveFault | None = None

    def __enter__(self) -> Self:
        try:
            self._transaction = self._env.begin(write=True, db=self._services)
        except lmdb.Error as error:
            self.fault = _fault(error)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]:
        transaction, self._transaction = self._transaction, None
        if transaction is None:
            return False
        if kind is not None or self.fault is not None:
            transaction.abort()
            return False
        try:
            transaction.commit()
        except lmdb.Error as failed:
            self.fault = _fault(failed)
        return False

    def reserve(
        self, service_id: int, *, device: bytes, nas_id: int, sessions_max: int, token: bytes, now: int, until: int
    ) -> Reserved | LimitReached | LiveFault:
        """Takes a place for a login if fewer than `sessions_max` others hold one (0: any number).

        Entries that ran out before `now` are dropped. An entry of the same device (unless b"") or token is the login
        itself: it is replaced, not counted, and its time is not shortened (a device that is online and authenticates
        anew in mid-session stays so until its next Interim). `token`: 8 octets; `now`, `until`: epoch seconds.
        """
        if self.fault is not None:
            return self.fault
        assert self._transaction is not None, "a change is used inside its `with` block"
        key = _SERVICE.pack(service_id)
        try:
            value = self._transaction.get(key, b"")
            others = []
            for at in range(0, len(value), _ENTRY_OCTETS):
                its_token, its_device, its_until, _, _ = _ENTRY.unpack_from(value, at)
                if its_token == token or (device and its_device == device):
                    until = max(until, its_until)
                elif its_until >= now:
                    others.append(value[at : at + _ENTRY_OCTETS])
            seen = len(others)
            if 0 < sessions_max <= seen:
                return LimitReached(seen)
            others.append(_ENTRY.pack(token, device or _NO_DEVICE, until, nas_id, _RESERVED))
            if seen < ENTRIES_PER_SERVICE_MAX:
                self._transaction.put(key, b"".join(others))
                return Reserved(token, seen)
        except (lmdb.Error, struct.error) as error:
            self.fault = _fault(error)
            return self.fault
        return self._store(service_id, _unpack(b"".join(others))) or Reserved(token, seen)

    def promote(self, service_id: int, token: bytes, *, device: bytes, nas_id: int, until: int) -> None:
        """Start or Interim: the login is online at least to `until`. Again, or late, it changes nothing more.

        The entry is found by its token, else by its device (then the NAS took another of our Accepts for the same
        login, and that token is the one its Stop will bring), else put in.
        """
        entries = self._load(service_id)
        if isinstance(entries, LiveFault):
            return
        at = _index_of(entries, token, device)
        if at is None:
            entries.append(LiveEntry(token, device or _NO_DEVICE, until, nas_id, _ONLINE))
        else:
            found = entries[at]
            if found.token != token and until < found.until:
                return  # an older login of this device, settled late
            known_device = found.device if found.device != _NO_DEVICE else device or _NO_DEVICE
            entries[at] = LiveEntry(token, known_device, max(found.until, until), nas_id, _ONLINE)
        self._store(service_id, entries)

    def release(self, service_id: int, token: bytes) -> None:
        """Stop, or a session that was closed for it: the place is free. Nothing happens if it was already."""
        entries = self._load(service_id)
        if isinstance(entries, LiveFault):
            return
        left = [entry for entry in entries if entry.token != token]
        if len(left) != len(entries):
            self._store(service_id, left)

    def release_many(self, logins: Iterable[tuple[int, bytes]]) -> None:
        """(service id, token) of each login; for Accounting-On, whose sessions the caller knows."""
        for service_id, token in logins:
            self.release(service_id, token)

    def _load(self, service_id: int) -> list[LiveEntry] | LiveFault:
        if self.fault is None:
            assert self._transaction is not None, "a change is used inside its `with` block"
            try:
                return _unpack(self._transaction.get(_SERVICE.pack(service_id)))
            except (lmdb.Error, struct.error) as error:
                self.fault = _fault(error)
        return self.fault

    def _store(self, service_id: int, entries: list[LiveEntry]) -> LiveFault | None:
        assert self._transaction is not None
        key = _SERVICE.pack(service_id)
        if len(entries) > ENTRIES_PER_SERVICE_MAX:
            entries.remove(min(entries[:-1], key=lambda entry: entry.until))
        try:
            if entries:
                self._transaction.put(key, _pack(entries))
            else:
                self._transaction.delete(key)
        except lmdb.Error as error:
            self.fault = _fault(error)
        return self.fault


class LiveSet:
    """The environment, opened once by a process. `was_discarded`: this opening found another boot's, or a torn one.

    `is_allocated` is false where there was no room for the whole file; it works all the same, more slowly.
    """

    def __init__(self, env: lmdb.Environment, *, is_allocated: bool, was_discarded: bool) -> None:
        self.was_discarded = was_discarded
        self.is_allocated = is_allocated
        self._env = env
        self._services = env.open_db(b"services")
        self._meta = env.open_db(b"meta")

    @classmethod
    def open(cls, root: Path, *, boot_id: str, octets: int = OCTETS) -> LiveSet | LiveFault:
        """The node's live set under the folder `root`; a new, empty one when it is of another boot.

        `octets`: the size of its file, the same for every process.

        One process at a time is in here: two that both found another boot's would discard each other's.
        """
        folder = root / "live"
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with _locked(folder / "LOCK"):
                marker = folder / "BOOT"
                if marker.exists() and marker.read_text() == boot_id and (folder / "data.mdb").exists():
                    with suppress(*DAMAGE_ERRORS):  # torn: an empty one takes its place
                        return cls._opened(folder, octets, was_discarded=False)
                for name in ("data.mdb", "lock.mdb"):
                    (folder / name).unlink(missing_ok=True)
                opened = cls._opened(folder, octets, was_discarded=True)
                marker.write_text(boot_id)
                return opened
        except lmdb.Error as error:
            return _fault(error)
        except OSError as error:
            return LiveFault(StoreFaultKind.IO, f"{folder}: {error.strerror}")

    @classmethod
    def _opened(cls, folder: Path, octets: int, *, was_discarded: bool) -> LiveSet:
        env, is_allocated = open_allocated(folder, map_octets=octets)
        return cls(env, is_allocated=is_allocated, was_discarded=was_discarded)

    def write(self) -> LiveChange:
        return LiveChange(self._env, self._services)

    def count(self, service_id: int, now: int) -> int | LiveFault:
        """How many places of the service are taken at `now` (epoch seconds)."""
        entries = self.entries(service_id)
        return entries if isinstance(entries, LiveFault) else sum(entry.until >= now for entry in entries)

    def entries(self, service_id: int) -> list[LiveEntry] | LiveFault:
        """All entries of the service, with those that ran out and were not dropped yet."""
        return self._look(lambda transaction: _unpack(transaction.get(_SERVICE.pack(service_id), db=self._services)))

    def counts(self, now: int) -> LiveCounts | LiveFault:
        """Totals of what has not run out, from a scan: 100,000 services in 15-30 ms."""
        return self._look(lambda transaction: _counts(transaction.cursor(db=self._services), now))

    def load(self, sessions: Iterable[OnlineSession]) -> LiveFault | int:
        """The rebuild: puts the sessions in beside what workers admit meanwhile, in several changes; how many it put.

        Doing it again does no harm. At its end `is_rebuilt` is true for every process.
        """
        loaded = 0
        remaining = iter(sessions)
        while chunk := list(islice(remaining, LOAD_ENTRIES_PER_CHANGE)):
            with self.write() as change:
                for session in chunk:
                    change.promote(
                        session.service_id,
                        session.token,
                        device=session.device,
                        nas_id=session.nas_id,
                        until=session.until,
                    )
            if change.fault is not None:
                return change.fault
            loaded += len(chunk)
        try:
            with self._env.begin(write=True, db=self._meta) as transaction:
                transaction.put(_REBUILT, b"1")
        except lmdb.Error as error:
            return _fault(error)
        return loaded

    def is_rebuilt(self) -> bool:
        """Whether a `load` ran to its end since the set was discarded; false, too, when that cannot be read."""
        return self._look(lambda transaction: transaction.get(_REBUILT, db=self._meta)) == b"1"

    def reader_check(self) -> int:
        """Frees the reader slots of processes that died; how many they were. For the supervisor, at a child's death."""
        return int(self._env.reader_check())

    def close(self) -> None:
        self._env.close()

    def _look(self, look: Callable[[lmdb.Transaction], Seen]) -> Seen | LiveFault:
        """What `look` sees in a reader transaction, which ends with it."""
        try:
            with self._env.begin() as transaction:
                return look(transaction)
        except (lmdb.Error, struct.error) as error:
            return _fault(error)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _fault(error: lmdb.Error | struct.error) -> LiveFault:
    kind = StoreFaultKind.DAMAGED if isinstance(error, struct.error) else kind_of(error)
    return LiveFault(kind, f"live set: {error}; discarding its folder while `serve` is stopped starts a new one")


def _unpack(octets: bytes | None) -> list[LiveEntry]:
    return [] if octets is None else [LiveEntry(*fields) for fields in _ENTRY.iter_unpack(octets)]


def _pack(entries: list[LiveEntry]) -> bytes:
    return b"".join(
        [_ENTRY.pack(entry.token, entry.device, entry.until, entry.nas_id, entry.state) for entry in entries]
    )


def _index_of(entries: list[LiveEntry], token: bytes, device: bytes) -> int | None:
    """Where the login stands: by its token, else by its device (unless b"")."""
    by_device = None
    for index, entry in enumerate(entries):
        if entry.token == token:
            return index
        if device and entry.device == device:
            by_device = index
    return by_device


def _counts(cursor: lmdb.Cursor, now: int) -> LiveCounts:
    """Column by column over the joined values of many services: an object for each entry would take far longer."""
    reserved = online = 0
    values = cursor.iternext(keys=False, values=True)
    bounded = islice(values, SCAN_SERVICES_MAX)
    while chunk := b"".join(islice(bounded, _SCAN_SERVICES)):
        octets = memoryview(chunk)
        untils = octets.cast("Q")[_UNTIL_OFFSET // 8 :: _ENTRY_OCTETS // 8]
        states = octets.cast("I")[_STATE_OFFSET // 4 :: _ENTRY_OCTETS // 4]
        lasting = [state for until, state in zip(untils, states, strict=True) if until >= now]
        reserved += lasting.count(_RESERVED)
        online += lasting.count(_ONLINE)
    return LiveCounts(reserved, online, is_whole=next(values, None) is None)
