"""What operators do to buckets by hand, and the ledger entries of money that comes in or is never used."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

    from sms_aaa.db.engine import Connection
    from sms_aaa.rules.ledger import Entry


def insert_money(
    connection: Connection, account_id: int, entry: Entry, *, bucket_id: int | None = None, note: str | None = None
) -> None:
    """An entry of no cycle: of a payment, or of what a money bucket was bought with, or was left of it."""
    connection.execute(
        """insert into entry (account_id, debit, credit, amount_minor, currency, bucket_id, note)
           values (%s, %s, %s, %s, %s, %s, %s)""",
        (account_id, entry.debit, entry.credit, entry.amount_minor, entry.currency, bucket_id, note),
    )


def update_ended(connection: Connection, bucket_id: int, at: datetime) -> None:
    """Ends a bucket at an instant, without rollover; what is held of it is released."""
    connection.execute("select from bucket where id = %s for no key update", (bucket_id,))
    connection.execute(
        """with gone as (delete from reservation where bucket_id = %(id)s returning id, quantity),
           ended as (
             update bucket set until_at = %(at)s, reserved = 0, terms = terms || '{"rollover": null}'
             where id = %(id)s)
           insert into bucket_entry (bucket_id, kind, quantity, reservation_id)
           select %(id)s, 'release', quantity, id from gone where quantity > 0""",
        {"id": bucket_id, "at": at},
    )
