"""Slow hashes as text: PBKDF2, scrypt, argon2 and crypt(3), each as its several worlds write it.

What a hash costs stands in its text, and a login has to pay it: beyond what a worker can bear it is refused here, so
that nobody brings a hash along that takes a minute or a gigabyte. Faults and their rules: see stored_text.py.
"""

from __future__ import annotations

import binascii
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sms_aaa.radius.hashes import Argon2, Crypt, Pbkdf2, Scrypt

if TYPE_CHECKING:
    from collections.abc import Callable

PBKDF2_ROUNDS_MAX = 10_000_000
MEMORY_KIB_MAX = 262_144
"""Of scrypt and argon2: each thread that verifies needs it."""
ARGON2_PASSES_KIB_MAX = 4_194_304
"""Passes times memory: some two seconds."""
SCRYPT_PARALLEL_MAX = 16
BCRYPT_COST_MAX = 16
SHA_CRYPT_ROUNDS_MAX = 2_000_000
SALT_OCTETS_MAX = 1024

COPY_WHOLE = "copy it whole from where it comes"


@dataclass(frozen=True, slots=True)
class TextFault:
    """Why a text is no stored password of its form, and what to do. Never quotes the text: it may be a password."""

    reason: str
    remedy: str


def parse_base64(written: str) -> bytes | None:
    """Base64 with its padding or without, in the usual alphabet or passlib's, which writes `.` for `+`."""
    text = written.rstrip("=").replace(".", "+")
    try:
        return binascii.a2b_base64(text + "=" * (-len(text) % 4), strict_mode=True)
    except ValueError:  # binascii.Error, or not ASCII
        return None


