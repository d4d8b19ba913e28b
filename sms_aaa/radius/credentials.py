"""What a login proves itself with, read from a packet and checked against what is stored.

A method is usable or not by the form that is stored: CHAP needs the password itself, MS-CHAP its NT hash, PAP takes
any form. can_use() and matches() are apart so that "your password cannot serve this method" and "wrong password" stay
two reasons. Each credential also knows what its method adds to the reply. None of them shows its octets by repr.
"""

from __future__ import annotations

from enum import IntEnum
from hmac import compare_digest
from typing import TYPE_CHECKING, ClassVar

from sms_aaa.radius import mschap
from sms_aaa.radius.dictionary import (
    CHAP_CHALLENGE,
    CHAP_PASSWORD,
    EAP_MESSAGE,
    MS_CHAP2_RESPONSE,
    MS_CHAP2_SUCCESS,
    MS_CHAP_CHALLENGE,
    MS_CHAP_ERROR,
    MS_CHAP_MPPE_KEYS,
    MS_CHAP_RESPONSE,
    MS_MPPE_ENCRYPTION_POLICY,
    MS_MPPE_ENCRYPTION_TYPES,
    MS_MPPE_RECV_KEY,
    MS_MPPE_SEND_KEY,
    USER_NAME,
    USER_PASSWORD,
)
from sms_aaa.radius.digest import chap_response
from sms_aaa.radius.faults import PacketFault
from sms_aaa.radius.hashes import Form, Hashed, Hidden
from sms_aaa.radius.packet import attribute, integer

if TYPE_CHECKING:
    from sms_aaa.radius.digest import SecretDigests
    from sms_aaa.radius.packet import Packet

# RFC 2548 sections 2.4.4 and 2.4.5.
_ENCRYPTION_ALLOWED = attribute(MS_MPPE_ENCRYPTION_POLICY, integer(1))
_RC4_128 = attribute(MS_MPPE_ENCRYPTION_TYPES, integer(4))
_RC4_40_OR_128 = attribute(MS_MPPE_ENCRYPTION_TYPES, integer(6))


def _head(key: int, octets: int) -> bytes:
    """What stands before the value of an attribute that always has so many octets."""
    return attribute(key, bytes(octets))[:-octets]


# RFC 2548 sections 2.3.3, 2.4.2 and 2.4.3: identifier, S= and 40 digits; salt and two blocks.
_SUCCESS_HEAD = _head(MS_CHAP2_SUCCESS, 43)
_SEND_KEY_HEAD, _RECEIVE_KEY_HEAD = _head(MS_MPPE_SEND_KEY, 34), _head(MS_MPPE_RECV_KEY, 34)
_MPPE2 = _ENCRYPTION_ALLOWED + _RC4_40_OR_128

# RFC 2865 section 4.1 and RFC 3579 section 3.3: one of these at most, and once. EAP-Message alone may come in pieces.
_SINGLE_CREDENTIALS = frozenset((USER_PASSWORD, CHAP_PASSWORD, MS_CHAP_RESPONSE, MS_CHAP2_RESPONSE))


class Method(IntEnum):
    """How a login proved itself. MAC: by its address alone, which is the caller's to say; NONE: not at all."""

    NONE = 0
    PAP = 1
    CHAP = 2
    MSCHAP = 3
    MSCHAP2 = 4
    MAC = 5


class StoredPassword(Hidden, frozen=True, gc=False):
    """What is known of one password: itself with its NT hash, the NT hash alone, or another hash (`hashed`).

    `nt_hash_hash` is MD4 of `nt_hash`, kept to spare the MD4 per login.
    """

    cleartext: bytes | None = None
    nt_hash: bytes | None = None
    nt_hash_hash: bytes | None = None
    hashed: Hashed | None = None

    @classmethod
    def from_cleartext(cls, password: bytes) -> StoredPassword:
        """Itself and both hashes; UnicodeDecodeError when the password is not UTF-8."""
        nt_hash = mschap.nt_hash(password)
        return cls(password, nt_hash, mschap.md4(nt_hash))

    @property
    def form(self) -> Form:
        if self.hashed is not None:
            return self.hashed.form
        return Form.CLEARTEXT if self.cleartext is not None else Form.NT

    @property
    def is_slow(self) -> bool:
        """Whether a check of it does not belong into a worker's loop."""
        return self.hashed is not None and self.hashed.is_slow

    @property
    def methods(self) -> tuple[Method, ...]:
        """The methods that it can serve."""
        if self.hashed is not None:
            return (Method.PAP,)
        without_chap = (Method.PAP, Method.MSCHAP, Method.MSCHAP2)
        return (Method.PAP, Method.CHAP, *without_chap[1:]) if self.cleartext is not None else without_chap


