"""Who may wait rests while answering NASes is what the cores are short for: the kernel's figures are the test's own."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from sms_aaa.server.pressure import (
    ANSWERING_SHARE,
    LOOK_SECONDS,
    REST_SECONDS_MAX,
    TICKS_PER_SECOND,
    WORKED_SHARE,
    Load,
    Pressure,
)
from sms_aaa.server.runfile import Running, RunningProcess, hold, write_running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CORES = 2
SECONDS = 4.0
TICKS = int(SECONDS * TICKS_PER_SECOND)
WORKERS, SETTLER = {"access-1": 11, "accounting-1": 12}, {"settler": 13}


class Machine:
    """A /proc of its own, and the run file of a server whose processes are in it."""

    def __init__(self, folder: Path) -> None:
        self.state_folder = folder / "node"
        self.proc = folder / "proc"
        self._ticks = dict.fromkeys([*WORKERS.values(), *SETTLER.values()], 500)
        self._busy = self._idle = 10_000
        lock = hold(self.state_folder)
        assert lock is not None
        self._lock = lock
        processes = [
            RunningProcess(name=name, slot=pid, pid=pid, restarts=0, since=0.0)
            for name, pid in (WORKERS | SETTLER).items()
        ]
        words = {"version": "1", "node": "n", "metrics": "", "embedded_dsn": "", "database": ""}
        running = Running(pid=1, since=0.0, access=[], accounting=[], processes=processes, **words)
        write_running(self.state_folder, running)
        self._write()

    def pass_time(self, *, busy: float, workers: float, settler: float = 0.0) -> None:
        """SECONDS go by; shares of all cores."""
        whole = CORES * TICKS
        self._busy, self._idle = self._busy + int(busy * whole), self._idle + int((1 - busy) * whole)
        for pid in WORKERS.values():
            self._ticks[pid] += int(workers * whole / len(WORKERS))
        self._ticks[SETTLER["settler"]] += int(settler * whole)
        self._write()

    def end(self, name: str) -> None:
        (self.proc / str(WORKERS[name]) / "stat").unlink()

    def close(self) -> None:
        os.close(self._lock)

    def _write(self) -> None:
        for pid, ticks in self._ticks.items():
            (self.proc / str(pid)).mkdir(parents=True, exist_ok=True)
            (self.proc / str(pid) / "stat").write_text(f"{pid} (python ) (3)) S {'0 ' * 10}{ticks - 100} 100 0 0\n")
        (self.proc / "stat").write_text(f"cpu  {self._busy} 0 0 {self._idle} 0 0 0 0 0 0\ncpu0 0 0 0 0 0 0 0 0 0 0\n")


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    (tmp_path / "proc").mkdir()
    made = Machine(tmp_path)
    yield made
    made.close()


def test_who_may_wait_rests_while_the_cores_are_short_for_answering(machine: Machine) -> None:
    pressure = Pressure(machine.state_folder, 0.0, proc=machine.proc, cores=CORES)
    machine.pass_time(busy=0.95, workers=ANSWERING_SHARE + 0.02)
    rest = pressure.rest_seconds(0.1, SECONDS)
    assert 0.1 / (0.1 + rest) == pytest.approx(WORKED_SHARE)
    assert pressure.rest_seconds(100.0, SECONDS) == REST_SECONDS_MAX


@pytest.mark.parametrize(
    ("busy", "workers", "settler"),
    [
        (0.5, 0.45, 0.05),  # the workers have a core each, and there is more
        (0.99, ANSWERING_SHARE - 0.02, 0.6),  # it is the settler itself, or a stranger
    ],
)
def test_nobody_rests_for_cores_that_answering_does_not_want(
    machine: Machine, busy: float, workers: float, settler: float
) -> None:
    pressure = Pressure(machine.state_folder, 0.0, proc=machine.proc, cores=CORES)
    machine.pass_time(busy=busy, workers=workers, settler=settler)
    assert pressure.rest_seconds(0.1, SECONDS) == 0.0


def test_it_ends_with_the_load_and_is_not_looked_for_at_each_batch(machine: Machine) -> None:
    pressure = Pressure(machine.state_folder, 0.0, proc=machine.proc, cores=CORES)
    machine.pass_time(busy=1.0, workers=0.9)
    assert pressure.rest_seconds(0.1, SECONDS) > 0
    machine.pass_time(busy=0.2, workers=0.0)
    assert pressure.rest_seconds(0.1, SECONDS + LOOK_SECONDS / 2) > 0
    assert pressure.rest_seconds(0.1, 2 * SECONDS) == 0.0


def test_the_room_that_a_rest_makes_does_not_end_it(machine: Machine) -> None:
    pressure = Pressure(machine.state_folder, 0.0, proc=machine.proc, cores=CORES)
    machine.pass_time(busy=1.0, workers=ANSWERING_SHARE + 0.02)
    assert pressure.rest_seconds(0.1, SECONDS) > 0
    machine.pass_time(busy=0.7, workers=0.5)
    assert pressure.rest_seconds(0.1, 2 * SECONDS) > 0
    machine.pass_time(busy=0.7, workers=ANSWERING_SHARE - 0.02)
    assert pressure.rest_seconds(0.1, 3 * SECONDS) == 0.0


def test_a_worker_that_ended_or_a_server_that_stopped_presses_nobody(machine: Machine, tmp_path: Path) -> None:
    pressure = Pressure(machine.state_folder, 0.0, proc=machine.proc, cores=CORES)
    for name in WORKERS:
        machine.pass_time(busy=1.0, workers=0.0)
        machine.end(name)
        assert pressure.rest_seconds(0.1, SECONDS) == 0.0
    alone = Pressure(tmp_path / "nobody", 0.0, proc=machine.proc, cores=CORES)
    machine.pass_time(busy=1.0, workers=0.9)
    assert alone.rest_seconds(0.1, SECONDS) == 0.0


def test_load_is_high_by_what_passed_since_the_last_look(machine: Machine) -> None:
    load = Load(machine.proc)
    machine.pass_time(busy=0.95, workers=0.0)
    assert load.is_high()
    machine.pass_time(busy=0.5, workers=0.0)
    assert not load.is_high()
    assert not load.is_high()  # no time has passed
