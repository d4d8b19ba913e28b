"""What a packet says of its session beside its usage, and what a session's row keeps of what its packets said.

Of most things the first word stands, and a later packet fills in what none said before: many a NAS tells the address
only in its second record. What our Class names follows the latest login. Addresses follow the newest record, and those
it had before are kept with their times: a court asks who had one. A bundle's link count only grows. Vendor attributes
are kept as they were first told, and as the Stop tells them, whose figures are final; those of interims are not.

Facts hardly ever change from interim to interim. So each packet has a fingerprint of the octets that facts are made of:
where it is that of the session's newest record, there is nothing to decode.
"""

from __future__ import annotations

from ipaddress import ip_interface
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from sms_aaa.db.session_addresses import FormerAddress
from sms_aaa.db.sessions import SessionFacts
from sms_aaa.radius import dictionary
from sms_aaa.radius.packet import as_integer, as_ipv4, as_ipv6, as_ipv6_prefix, as_text
from sms_aaa.rules.session import Event

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from sms_aaa.radius.packet import Packet
    from sms_aaa.rules.session import Life

VENDOR_CHARACTERS_MAX = 2048
"""Of all of a session's vendor attributes as text; what goes beyond is counted, not kept."""

ADDRESS_KINDS = ("framed_ip", "framed_ipv6_prefix", "delegated_ipv6_prefix", "framed_ipv6_address")
_GREATEST = "acct_link_count"
_OTHERS = tuple(
    name
    for name in SessionFacts.__struct_fields__
    if name not in {*ADDRESS_KINDS, _GREATEST, "username", "token", "vendor_attributes", "addressed_at"}
)

_ERX, _HUAWEI, _NOKIA, _REDBACK = 4874 << 8, 2011 << 8, 6527 << 8, 2352 << 8
_ADDRESSES = frozenset((
    dictionary.FRAMED_IP_ADDRESS, dictionary.FRAMED_IPV6_PREFIX, dictionary.DELEGATED_IPV6_PREFIX,
    dictionary.FRAMED_IPV6_ADDRESS,
))  # fmt: skip
_CIRCUIT_IDS = (dictionary.ADSL_AGENT_CIRCUIT_ID, _REDBACK | 97, _ERX | 110)
_REMOTE_IDS = (dictionary.ADSL_AGENT_REMOTE_ID, _REDBACK | 96, _ERX | 182)
_FACT_KEYS = (
    dictionary.USER_NAME, dictionary.FRAMED_IP_ADDRESS, dictionary.FRAMED_IPV6_PREFIX,
    dictionary.DELEGATED_IPV6_PREFIX, dictionary.FRAMED_IPV6_ADDRESS, dictionary.FRAMED_INTERFACE_ID,
    dictionary.NAS_IP_ADDRESS, dictionary.NAS_IDENTIFIER, dictionary.NAS_PORT, dictionary.NAS_PORT_ID,
    dictionary.NAS_PORT_TYPE, dictionary.CALLING_STATION_ID, dictionary.CALLED_STATION_ID,
    dictionary.ACCT_MULTI_SESSION_ID, dictionary.ACCT_LINK_COUNT, dictionary.ACCT_AUTHENTIC, dictionary.SERVICE_TYPE,
    dictionary.FRAMED_PROTOCOL, dictionary.CONNECT_INFO, *_CIRCUIT_IDS, *_REMOTE_IDS,
)  # fmt: skip

_HIDDEN = frozenset((
    dictionary.CISCO << 8 | 249, _ERX | 9, _ERX | 37, _ERX | 86, _HUAWEI | 33, _NOKIA | 56, _NOKIA | 57, _NOKIA | 142,
    _REDBACK | 59, _REDBACK | 69, _REDBACK | 110,
))  # fmt: skip
"""Passwords and keys of vendors whose attributes have no names here: Cisco, Juniper, Huawei, Nokia, Redback."""
_HIDING_WORDS = ("key", "pass", "secret", "psk")


def username_of(packet: Packet) -> str:
    """As the NAS sent it; "" without one. CoovaChilli sends NULs where it knows none."""
    value = packet.attributes.get(dictionary.USER_NAME, b"")
    return as_text(value) if value.strip(b"\0") else ""


