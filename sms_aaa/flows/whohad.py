"""Who had an address, a prefix or a port at an instant; where nobody had, who had it before and after."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from sms_aaa.db import whohad as db_whohad
from sms_aaa.db.whohad import Span, When
from sms_aaa.rules.holding import Holding, doubts_of

if TYPE_CHECKING:
    from ipaddress import IPv4Network, IPv6Network

    from sms_aaa.db.engine import Connection
    from sms_aaa.db.whohad import Found, Holder
    from sms_aaa.rules.holding import Doubt

HOLDERS_MAX = 1000
BLOCKS_MAX = 20 * HOLDERS_MAX
"""Of port blocks so many are looked at: that of most the session has ended is known only then."""

_EVER = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Answer:
    """One session that had it: what, from when to when, whose it is, and what is not sure of it."""

    found: Found
    holder: Holder
    holding: Holding
    doubts: tuple[Doubt, ...]

    @property
    def is_sure(self) -> bool:
        return not any(doubt.weakens for doubt in self.doubts)


@dataclass(frozen=True, slots=True)
class Answers:
    """Those who had it; if nobody, the nearest `before` and `after` that are known. `is_cut`: there are more."""

    held: list[Answer]
    before: Answer | None
    after: Answer | None
    is_cut: bool


def find_holders(
    connection: Connection,
    asked: IPv4Network | IPv6Network,
    port: int | None,
    at: datetime,
    *,
    tolerance_seconds: int,
) -> Answers:
    """Who had `asked` (with all its bits: an address) at `at`, give or take the tolerance. Ports tell in IPv4 only."""
    tolerance = timedelta(seconds=tolerance_seconds)
    span = Span(since=at - tolerance, until=at + tolerance)
    question = _Question(connection, asked, port, span)
    found, is_cut = question.find(When.DURING, HOLDERS_MAX + 1, BLOCKS_MAX)
    held = [_answer(*one, at) for one in sorted(found, key=_beginning)]
    if held:
        return Answers(held[:HOLDERS_MAX], None, None, is_cut=is_cut or len(held) > HOLDERS_MAX)
    before = max(question.find(When.BEFORE, 1, 1)[0], key=_end, default=None)
    after = min(question.find(When.AFTER, 1, 1)[0], key=_beginning, default=None)
    return Answers([], _answer(*before, at) if before else None, _answer(*after, at) if after else None, is_cut)


@dataclass(frozen=True, slots=True)
class _Question:
    connection: Connection
    asked: IPv4Network | IPv6Network
    port: int | None
    span: Span

    def find(self, when: When, limit: int, blocks_max: int) -> tuple[list[tuple[Found, Holder]], bool]:
        """Up to `limit` of each source; and whether there were more port blocks to be looked at than `blocks_max`."""
        about = (self.connection, self.asked)
        found = db_whohad.list_by_session(*about, when, self.span, limit=limit)
        apart = db_whohad.list_former(*about, when, self.span, limit=limit)
        blocks = db_whohad.list_port_blocks(*about, self.port, when, self.span, limit=blocks_max)
        apart += blocks
        if not apart:
            return found, False
        holders = db_whohad.list_holders(self.connection, sorted({one.session_id for one in apart}))
        ended = [(_ended(one, holders[one.session_id]), holders[one.session_id]) for one in apart]
        found += [(one, holder) for one, holder in ended if self._is_so(one, when)]
        return found, len(blocks) == blocks_max

    def _is_so(self, found: Found, when: When) -> bool:
        """Where the session's end is that of a port block, it is known only now."""
        match when:
            case When.DURING:
                return found.to_at is None or found.to_at >= self.span.since
            case When.BEFORE:
                return found.to_at is not None and found.to_at < self.span.since
            case When.AFTER:
                return True


def _ended(found: Found, holder: Holder) -> Found:
    return found if found.to_at is not None else replace(found, to_at=holder.stopped_at)


def _beginning(one: tuple[Found, Holder]) -> datetime:
    return one[0].from_at


def _end(one: tuple[Found, Holder]) -> datetime:
    return one[0].to_at or _EVER


def _answer(found: Found, holder: Holder, at: datetime) -> Answer:
    told = found.to_at is not None and found.to_at != holder.stopped_at
    holding = Holding(
        from_at=found.from_at,
        heard_at=found.heard_at or (found.to_at if told and found.to_at is not None else holder.updated_at),
        to_at=found.to_at,
        estimated=holder.estimated and not told,
        clock_is_odd=holder.clock_is_odd,
    )
    return Answer(found, holder, holding, doubts_of(holding, at))
