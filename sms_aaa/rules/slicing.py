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
    """Slices of a fact, each with the number of its span. The spans tile the fact; `edges` are those of buckets."""
    if len(spans) == 1:
        [span] = spans
        return [(piece, 0) for piece in cut(_keyed(fact, span.key), span.calendar, span.bands, edges, switch)]
    inside = {*edges, *(span.from_us for span in spans)}
    found: list[tuple[Slice, int]] = []
    for number, span in enumerate(spans):
        for piece in cut(_keyed(fact, span.key), span.calendar, span.bands, inside, switch):
            if span.from_us <= piece.from_us < span.to_us:
                found.append((replace(piece, index=len(found)), number))
    return found


def _keyed(fact: Fact, key: str) -> Fact:
    return fact if fact.key == key else replace(fact, key=key)
