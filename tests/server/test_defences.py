"""The defences as NASes and attackers meet them: a real daemon, real UDP, limits that a test can wait for."""

from __future__ import annotations

import os
import signal
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import psycopg
import pytest
from daemon import Daemon, FakeNas, started, wait_until
from make import SECRET, Said, make_nas, make_plan, make_subscriber, packet_of

from sms_aaa.db.schema import upgrade
from sms_aaa.node.lockouts import Lockouts
from sms_aaa.radius import dictionary
from sms_aaa.radius.digest import SecretDigests
from sms_aaa.radius.packet import Code, Packet, attribute, parse
from sms_aaa.radius.request import accounting_request

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sms_aaa.server.postgres import EmbeddedPostgres

FAILURES = 4
LOCKOUT_SECONDS = 3
RECEIVE_BUFFER = 2_000_000
USERS = ("alice", "bob", "carol", "dave", "erin", "frank", "grace", "heidi")
SETTINGS = {
    "SMS_AAA_LIMITS_LOCKOUT_FAILURES": str(FAILURES),
    "SMS_AAA_LIMITS_LOCKOUT_USER_FAILURES": "12",
    "SMS_AAA_LIMITS_LOCKOUT_DEVICE_FAILURES": "12",
    "SMS_AAA_LIMITS_LOCKOUT_SECONDS": str(LOCKOUT_SECONDS),
    "SMS_AAA_LIMITS_SHED_QUEUE_PERCENT": "25",
    "SMS_AAA_ACCOUNTING_RECEIVE_BUFFER_OCTETS": str(RECEIVE_BUFFER),
    "SMS_AAA_ACCESS_RECEIVE_BUFFER_OCTETS": str(RECEIVE_BUFFER),
    "SMS_AAA_ACCESS_WORKERS": "2",
}


def daemon_with(
    postgres: EmbeddedPostgres, folder: Path, database: str, settings: dict[str, str]
) -> Iterator[Daemon]:
    with psycopg.connect(postgres.dsn, autocommit=True) as connection:
        connection.execute(f"create database {database}")
    dsn = postgres.dsn_for(database)
    upgrade(dsn)
    for running in started(folder / "state", dsn, **settings):
        with running.desk() as desk:
            make_nas(desk)
            make_plan(desk, sessions=0)
            for name in USERS:
                make_subscriber(desk, name=name, password=f"{name}-password".encode())
        with FakeNas(running) as nas:
            wait_until(lambda: accepted(nas.login(USERS[-1].encode(), b"heidi-password")), "the provisioned rows")
        yield running
    with psycopg.connect(postgres.dsn, autocommit=True) as connection:
        connection.execute(f"drop database {database} with (force)")


