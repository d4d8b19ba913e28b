"""Each method from both ends: the peer's side of request.py makes it, read_credential() takes it."""

from __future__ import annotations

import pytest
from rich.pretty import pretty_repr

from sms_aaa.radius import dictionary, mschap
from sms_aaa.radius.credentials import Chap, Credential, Method, MsChap, Pap, StoredPassword, read_credential
from sms_aaa.radius.digest import SecretDigests
from sms_aaa.radius.faults import PacketFault
from sms_aaa.radius.packet import Packet, as_text, attribute, integer, parse
from sms_aaa.radius.request import (
    access_request,
    chap_attributes,
    mschap2_attributes,
    mschap2_success_is_authentic,
    mschap_attributes,
    pap_attributes,
)

DIGESTS = SecretDigests(b"a shared secret")
AUTHENTICATOR = bytes(range(16))
CHALLENGE = bytes(range(100, 116))
PEER_CHALLENGE = bytes(range(200, 216))
PASSWORD = "pässword-27-octets-of-text".encode()
STORED = StoredPassword.from_cleartext(PASSWORD)
ONLY_CLEARTEXT = StoredPassword(cleartext=PASSWORD)
ONLY_HASH = StoredPassword(nt_hash=STORED.nt_hash)
NOTHING = StoredPassword()
METHODS = [Method.PAP, Method.CHAP, Method.MSCHAP, Method.MSCHAP2]


def packet_of(body: bytes) -> Packet:
    packet = parse(access_request(1, AUTHENTICATOR, body, DIGESTS))
    assert isinstance(packet, Packet)
    return packet


def read(body: bytes) -> Credential | PacketFault | None:
    return read_credential(packet_of(body), DIGESTS)


def credential(method: Method, password: bytes = PASSWORD, user_name: bytes = b"ann") -> Credential:
    body = attribute(dictionary.USER_NAME, user_name)
    if method is Method.PAP:
        body += pap_attributes(password, AUTHENTICATOR, DIGESTS)
    elif method is Method.CHAP:
        body += chap_attributes(5, password, CHALLENGE)
    elif method is Method.MSCHAP:
        body += mschap_attributes(5, password, CHALLENGE[:8])
    else:
        body += mschap2_attributes(5, user_name, password, challenge=CHALLENGE, peer_challenge=PEER_CHALLENGE)
    found = read(body)
    assert found is not None
    assert not isinstance(found, PacketFault)
    assert found.method is method
    return found


@pytest.mark.parametrize("method", METHODS)
def test_the_right_password_matches_and_no_other_does(method: Method) -> None:
    assert credential(method).matches(STORED)
    assert not credential(method, PASSWORD + b"x").matches(STORED)
    assert not credential(method, b"").matches(STORED)
    assert not credential(method).matches(StoredPassword.from_cleartext(b""))


@pytest.mark.parametrize(
    ("method", "stored", "usable"),
    [
        (Method.PAP, ONLY_CLEARTEXT, True),
        (Method.PAP, ONLY_HASH, True),
        (Method.PAP, NOTHING, False),
        (Method.CHAP, ONLY_CLEARTEXT, True),
        (Method.CHAP, ONLY_HASH, False),
        (Method.CHAP, NOTHING, False),
        (Method.MSCHAP, ONLY_CLEARTEXT, False),
        (Method.MSCHAP, ONLY_HASH, True),
        (Method.MSCHAP, NOTHING, False),
        (Method.MSCHAP2, ONLY_CLEARTEXT, False),
        (Method.MSCHAP2, ONLY_HASH, True),
        (Method.MSCHAP2, NOTHING, False),
    ],
)
def test_a_method_is_usable_by_the_form_that_is_stored(method: Method, stored: StoredPassword, usable: bool) -> None:
    found = credential(method)
    assert found.can_use(stored) is usable
    assert found.matches(stored) is usable


def test_pap_that_is_not_utf_8_matches_no_nt_hash() -> None:
    assert not Pap(b"\xff\xfe").matches(ONLY_HASH)
    assert Pap(b"\xff\xfe").matches(StoredPassword(cleartext=b"\xff\xfe"))


def test_chap_without_chap_challenge_answers_the_request_authenticator() -> None:
    with_challenge = chap_attributes(5, PASSWORD, AUTHENTICATOR)
    found = read(with_challenge[:19])
    assert isinstance(found, Chap)
    assert found.matches(STORED)


def test_a_login_without_credential_is_none() -> None:
    assert read(attribute(dictionary.USER_NAME, b"ann")) is None
    assert read(attribute(dictionary.EAP_MESSAGE, b"\x02\x00\x00\x08\x01ann")) is None


