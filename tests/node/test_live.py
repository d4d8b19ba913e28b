"""The live set: limits hold in a race of processes, and whatever is repeated changes nothing."""

from __future__ import annotations

import multiprocessing
import os
import signal
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sms_aaa.node.environment import StoreFaultKind
from sms_aaa.node.live import LiveCounts, LiveSet
from sms_aaa.node.live_change import (
    ENTRIES_PER_SERVICE_MAX,
    LimitReached,
    LiveEntry,
    LiveFault,
    LiveFlag,
    LiveState,
    OnlineSession,
    Release,
    Reserved,
    device_key,
    session_key,
)

SPAWN = multiprocessing.get_context("spawn")
NOW = 1_800_000_000
SERVICE = 42
ROUNDS = 20
PROCESSES = 5
ATTEMPTS = 10  # of each process in a round: fifty simultaneous logins


@pytest.fixture
def live(tmp_path):
    opened = LiveSet.open(tmp_path, boot_id="boot-1")
    yield opened
    opened.close()


def token(number: int) -> bytes:
    return number.to_bytes(8, "big")


def reserve(
    live,
    number: int,
    *,
    device: bytes = b"",
    sessions_max: int = 1,
    now: int = NOW,
    seconds: int = 60,
    replaces: bool = True,
):
    with live.write() as change:
        got = change.reserve(
            SERVICE,
            device=device,
            nas_id=1,
            sessions_max=sessions_max,
            token=token(number),
            now=now,
            until=now + seconds,
            replaces=replaces,
        )
    assert change.fault is None
    return got


def promote(live, number: int, *, device: bytes = b"", until: int = NOW + 900, session: int = 0) -> None:
    with live.write() as change:
        change.promote(SERVICE, token(number), device=device, nas_id=1, until=until, session=session)
    assert change.fault is None


def neighbour(live, number: int, *, device: bytes = b"", until: int = NOW + 90_000, session: int = 0) -> None:
    with live.write() as change:
        change.promote_neighbour(SERVICE, token(number), device=device, nas_id=1, until=until, session=session)
    assert change.fault is None


def release(live, number: int, *, session: int = 0, is_settled: bool = False) -> None:
    with live.write() as change:
        change.release(SERVICE, token(number), session=session, is_settled=is_settled)
    assert change.fault is None


def no_pause() -> None:
    """The tests have nobody who waits for the lock."""


def tokens(live) -> list[int]:
    return [int.from_bytes(entry.token, "big") for entry in live.entries(SERVICE)]


# Races


def race(root: Path, worker: int, barrier, admitted) -> None:
    live = LiveSet.open(root, boot_id="boot-1")
    for round_number in range(ROUNDS):
        barrier.wait()
        for attempt in range(ATTEMPTS):
            name = token(1 + worker * ATTEMPTS + attempt)
            with live.write() as change:
                got = change.reserve(
                    round_number, device=name, nas_id=1, sessions_max=1, token=name, now=NOW, until=NOW + 60
                )
            if isinstance(got, Reserved) and change.fault is None:
                admitted.put((round_number, name))
    live.close()
    admitted.put(None)


def test_of_fifty_simultaneous_logins_on_a_one_session_plan_one_is_admitted(live, tmp_path):
    barrier, admitted = SPAWN.Barrier(PROCESSES), SPAWN.Queue()
    workers = [SPAWN.Process(target=race, args=(tmp_path, number, barrier, admitted)) for number in range(PROCESSES)]
    for worker in workers:
        worker.start()
    winners, finished = {}, 0
    while finished < PROCESSES:
        got = admitted.get(timeout=60)
        if got is None:
            finished += 1
        else:
            winners.setdefault(got[0], []).append(got[1])
    for worker in workers:
        worker.join()
    assert {round_number: len(names) for round_number, names in winners.items()} == dict.fromkeys(range(ROUNDS), 1)
    for round_number, names in winners.items():
        assert [entry.token for entry in live.entries(round_number)] == names


