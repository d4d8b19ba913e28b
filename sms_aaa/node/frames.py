"""The octets of a journal file: its header, the framing of a record, and what is found when they are read back.

    file     64 octets of header, then records, then zeros up to the preallocated end
    record   u32 length (these 12 octets and the payload), u8 version, 3 zero octets, u32 checksum, payload;
             padded with zeros so that each record begins at a multiple of 8

A length of 0 means that nothing was written here. The checksum is a CRC-32 whose seed comes from stream, file and
offset (J3). CRC-32 has no secret and cannot stop a forger; the seed is there for accidents: a record that a failing
disk or a restored backup put elsewhere is valid at no other place, and after damage the search for the next record
cannot be misled by an old copy of one.

This module is pure: octets in, values out. journal.py owns the files.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING
from zlib import crc32

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Sequence

FILE_HEADER_OCTETS = 64
FILE_FORMAT_VERSION = 1
RECORD_FORMAT_VERSION = 1
PAYLOAD_OCTETS_MAX = 65_536  # a RADIUS packet has 4,096 at most
RAW_OCTETS_MAX = 8_192  # of a damaged stretch, kept for whoever looks into it

_MAGIC = b"SMSAAAJ1"
_FILE_HEADER = struct.Struct("<8sHH4xQQ16s12x")  # magic, version, stream, sequence, preallocated octets, database id
_CHECKSUM = struct.Struct("<I")
_RECORD = struct.Struct("<IB3xI")  # length, version, checksum
_SEED = struct.Struct("<QIB3x")  # offset, then the record's first 8 octets
_OFFSET = struct.Struct("<Q")
_CHECKED_OCTETS = 8  # of a record's header, before its checksum
_PADDING = tuple(bytes(-octets % 8) for octets in range(8))

RECORD_HEADER_OCTETS = _RECORD.size
RECORD_OCTETS_MAX = (RECORD_HEADER_OCTETS + PAYLOAD_OCTETS_MAX + 7) & ~7


@dataclass(frozen=True, slots=True, kw_only=True)
class FileHeader:
    """`preallocated_octets`: the file's size until its writer closes it; a shorter file was closed in good order."""

    stream: int
    sequence: int
    database_id: bytes
    preallocated_octets: int


class HeaderFault(Enum):
    FOREIGN = "it does not begin like a journal file"
    DAMAGED = "its header is damaged"
    VERSION = "it was written by another version of this program"


class DamageReason(Enum):
    """What was seen where a record should begin."""

    CHECKSUM = "checksum"
    LENGTH = "length"  # below its own header's or beyond the largest record
    ZEROS = "zeros"  # nothing was written here although something was, further on
    SHORT = "short"  # the file ends before the record does
    VERSION = "version"  # whole, but framed by another version of this program


class Record(Struct, frozen=True, gc=False):
    offset: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Damage:
    """Octets [offset, offset + octets) that hold no valid record; `raw` is their beginning, RAW_OCTETS_MAX at most.

    `is_last`: nothing valid follows. In the file of a writer that died this is, most often, the write that it died
    in, which was never answered.
    """

    offset: int
    octets: int
    reason: DamageReason
    raw: bytes
    is_last: bool


@dataclass(frozen=True, slots=True)
class Scanned:
    records: list[Record]
    damaged: list[Damage]
    next_offset: int


def pack_file_header(header: FileHeader) -> bytes:
    octets = _FILE_HEADER.pack(
        _MAGIC, FILE_FORMAT_VERSION, header.stream, header.sequence, header.preallocated_octets, header.database_id
    )
    return octets + _CHECKSUM.pack(crc32(octets))


def parse_file_header(octets: bytes) -> FileHeader | HeaderFault:
    """`octets`: the file's first FILE_HEADER_OCTETS, or as many as there are."""
    if len(octets) < FILE_HEADER_OCTETS or not octets.startswith(_MAGIC):
        return HeaderFault.FOREIGN
    if crc32(octets[: _FILE_HEADER.size]) != _CHECKSUM.unpack_from(octets, _FILE_HEADER.size)[0]:
        return HeaderFault.DAMAGED
    _, version, stream, sequence, preallocated, database_id = _FILE_HEADER.unpack_from(octets)
    if version != FILE_FORMAT_VERSION:
        return HeaderFault.VERSION
    return FileHeader(stream=stream, sequence=sequence, database_id=database_id, preallocated_octets=preallocated)


