"""`kill -9` of the rater at random moments; then the books are held against those of a run that nobody disturbed:

    python tests/campaigns/rater_kills.py --kills 200 --seed 7

Three databases get the same subscribers, on a tariff with a slot by night, three components of which one runs up over
a session, and two buckets a cycle; their usage crosses slots and the edge of a cycle. In the first a rater works in
peace, slice by slice, over all deltas in their order. In each of the others the deltas come portion by portion, some
late, so that groups are rated again as well, and after each but the last the rater is killed somewhere in its work:
before, within or after a transaction, be it of rating, of re-rating or of its housekeeping. In one of them it rates
slice by slice too; in the other in bulk, but for accounts that do not fit: so SQL is held against the rules as well.
Rated usage, totals, buckets and ledger must come out the same, and reconcile must find nothing.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace
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
from sms_aaa.flows.reserving import Asked, reserve
from sms_aaa.flows.shelf import PlanShelf
from sms_aaa.metrics import Word
from sms_aaa.rules.measure import Measure
from sms_aaa.rules.reserving import Promise
from sms_aaa.server.postgres import EmbeddedPostgres

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sms_aaa.db.engine import Connection
    from sms_aaa.db.usage import UsageDelta

ACCOUNTS = 32
RATE_SECONDS_MAX = 600
SESSION_DELTAS = 5
STRADDLING = 25  # every so-manieth delta lies over midnight, where a cycle ends too, or over the slot's end at six
OVER_THE_EDGE = range(17, 25)  # accounts whose buckets last over the edge of a cycle: they fit no batch that has it
HEAD, MEMBER, HOLDER = 25, 26, 27  # the first shares its buckets with the second; the third holds some of its own
IN_STEPS = range(28, 33)  # accounts with a bucket in increments: they never fit


@dataclass(frozen=True, slots=True)
class Way:
    """How a rater rates that is to be killed: in bulk from so many waiting deltas on, or never (0); and how long.

    `late`: the share of deltas that come out of order. They make groups dirty, and rating those again is done between
    the shards' batches: with many of them a rater is killed there, and seldom in bulk.
    """

    name: str
    bulk_min: int
    late: float
    work_seconds_max: float


LIVE = Way("live", 0, 0.1, 0.4)
BULK = Way("bulk", 10, 0.01, 0.6)
WAYS = (LIVE, BULK)

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
[[tariff.usage]]
name = "online"
measure = "seconds"
scope = "session"
price = "0.01"
per = "min"
initial_increment = "450 s"
increment = "30 s"
connect_fee = "0.02"
session_maximum = "0.24"
"""

