"""Attributes that carry a secret, or what a secret can be guessed from, and a packet without them.

An Accounting-Request has no business with any of them (RFC 2866 section 5 forbids the passwords by name). NASes are
seen to send them all the same: some copy into their accounting what an Access-Request or an Accept had. What is kept
for weeks is kept without.

Those that dictionary.py names are SECRET there. The others are taken from the vendors' dictionaries: what is encrypted
in RADIUS, and what is called a password, a passphrase or a secret and is not.
"""

from __future__ import annotations

import re

from sms_aaa.radius import dictionary
from sms_aaa.radius.packet import Packet, blanked

_OTHERS: dict[int, tuple[int, ...]] = {  # vendor: types; 0 is the standard space
    0: (17, 74, 103, 106, 214, 215, 232),  # Old-Password, ARAP and Digest proofs; Ascend's before it was a vendor
    5: (14, 39, 73),  # Acc: tunnel, dial-out, Mobile IP
    9: (249,),  # Cisco-Subscriber-Password
    161: (11,),  # Motorola-WiMAX-MIP-KEY
    255: (5,),  # Compatible, VPN 5000: tunnel
    311: (19, 20),  # Microsoft: old and new ARAP password
    529: (181, 184, 214, 215, 232),  # Ascend: ARA, home agent, secrets both ways, outbound password
    831: (116, 117, 118, 119),  # Alcatel-Lucent AAA keys
    2011: (33,),  # Huawei-User-Password
    2352: (59, 69, 110),  # Redback: bind and tunnel passwords
    2356: (6, 19, 20),  # Lancom: WPA and IKEv2
    3076: (23, 54),  # VPN 3000: authentication server
    4874: (9, 37, 86),  # ERX: tunnel, PPP, Mobile IP
    5535: (3, 54, 58),  # 3GPP2: pre-shared secret, S-key, MN-HA key
    6527: (57, 142),  # Nokia SR: BGP key, APN password
    14823: (44,),  # Aruba-MPSK-Passphrase
    22472: (34,),  # Boingo: BW-User-Password
    24757: (5, 10, 11, 12, 14, 15, 19, 40, 66, 67, 70, 75, 131),  # WiMAX: MSK and what is derived from it
    25053: (142,),  # Ruckus-Dpsk
    26928: (201, 202),  # Aerohive PPSK
}

_WIDE: dict[int, tuple[int, int, frozenset[int]]] = {  # vendor: octets of a type and of a length, types
    429: (4, 0, frozenset((0x9814, 0x982B))),  # USR: Send-Password, IP-RIP-Simple-Auth-Password
    4846: (2, 1, frozenset((181, 184, 214, 215, 232))),  # Lucent, as Ascend
    8164: (2, 2, frozenset((15, 26, 39))),  # Starent: PPP, tunnel, ISAKMP
}
"""Those whose attributes are not in the recommended form, and so stand whole under Vendor-Specific (packet.py)."""

SECRETS = frozenset(
    [row.key for row in dictionary.ATTRIBUTES.values() if row.kind is dictionary.Kind.SECRET]
    + [vendor << 8 | kind for vendor, kinds in _OTHERS.items() for kind in kinds]
)

_WHOLE = dictionary.VENDOR_SPECIFIC
_PAIR = dictionary.CISCO_AVPAIR
_TELLING = re.compile(rb"(?i)(?:password|passwd|passphrase|secret|psk)[^=*]{0,24}[=*]")  # name=value, name*value


def without_secrets(packet: Packet) -> bytes:
    """The packet's octets as they came, but for zeros as the values of what is a secret. Most packets have none."""
    attributes = packet.attributes
    if SECRETS.isdisjoint(attributes) and _PAIR not in attributes and _WHOLE not in attributes:
        return packet.data
    return blanked(packet, is_secret)


def is_secret(key: int, value: bytes) -> bool:
    """`key` and `value` as in Packet.attributes."""
    if key == _PAIR:
        return _TELLING.search(value) is not None
    return key in SECRETS or (key == _WHOLE and _is_wide_secret(value))


def _is_wide_secret(value: bytes) -> bool:
    """A Vendor-Specific that stands whole: one secret in it makes all of it one."""
    type_octets, length_octets, secrets = _WIDE.get(int.from_bytes(value[:4], "big"), (0, 0, frozenset()))
    offset = 4
    while type_octets and offset + type_octets + length_octets <= len(value):
        starts = offset + type_octets
        if int.from_bytes(value[offset:starts], "big") in secrets:
            return True
        length = int.from_bytes(value[starts : starts + length_octets], "big")
        offset += max(length, type_octets + length_octets) if length_octets else len(value)
    return False
