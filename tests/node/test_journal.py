"""The journal's rules J1 to J10, by number, on a real disk: real processes, real faults of the kernel."""

from __future__ import annotations

import errno
import fcntl
import os
import random
import resource
import subprocess
import sys
import tempfile
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sms_aaa.node import frames
from sms_aaa.node.board import Board
from sms_aaa.node.journal import (
    Appended,
    Dropped,
    JournalFault,
    JournalFaultKind,
    Stream,
    Writer,
    make_folder,
    stream_folder,
)
from sms_aaa.node.journal_reader import delete_file, is_orphan, list_files, read, readable_end

DATABASE_ID = bytes(range(16))
FILE_OCTETS = 64 * 1024
NOW = 1_800_000_000_000_000_000
START = frames.FILE_HEADER_OCTETS


@pytest.fixture
def folder(tmp_path):
    return make_folder(tmp_path, Stream.ACCOUNTING)


@pytest.fixture
def board(tmp_path):
    made = Board.create(tmp_path / "board", slots=2, now_ns=NOW)
    yield made
    made.close()


@pytest.fixture
def open_writer(folder, board):
    opened = []

    def make(**changes) -> Writer:
        options = {"synced": True, "file_octets_max": FILE_OCTETS} | changes
        writer = Writer(folder, Stream.ACCOUNTING, DATABASE_ID, board.slot(0), **options)
        opened.append(writer)
        return writer

    yield make
    for writer in opened:
        writer.close()


def read_file(file, *, board=None, database_id=DATABASE_ID, records_max=10_000):
    """All records and damage of one file, batch by batch."""
    end = readable_end(file, stream=Stream.ACCOUNTING, board=board)
    if isinstance(end, JournalFault):
        return end
    records, damaged, offset, at_end = [], [], 0, False
    while not at_end:
        batch = read(
            file,
            stream=Stream.ACCOUNTING,
            database_id=database_id,
            offset=offset,
            end=end,
            records_max=records_max,
        )
        if isinstance(batch, JournalFault):
            return batch
        records, damaged = records + batch.records, damaged + batch.damaged
        offset, at_end = batch.next_offset, batch.at_end
    return records, damaged


def payloads_in(folder, *, board=None) -> list[bytes]:
    found = []
    for file in list_files(folder):
        records, damaged = read_file(file, board=board)
        assert damaged == []
        found += [record.payload for record in records]
    return found


def point_at(writer: Writer, path: str) -> None:
    """The writer's descriptor becomes another file's: /dev/full fails each write, /dev/null each fdatasync."""
    other = os.open(path, os.O_RDWR)
    os.dup2(other, writer._fd)
    os.close(other)


def file_of(fd: int) -> Path:
    return Path(f"/proc/self/fd/{fd}").readlink()


def damage(file, offset: int, octets: bytes) -> None:
    with file.path.open("r+b") as opened:
        opened.seek(offset)
        opened.write(octets)


# J1: every process start opens a new file and never appends to an old tail.


def test_j1_each_writer_opens_a_new_file(open_writer, folder):
    for payload in (b"first", b"second"):
        writer = open_writer()
        writer.append([payload], NOW)
        writer.close()
    first, second = list_files(folder)
    assert first.sequence < second.sequence
    assert payloads_in(folder) == [b"first", b"second"]


def test_j1_two_writers_that_start_in_the_same_nanosecond_have_two_files(open_writer, folder):
    appended = [open_writer().append([payload], NOW) for payload in (b"a", b"b", b"c")]
    assert [one.sequence for one in appended] == [NOW, NOW + 1, NOW + 2]


def test_j1_writers_that_start_at_once_beside_a_sweep_each_have_a_file(tmp_path, folder, open_writer):
    writers = [open_writer() for _ in range(60)]
    with ThreadPoolExecutor(max_workers=5) as threads:
        sweeps = [threads.submit(make_folder, tmp_path, Stream.ACCOUNTING) for _ in range(60)]
        opened = list(threads.map(lambda writer: writer.open(NOW), writers))
        assert {sweep.result() for sweep in sweeps} == {folder}
    assert opened == [None] * len(writers)
    assert len({writer._sequence for writer in writers}) == len(list_files(folder)) == len(writers)


