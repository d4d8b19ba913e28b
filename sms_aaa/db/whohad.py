"""Who had an address, a prefix or a port: asked of the sessions at hand, the history, former addresses, port blocks.

Each of these answers by an index of its own, whose columns are the address and then the time. An IPv6 prefix that was
given to a session contains the addresses that are asked for: so all prefixes that contain these are looked up, each by
the same index. What costs time here is not the reading but the planning, which grows with the partitions that a
statement names: so the months that cannot matter are ruled out by constants, and whose a session is is asked for with
it, in one statement.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import TYPE_CHECKING, LiteralString

from psycopg import sql
from psycopg.rows import class_row, dict_row

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
class Span:
    """Instants, in UTC or with an offset."""

    since: datetime
    until: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a session had, and when. `kind`: a column of `session`, or port_block.

    `heard_at`, `to_at`: None where the session itself tells it. Ports and protocol (0: all): of port blocks only.
    """

    session_id: int
    kind: str
    address: str
    port_from: int | None = None
    port_to: int | None = None
    protocol: int | None = None
    from_at: datetime
    heard_at: datetime | None = None
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


_OF_SESSION: LiteralString = """id, nas_id, service_id, username, calling_station_id, nas_ip, nas_identifier, nas_port,
    nas_port_id, circuit_id, acct_session_id, state, started_at, updated_at, stopped_at, estimated, terminate_cause,
    reading_node, reading_sequence, reading_offset"""

_WHOSE: LiteralString = """s.id as session_id, b.name as subscriber, s.service_id, v.identity, s.username,
    s.calling_station_id, n.name as nas, host(s.nas_ip) as nas_ip, s.nas_identifier, s.nas_port, s.nas_port_id,
    s.circuit_id, s.acct_session_id, s.state, s.started_at, s.updated_at, s.stopped_at, s.estimated, s.terminate_cause,
    exists (select from anomaly a where a.session_id = s.id and a.kind = %(clock)s) as clock_is_odd,
    s.reading_node as node, s.reading_sequence as sequence, s.reading_offset as record_offset"""

_WITH: LiteralString = """join nas n on n.id = s.nas_id left join service v on v.id = s.service_id
    left join subscriber b on b.id = v.subscriber_id"""


def list_by_session(
    connection: Connection, asked: IPv4Network | IPv6Network, when: When, span: Span, *, limit: int
) -> list[tuple[Found, Holder]]:
    """Sessions that have what is asked for in their row. For BEFORE and AFTER the nearest first.

    `asked` with all its bits is an address.
    """
    query = sql.SQL("select s.kind, s.address, s.from_at, {} from ({}) s {} order by {} limit %(limit)s").format(
        sql.SQL(_WHOSE), sql.SQL(" union all ").join(_sessions(asked, when)), sql.SQL(_WITH), sql.SQL(_ORDER[when])
    )
    values = {"since": span.since, "until": span.until, "limit": limit, "clock": AnomalyKind.CLOCK.value}
    rows = connection.cursor(row_factory=dict_row).execute(query, values).fetchall()
    return [
        (
            Found(
                session_id=row["session_id"],
                kind=row.pop("kind"),
                address=row.pop("address"),
                from_at=row.pop("from_at"),
                to_at=row["stopped_at"],
            ),
            Holder(**row),
        )
        for row in rows
    ]


_ORDER: dict[When, LiteralString] = {
    When.DURING: "s.from_at, s.id",
    When.BEFORE: "s.stopped_at desc",
    When.AFTER: "s.from_at",
}


def list_former(
    connection: Connection, asked: IPv4Network | IPv6Network, when: When, span: Span, *, limit: int
) -> list[Found]:
    """Addresses that changed in mid-session: what contains what is asked for, or lies in it."""
    query = sql.SQL(
        """select session_id, kind, case when kind like '%%prefix' then address::text else host(address) end as address,
                  from_at, heard_at, to_at
           from session_address where address && {}::inet and {} order by {} limit %(limit)s"""
    ).format(
        sql.Literal(str(asked)),
        _when(when, "from_at", "to_at"),
        sql.SQL("to_at desc" if when is When.BEFORE else "from_at"),
    )
    with connection.cursor(row_factory=class_row(Found)) as cursor:
        return cursor.execute(query, {"since": span.since, "until": span.until, "limit": limit}).fetchall()


