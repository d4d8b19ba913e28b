"""Writing the replica: the replicator's side. Every change set is one synchronous transaction with its cursor in it.

So a replica is always what PostgreSQL had at its cursor: after a crash the replicator goes on from there. A rebuild
fills a new generation that nobody sees until `make_current`; then CURRENT is replaced, and the other folders go.
"""

from __future__ import annotations

import re
import shutil
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

import lmdb
import msgspec
from msgspec import Struct

from sms_aaa.node.environment import StoreFaultKind
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
    fault_of,
    identity_key,
    read_current,
    replica_folder,
)
from sms_aaa.rules.entitlement import Entitlement, NodeNas, NodePlan, NodeRealm

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

CHANGES_MAX = 20_000  # of one change set, so that one transaction stays short and its pages few

_ID = struct.Struct(">Q")
_NUMBERED = re.compile(r"generation-(\d{10})")
_encode = msgspec.msgpack.Encoder().encode
_decode_entitlement = msgspec.msgpack.Decoder(Entitlement).decode


class EntitlementChange(Struct, frozen=True, gc=False):
    """A service's rights as they are now, under its identity as it is now. `kind`: IdentityKind."""

    kind: int
    identity: bytes
    entitlement: Entitlement


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaChanges:
    """What happened up to `cursor`, CHANGES_MAX in all at most. Removals are done first."""

    cursor: str
    refreshed_ns: int
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
        self._root = root
        self._databases = databases
        self._database_id, self._schema_version = identity

    @classmethod
    def open(cls, root: Path, *, database_id: bytes) -> ReplicaWriter | ReplicaFault:
        """The current generation, to go on with; any fault is mended by filling a `new_generation`."""
        generation = read_current(root)
        if isinstance(generation, ReplicaFault):
            return generation
        folder = replica_folder(root) / generation
        opened = _open_databases(folder)
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

    @classmethod
    def new_generation(cls, root: Path, *, database_id: bytes, schema_version: int) -> ReplicaWriter | ReplicaFault:
        """An empty generation beside the current one, to be filled by `apply` and then made current.

        What an earlier rebuild left unfinished is removed.
        """
        folder = replica_folder(root)
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            numbers = [int(found[1]) for path in folder.iterdir() if (found := _NUMBERED.fullmatch(path.name))]
            _remove_others(folder, read_current(root))
            generation = f"generation-{max(numbers, default=0) + 1:010d}"
            (folder / generation).mkdir(mode=0o700)
        except OSError as error:
            return ReplicaFault(StoreFaultKind.IO, f"{folder}: {error.strerror}")
        opened = _open_databases(folder / generation)
        if isinstance(opened, ReplicaFault):
            return opened
        return cls(root, generation, opened, identity=(database_id, schema_version))

    def apply(self, changes: ReplicaChanges) -> Applied | ReplicaFault:
        """Stores the change set and its cursor, all or nothing, and returns when they are on disk."""
        if changes.count() > CHANGES_MAX:
            return ReplicaFault(
                StoreFaultKind.TOO_MANY, f"{changes.count()} changes in one set; {CHANGES_MAX} at most: cut it"
            )
        tables = self._databases
        try:
            with tables.env.begin(write=True) as transaction:
                refused = self._apply_services(transaction, changes)
                for plan in changes.plans:
                    transaction.put(_ID.pack(plan.plan_version_id), _encode(plan), db=tables.plans)
                for nas in changes.nases:
                    transaction.put(_ID.pack(nas.nas_id), _encode(nas), db=tables.nases)
                for nas_id in changes.removed_nases:
                    transaction.delete(_ID.pack(nas_id), db=tables.nases)
                for realm in changes.realms:
                    transaction.put(_ID.pack(realm.realm_id), _encode(realm), db=tables.realms)
                for realm_id in changes.removed_realms:
                    transaction.delete(_ID.pack(realm_id), db=tables.realms)
                self._apply_meta(transaction, changes)
        except (lmdb.Error, msgspec.MsgspecError) as error:
            return fault_of(error, tables.env.path())
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
        return self._databases.read_meta()

    def tables_version(self) -> int | ReplicaFault:
        return self._databases.read_tables_version()

    def close(self) -> None:
        self._databases.env.close()

    def _apply_services(self, transaction: lmdb.Transaction, changes: ReplicaChanges) -> list[int]:
        refused = []
        for service_id in changes.removed_services:
            self._remove_service(transaction, service_id)
        for change in changes.entitlements:
            service_id = change.entitlement.service_id
            self._remove_service(transaction, service_id)
            if not 0 < len(change.identity) <= IDENTITY_OCTETS_MAX:
                refused.append(service_id)
                continue
            key = identity_key(change.kind, change.identity)
            transaction.put(key, _encode(change.entitlement), db=self._databases.identities)
            transaction.put(_ID.pack(service_id), key, db=self._databases.services)
        return refused

    def _remove_service(self, transaction: lmdb.Transaction, service_id: int) -> None:
        """Its identity goes too, unless another service took it over earlier in this change set."""
        tables = self._databases
        key = transaction.pop(_ID.pack(service_id), db=tables.services)
        if key is None:
            return
        holder = transaction.get(key, db=tables.identities)
        if holder is not None and _decode_entitlement(holder).service_id == service_id:
            transaction.delete(key, db=tables.identities)

    def _apply_meta(self, transaction: lmdb.Transaction, changes: ReplicaChanges) -> None:
        meta = ReplicaMeta(changes.cursor, changes.refreshed_ns, self._database_id, self._schema_version)
        table = self._databases.meta
        transaction.put(FORMAT_KEY, FORMAT_VERSION, db=table)
        transaction.put(STATE_KEY, _encode(meta), db=table)
        if changes.touches_tables():
            version = int.from_bytes(transaction.get(TABLES_VERSION_KEY, b"", db=table), "big")
            transaction.put(TABLES_VERSION_KEY, (version + 1).to_bytes(8, "big"), db=table)


def _open_databases(folder: Path) -> Databases | ReplicaFault:
    try:
        return Databases(folder, read_only=False)
    except lmdb.Error as error:
        return fault_of(error, str(folder))
    except OSError as error:
        return ReplicaFault(StoreFaultKind.IO, f"{folder}: {error.strerror}")


def _remove_others(folder: Path, kept: str | ReplicaFault) -> None:
    for path in folder.iterdir():
        if _NUMBERED.fullmatch(path.name) and path.name != kept:
            shutil.rmtree(path, ignore_errors=True)