GRANT = """
insert into bucket (account_id, name, kind, measure, terms, priority, from_at, until_at, created_at, granted)
select a.id, w.name, 'top-up', 'total', w.terms || jsonb_build_object('name', w.name, 'measure', 'total',
         'amount', %(octets)s::bigint, 'is_shared', a.id = %(head)s)
       || case when w.priority = 2 and a.id = any(%(in_steps)s) then '{"increment": 1000}' else '{}'::jsonb end,
       w.priority, c.begins, c.ends, %(begins)s, %(octets)s
from account a
cross join (values ('by-night', 1, '{"slots": ["night"]}'::jsonb), ('anytime', 2, '{}')) w(name, priority, terms)
join (values (false, %(begins)s, %(edge)s), (false, %(edge)s, null), (true, %(begins)s, null))
  c(is_long, begins, ends) on c.is_long = (a.id = any(%(long)s))
order by a.id, c.begins, w.priority
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
    "session totals": """
        select t.session_id, t.subscription_id, k.name, t.quantity
        from session_total t join component k on k.id = t.component_id where t.quantity > 0 order by 1, 2, 3""",
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
        connection.execute("update account set charging_head_id = %s where id = %s", (HEAD, MEMBER))
        connection.execute("update subscription set during = tstzrange(%s, null)", (begins,))
        connection.execute("update assignment set during = tstzrange(%s, null)", (begins,))
        connection.execute("update cycle_due set due_at = %s", (begins,))
        octets = 40_000_000 * deltas // ACCOUNTS // 8
        connection.execute(
            GRANT,
            {
                "begins": begins, "edge": midnight, "octets": octets, "head": HEAD, "long": [*OVER_THE_EDGE],
                "in_steps": [*IN_STEPS],
            },
        )  # fmt: skip
        connection.execute(ENTER)
        held = Asked(
            account_id=HOLDER, session="call", measure=Measure.DOWNLOAD, quantity=octets // 3, lasts=timedelta(days=1)
        )
        assert isinstance(reserve(connection, PlanShelf(), held, now=now), Promise)
        create_ahead(connection, now)
    accounts = dict(connection.execute("select service_id, account_id from assignment").fetchall())
    assert sorted(accounts.values()) == [*range(1, ACCOUNTS + 1)]
    return History(begins, tuple(_usage(services, accounts, midnight, deltas=deltas, now=now)))


def _usage(
    services: Sequence[int], accounts: dict[int, int], midnight: datetime, *, deltas: int, now: datetime
) -> list[UsageDelta]:
    """In the order of time; of a service each SESSION_DELTAS in a row are a session's."""
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
    usage.sort(key=lambda one: one.delta.to_at)
    before = dict.fromkeys(services, 0)
    for at, one in enumerate(usage):
        session, seq = divmod(before[one.service_id], SESSION_DELTAS)
        before[one.service_id] += 1
        usage[at] = replace(one, session_id=session * ACCOUNTS + one.account_id, delta=replace(one.delta, seq=seq + 1))
    return usage


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
    """`within`: kills that took the rater in an open transaction; `within_bulk`: in one that rated in bulk.

    `in_bulk`: deltas that a rater said it had rated so; the last batch before a kill may be missing.
    """

    way: Way
    kills: int
    within: int
    within_bulk: int
    in_bulk: int
    rerated: int
    rows: int
    complaints: list[str]


def run(
    folder: Path, dsns: Sequence[str], ways: Sequence[Way], *, kills: int, deltas: int, seed: int
) -> Iterator[Outcome]:
    """`dsns`: empty databases, for the run in peace and for each way."""
    now = datetime.now(UTC)
    with ThreadPoolExecutor() as pool:
        undisturbed = pool.submit(_in_peace, folder / "peace", dsns[0], deltas=deltas, now=now)
        for way, dsn in zip(ways, dsns[1:], strict=True):
            with connect(dsn, name="campaign") as war:
                war.autocommit = True
                history = begin(war, deltas=deltas, now=now)
                node = Node(folder / way.name, dsn, bulk_min=way.bulk_min)
                random, open_now = Random(seed), []
                *portions, last = _portions(history.deltas, kills + 1, random, way.late)
                for portion in portions:
                    settle(war, portion)
                    open_now.append(_kill_at_work(node, war, random.random() * way.work_seconds_max))
                settle(war, last)
                _work_to_the_end(node, war)
                peace = undisturbed.result()
                assert peace.history == history
                [(rerated,)] = war.execute("select count(*) from rated_usage where generation > 1").fetchall()
                yield Outcome(
                    way, kills, sum(found is not None for found in open_now), sum(found is True for found in open_now),
                    node.counter(Word.DELTAS_RATED_IN_BULK), rerated, len(peace.books["rated usage"]),
                    [*peace.complaints, *differences(peace.books, books_of(war)), *complaints_of_proof(war)],
                )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Peace:
    history: History
    books: dict[str, list[tuple[Any, ...]]]
    complaints: list[str]


def _in_peace(folder: Path, dsn: str, *, deltas: int, now: datetime) -> Peace:
    with connect(dsn, name="campaign") as connection:
        connection.autocommit = True
        history = begin(connection, deltas=deltas, now=now)
        settle(connection, history.deltas)
        node = Node(folder, dsn, bulk_min=0)
        _work_to_the_end(node, connection)
        assert node.counter(Word.DELTAS_RATED) == deltas
        assert node.counter(Word.DELTAS_RATED_IN_BULK) == 0
        complaints = [f"in peace: {text}" for text in complaints_of_proof(connection)]
        return Peace(history, books_of(connection), complaints)


