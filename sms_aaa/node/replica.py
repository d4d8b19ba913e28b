"""The replica: the node's read copy of what a login needs, so that logins go on while PostgreSQL is away.

    <root>/replica/CURRENT                    the name of the generation in use
    <root>/replica/generation-<number>/       one LMDB environment

One process writes it (replica_filler.py, replica_writer.py), all workers read it, and it is kept over restarts. LMDB
has no checksums on its pages, so its records have, and a damaged replica is not mended: a new generation is filled
beside it, and CURRENT is replaced. A reader learns of that by `switched` and opens the new one; the old folder's pages
stay until the last reader lets go.

    identities   kind octet + identity -> Entitlement, CRC   plans   version id -> NodePlan, CRC
    services     service id -> its key in identities         nases   nas id -> NodeNas, CRC
    meta         format, state (ReplicaMeta), version        realms  realm id -> NodeRealm, CRC
    digests      bucket -> XOR and count of its records (replica_digest.py)

The plans, NASes and realms are small tables that a worker holds in memory; `tables_version` tells it when to load them
again. A reader ends its transaction before it waits: a forgotten one keeps every page that was replaced since, and the
file grows. Mind what environment.py says about opening twice and about forks.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

import lmdb
import msgspec
from msgspec import Struct

from sms_aaa.node.environment import StoreFaultKind, kind_of, octets_needed, open_environment
from sms_aaa.node.replica_digest import is_whole, payload_of
from sms_aaa.rules.entitlement import Entitlement, NodeNas, NodePlan, NodeRealm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

MAP_OCTETS = 16 * 1024**3  # address space, not disk
FORMAT_VERSION = b"3"  # 2: terms of a service, realms; 3: checksums
IDENTITY_OCTETS_MAX = 255  # LMDB takes keys of 511; an attribute brings 253
SWITCH_LOOK_NS = 1_000_000_000
OPEN_TRIES_MAX = 5  # each only if CURRENT was switched meanwhile

FORMAT_KEY, STATE_KEY, TABLES_VERSION_KEY = b"format", b"state", b"tables"
_GENERATION = re.compile(r"generation-\d{10}")
_REMEDY = "the replicator rebuilds it once PostgreSQL can be reached"

_decode_entitlement = msgspec.msgpack.Decoder(Entitlement).decode
_decode_plan = msgspec.msgpack.Decoder(NodePlan).decode
_decode_nas = msgspec.msgpack.Decoder(NodeNas).decode
_decode_realm = msgspec.msgpack.Decoder(NodeRealm).decode

Seen = TypeVar("Seen")


@dataclass(frozen=True, slots=True)
class ReplicaFault:
    """Why the replica could not be used; `detail` names the place, the reason and the remedy."""

    kind: StoreFaultKind
    detail: str


class ReplicaMeta(Struct, frozen=True):
    """What the replica is a copy of: all that the change feed had at `cursor`; it agreed with it at `refreshed_ns`.

    `dated_us`: the instant by the database's clock (microseconds of the epoch) up to which what begins or ends by its
    date alone is in it.
    """

    cursor: str
    refreshed_ns: int
    database_id: bytes
    schema_version: int
    dated_us: int


@dataclass(frozen=True, slots=True)
class ReplicaSize:
    """How much is in it. `disk_octets` is what the file takes of the disk."""

    services: int
    plans: int
    nases: int
    disk_octets: int


_decode_meta = msgspec.msgpack.Decoder(ReplicaMeta).decode


class Databases:
    """A generation's environment with its named databases; lmdb.Error when they are not all there."""

    __slots__ = ("digests", "env", "identities", "meta", "nases", "plans", "realms", "services")

    def __init__(self, folder: Path, *, read_only: bool, synced: bool = True) -> None:
        self.env: lmdb.Environment = open_environment(folder, map_octets=MAP_OCTETS, synced=synced, read_only=read_only)
        create = not read_only
        try:  # the typeless lmdb has no name for a database's handle, hence Any
            self.identities: Any = self.env.open_db(b"identities", create=create)
            self.services: Any = self.env.open_db(b"services", create=create)
            self.plans: Any = self.env.open_db(b"plans", create=create)
            self.nases: Any = self.env.open_db(b"nases", create=create)
            self.realms: Any = self.env.open_db(b"realms", create=create)
            self.meta: Any = self.env.open_db(b"meta", create=create)
            self.digests: Any = self.env.open_db(b"digests", create=create)
        except lmdb.Error:
            self.env.close()
            raise

    def small(self) -> tuple[tuple[bytes, Any], ...]:
        """The tables that a worker holds in memory, by the names of their digests."""
        return (b"plans", self.plans), (b"nases", self.nases), (b"realms", self.realms)

    def look(self, look: Callable[[lmdb.Transaction], Seen]) -> Seen | ReplicaFault:
        """What `look` sees in a reader transaction, which ends with it."""
        try:
            with self.env.begin() as transaction:
                if self.is_cut():
                    raise lmdb.CorruptedError("the file is shorter than what is in use")
                return look(transaction)
        except (lmdb.Error, msgspec.MsgspecError) as error:
            return fault_of(error, self.env.path())

    def is_cut(self) -> bool:
        """Whether a look at some page could kill this process. A file that has no name any more is out of reach."""
        with suppress(OSError):
            return self._file().stat().st_size < octets_needed(self.env)
        return False

    def _disk_octets(self) -> int:
        with suppress(OSError):
            return self._file().stat().st_blocks * 512
        return 0

    def _file(self) -> Path:
        return Path(self.env.path()) / "data.mdb"

    def read_meta(self) -> ReplicaMeta | ReplicaFault:
        """MISSING before the first change; FORMAT for a replica of another version of this program."""
        return self.look(self._meta_in)

    def read_tables_version(self) -> int | ReplicaFault:
        return self.look(lambda t: int.from_bytes(t.get(TABLES_VERSION_KEY, b"", db=self.meta), "big"))

    def size(self) -> ReplicaSize | ReplicaFault:
        def entries(transaction: lmdb.Transaction) -> ReplicaSize:
            services, plans, nases = (
                int(transaction.stat(table)["entries"]) for table in (self.services, self.plans, self.nases)
            )
            return ReplicaSize(services, plans, nases, self._disk_octets())

        return self.look(entries)

    def _meta_in(self, transaction: lmdb.Transaction) -> ReplicaMeta | ReplicaFault:
        state = transaction.get(STATE_KEY, db=self.meta)
        if state is None:
            return ReplicaFault(StoreFaultKind.MISSING, f"{self.env.path()}: nothing is in it yet; {_REMEDY}")
        version = transaction.get(FORMAT_KEY, db=self.meta)
        if version != FORMAT_VERSION:
            return ReplicaFault(StoreFaultKind.FORMAT, f"{self.env.path()}: format {version!r}; {_REMEDY}")
        return _decode_meta(state)


