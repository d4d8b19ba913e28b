"""All MD5 of RADIUS in one file: authenticators, hidden passwords, encrypted keys, CHAP.

MD5 is most of what a request costs, so everything that depends on the secret alone is computed once: the inner and
outer state of HMAC (RFC 2104), and the state that begins each block of a hidden password. They are copy()d per
packet. Whatever is compared with what a peer sent is compared in constant time.

verify() is the whole check that a request is genuine, in the order in which a fault is named. It comes before any
decoding and before the cache of duplicates (RFC 5080 section 2.2.2).
"""

from __future__ import annotations

import hashlib
from functools import partial
from hmac import compare_digest
from typing import TYPE_CHECKING, Protocol, Self

from sms_aaa.radius.dictionary import EAP_MESSAGE, MESSAGE_AUTHENTICATOR, PROXY_STATE
from sms_aaa.radius.faults import PacketFault
from sms_aaa.radius.packet import HEADER_OCTETS, PACKET_OCTETS_MAX, Code, Packet

if TYPE_CHECKING:
    from collections.abc import Callable


class _Md5(Protocol):
    """What is used of a hash object."""

    def update(self, data: bytes, /) -> None: ...
    def digest(self) -> bytes: ...
    def copy(self) -> Self: ...


_md5: Callable[[bytes], _Md5]
try:
    # CPython's own MD5: a quarter faster than OpenSSL's on packets, and there in FIPS mode too.
    from _md5 import md5 as _md5  # type: ignore[import-not-found,no-redef]  # typeshed has no stub for it
except ImportError:  # an interpreter that was built without it
    _md5 = partial(hashlib.md5, usedforsecurity=False)

# CVE-2024-3596: a forger hides some 400 octets of collision in Proxy-State. Real proxies put in a few tens.
UNSIGNED_PROXY_STATE_OCTETS_MAX = 64

_ZEROS = bytes(16)
_BLOCK_OCTETS = 64  # of MD5
_MESSAGE_AUTHENTICATOR_HEADER = b"\x50\x12"
_EMPTY_MESSAGE_AUTHENTICATOR = _MESSAGE_AUTHENTICATOR_HEADER + _ZEROS
# RFC 2866 section 3, RFC 5176 section 2.3: their Request Authenticator is a digest of the packet, not a random number.
_DIGEST_CODES = frozenset((int(Code.ACCOUNTING_REQUEST), int(Code.DISCONNECT_REQUEST), int(Code.COA_REQUEST)))
_RANDOM_CODES = frozenset((int(Code.ACCESS_REQUEST), int(Code.STATUS_SERVER)))


