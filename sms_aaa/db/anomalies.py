"""Anomalies as people ask for them: listed, counted, looked up. Settling names them (db/usage.py)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from psycopg import sql
from psycopg.rows import class_row

from sms_aaa.db.session_lists import NAMED

if TYPE_CHECKING:
    from datetime import datetime

    from sms_aaa.db.engine import Connection


@dataclass(frozen=True, slots=True, kw_only=True)
class AnomalyFilter:
    """Named since an instant; None: whatever it is. `name`: of a subscriber, or a user name octet for octet."""

    since: datetime | None = None
    kind: str | None = None
    nas_id: int | None = None
    name: str | None = None
    session_id: int | None = None
    anomaly_id: int | None = None


class AnomalyGroup(StrEnum):
    """What anomalies are counted by. A day is one of UTC."""

    KIND = "kind"
    NAS = "nas"
    DAY = "day"


@dataclass(frozen=True, slots=True)
class AnomalyRow:
    """An anomaly with the reading that was odd: its event time, its counters, where in which journal it stands."""

    id: int
    at: datetime
    kind: str
    nas: str
    session_id: int | None
    acct_session_id: str | None
    username: str | None
    subscriber: str | None
    event_at: datetime
    octets_in: int
    octets_out: int
    node: str
    sequence: int
    record_offset: int


def list_anomalies(connection: Connection, wanted: AnomalyFilter, *, limit: int) -> list[AnomalyRow]:
    """The newest first."""
    query = sql.SQL(
        """select a.id, a.at, a.kind, n.name as nas, a.session_id, s.acct_session_id, s.username,
                  b.name as subscriber, a.event_at, a.octets_in, a.octets_out, a.node, a.sequence, a.record_offset
           from anomaly a join nas n on n.id = a.nas_id
           left join session_all s on s.id = a.session_id
           left join service v on v.id = s.service_id left join subscriber b on b.id = v.subscriber_id
           where {} order by a.at desc, a.id desc limit {}"""
    ).format(_where(wanted), sql.Literal(limit))
    with connection.cursor(row_factory=class_row(AnomalyRow)) as cursor:
        return cursor.execute(query).fetchall()


_GROUPS = {
    AnomalyGroup.KIND: "a.kind",
    AnomalyGroup.NAS: "(select name from nas where id = a.nas_id)",
    AnomalyGroup.DAY: "to_char(a.at, 'YYYY-MM-DD')",
}


@dataclass(frozen=True, slots=True)
class AnomalyCount:
    value: str
    anomalies: int
    sessions: int
    last_at: datetime


def count_anomalies(connection: Connection, wanted: AnomalyFilter, by: AnomalyGroup) -> list[AnomalyCount]:
    """The most first; days in their order."""
    query = sql.SQL(
        """select {} as value, count(*) as anomalies, count(distinct a.session_id) as sessions, max(a.at) as last_at
           from anomaly a where {} group by 1 order by {}"""
    ).format(
        sql.SQL(_GROUPS[by]),
        _where(wanted),
        sql.SQL("1" if by is AnomalyGroup.DAY else "2 desc, 1"),
    )
    with connection.cursor(row_factory=class_row(AnomalyCount)) as cursor:
        return cursor.execute(query).fetchall()


def _where(wanted: AnomalyFilter) -> sql.Composable:
    asked: list[tuple[Any, str]] = [
        (wanted.since, "a.at >= {}"),
        (wanted.kind, "a.kind = {}"),
        (wanted.nas_id, "a.nas_id = {}"),
        (wanted.session_id, "a.session_id = {}"),
        (wanted.anomaly_id, "a.id = {}"),
    ]
    conditions = [sql.SQL(text).format(sql.Literal(value)) for value, text in asked if value is not None]
    if wanted.name is not None:
        named = sql.SQL(NAMED).format(sql.Literal(wanted.name))
        conditions.append(sql.SQL("a.session_id = any(array(select s.id from session_all s where {}))").format(named))
    return sql.SQL(" and ").join(conditions) if conditions else sql.SQL("true")
