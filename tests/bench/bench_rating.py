"""The rater's way alone: deltas that wait in PostgreSQL, rated by the daemon's own loop in a process of its own.

`python tests/bench/bench_rating.py`. Each kind in turn, on a fresh database with fsync on: cycles are opened, N settled
deltas are put into usage_delta and the queue as the settler does it, then the loop runs until the queue is empty.

dense   all --deltas, four of an account one after the other; a shard's are one batch, up to 100,000 of them
sparse  each account once: what is known of it is read and written for one delta
crossing  of these deltas, so many per cent lie across an edge: in the first kind that of a cycle, then that of a slot
metered   of the services, so many per cent have no volume included: each of their deltas moves the ledger
tariff    plain: one component. slots: two components, one by day and one by night, and two buckets, of which the first
          is for the night. directions: a component for upload and one for download, and the same two buckets
workers   so many raters at once: each works at a shard at a time
stored    so many deltas and their rated usage are in the tables before

Compare figures of one run only: a machine's speed is another the next minute.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
import tomllib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parent.parent))

from effort import cpu_seconds, server_cpu_seconds
from make import make_desk, make_plan, make_usage

from sms_aaa.config import RatingSettings, Settings
from sms_aaa.db import usage as db_usage
from sms_aaa.db.engine import connect, join_by_key, widen_memory
from sms_aaa.db.partitions import create_ahead
from sms_aaa.db.reconcile import list_violations
from sms_aaa.db.schema import upgrade
from sms_aaa.flows.cycles import open_cycles
from sms_aaa.flows.provisioning.plans import add_plan
from sms_aaa.flows.shelf import PlanShelf
from sms_aaa.server.log import Log
from sms_aaa.server.postgres import EmbeddedPostgres
from sms_aaa.server.rater import Rater
from sms_aaa.server.worker import rater_names

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sms_aaa.db.engine import Connection
    from sms_aaa.db.usage import UsageDelta

HEAD = """
name = "{name}"
[policy]
[tariff]
currency = "EUR"
[[tariff.recurring]]
name = "monthly-fee"
amount = "29.90"
period = "month"
[[tariff.slot]]
name = "night"
from = "22:00"
to = "06:00"
"""
COMPONENTS = {
    "slots": """
[[tariff.usage]]
name = "day"
measure = "total"
slots = ["anytime"]
price = "0.50"
per = "GB"
[[tariff.usage]]
name = "night"
measure = "total"
slots = ["night"]
price = "0.20"
per = "GB"
""",
    "directions": """
[[tariff.usage]]
name = "up"
measure = "upload"
price = "0.50"
per = "GB"
[[tariff.usage]]
name = "down"
measure = "download"
price = "0.20"
per = "GB"
""",
}
BUCKETS = """
[[tariff.bucket]]
name = "night-data"
measure = "total"
amount = "{included}"
priority = 1
slots = ["night"]
[[tariff.bucket]]
name = "data"
measure = "total"
amount = "{included}"
priority = 2
"""

SETTLED_BATCH = 1000
DENSE = 4
NOW = datetime(2026, 11, 10, 12, tzinfo=UTC)
MIDNIGHT = datetime(2026, 10, 31, 23, tzinfo=UTC)  # of 1 November in Berlin
MORNING = timedelta(hours=6)
SECONDS_MAX = 230.0
GRACE_DAYS = 3650
"""Nothing is over yet, so the loop's housekeeping finds no cycle to close: that would be work of another kind."""


