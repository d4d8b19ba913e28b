"""The journal's rules J7 to J10 where a stream is settled: real files, a real database; what settling does is a row."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from sms_aaa.config import load_settings
from sms_aaa.db import positions as db_positions
from sms_aaa.db.engine import Conflict, Poison, Unavailable, connect
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
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from sms_aaa.db.engine import Connection
    from sms_aaa.node.frames import Record
    from sms_aaa.server.ahead import Portion

DATABASE_ID = bytes(range(16))
BOUND_OCTETS = 134_217_728
NOW = 1_800_000_000_000_000_000


class Rows:
    """A keeper whose every record is a row; one more than once would be seen."""

    def __init__(self, during: Callable[[list[str]], None] | None = None) -> None:
        """`during` is called while a batch is stored, for which the server then takes its time."""
        self.during = during
        self.prepared: list[str] = []
        self.ahead: list[str] = []
        """What was prepared at the end of the last batch's storing and is not of it."""

    def prepare(self, _sequence: int, records: Sequence[Record]) -> list[str]:
        texts = [record.payload.decode() for record in records]
        self.prepared += texts
        return texts

    def store(self, connection: Connection, sequence: int, portion: Portion[str]) -> int:
        assert portion.ready == [record.payload.decode() for record in portion.batch.records]
        for text in portion.ready:
            connection.execute(
                "insert into event (kind, object_kind, object_id, payload) values ('record', %s, %s, '{}')",
                (text, sequence),
            )
        if self.during is not None:
            self.during(portion.ready)
            connection.execute("select pg_sleep(0.05)")
        self.ahead = self.prepared[self.prepared.index(portion.ready[-1]) + 1 :] if portion.ready else []
        return len(portion.ready)

    def after(self, stored: int) -> None:
        """Nothing follows from it."""

    def refused(self) -> None:
        """Nothing is remembered."""


def nothing_happens(_texts: list[str]) -> None:
    pass


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


def settler_of(child: Child, connection: Connection, keeper: Rows | None = None) -> StreamSettler[str, int]:
    made = StreamSettler(child, Stream.ACCOUNTING, keeper or Rows(), batch_max=3)
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


def settle_all(settler: StreamSettler[str, int], connection: Connection) -> None:
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


def test_j7_what_was_read_ahead_of_a_batch_that_is_refused_is_stored_once(child: Child, connection: Connection) -> None:
    """One that somebody was in the way of, and one with a record that nobody takes."""
    refusals = [Conflict[0]("somebody was faster")]

    def refuse(texts: list[str]) -> None:
        if "2" in texts and refusals:
            raise refusals.pop()
        if "5" in texts:
            raise Poison[0]("a value out of its range")

    write(child, *(str(number).encode() for number in range(1, 9)))
    keeper = Rows(refuse)
    settler = settler_of(child, connection, keeper)
    assert settler.settle(connection).worked
    assert rows(connection) == ["1", "2", "3"]
    assert keeper.ahead == ["4", "5", "6"]
    settle_all(settler, connection)
    assert rows(connection) == ["1", "2", "3", "4", "6", "7", "8"]
    assert connection.execute("select raw from quarantine").fetchall() == [(b"5",)]
    assert keeper.prepared == [str(number) for number in range(1, 9)], "each was heard once"


def test_j7_what_was_read_ahead_is_dropped_where_the_batch_before_it_was_not_committed(
    child: Child, connection: Connection, database_dsn: str
) -> None:
    """Its settler is fenced, or loses its connection and begins anew, or is killed and another begins."""
    write(child, b"1", b"2", b"3", b"4", b"5", b"6", b"7")
    keeper = Rows(nothing_happens)
    settler = settler_of(child, connection, keeper)
    with connect(database_dsn, name="second", repeatable=True) as other:
        second = settler_of(child, other)
        assert second.settle(other).worked
        with pytest.raises(Fenced):
            settler.settle(connection)
        assert keeper.ahead == ["4", "5", "6"]
        assert second.settle(other).worked
    settler.begin(connection, DATABASE_ID)
    connection.execute("select pg_terminate_backend(pid) from pg_stat_activity where application_name like '%second'")
    connection.commit()
    keeper.during = lambda _texts: connection.close()
    with pytest.raises(Unavailable):
        settler.settle(connection)
    with connect(database_dsn, name="third", repeatable=True) as third:
        settle_all(settler_of(child, third), third)
        assert rows(third) == ["1", "2", "3", "4", "5", "6", "7"]


def test_j4_no_record_is_read_ahead_before_it_is_synced_and_none_is_missed_when_the_writer_dies_meanwhile(
    child: Child, connection: Connection
) -> None:
    """A file counts as finished by what was asked after its writer had died, not by what was read ahead before."""
    folder = child.journal_folder(Stream.ACCOUNTING)
    writer = Writer(folder, Stream.ACCOUNTING, DATABASE_ID, child.slot, synced=True, file_octets_max=65_536)
    writer.append([b"1"], NOW)
    steps = iter((lambda: writer.append([b"2"], NOW + 1), lambda: (writer.append([b"3"], NOW + 2), writer.close())))
    keeper = Rows(lambda _texts: next(steps, lambda: None)())
    settler = settler_of(child, connection, keeper)
    assert settler.settle(connection).worked
    assert keeper.ahead == ["2"]
    assert settler.settle(connection).worked
    assert keeper.ahead == ["3"]
    settle_all(settler, connection)
    assert rows(connection) == ["1", "2", "3"]
    found = position(connection, NOW)
    assert found is not None
    assert found[1]


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
