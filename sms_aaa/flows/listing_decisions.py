"""The last refusals, whoever was refused: PostgreSQL's, and those that stand in this node's decision stream alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sms_aaa.db import decisions as db_decisions
from sms_aaa.db import nas as db_nas
from sms_aaa.flows.decision_stream import NodeTrace, device_in, search_stream
from sms_aaa.node.replica import Replica
from sms_aaa.radius.packet import as_text
from sms_aaa.rules.identity import mac_notations
from sms_aaa.rules.reasons import Reason

if TYPE_CHECKING:
    from datetime import datetime

    from sms_aaa.db.decisions import DecisionRow
    from sms_aaa.db.engine import Connection
    from sms_aaa.node.records import DecisionRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusalFilter:
    """None: whatever it is. `username` octet for octet; `device` a canonical hardware address."""

    since: datetime
    nas: str | None = None
    username: str | None = None
    device: str | None = None
    reason: Reason | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """`is_settled`: PostgreSQL has it."""

    decision: DecisionRow
    reason: Reason
    nas: str
    is_settled: bool


@dataclass(frozen=True, slots=True)
class Refusals:
    """The newest first. `faults` say what of the stream could not be read; `is_cut`: it is longer than was searched."""

    refusals: tuple[Refusal, ...]
    faults: tuple[str, ...]
    is_cut: bool


@dataclass(frozen=True, slots=True)
class _Seeker:
    wanted: RefusalFilter
    nas_id: int | None

    def matches(self, record: DecisionRecord) -> bool:
        wanted = self.wanted
        if record.reason_code == Reason.ACCEPTED.code or (self.nas_id is not None and record.nas_id != self.nas_id):
            return False
        if wanted.reason is not None and record.reason_code != wanted.reason.code:
            return False
        if wanted.username is not None and as_text(record.username) != wanted.username:
            return False
        return wanted.device is None or device_in(as_text(record.calling_station_id)) == wanted.device


def list_refusals(
    connection: Connection | None, trace: NodeTrace, wanted: RefusalFilter, *, limit: int
) -> Refusals | None:
    """`connection` None: PostgreSQL is away. None: no NAS has the name that is wanted."""
    opened = Replica.open(trace.state_folder) if connection is None else None
    replica = opened if isinstance(opened, Replica) else None
    try:
        names = db_nas.list_nas_names(connection) if connection is not None else _names_of(replica)
        nas_id = next((nas_id for nas_id, name in names.items() if name == wanted.nas), None)
        if wanted.nas is not None and nas_id is None:
            return None
        stream = search_stream(connection, replica, trace, _Seeker(wanted, nas_id))
    finally:
        if replica is not None:
            replica.close()
    settled = _from_database(connection, wanted, nas_id, limit) if connection is not None else []
    keys = {_key(decision) for decision in settled}
    recent = [one for one in stream.decisions if one.at >= wanted.since and _key(one) not in keys]
    newest = sorted([*recent, *settled], key=lambda decision: (decision.at, decision.item), reverse=True)[:limit]
    return Refusals(
        tuple(
            Refusal(d, Reason.by_code(d.reason), names.get(d.nas_id, f"NAS {d.nas_id}"), _key(d) in keys)
            for d in newest
        ),
        tuple(stream.faults),
        stream.is_cut,
    )


def _from_database(connection: Connection, wanted: RefusalFilter, nas_id: int | None, limit: int) -> list[DecisionRow]:
    return db_decisions.list_refusals(
        connection,
        since=wanted.since,
        nas_id=nas_id,
        username=wanted.username,
        calling_station_ids=mac_notations(wanted.device) if wanted.device is not None else None,
        reasons=[wanted.reason.code] if wanted.reason is not None else None,
        limit=limit,
    )


def _names_of(replica: Replica | None) -> dict[int, str]:
    nases = replica.nas_list() if replica is not None else []
    return {nas.nas_id: nas.name for nas in nases} if isinstance(nases, list) else {}


def _key(decision: DecisionRow) -> tuple[str, int, int, int]:
    return decision.node, decision.sequence, decision.record_offset, decision.item
