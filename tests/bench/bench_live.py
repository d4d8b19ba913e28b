"""How soon usage is counted and rated, through the daemon: records at a fixed rate, each delta looked up afterwards.

`python tests/bench/bench_live.py [--rate 5000] [--seconds 40] [--users 20000] [--tariff plain|full]`

Each of the users has a session, whose interims come in turn, without Event-Timestamp: so a delta ends when the
daemon received its record. PostgreSQL keeps when each transaction was committed (track_commit_timestamp), so that of
each delta

counted  is from its record's arrival to the commit with the delta in it,
rated    is from there to the commit with its rated usage, totals, buckets and entries in it.

`plain` is a price for the total; `full` prices up and down, by night and by day, behind two buckets an account.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
import tempfile
import time
import tomllib
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parent.parent))

import crowd
from daemon import Daemon
from effort import cpu_seconds, server_cpu_seconds

from sms_aaa.db.engine import connect
from sms_aaa.db.schema import upgrade
from sms_aaa.flows.provisioning.plans import add_plan
from sms_aaa.radius import dictionary as d
from sms_aaa.radius.digest import SecretDigests
from sms_aaa.radius.packet import attribute, integer
from sms_aaa.radius.request import accounting_request
from sms_aaa.server.postgres import EmbeddedPostgres

if TYPE_CHECKING:
    from sms_aaa.db.engine import Connection

SOCKETS = 16
BURST_SECONDS = 0.005
CATCH_UP_SECONDS_MAX = 60.0
INTERIM = 3
GOAL_COUNTED_SECONDS, GOAL_RATED_SECONDS = 0.5, 5.0

FULL = """
name = "full"
[policy]
[tariff]
currency = "EUR"
[[tariff.slot]]
name = "night"
from = "22:00"
to = "06:00"
[[tariff.usage]]
name = "down"
measure = "download"
per = "GB"
tiers = [{ up_to = "1 GB", price = "0.50" }, { price = "0.25" }]
slots = ["anytime"]
[[tariff.usage]]
name = "down-night"
measure = "download"
per = "GB"
price = "0.10"
slots = ["night"]
[[tariff.usage]]
name = "up"
measure = "upload"
per = "GB"
price = "0.20"
"""

GRANT = """
insert into bucket (account_id, name, kind, measure, terms, priority, from_at, granted)
select a.id, t.name, 'allowance', t.measure,
       jsonb_build_object('name', t.name, 'measure', t.measure, 'amount', t.amount), t.priority,
       now() - interval '1 day', t.amount
from account a,
  (values ('data', 'total', 30000000, 2), ('bonus', 'download', 5000000, 1)) t(name, measure, amount, priority)
"""

LAGS = """
with lag as (
    select extract(epoch from pg_xact_commit_timestamp(d.xmin) - d.to_at) as counted,
           extract(epoch from r.at - pg_xact_commit_timestamp(d.xmin)) as rated
    from usage_delta d
    left join (select session_id, seq, min(pg_xact_commit_timestamp(xmin)) as at from rated_usage group by 1, 2) r
      using (session_id, seq))
select count(*), count(rated), {}
from lag
"""
BY_TIME = """
select extract(epoch from d.to_at - (select min(to_at) from usage_delta))::int / 5 * 5,
       percentile_disc(0.99) within group (order by extract(epoch from pg_xact_commit_timestamp(d.xmin) - d.to_at))