def fingerprint_of(packet: Packet, event: Event, token: bytes | None) -> int:
    """Equal for two packets that say the same of their session; for this process only."""
    said = tuple(map(packet.attributes.get, _FACT_KEYS))
    if event is Event.INTERIM:
        return hash((token, said))
    further = tuple(_further(packet))
    return hash((token, said, *further)) if further else hash((token, said))


def facts_of(packet: Packet, token: bytes | None) -> SessionFacts:
    return SessionFacts(
        username=username_of(packet),
        token=token,
        framed_ip=_address(packet, dictionary.FRAMED_IP_ADDRESS),
        framed_ipv6_prefix=_prefix(packet, dictionary.FRAMED_IPV6_PREFIX),
        delegated_ipv6_prefix=_prefix(packet, dictionary.DELEGATED_IPV6_PREFIX),
        framed_ipv6_address=_address6(packet, dictionary.FRAMED_IPV6_ADDRESS),
        nas_ip=_address(packet, dictionary.NAS_IP_ADDRESS),
        nas_identifier=_text(packet, dictionary.NAS_IDENTIFIER),
        nas_port=_integer(packet, dictionary.NAS_PORT),
        nas_port_id=_text(packet, dictionary.NAS_PORT_ID),
        nas_port_type=_integer(packet, dictionary.NAS_PORT_TYPE),
        calling_station_id=_text(packet, dictionary.CALLING_STATION_ID),
        called_station_id=_text(packet, dictionary.CALLED_STATION_ID),
        framed_interface_id=_interface_id(packet),
        acct_multi_session_id=_text(packet, dictionary.ACCT_MULTI_SESSION_ID),
        acct_link_count=_integer(packet, dictionary.ACCT_LINK_COUNT),
        acct_authentic=_integer(packet, dictionary.ACCT_AUTHENTIC),
        service_type=_integer(packet, dictionary.SERVICE_TYPE),
        framed_protocol=_integer(packet, dictionary.FRAMED_PROTOCOL),
        connect_info=_text(packet, dictionary.CONNECT_INFO),
        circuit_id=_first_text(packet, _CIRCUIT_IDS, "circuit-id-tag="),
        remote_id=_first_text(packet, _REMOTE_IDS, "remote-id-tag="),
        vendor_attributes=vendor_attributes_of(packet),
    )


def merge(
    known: SessionFacts, said: SessionFacts, life: Life, event: Event, at: datetime, *, is_latest: bool
) -> tuple[SessionFacts, list[FormerAddress]]:
    """A session's facts after a record of event time `at`, and the addresses that it had at other times.

    `life`: as it was before the record. `is_latest`: nothing about the session was received later.
    """
    changes: dict[str, object] = {
        name: value for name in _OTHERS if getattr(known, name) is None and (value := getattr(said, name)) is not None
    }
    if not known.username and said.username:
        changes["username"] = said.username
    if said.token not in {None, known.token} and (is_latest or known.token is None):
        changes["token"] = said.token
    if (said.acct_link_count or 0) > (known.acct_link_count or 0):
        changes[_GREATEST] = said.acct_link_count
    if said.vendor_attributes is not None and event is not Event.INTERIM:
        changes["vendor_attributes"] = _merged_vendor(known.vendor_attributes, said.vendor_attributes, event)
    former = _follow_addresses(known, said, life, at, changes)
    return (replace(known, **changes) if changes else known), former


def _follow_addresses(
    known: SessionFacts, said: SessionFacts, life: Life, at: datetime, changes: dict[str, object]
) -> list[FormerAddress]:
    told = {kind: value for kind in ADDRESS_KINDS if (value := getattr(said, kind)) is not None}
    other = {kind: value for kind, value in told.items() if _is_other(getattr(known, kind), value)}
    changes.update({kind: value for kind, value in told.items() if getattr(known, kind) is None})
    if not other:
        return []
    if at < life.updated_at:  # a late record: what it tells was so at its instant, and is so no longer
        return [FormerAddress(kind, value, at, at, at) for kind, value in other.items()]
    changes.update(other, addressed_at=at)
    since = min(known.addressed_at or life.started_at, life.updated_at)
    return [
        FormerAddress(kind, value, since, life.updated_at, at)
        for kind in ADDRESS_KINDS
        if (value := getattr(known, kind)) is not None
    ]


