"""A journaled packet -> what it says about a session: decoded when it is settled, never before.

Text is what radius.packet.as_text makes of it: readable, and safe for a terminal and for PostgreSQL whatever the NAS
sent. Identifiers are kept exactly as they came, since a later command to the NAS must echo them.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from msgspec import Struct

from sms_aaa.db.sessions import SessionFacts, SessionKey
from sms_aaa.flows.access import read_class
from sms_aaa.flows.facts import facts_of, fingerprint_of, username_of
from sms_aaa.node.records import AccountingRecord
from sms_aaa.radius import dictionary
from sms_aaa.radius.faults import Malformed
from sms_aaa.radius.packet import (
    Packet,
    as_ipv4,
    as_text,
    parse,
)
from sms_aaa.rules.event_time import event_time
from sms_aaa.rules.session import Event, Place, Reading

if TYPE_CHECKING:
    from collections.abc import Mapping

OCTETS_MAX = 1 << 56
"""72 PB: more than a 100 Gbit/s port carries in two months of full load; sums of it still fit where sums are kept."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EVENTS = {1: Event.START, 2: Event.STOP, 3: Event.INTERIM, 7: Event.NAS_REBOOT, 8: Event.NAS_REBOOT}


class Heard(Struct, frozen=True, gc=False):
    """One record, understood. `service_id` and `token` are what our Class names, None without one.

    `fingerprint`: whether it says of its session what another record said; if so, its facts need not be read.
    """

    key: SessionKey
    reading: Reading
    packet: Packet
    service_id: int | None
    token: bytes | None
    fingerprint: int
    clock_overruled: bool
    told: SessionFacts | None

    @property
    def facts(self) -> SessionFacts:
        """A Start's are decoded when it is heard, for nearly all begin a session; others' when they are asked for."""
        return self.told or facts_of(self.packet, self.token)

    @property
    def username(self) -> str:
        return username_of(self.packet)


class Rebooted(Struct, frozen=True, gc=False):
    """Accounting-On or -Off of a NAS, at its event time."""

    nas_id: int
    nas_key: str
    at: datetime


class Unsettled(Struct, frozen=True, gc=False):
    """A record that says nothing to settle (`quarantine` False), or that cannot be settled, and why."""

    reason: str
    quarantine: bool


def hear(record: AccountingRecord, place: Place, *, single: bool) -> Heard | Rebooted | Unsettled:
    """`single`: the NAS is known by one address; one known by prefix is told apart by its own name for itself."""
    packet = parse(record.packet)
    if isinstance(packet, Malformed):
        return Unsettled(packet.fault.label, quarantine=True)
    status = _integer(packet, dictionary.ACCT_STATUS_TYPE)
    event = _EVENTS.get(status) if status is not None else None
    if event is None:
        # RFC 2866 section 5.1 leaves room for other types; they are on record in the journal.
        return Unsettled("unknown-status-type", quarantine=False)
    received_at = _instant(record.received_ns // 1000 / 1_000_000)
    delay_seconds = _integer(packet, dictionary.ACCT_DELAY_TIME) or 0
    stamp = _integer(packet, dictionary.EVENT_TIMESTAMP)
    at, overruled = event_time(None if stamp is None else _instant(stamp), delay_seconds, received_at)
    nas_key = "" if single else _nas_name(packet)
    if event is Event.NAS_REBOOT:
        return Rebooted(record.nas_id, nas_key, at)
    session_id = packet.attributes.get(dictionary.ACCT_SESSION_ID)
    if not session_id:
        return Unsettled("no-acct-session-id", quarantine=True)
    octets_in = _counter(packet, dictionary.ACCT_INPUT_OCTETS, dictionary.ACCT_INPUT_GIGAWORDS)
    octets_out = _counter(packet, dictionary.ACCT_OUTPUT_OCTETS, dictionary.ACCT_OUTPUT_GIGAWORDS)
    if (octets_in or 0) > OCTETS_MAX or (octets_out or 0) > OCTETS_MAX:
        return Unsettled("implausible-counters", quarantine=True)
    service_id, token = read_class(packet) or (None, None)
    # In the order of the fields: by their names it would take three times as long.
    reading = Reading(
        event, at, received_at, _integer(packet, dictionary.ACCT_SESSION_TIME), octets_in, octets_out,
        dictionary.ACCT_INPUT_GIGAWORDS in packet.attributes or dictionary.ACCT_OUTPUT_GIGAWORDS in packet.attributes,
        _integer(packet, dictionary.ACCT_TERMINATE_CAUSE), place, delay_seconds,
    )  # fmt: skip
    key = (record.nas_id, nas_key, as_text(session_id))
    told = facts_of(packet, token) if event is Event.START else None
    return Heard(key, reading, packet, service_id, token, fingerprint_of(packet, event, token), overruled, told)


class Listened(Struct, frozen=True, gc=False):
    """A record with what it says. `single`: what was known of its NAS then (see `hear`); None: there is none."""

    place: Place
    record: AccountingRecord
    single: bool | None
    said: Heard | Rebooted | Unsettled


def listen(place: Place, record: AccountingRecord, single_nas: Mapping[int, bool]) -> Listened:
    """`single_nas`: which NAS ids exist, and are one address."""
    single = single_nas.get(record.nas_id)
    if single is None:
        return Listened(place, record, None, Unsettled("unknown-nas", quarantine=True))
    return Listened(place, record, single, hear(record, place, single=single))


def _instant(seconds: float) -> datetime:
    """Since 1970. Whole microseconds stay what they are: a double holds them all, and the nearest one is taken."""
    return datetime.fromtimestamp(seconds, UTC)


def _nas_name(packet: Packet) -> str:
    identifier = _text(packet, dictionary.NAS_IDENTIFIER)
    return identifier or _address(packet, dictionary.NAS_IP_ADDRESS) or ""


def _integer(packet: Packet, key: int) -> int | None:
    value = packet.attributes.get(key)
    return int.from_bytes(value, "big") if value is not None and len(value) == 4 else None


def _counter(packet: Packet, octets: int, gigawords: int) -> int | None:
    """64 bits: RFC 2869 section 5.1 counts the wraps of the 32-bit octets."""
    low = _integer(packet, octets)
    return None if low is None else (_integer(packet, gigawords) or 0) << 32 | low


def _text(packet: Packet, key: int) -> str | None:
    value = packet.attributes.get(key)
    return None if value is None else as_text(value)


def _address(packet: Packet, key: int) -> str | None:
    value = packet.attributes.get(key)
    return None if value is None else as_ipv4(value)