_PBKDF2_DIGESTS = {
    "HMACSHA1": "sha1",
    **{f"HMACSHA2+{bits}": f"sha{bits}" for bits in (224, 256, 384, 512)},
    **{f"HMACSHA3+{bits}": f"sha3_{bits}" for bits in (224, 256, 384, 512)},
}
PBKDF2_NAMES = {digest: name for name, digest in _PBKDF2_DIGESTS.items()}
"""How Perl's Crypt::PBKDF2 names a digest: the one notation that has them all."""
_DIGEST_OCTETS = {"sha1": 20, **{f"sha{v}{bits}": bits // 8 for v in ("", "3_") for bits in (224, 256, 384, 512)}}
_PBKDF2_PATTERNS: tuple[
    tuple[re.Pattern[str], Callable[[re.Match[str]], tuple[str | None, int, bytes | None]]], ...
] = (
    # Perl's Crypt::PBKDF2, the way of LDAP: the rounds are four octets in base64.
    (
        re.compile(r"(?P<d>HMACSHA[0-9+]+):(?P<n>[^:$]+):(?P<s>[^:$]+):(?P<k>[^:$]+)"),
        lambda m: (_PBKDF2_DIGESTS.get(m["d"]), _rounds_of(parse_base64(m["n"])), parse_base64(m["s"])),
    ),
    # The same, the way of crypt(3).
    (
        re.compile(r"\$PBKDF2\$(?P<d>HMACSHA[0-9+]+):(?P<n>[0-9]{1,10}):(?P<s>[^:$]+)\$(?P<k>[^:$]+)"),
        lambda m: (_PBKDF2_DIGESTS.get(m["d"]), int(m["n"]), parse_base64(m["s"])),
    ),
    # passlib, which leaves SHA-1 unnamed; OpenLDAP's comes here too.
    (
        re.compile(r"\$pbkdf2(?:-(?P<d>sha1|sha256|sha512))?\$(?P<n>[0-9]{1,10})\$(?P<s>[^$]+)\$(?P<k>[^$]+)"),
        lambda m: (m["d"] or "sha1", int(m["n"]), parse_base64(m["s"])),
    ),
    # Django: the salt is text.
    (
        re.compile(r"pbkdf2_(?P<d>sha1|sha256)\$(?P<n>[0-9]{1,10})\$(?P<s>[^$]+)\$(?P<k>[^$]+)"),
        lambda m: (m["d"], int(m["n"]), m["s"].encode("latin-1")),
    ),
)


def _rounds_of(octets: bytes | None) -> int:
    return int.from_bytes(octets, "big") if octets is not None and len(octets) == 4 else 0


def parse_pbkdf2(written: str) -> Pbkdf2 | TextFault:
    for pattern, read in _PBKDF2_PATTERNS:
        if (match := pattern.fullmatch(written)) is not None:
            return _pbkdf2_of(*read(match), parse_base64(match["k"]))
    return TextFault(
        "it is not written as PBKDF2 is",
        "known are {X-PBKDF2}, $PBKDF2$, $pbkdf2-sha256$, {PBKDF2-SHA256} and pbkdf2_sha256$, each with all its fields",
    )


def _pbkdf2_of(digest: str | None, rounds: int, salt: bytes | None, key: bytes | None) -> Pbkdf2 | TextFault:
    if digest is None:
        return TextFault("its digest is none that is known", f"known are {', '.join(_PBKDF2_DIGESTS)}")
    if not 1 <= rounds <= PBKDF2_ROUNDS_MAX:
        return TextFault(
            f"its rounds are not a number from 1 to {PBKDF2_ROUNDS_MAX}", "hash the password anew with fewer"
        )
    if salt is None or not 1 <= len(salt) <= SALT_OCTETS_MAX:
        return TextFault(f"its salt is not base64 of 1 to {SALT_OCTETS_MAX} octets", COPY_WHOLE)
    if key is None or len(key) != _DIGEST_OCTETS[digest]:
        return TextFault(f"its hash is not base64 of {_DIGEST_OCTETS[digest]} octets, as {digest} has", COPY_WHOLE)
    return Pbkdf2(digest, rounds, salt, key)


_SCRYPT_PATTERNS = (
    re.compile(r"\$scrypt\$ln=(?P<ln>[0-9]{1,2}),r=(?P<r>[0-9]{1,4}),p=(?P<p>[0-9]{1,4})\$(?P<s>[^$]+)\$(?P<k>[^$]+)"),
    re.compile(r"scrypt\$(?P<n>[0-9]{1,8})\$(?P<s>[^$]+)\$(?P<r>[0-9]{1,4})\$(?P<p>[0-9]{1,4})\$(?P<k>[^$]+)"),
)


def parse_scrypt(written: str) -> Scrypt | TextFault:
    match = next(filter(None, (pattern.fullmatch(written) for pattern in _SCRYPT_PATTERNS)), None)
    if match is None:
        return TextFault("it is not written as scrypt is", "known are $scrypt$ln=,r=,p=$salt$hash and Django's scrypt$")
    fields = match.groupdict()
    # passlib writes the logarithm and the salt in base64, Django the number and the salt as text.
    n = int(fields["n"]) if "n" in fields else 1 << int(fields["ln"])
    salt = fields["s"].encode("latin-1") if "n" in fields else parse_base64(fields["s"])
    r, p, key = int(fields["r"]), int(fields["p"]), parse_base64(fields["k"])
    if n < 2 or n & (n - 1) or r < 1 or not 1 <= p <= SCRYPT_PARALLEL_MAX or n * r // 8 > MEMORY_KIB_MAX:
        return TextFault(
            f"its cost is beyond what a login may take (n a power of 2, n * r / 8 up to {MEMORY_KIB_MAX}, "
            f"p 1 to {SCRYPT_PARALLEL_MAX})",
            "hash the password anew with less",
        )
    if salt is None or not 1 <= len(salt) <= SALT_OCTETS_MAX or key is None or not 16 <= len(key) <= 64:
        return TextFault("its salt or its hash of 16 to 64 octets is not whole", COPY_WHOLE)
    return Scrypt(n, r, p, salt, key)


_ARGON2 = re.compile(
    r"(?:argon2)?\$(?P<variant>argon2(?:id|i|d))\$v=(?P<v>[0-9]{1,3})"
    r"\$m=(?P<m>[0-9]{1,8}),t=(?P<t>[0-9]{1,8}),p=(?P<p>[0-9]{1,3})\$(?P<s>[^$]+)\$(?P<k>[^$]+)"
)


def parse_argon2(written: str) -> Argon2 | TextFault:
    match = _ARGON2.fullmatch(written)
    if match is None:
        return TextFault("it is not written as argon2 is", "known is $argon2id$v=19$m=,t=,p=$salt$hash (or i, d)")
    if match["v"] != "19":
        return TextFault("it is of another version of argon2 than 19", "hash the password anew")
    memory, passes, lanes = int(match["m"]), int(match["t"]), int(match["p"])
    if not 1 <= lanes <= 64 or not 8 * lanes <= memory <= MEMORY_KIB_MAX or not passes >= 1:
        return TextFault(
            f"its cost cannot be (m from 8 * p to {MEMORY_KIB_MAX}, t from 1, p 1 to 64)", "hash the password anew"
        )
    if memory * passes > ARGON2_PASSES_KIB_MAX:
        return TextFault(f"its m * t is above {ARGON2_PASSES_KIB_MAX}", "hash the password anew with less")
    salt, key = parse_base64(match["s"]), parse_base64(match["k"])
    if salt is None or not 8 <= len(salt) <= SALT_OCTETS_MAX or key is None or not 16 <= len(key) <= 64:
        return TextFault(
            f"its salt of 8 to {SALT_OCTETS_MAX} octets or its hash of 16 to 64 octets is not whole", COPY_WHOLE
        )
    return Argon2(match["variant"], memory, passes, lanes, salt, key)


_CRYPT_CHARACTER = "[./0-9A-Za-z]"
_CRYPT = re.compile(
    rf"(?P<des>{_CRYPT_CHARACTER}{{13}})"
    rf"|\$1\$[^$:\n]{{0,8}}\${_CRYPT_CHARACTER}{{22}}"
    rf"|\$(?:5|6)\$(?:rounds=(?P<rounds>[0-9]{{1,9}})\$)?[^$:\n]{{0,16}}\${_CRYPT_CHARACTER}+"
    rf"|\$2[aby]\$(?P<cost>[0-9]{{2}})\${_CRYPT_CHARACTER}{{53}}"
    # libxcrypt's own settings: up to 2^16 blocks of 1 or 4 kB.
    rf"|\$y\$j[./0-9A-D][5T]\${_CRYPT_CHARACTER}{{0,86}}\${_CRYPT_CHARACTER}{{43}}"
)
_SHA_CRYPT_CHARACTERS = {"$5$": 43, "$6$": 86}


def parse_crypt(written: str) -> Crypt | TextFault:
    text = written.removeprefix("bcrypt$")
    match = _CRYPT.fullmatch(text)
    characters = _SHA_CRYPT_CHARACTERS.get(text[:3])
    if match is None or (characters is not None and len(text.rpartition("$")[2]) != characters):
        return TextFault(
            "it is not written as a whole hash of crypt(3) is",
            f"known are $1$, $5$, $6$, $2a$, $2b$, $2y$, $y$ (up to 256 MB) and the 13 characters of DES; {COPY_WHOLE}",
        )
    if int(match["rounds"] or 0) > SHA_CRYPT_ROUNDS_MAX or int(match["cost"] or 4) not in range(4, BCRYPT_COST_MAX + 1):
        return TextFault(
            f"its cost is beyond what a login may take (rounds up to {SHA_CRYPT_ROUNDS_MAX}, "
            f"of $2b$ 04 to {BCRYPT_COST_MAX})",
            "hash the password anew with less",
        )
    return Crypt(text.encode("latin-1"))
