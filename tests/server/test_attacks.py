"""The defences as NASes and attackers meet them: a real daemon, real UDP, limits that a test can wait for.

However slow the machine is: what takes the server's time is told by its decisions and counters, what has to come at one
time is sent at once, and who is locked out stays so for longer than a test takes. One test waits for such an end.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner
from daemon import Daemon, FakeNas, started, wait_until
from make import SECRET, Said, make_nas, make_plan, make_subscriber, packet_of

from sms_aaa.cli.main import main
from sms_aaa.node.lockouts import Lockouts
from sms_aaa.radius import dictionary
from sms_aaa.radius.digest import SecretDigests
from sms_aaa.radius.packet import Code, Packet, attribute, parse
from sms_aaa.radius.request import accounting_request
from sms_aaa.server.sockets import Endpoint, bind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


FAILURES = 4
LOCKOUT_SECONDS = 600
LOCKOUT_SECONDS_SHORT = 4
WINDOW_LOGINS, WINDOW_SECONDS = 5, 3
NAS_BURST, NAS_RATE = 100, 50
PATIENCE_SECONDS = 20.0
RECEIVE_BUFFER = 2_000_000
USERS = ("alice", "bob", "carol", "dave", "erin", "frank", "grace", "ivan", "heidi")
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


def daemon_with(dsn: str, folder: Path, settings: dict[str, str]) -> Iterator[Daemon]:
    for running in started(folder / "state", dsn, **settings):
        with running.desk() as desk:
            make_nas(desk)
            make_plan(desk, sessions=0)
            for name in USERS:
                make_subscriber(desk, name=name, password=f"{name}-password".encode())
        with FakeNas(running) as nas:
            wait_until(lambda: accepted(nas.login(USERS[-1].encode(), b"heidi-password")), "the provisioned rows")
        yield running


@pytest.fixture(scope="module")
def daemon(new_database: Callable[[], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    yield from daemon_with(new_database(), tmp_path_factory.mktemp("defences"), SETTINGS)


def patient(daemon: Daemon) -> FakeNas:
    return FakeNas(daemon, patience=PATIENCE_SECONDS)


@pytest.fixture
def nas(daemon: Daemon) -> Iterator[FakeNas]:
    with patient(daemon) as fake:
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


@contextlib.contextmanager
def stopped(daemon: Daemon, name: str) -> Iterator[None]:
    pid = daemon.pid_of(name)
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_the_lockout_sets_in_after_exactly_so_many_failures(daemon: Daemon, nas: FakeNas) -> None:
    for _ in range(FAILURES - 1):
        assert not try_login(nas, "alice", "wrong", 1)
    assert try_login(nas, "alice", "alice-password", 1), "one failure less than too many"
    for _ in range(FAILURES):
        assert not try_login(nas, "alice", "wrong", 1)
    assert not try_login(nas, "alice", "alice-password", 1), "the right password during a lockout"
    assert try_login(nas, "alice", "alice-password", 2), "another device of hers"
    assert try_login(nas, "bob", "bob-password", 1), "another user on that device"
    wait_until(lambda: len(reasons(daemon, "alice")) == 2 * FAILURES + 2, "the decisions")
    told = reasons(daemon, "alice")
    assert told[: 2 * FAILURES] == ["bad-password"] * (FAILURES - 1) + ["accepted"] + ["bad-password"] * FAILURES
    assert told[2 * FAILURES :] == ["locked-out", "accepted"]
    [saw] = {row[0] for row in daemon.query("select saw from decision where username = 'alice' and reason = 16")} - {""}
    assert str(saw).startswith(f"{FAILURES} failures of this user on device, until ")
    assert daemon.metrics()['sms_aaa_lockouts_total{scope="user-and-device"}'] == 1


def test_why_explains_a_lockout(daemon: Daemon, nas: FakeNas) -> None:
    for _ in range(FAILURES + 1):
        assert not try_login(nas, "ivan", "wrong", 11)
    explained = why(daemon, "ivan", "locked-out")
    assert explained["checks"][0]["check"] == "limits"
    assert explained["checks"][0]["verdict"] == "failed"
    assert explained["checks"][0]["saw"].startswith(f"locked-out: {FAILURES} failures of this user on device, until ")
    assert {check["verdict"] for check in explained["checks"][1:]} == {"not reached"}
    assert explained["next"] == "sms-aaa lockouts list"


def why(daemon: Daemon, name: str, label: str) -> dict[str, Any]:
    """What `why` says of the newest decision about somebody, as soon as that is the one."""
    runner, found = CliRunner(env=daemon.environ), {}

    def is_told() -> bool:
        result = runner.invoke(main, ["why", name, "--json", "--last", "1"])
        if result.exit_code == 0:
            said = json.loads(result.stdout)
            found.update(said["decisions"][0], next=said["next"])
        return found.get("decision") == label

    wait_until(is_told, f"{label} explained")
    return found


def test_failures_in_one_batch_and_through_both_workers_count_together(daemon: Daemon) -> None:
    """Twenty tries at once from many ports, the last one with the right password: it comes too late."""
    nases = [patient(daemon) for _ in range(10)]
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

    def is_told() -> bool:
        told = reasons(daemon, "carol")
        return told.count("bad-password") >= FAILURES and "locked-out" in told

    wait_until(is_told, "the decisions of both workers")
    # In a race each worker may count alone; neither goes beyond what is allowed.
    assert reasons(daemon, "carol").count("bad-password") <= 2 * FAILURES


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
    audited = "select ticket, action, before #>> '{entries,0,user}' from audit where object_kind = 'lockout'"
    assert daemon.query(audited) == [("INC-1", "clear", "grace")]
    wait_until(lambda: accepted(nas.login(b"grace", b"grace-password", extra=station(8))), "workers that serve")


@pytest.mark.parametrize("method", ["pap", "chap", "mschap", "mschap2"])
def test_an_unknown_user_and_a_wrong_password_get_the_same_reply_octet_for_octet(
    daemon: Daemon, nas: FakeNas, method: str
) -> None:
    replies = []
    for name in (b"heidi", b"nobod"):
        request = nas.login_request(name, b"wrong", method, extra=station(9))
        nas.send(request, daemon.access_port)
        replies.append(nas.receive())
    known, unknown = map(blanked, replies)
    assert known == unknown
    assert (b"E=691" in known) == (method in {"mschap", "mschap2"})
    wait_until(lambda: "unknown-user" in reasons(daemon, "nobod"), "the decision")
    wait_until(lambda: "bad-password" in reasons(daemon, "heidi"), "the decision")


def blanked(reply: bytes | None) -> bytes:
    """Without what is of the one request: its identifier, the signatures, the challenge in MS-CHAP-Error."""
    assert reply is not None
    packet = parse(reply)
    assert isinstance(packet, Packet)
    signed_at = packet.message_authenticator_at
    blank = reply[:1] + b"-" + reply[2:4] + bytes(16) + reply[20:signed_at] + bytes(16) + reply[signed_at + 16 :]
    error = packet.attributes.get(dictionary.MS_CHAP_ERROR)
    return blank if error is None else blank.replace(error, re.sub(rb"C=[0-9A-F]+", b"C=", b"-" + error[1:]))


def status_of(identifier: int, status: str, session: str) -> bytes:
    said = Said(status=status, at=datetime.now(UTC), session=session, seconds=5, octets_in=1, octets_out=1)
    data = packet_of(said)
    return accounting_request(identifier, data[20:], SecretDigests(SECRET))


def room_for() -> int:
    """How many datagrams of some 150 octets fit into a socket of the daemon's, to four fifths."""
    with bind("127.0.0.1:0", receive_buffer_octets=RECEIVE_BUFFER) as probe:
        _, room, _ = Endpoint(probe).queue()
    return room * 8 // 10 // 832