def test_j1_a_writer_whose_file_is_swept_before_it_is_locked_takes_another(tmp_path, folder, open_writer, monkeypatch):
    real, sweeps = fcntl.flock, []

    def flock(fd, operation):
        if operation == fcntl.LOCK_EX and not sweeps:
            sweeps.append(make_folder(tmp_path, Stream.ACCOUNTING))
        real(fd, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    assert open_writer().append([b"a"], NOW).sequence == NOW + 1
    assert sweeps == [folder]


def test_j1_a_file_that_a_dead_writer_began_is_swept_and_one_of_a_living_is_not(tmp_path, folder):
    (folder / f"{NOW:020d}.new").write_bytes(b"half a header")
    with (folder / f"{NOW + 1:020d}.new").open("wb") as living:
        fcntl.flock(living, fcntl.LOCK_EX)
        assert make_folder(tmp_path, Stream.ACCOUNTING) == folder
    assert [path.name for path in folder.iterdir()] == [f"{NOW + 1:020d}.new"]


def test_j1_a_file_that_is_not_finished_is_not_listed(folder):
    (folder / f"{NOW:020d}.new").write_bytes(b"")
    assert list_files(folder) == []


# J2: the folder is fsynced before the first answer from a new file.


@pytest.fixture
def calls(monkeypatch):
    """What is asked of the kernel, in order, as (call, name of the file); each is really done."""
    seen = []

    def watch(name: str) -> None:
        real = getattr(os, name)

        def call(fd, *arguments):
            seen.append((name, file_of(fd).name))
            return real(fd, *arguments)

        monkeypatch.setattr(os, name, call)

    for name in ("fsync", "fdatasync", "pwrite"):
        watch(name)
    return seen


def test_j2_header_and_folder_are_synced_before_the_first_record(open_writer, calls):
    open_writer().append([b"record"], NOW)
    finished, unfinished = f"{NOW:020d}.journal", f"{NOW:020d}.new"
    assert calls == [
        ("pwrite", unfinished),
        ("fsync", unfinished),
        ("fsync", "accounting"),
        ("pwrite", finished),
        ("fdatasync", finished),
    ]


def test_j2_no_answer_when_the_folder_cannot_be_synced(open_writer, folder, monkeypatch):
    real = os.fsync

    def fsync(fd):
        if file_of(fd) == folder:
            raise OSError(5, "Input/output error")
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    writer = open_writer()
    fault = writer.append([b"record"], NOW)
    assert isinstance(fault, JournalFault)
    assert fault.kind is JournalFaultKind.OPEN
    monkeypatch.undo()
    assert isinstance(writer.append([b"record"], NOW), Appended)
    assert payloads_in(folder) == []  # the second file is alive and no board was asked
    writer.close()
    assert payloads_in(folder) == [b"record"]


def test_j2_the_unsynced_stream_waits_for_no_disk(open_writer, calls):
    open_writer(synced=False).append([b"decision"], NOW)
    assert [call for call, _ in calls] == ["pwrite", "pwrite"]


# J3: each record has a length, a format version and a checksum seeded with stream, file and offset.


def test_j3_a_record_copied_to_another_place_or_file_is_damage(open_writer, folder):
    writer = open_writer()
    writer.append([b"same octets", b"same octets"], NOW)
    writer.close()
    (file,) = list_files(folder)
    record = file.path.read_bytes()[START : START + 24]
    damage(file, START + 24, record)
    records, damaged = read_file(file)
    assert [found.offset for found in records] == [START]
    assert [found.reason for found in damaged] == [frames.DamageReason.CHECKSUM]

    other = open_writer()
    other.append([b"same octets"], NOW + 5)
    other.close()
    damage(list_files(folder)[1], START, record)
    records, damaged = read_file(list_files(folder)[1])
    assert (records, len(damaged)) == ([], 1)


@given(st.lists(st.lists(st.binary(max_size=700), max_size=20), max_size=8))
@settings(max_examples=25, deadline=None)
def test_j3_any_batches_read_back_the_same_over_any_number_of_files(batches):
    with tempfile.TemporaryDirectory() as name:
        folder = make_folder(Path(name), Stream.ACCOUNTING)
        writer = Writer(folder, Stream.ACCOUNTING, DATABASE_ID, None, synced=False, file_octets_max=16 * 1024)
        for number, batch in enumerate(batches):
            assert isinstance(writer.append(batch, NOW + number), Appended)
        writer.close()
        assert payloads_in(folder) == [payload for batch in batches for payload in batch]


# J4: the settler reads only up to the synced offset, which the writer publishes in the board.


def test_j4_a_living_file_is_read_to_its_published_offset(open_writer, folder, board):
    writer = open_writer()
    first = writer.append([b"a"], NOW)
    (file,) = list_files(folder)
    assert not is_orphan(file)
    assert readable_end(file, stream=Stream.ACCOUNTING, board=board) == first.end_offset
    second = writer.append([b"b"], NOW)
    assert readable_end(file, stream=Stream.ACCOUNTING, board=board) == second.end_offset
    assert payloads_in(folder, board=board) == [b"a", b"b"]


def test_j4_what_is_written_and_not_yet_synced_is_not_readable(open_writer, folder, board, monkeypatch):
    writer, seen, real = open_writer(), [], os.fdatasync
    writer.append([b"synced"], NOW)

    def fdatasync(fd):
        seen.append(payloads_in(folder, board=board))
        real(fd)

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    writer.append([b"on its way"], NOW)
    assert seen == [[b"synced"]]
    assert payloads_in(folder, board=board) == [b"synced", b"on its way"]


def test_j4_nothing_of_a_living_file_that_no_slot_names_is_readable(open_writer, folder, board):
    open_writer().append([b"record"], NOW)
    (file,) = list_files(folder)
    board.slot(0).publish(Stream.ACCOUNTING, NOW + 9, 4096)
    assert readable_end(file, stream=Stream.ACCOUNTING, board=board) == START
    assert readable_end(file, stream=Stream.ACCOUNTING, board=None) == START


WRITING = """
    import os, sys, time
    from pathlib import Path
    from sms_aaa.node.board import Board
    from sms_aaa.node.journal import Appended, Stream, Writer
    root = Path(sys.argv[1])
    slot = Board.open(root / "board").slot(1)
    writer = Writer(root / "accounting", Stream.ACCOUNTING, bytes(range(16)), slot, synced=sys.argv[2] == "synced",
                    file_octets_max=256 * 1024)
    number = 0
    while True:
        batch = [b"%08d" % (number + step) + bytes(step * 37 % 900) for step in range(8)]
        assert isinstance(writer.append(batch, time.time_ns()), Appended)
        number += 8
        os.write(1, b"%08d\\n" % number)
"""


def start_writing(root: Path, mode: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(WRITING), str(root), mode], stdout=subprocess.PIPE, bufsize=0
    )


