"""Stories of rating on real PostgreSQL: from settled deltas to exact usage and ledger entries, exactly once."""

from __future__ import annotations

import tomllib
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest
from make import Said, make_desk, make_nas, make_plan, make_subscriber, make_usage, record_of, utc

from sms_aaa.db.engine import Poison, connect
from sms_aaa.db.ledger import list_balances
from sms_aaa.db.partitions import create_ahead
from sms_aaa.db.rating import Total, TotalKey, insert_totals, list_usage_totals
from sms_aaa.db.rating_queue import claim_shard, queue_length
from sms_aaa.db.reconcile import list_violations
from sms_aaa.db.usage import SHARDS, insert_deltas, insert_queue
from sms_aaa.flows.closing import close_cycles
from sms_aaa.flows.cycles import open_cycles, postpone_next
from sms_aaa.flows.meters import RaterMemory
from sms_aaa.flows.provisioning.plans import add_plan
from sms_aaa.flows.rating import RatedBatch, rate_batch, suspend_next
from sms_aaa.flows.reconciling import reconcile
from sms_aaa.flows.settling import settle_accounting
from sms_aaa.flows.shelf import PlanShelf

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from sms_aaa.db.engine import Connection

GB = 10**9
NOON = utc("2026-11-10 12:00:00")
pytestmark = pytest.mark.months(NOON)
MONTH_EDGE = utc("2026-10-31 23:00:00")  # midnight of 1 November in Berlin