@dataclass(frozen=True, slots=True)
class Spent:
    """Processor seconds and WAL octets so far."""

    rater: float
    postgres: float
    wal: int


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--deltas", type=int, default=200_000, help="of each kind (default 200000)")
    parser.add_argument("--accounts", type=int, default=100_000, help="with a service each (default 100000)")
    parser.add_argument("--kinds", default="dense,sparse", help="in this order (default dense,sparse)")
    parser.add_argument("--crossing", type=float, default=2.0, help="per cent (default 2)")
    parser.add_argument("--metered", type=float, default=25.0, help="per cent (default 25)")
    parser.add_argument("--tariff", choices=("plain", "slots", "directions"), default="plain", help="(default plain)")
    parser.add_argument("--workers", type=int, default=1, help="(default 1)")
    parser.add_argument("--stored", type=int, default=0, help="(default 0)")
    parser.add_argument("--rounds", type=int, default=1, help="of all kinds (default 1)")
    parser.add_argument("--profile", metavar="FILE", help="cProfile of the rater, to be read with pstats")
    parser.add_argument("--prove", action="store_true", help="run the laws of `reconcile` at the end of each kind")
    return parser.parse_args()


def provision(connection: Connection, asked: argparse.Namespace) -> None:
    """Accounts, services and subscriptions with equal ids, 1 to --accounts."""
    desk = make_desk(connection)
    for name, included in (("included", "50 GB"), ("metered", "1 kB")):
        if asked.tariff == "plain":
            make_plan(desk, name=name, included=included)
        else:
            text = HEAD.format(name=name) + COMPONENTS[asked.tariff] + BUCKETS.format(included=included)
            add_plan(desk, tomllib.loads(text, parse_float=Decimal), default_currency="EUR")
    for statement in (
        """insert into subscriber (id, name) overriding system value
           select n, 'user' || n from generate_series(1, %(count)s) n""",
        """insert into account (id, subscriber_id, currency, zone, anchor_day) overriding system value
           select n, n, 'EUR', 'Europe/Berlin', 1 from generate_series(1, %(count)s) n""",
        """insert into service (id, subscriber_id, identity_kind, identity, state) overriding system value
           select n, n, 1, 'user' || n, 1 from generate_series(1, %(count)s) n""",
        "insert into assignment select n, n, tstzrange('2026-10-01', null) from generate_series(1, %(count)s) n",
        """insert into subscription (id, service_id, plan_version_id, during) overriding system value
           select n, n, case when n %% 1000 < %(metered)s then 2 else 1 end, tstzrange('2026-10-01', null)
           from generate_series(1, %(count)s) n""",
    ):
        connection.execute(statement, {"count": asked.accounts, "metered": asked.metered * 10})
    create_ahead(connection, NOW)
    connection.commit()
    connection.autocommit = True
    connection.execute("vacuum analyze")
    connection.autocommit = False


def open_all(connection: Connection, asked: argparse.Namespace, spent: Spent, folder: Path) -> None:
    shelf, opened, began = PlanShelf(), 0, time.perf_counter()
    cpu = time.process_time()
    while found := open_cycles(connection, shelf, now=NOW, limit=1000):
        connection.commit()
        opened += found
    connection.commit()
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    postgres = server_cpu_seconds(folder) - spent.postgres
    print(
        f"opened   {opened / seconds:8,.0f} cycles/s, microseconds of processor each: "
        f"rater {cpu * 1e6 / opened:.1f}, PostgreSQL {postgres * 1e6 / opened:.1f}"
    )


def count_of(asked: argparse.Namespace, kind: str) -> int:
    return int(asked.deltas if kind == "dense" else min(asked.deltas, asked.accounts))


def deltas_of(asked: argparse.Namespace, kind: str, day: int) -> Iterator[list[UsageDelta]]:
    """Settled batches. Each delta is the first of its session: what it is called does not matter to rating.

    Each kind has a day of its own: what came before those of an earlier kind would be late usage.
    """
    first = 1 + day * asked.deltas
    noon = MIDNIGHT + timedelta(days=day, hours=12)
    edge = MIDNIGHT + timedelta(days=day) + (MORNING if day else timedelta())
    per_account = DENSE if kind == "dense" else 1
    crossing = round(100 / asked.crossing) if asked.crossing else 0
    count = count_of(asked, kind)
    for start in range(0, count, SETTLED_BATCH):
        batch = []
        for number in range(start, min(start + SETTLED_BATCH, count)):
            step = number // per_account
            # A stride that is prime, so that neighbours in time are no neighbours in the tables.
            account = step * 7919 % asked.accounts + 1
            to_at = (edge if crossing and number % crossing == 0 else noon) + timedelta(microseconds=number)
            octets_in, octets_out = 1_000_000 + number % 997, 20_000_000 + number % 99_991
            batch.append(
                make_usage(first + number, account, account, at=to_at, octets_in=octets_in, octets_out=octets_out)
            )
        yield batch