def hold_the_lock(root: Path, held) -> None:
    live = LiveSet.open(root, boot_id="boot-1")
    change = live.write()
    change.__enter__()
    change.reserve(SERVICE, device=b"", nas_id=1, sessions_max=1, token=token(9), now=NOW, until=NOW + 60)
    held.set()
    signal.pause()


def test_kill_9_in_a_change_leaves_nothing_of_it_and_lets_the_next_in(live, tmp_path):
    held = SPAWN.Event()
    worker = SPAWN.Process(target=hold_the_lock, args=(tmp_path, held))
    worker.start()
    assert held.wait(60)
    os.kill(worker.pid, signal.SIGKILL)
    worker.join()
    assert reserve(live, 1) == Reserved(token(1), 0)
    assert tokens(live) == [1]


# Reserve


def test_the_login_over_the_limit_is_told_how_many_there_are(live):
    assert reserve(live, 1, sessions_max=2) == Reserved(token(1), 0)
    assert reserve(live, 2, sessions_max=2) == Reserved(token(2), 1)
    assert reserve(live, 3, sessions_max=2) == LimitReached(2)
    assert tokens(live) == [1, 2]


def test_a_plan_without_a_limit_admits_any_number(live):
    assert [reserve(live, number, sessions_max=0).sessions_seen for number in range(1, 5)] == [0, 1, 2, 3]


def test_a_retransmission_of_a_device_replaces_its_own_reservation(live):
    reserve(live, 1, device=b"device-1")
    assert reserve(live, 2, device=b"device-1") == Reserved(token(2), 0)
    assert tokens(live) == [2]
    assert reserve(live, 3, device=b"device-2") == LimitReached(1)


def test_a_device_that_dials_in_again_replaces_its_own_session(live):
    reserve(live, 1, device=b"device-1")
    promote(live, 1, device=b"device-1")
    assert reserve(live, 2, device=b"device-1") == Reserved(token(2), 0)
    release(live, 1)  # the late Stop of the old session
    assert tokens(live) == [2]


def test_requests_without_a_device_are_each_a_login_of_their_own(live):
    reserve(live, 1)
    assert reserve(live, 2) == LimitReached(1)


def test_the_same_token_again_is_the_same_login(live):
    reserve(live, 1)
    assert reserve(live, 1, seconds=90) == Reserved(token(1), 0)
    assert [entry.until for entry in live.entries(SERVICE)] == [NOW + 90]


def test_a_reservation_frees_its_place_after_its_time_and_not_before(live):
    reserve(live, 1, seconds=60)
    assert reserve(live, 2, now=NOW + 60) == LimitReached(1)
    assert reserve(live, 2, now=NOW + 61) == Reserved(token(2), 0)
    assert tokens(live) == [2]


def test_the_entries_of_a_service_are_bounded_and_the_oldest_goes(live):
    for number in range(1, ENTRIES_PER_SERVICE_MAX + 3):
        reserve(live, number, sessions_max=0, seconds=10 if number == 7 else 60 + number)
    kept = tokens(live)
    assert len(kept) == ENTRIES_PER_SERVICE_MAX
    assert {7, 1}.isdisjoint(kept)
    assert ENTRIES_PER_SERVICE_MAX + 2 in kept


# Promote and release


def test_a_start_makes_the_reservation_an_online_session(live):
    reserve(live, 1, device=b"device-1")
    promote(live, 1, device=b"device-1")
    assert live.entries(SERVICE) == [LiveEntry(token(1), b"device-1", NOW + 900, 1, LiveState.ONLINE)]


def test_an_interim_of_an_unknown_login_puts_it_in(live):
    promote(live, 1, device=b"device-1")
    assert reserve(live, 2, device=b"device-2") == LimitReached(1)


def test_a_late_record_never_shortens_a_session(live):
    promote(live, 1, until=NOW + 900)
    promote(live, 1, until=NOW + 300)
    assert [entry.until for entry in live.entries(SERVICE)] == [NOW + 900]


