"""`sms-aaa plan`: what is sold. Plan files come in, versions are listed and shown."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sms_aaa.cli.caller import Caller, pass_caller
from sms_aaa.cli.exits import Exit, Failure
from sms_aaa.cli.options import listing_options, parse_instant, ticket_option
from sms_aaa.cli.output import Cell, Format, Shown, document, facts, listing, say, seconds
from sms_aaa.cli.plan_file import load_document
from sms_aaa.cli.plan_view import show_tariff
from sms_aaa.cli.verbs import Verbs

if TYPE_CHECKING:
    from sms_aaa.db.plans import PlanVersionRow
    from sms_aaa.rules.plan import Plan


@click.group(cls=Verbs)
def plan() -> None:
    """What is sold: a policy for the network and a tariff for the money.

    Example: sms-aaa plan list
    """


@plan.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, readable=True, path_type=Path))
@click.option("--effective", metavar="WHEN", help="From when on it is sold, a date or an instant; else at once.")
@ticket_option
@pass_caller
def add(caller: Caller, file: Path, effective: str | None, ticket: str | None) -> None:
    """Store the plan in FILE, as a new version if there is one of its name.

    FILE is TOML, or JSON if its name ends in .json; docs/tariffs.md has its format. One whose own [[example]] cases do
    not come out is refused. A version never changes, and subscriptions keep the one that they were sold: those made
    from WHEN on get this one. What is the same as the version in force then makes no new one.

    Example: sms-aaa plan add policies/home-100.toml --effective 2027-01-01
    """
    from sms_aaa.flows.provisioning.plans import add_plan
    from sms_aaa.rules.plan_table import PlanInvalidError

    loaded = load_document(file)
    effective_at = _instant_to_come(effective, caller.settings.rating.zone) if effective is not None else None
    with caller.connect() as connection:
        try:
            name, version, is_new = add_plan(
                caller.desk(connection, ticket),
                loaded,
                default_currency=caller.settings.rating.currency,
                effective_at=effective_at,
            )
        except PlanInvalidError as wrong:
            raise Failure(Exit.INVALID, f"{file}: {wrong.place}: {wrong.reason}", wrong.remedy) from wrong
    since = f", in force from {effective_at.astimezone(UTC):%Y-%m-%d %H:%M:%SZ} on" if effective_at else ""
    say(f"plan {name} version {version} added{since}" if is_new else f"plan {name} is version {version} already")


@plan.command("list")
@click.option("--all", "is_all", is_flag=True, help="Earlier versions, too.")
@listing_options
@pass_caller
def list_(caller: Caller, is_all: bool, form: Format) -> None:
    """List the plans, each in the version in force, and the versions to come.

    Example: sms-aaa plan list --csv
    """
    from sms_aaa.db.plans import list_plans

    with caller.connect() as connection:
        rows = list_plans(connection, is_all=is_all)
    columns = (
        "name", "version", "services", "down_kbps", "up_kbps", "sessions_max", "currency", "effective_at", "state",
    )  # fmt: skip
    listing(columns, [_cells(row) for row in rows], form, empty="no plan yet: sms-aaa plan add FILE")


@plan.command()
@click.argument("name")
@click.option("--version", type=click.IntRange(min=1), help="Else the one in force, or the first to come.")
@listing_options
@pass_caller
def show(caller: Caller, name: str, version: int | None, form: Format) -> None:
    """Show a version of a plan: its policy and what it costs.

    Example: sms-aaa plan show home-100
    """
    from sms_aaa.db.plans import find_in_force, find_latest, find_version
    from sms_aaa.rules.plan import plan_from_document

    with caller.connect() as connection:
        if version is not None:
            row = find_version(connection, name, version)
        else:
            row = find_in_force(connection, name) or find_latest(connection, name)
    if row is None:
        what = f"there is no plan {name}" if version is None else f"plan {name} has no version {version}"
        raise Failure(Exit.NOT_FOUND, what, "see `sms-aaa plan list --all`")
    stored = plan_from_document(row.document)
    if form is Format.JSON:
        document({**_facts(row, stored), "document": row.document})
        return
    facts(_facts(row, stored), form)
    if form is Format.TABLE:
        show_tariff(stored.tariff)


def _instant_to_come(text: str, zone: str) -> datetime:
    instant = parse_instant(text, zone, option="--effective")
    if instant <= datetime.now(UTC):
        raise click.BadParameter(f"{text!r} is past; leave it out to sell at once.", param_hint="'--effective'")
    return instant


def _state(row: PlanVersionRow) -> str:
    return "in force" if row.is_in_force else "to come" if row.is_upcoming else "past"


def _cells(row: PlanVersionRow) -> tuple[Cell, ...]:
    policy = row.document["policy"]
    return (
        row.name,
        row.version,
        row.services,
        _limit(policy["rate_down_kbps"]),
        _limit(policy["rate_up_kbps"]),
        _limit(policy["sessions_max"]),
        row.document["tariff"]["currency"],
        row.effective_at,
        _state(row),
    )


def _facts(row: PlanVersionRow, stored: Plan) -> dict[str, Cell]:
    policy = stored.policy
    return {
        "name": row.name,
        "version": row.version,
        "description": stored.description,
        "services": row.services,
        "effective_at": row.effective_at,
        "state": _state(row),
        "digest": row.digest,
        "down_kbps": _limit(policy.rate_down_kbps),
        "up_kbps": _limit(policy.rate_up_kbps),
        "session_timeout_seconds": _time_limit(policy.session_timeout_seconds),
        "idle_timeout_seconds": _time_limit(policy.idle_timeout_seconds),
        "interim_seconds": seconds(policy.interim_seconds),
        "sessions_max": _limit(policy.sessions_max),
        "sessions_policy": policy.sessions_policy.value,
        "sessions_strict": policy.sessions_strict,
        "currency": stored.tariff.currency,
    }


def _limit(number: int) -> Shown:
    return Shown(number, str(number) if number else "no limit")


def _time_limit(number: int) -> Shown:
    return seconds(number) if number else _limit(0)
