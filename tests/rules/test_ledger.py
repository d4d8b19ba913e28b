"""Entries are balanced, above zero, and add up to what they should show."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sms_aaa.rules.ledger import Entry, LedgerAccount, difference_entry, revenue

DEBIT, CREDIT = LedgerAccount.UNBILLED_RECEIVABLE, revenue("data")


def test_each_component_has_its_revenue_account() -> None:
    assert revenue("monthly-fee") == "revenue:monthly-fee"


@pytest.mark.parametrize(
    ("before_minor", "after_minor", "entry"),
    [
        (100, 250, Entry(DEBIT, CREDIT, 150, "EUR")),
        (250, 100, Entry(CREDIT, DEBIT, 150, "EUR")),
        (0, 1, Entry(DEBIT, CREDIT, 1, "EUR")),
        (7, 7, None),
    ],
)
def test_a_difference_is_posted_and_a_fall_swaps_the_sides(
    before_minor: int, after_minor: int, entry: Entry | None
) -> None:
    posted = difference_entry(
        before_minor=before_minor, after_minor=after_minor, debit=DEBIT, credit=CREDIT, currency="EUR"
    )
    assert posted == entry


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(-(10**12), 10**12), max_size=30))
def test_differences_add_up_to_the_last_total_on_both_sides(totals: list[int]) -> None:
    entries = [
        difference_entry(before_minor=before, after_minor=after, debit=DEBIT, credit=CREDIT, currency="EUR")
        for before, after in pairwise([0, *totals])
    ]
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
