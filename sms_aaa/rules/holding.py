"""Who had an address at an instant, and how sure that is. A court reads it: what is not sure is named."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime


class Doubt(StrEnum):
    NEAR = "within-tolerance"
    UNHEARD = "not-heard-since"
    CHANGED = "changed-around-then"
    CLOCK = "nas-clock"
    ESTIMATED = "end-estimated"
    OPEN = "still-open"

    @property
    def weakens(self) -> bool:
        """Whether the answer is less than sure by it; else it only tells how the holding ended."""
        return self not in {Doubt.ESTIMATED, Doubt.OPEN}


DOUBTS = {
    Doubt.NEAR: "it had the address at another instant, no further off than the tolerance",
    Doubt.UNHEARD: "no record since tells that it still had it",
    Doubt.CHANGED: "the record before tells this address, the one after another",
    Doubt.CLOCK: "its NAS's clock was wrong or was set meanwhile",
    Doubt.ESTIMATED: "no Stop was heard: it ended at its last record or later",
    Doubt.OPEN: "the session has not ended",
}
"""What each means, for people."""


@dataclass(frozen=True, slots=True)
class Holding:
    """An address, prefix or port block of a session, in [from_at, to_at]; `to_at` None: it has it still.

    `heard_at`: the last record that told it. `estimated`: `to_at` is inferred, not told.
    """

    from_at: datetime
    heard_at: datetime
    to_at: datetime | None
    estimated: bool
    clock_is_odd: bool


def doubts_of(holding: Holding, at: datetime) -> tuple[Doubt, ...]:
    """What an answer for the instant `at` has to say of itself."""
    found = []
    if at < holding.from_at or (holding.to_at is not None and at > holding.to_at):
        found.append(Doubt.NEAR)
    elif at > holding.heard_at:
        found.append(Doubt.UNHEARD if holding.to_at is None else Doubt.CHANGED)
    if holding.clock_is_odd:
        found.append(Doubt.CLOCK)
    if holding.to_at is None:
        found.append(Doubt.OPEN)
    elif holding.estimated:
        found.append(Doubt.ESTIMATED)
    return tuple(found)