def _portions(deltas: Sequence[UsageDelta], count: int, random: Random, late: float) -> Iterator[list[UsageDelta]]:
    """All of them, in so many portions: in their order, but for those that are late or early, which are anywhere."""
    order = sorted(range(len(deltas)), key=lambda at: at if random.random() > late else random.randrange(len(deltas)))
    bounds = [len(order) * part // count for part in range(count + 1)]
    for begin_at, end_at in pairwise(bounds):
        yield [deltas[number] for number in order[begin_at:end_at]]


RATERS = """
select a.pid, a.xact_start is not null,
       exists (select from pg_locks l where l.pid = a.pid and l.mode = 'AccessExclusiveLock' and l.relation is not null)
from pg_stat_activity a
where a.datname = current_database() and a.pid <> pg_backend_pid() and a.backend_type = 'client backend'
"""
"""Whoever empties or makes the tables of a bulk batch has them to himself until the end; nothing else does that."""


def _kill_at_work(node: Node, connection: Connection, seconds: float) -> bool | None:
    """Starts the rater, kills it so long after; whether it was in bulk, None: in no transaction."""
    earlier = {pid for pid, _, _ in connection.execute(RATERS).fetchall()}  # what was killed may be not yet gone
    node.start()

    def found() -> list[tuple[Any, ...]]:
        return [row for row in connection.execute(RATERS).fetchall() if row[0] not in earlier]

    wait_until(found, "a rater at work")
    time.sleep(seconds)
    node.freeze()
    [(_, is_open, is_bulk)] = found()
    node.kill()
    return is_bulk if is_open else None


def _work_to_the_end(node: Node, connection: Connection) -> None:
    node.start()
    try:
        wait_until(lambda: is_done(connection), "an empty queue and no dirty group", RATE_SECONDS_MAX)
    finally:
        node.kill()


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Random kill -9 of the rater; the books of a run in peace beside it.")
    parser.add_argument("--kills", type=int, default=200, help="how many, each way (default 200)")
    parser.add_argument("--deltas", type=int, default=20_000, help="how much usage (default 20,000 deltas)")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000, help="of moments and order")
    parser.add_argument("--way", choices=[way.name for way in WAYS], help="slice by slice or in bulk (default both)")
    asked = parser.parse_args(words)
    print(f"seed {asked.seed}", flush=True)
    ways = [way for way in WAYS if asked.way in {None, way.name}]
    folder = Path(tempfile.mkdtemp(prefix="sms-aaa-rater-kills-"))
    server = EmbeddedPostgres.start(folder / "postgres")
    complaints = 0
    try:
        names = ["peace", *(way.name for way in ways)]
        for name in names:
            with connect(server.dsn, name="campaign") as connection:
                connection.autocommit = True
                connection.execute(f"create database {name}")
            upgrade(server.dsn_for(name))
        dsns = [server.dsn_for(name) for name in names]
        for outcome in run(folder, dsns, ways, kills=asked.kills, deltas=asked.deltas, seed=asked.seed):
            print(_told(outcome, asked.deltas), flush=True)
            complaints += len(outcome.complaints)
    finally:
        with suppress(OperationalError):
            server.stop()
    shutil.rmtree(folder)
    return 1 if complaints else 0


def _told(outcome: Outcome, deltas: int) -> str:
    text = (
        f"{outcome.way.name}: {outcome.kills} kills, {outcome.within} of them within a transaction, "
        f"{outcome.within_bulk} of these within one that rates in bulk; {deltas:,} deltas, at least "
        f"{outcome.in_bulk:,} of them rated in bulk; {outcome.rows:,} rated rows that count, {outcome.rerated:,} of "
        f"later generations; {len(outcome.complaints)} differences"
    )
    return "\n  ".join([text, *outcome.complaints[:20]])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
