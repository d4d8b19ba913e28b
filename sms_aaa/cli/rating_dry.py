"""`sms-aaa rating dry-run`: what past usage would have cost by a changed tariff. Nothing is written."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from sms_aaa.cli.caller import Caller, pass_caller
from sms_aaa.cli.exits import Exit, Failure
from sms_aaa.cli.options import listing_options, parse_instant
from sms_aaa.cli.output import Cell, Format, document, listing, money, say
from sms_aaa.cli.plan_file import load_document
from sms_aaa.cli.progress import progress_of
from sms_aaa.cli.verbs import Verb

if TYPE_CHECKING:
    from sms_aaa.flows.dry_rating import Compared
    from sms_aaa.rules.plan import Plan

STATEMENT_TIMEOUT_SECONDS = 3600
_LEFT_OUT = ("fees", "bounds over fees", "top-ups and rolled-over buckets", "money buckets", "tiers carried on")
_COLUMNS = ("account_id", "subscriber", "cycles", "old", "new", "difference")


@click.command("dry-run", cls=Verb)
@click.argument("file", type=click.Path(exists=True, dir_okay=False, readable=True, path_type=Path))
@click.option("--from", "start", metavar="TIME", required=True, help="Cycles that begin then or later.")
@click.option("--to", "end", metavar="TIME", required=True, help="Cycles that begin before.")
@click.option("--plan", "name", metavar="NAME", help="Who was on this plan; else on the one that FILE names.")
@listing_options
@pass_caller
def dry_run(caller: Caller, file: Path, start: str, end: str, name: str | None, form: Format) -> None:
    """Price past usage by the tariff in FILE: what each account paid, what it would have, and the difference.

    Usage is compared, with its minimums and the bounds over it, before money buckets pay. Left out are fees, bounds
    over fees, and what was bought or rolled over from other cycles. It reads one snapshot and writes nothing.

    Example: sms-aaa rating dry-run home-100-new.toml --from 2026-09-01 --to 2026-11-01 --plan home-100
    """
    from sms_aaa.db.engine import begin_snapshot
    from sms_aaa.db.subscribers import list_account_names
    from sms_aaa.flows.dry_rating import compare_tariffs
    from sms_aaa.flows.shelf import PlanShelf

    changed = _read(file, caller.settings.rating.currency)
    begin, until = parse_instant(start, "UTC", option="--from"), parse_instant(end, "UTC", option="--to")
    plan = name or changed.name
    with caller.connect(statement_timeout_seconds=STATEMENT_TIMEOUT_SECONDS) as connection:
        begin_snapshot(connection)
        with progress_of("charging groups") as progress:
            found = list(
                compare_tariffs(
                    connection, PlanShelf(), changed.tariff, plan=plan, start=begin, end=until, progress=progress
                )
            )
        names = list_account_names(connection, [one.account_id for one in found])
        connection.rollback()
    if not found:
        raise Failure(
            Exit.NOT_FOUND, f"nobody was on {plan} in a cycle that began then", "see `sms-aaa plan list`, or --plan"
        )
    _tell(found, names, changed.tariff.currency, form)


def _read(file: Path, currency: str) -> Plan:
    from sms_aaa.rules.plan import parse_plan
    from sms_aaa.rules.plan_table import PlanInvalidError

    try:
        return parse_plan(load_document(file), default_currency=currency)
    except PlanInvalidError as wrong:
        raise Failure(Exit.INVALID, f"{file}: {wrong.place}: {wrong.reason}", wrong.remedy) from wrong


def _tell(found: list[Compared], names: dict[int, str], currency: str, form: Format) -> None:
    rows: list[tuple[Cell, ...]] = [
        (
            one.account_id, names.get(one.account_id), one.cycles, money(one.old_minor, currency),
            money(one.new_minor, currency), money(one.difference_minor, currency),
        )
        for one in found
    ]  # fmt: skip
    old, new = sum(one.old_minor for one in found), sum(one.new_minor for one in found)
    if form is Format.JSON:
        document({
            "currency": currency,
            "accounts": [dict(zip(_COLUMNS, row, strict=True)) for row in rows],
            "old": old,
            "new": new,
            "difference": new - old,
            "left_out": list(_LEFT_OUT),
        })  # fmt: skip
        return
    listing(_COLUMNS, rows, form)
    if form is Format.TABLE:
        say(
            f"total: old {money(old, currency).text}, new {money(new, currency).text}, "
            f"difference {money(new - old, currency).text}"
        )
        say(f"left out of old and new: {', '.join(_LEFT_OUT)}")
