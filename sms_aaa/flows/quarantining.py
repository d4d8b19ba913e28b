"""The quarantine's way out: a record is tried again and settled, or dismissed by somebody who says why.

A record that was put aside has no position to fence it: its row does. Whoever tries it holds the row; what it comes to
and the row's end are one transaction, so that two who try it at once settle it once. What fails again keeps its new
reason and stays.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from sms_aaa.db import audit as db_audit
from sms_aaa.db import quarantine as db_quarantine
from sms_aaa.db.engine import Conflict, Poison
from sms_aaa.flows.recording import settle_decisions
from sms_aaa.flows.settling import settle_accounting
from sms_aaa.node.journal import Stream
from sms_aaa.node.records import AccountingRecord, DecisionBatch, unpack_accounting, unpack_decisions
from sms_aaa.rules.session import Place

if TYPE_CHECKING:
    from sms_aaa.db.engine import Connection
    from sms_aaa.db.quarantine import AsideRow
    from sms_aaa.node.live_change import Release
    from sms_aaa.rules.actor import Actor

Find = Callable[[Stream, Place], bytes | None]
"""The payload that stands at a place of this node's journal; None when it is another node's, or cannot be read."""


class Ending(StrEnum):
    SETTLED = "settled"
    FAILED = "failed"  # it stays, with its reason of now
    RESOLVED = "resolved"  # somebody else was here: nothing was done
    UNREADABLE = "unreadable"  # there is nothing that could be settled


@dataclass(frozen=True, slots=True)
class Tried:
    """What became of one record."""

    row: AsideRow
    ending: Ending
    reason: str
    deltas: int = 0
    releases: list[Release] = field(default_factory=list)


def retry(
    connection: Connection, row_id: int, *, actor: Actor, single_nas: dict[int, bool], find: Find
) -> Tried | None:
    """Settles one record that waits; the door commits. None: there is no such row.

    A payload that is whole is in the row; where the row has only octets of it, `find` looks for it in the journal.
    """
    row = db_quarantine.find_aside(connection, row_id, lock=True)
    if row is None:
        return None
    if row.resolution is not None:
        return Tried(row, Ending.RESOLVED, row.reason)
    place = Place(row.node, row.sequence, row.record_offset)
    record = _record(row, place, find)
    if record is None:
        return Tried(row, Ending.UNREADABLE, row.reason)
    try:
        with connection.transaction():
            deltas, releases, is_settled = _settle(connection, place, record, single_nas)
    except Conflict:
        raise
    except Poison as poison:
        reason = f"refused: {type(poison).__name__}"
        db_quarantine.count_try(connection, row_id, reason)
        return Tried(row, Ending.FAILED, reason)
    if not is_settled:
        db_quarantine.count_try(connection, row_id, None)
        now = db_quarantine.find_aside(connection, row_id, lock=False)
        assert now is not None
        return Tried(row, Ending.FAILED, now.reason)
    db_quarantine.resolve(connection, row_id, resolution="settled", who=actor.name, note="", tried=True)
    _record_change(connection, row, actor, "settled", {"deltas": deltas})
    return Tried(row, Ending.SETTLED, row.reason, deltas, releases)


def dismiss(connection: Connection, row_id: int, *, actor: Actor, note: str) -> Tried | None:
    """Ends the wait of a record that is not to be settled. It stays on record, with who dismissed it and why."""
    row = db_quarantine.find_aside(connection, row_id, lock=True)
    if row is None:
        return None
    if row.resolution is not None:
        return Tried(row, Ending.RESOLVED, row.reason)
    db_quarantine.resolve(connection, row_id, resolution="dismissed", who=actor.name, note=note, tried=False)
    _record_change(connection, row, actor, "dismissed", {"note": note})
    return Tried(row, Ending.SETTLED, row.reason)


def _settle(
    connection: Connection, place: Place, record: AccountingRecord | DecisionBatch, single_nas: dict[int, bool]
) -> tuple[int, list[Release], bool]:
    """(deltas, places that are free, whether it was settled rather than put aside again)."""
    if isinstance(record, DecisionBatch):
        settle_decisions(connection, [(place, record)])
        return 0, [], True
    settled = settle_accounting(connection, [(place, record)], single_nas=single_nas)
    return settled.deltas, settled.releases, not settled.quarantined


def _record(row: AsideRow, place: Place, find: Find) -> AccountingRecord | DecisionBatch | None:
    stream = Stream(row.stream)
    unpack = unpack_accounting if stream is Stream.ACCOUNTING else unpack_decisions
    for payload in (row.raw, find(stream, place)):
        record = unpack(payload) if payload is not None else None
        if isinstance(record, AccountingRecord | DecisionBatch):
            return record
    return None


def _record_change(connection: Connection, row: AsideRow, actor: Actor, action: str, more: dict[str, object]) -> None:
    db_audit.insert_change(
        connection, actor, action=action, object_kind="quarantine", object_id=row.id, before={"reason": row.reason},
        after={"node": row.node, "sequence": row.sequence, "offset": row.record_offset, **more},
    )  # fmt: skip
