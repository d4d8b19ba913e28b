"""The board: what one process stores another sees, and never the offset of an old file for a new one."""

from __future__ import annotations

import multiprocessing
import time

import pytest

from sms_aaa.node.board import COUNTERS_PER_SLOT, SLOT_COUNT_MAX, Board, BoardFault, BoardFaultKind

SPAWN = multiprocessing.get_context("spawn")
STREAM = 1
OFFSETS_PER_FILE = 1000


@pytest.fixture
def board(tmp_path):
    made = Board.create(tmp_path / "board", slots=3, now_ns=77)
    yield made
    made.close()


def publish_for_ever(path) -> None:
    slot = Board.open(path).slot(1)
    sequence = 0
    while True:
        sequence += 1
        for step in range(4):
            slot.publish(STREAM, sequence, sequence * OFFSETS_PER_FILE + step)


def count_and_beat(path) -> None:
    board = Board.open(path)
    slot = board.slot(2)
    slot.claim(4711, 5)
    slot.beat(6)
    slot.counters[0] = 1
    slot.counters[COUNTERS_PER_SLOT - 1] = 2**64 - 1
    board.close()


def test_what_a_worker_stores_another_process_reads(board, tmp_path):
    worker = SPAWN.Process(target=count_and_beat, args=(tmp_path / "board",))
    worker.start()
    worker.join()
    slot = board.slot(2)
    assert (slot.pid, slot.started_ns, slot.heartbeat_ns) == (4711, 5, 6)
    assert (slot.counters[0], slot.counters[COUNTERS_PER_SLOT - 1]) == (1, 2**64 - 1)
    assert board.slot(1).counters.tolist() == [0] * COUNTERS_PER_SLOT
    assert board.slot(0).pid == 0


def test_j4_a_reader_never_takes_the_offset_of_an_old_file_for_a_new_one(board, tmp_path):
    worker = SPAWN.Process(target=publish_for_ever, args=(tmp_path / "board",))
    worker.start()
    try:
        slot, seen, looks = board.slot(1), set(), 0
        until = time.monotonic() + 10
        while (len(seen) < 2000 or looks < 50_000) and time.monotonic() < until:
            sequence, offset = slot.published(STREAM)
            assert offset == 0 or offset // OFFSETS_PER_FILE == sequence
            seen.add(sequence)
            looks += 1
        assert len(seen) > 100
    finally:
        worker.kill()
        worker.join()


def test_a_pair_that_its_writer_left_half_stored_counts_as_nothing(board):
    slot = board.slot(0)
    slot.publish(STREAM, 1000, 64)
    assert slot.published(STREAM) == (1000, 64)
    first = 8 + 3 * (STREAM - 1)
    slot._words[first] = 2000  # it died after the sequence, before the offset
    assert slot.published(STREAM) == (0, 0)
    assert board.synced_offset(STREAM, 2000) == 0
    slot.claim(1, 1)
    assert slot.published(STREAM) == (0, 0)


def test_streams_and_slots_are_published_apart(board):
    board.slot(0).publish(1, 1000, 64)
    board.slot(0).publish(2, 1000, 128)
    board.slot(2).publish(1, 3000, 256)
    assert board.slot(0).published(1) == (1000, 64)
    assert board.slot(0).published(2) == (1000, 128)
    assert board.synced_offset(1, 3000) == 256
    assert board.synced_offset(2, 3000) == 0


def test_a_new_claim_keeps_the_counters(board):
    slot = board.slot(0)
    slot.counters[5] = 9
    slot.claim(2, 2)
    assert slot.counters[5] == 9


def test_create_replaces_the_board_and_leaves_the_old_one_to_who_has_it(board, tmp_path):
    board.slot(0).counters[0] = 1
    fresh = Board.create(tmp_path / "board", slots=1, now_ns=78)
    assert (fresh.slot(0).counters[0], fresh.slot_count, fresh.created_ns) == (0, 1, 78)
    board.slot(2).counters[0] = 5
    assert fresh.slot(0).counters[0] == 0
    fresh.close()


def test_the_largest_board_has_all_its_slots(tmp_path):
    board = Board.create(tmp_path / "board", slots=SLOT_COUNT_MAX, now_ns=1)
    board.slot(SLOT_COUNT_MAX - 1).counters[COUNTERS_PER_SLOT - 1] = 1
    board.close()
    again = Board.open(tmp_path / "board")
    assert again.slot(SLOT_COUNT_MAX - 1).counters[COUNTERS_PER_SLOT - 1] == 1
    again.close()


def test_no_board_is_a_fault_that_names_the_file(tmp_path):
    fault = Board.open(tmp_path / "board")
    assert isinstance(fault, BoardFault)
    assert fault.kind is BoardFaultKind.MISSING
    assert str(tmp_path / "board") in fault.detail


@pytest.mark.parametrize("octets", [b"", b"SMSAAABD", b"x" * 100_000], ids=["empty", "short", "foreign"])
def test_what_is_no_board_is_a_fault(tmp_path, octets):
    (tmp_path / "board").write_bytes(octets)
    fault = Board.open(tmp_path / "board")
    assert isinstance(fault, BoardFault)
    assert fault.kind is BoardFaultKind.FORMAT


def test_a_board_in_a_folder_that_is_not_there_is_a_fault(tmp_path):
    fault = Board.create(tmp_path / "no" / "board", slots=1, now_ns=1)
    assert isinstance(fault, BoardFault)
    assert fault.kind is BoardFaultKind.IO
