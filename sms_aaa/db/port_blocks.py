"""Ports behind NATs: which session had which of them, from when, and until when if that was told."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, LiteralString

from msgspec import Struct
from psycopg import sql

from sms_aaa.rules.session import Place

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sms_aaa.db.engine import Connection


class ToldBlock(Struct, frozen=True, gc=False):
    """A block as a record told it, and when. `address` None: of those that are free again, whatever it is."""

    session_id: int
    address: str | None
    port_from: int
    port_to: int
    protocol: int
    at: datetime
    place: Place


_TOLD = sql.SQL(
    """unnest(%(sessions)s::bigint[], %(addresses)s::inet[], %(froms)s::int[], %(tos)s::int[],
                  %(protocols)s::smallint[], %(ats)s::timestamptz[], %(nodes)s::text[], %(sequences)s::bigint[],
                  %(offsets)s::bigint[])
  t(session_id, address, port_from, port_to, protocol, at, node, sequence, record_offset)"""
)
_SAME = sql.SQL(
    """b.session_id = t.session_id and b.address = t.address and b.port_from = t.port_from
  and b.port_to = t.port_to and b.protocol = t.protocol and b.from_at >= %(since)s"""
)


def give_blocks(connection: Connection, told: Sequence[ToldBlock], *, since: datetime) -> None:
    """Blocks that sessions have. One that is known to be held then is left; told earlier than known, it is longer.

    `since`: no session of these began before it: months before are not looked into.
    """
    values = _values(told, since)
    _execute(
        connection,
        """update port_block b set from_at = t.at from {told}
            where {same} and b.from_at > t.at and (b.to_at is null or b.to_at >= t.at)
              and not exists (select from port_block c where c.session_id = b.session_id and c.address = b.address
                and c.port_from = b.port_from and c.port_to = b.port_to and c.protocol = b.protocol
                and c.from_at >= %(since)s and c.from_at < b.from_at and coalesce(c.to_at, 'infinity') >= t.at)""",
        values,
    )
    _execute(
        connection,
        """insert into port_block (session_id, address, port_from, port_to, protocol, from_at, node, sequence,
                                    record_offset)
            select distinct on (session_id, address, port_from, port_to, protocol)
                   session_id, address, port_from, port_to, protocol, at, node, sequence, record_offset
            from {told}
            where not exists (select from port_block b where {same} and coalesce(b.to_at, 'infinity') >= t.at)
            order by session_id, address, port_from, port_to, protocol, at
            on conflict do nothing""",
        values,
    )


def free_blocks(connection: Connection, told: Sequence[ToldBlock], *, since: datetime) -> None:
    """Blocks that sessions have no more: all of theirs that lie within. One that was never told is kept as ended."""
    values = _values(told, since)
    _execute(
        connection,
        """update port_block b set to_at = t.at from {told}
            where b.session_id = t.session_id and b.from_at >= %(since)s and b.from_at <= t.at and b.to_at is null
              and (t.address is null or b.address = t.address)
              and b.port_from >= t.port_from and b.port_to <= t.port_to and t.protocol in (0, b.protocol)""",
        values,
    )
    _execute(
        connection,
        """insert into port_block (session_id, address, port_from, port_to, protocol, from_at, to_at, node, sequence,
                                    record_offset)
            select session_id, address, port_from, port_to, protocol, at, at, node, sequence, record_offset
            from {told}
            where address is not null
              and not exists (select from port_block b where {same} and b.from_at <= t.at)
            on conflict do nothing""",
        values,
    )


def _execute(connection: Connection, statement: LiteralString, values: dict[str, object]) -> None:
    connection.execute(sql.SQL(statement).format(told=_TOLD, same=_SAME), values)


def _values(told: Sequence[ToldBlock], since: datetime) -> dict[str, object]:
    return {
        "since": since,
        "sessions": [one.session_id for one in told],
        "addresses": [one.address for one in told],
        "froms": [one.port_from for one in told],
        "tos": [one.port_to for one in told],
        "protocols": [one.protocol for one in told],
        "ats": [one.at for one in told],
        "nodes": [one.place.node for one in told],
        "sequences": [one.place.sequence for one in told],
        "offsets": [one.place.offset for one in told],
    }
