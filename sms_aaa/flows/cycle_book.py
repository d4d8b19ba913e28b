"""Cycles as pairs of instants, worked out once for each zone and anchor day: they are the same for all accounts."""

from __future__ import annotations

from bisect import bisect_right

from sms_aaa.rules.cycle import cycle_at
from sms_aaa.rules.instants import instant_of, instant_us


class CycleBook:
    """The cycles that were asked for."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[tuple[str, int], tuple[list[int], list[tuple[int, int]]]] = {}

    def cycle_at(self, zone: str, anchor_day: int, at_us: int) -> tuple[int, int]:
        """[start, end) of the cycle that an instant lies in, in microseconds since 2000."""
        starts, cycles = self._known.setdefault((zone, anchor_day), ([], []))
        at = bisect_right(starts, at_us)
        if at and at_us < cycles[at - 1][1]:
            return cycles[at - 1]
        cycle = cycle_at(instant_of(at_us), zone, anchor_day)
        bounds = (instant_us(cycle.start), instant_us(cycle.end))
        starts.insert(at, bounds[0])
        cycles.insert(at, bounds)
        return bounds
