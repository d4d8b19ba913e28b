"""No secret is left in what is kept of a packet, in whatever form a vendor sends it."""

from __future__ import annotations

from pathlib import Path

import pytest

from sms_aaa.radius import dictionary
from sms_aaa.radius.packet import Code, Packet, attribute, parse
from sms_aaa.radius.secrets import SECRETS, is_secret, without_secrets

FREERADIUS = Path("/usr/share/freeradius")
MARK = b"m4rk3d-s3cr3t"
PLAIN = [
    attribute(dictionary.USER_NAME, b"alice"),
    attribute(dictionary.CLASS, b"a class"),
    attribute(dictionary.CISCO_AVPAIR, b"connect-progress=LAN Ses Up"),
    attribute(dictionary.MIKROTIK_RATE_LIMIT, b"20M/100M"),
    attribute(26, (8164).to_bytes(4, "big") + b"\0\x01\0\x08kept"),  # Starent's own form
]


def packet_with(*attributes: bytes) -> Packet:
    body = b"".join((*PLAIN, *attributes, attribute(dictionary.ACCT_SESSION_ID, b"s-1")))
    packet = parse(bytes((Code.ACCOUNTING_REQUEST, 1)) + (20 + len(body)).to_bytes(2, "big") + bytes(16) + body)
    assert isinstance(packet, Packet)
    return packet


def whole(vendor: int, octets: bytes) -> bytes:
    return attribute(dictionary.VENDOR_SPECIFIC, vendor.to_bytes(4, "big") + octets)


def test_a_packet_without_a_secret_is_kept_octet_for_octet() -> None:
    packet = packet_with()
    assert without_secrets(packet) == packet.data


@pytest.mark.parametrize("key", sorted(SECRETS))
def test_each_secret_is_blanked_wherever_it_stands_and_nothing_else(key: int) -> None:
    packet = packet_with(attribute(key, MARK), attribute(key, MARK))
    kept = parse(without_secrets(packet))
    assert isinstance(kept, Packet)
    assert kept.in_order() == [(k, bytes(len(v)) if k == key else v) for k, v in packet.in_order()]
    assert MARK not in kept.data


@pytest.mark.parametrize(
    "octets",
    [
        whole(8164, b"\0\x01\0\x08kept" + b"\0\x1a\0" + bytes((4 + len(MARK),)) + MARK),  # SN-Tunnel-Password
        whole(4846, b"\0\xd6" + bytes((3 + len(MARK),)) + MARK),  # Lucent-Send-Secret
        whole(429, b"\0\0\x98\x14" + MARK),  # USR-Send-Password
        attribute(dictionary.CISCO_AVPAIR, b"psk=" + MARK),
        attribute(dictionary.CISCO_AVPAIR, b"vpdn:l2tp-tunnel-password=" + MARK),
        attribute(dictionary.CISCO_AVPAIR, b"tacacs:Secret*" + MARK),
        whole(311, b"\x10" + bytes((2 + len(MARK),)) + MARK + b"\x11" + bytes((2 + len(MARK),)) + MARK),  # two in one
    ],
)
def test_a_secret_in_another_form_is_blanked_too(octets: bytes) -> None:
    packet = packet_with(octets)
    kept = without_secrets(packet)
    assert MARK in packet.data
    assert MARK not in kept
    assert len(kept) == len(packet.data)
    assert isinstance(parse(kept), Packet)
    for plain in PLAIN:
        assert plain in kept


@pytest.mark.parametrize("value", [b"", b"\0\0\x1f", b"\0\0\x1f\xe4\0\x01\0\0", b"\0\0\x1f\xe4\0", b"\0\0\x01\xad\0\0"])
def test_a_vendor_attribute_that_is_cut_short_is_no_secret_and_no_trouble(value: bytes) -> None:
    assert not is_secret(dictionary.VENDOR_SPECIFIC, value)


@pytest.mark.skipif(not FREERADIUS.is_dir(), reason="FreeRADIUS's dictionaries are not here to compare with")
def test_what_radius_encrypts_according_to_freeradius_is_a_secret_here() -> None:
    """But for WiMAX within WiMAX, lawful interception, which names whom it is about, and Aerohive's list of guests."""
    missing = []
    vendors: dict[str, int] = {}
    for path in sorted(FREERADIUS.glob("dictionary*")):
        vendor = 0
        for line in path.read_text(errors="replace").splitlines():
            words = line.split()
            if words[:1] == ["VENDOR"]:
                vendors[words[1]] = int(words[2], 0)
            elif words[:1] == ["BEGIN-VENDOR"]:
                vendor = vendors.get(words[1], 0)
            elif words[:1] == ["END-VENDOR"]:
                vendor = 0
            elif words[:1] == ["ATTRIBUTE"] and "encrypt=" in line and "." not in words[2]:
                key = vendor << 8 | int(words[2], 0)
                value = b"\0" + int(words[2], 0).to_bytes(1, "big") + b"\x08" + MARK
                is_known = key in SECRETS or is_secret(26, vendor.to_bytes(4, "big") + value)
                if not is_known and not any(part in words[1] for part in ("-LI-", "ERX-Med-", "Libsip")):
                    missing.append(words[1])
    assert missing == []
