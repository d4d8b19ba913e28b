"""Settling journal records again, from kept files: after a rewind of PostgreSQL, a mended decoder, the death of a node.

Whether a record was settled is known from two things. Below the file's position it was: rows and position are one
transaction (J7), and a rewind takes both back. Beyond the position it was not. So what lies beyond is settled as the
settler does it, and moves the position by compare-and-set: a settler that is at work on the same file is met there.

What lies below is settled again only if it left nothing behind and would add something now: a decoder passed it over, a
damaged stretch was restored, rows were lost. It has left something behind when a delta begins or ends at its place, its
session stands at it, an anomaly names it, or it is in quarantine (`quarantine retry` is for those); and it adds nothing
when the session machine, asked first, would change nothing. That is why a replay repeated changes nothing: where a
record's neighbours in time have moved on, or its session lies in the history, the machine alone would not know. Nor is
an Accounting-On or -Off below the position done again, since sessions may have gone on after it.

A file that PostgreSQL does not know has no position. If none of its records left anything behind it was never settled,
and all of it lies beyond; else it is one whose position was deleted with the file (J9), and all of it lies below.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from sms_aaa.db import late_readings as db_late
from sms_aaa.db import positions as db_positions
from sms_aaa.db import replays as db_replays
from sms_aaa.db.engine import Conflict, Poison
from sms_aaa.flows.hearing import Heard, Rebooted, Unsettled, hear
from sms_aaa.flows.settling import quarantine, settle_accounting
from sms_aaa.flows.surveying import instant
from sms_aaa.node.frames import FILE_HEADER_OCTETS
from sms_aaa.node.journal import Stream
from sms_aaa.node.journal_survey import Look, WriterState, walk
from sms_aaa.node.records import AccountingRecord, RecordFault, pack_accounting, unpack_accounting
from sms_aaa.rules.late import is_late, known_of, step_late
from sms_aaa.rules.session import TOLERANCE, Event, Place, find_life, step

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from sms_aaa.db.engine import Connection
    from sms_aaa.db.replays import StoredLife
    from sms_aaa.db.sessions import SessionKey
    from sms_aaa.node.journal_reader import Batch
    from sms_aaa.node.live_change import Release
    from sms_aaa.rules.session import Life, Reading, Step

BATCH_MAX = 2000

Record = tuple[Place, AccountingRecord]


class Fate(Enum):
    """What a replay does with a record."""

    NEW = "new"  # it is settled
    KNOWN = "known"  # it was, and left something behind, or it would change nothing
    IDLE = "idle"  # it says nothing that is settled
    ASIDE = "aside"  # it is in quarantine, or was
    WAITING = "waiting"  # it is the settler's, who is at work


@dataclass(frozen=True, slots=True)
class ReplayFile:
    """One accounting file of a node, with the position that it has now; None: PostgreSQL does not know the file.

    `may_move`: what lies beyond the position may be settled here; not where the node's own settler is at work.
    """

    seen: Look
    node: str
    position: int | None
    may_move: bool

    @property
    def sequence(self) -> int:
        return self.seen.file.sequence


@dataclass(slots=True)
class Plan:
    """What a replay of the file will do, record by record counted. `proved_to`: below it a record was settled."""

    file: ReplayFile
    proved_to: int
    counts: dict[Fate, int] = field(default_factory=lambda: dict.fromkeys(Fate, 0))
    damaged: int = 0
    first_at: datetime | None = None
    last_at: datetime | None = None

    @property
    def records(self) -> int:
        return sum(self.counts.values())


@dataclass(slots=True)
class Replayed:
    """What a replay changed. `octets_in` is what subscribers sent."""

    records: int = 0
    deltas: int = 0
    octets_in: int = 0
    octets_out: int = 0
    anomalies: int = 0
    quarantined: int = 0
    releases: list[Release] = field(default_factory=list)

    def add(self, other: Replayed) -> None:
        self.records += other.records
        self.deltas += other.deltas
        self.octets_in += other.octets_in
        self.octets_out += other.octets_out
        self.anomalies += other.anomalies
        self.quarantined += other.quarantined


class Outpaced(Exception):  # noqa: N818 - a signal to roll back, as in server/stream.py
    """Somebody else moved the file's position meanwhile (J7)."""


def look_up(connection: Connection, seen: Look, *, node: str, may_move: bool) -> ReplayFile:
    """The file with its position of now."""
    row = db_positions.find_position(connection, node, int(Stream.ACCOUNTING), seen.file.sequence)
    return ReplayFile(seen, node, row.position if row is not None else None, may_move)


