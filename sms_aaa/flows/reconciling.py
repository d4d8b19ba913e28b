"""The proof that counted = rated = posted, told as a value.

Octets are counted again from the deltas and summed again from the rated rows; running totals are looked at only to be
compared with these sums. Each direction of an account has to balance: counted = rated + waiting + in suspense; and
each cycle of it, where what is rated is priced, covered by a bucket or not covered behind one that blocks. What
belongs to no account is not lost but excluded, by name; what could not be settled is in quarantine, by reason. To be
called in one snapshot: settler and rater go on.

Books can agree with each other and be wrong all the same. So every total is priced again by its tariff, and every fee
that a cycle owes is looked for: these laws take the plans, and are judged here rather than by a query.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from sms_aaa.db import closing as db_closing
from sms_aaa.db import ledger as db_ledger
from sms_aaa.db import reconcile as db_reconcile
from sms_aaa.db.engine import widen_memory
from sms_aaa.db.reconcile import Violation
from sms_aaa.db.reconcile_money import stream_session_prices
from sms_aaa.flows.freezing import list_lines
from sms_aaa.flows.reconciling_fees import FEE_LAW, fee_violations
from sms_aaa.rules.ledger import are_of_event
from sms_aaa.rules.pricing import amount_minor, opening_numerator, price_numerator
from sms_aaa.rules.tariff import Scope

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sms_aaa.db.engine import Connection
    from sms_aaa.db.ledger import LedgerBalance
    from sms_aaa.db.reconcile import CycleBalance, ExcludedRow, PricedTotalRow, QuarantinedRow
    from sms_aaa.flows.shelf import PlanShelf
    from sms_aaa.rules.tariff import UsageComponent

    _Check = tuple[str, Iterator[Violation]]


@dataclass(frozen=True, slots=True)
class DirectionBalance:
    """Octets of one direction, by where they are on their way to money."""

    counted: int = 0
    rated: int = 0
    waiting: int = 0
    suspense: int = 0

    @property
    def balances(self) -> bool:
        return self.counted == self.rated + self.waiting + self.suspense

    def __add__(self, other: DirectionBalance) -> DirectionBalance:
        return DirectionBalance(
            self.counted + other.counted,
            self.rated + other.rated,
            self.waiting + other.waiting,
            self.suspense + other.suspense,
        )


@dataclass(frozen=True, slots=True)
class AccountBalance:
    account_id: int
    upload: DirectionBalance
    download: DirectionBalance

    @property
    def balances(self) -> bool:
        return self.upload.balances and self.download.balances


@dataclass(frozen=True, slots=True)
class Law:
    """A law of the books and the rows that break it, LAW_ROWS_MAX of them at most."""

    text: str
    violations: tuple[Violation, ...]


LAW_ROWS_MAX = 20
CYCLES_AT_ONCE = 1_000

PRICE_LAW = "a total costs, and has posted, what the tariff says"
CLOSED_LAW = "a closed cycle was charged, and adjusted to, the lines that stand in it now"
SIDES_LAW = "each entry moves the two accounts of an event"
SESSION_LAW = "a session costs, where its price runs up over it, what the tariff says"


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """`ledger` has debits less credits of each ledger account: in each currency they add up to 0.

    `quarantined` breaks no law: these records were counted by nobody.
    """

    accounts: tuple[AccountBalance, ...]
    excluded: tuple[ExcludedRow, ...]
    quarantined: tuple[QuarantinedRow, ...]
    cycles: tuple[CycleBalance, ...]
    laws: tuple[Law, ...]
    ledger: tuple[LedgerBalance, ...]

    @property
    def upload(self) -> DirectionBalance:
        return sum((account.upload for account in self.accounts), DirectionBalance())

    @property
    def download(self) -> DirectionBalance:
        return sum((account.download for account in self.accounts), DirectionBalance())

    @property
    def ledger_differences(self) -> dict[str, int]:
        """Minor units by which a currency's books are out of balance; {} when none is."""
        sums: dict[str, int] = {}
        for balance in self.ledger:
            sums[balance.currency] = sums.get(balance.currency, 0) + balance.balance_minor
        return {currency: amount for currency, amount in sums.items() if amount}

    @property
    def holds(self) -> bool:
        return (
            all(account.balances for account in self.accounts)
            and all(cycle.balances for cycle in self.cycles)
            and not any(law.violations for law in self.laws)
            and not self.ledger_differences
        )


def reconcile(
    connection: Connection, shelf: PlanShelf, tell: Callable[[int, int], None] = lambda _done, _of: None
) -> Reconciliation:
    """Everything there is, in one snapshot (db.engine.begin_snapshot before it).

    `tell` hears (done, of) as laws are held.
    """
    widen_memory(connection)
    rated = {row.account_id: (row.octets_in, row.octets_out) for row in db_reconcile.list_rated_sums(connection)}
    balances = tuple(_balances(connection, rated))
    cycles = tuple(db_reconcile.list_cycle_balances(connection))
    checks, laws = _checks(connection, shelf), []
    for law in _laws(connection, checks):
        laws.append(law)
        tell(len(laws), len(db_reconcile.LAWS) + len(checks))
    return Reconciliation(
        balances,
        tuple(db_reconcile.list_excluded(connection)),
        tuple(db_reconcile.list_quarantined(connection)),
        cycles,
        tuple(laws),
        tuple(db_ledger.list_balances(connection)),
    )


