"""The replica in a running server: damaged it is built anew, old it serves as set, and changes come by their date.

Damage is made as a failing disk makes it: octets of the file change under everybody's feet.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
from daemon import Daemon, FakeNas, started, wait_until
from make import make_nas, make_plan, make_subscriber

from sms_aaa.db.schema import upgrade
from sms_aaa.flows.provisioning.subscribers import set_state
from sms_aaa.node.replica import Replica, read_current, replica_folder
from sms_aaa.node.replica_writer import Applied, ReplicaChanges, ReplicaWriter
from sms_aaa.radius.packet import Code
from sms_aaa.rules.entitlement import ServiceState
from sms_aaa.rules.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sms_aaa.server.postgres import EmbeddedPostgres

CROWD = 3_000
PAGE_OCTETS = 4096


def provision(daemon: Daemon) -> None:
    with daemon.desk() as desk:
        make_nas(desk)
        make_plan(desk, sessions=0)
        make_subscriber(desk, name="alice", password=b"wonderland")
        make_subscriber(desk, name="bob", password=b"builder")
        crowd = "insert into subscriber (name) select 'crowd' || i from generate_series(1, %s) i"
        desk.connection.execute(crowd, (CROWD,))
        desk.connection.execute(
            """insert into service (subscriber_id, identity_kind, identity, state)
               select id, 1, name, 1 from subscriber where name like 'crowd%'"""
        )
    with FakeNas(daemon, patience=0.3) as nas:
        wait_until(lambda: accepts(nas), "the replica with the provisioned rows")
    wait_until(lambda: services(daemon) == CROWD + 2, "the crowd in the replica")


@pytest.fixture
def daemon(database_dsn: str, tmp_path: Path) -> Iterator[Daemon]:
    """For those who damage it or set it otherwise."""
    for running in started(tmp_path / "state", database_dsn):
        provision(running)
        yield running


@pytest.fixture(scope="module")
def steady(postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """For those who leave it as it was."""
    name = "replica_story"
    with psycopg.connect(postgres.dsn, autocommit=True) as connection:
        connection.execute(f"create database {name}")
    upgrade(postgres.dsn_for(name))
    for running in started(tmp_path_factory.mktemp("steady") / "state", postgres.dsn_for(name)):
        provision(running)
        yield running
    with psycopg.connect(postgres.dsn, autocommit=True) as connection:
        connection.execute(f"drop database {name} with (force)")


def login(nas: FakeNas, name: bytes = b"alice", password: bytes = b"wonderland") -> int | None:
    reply = nas.login(name, password)
    return None if reply is None else reply.code


def accepts(nas: FakeNas, name: bytes = b"alice", password: bytes = b"wonderland") -> bool:
    return login(nas, name, password) == Code.ACCESS_ACCEPT


@contextmanager
def opened(daemon: Daemon) -> Iterator[Replica]:
    replica = Replica.open(daemon.folder)
    assert isinstance(replica, Replica), replica
    yield replica
    replica.close()


def services(daemon: Daemon) -> int:
    with opened(daemon) as replica:
        return replica.size().services


def generation(daemon: Daemon) -> str:
    current = read_current(daemon.folder)
    return current if isinstance(current, str) else ""


def data_file(daemon: Daemon) -> Path:
    return replica_folder(daemon.folder) / generation(daemon) / "data.mdb"


def shell(daemon: Daemon, *arguments: str) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("sms-aaa")
    return subprocess.run(
        [program, *arguments], env=daemon.environ, capture_output=True, text=True, check=False, timeout=90
    )


def places_of(daemon: Daemon, name: bytes) -> list[int]:
    """Where the record of a user name stands in the file."""
    octets = data_file(daemon).read_bytes()
    at, found = octets.find(b"\x01" + name), []
    while at >= 0:
        found.append(at)
        at = octets.find(b"\x01" + name, at + 1)
    return found


def overwrite(daemon: Daemon, at: int, octets: bytes) -> None:
    with data_file(daemon).open("r+b") as file:
        file.seek(at)
        file.write(octets)


def flip_a_bit_of_each_record(daemon: Daemon) -> None:
    octets = data_file(daemon).read_bytes()
    for place in places_of(daemon, b"bob"):
        at = place + 12
        overwrite(daemon, at, bytes([octets[at] ^ 4]))


def zero_the_pages(daemon: Daemon) -> None:
    for at in places_of(daemon, b"bob"):
        overwrite(daemon, at - at % PAGE_OCTETS, bytes(PAGE_OCTETS))


def scribble_over_the_pages(daemon: Daemon) -> None:
    dice = random.Random(11)
    for at in places_of(daemon, b"bob"):
        overwrite(daemon, at - at % PAGE_OCTETS, dice.randbytes(PAGE_OCTETS))


@pytest.mark.parametrize("damage", [flip_a_bit_of_each_record, zero_the_pages, scribble_over_the_pages])
def test_a_damaged_replica_is_found_and_built_anew_and_logins_are_served(daemon: Daemon, damage) -> None:
    before = generation(daemon)
    damage(daemon)
    with FakeNas(daemon, patience=0.3) as nas:
        wait_until(lambda: generation(daemon) not in {before, ""}, "another generation", 40)
        wait_until(lambda: accepts(nas, b"bob", b"builder"), "a login of the damaged record's owner")
        assert accepts(nas)
    assert services(daemon) == CROWD + 2
    assert "replica-damaged" in daemon.log.read_text()
    assert daemon.metrics()["sms_aaa_replica_damages_total"] == 1
    assert shell(daemon, "replica", "verify").returncode == 0


def test_a_login_that_meets_a_damaged_record_meets_silence_and_another_its_answer(daemon: Daemon) -> None:
    os.kill(daemon.pid_of("replicator"), 19)  # SIGSTOP: nobody mends it yet
    try:
        flip_a_bit_of_each_record(daemon)
        with FakeNas(daemon) as nas:
            assert login(nas, b"bob", b"builder") is None
            assert accepts(nas)
        faults = "sms_aaa_replica_read_faults_total"
        wait_until(lambda: daemon.metrics()[faults] >= 1, "the count of it", 5)
    finally:
        os.kill(daemon.pid_of("replicator"), 18)
    with FakeNas(daemon, patience=0.3) as nas:
        wait_until(lambda: accepts(nas, b"bob", b"builder"), "a login once it is mended")


def cut_it(daemon: Daemon) -> None:
    os.truncate(data_file(daemon), data_file(daemon).stat().st_size // 2)


def remove_current(daemon: Daemon) -> None:
    (replica_folder(daemon.folder) / "CURRENT").unlink()


def remove_the_file(daemon: Daemon) -> None:
    data_file(daemon).unlink()


@pytest.mark.parametrize("spoil", [cut_it, remove_current, remove_the_file])
def test_what_is_missing_of_it_comes_again(daemon: Daemon, spoil) -> None:
    before = data_file(daemon)
    spoil(daemon)
    daemon.kill("replicator")  # CURRENT is read at a start
    with FakeNas(daemon, patience=0.3) as nas:
        wait_until(lambda: generation(daemon) and data_file(daemon) != before, "another generation", 40)
        wait_until(lambda: accepts(nas), "a login")
    assert services(daemon) == CROWD + 2
    daemon.wait_healthy()


def test_a_rebuild_that_is_asked_for_takes_no_login_its_answer(steady: Daemon) -> None:
    before, codes, stop = generation(steady), [], threading.Event()

    def knock() -> None:
        with FakeNas(steady) as nas:
            while not stop.is_set():
                codes.append(login(nas))

    knocking = threading.Thread(target=knock)
    knocking.start()
    try:
        asked = shell(steady, "replica", "rebuild", "--yes", "--ticket", "CHG-17")
    finally:
        stop.set()
        knocking.join()
    assert asked.returncode == 0, asked.stderr
    assert generation(steady) != before
    assert f"{generation(steady)} is current: {CROWD + 2} services, 1 plans, 1 NASes" in asked.stdout
    assert "ticket CHG-17" in steady.log.read_text()
    assert set(codes) == {Code.ACCESS_ACCEPT}
    assert [path.name for path in replica_folder(steady.folder).glob("generation-*")] == [generation(steady)]


def test_a_check_while_things_change_finds_no_difference(steady: Daemon) -> None:
    stop = threading.Event()

    def change() -> None:
        state = 2
        while not stop.is_set():
            steady.execute(f"update service set state = {state} where identity like 'crowd%5'")
            state = 3 - state
            time.sleep(0.05)

    changing = threading.Thread(target=change)
    changing.start()
    try:
        checked = [shell(steady, "replica", "verify") for _ in range(3)]
    finally:
        stop.set()
        changing.join()
    assert [(one.returncode, one.stdout) for one in checked] == [(0, "no difference\n")] * 3, checked


def test_a_change_is_live_during_a_bulk_change(steady: Daemon) -> None:
    steady.execute("update service set static_ipv4 = null, state_reason = 'bulk' where identity like 'crowd%'")
    with steady.desk() as desk:
        set_state(desk, "alice", ServiceState.SUSPENDED, "unpaid")
    with FakeNas(steady, patience=0.3) as nas:
        wait_until(lambda: login(nas) == Code.ACCESS_REJECT, "the suspension")
        with steady.desk() as desk:
            set_state(desk, "alice", ServiceState.ACTIVE, "paid")
        wait_until(lambda: accepts(nas), "the restoration")


def test_a_subscription_that_ends_by_its_date_ends_at_the_nas(steady: Daemon) -> None:
    ends = time.monotonic() + 3
    steady.execute(
        """update subscription u set during = tstzrange(lower(during), now() + interval '3 s')
           from service s where s.id = u.service_id and s.identity = 'bob'"""
    )
    with FakeNas(steady, patience=0.3) as nas:
        assert accepts(nas, b"bob", b"builder")
        wait_until(lambda: login(nas, b"bob", b"builder") == Code.ACCESS_REJECT, "the end")
        assert time.monotonic() > ends - 0.1
        assert accepts(nas)


# Age


def make_old(daemon: Daemon, *, seconds: int) -> None:
    """The replica of a node whose PostgreSQL went away so long ago."""
    with opened(daemon) as replica:
        meta = replica.meta()
    writer = ReplicaWriter.open(daemon.folder, database_id=meta.database_id)
    assert isinstance(writer, ReplicaWriter)
    refreshed_ns = time.time_ns() - seconds * 1_000_000_000
    changes = ReplicaChanges(cursor=meta.cursor, dated_us=meta.dated_us, refreshed_ns=refreshed_ns)
    assert isinstance(writer.apply(changes), Applied)
    writer.close()


def without_database(daemon: Daemon, **settings: str) -> None:
    daemon.stop()
    make_old(daemon, seconds=100)
    away = {"SMS_AAA_DATABASE_DSN": "postgresql:///nowhere?host=/nonexistent"}
    daemon.environ |= away | {f"SMS_AAA_REPLICA_{key.upper()}": value for key, value in settings.items()}
    daemon.start(healthy=False)
    wait_until(lambda: daemon.log.read_text().count('"serving"') >= 6, "workers that serve again")


def told_age(daemon: Daemon) -> tuple[int, str, list[str]]:
    code, status, problems = daemon.health()
    return code, status, [problem for problem in problems if "the replica is" in problem]


@pytest.mark.parametrize("age", ["0", "3600"])
def test_a_node_serves_however_old_its_replica_is_unless_it_is_told_not_to(daemon: Daemon, age: str) -> None:
    """It was started anew without its database, and knows the age all the same."""
    without_database(daemon, age_seconds_max=age, when_too_old="silence")
    with FakeNas(daemon) as nas:
        assert accepts(nas)
    assert told_age(daemon) == (200, "degraded", [])
    assert 100 <= daemon.metrics()["sms_aaa_replica_age_seconds"] < 160


def test_a_replica_that_is_too_old_serves_and_says_so(daemon: Daemon) -> None:
    without_database(daemon, age_seconds_max="60", when_too_old="serve")
    with FakeNas(daemon) as nas:
        assert accepts(nas)
    code, status, problems = told_age(daemon)
    assert (code, status, len(problems)) == (200, "degraded", 1)
    assert "60 s are allowed: logins are answered from it all the same" in problems[0]
    assert "replica-too-old" in daemon.log.read_text()


def test_a_replica_that_is_too_old_refuses_everybody(daemon: Daemon) -> None:
    without_database(daemon, age_seconds_max="60", when_too_old="reject")
    with FakeNas(daemon) as nas:
        right, wrong, unknown = nas.login(b"alice", b"wonderland"), nas.login(b"alice", b"x"), nas.login(b"eve", b"x")
    assert [reply.code for reply in (right, wrong, unknown)] == [Code.ACCESS_REJECT] * 3
    assert right.attributes[18] == Reason.BACKEND_UNAVAILABLE.text.encode()
    assert wrong.attributes[18] == unknown.attributes[18] == Reason.BAD_PASSWORD.text.encode()
    assert told_age(daemon)[:2] == (503, "down")
    assert daemon.metrics()["sms_aaa_replica_too_old_total"] == 1


def test_a_replica_that_is_too_old_answers_nobody_and_the_next_server_is_asked(daemon: Daemon) -> None:
    dsn = daemon.dsn
    without_database(daemon, age_seconds_max="60", when_too_old="silence")
    with FakeNas(daemon, patience=0.4) as nas:
        assert login(nas) is None
        assert daemon.metrics()["sms_aaa_replica_too_old_total"] == 1
        daemon.stop()
        daemon.environ["SMS_AAA_DATABASE_DSN"] = dsn
        daemon.start()
        wait_until(lambda: accepts(nas), "a login once the database is back")
