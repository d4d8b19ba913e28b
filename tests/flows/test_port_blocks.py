"""Stories of ports behind a NAT: given, taken back, given to another; who had one."""

from __future__ import annotations

import itertools
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from make import Said, Site, move_ended, utc

from sms_aaa.db.engine import connect
from sms_aaa.db.whohad import network_of
from sms_aaa.flows.settling import close_stale_sessions
from sms_aaa.flows.whohad import Answer, Answers, find_holders
from sms_aaa.radius.packet import attribute

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sms_aaa.db.engine import Connection

T0 = utc("2026-11-10 12:00:00")
pytestmark = pytest.mark.months(T0)
OUTSIDE = "203.0.113.9"


class World(Site):
    def __init__(self, connection: Connection) -> None:
        super().__init__(connection, T0)

    def ask(self, seconds: int, port: int | None) -> Answers:
        at = T0 + timedelta(seconds=seconds)
        return find_holders(self.connection, network_of(OUTSIDE), port, at, tolerance_seconds=0)

    def who(self, seconds: int, port: int | None) -> list[str]:
        return [one.holder.acct_session_id for one in self.ask(seconds, port).held]

    def blocks(self) -> list[tuple[object, ...]]:
        rows = self.connection.execute(
            """select port_from, port_to, extract(epoch from from_at - %(t0)s)::int,
                      extract(epoch from to_at - %(t0)s)::int from port_block order by from_at, port_from""",
            {"t0": T0},
        ).fetchall()
        return list(rows)

    def move(self) -> int:
        return move_ended(self.connection, now=T0 + timedelta(days=30))


@pytest.fixture
def world(database_dsn: str) -> Iterator[World]:
    with connect(database_dsn, name="test") as connection:
        yield World(connection)
        connection.rollback()


def ports(first: int, last: int, *, free: bool = False) -> bytes:
    """IP-Port-Range of RFC 8045."""
    tlvs = bytes((3, 6, 203, 0, 113, 9, 8, 6, 0, 0, 0, 2 if free else 1))
    return attribute(
        241, b"\6" + tlvs + b"".join(bytes((k, 6)) + n.to_bytes(4, "big") for k, n in ((9, first), (10, last)))
    )


EVERYTHING_FREE = attribute(241, bytes((6, 8, 6, 0, 0, 0, 2)))


def at(seconds: int, status: str = "interim", session: str = "a", extra: bytes = b"", began: int = 0) -> Said:
    lasts = None if status == "start" else seconds - began
    return Said(status=status, at=T0 + timedelta(seconds=seconds), session=session, seconds=lasts, extra=extra)


def test_a_port_of_an_outside_address_leads_to_the_session_that_had_it(world: World) -> None:
    world.settle(
        at(0, "start", "a", ports(1024, 1535)),
        at(0, "start", "b", ports(1536, 2047)),
        at(600, "stop", "a"),
        at(900, "start", "c", ports(1024, 1535)),
        at(1200, "stop", "c", began=900),
        at(1500, "stop", "b"),
    )
    for _ in ("at hand", "in the history"):
        assert world.who(300, 1024) == ["a"]
        assert world.who(300, 1535) == ["a"]
        assert world.who(300, 1536) == ["b"]
        assert world.who(700, 1030) == []
        assert world.who(1000, 1030) == ["c"]
        assert world.who(300, 1023) == []
        assert sorted(world.who(300, None)) == ["a", "b"]
        nobody = world.ask(700, 1030)
        assert _name(nobody.before) == "a"
        assert _name(nobody.after) == "c"
        world.move()


def _name(answer: Answer | None) -> str | None:
    return None if answer is None else answer.holder.acct_session_id


def test_blocks_come_and_go_in_mid_session(world: World) -> None:
    world.settle(
        at(0, "start", extra=ports(1024, 1535)),
        at(300, extra=ports(2048, 2559)),
        at(600, extra=ports(1024, 1535, free=True)),
        at(900, extra=ports(1024, 1535)),
        at(1200, extra=EVERYTHING_FREE),
        at(1500),
    )
    assert world.blocks() == [(1024, 1535, 0, 600), (2048, 2559, 300, 1200), (1024, 1535, 900, 1200)]
    assert [world.who(seconds, 1100) for seconds in (100, 700, 1000, 1300)] == [["a"], [], ["a"], []]


def test_what_every_interim_repeats_is_one_block(world: World) -> None:
    world.settle(at(0, "start", extra=ports(1024, 1535)))
    for seconds in (300, 600, 600, 300, 0):
        world.settle(at(seconds, extra=ports(1024, 1535)))
    assert world.blocks() == [(1024, 1535, 0, None)]


def test_records_out_of_order_give_the_same_block(world: World) -> None:
    said = [at(0, "start", extra=ports(1, 9)), at(300, extra=ports(1, 9)), at(600, extra=ports(1, 9, free=True))]
    for number, order in enumerate(itertools.permutations(said)):
        for one in order:
            world.settle(at((one.at - T0).seconds, one.status, f"s{number}", one.extra))
    assert set(world.blocks()) == {(1, 9, 0, 600)}
    assert len(world.blocks()) == 6


@pytest.mark.parametrize("end", ["reboot", "silence"])
def test_a_block_ends_with_its_session_also_where_no_stop_was_heard(world: World, end: str) -> None:
    world.settle(at(0, "start", extra=ports(1024, 1535)), at(300))
    assert [one.holding.to_at for one in world.ask(300, 1024).held] == [None]
    if end == "reboot":
        world.settle(at(9000, "on", ""))
    else:
        close_stale_sessions(world.connection, now=T0 + timedelta(days=1), multiple=3, limit=10)
    assert world.who(300, 1024) == ["a"]
    assert world.who(301, 1024) == []
    world.settle(at(9600))
    assert world.who(9600, 1024) == ["a"], "it was alive, and so its block was held"


def test_ports_that_cannot_be_read_are_named_and_the_usage_counts(world: World) -> None:
    bad = Said(
        status="interim", at=T0 + timedelta(seconds=300), session="a", seconds=300, octets_in=5, octets_out=7,
        extra=attribute(241, b"\6\x08\x02"),
    )  # fmt: skip
    world.settle(at(0, "start"), bad)
    assert world.connection.execute("select octets_in from session").fetchall() == [(5,)]
    assert world.connection.execute("select kind from anomaly").fetchall() == [("bad-port-block",)]
    assert world.blocks() == []


def test_a_subscriber_with_an_address_of_his_own_is_found_whatever_the_port(world: World) -> None:
    world.settle(at(0, "start"), at(600, "stop"))
    at_300 = T0 + timedelta(seconds=300)
    found = find_holders(world.connection, network_of("10.0.0.7"), 40_000, at_300, tolerance_seconds=0)
    assert [(one.holder.acct_session_id, one.found.kind) for one in found.held] == [("a", "framed_ip")]
