"""Late readings: what a record adds to a life that has been counted beyond it already.

The octets of a life are a function of the set of its readings, put in order (session.py). A late reading stands between
two that were counted with. It adds what the two steps over it say beyond the one step that was counted: nothing between
two readings of one run; the rest of a run whose end came after the reset; all of a run that nobody had heard of. So
the total is the same in whatever order they arrive. Where a late reading says that too much was counted, since a fall
now reads otherwise, the usage stays, and the reading is named stale.

For this, and only for this, it takes all the readings that a life was counted with: its deltas, and the late readings,
which are kept for it. They are rare, and a newer reading needs no more than the last one.
"""

from __future__ import annotations

from bisect import bisect_left
from datetime import datetime
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from sms_aaa.rules.counters import Fall, Used, goes_on_from, octets_between
from sms_aaa.rules.session import (
    AnomalyKind,
    Delta,
    Event,
    Life,
    Place,
    Reading,
    Step,
    counters_of,
    is_newer,
    older,
    seconds_of,
    step,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


_BEFORE_ALL = -(1 << 40)
"""Seconds: a life that was first heard of in its middle may have an earlier reading yet."""


class Known(Struct, frozen=True, gc=False):
    """A reading that was counted with; `seconds` into its life."""

    seconds: int
    octets_in: int
    octets_out: int
    at: datetime
    place: Place | None


def is_late(life: Life, reading: Reading) -> bool:
    """Whether `step` has to be told what is known of this life: the reading is no news, nor the last one again."""
    if reading.event is Event.START or (reading.octets_in is None and reading.octets_out is None):
        return False
    seconds = reading.session_seconds
    if seconds is not None and seconds > life.reading_seconds:
        return False
    counters = counters_of(life, reading)
    if is_newer(life, reading):
        # Newer by its date alone, and lower: a reset, or one that was heard before and is dated wrongly now.
        return reading.session_seconds is None and (counters[0] < life.reading_in or counters[1] < life.reading_out)
    return counters != (life.reading_in, life.reading_out) or seconds_of(life, reading) != life.reading_seconds


def step_late(life: Life, reading: Reading, known: Sequence[Known], *, rate_kbps: int = 0) -> tuple[Step, Known | None]:
    """`step` for a record that `is_late`. `known`: as `known_of` gives it.

    Beside the step: the reading, if it is to be known from now on; None: it was.
    """
    if is_newer(life, reading):
        if _is_known(life, reading, known):
            return Step(older(life, reading).life, None, None), None  # a Stop may be dated wrongly: it closes
        return step(life, life.life, reading, rate_kbps=rate_kbps), None
    result = step(life, life.life, reading, rate_kbps=rate_kbps)
    return _between(result, reading, known, rate_kbps)


def known_of(life: Life, deltas: Sequence[Delta], late: Iterable[Known]) -> list[Known]:
    """What was counted with in a life, in order: from its deltas and the late readings that were kept.

    `deltas` by their numbers, all of them or the last ones alone: then it begins with what the first of them stands on.
    Nothing when there is a gap in them.
    """
    numbers = [delta.seq for delta in deltas]
    if numbers != list(range(life.deltas + 1 - len(numbers), life.deltas + 1)):
        return []
    seconds = life.reading_seconds
    counted: list[Known] = []
    oldest = Known(_BEFORE_ALL, 0, 0, life.started_at, None) if len(numbers) == life.deltas else None
    for delta in reversed(deltas):
        if not delta.late:
            counted.append(Known(seconds, delta.after_in, delta.after_out, delta.to_at, delta.after_place))
            seconds -= delta.seconds
            first = Known(seconds, delta.before_in, delta.before_out, delta.from_at, delta.before_place)
    if oldest is None and counted:
        oldest = first
    if oldest is None:
        return []
    between = (one for one in late if order_of(one) > order_of(oldest))
    return sorted([oldest, *counted, *between], key=order_of)


def order_of(known: Known) -> tuple[int, int, int]:
    return known.seconds, known.octets_in, known.octets_out


def _is_known(life: Life, reading: Reading, known: Sequence[Known]) -> bool:
    counters = counters_of(life, reading)
    return any((one.octets_in, one.octets_out) == counters for one in known if one.place is not None)


def _between(result: Step, reading: Reading, known: Sequence[Known], rate_kbps: int) -> tuple[Step, Known | None]:
    life = result.life
    octets_in, octets_out = counters_of(life, reading)
    late = Known(seconds_of(life, reading), octets_in, octets_out, reading.at, reading.place)
    newest = Known(life.reading_seconds, life.reading_in, life.reading_out, life.reading_at, life.reading_place)
    if order_of(known[-1]) < order_of(newest):  # it told no usage, and so made no delta
        known = [*known, newest]
    at = bisect_left(known, order_of(late), key=order_of)
    if at in {0, len(known)}:
        return result, None
    before, after = known[at - 1], known[at]
    narrow = not (reading.gigawords or life.reading_gigawords)
    to = _step_over(before, late, narrow=narrow, rate_kbps=rate_kbps)
    on = _step_over(late, after, narrow=narrow, rate_kbps=rate_kbps)
    slipped = None
    if to.fall is Fall.SLIP and on.fall is not Fall.SLIP:
        late, slipped = _made_up(before, late), AnomalyKind.COUNTER_SLIP
        on = _step_over(late, after, narrow=narrow, rate_kbps=rate_kbps)
    if order_of(after) == order_of(late):
        return Step(life, None, slipped), None
    over = _step_over(before, after, narrow=narrow, rate_kbps=rate_kbps)
    more_in = to.octets_in + on.octets_in - over.octets_in
    more_out = to.octets_out + on.octets_out - over.octets_out
    if on.fall is Fall.SLIP or max(more_in, more_out) <= 0:
        contradicts = on.fall is Fall.SLIP or min(more_in, more_out) < 0
        return Step(life, None, AnomalyKind.STALE_READING if contradicts else slipped), late
    delta = Delta(
        seq=life.deltas + 1,
        from_at=min(before.at, reading.at),
        to_at=reading.at,
        octets_in=max(more_in, 0),
        octets_out=max(more_out, 0),
        seconds=0,  # they are in the delta over it
        run=life.run + (on.fall is Fall.RESET and over.fall is not Fall.RESET),
        wrapped=Fall.WRAP in {to.fall, on.fall},
        before_in=before.octets_in,
        before_out=before.octets_out,
        after_in=octets_in,
        after_out=octets_out,
        before_place=before.place,
        after_place=reading.place,
        late=True,
    )
    return Step(_with(life, delta), delta, AnomalyKind.LATE_READING), late


def _made_up(before: Known, late: Known) -> Known:
    """As it would have been kept in time: what makes up for a slip counts nothing."""
    return Known(
        late.seconds,
        goes_on_from(before.octets_in, late.octets_in),
        goes_on_from(before.octets_out, late.octets_out),
        late.at,
        late.place,
    )


def _step_over(before: Known, after: Known, *, narrow: bool, rate_kbps: int) -> Used:
    return octets_between(
        before.octets_in,
        before.octets_out,
        after.octets_in,
        after.octets_out,
        narrow=narrow,
        elapsed_seconds=after.seconds - before.seconds,
        rate_kbps=rate_kbps,
    )


def _with(life: Life, delta: Delta) -> Life:
    return replace(
        life,
        octets_in=life.octets_in + delta.octets_in,
        octets_out=life.octets_out + delta.octets_out,
        deltas=delta.seq,
        run=delta.run,
    )