def plan(connection: Connection, file: ReplayFile, *, single_nas: dict[int, bool]) -> Plan:
    """Reads the file to its end and says what a replay will do; changes nothing."""
    made = Plan(file, _proved_to(connection, file, single_nas))
    for batch in batches(made):
        made.damaged += len(batch.damaged)
        for (_, record), fate in _judge(connection, made, batch, single_nas):
            made.counts[fate] += 1
            at = instant(record.received_ns)
            made.first_at = min(made.first_at or at, at)
            made.last_at = max(made.last_at or at, at)
    return made


def batches(plan: Plan) -> Iterator[Batch]:
    """The file from its beginning, cut where what was settled ends."""
    seen, header = plan.file.seen, plan.file.seen.header
    assert header is not None
    cut = min(max(plan.proved_to, FILE_HEADER_OCTETS), seen.end)
    for offset, end in ((FILE_HEADER_OCTETS, cut), (cut, seen.end)):
        yield from walk(
            seen.file, stream=Stream.ACCOUNTING, database_id=header.database_id, offset=offset, end=end,
            records_max=BATCH_MAX,
        )  # fmt: skip


def replay_batch(
    connection: Connection, plan: Plan, batch: Batch, *, position: int | None, single_nas: dict[int, bool]
) -> Replayed:
    """Settles what is new of a batch; the door commits, and then goes on to the next. Outpaced, or one of Conflict.

    `position`: where the file's stands, by what was read and committed here; None: it has none yet.
    """
    new = [record for record, fate in _judge(connection, plan, batch, single_nas) if fate is Fate.NEW]
    done = _settle(connection, new, single_nas) if new else Replayed()
    file = plan.file
    if moves(plan, batch, position):
        if batch.next_offset > plan.proved_to:
            done.quarantined += _put_aside(connection, file, batch)
        _move(connection, file, batch, position)
    return done


def moves(plan: Plan, batch: Batch, position: int | None) -> bool:
    """Whether the file's position moves behind the batch when that is settled."""
    return plan.file.may_move and batch.next_offset > (position or 0)


def _proved_to(connection: Connection, file: ReplayFile, single_nas: dict[int, bool]) -> int:
    """Up to where records were settled: the position, or the end of a file that was settled and forgotten."""
    if file.position is not None:
        return file.position
    trial = Plan(file, file.seen.end)
    for batch in batches(trial):
        if _left_something(connection, file, list(_records(file, batch)), single_nas):
            return file.seen.end
    return 0


def _judge(connection: Connection, plan: Plan, batch: Batch, single_nas: dict[int, bool]) -> list[tuple[Record, Fate]]:
    """Each record of the batch with its fate. Payloads that nobody can read are told by _put_aside."""
    file = plan.file
    records = list(_records(file, batch))
    if batch.next_offset > plan.proved_to:
        return [(record, Fate.NEW if file.may_move else Fate.WAITING) for record in records]
    aside = db_positions.list_quarantined_offsets(connection, file.node, int(Stream.ACCOUNTING), file.sequence)
    heard = {record[0].offset: _hear(record, single_nas) for record in records}
    lives = _lives(connection, heard.values())
    known = _known_offsets(connection, file, lives, [record[0] for record in records])
    clocks = db_replays.list_sessions_of_other_clocks(connection, _ids(lives))
    fates = []
    for record in records:
        offset = record[0].offset
        said = heard[offset]
        if offset in aside:
            fate = Fate.ASIDE
        elif isinstance(said, Unsettled):
            fate = Fate.NEW if said.quarantine else Fate.IDLE
        elif (
            isinstance(said, Rebooted)
            or offset in known
            or not _adds(connection, said.reading, lives[said.key], clocks)
        ):
            fate = Fate.KNOWN
        else:
            fate = Fate.NEW
        fates.append((record, fate))
    return fates


def _adds(connection: Connection, reading: Reading, lives: Sequence[StoredLife], clocks: set[int]) -> bool:
    """Whether the session machine would count something, or change a state: a repeated record does neither."""
    # One without Acct-Session-Time went to the life that was open when it came, whichever that is now.
    goes_by_state = reading.event is not Event.START and not reading.session_seconds
    if goes_by_state and any(stored.life.received_at >= reading.received_at for stored in lives):
        return False  # a life of its name was heard since
    life = find_life([stored.life for stored in lives], reading)
    if life is None:
        # Where the NAS set its clock, a record of a life need not be found to lie in it a second time.
        return not any(stored.session_id in clocks for stored in lives)
    session_id = next(stored.session_id for stored in lives if stored.life is life)
    result = _step(connection, session_id, life, reading)
    return result.delta is not None or result.life.state is not life.state


def _step(connection: Connection, session_id: int, life: Life, reading: Reading) -> Step:
    """As flows/settling.py takes it, with all that the session was counted with where the reading is late."""
    if not is_late(life, reading):
        return step(life, life.life, reading)
    deltas = db_late.list_deltas_since(connection, {session_id: life.started_at - TOLERANCE})[session_id]
    known = known_of(life, deltas, db_late.list_late(connection, [session_id])[session_id])
    return step_late(life, reading, known)[0] if known else step(life, life.life, reading)


