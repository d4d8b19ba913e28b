"""Journal records as people read them: where one stands, what it says, attribute by attribute, and its octets.

An accounting record is decoded as it is when it is settled; what cannot be decoded is shown with the fault and its
octets. A secret is never shown: attributes that hold one read `***`, and in the octets `**`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sms_aaa.flows.surveying import instant
from sms_aaa.node.journal import Stream
from sms_aaa.node.journal_survey import Look, walk
from sms_aaa.node.records import AccountingRecord, DecisionBatch, RecordFault, unpack_accounting, unpack_decisions
from sms_aaa.radius import dictionary
from sms_aaa.radius.credentials import Method
from sms_aaa.radius.dictionary import describe
from sms_aaa.radius.faults import Malformed
from sms_aaa.radius.packet import as_integer, as_text, parse
from sms_aaa.radius.values import AcctStatusType
from sms_aaa.rules.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from sms_aaa.node.records import DecisionRecord

_HEADER_OCTETS = 20
_VENDOR_OCTETS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadRecord:
    """A record, or one decision of a record of decisions. `nas_id` 0 and `at` None: not to be read; `fault` says why.

    `status` is the Acct-Status-Type, or what was decided; `octets` the packet in hex, its secrets blotted out.
    """

    stream: Stream
    sequence: int
    offset: int
    at: datetime | None
    nas_id: int
    source: str
    status: str
    username: str
    session: str
    attributes: tuple[tuple[str, str], ...]
    fault: str | None
    octets: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sought:
    """Which records; None: any. `username` and `session` exactly as the NAS sent them, `status` as it is shown."""

    nas_id: int | None = None
    username: str | None = None
    session: str | None = None
    status: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    def matches(self, record: ReadRecord) -> bool:
        return (
            (self.nas_id is None or record.nas_id == self.nas_id)
            and (self.username is None or record.username == self.username)
            and (self.session is None or record.session == self.session)
            and (self.status is None or record.status.lower() == self.status.lower())
            and (self.since is None or (record.at is not None and record.at >= self.since))
            and (self.until is None or (record.at is not None and record.at < self.until))
        )

    def may_match(self, payload: bytes) -> bool:
        """Whether it is worth decoding: plain names stand in the octets as they are."""
        names = (name for name in (self.username, self.session) if name is not None)
        return all(name.encode() in payload for name in names if name.isascii() and "\\" not in name)


def read_records(seen: Look, sought: Sought, *, offset: int = 0) -> Iterator[ReadRecord]:
    """The records of a file from `offset` on that are sought, in their order."""
    if seen.header is None:
        return
    for batch in walk(seen.file, stream=seen.stream, database_id=seen.header.database_id, offset=offset, end=seen.end):
        for record in batch.records:
            if sought.may_match(record.payload):
                for one in decode(seen.stream, seen.file.sequence, record.offset, record.payload):
                    if sought.matches(one):
                        yield one


def decode(stream: Stream, sequence: int, offset: int, payload: bytes) -> list[ReadRecord]:
    """One payload: an accounting record is one, a batch of decisions as many as it has."""
    if stream is Stream.ACCOUNTING:
        return [_accounting(sequence, offset, payload)]
    batch = unpack_decisions(payload)
    if isinstance(batch, RecordFault):
        return [_unread(stream, sequence, offset, payload, batch.value)]
    return [_decision(sequence, offset, batch, item, one) for item, one in enumerate(batch.decisions)]


def decode_packet(sequence: int, offset: int, packet: bytes) -> ReadRecord:
    """A packet of which nothing else is known."""
    return _packet(sequence, offset, AccountingRecord(0, 0, "", 0, packet))


def _accounting(sequence: int, offset: int, payload: bytes) -> ReadRecord:
    record = unpack_accounting(payload)
    if isinstance(record, RecordFault):
        return _unread(Stream.ACCOUNTING, sequence, offset, payload, record.value)
    return _packet(sequence, offset, record)


def _packet(sequence: int, offset: int, record: AccountingRecord) -> ReadRecord:
    packet = parse(record.packet)
    at = instant(record.received_ns) if record.received_ns else None
    source = f"{record.source}:{record.source_port}" if record.source else ""
    octets = masked_hex(record.packet)
    if isinstance(packet, Malformed):
        return ReadRecord(
            stream=Stream.ACCOUNTING, sequence=sequence, offset=offset, at=at, nas_id=record.nas_id, source=source,
            status="", username="", session="", attributes=(), fault=packet.fault.label, octets=octets,
        )  # fmt: skip
    status = as_integer(packet.attributes.get(dictionary.ACCT_STATUS_TYPE, b""))
    return ReadRecord(
        stream=Stream.ACCOUNTING,
        sequence=sequence,
        offset=offset,
        at=at,
        nas_id=record.nas_id,
        source=source,
        status=AcctStatusType.name_of(status) if status is not None else "",
        username=as_text(packet.attributes.get(dictionary.USER_NAME, b"")),
        session=as_text(packet.attributes.get(dictionary.ACCT_SESSION_ID, b"")),
        attributes=tuple(describe(packet)),
        fault=None,
        octets=octets,
    )


def _decision(sequence: int, offset: int, batch: DecisionBatch, item: int, one: DecisionRecord) -> ReadRecord:
    told = (
        ("item", str(item)), ("calling-station-id", as_text(one.calling_station_id)),
        ("nas-port", as_text(one.nas_port)), ("method", _method(one.method)), ("saw", as_text(one.saw)),
        ("service-id", str(one.service_id or "")), ("plan-version-id", str(one.plan_version_id or "")),
        ("token", one.token.hex()), ("sessions", f"{one.sessions_seen} of {one.sessions_max or 'any number'}"),
        ("duration-us", str(batch.duration_us)),
    )  # fmt: skip
    return ReadRecord(
        stream=Stream.DECISIONS, sequence=sequence, offset=offset, at=instant(batch.at_ns), nas_id=one.nas_id,
        source="", status=_reason(one.reason_code), username=as_text(one.username), session="",
        attributes=tuple((name, text) for name, text in told if text), fault=None, octets="",
    )  # fmt: skip


def _reason(code: int) -> str:
    try:
        return Reason.by_code(code).label
    except ValueError:
        return f"reason {code}"


def _method(number: int) -> str:
    try:
        return Method(number).name.lower()
    except ValueError:
        return str(number)


def _unread(stream: Stream, sequence: int, offset: int, payload: bytes, fault: str) -> ReadRecord:
    return ReadRecord(
        stream=stream, sequence=sequence, offset=offset, at=None, nas_id=0, source="", status="", username="",
        session="", attributes=(), fault=fault, octets=payload.hex(),
    )  # fmt: skip


def masked_hex(packet: bytes) -> str:
    """The packet's octets in hex, with `**` for each octet of a value that is a secret.

    It walks as far as the octets look like attributes: what follows a broken one has no type and is shown.
    """
    text = [packet[:_HEADER_OCTETS].hex()]
    offset = _HEADER_OCTETS
    while offset + 2 <= len(packet):
        kind, octets = packet[offset], packet[offset + 1]
        end = offset + octets
        if octets < 2 or end > len(packet):
            break
        value = packet[offset + 2 : end]
        text.append(packet[offset : offset + 2].hex())
        text.append(_masked_vendor(value) if kind == dictionary.VENDOR_SPECIFIC else _masked(kind, value))
        offset = end
    return "".join(text) + packet[offset:].hex()


def _masked_vendor(value: bytes) -> str:
    """RFC 2865 section 5.26: four octets of vendor, then attributes of its own, if they look like such."""
    vendor = int.from_bytes(value[:_VENDOR_OCTETS])
    text, offset = [value[:_VENDOR_OCTETS].hex()], _VENDOR_OCTETS
    while offset + 2 <= len(value):
        kind, end = value[offset], offset + value[offset + 1]
        if end < offset + 2 or end > len(value):
            break
        text.append(value[offset : offset + 2].hex() + _masked(vendor << 8 | kind, value[offset + 2 : end]))
        offset = end
    return "".join(text) + value[offset:].hex()


def _masked(key: int, value: bytes) -> str:
    known = dictionary.ATTRIBUTES.get(key)
    is_secret = known is not None and known.kind is dictionary.Kind.SECRET
    return "*" * (2 * len(value)) if is_secret else value.hex()
