"""Writing the replica: the replicator's side. Every change set is one synchronous transaction with its cursor in it.

So a replica is always what PostgreSQL had at its cursor: after a crash the replicator goes on from there. A rebuild
fills a new generation (replica_filler.py) that nobody sees until `make_current`; then CURRENT is replaced, and the
other folders go. `services` and `identities` are two sides of one list: each entry of one has its entry in the other.
"""

from __future__ import annotations

import re
import shutil
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import lmdb
import msgspec
from msgspec import Struct

from sms_aaa.node.environment import StoreFaultKind, octets_needed
from sms_aaa.node.folders import replace_file, sync_folder
from sms_aaa.node.replica import (
    FORMAT_KEY,
    FORMAT_VERSION,
    IDENTITY_OCTETS_MAX,
    STATE_KEY,
    TABLES_VERSION_KEY,
    Databases,
    ReplicaFault,
    ReplicaMeta,
    ReplicaSize,
    fault_of,
    identity_key,
    read_current,
    replica_folder,
)
from sms_aaa.node.replica_digest import (
    RECORD_OCTETS_MAX,
    Digests,
    bucket_key,
    is_whole,
    payload_of,
    seal,
)
from sms_aaa.rules.entitlement import Entitlement, NodeNas, NodePlan, NodeRealm

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

CHANGES_MAX = 20_000  # of one change set, so that one transaction stays short and its pages few

_ID = struct.Struct(">Q")
_NUMBERED = re.compile(r"generation-(\d{10})")
encode = msgspec.msgpack.Encoder().encode
_decode_entitlement = msgspec.msgpack.Decoder(Entitlement).decode


class EntitlementChange(Struct, frozen=True, gc=False):
    """A service's rights as they are now, under its identity as it is now. `kind`: IdentityKind."""

    kind: int
    identity: bytes
    entitlement: Entitlement


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaChanges:
    """What happened up to `cursor`, and by its date up to `dated_us`; CHANGES_MAX in all at most. Removals go first."""

    cursor: str
    refreshed_ns: int
    dated_us: int
    entitlements: Sequence[EntitlementChange] = ()
    removed_services: Sequence[int] = ()
    plans: Sequence[NodePlan] = ()
    nases: Sequence[NodeNas] = ()
    removed_nases: Sequence[int] = ()
    realms: Sequence[NodeRealm] = ()
    removed_realms: Sequence[int] = ()

    def count(self) -> int:
        return len(self.entitlements) + len(self.removed_services) + sum(map(len, self._tables()))

    def touches_tables(self) -> bool:
        return any(self._tables())

    def removed_by_table(self) -> dict[bytes, Sequence[int]]:
        return {b"nases": self.removed_nases, b"realms": self.removed_realms}

    def _tables(self) -> tuple[Sequence[object], ...]:
        return self.plans, self.nases, self.removed_nases, self.realms, self.removed_realms


@dataclass(frozen=True, slots=True)
class Applied:
    """The change set is on disk. `refused_services`: their identity is empty or too long for any login to bring it."""

    refused_services: tuple[int, ...]