def test_a_worker_that_is_behind_drops_interims_and_answers_every_start_and_stop(daemon: Daemon) -> None:
    before = daemon.metrics()
    each = room_for() // 20
    with contextlib.ExitStack() as stack:
        nases = [stack.enter_context(FakeNas(daemon)) for _ in range(20)]
        with stopped(daemon, "accounting-1"):
            for at, nas in enumerate(nases):
                for identifier in range(each):
                    status = {0: "start", each - 1: "stop"}.get(identifier, "interim")
                    nas.send(status_of(identifier, status, f"s{at}-{identifier}"), daemon.accounting_port)
        sheds = 'sms_aaa_shed_total{kind="interim"}'
        heard = answered_or_shed(nases, sheds, before, 20 * each)
    after = daemon.metrics()
    drops = 'sms_aaa_kernel_drops_total{process="accounting-1"}'
    assert after[drops] == before[drops], "the queue had room for all"
    assert all({0, each - 1} <= identifiers for identifiers in heard), "a Start or a Stop without an answer"
    shed = after[sheds] - before[sheds]
    assert shed > each
    assert shed + sum(map(len, heard)) == 20 * each


def answered_or_shed(nases: list[FakeNas], sheds: str, before: dict[str, float], sent: int) -> list[set[int]]:
    """The identifiers of each one's replies, once all that was sent is answered or counted as dropped."""
    heard: list[set[int]] = [set() for _ in nases]

    def is_all_told() -> bool:
        for nas, identifiers in zip(nases, heard, strict=True):
            while (reply := nas.receive(0.001)) is not None:
                identifiers.add(reply[1])
        return sum(map(len, heard)) + nases[0].daemon.metrics()[sheds] - before[sheds] == sent

    wait_until(is_all_told, f"all of {sent} answered or dropped")
    return heard


