"""The strict receive path over real UDP: whatever an RFC wants silence for meets silence, and a counter of its own.

Everything here is right but for the one thing that its case is about: signed with the NAS's secret, the Length true.
"""

from __future__ import annotations

import hashlib
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
import wire
from campaign import KNOCKER, LAX, STRANGER, STRICT, provision
from daemon import Daemon, wait_until

from sms_aaa.radius.faults import PacketFault

if TYPE_CHECKING:
    from collections.abc import Iterator

    from judge import Sender

ACCESS, ACCOUNTING = "access", "accounting"
AUTHENTICATOR = bytes(range(16))
SIGNATURE = (wire.MESSAGE_AUTHENTICATOR, wire.ZEROS)
USER, PASSWORD = (wire.USER_NAME, KNOCKER[0]), KNOCKER[1]
STRICT_SECRET, LAX_SECRET = STRICT.secret or b"", LAX.secret or b""
HIDDEN = (wire.USER_PASSWORD, wire.hide(PASSWORD, AUTHENTICATOR, STRICT_SECRET))
LAX_HIDDEN = (wire.USER_PASSWORD, wire.hide(PASSWORD, AUTHENTICATOR, LAX_SECRET))
START = [(40, b"\0\0\0\1"), (44, b"s-1")]
MS_CHALLENGE = (26, b"\0\0\1\x37\x0b\x12" + bytes(16))
MS_RESPONSE = (26, b"\0\0\1\x37\x19\x34" + bytes(50))


@dataclass(frozen=True, slots=True)
class Case:
    """What is sent, by whom, to which port; and the label of the one counter that rises."""

    title: str
    fault: str
    datagram: bytes
    port: str = ACCESS
    sender: Sender = STRICT


def signed(pairs: wire.Pairs, code: int = wire.ACCESS_REQUEST, secret: bytes = STRICT_SECRET) -> bytes:
    return wire.sign(code, 1, AUTHENTICATOR, wire.join(pairs), secret)


def raw(attributes: bytes) -> bytes:
    """Attributes as they come, after a Message-Authenticator that is right for all of it."""
    return wire.sign(wire.ACCESS_REQUEST, 1, AUTHENTICATOR, wire.join([SIGNATURE]) + attributes, STRICT_SECRET)


def changed(datagram: bytes, at: int, octet: int) -> bytes:
    return datagram[:at] + bytes((octet,)) + datagram[at + 1 :]


def forged_record(attributes: bytes) -> bytes:
    """Its Request Authenticator is right, whatever Message-Authenticator there is among the attributes."""
    header = b"\4\1" + (wire.HEADER_OCTETS + len(attributes)).to_bytes(2, "big")
    return header + hashlib.md5(header + wire.ZEROS + attributes + STRICT_SECRET).digest() + attributes


LOGIN = signed([SIGNATURE, USER, HIDDEN])
RECORD = signed(START, wire.ACCOUNTING_REQUEST)
FORGED = forged_record(wire.join([*START, (wire.MESSAGE_AUTHENTICATOR, b"x" * 16)]))
BIG = wire.join([(wire.PROXY_STATE, bytes(253))] * 15 + [(wire.PROXY_STATE, bytes(183))])

