"""A year of history to measure with: sessions that took turns on a million addresses, and their usage.

`python tests/bench/fill_history.py --cluster FOLDER --sessions 20000000` (or --dsn of a migrated, empty database).

Session number n (from 0) is a formula, so that whoever measures also knows the right answer: it is `past()` here and
`PAST` in SQL. It had address n mod ADDRESSES after the session ADDRESSES before it, and left it before the next came.
Partitions are filled before they are attached, so that each index is built once and the log is not written twice.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv6Network
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parent.parent))

from make import make_desk, make_nas, make_plan

from sms_aaa.db.engine import connect
from sms_aaa.db.schema import upgrade
from sms_aaa.server.postgres import EmbeddedPostgres

if TYPE_CHECKING:
    from sms_aaa.db.engine import Connection

FIRST_SERVICE = 5_000_001
"""Far from those that other benches provision."""

MONTHS = 12
FAST = {"fsync": "off", "wal_level": "minimal", "max_wal_senders": "0", "max_wal_size": "8GB", "autovacuum": "off"}

PEOPLE = """
insert into subscriber (id, name) overriding system value
    select {first} + n, 'past' || lpad(n::text, 7, '0') from {numbers};
insert into account (id, subscriber_id, currency, zone, anchor_day) overriding system value
    select {first} + n, {first} + n, 'EUR', 'UTC', 1 from {numbers};
insert into service (id, subscriber_id, identity_kind, identity, state) overriding system value
    select {first} + n, {first} + n, 1, 'past' || lpad(n::text, 7, '0'), 1 from {numbers};
"""

# As _Fill.past() has it; a hash by multiplication spreads the lengths.
PAST = """
select n, n %% {addresses} as a, %(begin)s + n * interval '{step_us} microseconds' as started_at,
       60 + (n * 2654435761 %% 4294967296) * ({turn_seconds} - 120) / 4294967296 as seconds
from generate_series(%(first)s::bigint, %(last)s::bigint) n
"""

SESSIONS = """
insert into {table} (id, nas_id, nas_key, acct_session_id, life, state, service_id, account_id, username, token,
  started_at, updated_at, stopped_at, seconds, octets_in, octets_out, reading_at, reading_seconds, reading_in,
  reading_out, reading_gigawords, reading_node, reading_sequence, reading_offset, run, deltas, terminate_cause,
  received_at, framed_ip, framed_ipv6_prefix, delegated_ipv6_prefix, nas_ip, nas_identifier, nas_port, nas_port_id,
  nas_port_type, calling_station_id, estimated, version)
select n + 1, %(nas)s, '', lpad(to_hex(n), 8, '0'), 1, 2, s, s, 'past' || lpad((s - {first})::text, 7, '0'),
  decode(lpad(to_hex(n), 16, '0'), 'hex'), started_at, stopped_at, stopped_at, seconds, seconds * 1000, seconds * 9000,
  stopped_at, seconds, seconds * 1000, seconds * 9000, true, 'node1', n / 300000, n %% 300000 * 220, 1, 1, 1,
  stopped_at + interval '20 ms', '100.64.0.0'::inet + a,
  case when a %% 2 = 0 then ('2001:db9:' || to_hex(a / 65536) || ':' || to_hex(a %% 65536) || '::/64')::cidr end,
  case when a %% 2 = 0 then ('2001:db8:' || to_hex(a / 256) || ':' || to_hex(a %% 256 * 256) || '::/56')::cidr end,
  '192.0.2.1', 'past-bng', s %% 65536, 'ae0.' || s %% 4096 || ':' || s, 15,
  '02-00-00-' || upper(substr(lpad(to_hex(s - {first}), 6, '0'), 1, 2)) || '-'
  || upper(substr(lpad(to_hex(s - {first}), 6, '0'), 3, 2)) || '-'
  || upper(substr(lpad(to_hex(s - {first}), 6, '0'), 5, 2)), false, 3
from (select p.*, started_at + seconds * interval '1 second' as stopped_at, {first} + n * 7 %% {services} as s
      from ({past}) p) q
