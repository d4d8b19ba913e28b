"""The NAS simulator, against a peer of a few lines that misbehaves as told; and `load`, as an operator types it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from daemon import Daemon, FakeNas, wait_until
from hypothesis import given, settings
from hypothesis import strategies as st
from make import make_nas, make_plan, make_subscriber

from sms_aaa.cli.simulator import (
    Device,
    Report,
    Simulator,
    accounting,
    find_flaw,
    login,
    status_server,
)
from sms_aaa.flows.hearing import Heard, hear
from sms_aaa.node.records import AccountingRecord
from sms_aaa.radius.credentials import Method, StoredPassword, read_credential
from sms_aaa.radius.dictionary import ACCT_STATUS_TYPE, CLASS
from sms_aaa.radius.digest import SecretDigests, verify
from sms_aaa.radius.packet import Code, Packet, attribute, parse
from sms_aaa.radius.values import AcctStatusType
from sms_aaa.rules.secret import Secret
from sms_aaa.rules.session import Place

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


SUBSCRIBERS = 40
SECRET = b"a-shared-secret-of-a-test"
DIGESTS = SecretDigests(SECRET)
ALICE = Device(username="alice", password="sesame", station="02-00-00-00-00-01", port=7, nas_identifier="test-nas")
SMS_AAA = Path(sys.executable).with_name("sms-aaa")


class Peer:
    """A server on one port. `answer` makes the datagrams that go back for a request; what came is kept."""

    def __init__(self, answer):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.came: list[tuple[bytes, tuple[str, int]]] = []
        self._answer = answer
        self._thread = threading.Thread(target=self._serve)

    def _serve(self):
        while True:
            data, source = self.socket.recvfrom(4096)
            if not data:
                return
            self.came.append((data, source))
            for reply in self._answer(parse(data), len(self.came)):
                self.socket.sendto(reply, source)

    @contextmanager
    def serving(self):
        self._thread.start()
        try:
            yield self
        finally:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
                last.sendto(b"", ("127.0.0.1", self.port))
            self._thread.join()
            self.socket.close()


def accept(packet: Packet, attributes: bytes = b"", digests: SecretDigests = DIGESTS) -> bytes:
    code = Code.ACCOUNTING_RESPONSE if packet.code == Code.ACCOUNTING_REQUEST else Code.ACCESS_ACCEPT
    return digests.reply(code, packet.identifier, packet.authenticator, attributes, message_authenticator=True)


@contextmanager
def nas_of(answer, **how):
    with Peer(answer).serving() as peer:
        how = {"timeout_seconds": 0.1, **how}
        with Simulator("127.0.0.1", Secret(SECRET), access_port=peer.port, accounting_port=peer.port, **how) as nas:
            yield nas, peer


def test_a_question_that_is_not_answered_is_sent_again_octet_for_octet():
    with nas_of(lambda packet, number: [accept(packet)] if number == 3 else []) as (nas, peer):
        outcome = nas.ask(login(ALICE, Method.PAP, nas.digests).question)
    assert outcome.reply is not None
    assert outcome.tries == 3
    assert outcome.seconds >= 0.2
    assert len(set(peer.came)) == 1


def test_after_the_last_try_the_outcome_is_silence():
    with nas_of(lambda *_: []) as (nas, peer):
        outcome = nas.ask(status_server())
    assert outcome.reply is None
    assert outcome.tries == len(peer.came) == 3


def test_a_reply_that_does_not_prove_the_secret_is_not_noticed():
    def answer(packet, _number):
        sound = accept(packet)
        other = SecretDigests(b"another secret")
        yield accept(packet, digests=other)
        yield sound[:-1]
        yield bytes([sound[0], sound[1] ^ 1]) + sound[2:]
        yield b"\x02"
        yield accept(packet, attribute(CLASS, b"the true one"))

    with nas_of(answer) as (nas, _):
        outcome = nas.ask(status_server())
    assert outcome.reply is not None
    assert outcome.reply.attributes[CLASS] == b"the true one"
    assert outcome.tries == 1


def test_every_request_is_genuine_for_its_server():
    questions = [login(ALICE, method, DIGESTS).question for method in (Method.PAP, Method.CHAP, Method.MSCHAP2)]
    questions += [status_server(), accounting(ALICE, Report(status=AcctStatusType.START, session_id="1"))]
    for question in questions:
        packet = parse(question.encode(77, DIGESTS))
        assert isinstance(packet, Packet)
        assert packet.identifier == 77
        assert verify(packet, DIGESTS, message_authenticator_required=True) is None


@pytest.mark.parametrize("method", [Method.PAP, Method.CHAP, Method.MSCHAP2])
def test_each_method_proves_the_password_and_no_other(method):
    packet = parse(login(ALICE, method, DIGESTS).question.encode(1, DIGESTS))
    proof = read_credential(packet, DIGESTS)
    assert proof.method is method
    assert proof.matches(StoredPassword.from_cleartext(b"sesame"))
    assert not proof.matches(StoredPassword.from_cleartext(b"Sesame"))


def test_mschapv2_finds_out_a_server_that_does_not_know_the_password():
    asked = login(ALICE, Method.MSCHAP2, DIGESTS)
    request = parse(asked.question.encode(1, DIGESTS))
    proof = read_credential(request, DIGESTS)

    def reply(password: bytes) -> Packet:
        stored = StoredPassword.from_cleartext(password)
        return parse(accept(request, proof.success_attributes(stored, DIGESTS, request.authenticator, b"\0\1\2\3")))

    assert find_flaw(asked, reply(b"sesame"), DIGESTS) is None
    assert "does not prove" in find_flaw(asked, reply(b"guessed"), DIGESTS)
    assert "does not prove" in find_flaw(asked, parse(accept(request)), DIGESTS)
    sound = reply(b"sesame").in_order()
    success_alone = b"".join(attribute(key, value) for key, value in sound if key == sound[1][0])
    assert "keys of MPPE" in find_flaw(asked, parse(accept(request, success_alone)), DIGESTS)


@settings(max_examples=60)
@given(octets_in=st.integers(0, 2**56), octets_out=st.integers(0, 2**56), seconds=st.integers(0, 2**32 - 1))
def test_a_report_is_heard_as_it_was_meant(octets_in, octets_out, seconds):
    report = Report(
        status=AcctStatusType.STOP, session_id="s1", seconds=seconds, octets_in=octets_in, octets_out=octets_out
    )
    datagram = accounting(ALICE, report).encode(1, DIGESTS)
    heard = hear(AccountingRecord(10**18, 1, "127.0.0.1", 1, datagram), Place("n", 1, 1), single=True)
    assert isinstance(heard, Heard)
    reading = heard.reading
    assert (reading.octets_in, reading.octets_out, reading.session_seconds) == (octets_in, octets_out, seconds)


def test_a_repetition_comes_from_the_same_port_with_the_same_octets():
    with nas_of(lambda packet, number: [accept(packet, attribute(CLASS, b"%d" % number))]) as (nas, peer):
        first = nas.ask(login(ALICE, Method.PAP, nas.digests).question)
        again = nas.repeat(first)
    assert again is not None
    assert again.attributes[CLASS] == b"2"
    assert peer.came[0] == peer.came[1]


def test_many_scripts_run_at_once_and_never_more_than_the_window():
    open_now, most, done = 0, 0, 0

    def script():
        nonlocal open_now, most, done
        open_now += 1
        most = max(most, open_now)
        for _ in range(3):
            outcome = yield status_server()
            assert outcome.reply is not None
        open_now -= 1
        done += 1

    with nas_of(lambda packet, _: [accept(packet)], timeout_seconds=2.0, source_ports=2) as (nas, peer):
        nas.run((script() for _ in range(400)), window=50)
    assert (done, most) == (400, 50)
    assert len(peer.came) == 1200
    assert len({source for _, source in peer.came}) == 2


def load(*arguments: str, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if name != "RADIUS_SECRET"}
    return subprocess.run(
        [SMS_AAA, "load", *arguments],
        input=stdin,
        env={**clean, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_load_plays_sessions_and_reports_what_it_measured():
    def answer(packet, _number):
        # Numbers 1 and 2 come in, 3 is rejected.
        if packet.attributes[1] == b"user-3":
            yield DIGESTS.reply(
                Code.ACCESS_REJECT, packet.identifier, packet.authenticator, b"", message_authenticator=True
            )
        elif packet.code == Code.ACCESS_REQUEST:
            yield accept(packet, attribute(CLASS, b"of " + packet.attributes[1]))
        else:
            yield accept(packet)

    with Peer(answer).serving() as peer:
        ports = ("--auth-port", str(peer.port), "--acct-port", str(peer.port))
        result = load(
            "--profile", "session", "--users", "user-%d", "--subscribers", "3", "--count", "6", "--json", *ports,
            "--secret-stdin", stdin=SECRET.decode() + "\n",
        )  # fmt: skip
    assert result.returncode == 0, result.stderr
    said = json.loads(result.stdout)
    assert (said["asked"], said["answered"], said["lost"]) == (18, 18, 0)
    assert (said["access_accept"], said["access_reject"], said["accounting_response"]) == (4, 2, 12)
    assert 0 < said["p50_us"] <= said["p99_us"]
    assert SECRET.decode() not in result.stdout + result.stderr
    records = [parse(data) for data, _ in peer.came if data[0] == Code.ACCOUNTING_REQUEST]
    assert all(record.attributes[CLASS] == b"of " + record.attributes[1] for record in records)
    statuses = [record.attributes[ACCT_STATUS_TYPE][3] for record in records if record.attributes[1] == b"user-1"]
    assert sorted(statuses) == [1, 1, 2, 2, 3, 3]
    assert statuses[0] == AcctStatusType.START
    assert statuses[-1] == AcctStatusType.STOP


def test_load_keeps_to_its_rate():
    with Peer(lambda packet, _: [accept(packet)]).serving() as peer:
        ports = ("--auth-port", str(peer.port), "--acct-port", str(peer.port))
        result = load("--rate", "50", "--count", "26", "--json", *ports, RADIUS_SECRET=SECRET.decode())
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["elapsed_ms"] >= 480


def test_load_says_so_when_nobody_answers():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        result = load("--count", "2", "--secret", SECRET.decode(), "--auth-port", str(silent.getsockname()[1]), "--csv")
    assert result.returncode == 5
    assert "nothing was answered; see that the server runs" in result.stderr
    columns, values = (line.split(",") for line in result.stdout.splitlines())
    assert dict(zip(columns, values, strict=True))["retransmissions"] == "4"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        # RFC 5737: nobody has this address, should it be sent to after all.
        (["--server", "192.0.2.1", "--secret", "x"], "give --yes-really if it is meant"),
        (["--server", "radius.example.net", "--secret", "x"], "give one such as 127.0.0.1"),
        (["--users", "user%s%s", "--secret", "x"], "write one number as in customer%03d"),
        ([], "there is no shared secret"),
        (["--profile", "reboot"], "is not one of"),
        (["--window", "100000", "--secret", "x"], "is not in the range"),
        (["--window", "600", "--source-ports", "2", "--secret", "x"], "2 source ports have 512 identifiers"),
        (["--method", "eap", "--secret", "x"], "is not one of"),
    ],
)
def test_load_refuses_what_it_should_not_send(arguments, complaint):
    result = load(*arguments)
    assert result.returncode == 2
    assert complaint in " ".join(result.stderr.split())
    assert result.stdout == ""


@pytest.fixture(scope="module")
def daemon(new_database: Callable[[], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A real server with 40 subscribers, one session each; loopback is its NAS."""
    running = Daemon(tmp_path_factory.mktemp("load") / "state", dsn=new_database()).start()
    try:
        with running.desk() as desk:
            make_nas(desk, secret=SECRET)
            make_plan(desk, sessions=1)
            for number in range(1, SUBSCRIBERS + 1):
                make_subscriber(desk, name=f"user-{number}", password=b"password-%d" % number)
        with FakeNas(running, secret=SECRET, patience=0.3) as nas:
            wait_until(lambda: nas.login(b"user-40", b"wrong"), "the replica with the provisioned rows")
        yield running
    finally:
        running.kill_all()


