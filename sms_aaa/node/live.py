"""The live set: who is logging in and who is online on this node, so that a plan's limit on sessions holds.

It is an LMDB environment that all access and accounting workers, the settler and the process `places` write, in short
transactions. Per service there is a set of entries, never a counter: an entry stands for one login, is named by that
login's token, and is reserved until a time or online until a time (live_change.py). To admit is to read the set, drop
what has run out, compare and add, all under LMDB's one writer lock; so of fifty simultaneous logins on a one-session
plan one is admitted, whatever processes they reach.

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
import os
import struct
from contextlib import contextmanager, suppress
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

import lmdb
from msgspec import Struct

from sms_aaa.node.environment import DAMAGE_ERRORS, StoreFaultKind, open_allocated
from sms_aaa.node.live_change import (
    ENTRY,
    ENTRY_OCTETS,
    NO_DEVICE,
    SERVICE,
    LiveChange,
    LiveEntry,
    LiveFault,
    LiveFlag,
    LiveState,
    OnlineSession,
    Release,
    entries_of,
    fault_of,
    is_old_neighbour,
    unpack_entries,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

OCTETS = 64 * 1024**2  # of the file; who opens it for a node says how many
ENTRIES_PER_CHANGE = 200
"""Of those that many are changed for at once: a login waits for such a change, so it takes well under a millisecond."""

SCAN_SERVICES_MAX = 1_000_000

_UNTIL_OFFSET, _STATE_OFFSET = 16, 28
_SCAN_SERVICES = 10_000  # whose values are looked at in one go
_REBUILT = b"rebuilt"
_RESERVED, _ONLINE, _NEIGHBOUR = int(LiveState.RESERVED), int(LiveState.ONLINE), int(LiveFlag.NEIGHBOUR)

Seen = TypeVar("Seen")


class LiveCounts(Struct, frozen=True, gc=False):
    """`is_whole` is false when there are more than SCAN_SERVICES_MAX services and the rest was not counted."""

    reserved: int
    online: int
    is_whole: bool


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
            return fault_of(error)
        except OSError as error:
            return LiveFault(StoreFaultKind.IO, f"{folder}: {error.strerror}")

    @classmethod
    def _opened(cls, folder: Path, octets: int, *, was_discarded: bool) -> LiveSet:
        env, is_allocated = open_allocated(folder, map_octets=octets)
        return cls(env, is_allocated=is_allocated, was_discarded=was_discarded)

    def write(self) -> LiveChange:
        return LiveChange(self._env, self._services)

    @contextmanager
    def look(self) -> Iterator[LiveView]:
        """One short reader transaction for a batch: LiveView."""
        try:
            transaction = self._env.begin(db=self._services)
        except lmdb.Error:
            yield LiveView(None)  # sees nothing; who then writes meets the fault
            return
        with transaction:
            yield LiveView(transaction)

    def count(self, service_id: int, now: int) -> int | LiveFault:
        """How many places of the service are taken at `now` (epoch seconds)."""
        entries = self.entries(service_id)
        return entries if isinstance(entries, LiveFault) else sum(entry.until >= now for entry in entries)

    def entries(self, service_id: int) -> list[LiveEntry] | LiveFault:
        """All entries of the service, with those that ran out and were not dropped yet."""
        key = SERVICE.pack(service_id)
        return self._look(lambda transaction: unpack_entries(transaction.get(key, db=self._services)))

    def counts(self, now: int) -> LiveCounts | LiveFault:
        """Totals of what has not run out, from a scan: 100,000 services in 15-30 ms."""
        return self._look(lambda transaction: _counts(transaction.cursor(db=self._services), now))

    def load(self, sessions: Iterable[OnlineSession], *, pause: Callable[[], None]) -> LiveFault | int:
        """Puts sessions in beside what workers admit meanwhile, in many changes; how many it put.

        `pause` is called between two changes and lets those who wait for the lock have it. Again, it does no harm.
        """
        loaded = 0
        remaining = iter(sessions)
        while chunk := list(islice(remaining, ENTRIES_PER_CHANGE)):
            with self.write() as change:
                for one in chunk:
                    put = change.promote_neighbour if one.is_neighbour else change.promote
                    put(
                        one.service_id,
                        one.token,
                        device=one.device,
                        nas_id=one.nas_id,
                        until=one.until,
                        session=one.session,
                    )
            if change.fault is not None:
                return change.fault
            loaded += len(chunk)
            pause()
        return loaded

    def release(
        self, releases: Iterable[Release], *, pause: Callable[[], None], is_settled: bool = True
    ) -> LiveFault | None:
        """What has ended, in as many changes as that takes; `pause` as in `load`, the rest as in LiveChange.release."""
        remaining = iter(releases)
        while chunk := list(islice(remaining, ENTRIES_PER_CHANGE)):
            with self.write() as change:
                for one in chunk:
                    change.release(one.service_id, one.token, session=one.session, is_settled=is_settled)
            if change.fault is not None:
                return change.fault
            pause()
        return None

    def forget_neighbours(self, *, before: int, pause: Callable[[], None]) -> LiveFault | None:
        """Drops other nodes' sessions that no `load` has prolonged to `before` (epoch seconds); `pause` as there."""
        at: bytes | None = b""
        while at is not None:
            found = self._look(partial(self._old_neighbours, start=at, before=before))
            if isinstance(found, LiveFault):
                return found
            service_ids, at = found
            for start in range(0, len(service_ids), ENTRIES_PER_CHANGE):
                with self.write() as change:
                    for service_id in service_ids[start : start + ENTRIES_PER_CHANGE]:
                        change.forget_neighbours(service_id, before=before)
                if change.fault is not None:
                    return change.fault
                pause()
        return None

    def _old_neighbours(
        self, transaction: lmdb.Transaction, *, start: bytes, before: int
    ) -> tuple[list[int], bytes | None]:
        """Of a piece of the set: whose entries are to be dropped, and where the next piece begins."""
        cursor = transaction.cursor(db=self._services)
        service_ids: list[int] = []
        if not cursor.set_range(start):
            return service_ids, None
        for number, (key, value) in enumerate(cursor.iternext()):
            if number == _SCAN_SERVICES:
                return service_ids, bytes(key)
            if any(is_old_neighbour(entry, before) for entry in entries_of(value)):
                service_ids.append(SERVICE.unpack(key)[0])
        return service_ids, None

    def mark_rebuilt(self) -> LiveFault | None:
        """`is_rebuilt` is true from now on, for every process."""
        try:
            with self._env.begin(write=True, db=self._meta) as transaction:
                transaction.put(_REBUILT, b"1")
        except lmdb.Error as error:
            return fault_of(error)
        return None

    def is_rebuilt(self) -> bool:
        """Whether the set is whole since it was discarded; false, too, when that cannot be read."""
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
            return fault_of(error)


