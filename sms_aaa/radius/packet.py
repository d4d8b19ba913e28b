"""The layout of a RADIUS packet: octets to a Packet, and attributes to octets.

This is the first code that a stranger's datagram meets and the most travelled of the program, hence its shape:

- One pass over the attributes, into a dict of number -> octets. Nothing is decoded before somebody reads it; the
  as_ functions below do that and give None for a value of the wrong size, which then counts as absent.
- Vendor attributes stand in the same dict under `vendor << 8 | type`. Vendor 0 is never unpacked: its keys would be
  those of the standard attributes, and a NAS's filter that knows no vendors would be walked around.
- A key that comes again keeps its first value in the dict and the others, in order, in `repeated`, so that the usual
  look-up costs one dict access and the rare reader of several values (Class, Proxy-State, EAP-Message) uses all().
- Bounds are strict: a packet that two readers may understand differently is a hole. RFC 2866 section 5 wants an
  Accounting-Request with an attribute of invalid length discarded. Of an Access-Request RFC 2865 section 5 says that
  it SHOULD be rejected; it is dropped too, because nothing tells whose it is before it is read and verified.

Whether a packet is genuine is not known here: that is digest.verify().
"""

from __future__ import annotations

from enum import IntEnum
from ipaddress import IPv6Address, IPv6Network
from typing import TYPE_CHECKING

from msgspec import Struct

from sms_aaa.radius.faults import Malformed, PacketFault

if TYPE_CHECKING:
    from collections.abc import Callable

HEADER_OCTETS = 20
PACKET_OCTETS_MAX = 4096  # RFC 2865 section 3
ATTRIBUTES_MAX = 200  # values, with those inside Vendor-Specific; what FreeRADIUS allows as well
VALUE_OCTETS_MAX = 253
VENDOR_VALUE_OCTETS_MAX = 247  # less the vendor's number and its own type and length


class Code(IntEnum):
    """RFC 2865 section 4, RFC 2866, RFC 5176, RFC 5997."""

    ACCESS_REQUEST = 1
    ACCESS_ACCEPT = 2
    ACCESS_REJECT = 3
    ACCOUNTING_REQUEST = 4
    ACCOUNTING_RESPONSE = 5
    ACCESS_CHALLENGE = 11
    STATUS_SERVER = 12
    STATUS_CLIENT = 13
    DISCONNECT_REQUEST = 40
    DISCONNECT_ACK = 41
    DISCONNECT_NAK = 42
    COA_REQUEST = 43
    COA_ACK = 44
    COA_NAK = 45


_CODES = frozenset(int(code) for code in Code)


class Packet(Struct, frozen=True, gc=False):
    """A packet whose layout is sound. `data` is cut to its Length; `authenticator` has 16 octets.

    `attributes` has the first value of each key, `repeated` the later ones in order (None: no key came twice).
    `message_authenticator_at` is the offset in `data` of the first Message-Authenticator's value, -1 without one.
    """

    data: bytes
    code: int  # a value of Code; an int, so that parsing costs no enum look-up
    identifier: int
    authenticator: bytes
    attributes: dict[int, bytes]
    repeated: list[tuple[int, bytes]] | None
    message_authenticator_at: int

    def all(self, key: int) -> list[bytes]:
        """Every value of `key`, in the order of the packet."""
        first = self.attributes.get(key)
        if first is None:
            return []
        return [first, *(value for again, value in self.repeated or () if again == key)]

    def in_order(self) -> list[tuple[int, bytes]]:
        """Every (key, value) in the order of the packet; for showing it, since it goes over the octets once more."""
        found: list[tuple[int, bytes]] = []
        offset = HEADER_OCTETS
        while offset < len(self.data):
            end = offset + self.data[offset + 1]
            kind, value = self.data[offset], self.data[offset + 2 : end]
            found.extend(_vendor_values(value) if kind == 26 else [(kind, value)])
            offset = end
        return found


def blanked(packet: Packet, is_blank: Callable[[int, bytes], bool]) -> bytes:
    """The packet's octets with zeros as those values of which `is_blank(key, value)` is true.

    Keys are those of `attributes`; a vendor's attribute is blanked alone. The authenticator was of what they were.
    """
    data = bytearray(packet.data)
    offset = HEADER_OCTETS
    while offset < len(data):
        start, end = offset + 2, offset + data[offset + 1]
        value = packet.data[start:end]
        values = _vendor_values(value) if data[offset] == 26 else [(data[offset], value)]
        if data[offset] == 26 and values[0][0] != 26:
            start += 4  # the vendor's number
            for key, part in values:
                start += 2
                if is_blank(key, part):
                    data[start : start + len(part)] = bytes(len(part))
                start += len(part)
        elif is_blank(data[offset], value):
            data[start:end] = bytes(len(value))
        offset = end
    return bytes(data)


def parse(datagram: bytes) -> Packet | Malformed:
    """A datagram as it came from the socket -> a Packet, or the fault for which it is to be dropped."""
    if len(datagram) < HEADER_OCTETS:
        return Malformed(PacketFault.TOO_SHORT)
    length = datagram[2] << 8 | datagram[3]
    if length > PACKET_OCTETS_MAX:
        return Malformed(PacketFault.TOO_LONG)
    if length != len(datagram):
        if length < HEADER_OCTETS or length > len(datagram):
            return Malformed(PacketFault.LENGTH_MISMATCH)
        # RFC 2865 section 3: octets outside the range of the Length field are padding, to be ignored.
        datagram = datagram[:length]
    code = datagram[0]
    if code not in _CODES:
        return Malformed(PacketFault.UNKNOWN_CODE)
    attributes: dict[int, bytes] = {}
    repeated: list[tuple[int, bytes]] = []
    found = _read_attributes(datagram, attributes, repeated)
    if not isinstance(found, int):
        return Malformed(found)
    return Packet(datagram, code, datagram[1], datagram[4:20], attributes, repeated or None, found)


