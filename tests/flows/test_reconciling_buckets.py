"""Stories of buckets, sessions and generations that somebody spoiled: each law sees what breaks it, and only that."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from make import make_nas, make_usage, rate_all, utc
from office import Office

from sms_aaa.db.engine import connect
from sms_aaa.db.partitions import create_ahead
from sms_aaa.db.usage import insert_deltas, insert_queue
from sms_aaa.flows.closing import close_cycles
from sms_aaa.flows.explaining import explain, find_usage
from sms_aaa.flows.reconciling import CLOSED_LAW, SESSION_LAW, reconcile
from sms_aaa.flows.rerating import rerate_group
from sms_aaa.rules.instants import INSTANT_MIN

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sms_aaa.db.engine import Connection

GB = 10**9
NOW = "2026-04-20"
APRIL = utc("2026-04-15")
pytestmark = pytest.mark.months(APRIL)
TARIFF = """
[[tariff.usage]]
name = "up"
measure = "upload"
price = "1.00"
per = "GB"
minimum_charge = "9.00"
[[tariff.usage]]
name = "down"
measure = "download"
price = "0.50"
per = "GB"
scope = "session"
connect_fee = "0.10"
"""
BUCKETS = """
insert into bucket (id, account_id, name, kind, measure, terms, priority, from_at, created_at, granted)
  select n, %(account)s, 'bucket-' || n, 'top-up', 'upload', jsonb_build_object('name', 'bucket-' || n,
         'measure', 'upload', 'amount', 2000000000, 'blocks', n = 2, 'overage', case n when 2 then 'absorb'
         else 'charge' end, 'member_maximum', case n when 1 then 1500000000 end), n, '2026-04-01', '2026-04-01',
         2000000000
  from generate_series(1, 2) n;
