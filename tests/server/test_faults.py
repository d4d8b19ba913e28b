"""kill -9 and a database that goes away, in mid-load: what was answered is in the database, once.

The list of answered records is kept by the NAS. Afterwards every session is recounted from it: a session whose last
answered record carried N octets has at least N (a record that was sent last and not answered may be there as well),
and never more than the NAS counted.
"""

from __future__ import annotations

import itertools
import os
import resource
import signal
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

import pytest
from daemon import Daemon, FakeNas, wait_until
from make import SECRET, make_nas, make_plan, make_subscriber

from sms_aaa.cli.simulator import Device, Report, Script, Simulator, accounting, login
from sms_aaa.db.engine import Unavailable, connect
from sms_aaa.db.reconcile import list_violations
from sms_aaa.node.board import Board
from sms_aaa.node.journal import Stream, stream_folder
from sms_aaa.node.journal_reader import list_files, readable_end
from sms_aaa.radius.credentials import Method
from sms_aaa.radius.dictionary import CLASS
from sms_aaa.radius.packet import Code
from sms_aaa.radius.values import AcctStatusType
from sms_aaa.rules.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Iterator

SUBSCRIBERS = 20
STEP_IN, STEP_OUT = 1_000, 5_000
WINDOW = 48


@dataclass
class Load:
    """Subscribers that log in, report four times and leave, for ever, from a thread. What was answered is noted."""

    daemon: Daemon
    answered: dict[str, int] = field(default_factory=dict)
    sent: dict[str, int] = field(default_factory=dict)
    refused: int = 0
    unanswered: int = 0
    logins: int = 0
    stopping: bool = False
    number: int = field(default_factory=itertools.count(1).__next__)
    """One daemon hears all of them, and a session's name is its own."""

    def __post_init__(self) -> None:
        self.thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping = True
        self.thread.join(60)

    def progress(self) -> int:
        return sum(self.answered.values()) + self.logins

    def _run(self) -> None:
        with Simulator(
            "127.0.0.1",
            Secret(SECRET),
            access_port=self.daemon.access_port,
            accounting_port=self.daemon.accounting_port,
            tries_max=12,
        ) as nas:
            self.digests = nas.digests
            nas.run(self._sessions(), window=WINDOW)

    def _sessions(self) -> Iterator[Script]:
        number = 0
        while not self.stopping:
            number += 1
            yield self._session(number)

    def _session(self, number: int) -> Script:
        user = number % SUBSCRIBERS
        device = Device(
            username=f"user{user}",
            password="password",
            station=f"02-00-00-{self.number:02X}-{number >> 8 & 255:02X}-{number & 255:02X}",
            port=number,
            nas_identifier="bng1",
        )
        outcome = yield login(device, Method.PAP, self.digests).question
        if outcome.reply is None or outcome.reply.code != Code.ACCESS_ACCEPT:
            self.unanswered += outcome.reply is None
            self.refused += outcome.reply is not None
            return
        self.logins += 1
        session, began = f"load-{self.number}-{number}", int(time.time())
        steps = (
            AcctStatusType.START,
            AcctStatusType.INTERIM_UPDATE,
            AcctStatusType.INTERIM_UPDATE,
            AcctStatusType.STOP,
        )
        for step, status in enumerate(steps):
            self.sent[session] = step
            report = Report(
                status=status,
                session_id=session,
                at=began + step,
                seconds=step,
                octets_in=step * STEP_IN,
                octets_out=step * STEP_OUT,
                classes=(outcome.reply.attributes[CLASS],),
            )
            reported = yield accounting(device, report)
            if reported.reply is None:
                self.unanswered += 1
                return
            self.answered[session] = step


def assert_each_answered_record_counts_once(daemon: Daemon, load: Load) -> None:
    wait_until(lambda: _settled(daemon), "everything settled and rated", 60)
    stored = {
        str(row[0]): row[1:] for row in daemon.query("select acct_session_id, octets_in, octets_out, life from session")
    }
    assert len(load.answered) > 50, "the load did something"
    for session, step in load.answered.items():
        octets_in, octets_out, life = stored[session]
        assert life == 1
        assert step * STEP_IN <= int(str(octets_in)) <= load.sent[session] * STEP_IN, session
        assert step * STEP_OUT <= int(str(octets_out)) <= load.sent[session] * STEP_OUT, session
    with connect(daemon.dsn, name="test") as connection:
        for law, violations in list_violations(connection):
            assert not violations, (law, violations)
    assert daemon.query("select kind, count(*) from anomaly group by 1") == []
    assert daemon.query("select reason from quarantine") == []


def _settled(daemon: Daemon) -> bool:
    try:
        return _is_settled(daemon)
    except Unavailable:
        return False  # it was killed a moment ago