def find_first(datagram: bytes, kind: int) -> bytes | None:
    """The first value of a standard attribute, read off a datagram that nobody has parsed; None where there is none.

    For somebody who has to choose between datagrams and has no time for all of them.
    """
    offset, length = HEADER_OCTETS, len(datagram)
    while offset + 2 <= length:
        end = offset + datagram[offset + 1]
        if not offset + 2 <= end <= length:
            return None
        if datagram[offset] == kind:
            return datagram[offset + 2 : end]
        offset = end
    return None


def _read_attributes(data: bytes, attributes: dict[int, bytes], repeated: list[tuple[int, bytes]]) -> int | PacketFault:
    """Fill `attributes` and `repeated`; give the offset of Message-Authenticator's value or -1."""
    message_authenticator_at = -1
    length = len(data)
    last = length - 1
    offset = HEADER_OCTETS
    # The last octet alone cannot begin an attribute: stopping before it keeps data[offset + 1] inside the packet. An
    # attribute that runs past the end is cut short by its slice, and leaves `offset` beyond `length`.
    while offset < last:
        kind = data[offset]
        start = offset + 2
        offset += data[offset + 1]
        if offset < start:
            return PacketFault.ATTRIBUTE_ZERO_LENGTH
        value = data[start:offset]
        if kind == 26:
            _keep(_vendor_values(value), attributes, repeated)
        elif kind in attributes:
            repeated.append((kind, value))
        else:
            attributes[kind] = value
            if kind == 80:
                message_authenticator_at = start
    if offset != length:
        return PacketFault.ATTRIBUTE_OVERRUN
    if len(attributes) + len(repeated) > ATTRIBUTES_MAX:
        return PacketFault.TOO_MANY_ATTRIBUTES
    return message_authenticator_at


def _keep(values: list[tuple[int, bytes]], attributes: dict[int, bytes], repeated: list[tuple[int, bytes]]) -> None:
    for key, value in values:
        if key in attributes:
            repeated.append((key, value))
        else:
            attributes[key] = value


def _vendor_values(value: bytes) -> list[tuple[int, bytes]]:
    """The attributes inside a Vendor-Specific, or itself when it is not in the recommended form.

    RFC 2865 section 5.26 recommends type and length of one octet each, and asks for Length >= 7. Vendors with another
    form (USR, Lucent, Starent) do not fit it exactly and so stay whole.
    """
    vendor = int.from_bytes(value[:4], "big")
    length = len(value)
    offset = 4
    found: list[tuple[int, bytes]] = []
    while offset < length - 1:
        end = offset + value[offset + 1]
        if end > length or end < offset + 2:
            break
        found.append((vendor << 8 | value[offset], value[offset + 2 : end]))
        offset = end
    if found and offset == length and vendor != 0:
        return found
    return [(26, value)]


def attribute(key: int, value: bytes) -> bytes:
    """One attribute as octets; a key above 255 makes a Vendor-Specific. ValueError when `value` does not fit."""
    if key < 256:
        if len(value) > VALUE_OCTETS_MAX:
            raise ValueError(f"attribute {key}: {len(value)} octets, the most is {VALUE_OCTETS_MAX}: shorten the value")
        return bytes((key, len(value) + 2)) + value
    vendor, kind = key >> 8, key & 255
    if len(value) > VENDOR_VALUE_OCTETS_MAX:
        raise ValueError(
            f"attribute {kind} of vendor {vendor}: {len(value)} octets, the most is {VENDOR_VALUE_OCTETS_MAX}: "
            "shorten the value"
        )
    return bytes((26, len(value) + 8)) + vendor.to_bytes(4, "big") + bytes((kind, len(value) + 2)) + value


def integer(number: int) -> bytes:
    """The value of an integer or date attribute. OverflowError outside of 32 bits: the caller clamps, knowingly."""
    return number.to_bytes(4, "big")


def ipv4(address: int) -> bytes:
    """The value of an address attribute, from the address as an integer."""
    return address.to_bytes(4, "big")


def as_integer(value: bytes) -> int | None:
    """None when it is not of 4 octets."""
    return int.from_bytes(value, "big") if len(value) == 4 else None


def as_ipv4(value: bytes) -> str | None:
    """Dotted; None when it is not of 4 octets."""
    return f"{value[0]}.{value[1]}.{value[2]}.{value[3]}" if len(value) == 4 else None


def as_ipv6(value: bytes) -> str | None:
    """As in RFC 5952; None when it is not of 16 octets."""
    return str(IPv6Address(value)) if len(value) == 16 else None


def as_ipv6_prefix(value: bytes) -> str | None:
    """`2001:db8::/56` from the form of RFC 3162 section 2.3; None when it is not in that form.

    The RFC wants the bits after the prefix to be zero. NASes are seen to send the whole address, so they are cleared.
    """
    if not 2 <= len(value) <= 18:
        return None
    bits = value[1]
    if bits > 128 or bits > 8 * (len(value) - 2):
        return None
    return str(IPv6Network((value[2:].ljust(16, b"\0"), bits), strict=False))


def as_text(value: bytes) -> str:
    """Text that may be written to a terminal, whoever sent it: what is not printable UTF-8 is shown escaped."""
    text = value.decode("utf-8", "backslashreplace")
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii") for letter in text
    )
