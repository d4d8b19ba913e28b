"""Extended attributes and TLVs (RFC 6929): what stands inside the values of attributes 241 to 246.

Packet.attributes has them as plain octets, since few packets bring them and fewer readers want them. Bounds are as
strict here: what does not fit exactly is no value.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sms_aaa.radius.packet import Packet

EXTENDED = (241, 242, 243, 244)
LONG_EXTENDED = (245, 246)
_MORE = 0x80


def extended_values(packet: Packet, kind: int) -> list[tuple[int, bytes]] | None:
    """(extended type, value) of every attribute `kind` of the packet, in order; None when one of them is malformed.

    Long ones (245, 246) that were cut into several attributes are put together again: all but the last have the flag
    More, and they follow each other.
    """
    found: list[tuple[int, bytes]] = []
    unfinished: tuple[int, bytes] | None = None
    header = 2 if kind in LONG_EXTENDED else 1
    for value in packet.all(kind):
        if len(value) <= header:
            return None
        extended, octets = value[0], value[header:]
        if unfinished is not None:
            if extended != unfinished[0]:
                return None
            octets = unfinished[1] + octets
        if header == 2 and value[1] & _MORE:
            unfinished = extended, octets
        else:
            unfinished = None
            found.append((extended, octets))
    return None if unfinished is not None else found


def read_tlvs(value: bytes) -> list[tuple[int, bytes]] | None:
    """(type, value) of the TLVs that a value is made of; None when they do not fill it exactly."""
    found = []
    offset, length = 0, len(value)
    while offset < length:
        end = offset + value[offset + 1] if offset + 1 < length else 0
        if not offset + 3 <= end <= length:
            return None
        found.append((value[offset], value[offset + 2 : end]))
        offset = end
    return found
