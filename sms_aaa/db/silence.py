"""Sessions that say nothing: open ones that miss their interims, and those that were ended for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg import sql
from psycopg.rows import class_row

from sms_aaa.rules.session import HEARD_SECONDS_MIN

if TYPE_CHECKING:
    from datetime import datetime

    from sms_aaa.db.engine import Connection


@dataclass(frozen=True, slots=True, kw_only=True)
class SilenceFilter:
    """`now`: of whose asking. `older_than_seconds` None: silent for one and a half of the plan's interim intervals.

    `lapsed_since`: those that ended by inference at that time or later, by their last word, are silent, too.
    """

    now: datetime
    lapsed_since: datetime
    nas_id: int | None = None
    older_than_seconds: int | None = None


@dataclass(frozen=True, slots=True)
class SilentRow:
    """A session that misses its interims; state: open or lapsed. `interim_seconds`: how often it should be heard."""

    id: int
    state: int
    nas: str
    acct_session_id: str
    username: str
    subscriber: str | None
    started_at: datetime
    received_at: datetime
    interim_seconds: int


@dataclass(frozen=True, slots=True)
class SilentNas:
    """A NAS by its sessions: how many are open, how many of these silent, how many lapsed, when any was last heard."""

    nas: str
    open: int
    silent: int
    lapsed: int
    heard_at: datetime


_SESSIONS = f"""
    from session s
    left join subscription u on u.service_id = s.service_id and u.during @> {{now}}
    left join plan_version p on p.id = u.plan_version_id
    cross join lateral (
      select greatest(coalesce((p.document->'policy'->>'interim_seconds')::int, 0), {HEARD_SECONDS_MIN})
    ) i(interim_seconds)
    join nas n on n.id = s.nas_id"""
_LAPSED = "s.state = 3 and s.stopped_at >= {since}"


def list_silent(connection: Connection, wanted: SilenceFilter, *, limit: int) -> list[SilentRow]:
    """Those first that were heard last: they are the news."""
    query = sql.SQL(
        f"""select s.id, s.state, n.name as nas, s.acct_session_id, s.username, b.name as subscriber, s.started_at,
                   s.received_at, i.interim_seconds
            {_SESSIONS}
            left join service v on v.id = s.service_id left join subscriber b on b.id = v.subscriber_id
            where (s.state = 1 and {{silent}} or {_LAPSED}) {{nas}}
            order by s.received_at desc, s.id desc limit {{limit}}"""
    ).format(**_parts(wanted), limit=sql.Literal(limit))
    with connection.cursor(row_factory=class_row(SilentRow)) as cursor:
        return cursor.execute(query).fetchall()


def list_silent_nas(connection: Connection, wanted: SilenceFilter) -> list[SilentNas]:
    """Every NAS with silent or lapsed sessions: those first of which the most are silent."""
    query = sql.SQL(
        f"""select n.name as nas, count(*) filter (where s.state = 1) as open,
                   count(*) filter (where s.state = 1 and {{silent}}) as silent,
                   count(*) filter (where s.state = 3) as lapsed, max(s.received_at) as heard_at
            {_SESSIONS}
            where (s.state = 1 or {_LAPSED}) {{nas}}
            group by n.name
            having count(*) filter (where s.state = 3 or {{silent}}) > 0
            order by silent desc, lapsed desc, nas"""
    ).format(**_parts(wanted))
    with connection.cursor(row_factory=class_row(SilentNas)) as cursor:
        return cursor.execute(query).fetchall()


def _parts(wanted: SilenceFilter) -> dict[str, sql.Composable]:
    now = sql.Literal(wanted.now)
    age = (
        sql.SQL("1.5 * make_interval(secs => i.interim_seconds)")
        if wanted.older_than_seconds is None
        else sql.SQL("make_interval(secs => {})").format(sql.Literal(wanted.older_than_seconds))
    )
    return {
        "now": now,
        "since": sql.Literal(wanted.lapsed_since),
        "silent": sql.SQL("s.received_at < {} - {}").format(now, age),
        "nas": sql.SQL("and s.nas_id = {}").format(sql.Literal(wanted.nas_id))
        if wanted.nas_id is not None
        else sql.SQL(""),
    }