def test_j4_a_reader_beside_a_living_writer_sees_whole_records_in_order(tmp_path, folder, board):
    with start_writing(tmp_path, "unsynced") as child:
        try:
            seen, positions, give_up_at = 0, {}, time.monotonic() + 30
            while len(positions) < 4 and time.monotonic() < give_up_at:
                child.stdout.read(9 * 20)
                for file in list_files(folder):
                    end = readable_end(file, stream=Stream.ACCOUNTING, board=board)
                    begin = positions.get(file.sequence, 0)
                    batch = read(file, stream=Stream.ACCOUNTING, database_id=DATABASE_ID, offset=begin, end=end)
                    assert batch.damaged == []
                    assert [int(record.payload[:8]) for record in batch.records] == list(
                        range(seen, seen + len(batch.records))
                    )
                    seen, positions[file.sequence] = seen + len(batch.records), batch.next_offset
        finally:
            child.kill()
    assert len(positions) >= 4
    assert seen > 1_000


@pytest.mark.parametrize("mode", ["synced", "unsynced"])
@pytest.mark.parametrize("round_number", range(3))
def test_j4_kill_9_loses_no_append_that_returned(tmp_path, folder, board, round_number, mode):
    wait = random.Random(round_number)
    with start_writing(tmp_path, mode) as child:
        child.stdout.read(9 * wait.randrange(1, 300))
        child.kill()
        answered = child.stdout.read()
    lines = answered.split()
    records = []
    for file in list_files(folder):
        assert is_orphan(file)
        found, damaged = read_file(file, board=board)
        assert all(one.is_last for one in damaged)  # the write that it died in
        records += [int(record.payload[:8]) for record in found]
    assert records == list(range(len(records)))
    assert len(records) >= int(lines[-1] if lines else 8)


