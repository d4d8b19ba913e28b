"""What past usage would have cost by another tariff: an account's cycles as they came to, and as they would have.

Nothing is written. Usage goes through rules/charging.py in canonical order, from the beginning of each cycle, with the
allowances that the tariff grants a cycle; those of another cycle, and what was bought, are not looked at. Compared is
the price of usage with its minimums and the bounds over it, before money buckets pay; fees, and bounds over them, are
not.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING

from sms_aaa.db import charging as db_charging
from sms_aaa.db import dry_rating as db_dry
from sms_aaa.flows.placing import Found, look_up
from sms_aaa.flows.weighing import fact_of, span_of
from sms_aaa.rules.buckets import Grant
from sms_aaa.rules.charging import Charging, Slice, Total
from sms_aaa.rules.closing import closing_lines, granted_amount
from sms_aaa.rules.covering import Bucket
from sms_aaa.rules.instants import SECOND_US
from sms_aaa.rules.pricing import opening_numerator
from sms_aaa.rules.slicing import cut_spans

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from datetime import datetime

    from sms_aaa.db.charging import SessionRow
    from sms_aaa.db.dry_rating import PastTotal
    from sms_aaa.db.engine import Connection
    from sms_aaa.db.rating_queue import QueuedDelta
    from sms_aaa.flows.shelf import PlanShelf
    from sms_aaa.rules.tariff import Tariff


@dataclass(frozen=True, slots=True)
class Compared:
    """What an account's usage cost, and what it would have, over so many cycles on the plan. Minor units."""

    account_id: int
    cycles: int
    old_minor: int
    new_minor: int

    @property
    def difference_minor(self) -> int:
        return self.new_minor - self.old_minor


@dataclass(slots=True)
class _Turn:
    """A subscription to the plan in a cycle."""

    first: PastTotal
    numerators: dict[str, int]

    @property
    def key(self) -> tuple[int, int]:
        return self.first.subscription_id, self.first.starts_us

    @property
    def run(self) -> Fraction:
        """The part of the cycle that the subscription ran."""
        begin = max(self.first.during_from_us, self.first.starts_us)
        end = min(self.first.during_to_us, self.first.ends_us)
        return Fraction(max(end - begin, 0), self.first.ends_us - self.first.starts_us)


def compare_tariffs(
    connection: Connection,
    shelf: PlanShelf,
    tariff: Tariff,
    *,
    plan: str,
    start: datetime,
    end: datetime,
    progress: Callable[[int, int], None],
) -> Iterator[Compared]:
    """Of each account the cycles that begin in [start, end) on the plan, in order of accounts, a group at a time."""
    heads = db_dry.list_heads(connection, plan, start=start, end=end)
    for done, head_id in enumerate(heads):
        progress(done, len(heads))
        members = db_charging.list_members(connection, head_id)
        turns = _turns(db_dry.list_past_totals(connection, members, plan, start=start, end=end))
        new = _price(connection, shelf, tariff, members, turns)
        by_account: dict[int, list[_Turn]] = defaultdict(list)
        for turn in turns.values():
            by_account[turn.first.account_id].append(turn)
        for account_id, mine in sorted(by_account.items()):
            yield Compared(
                account_id,
                len(mine),
                sum(
                    _usage_minor(shelf.tariff(connection, turn.first.plan_version_id).tariff, turn.numerators, turn.run)
                    for turn in mine
                ),
                sum(_usage_minor(tariff, new[turn.key], turn.run) for turn in mine),
            )
    progress(len(heads), len(heads))


def _turns(totals: Sequence[PastTotal]) -> dict[tuple[int, int], _Turn]:
    found: dict[tuple[int, int], _Turn] = {}
    for row in totals:
        turn = found.setdefault((row.subscription_id, row.starts_us), _Turn(row, {}))
        turn.numerators[row.component] = row.numerator
    return found


def _price(
    connection: Connection,
    shelf: PlanShelf,
    tariff: Tariff,
    members: Sequence[int],
    turns: dict[tuple[int, int], _Turn],
) -> dict[tuple[int, int], dict[str, int]]:
    """Exact prices of the components by the tariff, for each subscription in a cycle."""
    charging = Charging(_allowances(tariff, turns.values(), members[0]))
    for subscription_id, starts_us in turns:
        for part in tariff.usage:
            charging.totals[subscription_id, starts_us, part.name] = Total(0, opening_numerator(part))
    for piece, turn in _slices(connection, shelf, tariff, members, turns, charging.buckets):
        charging.charge(piece, tariff.usage, *turn.key)
    return {key: {part.name: charging.totals[*key, part.name].numerator for part in tariff.usage} for key in turns}


def _slices(
    connection: Connection,
    shelf: PlanShelf,
    tariff: Tariff,
    members: Sequence[int],
    turns: dict[tuple[int, int], _Turn],
    buckets: Sequence[Bucket],
) -> list[tuple[Slice, _Turn]]:
    """The group's slices in these turns, in canonical order."""
    from_us = min(turn.first.starts_us for turn in turns.values())
    to_us = max(turn.first.ends_us for turn in turns.values())
    deltas = db_dry.list_past_deltas(connection, members, from_us, to_us)
    sessions: dict[int, SessionRow] = {}
    if tariff.keys or tariff.bands:
        rows = db_charging.list_sessions(connection, {delta.session_id for delta in deltas})
        sessions = {row.session_id: row for row in rows}
    edges = [edge for bucket in buckets for edge in (bucket.grant.from_us, bucket.grant.until_us) if edge is not None]
    found: list[tuple[Slice, _Turn]] = []
    for delta, placed in zip(deltas, look_up(connection, shelf.cycles, deltas), strict=True):
        if isinstance(placed, Found):
            found += _cut(tariff, delta, placed, turns, edges, sessions.get(delta.session_id))
    return sorted(found, key=lambda pair: pair[0].order)


def _cut(
    tariff: Tariff,
    delta: QueuedDelta,
    placed: Found,
    turns: dict[tuple[int, int], _Turn],
    edges: Sequence[int],
    session: SessionRow | None,
) -> Iterator[tuple[Slice, _Turn]]:
    zone = placed.parts[0].tenure.zone
    spans = [span_of(part.from_us, part.to_us, tariff, zone, session) for part in placed.parts]
    for piece, number in cut_spans(fact_of(delta, session), spans, edges, tariff.switch):
        part = placed.parts[number]
        turn = turns.get((part.tenure.subscription_id or 0, part.start_us))
        if turn is not None:
            yield piece, turn


def _allowances(tariff: Tariff, turns: Iterable[_Turn], head_id: int) -> list[Bucket]:
    """What the tariff grants each of these turns; unit buckets only."""
    found: list[Bucket] = []
    for turn in turns:
        first = turn.first
        for terms in tariff.buckets:
            if terms.measure is None:
                continue
            until_us = first.ends_us
            if terms.valid_seconds is not None:
                until_us = first.starts_us + terms.valid_seconds * SECOND_US
            grant = Grant(
                len(found), terms, granted_amount(terms, turn.run), first.starts_us, until_us, first.starts_us
            )
            owner = None if terms.is_shared and first.account_id == head_id else first.account_id
            found.append(Bucket(grant, owner=owner))
    return found


def _usage_minor(tariff: Tariff, numerators: dict[str, int], run: Fraction) -> int:
    usage = {part.name for part in tariff.usage}
    bounds = tuple(bound for bound in tariff.bounds if usage.issuperset(bound.components))
    lines = closing_lines(replace(tariff, bounds=bounds), numerators, {}, run)
    return sum(line.amount_minor for line in lines)