class SecretDigests:
    """The digests of one shared secret. Nothing of it is shown by repr."""

    __slots__ = ("_hidden", "_inner", "_outer", "_secret")

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        # RFC 2104 section 2: a key longer than a block is hashed first.
        key = (_md5(secret).digest() if len(secret) > _BLOCK_OCTETS else secret).ljust(_BLOCK_OCTETS, b"\0")
        self._inner = _md5(bytes(octet ^ 0x36 for octet in key))
        self._outer = _md5(bytes(octet ^ 0x5C for octet in key))
        self._hidden = _md5(secret)

    def request_authenticator_is_valid(self, packet: Packet) -> bool:
        """For Accounting-, CoA- and Disconnect-Request (RFC 2866 section 3, RFC 5176 section 2.3)."""
        data = packet.data
        expected = _md5(data[:4] + _ZEROS + data[20:] + self._secret).digest()
        return compare_digest(expected, packet.authenticator)

    def message_authenticator_is_valid(self, packet: Packet) -> bool:
        """For a request; False as well when there is none or it is not of 16 octets (RFC 3579 section 3.2)."""
        at = packet.message_authenticator_at
        if packet.code in _DIGEST_CODES or at < 0:
            # RFC 5176 section 3.4: where the Request Authenticator is a digest, it is computed after and counts as 0.
            return self._message_authenticator_is_valid(packet, _ZEROS)
        # A login's way: what _hmac() does, without its calls. The Request Authenticator stands where it is hashed.
        data = packet.data
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(data[:at] + _ZEROS + data[at + 16 :])
        outer.update(inner.digest())
        return compare_digest(outer.digest(), packet.attributes[MESSAGE_AUTHENTICATOR])

    def reply_is_authentic(self, reply: Packet, request_authenticator: bytes) -> bool:
        """Response Authenticator, and Message-Authenticator when there is one: no more than one, and valid."""
        data = reply.data
        expected = _md5(data[:4] + request_authenticator + data[20:] + self._secret).digest()
        if not compare_digest(expected, reply.authenticator):
            return False
        if reply.message_authenticator_at < 0:
            return True
        if len(reply.all(MESSAGE_AUTHENTICATOR)) != 1:
            return False
        if self._message_authenticator_is_valid(reply, request_authenticator):
            return True
        # FreeRADIUS and pyrad compute that of an Accounting-Response over zeros, others over the Request Authenticator;
        # RFC 2869 does not say. Whoever can do either knows the secret.
        return reply.code == Code.ACCOUNTING_RESPONSE and self._message_authenticator_is_valid(reply, _ZEROS)

    def _message_authenticator_is_valid(self, packet: Packet, authenticator: bytes) -> bool:
        at = packet.message_authenticator_at
        if at < 0:
            return False
        data = packet.data
        expected = self._hmac(data[:4] + authenticator + data[20:at] + _ZEROS + data[at + 16 :])
        return compare_digest(expected, packet.attributes[MESSAGE_AUTHENTICATOR])

    def reply(
        self,
        code: int,
        identifier: int,
        request_authenticator: bytes,
        attributes: bytes,
        *,
        message_authenticator: bool,
    ) -> bytes:
        """A whole reply. ValueError beyond 4096 octets.

        Message-Authenticator goes first, before anything that a peer could have put in (CVE-2024-3596). An
        Accounting-Response should have one only if it answers a Status-Server: see reply_is_authentic().
        """
        header = _header(code, identifier, attributes, message_authenticator=message_authenticator)
        if message_authenticator:
            attributes = self._signed(header, request_authenticator, attributes)
        authenticator = _md5(header + request_authenticator + attributes + self._secret).digest()
        return header + authenticator + attributes

    def plain_reply(self, code: int, identifier: int, request_authenticator: bytes) -> bytes:
        """As `reply` with neither attributes nor Message-Authenticator, which is what most Accounting-Responses are."""
        header = bytes((code, identifier, 0, HEADER_OCTETS))
        return header + _md5(header + request_authenticator + self._secret).digest()

    def request(
        self, code: int, identifier: int, authenticator: bytes, attributes: bytes, *, message_authenticator: bool
    ) -> bytes:
        """A whole request. `authenticator` is random for Access-Request and Status-Server, else it is not looked at."""
        header = _header(code, identifier, attributes, message_authenticator=message_authenticator)
        is_digest = code in _DIGEST_CODES
        if message_authenticator:
            attributes = self._signed(header, _ZEROS if is_digest else authenticator, attributes)
        if is_digest:
            authenticator = _md5(header + _ZEROS + attributes + self._secret).digest()
        return header + authenticator + attributes

    def signed_reply(self, code: int, identifier: int, request_authenticator: bytes, attributes: bytes) -> bytes:
        """As `reply` with a Message-Authenticator, which every Access reply has: on the packet's way, in one piece."""
        length = len(attributes) + (HEADER_OCTETS + 18)
        if length > PACKET_OCTETS_MAX:
            raise ValueError(f"a packet of {length} octets; the most is {PACKET_OCTETS_MAX}: send fewer attributes")
        header = bytes((code, identifier, length >> 8, length & 255))
        inner = self._inner.copy()
        inner.update(header + request_authenticator + _EMPTY_MESSAGE_AUTHENTICATOR + attributes)
        outer = self._outer.copy()
        outer.update(inner.digest())
        attributes = _MESSAGE_AUTHENTICATOR_HEADER + outer.digest() + attributes
        return header + _md5(header + request_authenticator + attributes + self._secret).digest() + attributes

    def _signed(self, header: bytes, authenticator: bytes, attributes: bytes) -> bytes:
        start = header + authenticator + _MESSAGE_AUTHENTICATOR_HEADER
        return _MESSAGE_AUTHENTICATOR_HEADER + self._hmac(start + _ZEROS + attributes) + attributes

    def _hmac(self, data: bytes) -> bytes:
        inner = self._inner.copy()
        inner.update(data)
        outer = self._outer.copy()
        outer.update(inner.digest())
        return outer.digest()

    def reveal_password(self, hidden: bytes, authenticator: bytes) -> bytes | None:
        """User-Password in the clear, without its padding; None when it is not 1 to 8 blocks of 16 octets.

        RFC 2865 section 5.2. A wrong secret gives noise, not None: nothing in the value tells.
        """
        if not _is_hidden_password(hidden):
            return None
        return self._unmask(hidden, authenticator).rstrip(b"\0")

    def hide_password(self, password: bytes, authenticator: bytes) -> bytes:
        """RFC 2865 section 5.2. ValueError beyond 128 octets."""
        if len(password) > 128:
            raise ValueError(f"a password has at most 128 octets, not {len(password)}")
        return self._mask(_padded(password or b"\0"), authenticator)

    def encrypt_key(self, key: bytes, salt: bytes, authenticator: bytes) -> bytes:
        """The value of MS-MPPE-Send-Key and -Recv-Key, salt first (RFC 2548 section 2.4.2).

        `salt` has two octets, the first with its high bit set, and occurs once in a packet.
        """
        if len(salt) != 2 or salt[0] < 0x80:
            raise ValueError("a salt has two octets, the first of at least 0x80")
        return salt + self._mask(_padded(bytes((len(key),)) + key), authenticator + salt)

    def decrypt_key(self, value: bytes, authenticator: bytes) -> bytes | None:
        """What encrypt_key() was given; None when the value is not in that form."""
        if len(value) < 18 or len(value) % 16 != 2:
            return None
        plain = self._unmask(value[2:], authenticator + value[:2])
        return plain[1 : 1 + plain[0]] if plain[0] < len(plain) else None

    def _mask(self, plain: bytes, first: bytes) -> bytes:
        """XOR each block with MD5(secret, the masked block before it; at the start `first`)."""
        masked = b""
        previous = first
        for at in range(0, len(plain), 16):
            previous = _xor(plain[at : at + 16], self._block(previous))
            masked += previous
        return masked

    def _unmask(self, masked: bytes, first: bytes) -> bytes:
        mask = self._block(first)
        for at in range(16, len(masked), 16):
            mask += self._block(masked[at - 16 : at])
        return _xor(masked, mask)

    def _block(self, previous: bytes) -> bytes:
        block = self._hidden.copy()
        block.update(previous)
        return block.digest()


