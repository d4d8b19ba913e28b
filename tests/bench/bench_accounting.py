"""The whole way of an accounting record: answered when durable, settled, rated; beside FreeRADIUS on PostgreSQL.

`python tests/bench/bench_accounting.py --help`. Three questions. How many records a second are *answered*, which here
means on disk and there committed: runs interleaved, ours and theirs. How late an answer is at half of that, beside
what an fdatasync takes on the same disk. And how many a second are *carried to the end*, into sessions, deltas,
rollups, rated usage and ledger, with no backlog that grows: at a fixed rate for a minute, a multiple of theirs, whose
answer already stands for all that FreeRADIUS does.
"""

from __future__ import annotations

import os
import signal
import statistics
import sys
import tempfile
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parent.parent))

import crowd
from bench_access import OURS, SQL, Bench, Target, describe, shared_arguments, start_peer
from effort import cpu_seconds, server_cpu_seconds
from generator import make_generator

from sms_aaa.db.engine import connect
from sms_aaa.db.reconcile import list_violations
from sms_aaa.server.postgres import EmbeddedPostgres

if TYPE_CHECKING:
    import argparse

    from generator import Measured

BLOCK_OCTETS = 16_384
SYNC_SECONDS_MAX = 1.0
CATCH_UP_SECONDS_MAX = 300.0
SAMPLE_SECONDS_MAX = 5.0
SETTLED_IN_TIME_SECONDS = 2.0

COUNTED = {
    "answered": "sms_aaa_journal_records_total",
    "settled": "sms_aaa_records_settled_total",
    "deltas": "sms_aaa_deltas_settled_total",
    "rated": "sms_aaa_deltas_rated_total",
    "to rate": "sms_aaa_rating_queue_deltas",
    "backlog octets": "sms_aaa_journal_backlog_octets",
    "lag s": "sms_aaa_settle_lag_seconds",
    "quarantined": "sms_aaa_quarantined_total",
}


def read_arguments(words: list[str]) -> argparse.Namespace:
    parser = shared_arguments(__doc__, peer_users=10_000, seconds=4.0)
    parser.add_argument("--interims", type=int, default=1, help="of a session, between its Start and Stop")
    parser.add_argument("--sustain", type=float, default=60.0, help="seconds of the run to the end")
    parser.add_argument("--ratios", default="3,5", help="multiples of FreeRADIUS's rate to carry to the end")
    parser.add_argument("--rates", default="", help="records a second instead of --ratios")
    parser.add_argument("--prove", action="store_true", help="run the laws of `reconcile` at the end")
    parser.set_defaults(methods="acct", python=False, unsigned=False, workers=1)
    return parser.parse_args(words)


