"""`sms-aaa ledger`: the books: what was posted, entry by entry, and what each ledger account comes to."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from sms_aaa.cli.caller import Caller, pass_caller
from sms_aaa.cli.exits import Exit, Failure
from sms_aaa.cli.options import listing_options, parse_instant, parse_since
from sms_aaa.cli.output import Cell, Format, document, listing, money, note, say
from sms_aaa.cli.verbs import Verbs
from sms_aaa.rules.ledger import REVENUE_PREFIX, LedgerAccount

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sms_aaa.db.engine import Connection
    from sms_aaa.db.ledger import EntryRow, TrialRow

STATEMENT_TIMEOUT_SECONDS = 600
"""A trial balance reads all entries there are."""

_COLUMNS = (
    "id", "posted_at", "account_id", "subscriber", "cycle_id", "cycle_starts_at", "component", "bucket_id", "run_id",
    "run", "debit", "credit", "amount_minor", "currency", "note",
)  # fmt: skip
_TABLE_COLUMNS = ("id", "posted_at", "subscriber", "component", "debit", "credit", "amount_minor", "note")
_TITLES = ("id", "posted_at", "subscriber", "component", "debit", "credit", "amount", "note")
_BALANCE_COLUMNS = ("ledger_account", "currency", "entries", "debit_minor", "credit_minor", "balance_minor")
_BALANCE_TITLES = ("ledger_account", "currency", "entries", "debit", "credit", "balance")

subscriber_option = click.option("--subscriber", "name", metavar="NAME", help="Of one subscriber's accounts.")
account_option = click.option("--account", "account_id", type=click.IntRange(1), metavar="ID", help="Of one account.")


@click.group(cls=Verbs)
def ledger() -> None:
    """The books. Every entry debits one ledger account and credits another; none is ever changed.

    Example: sms-aaa ledger balance --at 2026-12-01
    """


@ledger.command("list")
@subscriber_option
@account_option
@click.option("--ledger-account", metavar="NAME", help="On either side: cash, revenue:NAME and so on.")
@click.option("--component", metavar="NAME", help="Of one component of a tariff.")
@click.option("--cycle", "cycle_id", type=click.IntRange(1), metavar="ID", help="Of one billing cycle.")
@click.option("--since", metavar="WHEN", help="Posted since: 30m, 12h, 7d, a date.")
@click.option("--until", metavar="WHEN", help="Posted before: a date or an instant.")
@click.option("--after", "after_id", type=click.IntRange(0), metavar="ID", help="From the entry behind this one on.")
@click.option("--limit", type=click.IntRange(1, 1_000_000), default=50, show_default=True, help="So many at most.")
@listing_options
@pass_caller
def list_(
    caller: Caller,
    name: str | None,
    account_id: int | None,
    ledger_account: str | None,
    component: str | None,
    cycle_id: int | None,
    since: str | None,
    until: str | None,
    after_id: int | None,
    limit: int,
    form: Format,
) -> None:
    """List entries, the newest first; with --after in the order in which they were posted, for paging.

    Example: sms-aaa ledger list --subscriber alice --ledger-account deferred-revenue

    Example: sms-aaa ledger list --after 0 --limit 100000 --csv
    """
    from sms_aaa.db.ledger import EntryFilter, list_entries

    _check_name(ledger_account)
    zone = caller.settings.rating.zone
    with caller.connect() as connection:
        wanted = EntryFilter(
            account_id=_account_of(connection, name, account_id),
            ledger_account=ledger_account,
            component=component,
            cycle_id=cycle_id,
            since=parse_since(since, zone, datetime.now(UTC)) if since is not None else None,
            until=parse_instant(until, zone, option="--until") if until is not None else None,
            after_id=after_id,
        )
        rows = list_entries(connection, wanted, limit=limit)
    if form is Format.TABLE:
        cells = [[_cells(row)[column] for column in _TABLE_COLUMNS] for row in rows]
        listing(_TITLES, cells, form, empty="no entry")
    else:
        listing(_COLUMNS, [list(_cells(row).values()) for row in rows], form)
    if len(rows) == limit:
        note(f"sms-aaa: these are {limit} entries, there may be more (--limit, --after)")


@ledger.command()
@subscriber_option
@account_option
@click.option("--at", metavar="WHEN", help="Of what was posted before this date or instant.")
@listing_options
@pass_caller
def balance(caller: Caller, name: str | None, account_id: int | None, at: str | None, form: Format) -> None:
    """Show the trial balance: debits and credits of each ledger account, which are equal in each currency.

    The exit code is 1 when they are not.

    Example: sms-aaa ledger balance --subscriber alice --at 2026-12-01
    """
    from sms_aaa.db.ledger import list_trial

    before = parse_instant(at, caller.settings.rating.zone) if at is not None else None
    with caller.connect(statement_timeout_seconds=STATEMENT_TIMEOUT_SECONDS) as connection:
        rows = list_trial(connection, account_id=_account_of(connection, name, account_id), before=before)
    sums = _sums(rows)
    holds = all(debit == credit for debit, credit in sums.values())
    if form is Format.JSON:
        document(
            {
                "holds": holds,
                "accounts": [dict(zip(_BALANCE_COLUMNS, _balance_cells(row), strict=True)) for row in rows],
                "sums": [
                    {"currency": currency, "debit_minor": debit, "credit_minor": credit}
                    for currency, (debit, credit) in sums.items()
                ],
            }
        )
    else:
        columns = _BALANCE_TITLES if form is Format.TABLE else _BALANCE_COLUMNS
        listing(columns, [_balance_cells(row) for row in rows], form, empty="no entry yet")
    if form is Format.TABLE:
        for currency, (debit, credit) in sums.items():
            sign = "=" if debit == credit else "is not"
            say(f"debits {money(debit, currency).text} {sign} credits {money(credit, currency).text}")
    if not holds:
        raise click.exceptions.Exit(Exit.DIFFERENT)


def _check_name(ledger_account: str | None) -> None:
    if ledger_account is None or ledger_account.startswith(REVENUE_PREFIX):
        return
    known = [account.value for account in LedgerAccount]
    if ledger_account not in known:
        raise click.BadParameter(
            f"{ledger_account!r} is not one of {', '.join(known)} or {REVENUE_PREFIX}COMPONENT.",
            param_hint="'--ledger-account'",
        )


def _account_of(connection: Connection, name: str | None, account_id: int | None) -> int | None:
    """The one account that is meant; None: all."""
    from sms_aaa.flows.provisioning.subscribers import get_subscriber

    if name is not None and account_id is not None:
        raise click.UsageError("--subscriber and --account exclude each other: give one.")
    if name is None:
        return account_id
    accounts = sorted({row.account_id for row in get_subscriber(connection, name) if row.account_id})
    if not accounts:
        raise Failure(Exit.NOT_FOUND, f"{name} has no account", "see `sms-aaa subscriber show`")
    if len(accounts) > 1:
        listed = ", ".join(map(str, accounts))
        raise Failure(Exit.INVALID, f"{name} has the accounts {listed}", "name one of them with --account")
    return accounts[0]


def _cells(row: EntryRow) -> dict[str, Cell]:
    cells: tuple[Cell, ...] = (
        row.id, row.posted_at, row.account_id, row.subscriber, row.cycle_id, row.starts_at, row.component,
        row.bucket_id, row.run_id, row.run_kind, row.debit, row.credit, money(row.amount_minor, row.currency),
        row.currency, row.note,
    )  # fmt: skip
    return dict(zip(_COLUMNS, cells, strict=True))


def _balance_cells(row: TrialRow) -> list[Cell]:
    amounts = (row.debit_minor, row.credit_minor, row.balance_minor)
    return [row.ledger_account, row.currency, row.entries, *(money(amount, row.currency) for amount in amounts)]


def _sums(rows: Iterable[TrialRow]) -> dict[str, tuple[int, int]]:
    """Debits and credits by currency."""
    sums: dict[str, tuple[int, int]] = {}
    for row in rows:
        debit, credit = sums.get(row.currency, (0, 0))
        sums[row.currency] = (debit + row.debit_minor, credit + row.credit_minor)
    return sums
