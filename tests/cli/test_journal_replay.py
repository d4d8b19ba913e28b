"""`journal replay` over an evening in which everything odd happens. Whatever was settled stays, to the last number.

The evening is settled here as the settler does it: a batch and its position in one transaction. Then it is replayed,
into the same database, into one that was rewound, and from a folder that was copied from a dead node.
"""

from __future__ import annotations

import os
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import psycopg
import pytest
from conftest import _execute
from make import Said, move_ended, packet_of

from sms_aaa.cli.exits import Exit
from sms_aaa.db import positions
from sms_aaa.db.engine import connect
from sms_aaa.db.nas import list_single
from sms_aaa.db.partitions import create_ahead
from sms_aaa.db.reconcile import list_violations
from sms_aaa.flows.settling import settle_accounting
from sms_aaa.node.journal import Stream, Writer, make_folder
from sms_aaa.node.journal_reader import Batch, list_files, read
from sms_aaa.node.records import AccountingRecord, pack_accounting, unpack_accounting
from sms_aaa.radius import dictionary
from sms_aaa.radius.packet import attribute, integer
from sms_aaa.rules.session import Place
from sms_aaa.server.runfile import Running, hold, write_running

if TYPE_CHECKING:
    from collections.abc import Iterator

BEGAN = datetime(2026, 11, 20, 18, tzinfo=UTC)
pytestmark = pytest.mark.months(BEGAN)
TABLES = (
    "session", "session_history", "session_address", "usage_delta", "usage_hour", "usage_day", "anomaly", "quarantine",
    "queued_delta", "journal_position",
)  # fmt: skip
OWN_NUMBERS = {"id", "session_id", "queue_id", "queued_at", "at", "version", "updated_at"}
"""What two databases that were filled in another order may differ in; `updated_at` of a position alone."""


def said(status: str, minutes: int, **more) -> Said:
    at = BEGAN + timedelta(minutes=minutes)
    return Said(status=status, at=at, identifier=minutes % 256, **more)


def session(name: str, start: int, length: int, **more) -> Iterator[Said]:
    """Start, an interim every ten minutes, Stop."""
    yield said("start", start, session=name, **more)
    for minutes in range(10, length + 1, 10):
        status = "stop" if minutes == length else "interim"
        yield said(status, start + minutes, session=name, seconds=minutes * 60, octets_in=minutes * 1000,
                   octets_out=minutes * 7000, **more)  # fmt: skip


def evening() -> list[Said]:
    """Sessions beside each other, and each oddity once; in the order of receipt."""
    day: list[Said] = []
    for number in range(12):
        user = b"alice" if number % 3 else b"stranger"
        day += session(f"s-{number}", number * 3, 10 + number % 4 * 10, username=user, token=b"token-%02d" % number)
    day += session("again", 0, 20)
    day += session("again", 60, 30)  # the id begins another life
    day += session("silent", 5, 0)
    day += [said("interim", 25, session="silent", seconds=1200, octets_in=5, octets_out=6)]
    day += [said("interim", 30, session="reset", seconds=1800, octets_in=9 << 20, octets_out=9 << 20),
            said("interim", 40, session="reset", seconds=2400, octets_in=100, octets_out=100)]  # fmt: skip
    day += [said("interim", 45, session="went-on", seconds=600, octets_in=1000, octets_out=1000)]
    day += [said("on", 50), said("off", 51)]
    day += [said("interim", 55, session="went-on", seconds=1200, octets_in=2000, octets_out=2000)]  # it had not ended
    day.sort(key=lambda one: (one.at, one.session))
    late = said("interim", 12, session="s-1", seconds=540, octets_in=4000, octets_out=5000)
    nothing = said("start", 13, session="")
    unknown = said("start", 14, session="tunnel")
    return [*day, late, day[3], day[3], nothing, unknown]


def clock_of_1970() -> list[Said]:
    """A NAS whose clock is set in mid-session."""
    first = said("interim", 20, session="clock", seconds=600, octets_in=10, octets_out=10)
    ahead = said("interim", 30, session="clock", seconds=1200, octets_in=20, octets_out=20)
    behind = BEGAN - timedelta(hours=40)
    back, stop = (
        Said(status=status, at=behind + timedelta(minutes=minutes), session="clock", seconds=minutes * 60,
             octets_in=minutes, octets_out=minutes)
        for status, minutes in (("interim", 30), ("stop", 40))
    )  # fmt: skip
    return [first, ahead, back, back, stop]


