"""Whether every octet of the journal is accounted for: headers, checksums, and the positions in PostgreSQL.

A finding that is a damage means that an answered record may be lost, or that settling stands still. One that is not is
what a writer's death leaves: the write that it died in was never answered.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sms_aaa.db import feed as db_feed
from sms_aaa.db import positions as db_positions
from sms_aaa.node.frames import FILE_HEADER_OCTETS, Damage, DamageReason
from sms_aaa.node.journal import JournalFault, JournalFaultKind, Stream
from sms_aaa.node.journal_survey import WriterState, files_of, find_file, look, walk

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sms_aaa.db.engine import Connection
    from sms_aaa.db.positions import PositionRow
    from sms_aaa.flows.surveying import JournalPlace
    from sms_aaa.node.journal_reader import JournalFile
    from sms_aaa.node.journal_survey import Look

_REPLAY = "restore the file from a copy, `sms-aaa journal replay` it, then `sms-aaa quarantine retry` what is left"
_REMEDIES = {
    JournalFaultKind.HEADER: "restore the file from a copy, or move it away and keep it: it is settled no further",
    JournalFaultKind.MISSING: "restore the file: nothing of its stream is settled until then",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong in a file at [offset, offset + octets); `offset` None: with the file as a whole."""

    stream: Stream
    sequence: int
    offset: int | None
    octets: int | None
    kind: str
    detail: str
    remedy: str
    is_damage: bool


@dataclass(frozen=True, slots=True)
class _Settled:
    """What PostgreSQL knows of a file: its position, and where records of it were put aside."""

    row: PositionRow | None
    aside: set[int]


@dataclass(slots=True)
class Checked:
    """What was looked at, and found. `knows_positions`: PostgreSQL was there to compare with."""

    knows_positions: bool
    files: int = 0
    records: int = 0
    octets: int = 0
    findings: list[Finding] = field(default_factory=list)

    @property
    def damages(self) -> int:
        return sum(finding.is_damage for finding in self.findings)


def check_journal(
    connection: Connection | None,
    place: JournalPlace,
    names: Sequence[str],
    *,
    progress: Callable[[int, int], None],
) -> Checked | JournalFault:
    """Checks the files that `names` mean, or all; `progress` hears (octets done, of). No `connection`: files alone."""
    database_id = db_feed.get_database_id(connection) if connection is not None else None
    rows = {stream: _rows(connection, place, stream) for stream in Stream}  # before the files: these only grow
    chosen = _choose(place, names)
    if isinstance(chosen, JournalFault):
        return chosen
    checked = Checked(knows_positions=connection is not None)
    of = sum(file.octets for _, file in chosen)
    for stream, file in chosen:
        before = checked.octets
        seen = look(file, stream=stream, board=place.board)
        aside = _aside(connection, place, stream, file.sequence)
        settled = _Settled(rows[stream].get(file.sequence), aside)
        _check_file(checked, seen, settled, database_id, lambda done: progress(done, of))
        checked.files += 1
        checked.octets = before + file.octets
    if not names:
        present = {(stream, file.sequence) for stream, file in chosen}
        for stream in Stream:
            _find_missing(checked, stream, rows[stream], {s for kind, s in present if kind is stream})
    return checked


def _choose(place: JournalPlace, names: Sequence[str]) -> list[tuple[Stream, JournalFile]] | JournalFault:
    chosen: list[tuple[Stream, JournalFile]] = []
    for name in names:
        found = find_file(place.root, name)
        if isinstance(found, JournalFault):
            return found
        chosen.append(found)
    if names:
        return chosen
    for stream in Stream:
        files = files_of(place.root, stream)
        if isinstance(files, JournalFault):
            return files
        chosen += [(stream, file) for file in files]
    return chosen


def _rows(connection: Connection | None, place: JournalPlace, stream: Stream) -> dict[int, PositionRow]:
    if connection is None:
        return {}
    return {row.sequence: row for row in db_positions.list_position_rows(connection, place.node, int(stream))}


def _aside(connection: Connection | None, place: JournalPlace, stream: Stream, sequence: int) -> set[int]:
    if connection is None:
        return set()
    return db_positions.list_quarantined_offsets(connection, place.node, int(stream), sequence)


