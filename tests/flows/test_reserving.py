"""Online charging on real PostgreSQL: fifty at once never hold more than there is, and use what is in the grants."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier
from typing import TYPE_CHECKING

import pytest
from make import make_desk, make_nas, make_plan, make_subscriber, utc

from sms_aaa.db.buckets import insert_buckets
from sms_aaa.db.engine import connect
from sms_aaa.db.reconcile_buckets import BUCKET_LAWS
from sms_aaa.flows.granting import bucket_of
from sms_aaa.flows.reserving import Asked, NoTariff, expire_holds, release, reserve, settle
from sms_aaa.flows.shelf import PlanShelf
from sms_aaa.rules.buckets import BucketKind, BucketTerms
from sms_aaa.rules.measure import Measure
from sms_aaa.rules.money import PICOUNITS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sms_aaa.db.engine import Connection

NOW = utc("2026-11-10 12:00:00")
MB, GB = 10**6, 10**9
CALLERS = 50

LAWS = """
select b.id from bucket b where used + reserved > granted
  or reserved <> (select coalesce(sum(quantity), 0) from reservation r where r.bucket_id = b.id)
  or (used, reserved, overrun) <> (
    select coalesce(sum(quantity) filter (where kind in ('use', 'adjust')), 0),
           coalesce(sum(case kind when 'reserve' then quantity when 'release' then -quantity end), 0),
           coalesce(sum(quantity) filter (where kind = 'overrun'), 0)
    from bucket_entry e where e.bucket_id = b.id)
