"""Everything that is stored of one session: its row, its deltas, who else is under the same login, what began it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from psycopg import sql
from psycopg.rows import class_row, tuple_row

from sms_aaa.db.session_addresses import FormerAddress
from sms_aaa.db.sessions import SessionFacts
from sms_aaa.db.usage import DeltaRow

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sms_aaa.db.engine import Connection

LIVES_MAX = 100
"""Of one name: a NAS that begins its ids anew with every boot uses one often."""


@dataclass(frozen=True, slots=True)
class ToldSession:
    """One life of a session. `facts`: what SessionFacts names. The reading is the newest that was counted."""

    id: int
    nas_id: int
    nas: str
    nas_key: str
    acct_session_id: str
    life: int
    state: int
    service_id: int | None
    account_id: int | None
    subscriber: str | None
    plan: str | None
    excluded: str | None
    started_at: datetime
    updated_at: datetime
    stopped_at: datetime | None
    received_at: datetime
    seconds: int
    octets_in: int
    octets_out: int
    run: int
    deltas: int
    terminate_cause: int | None
    estimated: bool
    reading_node: str
    reading_sequence: int
    reading_offset: int
    facts: dict[str, Any]


_OWN = tuple(name for name in ToldSession.__dataclass_fields__ if name not in {"nas", "subscriber", "plan", "facts"})
_FACTS = SessionFacts.__struct_fields__
_HOSTS = {"framed_ip", "framed_ipv6_address", "nas_ip"}
_PREFIXES = {"framed_ipv6_prefix", "delegated_ipv6_prefix"}


def list_by_id(connection: Connection, session_id: int) -> list[ToldSession]:
    """The one, or none."""
    return _list(connection, sql.SQL("s.id = {}").format(sql.Literal(session_id)))


def list_by_name(connection: Connection, acct_session_id: str, *, nas_id: int | None) -> list[ToldSession]:
    """All lives under an Acct-Session-Id, of one NAS or of all, the newest first."""
    where = sql.SQL("s.acct_session_id = {}").format(sql.Literal(acct_session_id))
    if nas_id is not None:
        where += sql.SQL(" and s.nas_id = {}").format(sql.Literal(nas_id))
    return _list(connection, where)


def list_siblings(connection: Connection, told: ToldSession) -> list[ToldSession]:
    """Others of the service under the same login (our Class), or in the same multilink bundle of its NAS."""
    token, bundle = told.facts["token"], told.facts.get("acct_multi_session_id")
    if told.service_id is None or (token is None and bundle is None):
        return []
    same = [
        sql.SQL(text).format(*map(sql.Literal, values))
        for text, *values in (
            ("s.token = {}", token),
            ("(s.nas_id = {} and s.acct_multi_session_id = {})", told.nas_id, bundle),
        )
        if values[-1] is not None
    ]
    return _list(
        connection,
        sql.SQL("s.service_id = {} and s.id <> {} and ({})").format(
            sql.Literal(told.service_id), sql.Literal(told.id), sql.SQL(" or ").join(same)
        ),
    )


def _list(connection: Connection, where: sql.Composable) -> list[ToldSession]:
    query = sql.SQL(
        """select {own}, n.name, b.name, p.name, {facts}
           from session_all s join nas n on n.id = s.nas_id
           left join service v on v.id = s.service_id left join subscriber b on b.id = v.subscriber_id
           left join subscription u on u.service_id = s.service_id and u.during @> s.started_at
           left join plan_version pv on pv.id = u.plan_version_id left join plan p on p.id = pv.plan_id
           where {where} order by s.started_at desc, s.id desc limit {limit}"""
    ).format(
        own=sql.SQL(", ").join(sql.Identifier("s", name) for name in _OWN),
        facts=sql.SQL(", ").join(map(_fact, _FACTS)),
        where=where,
        limit=sql.Literal(LIVES_MAX),
    )
    with connection.cursor(row_factory=tuple_row) as cursor:
        return [_told(row) for row in cursor.execute(query)]


def _fact(name: str) -> sql.Composable:
    """host() and ::text: addresses are handed around as text, exactly as PostgreSQL prints them."""
    column = sql.Identifier("s", name)
    if name in _HOSTS:
        return sql.SQL("host({})").format(column)
    return sql.SQL("{}::text").format(column) if name in _PREFIXES else column


def _told(row: Sequence[Any]) -> ToldSession:
    own = dict(zip(_OWN, row, strict=False))
    nas, subscriber, plan, *facts = row[len(_OWN) :]
    return ToldSession(**own, nas=nas, subscriber=subscriber, plan=plan, facts=dict(zip(_FACTS, facts, strict=True)))


def list_session_deltas(connection: Connection, told: ToldSession, *, limit: int) -> list[DeltaRow]:
    """The newest deltas of a session, in their order."""
    with connection.cursor(row_factory=class_row(DeltaRow)) as cursor:
        newest = cursor.execute(
            """select d.session_id, %(name)s as acct_session_id, %(nas)s as nas, d.seq, d.from_at, d.to_at,
                      d.octets_in, d.octets_out, d.seconds, d.run, d.wrapped, d.before_in, d.before_out, d.after_in,
                      d.after_out, d.before_node, d.before_sequence, d.before_offset, d.after_node, d.after_sequence,
                      d.after_offset
               from usage_delta d where d.session_id = %(session)s and d.to_at >= %(started)s
               order by d.seq desc limit %(limit)s""",
            {
                "name": told.acct_session_id,
                "nas": told.nas,
                "session": told.id,
                "started": told.started_at,
                "limit": limit,
            },
        ).fetchall()
    return newest[::-1]


def list_former_addresses(connection: Connection, session_id: int) -> list[FormerAddress]:
    """What the session had before the addresses of its row, the oldest first."""
    rows = connection.execute(
        """select kind, case when masklen(address) = case family(address) when 4 then 32 else 128 end
                             then host(address) else address::text end, from_at, heard_at, to_at
           from session_address where session_id = %s order by from_at, kind""",
        (session_id,),
    ).fetchall()
    return [FormerAddress(*row) for row in rows]


@dataclass(frozen=True, slots=True)
class LoginRow:
    """The decision that let the session in, by the token in its Class."""

    at: datetime
    node: str
    username: str
    reason: int
    method: int


def find_login(connection: Connection, told: ToldSession) -> LoginRow | None:
    """None without a Class, and when the decision is gone with its retention, or not stored yet."""
    if told.facts["token"] is None:
        return None
    with connection.cursor(row_factory=class_row(LoginRow)) as cursor:
        return cursor.execute(
            """select at, node, username, reason, method from decision
               where username = %s and token = %s and at <= %s order by at desc limit 1""",
            (told.facts["username"], told.facts["token"], told.received_at),
        ).fetchone()
