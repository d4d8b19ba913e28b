"""Two nodes on one database: within seconds they count each other's sessions, and at once under a strict limit."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import psycopg
import pytest
from daemon import Daemon, FakeNas, wait_until
from make import SECRET, Said, make_nas, make_plan, make_subscriber, packet_of, utc
from psycopg.conninfo import conninfo_to_dict

from sms_aaa.cli.simulator import Device, Simulator, login
from sms_aaa.flows.access import read_class
from sms_aaa.radius import dictionary
from sms_aaa.radius.credentials import Method
from sms_aaa.radius.packet import Code, Packet, attribute
from sms_aaa.rules.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sms_aaa.server.postgres import EmbeddedPostgres

PATIENCE_SECONDS = 20.0
DEADLINE_SECONDS = 1.0  # access.strict_deadline_ms as it is by default
STATIONS = [attribute(dictionary.CALLING_STATION_ID, b"02-00-00-00-00-%02d" % number) for number in range(10)]
SOCKETS = 12
ROUNDS = 4
ROUNDS_OF_CAMPAIGN = 100


class Nodes:
    """node1 decides locally while PostgreSQL is away, node2 rejects."""

    def __init__(self, first: Daemon, second: Daemon, postgres: EmbeddedPostgres) -> None:
        self.first = first
        self.second = second
        self._postgres = postgres
        self._numbers = 0

    def add(self, *, plan: str, count: int = 1) -> list[tuple[bytes, int]]:
        """(user name, service id) of new services that both nodes know."""
        added = []
        with self.first.desk() as desk:
            for _ in range(count):
                self._numbers += 1
                name = f"user{self._numbers}"
                added.append((name.encode(), make_subscriber(desk, name=name, password=b"password", plan=plan)))
        # A wrong password is another reason than an unknown user: no place is taken to see that it arrived.
        for node in (self.first, self.second):
            _wait_for_service(node, added[-1][0])
        return added

    def without_postgresql(self, away: bool) -> None:
        name = conninfo_to_dict(self.first.dsn)["dbname"]
        with psycopg.connect(self._postgres.dsn, autocommit=True) as connection:
            connection.execute(f"alter database {name} allow_connections {not away}")
            if away:
                connection.execute("select pg_terminate_backend(pid) from pg_stat_activity where datname = %s", (name,))


def _wait_for_service(node: Daemon, username: bytes) -> None:
    known = 'sms_aaa_access_decisions_total{reason="bad-password"}'
    before = node.metrics()[known]
    with FakeNas(node) as nas:
        wait_until(lambda: nas.login(username, b"wrong") and node.metrics()[known] > before, "the replica")


@pytest.fixture(scope="module")
def nodes(
    postgres: EmbeddedPostgres, new_database: Callable[[], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Nodes]:
    dsn = new_database()
    folder = tmp_path_factory.mktemp("nodes")
    shared = {"SMS_AAA_DATABASE_KEY_FILE": str(folder / "key")}
    first = Daemon(folder / "node1", dsn=dsn, SMS_AAA_NODE_NAME="node1", **shared)
    second = Daemon(
        folder / "node2", dsn=dsn, SMS_AAA_NODE_NAME="node2", SMS_AAA_ACCESS_STRICT_WHEN_AWAY="reject", **shared
    )
    with ExitStack() as stack:
        for daemon in (first, second):
            stack.callback(daemon.stop)
            daemon.start()
        with first.desk() as desk:
            make_nas(desk)
            make_plan(desk, sessions=1)
            make_plan(desk, name="strict", sessions=1, strict=True)
        yield Nodes(first, second, postgres)


def ask(node: Daemon, username: bytes, station: bytes, patience: float = PATIENCE_SECONDS) -> Packet | None:
    with FakeNas(node, patience=patience) as nas:
        return nas.login(username, b"password", extra=station)


def code_of(node: Daemon, username: bytes, station: bytes) -> int:
    reply = ask(node, username, station)
    assert reply is not None
    return reply.code


def ask_without_waiting(node: Daemon, username: bytes, station: bytes) -> Packet:
    """An answer that did not wait for the deadline; a busy machine may need several to have one that is so quick."""
    replies: list[Packet] = []

    def is_quick() -> bool:
        began = time.monotonic()
        reply = ask(node, username, station)
        assert reply is not None
        replies.append(reply)
        return time.monotonic() - began < DEADLINE_SECONDS

    wait_until(is_quick, "an answer that does not wait for PostgreSQL")
    return replies[-1]


def account(node: Daemon, status: str, accepted: Packet, session: str) -> None:
    named = read_class(accepted)
    assert named is not None
    at = utc("2026-11-10 12:00:00")
    seconds = {"start": None, "interim": 300, "stop": 600}[status]
    said = Said(status=status, at=at, session=session, seconds=seconds, service_id=named[0], token=named[1])
    with FakeNas(node, patience=PATIENCE_SECONDS) as nas:
        assert nas.account(packet_of(said)) is not None


def seconds_until(node: Daemon, username: bytes, station: bytes, code: Code) -> float:
    began = time.monotonic()
    wait_until(lambda: code_of(node, username, station) == code, f"{code.name} at the other node", PATIENCE_SECONDS)
    return time.monotonic() - began


def test_a_session_that_began_or_ended_at_one_node_counts_at_the_other_within_seconds(
    nodes: Nodes, record_property: pytest.RecordProperty
) -> None:
    [(user, _)] = nodes.add(plan="home-100")
    accepted = ask(nodes.first, user, STATIONS[1])
    assert accepted is not None
    assert accepted.code == Code.ACCESS_ACCEPT
    account(nodes.first, "start", accepted, "far-1")
    began = seconds_until(nodes.second, user, STATIONS[2], Code.ACCESS_REJECT)
    account(nodes.first, "stop", accepted, "far-1")
    ended = seconds_until(nodes.second, user, STATIONS[2], Code.ACCESS_ACCEPT)
    record_property("seconds until a session of another node counts", round(began, 2))
    record_property("seconds until its end does", round(ended, 2))
    print(f"a session of another node counts after {began:.2f} s, its end after {ended:.2f} s")


def test_the_same_device_is_let_in_at_the_other_node_and_its_session_may_move(nodes: Nodes) -> None:
    """A NAS that fails over in mid-session reports to the other node, whose Stop frees the place at the first one."""
    [(user, _)] = nodes.add(plan="home-100")
    accepted = ask(nodes.first, user, STATIONS[7])
    assert accepted is not None
    heard = "sms_aaa_neighbour_changes_total"
    before = nodes.second.metrics()[heard]
    account(nodes.first, "start", accepted, "moves-1")
    wait_until(lambda: nodes.second.metrics()[heard] > before, "the session at the other node", PATIENCE_SECONDS)
    assert code_of(nodes.second, user, STATIONS[2]) == Code.ACCESS_REJECT
    again = ask(nodes.second, user, STATIONS[7])
    assert again is not None
    assert again.code == Code.ACCESS_ACCEPT
    account(nodes.second, "stop", again, "never began")
    account(nodes.second, "interim", accepted, "moves-1")
    assert code_of(nodes.second, user, STATIONS[2]) == Code.ACCESS_REJECT
    account(nodes.second, "stop", accepted, "moves-1")
    seconds_until(nodes.first, user, STATIONS[3], Code.ACCESS_ACCEPT)


def race(nodes: Nodes, rounds: int) -> None:
    users = nodes.add(plan="strict", count=rounds)
    with ExitStack() as stack:
        sides = [
            stack.enter_context(
                Simulator(
                    "127.0.0.1", Secret(SECRET), access_port=node.access_port, accounting_port=node.accounting_port
                )
            )
            for node in (nodes.first, nodes.second)
        ]
        for number, (user, _) in enumerate(users):
            admitted = _ask_at_both(sides, user.decode(), number)
            assert len(admitted) == 1, f"round {number}: {admitted}"


def _ask_at_both(sides: list[Simulator], username: str, number: int) -> list[str]:
    """Twenty-five devices at each node, all at once; the stations that were admitted."""
    from concurrent.futures import ThreadPoolExecutor

    def ask_all(side: int) -> list[str]:
        devices = [
            Device(
                username=username,
                password="password",
                station=f"02-00-{side:02X}-{number >> 8:02X}-{number & 255:02X}-{device:02X}",
                port=device,
                nas_identifier="bng1",
            )
            for device in range(25)
        ]
        questions = [login(device, Method.PAP, sides[side].digests).question for device in devices]
        outcomes = sides[side].ask_all(questions)
        codes = [outcome.reply.code if outcome.reply else 0 for outcome in outcomes]
        assert set(codes) <= {Code.ACCESS_ACCEPT, Code.ACCESS_REJECT}, codes
        return [d.station for d, code in zip(devices, codes, strict=True) if code == Code.ACCESS_ACCEPT]

    with ThreadPoolExecutor(2) as both:
        return [station for admitted in both.map(ask_all, range(2)) for station in admitted]


def test_of_fifty_logins_at_once_at_two_nodes_a_strict_limit_lets_one_in(nodes: Nodes) -> None:
    race(nodes, ROUNDS)


@pytest.mark.campaign
def test_of_fifty_logins_at_once_at_two_nodes_a_strict_limit_lets_one_in_each_time(nodes: Nodes) -> None:
    race(nodes, ROUNDS_OF_CAMPAIGN)


def test_a_strict_place_is_freed_by_its_stop_at_whatever_node(nodes: Nodes) -> None:
    [(user, _)] = nodes.add(plan="strict")
    accepted = ask(nodes.first, user, STATIONS[1])
    assert accepted is not None
    assert accepted.code == Code.ACCESS_ACCEPT
    assert code_of(nodes.second, user, STATIONS[2]) == Code.ACCESS_REJECT, "at once"
    account(nodes.first, "start", accepted, "strict-1")
    account(nodes.second, "stop", accepted, "strict-1")
    seconds_until(nodes.second, user, STATIONS[2], Code.ACCESS_ACCEPT)


def test_without_postgresql_a_strict_login_is_decided_as_is_set_and_nobody_waits(nodes: Nodes) -> None:
    [(user, _)] = nodes.add(plan="strict")
    assert code_of(nodes.first, user, STATIONS[1]) == Code.ACCESS_ACCEPT
    nodes.without_postgresql(True)
    try:
        for node, station, code in (
            (nodes.first, STATIONS[1], Code.ACCESS_ACCEPT),
            (nodes.first, STATIONS[2], Code.ACCESS_REJECT),
            (nodes.second, STATIONS[3], Code.ACCESS_REJECT),
        ):
            reply = ask_without_waiting(node, user, station)
            assert reply.code == code
        assert reply.attributes[dictionary.REPLY_MESSAGE] == b"Please try again in a moment."
        assert nodes.second.metrics()["sms_aaa_strict_away_total"] >= 1
    finally:
        nodes.without_postgresql(False)
    limit = b"You are already online as often as your plan allows."

    def refused_by_postgresql() -> bool:
        reply = ask(nodes.second, user, STATIONS[3])
        return reply is not None and reply.attributes.get(dictionary.REPLY_MESSAGE) == limit

    assert code_of(nodes.first, user, STATIONS[1]) == Code.ACCESS_ACCEPT
    wait_until(refused_by_postgresql, "PostgreSQL's own word at node2 again", PATIENCE_SECONDS)


def _asks_in_every_worker(node: Daemon, username: bytes) -> bool:
    """Each worker has a connection of its own, and the kernel spreads source ports over both."""
    decided = "sms_aaa_strict_claims_total"
    before = node.metrics()[decided]
    for _ in range(SOCKETS):
        assert code_of(node, username, STATIONS[1]) == Code.ACCESS_ACCEPT
    return node.metrics()[decided] == before + SOCKETS


def test_a_postgresql_that_hangs_costs_a_login_its_deadline_and_the_next_ones_nothing(nodes: Nodes) -> None:
    [(user, service_id), (other, _)] = nodes.add(plan="strict", count=2)
    wait_until(lambda: _asks_in_every_worker(nodes.first, user), "a node that has its database")
    with psycopg.connect(nodes.first.dsn) as connection:
        connection.execute("select pg_advisory_xact_lock(1397642064, hashint8(%s::bigint))", (service_id,))
        began = time.monotonic()
        reply = ask(nodes.first, user, STATIONS[1])
        waited = time.monotonic() - began
        assert reply is not None
        assert reply.code == Code.ACCESS_ACCEPT
        assert waited > DEADLINE_SECONDS - 0.1  # and it came although nobody gave the lock back
        assert code_of(nodes.first, other, STATIONS[2]) == Code.ACCESS_ACCEPT
        assert code_of(nodes.first, other, STATIONS[3]) == Code.ACCESS_REJECT, "by what this node knows"
    nodes.add(plan="home-100")  # both nodes are well
