"""What is past its retention: which months may go, and why one may not.

Usage is the basis of money: a month of deltas stays while the rater has one of them to rate, or while a billing cycle
that reaches into it is open. A month of sessions stays while usage of it or of an earlier month does, since a delta
says no more without its session. Port blocks go by when they were given. Rated usage stays: the books are proved by it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from psycopg import sql

from sms_aaa.db.partitions import Month, drop, impatient, list_months

if TYPE_CHECKING:
    from sms_aaa.db.engine import Connection

_LOCK = 0x736D7372  # "smsr"

_WAITING = """
select case
  when exists (select from queued_delta where to_at < %(end)s) then 'the rater has not rated all of it'
  when exists (select from suspense where to_at < %(end)s) then 'some of it is in suspense'
  when exists (select from cycle where state = 1 and starts_at < %(end)s) then 'a billing cycle that it is of is open'
end
"""


def take_turn(connection: Connection) -> bool:
    """Whether this node may drop months in this transaction: one at a time does."""
    row = connection.execute("select pg_try_advisory_xact_lock(%s)", (_LOCK,)).fetchone()
    return bool(row and row[0])


def find_need_of_deltas(connection: Connection, month: Month) -> str | None:
    """Who still needs a month of deltas, or of those before it; None: nobody."""
    row = connection.execute(_WAITING, {"end": month.plus(1).first_day()}).fetchone()
    assert row is not None
    return None if row[0] is None else str(row[0])


def find_need_of_sessions(connection: Connection, month: Month) -> str | None:
    """Who still needs a month of sessions."""
    older = [kept for kept in list_months(connection, "usage_delta") if kept <= month]
    row = connection.execute(
        "select exists (select from usage_delta_default where to_at < %s)", (month.plus(1).first_day(),)
    ).fetchone()
    assert row is not None
    return "usage of its sessions is kept" if older or row[0] else None


def find_need_of_ports(connection: Connection, month: Month) -> str | None:
    """Who still needs the port blocks that were given in a month."""
    row = connection.execute(
        sql.SQL("select exists (select from {} b join session s on s.id = b.session_id where b.to_at is null)").format(
            sql.Identifier(f"port_block_{month.suffix()}")
        )
    ).fetchone()
    assert row is not None
    return "sessions that have not gone to the history hold some of them" if row[0] else None


def drop_deltas(connection: Connection, month: Month) -> bool:
    """With those of earlier months that lie in the default partition; False when somebody is in the way."""
    connection.execute("delete from usage_delta_default where to_at < %s", (month.plus(1).first_day(),))
    if not drop(connection, "usage_delta", month):
        return False
    connection.execute(
        "update session_boundary set erased_before = greatest(erased_before, %s)", (month.plus(1).first_day(),)
    )
    return True


def drop_sessions(connection: Connection, month: Month) -> bool:
    """With what is kept beside them: anomalies, late readings, addresses that changed in mid-session."""
    name = sql.Identifier(f"session_history_{month.suffix()}")
    with impatient(connection) as attempt:
        for table in ("anomaly", "late_reading", "session_address"):
            connection.execute(
                sql.SQL("delete from {} a using {} h where a.session_id = h.id").format(sql.Identifier(table), name)
            )
    return attempt.succeeded and drop(connection, "session_history", month)
