"""The ledger's entries: a debit account, a credit account and an amount above zero, so each is balanced by itself.

Entries are only ever added. What changes a posted amount is a further entry over the difference.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class LedgerAccount(StrEnum):
    """The accounts of the books; revenue has one for each component, see `revenue`."""

    RECEIVABLE = "receivable"  # invoiced and not yet paid
    UNBILLED_RECEIVABLE = "unbilled-receivable"  # earned in a cycle that is not invoiced yet
    DEFERRED_REVENUE = "deferred-revenue"  # paid or invoiced before it is earned
    CUSTOMER_CREDIT = "customer-credit"  # what we owe to the customer: overpaid, or credited
    TAX = "tax"
    CASH = "cash"
    ROUNDING = "rounding"
    BAD_DEBT = "bad-debt"
    WRITE_OFF = "write-off"


def revenue(component_name: str) -> str:
    """The revenue account of a tariff's component."""
    return f"revenue:{component_name}"


@dataclass(frozen=True, slots=True)
class Entry:
    """`amount_minor` > 0 of `currency` from the credited to the debited account, each a LedgerAccount or a revenue."""

    debit: str
    credit: str
    amount_minor: int
    currency: str

    def __post_init__(self) -> None:
        assert self.amount_minor > 0
        assert self.debit != self.credit


def difference_entry(*, before_minor: int, after_minor: int, debit: str, credit: str, currency: str) -> Entry | None:
    """The entry that brings what is posted from `before_minor` to `after_minor`; None when they are equal.

    `debit` and `credit` are the sides of a rise; a fall swaps them, for an amount is never negative.
    """
    if after_minor > before_minor:
        return Entry(debit, credit, after_minor - before_minor, currency)
    if after_minor < before_minor:
        return Entry(credit, debit, before_minor - after_minor, currency)
    return None
