"""What was used between two readings of a NAS's counters, and what became of a counter that fell.

A counter that is lower than before has wrapped, has begun anew or has slipped:

- It wrapped at 32 bits if neither reading had Gigawords, it stood in the upper half and stands in the lower one, and
  the service's rate explains the distance. Both may wrap between two readings.
- It began anew (a reset), and counts from zero, if the rate allows for as much as it shows in that time. A box that
  lost its counters lost both: where only one is seen to have fallen, the other counts from zero too if the rate allows
  for it, else it is its growth; likewise without Gigawords, where the fall may be a wrap after all, and nothing may be
  counted twice. What fell by next to nothing did not begin anew.
- Else it slipped, and counts nothing.

So usage is never negative. Everything else about order and repetition is in session.py and late.py.
"""

from __future__ import annotations

from enum import Enum

from msgspec import Struct

_WORD = 1 << 32
_HALF = _WORD // 2
_UNKNOWN_RATE_KBPS = 1_000_000
"""What a service without a limit is taken to reach when a counter seems to have wrapped."""

_RATE_FACTOR = 2
_RATE_SECONDS = 60
"""More than twice the rate over a minute more than the time is not explained by bursts and rounded times."""

SLIP_PART = 64
"""A counter that fell by no more than this part of itself slipped: NASes count their two directions unevenly."""


class Fall(Enum):
    NONE = "none"
    WRAP = "wrap"
    RESET = "reset"
    SLIP = "slip"


class Used(Struct, frozen=True, gc=False):
    """Octets in both directions, and which fall explains them."""

    octets_in: int
    octets_out: int
    fall: Fall


def octets_between(
    before_in: int,
    before_out: int,
    after_in: int,
    after_out: int,
    *,
    narrow: bool,
    elapsed_seconds: int,
    rate_kbps: int,
) -> Used:
    """`narrow`: no Gigawords in either reading. `rate_kbps`: the faster direction of the service; 0: not known."""
    grown_in, grown_out = after_in - before_in, after_out - before_out
    if grown_in >= 0 and grown_out >= 0:
        return Used(grown_in, grown_out, Fall.NONE)
    rate_kbps = rate_kbps or _UNKNOWN_RATE_KBPS
    octets_max = rate_kbps * 125 * elapsed_seconds  # 1 kbit/s is 125 octets a second
    wrapped_in = narrow and _wraps(before_in, after_in, octets_max)
    wrapped_out = narrow and _wraps(before_out, after_out, octets_max)
    if (wrapped_in or grown_in >= 0) and (wrapped_out or grown_out >= 0):
        return Used(grown_in + wrapped_in * _WORD, grown_out + wrapped_out * _WORD, Fall.WRAP)
    plausible = _plausible_octets(elapsed_seconds, rate_kbps)
    if grown_in < 0 and grown_out < 0:
        slipped = _is_slight(before_in, after_in) and _is_slight(before_out, after_out)
        return (
            Used(0, 0, Fall.SLIP)
            if slipped or max(after_in, after_out) > octets_max
            else Used(after_in, after_out, Fall.RESET)
        )
    fallen, before, other, grown = (
        (after_in, before_in, after_out, grown_out) if grown_in < 0 else (after_out, before_out, after_in, grown_in)
    )
    if _is_slight(before, fallen) or fallen > plausible:
        used, fall = 0, Fall.SLIP
    else:
        used, fall = fallen, Fall.RESET
        grown = other if other <= octets_max and not narrow else grown
    return Used(used, grown, fall) if grown_in < 0 else Used(grown, used, fall)


def _wraps(before: int, after: int, octets_max: int) -> bool:
    return _HALF <= before < _WORD and after < _HALF and after + _WORD - before <= octets_max


def goes_on_from(before: int, after: int) -> int:
    """Where a counter that slipped goes on from: what makes up for a little was counted before.

    A fall by more is anything, a wrap perhaps that nobody can be sure of: it goes on from where it stands.
    """
    return before if _is_slight(before, after) else after


def _is_slight(before: int, after: int) -> bool:
    return before - before // SLIP_PART <= after < before


def is_implausible(octets_in: int, octets_out: int, *, elapsed_seconds: int, rate_kbps: int) -> bool:
    """Whether the service's rate does not allow for so much; never when the rate or the time is not known."""
    if not rate_kbps or not elapsed_seconds:
        return False
    octets_max = _plausible_octets(elapsed_seconds, rate_kbps)
    return octets_in > octets_max or octets_out > octets_max


def _plausible_octets(elapsed_seconds: int, rate_kbps: int) -> int:
    return _RATE_FACTOR * rate_kbps * 125 * (elapsed_seconds + _RATE_SECONDS)
