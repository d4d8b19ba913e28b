"""PostgreSQL -> replica: the whole, then the changes; a transaction that commits late is not missed."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from make import make_desk, make_nas, make_plan, make_subscriber

from sms_aaa.db import feed as db_feed
from sms_aaa.db.engine import begin_snapshot, connect
from sms_aaa.flows.provisioning.nas import remove_nas
from sms_aaa.flows.provisioning.subscribers import remove_subscriber, set_state
from sms_aaa.flows.replicating import fill, follow
from sms_aaa.node.replica import Replica
from sms_aaa.node.replica_writer import ReplicaWriter
from sms_aaa.rules.entitlement import IdentityKind, ServiceState

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sms_aaa.db.engine import Connection
    from sms_aaa.rules.entitlement import Entitlement


class World:
    def __init__(self, dsn: str, folder: Path) -> None:
        self.dsn = dsn
        self.folder = folder
        self.connection: Connection = connect(dsn, name="test")
        desk = make_desk(self.connection)
        make_nas(desk)
        make_plan(desk)
        make_subscriber(desk)
        self.connection.commit()
        writer = ReplicaWriter.new_generation(folder, database_id=bytes(16), schema_version=1)
        assert isinstance(writer, ReplicaWriter)
        self.writer = writer
        begin_snapshot(self.connection)
        assert fill(self.connection, writer, now_ns=time.time_ns(), progress=lambda *_: None) == 1
        self.connection.commit()
        assert writer.make_current() is None

    def follow(self) -> int:
        begin_snapshot(self.connection)
        meta = self.writer.meta()
        assert db_feed.covers(self.connection, meta.cursor)
        changed = follow(self.connection, self.writer, meta.cursor, now_ns=time.time_ns())
        self.connection.commit()
        assert isinstance(changed, int)
        return changed

    def find(self, identity: bytes, kind: IdentityKind = IdentityKind.USERNAME) -> Entitlement | None:
        replica = Replica.open(self.folder)
        assert isinstance(replica, Replica)
        with replica.read() as view:
            found = view.entitlement(int(kind), identity)
        replica.close()
        return found

    def tables(self) -> tuple[list[str], list[str]]:
        replica = Replica.open(self.folder)
        assert isinstance(replica, Replica)
        names = [nas.name for nas in replica.nas_list()], [plan.name for plan in replica.plans()]
        replica.close()
        return names


@pytest.fixture
def world(database_dsn: str, tmp_path: Path) -> Iterator[World]:
    made = World(database_dsn, tmp_path)
    yield made
    made.writer.close()
    made.connection.close()


def test_a_filled_replica_has_services_plans_and_nases(world: World) -> None:
    found = world.find(b"alice")
    assert found is not None
    assert (found.state, found.plan_version_id > 0, len(found.credential) > 40) == (1, True, True)
    assert world.tables() == (["bng1"], ["home-100"])
    assert world.find(b"nobody") is None


def test_changes_follow_and_nothing_is_left_when_nothing_changed(world: World) -> None:
    assert world.follow() == 0
    desk = make_desk(world.connection)
    make_subscriber(desk, name="bob", static_ipv4="198.51.100.7")
    make_plan(desk, name="other")
    set_state(desk, "alice", ServiceState.SUSPENDED, "unpaid")
    world.connection.commit()
    assert world.follow() == 3
    assert world.find(b"alice").state == int(ServiceState.SUSPENDED)
    assert world.find(b"bob").static_ipv4 == 0xC6336407
    assert world.tables()[1] == ["home-100", "other"]
    assert world.follow() == 0


def test_what_ended_is_gone_from_the_replica(world: World) -> None:
    desk = make_desk(world.connection)
    remove_subscriber(desk, "alice")
    remove_nas(desk, "bng1")
    world.connection.commit()
    world.follow()
    assert world.find(b"alice") is None
    assert world.tables()[0] == []


def test_a_transaction_that_began_first_and_commits_last_is_not_missed(world: World) -> None:
    with connect(world.dsn, name="slow") as slow:
        set_state(make_desk(slow), "alice", ServiceState.SUSPENDED, "unpaid")
        make_subscriber(make_desk(world.connection), name="bob")
        world.connection.commit()
        world.follow()
        assert world.find(b"alice").state == int(ServiceState.ACTIVE)
        slow.commit()
    world.follow()
    assert world.find(b"alice").state == int(ServiceState.SUSPENDED)


def test_a_change_by_hand_in_sql_is_heard_too(world: World) -> None:
    world.connection.execute("update service set state = 2")
    world.connection.commit()
    world.follow()
    assert world.find(b"alice").state == int(ServiceState.SUSPENDED)


def test_a_cursor_that_the_feed_does_not_reach_back_to_is_refused(world: World) -> None:
    cursor = db_feed.get_cursor(world.connection)
    world.connection.commit()
    make_subscriber(make_desk(world.connection), name="bob")
    world.connection.commit()
    make_subscriber(make_desk(world.connection), name="carol")
    world.connection.commit()
    assert db_feed.covers(world.connection, cursor)
    world.connection.execute("delete from feed where id < (select max(id) from feed)")
    assert not db_feed.covers(world.connection, cursor)
