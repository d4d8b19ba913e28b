"""Strict places on real PostgreSQL: one claim after the other, whoever asks; the feed of sessions for other nodes."""

from __future__ import annotations

import threading
from contextlib import closing
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from make import Said, Site, record_of, utc

from sms_aaa.db import feed, places
from sms_aaa.db.engine import begin_snapshot, connect
from sms_aaa.db.places import Claim, Claimed
from sms_aaa.flows.places import NEIGHBOUR_SECONDS, list_changes, list_online
from sms_aaa.flows.settling import close_stale_sessions, settle_accounting
from sms_aaa.node.live_change import Release, session_key

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sms_aaa.db.engine import Connection

T0 = utc("2026-11-10 12:00:00")
pytestmark = pytest.mark.months(T0)
STATION = "02-00-00-00-00-07"  # as the records of tests/make.py have it
NOW = 1_800_000_000
ADMITTED, REFUSED = Claimed(True, 0), Claimed(False, 1)


class World(Site):
    """A NAS and a service; each step is committed."""

    def __init__(self, dsn: str, connection: Connection) -> None:
        self.dsn = dsn
        super().__init__(connection, T0)
        connection.commit()

    def claim(self, token: bytes, **more: object) -> Claimed:
        [claimed] = places.claim(self.connection, [self.asked(token, **more)], node="node1", seconds=60)
        self.connection.commit()
        return claimed

    def asked(self, token: bytes, **more: object) -> Claim:
        facts = {"station": "", "port_id": "", "port": 0, "sessions_max": 1, "replaces": True} | more
        return Claim(service_id=facts.pop("service_id", self.service_id), token=token, nas_id=self.nas_id, **facts)

    def settle(self, *said: Said, node: str = "node1") -> None:
        records = []
        for one in said:
            place, record = record_of(one, nas_id=self.nas_id, offset=next(self.offsets))
            records.append((type(place)(node, place.sequence, place.offset), record))
        settle_accounting(self.connection, records, single_nas={self.nas_id: True})
        self.connection.commit()

    def at(self, seconds: int, status: str, **more: object) -> Said:
        more = {"token": b"token-01", "service_id": self.service_id} | more
        return Said(status=status, at=T0 + timedelta(seconds=seconds), seconds=seconds, **more)

    def reservations(self) -> list[bytes]:
        return [row[0] for row in self.connection.execute("select token from place order by token").fetchall()]


@pytest.fixture
def world(database_dsn: str) -> Iterator[World]:
    with closing(connect(database_dsn, name="test")) as connection:
        yield World(database_dsn, connection)


def test_the_first_claim_is_admitted_and_the_next_device_refused(world: World) -> None:
    assert world.claim(b"first...", station="a") == ADMITTED
    assert world.claim(b"second..", station="b") == REFUSED
    assert world.claim(b"third...", station="b", sessions_max=2) == Claimed(True, 1)
    assert world.claim(b"fourth..", station="c", sessions_max=0) == Claimed(True, 2)


@pytest.mark.parametrize("replaces", [True, False])
@pytest.mark.parametrize("device", [{"station": "a"}, {"port_id": "ppp17"}, {"port": 7}])
def test_a_device_that_waits_for_its_start_asks_again_and_replaces_itself(
    world: World, device: dict[str, object], replaces: bool
) -> None:
    world.claim(b"first...", replaces=replaces, **device)
    assert world.claim(b"second..", replaces=replaces, **device) == ADMITTED
    assert world.reservations() == [b"second.."]


def test_logins_without_a_device_are_each_their_own(world: World) -> None:
    assert world.claim(b"first...") == ADMITTED
    assert world.claim(b"second..") == REFUSED


def test_a_reservation_runs_out_though_its_node_died(world: World) -> None:
    world.claim(b"first...", station="a")
    world.connection.execute("update place set until = now() - interval '1 second'")
    assert world.claim(b"second..", station="b") == ADMITTED
    assert world.reservations() == [b"second.."]


def test_a_session_holds_the_place_of_its_login_until_it_stops(world: World) -> None:
    world.claim(b"token-01", station=STATION)
    world.settle(world.at(0, "start"))
    assert world.reservations() == [], "spent: the session has the place"
    assert world.claim(b"second..", station="b") == REFUSED
    assert world.claim(b"second..", station="b", sessions_max=2) == Claimed(True, 1)
    world.settle(world.at(60, "stop"))
    assert world.claim(b"third...", station="b") == ADMITTED


def test_a_start_and_its_stop_that_are_settled_together_leave_no_reservation(world: World) -> None:
    world.claim(b"token-01", station=STATION)
    world.settle(world.at(0, "start"), world.at(60, "stop"))
    assert world.reservations() == []
    assert world.claim(b"second..", station="b") == ADMITTED


def test_a_device_that_is_online_takes_over_its_own_place_unless_the_plan_rejects_new(world: World) -> None:
    world.settle(world.at(0, "start"))
    assert world.claim(b"second..", station=STATION, replaces=False) == REFUSED
    assert world.claim(b"second..", station=STATION) == ADMITTED
    assert world.claim(b"third...", station="b", sessions_max=2) == Claimed(True, 1), "one device, one place"
    assert world.claim(b"fourth..", station="c", sessions_max=3, replaces=False) == Claimed(False, 3), "three logins"