insert into bucket_entry (bucket_id, kind, quantity) select id, 'grant', granted from bucket;
"""
UNBOUND = ";".join(f"alter table bucket drop constraint if exists bucket_check{number}" for number in range(1, 9))
WITHIN = "used and reserved of a bucket are within what was granted"
ENTRIES = "a bucket is what its entries make it"
HELD = "what is reserved of a bucket is held for somebody"
TAKEN = "what rated usage took of a unit bucket is what rating entered there"
COVERED = "what buckets cover of rated usage is written with it, each bucket by its use"
SHARES = "shares of members and sessions are what rated usage took"
GENERATIONS = "the generations of a delta in a component follow each other"
TOTALS = "a total is the sum of its rated usage"
COUNTED = "of each rated delta the components count all octets, once"


class Books(Office):
    """Alice used 5 GB up in three deltas: 1.5 and 2 of them covered by two buckets, 1.5 not; and 4 GB down."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)
        create_ahead(connection, APRIL)
        self.plan("metered", TARIFF)
        self.subscription_id = self.subscribe("alice", "metered", "2026-04-01")
        self.until(NOW)
        [(self.account_id, service_id)] = connection.execute(
            """select g.account_id, g.service_id from subscription u join assignment g on g.service_id = u.service_id
               where u.id = %s""",
            [self.subscription_id],
        ).fetchall()
        for statement in BUCKETS.split(";\n")[:2]:
            connection.execute(statement, {"account": self.account_id})
        # The last comes first: it makes the group dirty, and is rated again.
        for number, day in enumerate(("2026-04-12", "2026-04-10", "2026-04-11")):
            self.use(service_id, number, day, up=5 * GB // 3 + (number == 0) * 2, down=4 * GB // 3)

    def use(self, service_id: int, number: int, day: str, *, up: int, down: int) -> None:
        usage = make_usage(number, self.account_id, service_id, at=utc(day), octets_in=up, octets_out=down)
        insert_deltas(self.connection, [usage])
        insert_queue(self.connection, [usage])
        rate_all(self.connection, self.shelf, now=utc(NOW))

    def broken(self) -> set[str]:
        """Laws of money that are broken: nobody settled these deltas, so they have neither sessions nor rollups."""
        found = reconcile(self.connection, self.shelf)
        settlers = ("a session is live", "usage by day", "a session's totals")
        broken = {law.text for law in found.laws if law.violations and not law.text.startswith(settlers)}
        broken |= {"cycles" for cycle in found.cycles if not cycle.balances}
        return broken | {"accounts" for account in found.accounts if not account.balances}


@pytest.fixture
def books(database_dsn: str) -> Iterator[Books]:
    with connect(database_dsn, name="test") as connection:
        yield Books(connection)
        connection.rollback()


def test_sound_books_break_no_law_before_and_after_a_rerating_and_at_the_close(books: Books) -> None:
    [cycle] = reconcile(books.connection, books.shelf).cycles
    assert (cycle.covered, cycle.priced + cycle.uncovered) == (3_500_000_000, cycle.counted - 3_500_000_000)
    assert books.broken() == set()
    assert rerate_group(books.connection, books.shelf, books.account_id, since_us=INSTANT_MIN, now=utc(NOW)).rows
    assert books.connection.execute("select count(*) from rated_usage where generation = 2").fetchone() != (0,)
    assert books.broken() == set()
    books.until("2026-05-02")
    assert close_cycles(books.connection, books.shelf, now=utc("2026-05-09"), grace=utc(NOW) - utc(NOW), limit=9)
    assert books.broken() == set()
    books.connection.execute("set local session_replication_role = replica")
    books.connection.execute("update charge set amount_minor = amount_minor + 1 where kind = 'minimum'")
    assert CLOSED_LAW in books.broken()


@pytest.mark.parametrize(
    ("spoil", "laws"),
    [
        (f"{UNBOUND}; update bucket set granted = 1 where id = 2", {WITHIN, ENTRIES}),
        ("update bucket set used = used - 1 where id = 1", {ENTRIES}),
        ("update bucket set overrun = overrun + 1 where id = 2", {ENTRIES}),
        ("delete from bucket_entry where kind = 'use' and bucket_id = 2", {ENTRIES, TAKEN}),
        ("""update bucket set reserved = 5 where id = 1;
            insert into bucket_entry (bucket_id, kind, quantity) values (1, 'reserve', 5)""", {HELD}),
        ("""insert into reservation (bucket_id, account_id, session, quantity, expires_at)
            select id, account_id, 'x', 1, now() from bucket where id = 1""", {HELD}),
        ("update rated_usage set uses[3] = uses[3] + 1 where uses[1] = 1", {TAKEN, SHARES}),
        ("update rated_usage set uses[2] = uses[2] + 1 where uses[1] = 2", {COVERED}),
        ("update bucket_member set taken = taken - 1", {SHARES}),
        ("update rated_usage set generation = 3 where seq = 1 and session_id = 1", {GENERATIONS}),
        ("update rated_usage set uncovered = 0 where uncovered > 0", {TOTALS, TAKEN}),
        ("update session_total set quantity = quantity + 1 where session_id = 1", {SESSION_LAW}),
        ("""update rated_usage r set numerator = r.numerator + 1 from component k
            where k.id = r.component_id and k.name = 'down' and session_id = 1""", {SESSION_LAW, TOTALS}),
        ("delete from rated_usage where session_id = 1", {"accounts", "cycles", TOTALS, SESSION_LAW, TAKEN, SHARES,
                                                          "every delta of an account is queued, rated or in suspense"}),
        ("""update rated_usage set quantity = quantity - 1 where quantity > covered + uncovered and session_id = 2""",
         {COUNTED, "cycles", TOTALS, SESSION_LAW}),
    ],
)  # fmt: skip
def test_what_was_spoiled_is_named_by_its_laws(books: Books, spoil: str, laws: set[str]) -> None:
    books.connection.execute("set local session_replication_role = replica")
    books.connection.execute(spoil)
    assert books.broken() == laws


def test_a_cycle_is_explained_by_generations_buckets_tiers_and_steps(books: Books) -> None:
    rerate_group(books.connection, books.shelf, books.account_id, since_us=INSTANT_MIN, now=utc(NOW))
    make_nas(books.desk)
    books.connection.execute(
        """insert into session (id, nas_id, nas_key, acct_session_id, life, state, service_id, account_id, username,
             started_at, updated_at, seconds, octets_in, octets_out, reading_at, reading_seconds, reading_in,
             reading_out, reading_gigawords, reading_node, reading_sequence, reading_offset, run, deltas, received_at)
           select d.session_id, n.id, '', d.session_id::text, 1, 1, d.service_id, d.account_id, 'x', d.from_at, d.to_at,
             0, 0, 0, d.to_at, 0, 0, 0, false, '', 0, 0, 1, 0, d.to_at
           from usage_delta d cross join (select min(id) as id from nas) n"""
    )
    usage = find_usage(books.connection, books.shelf, books.account_id, utc(NOW))
    assert usage is not None
    told = explain(books.connection, usage, component=None, session_id=None, limit=10)
    assert told.is_whole
    assert told.adds_up
    up = next(line for line in told.lines if line.line.row.component == "up")
    assert [(use.bucket, use.covered) for part in up.slices for use in part.uses] == [
        ("bucket-1", 1_500_000_000), ("bucket-2", 5 * GB // 3 - 1_500_000_000), ("bucket-2", 5 * GB // 3),
        ("bucket-2", 2_000_000_000 - (5 * GB // 3 - 1_500_000_000) - 5 * GB // 3),
    ]  # fmt: skip
    assert {(part.slot, part.key, part.is_cut) for part in up.slices} == {("anytime", "default", False)}
    assert up.slices[-1].rated.uncovered == up.line.row.covered - 3_500_000_000
    assert max(part.rated.generation for part in up.slices) == 2
    assert [step.name for step in up.line.steps] == ["exact", "posted"]
    second = explain(books.connection, usage, component="down", session_id=None, limit=1, offset=1)
    assert [part.rated.session_id for line in second.lines for part in line.slices] == [3]
    assert not second.is_whole