class Journal:
    """A node's accounting files, settled into a database as the settler does it."""

    def __init__(self, folder: Path, node: str, database_id: bytes, nas_id: int) -> None:
        self.folder, self.node, self.nas_id, self._database_id = folder, node, nas_id, database_id

    def write(self, records: list[Said]) -> int:
        folder = make_folder(self.folder, Stream.ACCOUNTING)
        assert isinstance(folder, Path)
        writer = Writer(folder, Stream.ACCOUNTING, self._database_id, None, synced=True, file_octets_max=1 << 20)
        payloads = [self._payload(number, one) for number, one in enumerate(records)]
        appended = writer.append(payloads, int(BEGAN.timestamp() * 1e9))
        writer.close()
        return appended.sequence

    def _payload(self, number: int, one: Said) -> bytes:
        received_ns = int((BEGAN + timedelta(minutes=one.identifier, seconds=number % 50)).timestamp()) * 10**9
        if one.session == "clock":
            received_ns = int((BEGAN + timedelta(seconds=one.seconds or 0)).timestamp()) * 10**9
        nas_id = 99 if one.username == b"of nobody" else self.nas_id
        packet = packet_of(one)
        if one.session == "tunnel":
            packet = packet.replace(*(attribute(dictionary.ACCT_STATUS_TYPE, integer(number)) for number in (1, 9)))
        return pack_accounting(AccountingRecord(received_ns, nas_id, "127.0.0.1", 40_000, packet))

    def settle(self, dsn: str, sequence: int, *, batch: int = 20, batches: int = 1000) -> None:
        files = list_files(self.folder / "accounting")
        assert isinstance(files, list)
        [file] = [file for file in files if file.sequence == sequence]
        with connect(dsn, name="test") as connection:
            single = list_single(connection)
            position, _ = positions.list_positions(connection, self.node, 1).get(sequence, (0, False))
            for _ in range(batches):
                got = read(file, stream=Stream.ACCOUNTING, database_id=self._database_id, offset=position,
                           end=file.octets, records_max=batch)  # fmt: skip
                assert isinstance(got, Batch)
                records = []
                for record in got.records:
                    unpacked = unpack_accounting(record.payload)
                    assert isinstance(unpacked, AccountingRecord)
                    records.append((Place(self.node, sequence, record.offset), unpacked))
                settle_accounting(connection, records, single_nas=single)
                positions.insert_position(connection, self.node, 1, sequence, 0)
                assert positions.move_position(connection, self.node, 1, sequence, old=position, new=got.next_offset,
                                               finished=got.at_end)  # fmt: skip
                connection.commit()
                position = got.next_offset
                if got.at_end:
                    return


@pytest.fixture
def journal(stocked, node) -> Journal:
    with connect(node.dsn, name="test") as connection:
        create_ahead(connection, BEGAN)
    return Journal(node.folder / "journal", "node1", node.database_id, node.nas_id)


def dump(dsn: str, *, of: tuple[str, ...] = TABLES, without: set[str] = frozenset()) -> dict[str, list[str]]:
    """Every row of the tables, as text."""
    found = {}
    with psycopg.connect(dsn) as connection:
        for table in of:
            cursor = connection.execute(f"select * from {table}")
            names = [column.name for column in cursor.description or ()]
            rows = [{n: v for n, v in zip(names, row, strict=True) if n not in without} for row in cursor]
            found[table] = sorted(map(str, rows))
    return found


def total(dsn: str) -> tuple[int, int, int]:
    with psycopg.connect(dsn) as connection:
        row = connection.execute("select count(*), sum(octets_in), sum(octets_out) from usage_delta").fetchone()
        assert not [rows for _, rows in list_violations(connection) if rows]
    return row


def everything() -> list[Said]:
    records = evening()
    records[20:20] = clock_of_1970()
    return [*records, said("start", 15, session="elsewhere", username=b"of nobody")]


def test_a_replay_of_what_is_settled_changes_nothing_however_often(stocked, node, journal):
    sequence = journal.write(everything())
    journal.settle(node.dsn, sequence)
    before, counted = dump(node.dsn), total(node.dsn)
    assert counted[0] > 25
    assert len(before["quarantine"]) == 2
    for _ in range(2):
        answer = stocked.type("journal", "replay", str(sequence), "--yes", "--json").json()
        assert answer["done"] is None
        [file] = answer["files"]
        assert (file["to_settle"], file["waiting"], file["in_quarantine"], file["idle"]) == (0, 0, 2, 1)
        assert file["known"] == len(everything()) - 3
    assert dump(node.dsn) == before
    assert total(node.dsn) == counted


@pytest.mark.parametrize("seed", range(4))
def test_nor_does_one_of_records_that_came_in_any_order_through_any_batches(stocked, node, journal, seed):
    random, records = Random(seed), everything()
    random.shuffle(records)
    sequence = journal.write(records)
    journal.settle(node.dsn, sequence, batch=random.randint(1, 9))
    before = dump(node.dsn)
    stocked.done("journal", "replay", str(sequence), "--yes")
    assert dump(node.dsn) == before