# J5: after a short write, a failed write or a failed fdatasync the file is sealed and not tried again.


def assert_sealed(writer: Writer, folder: Path, fault: object, kind: JournalFaultKind) -> None:
    assert isinstance(fault, JournalFault)
    assert fault.kind is kind
    assert str(folder) in fault.detail
    again = writer.append([b"after"], NOW + 100)
    assert isinstance(again, Appended)
    assert again.sequence == NOW + 100
    writer.close()
    assert payloads_in(folder) == [b"before", b"after"]
    assert all(is_orphan(file) for file in list_files(folder))


def test_j5_a_short_write_seals_the_file(open_writer, folder):
    writer = open_writer()
    writer.append([b"before"], NOW)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, limits[1]))
    try:
        fault = writer.append([b"x" * 4_000], NOW)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert_sealed(writer, folder, fault, JournalFaultKind.SHORT_WRITE)


def test_j5_a_failed_write_seals_the_file(open_writer, folder):
    writer = open_writer()
    writer.append([b"before"], NOW)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (START, limits[1]))
    try:
        fault = writer.append([b"x"], NOW)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert_sealed(writer, folder, fault, JournalFaultKind.WRITE)


def test_j5_a_full_disk_seals_the_file(open_writer, folder):
    writer = open_writer()
    writer.append([b"before"], NOW)
    writer_file = os.dup(writer._fd)
    point_at(writer, "/dev/full")
    fault = writer.append([b"x"], NOW)
    os.close(writer_file)
    assert_sealed(writer, folder, fault, JournalFaultKind.NO_SPACE)


def test_j5_a_failed_fdatasync_seals_the_file_and_publishes_nothing(open_writer, folder, board):
    writer = open_writer()
    published = writer.append([b"before"], NOW).end_offset
    writer_file = os.dup(writer._fd)
    point_at(writer, "/dev/null")
    fault = writer.append([b"x"], NOW)
    assert board.synced_offset(Stream.ACCOUNTING, NOW) == published
    os.close(writer_file)
    assert_sealed(writer, folder, fault, JournalFaultKind.SYNC)


def test_j5_what_could_not_be_synced_is_cut_off_and_its_sync_is_not_tried_again(open_writer, folder, monkeypatch):
    writer = open_writer()
    writer.append([b"before"], NOW)
    tried = []

    def fdatasync(fd):
        tried.append(os.fstat(fd).st_ino)
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    fault = writer.append([b"written, not synced"], NOW)
    monkeypatch.undo()
    assert tried == [list_files(folder)[0].path.stat().st_ino]
    assert_sealed(writer, folder, fault, JournalFaultKind.SYNC)


