"""The keeper of the live set, on a real database, journal and replica: after a boot, and after lost changes."""

from __future__ import annotations

import itertools
import os
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from make import Said, make_desk, make_nas, make_plan, make_replica, make_subscriber, record_of

from sms_aaa.config import load_settings
from sms_aaa.db import feed, places, positions
from sms_aaa.db.engine import begin_snapshot, connect
from sms_aaa.db.partitions import create_ahead
from sms_aaa.flows.places import NEIGHBOUR_SECONDS
from sms_aaa.flows.settling import settle_accounting
from sms_aaa.node.board import Board
from sms_aaa.node.journal import Appended, Stream, Writer
from sms_aaa.node.live_change import LiveFlag
from sms_aaa.node.records import pack_accounting
from sms_aaa.rules.secret import Secret
from sms_aaa.rules.session import Place
from sms_aaa.server.places import Places
from sms_aaa.server.worker import Child, Order

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sms_aaa.db.engine import Connection
    from sms_aaa.node.live_change import LiveEntry


class World:
    """Node `node1` after a boot: a state folder with journal and replica, and an empty live set."""

    def __init__(self, dsn: str, folder: Path) -> None:
        self.connection: Connection = connect(dsn, name="test")
        desk = make_desk(self.connection)
        self.nas_id = make_nas(desk)
        make_plan(desk)
        self.service_id = make_subscriber(desk)
        self.now = datetime.now(UTC)
        create_ahead(self.connection, self.now)
        self.connection.commit()
        self.database_id = feed.get_database_id(self.connection)
        make_replica(self.connection, folder, database_id=self.database_id).close()
        board = Board.create(folder / "board", slots=2, now_ns=1)
        assert isinstance(board, Board)
        self.board = board
        environ = {
            "SMS_AAA_NODE_STATE_FOLDER": str(folder),
            "SMS_AAA_DATABASE_DSN": dsn,
            "SMS_AAA_NODE_LIVE_OCTETS": "4194304",
        }
        order = Order(
            name="places",
            slot=0,
            sockets=[],
            settings=load_settings(None, environ),
            dsn=Secret(dsn.encode()),
            supervisor_pid=os.getpid(),
        )
        self.child = Child(order)
        self.keeper = Places(self.child)
        self._offsets = itertools.count(64, 8)

    def said(self, token: bytes, status: str, *, ago: int = 60) -> Said:
        at = self.now - timedelta(seconds=ago)
        seconds = None if status == "start" else 60
        session = token.decode()
        return Said(status=status, at=at, seconds=seconds, session=session, service_id=self.service_id, token=token)

    def settle(self, *said: Said, node: str) -> None:
        records = []
        for one in said:
            place, record = record_of(one, nas_id=self.nas_id, offset=next(self._offsets))
            records.append((Place(node, place.sequence, place.offset), record))
        settle_accounting(self.connection, records, single_nas={self.nas_id: True})
        self.connection.commit()

    def journal(self, *said: Said, database_id: bytes | None = None) -> list[int]:
        """Written by a worker that lives no more; the offset of each record's end, the file's sequence first."""
        writer = Writer(
            self.child.journal_folder(Stream.ACCOUNTING),
            Stream.ACCOUNTING,
            database_id or self.database_id,
            self.board.slot(1),
            synced=True,
        )
        ends = []
        for one in said:
            record = record_of(one, nas_id=self.nas_id, offset=0)[1]
            appended = writer.append([pack_accounting(record)], time.time_ns())
            assert isinstance(appended, Appended)
            ends.append(self.board.slot(1).published(int(Stream.ACCOUNTING))[1])
        sequence = self.board.slot(1).published(int(Stream.ACCOUNTING))[0]
        writer.close()
        return [sequence, *ends]

    def entries(self) -> dict[bytes, LiveEntry]:
        entries = self.keeper._live.entries(self.service_id)
        assert isinstance(entries, list)
        return {entry.token: entry for entry in entries}


@pytest.fixture
def world(database_dsn: str, tmp_path: Path) -> Iterator[World]:
    made = World(database_dsn, tmp_path)
    yield made
    made.keeper._live.close()
    made.connection.close()


