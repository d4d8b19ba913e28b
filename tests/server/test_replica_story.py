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
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from daemon import WAIT_SECONDS, Daemon, FakeNas, started, wait_until
from make import make_nas, make_plan, make_subscriber

from sms_aaa.flows.provisioning.subscribers import set_state
from sms_aaa.node.replica import Replica, read_current, replica_folder
from sms_aaa.node.replica_writer import Applied, ReplicaChanges, ReplicaWriter
from sms_aaa.radius.packet import Code
from sms_aaa.rules.entitlement import ServiceState
from sms_aaa.rules.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CROWD = 3_000
PAGE_OCTETS = 4096
DAMAGES = "sms_aaa_replica_damages_total"


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


def _provisioned(folder: Path, dsn: str) -> Iterator[Daemon]:
    for running in started(folder / "state", dsn):
        provision(running)
        yield running


@pytest.fixture(scope="module")
def incomplete(new_database: Callable[[], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """For those who take some of it away."""
    yield from _provisioned(tmp_path_factory.mktemp("incomplete"), new_database())


@pytest.fixture(scope="module")
def mended(new_database: Callable[[], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    yield from _provisioned(tmp_path_factory.mktemp("mended"), new_database())


@pytest.fixture
def damaged(mended: Daemon) -> Iterator[Daemon]:
    """For those who damage it. The next has another replicator: one that met damage lets a while pass to the next."""
    yield mended
    before = mended.pid_of("replicator")
    mended.kill("replicator")
    wait_until(lambda: mended.pid_of("replicator") not in {0, before}, "another replicator")
    mended.wait_healthy()


@pytest.fixture(scope="module")
def aged(new_database: Callable[[], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """For those who start it anew, without its database."""
    yield from _provisioned(tmp_path_factory.mktemp("aged"), new_database())


@pytest.fixture(scope="module")
def steady(new_database: Callable[[], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """For those who leave it as it was."""
    yield from _provisioned(tmp_path_factory.mktemp("steady"), new_database())


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
def test_a_damaged_replica_is_found_and_built_anew_and_logins_are_served(damaged: Daemon, damage) -> None:
    before, counted = generation(damaged), damaged.metrics()[DAMAGES]
    told = damaged.log.read_text().count("replica-damaged")
    damage(damaged)
    with FakeNas(damaged, patience=0.3) as nas:
        wait_until(lambda: generation(damaged) not in {before, ""}, "another generation")
        wait_until(lambda: accepts(nas, b"bob", b"builder"), "a login of the damaged record's owner")
        assert accepts(nas)
    assert services(damaged) == CROWD + 2
    assert damaged.log.read_text().count("replica-damaged") > told
    assert damaged.metrics()[DAMAGES] == counted + 1
    assert shell(damaged, "replica", "verify").returncode == 0


def test_a_login_that_meets_a_damaged_record_meets_silence_and_another_its_answer(damaged: Daemon) -> None:
    faults = "sms_aaa_replica_read_faults_total"
    before = damaged.metrics()[faults]
    os.kill(damaged.pid_of("replicator"), 19)  # SIGSTOP: nobody mends it yet
    try:
        flip_a_bit_of_each_record(damaged)
        with FakeNas(damaged) as nas:
            assert login(nas, b"bob", b"builder") is None
            assert accepts(nas)
        wait_until(lambda: damaged.metrics()[faults] > before, "the count of it")
    finally:
        os.kill(damaged.pid_of("replicator"), 18)
    with FakeNas(damaged, patience=0.3) as nas:
        wait_until(lambda: accepts(nas, b"bob", b"builder"), "a login once it is mended")


def cut_it(daemon: Daemon) -> None:
    os.truncate(data_file(daemon), data_file(daemon).stat().st_size // 2)


def remove_current(daemon: Daemon) -> None:
    (replica_folder(daemon.folder) / "CURRENT").unlink()


def remove_the_file(daemon: Daemon) -> None:
    data_file(daemon).unlink()


@pytest.mark.parametrize("spoil", [cut_it, remove_current, remove_the_file])
def test_what_is_missing_of_it_comes_again(incomplete: Daemon, spoil) -> None:
    before = data_file(incomplete)
    spoil(incomplete)
    incomplete.kill("replicator")  # CURRENT is read at a start
    with FakeNas(incomplete, patience=0.3) as nas:
        wait_until(lambda: generation(incomplete) and data_file(incomplete) != before, "another generation")
        wait_until(lambda: accepts(nas), "a login")
    assert services(incomplete) == CROWD + 2
    incomplete.wait_healthy()


def test_a_rebuild_that_is_asked_for_takes_no_login_its_answer(steady: Daemon) -> None:
    before, codes, stop = generation(steady), [], threading.Event()

    def knock() -> None:
        with FakeNas(steady, patience=20) as nas:
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
    steady.execute(
        """update subscription u set during = tstzrange(lower(during), now() + interval '3 s')
           from service s where s.id = u.service_id and s.identity = 'bob'"""
    )
    with FakeNas(steady, patience=0.3) as nas:
        wait_until(lambda: login(nas, b"bob", b"builder") == Code.ACCESS_REJECT, "the end")
        wait_until(lambda: accepts(nas), "a login of somebody else")
    refused = f"select min(at) from decision where username = 'bob' and reason = {Reason.NO_PLAN.code}"
    wait_until(lambda: steady.query(refused) != [(None,)], "the decision")
    [(first,)] = steady.query(refused)
    [(ends,)] = steady.query("select max(upper(during)) from subscription")
    assert timedelta() <= first - ends < timedelta(seconds=WAIT_SECONDS)


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


@contextmanager
def without_database(daemon: Daemon, **settings: str) -> Iterator[None]:
    """Started anew; its settings of before count again at the next start."""
    daemon.stop()
    make_old(daemon, seconds=100)
    before = dict(daemon.environ)
    away = {"SMS_AAA_DATABASE_DSN": "postgresql:///nowhere?host=/nonexistent"}
    daemon.environ |= away | {f"SMS_AAA_REPLICA_{key.upper()}": value for key, value in settings.items()}
    served = daemon.log.read_text().count('"serving"')
    daemon.start(healthy=False)
    wait_until(lambda: daemon.log.read_text().count('"serving"') >= served + 3, "workers that serve again")
    try:
        yield
    finally:
        daemon.environ = before


def told_age(daemon: Daemon) -> tuple[int, str, list[str]]:
    code, status, problems = daemon.health()
    return code, status, [problem for problem in problems if "the replica is" in problem]


@pytest.mark.parametrize("age", ["0", "3600"])
def test_a_node_serves_however_old_its_replica_is_unless_it_is_told_not_to(aged: Daemon, age: str) -> None:
    """It was started anew without its database, and knows the age all the same."""
    with without_database(aged, age_seconds_max=age, when_too_old="silence"), FakeNas(aged) as nas:
        assert accepts(nas)
        assert told_age(aged) == (200, "degraded", [])
        assert 100 <= aged.metrics()["sms_aaa_replica_age_seconds"] < 160


def test_a_replica_that_is_too_old_serves_and_says_so(aged: Daemon) -> None:
    with without_database(aged, age_seconds_max="60", when_too_old="serve"), FakeNas(aged) as nas:
        assert accepts(nas)
        code, status, problems = told_age(aged)
        assert (code, status, len(problems)) == (200, "degraded", 1)
        assert "60 s are allowed: logins are answered from it all the same" in problems[0]
        assert "replica-too-old" in aged.log.read_text()


def test_a_replica_that_is_too_old_refuses_everybody(aged: Daemon) -> None:
    with without_database(aged, age_seconds_max="60", when_too_old="reject"), FakeNas(aged) as nas:
        right, wrong, unknown = nas.login(b"alice", b"wonderland"), nas.login(b"alice", b"x"), nas.login(b"eve", b"x")
        assert [reply.code for reply in (right, wrong, unknown)] == [Code.ACCESS_REJECT] * 3
        assert right.attributes[18] == Reason.BACKEND_UNAVAILABLE.text.encode()
        assert wrong.attributes[18] == unknown.attributes[18] == Reason.BAD_PASSWORD.text.encode()
        assert told_age(aged)[:2] == (503, "down")
        assert aged.metrics()["sms_aaa_replica_too_old_total"] == 1


def test_a_replica_that_is_too_old_answers_nobody_and_the_next_server_is_asked(aged: Daemon) -> None:
    with without_database(aged, age_seconds_max="60", when_too_old="silence"), FakeNas(aged, patience=0.4) as nas:
        assert login(nas) is None
        assert aged.metrics()["sms_aaa_replica_too_old_total"] == 1
        aged.stop()
    aged.start()
    with FakeNas(aged, patience=0.4) as nas:
        wait_until(lambda: accepts(nas), "a login once the database is back")
