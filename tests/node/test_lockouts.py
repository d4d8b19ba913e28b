"""The table of lockouts: what one process counts another sees, and neither a flood nor a race makes it fail."""

from __future__ import annotations

import multiprocessing
import os
from zlib import crc32

import pytest

from sms_aaa.node import lockouts
from sms_aaa.node.lockouts import (
    BUCKET_ENTRIES,
    DEVICE_OCTETS_MAX,
    ENTRIES_MAX,
    FILE_NAME,
    MARKS,
    USER_OCTETS_MAX,
    Lockouts,
    LockoutsFault,
)
from sms_aaa.rules.limits import NO_FAILURES, LockoutRule, Scope, Tally, count_failure

SPAWN = multiprocessing.get_context("spawn")
NOW = 1_800_000_000
RULE = LockoutRule(failures_max=1_000_000, window_seconds=600, lockout_seconds=600)
LOCKED = Tally(failures=10, first_at=NOW - 5, locked_at=NOW, until=NOW + 300)
BOTH = Scope.USER_AND_DEVICE


@pytest.fixture
def table(tmp_path):
    made = Lockouts.open_or_create(tmp_path, fresh=os.urandom(16))
    assert isinstance(made, Lockouts)
    yield made
    made.close()


def store(table: Lockouts, user: bytes, device: bytes, tally: Tally, scope: Scope = BOTH, now: int = NOW) -> None:
    table.store(scope, user, device, tally, now=now, matters_until=tally.matters_until(RULE))


def mark_of(table: Lockouts, user: bytes, device: bytes) -> int:
    return table.marks[crc32(user + device, table.seed) % MARKS]


def fail_often(folder, times: int, users: int, device: bytes, barrier) -> None:
    """On a device that others use too, and on one of its own."""
    table = Lockouts.open(folder)
    barrier.wait()
    for number in range(times):
        user = b"user%d" % (number % users)
        for one in (b"shared", device):
            store(table, user, one, count_failure(table.find(BOTH, user, one), NOW, RULE))
    table.close()


def test_what_was_stored_is_found_by_every_scope_apart(table):
    for failures, scope in enumerate(Scope, start=1):
        store(table, b"alice", b"02-01", Tally(failures=failures, first_at=NOW), scope)
    assert [table.find(scope, b"alice", b"02-01").failures for scope in Scope] == [1, 2, 3]
    assert table.find(BOTH, b"alice", b"02-02") == NO_FAILURES
    assert table.find(BOTH, b"alice0", b"2-01") == NO_FAILURES


def test_user_and_device_are_not_run_together(table):
    store(table, b"ab", b"c", LOCKED)
    assert table.find(BOTH, b"a", b"bc") == NO_FAILURES
    assert table.find(BOTH, b"abc", b"") == NO_FAILURES


def test_long_texts_are_told_apart_whole_and_kept_cut(table):
    user, device = b"u" * 253, b"d" * 253
    store(table, user, device, LOCKED)
    assert table.find(BOTH, user, device) == LOCKED
    assert table.find(BOTH, user[:-1], device) == NO_FAILURES
    [entry] = table.entries()
    assert (entry.user, entry.device) == (user[:USER_OCTETS_MAX], device[:DEVICE_OCTETS_MAX])


def test_a_mark_tells_how_long_a_pair_may_matter_and_no_other_scope_marks(table):
    assert mark_of(table, b"alice", b"02-01") == 0
    store(table, b"alice", b"02-01", Tally(failures=1, first_at=NOW))
    assert mark_of(table, b"alice", b"02-01") == NOW + 600
    store(table, b"bob", b"", LOCKED, Scope.USER)
    assert mark_of(table, b"bob", b"") == 0
    assert table.wide_until == LOCKED.until


def test_a_lockout_outlives_those_who_had_it_mapped(table, tmp_path):
    store(table, b"alice", b"02-01", LOCKED)
    again = Lockouts.open_or_create(tmp_path, fresh=bytes(16))
    assert isinstance(again, Lockouts)
    assert again.find(BOTH, b"alice", b"02-01") == LOCKED
    again.close()


def test_forgetting_frees_one_and_no_other(table):
    store(table, b"alice", b"02-01", LOCKED)
    store(table, b"alice", b"02-02", LOCKED)
    table.forget(BOTH, b"alice", b"02-01")
    assert table.find(BOTH, b"alice", b"02-01") == NO_FAILURES
    assert table.find(BOTH, b"alice", b"02-02") == LOCKED


def test_a_name_is_forgotten_in_every_scope_as_user_and_as_device(table):
    store(table, b"alice", b"02-01", LOCKED)
    store(table, b"alice", b"", LOCKED, Scope.USER)
    store(table, b"", b"02-01", LOCKED, Scope.DEVICE)
    store(table, b"bob", b"02-09", LOCKED)
    assert {entry.scope for entry in table.forget_name(b"alice")} == {BOTH, Scope.USER}
    assert {entry.scope for entry in table.forget_name(b"02-01")} == {Scope.DEVICE}
    assert [entry.user for entry in table.entries()] == [b"bob"]
    assert [entry.user for entry in table.forget_name(None)] == [b"bob"]


