"""Reads a packet line: attributes by their names -> what an accounting record says, as flows/hearing.py hears it."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING

from msgspec.structs import replace

from sms_aaa.rules.event_time import event_time
from sms_aaa.rules.instants import INSTANT_MIN, instant_of, instant_us
from sms_aaa.rules.line_fields import Fields
from sms_aaa.rules.rating_keys import Traits, service_classes
from sms_aaa.rules.realms import split_realm
from sms_aaa.rules.session import Event, Place, Reading
from sms_aaa.rules.usage_lines import ITSELF, Packet

if TYPE_CHECKING:
    from collections.abc import Mapping

_INTEGER_MAX = 2**32 - 1
_EVENTS = {
    "start": Event.START, "1": Event.START,
    "stop": Event.STOP, "2": Event.STOP,
    "interim-update": Event.INTERIM, "alive": Event.INTERIM, "3": Event.INTERIM,
    "accounting-on": Event.NAS_REBOOT, "7": Event.NAS_REBOOT,
    "accounting-off": Event.NAS_REBOOT, "8": Event.NAS_REBOOT,
}  # fmt: skip
"""RFC 2866 section 5.1."""


def read_packet(line: Fields, key: str | None, known: frozenset[str]) -> Packet:
    """`known`: the names that attributes may have. LineInvalidError."""
    attributes = _attributes(line, known)
    event = _event(attributes)
    received_us, stamp = line.instant("at"), _stamp(attributes)
    delay_seconds = _integer(attributes, "Acct-Delay-Time") or 0
    if received_us is None and stamp is not None:
        received_us = instant_us(stamp) + delay_seconds * 1_000_000
    received = instant_of(0 if received_us is None else received_us)
    at, _ = event_time(stamp, delay_seconds, received)
    reading = None
    session = ""
    if event is not Event.NAS_REBOOT:
        session = attributes.text("Acct-Session-Id")
        reading = Reading(
            event,
            at,
            received,
            _integer(attributes, "Acct-Session-Time"),
            _counter(attributes, "Input"),
            _counter(attributes, "Output"),
            attributes.has("Acct-Input-Gigawords") or attributes.has("Acct-Output-Gigawords"),
            None,
            Place("usage", 0, line.line),
            delay_seconds,
        )
    at_us = INSTANT_MIN if received_us is None else instant_us(at)
    return Packet(
        line.line, at_us, _nas(line, attributes), session, reading, line.text("member", ITSELF), key,
        _traits(line, attributes),
    )  # fmt: skip


def dated_packet(packet: Packet, received_us: int) -> Packet:
    """A packet of which nothing told when it was received."""
    received = instant_of(received_us)
    if packet.reading is None:
        return replace(packet, at_us=received_us)
    at, _ = event_time(None, packet.reading.delay_seconds, received)
    return replace(packet, at_us=instant_us(at), reading=replace(packet.reading, at=at, received_at=received))


def _attributes(line: Fields, known: frozenset[str]) -> Fields:
    values = line.values.get("attributes")
    if not isinstance(values, dict):
        raise line.invalid("attributes", "is no object", "write an object of attributes by their names")
    found = Fields(line.line, values, "attributes.")
    for name in values:
        if name not in known and (remedy := _slip(name[:80], known)):
            raise found.invalid(ascii(name)[1:-1][:80], "is no attribute of the dictionary", remedy)
    return found


@lru_cache(maxsize=1_000)
def _slip(name: str, known: frozenset[str]) -> str | None:
    """What to write instead; None: it is some vendor's, and says nothing here, as in the daemon."""
    letters = _LETTERS.sub("", name.lower())
    meant = next((each for each in known if _LETTERS.sub("", each.lower()) == letters), None)
    if meant is not None:
        return f"write {meant}"
    return "write one of RFC 2866 or 2869, or leave it out" if letters.startswith("acct") else None


def _event(attributes: Fields) -> Event:
    value = attributes.values.get("Acct-Status-Type")
    event = _EVENTS.get(str(value).lower()) if not isinstance(value, bool) else None
    if event is None:
        reason = "is missing" if value is None else f"is {str(value)[:40]!r}"
        remedy = "write Start, Interim-Update, Stop, Accounting-On or Accounting-Off"
        raise attributes.invalid("Acct-Status-Type", reason, remedy)
    return event


def _stamp(attributes: Fields) -> datetime | None:
    """Event-Timestamp: seconds since 1970, or an instant."""
    value = attributes.values.get("Event-Timestamp")
    if value is None:
        return None
    if isinstance(value, str) and not value.isdigit():
        us = attributes.instant("Event-Timestamp")
        assert us is not None
        return instant_of(us)
    seconds = _integer(attributes, "Event-Timestamp")
    assert seconds is not None
    return _EPOCH + timedelta(seconds=seconds)


def _integer(attributes: Fields, name: str) -> int | None:
    value = attributes.values.get(name)
    if value is None:
        return None
    found = int(value) if isinstance(value, str) and value.isdecimal() and len(value) < 12 else value
    if not isinstance(found, int) or isinstance(found, bool) or not 0 <= found <= _INTEGER_MAX:
        raise attributes.invalid(name, f"is {str(value)[:40]}, no 32-bit integer", f"write 0 to {_INTEGER_MAX}")
    return found


def _counter(attributes: Fields, direction: str) -> int | None:
    """64 bits: RFC 2869 section 5.1 counts the wraps of the 32-bit octets."""
    low = _integer(attributes, f"Acct-{direction}-Octets")
    return None if low is None else (_integer(attributes, f"Acct-{direction}-Gigawords") or 0) << 32 | low


def _nas(line: Fields, attributes: Fields) -> str:
    if line.has("nas"):
        return line.text("nas")
    return _text(attributes, "NAS-Identifier") or _text(attributes, "NAS-IP-Address")


def _traits(line: Fields, attributes: Fields) -> Traits:
    parts = split_realm(_text(attributes, "User-Name").encode())
    classes = (
        (line.text("service_class"),) if line.has("service_class") else service_classes(_vendor(attributes.values))
    )
    realm = parts[1].decode() if parts is not None else ""
    return Traits(classes, line.text("nas_zone", ""), _text(attributes, "Called-Station-Id"), realm)


def _vendor(values: Mapping[str, object]) -> dict[str, str]:
    """What vendors' attributes say in words; those of RFCs, such as Class, are not of the service."""
    return {name: value for name, value in values.items() if isinstance(value, str) and name.startswith(_VENDORS)}


def _text(attributes: Fields, name: str) -> str:
    return attributes.text(name) if attributes.has(name) else ""


_LETTERS = re.compile("[^a-z0-9]")
_VENDORS = ("Cisco-", "Mikrotik-", "WISPr-", "ADSL-", "MS-")
_EPOCH = instant_of(instant_us(datetime.fromisoformat("1970-01-01T00:00:00+00:00")))