class ReplicaView:
    """The replica at one instant, as a context manager; for the look-ups of one batch. A Replica has one.

    LMDB keeps the reader's slot between two uses, so entering and leaving cost 1.5 us.
    """

    __slots__ = ("_databases", "_transaction")

    def __init__(self, databases: Databases) -> None:
        self._databases = databases
        self._transaction: Any = None  # lmdb has no types; None outside the `with` block

    def __enter__(self) -> Self:
        assert self._transaction is None, "a Replica is read by one batch at a time"
        self._transaction = self._databases.env.begin(db=self._databases.identities, buffers=True)
        return self

    def __exit__(self, *_: object) -> None:
        transaction, self._transaction = self._transaction, None
        if transaction is not None:
            transaction.abort()

    def entitlement(self, kind: int, identity: bytes) -> Entitlement | ReplicaFault | None:
        """The rights of the service with this identity (kind: IdentityKind), None when there is none.

        A fault means that nobody knows: such a login is met with silence, not with a refusal.
        """
        if len(identity) > IDENTITY_OCTETS_MAX:
            return None
        try:
            key = b"%c%b" % (kind, identity)
            record = self._transaction.get(key)
            if record is None:
                return None
            if not is_whole(key, record):
                return damaged_record(self._databases.env.path())
            return _decode_entitlement(payload_of(record))
        except (lmdb.Error, msgspec.MsgspecError) as error:
            return fault_of(error, self._databases.env.path())

    def first_entitlements(self, limit: int) -> list[Entitlement]:
        """Some services, the first in the order of their identities; those that can be read."""
        found = []
        with suppress(lmdb.Error, msgspec.MsgspecError):
            for key, record in islice(self._transaction.cursor(), limit):
                if is_whole(key, record):
                    found.append(_decode_entitlement(payload_of(record)))
        return found

    def tables_version(self) -> int:
        """Rises with each change of the plans, NASes or realms; 0 when it cannot be read."""
        try:
            return int.from_bytes(self._transaction.get(TABLES_VERSION_KEY, b"", db=self._databases.meta), "big")
        except lmdb.Error:
            return 0


