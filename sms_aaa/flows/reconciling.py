"""The proof that counted = rated = posted, told as a value.

Octets are counted again from the deltas and summed again from the rated rows; running totals are looked at only to be
compared with these sums. Each direction of an account has to balance: counted = rated + waiting + in suspense. What
belongs to no account is not lost but excluded, by name. To be called in one snapshot: settler and rater go on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sms_aaa.db import ledger as db_ledger
from sms_aaa.db import reconcile as db_reconcile
from sms_aaa.rules.tariff import Measure

if TYPE_CHECKING:
    from sms_aaa.db.engine import Connection
    from sms_aaa.db.ledger import LedgerBalance
    from sms_aaa.db.reconcile import ExcludedRow, RatedSumRow, Violation
    from sms_aaa.flows.rating import PlanShelf


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
class ComponentDifference:
    """A component whose rated quantity is not its share of the very deltas that were rated."""

    account_id: int
    component: str
    quantity: int
    expected: int


@dataclass(frozen=True, slots=True)
class Law:
    """A law of the books and the rows that break it, LAW_ROWS_MAX of them at most."""

    text: str
    violations: tuple[Violation, ...]


LAW_ROWS_MAX = 20


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """`ledger` has debits less credits of each ledger account: in each currency they add up to 0."""

    accounts: tuple[AccountBalance, ...]
    excluded: tuple[ExcludedRow, ...]
    components: tuple[ComponentDifference, ...]
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
            and not self.components
            and not any(law.violations for law in self.laws)
            and not self.ledger_differences
        )


def reconcile(connection: Connection, shelf: PlanShelf) -> Reconciliation:
    """Everything there is, in one snapshot (db.engine.begin_snapshot before it)."""
    rated: dict[int, list[int]] = {}
    components = []
    for row in db_reconcile.list_rated_sums(connection):
        measure = _measure(connection, shelf, row)
        in_, out = rated.get(row.account_id, (0, 0))
        counts_in, counts_out = Measure.UPLOAD in measure.directions, Measure.DOWNLOAD in measure.directions
        rated[row.account_id] = [in_ + row.octets_in * counts_in, out + row.octets_out * counts_out]
        expected = measure.octets(upload=row.octets_in, download=row.octets_out)
        if row.quantity != expected:
            components.append(ComponentDifference(row.account_id, row.component, row.quantity, expected))
    return Reconciliation(
        tuple(_balances(connection, rated)),
        tuple(db_reconcile.list_excluded(connection)),
        tuple(components),
        tuple(
            Law(text, tuple(violations))
            for text, violations in db_reconcile.list_violations(connection, limit=LAW_ROWS_MAX)
        ),
        tuple(db_ledger.list_balances(connection)),
    )


def _balances(connection: Connection, rated: dict[int, list[int]]) -> list[AccountBalance]:
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


def _measure(connection: Connection, shelf: PlanShelf, row: RatedSumRow) -> Measure:
    tariff = shelf.get(connection, row.plan_version_id).plan.tariff
    return next(component.measure for component in tariff.usage if component.name == row.component)
