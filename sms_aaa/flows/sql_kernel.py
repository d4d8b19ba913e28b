"""The pricing kernel of `tariff rate --engine sql`: slices through the statement of bulk rating, on a scratch schema.

What it gives is what rules/charging.py gives, and the state moves likewise. A batch that is not set-wise is priced by
rules/charging.py itself; why, is kept to be told.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sms_aaa.db.bulk_pricing import Features
from sms_aaa.db.bulk_rating import BUCKETS_MAX
from sms_aaa.db.bulk_scratch import Piece, PriceTotal, price_pieces
from sms_aaa.flows.bulk import has_increments, part_row
from sms_aaa.rules.charging import Charged
from sms_aaa.rules.covering import Use
from sms_aaa.rules.cycle_setting import charge_each
from sms_aaa.rules.money import ABSTRACT
from sms_aaa.rules.set_wise import SLOTS_MAX, is_set_wise_bucket, steps_of, stops, swallows
from sms_aaa.rules.tariff import Scope, SessionLimit

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator, Sequence

    from sms_aaa.db.bulk_rating import BulkPart
    from sms_aaa.db.bulk_scratch import PricedPiece
    from sms_aaa.db.engine import Connection
    from sms_aaa.rules.charging import Charging
    from sms_aaa.rules.covering import Bucket, Session
    from sms_aaa.rules.cycle_setting import Placed
    from sms_aaa.rules.tariff import UsageComponent


class SqlKernel:
    """A kernel as rules.cycle_setting.Kernel has it. `refused`: why batches were priced without SQL."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.refused: dict[str, int] = {}

    def __call__(self, charging: Charging, placed: Sequence[Placed]) -> Iterable[Charged]:
        batch = _Batch(charging)
        reason = batch.read(placed)
        if reason is not None:
            self.refused[reason] = self.refused.get(reason, 0) + len(placed)
            return charge_each(charging, placed)
        return batch.price(self._connection) if batch.pieces else ()


