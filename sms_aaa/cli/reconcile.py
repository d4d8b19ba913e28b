"""`sms-aaa reconcile`: the proof that counted = rated = posted, or the rows that disprove it."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

import click

from sms_aaa.cli.caller import Caller, pass_caller
from sms_aaa.cli.exits import Exit
from sms_aaa.cli.options import listing_options
from sms_aaa.cli.output import Cell, Format, document, heading, listing, money, octets, say
from sms_aaa.cli.progress import progress_of
from sms_aaa.cli.verbs import Verb

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sms_aaa.db.reconcile import CycleBalance
    from sms_aaa.flows.reconciling import AccountBalance, DirectionBalance, Reconciliation

STATEMENT_TIMEOUT_SECONDS = 3600
"""It counts everything again; a statement of a login has no such time, but this one is not in anybody's way."""

_COLUMNS = ("account_id", "subscriber", "direction", "counted", "rated", "waiting", "suspense", "balances")


@click.command(cls=Verb)
@click.option("--limit", type=click.IntRange(0, 100_000), default=20, show_default=True, help="Accounts in the table.")
@listing_options
@pass_caller
def reconcile(caller: Caller, limit: int, form: Format) -> None:
    """Prove that every octet counted is rated, waiting or in suspense, and posted.

    It counts again from the facts, in one snapshot, while the server goes on. Octets of sessions that belong to no
    service are excluded, by name. Every total is priced again by its tariff, and every fee that is due is looked for;
    each bucket is held against its entries, its holds and the usage that it covered, the ledger against all of these.
    The exit code is 1 when anything is off; accounts that are off come first. Records in quarantine were never counted:
    they are shown beside the proof and do not break it.

    Example: sms-aaa reconcile --json
    """
    from sms_aaa.db.engine import begin_snapshot
    from sms_aaa.db.subscribers import list_account_names
    from sms_aaa.flows.reconciling import reconcile as reconcile_all
    from sms_aaa.flows.shelf import PlanShelf

    with caller.connect(statement_timeout_seconds=STATEMENT_TIMEOUT_SECONDS) as connection:
        begin_snapshot(connection)
        with progress_of("laws held") as tell:
            found = reconcile_all(connection, PlanShelf(), tell)
        accounts = sorted(found.accounts, key=lambda account: (account.balances, account.account_id))
        shown = list(islice(accounts, limit)) if form is Format.TABLE else accounts
        names = list_account_names(connection, [account.account_id for account in shown])
    rows = [row for account in shown for row in _rows(account, names)]
    if form is Format.JSON:
        document(_document(found, rows))
    elif form is Format.CSV:
        listing(_COLUMNS, rows, form)
    else:
        _show(found, rows, hidden=len(accounts) - len(shown))
    if not found.holds:
        raise click.exceptions.Exit(Exit.DIFFERENT)


def _show(found: Reconciliation, rows: Sequence[Sequence[Cell]], *, hidden: int) -> None:
    listing(_COLUMNS, rows, Format.TABLE, empty="no account has usage yet")
    if hidden:
        say(f"and {hidden} more accounts (--limit)")
    if found.excluded:
        heading("excluded, by name")
        excluded = [(row.reason, octets(row.octets_in), octets(row.octets_out)) for row in found.excluded]
        listing(("reason", "octets_up", "octets_down"), excluded, Format.TABLE)
    if found.quarantined:
        heading("in quarantine, by reason")
        listing(("reason", "records"), [(row.reason, row.records) for row in found.quarantined], Format.TABLE)
        say("see `sms-aaa quarantine list`")
    heading("laws")
    listing(("law", "holds"), [(law.text, not law.violations) for law in found.laws], Format.TABLE)
    for law in found.laws:
        for violation in law.violations:
            say(f"  {law.text}: {violation.where}: {violation.found}")
    for cycle in found.cycles:
        if not cycle.balances:
            say(f"  account {cycle.account_id} {_cycle_text(cycle)}")
    heading("ledger")
    balances = [(row.ledger_account, money(row.balance_minor, row.currency)) for row in found.ledger]
    listing(("account", "balance"), balances, Format.TABLE, empty="no entry yet")
    for currency, amount in found.ledger_differences.items():
        say(f"  the books are off by {money(amount, currency).text}")
    say()
    say(f"up:   {_sum_text(found.upload)}")
    say(f"down: {_sum_text(found.download)}")
    say(_summary(found))


def _summary(found: Reconciliation) -> str:
    verdict = "everything adds up" if found.holds else "something is off: see above"
    records = sum(row.records for row in found.quarantined)
    if not records:
        return verdict
    return f"{verdict}; {records} {'record is' if records == 1 else 'records are'} in quarantine, not settled"


def _sum_text(sums: DirectionBalance) -> str:
    sign = "=" if sums.balances else "is not"
    return (
        f"counted {sums.counted} {sign} rated {sums.rated} + waiting {sums.waiting} + suspense {sums.suspense} octets"
    )


def _cycle_text(cycle: CycleBalance) -> str:
    where = "in no open cycle" if cycle.starts_at is None else f"cycle {cycle.cycle_id} of {cycle.starts_at:%Y-%m-%d}"
    rated = f"priced {cycle.priced} + covered {cycle.covered} + uncovered {cycle.uncovered}"
    return f"{where}: counted {cycle.counted} is not {rated} + waiting {cycle.waiting} + suspense {cycle.suspense}"


def _rows(account: AccountBalance, names: Mapping[int, str]) -> list[list[Cell]]:
    return [
        [
            account.account_id,
            names.get(account.account_id),
            direction,
            octets(balance.counted),
            octets(balance.rated),
            octets(balance.waiting),
            octets(balance.suspense),
            balance.balances,
        ]
        for direction, balance in (("up", account.upload), ("down", account.download))
    ]


def _document(found: Reconciliation, rows: Sequence[Sequence[Cell]]) -> dict[str, object]:
    return {
        "holds": found.holds,
        "totals": {"up": _sums(found.upload), "down": _sums(found.download)},
        "accounts": [dict(zip(_COLUMNS, row, strict=True)) for row in rows],
        "excluded": [
            {"reason": row.reason, "octets_up": row.octets_in, "octets_down": row.octets_out} for row in found.excluded
        ],
        "quarantine": [{"reason": row.reason, "records": row.records} for row in found.quarantined],
        "cycles": [
            {
                "account_id": cycle.account_id,
                "cycle_id": cycle.cycle_id,
                "starts_at": cycle.starts_at,
                "counted": cycle.counted,
                "priced": cycle.priced,
                "covered": cycle.covered,
                "uncovered": cycle.uncovered,
                "waiting": cycle.waiting,
                "suspense": cycle.suspense,
                "balances": cycle.balances,
            }
            for cycle in found.cycles
        ],
        "laws": [
            {
                "law": law.text,
                "holds": not law.violations,
                "violations": [{"where": one.where, "found": one.found} for one in law.violations],
            }
            for law in found.laws
        ],
        "ledger": [
            {"account": row.ledger_account, "currency": row.currency, "balance_minor": row.balance_minor}
            for row in found.ledger
        ],
    }


def _sums(sums: DirectionBalance) -> dict[str, int]:
    return {"counted": sums.counted, "rated": sums.rated, "waiting": sums.waiting, "suspense": sums.suspense}
