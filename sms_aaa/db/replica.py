"""What the replicator asks of PostgreSQL beside the feed: what becomes due by its date, and time to read everything."""

from __future__ import annotations

from typing import TYPE_CHECKING

from psycopg import sql

if TYPE_CHECKING:
    from sms_aaa.db.engine import Connection

READ_ALL_SECONDS = 900
"""For a statement that reads everything, while others end after database.statement_timeout_seconds."""

_DATED = ("subscription", "assignment")
"""Tables with a service_id whose rows hold `during` a time: nothing is written when it begins or ends."""

_DUE = sql.SQL(" union ").join(
    sql.SQL(
        """select service_id from {table}
           where lower(during) between {since} and now()
           union
           select service_id from {table}
           where upper(during) between {since} and now() and not upper_inf(during)"""
    ).format(table=sql.Identifier(table), since=sql.SQL("to_timestamp(%(since)s / 1e6)"))
    for table in _DATED
)


def get_instant(connection: Connection) -> int:
    """The transaction's now() in microseconds of the epoch: by it dates are evaluated."""
    row = connection.execute("select (extract(epoch from now()) * 1000000)::bigint").fetchone()
    assert row is not None
    return int(row[0])


def list_due(connection: Connection, since_us: int) -> list[int]:
    """The services for which something began or ended between `since_us` and this transaction's now().

    A transaction may see rows that are dated after its now(); they are due in the next one.
    """
    return [int(row[0]) for row in connection.execute(_DUE, {"since": since_us}).fetchall()]


def prepare_to_read_all(connection: Connection) -> None:
    """For the rest of the transaction: statements may take long, and are planned for their last row."""
    connection.execute(sql.SQL("set local statement_timeout = {}").format(sql.Literal(f"{READ_ALL_SECONDS}s")))
    connection.execute("set local cursor_tuple_fraction = 1")
    connection.execute("set local work_mem = '64MB'")