def test_a_nas_that_took_the_other_accept_of_a_retransmission_keeps_one_entry_under_its_token(live):
    reserve(live, 1, device=b"device-1")
    reserve(live, 2, device=b"device-1")
    promote(live, 1, device=b"device-1")
    assert tokens(live) == [1]
    release(live, 1)
    assert live.entries(SERVICE) == []


def test_two_sessions_of_one_device_are_two_entries_and_one_place(live):
    """Dual stack with a login for each protocol: the Stop of one leaves the other."""
    promote(live, 2, device=b"device-1")
    promote(live, 1, device=b"device-1")
    assert tokens(live) == [2, 1]
    assert reserve(live, 3, device=b"device-2", sessions_max=2) == Reserved(token(3), 1)
    release(live, 3)
    release(live, 1)
    assert tokens(live) == [2]
    assert reserve(live, 4, device=b"device-2") == LimitReached(1)


def test_a_device_seen_at_login_is_kept_and_a_missing_one_is_filled_in(live):
    reserve(live, 1, device=b"at-login")
    promote(live, 1, device=b"at-start")
    assert live.entries(SERVICE)[0].device == b"at-login"
    release(live, 1)
    reserve(live, 2)
    promote(live, 2, device=b"at-start")
    assert live.entries(SERVICE)[0].device == b"at-start"


def test_a_stop_frees_the_place_once_and_only_its_own(live):
    reserve(live, 1, sessions_max=2)
    reserve(live, 2, sessions_max=2)
    release(live, 1)
    release(live, 1)
    release(live, 99)
    assert tokens(live) == [2]


def test_an_accounting_on_releases_many(live):
    for number in range(1, 501):
        with live.write() as change:
            change.promote(number, token(number), device=b"", nas_id=1, until=NOW + 900)
    ended = [Release(number, token(number)) for number in range(1, 501) if number != 2]
    assert live.release([*ended, Release(9_999, token(9))], pause=no_pause) is None
    assert live.counts(NOW) == LiveCounts(0, 1, is_whole=True)
    assert live.count(2, NOW) == 1


# Several sessions under one Class


def test_the_first_stop_of_two_sessions_under_a_class_leaves_the_place_to_what_is_settled(live):
    promote(live, 1, session=11)
    promote(live, 1, session=22)
    release(live, 1, session=11)
    release(live, 1, session=22)
    assert tokens(live) == [1]
    release(live, 1, session=11, is_settled=True)
    assert tokens(live) == []


def test_a_stop_that_is_settled_late_leaves_the_next_session_under_its_class(live):
    promote(live, 1, session=11)
    release(live, 1, session=11)
    promote(live, 1, session=22)
    release(live, 1, session=11, is_settled=True)
    assert tokens(live) == [1]
    release(live, 1, session=22)
    assert tokens(live) == []


def test_a_session_that_is_authenticated_anew_stands_under_its_new_login_alone(live):
    promote(live, 1, device=b"device-1", session=11)
    reserve(live, 2, device=b"device-1", sessions_max=2, replaces=False)
    assert tokens(live) == [1, 2]
    promote(live, 2, device=b"device-1", session=11)
    assert tokens(live) == [2]


def test_a_session_is_told_apart_by_its_id_and_one_without_is_nobody(live):
    assert session_key("0001") != session_key("0002")
    assert session_key("") == 0
    release(live, 1, session=11)
    promote(live, 1)
    release(live, 1, session=11)
    assert tokens(live) == []


# reject-new


def test_reject_new_refuses_a_device_that_is_online_until_its_session_ends(live):
    reserve(live, 1, device=b"device-1", replaces=False)
    promote(live, 1, device=b"device-1")
    assert reserve(live, 2, device=b"device-1", replaces=False) == LimitReached(1)
    assert reserve(live, 3, device=b"device-2", replaces=False) == LimitReached(1)
    release(live, 1)
    assert reserve(live, 4, device=b"device-1", replaces=False) == Reserved(token(4), 0)


