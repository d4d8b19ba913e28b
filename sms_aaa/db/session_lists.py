"""Sessions as people ask for them: listed, counted, looked up. What writes them is db/sessions.py."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg.rows import class_row

from sms_aaa.rules.session import State

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sms_aaa.db.engine import Connection


@dataclass(frozen=True, slots=True)
class SessionRow:
    """A session as a listing shows it."""

    id: int
    nas: str
    acct_session_id: str
    life: int
    state: int
    username: str
    subscriber: str | None
    plan: str | None
    started_at: datetime
    updated_at: datetime
    stopped_at: datetime | None
    seconds: int
    octets_in: int
    octets_out: int
    framed_ip: str | None
    calling_station_id: str | None
    terminate_cause: int | None
    estimated: bool
    excluded: str | None


def list_sessions(
    connection: Connection, *, states: Sequence[State], subscriber: str | None, nas: str | None, limit: int
) -> list[SessionRow]:
    """The newest first."""
    with connection.cursor(row_factory=class_row(SessionRow)) as cursor:
        return cursor.execute(
            """select s.id, n.name as nas, s.acct_session_id, s.life, s.state, s.username, b.name as subscriber,
                      p.name as plan, s.started_at, s.updated_at, s.stopped_at, s.seconds, s.octets_in, s.octets_out,
                      host(s.framed_ip) as framed_ip, s.calling_station_id, s.terminate_cause, s.estimated, s.excluded
               from session s join nas n on n.id = s.nas_id
               left join service v on v.id = s.service_id
               left join subscriber b on b.id = v.subscriber_id
               left join subscription u on u.service_id = v.id and u.during @> s.started_at
               left join plan_version pv on pv.id = u.plan_version_id
               left join plan p on p.id = pv.plan_id
               where s.state = any(%(states)s)
                 and (%(subscriber)s::text is null or b.name = %(subscriber)s or s.username = %(subscriber)s)
                 and (%(nas)s::text is null or n.name = %(nas)s)
               order by s.started_at desc, s.id desc limit %(limit)s""",
            {"states": [int(state) for state in states], "subscriber": subscriber, "nas": nas, "limit": limit},
        ).fetchall()


@dataclass(frozen=True, slots=True)
class LastHeard:
    """The newest session under a user name: when its last record came, and from which NAS."""

    username: str
    nas: str
    received_at: datetime


def find_last_heard(connection: Connection, usernames: list[str]) -> LastHeard | None:
    with connection.cursor(row_factory=class_row(LastHeard)) as cursor:
        return cursor.execute(
            """select s.username, n.name as nas, s.received_at from session s join nas n on n.id = s.nas_id
               where s.username = any(%s) order by s.started_at desc limit 1""",
            (usernames,),
        ).fetchone()


def count_live_by_plan(connection: Connection) -> list[tuple[int, int]]:
    """(plan version id, open sessions); 0 stands for sessions without a plan."""
    rows = connection.execute(
        """select coalesce(u.plan_version_id, 0), count(*) from session s
           left join subscription u on u.service_id = s.service_id and u.during @> now()
           where s.state = 1 group by 1"""
    ).fetchall()
    return [(int(row[0]), int(row[1])) for row in rows]


def count_live_of_nas(connection: Connection, nas_id: int) -> int:
    row = connection.execute(
        "select count(*) from session where nas_id = %s and state = %s", (nas_id, int(State.OPEN))
    ).fetchone()
    assert row is not None
    return int(row[0])