FILLING = """
    import os, sys
    from pathlib import Path
    from sms_aaa.node.journal import Appended, JournalFaultKind, Stream, Writer, make_folder
    root = Path(sys.argv[1])
    folder = make_folder(root, Stream.ACCOUNTING)
    writer = Writer(folder, Stream.ACCOUNTING, bytes(16), None, synced=True, file_octets_max=65536)
    answered = 0
    while isinstance(got := writer.append([bytes(1000)] * 8, 1000), Appended):
        answered += 8
    assert got.kind is JournalFaultKind.NO_SPACE, got
    assert not list(folder.glob("*.new")), "what cannot be made leaves nothing behind"
    next(folder.glob("*.journal")).unlink()
    assert isinstance(writer.append([b"again"], 2000), Appended)
    print(answered)
"""


def test_j5_a_disk_that_is_full_at_a_new_file_is_a_fault_until_there_is_space(tmp_path):
    mount = f'mount -t tmpfs -o size=200k none {tmp_path} && exec "$0" -c "$1" {tmp_path}'
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount]
    done = subprocess.run(
        [*command, sys.executable, textwrap.dedent(FILLING)], capture_output=True, text=True, check=False
    )
    if done.returncode and ("unshare" in done.stderr or "mount" in done.stderr):
        pytest.skip(f"no file system of its own to fill: {done.stderr.strip()}")
    assert done.stderr == ""
    assert int(done.stdout) == 3 * 8 * 8  # three files of 64 KiB, each with eight batches of eight


# J6: an answer enters the duplicate cache only after the sync. Here: there is no Appended without one.


def test_j6_appended_is_returned_after_the_sync_and_only_then(open_writer, calls):
    writer = open_writer()
    got = writer.append([b"a", b"b"], NOW)
    assert isinstance(got, Appended)
    assert calls[-1] == ("fdatasync", f"{NOW:020d}.journal")
    assert [call for call, _ in calls].count("fdatasync") == 1  # one for the whole batch


# J7: positions are rows of PostgreSQL. Here: a position means the same however often it is read from.


def test_j7_reading_a_position_again_gives_the_same_records(open_writer, folder):
    writer = open_writer()
    writer.append([b"%d" % number for number in range(100)], NOW)
    writer.close()
    (file,) = list_files(folder)
    ask = {"stream": Stream.ACCOUNTING, "database_id": DATABASE_ID, "end": file.octets, "records_max": 7}
    first = read(file, offset=0, **ask)
    assert read(file, offset=0, **ask) == first
    assert len(first.records) == 7
    assert not first.at_end
    assert read(file, offset=first.next_offset, **ask).records[0].payload == b"7"
    records, _ = read_file(file, records_max=7)
    assert [record.payload for record in records] == [b"%d" % number for number in range(100)]


def test_j7_a_position_at_or_beyond_the_end_gives_nothing(open_writer, folder):
    writer = open_writer()
    end = writer.append([b"a"], NOW).end_offset
    writer.close()
    (file,) = list_files(folder)
    for offset in (end, end + 4096):
        batch = read(file, stream=Stream.ACCOUNTING, database_id=DATABASE_ID, offset=offset, end=end)
        assert (batch.records, batch.damaged, batch.at_end) == ([], [], True)


# J8: a stream is bound to one database by id and refuses another.


def test_j8_a_file_of_another_database_is_refused_by_both_ids(open_writer, folder):
    writer = open_writer()
    writer.append([b"record"], NOW)
    writer.close()
    fault = read_file(list_files(folder)[0], database_id=bytes(16))
    assert fault.kind is JournalFaultKind.FOREIGN_DATABASE
    assert DATABASE_ID.hex() in fault.detail
    assert bytes(16).hex() in fault.detail


# J9: settled files are kept longer than the worst failover; only who is told to deletes one.