def file_seed(*, stream: int, sequence: int) -> int:
    """What the checksums of one file's records begin with (J3)."""
    return crc32(struct.pack("<IQ", stream, sequence))


def framed_octets(payloads: Sequence[bytes]) -> int:
    """How much of a file these payloads take."""
    return sum([(len(payload) + (RECORD_HEADER_OCTETS + 7)) & -8 for payload in payloads])


def pack_records(payloads: Sequence[bytes], *, offset: int, seed: int) -> bytes:
    """The payloads framed for this place of this file, in order, as one string of octets."""
    parts: list[bytes] = []
    for payload in payloads:
        length = RECORD_HEADER_OCTETS + len(payload)
        checksum = crc32(payload, crc32(_SEED.pack(offset, length, RECORD_FORMAT_VERSION), seed))
        parts += (_RECORD.pack(length, RECORD_FORMAT_VERSION, checksum), payload, _PADDING[length & 7])
        offset += (length + 7) & -8
    return b"".join(parts)


def scan(window: bytes, *, offset: int, limit: int, end: int, seed: int, records_max: int) -> Scanned:
    """The records that begin in [offset, limit) of a file; `window` is what the file has from `offset` on.

    `end` is where the file's records end; limit <= end. The window must reach RECORD_OCTETS_MAX beyond the limit
    unless the file ends before that. Everything up to `next_offset` is accounted for: as a record or as damage.
    """
    records: list[Record] = []
    damaged: list[Damage] = []
    position = offset
    while position < limit and len(records) < records_max:
        start = position - offset
        length = _checked_length(window, start, offset=position, seed=seed)
        if isinstance(length, DamageReason):
            resumed = _next_record(window, start + 8, offset=offset, limit=limit, seed=seed)
            octets = resumed - position
            raw = window[start : start + min(octets, RAW_OCTETS_MAX)]
            damaged.append(Damage(position, octets, length, raw, is_last=resumed >= end))
            position = resumed
            continue
        octets = (length + 7) & -8
        if window[start + 4] == RECORD_FORMAT_VERSION:
            records.append(Record(position, window[start + RECORD_HEADER_OCTETS : start + length]))
        else:
            raw = window[start : start + min(octets, RAW_OCTETS_MAX)]
            damaged.append(Damage(position, octets, DamageReason.VERSION, raw, is_last=position + octets >= end))
        position += octets
    return Scanned(records, damaged, position)


def _checked_length(window: bytes, start: int, *, offset: int, seed: int) -> int | DamageReason:
    """The length of the record at `start`, which is `offset` in the file, if it is whole and its checksum holds."""
    if start + RECORD_HEADER_OCTETS > len(window):
        return DamageReason.SHORT
    length, _version, checksum = _RECORD.unpack_from(window, start)
    if length == 0:
        return DamageReason.ZEROS
    if not RECORD_HEADER_OCTETS <= length <= RECORD_OCTETS_MAX:
        return DamageReason.LENGTH
    if start + length > len(window):
        return DamageReason.SHORT
    seeded = crc32(window[start : start + _CHECKED_OCTETS], crc32(_OFFSET.pack(offset), seed))
    if crc32(window[start + RECORD_HEADER_OCTETS : start + length], seeded) != checksum:
        return DamageReason.CHECKSUM
    return int(length)


def _next_record(window: bytes, start: int, *, offset: int, limit: int, seed: int) -> int:
    """The first place from `start` on where a valid record begins, as a file offset; `limit` when there is none."""
    for candidate in range(start, limit - offset, 8):
        if isinstance(_checked_length(window, candidate, offset=offset + candidate, seed=seed), int):
            return offset + candidate
    return limit
