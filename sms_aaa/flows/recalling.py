"""What was decided about somebody: PostgreSQL's decisions, and those that stand in this node's journal alone.

A decision is in the node's decision stream at once and in PostgreSQL when the settler brought it there, after which
its file goes. So both are asked: how far the stream is settled, then the stream from there, then PostgreSQL. In this
order a decision that is settled meanwhile is met twice, which its key (node, sequence, offset, item) undoes, and never
not at all. While PostgreSQL is away the stream and the names in the node's replica answer alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sms_aaa.db import decisions as db_decisions
from sms_aaa.db import feed as db_feed
from sms_aaa.db import nas as db_nas
from sms_aaa.db import plans as db_plans
from sms_aaa.db import positions as db_positions
from sms_aaa.db import subscribers as db_subscribers
from sms_aaa.flows.settling import decision_rows
from sms_aaa.node.frames import FILE_HEADER_OCTETS
from sms_aaa.node.journal import JournalFault, JournalFaultKind, Stream, stream_folder
from sms_aaa.node.journal_reader import Batch, JournalFile, list_files, read, readable_end
from sms_aaa.node.records import DecisionBatch, unpack_decisions
from sms_aaa.node.replica import Replica, ReplicaMeta
from sms_aaa.radius.credentials import Method
from sms_aaa.rules.access import Check, checks_of
from sms_aaa.rules.identity import canonical_mac
from sms_aaa.rules.reasons import Reason
from sms_aaa.rules.session import Place

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from sms_aaa.db.decisions import DecisionRow
    from sms_aaa.db.engine import Connection
    from sms_aaa.db.subscribers import SubscriberRow
    from sms_aaa.node.board import Board

STREAM_OCTETS_MAX = 32 * 1024 * 1024
"""How much of the decision stream is searched, from its end: some 300,000 decisions, a second or two."""

_ALIGNMENT = 8  # where records begin; see node/frames.py


@dataclass(frozen=True, slots=True)
class Wanted:
    """Whose decisions: user names as sent, devices as canonical hardware addresses, services by id."""

    usernames: frozenset[str]
    devices: frozenset[str]
    services: frozenset[int]

    def matches(self, decision: DecisionRow) -> bool:
        if decision.service_id in self.services or decision.username in self.usernames:
            return True
        return bool(self.devices) and _device(decision.calling_station_id) in self.devices


@dataclass(frozen=True, slots=True)
class NodeTrace:
    """Where this node's decision stream is, and by which board its live files may be read."""

    state_folder: Path
    node: str
    board: Board | None


@dataclass(frozen=True, slots=True)
class Recalled:
    """A decision with the ordered checks behind it. `is_settled`: PostgreSQL has it."""

    decision: DecisionRow
    reason: Reason
    method: Method
    nas: str
    checks: tuple[Check, ...]
    is_settled: bool


@dataclass(frozen=True, slots=True)
class Recollection:
    """The newest first. `subscribers`: whom they are about; `is_cut`: the stream is longer than was searched.

    `faults` say what of the stream could not be read, with its place.
    """

    decisions: tuple[Recalled, ...]
    subscribers: tuple[SubscriberRow, ...]
    faults: tuple[str, ...]
    is_cut: bool


@dataclass(slots=True)
class _Stream:
    """What the node's decision stream gave."""

    decisions: list[DecisionRow] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    octets_left: int = STREAM_OCTETS_MAX
    is_cut: bool = False


@dataclass(frozen=True, slots=True)
class _Names:
    nas: dict[int, str]
    plans: dict[int, str]


def recall(
    connection: Connection | None, trace: NodeTrace, name: str, *, last: int, device_since: datetime
) -> Recollection:
    """The last decisions about a user name, a device or a subscriber's services.

    `connection` None: PostgreSQL is away. `device_since` bounds the search for a device under other user names.
    """
    subscribers = _find_subscribers(connection, name) if connection is not None else []
    wanted = _wanted(name, subscribers)
    replica = Replica.open(trace.state_folder) if connection is None else None
    known = replica if isinstance(replica, Replica) else None
    try:
        stream = _read_stream(connection, known, trace, wanted)
        settled = _from_database(connection, wanted, last, device_since) if connection is not None else []
        found = {_key(decision): decision for decision in [*stream.decisions, *settled]}
        newest = sorted(found.values(), key=lambda decision: decision.at, reverse=True)[:last]
        names = _names(connection, known, newest)
        if connection is not None and not subscribers:
            # A device under the user name of somebody: whose name that is.
            subscribers = db_subscribers.find_by_identity(connection, [decision.username for decision in newest])
    finally:
        if known is not None:
            known.close()
    keys = {_key(decision) for decision in settled}
    return Recollection(
        tuple(_recalled(decision, names, is_settled=_key(decision) in keys) for decision in newest),
        tuple(subscribers),
        tuple(stream.faults),
        stream.is_cut,
    )


