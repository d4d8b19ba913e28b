"""The daemon as NASes meet it: real processes, real UDP, a real database. One daemon serves the whole module."""

from __future__ import annotations

import os
import socket
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from daemon import Daemon, FakeNas, started, wait_until
from make import SECRET, Said, make_nas, make_plan, make_subscriber, packet_of

from sms_aaa.cli.simulator import Device, Simulator, login
from sms_aaa.flows.access import read_class
from sms_aaa.flows.provisioning.credentials import set_password
from sms_aaa.flows.provisioning.nas import remove_nas
from sms_aaa.flows.provisioning.subscribers import set_state
from sms_aaa.radius import dictionary
from sms_aaa.radius.credentials import Method
from sms_aaa.radius.digest import SecretDigests
from sms_aaa.radius.packet import Code, as_integer, attribute, integer
from sms_aaa.radius.request import accounting_request, mschap2_success_is_authentic, status_server
from sms_aaa.rules.entitlement import ServiceState
from sms_aaa.rules.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


CALL_CHECK = attribute(dictionary.SERVICE_TYPE, integer(10))


@pytest.fixture(scope="module")
def daemon(new_database: Callable[[], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    for running in started(tmp_path_factory.mktemp("daemon") / "state", new_database()):
        with running.desk() as desk:
            make_nas(desk)
            make_plan(desk, sessions=1)
            make_plan(desk, name="open-end", sessions=0)
            make_subscriber(desk, static_ipv4="198.51.100.7")
            make_subscriber(desk, name="camera", password=None, mac="02:ab:cd:00:00:01", plan="open-end")
            for name in ("bob", "carol", "dave", "erin", "frank", "grace"):
                make_subscriber(desk, name=name, password=f"{name}-password".encode(), plan="open-end")
        with FakeNas(running) as nas:
            wait_until(lambda: nas.login(b"grace", b"grace-password"), "the replica with the provisioned rows")
        yield running


@pytest.fixture
def nas(daemon: Daemon) -> Iterator[FakeNas]:
    with FakeNas(daemon, patience=20) as fake:
        yield fake


def test_pap_is_accepted_with_the_rights_of_the_plan(nas: FakeNas) -> None:
    reply = nas.login(b"alice", b"wonderland", extra=attribute(dictionary.FRAMED_PROTOCOL, integer(1)))
    assert reply is not None
    assert reply.code == Code.ACCESS_ACCEPT
    values = reply.attributes
    assert values[dictionary.MIKROTIK_RATE_LIMIT] == b"20M/100M"
    assert as_integer(values[dictionary.SESSION_TIMEOUT]) == 86_400
    assert as_integer(values[dictionary.IDLE_TIMEOUT]) == 600
    assert as_integer(values[dictionary.ACCT_INTERIM_INTERVAL]) == 300
    assert values[dictionary.FRAMED_IP_ADDRESS] == socket.inet_aton("198.51.100.7")
    assert as_integer(values[dictionary.FRAMED_PROTOCOL]) == 1
    assert read_class(reply) is not None
    # BlastRADIUS: the Message-Authenticator is the first attribute.
    assert reply.data[20] == dictionary.MESSAGE_AUTHENTICATOR


@pytest.mark.parametrize("method", ["pap", "chap", "mschap", "mschap2"])
def test_each_method_lets_the_right_password_in_and_the_wrong_one_not(nas: FakeNas, method: str) -> None:
    accepted = nas.login(b"bob", b"bob-password", method)
    refused = nas.login(b"bob", b"bob-passwurd", method)
    assert accepted is not None
    assert refused is not None
    assert (accepted.code, refused.code) == (Code.ACCESS_ACCEPT, Code.ACCESS_REJECT)


def test_mschap2_proves_the_server_and_brings_the_keys(nas: FakeNas) -> None:
    reply = nas.login(b"bob", b"bob-password", "mschap2")
    assert reply is not None
    assert mschap2_success_is_authentic(
        reply.attributes[dictionary.MS_CHAP2_SUCCESS],
        b"bob",
        b"bob-password",
        challenge=nas.challenge,
        peer_challenge=nas.peer_challenge,
    )
    assert dictionary.MS_MPPE_SEND_KEY in reply.attributes
    assert dictionary.MS_MPPE_RECV_KEY in reply.attributes


def test_a_reject_carries_words_only_and_the_same_for_unknown_user_and_wrong_password(nas: FakeNas) -> None:
    unknown = nas.login(b"nobody", b"wonderland")
    wrong = nas.login(b"bob", b"wrong")
    assert unknown is not None
    assert wrong is not None
    assert unknown.attributes[dictionary.REPLY_MESSAGE] == wrong.attributes[dictionary.REPLY_MESSAGE]
    allowed = {dictionary.REPLY_MESSAGE, dictionary.MESSAGE_AUTHENTICATOR}
    assert set(unknown.attributes) == allowed
    assert set(wrong.attributes) == allowed


def test_pyrad_is_served_and_finds_our_replies_authentic(daemon: Daemon) -> None:
    from pathlib import Path

    from pyrad.client import Client
    from pyrad.dictionary import Dictionary
    from pyrad.packet import AccessAccept, AccessRequest

    words = Dictionary(str(Path(__file__).with_name("pyrad.dictionary")))
    client = Client("127.0.0.1", authport=daemon.access_port, secret=SECRET, dict=words)
    client.timeout = 3
    request = client.CreateAuthPacket(code=AccessRequest, User_Name="bob", message_authenticator=True)
    request["User-Password"] = request.PwCrypt("bob-password")
    request.add_message_authenticator()
    assert client.SendPacket(request).code == AccessAccept
    client._CloseSocket()


def test_a_wrong_secret_meets_silence_and_a_counter(daemon: Daemon) -> None:
    before = daemon.metrics()['sms_aaa_packet_drops_total{fault="message-authenticator-invalid"}']
    with FakeNas(daemon, secret=b"not the secret", patience=0.5) as stranger:
        assert stranger.login(b"bob", b"bob-password") is None
        assert stranger.account(packet_of_now(b"bob", "start", secret=b"not the secret")) is None
    drops = daemon.metrics()
    assert drops['sms_aaa_packet_drops_total{fault="message-authenticator-invalid"}'] == before + 1
    assert drops['sms_aaa_packet_drops_total{fault="bad-request-authenticator"}'] >= 1


def test_garbage_meets_silence_and_the_server_serves_on(daemon: Daemon, nas: FakeNas) -> None:
    for port in (daemon.access_port, daemon.accounting_port):
        for garbage in (b"", b"\x01", os.urandom(19), os.urandom(300), b"\x01\x02\x00\x14" + bytes(16), b"\xff" * 4097):
            nas.send(garbage, port)
    assert nas.receive(0.5) is None
    reply = nas.login(b"bob", b"bob-password")
    assert reply is not None
    assert daemon.metrics()['sms_aaa_packet_drops_total{fault="too-short"}'] >= 2


def test_status_server_is_answered_on_both_ports(daemon: Daemon, nas: FakeNas) -> None:
    for port, code in (
        (daemon.access_port, Code.ACCESS_ACCEPT),
        (daemon.accounting_port, Code.ACCOUNTING_RESPONSE),
    ):
        reply = nas.ask(status_server(nas.next_identifier(), os.urandom(16), nas.digests), port)
        assert reply is not None
        assert reply.code == code


def test_a_retransmission_gets_the_very_same_reply(daemon: Daemon, nas: FakeNas) -> None:
    request = nas.login_request(b"bob", b"bob-password")
    nas.send(request, daemon.access_port)
    first = nas.receive()
    nas.send(request, daemon.access_port)
    assert first is not None
    assert nas.receive() == first


def test_proxy_state_comes_back_unmodified_and_in_order(nas: FakeNas) -> None:
    states = [attribute(dictionary.PROXY_STATE, value) for value in (b"one", b"two")]
    reply = nas.login(b"bob", b"bob-password", extra=b"".join(states))
    assert reply is not None
    assert reply.all(dictionary.PROXY_STATE) == [b"one", b"two"]


def test_a_request_that_no_reply_has_room_for_meets_silence_and_kills_nobody(daemon: Daemon, nas: FakeNas) -> None:
    pids = [daemon.pid_of(name) for name in ("access-1", "access-2")]
    full = attribute(dictionary.PROXY_STATE, bytes(253)) * 15 + attribute(dictionary.PROXY_STATE, bytes(200))
    nas.send(nas.login_request(b"bob", b"bob-password", extra=full), daemon.access_port)
    assert nas.receive(0.5) is None
    assert _accepted(nas.login(b"bob", b"bob-password"))
    assert [daemon.pid_of(name) for name in ("access-1", "access-2")] == pids
    assert daemon.metrics()['sms_aaa_packet_drops_total{fault="reply-too-long"}'] >= 1


@pytest.mark.parametrize("written", [b"02-AB-CD-00-00-01", b"02abcd000001", b"02:ab:cd:00:00:01", b"02ab.cd00.0001"])
def test_a_device_is_let_in_by_its_address_in_any_form(daemon: Daemon, nas: FakeNas, written: bytes) -> None:
    from sms_aaa.radius.request import access_request

    attributes = (
        attribute(dictionary.USER_NAME, written) + CALL_CHECK + attribute(dictionary.CALLING_STATION_ID, written)
    )
    request = access_request(nas.next_identifier(), os.urandom(16), attributes, nas.digests)
    reply = nas.ask(request, daemon.access_port)
    assert reply is not None
    assert reply.code == Code.ACCESS_ACCEPT


def test_a_user_who_types_a_neighbours_address_is_not_let_in_by_it(nas: FakeNas) -> None:
    station = attribute(dictionary.CALLING_STATION_ID, b"02-00-00-00-00-99")
    reply = nas.login(b"02-AB-CD-00-00-01", b"02-AB-CD-00-00-01", extra=station)
    assert reply is not None
    assert reply.code == Code.ACCESS_REJECT


def test_the_second_device_of_a_one_session_plan_is_refused_until_the_first_stops(daemon: Daemon, nas: FakeNas) -> None:
    with daemon.desk() as desk:
        service_id = make_subscriber(desk, name="single", password=b"single-password")
    first = attribute(dictionary.CALLING_STATION_ID, b"02-00-00-00-00-01")
    second = attribute(dictionary.CALLING_STATION_ID, b"02-00-00-00-00-02")
    wait_until(lambda: _accepted(nas.login(b"single", b"single-password", extra=first)), "a login in the replica")
    accepted = nas.login(b"single", b"single-password", extra=first)
    assert accepted is not None
    assert accepted.code == Code.ACCESS_ACCEPT, "the same device again replaces its own reservation"
    refused = nas.login(b"single", b"single-password", extra=second)
    assert refused is not None
    assert refused.code == Code.ACCESS_REJECT
    named = read_class(accepted)
    assert named is not None
    assert named[0] == service_id
    stop = packet_of_now(b"single", "stop", service_id=service_id, token=named[1], session="single-1")
    assert nas.account(stop) is not None
    again = nas.login(b"single", b"single-password", extra=second)
    assert again is not None
    assert again.code == Code.ACCESS_ACCEPT


def race(daemon: Daemon, nas: FakeNas, rounds: int) -> None:
    """Fifty devices at once through both workers, from sixteen source ports; a subscriber for each round."""
    with daemon.desk() as desk:
        for number in range(rounds):
            make_subscriber(desk, name=f"racer{rounds}-{number}", password=b"password")
        make_subscriber(desk, name=f"last{rounds}", password=b"password", plan="open-end")
    wait_until(lambda: _accepted(nas.login(b"last%d" % rounds, b"password")), "the racers in the replica")
    ports = {"access_port": daemon.access_port, "accounting_port": daemon.accounting_port}
    with Simulator("127.0.0.1", Secret(SECRET), **ports) as many:
        for number in range(rounds):
            devices = [
                Device(
                    username=f"racer{rounds}-{number}",
                    password="password",
                    station=f"02-00-00-00-{number:02X}-{device:02X}",
                    port=device,
                    nas_identifier="bng1",
                )
                for device in range(50)
            ]
            questions = [login(device, Method.PAP, many.digests).question for device in devices]
            codes = [outcome.reply.code if outcome.reply else 0 for outcome in many.ask_all(questions)]
            assert sorted(codes) == [Code.ACCESS_ACCEPT] + [Code.ACCESS_REJECT] * 49, f"round {number}"


def test_of_fifty_logins_at_once_on_a_one_session_plan_one_is_let_in(daemon: Daemon, nas: FakeNas) -> None:
    race(daemon, nas, 5)


@pytest.mark.campaign
def test_of_fifty_logins_at_once_on_a_one_session_plan_one_is_let_in_each_of_200_times(
    daemon: Daemon, nas: FakeNas
) -> None:
    race(daemon, nas, 200)


def test_a_change_is_live_without_a_restart(daemon: Daemon, nas: FakeNas) -> None:
    assert _accepted(nas.login(b"carol", b"carol-password"))
    with daemon.desk() as desk:
        set_state(desk, "carol", ServiceState.SUSPENDED, "unpaid")
    wait_until(lambda: not _accepted(nas.login(b"carol", b"carol-password")), "the change on the running workers")
    with daemon.desk() as desk:
        set_state(desk, "carol", ServiceState.ACTIVE, "")
        set_password(desk, "carol", Secret(b"new password"))
    wait_until(lambda: _accepted(nas.login(b"carol", b"new password")), "the change on the running workers")


def test_a_nas_that_is_added_is_served_and_one_that_is_removed_is_a_stranger(daemon: Daemon) -> None:
    other = b"the secret of another"
    with daemon.desk() as desk:
        make_nas(desk, name="bng2", prefix="127.0.0.2", secret=other)
    with FakeNas(daemon, secret=other, patience=0.2, address="127.0.0.2") as stranger:
        wait_until(
            lambda: _accepted(stranger.login(b"dave", b"dave-password")), "the change on the running workers", 10
        )
        with daemon.desk() as desk:
            remove_nas(desk, "bng2")
        wait_until(lambda: stranger.login(b"dave", b"dave-password") is None, "the change on the running workers")


def test_accounting_becomes_a_session_usage_and_money(daemon: Daemon, nas: FakeNas) -> None:
    accepted = nas.login(b"erin", b"erin-password")
    assert accepted is not None
    named = read_class(accepted)
    assert named is not None
    began = datetime.now(UTC) - timedelta(seconds=600)
    for status, seconds, octets in (("start", None, None), ("interim", 300, 20 * 10**9), ("stop", 600, 52 * 10**9)):
        said = Said(
            status=status,
            at=began + timedelta(seconds=seconds or 0),
            session="erin-1",
            username=b"erin",
            seconds=seconds,
            octets_in=0 if octets else None,
            octets_out=octets,
            service_id=named[0],
            token=named[1],
        )
        reply = nas.account(packet_of(said))
        assert reply is not None
        assert reply.code == Code.ACCOUNTING_RESPONSE
    wait_until(lambda: daemon.query("select 1 from session where username = 'erin' and state = 2"), "the session")
    wait_until(lambda: not daemon.query("select 1 from rating_queue"), "an empty rating queue")
    assert daemon.query(
        """select t.quantity, t.posted_minor from usage_total t join component c on c.id = t.component_id
           join subscription u on u.id = t.subscription_id join service s on s.id = u.service_id
           where s.identity = 'erin' and t.quantity > 0"""
    ) == [(52 * 10**9, 100)]


def test_decisions_reach_the_database_without_any_secret(daemon: Daemon, nas: FakeNas) -> None:
    nas.login(b"frank", b"a wrong password of frank")
    wait_until(lambda: daemon.query("select 1 from decision where username = 'frank'"), "the decision")
    [row] = daemon.query("select d::text from decision d where username = 'frank'")
    assert "a wrong password" not in str(row)
    assert "a wrong password" not in daemon.log.read_text()


def test_a_record_that_postgresql_refuses_is_quarantined_alone(daemon: Daemon, nas: FakeNas) -> None:
    daemon.execute("alter table session add constraint refused check (username <> 'poison')")
    try:
        for username in (b"frank", b"poison", b"grace"):
            assert nas.account(packet_of_now(username, "stop", session=f"among-{username.decode()}")) is not None
        wait_until(lambda: daemon.query("select 1 from quarantine"), "the quarantine")
        assert daemon.query("select reason, raw is not null from quarantine") == [("refused: CheckViolation", True)]
        found = "select username from session where acct_session_id like 'among-%' order by username"
        wait_until(lambda: daemon.query(found) == [("frank",), ("grace",)], "the good records around it")
    finally:
        daemon.execute("alter table session drop constraint refused; delete from quarantine")


def test_a_delta_that_cannot_be_rated_goes_into_suspense_alone(daemon: Daemon, nas: FakeNas) -> None:
    daemon.execute("alter table rated_usage add constraint refused check (quantity <> 4711)")
    try:
        began = datetime.now(UTC) - timedelta(seconds=600)
        for session, octets in (("s-before", 1000), ("s-refused", 4711), ("s-after", 2000)):
            said = Said(
                status="stop", at=began, username=b"frank", session=session, seconds=60, octets_in=0, octets_out=octets
            )
            assert nas.account(packet_of(said)) is not None
        wait_until(lambda: daemon.query("select 1 from suspense"), "the suspense")
        wait_until(lambda: not daemon.query("select 1 from rating_queue"), "an empty rating queue")
        assert daemon.query("select reason from suspense") == [("refused: CheckViolation",)]
        rated = "select quantity from rated_usage where quantity in (1000, 2000, 4711) order by 1"
        assert daemon.query(rated) == [(1000,), (2000,)]
    finally:
        daemon.execute("alter table rated_usage drop constraint refused")


def test_a_dead_worker_is_started_again_on_the_same_sockets(daemon: Daemon, nas: FakeNas) -> None:
    for name in ("access-1", "access-2", "accounting-1"):
        before = daemon.pid_of(name)
        daemon.kill(name)
        wait_until(lambda name=name, before=before: daemon.pid_of(name) not in {0, before}, f"a new {name}")
    wait_until(daemon.is_healthy, "health")
    wait_until(lambda: _accepted(nas.login(b"bob", b"bob-password")), "a login after the death of the workers")


def test_a_reload_with_wrong_settings_changes_nothing(daemon: Daemon, nas: FakeNas) -> None:
    """The environment of a process cannot change under it; what is shown here is that a reload serves on."""
    import signal

    before = {process.name: process.pid for process in daemon.running().processes}
    assert daemon.process is not None
    daemon.process.send_signal(signal.SIGHUP)
    wait_until(
        lambda: all(process.pid not in {0, before[process.name]} for process in daemon.running().processes),
        "new processes after the reload",
    )
    wait_until(daemon.is_healthy, "health")
    assert _accepted(nas.login(b"bob", b"bob-password"))
    assert all(process.restarts <= 2 for process in daemon.running().processes)


def packet_of_now(
    username: bytes,
    status: str,
    *,
    secret: bytes = SECRET,
    service_id: int | None = None,
    token: bytes = b"token-01",
    session: str = "s-now",
) -> bytes:
    said = Said(
        status=status,
        at=datetime.now(UTC),
        username=username,
        session=session,
        seconds=0 if status != "start" else None,
        service_id=service_id,
        token=token,
    )
    data = packet_of(said)
    return data if secret == SECRET else accounting_request(said.identifier, data[20:], SecretDigests(secret))


def _accepted(reply: object) -> bool:
    return reply is not None and getattr(reply, "code", 0) == Code.ACCESS_ACCEPT
