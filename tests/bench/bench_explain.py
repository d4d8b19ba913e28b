"""`explain` of a subscriber's cycle, asked of a database with many deltas: how long an answer takes; that it adds up.

`python tests/bench/bench_explain.py --cluster FOLDER --deltas 20000000` fills the PostgreSQL there if it is new, and
asks; again with the same folder it only asks, `--cold` with nothing of it in the kernel's cache. Without a folder a
small history is made for the run. An account has a session of 100 deltas of 5 minutes in the one month that there is.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parent.parent))

from bench_whohad import forget
from fill_history import FAST
from make import make_desk, make_nas, make_plan

from sms_aaa.db.engine import connect
from sms_aaa.db.partitions import create_ahead
from sms_aaa.db.schema import upgrade
from sms_aaa.flows.explaining import explain, find_usage
from sms_aaa.flows.shelf import PlanShelf
from sms_aaa.server.postgres import EmbeddedPostgres

if TYPE_CHECKING:
    from sms_aaa.db.engine import Connection

DELTAS_A_SESSION = 100
OCTETS = 10_000_000
SESSIONS_AT_ONCE = 20_000

PEOPLE = """
insert into subscriber (id, name) overriding system value select n, 'user' || n from generate_series(1, {accounts}) n;
insert into account (id, subscriber_id, currency, zone, anchor_day) overriding system value
    select n, n, 'EUR', 'UTC', 1 from generate_series(1, {accounts}) n;
insert into service (id, subscriber_id, identity_kind, identity, state) overriding system value
    select n, n, 1, 'user' || n, 1 from generate_series(1, {accounts}) n;
insert into assignment (service_id, account_id, during)
    select n, n, tstzrange('{begin}', null) from generate_series(1, {accounts}) n;
insert into subscription (id, service_id, plan_version_id, during) overriding system value
    select n, n, 1, tstzrange('{begin}', null) from generate_series(1, {accounts}) n;
insert into cycle (id, account_id, starts_at, ends_at) overriding system value
    select n, n, '{begin}', '{end}' from generate_series(1, {accounts}) n;
insert into rating_run (kind, program, started_at, deltas) values ('bulk', 'bench', now(), 0);
insert into usage_total (account_id, cycle_id, subscription_id, component_id, quantity, numerator, posted_minor)
    select n, n, n, (select id from component where name = 'data'), {quantity}, 0, 0
    from generate_series(1, {accounts}) n;
"""

HISTORY = """
insert into session_history (id, nas_id, nas_key, acct_session_id, life, state, service_id, account_id, username,
  started_at, updated_at, stopped_at, seconds, octets_in, octets_out, reading_at, reading_seconds, reading_in,
  reading_out, reading_gigawords, reading_node, reading_sequence, reading_offset, run, deltas, received_at, version,
  estimated)
select n, 1, '', 's' || n, 1, 2, n, n, 'user' || n, '{begin}', '{begin}', '{begin}'::timestamptz + interval '9 hours',
  0, 0, 0, '{begin}', 0, 0, 0, false, '', 0, 0, 1, {each}, '{begin}', 1, false
from generate_series({first}, {last}) n;
insert into usage_delta (session_id, seq, account_id, service_id, from_at, to_at, octets_in, octets_out, seconds, run,
  before_in, before_out, after_in, after_out, before_node, before_sequence, before_offset, after_node, after_sequence,
  after_offset)
select n, q, n, n, '{begin}'::timestamptz + (q - 1) * interval '5 minutes',
  '{begin}'::timestamptz + q * interval '5 minutes', 0, {octets}, 300, 1, 0, 0, 0, {octets}, 'node1', 1, 64, 'node1', 1,
  64
from generate_series({first}, {last}) n, generate_series(1, {each}) q;
insert into rated_usage (account_id, cycle_id, subscription_id, component_id, session_id, seq, slice, generation, to_at,
  run_id, quantity, total_before, numerator)
select n, n, n, (select id from component where name = 'data'), n, q, 0, 1,
  '{begin}'::timestamptz + q * interval '5 minutes', 1, {octets}, (q - 1) * {octets}, 0