def test_after_a_boot_what_is_settled_and_what_only_the_journal_knows_make_the_set_whole(world: World) -> None:
    settled = (world.said(b"stays...", "start"), world.said(b"leaves..", "start"))
    world.settle(*settled, node="node1")
    world.settle(world.said(b"far.....", "start"), node="node2")
    sequence, _, end, *_ = world.journal(*settled, world.said(b"leaves..", "stop"), world.said(b"comes...", "start"))
    positions.insert_position(world.connection, "node1", int(Stream.ACCOUNTING), sequence, end)
    world.connection.commit()
    assert not world.keeper._live.is_rebuilt()
    world.keeper._look_at_all(world.connection)
    assert world.keeper._live.is_rebuilt()
    entries = world.entries()
    assert set(entries) == {b"stays...", b"comes...", b"far....."}
    assert entries[b"far....."].flags == LiveFlag.NEIGHBOUR
    assert entries[b"stays..."].flags == entries[b"comes..."].flags == 0
    silence = 3 * 300
    assert abs(entries[b"stays..."].until - time.time() - silence) < 60
    assert abs(entries[b"comes..."].until - world.now.timestamp() + 60 - silence) < 2


def test_without_postgresql_the_whole_journal_is_read_settled_or_not(world: World) -> None:
    sequence, end = world.journal(world.said(b"stays...", "start"))
    positions.insert_position(world.connection, "node1", int(Stream.ACCOUNTING), sequence, end)
    world.connection.commit()
    world.journal(world.said(b"comes...", "start"), world.said(b"silent..", "start", ago=86_400))
    world.keeper._rebuild_alone()
    assert world.keeper._live.is_rebuilt()
    lasting = {token for token, entry in world.entries().items() if entry.until >= time.time()}
    assert lasting == {b"stays...", b"comes..."}


def test_a_journal_that_cannot_be_read_whole_is_no_rebuild_without_postgresql(world: World) -> None:
    world.journal(world.said(b"stays...", "start"))
    world.journal(world.said(b"other...", "start"), database_id=bytes(16))
    world.keeper._rebuild_alone()
    assert not world.keeper._live.is_rebuilt()
    assert set(world.entries()) == {b"stays..."}, "what could be read counts"
    world.keeper._look_at_all(world.connection)
    assert world.keeper._live.is_rebuilt(), "with PostgreSQL that file has nothing that this database lacks"


def test_changes_that_were_lost_are_made_up_for_by_a_look_at_all(world: World) -> None:
    began = (world.said(b"far-1...", "start"), world.said(b"far-2...", "start"))
    world.settle(*began, node="node2")
    cursor = world.keeper._look_at_all(world.connection)
    assert set(world.entries()) == {b"far-1...", b"far-2..."}
    time.sleep(1.1)  # another second: what is not found again is older than what is
    world.settle(world.said(b"far-1...", "stop"), node="node2")
    world.settle(world.said(b"far-3...", "start"), node="node2")
    world.connection.execute("update place_change set at = now() - interval '1 day'")
    places.delete_old(world.connection)
    world.connection.commit()
    assert world.keeper._follow(world.connection, cursor) is None
    following = world.keeper._look_at_all(world.connection)
    assert set(world.entries()) == {b"far-2...", b"far-3..."}
    world.settle(world.said(b"far-2...", "stop"), node="node2")
    assert world.keeper._follow(world.connection, following) is not None
    assert set(world.entries()) == {b"far-3..."}
    assert world.entries()[b"far-3..."].until > time.time() + NEIGHBOUR_SECONDS - 60


def test_a_late_commit_is_not_missed(world: World) -> None:
    """Its transaction began before the cursor was taken."""
    cursor = world.keeper._look_at_all(world.connection)
    with connect(world.child.find_dsn(), name="late") as late:
        place, record = record_of(world.said(b"far-1...", "start"), nas_id=world.nas_id, offset=8)
        settle_accounting(late, [(Place("node2", 1, place.offset), record)], single_nas={world.nas_id: True})
        begin_snapshot(world.connection)
        world.connection.commit()
        world.settle(world.said(b"far-2...", "start"), node="node2")
        following = world.keeper._follow(world.connection, cursor)
        assert following is not None
        assert set(world.entries()) == {b"far-2..."}
        late.commit()
    world.keeper._follow(world.connection, following)
    assert set(world.entries()) == {b"far-1...", b"far-2..."}