def test_what_lies_in_the_history_is_known_and_not_put_aside(stocked, node, journal):
    sequence = journal.write(everything())
    journal.settle(node.dsn, sequence)
    with connect(node.dsn, name="test") as connection:
        assert move_ended(connection, now=BEGAN + timedelta(days=60), limit=10_000) > 10
    before = dump(node.dsn)
    assert before["session_history"]
    [file] = stocked.type("journal", "replay", str(sequence), "--yes", "--json").json()["files"]
    assert file["to_settle"] == 0
    assert dump(node.dsn) == before


def copied(postgres, dsn: str, name: str) -> str:
    """A copy of the database as it is."""
    source = psycopg.conninfo.conninfo_to_dict(dsn)["dbname"]
    _execute(postgres, f"CREATE DATABASE {name} TEMPLATE {source} STRATEGY file_copy")
    return postgres.dsn_for(name)


def test_a_database_that_was_rewound_becomes_what_it_would_have_been(stocked, node, journal, postgres):
    sequence = journal.write(everything())
    journal.settle(node.dsn, sequence, batch=20, batches=2)
    rewound = copied(postgres, node.dsn, "rewound")
    try:
        journal.settle(node.dsn, sequence)
        assert dump(rewound)["usage_delta"] != dump(node.dsn)["usage_delta"]
        answer = stocked.type("journal", "replay", str(sequence), "--yes", "--json", SMS_AAA_DATABASE_DSN=rewound)
        done = answer.json()["done"]
        assert done["records_settled"] == len(everything()) - 40
        assert done["octets_up"] == total(node.dsn)[1] - total_of_half(rewound, sequence, answer)
        assert dump(rewound, without=OWN_NUMBERS) == dump(node.dsn, without=OWN_NUMBERS)
        again = stocked.type("journal", "replay", str(sequence), "--yes", "--json", SMS_AAA_DATABASE_DSN=rewound)
        assert again.json()["done"] is None
    finally:
        _execute(postgres, "DROP DATABASE rewound WITH (FORCE)")


def total_of_half(dsn: str, sequence: int, answer) -> int:
    """What was counted before the replay: the deltas that end before the position it found."""
    [file] = answer.json()["files"]
    with psycopg.connect(dsn) as connection:
        row = connection.execute(
            "select sum(octets_in) from usage_delta where after_offset < %s", (file["position"],)
        ).fetchone()
    return int(row[0])


def test_a_dead_nodes_folder_is_settled_from_where_its_settler_stood(stocked, node, journal, tmp_path):
    other = Journal(tmp_path / "node2", "node2", node.database_id, node.nas_id)
    begun, unknown = other.write(everything()[:30]), other.write(everything()[30:])
    other.settle(node.dsn, begun, batch=10, batches=1)
    shutil.copytree(tmp_path / "node2", tmp_path / "copy")
    words = ("journal", "replay", "--folder", str(tmp_path / "copy"), "--node", "node2")
    dry = stocked.type(*words, "--dry-run", "--json").json()
    assert [file["to_settle"] for file in dry["files"]] == [20, len(everything()) - 30]
    assert dry["done"] is None
    assert stocked.type(*words, typed="n\n").code == Exit.ABORTED
    answer = stocked.type(*words, "--ticket", "INC-1", typed="y\n")
    assert answer.code == 0
    assert "records are settled, the positions of 2 files move" in answer.err
    with connect(node.dsn, name="test") as connection:
        known = positions.list_positions(connection, "node2", 1)
        assert {sequence: finished for sequence, (_, finished) in known.items()} == {begun: True, unknown: True}
        assert connection.execute("select ticket from audit where action = 'replayed'").fetchall() == [("INC-1",)] * 2
    before = dump(node.dsn)
    assert stocked.type(*words, "--yes", "--json").json()["done"] is None
    assert dump(node.dsn) == before
    # The stream's own folder does as well, and the node itself finds nothing left when it comes back.
    assert stocked.type(*words[:3], str(tmp_path / "copy" / "accounting"), *words[4:], "--yes").code == 0
    other.settle(node.dsn, begun)
    assert dump(node.dsn)["usage_delta"] == before["usage_delta"]


def test_a_file_whose_position_was_deleted_with_it_is_known_by_what_it_left(stocked, node, journal):
    sequence = journal.write(everything())
    journal.settle(node.dsn, sequence)
    with connect(node.dsn, name="test") as connection:
        positions.delete_position(connection, "node1", 1, sequence)
    of = tuple(table for table in TABLES if table != "journal_position")
    before = dump(node.dsn, of=of)
    stocked.done("journal", "replay", str(sequence), "--yes")
    assert dump(node.dsn, of=of) == before


