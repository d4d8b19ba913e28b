"""The database as the daemon meets it: brought up by the supervisor's side thread, lost and found again by children.

No worker waits for any of this: they start from the replica. The embedded PostgreSQL is started and its schema brought
up to date; a configured one is only looked at, for its schema is its administrator's (`sms-aaa db upgrade`). A schema
that this program does not know is not touched, and what needs the database is not started until that is mended.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from sms_aaa.db.engine import Connection, Misfit, TimedOut, Unavailable, connect
from sms_aaa.db.schema import SchemaState, find_status, upgrade
from sms_aaa.server.postgres import EmbeddedPostgres, PostgresError

if TYPE_CHECKING:
    from collections.abc import Callable

    from sms_aaa.config import Settings
    from sms_aaa.server.log import Log
    from sms_aaa.server.worker import Child

RETRY_SECONDS = 1.0
REMIND_SECONDS = 30.0
STOP_SECONDS_MAX = 90.0


def work_with_database(
    child: Child, work: Callable[[Connection], None], *, repeatable: bool, while_away: Callable[[], None] | None = None
) -> None:
    """Calls `work` with a connection until the child is to end; when PostgreSQL goes away, waits and begins anew."""
    timeout = child.settings.database.statement_timeout_seconds
    while not child.stopping:
        try:
            # Those who start without PostgreSQL are not told where it is: the embedded one is not up yet.
            dsn = child.order.dsn.reveal().decode() or child.find_dsn()
            if dsn:
                with connect(
                    dsn, name=child.order.name, statement_timeout_seconds=timeout, repeatable=repeatable
                ) as connection:
                    work(connection)
                continue
        except Unavailable as away:
            event = "statement-timeout" if isinstance(away, TimedOut) else "database-away"
            child.log.warning(event, reason=_first_line(away))
        child.beat()
        if while_away is not None:
            while_away()
        time.sleep(RETRY_SECONDS)


class Database:
    """Brings the database up beside the supervisor's loop. `dsn` is None until what needs it may start."""

    def __init__(self, settings: Settings, log: Log) -> None:
        self._settings = settings
        self._log = log
        self._postgres: EmbeddedPostgres | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._keep_up, name="database", daemon=True)
        self.dsn: str | None = None
        self.problem = "the database is being started"

    @property
    def embedded_dsn(self) -> str:
        return self._postgres.dsn if self._postgres is not None else ""

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(timeout=STOP_SECONDS_MAX)

    def _keep_up(self) -> None:
        """The thread stays: the embedded server ends when the thread that started it does."""
        reminded = 0.0
        while not self._stopping.is_set():
            problem = self._look_after() or ""
            if problem and (problem != self.problem or time.monotonic() - reminded > REMIND_SECONDS):
                self._log.error("database-not-ready", reason=problem)
                reminded = time.monotonic()
            self.problem = problem
            self._stopping.wait(RETRY_SECONDS)
        if self._postgres is not None:
            self._postgres.stop()

    def _look_after(self) -> str | None:
        """What keeps the database from being used, in words without a piece of the DSN; None when nothing does."""
        try:
            return None if self.dsn is not None and self._is_running() else self._try()
        except (*Unavailable, PostgresError) as fault:
            return _first_line(fault)
        except Misfit as fault:
            return f"{_told(fault)}; see the options in database.dsn and the rights of its role"
        except Exception as fault:  # noqa: BLE001 - whatever it was: without this thread the embedded server ends
            return f"{_told(fault)}; see the log of PostgreSQL and the disk, it is tried again"

    def _is_running(self) -> bool:
        if self._postgres is None:
            return True  # a configured one is its administrator's to keep
        self._postgres.trim_log()
        return self._postgres.is_running()

    def _try(self) -> str | None:
        """None when the database is there with the schema that this program needs."""
        dsn = self._start_embedded() if self._settings.database.embedded else self._configured()
        with connect(dsn, name="supervisor") as connection:
            status = find_status(connection)
        if self._settings.database.embedded and status.state in {SchemaState.EMPTY, SchemaState.OLD}:
            upgrade(dsn)
            self._log.info("schema-upgraded", revision=status.needed)
        elif status.state is not SchemaState.CURRENT:
            return _schema_problem(status.state, status.revision, status.needed)
        self.dsn = dsn
        return None

    def _configured(self) -> str:
        return self._settings.database.dsn.reveal().decode()

    def _start_embedded(self) -> str:
        folder = Path(self._settings.node.state_folder) / "postgres"
        if self._postgres is None or not self._postgres.is_running():
            self._postgres = EmbeddedPostgres.start(folder)
        return self._postgres.dsn


def _first_line(fault: BaseException) -> str:
    return str(fault).strip().partition("\n")[0]


def _told(fault: Exception) -> str:
    """The error's kind, and what the server itself said: what libpq says of a DSN that it cannot read quotes it."""
    cause = fault.__cause__ or fault  # SQLAlchemy's errors carry psycopg's
    said = cause.diag.message_primary if isinstance(cause, (*Misfit, *Unavailable)) else None
    return f"{type(cause).__name__}: {said}" if said else type(cause).__name__


def _schema_problem(state: SchemaState, revision: str, needed: str) -> str:
    if state is SchemaState.UNKNOWN:
        return (
            f"the database has schema {revision}, which this program does not know (it needs {needed}): "
            "run the program that goes with it"
        )
    has = "no schema" if state is SchemaState.EMPTY else f"schema {revision}"
    return f"the database has {has}, needed is {needed}: run `sms-aaa db upgrade`"