def _is_settled(daemon: Daemon) -> bool:
    """By the journal and the database themselves: a gauge may be a second old."""
    board = Board.open(daemon.folder / "board")
    files = list_files(stream_folder(daemon.folder / "journal", Stream.ACCOUNTING))
    assert isinstance(board, Board)
    assert isinstance(files, list)
    ends = {file.sequence: readable_end(file, stream=Stream.ACCOUNTING, board=board) for file in files}
    settled = {int(str(row[0])): row[1] for row in daemon.query("select sequence, position from journal_position")}
    behind = [sequence for sequence, end in ends.items() if settled.get(sequence, 0) < end]
    return not behind and not daemon.query("select 1 from rating_queue limit 1")


def provision(daemon: Daemon) -> None:
    with daemon.desk() as desk:
        make_nas(desk)
        make_plan(desk, sessions=0)
        for user in range(SUBSCRIBERS):
            make_subscriber(desk, name=f"user{user}", password=b"password")


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """On the embedded PostgreSQL, which the supervisor starts and these tests kill."""
    running = Daemon(tmp_path_factory.mktemp("faults") / "state", dsn=None, SMS_AAA_RATING_WORKERS="2").start()
    try:
        provision(running)
        yield running
    finally:
        assert running.stop() == 0


@pytest.fixture
def daemon(embedded: Daemon) -> Daemon:
    """Well, whatever a test before did to it."""
    assert embedded.process is not None
    if embedded.process.poll() is not None:
        embedded.start(healthy=False)
    embedded.wait_healthy()
    with FakeNas(embedded, patience=0.3) as nas:
        wait_until(lambda: nas.login(b"user19", b"password"), "the replica with the provisioned rows")
    return embedded


def _wait_for_progress(load: Load, steps: int = 150) -> None:
    before = load.progress()
    wait_until(lambda: load.progress() > before + steps, "progress of the load")


def test_kill_9_of_settler_workers_and_supervisor_in_mid_load_loses_and_doubles_nothing(daemon: Daemon) -> None:
    with Load(daemon) as load:
        _wait_for_progress(load)
        daemon.kill("settler")
        _wait_for_progress(load)
        for worker in ("access-1", "access-2", "accounting-1"):
            daemon.kill(worker)
        _wait_for_progress(load)
        daemon.kill("rater")
        daemon.kill("rater-2")
        daemon.kill("replicator")
        _wait_for_progress(load)
        daemon.kill_all()
        daemon.start(healthy=False)
        _wait_for_progress(load)
        daemon.wait_healthy()
    assert load.refused == 0
    assert_each_answered_record_counts_once(daemon, load)


def test_while_postgresql_is_stopped_logins_and_accounting_go_on(daemon: Daemon) -> None:
    with Load(daemon) as load:
        _wait_for_progress(load)
        postgres = int((daemon.folder / "postgres" / "postmaster.pid").read_text().split()[0])
        os.kill(postgres, signal.SIGSTOP)  # there, and silent: worse than gone
        try:
            _wait_for_progress(load, 400)
        finally:
            os.kill(postgres, signal.SIGCONT)
        _wait_for_progress(load)
        os.kill(postgres, signal.SIGKILL)
        _wait_for_progress(load, 400)
        daemon.wait_healthy()
    assert (load.refused, load.unanswered) == (0, 0)
    assert_each_answered_record_counts_once(daemon, load)


def test_a_node_starts_and_serves_while_its_database_is_away(daemon: Daemon) -> None:
    """The replica outlives the processes; the record waits in the journal until there is a database."""
    daemon.stop()
    away = daemon.environ | {"SMS_AAA_DATABASE_DSN": "postgresql:///nowhere?host=/nonexistent"}
    lonely = Daemon(daemon.folder, dsn=None)
    lonely.environ = away | {
        "SMS_AAA_ACCESS_LISTEN": f"127.0.0.1:{lonely.access_port}",
        "SMS_AAA_ACCOUNTING_LISTEN": f"127.0.0.1:{lonely.accounting_port}",
        "SMS_AAA_METRICS_LISTEN": f"127.0.0.1:{lonely.metrics_port}",
    }
    lonely.start(healthy=False)
    try:
        with Load(lonely) as load:
            _wait_for_progress(load)
        wait_until(lambda: lonely.health()[:2] == (200, "degraded"), "a node that stays with the load balancer")
        assert "settler is not running" in lonely.health()[2]
    finally:
        assert lonely.stop() == 0
    daemon.start()
    assert_each_answered_record_counts_once(daemon, load)


def test_a_process_that_cannot_be_started_now_is_started_later_and_the_others_serve(daemon: Daemon) -> None:
    assert daemon.process is not None
    pid = daemon.process.pid
    with FakeNas(daemon, patience=20) as nas:
        limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        rater = daemon.pid_of("rater")
        failed = daemon.log.read_text().count("process-not-started")
        try:
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, limits[1]))  # a start needs a pipe
            os.kill(rater, signal.SIGKILL)
            wait_until(lambda: daemon.log.read_text().count("process-not-started") > failed + 1, "two failed starts")
            assert nas.login(b"user2", b"password") is not None
        finally:
            resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
        wait_until(lambda: daemon.pid_of("rater") not in {0, rater}, "the rater, started again")
        daemon.wait_healthy()
