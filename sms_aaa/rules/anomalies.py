"""What each kind of anomaly means to people, and what they can do about it."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Meaning:
    """What happened, how it was counted, and what to look at."""

    happened: str
    counted: str
    remedy: str


MEANINGS: Mapping[str, Meaning] = MappingProxyType({
    "stale-reading": Meaning(
        "a record came late and does not fit between those that came before and after it",
        "it adds nothing",
        "if it comes often from one NAS, look at its retransmissions and at packets that overtake each other",
    ),
    "late-reading": Meaning(
        "a record came late and shows more usage than had been counted up to its time",
        "what is missing is added, once",
        "nothing, if it is rare; else look at what delays that NAS's records",
    ),
    "counter-wrap": Meaning(
        "a counter passed 4 GiB and began at zero, since the NAS sends no Gigawords (RFC 2869 section 5.1)",
        "the full 4 GiB are added to what the counter shows",
        "switch Acct-Input- and Acct-Output-Gigawords on at the NAS: two wraps between records cannot be seen",
    ),
    "counter-reset": Meaning(
        "the NAS began to count anew in the middle of a session",
        "what the counters show since then is added to what was counted before",
        "look for a restart of a line card or of the session on the NAS: what it forgot was not counted",
    ),
    "counter-slip": Meaning(
        "a counter went back a little while the other one went on",
        "nothing is added until it passes where it was",
        "a fault of the NAS's software: report it to the vendor with the two records",
    ),
    "implausible-rate": Meaning(
        "more octets than the plan's rate allows in that time",
        "they are counted all the same: usage is a fact",
        "see whether the NAS enforces the rate, and whether its counters are right, before the invoice goes out",
    ),
    "nas-clock": Meaning(
        "the NAS's clock is far off, or was set in the middle of a session",
        "octets are right; times are those of our own clock",
        "set the NAS's clock by NTP",
    ),
    "unknown-service": Meaning(
        "accounting came for a user name that is no service's, and without our Class",
        "kept with its session, and charged to nobody",
        "see `sessions --excluded`; add the subscriber, or find out who let that user in",
    ),
    "re-addressed": Meaning(
        "an address or prefix changed in the middle of a session, or a late record tells another one",
        "no octet depends on it; `whohad` knows both, each with its time",
        "nothing, where the NAS renews leases or adds IPv6 later",
    ),
    "bad-port-block": Meaning(
        "what a record tells of ports behind a NAT could not be read",
        "all else in it counts; `whohad` does not know these ports",
        "look at the record with `journal show`, and at what RFC 8045 or the vendor's manual says of its form",
    ),
})  # fmt: skip

UNEXPLAINED = Meaning("an oddity that this program has no words for", "as the records say", "look at its record")


def meaning_of(kind: str) -> Meaning:
    """Of a kind as it is stored: one of a newer program is unexplained."""
    return MEANINGS.get(kind, UNEXPLAINED)