class World:
    """One NAS and one subscriber with 1 GB included and 0.50 EUR per GB beyond, 29.90 EUR a month."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        desk = make_desk(connection)
        self.nas_id = make_nas(desk)
        make_plan(desk, included="1 GB")
        self.service_id = make_subscriber(desk)
        # The story plays in the autumn of 2026, whenever it is told.
        connection.execute("update subscription set during = tstzrange('2026-09-01', null)")
        connection.execute("update assignment set during = tstzrange('2026-09-01', null)")
        connection.execute("update cycle_due set due_at = '2026-11-01'")
        self.account_id = connection.execute("select id from account").fetchone()[0]
        create_ahead(connection, NOON)
        self.shelf = PlanShelf()
        self.memory = RaterMemory(self.shelf)
        self.offset = 64

    def use(self, session: str, *readings: tuple[datetime, int, int, int]) -> None:
        """Interims as (at, session seconds, octets in, octets out)."""
        records = []
        for at, seconds, octets_in, octets_out in readings:
            said = Said(
                status="interim", at=at, session=session, seconds=seconds, octets_in=octets_in, octets_out=octets_out
            )
            self.offset += 8
            records.append(record_of(said, nas_id=self.nas_id, offset=self.offset))
        settle_accounting(self.connection, records, single_nas={self.nas_id: True})

    def rate(self, limit: int = 1000) -> int:
        """A batch of the shard that is next; how many deltas it had."""
        done = self.rate_unchecked(limit)
        for law, violations in list_violations(self.connection):
            assert not violations, (law, violations)
        return done.deltas if done else 0

    def rate_unchecked(self, limit: int = 1000) -> RatedBatch | None:
        claimed = claim_shard(self.connection, after=-1)
        if claimed is None:
            return None
        done = rate_batch(self.connection, self.memory, claimed, now=NOON, limit=limit)
        self.memory.keep(claimed.shard, done.kept, done.run_id, NOON)
        return done

    def queued(self) -> int:
        return queue_length(self.connection)[0]

    def posted(self, at: datetime | None = NOON) -> dict[str, int]:
        return {row.component: row.posted_minor for row in list_usage_totals(self.connection, self.account_id, at)}


@pytest.fixture
def world(database_dsn: str) -> Iterator[World]:
    with connect(database_dsn, name="test") as connection:
        yield World(connection)
        connection.rollback()


def test_usage_beyond_what_is_included_is_charged_to_the_cent(world: World) -> None:
    world.use("s", (NOON, 600, GB, 2 * GB))
    assert world.rate() == 1
    # 3 GB, 1 of them included: 2 x 0.50.
    assert world.posted() == {"monthly-fee": 2990, "data": 100}
    balances = {balance.ledger_account: balance.balance_minor for balance in list_balances(world.connection)}
    assert balances == {"unbilled-receivable": 3090, "revenue:monthly-fee": -2990, "revenue:data": -100}


def test_any_cut_into_interims_and_batches_costs_the_same(world: World) -> None:
    third = (2 * GB + 1) // 3
    world.use("whole", (NOON, 600, 0, 3 * third))
    world.rate()
    whole = world.posted()["data"]
    desk = make_desk(world.connection)
    make_subscriber(desk, name="bob")
    world.connection.execute("update subscription set during = tstzrange('2026-09-01', null)")
    world.connection.execute("update assignment set during = tstzrange('2026-09-01', null)")
    for part in range(1, 4):
        said = Said(
            status="interim",
            at=NOON + timedelta(seconds=part),
            username=b"bob",
            session="cut",
            seconds=part,
            octets_in=0,
            octets_out=part * third,
        )
        world.offset += 8
        record = record_of(said, nas_id=world.nas_id, offset=world.offset)
        settle_accounting(world.connection, [record], single_nas={world.nas_id: True})
        world.rate(limit=1)
    account = world.connection.execute("select max(id) from account").fetchone()[0]
    rows = list_usage_totals(world.connection, account, NOON)
    assert {row.component: row.posted_minor for row in rows}["data"] == whole


def test_rating_again_finds_nothing_to_do(world: World) -> None:
    world.use("s", (NOON, 600, GB, GB))
    assert world.rate() == 1
    before = world.connection.execute("select count(*), sum(amount_minor) from entry").fetchone()
    assert world.rate() == 0
    open_cycles(world.connection, world.shelf, now=NOON, limit=10)
    assert open_cycles(world.connection, world.shelf, now=NOON, limit=10) == 0
    assert world.connection.execute("select count(*), sum(amount_minor) from entry").fetchone() == before


def test_a_batch_that_is_rolled_back_is_queued_still(world: World) -> None:
    world.use("s", (NOON, 600, GB, GB))
    world.connection.commit()
    world.rate_unchecked()
    assert world.queued() == 0
    world.connection.rollback()
    assert world.queued() == 1
    assert world.rate() == 1


def test_a_delta_across_the_edge_of_a_cycle_is_cut_in_proportion_and_to_the_octet(world: World) -> None:
    # 10 minutes, 3 of them before midnight of the account's zone.
    at = MONTH_EDGE + timedelta(minutes=7)
    world.use("s", (at, 600, 0, 10 * GB + 1))
    world.rate()
    rows = world.connection.execute("select slice, quantity from rated_usage order by slice").fetchall()
    assert rows == [(0, 3 * GB), (1, 7 * GB + 1)]
    # Each cycle has its own GB included, and its own fee.
    assert world.posted(MONTH_EDGE - timedelta(seconds=1)) == {"monthly-fee": 2990, "data": 100}
    assert world.posted(MONTH_EDGE) == {"monthly-fee": 2990, "data": 300}


def test_an_idle_account_gets_its_cycle_and_its_fee_once(world: World) -> None:
    assert open_cycles(world.connection, world.shelf, now=NOON, limit=10) == 1
    assert open_cycles(world.connection, world.shelf, now=NOON, limit=10) == 0
    assert world.posted() == {"monthly-fee": 2990, "data": 0}
    next_month = NOON + timedelta(days=30)
    assert open_cycles(world.connection, world.shelf, now=next_month, limit=10) == 1
    assert world.connection.execute("select count(*) from charge").fetchone() == (2,)


def test_usage_after_the_end_of_a_subscription_belongs_to_it_and_costs_no_new_fee(world: World) -> None:
    world.connection.execute("update subscription set during = tstzrange('2026-09-01', '2026-10-20')")
    world.use("s", (NOON, 600, 0, 3 * GB))
    world.rate()
    assert world.posted() == {"data": 100}


def test_usage_without_any_subscription_waits_in_suspense_by_name(world: World) -> None:
    world.connection.execute("delete from subscription")
    world.use("s", (NOON, 600, 0, 3 * GB))
    done = world.rate_unchecked()
    assert done is not None
    assert (done.deltas, done.in_suspense) == (1, 1)
    assert world.connection.execute("select reason from suspense").fetchall() == [("no-subscription",)]
    for law, violations in list_violations(world.connection):
        assert not violations, (law, violations)


def test_a_session_time_of_a_century_does_not_stop_the_rater(world: World) -> None:
    world.use("s", (NOON, 0xFFFFFFFF, 0, 3 * GB))
    done = world.rate_unchecked()
    assert done is not None
    assert (done.deltas, done.in_suspense) == (1, 1)
    assert world.connection.execute("select reason from suspense").fetchall() == [("implausible-times",)]


def test_ledger_entries_are_never_changed(world: World) -> None:
    import psycopg

    open_cycles(world.connection, world.shelf, now=NOON, limit=10)
    with pytest.raises(psycopg.errors.RestrictViolation):
        world.connection.execute("delete from entry")


def test_reconciliation_names_what_is_off(world: World) -> None:
    """The laws are worth something only if they see what is broken."""
    world.use("s", (NOON, 600, 0, 3 * GB))
    world.rate()
    world.connection.execute("set local session_replication_role = replica")
    world.connection.execute("update session set octets_in = octets_in + 1")
    world.connection.execute("update usage_total set quantity = quantity + 1")
    world.connection.execute("update charge set amount_minor = 1")
    broken = {law for law, violations in list_violations(world.connection) if violations}
    assert broken == {
        "a session's totals are the sum of its deltas",
        "a total is the sum of its rated usage",
        "the ledger has what the totals and charges say",
    }


def test_what_cannot_be_rated_alone_goes_into_suspense_and_the_others_go_on(world: World) -> None:
    world.use("s", (NOON, 600, GB, GB))
    shard = world.account_id % SHARDS
    assert suspend_next(world.connection, shard, reason="refused: AssertionError") == 1
    assert world.connection.execute("select reason from suspense").fetchall() == [("refused: AssertionError",)]
    assert suspend_next(world.connection, shard, reason="x") == 0
    for law, violations in list_violations(world.connection):
        assert not violations, (law, violations)


def test_the_next_cycle_is_due_when_this_one_ends_and_an_ended_subscription_is_due_no_more(world: World) -> None:
    open_cycles(world.connection, world.shelf, now=NOON, limit=10)
    [(due_at,)] = world.connection.execute("select due_at from cycle_due").fetchall()
    assert due_at == utc("2026-11-30 23:00:00")
    world.connection.execute("update subscription set during = tstzrange('2026-09-01', '2026-11-20')")
    open_cycles(world.connection, world.shelf, now=NOON + timedelta(days=30), limit=10)
    assert world.connection.execute("select count(*) from cycle_due").fetchone() == (0,)
    assert world.connection.execute("select count(*) from cycle").fetchone() == (1,)


def test_what_a_rater_remembers_is_worth_nothing_once_another_rated_for_the_same_accounts(world: World) -> None:
    other = RaterMemory(world.shelf)
    for step in range(1, 6):
        world.use("s", (NOON + timedelta(minutes=step), 60 * step, 0, step * GB))
        if step % 2:
            assert world.rate() == 1
        else:
            claimed = claim_shard(world.connection, after=-1)
            assert claimed is not None
            done = rate_batch(world.connection, other, claimed, now=NOON, limit=10)
            other.keep(claimed.shard, done.kept, done.run_id, NOON)
    # 5 GB, 1 of them included.
    assert world.posted()["data"] == 200
    assert_priced(world)


def test_what_a_rater_remembers_of_a_batch_that_was_rolled_back_is_forgotten(world: World) -> None:
    world.use("s", (NOON, 60, 0, GB))
    world.rate()
    world.use("s", (NOON + timedelta(minutes=1), 120, 0, 2 * GB))
    world.connection.commit()
    claimed = claim_shard(world.connection, after=-1)
    assert claimed is not None
    rate_batch(world.connection, world.memory, claimed, now=NOON, limit=10)
    world.connection.rollback()
    assert world.rate() == 1
    assert world.posted()["data"] == 50
    assert_priced(world)


def test_a_change_of_plan_is_heard_of_between_two_batches(world: World) -> None:
    world.use("s", (NOON, 60, 0, GB))
    world.rate()
    world.connection.commit()
    desk = make_desk(world.connection)
    make_plan(desk, name="metered", included="1 kB")
    change = NOON + timedelta(minutes=2)
    world.connection.execute("update subscription set during = tstzrange(lower(during), %s)", (change,))
    world.connection.execute(
        """insert into subscription (service_id, plan_version_id, during)
           select %s, v.id, tstzrange(%s, null) from plan_version v join plan p on p.id = v.plan_id
           where p.name = 'metered'""",
        (world.service_id, change),
    )
    world.connection.commit()
    world.use("s", (NOON + timedelta(minutes=1), 120, 0, 2 * GB))
    world.use("s", (NOON + timedelta(minutes=3), 240, 0, 3 * GB))
    world.rate()
    rows = list_usage_totals(world.connection, world.account_id, NOON)
    assert [(row.plan, row.quantity, row.posted_minor) for row in rows if row.kind == "usage"] == [
        # The third GB is cut where the plan changed: half of it is on each.
        ("home-100", 5 * GB // 2, 75),
        ("metered", GB // 2, 25),
    ]


def test_a_batch_smaller_than_a_row_of_the_queue_leaves_the_rest_in_its_place(world: World) -> None:
    usages = [make_usage(n, world.account_id, world.service_id, at=NOON, octets_out=GB + n) for n in range(10)]
    insert_deltas(world.connection, usages)
    insert_queue(world.connection, usages)
    for left in (7, 4, 1, 0):
        world.rate_unchecked(limit=3)
        assert world.queued() == left
    rated = world.connection.execute("select quantity from rated_usage order by total_before").fetchall()
    assert rated == [(GB + n,) for n in range(10)]


def test_an_account_pays_the_fee_of_a_cycle_once_whoever_opens_it(world: World) -> None:
    world.use("s", (NOON, 60, 0, 2 * GB))
    world.rate()
    assert open_cycles(world.connection, world.shelf, now=NOON, limit=10) == 1
    world.use("s", (NOON + timedelta(minutes=1), 120, 0, 3 * GB))
    world.rate()
    assert world.posted() == {"monthly-fee": 2990, "data": 100}
    assert_priced(world)


def test_a_cycle_that_cannot_be_opened_is_put_off_and_the_others_are_opened(world: World) -> None:
    make_subscriber(make_desk(world.connection), name="bob")
    world.connection.execute("update subscription set during = tstzrange('2026-09-01', null)")
    world.connection.execute("update assignment set during = tstzrange('2026-09-01', null)")
    world.connection.execute("update cycle_due set due_at = '2026-11-02' where subscription_id <> 1")
    assert postpone_next(world.connection, now=NOON, until=NOON + timedelta(hours=1)) == [1]
    assert open_cycles(world.connection, world.shelf, now=NOON, limit=1) == 1
    assert open_cycles(world.connection, world.shelf, now=NOON, limit=1) == 0
    assert open_cycles(world.connection, world.shelf, now=NOON + timedelta(hours=2), limit=10) == 1


def test_the_batches_of_an_hour_are_one_run_and_one_that_was_rolled_back_is_none(world: World) -> None:
    world.connection.commit()
    world.use("s", (NOON, 60, 0, GB))
    world.connection.commit()
    assert world.rate_unchecked() is not None
    world.connection.rollback()
    world.memory = RaterMemory(world.shelf)
    world.rate()
    world.use("s", (NOON + timedelta(minutes=1), 120, 0, 2 * GB))
    world.rate()
    assert world.connection.execute("select deltas from rating_run").fetchall() == [(2,)]
    runs = "select count(*) from rated_usage u join rating_run r on r.id = u.run_id"
    assert world.connection.execute(runs).fetchone() == (2,)


def test_a_total_beyond_what_a_column_holds_is_refused_by_name(world: World) -> None:
    total = Total(TotalKey(1, 1, 1, 1), quantity=2**63, numerator=0, posted_minor=0)
    with pytest.raises(Poison):
        insert_totals(world.connection, [total])


def test_money_pays_for_usage_when_it_is_posted_and_what_is_beyond_it_is_owed(world: World) -> None:
    world.connection.execute(
        """insert into bucket (account_id, name, kind, currency, terms, priority, from_at, granted)
           values (%s, 'credit', 'top-up', 'EUR', '{"name": "credit", "measure": null, "amount": 755000000000}', 1,
                   '2026-01-01', 755000000000)""",
        (world.account_id,),
    )
    world.connection.execute(
        "insert into bucket_entry (bucket_id, kind, quantity) select id, 'grant', granted from bucket"
    )
    for step in range(1, 4):
        world.use("s", (NOON + timedelta(minutes=step), 60 * step, 0, 2 * step * GB))
        world.rate()
    # 5 GB beyond what is included cost 2.50. The half cent is nobody's yet.
    paid = world.connection.execute(
        "select sum(amount_minor) from entry where debit = 'deferred-revenue' and bucket_id is not null"
    ).fetchone()
    assert paid == (75,)
    assert world.connection.execute("select used from bucket").fetchone() == (750_000_000_000,)
    assert world.connection.execute("select sum(quantity) from bucket_entry where kind = 'use'").fetchone() == (
        750_000_000_000,
    )
    balances = {balance.ledger_account: balance.balance_minor for balance in list_balances(world.connection)}
    assert (balances["revenue:data"], balances["deferred-revenue"]) == (-250, 75)
    assert balances["unbilled-receivable"] == 2990 + 250 - 75
    assert world.posted()["data"] == 250


KEYED = """
name = "keyed"
[policy]
[tariff]
currency = "EUR"
[[tariff.key]]
name = "abroad"
nas_zone = ["abroad"]
[[tariff.band]]
name = "first-hour"
to = "60 min"
[[tariff.usage]]
name = "home"
measure = "total"
per = "GB"
price = "0.10"
keys = ["default"]
[[tariff.usage]]
name = "roaming"
measure = "total"
per = "GB"
price = "2.00"
keys = ["abroad"]
[[tariff.usage]]
name = "connection"
measure = "seconds"
per = "h"
price = "1.00"
bands = ["first-hour"]
"""


def test_where_a_nas_stands_and_how_long_a_session_lasts_decide_what_usage_costs(world: World) -> None:
    add_plan(make_desk(world.connection), tomllib.loads(KEYED, parse_float=Decimal), default_currency="EUR")
    world.connection.execute("update subscription set plan_version_id = (select max(id) from plan_version)")
    world.use("at-home", (NOON, 1800, 0, GB))
    world.rate()
    world.connection.execute("update nas set zone = 'abroad'")
    # Two hours, of which the first costs by time.
    world.use("away", (NOON + timedelta(hours=2), 7200, 0, 3 * GB))
    world.rate()
    assert world.posted() == {"home": 10, "roaming": 600, "connection": 50 + 100}


LIMITED = """
name = "limited"
[policy]
[tariff]
currency = "EUR"
[[tariff.usage]]
name = "data"
measure = "total"
per = "GB"
price = "1.00"
scope = "session"
session_maximum = "2.50"
session_limit = "disconnect"
"""


def test_a_session_that_has_cost_as_much_as_one_may_says_so_once(world: World) -> None:
    add_plan(make_desk(world.connection), tomllib.loads(LIMITED, parse_float=Decimal), default_currency="EUR")
    world.connection.execute("update subscription set plan_version_id = (select max(id) from plan_version)")
    for step in range(1, 6):
        world.use("s", (NOON + timedelta(minutes=step), 60 * step, 0, step * GB))
        world.rate()
    assert world.posted() == {"data": 250}
    told = world.connection.execute("select object_id, payload from event where kind = 'session.cost-limit'").fetchall()
    assert told == [(1, {"component": "data"})]


MINIMUM = """
name = "committed"
[policy]
[tariff]
currency = "EUR"
[[tariff.usage]]
name = "data"
measure = "total"
per = "GB"
price = "0.50"
minimum_charge = "5.00"
"""


def test_usage_that_comes_when_its_cycle_is_closed_is_an_adjustment_to_what_it_was_closed_with(world: World) -> None:
    add_plan(make_desk(world.connection), tomllib.loads(MINIMUM, parse_float=Decimal), default_currency="EUR")
    world.connection.execute("update subscription set plan_version_id = (select max(id) from plan_version)")
    october = MONTH_EDGE - timedelta(days=5)
    world.use("first", (october, 60, 0, 4 * GB))
    world.rate()
    open_cycles(world.connection, world.shelf, now=NOON, limit=10)
    closed = close_cycles(world.connection, world.shelf, now=NOON, grace=timedelta(days=1), limit=10)
    assert [cycle.cycle.starts_at < MONTH_EDGE for cycle in closed] == [True] * len(closed)
    charges = "select kind, amount_minor from charge order by id"
    frozen = world.connection.execute(charges).fetchall()
    assert frozen[-2:] == [("usage", 200), ("minimum", 300)]
    adjusted = """select j.amount_minor, h.kind from adjustment j left join charge h on h.id = j.charge_id
                  join cycle c on c.id = j.cycle_id where c.starts_at = '2026-09-30 22:00' order by j.id"""
    # 1.00 more is within the minimum that was charged.
    world.use("second", (october + timedelta(hours=1), 60, 0, 2 * GB))
    world.rate()
    assert world.connection.execute(adjusted).fetchall() == []
    # 16 GB in all cost 8.00: 3.00 beyond it. What November is used for goes on beside it.
    world.use("third", (october + timedelta(hours=2), 60, 0, 10 * GB), (NOON, 60 + 16 * 86_400, 0, 10 * GB))
    world.rate()
    assert world.connection.execute(adjusted).fetchall() == [(300, "usage")]
    assert world.connection.execute(charges).fetchall() == frozen
    balances = {balance.ledger_account: balance.balance_minor for balance in list_balances(world.connection)}
    assert balances["revenue:data"] == -800
    assert sum(balances.values()) == 0


def assert_priced(world: World) -> None:
    found = reconcile(world.connection, world.shelf)
    assert found.holds, [law for law in found.laws if law.violations]
