"""PostgreSQL is away while records come: all are answered; then it is back, and what waited is settled beside the new.

`python tests/bench/bench_outage.py --help`; a real outage: `--away 600`. The server is stopped as by a crash (SIGQUIT)
and started again. Records go on at a fixed rate throughout, and until nothing waits any more.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parent.parent))

import crowd
from bench_access import Bench, Target, describe
from generator import make_generator

from sms_aaa.db.engine import connect
from sms_aaa.db.reconcile import list_violations
from sms_aaa.server.postgres import EmbeddedPostgres

if TYPE_CHECKING:
    from generator import Measured

SEGMENT_SECONDS = 10.0
LINE_SECONDS = 30.0
CATCH_UP_SECONDS_MAX = 600.0
JOURNALED, SETTLED = "sms_aaa_journal_records_total", "sms_aaa_records_settled_total"
BACKLOG = "sms_aaa_journal_backlog_octets"


def read_arguments(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--away", type=float, default=60.0, help="seconds without PostgreSQL (default 60)")
    parser.add_argument("--rate", type=float, default=2000.0, help="records a second (default 2,000)")
    parser.add_argument("--before", type=float, default=15.0, help="seconds before it goes (default 15)")
    parser.add_argument("--subscribers", type=int, default=10_000, help="default 10,000")
    parser.set_defaults(methods="acct", python=False, unsigned=False, workers=1, window=1024, seconds=1, warm_up=0)
    return parser.parse_args(words)


class Arrivals(threading.Thread):
    """Records at the rate, one segment after the other, until told to end."""

    def __init__(self, bench: Bench, ours: Target) -> None:
        super().__init__(name="arrivals")
        self._bench = bench
        self._ours = ours
        self.ends = threading.Event()
        self.segments: list[Measured] = []

    def run(self) -> None:
        asked = self._bench.asked
        while not self.ends.is_set():
            self.segments.append(
                self._bench.generator.run(
                    self._ours.accounting_port,
                    "acct",
                    users=self._ours.users,
                    seconds=SEGMENT_SECONDS,
                    rate=asked.rate,
                    window=asked.window,
                    warm_up=0,
                )
            )


class Outage:
    """What is seen of it from outside: the metrics."""

    def __init__(self, bench: Bench, folder: Path) -> None:
        assert bench.daemon is not None
        self._daemon = bench.daemon
        self._folder = folder
        self._said = 0.0
        self._octets_each = 250.0

    def weigh(self, records_before: float) -> None:
        """How many octets of the journal a record takes, from what came since and was not settled."""
        metrics = self._daemon.metrics()
        self._octets_each = metrics[BACKLOG] / (metrics[JOURNALED] - records_before)

    def waiting(self) -> int:
        """Records that are not settled. (Not by the counter of settled ones: what a crash of PostgreSQL undid, counts
        there twice.)"""
        return round(self._daemon.metrics()[BACKLOG] / self._octets_each)

    def journaled(self) -> float:
        return self._daemon.metrics()[JOURNALED]

    def settled(self) -> float:
        return self._daemon.metrics()[SETTLED]

    def crash(self) -> None:
        pid = int((self._folder / "postmaster.pid").read_text().split()[0])
        os.kill(pid, signal.SIGQUIT)
        while (self._folder / "postmaster.pid").exists():
            time.sleep(0.1)

    def say(self, what: str, *, began: float, now: bool = False) -> None:
        if now or time.monotonic() - self._said >= LINE_SECONDS:
            self._said = time.monotonic()
            health = " ".join(self._daemon.health()[2]) or "ok"
            print(f"  {self._said - began:6.1f} s  {what}: {self.waiting():,} wait; {health}", flush=True)

    def pass_time(self, seconds: float, what: str) -> None:
        began = time.monotonic()
        while time.monotonic() - began < seconds:
            time.sleep(1)
            self.say(what, began=began)

    def catch_up(self, rate: float) -> None:
        """From PostgreSQL's return until no more waits than comes in a second."""
        began, before, behind = time.monotonic(), self.settled(), self.waiting()
        while self.waiting() > rate:
            assert time.monotonic() - began < CATCH_UP_SECONDS_MAX, "it does not catch up"
            time.sleep(0.5)
            self.say("PostgreSQL is back", began=began)
        took = time.monotonic() - began
        speed = (self.settled() - before) / took
        print(f"{behind:,} waited; none {took:.1f} s later, new ones meanwhile included:")
        print(f"settled {speed:,.0f} records/s = {speed / rate:.1f} x the rate of arrival")


def main(words: list[str]) -> None:
    asked = read_arguments(words)
    with tempfile.TemporaryDirectory(prefix="sms-aaa-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        server = EmbeddedPostgres.start(folder / "postgres")
        bench = Bench(asked, folder, make_generator(folder, crowd.SECRET))
        stack.callback(lambda: bench.daemon and bench.daemon.stop())
        ours = bench.serve_ours(server.dsn)
        outage = Outage(bench, folder / "postgres")
        arrivals = Arrivals(bench, ours)
        arrivals.start()
        stack.callback(arrivals.ends.set)
        outage.pass_time(asked.before, "before")
        outage.crash()
        before = outage.journaled()
        print(f"PostgreSQL has crashed; {asked.rate:,.0f} records/s go on")
        outage.pass_time(asked.away, "PostgreSQL is away")
        outage.weigh(before)
        outage.say("PostgreSQL comes back", began=time.monotonic(), now=True)
        server = EmbeddedPostgres.start(folder / "postgres")
        stack.callback(server.stop)
        outage.catch_up(asked.rate)
        arrivals.ends.set()
        arrivals.join()
        say_answers(arrivals.segments)
        while outage.waiting():
            time.sleep(0.5)
        with connect(server.dsn, name="bench", statement_timeout_seconds=0) as connection:
            broken = [(law, len(rows)) for law, rows in list_violations(connection) if rows]
        print(f"laws that do not hold: {broken or 'none'}")


def say_answers(segments: list[Measured]) -> None:
    worst = max(segments, key=lambda segment: segment.p99_ms)
    accepted, lost = sum(one.accepted for one in segments), sum(one.lost for one in segments)
    again = sum(one.retransmissions for one in segments)
    print(
        f"{len(segments)} segments of {SEGMENT_SECONDS:.0f} s: answered {accepted:,}, sent again {again}, lost {lost}"
    )
    print(f"the worst by its p99: {describe(worst)}")


if __name__ == "__main__":
    main(sys.argv[1:])
