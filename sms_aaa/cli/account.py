"""`sms-aaa account`: how subscribers are charged."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from sms_aaa.cli.bucket_amounts import read_amount
from sms_aaa.cli.caller import Caller, pass_caller
from sms_aaa.cli.options import confirm, listing_options, ticket_option, yes_option
from sms_aaa.cli.output import Cell, Format, facts, money, say
from sms_aaa.cli.verbs import Verbs

if TYPE_CHECKING:
    from sms_aaa.db.accounts import AccountRow


@click.group(cls=Verbs)
def account() -> None:
    """How a subscriber is charged: prepaid or postpaid with a limit, thresholds of its buckets, its charging group.

    Example: sms-aaa account show alice
    """


@account.command()
@click.argument("name")
@listing_options
@pass_caller
def show(caller: Caller, name: str, form: Format) -> None:
    """Show how a subscriber is charged, and what it owes by the ledger.

    Example: sms-aaa account show alice
    """
    from sms_aaa.flows.provisioning.accounts import get_account

    with caller.connect() as connection:
        row = get_account(connection, name)
    facts(_cells(row), form)


@account.command("set")
@click.argument("name")
@click.option("--prepaid", "mode", flag_value="prepaid", help="It may use what it has paid for, and its limit.")
@click.option("--postpaid", "mode", flag_value="postpaid", help="It may owe, up to its limit if it has one.")
@click.option("--credit-limit", metavar="AMOUNT", help="What it may owe, unbilled usage included; or no-limit.")
@click.option("--threshold", "thresholds", type=int, multiple=True, help="Percent of a bucket that raise an event.")
@click.option("--no-threshold", is_flag=True, help="Buckets raise no events.")
@ticket_option
@pass_caller
def set_(
    caller: Caller,
    name: str,
    *,
    mode: str | None,
    credit_limit: str | None,
    thresholds: tuple[int, ...],
    no_threshold: bool,
    ticket: str | None,
) -> None:
    """Change how a subscriber is charged; what is not given stays. Thresholds are for buckets from now on.

    Example: sms-aaa account set alice --prepaid --credit-limit 5.00 --threshold 80 --threshold 100
    """
    from sms_aaa.flows.provisioning.accounts import NO_LIMIT, set_charging

    if thresholds and no_threshold:
        raise click.UsageError("--threshold and --no-threshold exclude each other: give one.")
    if mode is None and credit_limit is None and not thresholds and not no_threshold:
        raise click.UsageError("Nothing to change: give at least one option.")
    is_amount = credit_limit is not None and credit_limit != NO_LIMIT
    limit = read_amount(credit_limit, place="--credit-limit") if is_amount and credit_limit else credit_limit
    with caller.connect() as connection:
        changed = set_charging(
            caller.desk(connection, ticket),
            name,
            mode=mode,
            credit_limit=limit,
            thresholds=thresholds if thresholds or no_threshold else None,
        )
    say(f"account of {name} changed" if changed else f"account of {name} was so already")


@account.command()
@click.argument("name")
@click.option("--head", required=True, metavar="NAME", help="The subscriber whose shared buckets it may use.")
@yes_option
@ticket_option
@pass_caller
def join(caller: Caller, name: str, *, head: str, yes: bool, ticket: str | None) -> None:
    """Let a subscriber use the shared buckets of another, as a member of its charging group.

    What was rated stays where it is; what is rated from now on may use them.

    Example: sms-aaa account join bob --head alice
    """
    from sms_aaa.flows.provisioning.accounts import get_account, join_group

    with caller.connect() as connection:
        get_account(connection, name)
        get_account(connection, head)
        connection.commit()  # nothing stays locked while somebody thinks
        confirm(f"Usage of {name} may use up what {head} shares. Join?", yes=yes)
        join_group(caller.desk(connection, ticket), name, head)
    say(f"{name} is in the charging group of {head}")


@account.command()
@click.argument("name")
@yes_option
@ticket_option
@pass_caller
def leave(caller: Caller, name: str, *, yes: bool, ticket: str | None) -> None:
    """Let a subscriber use its own buckets only.

    Example: sms-aaa account leave bob
    """
    from sms_aaa.flows.provisioning.accounts import get_account, leave_group

    with caller.connect() as connection:
        get_account(connection, name)
        connection.commit()
        confirm(f"Usage of {name} will use its own buckets only. Leave?", yes=yes)
        head = leave_group(caller.desk(connection, ticket), name)
    say(f"{name} left the charging group of {head}")


def _cells(row: AccountRow) -> dict[str, Cell]:
    limit = row.credit_limit_minor
    return {
        "subscriber": row.subscriber,
        "charging_mode": row.charging_mode,
        "currency": row.currency,
        "zone": row.zone,
        "anchor_day": row.anchor_day,
        "credit_limit_minor": money(limit, row.currency) if limit is not None else None,
        "owes_minor": money(row.balance_minor, row.currency),
        "thresholds": ", ".join(map(str, row.thresholds)) or None,
        "head": row.head,
        "members": ", ".join(row.members) or None,
    }
