"""Accounts as they are charged: mode, limit, thresholds, and the charging groups that they form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg.rows import class_row

from sms_aaa.db.binary import int8s

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sms_aaa.db.engine import Connection


@dataclass(frozen=True, slots=True)
class AccountRow:
    """`balance_minor`: what it owes by the ledger, unbilled usage included; below zero we owe it."""

    id: int
    subscriber: str
    currency: str
    zone: str
    anchor_day: int
    charging_mode: str
    credit_limit_minor: int | None
    thresholds: list[int]
    head_id: int | None
    head: str | None
    members: list[str]
    balance_minor: int


def lock_accounts(connection: Connection, account_ids: Sequence[int]) -> None:
    """In the order of their ids."""
    connection.execute(
        "select from account where id = any(%s) order by id for no key update", (int8s(sorted(account_ids)),)
    )


def list_accounts(connection: Connection, account_ids: Sequence[int]) -> list[AccountRow]:
    with connection.cursor(row_factory=class_row(AccountRow)) as cursor:
        return cursor.execute(
            """select a.id, s.name as subscriber, a.currency, a.zone, a.anchor_day, a.charging_mode,
                      a.credit_limit_minor, a.thresholds, a.charging_head_id as head_id,
                      (select hs.name from account h join subscriber hs on hs.id = h.subscriber_id
                       where h.id = a.charging_head_id) as head,
                      array(select ms.name from account m join subscriber ms on ms.id = m.subscriber_id
                            where m.charging_head_id = a.id order by ms.name) as members,
                      (select coalesce(sum(case when e.debit = any(%(owed)s) then e.amount_minor else 0 end
                                           - case when e.credit = any(%(owed)s) then e.amount_minor else 0 end),
                                       0)::bigint
                       from entry e where e.account_id = a.id) as balance_minor
               from account a join subscriber s on s.id = a.subscriber_id where a.id = any(%(ids)s) order by a.id""",
            {"ids": list(account_ids), "owed": ["receivable", "unbilled-receivable", "customer-credit"]},
        ).fetchall()


def update_charging(
    connection: Connection, account_id: int, *, mode: str, credit_limit_minor: int | None, thresholds: Sequence[int]
) -> None:
    """Thresholds are for buckets that are granted from now on."""
    connection.execute(
        "update account set charging_mode = %s, credit_limit_minor = %s, thresholds = %s where id = %s",
        (mode, credit_limit_minor, list(thresholds), account_id),
    )


def update_head(connection: Connection, account_id: int, head_id: int | None) -> None:
    connection.execute("update account set charging_head_id = %s where id = %s", (head_id, account_id))


def move_dirty(connection: Connection, account_id: int, head_id: int) -> None:
    """What is to be rated again of an account by itself is to be of the group that it is in now."""
    connection.execute(
        """with own as (delete from dirty_group where head_account_id = %s returning from_at, reason)
           insert into dirty_group (head_account_id, from_at, reason) select %s, from_at, reason from own
           on conflict (head_account_id) do update set from_at = least(dirty_group.from_at, excluded.from_at)""",
        (account_id, head_id),
    )