class _WithoutProof(Hidden, frozen=True, gc=False):
    """PAP and CHAP add nothing to a reply: the server proves nothing and there are no keys."""

    def success_attributes(
        self, _stored: StoredPassword, _digests: SecretDigests, _request_authenticator: bytes, _salts: bytes
    ) -> bytes:
        return b""

    def failure_attributes(self) -> bytes:
        return b""


class Pap(_WithoutProof, frozen=True, gc=False):
    """RFC 2865 section 5.2. `password` is in the clear, without padding."""

    method: ClassVar[Method] = Method.PAP
    password: bytes

    def can_use(self, stored: StoredPassword) -> bool:
        return stored.cleartext is not None or stored.nt_hash is not None or stored.hashed is not None

    def matches(self, stored: StoredPassword) -> bool:
        if stored.cleartext is not None:
            return compare_digest(self.password, stored.cleartext)
        if stored.hashed is not None:
            return stored.hashed.matches(self.password)
        if stored.nt_hash is None:
            return False
        try:
            offered = mschap.nt_hash(self.password)
        except UnicodeDecodeError:  # no NT hash is made of such a password; a wrong shared secret gives them
            return False
        return compare_digest(offered, stored.nt_hash)


class Chap(_WithoutProof, frozen=True, gc=False):
    """RFC 2865 section 5.3."""

    method: ClassVar[Method] = Method.CHAP
    identifier: int
    response: bytes
    challenge: bytes

    def can_use(self, stored: StoredPassword) -> bool:
        return stored.cleartext is not None

    def matches(self, stored: StoredPassword) -> bool:
        if stored.cleartext is None:
            return False
        return compare_digest(chap_response(self.identifier, stored.cleartext, self.challenge), self.response)


class MsChap(Hidden, frozen=True, gc=False):
    """RFC 2433, RFC 2548 section 2.1.3. `nt_response` is None when the peer sent only the older LM response."""

    method: ClassVar[Method] = Method.MSCHAP
    identifier: int
    nt_response: bytes | None
    challenge: bytes

    def can_use(self, stored: StoredPassword) -> bool:
        return stored.nt_hash is not None and self.nt_response is not None

    def matches(self, stored: StoredPassword) -> bool:
        if stored.nt_hash is None or self.nt_response is None:
            return False
        return compare_digest(mschap.challenge_response(self.challenge, stored.nt_hash), self.nt_response)

    def success_attributes(
        self, stored: StoredPassword, digests: SecretDigests, request_authenticator: bytes, _salts: bytes
    ) -> bytes:
        """The keys of MPPE; only 128-bit ones, since 40-bit ones would need an LM hash."""
        keys = mschap.mschap1_keys(_hash_of_hash(stored))
        # RFC 2548 section 2.4.1: hidden as User-Password is.
        hidden = digests.hide_password(keys, request_authenticator)
        return attribute(MS_CHAP_MPPE_KEYS, hidden) + _ENCRYPTION_ALLOWED + _RC4_128

    def failure_attributes(self) -> bytes:
        """RFC 2433 section 9: authentication failed, no retry, and the challenge again, which is then never used."""
        return _mschap_error(self.identifier, self.challenge, "V=2")


