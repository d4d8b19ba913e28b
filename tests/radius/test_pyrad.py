"""A second opinion in both directions: what one codec wrote, the other reads and believes."""

from __future__ import annotations

from io import StringIO

from hypothesis import given, settings
from hypothesis import strategies as st
from pyrad.dictionary import Dictionary
from pyrad.packet import AccessReject, AcctPacket, AuthPacket, CoAPacket, StatusServer
from pyrad.packet import Packet as PyradPacket

from sms_aaa.radius import dictionary
from sms_aaa.radius.credentials import StoredPassword, read_credential
from sms_aaa.radius.digest import SecretDigests, verify
from sms_aaa.radius.faults import PacketFault
from sms_aaa.radius.packet import Code, Packet, attribute, parse
from sms_aaa.radius.request import (
    access_request,
    accounting_request,
    chap_attributes,
    pap_attributes,
    reply_is_authentic,
    status_server,
)

PYRAD = Dictionary(
    StringIO(
        "ATTRIBUTE User-Name 1 string\nATTRIBUTE User-Password 2 string encrypt=1\nATTRIBUTE CHAP-Password 3 octets\n"
        "ATTRIBUTE Reply-Message 18 string\nATTRIBUTE Acct-Status-Type 40 integer\nATTRIBUTE CHAP-Challenge 60 octets\n"
        "ATTRIBUTE Message-Authenticator 80 octets\nVENDOR Mikrotik 14988\nBEGIN-VENDOR Mikrotik\n"
        "ATTRIBUTE Mikrotik-Rate-Limit 8 string\nEND-VENDOR Mikrotik\n"
        "VENDOR Microsoft 311\nBEGIN-VENDOR Microsoft\nATTRIBUTE MS-MPPE-Send-Key 16 octets encrypt=2\n"
        "END-VENDOR Microsoft\n"
    )
)
SECRETS = st.binary(min_size=1, max_size=80)
NAMES = st.text(st.characters(codec="ascii", min_codepoint=33), min_size=1, max_size=30).map(str.encode)
# Without NUL at the end, which is padding in User-Password.
PASSWORDS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=30).map(str.encode)
AUTHENTICATORS = st.binary(min_size=16, max_size=16)


def sound(datagram: bytes) -> Packet:
    packet = parse(datagram)
    assert isinstance(packet, Packet)
    return packet


@settings(max_examples=40, deadline=None)
@given(SECRETS, NAMES, PASSWORDS)
def test_a_login_of_pyrad_is_believed_and_read(secret: bytes, name: bytes, password: bytes) -> None:
    request = AuthPacket(secret=secret, dict=PYRAD, message_authenticator=True)
    request["User-Name"] = name.decode()
    request["User-Password"] = request.PwCrypt(password)
    request[(14988, 8)] = [b"10M/10M"]
    packet = sound(request.RequestPacket())
    digests = SecretDigests(secret)
    assert verify(packet, digests, message_authenticator_required=True) is None
    assert packet.attributes[dictionary.USER_NAME] == name
    assert packet.attributes[dictionary.MIKROTIK_RATE_LIMIT] == b"10M/10M"
    credential = read_credential(packet, digests)
    assert credential is not None
    assert not isinstance(credential, PacketFault)
    assert credential.matches(StoredPassword(cleartext=password))


@settings(max_examples=40, deadline=None)
@given(SECRETS, NAMES, PASSWORDS, AUTHENTICATORS)
def test_a_login_of_ours_is_believed_and_read_by_pyrad(
    secret: bytes, name: bytes, password: bytes, authenticator: bytes
) -> None:
    digests = SecretDigests(secret)
    body = attribute(dictionary.USER_NAME, name) + pap_attributes(password, authenticator, digests)
    seen = AuthPacket(secret=secret, dict=PYRAD, packet=access_request(9, authenticator, body, digests))
    assert seen.verify_message_authenticator()
    assert seen["User-Name"] == [name.decode()]
    assert seen.PwDecrypt(seen["User-Password"][0]) == password.decode()
    body = chap_attributes(7, password, authenticator)
    seen = AuthPacket(secret=secret, dict=PYRAD, packet=access_request(9, authenticator, body, digests))
    assert seen.VerifyChapPasswd(password)


@settings(max_examples=40, deadline=None)
@given(SECRETS, NAMES, st.booleans())
def test_accounting_is_believed_in_both_directions(secret: bytes, name: bytes, signed: bool) -> None:
    request = AcctPacket(secret=secret, dict=PYRAD, message_authenticator=signed or None)
    request["User-Name"] = name.decode()
    request["Acct-Status-Type"] = 1
    digests = SecretDigests(secret)
    packet = sound(request.RequestPacket())
    assert verify(packet, digests, message_authenticator_required=False) is None
    reply = digests.reply(
        Code.ACCOUNTING_RESPONSE, packet.identifier, packet.authenticator, b"", message_authenticator=False
    )
    assert request.VerifyReply(request.CreateReply(packet=reply), reply)
    body = attribute(dictionary.USER_NAME, name)
    seen = AcctPacket(
        secret=secret, dict=PYRAD, packet=accounting_request(3, body, digests, message_authenticator=signed)
    )
    assert seen.VerifyAcctRequest()
    assert not signed or seen.verify_message_authenticator()