def test_a_reboot_of_the_nas_frees_its_places(world: World) -> None:
    world.settle(world.at(0, "start"))
    assert world.claim(b"second..", station="b") == REFUSED
    world.settle(Said(status="on", at=T0 + timedelta(seconds=60), session=""))
    assert world.claim(b"second..", station="b") == ADMITTED


def test_of_two_logins_of_one_statement_on_one_place_the_first_has_it(world: World) -> None:
    asked = [world.asked(b"first...", station="a"), world.asked(b"second..", station="b")]
    assert places.claim(world.connection, asked, node="node1", seconds=60) == [ADMITTED, REFUSED]


def test_many_that_claim_the_same_services_at_once_neither_lock_each_other_out_nor_pass_the_limit(world: World) -> None:
    """Eight connections, forty services, each claim a statement over all of them in an order of its own."""
    services = range(1_000_000, 1_000_040)
    admitted: list[int] = []
    start = threading.Barrier(8)

    def ask(number: int) -> None:
        with closing(connect(world.dsn, name=f"test-{number}")) as connection:
            connection.autocommit = True
            start.wait()
            for turn in range(5):
                order = [*services[number * turn :], *services[: number * turn]]
                asked = [world.asked(b"%04d%04d" % (number, service % 10_000), service_id=service) for service in order]
                told = places.claim(connection, asked, node="node1", seconds=60)
                if turn == 0:
                    admitted.extend(one.service_id for one, was in zip(asked, told, strict=True) if was.is_admitted)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(admitted) == list(services)
    assert len(world.reservations()) == len(services)


def test_a_claim_and_a_settler_at_the_same_reservation_do_not_wait_for_each_other(world: World) -> None:
    world.claim(b"token-01", station=STATION)
    with closing(connect(world.dsn, name="settler")) as settler:
        settler.execute("set lock_timeout = '2s'")
        places.spend(settler, [(world.service_id, b"token-01")])
        world.connection.execute("set lock_timeout = '2s'")
        assert world.claim(b"second..", station=STATION) == ADMITTED
        settler.commit()
    assert world.reservations() == [b"second.."]


def test_other_nodes_hear_what_began_ended_and_moved(world: World) -> None:
    def look(cursor: str, node: str):
        begin_snapshot(world.connection)
        assert places.covers(world.connection, cursor)
        told = list_changes(world.connection, cursor, node=node, now=NOW)
        following = feed.get_cursor(world.connection)
        world.connection.commit()
        return told, following

    begin_snapshot(world.connection)
    cursor = feed.get_cursor(world.connection)
    world.connection.commit()
    world.settle(world.at(0, "start"))
    (began, ended), after = look(cursor, "node2")
    [online] = began
    assert (online.service_id, online.token, online.is_neighbour) == (world.service_id, b"token-01", True)
    assert online.until == NOW + NEIGHBOUR_SECONDS
    assert ended == []
    assert look(cursor, "node1")[0] == ([], []), "its own packets told node1"
    world.settle(world.at(300, "interim"))
    assert look(after, "node2")[0] == ([], []), "an interim is no news"
    world.settle(world.at(600, "interim"), node="node2")
    (began, _), after = look(after, "node1")
    assert [one.token for one in began] == [b"token-01"], "it is at node2 now"
    world.settle(world.at(900, "stop"), node="node2")
    assert look(after, "node1")[0] == ([], [Release(world.service_id, b"token-01", session_key("s-1"))])


def test_other_nodes_hear_of_reboots_of_silence_and_of_who_wakes(world: World) -> None:
    def changes() -> int:
        row = world.connection.execute("select count(*) from place_change").fetchone()
        world.connection.execute("truncate place_change")
        world.connection.commit()
        return int(row[0])

    world.settle(world.at(0, "start"))
    changes()
    world.settle(Said(status="on", at=T0 + timedelta(seconds=60), session=""))
    assert changes() == 1
    world.settle(world.at(300, "interim"))
    assert changes() == 1, "woken"
    assert close_stale_sessions(world.connection, now=T0 + timedelta(days=1), multiple=3, limit=10).sessions
    assert changes() == 1


def test_a_cursor_older_than_what_is_kept_is_told(world: World) -> None:
    begin_snapshot(world.connection)
    cursor = feed.get_cursor(world.connection)
    world.connection.commit()
    for session in ("s-1", "s-2", "s-3"):
        world.settle(world.at(0, "start", session=session))
    world.connection.execute("update place_change set at = now() - interval '1 day'")
    assert places.covers(world.connection, cursor)
    places.delete_old(world.connection)
    assert not places.covers(world.connection, cursor)


def test_all_open_sessions_are_listed_with_whose_they_are(world: World) -> None:
    world.settle(world.at(0, "start"), world.at(0, "start", session="s-2", token=b"token-02"))
    world.settle(world.at(60, "interim", session="s-2", token=b"token-02"), node="node2")
    world.settle(world.at(0, "start", session="s-3", token=b"token-03"), world.at(9, "stop", session="s-3"))

    def listed(**more: object) -> dict[bytes, tuple[int, bool]]:
        online = list(list_online(world.connection, node="node1", now=NOW, **more))
        assert {one.device for one in online} == {online[0].device}
        return {one.token: (one.until, one.is_neighbour) for one in online}

    assert listed(own_until=99) == {b"token-01": (99, False), b"token-02": (NOW + NEIGHBOUR_SECONDS, True)}
    assert listed(own_until=None) == {b"token-02": (NOW + NEIGHBOUR_SECONDS, True)}
