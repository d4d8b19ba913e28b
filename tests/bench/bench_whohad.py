"""Who had an address, asked of a year of history: how long an answer takes, whether it is right, and by which indexes.

`python tests/bench/bench_whohad.py --dsn DSN` of a database that fill_history.py filled; `--cluster FOLDER` starts the
PostgreSQL there first, with nothing of it in memory, and stops it; without both a small year is made for the run. Asked
at random: IPv4 addresses, IPv6 addresses in a delegated prefix, ports of an address that a NAT shares, IPv4 prefixes of
8 addresses, and addresses nobody had then.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parent.parent))

import fill_history
from fill_history import read_year

from sms_aaa.db.engine import connect
from sms_aaa.flows.whohad import find_holders
from sms_aaa.server.postgres import EmbeddedPostgres

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from fill_history import Past, Year

    from sms_aaa.db.engine import Connection

SMALL_YEAR = ("--sessions", "200000", "--addresses", "10000", "--services", "5000")
LARGE = 1_000_000
"""Of fewer sessions a month may be read whole, and rightly."""

KINDS = ("ipv4", "ipv6", "port", "prefix", "nobody")
Question = tuple[IPv4Network | IPv6Network, int | None, "datetime", "Past | None"]


def questions(year: Year, kind: str, count: int, seed: int) -> Iterator[Question]:
    """What is asked, with which port, when, and who is to be found."""
    rng = random.Random(seed)
    for _ in range(count):
        n = rng.randrange(year.sessions - year.addresses)
        past = year.past(n & ~1 if kind == "ipv6" else n // 10 * 10 + 1 if kind == "port" else n)
        at = past.started_at + (past.stopped_at - past.started_at) * rng.random()
        if kind == "ipv6":
            assert past.delegated is not None
            yield ip_network(past.delegated[rng.randrange(2**72)]), None, at, past
        elif kind == "port":
            assert past.outside is not None
            yield ip_network(past.outside[0]), past.outside[1] + rng.randrange(512), at, past
        elif kind == "prefix":
            yield IPv4Network((int(past.framed_ip) & ~7, 29)), None, at, past
        elif kind == "nobody":
            gap = year.past(past.number + year.addresses).started_at - past.stopped_at
            yield ip_network(past.framed_ip), None, past.stopped_at + gap * rng.uniform(0.01, 0.99), None
        else:
            yield ip_network(past.framed_ip), None, at, past


def ask(connection: Connection, year: Year, kind: str, count: int, seed: int) -> list[float]:
    """Milliseconds of each answer, the slowest last; every answer is checked against the formula."""
    taken = []
    for asked, port, at, past in questions(year, kind, count, seed):
        began = time.perf_counter()
        answers = find_holders(connection, asked, port, at, tolerance_seconds=0)
        taken.append((time.perf_counter() - began) * 1000)
        held = {one.holder.session_id for one in answers.held}
        if past is not None:
            assert past.number + 1 in held, (asked, port, at, past, answers)
            assert kind == "prefix" or {one.holder.username for one in answers.held} == {past.username}
        else:
            assert not held, (asked, at, answers)
            assert answers.before is not None
    return sorted(taken)


def scans(dsn: str) -> tuple[int, int]:
    """How often the months of the history and of port blocks were read whole, and by an index, since they were made."""
    with connect(dsn, name="whohad") as connection:
        row = connection.execute(
            """select sum(seq_scan)::bigint, sum(idx_scan)::bigint from pg_stat_user_tables
               where relname ~ '^(session_history|port_block)_[0-9]{6}$'"""
        ).fetchone()
    assert row is not None
    return int(row[0]), int(row[1])


def report(connection: Connection, count: int, title: str) -> None:
    year = read_year(connection)
    print(f"{title}: {year.sessions:,} sessions on {year.addresses:,} addresses")
    for kind in KINDS:
        taken = ask(connection, year, kind, count, seed=len(title))
        p50, p99 = taken[count // 2], taken[count * 99 // 100]
        print(f"  {kind:7} {count:,} asked: p50 {p50:.1f} ms, p99 {p99:.1f} ms, most {taken[-1]:.1f} ms", flush=True)


def forget(folder: Path) -> None:
    """Puts the files under a folder out of the kernel's cache."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read_arguments(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--cluster", type=Path, help="folder of a PostgreSQL that fill_history.py filled")
    where.add_argument("--dsn", help="a database that it filled")
    parser.add_argument("--count", type=int, default=1000, help="questions of each kind (default 1,000)")
    return parser.parse_args(words)


def measure(dsn: str, count: int, *, was_started: bool) -> None:
    whole, by_index = scans(dsn)
    with connect(dsn, name="whohad") as connection:
        if was_started:
            report(connection, count, "just started, nothing of it in memory")
        report(connection, count, "warm")
        sessions = read_year(connection).sessions
    whole, by_index = (after - before for after, before in zip(scans(dsn), (whole, by_index), strict=True))
    print(f"  the months were read {by_index:,} times by an index, {whole} times whole")
    assert whole == 0 or sessions < LARGE, "an index is missing, or the planner does not see it"


def main(words: list[str]) -> None:
    arguments = read_arguments(words)
    if arguments.dsn is not None:
        measure(arguments.dsn, arguments.count, was_started=False)
        return
    with tempfile.TemporaryDirectory(prefix="sms-aaa-bench-") as made:
        cluster = arguments.cluster
        if cluster is None:
            cluster = Path(made) / "postgres"
            fill_history.main(["--cluster", str(cluster), *SMALL_YEAR])
        forget(cluster)
        server = EmbeddedPostgres.start(cluster)
        try:
            measure(server.dsn, arguments.count, was_started=True)
        finally:
            server.stop()


if __name__ == "__main__":
    main(sys.argv[1:])