def test_reject_new_refuses_a_device_that_is_online_until_it_was_silent_too_long(live):
    promote(live, 1, device=b"device-1", until=NOW + 900)
    assert reserve(live, 2, device=b"device-1", replaces=False, now=NOW + 900) == LimitReached(1)
    assert reserve(live, 2, device=b"device-1", replaces=False, now=NOW + 901) == Reserved(token(2), 0)


def test_reject_new_lets_a_device_that_waits_for_its_start_ask_again(live):
    reserve(live, 1, device=b"device-1", replaces=False)
    assert reserve(live, 2, device=b"device-1", replaces=False) == Reserved(token(2), 0)
    assert tokens(live) == [2]


def test_reject_new_counts_two_sessions_of_one_device_as_two(live):
    for number in (1, 2):
        assert reserve(live, number, device=b"device-1", sessions_max=2, replaces=False) == Reserved(
            token(number), number - 1
        )
        promote(live, number, device=b"device-1")
    assert reserve(live, 3, device=b"device-1", sessions_max=2, replaces=False) == LimitReached(2)
    assert reserve(live, 3, device=b"device-1", sessions_max=2) == Reserved(token(3), 0), "the other policy"


def test_a_login_that_was_refused_elsewhere_gives_its_reservation_back_and_nothing_else(live):
    reserve(live, 1, sessions_max=2)
    promote(live, 2)
    with live.write() as change:
        change.withdraw(SERVICE, token(1))
        change.withdraw(SERVICE, token(2))
        change.withdraw(SERVICE, token(3))
    assert tokens(live) == [2]


# Other nodes' sessions


def test_a_session_at_another_node_takes_a_place_here_until_that_node_says_it_ended(live):
    neighbour(live, 1, device=b"device-1", session=11)
    assert reserve(live, 2, device=b"device-2", now=NOW + 5_000) == LimitReached(1)
    release(live, 1, session=11, is_settled=True)
    assert reserve(live, 2, device=b"device-2") == Reserved(token(2), 0)


def test_a_device_that_is_online_at_another_node_takes_over_its_own_place(live):
    neighbour(live, 1, device=b"device-1")
    assert reserve(live, 2, device=b"device-1") == Reserved(token(2), 0)
    assert [(entry.token, entry.until) for entry in live.entries(SERVICE)] == [
        (token(1), NOW + 90_000),
        (token(2), NOW + 60),
    ]
    assert reserve(live, 3, device=b"device-1", replaces=False) == LimitReached(1)
    assert reserve(live, 4, device=b"device-2", sessions_max=2) == Reserved(token(4), 1), "one device, one place"


def test_a_session_that_moves_between_nodes_is_one_entry_with_the_time_of_whom_its_nas_speaks_to(live):
    reserve(live, 1, device=b"device-1")
    promote(live, 1, device=b"device-1", until=NOW + 900, session=11)
    neighbour(live, 1, device=b"device-1", session=11)
    [entry] = live.entries(SERVICE)
    assert (entry.until, entry.flags) == (NOW + 90_000, LiveFlag.NEIGHBOUR)
    promote(live, 1, device=b"device-1", until=NOW + 1_200, session=11)
    [entry] = live.entries(SERVICE)
    assert (entry.until, entry.flags) == (NOW + 1_200, 0)


def test_neighbours_that_no_look_found_again_are_dropped_and_nobody_else(live):
    sessions = [
        OnlineSession(number, token(number), b"", 1, NOW + (90_000 if number % 2 else 80_000), 0, is_neighbour=True)
        for number in range(1, 12_001)
    ]
    live.load(sessions, pause=no_pause)
    promote(live, 1)
    assert live.forget_neighbours(before=NOW + 90_000, pause=no_pause) is None
    assert live.counts(NOW) == LiveCounts(0, 6_001, is_whole=True)
    assert live.entries(2) == []
    assert tokens(live) == [1]


