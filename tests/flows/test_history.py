"""Stories of sessions after their end: grace, the history, and what is heard too late."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from make import Said, Site, move_ended, utc

from sms_aaa.db.engine import connect
from sms_aaa.db.reconcile import list_violations
from sms_aaa.flows import history
from sms_aaa.flows.settling import close_stale_sessions

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from sms_aaa.db.engine import Connection

T0 = utc("2026-11-10 12:00:00")
pytestmark = pytest.mark.months(T0)
DAY = 86_400


class World(Site):
    """One NAS, one subscriber, and a clock that the story sets."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection, T0)

    def move(self, now: datetime, *, limit: int = 100) -> int:
        return move_ended(self.connection, now=now, limit=limit)

    def rows(self, query: str) -> list[tuple[object, ...]]:
        return self.connection.execute(query).fetchall()

    def quarantined(self) -> list[str]:
        return [row[0] for row in self.connection.execute("select reason from quarantine order by id").fetchall()]

    def check_books(self) -> None:
        for law, violations in list_violations(self.connection):
            assert not violations, (law, violations)


@pytest.fixture
def world(database_dsn: str) -> Iterator[World]:
    with connect(database_dsn, name="test") as connection:
        yield World(connection)
        connection.rollback()


def at(
    seconds: int, status: str = "interim", octets: int | None = None, *, lasts: int | None = -1, session="s"
) -> Said:
    """A record `seconds` after T0, so many octets each way, of a session that began then or lasts `lasts` by now."""
    lasted = None if status == "start" else seconds if lasts == -1 else lasts
    when = T0 + timedelta(seconds=seconds)
    return Said(status=status, at=when, seconds=lasted, octets_in=octets, octets_out=octets, session=session)


def days(count: float) -> datetime:
    return T0 + timedelta(days=count)


def test_what_has_ended_moves_after_its_grace_and_what_is_open_never(world: World) -> None:
    world.settle(at(0, "start", session="a"), at(600, "stop", 5, session="a"))
    world.settle(at(0, "start", session="b"), at(600, octets=7, session="b"))
    assert world.move(days(6)) == 0
    assert world.move(days(900)) == 1
    assert world.rows("select acct_session_id from session") == [("b",)]
    moved = world.rows("select acct_session_id, state, octets_in, tableoid::regclass::text from session_history")
    assert moved == [("a", 2, 5, "session_history_202611")]
    assert world.rows("select acct_session_id from session_all order by 1") == [("a",), ("b",)]
    assert world.rows("select before from session_boundary") == [(T0 + timedelta(seconds=600, microseconds=1),)]
    world.check_books()


def test_batches_move_the_oldest_first_and_the_boundary_never_back(world: World) -> None:
    for number, end in enumerate((300, 100, 200)):
        world.settle(at(end, "stop", 5, session=f"s{number}"))
    boundaries = []
    while world.move(days(8), limit=1):
        boundaries.append(world.rows("select before from session_boundary")[0][0])
    assert boundaries == sorted(boundaries)
    assert len(boundaries) == 3
    assert [row[0] for row in world.rows("select acct_session_id from session_history order by stopped_at")] == [
        "s1", "s2", "s0",
    ]  # fmt: skip


def test_within_its_grace_a_late_packet_meets_its_session(world: World) -> None:
    world.settle(at(0, "start"), at(600, "stop", 50))
    world.move(days(6))
    world.settle(at(300, octets=20))
    assert world.rows("select octets_in, deltas from session_all") == [(50, 1)]
    assert world.quarantined() == []


def test_a_record_of_a_closed_session_in_the_history_is_too_late_and_makes_no_phantom(world: World) -> None:
    world.settle(at(0, "start"), at(600, "stop", 50))
    world.move(days(8))
    settled = world.settle(at(300, octets=20), at(600, "stop", 50), at(0, "start"))
    assert settled.quarantined == 3
    assert world.quarantined() == ["too-late"] * 3
    assert world.rows("select octets_in, deltas from session_all") == [(50, 1)]
    world.check_books()


def test_the_same_id_used_again_is_another_session(world: World) -> None:
    world.settle(at(0, "start"), at(600, "stop", 50))
    world.move(days(8))
    world.settle(at(9 * DAY, "start"), at(9 * DAY + 60, "stop", 3, lasts=60))
    assert world.rows("select octets_in from session_all order by started_at") == [(50,), (3,)]
    assert world.quarantined() == []


def test_a_journal_that_waited_longer_than_the_grace_is_settled_all_the_same(world: World) -> None:
    """What was answered counts: only what the history has already is too late."""
    world.settle(at(0, "start", session="a"), at(600, "stop", 5, session="a"))
    world.move(days(8))
    world.settle(at(0, "start", session="b"), at(300, octets=20, session="b"), at(500, "stop", 30, session="b"))
    assert world.quarantined() == []
    assert world.rows("select octets_in from session") == [(30,)]


