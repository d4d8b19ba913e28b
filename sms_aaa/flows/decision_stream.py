"""The node's own decision stream, searched from its end: the decisions that PostgreSQL does not have yet.

While PostgreSQL is away it is all that there is; how far it is settled is then not known, and all of it is read, as
far back as the bound allows.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from sms_aaa.db import feed as db_feed
from sms_aaa.db import positions as db_positions
from sms_aaa.flows.recording import decision_rows
from sms_aaa.node.frames import FILE_HEADER_OCTETS
from sms_aaa.node.journal import JournalFault, JournalFaultKind, Stream, stream_folder
from sms_aaa.node.journal_reader import Batch, JournalFile, list_files, read, readable_end
from sms_aaa.node.records import DecisionBatch, DecisionRecord, unpack_decisions
from sms_aaa.node.replica import Replica, ReplicaMeta
from sms_aaa.radius.packet import as_text
from sms_aaa.rules.identity import canonical_mac
from sms_aaa.rules.session import Place

if TYPE_CHECKING:
    from pathlib import Path

    from sms_aaa.db.decisions import DecisionRow
    from sms_aaa.db.engine import Connection
    from sms_aaa.node.board import Board

STREAM_OCTETS_MAX = 32 * 1024 * 1024
"""How much of the stream is searched, from its end: some 500,000 decisions, about a second."""

_ALIGNMENT = 8  # where records begin; see node/frames.py


class Seeker(Protocol):
    """What is searched for."""

    def matches(self, record: DecisionRecord) -> bool: ...


@dataclass(frozen=True, slots=True)
class Wanted:
    """Whose decisions: user names as sent, devices as canonical hardware addresses, services by id."""

    usernames: frozenset[str]
    devices: frozenset[str]
    services: frozenset[int]

    def matches(self, record: DecisionRecord) -> bool:
        if record.service_id in self.services or as_text(record.username) in self.usernames:
            return True
        return bool(self.devices) and device_in(as_text(record.calling_station_id)) in self.devices


@dataclass(frozen=True, slots=True)
class NodeTrace:
    """Where this node's decision stream is, and by which board its live files may be read."""

    state_folder: Path
    node: str
    board: Board | None


@dataclass(slots=True)
class StreamDecisions:
    """What the stream gave. `faults` say what of it could not be read, with its place; `is_cut`: it is longer."""

    decisions: list[DecisionRow] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    octets_left: int = STREAM_OCTETS_MAX
    is_cut: bool = False


def device_in(text: str) -> str | None:
    """The canonical hardware address that a text is, in whatever notation."""
    found = canonical_mac(text.encode())
    return found.decode() if found is not None else None


def search_stream(
    connection: Connection | None, replica: Replica | None, trace: NodeTrace, wanted: Seeker
) -> StreamDecisions:
    """What is wanted of the part that is not settled. `connection` None: PostgreSQL is away."""
    stream = StreamDecisions()
    database_id = _database_id(connection, replica)
    positions = (
        db_positions.list_positions(connection, trace.node, int(Stream.DECISIONS)) if connection is not None else {}
    )
    files = list_files(stream_folder(trace.state_folder / "journal", Stream.DECISIONS))
    if isinstance(files, JournalFault):
        if files.kind is not JournalFaultKind.MISSING:  # no folder: no worker ever ran here
            stream.faults.append(files.detail)
        return stream
    if database_id is None:
        stream.faults.append("this node has no replica that names its database, so its own decisions are not read")
        return stream
    for file in reversed(files):
        position, finished = positions.get(file.sequence, (0, False))
        if not finished:
            _read_file(stream, file, trace, wanted, database_id, position)
    return stream


def _read_file(
    stream: StreamDecisions, file: JournalFile, trace: NodeTrace, wanted: Seeker, database_id: bytes, position: int
) -> None:
    """What is not settled of one file, as far from its end as the bound allows."""
    end = readable_end(file, stream=Stream.DECISIONS, board=trace.board)
    if isinstance(end, JournalFault):
        if end.kind is not JournalFaultKind.MISSING:  # settled and deleted since the folder was read
            stream.faults.append(end.detail)
        return
    # A reader that begins between two records finds the next by its checksum, which is seeded with its place.
    earliest = (end - stream.octets_left + _ALIGNMENT - 1) // _ALIGNMENT * _ALIGNMENT
    offset = max(position, FILE_HEADER_OCTETS, earliest)
    stream.is_cut |= offset > max(position, FILE_HEADER_OCTETS)
    stream.octets_left -= max(0, end - offset)
    while offset < end:
        batch = read(file, stream=Stream.DECISIONS, database_id=database_id, offset=offset, end=end)
        if isinstance(batch, JournalFault):
            stream.faults.append(batch.detail)
            return
        stream.decisions.extend(_matching(batch, Place(trace.node, file.sequence, 0), wanted))
        offset = batch.next_offset


def _matching(batch: Batch, place: Place, wanted: Seeker) -> list[DecisionRow]:
    found = []
    for record in batch.records:
        unpacked = unpack_decisions(record.payload)
        if not isinstance(unpacked, DecisionBatch):
            continue
        matches = [wanted.matches(decision) for decision in unpacked.decisions]
        if any(matches):
            rows = decision_rows(Place(place.node, place.sequence, record.offset), unpacked)
            found += [row for row, is_wanted in zip(rows, matches, strict=True) if is_wanted]
    return found


def _database_id(connection: Connection | None, replica: Replica | None) -> bytes | None:
    if connection is not None:
        return db_feed.get_database_id(connection)
    meta = replica.meta() if replica is not None else None
    return meta.database_id if isinstance(meta, ReplicaMeta) else None