from usage_delta d group by 1 order by 1
"""
PERCENTILES = ", ".join(
    f"percentile_disc({part}) within group (order by {name})"
    for name in ("counted", "rated")
    for part in (0.5, 0.99, 1)
)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=int, default=5_000, help="records a second (default 5000)")
    parser.add_argument("--seconds", type=int, default=40, help="(default 40)")
    parser.add_argument("--users", type=int, default=20_000, help="with a session each (default 20000)")
    parser.add_argument("--tariff", choices=("plain", "full"), default="plain")
    return parser.parse_args()


class Sender:
    """Interims of all sessions in turn; what is answered is only counted."""

    def __init__(self, port: int, asked: argparse.Namespace) -> None:
        self._asked = asked
        self._digests = SecretDigests(crowd.SECRET)
        self._sockets = []
        for _ in range(SOCKETS):
            one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            one.connect(("127.0.0.1", port))
            one.setblocking(False)
            self._sockets.append(one)
        self.sent = self.answered = 0

    def run(self) -> float:
        """The seconds that the generator was behind at worst."""
        began, total, behind = time.monotonic(), self._asked.rate * self._asked.seconds, 0.0
        while self.sent < total:
            due = min(int((time.monotonic() - began) * self._asked.rate), total)
            behind = max(behind, (due - self.sent) / self._asked.rate)
            while self.sent < due:
                self._send(self.sent)
                self.sent += 1
            self._drain()
            time.sleep(BURST_SECONDS)
        time.sleep(1)
        self._drain()
        return behind

    def _send(self, number: int) -> None:
        told, user = divmod(number, self._asked.users)
        parts = (
            attribute(d.USER_NAME, b"user%07d" % user),
            attribute(d.NAS_IP_ADDRESS, b"\x7f\0\0\1"),
            attribute(d.ACCT_STATUS_TYPE, integer(INTERIM)),
            attribute(d.ACCT_SESSION_ID, b"live%08x" % user),
            attribute(d.ACCT_SESSION_TIME, integer(60 + told * 4)),
            attribute(d.ACCT_INPUT_OCTETS, integer(100_000 * (told + 1))),
            attribute(d.ACCT_OUTPUT_OCTETS, integer(1_000_003 * (told + 1))),
        )
        datagram = accounting_request(number // SOCKETS % 256, b"".join(parts), self._digests)
        self._sockets[number % SOCKETS].send(datagram)

    def _drain(self) -> None:
        for one in self._sockets:
            try:
                while one.recv(4096):
                    self.answered += 1
            except BlockingIOError:
                pass


def wait_until_rated(connection: Connection) -> float:
    began = time.monotonic()
    while time.monotonic() - began < CATCH_UP_SECONDS_MAX:
        [(waits,)] = connection.execute("select exists (select from rating_queue)").fetchall()
        connection.commit()
        if not waits and time.monotonic() - began > 2:
            break
        time.sleep(0.1)
    return time.monotonic() - began


def prepare(connection: Connection, daemon: Daemon, asked: argparse.Namespace) -> None:
    with daemon.desk() as desk:
        crowd.provision(desk, desk.vault, asked.users)
        if asked.tariff == "full":
            add_plan(desk, tomllib.loads(FULL, parse_float=Decimal), default_currency="EUR")
            desk.connection.execute("update subscription set plan_version_id = (select max(id) from plan_version)")
            desk.connection.execute(GRANT)


def measure(folder: Path, asked: argparse.Namespace) -> None:
    server = EmbeddedPostgres.start(folder / "postgres", options={"track_commit_timestamp": "on"})
    try:
        upgrade(server.dsn)
        daemon = Daemon(folder / "node", dsn=server.dsn)
        daemon.folder.mkdir()
        with connect(server.dsn, name="bench", statement_timeout_seconds=200) as connection:
            prepare(connection, daemon, asked)
            daemon.start()
            try:
                crowd.open_cycles(connection)
                connection.commit()
                names = [name for name in ("settler", "rater") if daemon._pid_of(name)]
                spent = {name: -cpu_seconds(daemon.pid_of(name)) for name in names}
                postgres = -server_cpu_seconds(folder / "postgres")
                sender = Sender(daemon.accounting_port, asked)
                behind = sender.run()
                late = wait_until_rated(connection)
                postgres += server_cpu_seconds(folder / "postgres")
                for name in spent:
                    spent[name] += cpu_seconds(daemon.pid_of(name))
                tell(connection, sender, behind, late)
                tell_by_time(connection)
                print(f"  processor seconds: PostgreSQL {postgres:.1f}, {spent}")
            finally:
                daemon.stop()
    finally:
        server.stop()


def tell(connection: Connection, sender: Sender, behind: float, late: float) -> None:
    row = connection.execute(LAGS.format(PERCENTILES)).fetchone()
    assert row is not None
    deltas, rated, *lags = row
    print(f"sent {sender.sent}, answered {sender.answered}, generator at worst {behind * 1000:.0f} ms behind")
    print(f"deltas {deltas}, rated {rated}; the queue was empty {late:.1f} s after the last record")
    for name, goal, (p50, p99, most) in (
        ("counted", GOAL_COUNTED_SECONDS, lags[:3]),
        ("rated", GOAL_RATED_SECONDS, lags[3:]),
    ):
        verdict = "holds" if (p99 if name == "counted" else most) <= goal else "DOES NOT HOLD"
        print(f"  {name:8} p50 {p50:.3f} s, p99 {p99:.3f} s, most {most:.3f} s; goal {goal} s: {verdict}")


def tell_by_time(connection: Connection) -> None:
    """Where a second was lost, if one was."""
    rows = connection.execute(BY_TIME).fetchall()
    print("  counted p99 from second on: " + ", ".join(f"{second}: {p99:.2f}" for second, p99 in rows))


def main() -> None:
    asked = parse_args()
    with tempfile.TemporaryDirectory(prefix="live-bench-") as work:
        print(
            f"{asked.tariff}: {asked.rate} records/s for {asked.seconds} s, {asked.users} sessions, "
            f"on {os.cpu_count()} cores",
            flush=True,
        )
        measure(Path(work), asked)


if __name__ == "__main__":
    main()
