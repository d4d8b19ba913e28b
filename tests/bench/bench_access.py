"""The whole way of a login: a real `sms-aaa serve`, beside FreeRADIUS where that is installed.

`python tests/bench/bench_access.py --help`. Everything runs on this machine's loopback, on ports of its own and in a
temporary folder. The runs are interleaved (ours, theirs, ours, theirs), because a machine's speed is another the next
minute: read the ratios, not the figures, and only of a machine that does nothing else (what else runs takes more from
two processes of ours than from sixteen threads of theirs). Whoever answers has its credentials where it would have
them: ours sealed in the replica, with reservation and decision record; theirs in memory in the clear, or in PostgreSQL.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parent.parent))

import crowd
import freeradius
from daemon import Daemon, FakeNas, free_port
from effort import cpu_seconds
from generator import CGenerator, SimulatorGenerator, make_generator
from make import make_desk, make_vault

from sms_aaa.config import key_path, load_settings
from sms_aaa.db.engine import connect
from sms_aaa.db.schema import upgrade
from sms_aaa.node.key import read_or_create_key
from sms_aaa.server.postgres import EmbeddedPostgres

if TYPE_CHECKING:
    from generator import Measured

OURS, MEMORY, SQL, FLOOR = "sms-aaa", "FreeRADIUS, memory", "FreeRADIUS, SQL", "floor (C)"
FILL_SERVICES_PER_SECOND_MIN = 2_000
BACKLOG_SECONDS_MAX = 30.0
RECORDED = "sms_aaa_decisions_recorded_total"


def shared_arguments(about: str | None, *, peer_users: int, seconds: float) -> argparse.ArgumentParser:
    """What a measurement beside FreeRADIUS is asked for; `about`: its module's docstring."""
    parser = argparse.ArgumentParser(
        description=(about or "").splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--subscribers", type=int, default=10_000, help="ours; 1,000,000 takes minutes")
    parser.add_argument("--peer-users", type=int, default=peer_users, help="FreeRADIUS's")
    parser.add_argument("--peer-threads", type=int, default=16, help="FreeRADIUS's max_servers")
    parser.add_argument("--no-peer", action="store_true", help="without FreeRADIUS")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each")
    parser.add_argument("--seconds", type=float, default=seconds, help="of a run")
    parser.add_argument("--warm-up", type=float, default=0.5, help="seconds before each that do not count")
    parser.add_argument("--window", type=int, default=256, help="requests at a time")
    return parser


def read_arguments(words: list[str]) -> argparse.Namespace:
    parser = shared_arguments(__doc__, peer_users=100_000, seconds=2.0)
    parser.add_argument("--methods", default="pap,chap,mschap2", help="of pap, chap, mschap2, acct")
    parser.add_argument("--workers", type=int, default=2, help="access workers of ours")
    parser.add_argument("--python", action="store_true", help="the Python simulator, where C could be built too")
    parser.add_argument("--unsigned", action="store_true", help="without Message-Authenticator")
    return parser.parse_args(words)


@dataclass(frozen=True, slots=True)
class Target:
    """Who is measured: ports for logins and records, how many users it knows. A port of 0: it has none."""

    name: str
    port: int
    accounting_port: int
    users: int


class Bench:
    """What runs, and what was measured of it."""

    def __init__(self, asked: argparse.Namespace, folder: Path, generator: CGenerator | SimulatorGenerator) -> None:
        self.asked = asked
        self.folder = folder
        self.generator = generator
        self.daemon: Daemon | None = None
        self.rates: dict[tuple[str, str], list[float]] = defaultdict(list)

    def serve_ours(self, dsn: str) -> Target:
        """A daemon over a database full of subscribers, its replica filled."""
        count = self.asked.subscribers
        upgrade(dsn)
        # With few subscribers each of them logs in as often as an attacker would.
        limits = {"SMS_AAA_LIMITS_USER_LOGINS": "1000000"}
        daemon = Daemon(self.folder / "node", dsn=dsn, SMS_AAA_ACCESS_WORKERS=str(self.asked.workers), **limits)
        key = read_or_create_key(key_path(load_settings(None, daemon.environ)), fresh=os.urandom(32))
        assert isinstance(key, bytes), key
        vault = make_vault(key)
        with connect(dsn, name="bench") as connection:
            took = crowd.provision(make_desk(connection, vault), vault, count + 1)  # and one for us
        print(f"{count:,} subscribers provisioned in {took:.0f} s")
        began = time.monotonic()
        self.daemon = daemon
        daemon.start(healthy=False)
        self._wait_for_replica(60 + count / FILL_SERVICES_PER_SECOND_MIN)
        print(f"serving {time.monotonic() - began:.1f} s after the start, the replica filled meanwhile")
        return Target(OURS, daemon.access_port, daemon.accounting_port, count)

    def _wait_for_replica(self, seconds: float) -> None:
        assert self.daemon is not None
        until = time.monotonic() + seconds
        while not self._logs_in(self.asked.subscribers):
            if time.monotonic() > until or self.daemon.process is None or self.daemon.process.poll() is not None:
                raise RuntimeError(f"no login: {self.daemon.log.read_text()[-3000:]}")

    def _logs_in(self, number: int) -> bool:
        """The replica is filled in the order of numbers. A port of its own each time: answers may come late."""
        assert self.daemon is not None
        with FakeNas(self.daemon, secret=crowd.SECRET, patience=0.3) as nas:
            return nas.login(b"user%07d" % number, b"pw%07d" % number) is not None

    def run(self, target: Target, method: str, *, rate: float = 0.0) -> Measured:
        return self.generator.run(
            target.accounting_port if method == "acct" else target.port,
            method,
            users=target.users,
            seconds=self.asked.seconds,
            rate=rate,
            window=self.asked.window,
            signed=not self.asked.unsigned,
            warm_up=self.asked.warm_up,
        )

    def run_round(self, targets: list[Target], method: str) -> None:
        for target in targets:
            if not (target.accounting_port if method == "acct" else target.port):
                continue
            if target.name == SQL and method not in {"pap", "acct"}:
                continue  # the database is its limit whatever the method
            if target.name == FLOOR and method != "pap":
                continue  # it proves nothing, and MS-CHAPv2 wants a proof
            before = self._effort() if target.name == OURS else {}
            found = self.run(target, method)
            self.rates[target.name, method].append(found.rate)
            print(f"  {target.name:<19} {method:<8} {describe(found)}", flush=True)
            if target.name == OURS:
                self._say_who_worked(before)

    def _effort(self) -> dict[str, float]:
        """User and system time of each process of ours by name, and how many decisions are stored."""
        assert self.daemon is not None
        found = {RECORDED: self.daemon.metrics()[RECORDED]}
        for process in self.daemon.running().processes:
            found[process.name] = cpu_seconds(process.pid)
        return found

    def _say_who_worked(self, before: dict[str, float]) -> None:
        spent = {name: after - before.get(name, 0.0) for name, after in self._effort().items()}
        recorded = spent.pop(RECORDED)
        told = [f"{name} {seconds:.2f}" for name, seconds in spent.items() if seconds >= 0.05]
        print(f"  {'':<28} CPU seconds: {', '.join(told)}; decisions stored meanwhile: {recorded:,.0f}")

    def say_latency(self, ours: Target) -> None:
        """At half of the median of what it did at most, PAP."""
        rate = statistics.median(self.rates[OURS, "pap"]) / 2
        print(f"latency at half the maximum, {rate:,.0f} requests/s:")
        for _ in range(self.asked.rounds):
            print(f"  {OURS:<19} pap      {describe(self.run(ours, 'pap', rate=rate))}")

    def say_memory_and_settling(self) -> None:
        assert self.daemon is not None
        for process in self.daemon.running().processes:
            if process.name.startswith("access"):
                print(f"memory of {process.name}: {own_octets(process.pid) / 1e6:.0f} MB of its own")
        began, metrics = time.monotonic(), self.daemon.metrics()
        while metrics["sms_aaa_decisions_backlog_octets"] and time.monotonic() - began < BACKLOG_SECONDS_MAX:
            time.sleep(0.5)
            metrics = self.daemon.metrics()
        waited = time.monotonic() - began
        behind = metrics["sms_aaa_decisions_backlog_octets"]
        print(f"decisions: {metrics[RECORDED]:,.0f} in PostgreSQL {waited:.0f} s after the last login, ", end="")
        print(f"{behind:,.0f} octets of their stream to go")
        print(f"decisions dropped because their stream was full: {metrics['sms_aaa_decisions_dropped_total']:,.0f}")

    def say_ratios(self) -> None:
        print(f"\n{'median, requests/s':<24}" + "".join(f"{method:>10}" for method in self.methods))
        median = {key: statistics.median(rates) for key, rates in self.rates.items()}
        for name in (OURS, MEMORY, SQL, FLOOR):
            if any((name, method) in median for method in self.methods):
                self._say_row(name, {m: f"{median[name, m]:,.0f}" for m in self.methods if (name, m) in median})
        for name in (MEMORY, SQL, FLOOR):
            ratios = {m: median[OURS, m] / median[name, m] for m in self.methods if median.get((name, m))}
            if ratios:
                self._say_row(f"ours / {name}", {m: f"{ratio:.2f}" for m, ratio in ratios.items()})

    def _say_row(self, name: str, cells: dict[str, str]) -> None:
        print(f"{name:<24}" + "".join(f"{cells.get(method, '-'):>10}" for method in self.methods))

    @property
    def methods(self) -> list[str]:
        return [str(method) for method in self.asked.methods.split(",")]


def describe(found: Measured) -> str:
    told = f"{found.rate:>9,.0f}/s  p50 {found.p50_ms:7.2f} ms  p99 {found.p99_ms:7.2f} ms  max {found.max_ms:7.1f} ms"
    told += f"  again {found.retransmissions}  lost {found.lost}"
    if found.behind_ms >= 1:
        told += f"  sent up to {found.behind_ms:.1f} ms late"
    return told + (f"  FLAWED: {found.flaw}" if found.flaw else "")


def own_octets(pid: int) -> int:
    """Anonymous memory in octets: without the code and the replica's pages, which all processes share."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Anonymous:"):
            return int(line.split()[1]) * 1024
    return 0


def start_peer(stack: ExitStack, bench: Bench, server: EmbeddedPostgres) -> list[Target]:
    """FreeRADIUS with what of it can be measured here; [] when it is not there."""
    asked = bench.asked
    if asked.no_peer:
        return []
    if freeradius.PROGRAM is None:
        print("FreeRADIUS is not installed (Debian: freeradius freeradius-postgresql): ours alone")
        return []
    queries = freeradius.find_queries()
    if queries is None:
        print("FreeRADIUS's SQL queries cannot be read by this user (freeradius-postgresql, as root): in memory only")
    else:
        with connect(server.dsn, name="bench") as connection:
            connection.autocommit = True
            connection.execute("create database freeradius")
        with connect(server.dsn_for("freeradius"), name="bench") as connection:
            freeradius.fill_database(connection, queries, asked.peer_users)
    conninfo = f"host={server.socket_folder} user=sms dbname=freeradius"
    found = stack.enter_context(
        freeradius.running(
            bench.folder / "freeradius",
            secret=crowd.SECRET,
            users=asked.peer_users,
            threads=asked.peer_threads,
            conninfo=conninfo if queries else None,
            queries=queries,
        )
    )
    targets = [Target(MEMORY, found.memory_port, 0, asked.peer_users)]
    if found.sql_port:
        targets.append(Target(SQL, found.sql_port, found.sql_accounting_port, asked.peer_users))
    return targets


def main(words: list[str]) -> None:
    asked = read_arguments(words)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # and what was started is stopped on the way
    with tempfile.TemporaryDirectory(prefix="sms-aaa-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        generator = SimulatorGenerator(crowd.SECRET) if asked.python else make_generator(folder, crowd.SECRET)
        print(f"load generator: {generator.name}, {asked.window} requests at a time")
        server = EmbeddedPostgres.start(folder / "postgres")
        stack.callback(server.stop)
        bench = Bench(asked, folder, generator)
        stack.callback(lambda: bench.daemon and bench.daemon.stop())
        ours = bench.serve_ours(server.dsn)
        targets = [ours, *start_peer(stack, bench, server)]
        if isinstance(generator, CGenerator):
            port = free_port()
            stack.enter_context(generator.floor(port, asked.workers))
            targets.append(Target(FLOOR, port, 0, asked.subscribers))
        for number in range(1, asked.rounds + 1):
            print(f"round {number}")
            for method in bench.methods:
                bench.run_round(targets, method)
        if "pap" in bench.methods:
            bench.say_latency(ours)
        bench.say_memory_and_settling()
        bench.say_ratios()


if __name__ == "__main__":
    main(sys.argv[1:])