def fdatasync_ms(folder: Path, seconds: float) -> tuple[float, float, int]:
    """p50, p99 and count of fdatasyncs of a written block into a file of full length: what a journal asks of a disk."""
    taken = []
    with (folder / "sync").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, 64 * 1024 * 1024)
        os.fsync(file.fileno())
        until, at = time.monotonic() + seconds, 0
        while time.monotonic() < until:
            os.pwrite(file.fileno(), os.urandom(BLOCK_OCTETS), at)
            at = (at + BLOCK_OCTETS) % (64 * 1024 * 1024)
            began = time.perf_counter()
            os.fdatasync(file.fileno())
            taken.append((time.perf_counter() - began) * 1000)
    (folder / "sync").unlink()
    taken.sort()
    return taken[len(taken) // 2], taken[len(taken) * 99 // 100], len(taken)


class Carried:
    """A run at a fixed rate, looked at while it goes on."""

    def __init__(self, bench: Bench, server: EmbeddedPostgres, ours: Target) -> None:
        self._bench = bench
        self._server = server
        self._ours = ours

    def run(self, rate: float) -> bool:
        """Whether it was carried: all answered, and what waits does not grow."""
        asked = self._bench.asked
        self.wait_until_empty()
        print(f"{rate:,.0f} records/s for {asked.sustain:.0f} s, {asked.interims} interims a session:")
        before, spent = self._counts(), self._cpu_seconds()
        with ThreadPoolExecutor(1) as beside:
            sending = beside.submit(self._send, rate)
            samples = self._watch(before, sending)
            found = sending.result()
        print(f"  {describe(found)}")
        self._say_cpu(spent, found)
        late = self.wait_until_empty()
        after = self._counts()
        carried = after["settled"] - before["settled"]
        print(f"  all settled and rated {late:.1f} s after the last answer: {carried:,.0f} records, ", end="")
        print(f"{after['rated'] - before['rated']:,.0f} of {after['deltas'] - before['deltas']:,.0f} deltas rated")
        return not found.lost and found.rate > rate * 0.99 and self._holds(samples)

    def wait_until_empty(self) -> float:
        began = time.monotonic()
        while time.monotonic() - began < CATCH_UP_SECONDS_MAX:
            now = self._counts()
            if not now["backlog octets"] and not now["to rate"] and now["deltas"] <= now["rated"]:
                break
            time.sleep(0.25)
        return time.monotonic() - began

    def _send(self, rate: float) -> Measured:
        asked = self._bench.asked
        return self._bench.generator.run(
            self._ours.accounting_port,
            "acct",
            users=self._ours.users,
            seconds=asked.sustain,
            rate=rate,
            window=max(asked.window, 4096),
            warm_up=0,
            interims=asked.interims,
        )

    def _watch(self, before: dict[str, float], sending: Future[Measured]) -> list[dict[str, float]]:
        began, samples = time.monotonic(), []
        while not sending.done():
            time.sleep(min(SAMPLE_SECONDS_MAX, self._bench.asked.sustain / 4))
            now = self._counts()
            now["unsettled"] = now["answered"] - now["settled"] - (before["answered"] - before["settled"])
            samples.append(now)
            print(
                f"  {time.monotonic() - began:5.0f} s  answered {now['answered'] - before['answered']:>10,.0f}"
                f"  settled {now['settled'] - before['settled']:>10,.0f}  not settled {now['unsettled']:>9,.0f}"
                f"  lag {now['lag s']:5.2f} s  to rate {now['to rate']:>9,.0f}",
                flush=True,
            )
        return samples

    def _holds(self, samples: list[dict[str, float]]) -> bool:
        """The last third is no further behind than the second, by more than two seconds' work."""
        third = len(samples) // 3
        if not third:
            return True
        slack = SETTLED_IN_TIME_SECONDS * (samples[-1]["answered"] - samples[0]["answered"]) / self._bench.asked.sustain
        verdict = True
        for name in ("unsettled", "to rate"):
            middle = statistics.mean(sample[name] for sample in samples[third : 2 * third])
            last = statistics.mean(sample[name] for sample in samples[2 * third :])
            verdict &= last <= middle + slack
            print(f"  {name}: {middle:,.0f} on average in the second third, {last:,.0f} in the last")
        return verdict

    def _counts(self) -> dict[str, float]:
        assert self._bench.daemon is not None
        metrics = self._bench.daemon.metrics()
        return {name: metrics.get(metric, 0.0) for name, metric in COUNTED.items()}

    def _cpu_seconds(self) -> dict[str, float]:
        """User and system time so far of each process of ours, and of the PostgreSQL server with all its processes."""
        assert self._bench.daemon is not None
        found = {process.name: cpu_seconds(process.pid) for process in self._bench.daemon.running().processes}
        found["PostgreSQL"] = server_cpu_seconds(self._bench.folder / "postgres")
        return found

    def _say_cpu(self, before: dict[str, float], found: Measured) -> None:
        spent = {name: after - before.get(name, 0.0) for name, after in self._cpu_seconds().items()}
        spent["generator"] = found.cpu_seconds
        each = 1e6 / max(found.accepted, 1)
        told = [f"{name} {seconds * each:.1f}" for name, seconds in spent.items() if seconds * each >= 0.1]
        print(f"  microseconds of processor a record: {', '.join(told)}; together {sum(spent.values()) * each:.1f}")


def say_answers(bench: Bench, targets: list[Target]) -> dict[str, float]:
    """Rounds of ours and theirs; the medians by name."""
    for number in range(1, bench.asked.rounds + 1):
        print(f"round {number}")
        bench.run_round(targets, "acct")
    bench.say_ratios()
    return {name: statistics.median(rates) for (name, _), rates in bench.rates.items()}


def say_latency(bench: Bench, ours: Target, rate: float) -> None:
    print(f"latency at half the maximum, {rate:,.0f} records/s, and fdatasync of {BLOCK_OCTETS} octets in between:")
    for _ in range(bench.asked.rounds):
        p50, p99, count = fdatasync_ms(bench.folder, min(SYNC_SECONDS_MAX, bench.asked.seconds))
        print(f"  {'this disk':<19} fdatasync  p50 {p50:7.2f} ms  p99 {p99:7.2f} ms  ({count} of them)")
        print(f"  {OURS:<19} acct     {describe(bench.run(ours, 'acct', rate=rate))}", flush=True)


def main(words: list[str]) -> None:
    asked = read_arguments(words)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # and what was started is stopped on the way
    with tempfile.TemporaryDirectory(prefix="sms-aaa-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        generator = make_generator(folder, crowd.SECRET)
        server = EmbeddedPostgres.start(folder / "postgres")
        stack.callback(server.stop)
        bench = Bench(asked, folder, generator)
        stack.callback(lambda: bench.daemon and bench.daemon.stop())
        ours = bench.serve_ours(server.dsn)
        with connect(server.dsn, name="bench") as connection:
            crowd.open_cycles(connection)  # once in a month for each: not what is measured
        theirs = [target for target in start_peer(stack, bench, server) if target.name == SQL]
        carried = Carried(bench, server, ours)
        median: dict[str, float] = {}
        if asked.rounds:
            median = say_answers(bench, [ours, *theirs])
            print(f"\nsettled and rated {carried.wait_until_empty():.1f} s after the last answer")
            say_latency(bench, ours, median[OURS] / 2)
        rates = [float(rate) for rate in asked.rates.split(",") if rate]
        rates = rates or [float(ratio) * median.get(SQL, 0.0) for ratio in asked.ratios.split(",") if ratio]
        for rate in filter(None, rates):
            ratio = f", {rate / median[SQL]:.1f} x FreeRADIUS" if SQL in median else ""
            print("CARRIED" if carried.run(rate) else "NOT CARRIED", f"to the end: {rate:,.0f} records/s{ratio}\n")
        if asked.prove:
            with connect(server.dsn, name="bench", statement_timeout_seconds=0) as connection:
                broken = [(law, len(rows)) for law, rows in list_violations(connection) if rows]
            print(f"laws that do not hold: {broken or 'none'}")


if __name__ == "__main__":
    main(sys.argv[1:])
