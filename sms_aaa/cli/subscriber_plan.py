"""`sms-aaa subscriber set-plan`: from one plan to another."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from sms_aaa.cli.caller import Caller, pass_caller
from sms_aaa.cli.options import parse_instant, ticket_option
from sms_aaa.cli.output import say
from sms_aaa.cli.verbs import Verb

if TYPE_CHECKING:
    from datetime import datetime

    from sms_aaa.db.engine import Connection


@click.command("set-plan", cls=Verb)
@click.argument("name")
@click.argument("plan")
@click.option("--at", metavar="DATE", help="From then on, by the account's clock; else from now on.")
@ticket_option
@pass_caller
def set_plan(caller: Caller, name: str, plan: str, at: str | None, ticket: str | None) -> None:
    """Put a subscriber's services on another plan, in its newest version.

    Fees that were charged for the rest of the old plan's period come back, if they are prorated, and the new plan's
    are charged from then on. Tiers begin anew, or go on where they were, as the new plan says. The rater does it.

    Example: sms-aaa subscriber set-plan alice home-500 --at 2027-02-01
    """
    from sms_aaa.flows.provisioning.plan_changes import change_plan

    with caller.connect() as connection:
        instant = _instant(connection, name, at)
        changed = change_plan(caller.desk(connection, ticket), name, plan, at=instant)
    when = f" from {instant:%Y-%m-%d %H:%M:%SZ} on" if instant is not None else ""
    say(f"{name} is on plan {plan}{when}" if changed else f"{name} was on plan {plan} already")


@click.command("keep-plan", cls=Verb)
@click.argument("name")
@ticket_option
@pass_caller
def keep_plan(caller: Caller, name: str, ticket: str | None) -> None:
    """Take back a change of plan that is still to come (`set-plan --at`); what has come is changed by `set-plan`.

    Example: sms-aaa subscriber keep-plan alice
    """
    from sms_aaa.flows.provisioning import plan_changes

    with caller.connect() as connection:
        at = plan_changes.keep_plan(caller.desk(connection, ticket), name)
    say(f"{name} stays on its plan; the change at {at:%Y-%m-%d %H:%M:%SZ} is taken back")


def _instant(connection: Connection, name: str, at: str | None) -> datetime | None:
    from datetime import UTC

    from sms_aaa.flows.provisioning.subscribers import get_subscriber

    if at is None:
        return None
    zone = next((row.zone for row in get_subscriber(connection, name) if row.zone), "UTC")
    return parse_instant(at, zone).astimezone(UTC)