STEPS = st.lists(
    st.tuples(st.sampled_from(["reserve", "promote", "release"]), st.integers(1, 6), st.integers(0, 3)), max_size=40
)


@given(STEPS, st.integers(1, 3))
@settings(max_examples=25, deadline=None)
def test_whatever_happens_twice_happened_once_and_no_reservation_passes_the_limit(steps, sessions_max):
    with tempfile.TemporaryDirectory() as name:
        live = LiveSet.open(Path(name), boot_id="boot-1")
        for step, number, device in steps:
            key = b"device-%d" % device if device else b""
            seen = []
            for _ in range(2):
                if step == "reserve":
                    got = reserve(live, number, device=key, sessions_max=sessions_max)
                    assert isinstance(got, LimitReached) or got.sessions_seen < sessions_max
                elif step == "promote":
                    promote(live, number, device=key)
                else:
                    release(live, number)
                seen.append(sorted(live.entries(SERVICE), key=lambda entry: entry.token))
            assert seen[0] == seen[1]
            assert len(set(tokens(live))) == len(tokens(live))
        live.close()


# The transaction


def test_an_exception_in_a_change_leaves_nothing_of_it(live):
    def promote_and_fail() -> None:
        with live.write() as change:
            change.promote(SERVICE, token(1), device=b"", nas_id=1, until=NOW)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        promote_and_fail()
    assert live.entries(SERVICE) == []


def test_a_damaged_value_is_a_fault_and_nothing_of_the_batch_is_stored(live):
    with live._env.begin(write=True) as transaction:
        transaction.put((7).to_bytes(8, "big"), b"thirteen octs", db=live._services)
    with live.write() as change:
        change.promote(SERVICE, token(1), device=b"", nas_id=1, until=NOW)
        got = change.reserve(7, device=b"", nas_id=1, sessions_max=1, token=token(1), now=NOW, until=NOW)
        change.release(SERVICE, token(1))
    assert isinstance(got, LiveFault)
    assert change.fault == got
    assert got.kind is StoreFaultKind.DAMAGED
    assert live.entries(SERVICE) == []
    assert isinstance(live.entries(7), LiveFault)
    assert isinstance(live.count(7, NOW), LiveFault)


def test_a_set_that_is_full_is_a_fault_and_can_still_release(tmp_path):
    live = LiveSet.open(tmp_path, boot_id="boot-1", octets=128 * 1024)
    fault, service_id = None, 0
    while fault is None and service_id < 10_000:
        service_id += 1
        with live.write() as change:
            change.promote(service_id, token(1), device=b"", nas_id=1, until=NOW)
        fault = change.fault
    assert fault.kind is StoreFaultKind.FULL
    assert live.entries(service_id) == []
    assert len(live.entries(service_id - 1)) == 1
    live.close()


# Counting, opening, rebuilding


def test_counts_are_of_what_has_not_run_out(live):
    with live.write() as change:
        for service_id in range(1, 101):
            change.promote(service_id, token(service_id), device=b"", nas_id=1, until=NOW + service_id)
        for service_id in range(1, 11):
            change.reserve(service_id, device=b"", nas_id=1, sessions_max=0, token=token(999), now=NOW, until=NOW + 60)
    assert live.counts(NOW) == LiveCounts(10, 100, is_whole=True)
    assert live.counts(NOW + 50) == LiveCounts(10, 51, is_whole=True)
    assert (live.count(1, NOW), live.count(1, NOW + 2), live.count(1, NOW + 61)) == (2, 1, 0)


def test_a_scan_that_reaches_its_bound_says_so(live, monkeypatch):
    for service_id in range(1, 7):
        with live.write() as change:
            change.promote(service_id, token(1), device=b"", nas_id=1, until=NOW)
    monkeypatch.setattr("sms_aaa.node.live.SCAN_SERVICES_MAX", 5)
    assert live.counts(NOW) == LiveCounts(0, 5, is_whole=False)


