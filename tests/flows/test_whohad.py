"""Stories of who had an address: at an instant, in mid-session, behind a prefix, at the edge of what is known."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from make import Said, Site, move_ended, record_of, utc

from sms_aaa.db.engine import connect
from sms_aaa.db.whohad import network_of
from sms_aaa.flows.settling import close_stale_sessions, settle_accounting
from sms_aaa.flows.whohad import Answers, find_holders
from sms_aaa.radius import dictionary
from sms_aaa.radius.packet import attribute
from sms_aaa.rules.holding import Doubt

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sms_aaa.db.engine import Connection

T0 = utc("2026-11-10 12:00:00")
pytestmark = pytest.mark.months(T0)
SECOND = 0x0A000009


class World(Site):
    """One NAS, one subscriber; whatever is asked is asked of the living and again of the history."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection, T0)

    def move(self) -> int:
        return move_ended(self.connection, now=T0 + timedelta(days=30))

    def ask(self, address: str, seconds: int, *, port: int | None = None, tolerance: int = 0) -> Answers:
        at = T0 + timedelta(seconds=seconds)
        return find_holders(self.connection, network_of(address), port, at, tolerance_seconds=tolerance)

    def who(self, address: str, seconds: int, **more: int) -> list[tuple[str, ...]]:
        """(Acct-Session-Id, doubt, ...) of each who had it."""
        held = self.ask(address, seconds, **more).held
        return [(one.holder.acct_session_id, *(doubt.value for doubt in one.doubts)) for one in held]


@pytest.fixture
def world(database_dsn: str) -> Iterator[World]:
    with connect(database_dsn, name="test") as connection:
        yield World(connection)
        connection.rollback()


def at(seconds: int, status: str = "interim", *, began: int = 0, **more: object) -> Said:
    lasts = {} if status == "start" else {"seconds": seconds - began}
    return Said(status=status, at=T0 + timedelta(seconds=seconds), **{**lasts, **more})


def test_an_address_goes_from_one_session_to_the_next(world: World) -> None:
    world.settle(at(0, "start", session="a"), at(600, "stop", session="a"))
    world.settle(at(900, "start", session="b"), at(1500, "stop", session="b", began=900))
    for _ in ("at hand", "in the history"):
        assert world.who("10.0.0.7", 300) == [("a",)]
        assert world.who("10.0.0.7", 0) == [("a",)]
        assert world.who("10.0.0.7", 600) == [("a",)]
        assert world.who("10.0.0.7", 1000) == [("b",)]
        assert world.who("10.0.0.0/24", 1000) == [("b",)]
        assert world.who("::ffff:10.0.0.7", 1000) == [("b",)]
        assert world.who("10.0.0.8", 1000) == []
        assert world.who("10.0.0.7", 700, tolerance=100) == [("a", "within-tolerance")]
        assert world.who("10.0.0.7", 750, tolerance=150) == [("a", "within-tolerance"), ("b", "within-tolerance")]
        world.move()


def test_where_nobody_had_it_the_nearest_before_and_after_are_told(world: World) -> None:
    for name, began in (("a", 0), ("b", 1000), ("c", 2000), ("d", 3000)):
        world.settle(at(began, "start", session=name), at(began + 500, "stop", session=name, began=began))
    for _ in ("at hand", "in the history"):
        nobody = world.ask("10.0.0.7", 1700)
        assert nobody.held == []
        assert nobody.before is not None
        assert nobody.after is not None
        assert (nobody.before.holder.acct_session_id, nobody.after.holder.acct_session_id) == ("b", "c")
        first, last = world.ask("10.0.0.7", -60), world.ask("10.0.0.7", 9000)
        assert (first.before, last.after) == (None, None)
        assert first.after is not None
        assert last.before is not None
        assert (first.after.holder.acct_session_id, last.before.holder.acct_session_id) == ("a", "d")
        world.move()


