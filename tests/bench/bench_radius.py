"""Microseconds a packet costs in sms_aaa/radius. Run by hand: python tests/bench/bench_radius.py

The figures are the best of several rounds on one core, so that other work on the machine does not count.
"""

from __future__ import annotations

from timeit import repeat
from typing import TYPE_CHECKING

from sms_aaa.radius import dictionary as d
from sms_aaa.radius.credentials import MsChap2, StoredPassword, read_credential
from sms_aaa.radius.digest import SecretDigests, verify
from sms_aaa.radius.packet import Code, Packet, attribute, integer, ipv4, parse
from sms_aaa.radius.request import access_request, accounting_request, mschap2_attributes, pap_attributes

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS = 7
CALLS = 20_000
DIGESTS = SecretDigests(b"a-secret-of-24-octets-xx")
AUTHENTICATOR = bytes(range(16))
REPLY = attribute(d.FRAMED_IP_ADDRESS, ipv4(0x0A000001)) + attribute(d.SESSION_TIMEOUT, integer(86400))
REPLY += attribute(d.ACCT_INTERIM_INTERVAL, integer(300)) + attribute(d.CLASS, bytes(32))
REPLY += attribute(d.MIKROTIK_RATE_LIMIT, b"20000k/100000k")

COMMON = (
    (d.USER_NAME, b"user000123@isp.example"),
    (d.NAS_IP_ADDRESS, ipv4(0x0A000001)),
    (d.NAS_PORT, integer(4711)),
    (d.SERVICE_TYPE, integer(2)),
    (d.FRAMED_PROTOCOL, integer(1)),
    (d.CALLING_STATION_ID, b"00-11-22-33-44-55"),
    (d.NAS_PORT_TYPE, integer(15)),
    (d.NAS_IDENTIFIER, b"bng-01.isp.example"),
)
ACCOUNTING = (
    *COMMON,
    (d.ACCT_STATUS_TYPE, integer(3)),
    (d.ACCT_SESSION_ID, b"8f2a11c0"),
    (d.FRAMED_IP_ADDRESS, ipv4(0x64400001)),
    (d.ACCT_INPUT_OCTETS, integer(123456789)),
    (d.ACCT_OUTPUT_OCTETS, integer(987654321)),
    (d.ACCT_INPUT_GIGAWORDS, integer(1)),
    (d.ACCT_OUTPUT_GIGAWORDS, integer(7)),
    (d.ACCT_INPUT_PACKETS, integer(1234567)),
    (d.ACCT_OUTPUT_PACKETS, integer(7654321)),
    (d.ACCT_SESSION_TIME, integer(3600)),
    (d.EVENT_TIMESTAMP, integer(1_700_000_000)),
    (d.CLASS, bytes(32)),
)


def encode(pairs: tuple[tuple[int, bytes], ...]) -> bytes:
    return b"".join(attribute(key, value) for key, value in pairs)


def sound(datagram: bytes) -> Packet:
    packet = parse(datagram)
    assert isinstance(packet, Packet)
    return packet


def show(name: str, call: Callable[[], object], calls: int = CALLS) -> None:
    print(f"{name:<58} {min(repeat(call, number=calls, repeat=ROUNDS)) / calls * 1e6:7.2f} us")


def login() -> bytes:
    packet = sound(ACCESS)
    assert verify(packet, DIGESTS, message_authenticator_required=True) is None
    assert read_credential(packet, DIGESTS) is not None
    return DIGESTS.reply(Code.ACCESS_ACCEPT, packet.identifier, packet.authenticator, REPLY, message_authenticator=True)


def record() -> bytes:
    packet = sound(RECORD)
    assert verify(packet, DIGESTS, message_authenticator_required=False) is None
    return DIGESTS.reply(
        Code.ACCOUNTING_RESPONSE, packet.identifier, packet.authenticator, b"", message_authenticator=False
    )


ACCESS = access_request(
    1, AUTHENTICATOR, encode(COMMON) + pap_attributes(b"a password", AUTHENTICATOR, DIGESTS), DIGESTS
)
RECORD = accounting_request(1, encode(ACCOUNTING), DIGESTS)
MSCHAP2 = access_request(
    1,
    AUTHENTICATOR,
    encode(COMMON)
    + mschap2_attributes(1, COMMON[0][1], b"a password", challenge=AUTHENTICATOR, peer_challenge=AUTHENTICATOR),
    DIGESTS,
)


def main() -> None:
    access, accounting, mschap2 = sound(ACCESS), sound(RECORD), sound(MSCHAP2)
    stored = StoredPassword.from_cleartext(b"a password")
    hidden = access.attributes[d.USER_PASSWORD]
    credential = read_credential(mschap2, DIGESTS)
    assert isinstance(credential, MsChap2)
    assert credential.matches(stored)
    print(f"Access-Request: {len(access.in_order())} attributes, {len(ACCESS)} octets")
    show("  parse", lambda: parse(ACCESS))
    show("  verify (Message-Authenticator)", lambda: verify(access, DIGESTS, message_authenticator_required=True))
    show("  reveal_password", lambda: DIGESTS.reveal_password(hidden, AUTHENTICATOR))
    show("  read_credential (PAP)", lambda: read_credential(access, DIGESTS))
    show(
        "  reply (5 attributes, Message-Authenticator)",
        lambda: DIGESTS.reply(2, 1, AUTHENTICATOR, REPLY, message_authenticator=True),
    )
    show("  all of it", login)
    show("  MS-CHAPv2: matches", lambda: credential.matches(stored), 2_000)
    show(
        "  MS-CHAPv2: success_attributes",
        lambda: credential.success_attributes(stored, DIGESTS, AUTHENTICATOR, b"abcd"),
        2_000,
    )
    print(f"Accounting-Request: {len(accounting.in_order())} attributes, {len(RECORD)} octets")
    show("  parse", lambda: parse(RECORD))
    show("  verify (Request Authenticator)", lambda: verify(accounting, DIGESTS, message_authenticator_required=False))
    show("  reply (empty)", lambda: DIGESTS.reply(5, 1, AUTHENTICATOR, b"", message_authenticator=False))
    show("  all of it", record)


if __name__ == "__main__":
    main()
