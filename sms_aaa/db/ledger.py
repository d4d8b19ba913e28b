"""The ledger: entries that are balanced by construction and never edited (a trigger refuses)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from struct import Struct as Layout
from typing import TYPE_CHECKING

from msgspec import Struct
from psycopg import sql
from psycopg.rows import class_row

from sms_aaa.db.binary import NULL_FIELD, copy_rows, field
from sms_aaa.db.rating import TotalKey
from sms_aaa.rules.ledger import Entry

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from sms_aaa.db.engine import Connection


class PostedEntry(Struct, frozen=True, gc=False):
    """An entry with what it stands for, and the money bucket that paid."""

    key: TotalKey
    run_id: int
    entry: Entry
    bucket_id: int | None = None


def insert_entries(connection: Connection, entries: Iterable[PostedEntry]) -> None:
    """By COPY."""
    copy_rows(
        connection,
        """copy entry (account_id, cycle_id, subscription_id, component_id, run_id, amount_minor, debit, credit,
             currency, bucket_id) from stdin (format binary)""",
        [
            _AMOUNT.pack(
                10, 8, p.key.account_id, 8, p.key.cycle_id, 8, p.key.subscription_id, 4, p.key.component_id, 8,
                p.run_id, 8, p.entry.amount_minor,
            )
            + _text(p.entry.debit)
            + _text(p.entry.credit)
            + _text(p.entry.currency)
            + (NULL_FIELD if p.bucket_id is None else _BUCKET.pack(8, p.bucket_id))
            for p in entries
        ],
    )  # fmt: skip


_AMOUNT = Layout(">hiqiqiqiiiqiq")
_BUCKET = Layout(">iq")


def get_paid_by_buckets(connection: Connection, key: TotalKey) -> dict[int, int]:
    """What money buckets paid of a total in all, in minor units, by bucket."""
    rows = connection.execute(
        """select bucket_id, sum(case when credit like 'revenue:%%' then amount_minor else -amount_minor end)::bigint
           from entry
           where account_id = %s and cycle_id = %s and subscription_id = %s and component_id = %s
             and bucket_id is not null
           group by 1""",
        (key.account_id, key.cycle_id, key.subscription_id, key.component_id),
    ).fetchall()
    return {int(row[0]): int(row[1]) for row in rows}


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
    """Of everything that was ever posted."""
    return [LedgerBalance(row.ledger_account, row.currency, row.balance_minor) for row in list_trial(connection)]


@dataclass(frozen=True, slots=True)
class TrialRow:
    """What was debited to and credited to a ledger account, in minor units of a currency; `entries` of both sides."""

    ledger_account: str
    currency: str
    entries: int
    debit_minor: int
    credit_minor: int

    @property
    def balance_minor(self) -> int:
        return self.debit_minor - self.credit_minor


def list_trial(
    connection: Connection, *, account_id: int | None = None, before: datetime | None = None
) -> list[TrialRow]:
    """The trial balance, of one account of a customer if it is named, of what was posted before an instant if given."""
    with connection.cursor(row_factory=class_row(TrialRow)) as cursor:
        return cursor.execute(
            """select ledger_account, currency, sum(entries)::bigint as entries,
                      sum(debited)::bigint as debit_minor, sum(credited)::bigint as credit_minor
               from (select debit, credit, currency, count(*) as entries, sum(amount_minor) as amount_minor from entry
                     where (%(account)s::bigint is null or account_id = %(account)s)
                       and (%(before)s::timestamptz is null or posted_at < %(before)s)
                     group by 1, 2, 3) e
               cross join lateral (values (e.debit, amount_minor, 0), (e.credit, 0, amount_minor))
                 side(ledger_account, debited, credited)
               group by 1, 2 order by 2, 1""",
            {"account": account_id, "before": before},
        ).fetchall()


@dataclass(frozen=True, slots=True)
class SidesRow:
    """Two accounts that entries of a component (None: of none) moved; `entry_id`: the first of these."""

    debit: str
    credit: str
    component: str | None
    entry_id: int


def list_sides(connection: Connection) -> list[SidesRow]:
    """Whatever was ever posted to what."""
    with connection.cursor(row_factory=class_row(SidesRow)) as cursor:
        return cursor.execute(
            """select e.debit, e.credit, k.name as component, min(e.entry_id) as entry_id
               from (select debit, credit, component_id, min(id) as entry_id from entry group by 1, 2, 3) e
               left join component k on k.id = e.component_id group by 1, 2, 3 order by 4"""
        ).fetchall()


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryFilter:
    """`since` included, `until` not; `after_id`: entries with a higher id; None: whatever it is."""

    account_id: int | None = None
    ledger_account: str | None = None
    component: str | None = None
    cycle_id: int | None = None
    since: datetime | None = None
    until: datetime | None = None
    after_id: int | None = None


@dataclass(frozen=True, slots=True)
class EntryRow:
    """An entry, with whose it is and what it stands for: a component in a cycle, a bucket, or a note of its own."""

    id: int
    posted_at: datetime
    account_id: int
    subscriber: str
    cycle_id: int | None
    starts_at: datetime | None
    component: str | None
    bucket_id: int | None
    run_id: int | None
    run_kind: str | None
    debit: str
    credit: str
    amount_minor: int
    currency: str
    note: str | None


def list_entries(connection: Connection, wanted: EntryFilter, *, limit: int) -> list[EntryRow]:
    """Those of an account or not, the newest first; with `after_id` in the order in which they were posted."""
    forward = wanted.after_id is not None
    query = sql.SQL(
        """select e.id, e.posted_at, e.account_id, b.name as subscriber, e.cycle_id, c.starts_at, k.name as component,
                  e.bucket_id, e.run_id, r.kind as run_kind, e.debit, e.credit, e.amount_minor, e.currency, e.note
           from (select * from entry e where {} order by id {} limit {}) e
           join account a on a.id = e.account_id join subscriber b on b.id = a.subscriber_id
           left join cycle c on c.id = e.cycle_id left join component k on k.id = e.component_id
           left join rating_run r on r.id = e.run_id
           order by e.id {}"""
    )
    order = sql.SQL("asc" if forward else "desc")
    with connection.cursor(row_factory=class_row(EntryRow)) as cursor:
        return cursor.execute(query.format(_where(wanted), order, sql.Literal(limit), order)).fetchall()


def _where(wanted: EntryFilter) -> sql.Composable:
    asked: list[tuple[object, str]] = [
        (wanted.account_id, "e.account_id = {}"),
        (wanted.ledger_account, "{} in (e.debit, e.credit)"),
        (wanted.component, "e.component_id in (select id from component where name = {})"),
        (wanted.cycle_id, "e.cycle_id = {}"),
        (wanted.since, "e.posted_at >= {}"),
        (wanted.until, "e.posted_at < {}"),
        (wanted.after_id, "e.id > {}"),
    ]
    conditions = [sql.SQL(text).format(sql.Literal(value)) for value, text in asked if value is not None]
    return sql.SQL(" and ").join(conditions) if conditions else sql.SQL("true")