def load_at(daemon: Daemon, *arguments: str) -> dict[str, object]:
    """What it reports; everything must have been well."""
    words = ("--users", "user-%d", "--password", "password-%d", "--subscribers", str(SUBSCRIBERS), "--json")
    ports = ("--auth-port", str(daemon.access_port), "--acct-port", str(daemon.accounting_port))
    done = load(*words, *ports, *arguments, RADIUS_SECRET=SECRET.decode())
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("method", ["pap", "chap", "mschap2"])
def test_load_logs_in_at_the_real_server_by_each_method(daemon: Daemon, method: str) -> None:
    said = load_at(daemon, "--method", method, "--count", "120", "--source-ports", "4")
    assert (said["access_accept"], said["lost"], said["flawed"]) == (120, 0, 0)
    assert 0 < said["p50_us"] <= said["p99_us"] <= said["max_us"]


def test_load_plays_whole_sessions_at_the_real_server(daemon: Daemon) -> None:
    before = daemon.query("select count(*) from session where state = 2")[0][0]
    said = load_at(daemon, "--profile", "session", "--count", "40")
    assert (said["access_accept"], said["accounting_response"]) == (40, 120)
    assert said["login_max_us"] <= said["max_us"]
    assert said["record_max_us"] <= said["max_us"]
    ended = "select count(*) from session where state = 2"
    wait_until(lambda: daemon.query(ended) == [(before + 40,)], "forty sessions that have ended")


