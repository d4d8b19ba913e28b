"""Stored passwords as text: what an operator types or another server's database holds.

Each form is written as its own world writes it: FreeRADIUS's headers ({SSHA256}, {X-PBKDF2}, ...) with hex or base64
behind them, passlib's and PHC strings ($pbkdf2-sha256$, $scrypt$, $argon2id$), Django's (pbkdf2_sha256$, scrypt$,
argon2$, bcrypt$), OpenLDAP's ({PBKDF2-SHA256}, {ARGON2}), and crypt(3) ($6$, $2b$, $y$). A form may be named, or is
told by how the text begins. Whatever could only fail at a login is refused here, with the reason and what to do: a
digest that is too short, rounds that would keep a worker busy for minutes, a method that this system has not got.

A fault never quotes the text: it may be a password.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from sms_aaa.radius.credentials import StoredPassword
from sms_aaa.radius.hashes import DIGESTS, SALTED, Digest, Form, Hashed
from sms_aaa.radius.mschap import md4
from sms_aaa.radius.slow_text import (
    COPY_WHOLE,
    SALT_OCTETS_MAX,
    TextFault,
    parse_argon2,
    parse_base64,
    parse_crypt,
    parse_pbkdf2,
    parse_scrypt,
)

if TYPE_CHECKING:
    from collections.abc import Callable

CLEARTEXT_OCTETS_MAX = 128  # RFC 2865 section 5.2: what User-Password can carry

# What FreeRADIUS's rlm_pap and OpenLDAP know, in lower case.
_HEADERS: dict[str, Form] = {
    "clear": Form.CLEARTEXT,
    "cleartext": Form.CLEARTEXT,
    "nt": Form.NT,
    "nthash": Form.NT,
    "x-nthash": Form.NT,
    "md4": Form.NT,
    "base64_md5": Form.MD5,
    "crypt": Form.CRYPT,
    "x-pbkdf2": Form.PBKDF2,
    "pbkdf2": Form.PBKDF2,
    "pbkdf2-sha1": Form.PBKDF2,
    "pbkdf2-sha256": Form.PBKDF2,
    "pbkdf2-sha512": Form.PBKDF2,
    "argon2": Form.ARGON2,
    **{form.name.lower(): form for form in DIGESTS},
}
_SHA2_BY_OCTETS = {28: Form.SHA224, 32: Form.SHA256, 48: Form.SHA384, 64: Form.SHA512}
_BEGINNINGS: tuple[tuple[str, Form], ...] = (
    ("$argon2", Form.ARGON2),
    ("argon2$", Form.ARGON2),
    ("$pbkdf2", Form.PBKDF2),
    ("$PBKDF2$", Form.PBKDF2),
    ("pbkdf2_", Form.PBKDF2),
    ("HMACSHA", Form.PBKDF2),
    ("$scrypt$", Form.SCRYPT),
    ("scrypt$", Form.SCRYPT),
    ("bcrypt$$", Form.CRYPT),
    ("$", Form.CRYPT),
)
_HEADER = re.compile(r"\{([^{}]{1,32})\}(.*)", re.DOTALL)
_DIGEST_OCTETS = {"md5": 16, "sha1": 20, "sha224": 28, "sha256": 32, "sha384": 48, "sha512": 64}


def parse_stored(text: bytes, form: Form | None) -> StoredPassword | TextFault:
    """The stored password of a text; `form` None: as its header or its beginning tells.

    With a form named, the text may have the header of that form. Cleartext that is named is taken as it stands.
    """
    if form is Form.CLEARTEXT:
        return _cleartext(text)
    written = text.decode("latin-1")
    header = _HEADER.fullmatch(written)
    if header is None and form is None:
        header = _HEADER.fullmatch(_unwrapped(written.strip()))
    if header is not None:
        return _with_header(header[1].lower(), header[2], form)
    written = written.strip()
    named = form or _form_by_beginning(written)
    if named is None:
        return TextFault("neither a {header} nor its beginning tells what it is", "name its form with --form")
    return _PARSERS[named](written, named)


def _form_by_beginning(written: str) -> Form | None:
    return next((form for beginning, form in _BEGINNINGS if written.startswith(beginning)), None)


def _unwrapped(written: str) -> str:
    """LDAP's userPassword comes in base64, header and all; FreeRADIUS looks into it as well."""
    octets = parse_base64(written)
    return octets.decode("latin-1") if octets is not None and octets.startswith(b"{") else ""


