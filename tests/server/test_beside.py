"""Work beside the loop: done by threads, told through a descriptor, bounded, and a bug of it is told too."""

from __future__ import annotations

import select
import threading

from sms_aaa.server.beside import Beside


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
