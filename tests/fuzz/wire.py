"""RADIUS once more, by the RFCs and without a line of sms_aaa/radius: the campaign's own pen and its judge's eye.

Whatever is not exactly as RFC 2865 section 3 and 5 have it is None here; there is one way to be sound.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass

USER_NAME, USER_PASSWORD, CHAP_PASSWORD, SERVICE_TYPE, VENDOR_SPECIFIC = 1, 2, 3, 6, 26
CALLING_STATION_ID, PROXY_STATE, CHAP_CHALLENGE, EAP_MESSAGE, MESSAGE_AUTHENTICATOR = 31, 33, 60, 79, 80
ACCESS_REQUEST, ACCESS_ACCEPT, ACCESS_REJECT, ACCESS_CHALLENGE = 1, 2, 3, 11
ACCOUNTING_REQUEST, ACCOUNTING_RESPONSE, STATUS_SERVER = 4, 5, 12
MICROSOFT = 311
HEADER_OCTETS, PACKET_OCTETS_MAX, VALUE_OCTETS_MAX = 20, 4096, 253
ZEROS = bytes(16)

Pairs = list[tuple[int, bytes]]


@dataclass(slots=True)
class Message:
    """A sound packet, cut to its Length. `pairs`: (type, value) in order, Vendor-Specific whole."""

    data: bytes
    code: int
    identifier: int
    authenticator: bytes
    pairs: Pairs

    def all(self, kind: int) -> list[bytes]:
        return [value for found, value in self.pairs if found == kind]

    def first(self, kind: int) -> bytes | None:
        return next((value for found, value in self.pairs if found == kind), None)

    def microsoft(self, kind: int) -> list[bytes]:
        """The values of a Microsoft attribute (RFC 2548), wherever in a Vendor-Specific of theirs it stands."""
        found = []
        for value in self.all(VENDOR_SPECIFIC):
            if value[:4] == MICROSOFT.to_bytes(4, "big"):
                found += [inner for number, inner in split(value[4:]) or [] if number == kind]
        return found


def split(octets: bytes) -> Pairs | None:
    """A row of attributes; None when one has no room for its own header or does not end where the row does."""
    pairs = []
    while octets:
        length = octets[1] if len(octets) > 1 else 0
        if length < 2 or length > len(octets):
            return None
        pairs.append((octets[0], octets[2:length]))
        octets = octets[length:]
    return pairs


def read(datagram: bytes) -> Message | None:
    """RFC 2865 section 3: octets beyond Length are padding, a shorter datagram is silently discarded."""
    if len(datagram) < HEADER_OCTETS:
        return None
    length = int.from_bytes(datagram[2:4], "big")
    if not HEADER_OCTETS <= length <= min(len(datagram), PACKET_OCTETS_MAX):
        return None
    data = datagram[:length]
    pairs = split(data[HEADER_OCTETS:])
    return None if pairs is None else Message(data, data[0], data[1], data[4:20], pairs)


def join(pairs: Pairs) -> bytes:
    """ValueError for a value that has no room in an attribute."""
    return b"".join(bytes((kind, len(value) + 2)) + value for kind, value in pairs)


def sign(code: int, identifier: int, authenticator: bytes, attributes: bytes, secret: bytes) -> bytes:
    """A request around `attributes`; its first Message-Authenticator of 16 octets, if it has one, is made valid.

    For an Accounting-Request `authenticator` is replaced by its digest. Length is cut to two octets, whatever comes.
    """
    length = (HEADER_OCTETS + len(attributes)) & 0xFFFF
    header = bytes((code, identifier)) + length.to_bytes(2, "big")
    is_digest = code == ACCOUNTING_REQUEST
    at = _find_message_authenticator(attributes)
    if at >= 0:
        blank = attributes[:at] + ZEROS + attributes[at + 16 :]
        digest = hmac.digest(secret, header + (ZEROS if is_digest else authenticator) + blank, "md5")
        attributes = attributes[:at] + digest + attributes[at + 16 :]
    if is_digest:
        authenticator = hashlib.md5(header + ZEROS + attributes + secret).digest()
    return header + authenticator + attributes


def _find_message_authenticator(attributes: bytes) -> int:
    """Where the value of the first one of 16 octets begins; -1 without one, or where the row breaks before it."""
    at = 0
    while at + 18 <= len(attributes) and attributes[at + 1] >= 2:
        if attributes[at] == MESSAGE_AUTHENTICATOR and attributes[at + 1] == 18:
            return at + 2
        at += attributes[at + 1]
    return -1


def is_signed_by(message: Message, secret: bytes, authenticator: bytes) -> bool:
    """Whether its only Message-Authenticator is valid, with `authenticator` in the place of its own (RFC 3579 3.2)."""
    [value] = message.all(MESSAGE_AUTHENTICATOR)
    at = _find_message_authenticator(message.data[HEADER_OCTETS:])
    if len(value) != 16 or at < 0:
        return False
    at += HEADER_OCTETS
    blank = message.data[:4] + authenticator + message.data[20:at] + ZEROS + message.data[at + 16 :]
    return hmac.compare_digest(hmac.digest(secret, blank, "md5"), value)


def hide(password: bytes, authenticator: bytes, secret: bytes) -> bytes:
    """RFC 2865 section 5.2."""
    padded = (password or b"\0").ljust(-(-len(password or b"\0") // 16) * 16, b"\0")
    hidden, previous = b"", authenticator
    for at in range(0, len(padded), 16):
        mask = hashlib.md5(secret + previous).digest()
        previous = bytes(a ^ b for a, b in zip(padded[at : at + 16], mask, strict=True))
        hidden += previous
    return hidden


def reveal(hidden: bytes, authenticator: bytes, secret: bytes) -> bytes | None:
    """None where it is not of 1 to 8 blocks."""
    if not 16 <= len(hidden) <= 128 or len(hidden) % 16:
        return None
    plain, previous = b"", authenticator
    for at in range(0, len(hidden), 16):
        mask = hashlib.md5(secret + previous).digest()
        previous = hidden[at : at + 16]
        plain += bytes(a ^ b for a, b in zip(previous, mask, strict=True))
    return plain.rstrip(b"\0")
