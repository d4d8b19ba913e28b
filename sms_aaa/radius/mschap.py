"""MS-CHAP and its keys: RFC 2433 (version 1), RFC 2759 (version 2), RFC 3079 (keys of MPPE).

Pure functions under the RFCs' own names, so that each can be held against the RFCs' examples. MD4 and DES come from
libcrypto where it has them (libcrypto.py); else MD4 is written out, which is twenty lines, and DES is cryptography's
TripleDES with one key three times, which is DES. Both are broken ciphers; that is what the protocol is made of, and
why an NT hash is stored sealed like a password.

LAN Manager hashes are not made. A version 1 answer that has only an LM response cannot be checked here, and MPPE
after version 1 works with 128-bit keys alone, because its 40- and 56-bit keys come from the LM hash.
"""

from __future__ import annotations

import hashlib
import struct
from binascii import hexlify

from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives.ciphers import Cipher, modes

from sms_aaa.radius.libcrypto import PRIMITIVES, spread_keys

_MASK = 0xFFFFFFFF
# RFC 2759 section 8.7 and RFC 3079 section 3.4 give these as octets; they are ASCII.
_SERVER_TO_CLIENT_SIGNING = b"Magic server to client signing constant"
_PAD_TO_MAKE_IT_DO_MORE = b"Pad to make it do more than one iteration"
_MASTER_KEY = b"This is the MPPE Master Key"
_CLIENT_SENDS = b"On the client side, this is the send key; on the server side, it is the receive key."
_SERVER_SENDS = b"On the client side, this is the receive key; on the server side, it is the send key."
_SHS_PAD_1 = bytes(40)
_SHS_PAD_2 = b"\xf2" * 40

# RFC 1320 section 3.4: for each round its order of words, shifts and additive constant.
_MD4_ROUNDS = (
    (tuple(range(16)), (3, 7, 11, 19), 0),
    ((0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15), (3, 5, 9, 13), 0x5A827999),
    ((0, 8, 4, 12, 2, 10, 6, 14, 1, 9, 5, 13, 3, 11, 7, 15), (3, 9, 11, 15), 0x6ED9EBA1),
)


def md4_written_out(message: bytes) -> bytes:
    """RFC 1320: 16 octets."""
    padded = message + b"\x80" + bytes((55 - len(message)) % 64) + struct.pack("<Q", 8 * len(message))
    state = (0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476)
    for words in struct.iter_unpack("<16I", padded):
        a, b, c, d = state
        for number, (order, shifts, constant) in enumerate(_MD4_ROUNDS):
            for step, word in enumerate(order):
                if number == 0:
                    mixed = b & c | ~b & d
                elif number == 1:
                    mixed = b & c | b & d | c & d
                else:
                    mixed = b ^ c ^ d
                total = a + mixed + words[word] + constant & _MASK
                shift = shifts[step & 3]
                a, b, c, d = d, (total << shift | total >> 32 - shift) & _MASK, b, c
        state = (state[0] + a & _MASK, state[1] + b & _MASK, state[2] + c & _MASK, state[3] + d & _MASK)
    return struct.pack("<4I", *state)


def challenge_response_by_triple_des(challenge: bytes, password_hash: bytes) -> bytes:
    """ChallengeResponse (RFC 2433 A.5, RFC 2759 8.5): 8 octets and an NT hash -> 24 octets."""
    keys = spread_keys(password_hash)
    return b"".join(_des_encrypt(keys[at : at + 8], challenge) for at in (0, 8, 16))


def _des_encrypt(key: bytes, block: bytes) -> bytes:
    """RFC 2759 section 8.6."""
    return Cipher(TripleDES(key * 3), modes.ECB()).encryptor().update(block)  # noqa: S305 - one block, as the RFC has it


md4 = PRIMITIVES.md4 if PRIMITIVES is not None else md4_written_out
challenge_response = PRIMITIVES.challenge_response if PRIMITIVES is not None else challenge_response_by_triple_des


def nt_hash(password: bytes) -> bytes:
    """NtPasswordHash (RFC 2759 section 8.3) of a UTF-8 password; UnicodeDecodeError when it is not UTF-8."""
    return md4(password.decode("utf-8").encode("utf-16-le"))


def challenge_hash(peer_challenge: bytes, authenticator_challenge: bytes, user_name: bytes) -> bytes:
    """ChallengeHash (RFC 2759 section 8.2). `user_name` is without its NT domain."""
    return _sha1(peer_challenge + authenticator_challenge + user_name)[:8]


def generate_nt_response(
    *, authenticator_challenge: bytes, peer_challenge: bytes, user_name: bytes, password_hash: bytes
) -> bytes:
    """GenerateNTResponse (RFC 2759 section 8.1): 24 octets."""
    return challenge_response(
        challenge_hash(peer_challenge, authenticator_challenge, user_name),
        password_hash,
    )


def authenticator_response(
    *,
    password_hash_hash: bytes,
    nt_response: bytes,
    peer_challenge: bytes,
    authenticator_challenge: bytes,
    user_name: bytes,
) -> bytes:
    """GenerateAuthenticatorResponse (RFC 2759 section 8.7): `S=` and 40 upper-case hex digits."""
    digest = _sha1(password_hash_hash + nt_response + _SERVER_TO_CLIENT_SIGNING)
    challenge = challenge_hash(peer_challenge, authenticator_challenge, user_name)
    return b"S=" + hexlify(_sha1(digest + challenge + _PAD_TO_MAKE_IT_DO_MORE)).upper()


def master_key(password_hash_hash: bytes, nt_response: bytes) -> bytes:
    """GetMasterKey (RFC 3079 section 3.4): 16 octets."""
    return _sha1(password_hash_hash + nt_response + _MASTER_KEY)[:16]


def server_keys(password_hash_hash: bytes, nt_response: bytes) -> tuple[bytes, bytes]:
    """The NAS's 128-bit start keys (send, receive), for MS-MPPE-Send-Key and -Recv-Key (RFC 3079 section 3.3)."""
    key = master_key(password_hash_hash, nt_response)
    return _start_key(key, _SERVER_SENDS), _start_key(key, _CLIENT_SENDS)


def _start_key(key: bytes, direction: bytes) -> bytes:
    """GetAsymmetricStartKey for 128 bits (RFC 3079 section 3.4)."""
    return _sha1(key + _SHS_PAD_1 + direction + _SHS_PAD_2)[:16]


def mschap1_keys(password_hash_hash: bytes) -> bytes:
    """The 24 octets of MS-CHAP-MPPE-Keys (RFC 2548 section 2.4.1): no LM key, and the hash of the NT hash."""
    return bytes(8) + password_hash_hash


def _sha1(data: bytes) -> bytes:
    return hashlib.sha1(data, usedforsecurity=False).digest()