def test_a_flood_of_names_takes_the_places_of_the_oldest_and_leaves_the_locked(table):
    for number in range(200):
        store(table, b"locked%d" % number, b"", LOCKED, now=NOW - 1000)
    for number in range(2 * ENTRIES_MAX):
        store(table, b"flood%d" % number, b"", Tally(failures=1, first_at=NOW), now=NOW + number // 1000)
    assert all(table.find(BOTH, b"locked%d" % number, b"") == LOCKED for number in range(200))
    kept = table.entries()
    assert len(kept) <= ENTRIES_MAX
    assert len(kept) > 0.99 * ENTRIES_MAX
    newest = [table.find(BOTH, b"flood%d" % number, b"") for number in range(2 * ENTRIES_MAX - 1000, 2 * ENTRIES_MAX)]
    assert all(tally.failures == 1 for tally in newest)


def test_when_all_of_a_bucket_are_locked_the_oldest_goes(table):
    bucket: list[bytes] = []
    number = 0
    while len(bucket) <= BUCKET_ENTRIES:
        number += 1
        if table._key(BOTH, b"%d" % number, b"") % (ENTRIES_MAX // BUCKET_ENTRIES) == 0:
            bucket.append(b"%d" % number)
    for at, user in enumerate(bucket):
        store(table, user, b"", LOCKED, now=NOW + at)
    assert [table.find(BOTH, user, b"") == LOCKED for user in bucket] == [False] + [True] * BUCKET_ENTRIES


def test_several_processes_count_into_one_table(table, tmp_path):
    """What only one of them counts is exact. What all count at once may lose counts to a race, and nothing else."""
    barrier = SPAWN.Barrier(3)
    devices = [b"own%d" % number for number in range(3)]
    workers = [SPAWN.Process(target=fail_often, args=(tmp_path, 3000, 5, device, barrier)) for device in devices]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    for user in (b"user%d" % number for number in range(5)):
        assert [table.find(BOTH, user, device).failures for device in devices] == [600, 600, 600]
        assert 1 <= table.find(BOTH, user, b"shared").failures <= 1800
    assert len({(entry.user, entry.device) for entry in table.entries()}) == 5 * 4
    table.forget(BOTH, b"user0", b"shared")
    assert table.find(BOTH, b"user0", b"shared") == NO_FAILURES


def test_a_worker_that_is_killed_in_the_middle_of_a_store_hurts_nobody(table, tmp_path):
    barrier = SPAWN.Barrier(2)
    worker = SPAWN.Process(target=fail_often, args=(tmp_path, 10**9, 1000, b"own", barrier))
    worker.start()
    barrier.wait()
    while len(table.entries()) < 2000:
        pass
    worker.kill()
    worker.join()
    assert len(table.entries()) >= 1999
    store(table, b"alice", b"", LOCKED)
    assert table.find(BOTH, b"alice", b"") == LOCKED


def test_the_keys_of_two_tables_have_nothing_in_common(tmp_path, table):
    (tmp_path / "other").mkdir()
    other = Lockouts.open_or_create(tmp_path / "other", fresh=os.urandom(16))
    assert isinstance(other, Lockouts)
    users = [b"user%d" % number for number in range(100)]
    assert {table._key(BOTH, user, b"") for user in users}.isdisjoint(other._key(BOTH, user, b"") for user in users)
    other.close()


def test_the_file_is_for_its_owner_alone_and_holds_no_more_than_it_may(table, tmp_path):
    found = (tmp_path / FILE_NAME).stat()
    assert found.st_mode & 0o777 == 0o600
    assert found.st_size == lockouts._FILE_OCTETS < 16_000_000


@pytest.mark.parametrize("octets", [b"", b"SMSAAALK", b"\xff" * 5000])
def test_a_file_that_is_no_table_is_refused_and_made_anew_by_the_supervisor(tmp_path, octets):
    (tmp_path / FILE_NAME).write_bytes(octets)
    refused = Lockouts.open(tmp_path)
    assert isinstance(refused, LockoutsFault)
    assert "restart" in refused.detail
    made = Lockouts.open_or_create(tmp_path, fresh=os.urandom(16))
    assert isinstance(made, Lockouts)
    assert made.entries() == []
    made.close()


def test_without_a_server_there_is_no_table_and_it_is_said(tmp_path):
    missing = Lockouts.open(tmp_path)
    assert isinstance(missing, LockoutsFault)
    assert "has `sms-aaa serve` run here?" in missing.detail
    nowhere = Lockouts.open_or_create(tmp_path / "nowhere", fresh=bytes(16))
    assert isinstance(nowhere, LockoutsFault)
    assert "mend the state folder" in nowhere.detail
