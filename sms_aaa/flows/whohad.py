"""Who had an address, a prefix or a port at an instant; where nobody had, who had it before and after."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from sms_aaa.db import whohad as db_whohad
from sms_aaa.db.whohad import When
from sms_aaa.rules.holding import Holding, doubts_of

if TYPE_CHECKING:
    from datetime import datetime
    from ipaddress import IPv4Network, IPv6Network

    from sms_aaa.db.engine import Connection
    from sms_aaa.db.whohad import Found, Holder
    from sms_aaa.rules.holding import Doubt

HOLDERS_MAX = 1000


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
    span = {"since": at - timedelta(seconds=tolerance_seconds), "until": at + timedelta(seconds=tolerance_seconds)}
    found = db_whohad.list_found(connection, asked, port, When.DURING, **span, limit=HOLDERS_MAX + 1)
    if found:
        return Answers(_answers(connection, found[:HOLDERS_MAX], at), None, None, len(found) > HOLDERS_MAX)
    before = db_whohad.list_found(connection, asked, port, When.BEFORE, **span, limit=1)
    after = db_whohad.list_found(connection, asked, port, When.AFTER, **span, limit=1)
    return Answers(
        [],
        next(iter(_answers(connection, before, at)), None),
        next(iter(_answers(connection, after, at)), None),
        is_cut=False,
    )


def _answers(connection: Connection, found: list[Found], at: datetime) -> list[Answer]:
    holders = db_whohad.list_holders(connection, sorted({one.session_id for one in found})) if found else {}
    return [_answer(one, holders[one.session_id], at) for one in found]


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
