from __future__ import annotations

import hashlib
import hmac

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sms_aaa.radius import digest
from sms_aaa.radius.digest import SecretDigests, verify
from sms_aaa.radius.faults import PacketFault
from sms_aaa.radius.packet import Code, Packet, attribute, parse
from sms_aaa.radius.request import access_request, accounting_request, status_server

SECRETS = st.binary(min_size=1, max_size=100)  # over 64 octets HMAC hashes the key first
AUTHENTICATORS = st.binary(min_size=16, max_size=16)
AUTHENTICATOR = bytes(range(16))


def sound(datagram: bytes) -> Packet:
    packet = parse(datagram)
    assert isinstance(packet, Packet)
    return packet


@settings(max_examples=100, deadline=None)
@given(SECRETS, AUTHENTICATORS, st.binary(max_size=128))
def test_a_hidden_password_is_revealed_by_the_same_secret(secret: bytes, authenticator: bytes, password: bytes) -> None:
    digests = SecretDigests(secret)
    hidden = digests.hide_password(password, authenticator)
    assert len(hidden) == max(16, -(-len(password) // 16) * 16)
    assert digests.reveal_password(hidden, authenticator) == password.rstrip(b"\0")


def test_a_hidden_password_is_chained_as_in_rfc_2865_section_5_2() -> None:
    password = b"a password of more than two blocks".ljust(48, b"\0")
    expected, previous = b"", AUTHENTICATOR
    for at in range(0, 48, 16):
        mask = hashlib.md5(b"secret" + previous).digest()
        previous = bytes(left ^ right for left, right in zip(password[at : at + 16], mask, strict=True))
        expected += previous
    assert SecretDigests(b"secret").hide_password(password.rstrip(b"\0"), AUTHENTICATOR) == expected


@pytest.mark.parametrize("octets", [0, 1, 15, 17, 129, 144])
def test_a_hidden_password_of_a_wrong_length_is_none(octets: int) -> None:
    assert SecretDigests(b"secret").reveal_password(bytes(octets), AUTHENTICATOR) is None


def test_a_password_beyond_128_octets_is_refused() -> None:
    with pytest.raises(ValueError, match="at most 128 octets, not 129"):
        SecretDigests(b"secret").hide_password(bytes(129), AUTHENTICATOR)


@settings(max_examples=100, deadline=None)
@given(SECRETS, AUTHENTICATORS, st.binary(max_size=60))
def test_an_encrypted_key_is_decrypted_by_the_same_secret(secret: bytes, authenticator: bytes, key: bytes) -> None:
    digests = SecretDigests(secret)
    value = digests.encrypt_key(key, b"\x80\x01", authenticator)
    assert value[:2] == b"\x80\x01"
    assert digests.decrypt_key(value, authenticator) == key


@pytest.mark.parametrize("salt", [b"", b"\x7f\x00", b"\x80", b"\x80\x00\x00"])
def test_a_salt_without_its_high_bit_is_refused(salt: bytes) -> None:
    with pytest.raises(ValueError, match="at least 0x80"):
        SecretDigests(b"secret").encrypt_key(b"key", salt, AUTHENTICATOR)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=60))
def test_any_value_is_a_key_or_none(value: bytes) -> None:
    key = SecretDigests(b"secret").decrypt_key(value, AUTHENTICATOR)
    assert key is None or len(key) < len(value)


@settings(max_examples=100, deadline=None)
@given(SECRETS, AUTHENTICATORS, st.binary(max_size=50))
def test_message_authenticator_is_the_hmac_of_rfc_2104(secret: bytes, authenticator: bytes, name: bytes) -> None:
    datagram = access_request(1, authenticator, attribute(1, name), SecretDigests(secret))
    assert datagram[20:22] == b"\x50\x12"
    zeroed = datagram[:22] + bytes(16) + datagram[38:]
    assert datagram[22:38] == hmac.digest(secret, zeroed, "md5")


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["access", "accounting", "status"]), st.data())
def test_a_request_with_any_bit_changed_is_not_believed(kind: str, data: st.DataObject) -> None:
    digests = SecretDigests(b"a secret")
    body = attribute(1, b"ann") + attribute(4, bytes(4))
    datagram = {
        "access": access_request(1, AUTHENTICATOR, body, digests),
        "accounting": accounting_request(1, body, digests, message_authenticator=True),
        "status": status_server(1, AUTHENTICATOR, digests, body),
    }[kind]
    assert verify(sound(datagram), digests, message_authenticator_required=True) is None
    bit = data.draw(st.integers(0, 8 * len(datagram) - 1))
    forged = parse((int.from_bytes(datagram, "big") ^ 1 << bit).to_bytes(len(datagram), "big"))
    if isinstance(forged, Packet):
        assert verify(forged, digests, message_authenticator_required=True) is not None


def test_message_authenticator_is_required_of_access_requests_alone() -> None:
    digests = SecretDigests(b"secret")
    accounting = sound(accounting_request(1, b"", digests))
    assert verify(accounting, digests, message_authenticator_required=True) is None
    access = sound(access_request(1, AUTHENTICATOR, b"", digests, message_authenticator=False))
    assert verify(access, digests, message_authenticator_required=False) is None
    fault = verify(access, digests, message_authenticator_required=True)
    assert fault is PacketFault.MESSAGE_AUTHENTICATOR_MISSING


@pytest.mark.parametrize("code", [Code.COA_REQUEST, Code.DISCONNECT_REQUEST])
def test_dynamic_authorization_requests_are_signed_like_accounting(code: Code) -> None:
    digests = SecretDigests(b"secret")
    packet = sound(digests.request(code, 1, b"", attribute(44, b"id"), message_authenticator=True))
    assert verify(packet, digests, message_authenticator_required=False) is None
    fault = verify(packet, SecretDigests(b"another"), message_authenticator_required=False)
    assert fault is PacketFault.BAD_REQUEST_AUTHENTICATOR


def test_a_packet_without_message_authenticator_has_no_valid_one() -> None:
    digests = SecretDigests(b"secret")
    packet = sound(access_request(1, AUTHENTICATOR, b"", digests, message_authenticator=False))
    assert not digests.message_authenticator_is_valid(packet)


def test_a_packet_beyond_4096_octets_is_refused() -> None:
    digests = SecretDigests(b"secret")
    body = attribute(18, bytes(253)) * 16
    assert len(digests.reply(2, 1, AUTHENTICATOR, body[:-22], message_authenticator=True)) == 4096
    with pytest.raises(ValueError, match="a packet of 4118 octets"):
        digests.reply(2, 1, AUTHENTICATOR, body, message_authenticator=True)


def test_openssl_and_the_interpreter_agree_on_md5(monkeypatch: pytest.MonkeyPatch) -> None:
    body = attribute(1, b"ann")
    own = access_request(1, AUTHENTICATOR, body, SecretDigests(b"s" * 80))
    monkeypatch.setattr(digest, "_md5", hashlib.md5)
    assert access_request(1, AUTHENTICATOR, body, SecretDigests(b"s" * 80)) == own


def test_the_secret_is_not_shown() -> None:
    assert "hunter2" not in repr(SecretDigests(b"hunter2"))