def test_what_the_kernel_drops_is_counted_by_process(daemon: Daemon, nas: FakeNas) -> None:
    name = 'sms_aaa_kernel_drops_total{process="accounting-1"}'
    before = daemon.metrics()[name]
    with stopped(daemon, "accounting-1"):
        for _ in range(2 * room_for()):
            nas.send(bytes(150), daemon.accounting_port)
    wait_until(lambda: daemon.metrics()[name] > before, "the count of what the kernel dropped")


def test_logins_that_lay_in_a_full_queue_until_they_were_sent_again_are_not_worked_on(daemon: Daemon) -> None:
    name = 'sms_aaa_shed_total{kind="stale-login"}'
    before = daemon.metrics()[name]
    with contextlib.ExitStack() as stack:
        old = [stack.enter_context(FakeNas(daemon)) for _ in range(16)]
        late = stack.enter_context(FakeNas(daemon))
        with stopped(daemon, "access-1"), stopped(daemon, "access-2"):
            for nas in old:
                for _ in range(room_for() // 16):
                    nas.send(nas.login_request(b"bob", b"bob-password"), daemon.access_port)
            time.sleep(2.2)
            request = late.login_request(b"bob", b"bob-password", extra=station(10))
            late.send(request, daemon.access_port)
        # One of the two workers has at least half of them.
        wait_until(lambda: daemon.metrics()[name] - before > room_for() // 8, "the count of what was dropped")

        def hears() -> bool:
            reply = late.receive()
            if reply is None:  # to work the queue off took so long that it was old, too
                late.send(request, daemon.access_port)
            return reply is not None and reply[0] == Code.ACCESS_ACCEPT

        wait_until(hears, "an answer to the late one")


@pytest.fixture(scope="module")
def strict(new_database: Callable[[], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    settings = {
        "SMS_AAA_LIMITS_LOCKOUT_FAILURES": str(FAILURES),
        "SMS_AAA_LIMITS_LOCKOUT_SECONDS": str(LOCKOUT_SECONDS_SHORT),
        "SMS_AAA_LIMITS_USER_LOGINS": str(WINDOW_LOGINS),
        "SMS_AAA_LIMITS_USER_WINDOW_SECONDS": str(WINDOW_SECONDS),
        "SMS_AAA_LIMITS_NAS_REQUESTS_PER_SECOND": str(NAS_RATE),
        "SMS_AAA_LIMITS_NAS_BURST": str(NAS_BURST),
        "SMS_AAA_ACCESS_WORKERS": "1",
    }
    yield from daemon_with(new_database(), tmp_path_factory.mktemp("strict"), settings)


def at_once(nas: FakeNas, count: int, name: str, device: int) -> list[Packet]:
    """The replies to as many right logins, which lie in the worker's queue together."""
    with stopped(nas.daemon, "access-1"):
        for _ in range(count):
            request = nas.login_request(name.encode(), f"{name}-password".encode(), extra=station(device))
            nas.send(request, nas.daemon.access_port)
    replies = [parse(reply) for _ in range(count) if (reply := nas.receive()) is not None]
    assert len(replies) == count
    return [reply for reply in replies if isinstance(reply, Packet)]


def test_who_hammers_is_refused_until_the_window_is_over_and_nobody_else_is(strict: Daemon) -> None:
    with patient(strict) as nas:
        let_in = [accepted(reply) for reply in at_once(nas, 20, "alice", 1)]
        # A window may end among them; more than two windows' worth cannot be in 20 at once.
        assert WINDOW_LOGINS <= let_in.count(True) <= 2 * WINDOW_LOGINS
        assert let_in[:WINDOW_LOGINS] == [True] * WINDOW_LOGINS or let_in[-1] is False
        assert try_login(nas, "alice", "alice-password", 2), "another device of hers"
        assert try_login(nas, "bob", "bob-password", 1), "another user on that device"
        wait_until(lambda: try_login(nas, "alice", "alice-password", 1), "the next window")
        at_once(nas, 2 * WINDOW_LOGINS + 1, "frank", 5)
    wait_until(lambda: reasons(strict, "alice")[-1:] == ["accepted"], "the decisions")
    [(saw,)] = strict.query("select distinct saw from decision where username = 'alice' and reason = 15")
    assert saw == "more than 5 logins in 3 s"
    explained = why(strict, "frank", "rate-limited")
    assert explained["checks"][0]["saw"] == "rate-limited: more than 5 logins in 3 s"


def test_a_lockout_ends_by_itself_and_no_sooner(strict: Daemon) -> None:
    with patient(strict) as nas:
        for _ in range(FAILURES):
            assert not try_login(nas, "ivan", "wrong", 20)
        wait_until(lambda: try_login(nas, "ivan", "ivan-password", 20), "the end of the lockout")
    wait_until(lambda: reasons(strict, "ivan")[-1:] == ["accepted"], "the decisions")
    [(seconds,)] = strict.query(
        """select extract(epoch from max(at) filter (where reason = 0) - max(at) filter (where reason = 13))
           from decision where username = 'ivan'"""
    )
    assert float(str(seconds)) > LOCKOUT_SECONDS_SHORT - 1, "it ends with a whole second"


def test_a_hammering_device_cannot_write_the_decision_log_full(strict: Daemon) -> None:
    before = strict.metrics()
    with patient(strict) as nas:
        at_once(nas, 60, "carol", 3)
    wait_until(lambda: "rate-limited" in reasons(strict, "carol"), "the decisions")
    wait_until(lambda: len(reasons(strict, "carol")) > WINDOW_LOGINS, "the decisions")
    told = reasons(strict, "carol").count("rate-limited")
    [(span,)] = strict.query("select extract(epoch from max(at) - min(at)) from decision where username = 'carol'")
    assert 1 <= told <= 3 + float(str(span)), "one a second"
    after = strict.metrics()
    refused, untold = 'sms_aaa_access_decisions_total{reason="rate-limited"}', "sms_aaa_decisions_untold_total"
    assert after[refused] - before[refused] == told + after[untold] - before[untold] >= 50


NAS_SHED = 'sms_aaa_shed_total{kind="nas-rate"}'


def above_the_rate(nas: FakeNas, requests: list[bytes]) -> tuple[set[int], float]:
    """Sends all at once after the NAS has its whole burst again; whose answer came, and how long that took at most."""
    time.sleep(NAS_BURST / NAS_RATE + 0.5)
    before, began = nas.daemon.metrics(), time.monotonic()
    for request in requests:
        nas.send(request, nas.daemon.access_port)
    [heard] = answered_or_shed([nas], NAS_SHED, before, len(requests))
    return heard, time.monotonic() - began


def test_a_nas_above_its_rate_meets_silence_and_is_served_again_at_once(strict: Daemon) -> None:
    with patient(strict) as nas:
        requests = [nas.login_request(b"dave", b"dave-password", extra=station(number)) for number in range(250)]
        heard, seconds = above_the_rate(nas, requests)
        assert NAS_BURST <= len(heard) <= NAS_BURST + 1 + NAS_RATE * seconds
        nas.patience = 0.5
        request = nas.login_request(b"dave", b"dave-password", extra=station(500))
        wait_until(lambda: nas.ask(request, strict.access_port) is not None, "an answer")


def test_a_retransmission_of_what_was_above_the_rate_is_worked_on_anew(strict: Daemon) -> None:
    with patient(strict) as nas:
        requests = [nas.login_request(b"erin", b"erin-password", extra=station(number)) for number in range(250)]
        heard, _ = above_the_rate(nas, requests)
        missing = next(request for request in requests if request[1] not in heard)
        nas.patience = 0.5
        wait_until(lambda: nas.ask(missing, strict.access_port) is not None, "an answer")


REJECT_DELAY = 0.6


@pytest.fixture(scope="module")
def slow(new_database: Callable[[], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    settings = {
        "SMS_AAA_ACCESS_REJECT_DELAY_SECONDS": str(REJECT_DELAY),
        "SMS_AAA_ACCESS_WORKERS": "1",
        "SMS_AAA_LIMITS_LOCKOUT_FAILURES": str(FAILURES),
    }
    yield from daemon_with(new_database(), tmp_path_factory.mktemp("slow"), settings)


def seconds_until_reply(nas: FakeNas, name: bytes, password: bytes) -> float:
    began = time.monotonic()
    nas.send(nas.login_request(name, password, extra=station(1)), nas.daemon.access_port)
    assert nas.receive() is not None
    return time.monotonic() - began


def test_every_refusal_leaves_after_the_delay_whatever_its_reason_and_keeps_nobody_waiting(slow: Daemon) -> None:
    with patient(slow) as nas:
        waits = {
            "unknown-user": seconds_until_reply(nas, b"nobody", b"wrong"),
            "bad-password": [seconds_until_reply(nas, b"alice", b"wrong") for _ in range(FAILURES)][-1],
            "locked-out": seconds_until_reply(nas, b"alice", b"alice-password"),
        }
    assert min(waits.values()) >= REJECT_DELAY, waits
    with patient(slow) as nas:
        # All in one queue and to one socket: replies come in the order in which they are sent.
        with stopped(slow, "access-1"):
            guesses = [nas.login_request(b"bob", b"wrong", extra=station(number)) for number in range(20)]
            for request in (*guesses, nas.login_request(b"carol", b"carol-password")):
                nas.send(request, slow.access_port)
        began = time.monotonic()
        replies = [nas.receive() for _ in range(21)]
    assert time.monotonic() - began < 20 * REJECT_DELAY, "one Reject waited for the other"
    codes = [reply[0] for reply in replies if reply is not None]
    assert codes == [Code.ACCESS_ACCEPT] + [Code.ACCESS_REJECT] * 20, "an Accept waited for the Rejects before it"
    wait_until(lambda: reasons(slow, "alice")[-1:] == ["locked-out"], "the decisions")
    assert reasons(slow, "nobody") == ["unknown-user"]
