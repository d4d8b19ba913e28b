"""Port blocks as NATs tell them, by hand from RFC 8045 and the vendors' forms; and whatever else may come."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sms_aaa.radius.extended import extended_values, read_tlvs
from sms_aaa.radius.packet import Code, Packet, attribute, parse
from sms_aaa.radius.port_blocks import BLOCKS_MAX, BlockFault, PortBlock, may_tell_ports, read_port_blocks

HUAWEI, NETELASTIC, H3C, NOKIA = 2011 << 8, 54268 << 8, 25506 << 8, 6527 << 8
OUTSIDE = "03 06 cb007109"  # TLV 3, IP-Port-Ext-IPv4-Addr: 203.0.113.9
ALLOCATED, FREED = "08 06 00000001", "08 06 00000002"
START, END = "09 06 00000400", "0a 06 000005ff"


def packet(*attributes: bytes) -> Packet:
    body = b"".join(attributes)
    parsed = parse(bytes((Code.ACCOUNTING_REQUEST, 1)) + (20 + len(body)).to_bytes(2, "big") + bytes(16) + body)
    assert isinstance(parsed, Packet)
    return parsed


def standard(kind: int, *tlvs: str) -> bytes:
    return attribute(241, bytes((kind,)) + b"".join(map(bytes.fromhex, tlvs)))


def number(key: int, value: int) -> bytes:
    return attribute(key, value.to_bytes(4, "big"))


def block(first: int = 1024, last: int = 1535, **more: object) -> PortBlock:
    plain = {"address": "203.0.113.9", "protocol": 0, "is_free": False}
    return PortBlock(**{**plain, "port_from": first, "port_to": last, **more})


RFC_8045 = {
    "a range that is allocated": ([OUTSIDE, ALLOCATED, START, END], block()),
    "TLVs in another order, and one that says nothing here": (
        ["0b 04 4142", END, ALLOCATED, OUTSIDE, START],
        block(),
    ),
    "for UDP alone": (["01 06 00000004", OUTSIDE, ALLOCATED, START, END], block(protocol=17)),
    "a range that is free again": ([OUTSIDE, FREED, START, END], block(is_free=True)),
    "all of an address is free again": ([OUTSIDE, FREED], block(0, 65535, is_free=True)),
    "everything is free again": ([FREED], block(0, 65535, address=None, is_free=True)),
    "without its outside address": ([ALLOCATED, START, END], BlockFault.ADDRESS),
    "without its range": ([OUTSIDE, ALLOCATED], BlockFault.RANGE),
    "a range that ends before it begins": ([OUTSIDE, ALLOCATED, "09 06 00000600", END], BlockFault.RANGE),
    "a port beyond 65535": ([OUTSIDE, ALLOCATED, START, "0a 06 00010000"], BlockFault.RANGE),
    "a TLV of length 2": (["08 02", OUTSIDE], BlockFault.LAYOUT),
    "a TLV that runs past the end": ([OUTSIDE, "08 07 00000001"], BlockFault.LAYOUT),
    "one octet at the end": ([OUTSIDE, ALLOCATED, START, END, "09"], BlockFault.LAYOUT),
    "the same TLV twice": ([OUTSIDE, ALLOCATED, START, START, END], BlockFault.LAYOUT),
    "an integer of 2 octets": ([OUTSIDE, ALLOCATED, "09 04 0400", END], BlockFault.LAYOUT),
    "an address of 3 octets": (["03 05 cb0071", ALLOCATED, START, END], BlockFault.LAYOUT),
}


@pytest.mark.parametrize(("tlvs", "found"), RFC_8045.values(), ids=RFC_8045)
def test_rfc_8045_ip_port_range(tlvs: list[str], found: PortBlock | BlockFault) -> None:
    blocks, faults = read_port_blocks(packet(standard(6, *tlvs)))
    assert [*blocks, *faults] == [found]


def test_rfc_8045_ip_port_forwarding_map_is_a_block_of_one_port() -> None:
    told = packet(standard(7, OUTSIDE, "06 06 00000050", "07 06 00001f90", "01 06 00000003"))
    assert read_port_blocks(told) == ([block(8080, 8080, protocol=6)], [])


def test_rfc_8045_ip_port_limit_info_tells_of_no_port() -> None:
    assert read_port_blocks(packet(standard(5, OUTSIDE, "02 06 00000200"))) == ([], [])


@pytest.mark.parametrize(
    ("address", "start", "end"),
    [
        (HUAWEI | 161, HUAWEI | 162, HUAWEI | 163),
        (NETELASTIC | 161, NETELASTIC | 162, NETELASTIC | 163),
        (H3C | 32, H3C | 33, H3C | 34),
    ],
    ids=["Huawei", "NetElastic", "H3C"],
)
def test_three_attributes_of_a_vendor_are_a_block(address: int, start: int, end: int) -> None:
    outside = attribute(address, bytes((203, 0, 113, 9)))
    one = packet(outside, number(start, 1024), number(end, 1535))
    assert read_port_blocks(one) == ([block()], [])
    two = packet(outside, number(start, 1024), number(end, 1535), number(start, 4096), number(end, 4607))
    assert read_port_blocks(two) == ([block(), block(4096, 4607)], [])
    assert read_port_blocks(packet(outside)) == ([], []), "an address alone is shared with nobody"
    assert read_port_blocks(packet(outside, number(start, 1))) == ([], [BlockFault.LAYOUT])
    assert read_port_blocks(packet(number(start, 1), number(end, 2))) == ([], [BlockFault.LAYOUT])
    assert read_port_blocks(packet(outside, number(start, 9), number(end, 2))) == ([], [BlockFault.RANGE])


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (b"203.0.113.9 1024-1535 router base", block()),
        (b"203.0.113.9 1024-1535 router base nat-policy-1", block()),
        (b"203.0.113.9 1024-1535", block()),
        (b"203.0.113.256 1024-1535 router base", BlockFault.LAYOUT),
        (b"203.0.113.9 1024-99999 router base", BlockFault.RANGE),
        (b"203.0.113.9 1024 router base", BlockFault.LAYOUT),
        (b"203.0.113.9 1024-1535router", BlockFault.LAYOUT),
        (b"", BlockFault.LAYOUT),
        (b"\xff" * 247, BlockFault.LAYOUT),
    ],
)
def test_nokia_tells_a_block_as_text(text: bytes, found: PortBlock | BlockFault) -> None:
    blocks, faults = read_port_blocks(packet(attribute(NOKIA | 121, text)))
    assert [*blocks, *faults] == [found]


def test_several_blocks_of_a_record_are_all_told_and_a_repeated_one_once() -> None:
    first, second = standard(6, OUTSIDE, ALLOCATED, START, END), attribute(NOKIA | 121, b"198.51.100.1 1-9 router base")
    blocks, faults = read_port_blocks(packet(first, second, first))
    assert (blocks, faults) == ([block(), block(1, 9, address="198.51.100.1")], [])


def test_a_bad_block_does_not_hide_a_good_one() -> None:
    told = packet(standard(6, ALLOCATED, START, END), attribute(NOKIA | 121, b"203.0.113.9 1024-1535"))
    assert read_port_blocks(told) == ([block()], [BlockFault.ADDRESS])


def test_more_blocks_than_any_nat_gives_are_cut_and_named() -> None:
    many = [attribute(NOKIA | 121, b"203.0.113.9 %d-%d" % (n, n)) for n in range(BLOCKS_MAX + 1)]
    blocks, faults = read_port_blocks(packet(*many))
    assert (len(blocks), faults) == (BLOCKS_MAX, [BlockFault.TOO_MANY])


def test_a_packet_without_any_of_it_is_passed_by() -> None:
    assert not may_tell_ports(packet(attribute(1, b"alice")))
    assert may_tell_ports(packet(standard(6, FREED)))


RFC_6929 = {
    "short": (241, ["07 aabb"], [(7, "aabb")]),
    "two of one type": (244, ["07 aa", "07 bb"], [(7, "aa"), (7, "bb")]),
    "without a value": (241, ["07"], None),
    "long, in one": (245, ["07 00 aabb"], [(7, "aabb")]),
    "long, in three": (246, ["07 80 aa", "07 80 bb", "07 00 cc", "08 00 dd"], [(7, "aabbcc"), (8, "dd")]),
    "long, and the last is missing": (245, ["07 80 aa", "07 80 bb"], None),
    "long, and another type comes between": (245, ["07 80 aa", "08 00 bb"], None),
    "long, without a value": (245, ["07 00"], None),
}


@pytest.mark.parametrize(("kind", "values", "found"), RFC_6929.values(), ids=RFC_6929)
def test_rfc_6929_extended_attributes(kind: int, values: list[str], found: list[tuple[int, str]] | None) -> None:
    told = extended_values(packet(*(attribute(kind, bytes.fromhex(value)) for value in values)), kind)
    assert told == (None if found is None else [(number, bytes.fromhex(octets)) for number, octets in found])


@given(st.binary(max_size=80))
def test_tlvs_fill_their_value_exactly_or_are_none(value: bytes) -> None:
    tlvs = read_tlvs(value)
    if tlvs is not None:
        assert b"".join(bytes((kind, len(octets) + 2)) + octets for kind, octets in tlvs) == value


@given(
    st.lists(
        st.tuples(st.sampled_from([241, HUAWEI | 161, HUAWEI | 162, HUAWEI | 163, NOKIA | 121]), st.binary(max_size=60))
    )
)
def test_whatever_comes_a_block_is_sound(sent: list[tuple[int, bytes]]) -> None:
    blocks, _ = read_port_blocks(packet(*(attribute(key, value) for key, value in sent)))
    for one in blocks:
        assert 0 <= one.port_from <= one.port_to <= 65_535
        assert one.is_free or one.address is not None
