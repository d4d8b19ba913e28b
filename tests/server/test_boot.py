"""After a boot of the machine: the live set is discarded and rebuilt, and until then logins go as is set.

A boot is what the live set takes for one: the id in its BOOT file is another than the kernel's. PostgreSQL is kept away
by a database that lets nobody in.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import psycopg
import pytest
from daemon import Daemon, FakeNas, wait_until
from make import Said, make_nas, make_plan, make_subscriber, packet_of, utc
from psycopg.conninfo import conninfo_to_dict

from sms_aaa.flows.access import read_class
from sms_aaa.radius import dictionary
from sms_aaa.radius.packet import Code, Packet, attribute

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sms_aaa.server.postgres import EmbeddedPostgres

STATIONS = [attribute(dictionary.CALLING_STATION_ID, b"02-00-00-00-00-%02d" % number) for number in range(10)]
LATER = b"Please try again in a moment."
LIMIT = b"You are already online as often as your plan allows."
SUBSCRIBERS = 20
PATIENCE_SECONDS, SILENCE_SECONDS = 20.0, 1.0
"""How long an answer is waited for that has to come; after how long of silence none comes."""
SETTINGS = ("SMS_AAA_ACCESS_UNTIL_REBUILT", "SMS_AAA_JOURNAL_RETENTION_DAYS")
UNKNOWN = "it is not known yet who was online before the boot: see access.until_rebuilt"


class Machine:
    """A node and its database; `boot` is what a power cut does."""

    def __init__(self, postgres: EmbeddedPostgres, folder: Path, dsn: str) -> None:
        self._postgres = postgres
        self._name = conninfo_to_dict(dsn)["dbname"]
        self.daemon = Daemon(folder / "state", dsn=dsn)
        self._users = itertools.count()

    def users(self, count: int) -> list[bytes]:
        """Who has not logged in yet."""
        return [b"user%d" % next(self._users) for _ in range(count)]

    def set_postgresql(self, *, away: bool) -> None:
        with psycopg.connect(self._postgres.dsn, autocommit=True) as connection:
            connection.execute(f"alter database {self._name} allow_connections {not away}")
            if away:
                connection.execute(
                    "select pg_terminate_backend(pid) from pg_stat_activity where datname = %s", (self._name,)
                )

    def boot(self, *, healthy: bool = True, **settings: str) -> None:
        self.daemon.stop()
        (self.daemon.folder / "live" / "BOOT").write_text("another boot")
        self.daemon.environ.update(settings)
        self.daemon.start(healthy=healthy)
        # The workers answer as soon as they have the replica.
        wait_until(
            lambda: self.code(b"nobody", STATIONS[0], SILENCE_SECONDS) == Code.ACCESS_REJECT, "an answer after the boot"
        )

    def login(self, username: bytes, station: bytes, patience: float = PATIENCE_SECONDS) -> Packet | None:
        with FakeNas(self.daemon, patience=patience) as nas:
            return nas.login(username, b"password", extra=station)

    def code(self, username: bytes, station: bytes, patience: float = PATIENCE_SECONDS) -> int:
        """0: silence."""
        reply = self.login(username, station, patience)
        return reply.code if reply is not None else 0

    def words(self, username: bytes, station: bytes) -> bytes:
        reply = self.login(username, station)
        assert reply is not None
        return reply.attributes.get(dictionary.REPLY_MESSAGE, b"")

    def account(self, status: str, accepted: Packet | None, session: str) -> None:
        assert accepted is not None
        named = read_class(accepted)
        assert named is not None
        seconds = {"start": None, "stop": 600}[status]
        at = utc("2026-11-10 12:00:00")
        said = Said(status=status, at=at, session=session, seconds=seconds, service_id=named[0], token=named[1])
        with FakeNas(self.daemon, patience=PATIENCE_SECONDS) as nas:
            assert nas.account(packet_of(said)) is not None

    def is_settled(self, session: str) -> bool:
        return bool(self.daemon.query(f"select from session where acct_session_id = '{session}'"))

    def rebuilt(self) -> float:
        return self.daemon.metrics()["sms_aaa_live_set_rebuilt"]


@pytest.fixture(scope="module")
def node(
    postgres: EmbeddedPostgres, new_database: Callable[[], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Machine]:
    machine = Machine(postgres, tmp_path_factory.mktemp("boot"), new_database())
    machine.daemon.start()
    try:
        with machine.daemon.desk() as desk:
            make_nas(desk)
            # Silent for up to three days: longer than the journal is kept where a test says so.
            make_plan(desk, sessions=1, interim="24h")
            make_plan(desk, name="open-end", sessions=0)
            for number in range(SUBSCRIBERS):
                make_subscriber(desk, name=f"user{number}", password=b"password")
            make_subscriber(desk, name="dave", password=b"password", plan="open-end")
        wait_until(lambda: machine.code(b"dave", STATIONS[9], SILENCE_SECONDS) == Code.ACCESS_ACCEPT, "the replica")
        yield machine
    finally:
        machine.daemon.kill_all()


@pytest.fixture
def machine(node: Machine) -> Iterator[Machine]:
    """With PostgreSQL and the default settings, whatever a test before did."""
    for name in SETTINGS:
        node.daemon.environ.pop(name, None)
    yield node
    node.set_postgresql(away=False)
    node.daemon.wait_healthy()


def test_with_postgresql_the_sessions_of_before_the_boot_hold_their_places(machine: Machine) -> None:
    [alice] = machine.users(1)
    machine.account("start", machine.login(alice, STATIONS[7]), alice.decode())
    wait_until(lambda: machine.is_settled(alice.decode()), "the session in PostgreSQL")
    machine.boot()
    assert machine.rebuilt() == 1
    assert machine.words(alice, STATIONS[1]) == LIMIT
    assert machine.code(alice, STATIONS[7]) == Code.ACCESS_ACCEPT, "the device that lost its power, too"


def test_without_postgresql_the_journal_alone_tells_who_is_online(machine: Machine) -> None:
    alice, bob, carol = machine.users(3)
    machine.account("start", machine.login(alice, STATIONS[7]), alice.decode())
    wait_until(lambda: machine.is_settled(alice.decode()), "the session in PostgreSQL")
    stopped = machine.login(bob, STATIONS[7])
    machine.account("start", stopped, bob.decode())
    machine.set_postgresql(away=True)
    machine.account("start", machine.login(carol, STATIONS[7]), carol.decode())
    machine.account("stop", stopped, bob.decode())
    machine.boot(healthy=False, SMS_AAA_ACCESS_UNTIL_REBUILT="reject")
    wait_until(lambda: machine.rebuilt() == 1, "the live set from the journal")
    assert UNKNOWN not in machine.daemon.health()[2]
    wait_until(lambda: machine.words(alice, STATIONS[1]) == LIMIT, "the worker's look at it")
    assert machine.words(carol, STATIONS[1]) == LIMIT, "what was never settled counts"
    assert machine.code(bob, STATIONS[1]) == Code.ACCESS_ACCEPT, "it had stopped"


def test_until_it_is_known_who_is_online_logins_are_rejected_where_that_is_set(machine: Machine) -> None:
    alice, bob = machine.users(2)
    machine.account("start", machine.login(alice, STATIONS[7]), alice.decode())
    wait_until(lambda: machine.is_settled(alice.decode()), "the session in PostgreSQL")
    machine.set_postgresql(away=True)
    machine.boot(healthy=False, SMS_AAA_ACCESS_UNTIL_REBUILT="reject", SMS_AAA_JOURNAL_RETENTION_DAYS="1")
    assert machine.words(alice, STATIONS[7]) == LATER
    assert machine.words(bob, STATIONS[2]) == LATER
    assert machine.code(b"dave", STATIONS[3]) == Code.ACCESS_ACCEPT, "a plan without a limit waits for nobody"
    assert machine.rebuilt() == 0
    status, _, problems = machine.daemon.health()
    assert status == 200, "logins are answered"
    assert UNKNOWN in problems
    machine.set_postgresql(away=False)
    wait_until(lambda: machine.rebuilt() == 1, "the live set from PostgreSQL")
    wait_until(lambda: machine.code(bob, STATIONS[2]) == Code.ACCESS_ACCEPT, "the worker's look at it")
    wait_until(lambda: machine.words(alice, STATIONS[1]) == LIMIT, "the other worker's look at it")
    machine.daemon.wait_healthy()


def test_until_it_is_known_who_is_online_nobody_is_answered_where_that_is_set(machine: Machine) -> None:
    [bob] = machine.users(1)
    machine.set_postgresql(away=True)
    machine.boot(healthy=False, SMS_AAA_ACCESS_UNTIL_REBUILT="silence", SMS_AAA_JOURNAL_RETENTION_DAYS="1")
    assert machine.code(bob, STATIONS[2], SILENCE_SECONDS) == 0
    assert machine.code(b"dave", STATIONS[3]) == Code.ACCESS_ACCEPT
    assert machine.daemon.metrics()['sms_aaa_shed_total{kind="places"}'] >= 1
    machine.set_postgresql(away=False)
    wait_until(
        lambda: machine.code(bob, STATIONS[2], SILENCE_SECONDS) == Code.ACCESS_ACCEPT, "an answer when it is known"
    )
    assert machine.rebuilt() == 1


def test_by_default_logins_go_on_by_what_is_known_so_far(machine: Machine) -> None:
    alice, bob = machine.users(2)
    machine.account("start", machine.login(alice, STATIONS[7]), alice.decode())
    wait_until(lambda: machine.is_settled(alice.decode()), "the session in PostgreSQL")
    machine.set_postgresql(away=True)
    machine.boot(healthy=False, SMS_AAA_JOURNAL_RETENTION_DAYS="1")
    assert machine.code(alice, STATIONS[7]) == Code.ACCESS_ACCEPT
    assert machine.words(alice, STATIONS[1]) == LIMIT, "its reservation is known"
    assert machine.code(bob, STATIONS[2]) == Code.ACCESS_ACCEPT
    assert machine.rebuilt() == 0
    machine.account("start", machine.login(bob, STATIONS[2]), bob.decode())
