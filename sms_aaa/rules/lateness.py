"""Records that come when their session has gone to the history: they must not begin it a second time.

A record without a life among the sessions at hand begins one, from zero: what its counters held before would be counted
again. So before it may, it is asked whether a life in the history is the one that it speaks of. A life that a Stop
closed is settled: the record is too late. One that only lapsed may be alive (a NAS that sends no interims says nothing
between Start and Stop, for weeks): it comes back from the history, and counts on from where it was.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from msgspec import Struct

from sms_aaa.rules.session import RESTART_TOLERANCE, TOLERANCE, Event, Reading, State

_EVER = datetime.min.replace(tzinfo=UTC)


class PastLife(Struct, frozen=True, gc=False, kw_only=True):
    """What the history tells of a life."""

    id: int
    state: State
    started_at: datetime
    updated_at: datetime
    stopped_at: datetime


def begins_at(reading: Reading) -> datetime:
    """Where the span of a record begins; without an Acct-Session-Time that may be anywhere."""
    if reading.session_seconds is None and reading.event is not Event.START:
        return _EVER
    return reading.at - timedelta(seconds=reading.session_seconds or 0)


def may_be_past(reading: Reading, before: datetime) -> bool:
    """Whether the life of a record may have ended before `before`: only then has the history to be asked."""
    return begins_at(reading) < before + TOLERANCE


def speaks_of(reading: Reading, past: PastLife) -> bool:
    """Whether a record is about this life, as rules.session.find_life has it."""
    begin = begins_at(reading)
    if begin == _EVER:
        # A life that a Stop closed is over; one that lapsed may have gone on, and counts on from where it was.
        return past.state is State.LAPSED or reading.at <= past.stopped_at + RESTART_TOLERANCE
    if past.state is State.CLOSED and begin > past.stopped_at + RESTART_TOLERANCE:
        return False
    if abs(begin - past.started_at) <= TOLERANCE:
        return True
    return begin <= past.updated_at + RESTART_TOLERANCE and reading.at >= past.started_at - RESTART_TOLERANCE