def _balances(connection: Connection, rated: dict[int, tuple[int, int]]) -> list[AccountBalance]:
    counted = {row.account_id: row for row in db_reconcile.list_counted(connection) if row.account_id is not None}
    balances = []
    for account_id in sorted(counted.keys() | rated.keys()):
        rated_in, rated_out = rated.get(account_id, (0, 0))
        row = counted.get(account_id)
        if row is None:
            upload, download = DirectionBalance(rated=rated_in), DirectionBalance(rated=rated_out)
        else:
            upload = DirectionBalance(row.counted_in, rated_in, row.open_in, row.suspense_in)
            download = DirectionBalance(row.counted_out, rated_out, row.open_out, row.suspense_out)
        balances.append(AccountBalance(account_id, upload, download))
    return balances


def _laws(connection: Connection, checks: Sequence[_Check]) -> Iterator[Law]:
    for text, rows in db_reconcile.list_violations(connection, limit=LAW_ROWS_MAX):
        yield Law(text, tuple(rows))
    for text, violations in checks:
        yield Law(text, tuple(islice(violations, LAW_ROWS_MAX)))


def _checks(connection: Connection, shelf: PlanShelf) -> tuple[_Check, ...]:
    """The laws that the rules are asked about; nothing is read before their violations are."""
    return (
        (PRICE_LAW, _price_violations(connection, shelf)),
        (SESSION_LAW, _session_violations(connection, shelf)),
        (CLOSED_LAW, _closed_violations(connection, shelf)),
        (FEE_LAW, fee_violations(connection, shelf)),
        (SIDES_LAW, _sides_violations(connection)),
    )


def _price_violations(connection: Connection, shelf: PlanShelf) -> Iterator[Violation]:
    """Totals that are not what the tariff of their subscription makes of their octets."""
    for row in db_reconcile.stream_totals(connection):
        component = _usage_component(connection, shelf, row.plan_version_id, row.component)
        if component is None:
            yield Violation(PRICE_LAW, _where(row), "its subscription's plan has no such usage component")
            continue
        currency = shelf.get(connection, row.plan_version_id).plan.tariff.currency
        if component.scope is Scope.SESSION:
            numerator = int(row.numerator)  # the sum of sessions, of which another law asks
        else:
            numerator = price_numerator(component, row.quantity) - price_numerator(component, row.carried)
        # What is carried on has cost P(0) before; so it is where usage outlived the subscription.
        if not row.carried and row.numerator != numerator:
            numerator += opening_numerator(component)
        posted = amount_minor(component, currency, numerator)
        if row.numerator != numerator or row.posted_minor != posted:
            found = f"exact {row.numerator:f}, posted {row.posted_minor}; by the tariff {numerator}, {posted}"
            yield Violation(PRICE_LAW, _where(row), found)


def _session_violations(connection: Connection, shelf: PlanShelf) -> Iterator[Violation]:
    """Sessions that are not what the tariff makes of what was priced of them, or whose running total is another."""
    parts = {
        component_id: part
        for component_id, plan_version_id in db_reconcile.list_usage_components(connection)
        for part in shelf.get(connection, plan_version_id).plan.tariff.usage
        if part.scope is Scope.SESSION
        and shelf.get(connection, plan_version_id).component_ids[part.name] == component_id
    }
    if not parts:
        return
    for row in stream_session_prices(connection, list(parts)):
        numerator = price_numerator(parts[row.component_id], row.quantity)
        numerator -= price_numerator(parts[row.component_id], 0)
        if row.numerator != numerator or (row.total or 0) != row.quantity:
            where = f"session {row.session_id} subscription {row.subscription_id} component {row.component_id}"
            found = f"exact {row.numerator:f} of {row.quantity}, running total {row.total}; by the tariff {numerator}"
            yield Violation(SESSION_LAW, where, found)


def _closed_violations(connection: Connection, shelf: PlanShelf) -> Iterator[Violation]:
    """Closed cycles whose charges and adjustments are not the lines that usage, minimums and bounds make of them."""
    last = 0
    while ids := db_reconcile.list_closed_ids(connection, after=last, limit=CYCLES_AT_ONCE):
        last = ids[-1]
        lines: dict[tuple[int, int, int], int] = defaultdict(int)
        for opened, _, _, line in list_lines(connection, shelf, db_closing.list_closed(connection, ids)):
            component_id = shelf.get(connection, opened.plan_version_id).component_ids[line.name]
            lines[opened.cycle_id, opened.subscription_id, component_id] += line.amount_minor
        frozen = {
            (row.cycle_id, row.subscription_id, row.component_id): row.amount_minor
            for row in db_closing.list_frozen(connection, ids)
        }
        for key in sorted({*lines, *frozen}):
            if lines.get(key, 0) != frozen.get(key, 0):
                where = f"cycle {key[0]} subscription {key[1]} component {key[2]}"
                yield Violation(CLOSED_LAW, where, f"charged {frozen.get(key, 0)}, it comes to {lines.get(key, 0)}")


def _sides_violations(connection: Connection) -> Iterator[Violation]:
    """Entries between accounts that no event of rules.ledger.SIDES moves, one for each two accounts."""
    for row in db_ledger.list_sides(connection):
        if not are_of_event(row.debit, row.credit, row.component):
            found = f"{row.debit} to {row.credit}, of {row.component or 'no component'}"
            yield Violation(SIDES_LAW, f"entry {row.entry_id}", found)


def _usage_component(
    connection: Connection, shelf: PlanShelf, plan_version_id: int, name: str | None
) -> UsageComponent | None:
    tariff = shelf.get(connection, plan_version_id).plan.tariff
    return next((component for component in tariff.usage if component.name == name), None)


def _where(row: PricedTotalRow) -> str:
    return (
        f"account {row.account_id} cycle {row.cycle_id} subscription {row.subscription_id} component {row.component_id}"
    )
