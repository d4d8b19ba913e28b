"""Looking for damage, a slice at a time: what is stored against its digests, by the way that a login takes to it.

Every service of a bucket is looked up by its identity, so a damaged page anywhere on the way is met too. One pass goes
over all buckets; with each slice the plans and NASes are looked at, which are few, and at the end of a pass whether
there are as many records as services. Read errors and mismatches are told alike: the replica is damaged.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import lmdb
from msgspec import Struct

from sms_aaa.node.replica import Databases, ReplicaFault, damaged_record, fault_of
from sms_aaa.node.replica_digest import Digests, bucket_key, first_id, is_whole

if TYPE_CHECKING:
    from typing import Any

_ID_OCTETS = 8


class Slice(Struct, frozen=True):
    """What was looked at, and found whole. `ends_pass`: with it everything was looked at since the last such one."""

    services: int
    ends_pass: bool


class Scrubber:
    """Goes over one generation again and again. For the process that writes it: a change between two slices is fine."""

    def __init__(self, databases: Databases) -> None:
        self._tables = databases
        self._at = b""  # the first bucket of the next slice

    def look(self, buckets_max: int) -> Slice | ReplicaFault:
        """The next buckets, `buckets_max` at most. About 3 ms a bucket, in one reader transaction."""
        try:
            with self._tables.env.begin() as transaction:
                return self._look(transaction, buckets_max)
        except lmdb.Error as error:
            return fault_of(error, self._tables.env.path())
        except struct.error:  # the name of a bucket is none
            return damaged_record(self._tables.env.path())

    def _look(self, transaction: lmdb.Transaction, buckets_max: int) -> Slice | ReplicaFault:
        stored, end = self._stored(transaction, buckets_max)
        found, services = self._found(transaction, end)
        path = self._tables.env.path()
        if found is None or found.packed() != stored:
            return damaged_record(path)
        entries = [transaction.stat(table)["entries"] for table in (self._tables.services, self._tables.identities)]
        if not end and entries[0] != entries[1]:
            return damaged_record(path)
        self._at = end
        return Slice(services, ends_pass=not end)

    def _stored(self, transaction: lmdb.Transaction, buckets_max: int) -> tuple[dict[bytes, bytes], bytes]:
        """The digests of the slice and of the tables, and the first bucket after the slice; b"" when there is none."""
        cursor = transaction.cursor(db=self._tables.digests)
        stored: dict[bytes, bytes] = {}
        end = b""
        if cursor.set_range(self._at):
            for bucket, digest in cursor:
                if len(bucket) != _ID_OCTETS:
                    break
                if len(stored) == buckets_max:
                    end = bucket
                    break
                stored[bucket] = digest
        for bucket, _ in self._tables.small():
            digest = transaction.get(bucket, db=self._tables.digests)
            if digest is not None:
                stored[bucket] = digest
        return stored, end

    def _found(self, transaction: lmdb.Transaction, end: bytes) -> tuple[Digests | None, int]:
        """The digests of what is there, and of how many services; None when a record is not what was written."""
        tables, digests, services = self._tables, Digests(), 0
        stop = first_id(end) if end else None
        cursor = transaction.cursor(db=tables.services)
        if cursor.set_range(first_id(self._at) if self._at else b""):
            for service, key in cursor:
                if stop is not None and service >= stop:
                    break
                if len(service) != _ID_OCTETS or not _add(
                    digests, bucket_key(int.from_bytes(service, "big")), key, transaction.get(key, db=tables.identities)
                ):
                    return None, services
                services += 1
        for bucket, table in tables.small():
            if not all(_add(digests, bucket, key, record) for key, record in transaction.cursor(db=table)):
                return None, services
        return digests, services


def _add(digests: Digests, bucket: bytes, key: Any, record: Any) -> bool:
    """False for a record that is missing or is not what was written."""
    if record is None or not is_whole(key, record):
        return False
    digests.add(bucket, key, record)
    return True
