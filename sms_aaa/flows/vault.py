"""The one place that opens what is sealed: secrets of NASes, credentials of subscribers.

AES-GCM under the node's key. What it is for is bound in (`nas:7`, `credential:42`), so that a row copied onto another
does not open. Layout: version (1 octet), nonce (12), ciphertext with tag.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from sms_aaa.radius.credentials import StoredPassword
from sms_aaa.radius.mschap import md4, nt_hash
from sms_aaa.rules.secret import Secret

_VERSION = 1
NONCE_OCTETS = 12


class Vault:
    """Seals and opens under one key."""

    __slots__ = ("_cipher", "_decoy")

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)
        self._decoy = self.seal_password(Secret(b"nobody's password"), 0, nonce=bytes(NONCE_OCTETS))

    def seal_nas_secret(self, secret: Secret, nas_id: int, *, nonce: bytes) -> bytes:
        return self._seal(secret.reveal(), b"nas:%d" % nas_id, nonce)

    def open_nas_secret(self, sealed: bytes, nas_id: int) -> Secret | None:
        """None when the key is another one, or the row was tampered with."""
        plain = self._open(sealed, b"nas:%d" % nas_id)
        return None if plain is None else Secret(plain)

    def seal_password(self, password: Secret, service_id: int, *, nonce: bytes) -> bytes:
        """Cleartext with its NT hash and the hash of that before it, so that a login need not compute an MD4."""
        cleartext = password.reveal()
        hashed = nt_hash(cleartext)
        return self._seal(hashed + md4(hashed) + cleartext, b"credential:%d" % service_id, nonce)

    def open_password(self, sealed: bytes, service_id: int) -> StoredPassword | None:
        plain = self._open(sealed, b"credential:%d" % service_id)
        if plain is None:
            return None
        return StoredPassword(cleartext=plain[32:], nt_hash=plain[:16], nt_hash_hash=plain[16:32])

    def open_decoy(self) -> StoredPassword:
        """Nobody's password, at the cost of opening somebody's: to be compared with where there is none."""
        decoy = self.open_password(self._decoy, 0)
        assert decoy is not None
        return decoy

    def _seal(self, plain: bytes, bound_to: bytes, nonce: bytes) -> bytes:
        return bytes([_VERSION]) + nonce + self._cipher.encrypt(nonce, plain, bound_to)

    def _open(self, sealed: bytes, bound_to: bytes) -> bytes | None:
        if not sealed or sealed[0] != _VERSION:
            return None
        try:
            return self._cipher.decrypt(sealed[1:13], sealed[13:], bound_to)
        except InvalidTag:
            return None