from generate_series({first}, {last}) n, generate_series(1, {each}) q;
"""


def begin_of(now: datetime) -> datetime:
    return now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def fill(connection: Connection, deltas: int, now: datetime) -> None:
    """All within what the plan includes, so that every price is 0 and the sums are what is to be found."""
    accounts = deltas // DELTAS_A_SESSION
    begin = begin_of(now)
    words = {"begin": begin.isoformat(), "end": begin_of(begin + timedelta(days=32)).isoformat(), "octets": OCTETS,
             "each": DELTAS_A_SESSION, "accounts": accounts, "quantity": OCTETS * DELTAS_A_SESSION}  # fmt: skip
    with connection.transaction():
        desk = make_desk(connection)
        make_nas(desk)
        make_plan(desk)
        create_ahead(connection, begin)
        connection.execute("set local session_replication_role = replica")
        connection.execute(PEOPLE.format(**words))
    for first in range(1, accounts + 1, SESSIONS_AT_ONCE):
        last = min(first + SESSIONS_AT_ONCE - 1, accounts)
        with connection.transaction():
            connection.execute("set local session_replication_role = replica")
            connection.execute(HISTORY.format(first=first, last=last, **words))
        print(f"  {last * DELTAS_A_SESSION:,} deltas", flush=True)
    connection.execute("vacuum analyze")


def ask(connection: Connection, count: int, seed: int) -> list[float]:
    """Milliseconds of each answer, in ascending order; each is whole and adds up."""
    rng = random.Random(seed)
    accounts = int(connection.execute("select count(*) from account").fetchone()[0])
    [(at,)] = connection.execute("select starts_at + interval '1 hour' from cycle limit 1").fetchall()
    taken = []
    for _ in range(count):
        account_id = rng.randint(1, accounts)
        began = time.perf_counter()
        usage = find_usage(connection, PlanShelf(), account_id, at)
        assert usage is not None
        told = explain(connection, usage, component=None, session_id=None, limit=DELTAS_A_SESSION)
        taken.append((time.perf_counter() - began) * 1000)
        assert told.is_whole
        assert told.adds_up
        assert sum(len(line.slices) for line in told.lines) == DELTAS_A_SESSION
        assert not told.unrated
    return sorted(taken)


def main(words: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cluster", metavar="FOLDER", help="of PostgreSQL, filled if it is new")
    parser.add_argument("--deltas", type=int, default=500_000, help="to fill it with (default 500,000)")
    parser.add_argument("--count", type=int, default=200, help="so many cycles are explained (default 200)")
    parser.add_argument("--cold", action="store_true", help="with nothing of it in memory")
    asked = parser.parse_args(words)
    with tempfile.TemporaryDirectory(prefix="sms-aaa-explain-") as temporary:
        folder = Path(asked.cluster or temporary) / "postgres"
        is_new = not folder.exists()
        if asked.cold and not is_new:
            forget(folder)
        server = EmbeddedPostgres.start(folder, options=FAST)
        try:
            if is_new:
                upgrade(server.dsn)
            with connect(server.dsn, name="explain", statement_timeout_seconds=3600) as connection:
                connection.autocommit = True
                if is_new:
                    fill(connection, asked.deltas, datetime.now(UTC))
                deltas = connection.execute("select sum(deltas) from session_history").fetchone()[0]
                taken = ask(connection, asked.count, seed=asked.count)
                size = connection.execute("select pg_size_pretty(pg_database_size(current_database()))").fetchone()[0]
            p50, p99 = taken[len(taken) // 2], taken[len(taken) * 99 // 100]
            print(f"{deltas:,} deltas, {size}: {len(taken)} cycles of {DELTAS_A_SESSION} deltas explained: "
                  f"p50 {p50:.1f} ms, p99 {p99:.1f} ms, most {taken[-1]:.1f} ms")  # fmt: skip
        finally:
            server.stop()


if __name__ == "__main__":
    main(sys.argv[1:])
