"""Buckets of plans over cycles: granted once, rolled over, their overage kept; and groups that share them."""

from __future__ import annotations

import tomllib
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest
from make import make_desk, make_nas, make_subscriber, make_usage, rate_all, utc

from sms_aaa.db.engine import connect
from sms_aaa.db.ledger import list_balances
from sms_aaa.db.partitions import create_ahead
from sms_aaa.db.rating import list_usage_totals
from sms_aaa.db.reconcile import list_violations
from sms_aaa.db.reconcile_buckets import BUCKET_LAWS
from sms_aaa.db.reconcile_money import MONEY_LAWS
from sms_aaa.db.usage import insert_deltas, insert_queue
from sms_aaa.flows.cycles import open_cycles
from sms_aaa.flows.granting import close_buckets
from sms_aaa.flows.provisioning.accounts import join_group, leave_group
from sms_aaa.flows.provisioning.buckets import ToGrant, end_bucket, grant_bucket, top_up
from sms_aaa.flows.provisioning.desk import Refused
from sms_aaa.flows.provisioning.plans import add_plan
from sms_aaa.flows.rerating import rerate_group
from sms_aaa.flows.shelf import PlanShelf
from sms_aaa.rules.buckets import BucketKind, BucketTerms
from sms_aaa.rules.instants import instant_us
from sms_aaa.rules.measure import Measure
from sms_aaa.rules.money import PICOUNITS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from sms_aaa.db.engine import Connection

GB = 10**9
BEGAN = utc("2026-09-10 22:00:00")  # midnight of 11 September in Berlin: 20 of 30 days
OCTOBER, NOVEMBER, DECEMBER = (utc(f"2026-{day} 22:00:00") for day in ("09-30", "10-31", "11-30"))
pytestmark = pytest.mark.months(BEGAN, OCTOBER, NOVEMBER, DECEMBER)
NOVEMBER += timedelta(hours=1)  # winter time
DECEMBER += timedelta(hours=1)

PLAN = """
name = "home"
[policy]
[tariff]
currency = "EUR"
[[tariff.usage]]
name = "data"
measure = "total"
price = "0.50"
per = "GB"
[[tariff.bucket]]
name = "month"
measure = "total"
amount = "30 GB"
prorate = true
shared = true
{bucket}
[[tariff.bucket]]
name = "hello"
measure = "total"
amount = "5 GB"
kind = "promotion"
priority = 500
valid = "90d"
slots = ["night"]
[[tariff.slot]]
name = "night"
from = "02:00"
to = "03:00"
"""


ALWAYS = """
[[tariff.bucket]]
name = "always"
measure = "total"
amount = "1 GB"
kind = "promotion"
slots = ["night"]
"""


