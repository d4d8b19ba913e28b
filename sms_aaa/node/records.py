"""What stands in a journal record: the payloads of both streams. How records are framed is frames.py's affair.

An accounting record is the packet as it was received, with what the packet does not say: from where, of which NAS,
when. It is decoded when it is settled, so that a mended decoder can replay it. A decision record is a batch of Access
answers, each with what it was decided on; there is no place in it for a password, a hash or a key.

Each payload begins with its own format version: files outlive the program that wrote them.
"""

from __future__ import annotations

import struct
from enum import Enum

import msgspec
from msgspec import Struct, structs

from sms_aaa.node.frames import PAYLOAD_OCTETS_MAX

_ACCOUNTING_VERSION = 1
_DECISION_VERSION = b"\x02"
_SINGLE_DECISION_VERSION = (
    b"\x01"  # what was written before batches: one decision, its instant first, its duration last
)
_ACCOUNTING = struct.Struct("<BBHIQ")  # version, octets of the source's text, port, nas, received; source; packet


class RecordFault(Enum):
    """Why a payload cannot be read although the journal's checksum holds."""

    SHORT = "short"
    VERSION = "version"
    MALFORMED = "malformed"


class AccountingRecord(Struct, frozen=True, gc=False):
    """`packet` octet for octet as received from `source` (an IP address as text), `source_port`."""

    received_ns: int
    nas_id: int
    source: str
    source_port: int
    packet: bytes


class DecisionRecord(Struct, frozen=True, gc=False, array_like=True):
    """One Access answer. `service_id`, `plan_version_id` 0: there was none. `reason_code` as in rules/reasons.py.

    Texts are octets as they came; `token` is b"" for a refusal; `saw` is what the check that failed looked at, in a few
    words, where nothing else of the record tells.
    """

    nas_id: int
    service_id: int
    plan_version_id: int
    reason_code: int
    method: int
    username: bytes
    calling_station_id: bytes
    nas_port: bytes
    token: bytes
    sessions_seen: int
    sessions_max: int
    saw: bytes = b""


class DecisionBatch(Struct, frozen=True, gc=False, array_like=True):
    """What was answered together: when, how long after its receipt, and each decision in the order of arrival."""

    at_ns: int
    duration_us: int
    decisions: list[DecisionRecord]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(DecisionBatch).decode
_decode_any = msgspec.msgpack.Decoder().decode


def pack_accounting(record: AccountingRecord) -> bytes:
    source = record.source.encode()
    return (
        _ACCOUNTING.pack(_ACCOUNTING_VERSION, len(source), record.source_port, record.nas_id, record.received_ns)
        + source
        + record.packet
    )


def unpack_accounting(payload: bytes) -> AccountingRecord | RecordFault:
    if len(payload) < _ACCOUNTING.size:
        return RecordFault.SHORT
    version, source_octets, source_port, nas_id, received_ns = _ACCOUNTING.unpack_from(payload)
    if version != _ACCOUNTING_VERSION:
        return RecordFault.VERSION
    packet_start = _ACCOUNTING.size + source_octets
    if len(payload) < packet_start:
        return RecordFault.SHORT
    try:
        source = payload[_ACCOUNTING.size : packet_start].decode()
    except UnicodeDecodeError:
        return RecordFault.MALFORMED
    return AccountingRecord(received_ns, nas_id, source, source_port, payload[packet_start:])


def pack_decisions(batch: DecisionBatch) -> list[bytes]:
    """One payload, most often; more where the texts are long, since a payload has a bound."""
    packed = _DECISION_VERSION + _encode(batch)
    if len(packed) <= PAYLOAD_OCTETS_MAX:
        return [packed]
    half = len(batch.decisions) // 2
    assert half, "one decision, whose texts are attributes, fits into a payload"
    parts = (batch.decisions[:half], batch.decisions[half:])
    return [payload for part in parts for payload in pack_decisions(structs.replace(batch, decisions=part))]


def unpack_decisions(payload: bytes) -> DecisionBatch | RecordFault:
    if len(payload) < 2:
        return RecordFault.SHORT
    try:
        if payload.startswith(_DECISION_VERSION):
            return _decode(payload[1:])
        if payload.startswith(_SINGLE_DECISION_VERSION):
            at_ns, *fields, duration_us = _decode_any(payload[1:])
            return msgspec.convert([at_ns, duration_us, [fields]], DecisionBatch)
    except (msgspec.MsgspecError, TypeError, ValueError):
        return RecordFault.MALFORMED
    return RecordFault.VERSION
