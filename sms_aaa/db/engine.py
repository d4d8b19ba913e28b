"""Connections to PostgreSQL.

Statements are plain SQL through psycopg: what stands in db/ is what the server sees, COPY and statements share one
transaction, and the command line need not import a second layer. (SQLAlchemy serves Alembic alone.) A function
of this room takes an open connection; whoever opened it commits.
"""

from __future__ import annotations

import struct
from typing import Any

import psycopg
from psycopg import Connection as PsycopgConnection

import sms_aaa.db.binary  # noqa: F401 - a connection takes over the adapters that were registered before it was made
from sms_aaa.db.meanwhile import BusyConnection

Connection = PsycopgConnection[Any]

CONNECT_TIMEOUT_SECONDS = 5

Unavailable = (psycopg.OperationalError, psycopg.InterfaceError)
"""The database cannot be reached or went away: try again later, nothing of the transaction is stored."""

TimedOut = (psycopg.errors.QueryCanceled, psycopg.errors.LockNotAvailable)
"""Those of `Unavailable` with which the server is there: a statement, or its wait for a lock, took too long."""

Conflict = (psycopg.errors.SerializationFailure, psycopg.errors.DeadlockDetected, psycopg.errors.UniqueViolation)
"""Somebody else was faster: the same transaction may succeed when it is tried again."""

Poison = (psycopg.DataError, psycopg.IntegrityError, psycopg.errors.ProgramLimitExceeded, struct.error)
"""A row that the schema refuses, whenever it is tried: somebody must look at it. (By db/binary.py it is refused before
it is sent: a value is out of its type's range.) One that is too big for its table or an index is one of `Unavailable`
too, so this is caught first.
"""

Misfit = (psycopg.ProgrammingError,)
"""A DSN that cannot be read, or a statement that does not fit the database: a table or a right is missing."""


class Outrun(psycopg.errors.SerializationFailure):
    """Seen here and not by the server: what was read is not what was locked then. One of `Conflict`."""


UniqueViolation = psycopg.errors.UniqueViolation


def connect(dsn: str, *, name: str, statement_timeout_seconds: int = 30, repeatable: bool = False) -> Connection:
    """An open connection, no transaction begun. Raises one of `Unavailable`.

    `name` is seen in pg_stat_activity. Time zone UTC, so that every timestamp is read as UTC. `repeatable`: the work
    is done again if the server forgets its last commits in a crash, as it forgets where that work stood with them; so
    a commit need not wait for the disk.
    """
    options = f"-c statement_timeout={statement_timeout_seconds}s -c lock_timeout=10s -c timezone=UTC"
    if repeatable:
        options += " -c synchronous_commit=off"
    return BusyConnection.connect(
        dsn,
        connect_timeout=CONNECT_TIMEOUT_SECONDS,
        application_name=f"sms-aaa {name}",
        options=options,
        keepalives_idle=10,
        keepalives_interval=3,
        keepalives_count=3,
    )


def join_by_key(connection: Connection) -> None:
    """From now on joins look up row by row through an index, where there is one.

    For who joins batches of thousands to tables of millions. The planner, told 5,000 keys, would read such a table
    through instead, and that takes the longer the more there is in it. Commits.
    """
    connection.execute("set enable_hashjoin = off")
    connection.execute("set enable_mergejoin = off")
    connection.execute("set enable_seqscan = off")
    connection.commit()


def begin_snapshot(connection: Connection) -> None:
    """Begins a transaction that sees one instant throughout."""
    connection.execute("set transaction isolation level repeatable read, read only")


def widen_memory(connection: Connection) -> None:
    """Until the transaction ends: statements over whole tables sort and hash in memory, and not on the disk."""
    connection.execute("set local work_mem = '256MB'")


def listen(connection: Connection, channel: str) -> None:
    """Hears NOTIFY on `channel` from now on; the connection is put into autocommit."""
    connection.autocommit = True
    connection.execute(psycopg.sql.SQL("listen {}").format(psycopg.sql.Identifier(channel)))


def wait_for_notification(connection: Connection, timeout_seconds: float) -> bool:
    """True when something was notified within the time."""
    return any(True for _ in connection.notifies(timeout=timeout_seconds, stop_after=1))
