"""Looks for secrets in octets: in the clear, and in the forms in which they get into logs, tables and traces."""

from __future__ import annotations

import base64
import json
import math
import re
from urllib.parse import quote

from sms_aaa.radius.mschap import md4, nt_hash

_BYTEA = re.compile(rb"\\x((?:[0-9a-f]{2}){4,})")
SHORTEST = 6
"""Octets of what is looked for: less would be found by accident."""


class Needles:
    """The forms of some secrets, by what they are called."""

    def __init__(self, secrets: dict[str, bytes]) -> None:
        self._exact: dict[bytes, str] = {}
        self._lower: dict[bytes, str] = {}  # hex digits, of either case
        for name, secret in secrets.items():
            for form, octets in _forms(secret).items():
                if len(octets) >= SHORTEST:
                    self._exact.setdefault(octets, f"{name} {form}")
            for form, octets in _digested(secret).items():
                self._exact.setdefault(octets, f"{name} {form}")
            for form, octets in {"": secret, **_digested(secret), "utf-16": _utf16(secret)}.items():
                self._lower.setdefault(octets.hex().encode(), f"{name} {form} in hex".replace("  ", " "))

    def found_in(self, data: bytes) -> list[str]:
        """What is found, each once; also within what PostgreSQL shows as a bytea."""
        found = {name for needle, name in self._exact.items() if needle in data}
        lower = data.lower()
        found |= {name for needle, name in self._lower.items() if needle in lower}
        within = b"\n".join(bytes.fromhex(match.decode()) for match in _BYTEA.findall(data))
        if within:
            found |= {f"{name} in a bytea" for needle, name in self._exact.items() if needle in within}
        return sorted(found)


def _forms(secret: bytes) -> dict[str, bytes]:
    text = secret.decode()
    return {
        "in the clear": secret,
        **{f"in base64 at {offset}": _base64(secret, offset) for offset in range(3)},
        **{f"in base64url at {offset}": _base64(secret, offset, b"-_") for offset in range(3)},
        "in UTF-16": _utf16(secret),
        "in UTF-16BE": text.encode("utf-16-be"),
        "percent-encoded": quote(secret, safe="").encode(),
        "in JSON": json.dumps(text)[1:-1].encode(),
        "as Python shows it": repr(secret)[2:-1].encode(),
        "as Latin-1": text.encode("latin-1", "ignore"),
        "backwards": secret[::-1],
    }


def _digested(secret: bytes) -> dict[str, bytes]:
    hashed = nt_hash(secret)
    return {"as NT hash": hashed, "as the NT hash's hash": md4(hashed)}


def _utf16(secret: bytes) -> bytes:
    return secret.decode().encode("utf-16-le")


def _base64(secret: bytes, offset: int, letters: bytes = b"+/") -> bytes:
    """The characters that depend on the secret alone, when it stands behind `offset` (mod 3) other octets."""
    whole = base64.b64encode(bytes(offset) + secret, letters)
    return whole[math.ceil(offset * 8 / 6) : (offset + len(secret)) * 8 // 6]
