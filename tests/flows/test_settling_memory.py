"""What a settler remembers is right whoever changed a session meanwhile, and two settlers never wait in a circle."""

from __future__ import annotations

import itertools
import random
import threading
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from make import Said, make_desk, make_nas, make_plan, make_subscriber, record_of, utc
from psycopg.errors import DeadlockDetected

from sms_aaa.db import session_copy, sessions
from sms_aaa.db.engine import Conflict, connect
from sms_aaa.db.partitions import create_ahead
from sms_aaa.db.reconcile import list_violations
from sms_aaa.db.sessions import SessionFacts, StoredSession
from sms_aaa.flows.memory import Memory
from sms_aaa.flows.settling import close_stale_sessions, settle_accounting

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sms_aaa.db.engine import Connection
    from sms_aaa.flows.settling import Settled

T0 = utc("2026-11-10 12:00:00")
pytestmark = pytest.mark.months(T0)


class Node:
    """A settler: its connection, what it remembers, its journal."""

    def __init__(self, connection: Connection, nas_id: int, sequence: int) -> None:
        self.connection = connection
        self.memory = Memory()
        self.nas_id = nas_id
        self.sequence = sequence
        self.offsets = itertools.count(64, 8)

    def settle(self, *said: Said) -> Settled:
        """A batch, committed."""
        settled = self.store(*said)
        self.connection.commit()
        self.memory.keep(settled.sessions)
        return settled

    def store(self, *said: Said) -> Settled:
        """A batch that is not committed yet."""
        records = [record_of(one, nas_id=self.nas_id, offset=next(self.offsets)) for one in said]
        for place, _ in records:
            assert place.node == "node1"
        return settle_accounting(self.connection, records, single_nas={self.nas_id: True}, memory=self.memory)

    def sessions(self) -> list[tuple[object, ...]]:
        rows = self.connection.execute("select life, state, octets_in, deltas from session order by id").fetchall()
        self.connection.commit()
        return rows


@pytest.fixture
def nas_id(database_dsn: str) -> int:
    with connect(database_dsn, name="desk") as connection:
        desk = make_desk(connection)
        nas_id = make_nas(desk)
        make_plan(desk)
        make_subscriber(desk)
        create_ahead(connection, T0)
        connection.commit()
    return nas_id


@pytest.fixture
def node(database_dsn: str, nas_id: int) -> Iterator[Node]:
    with connect(database_dsn, name="one") as connection:
        yield Node(connection, nas_id, 1)


@pytest.fixture
def other(database_dsn: str, nas_id: int) -> Iterator[Node]:
    with connect(database_dsn, name="other") as connection:
        yield Node(connection, nas_id, 2)


def start(session: str = "s-1", seconds: int = 0) -> Said:
    return Said(status="start", at=T0 + timedelta(seconds=seconds), session=session)


def interim(seconds: int, octets: int, session: str = "s-1", status: str = "interim") -> Said:
    return Said(
        status=status,
        at=T0 + timedelta(seconds=seconds),
        session=session,
        seconds=seconds,
        octets_in=octets,
        octets_out=octets,
    )


def assert_lawful(connection: Connection) -> None:
    for law, violations in list_violations(connection):
        assert not violations, (law, violations)
    connection.commit()


def test_a_batch_that_is_rolled_back_is_not_remembered(node: Node) -> None:
    node.settle(start(), interim(300, 10))
    node.store(interim(600, 30))
    node.connection.rollback()
    node.settle(interim(900, 50))
    assert node.sessions() == [(1, 1, 50, 2)]
    assert_lawful(node.connection)


def test_a_commit_of_which_nobody_knows_is_seen(node: Node, other: Node) -> None:
    """The server committed, but its answer was lost: the memory is a batch behind."""
    node.settle(start(), interim(300, 10))
    node.store(interim(600, 30))
    node.connection.commit()
    node.settle(interim(900, 50))
    assert node.sessions() == [(1, 1, 50, 3)]
    assert_lawful(node.connection)


def test_what_another_node_settled_is_seen(node: Node, other: Node) -> None:
    node.settle(start(), interim(300, 10))
    other.settle(interim(600, 30))
    node.settle(interim(900, 50))
    other.settle(interim(1200, 70, status="stop"))
    node.settle(interim(600, 30), interim(1200, 70, status="stop"))
    assert node.sessions() == [(1, 2, 70, 4)]
    assert_lawful(node.connection)


def test_a_life_that_began_at_another_node_is_seen(node: Node, other: Node) -> None:
    node.settle(start("s-1"), start("s-2"))
    other.settle(interim(300, 10, status="stop"), start(seconds=1000))
    # Without Acct-Session-Time it is of the latest life: who remembers only the first one would count it there.
    settle_at_last(node, [Said(status="interim", at=T0 + timedelta(seconds=1300), octets_in=7, octets_out=7)])
    rows = node.connection.execute(
        "select life, state, octets_in from session where acct_session_id = 's-1' order by life"
    ).fetchall()
    assert rows == [(1, 2, 10), (2, 1, 7)]
    node.connection.commit()
    assert_lawful(node.connection)


