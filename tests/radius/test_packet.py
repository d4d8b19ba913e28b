from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sms_aaa.radius.faults import Malformed, PacketFault
from sms_aaa.radius.packet import (
    ATTRIBUTES_MAX,
    PACKET_OCTETS_MAX,
    Code,
    Packet,
    as_integer,
    as_ipv4,
    as_ipv6,
    as_ipv6_prefix,
    as_text,
    attribute,
    blanked,
    find_first,
    integer,
    ipv4,
    parse,
)

STANDARD = st.integers(0, 255).filter(lambda key: key != 26)
VENDOR = st.builds(lambda vendor, kind: vendor << 8 | kind, st.integers(1, 2**24 - 1), st.integers(0, 255))
PAIRS = st.lists(st.tuples(STANDARD, st.binary(max_size=40)) | st.tuples(VENDOR, st.binary(max_size=40)), max_size=20)


def encode(pairs: list[tuple[int, bytes]], code: int = 1) -> bytes:
    body = b"".join(attribute(key, value) for key, value in pairs)
    return bytes((code, 7)) + (20 + len(body)).to_bytes(2, "big") + bytes(range(16)) + body


def sound(datagram: bytes) -> Packet:
    packet = parse(datagram)
    assert isinstance(packet, Packet), packet
    return packet


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=80))
@example(b"")
@example(b"\x01" * 20)
def test_any_bytes_are_a_packet_or_malformed(datagram: bytes) -> None:
    assert isinstance(parse(datagram), Packet | Malformed)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(list(Code)), st.binary(max_size=300), st.integers(0, 10))
def test_whatever_follows_a_good_header_is_a_packet_or_malformed(code: Code, body: bytes, padding: int) -> None:
    length = max(20, 20 + len(body) - padding)
    datagram = bytes((code, 1)) + length.to_bytes(2, "big") + bytes(16) + body
    packet = parse(datagram)
    if isinstance(packet, Packet):
        assert packet.data == datagram[:length]
        assert len(packet.in_order()) == len(packet.attributes) + len(packet.repeated or ())


@settings(max_examples=200, deadline=None)
@given(PAIRS)
def test_what_was_encoded_is_parsed_back_in_order(pairs: list[tuple[int, bytes]]) -> None:
    packet = sound(encode(pairs))
    assert packet.in_order() == pairs
    for key in {key for key, _ in pairs}:
        values = [value for again, value in pairs if again == key]
        assert packet.all(key) == values
        assert packet.attributes[key] == values[0]
    assert len(packet.attributes) + len(packet.repeated or ()) == len(pairs)


@settings(max_examples=200, deadline=None)
@given(PAIRS, st.data())
def test_a_packet_that_is_cut_anywhere_is_malformed(pairs: list[tuple[int, bytes]], data: st.DataObject) -> None:
    datagram = encode(pairs)
    cut = data.draw(st.integers(0, len(datagram) - 1))
    assert isinstance(parse(datagram[:cut]), Malformed)


def test_header_fields_are_read() -> None:
    packet = sound(encode([(1, b"ann")], code=Code.STATUS_SERVER))
    assert (packet.code, packet.identifier, packet.authenticator) == (12, 7, bytes(range(16)))
    assert packet.repeated is None


def test_all_of_an_absent_attribute_is_nothing() -> None:
    assert sound(encode([(1, b"ann")])).all(2) == []


def test_message_authenticator_is_found_where_it_stands() -> None:
    packet = sound(encode([(1, b"ann"), (80, b"m" * 16), (4, b"1234"), (80, b"n" * 16)]))
    at = packet.message_authenticator_at
    assert packet.data[at : at + 16] == b"m" * 16
    assert sound(encode([(1, b"P\x12" + b"x" * 16)])).message_authenticator_at == -1


def test_the_biggest_packets_are_taken() -> None:
    assert len(sound(encode([(key, b"") for key in range(30, 30 + ATTRIBUTES_MAX)])).attributes) == ATTRIBUTES_MAX
    datagram = encode([(1, bytes(253))] * 15 + [(1, bytes(249))])
    assert len(sound(datagram).data) == PACKET_OCTETS_MAX