def _is_other(known: str | None, told: str) -> bool:
    """PostgreSQL writes some addresses in another way: an IPv4 address inside an IPv6 one is dotted."""
    return known not in {None, told} and ip_interface(str(known)) != ip_interface(told)


def vendor_attributes_of(packet: Packet) -> str | None:
    """Vendor attributes as a JSON object, by the dictionary's name else by number; None without any.

    A second address or prefix stands there too: a session's row has room for one of each.
    """
    found: dict[str, list[str]] = {}
    left = VENDOR_CHARACTERS_MAX
    for key, value in _further(packet):
        name, text = dictionary.describe_one(key, value)
        if key in _HIDDEN or _hides(text):
            text = "***"
        left -= len(name) + len(text)
        if left < 0:
            break
        found.setdefault(name, []).append(text)
    return _as_json(found) if found else None


def _further(packet: Packet) -> Iterator[tuple[int, bytes]]:
    """What of a packet has no column of its own and is kept all the same."""
    for item in packet.attributes.items():
        if item[0] > 255:
            yield item
    for item in packet.repeated or ():
        if item[0] > 255 or item[0] in _ADDRESSES:
            yield item


def _hides(text: str) -> bool:
    """An attribute-value pair like Cisco's that names a secret."""
    name, is_pair, _ = text.partition("=")
    return bool(is_pair) and any(word in name.lower() for word in _HIDING_WORDS)


def _as_json(found: dict[str, list[str]]) -> str:
    return msgspec.json.encode({n: texts[0] if len(texts) == 1 else texts for n, texts in found.items()}).decode()


def _merged_vendor(known: str | None, said: str, event: Event) -> str:
    """What the Stop tells replaces what was told under the same name; else the first word stands."""
    if known is None or known == said:
        return said
    before, after = msgspec.json.decode(known), msgspec.json.decode(said)
    merged = {**before, **after} if event is Event.STOP else {**after, **before}
    text = msgspec.json.encode(merged).decode()
    return text if len(text) <= 2 * VENDOR_CHARACTERS_MAX else (said if event is Event.STOP else known)


def _integer(packet: Packet, key: int) -> int | None:
    value = packet.attributes.get(key)
    return None if value is None else as_integer(value)


def _text(packet: Packet, key: int) -> str | None:
    value = packet.attributes.get(key)
    return None if value is None else as_text(value)


def _first_text(packet: Packet, keys: tuple[int, ...], pair: str) -> str | None:
    """The first of these attributes that is there, else the Cisco pair."""
    for key in keys:
        if key in packet.attributes:
            return as_text(packet.attributes[key])
    if dictionary.CISCO_AVPAIR not in packet.attributes:
        return None
    prefix = pair.encode()
    found = next((value for value in packet.all(dictionary.CISCO_AVPAIR) if value.startswith(prefix)), None)
    return None if found is None else as_text(found[len(prefix) :])


def _address(packet: Packet, key: int) -> str | None:
    """0.0.0.0 is what a NAS says that has none."""
    value = packet.attributes.get(key)
    return as_ipv4(value) if value is not None and value.strip(b"\0") else None


def _address6(packet: Packet, key: int) -> str | None:
    value = packet.attributes.get(key)
    return as_ipv6(value) if value is not None and value.strip(b"\0") else None


def _prefix(packet: Packet, key: int) -> str | None:
    """One of no bits holds every address there is: it is none."""
    value = packet.attributes.get(key)
    return as_ipv6_prefix(value) if value is not None and value[1:2] != b"\0" else None


def _interface_id(packet: Packet) -> str | None:
    value = packet.attributes.get(dictionary.FRAMED_INTERFACE_ID)
    return value.hex(":", 2) if value is not None and len(value) == 8 else None
