"""The one place that opens what is sealed: secrets of NASes, credentials of subscribers.

AES-GCM under the node's key. What it is for is bound in (`nas:7`, `credential-2:42`), so that a row copied onto
another does not open. Layout: version (1 octet), nonce (12), ciphertext with tag. What a credential holds:

    version 1    NT hash (16), MD4 of it (16), cleartext
    version 2    form (1), and by form:    cleartext    as version 1
                                           NT hash      NT hash (16), MD4 of it (16)
                                           any other    the hash with its parameters, in MessagePack

Version 1 is opened for ever and not written any more.
"""

from __future__ import annotations

import hmac

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from msgspec import DecodeError, msgpack

from sms_aaa.radius.credentials import StoredPassword
from sms_aaa.radius.hashes import Form, Hashed
from sms_aaa.rules.secret import Secret

_VERSION_1, _VERSION_2 = b"\x01", b"\x02"
_CLEARTEXT, _NT = int(Form.CLEARTEXT), int(Form.NT)
NONCE_OCTETS = 12

_decode_hashed = msgpack.Decoder(Hashed).decode


class Vault:
    """Seals and opens under one key."""

    __slots__ = ("_cipher", "_decoy", "_pseudonym_key")

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)
        self._pseudonym_key = hmac.digest(key, b"pseudonyms", "sha256")
        self._decoy = self.seal_password(Secret(b"nobody's password"), 0, nonce=bytes(NONCE_OCTETS))

    def seal_nas_secret(self, secret: Secret, nas_id: int, *, nonce: bytes) -> bytes:
        return self._seal(_VERSION_1, secret.reveal(), b"nas:%d" % nas_id, nonce)

    def open_nas_secret(self, sealed: bytes, nas_id: int) -> Secret | None:
        """None when the key is another one, or the row was tampered with."""
        plain = self._open(sealed, b"nas:%d" % nas_id) if sealed[:1] == _VERSION_1 else None
        return None if plain is None else Secret(plain)

    def seal_password(self, password: Secret, service_id: int, *, nonce: bytes) -> bytes:
        """Cleartext with what MS-CHAP needs of it; UnicodeDecodeError when it is not UTF-8."""
        return self.seal_stored(StoredPassword.from_cleartext(password.reveal()), service_id, nonce=nonce)

    def seal_stored(self, stored: StoredPassword, service_id: int, *, nonce: bytes) -> bytes:
        """A password in whatever form it is stored."""
        if stored.hashed is not None:
            plain = msgpack.encode(stored.hashed)
        else:
            assert stored.nt_hash is not None
            assert stored.nt_hash_hash is not None
            # A login then need not compute an MD4.
            plain = stored.nt_hash + stored.nt_hash_hash + (stored.cleartext or b"")
        plain = bytes((stored.form,)) + plain
        return self._seal(_VERSION_2, plain, b"credential-2:%d" % service_id, nonce)

    def open_password(self, sealed: bytes, service_id: int) -> StoredPassword | None:
        """None when there is none, or when it cannot be read: another key, another program's form, a foreign row."""
        if sealed[:1] == _VERSION_2:
            plain = self._open(sealed, b"credential-2:%d" % service_id)
            return None if plain is None else _stored(plain)
        plain = self._open(sealed, b"credential:%d" % service_id) if sealed[:1] == _VERSION_1 else None
        return None if plain is None else StoredPassword(plain[32:], plain[:16], plain[16:32])

    def pseudonym(self, name: str) -> str:
        """20 hex digits that stand for a name: always the same, and of no use to guess it without the key."""
        return hmac.digest(self._pseudonym_key, name.encode(), "sha256")[:10].hex()

    def open_decoy(self) -> StoredPassword:
        """Nobody's password, at the cost of opening somebody's: to be compared with where there is none."""
        decoy = self.open_password(self._decoy, 0)
        assert decoy is not None
        return decoy

    def _seal(self, version: bytes, plain: bytes, bound_to: bytes, nonce: bytes) -> bytes:
        return version + nonce + self._cipher.encrypt(nonce, plain, bound_to)

    def _open(self, sealed: bytes, bound_to: bytes) -> bytes | None:
        try:
            return self._cipher.decrypt(sealed[1:13], sealed[13:], bound_to)
        except (InvalidTag, ValueError):  # ValueError: too short for a nonce
            return None


def _stored(plain: bytes) -> StoredPassword | None:
    form = plain[0]
    if form == _CLEARTEXT:
        return StoredPassword(plain[33:], plain[1:17], plain[17:33])
    if form == _NT:
        return StoredPassword(None, plain[1:17], plain[17:33])
    try:
        return StoredPassword(hashed=_decode_hashed(plain[1:]))
    except DecodeError:
        return None
