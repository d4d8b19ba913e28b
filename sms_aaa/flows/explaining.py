"""From an amount down to the packets: cycle, components, rated slices, deltas, readings, packets.

Nothing is computed that the rater did not store, but for the tiers of a slice, which the price function names again
from where the slice began, and its times and slot, which the tariff cuts again. So what is shown is what was posted,
and it adds up or it is a fault worth seeing.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from fractions import Fraction
from typing import TYPE_CHECKING

from sms_aaa.db import charging as db_charging
from sms_aaa.db import rating as db_rating
from sms_aaa.db import usage as db_usage
from sms_aaa.flows.weighing import span_of
from sms_aaa.node.journal import JournalFault, Stream, stream_folder
from sms_aaa.node.journal_reader import JournalFile, read
from sms_aaa.node.records import AccountingRecord, unpack_accounting
from sms_aaa.radius.dictionary import describe
from sms_aaa.radius.faults import Malformed
from sms_aaa.radius.packet import parse
from sms_aaa.rules.charging import Fact, Slice, cut
from sms_aaa.rules.instants import instant_of, instant_us
from sms_aaa.rules.measure import Amounts
from sms_aaa.rules.pricing import PricePart, PriceStep, explain_price, opening_numerator, price_steps
from sms_aaa.rules.session import Place

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from pathlib import Path

    from sms_aaa.db.charging import SessionRow
    from sms_aaa.db.engine import Connection
    from sms_aaa.db.rating import AdjustmentRow, RatedRow, UsageTotalRow
    from sms_aaa.db.usage import DeltaRow
    from sms_aaa.flows.shelf import PlanShelf
    from sms_aaa.rules.tariff import Tariff, UsageComponent


@dataclass(frozen=True, slots=True)
class Line:
    """A component in a cycle; `component` None: a fee, whose price is what is posted.

    The exact price of usage is its row's numerator over `denominator`, in units of the currency.
    """

    row: UsageTotalRow
    component: UsageComponent | None
    tariff: Tariff

    @property
    def steps(self) -> tuple[PriceStep, ...]:
        """The way of the exact price to what is posted; of a fee there is none."""
        part = self.component
        if part is None:
            return ()
        exact = Fraction(int(self.row.numerator), part.denominator)
        return price_steps(part, self.row.currency, exact)

    @property
    def denominator(self) -> int:
        return self.component.denominator if self.component is not None else 1


@dataclass(frozen=True, slots=True)
class CycleUsage:
    """An account's cycle, [starts_at, ends_at), with what it comes to so far."""

    account_id: int
    cycle_id: int
    starts_at: datetime
    ends_at: datetime
    currency: str
    lines: tuple[Line, ...]

    @property
    def total_minor(self) -> int:
        return sum(line.row.posted_minor for line in self.lines)


@dataclass(frozen=True, slots=True)
class ExplainedUse:
    """A bucket's part: so much usage was covered by it, which took so much of it."""

    bucket_id: int
    bucket: str | None
    covered: int
    taken: int


@dataclass(frozen=True, slots=True)
class ExplainedSlice:
    """What a slice of a delta cost in one component: [from_at, to_at) is the part of it that lies there.

    `slot`, `band` and `key` are what the tariff gives that part; None where the delta was cut otherwise than its tariff
    and buckets say today, and then the part is that within the cycle. `uses`: buckets that covered some of it. `parts`
    are the tiers that the rest fell into; their numerators add up to its own, but for connect fees and a session's
    maximum. `is_cut`: the delta has other parts.
    """

    delta: DeltaRow
    rated: RatedRow
    from_at: datetime
    to_at: datetime
    is_cut: bool
    parts: tuple[PricePart, ...]
    slot: str | None
    band: str | None
    key: str | None
    uses: tuple[ExplainedUse, ...]


@dataclass(frozen=True, slots=True)
class ExplainedLine:
    """A component with its slices, in order of time."""

    line: Line
    slices: tuple[ExplainedSlice, ...]

    @property
    def quantity(self) -> int:
        """What was priced."""
        return sum(part.rated.priced for part in self.slices)

    @property
    def covered(self) -> int:
        return sum(part.rated.covered + part.rated.uncovered for part in self.slices)

    @property
    def numerator(self) -> int:
        return sum(int(part.rated.numerator) for part in self.slices)


@dataclass(frozen=True, slots=True)
class Explanation:
    """`unrated`: deltas that wait for the rater or are in suspense.

    `is_whole`: every delta of the cycle is in it, so that the slices of each component must add up to its total.
    """

    usage: CycleUsage
    lines: tuple[ExplainedLine, ...]
    unrated: tuple[DeltaRow, ...]
    is_whole: bool
    adjustments: tuple[AdjustmentRow, ...] = ()

    @property
    def adds_up(self) -> bool:
        """Whether what is shown is the whole of what was charged, to the octet and the last digit."""
        return all(
            explained.quantity == explained.line.row.quantity - explained.line.row.carried
            and explained.covered == explained.line.row.covered
            and explained.line.row.numerator - explained.numerator in {0, opening_numerator(explained.line.component)}
            for explained in self.lines
            if explained.line.component is not None
        )