@pytest.fixture(scope="module")
def daemon(postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    yield from daemon_with(postgres, tmp_path_factory.mktemp("defences"), "defences", SETTINGS)


@pytest.fixture
def nas(daemon: Daemon) -> Iterator[FakeNas]:
    with FakeNas(daemon) as fake:
        yield fake


def station(number: int) -> bytes:
    return attribute(dictionary.CALLING_STATION_ID, b"02-00-00-00-%02X-%02X" % (number >> 8, number & 255))


def accepted(reply: Packet | None) -> bool:
    return reply is not None and reply.code == Code.ACCESS_ACCEPT


def try_login(nas: FakeNas, name: str, password: str, device: int) -> bool:
    reply = nas.login(name.encode(), password.encode(), extra=station(device))
    assert reply is not None
    return accepted(reply)


def reasons(daemon: Daemon, name: str) -> list[str]:
    from sms_aaa.rules.reasons import Reason

    rows = daemon.query(
        f"""select reason from decision where username = '{name}'
            order by at, node, sequence, record_offset, item"""
    )
    return [Reason.by_code(int(str(code))).label for (code,) in rows]


@contextmanager
def stopped(daemon: Daemon, name: str) -> Iterator[None]:
    pid = daemon.pid_of(name)
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_the_lockout_sets_in_after_exactly_so_many_failures_and_ends(daemon: Daemon, nas: FakeNas) -> None:
    for _ in range(FAILURES - 1):
        assert not try_login(nas, "alice", "wrong", 1)
    assert try_login(nas, "alice", "alice-password", 1), "one failure less than too many"
    for _ in range(FAILURES):
        assert not try_login(nas, "alice", "wrong", 1)
    began = time.monotonic()
    assert not try_login(nas, "alice", "alice-password", 1), "the right password during a lockout"
    assert try_login(nas, "alice", "alice-password", 2), "another device of hers"
    assert try_login(nas, "bob", "bob-password", 1), "another user on that device"
    wait_until(lambda: try_login(nas, "alice", "alice-password", 1), "the end of the lockout", 10)
    assert time.monotonic() - began > LOCKOUT_SECONDS - 1.5
    wait_until(lambda: reasons(daemon, "alice")[-1:] == ["accepted"], "the decisions")
    told = reasons(daemon, "alice")
    assert told[: 2 * FAILURES] == ["bad-password"] * (FAILURES - 1) + ["accepted"] + ["bad-password"] * FAILURES
    assert told[2 * FAILURES] == "locked-out"
    [saw] = {row[0] for row in daemon.query("select saw from decision where username = 'alice' and reason = 16")} - {""}
    assert str(saw).startswith(f"{FAILURES} failures of this user on device, until ")
    assert daemon.metrics()['sms_aaa_lockouts_total{scope="user-and-device"}'] == 1


def test_failures_in_one_batch_and_through_both_workers_count_together(daemon: Daemon) -> None:
    """Twenty tries at once from many ports, the last one with the right password: it comes too late."""
    nases = [FakeNas(daemon) for _ in range(10)]
    try:
        for nas in nases:
            for _ in range(2):
                nas.send(nas.login_request(b"carol", b"wrong", extra=station(3)), daemon.access_port)
        replies = [nas.receive() for nas in nases for _ in range(2)]
        assert None not in replies
        assert not try_login(nases[0], "carol", "carol-password", 3)
    finally:
        for nas in nases:
            nas.__exit__()
    wait_until(lambda: "locked-out" in reasons(daemon, "carol"), "the decisions")
    # Two workers may each let a batch's worth of the race through, never all of it.
    assert FAILURES <= reasons(daemon, "carol").count("bad-password") <= 2 * FAILURES


def test_a_retransmission_is_no_second_failure(daemon: Daemon, nas: FakeNas) -> None:
    for _ in range(FAILURES - 1):
        request = nas.login_request(b"dave", b"wrong", extra=station(4))
        for _ in range(3):
            nas.send(request, daemon.access_port)
            assert nas.receive() is not None
    assert try_login(nas, "dave", "dave-password", 4)


def test_a_user_under_attack_from_many_devices_is_locked_but_for_a_device_of_his_own(
    daemon: Daemon, nas: FakeNas
) -> None:
    assert try_login(nas, "erin", "erin-password", 5)
    for device in range(100, 112):
        assert not try_login(nas, "erin", "wrong", device)
    assert not try_login(nas, "erin", "erin-password", 150), "guessed at last, from one more device"
    assert try_login(nas, "erin", "erin-password", 5), "his own device"
    assert daemon.metrics()['sms_aaa_lockouts_total{scope="user"}'] == 1


def test_a_device_that_tries_one_password_on_many_users_is_locked(daemon: Daemon, nas: FakeNas) -> None:
    for number in range(12):
        assert not try_login(nas, f"guessed{number}", "123456", 6)
    assert not try_login(nas, "frank", "frank-password", 6)
    assert try_login(nas, "frank", "frank-password", 7), "the user himself is not kept out"
    assert daemon.metrics()['sms_aaa_lockouts_total{scope="device"}'] == 1


def test_a_lockout_outlives_its_worker_and_is_seen_and_cleared_at_the_command_line(
    daemon: Daemon, nas: FakeNas
) -> None:
    from click.testing import CliRunner

    from sms_aaa.cli.main import main

    # Long enough to be looked at: what the workers are told to do is short.
    table = Lockouts.open(daemon.folder)
    assert isinstance(table, Lockouts)
    for _ in range(FAILURES):
        assert not try_login(nas, "grace", "wrong", 8)
    for name in ("access-1", "access-2"):
        before = daemon.pid_of(name)
        daemon.kill(name)
        wait_until(lambda name=name, before=before: daemon.pid_of(name) not in {0, before}, f"a new {name}")
    [entry] = [one for one in table.entries() if one.user == b"grace" and one.tally.until]
    assert entry.device == b"02-00-00-00-00-08"
    assert entry.tally.until - entry.tally.locked_at == LOCKOUT_SECONDS
    table.close()
    runner = CliRunner(env=daemon.environ)
    cleared = runner.invoke(main, ["lockouts", "clear", "grace", "--ticket", "INC-1"])
    assert cleared.exit_code == 0, cleared.output
    assert "grace may try again" in cleared.output
    assert daemon.query("select ticket, action, before ->> 'user' from audit where object_kind = 'lockout' limit 1") == [
        ("INC-1", "clear", "grace")
    ]
    wait_until(lambda: accepted(nas.login(b"grace", b"grace-password", extra=station(8))), "workers that serve", 10)


@pytest.mark.parametrize("method", ["pap", "chap", "mschap", "mschap2"])
def test_an_unknown_user_and_a_wrong_password_get_the_same_reply_octet_for_octet(
    daemon: Daemon, nas: FakeNas, method: str
) -> None:
    shapes = []
    for name in (b"heidi", b"nobod"):
        request = nas.login_request(name, b"wrong", method, extra=station(9))
        nas.send(request, daemon.access_port)
        data = nas.receive()
        assert data is not None
        reply = parse(data)
        assert isinstance(reply, Packet)
        error = reply.attributes.get(dictionary.MS_CHAP_ERROR)
        assert (error is not None) == (method in {"mschap", "mschap2"})
        # What is random: identifier, authenticators, the challenge that MS-CHAP-Error gives back.
        shapes.append(
            [
                (key, value[:1] + value[-3:] if key == dictionary.MS_CHAP_ERROR else value)
                for key, value in reply.in_order()
                if key != dictionary.MESSAGE_AUTHENTICATOR
            ]
        )
        assert len(data) == len(shapes[0]) * 0 + len(data)
    known, unknown = shapes
    # The identifier of the peer is the first octet of MS-CHAP-Error and rises by one a request.
    assert [key for key, _ in known] == [key for key, _ in unknown]
    assert known[0] == unknown[0] == (dictionary.REPLY_MESSAGE, b"Authentication failed.")
    wait_until(lambda: "unknown-user" in reasons(daemon, "nobod"), "the decision")
    wait_until(lambda: "bad-password" in reasons(daemon, "heidi"), "the decision")


def status_of(identifier: int, status: str, session: str) -> bytes:
    said = Said(status=status, at=datetime.now(UTC), session=session, seconds=5, octets_in=1, octets_out=1)
    data = packet_of(said)
    return accounting_request(identifier, data[20:], SecretDigests(SECRET))


def test_a_worker_that_is_behind_drops_interims_and_answers_every_start_and_stop(daemon: Daemon) -> None:
    before = daemon.metrics()
    nases = [FakeNas(daemon) for _ in range(24)]
    try:
        with stopped(daemon, "accounting-1"):
            for at, nas in enumerate(nases):
                for identifier in range(200):
                    status = {0: "start", 100: "stop"}.get(identifier, "interim")
                    nas.send(status_of(identifier, status, f"s{at}-{identifier}"), daemon.accounting_port)
        heard: dict[int, set[int]] = {}
        for at, nas in enumerate(nases):
            heard[at] = set()
            while (reply := nas.receive(2.0 if 100 not in heard[at] else 0.3)) is not None:
                heard[at].add(reply[1])
    finally:
        for nas in nases:
            nas.__exit__()
    after = daemon.metrics()
    dropped = after['sms_aaa_kernel_drops_total{process="accounting-1"}']
    assert dropped == before['sms_aaa_kernel_drops_total{process="accounting-1"}'], "the queue had room for all"
    assert all({0, 100} <= answered for answered in heard.values()), "a Start or a Stop without an answer"
    shed = after['sms_aaa_shed_total{kind="interim"}'] - before['sms_aaa_shed_total{kind="interim"}']
    assert shed > 100
    assert shed + sum(map(len, heard.values())) == 24 * 200


def test_what_the_kernel_drops_is_counted_by_process(daemon: Daemon, nas: FakeNas) -> None:
    name = 'sms_aaa_kernel_drops_total{process="accounting-1"}'
    before = daemon.metrics()[name]
    with stopped(daemon, "accounting-1"):
        for _ in range(RECEIVE_BUFFER * 2 // 500):
            nas.send(bytes(60), daemon.accounting_port)
    wait_until(lambda: daemon.metrics()[name] > before, "the count of what the kernel dropped")


def test_a_login_that_lay_in_a_full_queue_until_it_was_sent_again_is_not_worked_on(daemon: Daemon) -> None:
    """Half of them old: all but one of those go unanswered; what came lately is answered."""
    before = daemon.metrics()
    old, new = FakeNas(daemon), FakeNas(daemon)
    try:
        for name in ("access-1", "access-2"):
            os.kill(daemon.pid_of(name), signal.SIGSTOP)
        filler = [FakeNas(daemon) for _ in range(16)]
        for one in filler:
            for _ in range(200):
                one.send(one.login_request(b"bob", b"bob-password"), daemon.access_port)
        old.send(old.login_request(b"bob", b"bob-password"), daemon.access_port)
        time.sleep(2.3)
        new.send(new.login_request(b"bob", b"bob-password"), daemon.access_port)
        for name in ("access-1", "access-2"):
            os.kill(daemon.pid_of(name), signal.SIGCONT)
        assert new.receive(5) is not None
        wait_until(
            lambda: daemon.metrics()['sms_aaa_shed_total{kind="stale-login"}']
            > before['sms_aaa_shed_total{kind="stale-login"}'] + 100,
            "the count of what was dropped",
        )
    finally:
        for one in (*filler, old, new):
            one.__exit__()
