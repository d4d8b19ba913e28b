"""Stored passwords written as text that stored_text.parse_stored reads: the same comes back, form and all."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from sms_aaa.radius.hashes import Argon2, Crypt, Digest, Hashed, Pbkdf2, Scrypt
from sms_aaa.radius.slow_text import PBKDF2_NAMES

if TYPE_CHECKING:
    from sms_aaa.radius.credentials import StoredPassword


def write_stored(stored: StoredPassword) -> bytes:
    """To be read with the form `stored.form`. It is a secret: as text it is a password, or stands for one."""
    if stored.hashed is not None:
        return _write_hashed(stored.hashed)
    if stored.cleartext is not None:
        return stored.cleartext
    assert stored.nt_hash is not None
    return stored.nt_hash.hex().encode()


def _write_hashed(hashed: Hashed) -> bytes:
    match hashed:
        case Digest(digest=digest, salt=salt):
            return (digest + salt).hex().encode()
        case Pbkdf2(digest=digest, rounds=rounds, salt=salt, key=key):
            return f"$PBKDF2${PBKDF2_NAMES[digest]}:{rounds}:{_base64(salt)}${_base64(key)}".encode()
        case Scrypt(n=n, r=r, p=p, salt=salt, key=key):
            return f"$scrypt$ln={n.bit_length() - 1},r={r},p={p}${_base64(salt)}${_base64(key)}".encode()
        case Argon2(variant=variant, memory_kib=memory, passes=passes, lanes=lanes, salt=salt, key=key):
            return f"${variant}$v=19$m={memory},t={passes},p={lanes}${_base64(salt)}${_base64(key)}".encode()
        case Crypt(text=text):
            return text


def _base64(octets: bytes) -> str:
    return base64.b64encode(octets).decode().rstrip("=")