def _left_something(
    connection: Connection, file: ReplayFile, records: Sequence[Record], single_nas: dict[int, bool]
) -> bool:
    """Whether any of the records left something behind."""
    heard = [_hear(record, single_nas) for record in records]
    lives = _lives(connection, heard)
    return bool(_known_offsets(connection, file, lives, [place for place, _ in records])) or bool(
        db_positions.list_quarantined_offsets(connection, file.node, int(Stream.ACCOUNTING), file.sequence)
    )


def _known_offsets(
    connection: Connection, file: ReplayFile, lives: Mapping[SessionKey, Sequence[StoredLife]], places: Sequence[Place]
) -> set[int]:
    standing = {stored.life.reading_place for found in lives.values() for stored in found}
    known = {place.offset for place in places if place in standing}
    offsets = [place.offset for place in places]
    return known | db_replays.list_known_offsets(connection, _ids(lives), file.node, file.sequence, offsets)


def _lives(connection: Connection, heard: Iterable[Heard | Rebooted | Unsettled]) -> dict[SessionKey, list[StoredLife]]:
    return db_replays.list_lives(connection, sorted({said.key for said in heard if isinstance(said, Heard)}))


def _ids(lives: Mapping[SessionKey, Sequence[StoredLife]]) -> list[int]:
    return [stored.session_id for found in lives.values() for stored in found]


def _hear(record: Record, single_nas: dict[int, bool]) -> Heard | Rebooted | Unsettled:
    place, packet = record
    single = single_nas.get(packet.nas_id)
    return hear(packet, place, single=single) if single is not None else Unsettled("unknown-nas", quarantine=True)


def _records(file: ReplayFile, batch: Batch) -> Iterator[Record]:
    for record in batch.records:
        unpacked = unpack_accounting(record.payload)
        if isinstance(unpacked, AccountingRecord):
            yield Place(file.node, file.sequence, record.offset), unpacked


def _settle(connection: Connection, records: Sequence[Record], single_nas: dict[int, bool]) -> Replayed:
    """All at once; where PostgreSQL refuses that, one by one, and what it refuses alone is put aside."""
    try:
        with connection.transaction():
            return _settle_all(connection, records, single_nas)
    except Conflict:
        raise
    except Poison:
        done = Replayed()
    for record in records:
        try:
            with connection.transaction():
                done.add(_settle_all(connection, [record], single_nas))
        except Conflict:
            raise
        except Poison as poison:
            reason = f"refused: {type(poison).__name__}"
            quarantine(connection, Stream.ACCOUNTING, record[0], reason=reason, raw=pack_accounting(record[1]))
            done.quarantined += 1
    return done


def _settle_all(connection: Connection, records: Sequence[Record], single_nas: dict[int, bool]) -> Replayed:
    settled = settle_accounting(connection, records, single_nas=single_nas)
    place = records[0][0]
    lives = _lives(connection, [_hear(record, single_nas) for record in records])
    offsets = [at.offset for at, _ in records]
    added = db_replays.sum_added(connection, _ids(lives), place.node, place.sequence, offsets)
    return Replayed(
        len(records), settled.deltas, added.octets_in, added.octets_out, settled.anomalies, settled.quarantined,
        settled.releases,
    )  # fmt: skip


def _put_aside(connection: Connection, file: ReplayFile, batch: Batch) -> int:
    """What of the batch is damaged, or has a payload that nobody can read, is quarantined as the settler would."""
    count = 0
    for damage in batch.damaged:
        place = Place(file.node, file.sequence, damage.offset)
        quarantine(connection, Stream.ACCOUNTING, place, reason=f"damaged: {damage.reason.value}", raw=damage.raw)
        count += 1
    for record in batch.records:
        unpacked = unpack_accounting(record.payload)
        if isinstance(unpacked, RecordFault):
            place = Place(file.node, file.sequence, record.offset)
            quarantine(connection, Stream.ACCOUNTING, place, reason=unpacked.value, raw=record.payload)
            count += 1
    return count


def _move(connection: Connection, file: ReplayFile, batch: Batch, position: int | None) -> None:
    """J7, as the settler does it. A file that nobody writes any more is finished at its end."""
    node, stream, old = file.node, int(Stream.ACCOUNTING), position or 0
    if position is None:
        db_positions.insert_position(connection, node, stream, file.sequence, old)
    finished = batch.next_offset >= file.seen.end and file.seen.writer is not WriterState.ALIVE
    if not db_positions.move_position(
        connection, node, stream, file.sequence, old=old, new=batch.next_offset, finished=finished
    ):
        raise Outpaced