def _find_subscribers(connection: Connection, name: str) -> list[SubscriberRow]:
    device = _device(name)
    identities = [name, device] if device is not None else [name]
    by_name = db_subscribers.find_by_name(connection, name)
    return by_name or db_subscribers.find_by_identity(connection, identities)


def _wanted(name: str, subscribers: list[SubscriberRow]) -> Wanted:
    identities = {name} | {row.identity for row in subscribers if row.identity is not None}
    devices = {device for identity in identities if (device := _device(identity)) is not None}
    notations = {notation for device in devices for notation in _notations(device)}
    services = frozenset(row.service_id for row in subscribers if row.service_id is not None)
    return Wanted(frozenset(identities | notations), frozenset(devices), services)


def _device(text: str) -> str | None:
    found = canonical_mac(text.encode())
    return found.decode() if found is not None else None


def _notations(device: str) -> list[str]:
    """How NASes write a hardware address."""
    pairs = [device[at : at + 2] for at in range(0, 12, 2)]
    quads = [device[at : at + 4] for at in range(0, 12, 4)]
    lower = [device, ":".join(pairs), "-".join(pairs), ".".join(quads), "-".join(quads)]
    return lower + [notation.upper() for notation in lower]


def _from_database(connection: Connection, wanted: Wanted, last: int, device_since: datetime) -> list[DecisionRow]:
    found = [
        decision
        for username in sorted(wanted.usernames)
        for decision in db_decisions.list_decisions(connection, username, limit=last)
    ]
    if wanted.devices:
        stations = [notation for device in sorted(wanted.devices) for notation in _notations(device)]
        found += db_decisions.list_device_decisions(connection, stations, since=device_since, limit=last)
    return found


def _read_stream(connection: Connection | None, replica: Replica | None, trace: NodeTrace, wanted: Wanted) -> _Stream:
    stream = _Stream()
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
    stream: _Stream, file: JournalFile, trace: NodeTrace, wanted: Wanted, database_id: bytes, position: int
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


def _matching(batch: Batch, place: Place, wanted: Wanted) -> list[DecisionRow]:
    found = []
    for record in batch.records:
        unpacked = unpack_decisions(record.payload)
        if isinstance(unpacked, DecisionBatch):
            rows = decision_rows(Place(place.node, place.sequence, record.offset), unpacked)
            found += [row for row in rows if wanted.matches(row)]
    return found


def _database_id(connection: Connection | None, replica: Replica | None) -> bytes | None:
    if connection is not None:
        return db_feed.get_database_id(connection)
    meta = replica.meta() if replica is not None else None
    return meta.database_id if isinstance(meta, ReplicaMeta) else None


def _names(connection: Connection | None, replica: Replica | None, decisions: list[DecisionRow]) -> _Names:
    """Of NASes and plans by id: PostgreSQL's, else the replica's."""
    if connection is not None:
        ids = sorted({d.plan_version_id for d in decisions if d.plan_version_id is not None})
        versions = db_plans.list_versions(connection, ids)
        plans = {row.id: f"{row.name} version {row.version}" for row in versions}
        return _Names(db_nas.list_nas_names(connection), plans)
    nases = replica.nas_list() if replica is not None else []
    node_plans = replica.plans() if replica is not None else []
    return _Names(
        {nas.nas_id: nas.name for nas in nases} if isinstance(nases, list) else {},
        {plan.plan_version_id: f"{plan.name} version {plan.version}" for plan in node_plans}
        if isinstance(node_plans, list)
        else {},
    )


def _recalled(decision: DecisionRow, names: _Names, *, is_settled: bool) -> Recalled:
    reason, method = Reason.by_code(decision.reason), Method(decision.method)
    nas = names.nas.get(decision.nas_id, f"NAS {decision.nas_id}")
    return Recalled(decision, reason, method, nas, checks_of(reason, _saw(decision, method, reason, names)), is_settled)


def _saw(decision: DecisionRow, method: Method, reason: Reason, names: _Names) -> dict[str, str]:
    """What each check looked at, as far as the decision keeps it."""
    plan = decision.plan_version_id
    limit = str(decision.sessions_max) if decision.sessions_max else "any number"
    return {
        "method": method.name.lower(),
        "identity": decision.calling_station_id if method is Method.MAC else decision.username,
        "credential": "the device itself" if method is Method.MAC else "",
        "state": "" if reason is Reason.SUSPENDED else "active",
        "plan": names.plans.get(plan, f"plan version {plan}") if plan is not None else "",
        "concurrency": f"{decision.sessions_seen} of {limit}",
    }


def _key(decision: DecisionRow) -> tuple[str, int, int, int]:
    return decision.node, decision.sequence, decision.record_offset, decision.item