class PacketAway(Enum):
    """Why a packet cannot be shown."""

    OTHER_NODE = "other-node"
    GONE = "gone"  # its file was deleted when its retention was over
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class SeenPacket:
    """A record of the journal: who sent it, when it was received, its attributes in order, safe to show."""

    place: Place
    source: str
    received_ns: int
    attributes: tuple[tuple[str, str], ...]


def find_usage(connection: Connection, shelf: PlanShelf, account_id: int, at: datetime) -> CycleUsage | None:
    """The account's cycle at an instant; None when it has none then."""
    return next(iter(_cycles(connection, shelf, account_id, at)), None)


def list_usage(connection: Connection, shelf: PlanShelf, account_id: int) -> list[CycleUsage]:
    """All cycles of an account, the oldest first."""
    return _cycles(connection, shelf, account_id, None)


def explain(
    connection: Connection,
    usage: CycleUsage,
    *,
    component: str | None,
    session_id: int | None,
    limit: int,
    offset: int = 0,
) -> Explanation:
    """A cycle's usage down to its deltas: of one component or session if they are named, `limit` deltas at most.

    `offset`: of them that are left out before, in order of time.
    """
    deltas = db_usage.list_deltas(
        connection,
        account_id=usage.account_id,
        start=usage.starts_at,
        end=usage.ends_at,
        session_id=session_id,
        limit=limit + 1,
        offset=offset,
    )
    is_whole = len(deltas) <= limit and not offset and session_id is None
    deltas = deltas[:limit]
    rated = db_rating.list_rated(connection, usage.account_id, [(delta.session_id, delta.seq) for delta in deltas])
    by_key = {(delta.session_id, delta.seq): delta for delta in deltas}
    cutter = _Cutter.load(connection, usage, deltas, rated)
    lines = tuple(
        ExplainedLine(line, _slices(usage, line, by_key, rated, cutter))
        for line in usage.lines
        if component is None or line.row.component == component
    )
    rated_keys = {(row.session_id, row.seq) for row in rated}
    unrated = tuple(delta for key, delta in by_key.items() if key not in rated_keys)
    adjustments = tuple(db_rating.list_adjustments(connection, usage.account_id, usage.cycle_id))
    return Explanation(usage, lines, unrated, is_whole, adjustments)


def find_packet(place: Place, *, node: str, journal_folder: Path, database_id: bytes) -> SeenPacket | PacketAway:
    """The packet behind a reading, from this node's journal, if it is still there."""
    if place.node != node:
        return PacketAway.OTHER_NODE
    path = stream_folder(journal_folder, Stream.ACCOUNTING) / f"{place.sequence:020d}.journal"
    if not path.exists():
        return PacketAway.GONE
    told = path.stat()
    file = JournalFile(path, place.sequence, told.st_size, told.st_mtime)
    # It was settled, so it was on disk: one record that begins at the place is all that is read.
    batch = read(
        file,
        stream=Stream.ACCOUNTING,
        database_id=database_id,
        offset=place.offset,
        end=place.offset + 1,
        records_max=1,
    )
    if isinstance(batch, JournalFault) or not batch.records:
        return PacketAway.UNREADABLE
    record = unpack_accounting(batch.records[0].payload)
    if not isinstance(record, AccountingRecord):
        return PacketAway.UNREADABLE
    packet = parse(record.packet)
    if isinstance(packet, Malformed):
        return PacketAway.UNREADABLE
    return SeenPacket(place, record.source, record.received_ns, tuple(describe(packet)))


def readings_of(delta: DeltaRow) -> tuple[Place | None, Place]:
    """Where the two readings of a delta stand; the first of a session has none before it."""
    before = None
    if delta.before_node is not None and delta.before_sequence is not None and delta.before_offset is not None:
        before = Place(delta.before_node, delta.before_sequence, delta.before_offset)
    return before, Place(delta.after_node, delta.after_sequence, delta.after_offset)


def _cycles(connection: Connection, shelf: PlanShelf, account_id: int, at: datetime | None) -> list[CycleUsage]:
    rows: dict[int, list[UsageTotalRow]] = {}
    for row in db_rating.list_usage_totals(connection, account_id, at):
        rows.setdefault(row.cycle_id, []).append(row)
    return [
        CycleUsage(
            account_id,
            cycle_id,
            totals[0].starts_at,
            totals[0].ends_at,
            totals[0].currency,
            tuple(Line(row, _component(connection, shelf, row), _tariff(connection, shelf, row)) for row in totals),
        )
        for cycle_id, totals in rows.items()
    ]


