"""The journal's rules J7 to J10 where a stream is settled: real files, a real database; what settling does is a row."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from sms_aaa.config import load_settings
from sms_aaa.db import positions as db_positions
from sms_aaa.db.engine import connect
from sms_aaa.metrics import Word
from sms_aaa.node.board import Board
from sms_aaa.node.journal import Stream, Writer
from sms_aaa.node.journal_reader import list_files
from sms_aaa.rules.secret import Secret
from sms_aaa.server.journal_room import LOOK_SECONDS, JournalRoom
from sms_aaa.server.log import Log
from sms_aaa.server.stream import Fenced, StreamSettler
from sms_aaa.server.worker import Child, Order

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sms_aaa.db.engine import Connection
    from sms_aaa.node.journal_reader import Batch

DATABASE_ID = bytes(range(16))
BOUND_OCTETS = 134_217_728
NOW = 1_800_000_000_000_000_000


class Rows:
    """A keeper whose every record is a row; one more than once would be seen."""

    def store(self, connection: Connection, sequence: int, batch: Batch) -> int:
        for record in batch.records:
            connection.execute(
                "insert into event (kind, object_kind, object_id, payload) values ('record', %s, %s, '{}')",
                (record.payload.decode(), sequence),
            )
        return len(batch.records)

    def after(self, stored: int) -> None:
        """Nothing follows from it."""

    def refused(self) -> None:
        """Nothing is remembered."""


@pytest.fixture
def child(database_dsn: str, tmp_path: Path) -> Child:
    bound = {"SMS_AAA_JOURNAL_ACCOUNTING_OCTETS_MAX": str(BOUND_OCTETS)}
    settings = load_settings(None, {"SMS_AAA_NODE_STATE_FOLDER": str(tmp_path), **bound})
    assert isinstance(Board.create(tmp_path / "board", slots=1, now_ns=1), Board)
    dsn = Secret(database_dsn.encode())
    return Child(Order(name="t", slot=0, sockets=[], settings=settings, dsn=dsn, supervisor_pid=os.getpid()))


@pytest.fixture
def connection(database_dsn: str) -> Iterator[Connection]:
    with connect(database_dsn, name="test", repeatable=True) as opened:
        yield opened


def settler_of(child: Child, connection: Connection) -> StreamSettler[int]:
    made = StreamSettler[int](child, Stream.ACCOUNTING, Rows(), batch_max=3)
    made.begin(connection, DATABASE_ID)
    connection.commit()
    return made


def write(child: Child, *payloads: bytes, at: int = NOW, database_id: bytes = DATABASE_ID) -> int:
    """A file of a writer that has ended; its sequence."""
    folder = child.journal_folder(Stream.ACCOUNTING)
    writer = Writer(folder, Stream.ACCOUNTING, database_id, None, synced=True, file_octets_max=65_536)
    writer.append(payloads, at)
    writer.close()
    return at


def settle_all(settler: StreamSettler[int], connection: Connection) -> None:
    while settler.settle(connection).worked:
        pass


def rows(connection: Connection) -> list[str]:
    found = connection.execute("select object_kind from event where kind = 'record' order by object_kind").fetchall()
    connection.commit()
    return [str(row[0]) for row in found]


def position(connection: Connection, sequence: int) -> tuple[int, bool] | None:
    found = db_positions.list_positions(connection, "node1", int(Stream.ACCOUNTING)).get(sequence)
    connection.commit()
    return found


def test_j7_a_second_settler_at_the_same_place_is_fenced_and_leaves_no_row(
    child: Child, connection: Connection, database_dsn: str
) -> None:
    sequence = write(child, b"1", b"2", b"3", b"4", b"5")
    first = settler_of(child, connection)
    with connect(database_dsn, name="second", repeatable=True) as other:
        second = settler_of(child, other)
        assert first.settle(connection).worked
        with pytest.raises(Fenced):
            second.settle(other)
        assert rows(connection) == ["1", "2", "3"]
        second.begin(other, DATABASE_ID)  # it looks anew and takes over
        settle_all(second, other)
    assert rows(connection) == ["1", "2", "3", "4", "5"]
    found = position(connection, sequence)
    assert found is not None
    assert found[1]


def test_j7_rows_and_position_are_stored_together_or_not_at_all(child: Child, connection: Connection) -> None:
    sequence = write(child, b"1", b"2")
    settler = settler_of(child, connection)
    connection.execute("alter table journal_position add constraint refused check (position = 0) not valid")
    connection.commit()
    with pytest.raises(Exception, match="refused"):
        settler.settle(connection)
    connection.rollback()
    assert rows(connection) == []
    connection.execute("alter table journal_position drop constraint refused")
    connection.commit()
    settle_all(settler_of(child, connection), connection)
    assert rows(connection) == ["1", "2"]
    assert position(connection, sequence) is not None


def test_j8_a_file_of_another_database_is_left_named_and_the_others_are_settled(
    child: Child, connection: Connection, capsys: pytest.CaptureFixture[str]
) -> None:
    child.log = Log("t", "info")  # into what capsys reads
    foreign = write(child, b"foreign", database_id=bytes(16))
    write(child, b"ours", at=NOW + 1)
    settler = settler_of(child, connection)
    settle_all(settler, connection)
    assert rows(connection) == ["ours"]
    assert position(connection, foreign) is None
    assert child.counters[Word.SETTLE_FAULTS] == 1
    said = capsys.readouterr().err
    assert f"{foreign:020d}.journal" in said
    assert "foreign-database" in said


def test_j9_room_is_made_of_the_oldest_that_are_settled_long_enough_and_of_nothing_else(
    child: Child, connection: Connection
) -> None:
    old, older, young = (write(child, b"x" * 1_000, at=NOW + number) for number in range(3))
    settler = settler_of(child, connection)
    settle_all(settler, connection)
    for sequence, hours in ((old, 30), (older, 40), (young, 1)):
        connection.execute(
            "update journal_position set updated_at = now() - make_interval(hours => %s) where sequence = %s",
            (hours, sequence),
        )
    connection.commit()
    settler = settler_of(child, connection)
    unsettled = write(child, b"not yet", at=NOW + 3)
    assert settler.make_room(1, older_than_seconds=86_400) == 1
    assert sequences(child) == {older, young, unsettled}  # in the order of writing
    assert settler.make_room(1_000_000, older_than_seconds=86_400) == 1
    assert sequences(child) == {young, unsettled}
    assert settler.make_room(1_000_000, older_than_seconds=86_400) == 0
    settler.clean(connection, older_than_days=7)
    assert position(connection, old) is None
    assert position(connection, young) is not None
    settle_all(settler, connection)
    assert rows(connection)[0] == "not yet"


def test_j9_what_may_tell_of_a_silent_session_stays_however_short_room_is(child: Child, connection: Connection) -> None:
    sequence = write(child, b"a start")
    settle_all(settler_of(child, connection), connection)
    connection.execute("update journal_position set updated_at = now() - interval '30 hours'")
    connection.commit()
    room = JournalRoom(child, settler_of(child, connection))
    with (child.journal_folder(Stream.ACCOUNTING) / "ballast").open("wb") as ballast:
        os.posix_fallocate(ballast.fileno(), 0, BOUND_OCTETS)
    room.silence_seconds = 40 * 3600
    room.keep(100.0)
    assert sequences(child) == {sequence}
    assert child.counters[Word.JOURNAL_ROOM_OCTETS] == 0
    room.silence_seconds = 900
    room.keep(100.0 + LOOK_SECONDS)
    assert sequences(child) == set()
    assert child.counters[Word.JOURNAL_EARLY] == 1


def test_j10_a_file_that_is_gone_before_it_is_settled_stops_the_settler_and_is_named(
    child: Child, connection: Connection, capsys: pytest.CaptureFixture[str]
) -> None:
    child.log = Log("t", "info")  # into what capsys reads
    gone = write(child, b"1", b"2", b"3", b"4")
    write(child, b"later", at=NOW + 1)
    settler = settler_of(child, connection)
    settler.settle(connection)
    (child.journal_folder(Stream.ACCOUNTING) / f"{gone:020d}.journal").unlink()
    with pytest.raises(SystemExit) as ended:
        settler.settle(connection)
    assert ended.value.code == 1
    said = capsys.readouterr().err
    assert f"{gone:020d}.journal is missing" in said
    assert "restore it" in said
    assert rows(connection) == ["1", "2", "3"]  # nothing is settled until it is back
    found = position(connection, gone)
    assert found is not None
    assert not found[1]


def test_j10_a_damaged_record_is_put_aside_with_its_octets_and_the_rest_is_settled(
    child: Child, connection: Connection
) -> None:
    sequence = write(child, b"first", b"second", b"third")
    (file,) = [one for one in _files(child) if one.sequence == sequence]
    octets = file.path.read_bytes()
    file.path.write_bytes(octets.replace(b"second", b"sEcond"))
    settle_all(settler_of(child, connection), connection)
    assert rows(connection) == ["first", "third"]
    ((reason, raw),) = connection.execute("select reason, raw from quarantine").fetchall()
    assert reason == "damaged: checksum"
    assert b"sEcond" in bytes(raw)


def sequences(child: Child) -> set[int]:
    return {file.sequence for file in _files(child)}


def _files(child: Child):
    files = list_files(child.journal_folder(Stream.ACCOUNTING))
    assert isinstance(files, list)
    return files
