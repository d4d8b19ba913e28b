"""From an amount down to the packets: cycle, components, rated slices, deltas, readings, packets.

Nothing is computed that the rater did not store, but for the tiers of a slice, which the price function names again
from where the slice began. So what is shown is what was posted, and it adds up or it is a fault worth seeing.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from sms_aaa.db import rating as db_rating
from sms_aaa.db import usage as db_usage
from sms_aaa.node.journal import JournalFault, Stream, stream_folder
from sms_aaa.node.journal_reader import JournalFile, read
from sms_aaa.node.records import AccountingRecord, unpack_accounting
from sms_aaa.radius.dictionary import describe
from sms_aaa.radius.faults import Malformed
from sms_aaa.radius.packet import parse
from sms_aaa.rules.pricing import PricePart, explain_price
from sms_aaa.rules.session import Place

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from pathlib import Path

    from sms_aaa.db.engine import Connection
    from sms_aaa.db.rating import RatedRow, UsageTotalRow
    from sms_aaa.db.usage import DeltaRow
    from sms_aaa.flows.shelf import PlanShelf
    from sms_aaa.rules.tariff import UsageComponent


@dataclass(frozen=True, slots=True)
class Line:
    """A component in a cycle; `component` None: a fee, whose price is what is posted.

    The exact price of usage is its row's numerator over `denominator`, in units of the currency.
    """

    row: UsageTotalRow
    component: UsageComponent | None

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
class ExplainedSlice:
    """What a delta cost in one component within the cycle: [from_at, to_at) is the part of it that lies there.

    `parts` are the tiers that it fell into; their numerators add up to its own. `is_cut`: the delta crosses an edge
    of the cycle, and the rest of it is in another.
    """

    delta: DeltaRow
    rated: RatedRow
    from_at: datetime
    to_at: datetime
    is_cut: bool
    parts: tuple[PricePart, ...]


@dataclass(frozen=True, slots=True)
class ExplainedLine:
    """A component with its slices, in order of time."""

    line: Line
    slices: tuple[ExplainedSlice, ...]

    @property
    def quantity(self) -> int:
        return sum(part.rated.quantity for part in self.slices)

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

    @property
    def adds_up(self) -> bool:
        """Whether what is shown is the whole of what was charged, to the octet and the last digit."""
        usage = [explained for explained in self.lines if explained.line.component is not None]
        return all(
            explained.quantity == explained.line.row.quantity and explained.numerator == explained.line.row.numerator
            for explained in usage
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
) -> Explanation:
    """A cycle's usage down to its deltas: of one component or session if they are named, `limit` deltas at most."""
    deltas = db_usage.list_deltas(
        connection,
        account_id=usage.account_id,
        start=usage.starts_at,
        end=usage.ends_at,
        session_id=session_id,
        limit=limit + 1,
    )
    is_whole = len(deltas) <= limit and session_id is None
    deltas = deltas[:limit]
    rated = db_rating.list_rated(connection, usage.account_id, [(delta.session_id, delta.seq) for delta in deltas])
    by_key = {(delta.session_id, delta.seq): delta for delta in deltas}
    lines = tuple(
        ExplainedLine(line, _slices(usage, line, by_key, rated))
        for line in usage.lines
        if component is None or line.row.component == component
    )
    rated_keys = {(row.session_id, row.seq) for row in rated}
    unrated = tuple(delta for key, delta in by_key.items() if key not in rated_keys)
    return Explanation(usage, lines, unrated, is_whole)


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
            tuple(Line(row, _component(connection, shelf, row)) for row in totals),
        )
        for cycle_id, totals in rows.items()
    ]


def _component(connection: Connection, shelf: PlanShelf, row: UsageTotalRow) -> UsageComponent | None:
    tariff = shelf.get(connection, row.plan_version_id).plan.tariff
    return next((component for component in tariff.usage if component.name == row.component), None)


def _slices(
    usage: CycleUsage, line: Line, deltas: dict[tuple[int, int], DeltaRow], rated: Sequence[RatedRow]
) -> tuple[ExplainedSlice, ...]:
    component = line.component
    if component is None:
        return ()
    found = [
        _slice(usage, component, deltas[row.session_id, row.seq], row)
        for row in rated
        if (row.component_id, row.subscription_id, row.cycle_id)
        == (line.row.component_id, line.row.subscription_id, usage.cycle_id)
    ]
    return tuple(sorted(found, key=lambda part: (part.to_at, part.rated.session_id, part.rated.seq)))


def _slice(usage: CycleUsage, component: UsageComponent, delta: DeltaRow, row: RatedRow) -> ExplainedSlice:
    from_at, to_at = max(delta.from_at, usage.starts_at), min(delta.to_at, usage.ends_at)
    parts = explain_price(component, before=row.total_before, after=row.total_before + row.quantity)
    return ExplainedSlice(delta, row, from_at, to_at, (from_at, to_at) != (delta.from_at, delta.to_at), parts)
