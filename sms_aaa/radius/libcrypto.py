"""MD4 and DES of the libcrypto that Python itself is linked to: six times as fast as what can be had without it.

OpenSSL 3 gives neither by its usual interface, but the functions themselves are in the library unless it was built
without them. They are looked up and tried on the RFCs' own examples once, when this module is imported; where one is
missing or says something else, mschap.py computes the same by other means.

The calls keep the interpreter's lock (PyDLL): one takes a third of a microsecond. Each has its own buffer, so threads
do not meet in one.
"""

from __future__ import annotations

import _hashlib
import ctypes
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

_SCHEDULE_OCTETS = 128  # DES_key_schedule: 16 rounds of 8 octets
_ENCRYPT = 1
_CHALLENGE_BUFFER = ctypes.c_char * (_SCHEDULE_OCTETS + 24)
_MD4_BUFFER = ctypes.c_char * 16

# RFC 1320 appendix A.5, RFC 2433 appendix B.2.
_MD4_OF_ABC = bytes.fromhex("a448017aaf21d8525fc10ae87aa6729d")
_NT_HASH = bytes.fromhex("fc156af7edcd6c0edde3337d427f4eac")
_CHALLENGE = bytes.fromhex("102db5df085d3041")
_RESPONSE = bytes.fromhex("4e9d3c8f9cfd385d5bf4d3246791956ca4c351ab409a3d61")


class Primitives(NamedTuple):
    """`md4(message)`: 16 octets; `challenge_response(challenge, NT hash)`: 8 and 16 octets to 24."""

    md4: Callable[[bytes], bytes]
    challenge_response: Callable[[bytes, bytes], bytes]


def spread_keys(password_hash: bytes) -> bytes:
    """The three DES keys of an NT hash (RFC 2759 section 8.5), 8 octets each with the parity bits zero.

    The hash with five zero octets after it is three times 56 bits. Each 56 are put into a lane of 64, and all three
    lanes are spread at once: the halves of each piece apart, from pieces of 56 bits down to pieces of 7.
    """
    bits = int.from_bytes(password_hash, "big") << 40
    bits = (bits >> 112) << 128 | (bits >> 56 & _LANE) << 64 | bits & _LANE
    bits = (bits & _HIGH_28) << 4 | bits & _LOW_28
    bits = (bits & _HIGH_14) << 2 | bits & _LOW_14
    bits = (bits & _HIGH_7) << 1 | bits & _LOW_7
    return (bits << 1).to_bytes(24, "big")


def _in_each_lane(mask: int) -> int:
    return mask << 128 | mask << 64 | mask


_LANE = (1 << 56) - 1
_HIGH_28, _LOW_28 = _in_each_lane(0x00FFFFFFF0000000), _in_each_lane(0x000000000FFFFFFF)
_HIGH_14, _LOW_14 = _in_each_lane(0x0FFFC0000FFFC000), _in_each_lane(0x00003FFF00003FFF)
_HIGH_7, _LOW_7 = _in_each_lane(0x3F803F803F803F80), _in_each_lane(0x007F007F007F007F)


def _find() -> Primitives | None:
    """None where the library has not got them, or where they fail the RFCs' examples."""
    try:
        # Whoever opens Python's own module reaches what that is linked to; built in, it has no file, and None is us.
        library = ctypes.PyDLL(getattr(_hashlib, "__file__", None))
        found = Primitives(_md4_of(library), _challenge_response_of(library))
    except (OSError, AttributeError):
        return None
    sound = found.md4(b"abc") == _MD4_OF_ABC and found.challenge_response(_CHALLENGE, _NT_HASH) == _RESPONSE
    return found if sound else None


def _md4_of(library: ctypes.PyDLL) -> Callable[[bytes], bytes]:
    digest = library.MD4
    digest.argtypes, digest.restype = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_void_p], ctypes.c_void_p

    def md4(message: bytes) -> bytes:
        buffer = _MD4_BUFFER()
        digest(message, len(message), buffer)
        return buffer.raw

    return md4


def _challenge_response_of(library: ctypes.PyDLL) -> Callable[[bytes, bytes], bytes]:
    set_key, encrypt = library.DES_set_key_unchecked, library.DES_ecb_encrypt
    set_key.argtypes, set_key.restype = [ctypes.c_char_p, ctypes.c_void_p], None
    encrypt.argtypes = [ctypes.c_char_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int]
    encrypt.restype = None
    address_of = ctypes.addressof

    def challenge_response(challenge: bytes, password_hash: bytes) -> bytes:
        keys = spread_keys(password_hash)
        buffer = _CHALLENGE_BUFFER()
        schedule = address_of(buffer)
        response = schedule + _SCHEDULE_OCTETS
        set_key(keys[:8], schedule)
        encrypt(challenge, response, schedule, _ENCRYPT)
        set_key(keys[8:16], schedule)
        encrypt(challenge, response + 8, schedule, _ENCRYPT)
        set_key(keys[16:], schedule)
        encrypt(challenge, response + 16, schedule, _ENCRYPT)
        return buffer.raw[_SCHEDULE_OCTETS:]

    return challenge_response


PRIMITIVES = _find()