def queue_up(connection: Connection, asked: argparse.Namespace, kind: str, day: int) -> None:
    taken = 0.0
    for batch in deltas_of(asked, kind, day):
        db_usage.insert_deltas(connection, batch)
        began = time.perf_counter()
        db_usage.insert_queue(connection, batch)
        taken += time.perf_counter() - began
        connection.commit()
    connection.autocommit = True
    connection.execute("vacuum analyze")
    connection.execute("checkpoint")
    connection.autocommit = False
    print(
        f"queued   {taken * 1e6 / count_of(asked, kind):8.2f} microseconds a delta in the settler, with its wait for "
        "PostgreSQL"
    )


class FakeChild:
    """What the loop needs of its process, without a supervisor."""

    def __init__(self, name: str) -> None:
        self.settings = Settings(rating=RatingSettings(close_grace_days=GRACE_DAYS))
        self.counters = [0] * 4096
        self.log = Log("rater", "warning")
        self.order = SimpleNamespace(name=name)
        self.state_folder = Path(tempfile.gettempdir())
        self.stopping = False
        signal.signal(signal.SIGTERM, self._stop)

    def _stop(self, *_: object) -> None:
        self.stopping = True

    def beat(self) -> None:
        """Nobody listens."""


def run_rater(dsn: str, name: str, profile: str | None) -> None:
    rater = Rater(FakeChild(name))  # type: ignore[arg-type] # the loop asks for no more of its process
    with connect(dsn, name="rater", repeatable=True) as connection:
        if profile is None:
            rater._rate_on(connection)
            return
        import cProfile

        with cProfile.Profile() as profiler:
            rater._rate_on(connection)
        profiler.dump_stats(profile)


def wal_octets(connection: Connection) -> int:
    row = connection.execute("select pg_current_wal_insert_lsn() - '0/0'").fetchone()
    connection.commit()
    assert row is not None
    return int(row[0])


def fork_rater(dsn: str, name: str, profile: str | None) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            run_rater(dsn, name, profile)
        finally:
            sys.stdout.flush()
            os._exit(0)
    return pid


_STORED = (
    """insert into usage_delta (session_id, seq, account_id, service_id, from_at, to_at, octets_in, octets_out, seconds,
         run, before_in, before_out, after_in, after_out, after_node, after_sequence, after_offset)
       select -n, 1, n %% %(accounts)s + 1, n %% %(accounts)s + 1, t.at - interval '5 minutes', t.at, 1000000, 20000000,
         300, 1, 0, 0, 1000000, 20000000, 'node1', 1, n
       from generate_series(%(after)s + 1, %(until)s) n
       cross join lateral (select %(now)s::timestamptz - n %% 2500000 * interval '1 second' as at) t""",
    """insert into rated_usage (account_id, cycle_id, subscription_id, component_id, session_id, seq, slice, generation,
         to_at, run_id, quantity, total_before, numerator)
       select n %% %(accounts)s + 1, 0, n %% %(accounts)s + 1, 1, -n, 1, 0, 1, t.at, 0, 21000000, 0, 0
       from generate_series(%(after)s + 1, %(until)s) n
       cross join lateral (select %(now)s::timestamptz - n %% 2500000 * interval '1 second' as at) t""",
)
STORED_AT_ONCE = 1_000_000


