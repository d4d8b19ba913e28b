"""Every block of tests/vectors/*.txt: a datagram in hex and what comes of it (the form is told atop each file)."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from sms_aaa.radius.credentials import read_credential
from sms_aaa.radius.dictionary import describe
from sms_aaa.radius.digest import SecretDigests, verify
from sms_aaa.radius.faults import Malformed, PacketFault
from sms_aaa.radius.packet import parse
from sms_aaa.radius.request import reply_is_authentic

FILES = sorted((Path(__file__).parent.parent / "vectors").glob("*.txt"))
FAULTS_OF_THE_DOORS = {PacketFault.UNKNOWN_NAS, PacketFault.REPLY_TOO_LONG}  # they know the address and the rights


@dataclass
class Vector:
    title: str = ""
    settings: dict[str, str] = field(default_factory=dict)
    datagram: bytes = b""
    lines: list[str] = field(default_factory=list)
    fault: str | None = None


def octets(line: str) -> bytes:
    body, _, times = line.partition(" x ")
    return bytes.fromhex(body) * int(times or "1")


def read_vector(block: str) -> Vector:
    vector = Vector()
    section = ""
    for line in block.splitlines():
        if line.startswith("# "):
            vector.title = line[2:]
        elif line.startswith("  ") and section == "datagram":
            vector.datagram += octets(line)
        elif line.startswith("  ") and section == "packet":
            vector.lines.append(line.strip())
        else:
            section, colon, rest = line.partition(":")
            assert colon, f"not understood: {line}"
            if section == "fault":
                vector.fault = rest.strip()
            elif rest:
                vector.settings[section] = rest.strip()
    return vector


VECTORS = {
    f"{path.stem}: {vector.title}": vector
    for path in FILES
    for vector in map(read_vector, path.read_text().split("\n\n"))
    if vector.datagram
}


def outcome(vector: Vector) -> PacketFault | list[str]:
    packet = parse(vector.datagram)
    if isinstance(packet, Malformed):
        return packet.fault
    secret = vector.settings.get("secret")
    if secret is not None and "request-authenticator" in vector.settings:
        authenticator = bytes.fromhex(vector.settings["request-authenticator"])
        assert reply_is_authentic(vector.datagram, authenticator, SecretDigests(secret.encode()))
    elif secret is not None:
        digests = SecretDigests(secret.encode())
        required = vector.settings.get("message-authenticator") == "required"
        fault = verify(packet, digests, message_authenticator_required=required)
        if fault is not None:
            return fault
        credential = read_credential(packet, digests)
        if isinstance(credential, PacketFault):
            return credential
    return [f"{name} = {text}" for name, text in describe(packet)]


@pytest.mark.parametrize("vector", VECTORS.values(), ids=VECTORS)
def test_a_vector_comes_out_as_written(vector: Vector) -> None:
    found = outcome(vector)
    if vector.fault is not None:
        assert isinstance(found, PacketFault), found
        assert found.label == vector.fault
    else:
        assert found == vector.lines


def test_every_fault_of_the_room_has_a_vector() -> None:
    shown = {vector.fault for vector in VECTORS.values()}
    assert {fault.label for fault in PacketFault} - shown == {fault.label for fault in FAULTS_OF_THE_DOORS}


def test_faults_are_counted_from_zero_and_named_once() -> None:
    assert [fault.index for fault in PacketFault] == list(range(len(PacketFault)))
    assert len({fault.label for fault in PacketFault}) == len(PacketFault)
