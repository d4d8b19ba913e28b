"""The room of packets in this process, against the judge's own reading of the RFCs: what they believe is the same."""

from __future__ import annotations

from random import Random

import wire
from drafts import USERS, Drafts, maker, mutate
from hypothesis import given, settings
from hypothesis import strategies as st
from judge import Sender, unworthy

from sms_aaa.flows.hearing import hear
from sms_aaa.node.records import AccountingRecord
from sms_aaa.radius.credentials import StoredPassword, read_credential
from sms_aaa.radius.dictionary import describe
from sms_aaa.radius.digest import SecretDigests, verify
from sms_aaa.radius.faults import Malformed, PacketFault
from sms_aaa.radius.packet import ATTRIBUTES_MAX, Code, parse
from sms_aaa.rules.session import Place

SECRET = b"a secret of the fuzz"
DIGESTS = SecretDigests(SECRET)
DRAFTS = Drafts(Random(1))
STORED = {user: StoredPassword.from_cleartext(password) for user, password in USERS.items()}
SERVED = {"access": {Code.ACCESS_REQUEST, Code.STATUS_SERVER}, "accounting": {4, Code.STATUS_SERVER}}


def fault_of(datagram: bytes, sender: Sender, port: str) -> PacketFault | None:
    """What the server's own steps say before any login is looked at."""
    packet = parse(datagram)
    if isinstance(packet, Malformed):
        return packet.fault
    if packet.code not in SERVED[port]:
        return PacketFault.UNEXPECTED_CODE
    return verify(packet, DIGESTS, message_authenticator_required=sender.must_sign)


def is_crowded(datagram: bytes) -> bool:
    """More attributes than the server reads, those inside Vendor-Specific counted: the one limit that is its own."""
    packet = wire.read(datagram)
    return (
        packet is not None
        and len(datagram) > 2 * ATTRIBUTES_MAX
        and parse(datagram) == Malformed(PacketFault.TOO_MANY_ATTRIBUTES)
    )


@settings(max_examples=1500, deadline=None)
@given(st.integers(0, 2**64), st.sampled_from(["access", "accounting"]), st.booleans())
def test_who_may_be_answered_is_the_same_by_the_rfcs_and_by_the_room(seed: int, port: str, must_sign: bool) -> None:
    random = Random(seed)
    sender = Sender("127.0.0.1", SECRET, must_sign=must_sign)
    datagram = mutate(random, maker(DRAFTS, port)(random, SECRET), 1)
    fault, wrong = fault_of(datagram, sender, port), unworthy(datagram, sender, port)
    assert (fault is None) == (wrong is None and not is_crowded(datagram)), (fault, wrong, datagram.hex())


@settings(max_examples=1500, deadline=None)
@given(st.integers(0, 2**64))
def test_whatever_is_genuine_is_read_to_its_end(seed: int) -> None:
    """Credential, description, session record: a value each, and no exception, whoever signed it."""
    random = Random(seed)
    for port in ("access", "accounting"):
        packet = parse(mutate(random, maker(DRAFTS, port)(random, SECRET), 1))
        if isinstance(packet, Malformed) or verify(packet, DIGESTS, message_authenticator_required=False) is not None:
            continue
        assert all(text.isprintable() for line in describe(packet) for text in line)
        if port == "accounting":
            assert hear(AccountingRecord(10**18, 1, "127.0.0.1", 1, packet.data), Place("n", 1, 64), single=False)
            continue
        credential = read_credential(packet, DIGESTS)
        if credential is not None and not isinstance(credential, PacketFault):
            stored = STORED[random.choice(list(USERS))]
            assert credential.can_use(stored) in {True, False}
            assert credential.matches(stored) in {True, False}
            credential.failure_attributes()