class ReplicaWriter:
    """Writes one generation. There is one on a node, in one process."""

    def __init__(self, root: Path, generation: str, databases: Databases, *, identity: tuple[bytes, int]) -> None:
        self.generation = generation
        self.databases = databases
        self.database_id, self._schema_version = identity
        self._root = root
        self._octets_needed = octets_needed(databases.env)

    @classmethod
    def open(cls, root: Path, *, database_id: bytes) -> ReplicaWriter | ReplicaFault:
        """The current generation, to go on with; any fault is mended by filling a new one."""
        generation = read_current(root)
        if isinstance(generation, ReplicaFault):
            return generation
        folder = replica_folder(root) / generation
        opened = open_databases(folder)
        if isinstance(opened, ReplicaFault):
            return opened
        meta = opened.read_meta()
        if isinstance(meta, ReplicaMeta) and meta.database_id != database_id:
            meta = ReplicaFault(
                StoreFaultKind.FOREIGN_DATABASE,
                f"{folder}: a copy of database {meta.database_id.hex()}, this is {database_id.hex()}; to be rebuilt",
            )
        if isinstance(meta, ReplicaFault):
            opened.env.close()
            return meta
        return cls(root, generation, opened, identity=(meta.database_id, meta.schema_version))

    def apply(self, changes: ReplicaChanges) -> Applied | ReplicaFault:
        """Stores the change set and its cursor, all or nothing, and returns when they are on disk."""
        if changes.count() > CHANGES_MAX:
            return ReplicaFault(
                StoreFaultKind.TOO_MANY, f"{changes.count()} changes in one set; {CHANGES_MAX} at most: cut it"
            )
        try:
            with self.databases.env.begin(write=True) as transaction:
                refused = _ChangeSet(self.databases, transaction).apply(changes)
                self._apply_meta(transaction, changes)
        except (lmdb.Error, msgspec.MsgspecError) as error:
            return fault_of(error, self.databases.env.path())
        self._octets_needed = octets_needed(self.databases.env)
        return Applied(tuple(refused))

    def make_current(self) -> ReplicaFault | None:
        """From now on readers open this generation; the others are removed, under whoever still reads them."""
        folder = replica_folder(self._root)
        try:
            sync_folder(folder / self.generation)
            sync_folder(folder)
            replace_file(folder / "CURRENT", f"{self.generation}\n".encode())
            sync_folder(self._root)
            _remove_others(folder, self.generation)
        except OSError as error:
            return ReplicaFault(StoreFaultKind.IO, f"{folder}: {error.strerror}")
        return None

    def meta(self) -> ReplicaMeta | ReplicaFault:
        return self.databases.read_meta()

    def tables_version(self) -> int | ReplicaFault:
        return self.databases.read_tables_version()

    def size(self) -> ReplicaSize | ReplicaFault:
        return self.databases.size()

    def find_cut(self) -> ReplicaFault | None:
        """A fault when the file is shorter than what is in use: to touch what is missing would kill this process."""
        path = replica_folder(self._root) / self.generation / "data.mdb"
        try:
            octets = path.stat().st_size
        except OSError as error:
            return ReplicaFault(StoreFaultKind.DAMAGED, f"{path}: {error.strerror}; to be rebuilt")
        if octets >= self._octets_needed:
            return None
        reason = f"{path}: {octets} octets where {self._octets_needed} are in use; to be rebuilt"
        return ReplicaFault(StoreFaultKind.DAMAGED, reason)

    def close(self) -> None:
        self.databases.env.close()

    def _apply_meta(self, transaction: lmdb.Transaction, changes: ReplicaChanges) -> None:
        meta = ReplicaMeta(
            changes.cursor, changes.refreshed_ns, self.database_id, self._schema_version, changes.dated_us
        )
        write_meta(self.databases, transaction, meta, tables_changed=changes.touches_tables())


