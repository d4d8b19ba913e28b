"""Sessions as people ask for them: listed, counted, looked up. What writes them is db/sessions.py.

Sessions that ended are asked for in the view session_all, whose history may have tens of millions: a listing finds the
ids of its rows first, by an index and no further than its limit, and only then whose they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any

from psycopg import sql
from psycopg.rows import class_row

from sms_aaa.rules.session import State

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sms_aaa.db.engine import Connection

ENDED = (State.CLOSED, State.LAPSED)


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionFilter:
    """Which sessions; None or False: whatever it is.

    `name`: of a subscriber, or a user name octet for octet. `stations`: Calling-Station-Ids, any of them. `address`:
    an address or a prefix in CIDR notation; sessions whose address or prefix lies in it, or that it lies in. `since`
    and `until`: online at some time in between. `seconds_min`, `octets_min` (both directions): at least so much.
    """

    states: tuple[State, ...] = (State.OPEN,)
    name: str | None = None
    nas_id: int | None = None
    plan: str | None = None
    realm: str | None = None
    stations: tuple[str, ...] | None = None
    address: str | None = None
    port_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    seconds_min: int | None = None
    octets_min: int | None = None
    is_excluded: bool = False

    @property
    def has_ended(self) -> bool:
        """Whether sessions that have ended are asked for."""
        return any(state in self.states for state in ENDED)

    @property
    def is_narrow(self) -> bool:
        """Whether an index leads to the sessions, however long the history is."""
        return self.name is not None or self.stations is not None or self.address is not None


class SessionOrder(StrEnum):
    """What stands first: the newest, who was heard last, the most octets, the longest, the fastest."""

    STARTED = "started"
    HEARD = "heard"
    OCTETS = "octets"
    SECONDS = "seconds"
    RATE = "rate"


class SessionGroup(StrEnum):
    """What sessions are counted by."""

    NAS = "nas"
    PLAN = "plan"
    REALM = "realm"
    STATE = "state"


@dataclass(frozen=True, slots=True)
class SessionRow:
    """A session as a listing shows it.

    The last delta is that which ends with the newest reading; without one nothing was used up to that reading.
    """

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
    received_at: datetime
    seconds: int
    octets_in: int
    octets_out: int
    framed_ip: str | None
    framed_ipv6_prefix: str | None
    delegated_ipv6_prefix: str | None
    calling_station_id: str | None
    nas_port_id: str | None
    terminate_cause: int | None
    estimated: bool
    excluded: str | None
    last_octets_in: int
    last_octets_out: int
    last_seconds: int

    @property
    def rate_up_kbps(self) -> int:
        """Over the last delta, to the nearest kbit/s."""
        return _kbps(self.last_octets_in, self.last_seconds)

    @property
    def rate_down_kbps(self) -> int:
        return _kbps(self.last_octets_out, self.last_seconds)


def _kbps(octets: int, seconds: int) -> int:
    return (octets * 8 + seconds * 500) // (seconds * 1000) if seconds > 0 else 0


NAMED = """(s.username = {0} or s.service_id = any(array(
    select v.id from service v where v.subscriber_id in (
      select id from subscriber where name = {0} and removed_at is null
      union all select id from subscriber where name = {0} and removed_at is not null))))"""
"""Sessions `s` under a user name, or of a subscriber of that name; the removed have an index of their own."""

_LAST_DELTA = """left join lateral (
    select d.octets_in, d.octets_out, d.seconds from usage_delta d
    where s.state = 1 and d.session_id = s.id and d.seq = s.deltas and d.to_at = s.reading_at) d on true"""

_ORDERS = {
    SessionOrder.STARTED: "s.started_at desc, s.id desc",
    SessionOrder.HEARD: "s.received_at desc, s.id desc",
    SessionOrder.OCTETS: "s.octets_in + s.octets_out desc, s.id desc",
    SessionOrder.SECONDS: "s.seconds desc, s.id desc",
    SessionOrder.RATE: "(d.octets_in + d.octets_out) / greatest(d.seconds, 1) desc nulls last, s.id desc",
}

_GROUPS = {
    SessionGroup.NAS: "(select name from nas where id = s.nas_id)",
    SessionGroup.PLAN: """(select p.name from subscription u join plan_version v on v.id = u.plan_version_id
                           join plan p on p.id = v.plan_id where u.service_id = s.service_id
                           and u.during @> s.started_at)""",
    # As rules.realms.split_realm has it.
    SessionGroup.REALM: r"""lower(coalesce(substring(s.username from '^.+@([^@]+)$'),
                                           substring(s.username from '^([^\\]+)\\.+$')))""",
    SessionGroup.STATE: "(array['open', 'closed', 'lapsed'])[s.state]",
}


def list_sessions(
    connection: Connection,
    wanted: SessionFilter,
    *,
    limit: int,
    order: SessionOrder = SessionOrder.STARTED,
) -> list[SessionRow]:
    """In the order that is asked for, `limit` at most."""
    query = sql.SQL(
        """with s as materialized (
             select s.* from {table} s {last} where {where} order by {order} limit {limit})
           select s.id, n.name as nas, s.acct_session_id, s.life, s.state, s.username, b.name as subscriber,
                  p.name as plan, s.started_at, s.updated_at, s.stopped_at, s.received_at, s.seconds,
                  s.octets_in, s.octets_out,
                  host(s.framed_ip) as framed_ip, s.framed_ipv6_prefix::text, s.delegated_ipv6_prefix::text,
                  s.calling_station_id, s.nas_port_id, s.terminate_cause, s.estimated, s.excluded,
                  coalesce(d.octets_in, 0) as last_octets_in, coalesce(d.octets_out, 0) as last_octets_out,
                  coalesce(d.seconds, 0) as last_seconds
           from s join nas n on n.id = s.nas_id
           left join service v on v.id = s.service_id
           left join subscriber b on b.id = v.subscriber_id
           left join subscription u on u.service_id = v.id and u.during @> s.started_at
           left join plan_version pv on pv.id = u.plan_version_id
           left join plan p on p.id = pv.plan_id
           {last_again}
           order by {order}"""
    ).format(
        table=_table(wanted),
        last=sql.SQL(_LAST_DELTA if order is SessionOrder.RATE else ""),
        where=_where(wanted),
        order=sql.SQL(_ORDERS[order]),
        limit=sql.Literal(limit),
        last_again=sql.SQL(_LAST_DELTA),
    )
    with connection.cursor(row_factory=class_row(SessionRow)) as cursor:
        return cursor.execute(query).fetchall()


@dataclass(frozen=True, slots=True)
class SessionCount:
    """Sessions of a NAS, plan, realm or state; `value` None: of none."""

    value: str | None
    sessions: int
    octets_in: int
    octets_out: int


def count_sessions(connection: Connection, wanted: SessionFilter, by: SessionGroup | None) -> list[SessionCount]:
    """The most first; `by` None: all in one row."""
    query = sql.SQL(
        """select {value} as value, count(*) as sessions, coalesce(sum(s.octets_in), 0)::bigint as octets_in,
                  coalesce(sum(s.octets_out), 0)::bigint as octets_out
           from {table} s where {where} {group} order by sessions desc, value"""
    ).format(
        value=sql.SQL(_GROUPS[by] if by is not None else "null"),
        table=_table(wanted),
        where=_where(wanted),
        group=sql.SQL("group by 1" if by is not None else ""),
    )
    with connection.cursor(row_factory=class_row(SessionCount)) as cursor:
        return cursor.execute(query).fetchall()


def _table(wanted: SessionFilter) -> sql.SQL:
    """What has not ended is in `session` alone: its indexes of open sessions answer."""
    return sql.SQL("session_all" if wanted.has_ended else "session")


def _where(wanted: SessionFilter) -> sql.Composable:
    """The conditions that are asked for and no others, with their values: so each gets the plan that suits it."""
    if wanted.states == (State.OPEN,):
        conditions = [_condition("s.state = 1")]  # the constant, by which the indexes of open sessions are found
    else:
        conditions = [_condition("s.state = any({}::smallint[])", [int(state) for state in wanted.states])]
    asked: list[tuple[Any, str]] = [
        (wanted.nas_id, "s.nas_id = {}"),
        (wanted.port_id, "s.nas_port_id = {}"),
        (wanted.until, "s.started_at < {}"),
        (wanted.since, "(s.stopped_at is null or s.stopped_at >= {})"),
        (wanted.seconds_min, "s.seconds >= {}"),
        (wanted.octets_min, "s.octets_in + s.octets_out >= {}"),
        (wanted.realm, f"{_GROUPS[SessionGroup.REALM]} = lower({{}})"),
        (wanted.plan, f"{_GROUPS[SessionGroup.PLAN]} = {{}}"),
    ]
    conditions += [_condition(text, value) for value, text in asked if value is not None]
    if wanted.stations is not None:
        conditions.append(_condition("s.calling_station_id = any({}::text[])", list(wanted.stations)))
    if wanted.name is not None:
        conditions.append(_condition(NAMED, wanted.name))
    if wanted.address is not None:
        conditions.append(_address(wanted.address, _table(wanted)))
    if wanted.is_excluded:
        conditions.append(_condition("s.excluded is not null"))
    return sql.SQL(" and ").join(conditions)


def _condition(text: str, *values: Any) -> sql.Composable:
    return sql.SQL(text).format(*map(sql.Literal, values))


_MANY_BITS = 44
"""A shorter prefix of IPv6 may be that of a whole region: so many sessions lie in it that the newest are soon found."""

_PREFIXES = ("framed_ipv6_prefix", "delegated_ipv6_prefix")


def _address(address: str, table: sql.SQL) -> sql.Composable:
    """Within it, or with a prefix that it is within: for both PostgreSQL can use a plain index.

    Of IPv6 the sessions are found first, each way by its index: all ways in one condition look to the planner like so
    many sessions that it would rather go through the whole history.
    """
    network = ip_network(address)
    if network.version == 4:
        return _condition("s.framed_ip <<= {}::inet", address)
    around = [str(network.supernet(new_prefix=bits)) for bits in range(16, network.prefixlen)]
    within = [f"s.{name} <<= {{0}}::inet" for name in ("framed_ipv6_address", *_PREFIXES)]
    beyond = [f"s.{name} = any({{1}}::cidr[])" for name in _PREFIXES]
    if network.prefixlen < _MANY_BITS:
        return _condition(f"({' or '.join(within + beyond)})", address, around)
    ways = [
        sql.SQL("select s.id from {} s where {}").format(table, _condition(w, address, around)) for w in within + beyond
    ]
    return sql.SQL("s.id = any(array({}))").format(sql.SQL(" union all ").join(ways))


@dataclass(frozen=True, slots=True)
class LastHeard:
    """The newest session under a user name: when its last record came, and from which NAS."""

    username: str
    nas: str
    received_at: datetime


def find_last_heard(connection: Connection, usernames: Sequence[str]) -> LastHeard | None:
    with connection.cursor(row_factory=class_row(LastHeard)) as cursor:
        return cursor.execute(
            """select s.username, n.name as nas, s.received_at from session_all s join nas n on n.id = s.nas_id
               where s.username = any(%s) order by s.started_at desc limit 1""",
            (list(usernames),),
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
    row = connection.execute("select count(*) from session where nas_id = %s and state = 1", (nas_id,)).fetchone()
    assert row is not None
    return int(row[0])
