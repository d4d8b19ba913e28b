"""A value that no screen, log or trace may show, and how easily it would be guessed."""

from __future__ import annotations

from enum import Enum

OCTETS_ADVISED = 16

_WORDS = frozenset((
    "admin", "changeme", "cisco", "daloradius", "default", "freeradius", "hotspot", "huawei", "juniper", "key",
    "letmein", "mikrotik", "nas", "passwd", "password", "private", "public", "qwerty", "radius", "radiussecret",
    "secret", "sharedsecret", "test", "testing", "ubiquiti", "unifi", "welcome", "whatever", "wifi",
))  # fmt: skip
"""What guide books have and guessing programs try first."""

_IN_FULL = str.maketrans("013457$@", "oieastsa")
_ROWS = ("0123456789012345", "abcdefghijklmnopqrstuvwxyz", "qwertyuiopasdfghjklzxcvbnm")


class SecretStrength(Enum):
    """(label, sentence). The label is stored beside the sealed secret."""

    STRONG = ("strong", "")
    SHORT = ("short", f"it has fewer than {OCTETS_ADVISED} octets")
    UNIFORM = ("uniform", "it has one kind of character alone")
    GUESSABLE = ("guessable", "it is among the first that anybody tries")

    def __init__(self, label: str, sentence: str) -> None:
        self.label = label
        self.sentence = sentence

    @classmethod
    def by_label(cls, label: str) -> SecretStrength:
        return next(strength for strength in cls if strength.label == label)


class Secret:
    """Octets that are shown as `***` by repr, str and format; `reveal()` is the one way to them."""

    __slots__ = ("_octets",)

    def __init__(self, octets: bytes) -> None:
        self._octets = octets

    def reveal(self) -> bytes:
        return self._octets

    def __repr__(self) -> str:
        return "***"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._octets == self._octets

    def __hash__(self) -> int:
        return hash(self._octets)

    def __reduce__(self) -> str:
        # A pickle would carry it in the clear.
        raise TypeError("a Secret is not pickled")


def strength_of(secret: Secret) -> SecretStrength:
    """What is wrong with it; the worst first."""
    octets = secret.reveal()
    if _is_guessable(octets.decode("latin-1").lower()):
        return SecretStrength.GUESSABLE
    if len(octets) < OCTETS_ADVISED:
        return SecretStrength.SHORT
    kinds = {_kind_of(octet) for octet in octets}
    return SecretStrength.UNIFORM if len(kinds) == 1 else SecretStrength.STRONG


def _is_guessable(text: str) -> bool:
    """A word with digits or signs around it, one character again and again, or a row of the keyboard."""
    bare = text.strip("0123456789!?#$%&*+-_.@ ")
    in_full = text.translate(_IN_FULL).strip("!?#%&*+-_. ")
    return bare in _WORDS or in_full in _WORDS or len(set(text)) <= 2 or any(text in row for row in _ROWS)


def _kind_of(octet: int) -> str:
    letter = chr(octet)
    if letter.isdigit():
        return "digit"
    if letter.isalpha():
        return "upper" if letter.isupper() else "lower"
    return "other"