class LiveView:
    """What stands in the live set, as of when the look began. What cannot be read does not stand there."""

    __slots__ = ("_transaction",)

    def __init__(self, transaction: lmdb.Transaction | None) -> None:
        self._transaction = transaction

    def knows(self, service_id: int, token: bytes, *, nas_id: int, until: int, session: int) -> bool:
        """Whether the login is online to `until` or longer, with all that LiveChange.promote would put down."""
        if self._transaction is None:
            return False
        try:
            value = self._transaction.get(SERVICE.pack(service_id), b"")
        except lmdb.Error:
            return False
        at = value.find(token)
        if at < 0 or at % ENTRY_OCTETS or len(value) % ENTRY_OCTETS:
            return False
        _, its_device, its_until, its_nas, its_state, its_session, its_flags = ENTRY.unpack_from(value, at)
        return (
            its_until >= until
            and its_state == _ONLINE
            and its_session == session
            and its_nas == nas_id
            and its_device != NO_DEVICE
            and not its_flags & _NEIGHBOUR
        )


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _counts(cursor: lmdb.Cursor, now: int) -> LiveCounts:
    """Column by column over the joined values of many services: an object for each entry would take far longer."""
    reserved = online = 0
    values = cursor.iternext(keys=False, values=True)
    bounded = islice(values, SCAN_SERVICES_MAX)
    while chunk := b"".join(islice(bounded, _SCAN_SERVICES)):
        octets = memoryview(chunk)
        untils = octets.cast("Q")[_UNTIL_OFFSET // 8 :: ENTRY_OCTETS // 8]
        states = octets.cast("I")[_STATE_OFFSET // 4 :: ENTRY_OCTETS // 4]
        lasting = [state for until, state in zip(untils, states, strict=True) if until >= now]
        reserved += lasting.count(_RESERVED)
        online += lasting.count(_ONLINE)
    return LiveCounts(reserved, online, is_whole=next(values, None) is None)