def test_a_stretch_that_was_restored_is_settled_and_once(stocked, node, journal):
    """Its first record is the one that the quarantine names; those behind it are in no table."""
    sequence = journal.write(list(session("s-1", 0, 30)))
    path = node.folder / "journal" / "accounting" / f"{sequence:020d}.journal"
    sound = path.read_bytes()
    [_, _, third, _] = [int(one["place"].partition(":")[2]) for one in shown(stocked, sequence)]
    with path.open("r+b") as file:
        file.seek(third)
        file.write(bytes(len(sound) - third - 8) + b"\xff" * 8)  # the last interim, and the Stop
    assert stocked.done("journal", "replay", str(sequence), "--yes").count("damaged")
    assert total(node.dsn) == (1, 10_000, 70_000)
    path.write_bytes(sound)
    done = stocked.type("journal", "replay", str(sequence), "--yes", "--json").json()["done"]
    assert (done["records_settled"], done["octets_up"], done["octets_down"]) == (1, 20_000, 140_000)
    [waiting] = stocked.type("quarantine", "list", "--json").json()
    assert waiting["place"] == f"{sequence}:{third}"
    stocked.done("quarantine", "retry", str(waiting["id"]), "--yes")
    assert total(node.dsn) == (2, 30_000, 210_000)
    assert stocked.type("journal", "replay", str(sequence), "--yes", "--json").json()["done"] is None


def shown(stocked, sequence: int) -> list[dict[str, object]]:
    return stocked.type("journal", "show", str(sequence), "--json").json()


def test_what_a_delta_holds_is_known_even_where_its_session_no_longer_says_so(stocked, node, journal):
    sequence = journal.write(list(session("s-1", 0, 20)))
    journal.settle(node.dsn, sequence)
    with connect(node.dsn, name="test") as connection:
        connection.execute("update session set reading_seconds = 0, reading_in = 0, reading_out = 0, state = 1")
    before = total(node.dsn)
    assert stocked.type("journal", "replay", str(sequence), "--yes", "--json").json()["done"] is None
    assert total(node.dsn) == before


def test_a_record_that_postgresql_refuses_is_put_aside_and_the_others_go_on(stocked, node, journal):
    with connect(node.dsn, name="test") as connection:
        connection.execute("alter table session add constraint refused check (acct_session_id <> 's-2')")
    sequence = journal.write([*session("s-1", 0, 20), *session("s-2", 0, 10)])
    done = stocked.type("journal", "replay", str(sequence), "--yes", "--json").json()["done"]
    assert (done["records_settled"], done["quarantined"]) == (3, 2)
    assert total(node.dsn)[0] == 2


def test_while_the_server_runs_what_lies_beyond_the_position_is_its_own(stocked, node, journal):
    sequence = journal.write(everything())
    journal.settle(node.dsn, sequence, batch=20, batches=2)
    before = dump(node.dsn)
    held = hold(node.folder)
    running = Running(pid=1, version="1", node="node1", since=0, metrics="", embedded_dsn="", database="", access=[],
                      accounting=[], processes=[])  # fmt: skip
    write_running(node.folder, running)
    [file] = stocked.type("journal", "replay", str(sequence), "--yes", "--json").json()["files"]
    os.close(held)
    assert (file["waiting"], file["to_settle"]) == (len(everything()) - 40, 0)
    assert dump(node.dsn) == before


def test_what_to_replay_has_to_be_said(stocked, node, journal):
    sequence = journal.write(evening())
    for words in ((), ("--node", "node2"), ("--folder", "/nowhere")):
        assert stocked.type("journal", "replay", *words).code == Exit.INVALID
    assert stocked.type("journal", "replay", "4711").code == Exit.NOT_FOUND
    assert stocked.type("journal", "replay", "--folder", "/nowhere", "--node", "n").code == Exit.NOT_FOUND
    since = ("journal", "replay", "--dry-run", "--json", "--from", "2026-11-20T00:00Z")
    assert [file["file"] for file in stocked.type(*since).json()["files"]] == [f"{sequence:020d}"]
    assert stocked.type(*since, "--to", "2026-11-20T12:00Z").json()["files"] == []


def test_a_file_of_another_database_is_refused(stocked, node, journal):
    other = Journal(journal.folder, "node1", bytes(16), node.nas_id)
    answer = stocked.type("journal", "replay", str(other.write(evening())), "--yes")
    assert answer.code == Exit.CONFLICT
    assert "another database" in answer.err
