"""Where a login comes from, as its packet says; and what a check of its terms saw, in words for `why`.

Both are asked for rarely: a service without terms, in a realm without places, costs none of this.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from sms_aaa.radius import dictionary
from sms_aaa.radius.packet import as_text
from sms_aaa.rules.access import Whereabouts, bound_nas_ids
from sms_aaa.rules.entitlement import Terms
from sms_aaa.rules.identity import canonical_mac
from sms_aaa.rules.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sms_aaa.radius.packet import Packet
    from sms_aaa.rules.realms import Named

SAW_OCTETS_MAX = 253
"""As long as an attribute can be: what a decision keeps of it is bounded."""

_NO_TERMS = Terms()
_LINES = (dictionary.NAS_PORT_ID, dictionary.ADSL_AGENT_CIRCUIT_ID, dictionary.ADSL_AGENT_REMOTE_ID)


def whereabouts(packet: Packet, nas_id: int, terms: Terms | None, named: Named | None) -> Whereabouts | None:
    """What the terms of a service, or the places of its realm, are held against; None when there are neither."""
    realm_nas_ids = named.realm.nas_ids if named is not None and named.realm is not None else ()
    if terms is None and not realm_nas_ids:
        return None
    attributes = packet.attributes
    ports = [_line(line) for key in _LINES if (line := attributes.get(key))]
    number = attributes.get(dictionary.NAS_PORT)
    if number:
        ports.append(b"%d" % int.from_bytes(number, "big"))
    station = attributes.get(dictionary.CALLING_STATION_ID, b"")
    return Whereabouts(nas_id, tuple(ports), canonical_mac(station), realm_nas_ids)


def tell_terms(reason: Reason, terms: Terms | None, where: Whereabouts | None, nas_names: Mapping[int, str]) -> bytes:
    """What the check that ended in this reason saw; b"" for a reason that has nothing to do with terms."""
    terms = terms or _NO_TERMS
    if reason is Reason.NOT_YET_ACTIVE:
        return _instant("valid from", terms.valid_from)
    if reason is Reason.EXPIRED:
        return _instant("valid until", terms.valid_until)
    if where is None:
        return b""
    if reason is Reason.NAS_NOT_ALLOWED:
        came = _nas(where.nas_id, nas_names)
        return _told(came, [_nas(nas_id, nas_names) for nas_id in bound_nas_ids(terms, where)])
    if reason is Reason.PORT_MISMATCH:
        return _told(", ".join(map(as_text, where.ports)) or "no port", list(map(as_text, terms.ports)))
    if reason is Reason.MAC_NOT_BOUND:
        return _told(as_text(where.mac or b"no hardware address"), list(map(as_text, terms.macs)))
    return b""


def _instant(words: str, epoch_seconds: int) -> bytes:
    return f"{words} {datetime.fromtimestamp(epoch_seconds, UTC):%Y-%m-%d %H:%M:%SZ}".encode()


def _told(came: str, bound: list[str]) -> bytes:
    """What came is told first: where it has to be cut, the bonds are, which `subscriber show` has too."""
    text = f"{came}; bound to {', '.join(bound)}".encode()
    return text if len(text) <= SAW_OCTETS_MAX else text[: SAW_OCTETS_MAX - 3] + b"..."


def _nas(nas_id: int, nas_names: Mapping[int, str]) -> str:
    return nas_names.get(nas_id, f"NAS {nas_id}")


def _line(octets: bytes) -> bytes:
    """As a binding has it: octets that are no text, as those of Option 82 often are, as 0x and hex digits."""
    try:
        if not octets.decode().isprintable():
            return b"0x" + octets.hex().encode()
    except UnicodeDecodeError:
        return b"0x" + octets.hex().encode()
    return octets.lower() if octets[:2] in {b"0x", b"0X"} else octets
