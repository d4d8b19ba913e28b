"""Filling a new generation of the replica: everything at once, in the order of its keys, while nobody reads it.

A key that is the next in order is appended: no look-up, and pages filled to the brim. So the services come twice from
one snapshot, by identity with their records and by id with their keys. Nothing is durable until `finish`, which nobody
can mistake for a replica: until then there is no state in it. The disk is asked to write at every SYNC_RECORDS all the
same, or one long sync at the end would stand in the way of the journal's.
"""

from __future__ import annotations

import shutil
import struct
from typing import TYPE_CHECKING

import lmdb
import msgspec

from sms_aaa.node.replica import Databases, ReplicaFault, ReplicaMeta, fault_of, identity_key, replica_folder
from sms_aaa.node.replica_digest import Digests, bucket_key, seal
from sms_aaa.node.replica_writer import (
    EntitlementChange,
    ReplicaWriter,
    encode,
    is_storable,
    make_generation,
    open_databases,
    small_records,
    write_meta,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import Any

    from sms_aaa.rules.entitlement import NodeNas, NodePlan, NodeRealm

SYNC_RECORDS = 100_000

_ID = struct.Struct(">Q")


class ReplicaFiller:
    """A generation on its way. To be used in one thread at a time; `finish` turns it into a writer."""

    def __init__(self, root: Path, generation: str, databases: Databases, *, identity: tuple[bytes, int]) -> None:
        self._root = root
        self._generation = generation
        self._databases = databases
        self._identity = identity
        self._digests = Digests()
        self._unsynced = 0
        self.refused: set[int] = set()
        """Services whose identity no login can bring."""

    @classmethod
    def begin(cls, root: Path, *, database_id: bytes, schema_version: int) -> ReplicaFiller | ReplicaFault:
        """An empty generation beside the current one, which serves meanwhile."""
        generation = make_generation(root)
        if isinstance(generation, ReplicaFault):
            return generation
        opened = open_databases(replica_folder(root) / generation, synced=False)
        if isinstance(opened, ReplicaFault):
            return opened
        return cls(root, generation, opened, identity=(database_id, schema_version))

    def put_tables(
        self, plans: Sequence[NodePlan], nases: Sequence[NodeNas], realms: Sequence[NodeRealm]
    ) -> ReplicaFault | None:
        fault = None
        records = small_records(plans, nases, realms)
        for bucket, table in self._databases.small():
            sealed = [(key, seal(key, payload)) for key, payload in sorted(records[bucket])]
            for key, record in sealed:
                self._digests.add(bucket, key, record)
            fault = fault or self._put(sealed, table)
        return fault

    def put_records(self, changes: Sequence[EntitlementChange]) -> ReplicaFault | None:
        """The next services in the order of (kind, identity's octets)."""
        records = []
        for change in changes:
            service_id, payload = change.entitlement.service_id, encode(change.entitlement)
            if not is_storable(change.identity, payload):
                self.refused.add(service_id)
                continue
            key = identity_key(change.kind, change.identity)
            record = seal(key, payload)
            self._digests.add(bucket_key(service_id), key, record)
            records.append((key, record))
        return self._put(records, self._databases.identities)

    def put_keys(self, services: Sequence[tuple[int, int, bytes]]) -> ReplicaFault | None:
        """(service id, kind, identity) of the next services in the order of their ids: the same as by identity."""
        refused = self.refused
        keys = [(_ID.pack(one), identity_key(kind, identity)) for one, kind, identity in services if one not in refused]
        return self._put(keys, self._databases.services)

    def finish(self, *, cursor: str, refreshed_ns: int, dated_us: int) -> ReplicaWriter | ReplicaFault:
        """The generation, whole and on disk, to go on with from its cursor and to be made current."""
        databases = self._databases
        meta = ReplicaMeta(cursor, refreshed_ns, *self._identity, dated_us)
        fault = self._put(sorted(self._digests.packed().items()), databases.digests)
        if fault is not None:
            return fault
        try:
            with databases.env.begin(write=True) as transaction:
                write_meta(databases, transaction, meta, tables_changed=True)
            databases.env.sync(True)
        except lmdb.Error as error:
            return fault_of(error, databases.env.path())
        self.close()
        opened = open_databases(replica_folder(self._root) / self._generation)
        if isinstance(opened, ReplicaFault):
            return opened
        return ReplicaWriter(self._root, self._generation, opened, identity=self._identity)

    def close(self) -> None:
        self._databases.env.close()

    def discard(self) -> None:
        """It is not to be finished: the disk may be full, and others need what it took."""
        self.close()
        shutil.rmtree(replica_folder(self._root) / self._generation, ignore_errors=True)

    def _put(self, records: Sequence[tuple[bytes, bytes]], table: Any) -> ReplicaFault | None:
        env = self._databases.env
        try:
            with env.begin(write=True, db=table) as transaction:
                cursor = transaction.cursor()
                _, added = cursor.putmulti(records, append=True)
                if added < len(records):  # a database in another encoding than UTF-8 sorts otherwise
                    cursor.putmulti(records)
            self._unsynced += len(records)
            if self._unsynced >= SYNC_RECORDS:
                env.sync(True)
                self._unsynced = 0
        except (lmdb.Error, msgspec.MsgspecError) as error:
            return fault_of(error, env.path())
        return None