class World:
    """Alice on a plan with 30 GB a month, since 11 September."""

    def __init__(self, connection: Connection, bucket: str) -> None:
        self.connection = connection
        self.desk = make_desk(connection)
        make_nas(self.desk)
        add_plan(self.desk, tomllib.loads(PLAN.format(bucket=bucket), parse_float=Decimal), default_currency="EUR")
        self.accounts = {name: self._subscribe(name) for name in ("alice", "bob")}
        for month in (BEGAN, OCTOBER, NOVEMBER, DECEMBER):
            create_ahead(connection, month)
        self.shelf = PlanShelf()
        self.number = 0

    def _subscribe(self, name: str) -> tuple[int, int]:
        """(account, service)."""
        service_id = make_subscriber(self.desk, name=name, plan="home")
        for table in ("subscription", "assignment"):
            self.connection.execute(
                f"update {table} set during = tstzrange(%s, null) where service_id = %s", (BEGAN, service_id)
            )
        self.connection.execute(
            "update cycle_due set due_at = %s from subscription u where u.id = subscription_id and u.service_id = %s",
            (BEGAN, service_id),
        )
        return self.connection.execute("select max(id) from account").fetchone()[0], service_id

    def open(self, now: datetime) -> None:
        while open_cycles(self.connection, self.shelf, now=now, limit=100) >= 100:
            pass

    def use(self, at: datetime, gigabytes: int, name: str = "alice") -> None:
        account_id, service_id = self.accounts[name]
        usage = make_usage(self.number, account_id, service_id, at=at, octets_out=gigabytes * GB)
        self.number += 1
        insert_deltas(self.connection, [usage])
        insert_queue(self.connection, [usage])
        rate_all(self.connection, self.shelf, now=at)

    def close(self, now: datetime) -> int:
        """Closes cycles that are over, and the buckets that only they could use."""
        self.connection.execute(
            "update cycle set state = 2, closed_at = %s where ends_at <= %s and state = 1", (now, now)
        )
        return close_buckets(self.connection, now=now, grace=timedelta(), limit=100).count

    def rerate(self) -> None:
        dirty = self.connection.execute("select head_account_id, from_at from dirty_group").fetchall()
        for head_id, from_at in dirty:
            rerate_group(self.connection, self.shelf, head_id, since_us=instant_us(from_at), now=DECEMBER)

    def buckets(self, name: str = "alice") -> list[tuple[str, str, int, int, int]]:
        """(name, kind, GB granted, used, overrun) of one account, the oldest first; night's gift aside."""
        rows = self.connection.execute(
            "select name, kind, granted, used, overrun from bucket where account_id = %s and name <> 'hello'"
            " order by from_at, id",
            (self.accounts[name][0],),
        ).fetchall()
        return [(row[0], row[1], *(int(value) // GB for value in row[2:])) for row in rows]

    def posted(self, at: datetime, name: str = "alice") -> int:
        rows = list_usage_totals(self.connection, self.accounts[name][0], at)
        return sum(row.posted_minor for row in rows)


@pytest.fixture
def connection(database_dsn: str) -> Iterator[Connection]:
    with connect(database_dsn, name="test") as opened:
        yield opened
        for law, statement in BUCKET_LAWS:
            assert opened.execute(statement).fetchall() == [], law
        opened.rollback()


def test_a_cycle_grants_once_and_the_first_one_its_part(connection):
    world = World(connection, "")
    world.open(OCTOBER)
    world.use(OCTOBER + timedelta(days=2), 7)
    world.open(OCTOBER + timedelta(days=3))
    assert world.buckets() == [("month", "allowance", 20, 0, 0), ("month", "allowance", 30, 7, 0)]
    gifts = connection.execute("select count(*), min(granted) from bucket where name = 'hello'").fetchone()
    assert gifts == (2, 5 * GB)  # one of each subscriber, when it began and never again


def test_what_is_left_rolls_over_once_and_is_used_first(connection):
    world = World(connection, 'rollover = { minimum = "1 GB", maximum = "12 GB" }')
    world.use(OCTOBER - timedelta(days=1), 6)
    world.open(OCTOBER)
    world.use(OCTOBER + timedelta(days=1), 31)  # before September is closed: 1 GB is charged
    assert world.posted(OCTOBER) == 50
    assert world.close(OCTOBER + timedelta(days=3)) == 2
    assert world.close(OCTOBER + timedelta(days=3)) == 0
    world.rerate()
    assert world.posted(OCTOBER) == 0
    assert world.buckets() == [
        ("month", "allowance", 20, 6, 0),
        ("month", "allowance", 30, 19, 0),
        ("month", "rollover", 12, 12, 0),
    ]
    ended = connection.execute(
        """select kind, quantity / 1000000000 from bucket_entry where kind in ('expire', 'roll-out')
             and bucket_id = (select min(id) from bucket where account_id = %s and name = 'month') order by kind""",
        (world.accounts["alice"][0],),
    ).fetchall()
    assert ended == [("expire", 2), ("roll-out", 12)]
    world.open(NOVEMBER)
    world.close(NOVEMBER + timedelta(days=3))
    # 11 GB of October are left; what was rolled over is not again.
    assert world.buckets()[-1] == ("month", "rollover", 11, 0, 0)


def test_overage_that_is_kept_is_taken_from_the_next_grant(connection):
    world = World(connection, 'blocks = true\noverage = "absorb"\nkeeps_overage = true')
    world.use(OCTOBER - timedelta(days=1), 24)
    world.open(OCTOBER)
    assert world.posted(OCTOBER - timedelta(days=1)) == 0
    assert world.buckets() == [("month", "allowance", 20, 20, 4), ("month", "allowance", 30, 4, 0)]
    world.use(OCTOBER - timedelta(hours=2), 40)  # late, before September is closed
    world.close(OCTOBER + timedelta(days=3))
    assert world.buckets() == [("month", "allowance", 20, 20, 44), ("month", "allowance", 30, 30, 14)]
    world.open(NOVEMBER)
    assert world.buckets()[-1] == ("month", "allowance", 30, 14, 0)


def test_members_use_what_the_head_shares_while_they_are_in_its_group(connection):
    world = World(connection, "")
    world.open(OCTOBER)
    with pytest.raises(Refused, match="no charging group"):
        leave_group(world.desk, "bob")
    join_group(world.desk, "bob", "alice")
    for name, head in (("alice", "bob"), ("bob", "alice")):
        with pytest.raises(Refused):
            join_group(world.desk, name, head)
    world.use(OCTOBER + timedelta(days=1), 40, "bob")
    assert (world.buckets("alice")[-1][3], world.buckets("bob")[-1][3]) == (30, 10)
    assert leave_group(world.desk, "bob") == "alice"
    world.use(OCTOBER + timedelta(days=2), 25, "bob")
    assert world.posted(OCTOBER, "bob") == 250
    kinds = connection.execute("select kind from event where object_kind = 'account' order by id").fetchall()
    assert kinds == [("account.joined-group",), ("account.left-group",)]


def test_a_bucket_in_retrospect_has_its_usage_rated_again_and_one_that_is_ended_covers_no_more(connection):
    world = World(connection, "")
    now = OCTOBER + timedelta(days=2)
    world.use(now - timedelta(days=1), 31)
    assert world.posted(OCTOBER) == 50
    terms = BucketTerms("sorry", Measure.TOTAL, 10 * GB, kind=BucketKind.PROMOTION)
    bucket_id = grant_bucket(world.desk, ToGrant("alice", terms, OCTOBER, None), now=now)
    world.rerate()
    assert world.posted(OCTOBER) == 0
    end_bucket(world.desk, bucket_id, now=now)
    world.use(now + timedelta(days=1), 1)
    assert world.posted(OCTOBER) == 50


def test_a_bucket_begins_and_ends_for_usage_too_that_was_rated_meanwhile(connection):
    """While an operator thinks, or by a NAS whose clock is ahead, usage behind the instant has been rated already."""
    world = World(connection, "")
    now = OCTOBER + timedelta(days=2)
    world.use(now - timedelta(days=1), 30)
    terms = BucketTerms("gift", Measure.TOTAL, 10 * GB, kind=BucketKind.PROMOTION)
    grant_bucket(world.desk, ToGrant("alice", terms, now, None), now=now)
    assert connection.execute("select from dirty_group").fetchall() == []
    world.use(now + timedelta(hours=1), 11)
    assert world.posted(OCTOBER) == 50
    bucket_id = grant_bucket(world.desk, ToGrant("alice", terms, now, None), now=now)
    world.rerate()
    assert world.posted(OCTOBER) == 0
    end_bucket(world.desk, bucket_id, now=now + timedelta(minutes=30))
    world.rerate()
    assert world.posted(OCTOBER) == 50


def test_money_in_retrospect_pays_what_is_still_owed_of_the_usage_of_its_time(connection):
    world = World(connection, "")
    second, now = OCTOBER + timedelta(days=2), OCTOBER + timedelta(days=4)
    world.use(second - timedelta(days=1), 34)
    world.use(second + timedelta(days=1), 6)
    assert _balances(connection)["unbilled-receivable"] == 500
    for name, euros in (("first", 1), ("second", 9)):
        terms = BucketTerms(name, None, euros * PICOUNITS, kind=BucketKind.PROMOTION)
        grant_bucket(world.desk, ToGrant("alice", terms, second, None), now=now)
    for _ in range(2):  # the second time there is nothing left to be paid
        connection.execute("update dirty_group set from_at = %s", (BEGAN,))
        world.rerate()
        assert _balances(connection) == {
            "unbilled-receivable": 200, "deferred-revenue": 300, "revenue:data": -500,
        }  # fmt: skip
        connection.execute(
            "insert into dirty_group (head_account_id, from_at, reason) values (%s, %s, 'test')",
            (world.accounts["alice"][0], BEGAN),
        )
    used = connection.execute("select used from bucket where measure is null order by id").fetchall()
    assert used == [(PICOUNITS,), (2 * PICOUNITS,)]
    assert [law for law, statement in MONEY_LAWS if connection.execute(statement).fetchall()] == []


def test_what_a_plan_grants_ends_with_the_subscription_to_it(connection):
    world = World(connection, ALWAYS)
    world.open(OCTOBER)
    ends = OCTOBER + timedelta(days=4)
    connection.execute("update subscription set during = tstzrange(lower(during), %s)", (ends,))
    lasting = "select until_at from bucket where name = %s and from_at = %s"
    assert connection.execute(lasting, ("month", OCTOBER)).fetchall() == [(ends,)] * 2
    assert connection.execute(lasting, ("month", BEGAN)).fetchall() == [(OCTOBER,)] * 2
    assert connection.execute(lasting, ("always", BEGAN)).fetchall() == [(ends,)] * 2
    # What is valid for a time of its own is so; and what ended with it goes on with it after all.
    assert connection.execute(lasting, ("hello", BEGAN)).fetchall() == [(BEGAN + timedelta(days=90),)] * 2
    connection.execute("update bucket set until_at = %s where id = 1", (OCTOBER - timedelta(days=1),))  # by hand
    connection.execute("update subscription set during = tstzrange(lower(during), null)")
    assert connection.execute(lasting, ("month", OCTOBER)).fetchall() == [(NOVEMBER,)] * 2
    assert connection.execute(lasting, ("always", BEGAN)).fetchall() == [(None,)] * 2
    assert connection.execute("select until_at from bucket where id = 1").fetchone() == (OCTOBER - timedelta(days=1),)


def test_money_that_was_paid_is_deferred_until_it_is_lost(connection):
    world = World(connection, "")
    now = OCTOBER + timedelta(days=2)
    terms = BucketTerms("card", None, 10 * PICOUNITS, kind=BucketKind.TOP_UP)
    top_up(world.desk, ToGrant("alice", terms, now, now + timedelta(days=1)), now=now)
    assert _balances(connection) == {"cash": 1000, "deferred-revenue": -1000}
    assert close_buckets(connection, now=now + timedelta(days=2), grace=timedelta(), limit=10).count == 1
    assert _balances(connection) == {"cash": 1000, "deferred-revenue": 0, "revenue:breakage": -1000}
    assert [law for law, violations in list_violations(connection) if violations] == []


def test_buckets_of_a_cycle_that_stays_open_keep_no_others_from_being_closed(connection):
    """They are the first in the order; a look of two at a time passes them by, and begins anew at its end."""
    world = World(connection, "")
    world.open(OCTOBER)
    after = OCTOBER + timedelta(days=1)
    connection.execute(
        "update cycle set state = 2, closed_at = %s where ends_at <= %s and account_id = %s",
        (after, after, world.accounts["bob"][0]),
    )
    count = "select count(*) from bucket where closed_at is null and until_at <= %s and account_id = %s"
    alice, bob = [
        connection.execute(count, (after, world.accounts[name][0])).fetchone()[0] for name in ("alice", "bob")
    ]
    assert alice
    assert bob
    place, closed, looks = None, 0, 0
    while looks == 0 or place is not None:
        done = close_buckets(connection, now=after, grace=timedelta(), limit=2, after=place)
        place, closed, looks = done.after, closed + done.count, looks + 1
    assert (closed, looks) == (bob, (alice + bob) // 2 + 1)
    assert connection.execute(count, (after, world.accounts["alice"][0])).fetchone() == (alice,)


def test_a_member_is_paid_no_more_of_shared_money_than_its_share(connection):
    """Bob's 10 GB beyond his and the shared allowance cost 5.00: 3.00 of them are paid, 2.00 owed."""
    world = World(connection, "")
    world.open(OCTOBER)
    join_group(world.desk, "bob", "alice")
    purse = BucketTerms(
        "purse", None, 10 * PICOUNITS, kind=BucketKind.TOP_UP, is_shared=True, member_maximum=3 * PICOUNITS
    )
    top_up(world.desk, ToGrant("alice", purse, OCTOBER, None), now=OCTOBER)
    for hour, (name, gigabytes) in enumerate((("bob", 64), ("bob", 6), ("alice", 2))):
        world.use(OCTOBER + timedelta(days=1, hours=hour), gigabytes, name)
    assert _balances(connection)["deferred-revenue"] == -1000 + 300 + 100
    assert _balances(connection)["unbilled-receivable"] == 200
    sorry = BucketTerms("sorry", Measure.TOTAL, 8 * GB, kind=BucketKind.PROMOTION)
    grant_bucket(world.desk, ToGrant("bob", sorry, OCTOBER, None), now=OCTOBER + timedelta(days=2))
    world.rerate()
    # Of 1.00 nothing is owed any more, and 2.00 are given back: so much of his share is there again.
    assert _balances(connection)["deferred-revenue"] == -1000 + 100 + 100
    assert _balances(connection)["unbilled-receivable"] == 0
    world.use(OCTOBER + timedelta(days=2), 10, "bob")
    assert _balances(connection)["deferred-revenue"] == -1000 + 300 + 100
    with connection.transaction(force_rollback=True):
        connection.execute("update bucket_member set taken = taken + 1")
        [shares] = [statement for law, statement in BUCKET_LAWS if "shares of members in money" in law]
        assert len(connection.execute(shares).fetchall()) == 2


def _balances(connection: Connection) -> dict[str, int]:
    return {row.ledger_account: row.balance_minor for row in list_balances(connection)}
