"""Stories of closing cycles on real PostgreSQL: frozen once, to the minor unit, and not before all is in."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from make import make_usage, rate_all, utc
from office import Office

from sms_aaa.db.closing import list_cycle_summaries
from sms_aaa.db.engine import connect
from sms_aaa.db.partitions import create_ahead
from sms_aaa.db.usage import insert_deltas, insert_queue
from sms_aaa.flows.closing import close_cycles, list_next

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sms_aaa.db.engine import Connection

GB = 10**9
GRACE = timedelta(days=3)
APRIL = utc("2026-04-15")
pytestmark = pytest.mark.months(APRIL)

TARIFF = """
[[tariff.recurring]]
name = "line"
amount = "10.00"
period = "month"
prorate = "day"
[[tariff.usage]]
name = "up"
measure = "upload"
price = "1.00"
per = "GB"
minimum_charge = "3.00"
discount = "10"
[[tariff.usage]]
name = "down"
measure = "download"
price = "0.50"
per = "GB"
[[tariff.bound]]
name = "cap"
components = ["line", "up", "down"]
maximum = "15.00"
"""


class Closing(Office):
    """Alice, by April 2026, who may use something."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)
        create_ahead(connection, APRIL)
        self.number = 0

    def use(self, subscription_id: int, at: str, *, up_gb: int = 0, down_gb: int = 0, queued_at: str = "") -> None:
        [(account_id, service_id)] = self.connection.execute(
            """select g.account_id, g.service_id from subscription u join assignment g on g.service_id = u.service_id
               where u.id = %s""",
            [subscription_id],
        ).fetchall()
        usage = make_usage(
            self.number, account_id, service_id, at=utc(at), octets_in=up_gb * GB, octets_out=down_gb * GB
        )
        self.number += 1
        insert_deltas(self.connection, [usage])
        insert_queue(self.connection, [usage])
        self.connection.execute(
            "update rating_queue set queued_at = %s where queued_at >= now()", [utc(queued_at or at)]
        )

    def rate(self, now: str) -> None:
        rate_all(self.connection, self.shelf, now=utc(now))

    def close(self, now: str, *, limit: int = 100) -> int:
        return len(close_cycles(self.connection, self.shelf, now=utc(now), grace=GRACE, limit=limit))

    def lines(self, cycle_day: str) -> dict[tuple[str, str], int]:
        """Amounts by component and kind."""
        rows = self.connection.execute(
            """select k.name, h.kind, h.amount_minor from charge h join component k on k.id = h.component_id
               join cycle c on c.id = h.cycle_id where c.starts_at <= %(at)s and c.ends_at > %(at)s""",
            {"at": utc(cycle_day)},
        ).fetchall()
        return {(row[0], row[1]): row[2] for row in rows}


@pytest.fixture
def office(database_dsn: str) -> Iterator[Closing]:
    with connect(database_dsn, name="test") as connection:
        yield Closing(connection)
        connection.rollback()


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/Santiago"])
def test_a_cycle_is_frozen_with_its_minimum_and_cap_once(office: Closing, zone: str) -> None:
    office.plan("all", TARIFF)
    alice = office.subscribe("alice", "all", "2026-03-31 12:00", zone=zone)
    office.until("2026-04-20")
    office.use(alice, "2026-04-10", up_gb=2, down_gb=12)
    office.rate("2026-04-20")
    office.until("2026-05-02")
    assert office.close("2026-05-02") == 1  # March
    assert office.close("2026-05-03") == 0
    assert office.close("2026-05-05") == 1
    # 2 GB less 10 % are 1.80, 1.20 short of 3.00; 10 + 3 + 6 are 4 above 15.
    assert office.lines("2026-04-15") == {
        ("line", "recurring"): 1000,
        ("up", "usage"): 180,
        ("up", "minimum"): 120,
        ("down", "usage"): 600,
        ("cap", "bound"): -400,
    }
    office.until("2026-05-05")
    before = office.balances()
    assert office.close("2026-05-05") == 0
    assert office.balances() == before
    # March: one day of 31, with a minimum of a day.
    assert office.lines("2026-03-31 12:00") == {
        ("line", "recurring"): 32,
        ("up", "usage"): 0,
        ("up", "minimum"): 10,
        ("down", "usage"): 0,
    }
    account_id = office.connection.execute("select max(id) from account").fetchone()[0]
    may, april, _ = list_cycle_summaries(office.connection, [account_id], limit=10)
    assert (april.fees_minor, april.usage_minor, april.other_minor, april.adjusted_minor) == (1000, 780, -280, 0)
    assert april.closed_at == utc("2026-05-05")
    assert (may.closed_at, may.fees_minor) == (None, 1000)


