"""Entries are balanced, above zero, and add up to what they should show."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sms_aaa.rules.ledger import REVENUE_PREFIX, SIDES, Entry, Event, LedgerAccount, are_of_event, post, revenue

DEBIT, CREDIT = LedgerAccount.UNBILLED_RECEIVABLE, revenue("data")


def test_each_component_has_its_revenue_account() -> None:
    assert revenue("monthly-fee") == "revenue:monthly-fee"


@pytest.mark.parametrize(
    ("amount_minor", "entry"),
    [
        (150, Entry(DEBIT, CREDIT, 150, "EUR")),
        (-150, Entry(CREDIT, DEBIT, 150, "EUR")),
        (1, Entry(DEBIT, CREDIT, 1, "EUR")),
        (0, None),
    ],
)
def test_a_difference_is_posted_and_a_fall_swaps_the_sides(amount_minor: int, entry: Entry | None) -> None:
    assert post(Event.USAGE, amount_minor, "EUR", component="data") == entry


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(-(10**12), 10**12), max_size=30))
def test_differences_add_up_to_the_last_total_on_both_sides(totals: list[int]) -> None:
    entries = [post(Event.USAGE, after - before, "EUR", component="data") for before, after in pairwise([0, *totals])]
    balances = {DEBIT: 0, CREDIT: 0}
    for entry in entries:
        if entry is not None:
            balances[entry.debit] += entry.amount_minor
            balances[entry.credit] -= entry.amount_minor
    last = totals[-1] if totals else 0
    assert balances == {DEBIT: last, CREDIT: -last}


@pytest.mark.parametrize(("debit", "amount_minor"), [(DEBIT, 0), (DEBIT, -1), (CREDIT, 1)])
def test_an_entry_of_nothing_or_with_itself_cannot_be_made(debit: str, amount_minor: int) -> None:
    with pytest.raises(AssertionError):
        Entry(debit, CREDIT, amount_minor, "EUR")


def test_each_event_has_its_two_accounts() -> None:
    assert SIDES.keys() == set(Event)
    entries = {event: post(event, 5, "EUR", component=component_of(event)) for event in Event}
    assert {event.value: f"{entry.debit} to {entry.credit}" for event, entry in entries.items() if entry} == {
        "usage": "unbilled-receivable to revenue:data",
        "fee": "unbilled-receivable to revenue:data",
        "fee-deferred": "unbilled-receivable to deferred-revenue",
        "earning": "deferred-revenue to revenue:data",
        "adjustment": "unbilled-receivable to revenue:data",
        "top-up": "cash to deferred-revenue",
        "bucket-use": "deferred-revenue to revenue:data",
        "bucket-expiry": "deferred-revenue to revenue:breakage",
        "payment": "cash to customer-credit",
        "invoice": "receivable to unbilled-receivable",
        "tax": "receivable to tax",
        "allocation": "customer-credit to receivable",
        "refund": "customer-credit to cash",
        "rounding": "receivable to rounding",
        "bad-debt": "bad-debt to receivable",
        "write-off": "write-off to receivable",
    }
    for entry in entries.values():
        assert entry is not None
        component = "data" if "revenue:data" in {entry.debit, entry.credit} else None
        assert are_of_event(entry.debit, entry.credit, component)
        assert are_of_event(entry.credit, entry.debit, component)
    assert not are_of_event("unbilled-receivable", "revenue:data", "voice")
    assert not are_of_event("cash", "revenue:data", "data")
    used = {side for sides in SIDES.values() for side in sides if side and not side.startswith(REVENUE_PREFIX)}
    assert used == set(LedgerAccount)


def component_of(event: Event) -> str | None:
    return "data" if "" in SIDES[event] else None


@given(st.sampled_from(Event), st.integers(-(10**12), 10**12))
def test_what_is_taken_back_leaves_nothing(event: Event, amount_minor: int) -> None:
    there, back = (post(event, sign * amount_minor, "JPY", component=component_of(event)) for sign in (1, -1))
    if there is None or back is None:
        assert there is back is None
        assert amount_minor == 0
    else:
        assert (there.debit, there.credit, there.amount_minor) == (back.credit, back.debit, abs(amount_minor))
        assert back.amount_minor == there.amount_minor


def test_a_component_is_named_where_its_revenue_is_meant_and_nowhere_else() -> None:
    with pytest.raises(AssertionError):
        post(Event.USAGE, 1, "EUR")
    with pytest.raises(AssertionError):
        post(Event.TOP_UP, 1, "EUR", component="data")
    assert not are_of_event("unbilled-receivable", "revenue:", None)


def test_a_top_up_that_is_used_up_is_revenue_and_nothing_is_deferred_any_more() -> None:
    story = [(Event.TOP_UP, 1000, None), (Event.BUCKET_USE, 700, "data"), (Event.BUCKET_USE, -50, "data"),
             (Event.BUCKET_EXPIRY, 350, None)]  # fmt: skip
    balances: dict[str, int] = {}
    for event, amount_minor, component in story:
        entry = post(event, amount_minor, "EUR", component=component)
        assert entry is not None
        balances[entry.debit] = balances.get(entry.debit, 0) + entry.amount_minor
        balances[entry.credit] = balances.get(entry.credit, 0) - entry.amount_minor
    assert balances == {"cash": 1000, "deferred-revenue": 0, "revenue:data": -650, "revenue:breakage": -350}
