"""Hashed passwords: the forms that operators bring along, each with its check.

A hash can be held against a password in the clear, so it serves PAP and nothing else. Digests (MD5, SHA, with salt or
without) are checked on the spot; the others are made to cost milliseconds, and `is_slow` says that they belong beside a
worker's loop. Their libraries let go of the interpreter's lock meanwhile. How they are written as text stands in
stored_text.py. None of them shows its octets by repr.
"""

from __future__ import annotations

import hashlib
import re
from enum import IntEnum
from hmac import compare_digest
from typing import Any, ClassVar

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.kdf.argon2 import Argon2d, Argon2i, Argon2id
from msgspec import Struct

from sms_aaa.radius.libcrypt import crypt


class Form(IntEnum):
    """What of a password is stored. The code is stored with it and never reused; the name is what a person types."""

    CLEARTEXT = 1
    NT = 2
    MD5 = 3
    SMD5 = 4
    SHA = 5
    SSHA = 6
    SHA224 = 7
    SSHA224 = 8
    SHA256 = 9
    SSHA256 = 10
    SHA384 = 11
    SSHA384 = 12
    SHA512 = 13
    SSHA512 = 14
    PBKDF2 = 15
    SCRYPT = 16
    ARGON2 = 17
    CRYPT = 18


DIGESTS = {
    Form.MD5: "md5",
    Form.SMD5: "md5",
    Form.SHA: "sha1",
    Form.SSHA: "sha1",
    Form.SHA224: "sha224",
    Form.SSHA224: "sha224",
    Form.SHA256: "sha256",
    Form.SSHA256: "sha256",
    Form.SHA384: "sha384",
    Form.SSHA384: "sha384",
    Form.SHA512: "sha512",
    Form.SSHA512: "sha512",
}
"""The digests among the forms, by hashlib's names."""

SALTED = frozenset((Form.SMD5, Form.SSHA, Form.SSHA224, Form.SSHA256, Form.SSHA384, Form.SSHA512))

ARGON2_VARIANTS: dict[str, type[Argon2d | Argon2i | Argon2id]] = {
    "argon2id": Argon2id,
    "argon2i": Argon2i,
    "argon2d": Argon2d,
}

_CRYPT_METHOD = re.compile(rb"\$(?:2[aby]\$\d\d|y\$[^$]+|[156](?:\$rounds=\d+)?)")

QUICK_ROUNDS_MAX = 100
"""So few rounds of PBKDF2 cost less than handing them to a thread."""


class Hidden(Struct, frozen=True, gc=False):
    """A struct whose fields no repr shows: msgspec's own would, and rich asks for another one."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}(***)"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [("octets", "***")]


class Digest(Hidden, frozen=True, gc=False, tag=1, array_like=True):
    """digest(password + salt); the salt is b"" in the forms without."""

    is_slow: ClassVar[bool] = False
    form: Form
    digest: bytes
    salt: bytes

    @property
    def cost(self) -> str:
        return ""

    def matches(self, password: bytes) -> bool:
        made = hashlib.new(DIGESTS[self.form], password + self.salt, usedforsecurity=False).digest()
        return _is_password(password) and compare_digest(made, self.digest)

    def is_known_here(self) -> bool:
        return True


class Pbkdf2(Hidden, frozen=True, gc=False, tag=2, array_like=True):
    """RFC 8018 section 5.2. `digest` by hashlib's name; `key` is as long as that digest."""

    digest: str
    rounds: int
    salt: bytes
    key: bytes

    @property
    def form(self) -> Form:
        return Form.PBKDF2

    @property
    def is_slow(self) -> bool:
        return self.rounds > QUICK_ROUNDS_MAX

    @property
    def cost(self) -> str:
        return f"{self.digest}, {self.rounds} rounds"

    def matches(self, password: bytes) -> bool:
        made = hashlib.pbkdf2_hmac(self.digest, password, self.salt, self.rounds, len(self.key))
        return _is_password(password) and compare_digest(made, self.key)

    def is_known_here(self) -> bool:
        try:
            hashlib.pbkdf2_hmac(self.digest, b"", b"", 1)
        except ValueError:
            return False
        return True


class Scrypt(Hidden, frozen=True, gc=False, tag=3, array_like=True):
    """RFC 7914. `n`, `r`, `p` are its cost, block size and parallelism."""

    is_slow: ClassVar[bool] = True
    n: int
    r: int
    p: int
    salt: bytes
    key: bytes

    @property
    def form(self) -> Form:
        return Form.SCRYPT

    @property
    def cost(self) -> str:
        return f"n={self.n}, r={self.r}, p={self.p}"

    def matches(self, password: bytes) -> bool:
        memory = 128 * self.r * (self.n + self.p + 4)
        made = hashlib.scrypt(
            password, salt=self.salt, n=self.n, r=self.r, p=self.p, maxmem=memory, dklen=len(self.key)
        )
        return _is_password(password) and compare_digest(made, self.key)

    def is_known_here(self) -> bool:
        return hasattr(hashlib, "scrypt")


class Argon2(Hidden, frozen=True, gc=False, tag=4, array_like=True):
    """RFC 9106, version 19. `variant` is a key of ARGON2_VARIANTS."""

    is_slow: ClassVar[bool] = True
    variant: str
    memory_kib: int
    passes: int
    lanes: int
    salt: bytes
    key: bytes

    @property
    def form(self) -> Form:
        return Form.ARGON2

    @property
    def cost(self) -> str:
        return f"{self.variant}, m={self.memory_kib}, t={self.passes}, p={self.lanes}"

    def matches(self, password: bytes) -> bool:
        return _is_password(password) and compare_digest(self._derive(password, self.memory_kib), self.key)

    def is_known_here(self) -> bool:
        try:
            self._derive(b"", 8 * self.lanes)
        except UnsupportedAlgorithm:
            return False
        return True

    def _derive(self, password: bytes, memory_kib: int) -> bytes:
        argon2 = ARGON2_VARIANTS[self.variant](
            salt=self.salt, length=len(self.key), iterations=self.passes, lanes=self.lanes, memory_cost=memory_kib
        )
        return argon2.derive(password)


class Crypt(Hidden, frozen=True, gc=False, tag=5, array_like=True):
    """crypt(3): the whole text as it stands in a password file."""

    is_slow: ClassVar[bool] = True
    text: bytes

    @property
    def form(self) -> Form:
        return Form.CRYPT

    @property
    def cost(self) -> str:
        """Method and parameters, as they begin the text: $6$rounds=10000; des for the oldest, which has none."""
        found = _CRYPT_METHOD.match(self.text)
        return "des" if found is None else found[0].decode("ascii")

    def matches(self, password: bytes) -> bool:
        made = crypt(password, self.text)
        return made is not None and _is_password(password) and compare_digest(made, self.text)

    def is_known_here(self) -> bool:
        return crypt(b"", self.text) is not None


Hashed = Digest | Pbkdf2 | Scrypt | Argon2 | Crypt


def _is_password(offered: bytes) -> bool:
    """An empty one never is, whatever it hashes to; asked after the work, so that it takes as long as any other."""
    return offered != b""
