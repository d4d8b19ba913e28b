"""Instants as ints: microseconds since 2000-01-01 00:00 UTC, as PostgreSQL keeps a timestamptz.

Where millions of them are compared and subtracted, a datetime each would be felt.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

SECOND_US = 1_000_000
INSTANT_MIN, INSTANT_MAX = -(2**63), 2**63 - 1
"""PostgreSQL's infinities: before and after every instant."""

_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def instant_us(instant: datetime) -> int:
    """Microseconds since 2000 of an instant with its zone."""
    return (instant - _EPOCH) // _MICROSECOND


def instant_of(us: int) -> datetime:
    """The instant in UTC; OverflowError outside of the years 1 to 9999."""
    return _EPOCH + us * _MICROSECOND