def test_after_a_reboot_storm_everybody_is_in_once_and_nothing_stays_open(daemon: Daemon) -> None:
    """Plans of one session: the first one never stopped, and nobody is refused the second for it."""
    begun = "select count(*) from session where nas_identifier = 'sms-aaa-load'"
    before = daemon.query(begun)[0][0]
    said = load_at(daemon, "--profile", "reboot-storm", "--count", "40", "--window", "40")
    assert (said["sessions_before"], said["access_accept"], said["accounting_response"]) == (40, 40, 40)
    assert said["accounting_on_us"] > 0
    assert "access_reject" not in said
    wait_until(lambda: daemon.query(begun) == [(before + 80,)], "forty sessions before, forty after")
    wait_until(lambda: daemon.query("select 1 from session where state = 1") == [], "none that is open")
    assert daemon.query("select count(*) from session where estimated") == [(80,)]


def test_load_without_message_authenticator_is_refused_by_a_server_that_saw_it_signed(daemon: Daemon) -> None:
    done = load(
        "--no-message-authenticator", "--count", "1", "--auth-port", str(daemon.access_port),
        RADIUS_SECRET=SECRET.decode(),
    )  # fmt: skip
    assert done.returncode == 5
    assert "nothing was answered" in done.stderr


def test_load_tells_loss_by_its_exit_code():
    with Peer(lambda packet, _: [] if packet.attributes[1] == b"user-2" else [accept(packet)]).serving() as peer:
        ports = ("--auth-port", str(peer.port), "--acct-port", str(peer.port))
        result = load("--users", "user-%d", "--subscribers", "4", "--count", "4", *ports, RADIUS_SECRET=SECRET.decode())
    assert result.returncode == 1
    assert "1 requests were not answered" in result.stderr


