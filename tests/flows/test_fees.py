"""Stories of fees on real PostgreSQL: each is charged once, when it falls due, for its own service period."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from make import utc
from office import Office
from psycopg.rows import TupleRow

from sms_aaa.db.engine import connect
from sms_aaa.flows.cycles import open_cycles
from sms_aaa.flows.shelf import PlanShelf

if TYPE_CHECKING:
    from collections.abc import Iterator

MONTHLY = """
[[tariff.recurring]]
name = "line"
amount = "30.00"
period = "month"
prorate = "day"
"""


@pytest.fixture
def office(database_dsn: str) -> Iterator[Office]:
    with connect(database_dsn, name="test") as connection:
        yield Office(connection)
        connection.rollback()


def test_fees_are_charged_in_advance_in_arrears_and_once_and_given_back_at_the_end(office: Office) -> None:
    office.plan(
        "all",
        MONTHLY
        + """
[[tariff.recurring]]
name = "support"
amount = "3.10"
period = "month"
due = "arrears"
prorate = "day"
[[tariff.one_time]]
name = "setup"
amount = "49.00"
""",
    )
    alice = office.subscribe("alice", "all", "2026-03-10 09:00", zone="Europe/Berlin")
    office.until("2026-03-15")
    # 22 of 31 days; what is due in arrears is not.
    assert office.charges() == ["03-01 setup one-time 03-10..03-10 4900", "03-01 line recurring 03-10..04-01 2129"]
    office.until("2026-04-20")
    office.end(alice, "2026-04-20 12:00")
    office.until("2026-04-21")
    assert office.charges() == [
        "03-01 setup one-time 03-10..03-10 4900",
        "03-01 line recurring 03-10..04-01 2129",
        "03-01 support recurring 03-10..04-01 220",
        "04-01 line recurring 04-01..05-01 3000",
        "04-01 support recurring 04-01..04-20 207",
        # 20 April was begun: 10 of 30 days come back.
        "04-01 line credit 04-20..05-01 -1000",
    ]
    assert office.connection.execute("select count(*) from cycle_due").fetchone() == (0,)
    owed = 4900 + 2129 + 220 + 3000 + 207 - 1000
    assert office.balances()["unbilled-receivable"] == owed


@pytest.mark.parametrize("is_late", [False, True])
def test_a_quarter_is_earned_cycle_by_cycle_and_what_is_left_when_it_is_cut_short(
    office: Office, is_late: bool
) -> None:
    office.plan("quarterly", MONTHLY.replace("month", "quarter").replace("30.00", "91.00"))
    alice = office.subscribe("alice", "quarterly", "2026-04-01")
    if not is_late:
        office.until("2026-04-02")
        assert office.charges() == ["04-01 line recurring 04-01..07-01 9100"]
        # 30 of 91 days are April's.
        assert office.balances() == {"unbilled-receivable": 9100, "deferred-revenue": -6100, "revenue:line": -3000}
        office.until("2026-05-31")
    office.end(alice, "2026-06-11")
    office.until("2026-09-01")
    # A rater that was away comes to the same: 20 days are not used.
    assert office.charges() == ["04-01 line recurring 04-01..07-01 9100", "06-01 line credit 06-11..07-01 -2000"]
    assert office.revenue() == [("04-01", 3000), ("05-01", 3100), ("06-01", 1000)]
    assert office.balances() == {"unbilled-receivable": 7100, "revenue:line": -7100}


def test_a_month_of_the_subscriptions_own_falls_due_in_mid_cycle_and_not_before(office: Office) -> None:
    office.plan("own", MONTHLY + 'anchor = "subscription"\n')
    office.subscribe("alice", "own", "2026-01-31 10:00", zone="America/Santiago")
    office.until("2026-02-15")
    assert office.charges() == ["01-01 line recurring 01-31..02-28 3000"]
    office.until("2026-03-30 12:00")
    assert len(office.charges()) == 2
    office.until("2026-04-01 12:00")
    assert office.charges()[1:] == ["02-01 line recurring 02-28..03-31 3000", "03-01 line recurring 03-31..04-30 3000"]
    # January has 17 hours of the first, which is for 665.
    assert office.revenue()[:1] == [("01-01", 77)]


def test_a_change_of_plan_credits_the_old_and_charges_the_new_for_the_rest(office: Office) -> None:
    setup = '[[tariff.one_time]]\nname = "setup"\namount = "20.00"\n'
    office.plan("small", MONTHLY + setup)
    office.plan("large", MONTHLY.replace("30.00", "60.00") + setup)
    alice = office.subscribe("alice", "small", "2026-04-01")
    office.until("2026-04-05")
    office.change(alice, "large", "2026-04-11 14:00")
    office.until("2026-04-12")
    assert office.charges() == [
        "04-01 line recurring 04-01..05-01 3000",
        "04-01 setup one-time 04-01..04-01 2000",
        "04-01 line recurring 04-11..05-01 4000",
        "04-01 line credit 04-11..05-01 -2000",
    ]
    office.until("2026-05-02")
    assert office.charges()[-1] == "05-01 line recurring 05-01..06-01 6000"


def test_a_cycle_begins_with_what_costs_before_anything_is_used(office: Office) -> None:
    office.plan(
        "flat",
        """
