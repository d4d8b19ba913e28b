"""The ledger: entries that are balanced by construction and never edited (a trigger refuses)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from struct import Struct as Layout
from typing import TYPE_CHECKING

from msgspec import Struct

from sms_aaa.db.binary import copy_rows, field
from sms_aaa.db.rating import TotalKey
from sms_aaa.rules.ledger import Entry

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sms_aaa.db.engine import Connection


class PostedEntry(Struct, frozen=True, gc=False):
    """An entry with what it stands for."""

    key: TotalKey
    run_id: int
    entry: Entry


def insert_entries(connection: Connection, entries: Iterable[PostedEntry]) -> None:
    """By COPY."""
    copy_rows(
        connection,
        """copy entry (account_id, cycle_id, subscription_id, component_id, run_id, amount_minor, debit, credit,
             currency) from stdin (format binary)""",
        [
            _AMOUNT.pack(
                9, 8, p.key.account_id, 8, p.key.cycle_id, 8, p.key.subscription_id, 4, p.key.component_id, 8,
                p.run_id, 8, p.entry.amount_minor,
            )
            + _text(p.entry.debit)
            + _text(p.entry.credit)
            + _text(p.entry.currency)
            for p in entries
        ],
    )  # fmt: skip


_AMOUNT = Layout(">hiqiqiqiiiqiq")


@cache
def _text(text: str) -> bytes:
    """Names of accounts and currencies, of which there are few."""
    return field(text.encode())


@dataclass(frozen=True, slots=True)
class LedgerBalance:
    """Debits less credits of one ledger account, in minor units."""

    ledger_account: str
    currency: str
    balance_minor: int


def list_balances(connection: Connection) -> list[LedgerBalance]:
    rows = connection.execute(
        """select ledger_account, currency, sum(amount)::bigint from (
             select debit as ledger_account, currency, amount_minor as amount from entry
             union all select credit, currency, -amount_minor from entry) sides
           group by 1, 2 order by 1, 2"""
    ).fetchall()
    return [LedgerBalance(*row) for row in rows]
