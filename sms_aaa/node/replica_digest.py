"""Whether what the replica holds is what was written: LMDB has no checksums on its pages, so its records have.

A record of a service ends in a CRC-32 over its key and itself, which every read looks at: a login that meets a damaged
record is met with silence, never with somebody else's rights. What a CRC cannot see, a record that is gone or that
stands under another key, the digests see: for each bucket of BUCKET_SERVICES service ids the XOR of a 64-bit hash of
every record in it, changed in the transaction that changes the records. XOR, because a change then costs two hashes,
whatever else is in the bucket. They guard against failing disks and memory, not against people.
"""

from __future__ import annotations

import struct
import zlib
from hashlib import blake2b

BUCKET_SERVICES = 1024
RECORD_OCTETS_MAX = 32_768
"""A damaged length must not lead a reader far beyond the page, where the file may end."""

_RESIDUE = 0x2144DF1C  # the CRC-32 of anything that ends in its own CRC-32
_CRC_OCTETS = 4
_ID = struct.Struct(">Q")
_BUCKET = struct.Struct(">QI")
_EMPTY = (0, 0)


def seal(key: bytes, payload: bytes) -> bytes:
    """The payload with its checksum, to be stored under `key`."""
    return payload + zlib.crc32(payload, zlib.crc32(key)).to_bytes(_CRC_OCTETS, "little")


def is_whole(key: bytes, record: bytes | memoryview) -> bool:
    """Whether the record is what was stored under `key`."""
    return len(record) <= RECORD_OCTETS_MAX and zlib.crc32(record, zlib.crc32(key)) == _RESIDUE


def payload_of(record: bytes | memoryview) -> bytes | memoryview:
    """What was sealed; for a record that is whole."""
    return record[:-_CRC_OCTETS]


def record_hash(key: bytes, record: bytes | memoryview) -> int:
    """64 bits that depend on every bit of both."""
    return int.from_bytes(blake2b(key + record, digest_size=8).digest(), "big")


def bucket_key(service_id: int) -> bytes:
    return _ID.pack(service_id // BUCKET_SERVICES)


def first_id(bucket: bytes) -> bytes:
    """The key of the first service that can be in the bucket."""
    return _ID.pack(_ID.unpack(bucket)[0] * BUCKET_SERVICES)


class Digests:
    """Sums of hashes by bucket: of a whole replica, of a slice of it, or of what a change set adds and takes away."""

    __slots__ = ("_sums",)

    def __init__(self) -> None:
        self._sums: dict[bytes, tuple[int, int]] = {}

    def add(self, bucket: bytes, key: bytes, record: bytes | memoryview) -> None:
        xored, count = self._sums.get(bucket, _EMPTY)
        self._sums[bucket] = xored ^ record_hash(key, record), count + 1

    def take_away(self, bucket: bytes, key: bytes, record: bytes | memoryview) -> None:
        xored, count = self._sums.get(bucket, _EMPTY)
        self._sums[bucket] = xored ^ record_hash(key, record), count - 1

    def packed(self) -> dict[bytes, bytes]:
        """What is stored of each bucket; an empty one is not."""
        return {bucket: _BUCKET.pack(*one) for bucket, one in self._sums.items() if one != _EMPTY}

    def merged(self, bucket: bytes, stored: bytes | None) -> bytes | None:
        """What is to be stored of a bucket with this change in it; None: it is empty now."""
        xored, count = self._sums[bucket]
        before_xored, before_count = _EMPTY if stored is None else _BUCKET.unpack(stored)
        after = before_xored ^ xored, before_count + count
        # Fewer than none is damage; it is stored as a number that never fits, so that the scrub finds it.
        return None if after == _EMPTY else _BUCKET.pack(after[0], after[1] & 0xFFFF_FFFF)

    def buckets(self) -> list[bytes]:
        return list(self._sums)