where stopped_at >= %(from)s and stopped_at < %(to)s
"""

DELTAS = """
insert into {table} (session_id, seq, account_id, service_id, from_at, to_at, octets_in, octets_out, seconds, run,
  before_in, before_out, after_in, after_out, before_node, before_sequence, before_offset, after_node, after_sequence,
  after_offset)
select id, 1, account_id, service_id, started_at, stopped_at, octets_in, octets_out, seconds, 1, 0, 0, octets_in,
  octets_out, reading_node, reading_sequence, reading_offset, reading_node, reading_sequence, reading_offset
from {sessions}
"""


# Every tenth address is behind a NAT: 126 of them share an outside address, each with 512 ports of it.
BLOCKS = """
insert into {table} (session_id, address, port_from, port_to, protocol, from_at, node, sequence, record_offset)
select id, '198.18.0.0'::inet + i / 126, 1024 + i % 126 * 512, 1535 + i % 126 * 512, 0, started_at, reading_node,
       reading_sequence, reading_offset
from (select *, (framed_ip - '100.64.0.0') / 10 as i from session_history
      where started_at >= '{first}' and started_at < '{end}' and (framed_ip - '100.64.0.0') % 10 = 1) s
"""


@dataclass(frozen=True, slots=True)
class Past:
    """One session of the year, by its number."""

    number: int
    framed_ip: IPv4Address
    delegated: IPv6Network | None
    started_at: datetime
    stopped_at: datetime
    username: str
    outside: tuple[IPv4Address, int] | None
    """Behind a NAT: the outside address, and the first of 512 ports."""


@dataclass(frozen=True, slots=True)
class Year:
    """How many sessions, on how many addresses, since when."""

    sessions: int
    addresses: int
    begin: datetime
    step: timedelta
    """From the start of a session to that of the next."""

    services: int

    @property
    def turn_seconds(self) -> int:
        """How long an address is one session's."""
        return int(self.step.total_seconds() * self.addresses)

    def past(self, n: int) -> Past:
        a = n % self.addresses
        started_at = self.begin + n * self.step
        seconds = 60 + n * 2654435761 % 4294967296 * (self.turn_seconds - 120) // 4294967296
        delegated = IPv6Network(f"2001:db8:{a // 256:x}:{a % 256 * 256:x}::/56") if a % 2 == 0 else None
        username = f"past{n * 7 % self.services:07d}"
        address = IPv4Address("100.64.0.0") + a
        i = a // 10
        outside = (IPv4Address("198.18.0.0") + i // 126, 1024 + i % 126 * 512) if a % 10 == 1 else None
        return Past(n, address, delegated, started_at, started_at + timedelta(seconds=seconds), username, outside)


def year_of(sessions: int, addresses: int, services: int, now: datetime) -> Year:
    """The last start is a turn before `now`, so that all have ended by then."""
    month = now.year * 12 + now.month - 1 - MONTHS
    begin = datetime(month // 12, month % 12 + 1, 1, tzinfo=UTC)
    step = timedelta(microseconds=(now - begin) // timedelta(microseconds=1) // (sessions + addresses))
    return Year(sessions, addresses, begin, step, services)


def read_year(connection: Connection) -> Year:
    """What a database was filled with."""
    row = connection.execute("select sessions, addresses, begin, step, services from bench_year").fetchone()
    assert row is not None
    return Year(*row)


def _months(year: Year) -> list[tuple[datetime, datetime]]:
    count = year.begin.year * 12 + year.begin.month - 1
    firsts = [datetime(m // 12, m % 12 + 1, 1, tzinfo=UTC) for m in range(count, count + MONTHS + 2)]
    return list(pairwise(firsts))


def _fill_month(connection: Connection, year: Year, nas_id: int, first: datetime, end: datetime) -> int:
    turn = timedelta(seconds=year.turn_seconds)
    numbers = {
        "first": max(0, (first - turn - year.begin) // year.step),
        "last": min(year.sessions - 1, (end - year.begin) // year.step),
    }
    if numbers["first"] > numbers["last"]:
        return 0
    past = PAST.format(
        addresses=year.addresses, step_us=year.step // timedelta(microseconds=1), turn_seconds=year.turn_seconds
    )
    names = {parent: _detached(connection, parent, first) for parent in ("session_history", "usage_delta")}
    statement = SESSIONS.format(table=names["session_history"], first=FIRST_SERVICE, services=year.services, past=past)
    values = {**numbers, "begin": year.begin, "from": first, "to": end, "nas": nas_id}
    count = connection.execute(statement, values).rowcount
    connection.execute(DELTAS.format(table=names["usage_delta"], sessions=names["session_history"]))
    for parent, name in names.items():
        _attach(connection, parent, name, first, end)
    return count


def _fill_blocks(connection: Connection, first: datetime, end: datetime) -> int:
    name = _detached(connection, "port_block", first)
    count = connection.execute(BLOCKS.format(table=name, first=first, end=end)).rowcount
    _attach(connection, "port_block", name, first, end)
    return count


def _detached(connection: Connection, parent: str, first: datetime) -> str:
    """A month without indexes; create_ahead may have made it, and it is empty."""
    name = f"{parent}_{first:%Y%m}"
    connection.execute(f"drop table if exists {name}")
    connection.execute(f"create table {name} (like {parent} including defaults including constraints)")
    return name


def _attach(connection: Connection, parent: str, name: str, first: datetime, end: datetime) -> None:
    connection.execute(f"alter table {parent} attach partition {name} for values from ('{first}') to ('{end}')")
    connection.commit()


def fill(connection: Connection, year: Year) -> None:
    """Commits by the month; says how far it is."""
    for setting in ("statement_timeout = 0", "maintenance_work_mem = '1GB'", "max_parallel_maintenance_workers = 0"):
        connection.execute(f"set {setting}")
    desk = make_desk(connection)
    nas_id = make_nas(desk, name="past", prefix="192.0.2.1")
    make_plan(desk, name="past-100")
    connection.execute("set session_replication_role = replica")
    connection.execute(PEOPLE.format(first=FIRST_SERVICE, numbers=f"generate_series(0, {year.services - 1}) n"))
    connection.commit()
    began = time.perf_counter()
    for first, end in _months(year):
        count = _fill_month(connection, year, nas_id, first, end)
        print(f"{first:%Y-%m}: {count:,} sessions, {time.perf_counter() - began:.0f} s", flush=True)
    for first, end in _months(year):
        print(f"{first:%Y-%m}: {_fill_blocks(connection, first, end):,} port blocks", flush=True)
    connection.execute(
        "create table bench_year (sessions int8, addresses int8, begin timestamptz, step interval, services int8)"
    )
    connection.execute(
        "insert into bench_year values (%s, %s, %s, %s, %s)",
        (year.sessions, year.addresses, year.begin, year.step, year.services),
    )
    connection.execute("select setval(pg_get_serial_sequence('session', 'id'), %s)", (year.sessions + 1,))
    connection.execute("update session_boundary set before = (select max(stopped_at) from session_history)")
    connection.commit()
    connection.autocommit = True
    connection.execute("vacuum analyze")


def read_arguments(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--cluster", type=Path, help="folder of a PostgreSQL that is made, and left stopped")
    where.add_argument("--dsn", help="an empty, migrated database")
    parser.add_argument("--sessions", type=int, default=20_000_000, help="default 20,000,000")
    parser.add_argument("--addresses", type=int, default=1_000_000, help="default 1,000,000")
    parser.add_argument("--services", type=int, default=200_000, help="whose they are, default 200,000")
    return parser.parse_args(words)


def main(words: list[str]) -> None:
    arguments = read_arguments(words)
    year = year_of(arguments.sessions, arguments.addresses, arguments.services, datetime.now(UTC))
    if arguments.dsn is not None:
        with connect(arguments.dsn, name="fill") as connection:
            fill(connection, year)
        return
    server = EmbeddedPostgres.start(arguments.cluster, options=FAST)
    try:
        upgrade(server.dsn)
        with connect(server.dsn, name="fill") as connection:
            fill(connection, year)
    finally:
        server.stop()


if __name__ == "__main__":
    main(sys.argv[1:])
