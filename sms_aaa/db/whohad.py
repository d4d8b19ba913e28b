"""Who had an address, a prefix or a port: asked of the sessions at hand, the history, former addresses, port blocks.

Each of these answers by an index of its own, whose columns are the address and then the time; what it finds are ids and
times, and whose they are is asked for afterwards. An IPv6 prefix that was given to a session contains the addresses
that are asked for: so all prefixes that contain these are looked up, each by the same index.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import TYPE_CHECKING, LiteralString

from psycopg import sql
from psycopg.rows import class_row

from sms_aaa.rules.session import AnomalyKind

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sms_aaa.db.engine import Connection

PREFIX_BITS_MIN = 16
"""No shorter IPv6 prefix is ever given to a session."""


class When(Enum):
    """Of the rows about an address: those that touch [since, until], the last before it, the first after it."""

    DURING = "{from_at} <= %(until)s and coalesce({to_at}, 'infinity') >= %(since)s"
    BEFORE = "{to_at} < %(since)s"
    AFTER = "{from_at} > %(until)s"


# In the history all have ended, and its indexes go by that. Of what followed on an address the first to end is the
# first to have begun.
_IN_HISTORY = {
    When.DURING: """stopped_at >= %(since)s and started_at <= %(until)s
                    and coalesce(addressed_at, started_at) <= %(until)s""",
    When.BEFORE: "stopped_at < %(since)s",
    When.AFTER: "stopped_at > %(until)s and coalesce(addressed_at, started_at) > %(until)s",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a session had, and when. `kind`: a column of `session`, or port_block.

    `heard_at`, `to_at`: None where the session itself tells it.
    """

    session_id: int
    kind: str
    address: str
    port_from: int | None
    port_to: int | None
    protocol: int | None
    from_at: datetime
    heard_at: datetime | None
    to_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """A session with all that tells whose it was. `clock_is_odd`: an anomaly says so of its NAS's clock.

    `node`, `sequence`, `record_offset`: where the newest reading stands in the journal.
    """

    session_id: int
    subscriber: str | None
    service_id: int | None
    identity: str | None
    username: str
    calling_station_id: str | None
    nas: str
    nas_ip: str | None
    nas_identifier: str | None
    nas_port: int | None
    nas_port_id: str | None
    circuit_id: str | None
    acct_session_id: str
    state: int
    started_at: datetime
    updated_at: datetime
    stopped_at: datetime | None
    estimated: bool
    terminate_cause: int | None
    clock_is_odd: bool
    node: str
    sequence: int
    record_offset: int


def list_found(
    connection: Connection,
    asked: IPv4Network | IPv6Network,
    port: int | None,
    when: When,
    *,
    since: datetime,
    until: datetime,
    limit: int,
) -> list[Found]:
    """In the order of their beginning; for BEFORE and AFTER the nearest first.

    `asked` with all its bits is an address; `port`: of blocks those that have it.
    """
    branches = [*_sessions(asked, when), *_former(asked, when), *_port_blocks(asked, port, when)]
    order = {When.DURING: "from_at, session_id", When.BEFORE: "to_at desc", When.AFTER: "from_at"}[when]
    query = sql.SQL("select * from ({}) found order by {} limit %(limit)s").format(
        sql.SQL(" union all ").join(branches), sql.SQL(order)
    )
    values = {"since": since, "until": until, "limit": limit, "port": port}
    with connection.cursor(row_factory=class_row(Found)) as cursor:
        return cursor.execute(query, values).fetchall()


def list_holders(connection: Connection, session_ids: Sequence[int]) -> dict[int, Holder]:
    """By session id."""
    with connection.cursor(row_factory=class_row(Holder)) as cursor:
        rows = cursor.execute(
            """select s.id as session_id, b.name as subscriber, s.service_id, v.identity, s.username,
                      s.calling_station_id, n.name as nas, host(s.nas_ip) as nas_ip, s.nas_identifier, s.nas_port,
                      s.nas_port_id, s.circuit_id, s.acct_session_id, s.state, s.started_at, s.updated_at,
                      s.stopped_at, s.estimated, s.terminate_cause,
                      exists (select from anomaly a where a.session_id = s.id and a.kind = %(clock)s) as clock_is_odd,
                      s.reading_node as node, s.reading_sequence as sequence, s.reading_offset as record_offset
               from session_all s join nas n on n.id = s.nas_id
               left join service v on v.id = s.service_id
               left join subscriber b on b.id = v.subscriber_id
               where s.id = any(%(ids)s)""",
            {"ids": list(session_ids), "clock": AnomalyKind.CLOCK.value},
        ).fetchall()
    return {row.session_id: row for row in rows}


