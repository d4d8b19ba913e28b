"""`sms-aaa plan`: what is sold. Plan files come in, versions are listed and shown."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from sms_aaa.cli.caller import Caller, pass_caller
from sms_aaa.cli.exits import Exit, Failure
from sms_aaa.cli.options import listing_options, ticket_option
from sms_aaa.cli.output import Cell, Format, Shown, document, facts, heading, listing, money, octets, say, seconds
from sms_aaa.cli.plan_file import load_document
from sms_aaa.cli.verbs import Verbs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sms_aaa.db.plans import PlanVersionRow
    from sms_aaa.rules.plan import Plan
    from sms_aaa.rules.tariff import Tariff


@click.group(cls=Verbs)
def plan() -> None:
    """What is sold: a policy for the network and a tariff for the money.

    Example: sms-aaa plan list
    """


@plan.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, readable=True, path_type=Path))
@ticket_option
@pass_caller
def add(caller: Caller, file: Path, ticket: str | None) -> None:
    """Store the plan in FILE, as a new version if there is one of its name.

    A file whose own [[example]] cases do not come out is refused. Running sessions keep the version they were sold.

    Example: sms-aaa plan add policies/home-100.toml
    """
    from sms_aaa.flows.provisioning.plans import add_plan
    from sms_aaa.rules.plan_table import PlanInvalidError

    loaded = load_document(file)
    with caller.connect() as connection:
        try:
            name, version, is_new = add_plan(
                caller.desk(connection, ticket), loaded, default_currency=caller.settings.rating.currency
            )
        except PlanInvalidError as wrong:
            raise Failure(Exit.INVALID, f"{file}: {wrong.place}: {wrong.reason}", wrong.remedy) from wrong
    say(f"plan {name} version {version} added" if is_new else f"plan {name} is version {version} already")


@plan.command("list")
@listing_options
@pass_caller
def list_(caller: Caller, form: Format) -> None:
    """List the plans, each in its newest version.

    Example: sms-aaa plan list --csv
    """
    from sms_aaa.db.plans import list_latest

    with caller.connect() as connection:
        rows = list_latest(connection)
    columns = ("name", "version", "services", "down_kbps", "up_kbps", "sessions_max", "currency", "effective_at")
    listing(columns, [_cells(row) for row in rows], form, empty="no plan yet: sms-aaa plan add FILE")


@plan.command()
@click.argument("name")
@listing_options
@pass_caller
def show(caller: Caller, name: str, form: Format) -> None:
    """Show the newest version of a plan: its policy and what it costs.

    Example: sms-aaa plan show home-100
    """
    from sms_aaa.db.plans import find_latest
    from sms_aaa.rules.plan import plan_from_document

    with caller.connect() as connection:
        row = find_latest(connection, name)
    if row is None:
        raise Failure(Exit.NOT_FOUND, f"there is no plan {name}", "see `sms-aaa plan list`")
    stored = plan_from_document(row.document)
    if form is Format.JSON:
        document({**_facts(row, stored), "document": row.document})
        return
    facts(_facts(row, stored), form)
    if form is Format.TABLE:
        heading("tariff")
        listing(("component", "kind", "from", "up_to", "price"), _prices(stored.tariff), form)


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
    )


def _facts(row: PlanVersionRow, stored: Plan) -> dict[str, Cell]:
    policy = stored.policy
    return {
        "name": row.name,
        "version": row.version,
        "description": stored.description,
        "services": row.services,
        "effective_at": row.effective_at,
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


def _prices(tariff: Tariff) -> Iterator[tuple[Cell, ...]]:
    from sms_aaa.rules.money import PICOUNITS, format_exact

    for fee in tariff.recurring:
        yield fee.name, f"each {fee.period}", None, None, money(fee.amount_minor, tariff.currency)
    for component in tariff.usage:
        position = 0
        for tier in component.tiers:
            price = f"{format_exact(tier.price_picounits, PICOUNITS, tariff.currency)} per {component.unit.label}"
            bound = None if tier.up_to is None else octets(tier.up_to)
            yield component.name, component.measure.value, octets(position), bound, price
            position = tier.up_to or position


def _limit(number: int) -> Shown:
    return Shown(number, str(number) if number else "no limit")


def _time_limit(number: int) -> Shown:
    return seconds(number) if number else _limit(0)