def test_vendor_zero_cannot_pose_as_a_standard_attribute() -> None:
    packet = sound(encode([(26, bytes(4) + b"\x01\x05ann")]))
    assert packet.attributes == {26: bytes(4) + b"\x01\x05ann"}


@pytest.mark.parametrize(("key", "most"), [(1, 253), (14988 << 8 | 8, 247)])
def test_an_attribute_that_does_not_fit_is_refused_by_name(key: int, most: int) -> None:
    assert len(attribute(key, bytes(most))) == 255
    with pytest.raises(ValueError, match=f"{most + 1} octets, the most is {most}"):
        attribute(key, bytes(most + 1))


def test_values_read_back() -> None:
    assert integer(4294967295) == b"\xff" * 4
    assert as_integer(integer(70000)) == 70000
    assert as_ipv4(ipv4(0xC0A80110)) == "192.168.1.16"
    assert as_ipv6(bytes(15) + b"\x01") == "::1"
    with pytest.raises(OverflowError):
        integer(2**32)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=20))
def test_values_of_another_size_are_none(value: bytes) -> None:
    assert (as_integer(value) is None) == (len(value) != 4)
    assert (as_ipv4(value) is None) == (len(value) != 4)
    assert (as_ipv6(value) is None) == (len(value) != 16)


@pytest.mark.parametrize(
    ("value", "prefix"),
    [
        ("0000", "::/0"),
        ("0020 20010db8", "2001:db8::/32"),
        ("0080 20010db8000000000000000000000001", "2001:db8::1/128"),
        ("0030 20010db80001ffff", "2001:db8:1::/48"),  # bits after the prefix are cleared
        ("", None),
        ("00", None),
        ("0081 20010db8000000000000000000000001", None),
        ("0040 20010db8", None),  # says 64 bits, brings 32
        ("0040 20010db800000000000000000000000100", None),
    ],
)
def test_ipv6_prefixes_as_in_rfc_3162(value: str, prefix: str | None) -> None:
    assert as_ipv6_prefix(bytes.fromhex(value)) == prefix


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60) | st.text(max_size=20).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_text_never_carries_a_control_to_a_terminal(value: bytes) -> None:
    assert as_text(value).isprintable()


def test_text_that_is_clean_is_left_alone() -> None:
    assert as_text("Jürgen@isp.example \\ 日本".encode()) == "Jürgen@isp.example \\ 日本"


def test_a_fault_is_a_value() -> None:
    assert parse(b"") == Malformed(PacketFault.TOO_SHORT)


@given(st.binary(max_size=400), st.integers(1, 255).filter(lambda kind: kind != 26))
@example(b"\x18\x03x\x18\x03y", 24)
@example(b"\x18\x02", 24)
def test_a_first_value_is_read_off_a_sound_packet_as_parsing_it_does(attributes: bytes, kind: int) -> None:
    datagram = b"\x01\x01" + (20 + len(attributes)).to_bytes(2, "big") + bytes(16) + attributes
    packet = parse(datagram)
    found = find_first(datagram, kind)
    if isinstance(packet, Packet):
        assert found == packet.attributes.get(kind)


@given(PAIRS, STANDARD)
def test_a_first_value_is_found_wherever_it_stands(pairs: list[tuple[int, bytes]], kind: int) -> None:
    assert find_first(encode(pairs), kind) == next((value for key, value in pairs if key == kind), None)


@given(PAIRS, st.frozensets(st.one_of(st.integers(1, 5), st.just(9 << 8 | 2))))
@example([(9 << 8 | 1, b"kept"), (9 << 8 | 2, b"of a vendor"), (9 << 8 | 2, b"")], frozenset((9 << 8 | 2,)))
@example([(1, b"alice"), (2, b"secret"), (3, b""), (2, b"again"), (9 << 8 | 2, b"of a vendor")], frozenset((2, 3)))
def test_what_is_blanked_keeps_its_place_and_nothing_else_changes(
    pairs: list[tuple[int, bytes]], kinds: frozenset[int]
) -> None:
    packet = sound(encode(pairs))
    blank = sound(blanked(packet, lambda key, _: key in kinds))
    assert blank.in_order() == [(key, bytes(len(value)) if key in kinds else value) for key, value in pairs]
    assert blank.data[:20] == packet.data[:20]
