"""The ledger's entries: a debit account, a credit account and an amount above zero, so each is balanced by itself.

Entries are only ever added. What changes a posted amount is a further entry over the difference. Which two accounts a
business event moves stands in one table; what takes an event back moves them the other way round.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


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


REVENUE_PREFIX = "revenue:"


class Event(Enum):
    """What happens to money. `by_component`: it is a component's, whose revenue account it credits."""

    USAGE = "usage"  # priced, in a cycle that is not invoiced yet; a price that falls takes it back
    FEE = "fee"  # of a period that ends with its cycle or before: earned when it falls due
    FEE_DEFERRED = "fee-deferred"  # of a period beyond its cycle: charged now, earned later
    EARNING = "earning"  # of a deferred fee, as its time goes by
    ADJUSTMENT = "adjustment"  # of a closed cycle, by late usage or a re-rating
    TOP_UP = "top-up"  # paid into a money bucket: ours when it is used
    BUCKET_USE = "bucket-use"  # of a money bucket, for usage
    BUCKET_EXPIRY = "bucket-expiry"  # what was left of it is ours
    PAYMENT = "payment"  # that no invoice takes yet
    INVOICE = "invoice"  # what was unbilled is owed by a date
    TAX = "tax"  # on an invoice
    ALLOCATION = "allocation"  # of a payment or a credit to an invoice
    REFUND = "refund"  # of a credit
    ROUNDING = "rounding"  # of an invoice's total, to what can be paid
    BAD_DEBT = "bad-debt"  # owed, and given up as lost
    WRITE_OFF = "write-off"  # owed, and let go by choice


def revenue(component_name: str) -> str:
    """The revenue account of a tariff's component."""
    return f"{REVENUE_PREFIX}{component_name}"


BREAKAGE = revenue("breakage")
"""The revenue of what was paid for and never used."""

_COMPONENT_REVENUE = ""
"""In the table: the revenue account of the event's component."""

_A = LedgerAccount
SIDES: Mapping[Event, tuple[str, str]] = {
    Event.USAGE: (_A.UNBILLED_RECEIVABLE, _COMPONENT_REVENUE),
    Event.FEE: (_A.UNBILLED_RECEIVABLE, _COMPONENT_REVENUE),
    Event.FEE_DEFERRED: (_A.UNBILLED_RECEIVABLE, _A.DEFERRED_REVENUE),
    Event.EARNING: (_A.DEFERRED_REVENUE, _COMPONENT_REVENUE),
    Event.ADJUSTMENT: (_A.UNBILLED_RECEIVABLE, _COMPONENT_REVENUE),
    Event.TOP_UP: (_A.CASH, _A.DEFERRED_REVENUE),
    Event.BUCKET_USE: (_A.DEFERRED_REVENUE, _COMPONENT_REVENUE),
    Event.BUCKET_EXPIRY: (_A.DEFERRED_REVENUE, BREAKAGE),
    Event.PAYMENT: (_A.CASH, _A.CUSTOMER_CREDIT),
    Event.INVOICE: (_A.RECEIVABLE, _A.UNBILLED_RECEIVABLE),
    Event.TAX: (_A.RECEIVABLE, _A.TAX),
    Event.ALLOCATION: (_A.CUSTOMER_CREDIT, _A.RECEIVABLE),
    Event.REFUND: (_A.CUSTOMER_CREDIT, _A.CASH),
    Event.ROUNDING: (_A.RECEIVABLE, _A.ROUNDING),
    Event.BAD_DEBT: (_A.BAD_DEBT, _A.RECEIVABLE),
    Event.WRITE_OFF: (_A.WRITE_OFF, _A.RECEIVABLE),
}
"""(debit, credit) of each event's amount above zero."""


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


def sides_of(event: Event, *, component: str | None = None) -> tuple[str, str]:
    """(debit, credit) of an event's amount above zero.

    `component` is named by events of a component's revenue, and by no others.
    """
    sides = SIDES[event]
    assert (component is not None) == (_COMPONENT_REVENUE in sides), "a component's revenue is a component's"
    debit, credit = (side or revenue(component or "") for side in sides)
    return debit, credit


def post(event: Event, amount_minor: int, currency: str, *, component: str | None = None) -> Entry | None:
    """The entry of an event, see `sides_of`; below zero it takes that much of it back, and of nothing there is none."""
    if not amount_minor:
        return None
    debit, credit = sides_of(event, component=component)
    if amount_minor < 0:
        debit, credit = credit, debit
    return Entry(debit, credit, abs(amount_minor), currency)


def are_of_event(debit: str, credit: str, component: str | None) -> bool:
    """Whether some event moves these two accounts, one way or the other; `component`: that the entry is of, if any."""
    known = [
        sides_of(event, component=component if _COMPONENT_REVENUE in sides else None)
        for event, sides in SIDES.items()
        if component is not None or _COMPONENT_REVENUE not in sides
    ]
    return (debit, credit) in known or (credit, debit) in known