def test_load_tells_a_flawed_reply_by_its_exit_code():
    with Peer(lambda packet, _: [accept(packet)]).serving() as peer:
        ports = ("--auth-port", str(peer.port), "--acct-port", str(peer.port))
        result = load("--method", "mschap2", "--count", "3", *ports, RADIUS_SECRET=SECRET.decode())
    assert result.returncode == 1
    assert "3 times: MS-CHAP2-Success does not prove that the server knows the password" in result.stderr


def test_load_uses_as_many_source_ports_as_it_is_told():
    with Peer(lambda packet, _: [accept(packet)]).serving() as peer:
        ports = ("--auth-port", str(peer.port), "--acct-port", str(peer.port))
        result = load("--source-ports", "3", "--count", "30", *ports, RADIUS_SECRET=SECRET.decode())
    assert result.returncode == 0, result.stderr
    assert len({source for _, source in peer.came}) == 3


def test_load_begins_nothing_after_its_time():
    with Peer(lambda packet, _: [accept(packet)]).serving() as peer:
        ports = ("--auth-port", str(peer.port), "--acct-port", str(peer.port))
        limits = ("--seconds", "0.5", "--count", "10000000", "--rate", "100")
        result = load(*limits, "--json", *ports, RADIUS_SECRET=SECRET.decode())
    assert result.returncode == 0, result.stderr
    assert 10 <= json.loads(result.stdout)["asked"] <= 120


def test_a_storm_that_finds_nobody_does_not_begin():
    with Peer(lambda *_: []).serving() as peer:
        ports = ("--auth-port", str(peer.port), "--acct-port", str(peer.port))
        result = load("--profile", "reboot-storm", "--count", "2", *ports, RADIUS_SECRET=SECRET.decode())
    assert result.returncode == 5
    assert "before the storm 0 sessions came up, 2 requests were lost" in result.stderr
    assert result.stdout == ""