def test_ms_chap_with_only_an_lm_response_cannot_be_used() -> None:
    body = attribute(dictionary.MS_CHAP_CHALLENGE, bytes(8)) + attribute(dictionary.MS_CHAP_RESPONSE, bytes(50))
    found = read(body)
    assert isinstance(found, MsChap)
    assert not found.can_use(STORED)
    assert not found.matches(STORED)


def test_rfc_2759_section_4_the_nt_domain_is_not_hashed() -> None:
    assert credential(Method.MSCHAP2, user_name=b"ISP\\ann").matches(STORED)


def test_ms_chap_2_is_bound_to_the_user_name() -> None:
    response = mschap2_attributes(5, b"ann", PASSWORD, challenge=CHALLENGE, peer_challenge=PEER_CHALLENGE)
    found = read(attribute(dictionary.USER_NAME, b"bob") + response)
    assert found is not None
    assert not isinstance(found, PacketFault)
    assert not found.matches(STORED)


def reply_attributes(body: bytes) -> Packet:
    packet = parse(DIGESTS.reply(2, 1, AUTHENTICATOR, body, message_authenticator=True))
    assert isinstance(packet, Packet)
    return packet


@pytest.mark.parametrize("stored", [STORED, ONLY_HASH])
@pytest.mark.parametrize("salts", [bytes(4), b"\xff" * 4, b"\x01\x02\x03\x04"])
def test_ms_chap_2_success_proves_the_server_and_brings_the_keys(stored: StoredPassword, salts: bytes) -> None:
    found = credential(Method.MSCHAP2, user_name=b"ISP\\ann")
    reply = reply_attributes(found.success_attributes(stored, DIGESTS, AUTHENTICATOR, salts)).attributes
    success = reply[dictionary.MS_CHAP2_SUCCESS]
    assert success[0] == 5
    asked = {"challenge": CHALLENGE, "peer_challenge": PEER_CHALLENGE}
    assert mschap2_success_is_authentic(success, b"ISP\\ann", PASSWORD, **asked)
    assert not mschap2_success_is_authentic(success, b"ISP\\ann", b"other", **asked)
    send, receive = reply[dictionary.MS_MPPE_SEND_KEY], reply[dictionary.MS_MPPE_RECV_KEY]
    assert send[:2] != receive[:2]
    assert min(send[0], receive[0]) >= 0x80
    assert STORED.nt_hash_hash is not None
    keys = mschap.server_keys(STORED.nt_hash_hash, packet_nt_response(found))
    assert (DIGESTS.decrypt_key(send, AUTHENTICATOR), DIGESTS.decrypt_key(receive, AUTHENTICATOR)) == keys
    assert reply[dictionary.MS_MPPE_ENCRYPTION_TYPES] == integer(6)


def packet_nt_response(found: Credential) -> bytes:
    assert not isinstance(found, Pap | Chap)
    assert found.nt_response is not None
    return found.nt_response


def test_ms_chap_1_success_brings_its_keys_hidden_like_a_password() -> None:
    body = credential(Method.MSCHAP).success_attributes(STORED, DIGESTS, AUTHENTICATOR, bytes(4))
    reply = reply_attributes(body).attributes
    hidden = reply[dictionary.MS_CHAP_MPPE_KEYS]
    assert len(hidden) == 32
    assert STORED.nt_hash_hash is not None
    plain = DIGESTS.reveal_password(hidden, AUTHENTICATOR)
    assert plain == (bytes(8) + STORED.nt_hash_hash).rstrip(b"\0")
    assert reply[dictionary.MS_MPPE_ENCRYPTION_TYPES] == integer(4)


@pytest.mark.parametrize("method", [Method.PAP, Method.CHAP])
def test_pap_and_chap_add_nothing_to_a_reply(method: Method) -> None:
    assert credential(method).success_attributes(STORED, DIGESTS, AUTHENTICATOR, bytes(4)) == b""
    assert credential(method).failure_attributes() == b""


@pytest.mark.parametrize(
    ("method", "text"),
    [
        (Method.MSCHAP, "E=691 R=0 C=6465666768696A6B V=2"),
        (Method.MSCHAP2, "E=691 R=0 C=6465666768696A6B6C6D6E6F70717273 V=3 M=Authentication failed."),
    ],
)
def test_ms_chap_says_why_it_failed(method: Method, text: str) -> None:
    error = reply_attributes(credential(method).failure_attributes()).attributes[dictionary.MS_CHAP_ERROR]
    assert error[0] == 5
    assert as_text(error[1:]) == text


@pytest.mark.parametrize("value", [STORED, *(credential(method) for method in METHODS)])
def test_no_credential_shows_itself(value: Credential | StoredPassword) -> None:
    assert repr(value) == f"{type(value).__name__}(***)"
    assert str(value) == repr(value)
    assert pretty_repr(value) == f"{type(value).__name__}(octets='***')"
