"""How an account is charged: prepaid or postpaid with a limit, thresholds of its buckets, its charging group."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from sms_aaa.db import accounts as db_accounts
from sms_aaa.db import rating_queue as db_queue
from sms_aaa.db.usage import SHARDS
from sms_aaa.flows.provisioning.desk import Desk, Invalid, Refused, RefusedKind
from sms_aaa.flows.provisioning.subscribers import get_subscriber
from sms_aaa.rules.money import minor_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from fractions import Fraction

    from sms_aaa.db.accounts import AccountRow
    from sms_aaa.db.engine import Connection

PERCENT_MAX = 1_000
THRESHOLDS_MAX = 16
NO_LIMIT = "no-limit"


def get_account(connection: Connection, name: str) -> AccountRow:
    """The account that a subscriber's first service is charged to."""
    ids = [row.account_id for row in get_subscriber(connection, name) if row.account_id is not None]
    if not ids:
        raise Refused(RefusedKind.NOT_FOUND, f"{name} has no account", "add a service, see `sms-aaa subscriber add`")
    [account] = db_accounts.list_accounts(connection, ids[:1])
    return account


def set_charging(
    desk: Desk,
    name: str,
    *,
    mode: str | None,
    credit_limit: Fraction | str | None,
    thresholds: Sequence[int] | None,
) -> bool:
    """Changes what is not None; whether that was a change. `credit_limit`: in units of the currency, or NO_LIMIT."""
    account = get_account(desk.connection, name)
    db_accounts.lock_accounts(desk.connection, [account.id])
    limit_minor = account.credit_limit_minor
    if credit_limit == NO_LIMIT:
        limit_minor = None
    elif credit_limit is not None:
        limit_minor = _limit(credit_limit, account.currency)
    before = (account.charging_mode, account.credit_limit_minor, account.thresholds)
    after = (mode or account.charging_mode, limit_minor, account.thresholds if thresholds is None else [*thresholds])
    _check_thresholds(after[2])
    if after == before:
        return False
    db_accounts.update_charging(
        desk.connection, account.id, mode=after[0], credit_limit_minor=after[1], thresholds=after[2]
    )
    names = ("charging_mode", "credit_limit_minor", "thresholds")
    desk.record(
        "charging-set", "account", account.id,
        before=dict(zip(names, before, strict=True)), after=dict(zip(names, after, strict=True)),
    )  # fmt: skip
    return True


def join_group(desk: Desk, name: str, head_name: str) -> None:
    """From now on usage of the account may use the shared buckets of another; what was rated stays as it is."""
    account, head = get_account(desk.connection, name), get_account(desk.connection, head_name)
    _lock(desk.connection, account, head.id)
    account, head = get_account(desk.connection, name), get_account(desk.connection, head_name)
    if account.id == head.id:
        raise Invalid("--head", f"{name} is itself", "name the account whose buckets are shared")
    if account.head_id == head.id:
        raise Refused(RefusedKind.CONFLICT, f"{name} is in the group of {head_name} already", "nothing is to be done")
    if head.head_id is not None:
        raise Refused(RefusedKind.CONFLICT, f"{head_name} is a member of the group of {head.head}", f"join {head.head}")
    if account.members:
        raise Refused(
            RefusedKind.CONFLICT, f"{name} heads a group itself", f"let {', '.join(account.members)} leave it first"
        )
    if account.currency != head.currency:
        raise Refused(
            RefusedKind.CONFLICT, f"{name} is charged in {account.currency}, {head_name} in {head.currency}",
            "a group has one currency",
        )  # fmt: skip
    db_accounts.update_head(desk.connection, account.id, head.id)
    db_accounts.move_dirty(desk.connection, account.id, head.id)
    desk.record("joined-group", "account", account.id, before={"head": account.head}, after={"head": head.subscriber})


def leave_group(desk: Desk, name: str) -> str:
    """From now on the account uses its own buckets only; whose group it was in."""
    account = get_account(desk.connection, name)
    _lock(desk.connection, account, account.id)
    account = get_account(desk.connection, name)
    if account.head_id is None or account.head is None:
        raise Refused(RefusedKind.CONFLICT, f"{name} is in no charging group", "see `sms-aaa account show`")
    db_accounts.update_head(desk.connection, account.id, None)
    desk.record("left-group", "account", account.id, before={"head": account.head}, after={"head": None})
    return account.head


def _lock(connection: Connection, account: AccountRow, other_id: int) -> None:
    """No rater is at one of the groups meanwhile, and what raters remember of them is out of date."""
    shards = {one % SHARDS for one in (account.id, account.head_id or account.id, other_id)}
    db_queue.lock_shards(connection, shards)
    db_accounts.lock_accounts(connection, [account.id, other_id])
    db_queue.touch_shards(connection, shards)


def _limit(amount: Fraction | str, currency: str) -> int:
    remedy = 'write an amount such as "50.00", or no-limit'
    if isinstance(amount, str) or amount < 0:
        raise Invalid("--credit-limit", f"{amount} is not an amount of 0 or more", remedy)
    try:
        return minor_of(amount, currency)
    except ValueError as fault:
        raise Invalid("--credit-limit", str(fault), remedy) from fault


def _check_thresholds(thresholds: Sequence[int]) -> None:
    in_order = all(first < second for first, second in pairwise(thresholds))
    if not in_order or len(thresholds) > THRESHOLDS_MAX or any(not 1 <= each <= PERCENT_MAX for each in thresholds):
        raise Invalid("--threshold", "these do not ascend", f"give up to {THRESHOLDS_MAX} percents, from 1, ascending")