CASES = [
    # RFC 2865 section 3.
    Case("nothing", "too-short", b""),
    Case("19 octets", "too-short", LOGIN[:19]),
    Case("Length 19", "length-mismatch", changed(LOGIN, 3, 19)),
    Case("Length 0", "length-mismatch", changed(changed(LOGIN, 2, 0), 3, 0)),
    Case("an octet less than Length", "length-mismatch", LOGIN[:-1]),
    Case("4097 octets", "too-long", raw(wire.join([(33, bytes(253))] * 15 + [(33, bytes(232))]))),
    Case("8000 octets", "too-long", raw(wire.join([(33, bytes(248))] * 32))),
    Case("code 0", "unknown-code", signed([SIGNATURE, USER], 0)),
    Case("code 255", "unknown-code", signed([SIGNATURE, USER], 255)),
    Case("an Access-Accept", "unexpected-code", signed([SIGNATURE, USER], wire.ACCESS_ACCEPT)),
    Case("a CoA-Request", "unexpected-code", signed([SIGNATURE, USER], 43)),
    Case("a record to the access port", "unexpected-code", RECORD),
    Case("a login to the accounting port", "unexpected-code", LOGIN, ACCOUNTING),
    Case("nobody's address", "unknown-nas", LOGIN, sender=STRANGER),
    # RFC 2865 section 5.
    Case("an attribute of length 0", "attribute-zero-length", raw(b"\x01\x00")),
    Case("an attribute of length 1", "attribute-zero-length", raw(b"\x01\x01\x20\x03x")),
    Case("an attribute beyond the end", "attribute-overrun", raw(b"\x01\x06ann")),
    Case("an attribute of 255 at the end", "attribute-overrun", raw(b"\x01\xff")),
    Case("a lone octet at the end", "attribute-overrun", raw(b"\x01")),
    Case(
        "an overrun of a record", "attribute-overrun", wire.sign(4, 1, b"", b"\x2c\x09abc", STRICT_SECRET), ACCOUNTING
    ),
    Case("201 attributes", "too-many-attributes", raw(b"\x21\x03x" * 200)),
    # RFC 2866 section 3.
    Case("a record under another secret", "bad-request-authenticator", signed(START, 4, b"no"), ACCOUNTING),
    Case("a record that was changed", "bad-request-authenticator", changed(RECORD, -1, 0x32), ACCOUNTING),
    # RFC 3579 section 3.2.
    Case("two Message-Authenticators", "message-authenticator-repeated", signed([SIGNATURE, USER, HIDDEN, SIGNATURE])),
    Case("one of 15 octets", "message-authenticator-length", signed([USER, HIDDEN, (80, bytes(15))])),
    Case("one of 17 octets", "message-authenticator-length", signed([USER, HIDDEN, (80, bytes(17))])),
    Case("one of no octets", "message-authenticator-length", signed([USER, HIDDEN, (80, b"")])),
    Case("one of zeros", "message-authenticator-invalid", LOGIN[:22] + bytes(16) + LOGIN[38:]),
    Case("one under another secret", "message-authenticator-invalid", signed([SIGNATURE, USER, HIDDEN], secret=b"no")),
    Case("a login that was changed", "message-authenticator-invalid", changed(LOGIN, -1, LOGIN[-1] ^ 1)),
    Case("a record whose Message-Authenticator alone is wrong", "message-authenticator-invalid", FORGED, ACCOUNTING),
    # RFC 3579 section 3.1, RFC 5997 section 3, CVE-2024-3596.
    Case("none, where one is required", "message-authenticator-missing", signed([USER, HIDDEN])),
    Case("EAP without one", "eap-unsigned", signed([USER, (79, b"\2\0\0\5\1")])),
    Case("EAP without one, of a lax NAS", "eap-unsigned", signed([USER, (79, b"\2")], secret=LAX_SECRET), sender=LAX),
    Case("Status-Server without one", "status-server-unsigned", signed([], wire.STATUS_SERVER)),
    Case("the same to accounting", "status-server-unsigned", signed([], wire.STATUS_SERVER), ACCOUNTING),
    Case(
        "65 octets of Proxy-State without one",
        "proxy-state-limit",
        signed([USER, LAX_HIDDEN, (33, bytes(65))], secret=LAX_SECRET),
        sender=LAX,
    ),
    Case("no room for the reply", "reply-too-long", raw(wire.join([USER, HIDDEN]) + BIG)),
    # RFC 2865 section 4.1, RFC 3579 section 3.3, RFC 2548.
    Case("two kinds of proof", "credential-conflict", signed([SIGNATURE, USER, HIDDEN, (3, bytes(17))])),
    Case("two passwords", "credential-conflict", signed([SIGNATURE, USER, HIDDEN, HIDDEN])),
    Case("a password beside EAP", "credential-conflict", signed([SIGNATURE, USER, HIDDEN, (79, b"\2\0\0\5\1")])),
    Case("a password of 15 octets", "credential-length", signed([SIGNATURE, USER, (2, bytes(15))])),
    Case("a password of nine blocks", "credential-length", signed([SIGNATURE, USER, (2, bytes(144))])),
    Case("a CHAP-Password of 16 octets", "credential-length", signed([SIGNATURE, USER, (3, bytes(16))])),
    Case(
        "an MS-CHAP2-Response of 49 octets",
        "credential-length",
        signed([SIGNATURE, USER, MS_CHALLENGE, (26, b"\0\0\1\x37\x19\x33" + bytes(49))]),
    ),
    Case("MS-CHAP without its challenge", "credential-without-challenge", signed([SIGNATURE, USER, MS_RESPONSE])),
]


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    running = Daemon(tmp_path_factory.mktemp("strict") / "state", dsn=None)
    try:
        running.start()
        provision(running)
        wait_until(lambda: ask(running, Case("a right login", "", LOGIN)) is not None, "the replica")
        yield running
    finally:
        running.stop()