def list_port_blocks(
    connection: Connection, asked: IPv4Network | IPv6Network, port: int | None, when: When, span: Span, *, limit: int
) -> list[Found]:
    """Blocks, of an address outside a NAT, with the port. One without an end is held as long as its session.

    So of those that began before the span some have ended with their session: the caller looks.
    """
    if asked.version == 6:
        return []
    query = sql.SQL(
        """select session_id, 'port_block' as kind, host(address) as address, port_from, port_to,
                  protocol::int, from_at, null::timestamptz as heard_at, to_at
           from port_block where {} and {} and {} order by {} limit %(limit)s"""
    ).format(
        _within("address", asked),
        sql.SQL("port_from <= %(port)s and port_to >= %(port)s" if port is not None else "true"),
        sql.SQL(_OF_BLOCK[when]),
        sql.SQL("from_at" if when is When.AFTER else "from_at desc"),
    )
    values = {"since": span.since, "until": span.until, "port": port, "limit": limit}
    with connection.cursor(row_factory=class_row(Found)) as cursor:
        return cursor.execute(query, values).fetchall()


_OF_BLOCK: dict[When, LiteralString] = {
    When.DURING: "from_at <= %(until)s and (to_at is null or to_at >= %(since)s)",
    When.BEFORE: "from_at < %(since)s",
    When.AFTER: "from_at > %(until)s",
}


def list_holders(connection: Connection, session_ids: Sequence[int]) -> dict[int, Holder]:
    """By session id."""
    query = sql.SQL("select {} from session_all s {} where s.id = any(%(ids)s)").format(sql.SQL(_WHOSE), sql.SQL(_WITH))
    values = {"ids": list(session_ids), "clock": AnomalyKind.CLOCK.value}
    with connection.cursor(row_factory=class_row(Holder)) as cursor:
        return {holder.session_id: holder for holder in cursor.execute(query, values)}


def _sessions(asked: IPv4Network | IPv6Network, when: When) -> list[sql.Composable]:
    """Of those at hand and of the history, column by column."""
    text = """select {kind} as kind, {shown} as address, coalesce(addressed_at, started_at) as from_at, {all}
              from {table} where {match} and {when}"""
    whens = {
        "session": _when(when, "coalesce(addressed_at, started_at)", "stopped_at"),
        "session_history": sql.SQL(_IN_HISTORY[when]),
    }
    return [
        _nearest(
            when,
            sql.SQL(text).format(
                kind=sql.Literal(column),
                shown=_shown(column),
                all=sql.SQL(_OF_SESSION),
                table=sql.Identifier(table),
                match=match,
                when=of_table,
            ),
            after="stopped_at" if table == "session_history" else "from_at",
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


def _when(when: When, from_at: LiteralString, to_at: LiteralString) -> sql.Composable:
    return sql.SQL(when.value).format(from_at=sql.SQL(from_at), to_at=sql.SQL(to_at))


def _nearest(when: When, query: sql.Composable, *, after: LiteralString) -> sql.Composable:
    if when is When.DURING:
        return query
    order = sql.SQL("stopped_at desc" if when is When.BEFORE else after)
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
    text: LiteralString = "{}::text" if column.endswith("prefix") else "host({})"
    return sql.SQL(text).format(sql.Identifier(column))


def network_of(text: str) -> IPv4Network | IPv6Network:
    """An address or a prefix; an IPv4 address that is written as an IPv6 one is meant. ValueError."""
    asked = ip_network(text, strict=False)
    if isinstance(asked, IPv6Network) and asked.prefixlen == 128 and asked.network_address.ipv4_mapped is not None:
        return IPv4Network(asked.network_address.ipv4_mapped)
    return asked