def verify(packet: Packet, digests: SecretDigests, *, message_authenticator_required: bool) -> PacketFault | None:
    """Why a request is not to be believed, or None. `message_authenticator_required` is about Access-Requests alone.

    Serves Access-Request, Status-Server and the requests whose Request Authenticator is a digest.
    """
    if packet.code not in _RANDOM_CODES:
        if packet.code not in _DIGEST_CODES:
            return PacketFault.UNEXPECTED_CODE
        if not digests.request_authenticator_is_valid(packet):
            return PacketFault.BAD_REQUEST_AUTHENTICATOR
    if packet.message_authenticator_at < 0:
        return _verify_without_message_authenticator(packet, required=message_authenticator_required)
    if packet.repeated is not None and len(packet.all(MESSAGE_AUTHENTICATOR)) > 1:
        return PacketFault.MESSAGE_AUTHENTICATOR_REPEATED
    if len(packet.attributes[MESSAGE_AUTHENTICATOR]) != 16:
        return PacketFault.MESSAGE_AUTHENTICATOR_LENGTH
    if not digests.message_authenticator_is_valid(packet):
        return PacketFault.MESSAGE_AUTHENTICATOR_INVALID
    return None


def _verify_without_message_authenticator(packet: Packet, *, required: bool) -> PacketFault | None:
    # RFC 5997 section 3 and RFC 3579 section 3.1: Status-Server and EAP-Message never go without, whatever is set.
    if packet.code == Code.STATUS_SERVER:
        return PacketFault.STATUS_SERVER_UNSIGNED
    if EAP_MESSAGE in packet.attributes:
        return PacketFault.EAP_UNSIGNED
    if packet.code != Code.ACCESS_REQUEST:
        return None
    if required:
        return PacketFault.MESSAGE_AUTHENTICATOR_MISSING
    if PROXY_STATE in packet.attributes:
        octets = sum(len(value) for value in packet.all(PROXY_STATE))
        if octets > UNSIGNED_PROXY_STATE_OCTETS_MAX:
            return PacketFault.PROXY_STATE_LIMIT
    return None


def chap_response(identifier: int, password: bytes, challenge: bytes) -> bytes:
    """The 16 octets that CHAP-Password has after its identifier (RFC 1994 section 4.1, RFC 2865 section 5.3)."""
    return _md5(bytes((identifier,)) + password + challenge).digest()


def _header(code: int, identifier: int, attributes: bytes, *, message_authenticator: bool) -> bytes:
    length = HEADER_OCTETS + len(attributes) + (18 if message_authenticator else 0)
    if length > PACKET_OCTETS_MAX:
        raise ValueError(f"a packet of {length} octets; the most is {PACKET_OCTETS_MAX}: send fewer attributes")
    return bytes((code, identifier, length >> 8, length & 255))


def _is_hidden_password(hidden: bytes) -> bool:
    return 16 <= len(hidden) <= 128 and len(hidden) % 16 == 0


def _padded(plain: bytes) -> bytes:
    return plain + bytes(-len(plain) % 16)


def _xor(left: bytes, right: bytes) -> bytes:
    return (int.from_bytes(left, "big") ^ int.from_bytes(right, "big")).to_bytes(len(left), "big")