@dataclass(slots=True)
class _Batch:
    """Slices of one call, with numbers for all that SQL has to tell apart."""

    charging: Charging
    buckets: list[Bucket] = field(default_factory=list)
    counted: list[tuple[Placed, UsageComponent]] = field(default_factory=list)
    pieces: list[Piece] = field(default_factory=list)
    parts: dict[tuple[Hashable, str], tuple[int, UsageComponent]] = field(default_factory=dict)
    meters: dict[tuple[Hashable, Hashable, str], int] = field(default_factory=dict)
    sessions: dict[Session, int] = field(default_factory=dict)
    places: dict[tuple[str, str, tuple[bool, ...]], int] = field(default_factory=dict)

    def read(self, placed: Sequence[Placed]) -> str | None:
        """Why it cannot be rated set-wise; None: it can."""
        # One of which nothing is left may still cover the rest of a step, or get money back.
        if any(not is_set_wise_bucket(bucket.terms) for bucket in self.charging.buckets):
            return "buckets of money, in steps, or bounded by the member"
        self.buckets = sorted(
            (bucket for bucket in self.charging.buckets if bucket.left("") > 0 or bucket.terms.blocks),
            key=lambda bucket: bucket.grant.order,
        )
        if any(bucket.reserved for bucket in self.charging.buckets):
            return "reservations"
        if len(self.buckets) > BUCKETS_MAX:
            return f"more than {BUCKETS_MAX} buckets at a time"
        for position, one in enumerate(placed):
            self._read(position, one)
        if len(self.places) > SLOTS_MAX:
            return f"more than {SLOTS_MAX} kinds of usage at a time"
        if any(
            part.session_maximum_picounits is not None and part.session_limit is SessionLimit.DISCONNECT
            for _, part in self.parts.values()
        ):
            return "a session that is disconnected at its maximum"
        return None

    def price(self, connection: Connection) -> Iterator[Charged]:
        usage = [part for _, part in self.parts.values()]
        has_sessions = any(part.scope is Scope.SESSION for part in usage)
        features = Features(
            rounds=len(self.buckets),
            has_sessions=has_sessions,
            has_increments=any(has_increments(part) for part in usage),
            has_steps=not all(steps_of(part).is_line for part in usage),
            has_stops=any(stops(bucket.terms) or swallows(bucket.terms) for bucket in self.buckets),
            has_order=False,
        )
        priced = price_pieces(
            connection,
            features,
            [self._row(number, part) for number, part in self.parts.values()],
            [
                PriceTotal(number, self.parts[subscription, name][0], self._total(subscription, cycle, name))
                for (subscription, cycle, name), number in self.meters.items()
            ],
            [
                (self.sessions[session], self.parts[subscription, name][0], quantity)
                for (subscription, name, session), quantity in self.charging.session_totals.items()
                if session in self.sessions and (subscription, name) in self.parts
            ],
            [(int(bucket.left("")), stops(bucket.terms), swallows(bucket.terms)) for bucket in self.buckets],
            self.pieces,
        )
        found = {(row.position, row.part_n): row for row in priced}
        for piece, (one, part) in zip(self.pieces, self.counted, strict=True):
            yield self._charged(one, part, piece.quantity, found[piece.position, piece.part_n])

    def _read(self, position: int, one: Placed) -> None:
        piece, fact = one.piece, one.piece.fact
        usable = tuple(
            bucket.is_usable(piece.from_us, piece.to_us) and bucket.is_of(fact.member) for bucket in self.buckets
        )
        place = self.places.setdefault((fact.key, piece.slot, usable), len(self.places))
        session_n = self.sessions.setdefault(fact.session, len(self.sessions) + 1)
        for part in one.parts:
            # In the tariff's order, whichever of them comes first.
            number, _ = self.parts.setdefault((one.subscription, part.name), (len(self.parts), part))
            if not part.is_for(fact.key, piece.slot, piece.band):
                continue
            quantity = piece.quantity(part.measure)
            if quantity:
                meter_n = self.meters.setdefault((one.subscription, one.cycle, part.name), len(self.meters) + 1)
                self.pieces.append(Piece(position, session_n, meter_n, place, number, quantity))
                self.counted.append((one, part))

    def _row(self, number: int, part: UsageComponent) -> BulkPart:
        covers = [
            sum(
                1 << bit
                for (key, slot, usable), bit in self.places.items()
                if usable[at] and bucket.is_for(part, key, slot)
            )
            for at, bucket in enumerate(self.buckets)
        ]
        return part_row(number, 0, number, number, part, ABSTRACT, slots=0, covers=covers)

    def _total(self, subscription: Hashable, cycle: Hashable, name: str) -> int:
        return self.charging.total(subscription, cycle, self.parts[subscription, name][1]).quantity

    def _charged(self, one: Placed, part: UsageComponent, quantity: int, row: PricedPiece) -> Charged:
        """As the reference says it; and the state moves."""
        numerator = int(row.numerator)
        total = self.charging.total(one.subscription, one.cycle, part)
        total.quantity += row.priced
        total.numerator += numerator
        if part.scope is Scope.SESSION:
            key = (one.subscription, part.name, one.piece.fact.session)
            self.charging.session_totals[key] = row.total_before + row.priced
        uses, uncovered, blocked_by = [], 0, None
        for bucket, covered, overrun in zip(self.buckets, row.covers[::2], row.covers[1::2], strict=True):
            bucket.used += covered
            bucket.overrun += overrun
            if covered:
                uses.append(Use(bucket.grant.bucket_id, covered, covered))
            if overrun:
                uncovered, blocked_by = overrun, bucket.grant.bucket_id
        return Charged(
            part,
            one.piece,
            quantity,
            tuple(uses),
            uncovered,
            row.priced,
            row.total_before,
            numerator,
            (),
            session_ends=False,
            blocked_by=blocked_by,
        )