"""


class World:
    """Alice with 1 GB included at 0.50 EUR per GB beyond, and buckets of her own."""

    def __init__(self, dsn: str, connection: Connection) -> None:
        self.dsn = dsn
        self.connection = connection
        desk = make_desk(connection)
        make_nas(desk)
        make_plan(desk, included="1 octet")  # so the first octet beyond buckets is free
        make_subscriber(desk)
        connection.execute("update subscription set during = tstzrange('2026-09-01', null)")
        connection.execute("update assignment set during = tstzrange('2026-09-01', null)")
        self.account_id = connection.execute("select id from account").fetchone()[0]
        self.shelf = PlanShelf()
        connection.commit()

    def grant(self, name: str, amount: int, measure: Measure | None = Measure.TOTAL, **more: object) -> int:
        terms = BucketTerms(name, measure, amount, kind=BucketKind.TOP_UP, **more)
        bucket = bucket_of(
            terms, account_id=self.account_id, currency="EUR", from_at=NOW - timedelta(days=1), until_at=None,
            created_at=NOW, granted=amount,
        )  # fmt: skip
        [bucket_id] = insert_buckets(self.connection, [bucket])
        self.connection.commit()
        return bucket_id

    def asked(self, session: str, quantity: int, lasts: int = 3600) -> Asked:
        return Asked(
            account_id=self.account_id, session=session, measure=Measure.TOTAL, quantity=quantity,
            lasts=timedelta(seconds=lasts),
        )  # fmt: skip

    def reserve(self, session: str, quantity: int, lasts: int = 3600) -> int:
        made = reserve(self.connection, self.shelf, self.asked(session, quantity, lasts), now=NOW)
        assert not isinstance(made, NoTariff), made
        self.check()
        return made.granted

    def bucket(self, bucket_id: int) -> tuple[int, int, int]:
        row = self.connection.execute(
            "select used, reserved, overrun from bucket where id = %s", (bucket_id,)
        ).fetchone()
        return tuple(int(value) for value in row)

    def check(self) -> None:
        assert self.connection.execute(LAWS).fetchall() == []


@pytest.fixture
def world(database_dsn: str) -> Iterator[World]:
    with connect(database_dsn, name="test") as connection:
        yield World(database_dsn, connection)
        connection.rollback()


def limit_credit(world: World, minor: int | None, mode: str = "postpaid") -> None:
    world.connection.execute("update account set credit_limit_minor = %s, charging_mode = %s", (minor, mode))


def test_fifty_at_once_are_promised_what_there_is_and_no_octet_more(world):
    """Of 20 portions and a piece, with nothing that may be owed: 20 get one, one gets the piece, 29 get nothing."""
    bucket_id = world.grant("data", 20 * MB + 7)
    limit_credit(world, 0, "prepaid")
    world.connection.commit()
    begin = Barrier(CALLERS)

    def call(number: int) -> int:
        with connect(world.dsn, name="test") as connection:
            begin.wait()
            made = reserve(connection, PlanShelf(), world.asked(f"login-{number}", MB), now=NOW)
            connection.commit()
            assert connection.execute(LAWS).fetchall() == []
        return made.granted

    with ThreadPoolExecutor(CALLERS) as pool:
        granted = sorted(pool.map(call, range(CALLERS)))
    assert granted == [0] * 29 + [8] + [MB] * 20
    assert world.bucket(bucket_id) == (0, 20 * MB + 7, 0)


def test_settling_and_giving_back_among_fifty_never_exceeds_a_grant(world):
    """What they settle beyond their promises and what is left is a named overrun; all else is within the grants."""
    buckets = [world.grant("first", 15 * MB + 1, priority=10), world.grant("second", 10 * MB)]
    limit_credit(world, 0, "prepaid")
    world.connection.commit()
    begin = Barrier(CALLERS)

    def call(number: int) -> tuple[int, int]:
        chance = random.Random(number)
        settled = overrun = 0
        with connect(world.dsn, name="test") as connection:
            begin.wait()
            for turn in range(3):
                session = f"login-{number}-{turn}"
                promised = reserve(connection, PlanShelf(), world.asked(session, chance.randrange(MB)), now=NOW)
                connection.commit()
                assert connection.execute(LAWS).fetchall() == []
                # An octet whose price rounds to nothing is promised beyond all buckets.
                if chance.random() < 0.5 and promised.granted > promised.priced:
                    quantity = chance.randrange(2 * promised.granted)
                    overrun += settle(connection, world.account_id, session, quantity)
                    settled += quantity
                else:
                    release(connection, world.account_id, session)
                connection.commit()
                assert connection.execute(LAWS).fetchall() == []
        return settled, overrun

    with ThreadPoolExecutor(CALLERS) as pool:
        done = list(pool.map(call, range(CALLERS)))
    used, reserved, overruns = zip(*map(world.bucket, buckets), strict=True)
    assert reserved == (0, 0)
    assert sum(overruns) == sum(overrun for _, overrun in done)
    assert sum(used) + sum(overruns) == sum(settled for settled, _ in done)
    assert world.connection.execute("select count(*) from reservation").fetchone() == (0,)


def test_buckets_come_in_their_order_then_money_and_what_may_be_owed(world):
    first, money = world.grant("first", 100 * MB, priority=1), world.grant("money", 30 * 10**10, None)
    limit_credit(world, 20)
    # 0.30 EUR in the bucket and 0.20 EUR that may be owed pay for 1 GB at 0.50 EUR.
    assert world.reserve("a", 2 * GB) == 100 * MB + GB + 1
    assert world.bucket(first) == (0, 100 * MB, 0)
    assert world.bucket(money) == (0, 30 * PICOUNITS // 100, 0)
    held = world.connection.execute("select quantity from reservation where bucket_id is null").fetchall()
    assert held == [(20 * PICOUNITS // 100,)]
    assert world.reserve("b", MB) == 0
    assert release(world.connection, world.account_id, "a") == 3
    world.check()
    assert world.reserve("b", 2 * GB) == 100 * MB + GB + 1


def test_what_a_member_settles_is_of_its_share(world):
    bucket_id = world.grant("family", 100 * MB, is_shared=True, member_maximum=30 * MB)
    limit_credit(world, 0, "prepaid")
    assert world.reserve("a", 20 * MB) == 20 * MB
    assert settle(world.connection, world.account_id, "a", 25 * MB) == 0
    assert world.reserve("b", 20 * MB) == 5 * MB + 1  # the first octet beyond buckets is free
    assert settle(world.connection, world.account_id, "b", 7 * MB) == 2 * MB
    assert world.bucket(bucket_id) == (30 * MB, 0, 2 * MB)
    world.check()
    for law, statement in BUCKET_LAWS:
        assert world.connection.execute(statement).fetchall() == [], law
    world.connection.execute("update bucket_member set taken = taken + 1")
    assert [law for law, statement in BUCKET_LAWS if world.connection.execute(statement).fetchall()] == [
        "shares of members and sessions are what rated usage took"
    ]


def test_what_is_owed_already_and_what_was_asked_before_counts(world):
    limit_credit(world, 100)
    world.connection.execute(
        "insert into entry (account_id, debit, credit, amount_minor, currency)"
        " values (%s, 'unbilled-receivable', 'revenue:data', 75, 'EUR')",
        (world.account_id,),
    )
    assert world.reserve("a", GB) == GB // 2 + 1  # 0.25 EUR are left
    assert world.reserve("a", GB) == 0
    limit_credit(world, None)
    assert world.reserve("a", GB) == GB  # postpaid without a limit: nothing is held for it
    assert world.connection.execute("select sum(quantity) from reservation").fetchone() == (PICOUNITS // 4,)


def test_a_hold_is_extended_and_ends_by_itself(world):
    bucket_id = world.grant("data", 100 * MB)
    limit_credit(world, 0, "prepaid")
    assert world.reserve("a", 60 * MB, lasts=60) == 60 * MB
    assert world.reserve("a", 60 * MB, lasts=120) == 40 * MB + 1
    assert expire_holds(world.connection, now=NOW + timedelta(seconds=119), limit=10) == 0
    assert world.bucket(bucket_id) == (0, 100 * MB, 0)
    assert expire_holds(world.connection, now=NOW + timedelta(seconds=120), limit=10) == 2
    assert world.bucket(bucket_id) == (0, 0, 0)
    world.check()


def test_a_threshold_is_told_once_in_the_transaction_that_reaches_it(world):
    bucket_id = world.grant("data", 100 * MB)
    limit_credit(world, 0, "prepaid")

    def events() -> list[int]:
        rows = world.connection.execute(
            "select (payload->>'percent')::int from event where kind = 'bucket.threshold' and object_id = %s"
            " order by id",
            (bucket_id,),
        ).fetchall()
        return [percent for (percent,) in rows]

    world.reserve("a", 80 * MB - 1)
    assert events() == []
    world.reserve("a", 1)
    assert events() == [80]
    release(world.connection, world.account_id, "a")
    world.reserve("b", 100 * MB)
    assert events() == [80, 100]
    settle(world.connection, world.account_id, "b", 200 * MB)
    assert events() == [80, 100]
    assert world.bucket(bucket_id) == (100 * MB, 0, 100 * MB)
