"""PostgreSQL -> replica: the whole, then the changes; a transaction that commits late is not missed."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from make import follow, make_desk, make_nas, make_plan, make_replica, make_subscriber

from sms_aaa.db import feed as db_feed
from sms_aaa.db import replica as db_replica
from sms_aaa.db.engine import begin_snapshot, connect
from sms_aaa.flows import replicating
from sms_aaa.flows.provisioning.nas import remove_nas
from sms_aaa.flows.provisioning.subscribers import remove_subscriber, set_state
from sms_aaa.flows.replicating import PAGE_SERVICES, Follower, Step
from sms_aaa.node.replica import Replica
from sms_aaa.node.replica_scrub import Scrubber, Slice
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
        self.writer = make_replica(self.connection, folder)
        self.follower = Follower(self.writer, self.writer.meta())

    def follow(self) -> int:
        return follow(self.connection, self.follower)

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


# What changes by its date alone


def dated(world: World, statement: str) -> None:
    """Rows that begin or end in a moment, replicated before they do."""
    world.connection.execute(statement)
    world.connection.commit()
    world.follow()


def test_a_subscription_that_ends_without_a_row_of_it_changing_ends_in_the_replica(world: World) -> None:
    dated(world, "update subscription set during = tstzrange(lower(during), now() + interval '0.4 s')")
    assert world.find(b"alice").plan_version_id > 0
    assert world.follow() == 0
    time.sleep(0.5)
    assert world.follow() == 1
    assert world.find(b"alice").plan_version_id == 0
    assert world.follow() == 0


def test_a_subscription_that_begins_later_begins_in_the_replica(world: World) -> None:
    (plan,) = world.connection.execute("select plan_version_id from subscription").fetchone()
    dated(world, "update subscription set during = tstzrange(now() + interval '0.4 s', null)")
    assert world.find(b"alice").plan_version_id == 0
    time.sleep(0.5)
    assert world.follow() == 1
    assert world.find(b"alice").plan_version_id == plan


def test_at_the_change_from_one_plan_to_the_next_there_is_no_instant_without_one(world: World) -> None:
    make_plan(make_desk(world.connection), name="other")
    world.connection.execute("update subscription set during = tstzrange(lower(during), now() + interval '0.4 s')")
    dated(
        world,
        """insert into subscription (service_id, plan_version_id, during)
           select service_id, (select max(id) from plan_version), tstzrange(upper(during), null) from subscription""",
    )
    before, seen = world.find(b"alice").plan_version_id, set()
    until = time.monotonic() + 0.8
    while time.monotonic() < until:
        world.follow()
        seen.add(world.find(b"alice").plan_version_id)
    assert len(seen) == 2
    assert before in seen
    assert 0 not in seen


def test_an_assignment_that_ends_leaves_nobody_who_pays(world: World) -> None:
    dated(world, "update assignment set during = tstzrange(lower(during), now() + interval '0.3 s')")
    assert world.find(b"alice").account_id > 0
    time.sleep(0.4)
    assert world.follow() == 1
    assert world.find(b"alice").account_id == 0


def test_what_became_due_while_nobody_followed_is_found_by_the_next_who_does(world: World) -> None:
    dated(world, "update subscription set during = tstzrange(lower(during), now() + interval '0.2 s')")
    time.sleep(0.3)
    world.follower = Follower(world.writer, world.writer.meta())
    assert world.follow() == 1
    assert world.find(b"alice").plan_version_id == 0


def test_due_dates_are_found_by_index(world: World) -> None:
    world.connection.execute("set enable_seqscan = off")
    explained = str(world.connection.execute(b"explain " + db_replica._DUE.as_bytes(None), {"since": 0}).fetchall())
    for index in ("subscription_begins", "subscription_ends", "assignment_begins", "assignment_ends"):
        assert index in explained


# A change does not wait behind a bulk change


def add_crowd(world: World, count: int) -> None:
    world.connection.execute(
        "insert into subscriber (name) select 'crowd' || i from generate_series(1, %s) i", (count,)
    )
    world.connection.execute(
        """insert into service (subscriber_id, identity_kind, identity, state)
           select id, 1, name, 1 from subscriber where name like 'crowd%'"""
    )
    world.connection.commit()


def step(world: World) -> int:
    """One step; how many services are pending after it."""
    begin_snapshot(world.connection)
    changes = world.follower.read(world.connection, now_ns=time.time_ns())
    world.connection.commit()
    done = world.follower.apply(changes, now_ns=time.time_ns())
    assert isinstance(done, Step)
    assert done.changed <= PAGE_SERVICES + 10
    return done.pending


def test_changes_during_a_bulk_change_are_live_with_the_next_step(world: World) -> None:
    add_crowd(world, 10_000)
    assert step(world) == 10_000 - PAGE_SERVICES
    desk = make_desk(world.connection)
    set_state(desk, "alice", ServiceState.SUSPENDED, "unpaid")
    make_nas(desk, name="bng2", prefix="192.0.2.2")
    make_plan(desk, name="other")
    world.connection.commit()
    assert step(world) == 10_000 - 2 * PAGE_SERVICES + 1
    assert world.find(b"alice").state == int(ServiceState.SUSPENDED)
    assert world.tables() == (["bng1", "bng2"], ["home-100", "other"])


def test_what_has_waited_longest_is_not_put_off_by_what_changed_last(world: World) -> None:
    add_crowd(world, 3_000)
    first = world.connection.execute("select min(id) from service where identity like 'crowd%'").fetchone()[0]
    world.connection.commit()
    step(world)
    waiting = next(iter(world.follower._pending))
    for round_ in range(3):
        world.connection.execute("update service set state = %s where id >= %s + 500", (1 + round_ % 2, first))
        world.connection.commit()
        step(world)
    assert waiting not in world.follower._pending


def test_the_cursor_on_disk_waits_until_a_bulk_change_is_whole(world: World) -> None:
    """kill -9 in the middle of it: who comes next reads what was pending again."""
    before = world.writer.meta()
    add_crowd(world, 3_000)
    assert step(world) == 3_000 - PAGE_SERVICES
    meta = world.writer.meta()
    assert (meta.cursor, meta.dated_us) == (before.cursor, before.dated_us)
    world.follower = Follower(world.writer, meta)
    world.follow()
    assert world.writer.size().services == 3_001
    assert world.writer.meta().cursor != before.cursor


def test_while_something_is_pending_the_replica_is_as_old_as_the_oldest_of_it(world: World) -> None:
    add_crowd(world, 2_500)
    steps = [(step(world), world.writer.meta().refreshed_ns) for _ in range(3)]
    assert [pending for pending, _ in steps] == [1_500, 500, 0]
    assert steps[0][1] == steps[1][1] < steps[2][1]


def test_a_change_of_more_than_is_read_at_once_leaves_the_replica_as_old_as_it_was(world: World, monkeypatch) -> None:
    """Its cursor stays, so that whoever comes next finds out as well; what changes later goes in all the same."""
    monkeypatch.setattr(replicating, "SERVICES_MAX", 2_000)
    before = world.writer.meta()
    add_crowd(world, 2_500)
    while step(world):
        pass
    assert world.follower.is_swamped
    set_state(make_desk(world.connection), "alice", ServiceState.SUSPENDED, "unpaid")
    world.connection.commit()
    world.follow()
    assert world.find(b"alice").state == int(ServiceState.SUSPENDED)
    meta = world.writer.meta()
    assert (meta.cursor, meta.refreshed_ns) == (before.cursor, before.refreshed_ns)
    second = Follower(world.writer, meta)
    follow(world.connection, second)
    assert second.is_swamped


# The whole, compared with what SQL says


def test_a_rebuild_of_a_crowd_has_every_service_once_and_finds_nothing_amiss(world: World, tmp_path: Path) -> None:
    add_crowd(world, 12_345)
    world.connection.execute("update service set state = 3 where identity like 'crowd%7'")
    world.connection.commit()
    writer = make_replica(world.connection, tmp_path / "second")
    (services,) = world.connection.execute("select count(*) from service where state <> 3").fetchone()
    assert writer.size().services == services < 12_345
    scrubber, looked = Scrubber(writer.databases), []
    while not (looked and looked[-1].ends_pass):
        looked.append(scrubber.look(4))
        assert isinstance(looked[-1], Slice)
    assert sum(one.services for one in looked) == services
    writer.close()