class MsChap2(Hidden, frozen=True, gc=False):
    """RFC 2759, RFC 2548 section 2.3.2. `user_name` is without its NT domain."""

    method: ClassVar[Method] = Method.MSCHAP2
    identifier: int
    nt_response: bytes
    peer_challenge: bytes
    challenge: bytes
    user_name: bytes

    def can_use(self, stored: StoredPassword) -> bool:
        return stored.nt_hash is not None

    def matches(self, stored: StoredPassword) -> bool:
        if stored.nt_hash is None:
            return False
        expected = mschap.generate_nt_response(
            authenticator_challenge=self.challenge,
            peer_challenge=self.peer_challenge,
            user_name=self.user_name,
            password_hash=stored.nt_hash,
        )
        return compare_digest(expected, self.nt_response)

    def success_attributes(
        self, stored: StoredPassword, digests: SecretDigests, request_authenticator: bytes, salts: bytes
    ) -> bytes:
        """The server's own proof and the keys of MPPE. `salts`: four random octets, for the two keys."""
        hash_of_hash = _hash_of_hash(stored)
        proof = mschap.authenticator_response(
            password_hash_hash=hash_of_hash,
            nt_response=self.nt_response,
            peer_challenge=self.peer_challenge,
            authenticator_challenge=self.challenge,
            user_name=self.user_name,
        )
        send, receive = mschap.server_keys(hash_of_hash, self.nt_response)
        # RFC 2548 section 2.4.2: the first bit of a salt is set, and no two in a packet are the same.
        send_salt = bytes((salts[0] | 0x80, salts[1] | 0x01))
        receive_salt = bytes((salts[2] | 0x80, salts[3] & 0xFE))
        return b"".join(
            (
                _SUCCESS_HEAD,
                bytes((self.identifier,)),
                proof,
                _SEND_KEY_HEAD,
                digests.encrypt_key(send, send_salt, request_authenticator),
                _RECEIVE_KEY_HEAD,
                digests.encrypt_key(receive, receive_salt, request_authenticator),
                _MPPE2,
            )
        )

    def failure_attributes(self) -> bytes:
        """RFC 2759 section 6: authentication failed, no retry, and the challenge again, which is then never used."""
        return _mschap_error(self.identifier, self.challenge, "V=3 M=Authentication failed.")


Credential = Pap | Chap | MsChap | MsChap2


def read_credential(packet: Packet, digests: SecretDigests) -> Credential | PacketFault | None:
    """The credential of an Access-Request; None when it has none that is read here (EAP, MAC, a call check).

    A fault when it has several (RFC 2865 section 4.1 forbids that) or one that is cut wrong.
    """
    attributes = packet.attributes
    present = attributes.keys() & _SINGLE_CREDENTIALS
    if not present:
        return None
    key = present.pop()
    if present or EAP_MESSAGE in attributes:
        return PacketFault.CREDENTIAL_CONFLICT
    if packet.repeated is not None and any(again == key for again, _ in packet.repeated):
        return PacketFault.CREDENTIAL_CONFLICT
    if key == USER_PASSWORD:
        password = digests.reveal_password(attributes[key], packet.authenticator)
        return PacketFault.CREDENTIAL_LENGTH if password is None else Pap(password)
    if key == CHAP_PASSWORD:
        return _read_chap(packet)
    return _read_mschap(packet, key)


def _read_chap(packet: Packet) -> Chap | PacketFault:
    value = packet.attributes[CHAP_PASSWORD]
    if len(value) != 17:
        return PacketFault.CREDENTIAL_LENGTH
    # RFC 2865 section 5.40: without CHAP-Challenge the Request Authenticator was the challenge.
    return Chap(value[0], value[1:], packet.attributes.get(CHAP_CHALLENGE, packet.authenticator))


def _read_mschap(packet: Packet, key: int) -> MsChap | MsChap2 | PacketFault:
    value = packet.attributes[key]
    challenge = packet.attributes.get(MS_CHAP_CHALLENGE)
    if challenge is None:
        return PacketFault.CREDENTIAL_WITHOUT_CHALLENGE
    if len(value) != 50 or len(challenge) != (8 if key == MS_CHAP_RESPONSE else 16):
        return PacketFault.CREDENTIAL_LENGTH
    if key == MS_CHAP_RESPONSE:
        # RFC 2548 section 2.1.3: identifier, flags (1: use the NT response), LM response (24), NT response (24).
        return MsChap(value[0], value[26:] if value[1] & 1 else None, challenge)
    # RFC 2548 section 2.3.2: identifier, flags, peer's challenge (16), reserved (8), response (24).
    return MsChap2(value[0], value[26:], value[2:18], challenge, without_domain(packet.attributes.get(USER_NAME, b"")))


def without_domain(user_name: bytes) -> bytes:
    r"""RFC 2759 section 8.2: what MS-CHAPv2 hashes of `DOMAIN\user` is `user`."""
    return user_name.partition(b"\\")[2] or user_name


def _hash_of_hash(stored: StoredPassword) -> bytes:
    if stored.nt_hash_hash is not None:
        return stored.nt_hash_hash
    assert stored.nt_hash is not None, "asked for keys of a password that cannot serve MS-CHAP"
    return mschap.md4(stored.nt_hash)


def _mschap_error(identifier: int, challenge: bytes, version: str) -> bytes:
    text = f"E=691 R=0 C={challenge.hex().upper()} {version}"
    return attribute(MS_CHAP_ERROR, bytes((identifier,)) + text.encode("ascii"))