def _sessions(asked: IPv4Network | IPv6Network, when: When) -> list[sql.Composable]:
    """What sessions have by their row: of those at hand and of the history, column by column."""
    text = """select id as session_id, {kind} as kind, {shown} as address, null::int as port_from, null::int as port_to,
                     null::int as protocol, coalesce(addressed_at, started_at) as from_at,
                     null::timestamptz as heard_at, stopped_at as to_at
              from {table} where {match} and {when}"""
    whens = {
        "session": _when(when, "coalesce(addressed_at, started_at)", "stopped_at"),
        "session_history": sql.SQL(_IN_HISTORY[when]),
    }
    return [
        _nearest(
            when,
            sql.SQL(text).format(
                kind=sql.Literal(column), shown=_shown(column), table=sql.Identifier(table), match=match, when=of_table
            ),
            after="to_at" if table == "session_history" else "from_at",
        )
        for table, of_table in whens.items()
        for column, match in _matches(asked)
    ]


def _matches(asked: IPv4Network | IPv6Network) -> list[tuple[str, sql.Composable]]:
    """(column, condition) of a session: what the column has contains what is asked for, or is contained in it."""
    if isinstance(asked, IPv4Network):
        return [("framed_ip", _within("framed_ip", asked))]
    prefixes = ("framed_ipv6_prefix", "delegated_ipv6_prefix")
    matches = [("framed_ipv6_address", _within("framed_ipv6_address", asked))]
    matches += [(column, _around(column, asked)) for column in prefixes]
    if asked.prefixlen < asked.max_prefixlen:
        matches += [(column, _within(column, asked)) for column in prefixes]
    return matches


def _former(asked: IPv4Network | IPv6Network, when: When) -> list[sql.Composable]:
    """Addresses that changed in mid-session: contained, or containing."""
    text = """select session_id, kind, case when kind like '%%prefix' then address::text else host(address) end,
                     null::int, null::int, null::int, from_at, heard_at, to_at
              from session_address where address && {asked}::inet and {when}"""
    query = sql.SQL(text).format(asked=sql.Literal(str(asked)), when=_when(when, "from_at", "to_at"))
    return [_nearest(when, query)]


def _port_blocks(asked: IPv4Network | IPv6Network, port: int | None, when: When) -> list[sql.Composable]:
    """A block ends when it is told to be free, else with its session."""
    if asked.version == 6:
        return []
    text = """select session_id, 'port_block', host(address), port_from, port_to, protocol::int, from_at,
                     null::timestamptz, ended_at as to_at
              from (select b.*, coalesce(b.to_at, s.stopped_at) as ended_at
                    from (select * from port_block where {match} and {port} and from_at <= {latest}) b
                    join lateral (select stopped_at from session_all where id = b.session_id) s on true) b
              where {when}"""
    query = sql.SQL(text).format(
        match=_within("address", asked),
        port=sql.SQL("port_from <= %(port)s and port_to >= %(port)s" if port is not None else "true"),
        latest=sql.SQL("'infinity'" if when is When.AFTER else "%(until)s"),
        when=_when(when, "from_at", "ended_at"),
    )
    return [_nearest(when, query)]


def _when(when: When, from_at: LiteralString, to_at: LiteralString) -> sql.Composable:
    return sql.SQL(when.value).format(from_at=sql.SQL(from_at), to_at=sql.SQL(to_at))


def _nearest(when: When, query: sql.Composable, *, after: LiteralString = "from_at") -> sql.Composable:
    if when is When.DURING:
        return query
    order = sql.SQL("to_at desc" if when is When.BEFORE else after)
    return sql.SQL("(select * from ({}) nearest order by {} limit 1)").format(query, order)


def _within(column: str, asked: IPv4Network | IPv6Network) -> sql.Composable:
    """Equal to an address, or contained in a prefix: PostgreSQL makes a range of an index of the latter."""
    operator = "=" if asked.prefixlen == asked.max_prefixlen else "<<="
    value = str(asked.network_address) if operator == "=" else str(asked)
    return sql.SQL("{} {} {}::inet").format(sql.Identifier(column), sql.SQL(operator), sql.Literal(value))


def _around(column: str, asked: IPv4Network | IPv6Network) -> sql.Composable:
    """A prefix that contains what is asked for."""
    bits = range(min(PREFIX_BITS_MIN, asked.prefixlen), asked.prefixlen + (asked.prefixlen == asked.max_prefixlen))
    around = [str(asked.supernet(new_prefix=count)) for count in bits]
    return sql.SQL("{} = any({}::cidr[])").format(sql.Identifier(column), sql.Literal(around))


def _shown(column: str) -> sql.Composable:
    text = "{}::text" if column.endswith("prefix") else "host({})"
    return sql.SQL(text).format(sql.Identifier(column))


def network_of(text: str) -> IPv4Network | IPv6Network:
    """An address or a prefix; an IPv4 address that is written as an IPv6 one is meant. ValueError."""
    asked = ip_network(text, strict=False)
    if isinstance(asked, IPv6Network) and asked.prefixlen == 128 and asked.network_address.ipv4_mapped is not None:
        return IPv4Network(asked.network_address.ipv4_mapped)
    return asked