def test_j9_a_file_that_was_read_to_its_end_stays_until_it_is_deleted(open_writer, folder):
    writer = open_writer()
    writer.append([b"record"], NOW)
    writer.close()
    (file,) = list_files(folder)
    read_file(file)
    open_writer().append([b"next"], NOW + 1)
    assert file in list_files(folder)
    assert delete_file(file) is None
    assert file not in list_files(folder)
    assert delete_file(file) is None


def test_j9_a_living_file_is_not_deleted(open_writer, folder):
    open_writer().append([b"record"], NOW)
    (file,) = list_files(folder)
    assert delete_file(file).kind is JournalFaultKind.LIVE
    assert list_files(folder) == [file]


# J10: a missing file stops the settler loudly; a damaged record is quarantined and named.


def test_j10_a_missing_file_is_a_fault_wherever_it_is_asked_for(open_writer, folder):
    writer = open_writer()
    writer.append([b"record"], NOW)
    writer.close()
    (file,) = list_files(folder)
    file.path.unlink()
    assert not is_orphan(file)
    for fault in (
        readable_end(file, stream=Stream.ACCOUNTING, board=None),
        read(file, stream=Stream.ACCOUNTING, database_id=DATABASE_ID, offset=0, end=4096),
    ):
        assert fault.kind is JournalFaultKind.MISSING
        assert str(file.path) in fault.detail


def test_j10_a_missing_folder_is_a_fault_for_reader_and_writer(tmp_path):
    folder = stream_folder(tmp_path, Stream.DECISIONS)
    assert list_files(folder).kind is JournalFaultKind.MISSING
    writer = Writer(folder, Stream.DECISIONS, DATABASE_ID, None, synced=False)
    assert writer.append([b"a"], NOW).kind is JournalFaultKind.OPEN


def test_j10_a_page_that_the_disk_lost_is_named_and_what_follows_is_read(open_writer, folder):
    writer = open_writer()
    writer.append([b"%03d" % number + bytes(97) for number in range(200)], NOW)
    writer.close()
    (file,) = list_files(folder)
    damage(file, 4096, bytes(4096))
    records, damaged = read_file(file)
    numbers = {int(record.payload[:3]) for record in records}
    assert {0, 199} <= numbers
    assert 110 < len(numbers) < 200
    assert sum(one.octets for one in damaged) == (200 - len(numbers)) * frames.framed_octets([bytes(100)])


def test_j10_a_lost_tail_of_a_file_that_was_closed_is_named(open_writer, folder):
    writer = open_writer()
    writer.append([b"%03d" % number + bytes(97) for number in range(200)], NOW)
    writer.close()
    (file,) = list_files(folder)
    damage(file, file.octets - 4096, bytes(4096))
    records, damaged = read_file(file)
    assert damaged[-1].is_last
    assert damaged[-1].offset + damaged[-1].octets == file.octets
    assert len(records) < 200


def test_j10_a_file_cut_below_what_was_synced_is_named(open_writer, folder, board):
    writer = open_writer()
    end = writer.append([b"a", b"b"], NOW).end_offset
    (file,) = list_files(folder)
    os.truncate(file.path, end - 8)
    records, damaged = read_file(file, board=board)
    assert [record.payload for record in records] == [b"a"]
    assert [(one.reason, one.is_last) for one in damaged] == [(frames.DamageReason.SHORT, True)]


def test_j10_the_file_of_a_writer_that_died_ends_at_its_last_record_even_if_that_ends_in_zeros(open_writer, folder):
    writer = open_writer()
    writer.append([b"a", bytes(50_000)], NOW)
    os.close(writer._fd)  # as its death would: no truncation
    writer._fd = -1
    (file,) = list_files(folder)
    assert file.octets == FILE_OCTETS
    assert payloads_in(folder) == [b"a", bytes(50_000)]


@pytest.mark.parametrize("at", [0, 20, 40, 62])
def test_j10_a_damaged_header_is_a_fault(open_writer, folder, at):
    writer = open_writer()
    writer.append([b"a"], NOW)
    writer.close()
    (file,) = list_files(folder)
    damage(file, at, b"\xff\xff")
    assert read_file(file).kind is JournalFaultKind.HEADER


