"""When an accounting record's event happened: the NAS's clock is believed as far as it can be true.

Many a NAS begins in 1970 with each boot, and some are a day ahead. The one clock that is ours is that of the receipt.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

CLOCK_AHEAD = timedelta(seconds=60)
CLOCK_BEHIND = timedelta(days=7)
"""Beyond these distances from the receive time a NAS's Event-Timestamp is not believed."""

DELAY_BELIEVED = timedelta(days=1)
"""An Acct-Delay-Time beyond this does not prove an Event-Timestamp wrong."""


def event_time(stamp: datetime | None, delay_seconds: int, received_at: datetime) -> tuple[datetime, bool]:
    """When it happened, and whether the NAS's clock had to be overruled.

    Event-Timestamp if it can be true, else receive time minus Acct-Delay-Time (RFC 2866 section 5.2); never later
    than that, unless the delay is beyond belief, nor than the record was received.
    """
    by_delay = received_at - min(timedelta(seconds=delay_seconds), CLOCK_BEHIND) if delay_seconds else received_at
    if stamp is None:
        return by_delay, False
    # It happened before the NAS first tried to send it: a clock that says later is ahead, be the record late or not.
    latest = by_delay if by_delay > received_at - DELAY_BELIEVED else received_at
    if stamp > latest + CLOCK_AHEAD or stamp < received_at - CLOCK_BEHIND:
        return by_delay, True
    return min(stamp, latest), False
