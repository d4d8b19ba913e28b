"""A quantity shared over stretches of time, linearly and to the last unit; and how long a delta may be.

Hours and days share usage by this rule. Rating cuts by the same formula, at edges of tariffs: rules/charging.py.
"""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise
from typing import TYPE_CHECKING

from sms_aaa.rules.money import round_half_away

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

DELTA_MAX = timedelta(days=400)
"""Of a delta whose times can be true: a session reports more than once in so long."""

_MICROSECOND = timedelta(microseconds=1)


def slice_quantities(quantity: int, *, start: datetime, end: datetime, edges: Sequence[datetime]) -> list[int]:
    """`quantity` >= 0 cut at `edges`, which ascend strictly inside (start, end): one part more than there are edges.

    The running total at an edge is round_half_up(quantity x elapsed / duration), so the parts are >= 0 and add up to
    `quantity` exactly. Without edges it stays whole, whatever its length.
    """
    assert quantity >= 0
    assert all(earlier < later for earlier, later in pairwise((start, *edges, end))) or not edges
    duration = (end - start) // _MICROSECOND
    # Half up is half away from zero here, for nothing is negative.
    marks = [round_half_away(quantity * ((edge - start) // _MICROSECOND), duration) for edge in edges]
    return [later - earlier for earlier, later in pairwise((0, *marks, quantity))]