@settings(max_examples=40, deadline=None)
@given(SECRETS, st.sampled_from([Code.ACCESS_ACCEPT, Code.ACCESS_REJECT, Code.ACCESS_CHALLENGE]), NAMES)
def test_a_reply_of_ours_is_believed_by_pyrad(secret: bytes, code: Code, text: bytes) -> None:
    request = AuthPacket(secret=secret, dict=PYRAD, message_authenticator=True)
    packet = sound(request.RequestPacket())
    reply = SecretDigests(secret).reply(
        code,
        packet.identifier,
        packet.authenticator,
        attribute(dictionary.REPLY_MESSAGE, text),
        message_authenticator=True,
    )
    seen = request.CreateReply(packet=reply)
    assert request.VerifyReply(seen, reply, enforce_ma=True)
    assert seen["Reply-Message"] == [text.decode()]


@settings(max_examples=40, deadline=None)
@given(SECRETS, AUTHENTICATORS, NAMES, st.booleans())
def test_a_reply_of_pyrad_is_believed_and_a_changed_one_is_not(
    secret: bytes, authenticator: bytes, text: bytes, signed: bool
) -> None:
    digests = SecretDigests(secret)
    request = AuthPacket(secret=secret, dict=PYRAD, packet=access_request(4, authenticator, b"", digests))
    answer = request.CreateReply(message_authenticator=signed)
    answer.code = AccessReject
    answer["Reply-Message"] = text.decode()
    reply = answer.ReplyPacket()
    assert reply_is_authentic(reply, authenticator, digests)
    assert not reply_is_authentic(reply[:-1] + bytes((reply[-1] ^ 1,)), authenticator, digests)
    assert not reply_is_authentic(reply, authenticator, SecretDigests(secret + b"x"))
    assert not reply_is_authentic(reply[:19], authenticator, digests)


def test_a_signed_accounting_response_of_pyrad_is_believed_over_zeros_and_over_the_authenticator() -> None:
    digests = SecretDigests(b"secret")
    for datagram in (accounting_request(1, b"", digests), status_server(1, bytes(range(16)), digests)):
        request = AcctPacket(secret=b"secret", dict=PYRAD, packet=datagram)
        reply = request.CreateReply(message_authenticator=True).ReplyPacket()
        assert reply[20:22] == b"\x50\x12"
        assert reply_is_authentic(reply, datagram[4:20], digests)


def test_a_reply_whose_message_authenticator_is_wrong_or_double_is_not_believed() -> None:
    digests = SecretDigests(b"secret")
    wrong = digests.reply(2, 1, bytes(16), attribute(80, bytes(16)), message_authenticator=False)
    assert not reply_is_authentic(wrong, bytes(16), digests)
    double = digests.reply(2, 1, bytes(16), attribute(80, bytes(16)), message_authenticator=True)
    assert not reply_is_authentic(double, bytes(16), digests)


def test_status_server_of_either_is_believed_by_the_other() -> None:
    digests = SecretDigests(b"secret")
    request = AcctPacket(code=StatusServer, secret=b"secret", dict=PYRAD)
    assert verify(sound(request.RequestPacket()), digests, message_authenticator_required=False) is None
    seen = AcctPacket(secret=b"secret", dict=PYRAD, packet=status_server(2, bytes(range(16)), digests))
    assert seen.VerifyAcctRequest()


def test_dynamic_authorization_of_ours_is_believed_by_pyrad() -> None:
    digests = SecretDigests(b"secret")
    for code in (Code.COA_REQUEST, Code.DISCONNECT_REQUEST):
        datagram = digests.request(code, 1, b"", attribute(1, b"ann"), message_authenticator=True)
        seen = CoAPacket(secret=b"secret", dict=PYRAD, packet=datagram)
        assert seen.VerifyCoARequest()
        assert seen.verify_message_authenticator()


@settings(max_examples=40, deadline=None)
@given(SECRETS, AUTHENTICATORS, st.binary(min_size=1, max_size=40))
def test_keys_are_salted_as_pyrad_salts_them(secret: bytes, authenticator: bytes, key: bytes) -> None:
    digests = SecretDigests(secret)
    other = PyradPacket(code=2, secret=secret, authenticator=authenticator, dict=PYRAD)
    assert other.SaltDecrypt(digests.encrypt_key(key, b"\x91\x07", authenticator)) == key
    assert digests.decrypt_key(other.SaltCrypt(key), authenticator) == key
