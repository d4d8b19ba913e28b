"""What is past its retention goes by whole months, the oldest first, unless somebody still needs it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from sms_aaa.db import retention as db_retention
from sms_aaa.db.audit import insert_change
from sms_aaa.db.partitions import Month, drop, list_months
from sms_aaa.rules.actor import Actor, Door

if TYPE_CHECKING:
    from datetime import datetime

    from sms_aaa.config import HistorySettings
    from sms_aaa.db.engine import Connection

_ACTOR = Actor("retention", Door.SERVER)


_NEEDS = {
    "usage_delta": db_retention.find_need_of_deltas,
    "session_history": db_retention.find_need_of_sessions,
    "port_block": db_retention.find_need_of_ports,
}


@dataclass(frozen=True, slots=True)
class Gone:
    """A month that was dropped."""

    table: str
    month: Month


@dataclass(frozen=True, slots=True)
class Needed:
    """A month that is past its retention and stays, and why."""

    table: str
    month: Month
    reason: str


def drop_next(connection: Connection, *, now: datetime, keep: HistorySettings) -> Gone | list[Needed]:
    """Drops one month, to be committed before the next is asked for: until then others wait for it.

    When there is none to drop: those that stay although their time is over. Nothing while another node is at it.
    """
    if not db_retention.take_turn(connection):
        return []
    needed = []
    # Deltas before sessions: these stay as long as those.
    for table, days in (
        ("usage_delta", keep.deltas_days),
        ("session_history", keep.sessions_days),
        ("port_block", keep.sessions_days),
        ("usage_hour", keep.hours_days),
        ("usage_day", keep.days_days),
    ):
        month = next(iter(list_months(connection, table)), None)
        if month is None or month >= Month.of(now - timedelta(days=days)):
            continue
        reason = _need(connection, table, month)
        if reason is not None:
            needed.append(Needed(table, month, reason))
        elif _drop(connection, table, month):
            _record(connection, table, month, days)
            return Gone(table, month)
    return needed


def _need(connection: Connection, table: str, month: Month) -> str | None:
    find = _NEEDS.get(table)
    return find(connection, month) if find is not None else None


def _drop(connection: Connection, table: str, month: Month) -> bool:
    if table == "usage_delta":
        return db_retention.drop_deltas(connection, month)
    if table == "session_history":
        return db_retention.drop_sessions(connection, month)
    return drop(connection, table, month)


def _record(connection: Connection, table: str, month: Month, days: int) -> None:
    insert_change(
        connection,
        _ACTOR,
        action="drop",
        object_kind="partition",
        object_id=int(month.suffix()),
        before={"table": table, "month": month.suffix(), "retention_days": days},
        after=None,
    )
