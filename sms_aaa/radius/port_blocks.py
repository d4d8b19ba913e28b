"""Which ports of which outside address a NAT gave to a subscriber, or took back, as accounting tells it.

RFC 8045 has attributes for it; vendors had theirs before: Huawei and NetElastic, H3C, Nokia. Others report their port
blocks by syslog or IPFIX alone.

A record whose port blocks cannot be read is good in all else: its usage counts. So a fault here is a value beside what
could be read.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import TYPE_CHECKING

from msgspec import Struct

from sms_aaa.radius.extended import extended_values, read_tlvs
from sms_aaa.radius.packet import as_integer, as_ipv4

if TYPE_CHECKING:
    from sms_aaa.radius.packet import Packet

PORT_MAX = 65_535
BLOCKS_MAX = 64
"""Of one record: more than any NAT gives a subscriber."""


class BlockFault(StrEnum):
    LAYOUT = "layout"  # an attribute, a TLV or a text that is not in its form
    ADDRESS = "address"  # ports without the outside address that they are of
    RANGE = "range"  # no ports, or a range that ends before it begins or beyond 65,535
    TOO_MANY = "too-many"


class PortBlock(Struct, frozen=True, gc=False):
    """Ports of an outside address that are given or, with `is_free`, taken back. `protocol`: IANA's, 0 for all.

    Taken back without an address: whatever the session has.
    """

    address: str | None
    port_from: int
    port_to: int
    protocol: int
    is_free: bool


_IP_PORT = 241
_RANGE, _FORWARDING = 6, 7
_TYPE, _OUTSIDE, _OUTSIDE_PORT, _ALLOC, _START, _END = 1, 3, 7, 8, 9, 10
_NUMBERS = (_TYPE, _OUTSIDE_PORT, _ALLOC, _START, _END)
_FREE = 2
_PROTOCOLS = {3: 6, 4: 17, 5: 1}
"""RFC 8045's IP-Port-Type: TCP, UDP, ICMP by themselves. 1 and 2 mean several as a whole."""

_TRIPLES = tuple(
    (vendor << 8 | address, vendor << 8 | start, vendor << 8 | end)
    for vendor, address, start, end in ((2011, 161, 162, 163), (54268, 161, 162, 163), (25506, 32, 33, 34))
)
"""Address, first port, last port: Huawei, NetElastic, H3C."""

_NOKIA = 6527 << 8 | 121
_NOKIA_FORM = re.compile(rb"(\d{1,3}(?:\.\d{1,3}){3}) (\d{1,5})-(\d{1,5})(?: .*)?", re.DOTALL)

_KEYS = frozenset((_IP_PORT, _NOKIA, *(key for triple in _TRIPLES for key in triple)))

Read = tuple[list[PortBlock], list[BlockFault]]


def may_tell_ports(packet: Packet) -> bool:
    """Whether read_port_blocks() would find anything: cheap, for packets of which nearly none does."""
    return not _KEYS.isdisjoint(packet.attributes)


def read_port_blocks(packet: Packet) -> Read:
    """What could be read, and what was wrong with the rest."""
    blocks: list[PortBlock] = []
    faults: list[BlockFault] = []
    for said in (*_standard(packet), *_triples(packet), *map(_nokia, packet.all(_NOKIA))):
        if isinstance(said, BlockFault):
            faults.append(said)
        elif said is not None and said not in blocks:
            blocks.append(said)
    if len(blocks) > BLOCKS_MAX:
        faults.append(BlockFault.TOO_MANY)
    return blocks[:BLOCKS_MAX], faults


def _standard(packet: Packet) -> list[PortBlock | BlockFault | None]:
    """RFC 8045: IP-Port-Range and IP-Port-Forwarding-Map. IP-Port-Limit-Info tells of no port."""
    values = extended_values(packet, _IP_PORT)
    if values is None:
        return [BlockFault.LAYOUT]
    return [_ip_port(kind, value) for kind, value in values if kind in {_RANGE, _FORWARDING}]


def _ip_port(kind: int, value: bytes) -> PortBlock | BlockFault | None:
    read = read_tlvs(value)
    tlvs = dict(read) if read is not None else None
    if read is None or tlvs is None or len(tlvs) != len(read):
        return BlockFault.LAYOUT
    numbers = {
        number: as_integer(tlvs[number]) for number in (_TYPE, _OUTSIDE_PORT, _ALLOC, _START, _END) if number in tlvs
    }
    address = as_ipv4(tlvs[_OUTSIDE]) if _OUTSIDE in tlvs else None
    if None in numbers.values() or (address is None and _OUTSIDE in tlvs):
        return BlockFault.LAYOUT
    is_free = numbers.get(_ALLOC) == _FREE
    first, last = (_START, _END) if kind == _RANGE else (_OUTSIDE_PORT, _OUTSIDE_PORT)
    if is_free and first not in numbers and last not in numbers:
        return PortBlock(address, 0, PORT_MAX, 0, True)  # RFC 8045: without a range all that was given is taken back
    protocol = _PROTOCOLS.get(numbers.get(_TYPE) or 0, 0)
    return _block(address, numbers.get(first), numbers.get(last), protocol, is_free=is_free)


def _triples(packet: Packet) -> list[PortBlock | BlockFault | None]:
    found: list[PortBlock | BlockFault | None] = []
    for address, start, end in _TRIPLES:
        addresses, starts, ends = packet.all(address), packet.all(start), packet.all(end)
        if not addresses and not starts and not ends:
            continue
        if len(addresses) == 1:  # several ranges of one address
            addresses = addresses * max(len(starts), 1)
        if not len(addresses) == len(starts) == len(ends):
            # An address alone is a NAT that shares none.
            found.append(BlockFault.LAYOUT if starts or ends else None)
            continue
        for outside, first, last in zip(addresses, starts, ends, strict=True):
            found.append(_block(as_ipv4(outside), as_integer(first), as_integer(last), 0, is_free=False))
    return found


def _nokia(value: bytes) -> PortBlock | BlockFault:
    """`203.0.113.9 1024-1535 router base`."""
    found = _NOKIA_FORM.fullmatch(value)
    if found is None:
        return BlockFault.LAYOUT
    octets = [int(part) for part in found[1].split(b".")]
    if max(octets) > 255:
        return BlockFault.LAYOUT
    return _block(".".join(map(str, octets)), int(found[2]), int(found[3]), 0, is_free=False)


def _block(
    address: str | None, first: int | None, last: int | None, protocol: int, *, is_free: bool
) -> PortBlock | BlockFault:
    if address is None:
        return BlockFault.ADDRESS
    if first is None or last is None or not first <= last <= PORT_MAX:
        return BlockFault.RANGE
    return PortBlock(address, first, last, protocol, is_free)