def test_j10_a_file_of_another_name_or_stream_is_a_fault(open_writer, folder):
    writer = open_writer()
    writer.append([b"a"], NOW)
    writer.close()
    (file,) = list_files(folder)
    fault = read(file, stream=Stream.DECISIONS, database_id=DATABASE_ID, offset=0, end=file.octets)
    assert fault.kind is JournalFaultKind.HEADER
    file.path.rename(folder / f"{NOW + 1:020d}.journal")
    assert read_file(list_files(folder)[0]).kind is JournalFaultKind.HEADER


# Size: rotation, bounds, what is given back.


def test_a_batch_that_does_not_fit_goes_whole_into_the_next_file(open_writer, folder):
    writer = open_writer()
    first = writer.append([bytes(40_000)], NOW)
    second = writer.append([bytes(20_000), bytes(20_000)], NOW + 1)
    assert (first.sequence, second.sequence, second.first_offset) == (NOW, NOW + 1, START)
    assert [is_orphan(file) for file in list_files(folder)] == [True, False]


def test_a_batch_that_fits_no_file_or_record_is_a_fault_that_leaves_the_file_open(open_writer):
    writer = open_writer()
    first = writer.append([b"a"], NOW)
    assert writer.append([bytes(40_000)] * 2, NOW).kind is JournalFaultKind.TOO_LARGE
    assert writer.append([bytes(frames.PAYLOAD_OCTETS_MAX + 1)], NOW).kind is JournalFaultKind.TOO_LARGE
    assert writer.append([b"b"], NOW).first_offset == first.end_offset


def test_a_living_file_is_preallocated_and_a_closed_one_gives_it_back(open_writer, folder):
    writer = open_writer()
    end = writer.append([b"a"], NOW).end_offset
    (file,) = list_files(folder)
    assert file.octets == FILE_OCTETS
    assert file.path.stat().st_blocks * 512 >= FILE_OCTETS
    writer.close()
    assert list_files(folder)[0].octets == end


def test_a_file_system_that_cannot_preallocate_gets_a_sparse_file(open_writer, folder, monkeypatch):
    def posix_fallocate(fd, offset, octets):
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(os, "posix_fallocate", posix_fallocate)
    writer = open_writer()
    writer.append([b"a"], NOW)
    assert list_files(folder)[0].octets == FILE_OCTETS
    writer.close()
    assert payloads_in(folder) == [b"a"]


def test_a_full_folder_of_decisions_drops_and_counts_until_there_is_room(tmp_path):
    folder = make_folder(tmp_path, Stream.DECISIONS)
    bound = 16 * FILE_OCTETS
    writer = Writer(
        folder, Stream.DECISIONS, DATABASE_ID, None, synced=False, file_octets_max=1 << 30, folder_octets_max=bound
    )
    batch, now = [bytes(1_000)] * 20, NOW
    while isinstance(got := writer.append(batch, now), Appended):
        now += 1
    assert got == Dropped(20)
    assert sum(file.octets for file in list_files(folder)) <= bound
    delete_file(list_files(folder)[0])
    assert writer.append(batch, now) == Dropped(20)  # it looks once a second
    assert isinstance(writer.append(batch, now + 1_000_000_000), Appended)
    writer.close()


def test_a_clock_that_is_set_back_does_not_keep_a_folder_full(tmp_path):
    folder = make_folder(tmp_path, Stream.DECISIONS)
    writer = Writer(folder, Stream.DECISIONS, DATABASE_ID, None, synced=False, folder_octets_max=16 * FILE_OCTETS)
    now = NOW
    while isinstance(writer.append([bytes(1_000)] * 20, now), Appended):
        now += 1
    delete_file(list_files(folder)[0])
    assert isinstance(writer.append([b"a"], NOW - 3_600_000_000_000), Appended)
    writer.close()