def _tariff(connection: Connection, shelf: PlanShelf, row: UsageTotalRow) -> Tariff:
    return shelf.get(connection, row.plan_version_id).plan.tariff


def _component(connection: Connection, shelf: PlanShelf, row: UsageTotalRow) -> UsageComponent | None:
    if row.kind != "usage":
        return None
    tariff = shelf.get(connection, row.plan_version_id).plan.tariff
    return next((component for component in tariff.usage if component.name == row.component), None)


def _slices(
    usage: CycleUsage,
    line: Line,
    deltas: dict[tuple[int, int], DeltaRow],
    rated: Sequence[RatedRow],
    cutter: _Cutter,
) -> tuple[ExplainedSlice, ...]:
    component = line.component
    if component is None:
        return ()
    found = [
        _slice(usage, line, component, deltas[row.session_id, row.seq], row, cutter)
        for row in rated
        if (row.component_id, row.subscription_id, row.cycle_id)
        == (line.row.component_id, line.row.subscription_id, usage.cycle_id)
        and (row.quantity or row.numerator)
    ]
    return tuple(sorted(found, key=lambda part: (part.to_at, part.rated.session_id, part.rated.seq)))


def _slice(
    usage: CycleUsage, line: Line, component: UsageComponent, delta: DeltaRow, row: RatedRow, cutter: _Cutter
) -> ExplainedSlice:
    parts = explain_price(component, before=row.total_before, after=row.total_before + row.priced)
    uses = tuple(
        ExplainedUse(bucket_id, cutter.bucket_names.get(bucket_id), covered, taken)
        for bucket_id, covered, taken in batched_uses(row.uses or ())
    )
    piece = cutter.find(line, delta, row)
    if piece is None:
        from_at, to_at = max(delta.from_at, usage.starts_at), min(delta.to_at, usage.ends_at)
        slot = band = key = None
    else:
        from_at, to_at = instant_of(piece.from_us), instant_of(piece.to_us)
        slot, band, key = piece.slot, piece.band, piece.fact.key
    is_cut = (from_at, to_at) != (delta.from_at, delta.to_at)
    return ExplainedSlice(delta, row, from_at, to_at, is_cut, parts, slot, band, key, uses)


def batched_uses(numbers: Sequence[int]) -> list[tuple[int, int, int]]:
    """(bucket id, usage covered, amount taken) of what a rated row keeps of its buckets."""
    return list(zip(numbers[::3], numbers[1::3], numbers[2::3], strict=True))


@dataclass(frozen=True, slots=True)
class _Cutter:
    """What cuts an account's deltas, to tell of a rated slice where it lies; once for all that is explained."""

    zone: str
    edges: tuple[int, ...]
    sessions: dict[int, SessionRow]
    bucket_names: dict[int, str]

    @classmethod
    def load(
        cls, connection: Connection, usage: CycleUsage, deltas: Sequence[DeltaRow], rated: Sequence[RatedRow]
    ) -> _Cutter:
        used = {bucket_id for row in rated for bucket_id, _, _ in batched_uses(row.uses or ())}
        sessions = db_charging.list_sessions(connection, {delta.session_id for delta in deltas})
        return cls(
            usage.lines[0].row.zone,
            tuple(instant_us(edge) for edge in db_rating.list_edges(connection, usage.account_id)),
            {row.session_id: row for row in sessions},
            db_rating.list_bucket_names(connection, sorted(used)) if used else {},
        )

    def find(self, line: Line, delta: DeltaRow, row: RatedRow) -> Slice | None:
        """The slice that a row was made of, if the tariff still cuts it so that its quantity is the row's."""
        component = line.component
        assert component is not None
        session = self.sessions.get(delta.session_id)
        from_us, to_us = instant_us(delta.from_at), instant_us(delta.to_at)
        span = span_of(from_us, to_us, line.tariff, self.zone, session)
        begun_us = min(session.started_us, from_us) if session is not None else from_us
        amounts = Amounts(
            upload=delta.octets_in, download=delta.octets_out, seconds=delta.seconds, events=1 if delta.seq == 1 else 0
        )
        fact = Fact(0, delta.session_id, delta.seq, begun_us, from_us, to_us, span.key, amounts)
        pieces = cut(fact, span.calendar, span.bands, self.edges, line.tariff.switch)
        if row.slice >= len(pieces):
            return None
        piece = pieces[row.slice]
        fits = component.is_for(span.key, piece.slot, piece.band)
        return piece if fits and piece.quantity(component.measure) == row.quantity else None