class _ChangeSet:
    """One change set on its way into one transaction, with what it does to the digests."""

    def __init__(self, databases: Databases, transaction: lmdb.Transaction) -> None:
        self._tables = databases
        self._transaction = transaction
        self._digests = Digests()

    def apply(self, changes: ReplicaChanges) -> list[int]:
        """Which services were refused. lmdb.CorruptedError when it meets a damaged record: nothing is stored then."""
        refused = self._services(changes)
        put, removed = small_records(changes.plans, changes.nases, changes.realms), changes.removed_by_table()
        for bucket, table in self._tables.small():
            for key, payload in put[bucket]:
                self._put(bucket, key, payload, table)
            for object_id in removed.get(bucket, ()):
                self._delete(bucket, _ID.pack(object_id), table)
        self._write_digests()
        return refused

    def _services(self, changes: ReplicaChanges) -> list[int]:
        refused = []
        for service_id in changes.removed_services:
            self._remove_service(service_id)
        for change in changes.entitlements:
            service_id = change.entitlement.service_id
            payload = encode(change.entitlement)
            if not is_storable(change.identity, payload):
                self._remove_service(service_id)
                refused.append(service_id)
                continue
            key = identity_key(change.kind, change.identity)
            if self._transaction.get(_ID.pack(service_id), db=self._tables.services) != key:
                self._remove_service(service_id)
                self._remove_holder(key)
                self._transaction.put(_ID.pack(service_id), key, db=self._tables.services)
            self._put(bucket_key(service_id), key, payload, self._tables.identities)
        return refused

    def _remove_service(self, service_id: int) -> None:
        key = self._transaction.pop(_ID.pack(service_id), db=self._tables.services)
        if key is not None:
            self._delete(bucket_key(service_id), key, self._tables.identities)

    def _remove_holder(self, key: bytes) -> None:
        """Whoever has the identity loses it; if that service still is, its own change follows in the feed."""
        record = self._read(key, self._tables.identities)
        if record is not None:
            self._remove_service(_decode_entitlement(payload_of(record)).service_id)

    def _put(self, bucket: bytes, key: bytes, payload: bytes, table: Any) -> None:
        """A record that is there already costs no page."""
        record = seal(key, payload)
        before = self._read(key, table)
        if before == record:
            return
        if before is not None:
            self._digests.take_away(bucket, key, before)
        self._digests.add(bucket, key, record)
        self._transaction.put(key, record, db=table)

    def _delete(self, bucket: bytes, key: bytes, table: Any) -> None:
        before = self._read(key, table)
        if before is not None:
            self._digests.take_away(bucket, key, before)
            self._transaction.delete(key, db=table)

    def _read(self, key: bytes, table: Any) -> bytes | None:
        record: bytes | None = self._transaction.get(key, db=table)
        if record is not None and not is_whole(key, record):
            raise lmdb.CorruptedError("a record is not what was written")
        return record

    def _write_digests(self) -> None:
        table = self._tables.digests
        for bucket in sorted(self._digests.buckets()):
            merged = self._digests.merged(bucket, self._transaction.get(bucket, db=table))
            if merged is None:
                self._transaction.delete(bucket, db=table)
            else:
                self._transaction.put(bucket, merged, db=table)


def small_records(
    plans: Sequence[NodePlan], nases: Sequence[NodeNas], realms: Sequence[NodeRealm]
) -> dict[bytes, list[tuple[bytes, bytes]]]:
    """(key, payload) of each, by table."""
    return {
        b"plans": [(_ID.pack(plan.plan_version_id), encode(plan)) for plan in plans],
        b"nases": [(_ID.pack(nas.nas_id), encode(nas)) for nas in nases],
        b"realms": [(_ID.pack(realm.realm_id), encode(realm)) for realm in realms],
    }


def is_storable(identity: bytes, payload: bytes) -> bool:
    """Whether a login can bring the identity, and a reader takes a record of that length."""
    return 0 < len(identity) <= IDENTITY_OCTETS_MAX and len(payload) < RECORD_OCTETS_MAX - 4


def write_meta(databases: Databases, transaction: lmdb.Transaction, meta: ReplicaMeta, *, tables_changed: bool) -> None:
    table = databases.meta
    transaction.put(FORMAT_KEY, FORMAT_VERSION, db=table)
    transaction.put(STATE_KEY, encode(meta), db=table)
    if tables_changed:
        version = int.from_bytes(transaction.get(TABLES_VERSION_KEY, b"", db=table), "big")
        transaction.put(TABLES_VERSION_KEY, (version + 1).to_bytes(8, "big"), db=table)


def open_databases(folder: Path, *, synced: bool = True) -> Databases | ReplicaFault:
    """For the one who writes."""
    try:
        return Databases(folder, read_only=False, synced=synced)
    except lmdb.Error as error:
        return fault_of(error, str(folder))
    except OSError as error:
        return ReplicaFault(StoreFaultKind.IO, f"{folder}: {error.strerror}")


def make_generation(root: Path) -> str | ReplicaFault:
    """The name of a new, empty folder beside the current one. What an earlier rebuild left unfinished is removed."""
    folder = replica_folder(root)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        numbers = [int(found[1]) for path in folder.iterdir() if (found := _NUMBERED.fullmatch(path.name))]
        current = read_current(root)
        if isinstance(current, str):
            _remove_others(folder, current)
        generation = f"generation-{max(numbers, default=0) + 1:010d}"
        (folder / generation).mkdir(mode=0o700)
    except OSError as error:
        return ReplicaFault(StoreFaultKind.IO, f"{folder}: {error.strerror}")
    return generation


def _remove_others(folder: Path, kept: str) -> None:
    for path in folder.iterdir():
        if _NUMBERED.fullmatch(path.name) and path.name != kept:
            shutil.rmtree(path, ignore_errors=True)