class Replica:
    """The generation that was current when it was opened, for reading. One for each process, in one thread."""

    def __init__(self, root: Path, generation: str, databases: Databases, current: tuple[int, int]) -> None:
        self.generation = generation
        self._root = root
        self.databases = databases
        self._view = ReplicaView(databases)
        self._current = current
        self._looked_ns: int | None = None

    @classmethod
    def open(cls, root: Path) -> Replica | ReplicaFault:
        """The replica under the state folder `root`; MISSING, DAMAGED or FORMAT say why there is none to use."""
        fault = ReplicaFault(StoreFaultKind.MISSING, f"{root}: the replica was switched at each try to open it")
        for _ in range(OPEN_TRIES_MAX):
            current = _current_mark(root)
            generation = read_current(root)
            if isinstance(generation, ReplicaFault):
                return generation
            opened = _open_for_reading(root, generation, current)
            if isinstance(opened, Replica) or read_current(root) == generation:
                return opened
            fault = opened
        return fault

    def read(self) -> ReplicaView:
        """`with replica.read() as view:` around a batch; to be left before the process waits."""
        return self._view

    def plans(self) -> list[NodePlan] | ReplicaFault:
        return self.databases.look(lambda t: [_decode_plan(one) for one in _whole(t.cursor(db=self.databases.plans))])

    def nas_list(self) -> list[NodeNas] | ReplicaFault:
        return self.databases.look(lambda t: [_decode_nas(one) for one in _whole(t.cursor(db=self.databases.nases))])

    def size(self) -> ReplicaSize | ReplicaFault:
        return self.databases.size()

    def realms(self) -> list[NodeRealm] | ReplicaFault:
        return self.databases.look(lambda t: [_decode_realm(one) for one in _whole(t.cursor(db=self.databases.realms))])

    def meta(self) -> ReplicaMeta | ReplicaFault:
        return self.databases.read_meta()

    def switched(self, now_ns: int) -> bool:
        """Whether another generation is current now. Looked at once a second at most; then open a new Replica."""
        if self._looked_ns is not None and 0 <= now_ns - self._looked_ns < SWITCH_LOOK_NS:
            return False
        self._looked_ns = now_ns
        current = _current_mark(self._root)
        if current == self._current:
            return False
        generation = read_current(self._root)
        if generation == self.generation:
            self._current = current
        # A CURRENT that cannot be read is no reason to leave a generation that can.
        return isinstance(generation, str) and generation != self.generation

    def is_cut(self) -> bool:
        """Whether its file is shorter than what is in use, so that a look at some page could kill this process."""
        return self.databases.is_cut()

    def reader_check(self) -> int:
        """Frees the reader slots of processes that died; how many they were. For the supervisor, at a child's death."""
        return int(self.databases.env.reader_check())

    def close(self) -> None:
        self.databases.env.close()


def replica_folder(root: Path) -> Path:
    return root / "replica"


def read_current(root: Path) -> str | ReplicaFault:
    """The current generation's name, if its environment is there."""
    path = replica_folder(root) / "CURRENT"
    try:
        name = path.read_bytes()[:64].decode("ascii", "replace").strip()
        if _GENERATION.fullmatch(name) and (path.with_name(name) / "data.mdb").exists():
            return name
    except FileNotFoundError:
        return ReplicaFault(StoreFaultKind.MISSING, f"{path}: there is no replica yet; {_REMEDY}")
    except OSError as error:
        return ReplicaFault(StoreFaultKind.IO, f"{path}: {error.strerror}")
    return ReplicaFault(StoreFaultKind.DAMAGED, f"{path}: it names no generation that is there; {_REMEDY}")


def identity_key(kind: int, identity: bytes) -> bytes:
    return b"%c%b" % (kind, identity)


def damaged_record(path: str) -> ReplicaFault:
    return ReplicaFault(StoreFaultKind.DAMAGED, f"{path}: a record is not what was written; {_REMEDY}")


def fault_of(error: lmdb.Error | msgspec.MsgspecError, path: str) -> ReplicaFault:
    kind = kind_of(error) if isinstance(error, lmdb.Error) else StoreFaultKind.DAMAGED
    return ReplicaFault(kind, f"{path}: {error}; {_REMEDY}")


def _open_for_reading(root: Path, generation: str, current: tuple[int, int]) -> Replica | ReplicaFault:
    folder = replica_folder(root) / generation
    try:
        databases = Databases(folder, read_only=True)
        meta = databases.read_meta()
        if isinstance(meta, ReplicaFault):
            databases.env.close()
            return meta
        return Replica(root, generation, databases, current)
    except lmdb.NotFoundError as error:
        return ReplicaFault(StoreFaultKind.DAMAGED, f"{folder}: a table is missing ({error}); {_REMEDY}")
    except lmdb.Error as error:
        return fault_of(error, str(folder))
    except OSError as error:
        return ReplicaFault(StoreFaultKind.IO, f"{folder}: {error.strerror}")


def _whole(records: Iterable[tuple[bytes, bytes]]) -> Iterator[bytes]:
    for key, record in records:
        if not is_whole(key, record):
            raise lmdb.CorruptedError("a record is not what was written")
        yield bytes(payload_of(record))


def _current_mark(root: Path) -> tuple[int, int]:
    """What changes whenever CURRENT is replaced; (0, 0) when there is none."""
    try:
        seen = (replica_folder(root) / "CURRENT").stat()
    except OSError:
        return 0, 0
    return seen.st_ino, seen.st_mtime_ns