def _with_header(name: str, rest: str, form: Form | None) -> StoredPassword | TextFault:
    found = _HEADERS.get(name) if name != "sha2" else _sha2_form(rest.strip())
    if found is None:
        known = ", ".join(f"{{{header}}}" for header in sorted([*_HEADERS, "sha2"]))
        return TextFault("its header is none that is known", f"known are {known}")
    if form is not None and form is not found:
        return TextFault(
            f"its header says {found.name.lower()}, not {form.name.lower()}", "name the form of the header, or none"
        )
    if found is Form.CLEARTEXT:
        return _cleartext(rest.encode("latin-1"))
    if found is Form.PBKDF2 and name != "x-pbkdf2":
        rest = f"${name}${rest}"  # OpenLDAP's {PBKDF2-SHA256} is followed by what follows passlib's $pbkdf2-sha256$
    return _PARSERS[found](rest.strip(), found)


def _sha2_form(written: str) -> Form:
    """FreeRADIUS's {SHA2} is any of its digests, told by the length; SHA256 for one that is as long as none."""
    octets = _octets(written, min(_SHA2_BY_OCTETS))
    return _SHA2_BY_OCTETS.get(len(octets or b""), Form.SHA256)


def _cleartext(password: bytes) -> StoredPassword | TextFault:
    if not 1 <= len(password) <= CLEARTEXT_OCTETS_MAX:
        return TextFault(f"it has {len(password)} octets", f"give 1 to {CLEARTEXT_OCTETS_MAX}")
    try:
        return StoredPassword.from_cleartext(password)
    except UnicodeDecodeError:
        return TextFault("it is not UTF-8", "give it in UTF-8: MS-CHAP reckons with characters, not with octets")


def _nt(written: str, _form: Form) -> StoredPassword | TextFault:
    octets = _octets(written, 16)
    if octets is None or len(octets) != 16:
        return _wrong_length(Form.NT, 16, octets)
    if octets == md4(b""):
        return TextFault("it is the NT hash of the empty password", "give the subscriber a password")
    return StoredPassword(nt_hash=octets, nt_hash_hash=md4(octets))


def _digest(written: str, form: Form) -> StoredPassword | TextFault:
    size = _DIGEST_OCTETS[DIGESTS[form]]
    octets = _octets(written, size)
    if octets is None or (form not in SALTED and len(octets) != size):
        return _wrong_length(form, size, octets)
    salt = octets[size:]
    if form in SALTED and not 1 <= len(salt) <= SALT_OCTETS_MAX:
        return TextFault(
            f"{_title(form)} has a digest of {size} octets and after it a salt of 1 to {SALT_OCTETS_MAX}, "
            f"this one {len(octets)} octets in all",
            f"{COPY_WHOLE}; without a salt it is another form",
        )
    return StoredPassword(hashed=Digest(form, octets[:size], salt))


def _wrong_length(form: Form, size: int, octets: bytes | None) -> TextFault:
    has = "something else" if octets is None else f"{len(octets)} octets"
    return TextFault(
        f"{_title(form)} has {size} octets in hex or base64, this one {has}",
        f"{COPY_WHOLE}: {2 * size} hex digits or {(size + 2) // 3 * 4} characters of base64",
    )


def _title(form: Form) -> str:
    return f"a hash of the form {form.name.lower()}"


def _octets(written: str, at_least: int) -> bytes | None:
    """Hex if all of it is and it is long enough, else base64, as FreeRADIUS has it; None when it is neither."""
    plain = written.removeprefix("0x")
    if len(plain) >= 2 * at_least and re.fullmatch(r"(?:[0-9A-Fa-f]{2})+", plain):
        return bytes.fromhex(plain)
    return parse_base64(written)


def _checked(found: Hashed | TextFault) -> StoredPassword | TextFault:
    if isinstance(found, TextFault):
        return found
    if not found.is_known_here():
        return TextFault(
            f"this system cannot compute it ({found.cost})", "give the password in another form, or update the system"
        )
    return StoredPassword(hashed=found)


_PARSERS: dict[Form, Callable[[str, Form], StoredPassword | TextFault]] = {
    Form.NT: _nt,
    **dict.fromkeys(DIGESTS, _digest),
    Form.PBKDF2: lambda written, _: _checked(parse_pbkdf2(written)),
    Form.SCRYPT: lambda written, _: _checked(parse_scrypt(written)),
    Form.ARGON2: lambda written, _: _checked(parse_argon2(written)),
    Form.CRYPT: lambda written, _: _checked(parse_crypt(written)),
}
