"""Reading a replica through, beside those that read and write it: every record in the order of its key, page by page.

A reader that stayed in one transaction for a minute would keep every page that is replaced meanwhile, so each page is
a transaction of its own. What is read was true when it was read; who compares looks again at what differs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from sms_aaa.node.replica_digest import is_whole, payload_of
from sms_aaa.rules.entitlement import Entitlement

if TYPE_CHECKING:
    from collections.abc import Sequence

    import lmdb

    from sms_aaa.node.replica import Databases, Replica, ReplicaFault

_decode = msgspec.msgpack.Decoder(Entitlement).decode


class Held(Struct, frozen=True, gc=False):
    """A service as the replica has it. `entitlement` None: its record is damaged. `is_listed`: its id leads back to it.

    `key`: kind octet and identity.
    """

    key: bytes
    entitlement: Entitlement | None
    is_listed: bool


class ReplicaAudit:
    """Over a replica that is open for reading, in the process and thread that opened it."""

    def __init__(self, replica: Replica) -> None:
        self._tables: Databases = replica.databases

    def list_between(self, after: bytes, last: bytes | None, *, limit: int) -> list[Held] | ReplicaFault:
        """The services with keys above `after` and not above `last` (None: to the end), `limit` of them at most."""

        def look(transaction: lmdb.Transaction) -> list[Held]:
            held: list[Held] = []
            cursor = transaction.cursor(db=self._tables.identities)
            if cursor.set_range(after + b"\0"):
                for key, record in cursor:
                    if (last is not None and key > last) or len(held) == limit:
                        break
                    held.append(self._held(transaction, key, record))
            return held

        return self._tables.look(look)

    def list_of(self, keys: Sequence[bytes]) -> dict[bytes, Held] | ReplicaFault:
        """By key, those of the services that are there."""

        def look(transaction: lmdb.Transaction) -> dict[bytes, Held]:
            found = ((key, transaction.get(key, db=self._tables.identities)) for key in keys)
            return {key: self._held(transaction, key, record) for key, record in found if record is not None}

        return self._tables.look(look)

    def _held(self, transaction: lmdb.Transaction, key: bytes, record: bytes) -> Held:
        if not is_whole(key, record):
            return Held(key, None, is_listed=False)
        entitlement = _decode(payload_of(record))
        listed = transaction.get(entitlement.service_id.to_bytes(8, "big"), db=self._tables.services)
        return Held(key, entitlement, is_listed=listed == key)
