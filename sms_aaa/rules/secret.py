"""A value that no screen, log or trace may show."""

from __future__ import annotations


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
