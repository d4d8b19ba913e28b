"""The NAS's side: requests, credentials made from a password, and the check of a reply.

For the load generator, the demo and the tests. It is pure like the rest: random octets (Request Authenticator,
challenges) are arguments.
"""

from __future__ import annotations

from hmac import compare_digest
from typing import TYPE_CHECKING

from sms_aaa.radius import mschap
from sms_aaa.radius.credentials import without_domain
from sms_aaa.radius.dictionary import (
    CHAP_CHALLENGE,
    CHAP_PASSWORD,
    MS_CHAP2_RESPONSE,
    MS_CHAP_CHALLENGE,
    MS_CHAP_RESPONSE,
    USER_PASSWORD,
)
from sms_aaa.radius.digest import chap_response
from sms_aaa.radius.packet import Code, Packet, attribute, parse

if TYPE_CHECKING:
    from sms_aaa.radius.digest import SecretDigests


def access_request(
    identifier: int,
    authenticator: bytes,
    attributes: bytes,
    digests: SecretDigests,
    *,
    message_authenticator: bool = True,
) -> bytes:
    """`authenticator`: 16 random octets, the same that pap_attributes() was given."""
    return digests.request(
        Code.ACCESS_REQUEST, identifier, authenticator, attributes, message_authenticator=message_authenticator
    )


def accounting_request(
    identifier: int, attributes: bytes, digests: SecretDigests, *, message_authenticator: bool = False
) -> bytes:
    """Its Request Authenticator, which the check of the reply needs, is octets 4 to 20 of the result."""
    return digests.request(
        Code.ACCOUNTING_REQUEST, identifier, b"", attributes, message_authenticator=message_authenticator
    )


def status_server(identifier: int, authenticator: bytes, digests: SecretDigests, attributes: bytes = b"") -> bytes:
    """RFC 5997: is the server there? Always with a Message-Authenticator."""
    return digests.request(Code.STATUS_SERVER, identifier, authenticator, attributes, message_authenticator=True)


def reply_is_authentic(reply: bytes, request_authenticator: bytes, digests: SecretDigests) -> bool:
    """A sound packet with a valid Response Authenticator, and a valid Message-Authenticator if it has one."""
    packet = parse(reply)
    return isinstance(packet, Packet) and digests.reply_is_authentic(packet, request_authenticator)


def pap_attributes(password: bytes, authenticator: bytes, digests: SecretDigests) -> bytes:
    return attribute(USER_PASSWORD, digests.hide_password(password, authenticator))


def chap_attributes(identifier: int, password: bytes, challenge: bytes) -> bytes:
    response = bytes((identifier,)) + chap_response(identifier, password, challenge)
    return attribute(CHAP_PASSWORD, response) + attribute(CHAP_CHALLENGE, challenge)


def mschap_attributes(identifier: int, password: bytes, challenge: bytes) -> bytes:
    """`challenge`: 8 octets. The LM response is left zero, as RFC 2433 section 6 advises."""
    nt_response = mschap.challenge_response(challenge, mschap.nt_hash(password))
    response = bytes((identifier, 1)) + bytes(24) + nt_response
    return attribute(MS_CHAP_CHALLENGE, challenge) + attribute(MS_CHAP_RESPONSE, response)


def mschap2_attributes(
    identifier: int, user_name: bytes, password: bytes, *, challenge: bytes, peer_challenge: bytes
) -> bytes:
    """`challenge` and `peer_challenge`: 16 octets each."""
    nt_response = mschap.generate_nt_response(
        authenticator_challenge=challenge,
        peer_challenge=peer_challenge,
        user_name=without_domain(user_name),
        password_hash=mschap.nt_hash(password),
    )
    response = bytes((identifier, 0)) + peer_challenge + bytes(8) + nt_response
    return attribute(MS_CHAP_CHALLENGE, challenge) + attribute(MS_CHAP2_RESPONSE, response)


def mschap2_success_is_authentic(
    success: bytes, user_name: bytes, password: bytes, *, challenge: bytes, peer_challenge: bytes
) -> bool:
    """Whether the value of MS-CHAP2-Success proves that the server knows the password (RFC 2759 section 8.8)."""
    password_hash = mschap.nt_hash(password)
    name = without_domain(user_name)
    nt_response = mschap.generate_nt_response(
        authenticator_challenge=challenge, peer_challenge=peer_challenge, user_name=name, password_hash=password_hash
    )
    expected = mschap.authenticator_response(
        password_hash_hash=mschap.md4(password_hash),
        nt_response=nt_response,
        peer_challenge=peer_challenge,
        authenticator_challenge=challenge,
        user_name=name,
    )
    return compare_digest(expected, success[1:43])