def _check_file(
    checked: Checked, seen: Look, settled: _Settled, database_id: bytes | None, progress: Callable[[int], None]
) -> None:
    if seen.fault is not None or seen.header is None:
        _name_fault(checked, seen)
        return
    if seen.header.stream != seen.stream:
        _name(checked, seen, "stream", f"it is of the stream {Stream(seen.header.stream).name.lower()}", "move it back")
    if database_id is not None and seen.header.database_id != database_id:
        detail = f"written for database {seen.header.database_id.hex()}, this is {database_id.hex()}"
        _name(checked, seen, JournalFaultKind.FOREIGN_DATABASE.value, detail, "settle it there, or move it away (J8)")
    before, reached = checked.octets, 0
    for batch in walk(seen.file, stream=Stream(seen.header.stream), database_id=seen.header.database_id, offset=0,
                      end=seen.end):  # fmt: skip
        checked.records += len(batch.records)
        checked.findings += [_damage(seen, damage, settled) for damage in batch.damaged]
        reached = batch.next_offset
        progress(before + reached)
    if reached < seen.end and seen.end > FILE_HEADER_OCTETS:
        _name(checked, seen, "read", f"it can be read to {reached} only, not to {seen.end}", _REPLAY)
    # In an orphan zeros at the end of its last record look like the zeros behind it: reading takes the record whole.
    if settled.row is not None and settled.row.position > max(seen.end, reached):
        detail = f"settled to {settled.row.position}, but its records end at {seen.end}: octets are gone"
        _name(checked, seen, "position-beyond-end", detail, _REPLAY)


def _name_fault(checked: Checked, seen: Look) -> None:
    fault = seen.fault
    assert fault is not None
    # Decisions are not synced: after a power cut their newest file may lack its header, and holds nothing then.
    is_harmless = seen.stream is Stream.DECISIONS and fault.kind is JournalFaultKind.HEADER
    remedy = "nothing: the server removes it" if is_harmless else _REMEDIES.get(fault.kind, "see that it can be read")
    _name(checked, seen, fault.kind.value, fault.detail, remedy, is_damage=not is_harmless)


def _name(checked: Checked, seen: Look, kind: str, detail: str, remedy: str, *, is_damage: bool = True) -> None:
    checked.findings.append(
        Finding(seen.stream, seen.file.sequence, None, None, kind, detail, remedy, is_damage=is_damage)
    )


def _damage(seen: Look, damage: Damage, settled: _Settled) -> Finding:
    is_torn = damage.is_last and seen.writer is WriterState.ORPHAN and damage.reason is not DamageReason.VERSION
    reason = "torn-tail" if is_torn else damage.reason.value
    if is_torn:
        detail, remedy = "the write in which its writer died, which was never answered", "nothing"
    elif damage.reason is DamageReason.VERSION:
        detail, remedy = "framed by another version of this program", "replay it with that version"
    else:
        detail, remedy = _detail(damage), _REPLAY
    if damage.offset in settled.aside:
        detail += "; it is in quarantine"
    elif settled.row is not None and settled.row.position > damage.offset:
        detail, remedy = f"{detail}; what stood there was settled before", "restore the file from a copy: it is proof"
    return Finding(
        seen.stream, seen.file.sequence, damage.offset, damage.octets, reason, detail, remedy, is_damage=not is_torn
    )


def _detail(damage: Damage) -> str:
    return {
        DamageReason.CHECKSUM: "the octets are not those that were written",
        DamageReason.LENGTH: "no record has this length",
        DamageReason.ZEROS: "nothing stands here although something does further on",
        DamageReason.SHORT: "the file ends in the middle of a record",
    }[damage.reason]


def _find_missing(checked: Checked, stream: Stream, rows: dict[int, PositionRow], present: set[int]) -> None:
    """J10: a file that is begun and not settled to its end has to be there."""
    for sequence, row in rows.items():
        if sequence not in present and not row.finished:
            detail = f"settled to {row.position} and not to its end, and it is gone"
            remedy = _REMEDIES[JournalFaultKind.MISSING]
            checked.findings.append(
                Finding(stream, sequence, None, None, "missing", detail, remedy, is_damage=stream is Stream.ACCOUNTING)
            )
