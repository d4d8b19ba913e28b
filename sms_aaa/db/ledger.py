"""The ledger: entries that are balanced by construction and never edited (a trigger refuses)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from msgspec import Struct

from sms_aaa.db.rating import TotalKey
from sms_aaa.rules.ledger import Entry

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sms_aaa.db.engine import Connection


class PostedEntry(Struct, frozen=True, gc=False):
    """An entry with what it stands for; `run_id` None: a recurring charge."""

    key: TotalKey
    run_id: int | None
    entry: Entry


def insert_entries(connection: Connection, entries: Iterable[PostedEntry]) -> None:
    connection.cursor().executemany(
        """insert into entry (account_id, cycle_id, subscription_id, component_id, run_id, debit, credit, amount_minor,
                              currency)
           values (%s, %s, %s, %s, %s, %s, %s, %s, %s)""",
        [
            (
                p.key.account_id,
                p.key.cycle_id,
                p.key.subscription_id,
                p.key.component_id,
                p.run_id,
                p.entry.debit,
                p.entry.credit,
                p.entry.amount_minor,
                p.entry.currency,
            )
            for p in entries
        ],
    )


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
