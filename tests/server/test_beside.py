"""Work beside the loop: done by threads, told through a descriptor, bounded, and a bug of it is told too."""

from __future__ import annotations

import os
import select
import threading

from sms_aaa.server.beside import NICENESS, Beside


def wait_for(beside: Beside[str, object], count: int) -> list[tuple[str, object, type | None]]:
    done = []
    while len(done) < count:
        assert select.select([beside], [], [], 10)[0], "nothing was done within 10 s"
        done += [(one.what, one.told, type(one.bug) if one.bug else None) for one in beside.collect()]
    return done


def test_what_is_done_rings_and_is_collected_once() -> None:
    beside: Beside[str, object] = Beside(threads=2, waiting_max=10, name="test")
    for number in range(5):
        assert beside.put(f"work {number}", lambda number=number: number * number)
    assert sorted(wait_for(beside, 5)) == [(f"work {number}", number * number, None) for number in range(5)]
    assert beside.collect() == []
    assert len(beside) == 0
    beside.close()


def test_it_takes_no_more_than_it_is_told_and_the_caller_does_not_wait() -> None:
    beside: Beside[str, object] = Beside(threads=1, waiting_max=2, name="test")
    gate = threading.Event()
    assert beside.put("first", gate.wait)
    assert beside.put("second", lambda: True)
    assert not beside.put("third", lambda: True)
    gate.set()
    assert [what for what, _, _ in wait_for(beside, 2)] == ["first", "second"]
    assert beside.put("third", lambda: True)
    wait_for(beside, 1)
    beside.close()


def test_a_bug_in_the_work_is_told_and_the_thread_goes_on() -> None:
    beside: Beside[str, object] = Beside(threads=1, waiting_max=2, name="test")
    beside.put("bad", lambda: 1 // 0)
    beside.put("good", lambda: 1)
    assert wait_for(beside, 2) == [("bad", None, ZeroDivisionError), ("good", 1, None)]
    beside.close()


def test_work_that_is_inside_already_is_joined_and_told_to_all_who_asked() -> None:
    beside: Beside[str, object] = Beside(threads=2, waiting_max=4, name="test")
    gate, worked = threading.Event(), []

    def work() -> bool:
        worked.append(gate.wait(10))
        return True

    for what in ("first", "second", "third"):
        assert beside.put(what, work, key=b"same")
    assert beside.put("other", lambda: False, key=b"other")
    assert not beside.put("fifth", work, key=b"same"), "who joins counts as well"
    assert wait_for(beside, 1) == [("other", False, None)]
    gate.set()
    assert wait_for(beside, 3) == [(what, True, None) for what in ("first", "second", "third")]
    assert worked == [True]
    assert (len(beside), beside.worked) == (0, 2)
    assert beside.put("again", work, key=b"same")
    assert wait_for(beside, 1) == [("again", True, None)]
    assert len(worked) == 2
    beside.close()


def test_a_bug_in_the_work_is_told_to_all_who_joined() -> None:
    beside: Beside[str, object] = Beside(threads=1, waiting_max=4, name="test")
    gate = threading.Event()
    for what in ("first", "second"):
        beside.put(what, lambda: gate.wait(10) and 1 // 0, key=b"same")
    gate.set()
    assert wait_for(beside, 2) == [("first", None, ZeroDivisionError), ("second", None, ZeroDivisionError)]
    beside.close()


def test_the_threads_stand_back_behind_the_loop() -> None:
    beside: Beside[str, object] = Beside(threads=1, waiting_max=1, name="test")
    beside.put("nice", lambda: os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
    own = os.getpriority(os.PRIO_PROCESS, 0)
    assert wait_for(beside, 1) == [("nice", min(19, own + NICENESS), None)]
    assert os.getpriority(os.PRIO_PROCESS, 0) == own
    beside.close()