@pytest.mark.parametrize("ended_by", ["silence", "reboot"])
def test_a_session_that_was_ended_for_its_nas_opens_again(node: Node, other: Node, ended_by: str) -> None:
    node.settle(start(), interim(300, 10))
    if ended_by == "silence":
        close_stale_sessions(other.connection, now=T0 + timedelta(days=1), multiple=3, limit=10)
        other.connection.commit()
    else:
        other.settle(Said(status="on", at=T0 + timedelta(seconds=400), session=""))
    assert node.sessions() == [(1, 3, 10, 1)]
    node.settle(interim(600, 30))
    assert node.sessions() == [(1, 1, 30, 2)]
    assert_lawful(node.connection)


def test_more_sessions_than_there_is_room_for_are_settled_as_well(node: Node) -> None:
    node.memory = Memory(sessions_max=10)
    names = [f"s-{number}" for number in range(40)]
    for step in range(4):
        node.settle(*(interim(300 * (step + 1), 10 * (step + 1), name) for name in names))
    assert node.sessions() == [(1, 1, 40, 4)] * 40
    assert_lawful(node.connection)


def test_a_service_that_changes_hands_is_seen_at_the_next_batch(node: Node) -> None:
    node.settle(start("s-1"))
    node.connection.execute("update service set identity = 'renamed'")
    node.connection.commit()
    node.settle(start("s-2"))
    rows = node.connection.execute("select acct_session_id, service_id is null from session order by id").fetchall()
    assert rows == [("s-1", False), ("s-2", True)]


def test_two_nodes_that_settle_the_same_sessions_never_wait_in_a_circle(database_dsn: str, nas_id: int) -> None:
    """Two journals of the same sessions, cut into batches by chance: what one has to try again is no deadlock."""
    names = [f"s-{number}" for number in range(60)]
    failures: list[BaseException] = []

    def work(seed: int) -> None:
        chance = random.Random(seed)
        with connect(database_dsn, name=f"node {seed}") as connection:
            node = Node(connection, nas_id, seed)
            try:
                for step in range(12):
                    some = chance.sample(names, 40)
                    batch = [interim(300 * (step + 1), 10 * (step + 1), name) for name in some]
                    if step == 6:
                        batch.append(Said(status="on", at=T0 + timedelta(seconds=1), session=""))
                    settle_at_last(node, batch)
            except BaseException as failure:  # noqa: BLE001 - told in the main thread
                failures.append(failure)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in (1, 2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    with connect(database_dsn, name="proof") as connection:
        rows = connection.execute("select count(*), count(distinct acct_session_id) from session").fetchall()
        assert rows == [(60, 60)]
        assert_lawful(connection)


def settle_at_last(node: Node, batch: list[Said]) -> None:
    """As server/stream.py does: who is in somebody's way tries again. A deadlock is not among what is expected."""
    for _ in range(20):
        try:
            node.settle(*batch)
        except DeadlockDetected:
            raise
        except Conflict:
            node.connection.rollback()
            node.memory.refuse()
        else:
            return
    raise AssertionError("20 conflicts one after the other")


def test_every_fact_is_stored_and_read_as_it_was(node: Node) -> None:
    values = dict.fromkeys(SessionFacts.__struct_fields__, "some text")
    known: dict[str, object] = {
        "token": b"\0token", "framed_ip": "192.0.2.7", "nas_ip": "192.0.2.1", "framed_ipv6_address": "2001:db8::7",
        "framed_ipv6_prefix": "2001:db8:1::/64", "delegated_ipv6_prefix": "2001:db8:2::/56", "addressed_at": T0,
        "nas_port": 1, "nas_port_type": 2, "acct_link_count": 3, "acct_authentic": 4, "service_type": 5,
        "framed_protocol": 6,
    }  # fmt: skip
    facts = SessionFacts(**{**values, **known})  # type: ignore[arg-type] # every field, whatever it is
    settled = node.settle(start())
    [[session]] = settled.sessions.values()
    new = StoredSession(
        id=session.id + 1000,
        key=(node.nas_id, "", "s-2"),
        life=session.life,
        facts=facts,
        service_id=session.service_id,
        account_id=session.account_id,
        excluded=None,
    )
    session_copy.insert_sessions(node.connection, [new])
    assert sessions.find_sessions(node.connection, [new.key]) == [new]
    nothing = dict.fromkeys(SessionFacts.__struct_fields__) | {"username": ""}
    changed = StoredSession(
        id=new.id, key=new.key, life=new.life, facts=SessionFacts(**nothing),  # type: ignore[arg-type] # as above
        service_id=None, account_id=None, excluded="unknown-service", version=2,
    )  # fmt: skip
    session_copy.update_sessions(node.connection, [changed], [changed])
    assert sessions.find_sessions(node.connection, [new.key]) == [changed]