def test_a_session_that_lapsed_comes_back_from_the_history_and_counts_on(world: World) -> None:
    """No interims for 30 days: it lapses, it moves, and the Stop that comes in the end is not lost."""
    world.settle(at(0, "start"), at(600, octets=10))
    close_stale_sessions(world.connection, now=days(1), multiple=3, limit=10)
    assert world.move(days(20)) == 1
    world.settle(at(30 * DAY, "stop", 5000))
    assert world.rows("select state, octets_in, deltas from session") == [(2, 5000, 2)]
    assert world.rows("select count(*) from session_history") == [(0,)]
    assert world.quarantined() == []
    world.check_books()


def test_a_session_that_comes_back_gives_way_to_the_number_of_a_newer_life(world: World) -> None:
    world.settle(at(600, octets=10))
    close_stale_sessions(world.connection, now=days(1), multiple=3, limit=10)
    world.move(days(20))
    world.settle(at(25 * DAY, "start"), at(25 * DAY + 60, "stop", 3, lasts=60))
    world.settle(at(22 * DAY, octets=5000))
    assert sorted(world.rows("select life, octets_in from session")) == [(1, 3), (2, 5000)]
    world.check_books()


def test_without_a_session_time_a_lapsed_life_is_met_and_a_closed_one_is_not_mistaken(world: World) -> None:
    world.settle(at(600, octets=10, session="a"), at(600, "stop", 10, session="b"))
    close_stale_sessions(world.connection, now=days(1), multiple=3, limit=10)
    assert world.move(days(20)) == 2
    world.settle(at(21 * DAY, octets=30, session="a", lasts=None), at(21 * DAY, octets=4, session="b", lasts=None))
    assert sorted(world.rows("select acct_session_id, octets_in from session_all")) == [
        ("a", 30), ("b", 4), ("b", 10),
    ]  # fmt: skip
    assert world.quarantined() == []


def test_what_was_closed_just_now_stays_until_other_nodes_have_heard_of_it(world: World) -> None:
    """A reboot ends it at its last update, which is long ago: its place on other nodes is to be freed first."""
    world.settle(at(0, "start"), at(600))
    world.settle(at(40 * DAY, "on", session=""))
    before = {"now": days(41), "grace_days": 7, "limit": 100}
    assert history.move_ended(world.connection, **before) == 0
    world.connection.execute("delete from place_change where session_id <> 0")
    assert history.move_ended(world.connection, **before) == 1


def test_the_mover_leaves_what_a_settler_has_locked(world: World, database_dsn: str) -> None:
    world.settle(at(600, "stop", 5, session="a"), at(700, "stop", 5, session="b"))
    world.connection.commit()
    with connect(database_dsn, name="settler") as settler:
        world.settle(at(500, octets=2, session="a"), on=settler)
        assert world.move(days(20)) == 1
        world.connection.commit()
        settler.commit()
    assert world.rows("select acct_session_id from session") == [("a",)]
    assert world.move(days(20)) == 1


def test_a_settler_that_meets_the_mover_at_work_waits_and_makes_no_phantom(world: World, database_dsn: str) -> None:
    """The race of db/history.py: the row is deleted but not committed when the settler comes to lock it."""
    world.settle(at(600, "stop", 50))
    world.connection.commit()
    assert world.move(days(20)) == 1
    found: list[int] = []

    def late() -> None:
        with connect(database_dsn, name="settler") as settler:
            found.append(world.settle(at(300, octets=20), on=settler).quarantined)
            settler.commit()

    thread = threading.Thread(target=late)
    thread.start()
    with connect(database_dsn, name="onlooker") as onlooker:
        while not found and not _is_waiting(onlooker):
            onlooker.rollback()
    assert not found, "it waits for the mover"
    world.connection.commit()
    thread.join(timeout=20)
    assert found == [1]
    assert world.rows("select octets_in from session_all") == [(50,)]


def _is_waiting(onlooker: Connection) -> bool:
    query = "select count(*) from pg_stat_activity where application_name like '%settler' and wait_event_type = 'Lock'"
    row = onlooker.execute(query).fetchone()
    assert row is not None
    return bool(row[0])


def test_one_node_moves_at_a_time(world: World, database_dsn: str) -> None:
    world.settle(at(600, "stop", 5, session="a"), at(700, "stop", 5, session="b"))
    world.connection.commit()
    assert world.move(days(20), limit=1) == 1
    with connect(database_dsn, name="second") as second:
        again = {"now": days(20), "grace_days": 7, "limit": 100}
        assert history.move_ended(second, **again) == 0
        second.rollback()
        world.connection.commit()
        assert history.move_ended(second, **again) == 1