def store(connection: Connection, asked: argparse.Namespace) -> None:
    """Deltas of the four weeks before, with their rated usage: what the tables hold when a bench begins."""
    began, done = time.perf_counter(), 0
    while done < asked.stored:
        until = min(done + STORED_AT_ONCE, asked.stored)
        for statement in _STORED:
            connection.execute(statement, {"after": done, "until": until, "accounts": asked.accounts, "now": NOW})
        connection.commit()
        done = until
        print(f"stored   {done:,} deltas and their rated usage in {time.perf_counter() - began:.0f} s", flush=True)


def rate_all(connection: Connection, dsn: str, asked: argparse.Namespace, kind: str, folder: Path) -> None:
    last = connection.execute("select coalesce(max(id), 0) from rating_run").fetchone()
    connection.commit()
    runs = last[0] if last else 0
    pids = [fork_rater(dsn, name, asked.profile) for name in rater_names(asked.workers)]
    before = Spent(sum(map(cpu_seconds, pids)), server_cpu_seconds(folder), wal_octets(connection))
    began = time.perf_counter()
    while time.perf_counter() - began < SECONDS_MAX:
        time.sleep(0.02)
        found = connection.execute("select not exists (select from rating_queue)").fetchone()
        connection.commit()
        if found and found[0]:
            break
    else:
        raise SystemExit(f"{kind}: not rated within {SECONDS_MAX:.0f} s")
    # The raters' commits do not wait for the disk; this one does, and whatever was committed before is there with it.
    connection.execute("select pg_current_xact_id()")
    connection.commit()
    seconds = time.perf_counter() - began
    after = Spent(sum(map(cpu_seconds, pids)), server_cpu_seconds(folder), wal_octets(connection))
    for pid in pids:
        os.kill(pid, signal.SIGTERM)
        os.waitpid(pid, 0)
    row = connection.execute(
        "select count(*), count(distinct account_id) from rated_usage where run_id > %s", (runs,)
    ).fetchone()
    connection.commit()
    rows, accounts = row if row is not None else (0, 0)
    count = count_of(asked, kind)
    rater, postgres = (after.rater - before.rater) / count, (after.postgres - before.postgres) / count
    print(
        f"{kind:8} {count / seconds:8,.0f} deltas/s, microseconds of processor a delta: "
        f"rater {rater * 1e6:.1f}, PostgreSQL {postgres * 1e6:.1f}, together {(rater + postgres) * 1e6:.1f}; "
        f"WAL {(after.wal - before.wal) / count:,.0f} octets a delta; {rows / count:.2f} rated rows a delta, "
        f"{count / max(accounts, 1):.1f} deltas an account",
        flush=True,
    )


def prove(dsn: str) -> None:
    """Says which laws are broken. Sessions and days of these deltas were never made: laws about them do not count."""
    with connect(dsn, name="proof", statement_timeout_seconds=300) as connection:
        widen_memory(connection)
        broken = [law for law, rows in list_violations(connection) if rows]
    print(f"laws     broken: {[law for law in broken if not law.startswith(('a session', 'usage by'))]}", flush=True)


def main() -> None:
    asked = parse_args()
    with tempfile.TemporaryDirectory(prefix="rater-bench-") as work:
        folder = Path(work) / "postgres"
        server = EmbeddedPostgres.start(folder)
        try:
            upgrade(server.dsn)
            with connect(server.dsn, name="bench", statement_timeout_seconds=300) as connection:
                provision(connection, asked)
                join_by_key(connection)
                open_all(connection, asked, Spent(0, server_cpu_seconds(folder), 0), folder)
                if asked.stored:
                    store(connection, asked)
                for number, kind in enumerate(asked.kinds.split(",") * asked.rounds):
                    queue_up(connection, asked, kind, number)
                    rate_all(connection, server.dsn, asked, kind, folder)
                    if asked.prove:
                        prove(server.dsn)
        finally:
            server.stop()


if __name__ == "__main__":
    main()