[[tariff.usage]]
name = "data"
measure = "total"
per = "GB"
tiers = [{ up_to = "10 GB", price = "0", flat = "5.00" }, { price = "1.00" }]
""",
    )
    office.subscribe("alice", "flat", "2026-04-03", anchor_day=31)
    office.until("2026-05-02")
    rows = office.connection.execute("select quantity, posted_minor from usage_total").fetchall()
    assert rows == [(0, 500), (0, 500)]
    assert office.balances() == {"unbilled-receivable": 1000, "revenue:data": -1000}


CARRIED = """
carry = "{carry}"
[[tariff.usage]]
name = "data"
measure = "total"
per = "GB"
tiers = [{{ up_to = "10 GB", price = "1.00", flat = "5.00" }}, {{ price = "0.50" }}]
"""


@pytest.mark.parametrize(("carry", "expected"), [("on", (7 * 10**9, 7 * 10**9, 0)), ("anew", (0, 0, 500))])
def test_tiers_are_carried_on_or_begin_anew(office: Office, carry: str, expected: tuple[int, ...]) -> None:
    office.plan("old", CARRIED.format(carry="anew"))
    office.plan("new", CARRIED.format(carry=carry))
    alice = office.subscribe("alice", "old", "2026-04-01")
    office.until("2026-04-02")
    # As the rater would have it after 7 GB; what that rated is not this story's.
    office.connection.execute("update usage_total set quantity = 7 * 10^9, posted_minor = 1200, numerator = 12 * 10^21")
    changed = office.change(alice, "new", "2026-04-11 14:00")
    open_cycles(office.connection, office.shelf, now=utc("2026-04-12"), limit=10)
    row = office.connection.execute(
        "select quantity, carried, posted_minor from usage_total where subscription_id = %s", [changed]
    ).fetchone()
    assert row == expected


def test_a_fee_of_a_cycle_that_is_closed_stands_in_the_present_one_with_its_own_period(office: Office) -> None:
    office.plan("monthly", MONTHLY)
    alice = office.subscribe("alice", "monthly", "2026-04-01")
    office.until("2026-05-10")
    office.connection.execute("update cycle set state = 2, closed_at = now() where starts_at = '2026-04-01'")
    office.end(alice, "2026-04-11")
    while open_cycles(office.connection, office.shelf, now=utc("2026-05-10"), limit=10) == 10:
        pass
    assert "05-01 line credit 04-11..05-01 -2000" in office.charges()


class CountingCursor(psycopg.Cursor[TupleRow]):
    """Counts what is executed."""

    statements = 0

    def execute(self, *args: Any, **kwargs: Any) -> CountingCursor:
        CountingCursor.statements += 1
        return super().execute(*args, **kwargs)


def test_a_thousand_subscriptions_take_a_handful_of_statements(office: Office) -> None:
    office.plan("monthly", MONTHLY)
    office.subscribe("alice", "monthly", "2026-04-01")
    office.connection.execute(
        """with new as (insert into service (subscriber_id, identity_kind, identity, state)
                        select subscriber_id, 1, 'user' || n, 1 from service, generate_series(1, 999) n returning id),
                assigned as (insert into assignment (service_id, account_id, during)
                             select id, (select max(id) from account), tstzrange('2026-04-01', null) from new)
           insert into subscription (service_id, plan_version_id, during)
           select id, (select max(id) from plan_version), tstzrange('2026-04-01', null) from new"""
    )
    CountingCursor.statements = 0
    office.connection.cursor_factory = CountingCursor
    assert open_cycles(office.connection, office.shelf, now=utc("2026-04-02"), limit=2000) == 1000
    # Two of them read the plan.
    assert CountingCursor.statements <= 12
    assert office.connection.execute("select count(*), sum(amount_minor) from charge").fetchone() == (1000, 3_000_000)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    zone=st.sampled_from(["UTC", "Europe/Berlin", "America/Santiago", "Pacific/Apia"]),
    anchor_day=st.integers(1, 31),
    plans=st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=3),
    hours=st.lists(st.integers(1, 700), min_size=3, max_size=3),
    ends=st.booleans(),
    looks=st.lists(st.integers(1, 2000), max_size=4),
)
def test_when_the_rater_looks_changes_no_charge_and_no_revenue(
    office: Office, zone: str, anchor_day: int, plans: list[str], hours: list[int], *, ends: bool, looks: list[int]
) -> None:
    """As the rules have it, whenever the rater looks, and to the same revenue as one that looks but once."""
    fees = {
        "a": MONTHLY + MONTHLY.replace("line", "quarter").replace("month", "quarter"),
        "b": MONTHLY.replace("day", "second") + 'anchor = "subscription"\n',
        "c": MONTHLY + 'due = "arrears"\n' + MONTHLY.replace("line", "week").replace("month", "week"),
    }
    results = []
    for moments in (sorted(looks), []):
        office.connection.rollback()
        office.shelf = PlanShelf()
        for name, tariff in fees.items():
            office.plan(name, tariff)
        at = utc("2026-01-20 10:00")
        running = office.subscribe("alice", plans[0], f"{at:%Y-%m-%d %H:%M}", zone=zone, anchor_day=anchor_day)
        for plan, length in zip([*plans[1:], "" if ends else None], hours, strict=False):
            if plan is None:
                break
            at += timedelta(hours=length)
            if plan:
                running = office.change(running, plan, f"{at:%Y-%m-%d %H:%M}")
            else:
                office.end(running, f"{at:%Y-%m-%d %H:%M}")
        for moment in moments:
            office.until_unchecked(f"{utc('2026-01-20') + timedelta(hours=moment):%Y-%m-%d %H:%M}")
        office.until("2026-05-01")
        results.append((office.charges(), office.revenue(), office.balances()))
    assert results[0] == results[1]