def test_a_cycle_waits_for_what_was_settled_in_the_grace_and_for_what_is_to_be_rated_again(office: Closing) -> None:
    office.plan("all", TARIFF)
    alice = office.subscribe("alice", "all", "2026-04-01")
    office.until("2026-05-10")
    office.use(alice, "2026-04-20", up_gb=9, queued_at="2026-05-03")
    assert office.close("2026-05-10") == 0
    office.rate("2026-05-10")
    account_id = office.connection.execute("select max(id) from account").fetchone()[0]
    office.connection.execute(
        "insert into dirty_group (head_account_id, from_at, reason) values (%s, '2026-04-20', 'late')", [account_id]
    )
    assert office.close("2026-05-10") == 0
    office.connection.execute("delete from dirty_group")
    # Settled after the grace: it does not hold the cycle up, and is an adjustment.
    office.use(alice, "2026-04-21", up_gb=1, queued_at="2026-05-09")
    assert len(list_next(office.connection, now=utc("2026-05-10"), grace=GRACE, but=())) == 1
    assert office.close("2026-05-10") == 1
    assert office.lines("2026-04-15")["up", "usage"] == 810
    office.rate("2026-05-10")
    assert office.lines("2026-04-15")["up", "usage"] == 810
    # The cap was reached before: what comes late is above it too.
    adjusted = office.connection.execute("select amount_minor from adjustment order by id").fetchall()
    assert adjusted == [(90,), (-90,)]


def test_a_cycle_waits_for_its_fees_and_for_the_one_before_it(office: Closing) -> None:
    office.plan("all", TARIFF)
    office.subscribe("alice", "all", "2026-04-01")
    office.until("2026-05-10")
    office.connection.execute("update cycle_due set due_at = '2026-05-01'")
    assert office.close("2026-06-10") == 0
    office.until("2026-06-10")
    assert office.close("2026-06-10") == 1
    assert office.close("2026-06-10") == 1
    assert office.close("2026-06-10") == 0


CARRIED = """
carry = "on"
[[tariff.usage]]
name = "data"
measure = "total"
per = "GB"
tiers = [{ up_to = "10 GB", price = "1.00" }, { price = "0.50" }]
"""


def test_tiers_that_are_carried_on_begin_where_late_usage_left_the_old_plan(office: Closing) -> None:
    office.plan("old", CARRIED)
    office.plan("new", CARRIED.replace("1.00", "2.00"))
    alice = office.subscribe("alice", "old", "2026-04-01")
    office.until("2026-04-02")
    office.use(alice, "2026-04-03", down_gb=4)
    office.rate("2026-04-03")
    changed = office.change(alice, "new", "2026-04-11")
    office.use(changed, "2026-04-12", down_gb=5)
    office.rate("2026-04-12")
    office.use(alice, "2026-04-05", down_gb=3, queued_at="2026-04-13")
    office.rate("2026-04-13")
    # On the new plan 5 GB from 4 on, at 2.00 each, though the old one is at 7 by now.
    totals = "select quantity - carried, carried, posted_minor from usage_total order by subscription_id, cycle_id"
    assert office.connection.execute(totals).fetchall() == [(7 * GB, 0, 700), (5 * GB, 4 * GB, 1000)]
    while office.close("2026-05-10") == 0:
        office.until_unchecked("2026-05-10")
    # From 7 on: 3 GB at 2.00, 2 at 0.50.
    assert office.connection.execute(totals).fetchall()[:2] == [(7 * GB, 0, 700), (5 * GB, 7 * GB, 700)]
    office.until("2026-05-10")
    assert office.lines("2026-04-12")["data", "usage"] == 700


def test_a_cycle_whose_ledger_is_off_is_not_closed(office: Closing) -> None:
    office.plan("all", TARIFF)
    office.subscribe("alice", "all", "2026-04-01")
    office.until("2026-05-10")
    office.connection.execute("update usage_total set posted_minor = 7")
    with pytest.raises(AssertionError, match="the ledger has what usage comes to"):
        office.close("2026-05-10")
