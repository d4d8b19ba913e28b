"""How a service is recognised in a request: by its user name, or by a device's hardware address in any notation."""

from __future__ import annotations

_SEPARATORS = bytes.maketrans(b"", b"")
_HEX = frozenset(b"0123456789abcdef")
_LONGEST_MAC_OCTETS = 23  # "00:00:..." with text after it, as in Called-Station-Id, is not a MAC


def canonical_mac(text: bytes) -> bytes | None:
    """12 lower-case hex digits of a MAC written as 00:11.., 00-11.., 0011.2233.4455 or 001122334455; else None."""
    if not 12 <= len(text) <= _LONGEST_MAC_OCTETS:
        return None
    digits = text.translate(_SEPARATORS, b":-. ").lower()
    return digits if len(digits) == 12 and _HEX.issuperset(digits) else None


def mac_identity(username: bytes, calling_station: bytes, *, call_check: bool) -> bytes | None:
    """Whose device asks, when a request is a MAC authentication; None when it is not.

    With Service-Type Call-Check (RFC 2865 section 5.6) the NAS vouches for the device: the address is in
    Calling-Station-Id or, without one, in User-Name. Without Call-Check the user name must be the very address that
    the NAS saw, else anybody could type a neighbour's.
    """
    seen = canonical_mac(calling_station)
    named = canonical_mac(username)
    if call_check:
        return seen if seen is not None else named
    return named if named is not None and named == seen else None


def mac_notations(device: str) -> list[str]:
    """How NASes write a hardware address, which is given in its canonical form."""
    pairs = [device[at : at + 2] for at in range(0, 12, 2)]
    quads = [device[at : at + 4] for at in range(0, 12, 4)]
    lower = [device, ":".join(pairs), "-".join(pairs), ".".join(quads), "-".join(quads)]
    return lower + [notation.upper() for notation in lower]
