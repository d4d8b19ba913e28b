"""`kill -9` of the rater at random moments; then the books are held against those of a run that nobody disturbed:

    python tests/campaigns/rater_kills.py --kills 200 --seed 7

Two databases get the same subscribers, on a tariff with a slot by night, two components and two buckets each, whose
usage crosses slots and the edge of a cycle. In one a rater works in peace, over all deltas in their order. In the other
the deltas come portion by portion in any order, so that groups are rated again as well, and after each portion the
rater is killed somewhere in its work: before, within or after a transaction, be it of rating, of re-rating or of its
housekeeping. Rated usage, totals, buckets and ledger must come out the same, and reconcile must find nothing.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
import tomllib
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from psycopg import OperationalError

sys.path.insert(0, str(Path(__file__).parent.parent))

from daemon import wait_until
from make import make_desk, make_subscriber, make_usage
from rater_process import Node

from sms_aaa.db.engine import connect
from sms_aaa.db.partitions import create_ahead
from sms_aaa.db.schema import upgrade
from sms_aaa.db.usage import insert_deltas, insert_queue
from sms_aaa.flows.provisioning.plans import add_plan
from sms_aaa.flows.reconciling import reconcile
from sms_aaa.flows.shelf import PlanShelf
from sms_aaa.server.postgres import EmbeddedPostgres

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sms_aaa.db.engine import Connection
    from sms_aaa.db.usage import UsageDelta

ACCOUNTS = 16
WORK_SECONDS_MAX = 0.4
RATE_SECONDS_MAX = 300
STRADDLING = 25  # every so-manieth delta lies over midnight, where a cycle ends too, or over the slot's end at six

PLAN = """
name = "metered"
[policy]
[tariff]
currency = "EUR"
[[tariff.slot]]
name = "night"
from = "22:00"
to = "06:00"
[[tariff.usage]]
name = "up"
measure = "upload"
per = "GB"
tiers = [{ up_to = "1 GB", price = "0.30" }, { price = "0.10" }]
[[tariff.usage]]
name = "down-night"
measure = "download"
slots = ["night"]
price = "0.07"
per = "GB"
[[tariff.usage]]
name = "down-day"
measure = "download"
slots = ["anytime"]
included = "100 MB"
price = "0.50"
per = "GB"
"""

GRANT = """
insert into bucket (account_id, name, kind, measure, terms, priority, from_at, created_at, granted)
select a.id, w.name, 'top-up', 'total', w.terms || jsonb_build_object('name', w.name, 'measure', 'total',
       'amount', %(octets)s::bigint), w.priority, %(begins)s, %(begins)s, %(octets)s
from account a
cross join (values ('by-night', 1, '{"slots": ["night"]}'::jsonb), ('anytime', 2, '{"increment": 1000}'))
  w(name, priority, terms)
