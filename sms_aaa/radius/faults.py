"""Why a datagram was dropped: the catalogue of named faults.

A RADIUS server says nothing to a peer that breaks the protocol, so the counter of a fault is the only trace that a
NAS engineer gets; each has a label for metrics and a sentence for people. The first group is what parse() finds, the
second what verify() finds, the third what read_credential() finds, then what only a door can know; what was named
later stands at the end.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class PacketFault(Enum):
    """(label, sentence). `index` counts from 0 in this order, which stays: counters are kept by it. Add at the end."""

    TOO_SHORT = ("too-short", "The datagram is shorter than the 20 octets of a header.")
    TOO_LONG = ("too-long", "Length is more than 4096 octets.")
    LENGTH_MISMATCH = ("length-mismatch", "Length is below 20 or more than the datagram brought.")
    UNKNOWN_CODE = ("unknown-code", "The code is none of RADIUS.")
    ATTRIBUTE_ZERO_LENGTH = ("attribute-zero-length", "An attribute's length is 0 or 1, less than its own header.")
    ATTRIBUTE_OVERRUN = ("attribute-overrun", "An attribute runs past the end of the packet.")
    TOO_MANY_ATTRIBUTES = ("too-many-attributes", "The packet has more than 200 attributes.")

    UNEXPECTED_CODE = ("unexpected-code", "The code is not one that this port serves.")
    BAD_REQUEST_AUTHENTICATOR = (
        "bad-request-authenticator",
        "The Request Authenticator is wrong: the secrets differ, or the packet was changed.",
    )
    MESSAGE_AUTHENTICATOR_MISSING = (
        "message-authenticator-missing",
        "A Message-Authenticator is required here and there is none.",
    )
    MESSAGE_AUTHENTICATOR_REPEATED = (
        "message-authenticator-repeated",
        "There is more than one Message-Authenticator.",
    )
    MESSAGE_AUTHENTICATOR_LENGTH = ("message-authenticator-length", "The Message-Authenticator is not of 16 octets.")
    MESSAGE_AUTHENTICATOR_INVALID = (
        "message-authenticator-invalid",
        "The Message-Authenticator is wrong: the secrets differ, or the packet was changed.",
    )
    PROXY_STATE_LIMIT = (
        "proxy-state-limit",
        "There is more Proxy-State than an Access-Request without Message-Authenticator may bring (CVE-2024-3596).",
    )

    CREDENTIAL_CONFLICT = ("credential-conflict", "There is more than one credential, where one is allowed.")
    CREDENTIAL_LENGTH = ("credential-length", "A credential or its challenge has a length that its RFC does not know.")
    CREDENTIAL_WITHOUT_CHALLENGE = ("credential-without-challenge", "An MS-CHAP response came without its challenge.")

    UNKNOWN_NAS = ("unknown-nas", "No NAS is known at the address that the datagram came from.")

    EAP_UNSIGNED = ("eap-unsigned", "An EAP-Message came without a Message-Authenticator, which it always needs.")
    STATUS_SERVER_UNSIGNED = (
        "status-server-unsigned",
        "A Status-Server came without a Message-Authenticator, which it always needs.",
    )
    REPLY_TOO_LONG = (
        "reply-too-long",
        "With all the Proxy-State that the request brought, its reply would be longer than 4096 octets.",
    )

    def __init__(self, label: str, sentence: str) -> None:
        self.label = label
        self.sentence = sentence
        self.index = len(type(self).__members__)


@dataclass(frozen=True, slots=True)
class Malformed:
    """What parse() gives instead of a Packet. There is nothing to answer: RFC 2865 section 3 wants silence."""

    fault: PacketFault