def test_an_open_session_is_sure_until_it_was_last_heard(world: World) -> None:
    world.settle(at(0, "start"), at(600))
    assert world.who("10.0.0.7", 300) == [("s-1", "still-open")]
    assert world.who("10.0.0.7", 900) == [("s-1", "not-heard-since", "still-open")]
    assert [one.is_sure for one in world.ask("10.0.0.7", 300).held] == [True]
    assert [one.is_sure for one in world.ask("10.0.0.7", 900).held] == [False]


def test_an_end_that_was_inferred_is_said_to_be(world: World) -> None:
    world.settle(at(0, "start"), at(600))
    close_stale_sessions(world.connection, now=T0 + timedelta(days=1), multiple=3, limit=10)
    for _ in ("at hand", "in the history"):
        (one,) = world.ask("10.0.0.7", 300).held
        assert (one.doubts, one.is_sure) == ((Doubt.ESTIMATED,), True)
        before = world.ask("10.0.0.7", 700).before
        assert before is not None
        assert Doubt.ESTIMATED in before.doubts
        world.move()


def test_a_clock_that_was_wrong_makes_the_answer_unsure(world: World) -> None:
    wrong = Said(status="stop", at=utc("1970-01-02 00:00:00"), seconds=600)
    record = record_of(wrong, nas_id=world.nas_id, offset=64, received_at=T0 + timedelta(seconds=600))
    settle_accounting(world.connection, [record], single_nas={world.nas_id: True})
    assert world.who("10.0.0.7", 300) == [("s-1", "nas-clock")]


def test_an_address_that_changed_in_mid_session_is_found_by_its_own_times(world: World) -> None:
    world.settle(at(0, "start"), at(300), at(600, framed_ip=SECOND), at(900, "stop", framed_ip=SECOND))
    for _ in ("at hand", "in the history"):
        assert world.who("10.0.0.7", 200) == [("s-1",)]
        assert world.who("10.0.0.7", 400) == [("s-1", "changed-around-then")]
        assert world.who("10.0.0.7", 700) == []
        assert world.who("10.0.0.9", 200) == []
        assert world.who("10.0.0.9", 700) == [("s-1",)]
        world.move()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (dictionary.FRAMED_IPV6_PREFIX, bytes((0, 64)) + bytes.fromhex("20010db800010002")),
        (dictionary.DELEGATED_IPV6_PREFIX, bytes((0, 56)) + bytes.fromhex("20010db8000100")),
        (dictionary.FRAMED_IPV6_ADDRESS, bytes.fromhex("20010db8000100020000000000000007")),
    ],
    ids=["framed prefix", "delegated prefix", "framed address"],
)
def test_ipv6_is_found_by_an_address_within_and_a_prefix_around(world: World, key: int, value: bytes) -> None:
    given = attribute(key, value)
    world.settle(at(0, "start", extra=given), at(600, "stop", extra=given))
    for _ in ("at hand", "in the history"):
        assert world.who("2001:db8:1:2::7", 300) == [("s-1",)]
        assert world.who("2001:db8:1::/48", 300) == [("s-1",)]
        assert world.who("2001:db8:1:2::/64", 300) == [("s-1",)]
        assert world.who("2001:db8:2::7", 300) == []
        assert world.who("2001:db8:2::/48", 300) == []
        assert world.who("2001:db8:1:2::7", 601) == []
        world.move()


def test_who_is_told_with_device_line_and_evidence(world: World) -> None:
    world.settle(at(0, "start"), at(600, "stop"))
    holder = world.ask("10.0.0.7", 300).held[0].holder
    assert (holder.subscriber, holder.identity, holder.username) == ("alice", "alice", "alice")
    assert (holder.calling_station_id, holder.nas, holder.nas_port) == ("02-00-00-00-00-07", "bng1", 7)
    assert (holder.node, holder.sequence, holder.record_offset) == ("node1", 1, 72)