order by a.id, w.priority
"""
ENTER = "insert into bucket_entry (bucket_id, kind, quantity) select id, 'grant', granted from bucket"

BOOKS = {
    "rated usage": """
        select r.account_id, r.subscription_id, c.starts_at, k.name, r.session_id, r.seq, r.slice, r.quantity,
               r.covered, r.uncovered, r.total_before, r.numerator, r.uses
        from rated_now r join cycle c on c.id = r.cycle_id join component k on k.id = r.component_id
        order by 5, 6, 4, 7""",
    "totals": """
        select t.account_id, t.subscription_id, c.starts_at, k.name, t.quantity, t.covered, t.numerator, t.posted_minor
        from usage_total t join cycle c on c.id = t.cycle_id join component k on k.id = t.component_id
        order by 1, 2, 3, 4""",
    "buckets": "select id, account_id, name, granted, used, reserved, overrun from bucket order by id",
    "bucket sessions": "select bucket_id, session_id, covered from bucket_session where covered > 0 order by 1, 2",
    "charges": """
        select h.account_id, h.subscription_id, c.starts_at, k.name, h.kind, h.from_at, h.until_at, h.amount_minor
        from charge h join cycle c on c.id = h.cycle_id join component k on k.id = h.component_id
        order by 1, 2, 3, 4, 5, 6""",
    "ledger": """
        select e.account_id, c.starts_at, k.name, side.account, sum(side.amount)
        from entry e left join cycle c on c.id = e.cycle_id left join component k on k.id = e.component_id
        cross join lateral (values (e.debit, e.amount_minor), (e.credit, -e.amount_minor)) side(account, amount)
        group by 1, 2, 3, 4 having sum(side.amount) <> 0 order by 1, 2, 3, 4""",
    "waiting": "select session_id, seq from queued_delta union all select session_id, seq from suspense",
}
"""What must be the same; of what is written batch by batch, the sums."""


@dataclass(frozen=True, slots=True)
class History:
    """What is used, in the order of time: the same for every database that is made by `begin`."""

    begins: datetime
    deltas: tuple[UsageDelta, ...]


def begin(connection: Connection, *, deltas: int, now: datetime) -> History:
    """Subscribers with their buckets, and a day and a half of usage up to an hour ago that nobody has settled yet."""
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    begins = midnight - timedelta(days=10)
    with connection.transaction():
        desk = make_desk(connection)
        add_plan(desk, tomllib.loads(PLAN, parse_float=Decimal), default_currency="EUR")
        services = [
            make_subscriber(desk, name=f"user{number}", plan="metered", zone="UTC") for number in range(ACCOUNTS)
        ]
        connection.execute("update account set anchor_day = %s", (midnight.day,))
        connection.execute("update subscription set during = tstzrange(%s, null)", (begins,))
        connection.execute("update assignment set during = tstzrange(%s, null)", (begins,))
        connection.execute("update cycle_due set due_at = %s", (begins,))
        connection.execute(GRANT, {"begins": begins, "octets": 40_000_000 * deltas // ACCOUNTS // 6})
        connection.execute(ENTER)
        create_ahead(connection, now)
    accounts = dict(connection.execute("select service_id, account_id from assignment").fetchall())
    usage = []
    span = timedelta(hours=30)
    for number in range(deltas):
        service = services[number % ACCOUNTS]
        at = midnight - timedelta(hours=26) + span * number / deltas
        if number % STRADDLING == 0:
            at = midnight - timedelta(hours=18 * (number // STRADDLING % 2)) + timedelta(seconds=7 + number % 290)
        at = min(at, now)
        usage.append(
            make_usage(number, accounts[service], service, at=at, octets_in=9_000_001 + number, octets_out=31_000_000)
        )
    return History(begins, tuple(sorted(usage, key=lambda one: one.delta.to_at)))


def settle(connection: Connection, deltas: Sequence[UsageDelta]) -> None:
    with connection.transaction():
        insert_deltas(connection, list(deltas))
        insert_queue(connection, list(deltas))


def books_of(connection: Connection) -> dict[str, list[tuple[Any, ...]]]:
    return {name: connection.execute(query).fetchall() for name, query in BOOKS.items()}


def differences(peace: dict[str, list[tuple[Any, ...]]], war: dict[str, list[tuple[Any, ...]]]) -> list[str]:
    """What is in one and not in the other, and whatever waits still."""
    found = []
    for name, rows in peace.items():
        for text, more, less in (("missing", rows, war[name]), ("too much", war[name], rows)):
            known = {repr(row) for row in less}
            found += [f"{name}: {text}: {row}" for row in more if repr(row) not in known]
        if len(rows) != len(war[name]):
            found.append(f"{name}: {len(rows)} rows in peace, {len(war[name])} after the kills")
    return found + [f"waiting: {row}" for row in war["waiting"]]


def complaints_of_proof(connection: Connection) -> list[str]:
    """Of reconcile, but for sessions and rollups, which nobody settled here."""
    with connection.transaction():
        found = reconcile(connection, PlanShelf())
    settlers = ("a session is live", "usage by day", "a session's totals")
    broken = [row for law in found.laws if not law.text.startswith(settlers) for row in law.violations]
    return [f"{row.law}: {row.where}: {row.found}" for row in broken] + [
        f"cycle {cycle.cycle_id}: {cycle}" for cycle in found.cycles if not cycle.balances
    ]


def is_done(connection: Connection) -> bool:
    return connection.execute(
        """select not exists (select from rating_queue) and not exists (select from dirty_group)
             and not exists (select from cycle_due where due_at <= now())"""
    ).fetchone() == (True,)


@dataclass(frozen=True, slots=True)
class Outcome:
    """`within`: kills that took the rater in an open transaction."""

    kills: int
    within: int
    rerated: int
    rows: int
    complaints: list[str]


def run(folder: Path, peace_dsn: str, war_dsn: str, *, kills: int, deltas: int, seed: int) -> Outcome:
    now = datetime.now(UTC)
    random = Random(seed)
    with connect(peace_dsn, name="campaign") as peace, connect(war_dsn, name="campaign") as war:
        peace.autocommit = war.autocommit = True
        history = begin(peace, deltas=deltas, now=now)
        settle(peace, history.deltas)
        _work_to_the_end(Node(folder / "peace", peace_dsn), peace)
        assert begin(war, deltas=deltas, now=now) == history
        node = Node(folder / "war", war_dsn)
        within = 0
        for portion in _portions(history.deltas, kills, random):
            settle(war, portion)
            within += _kill_at_work(node, war, random)
        _work_to_the_end(node, war)
        rows = len(peace.execute("select from rated_now").fetchall())
        rerated = war.execute("select count(*) from rated_usage where generation > 1").fetchone()
        complaints = differences(books_of(peace), books_of(war))
        complaints += [f"{name}: {text}" for name, one in (("peace", peace), ("war", war))
                       for text in complaints_of_proof(one)]  # fmt: skip
    return Outcome(kills, within, rerated[0] if rerated else 0, rows, complaints)


def _portions(deltas: Sequence[UsageDelta], count: int, random: Random) -> Iterator[list[UsageDelta]]:
    """All of them, in so many portions: mostly in their order, a tenth wherever else."""
    order = sorted(range(len(deltas)), key=lambda at: at if random.random() > 0.1 else random.randrange(len(deltas)))
    size = -(-len(deltas) // count)
    for at in range(0, len(order), size):
        yield [deltas[number] for number in order[at : at + size]]


def _kill_at_work(node: Node, connection: Connection, random: Random) -> bool:
    """Starts the rater, lets it work for a moment, kills it; whether a transaction of its was open then."""
    node.start()
    query = "select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid() {}"
    wait_until(lambda: connection.execute(query.format("")).fetchone() != (0,), "a rater at work")
    time.sleep(random.random() * WORK_SECONDS_MAX)
    was_open = connection.execute(query.format("and xact_start is not null")).fetchone() != (0,)
    node.kill()
    return was_open


def _work_to_the_end(node: Node, connection: Connection) -> None:
    node.start()
    try:
        wait_until(lambda: is_done(connection), "an empty queue and no dirty group", RATE_SECONDS_MAX)
    finally:
        node.kill()


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Random kill -9 of the rater; the books of a run in peace beside it.")
    parser.add_argument("--kills", type=int, default=200, help="how many (default 200)")
    parser.add_argument("--deltas", type=int, default=20_000, help="how much usage (default 20,000 deltas)")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000, help="of moments and order")
    asked = parser.parse_args(words)
    print(f"seed {asked.seed}", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="sms-aaa-rater-kills-"))
    server = EmbeddedPostgres.start(folder / "postgres")
    try:
        for name in ("peace", "war"):
            with connect(server.dsn, name="campaign") as connection:
                connection.autocommit = True
                connection.execute(f"create database {name}")
            upgrade(server.dsn_for(name))
        outcome = run(
            folder, server.dsn_for("peace"), server.dsn_for("war"), kills=asked.kills, deltas=asked.deltas,
            seed=asked.seed,
        )  # fmt: skip
    finally:
        with suppress(OperationalError):
            server.stop()
    print(f"{outcome.kills} kills, {outcome.within} of them within a transaction; {asked.deltas:,} deltas, "
          f"{outcome.rows:,} rated rows that count, {outcome.rerated:,} of later generations; "
          f"{len(outcome.complaints)} differences")  # fmt: skip
    for complaint in outcome.complaints[:20]:
        print(f"  {complaint}")
    shutil.rmtree(folder)
    return 1 if outcome.complaints else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
