"""A fact over the cycles and plans that it crosses: each of its slices lies in one of them, cut by that plan's tariff.

How the quantity is shared over the slices is one decision a fact: that of the plan which the fact begins in. So the
slices add up to it, whatever the plans on the two sides of a change say.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sms_aaa.rules.charging import Slice, cut

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sms_aaa.rules.charging import Fact
    from sms_aaa.rules.slots import Band, Calendar
    from sms_aaa.rules.tariff import Switch


@dataclass(frozen=True, slots=True)
class Span:
    """[from_us, to_us) of a fact under one tariff and in one cycle, with the rating key that the tariff gives it."""

    from_us: int
    to_us: int
    calendar: Calendar
    bands: tuple[Band, ...]
    key: str


def cut_spans(fact: Fact, spans: Sequence[Span], edges: Iterable[int], switch: Switch) -> list[tuple[Slice, int]]:
    """Slices of a fact, each with the number of its span; their indices count from the first span on.

    The spans tile what is wanted of the fact; `edges` are those of buckets.
    """
    inside = edges if len(spans) == 1 else set(edges)
    found: list[tuple[Slice, int]] = []
    for number, span in enumerate(spans):
        within = (span.from_us, span.to_us)
        pieces = cut(_keyed(fact, span.key), span.calendar, span.bands, inside, switch, within)
        found += [(replace(piece, index=piece.index + len(found)) if found else piece, number) for piece in pieces]
    return found


def _keyed(fact: Fact, key: str) -> Fact:
    return fact if fact.key == key else replace(fact, key=key)