def ask(daemon: Daemon, case: Case) -> bytes | None:
    port = daemon.access_port if case.port == ACCESS else daemon.accounting_port
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as nas:
        nas.bind((case.sender.address, 0))
        nas.settimeout(0.1)
        nas.sendto(case.datagram, ("127.0.0.1", port))
        try:
            return nas.recv(4096)
        except TimeoutError:
            return None


def drops(daemon: Daemon) -> dict[str, float]:
    counters = daemon.metrics()
    return {fault.label: counters[f'sms_aaa_packet_drops_total{{fault="{fault.label}"}}'] for fault in PacketFault}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.title)
def test_each_fault_meets_silence_and_a_counter_of_its_own(daemon: Daemon, case: Case) -> None:
    before = drops(daemon)
    assert ask(daemon, case) is None
    wait_until(lambda: drops(daemon) != before, "a counter that rises")
    after = drops(daemon)
    assert {label: count - before[label] for label, count in after.items() if count != before[label]} == {case.fault: 1}


def test_what_is_right_in_all_of_that_is_answered(daemon: Daemon) -> None:
    for case in (
        Case("login", "", LOGIN),
        Case("a lax NAS's login", "", signed([USER, LAX_HIDDEN, (33, bytes(64))], secret=LAX_SECRET), sender=LAX),
        Case("with padding after Length", "", LOGIN + bytes(7)),
        Case("EAP, signed", "", signed([SIGNATURE, USER, (79, b"\2\0\0\5\1")])),
        Case("Status-Server", "", signed([SIGNATURE], wire.STATUS_SERVER)),
        Case("Status-Server to accounting", "", signed([SIGNATURE], wire.STATUS_SERVER), ACCOUNTING),
        Case("record", "", RECORD, ACCOUNTING),
        Case("signed record", "", signed([*START, SIGNATURE], wire.ACCOUNTING_REQUEST), ACCOUNTING),
    ):
        assert ask(daemon, case) is not None, case.title


def test_every_fault_that_there_is_has_a_case() -> None:
    assert {case.fault for case in CASES} == {fault.label for fault in PacketFault}


def test_eap_is_not_let_in_by_the_address_that_the_nas_vouches_for(daemon: Daemon) -> None:
    """Found by the campaign: Call-Check beside EAP-Message was answered by an Access-Accept without EAP in it."""
    device = b"02-00-00-00-00-01"
    pairs = [SIGNATURE, (wire.USER_NAME, device), (wire.SERVICE_TYPE, b"\0\0\0\x0a"), (31, device)]
    without, beside = (ask(daemon, Case("", "", signed(one))) for one in (pairs, [*pairs, (79, b"\2\0\0\5\1")]))
    assert without is not None
    assert beside is not None
    assert (without[0], beside[0]) == (wire.ACCESS_ACCEPT, wire.ACCESS_REJECT)