def test_the_set_outlives_a_restart_and_not_a_boot(tmp_path):
    first = LiveSet.open(tmp_path, boot_id="boot-1")
    assert first.was_discarded
    promote(first, 1)
    first.close()
    again = LiveSet.open(tmp_path, boot_id="boot-1")
    assert (again.was_discarded, tokens(again)) == (False, [1])
    again.close()
    rebooted = LiveSet.open(tmp_path, boot_id="boot-2")
    assert (rebooted.was_discarded, tokens(rebooted)) == (True, [])
    rebooted.close()


@pytest.mark.parametrize("octets", [b"", b"x" * 20_000], ids=["empty", "foreign"])
def test_a_torn_set_is_discarded(tmp_path, octets):
    first = LiveSet.open(tmp_path, boot_id="boot-1")
    promote(first, 1)
    first.close()
    (tmp_path / "live" / "data.mdb").write_bytes(octets)
    again = LiveSet.open(tmp_path, boot_id="boot-1")
    assert tokens(again) == []
    again.close()


def test_a_set_that_was_cut_short_is_discarded_before_it_can_kill_a_reader(tmp_path):
    first = LiveSet.open(tmp_path, boot_id="boot-1")
    for service_id in range(500):
        with first.write() as change:
            change.promote(service_id, token(1), device=b"", nas_id=1, until=NOW)
    first.close()
    os.truncate(tmp_path / "live" / "data.mdb", 3 * 4096)
    again = LiveSet.open(tmp_path, boot_id="boot-1")
    assert (again.was_discarded, again.counts(0)) == (True, LiveCounts(0, 0, is_whole=True))
    again.close()


def open_and_report(root: Path, barrier, reports) -> None:
    barrier.wait()
    live = LiveSet.open(root, boot_id="boot-2")
    reports.put(live.was_discarded)
    live.close()


def test_of_many_that_open_after_a_boot_one_discards(tmp_path):
    LiveSet.open(tmp_path, boot_id="boot-1").close()
    barrier, reports = SPAWN.Barrier(4), SPAWN.Queue()
    workers = [SPAWN.Process(target=open_and_report, args=(tmp_path, barrier, reports)) for _ in range(4)]
    for worker in workers:
        worker.start()
    assert sorted(reports.get(timeout=60) for _ in workers) == [False, False, False, True]
    for worker in workers:
        worker.join()


def test_a_rebuild_keeps_what_was_admitted_meanwhile_and_says_when_it_is_done(live):
    reserve(live, 1, device=b"device-1")
    assert not live.is_rebuilt()
    sessions = [OnlineSession(number, token(number), b"", 1, NOW + 900) for number in range(1000, 3500)]
    assert live.load(iter(sessions), pause=no_pause) == len(sessions)
    assert not live.is_rebuilt(), "others may have something to say"
    assert live.mark_rebuilt() is None
    assert live.is_rebuilt()
    assert live.load(sessions, pause=no_pause) == len(sessions)
    assert live.counts(NOW) == LiveCounts(1, len(sessions), is_whole=True)


def test_a_state_folder_that_cannot_be_made_is_a_fault(tmp_path):
    (tmp_path / "live").write_bytes(b"a file where the folder should be")
    fault = LiveSet.open(tmp_path, boot_id="boot-1")
    assert isinstance(fault, LiveFault)
    assert fault.kind is StoreFaultKind.IO


def test_a_device_is_named_by_what_the_request_has():
    keys = {
        device_key(1, b"7", b"00-11"),
        device_key(1, b"7", b""),
        device_key(1, b"", b"00-11"),
        device_key(2, b"7", b"00-11"),
        device_key(1, b"70", b"0-11"),
        device_key(1, b"", b"700-11"),
    }
    assert len(keys) == 6
    assert {len(key) for key in keys} == {8}
    assert device_key(1, b"7", b"00-11") == device_key(1, b"7", b"00-11")
    assert device_key(1, b"", b"") == b""
