"""`sms-aaa subscriber`: who may log in."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from sms_aaa.cli.caller import Caller, pass_caller
from sms_aaa.cli.exporting import export
from sms_aaa.cli.importing import import_
from sms_aaa.cli.options import (
    confirm,
    form_option,
    listing_options,
    parse_form,
    read_secret,
    ticket_option,
    yes_option,
)
from sms_aaa.cli.output import Cell, Format, document, facts, heading, listing, say
from sms_aaa.cli.subscriber_plan import keep_plan, set_plan
from sms_aaa.cli.terms import bind, block, set_, unbind, unblock
from sms_aaa.cli.verbs import Verbs
from sms_aaa.rules.entitlement import BindingKind, IdentityKind, ServiceState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sms_aaa.db.engine import Connection
    from sms_aaa.db.subscribers import SubscriberRow
    from sms_aaa.db.terms import BindingRow
    from sms_aaa.flows.explaining import CycleUsage

SESSIONS_SHOWN_MAX = 20

_COLUMNS = (
    "name", "full_name", "identity", "kind", "state", "state_reason", "plan", "plan_version", "static_ipv4",
    "has_credential", "valid_from", "valid_until", "learns_mac_since", "currency", "zone", "created_at",
)  # fmt: skip
_BINDING_COLUMNS = ("kind", "value", "since")
_TABLE_COLUMNS = ("name", "full_name", "identity", "kind", "state", "plan", "created_at")


@click.group(cls=Verbs)
def subscriber() -> None:
    """Who may log in: a person or company with an account and a service.

    Example: sms-aaa subscriber show alice
    """


@subscriber.command()
@click.argument("name")
@click.option("--plan", metavar="NAME", help="What is sold, in its newest version; else the default of its realm.")
@click.option("--password", metavar="TEXT", help="The password; others can see it in the list of processes.")
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")
@form_option
@click.option("--mac", metavar="ADDRESS", help="A device's hardware address that logs in by itself, without password.")
@click.option("--username", metavar="TEXT", help="What User-Name says; else the NAME.")
@click.option("--static-ip", metavar="ADDRESS", help="An IPv4 address of its own.")
@click.option("--full-name", default="", metavar="TEXT")
@click.option("--email", default="", metavar="TEXT")
@click.option("--phone", default="", metavar="TEXT")
@click.option("--zone", metavar="ZONE", help="Whose midnight begins its cycles; else rating.zone.")
@click.option("--anchor-day", type=click.IntRange(1, 31), help="On which day they begin; else rating.anchor_day.")
@ticket_option
@pass_caller
def add(
    caller: Caller,
    name: str,
    plan: str | None,
    *,
    password: str | None,
    password_stdin: bool,
    form: str,
    mac: str | None,
    username: str | None,
    static_ip: str | None,
    full_name: str,
    email: str,
    phone: str,
    zone: str | None,
    anchor_day: int | None,
    ticket: str | None,
) -> None:
    """Let a subscriber log in, by user name and password or by a device.

    The password is typed twice without echo unless it comes another way. NAME is what the other commands take.

    Example: sms-aaa subscriber add alice --plan home-100 --zone Europe/Berlin
    """
    from sms_aaa.flows.provisioning.subscribers import NewSubscriber, add_subscriber, get_subscriber

    if mac is not None and (password is not None or password_stdin or username is not None):
        raise click.UsageError("--mac excludes --password and --username: a device is its own credential.")
    rating = caller.settings.rating
    new = NewSubscriber(
        name=name,
        plan=plan,
        full_name=full_name,
        email=email,
        phone=phone,
        username=username,
        mac=mac,
        password=None if mac is not None else read_secret("password", given=password, from_stdin=password_stdin),
        form=parse_form(form),
        static_ipv4=static_ip,
        zone=_known_zone(zone or rating.zone),
        anchor_day=anchor_day or rating.anchor_day,
    )
    with caller.connect() as connection:
        add_subscriber(caller.desk(connection, ticket), new)
        plan = get_subscriber(connection, name)[0].plan
    say(f"subscriber {name} added on plan {plan}")


@subscriber.command("list")
@click.option("--limit", type=click.IntRange(1, 10_000_000), default=1000, show_default=True, help="The first so many.")
@listing_options
@pass_caller
def list_(caller: Caller, limit: int, form: Format) -> None:
    """List the subscribers by name, a line for each service.

    Example: sms-aaa subscriber list --limit 50
    """
    from sms_aaa.db.subscribers import list_subscribers

    with caller.connect() as connection:
        rows = list_subscribers(connection, limit=limit)
    columns = _TABLE_COLUMNS if form is Format.TABLE else _COLUMNS
    cells = [_cells(row) for row in rows]
    empty = "no subscriber yet: sms-aaa subscriber add NAME --plan PLAN"
    listing(columns, [[known[column] for column in columns] for known in cells], form, empty=empty)


@subscriber.command()
@click.argument("name")
@listing_options
@pass_caller
def show(caller: Caller, name: str, form: Format) -> None:
    """Show a subscriber: who is online, what this cycle comes to, the last decision.

    Example: sms-aaa subscriber show alice
    """
    from sms_aaa.cli.session_cells import session_cells, session_listing
    from sms_aaa.cli.usage import usage_document, usage_listing
    from sms_aaa.cli.why import decision_cells, recall_for
    from sms_aaa.db.session_lists import SessionFilter, list_sessions
    from sms_aaa.db.terms import list_bindings
    from sms_aaa.flows.provisioning.subscribers import get_subscriber

    with caller.connect() as connection:
        rows = get_subscriber(connection, name)
        bindings = list_bindings(connection, [row.service_id for row in rows if row.service_id is not None])
        sessions = list_sessions(connection, SessionFilter(name=name), limit=SESSIONS_SHOWN_MAX)
        usages = _usages(connection, rows)
        decisions = recall_for(caller, connection, name, last=1).decisions
    services = [_cells(row) for row in rows]
    if form is Format.JSON:
        document(
            {
                "services": services,
                "bound_to": [_binding_cells(binding) for binding in bindings],
                "sessions": [session_cells(session) for session in sessions],
                "usage": [usage_document(usage) for usage in usages],
                "last_decision": decision_cells(decisions[0]) if decisions else None,
            }
        )
        return
    if form is Format.CSV:
        listing(_COLUMNS, [list(service.values()) for service in services], form)
        return
    for service in services:
        facts(service, form)
    if bindings:
        heading("bound to")
        listing(_BINDING_COLUMNS, [list(_binding_cells(binding).values()) for binding in bindings], form)
    heading("online")
    session_listing(sessions, form)
    for usage in usages:
        usage_listing(usage, form)
    heading("last decision")
    said = decisions[0] if decisions else None
    say(f"{said.decision.at:%Y-%m-%d %H:%M:%SZ}  {said.reason.label}  by {said.nas}" if said else "none is known")


@subscriber.command()
@click.argument("name")
@click.option("--reason", required=True, metavar="TEXT", help="Kept with the state, for whoever asks why.")
@ticket_option
@pass_caller
def suspend(caller: Caller, name: str, reason: str, ticket: str | None) -> None:
    """Refuse a subscriber's logins until it is restored; sessions that are live go on.

    Example: sms-aaa subscriber suspend alice --reason "unpaid since May"
    """
    _set_state(caller, name, ServiceState.SUSPENDED, reason, ticket)


@subscriber.command()
@click.argument("name")
@ticket_option
@pass_caller
def restore(caller: Caller, name: str, ticket: str | None) -> None:
    """Let a suspended subscriber log in again.

    Example: sms-aaa subscriber restore alice
    """
    _set_state(caller, name, ServiceState.ACTIVE, "", ticket)


@subscriber.command()
@click.argument("name")
@yes_option
@ticket_option
@pass_caller
def remove(caller: Caller, name: str, *, yes: bool, ticket: str | None) -> None:
    """End a subscriber's services; usage and money stay on record, the name is free again.

    Example: sms-aaa subscriber remove alice --ticket CHG-18
    """
    from sms_aaa.db.session_lists import SessionFilter, list_sessions
    from sms_aaa.flows.provisioning.subscribers import get_subscriber, remove_subscriber

    with caller.connect() as connection:
        get_subscriber(connection, name)
        live = list_sessions(connection, SessionFilter(name=name), limit=SESSIONS_SHOWN_MAX)
        connection.commit()  # nothing stays locked while somebody thinks
        confirm(f"{name} has {len(live)} live sessions; its services end for good. Remove?", yes=yes)
        remove_subscriber(caller.desk(connection, ticket), name)
    say(f"subscriber {name} removed")


def _set_state(caller: Caller, name: str, state: ServiceState, reason: str, ticket: str | None) -> None:
    from sms_aaa.flows.provisioning.subscribers import set_state

    with caller.connect() as connection:
        changed = set_state(caller.desk(connection, ticket), name, state, reason)
    say(f"{name} is {state.name.lower()}" if changed else f"{name} was {state.name.lower()} already")


def _usages(connection: Connection, rows: Sequence[SubscriberRow]) -> list[CycleUsage]:
    from sms_aaa.flows.explaining import find_usage
    from sms_aaa.flows.shelf import PlanShelf

    now, shelf = datetime.now(UTC), PlanShelf()
    accounts = {row.account_id for row in rows if row.account_id is not None}
    found = [find_usage(connection, shelf, account_id, now) for account_id in sorted(accounts)]
    return [usage for usage in found if usage is not None]


def _known_zone(zone: str) -> str:
    from sms_aaa.flows.provisioning.desk import Invalid
    from sms_aaa.rules.cycle import ZoneUnknownError, cycle_at

    try:
        cycle_at(datetime.now(UTC), zone, 1)
    except ZoneUnknownError as unknown:
        reason, _, remedy = str(unknown).partition("; ")
        raise Invalid("--zone", reason, remedy) from unknown
    return zone


def _binding_cells(row: BindingRow) -> dict[str, Cell]:
    value = row.nas if row.nas is not None else row.value
    return dict(zip(_BINDING_COLUMNS, (BindingKind(row.kind).name.lower(), value, row.created_at), strict=True))


def _cells(row: SubscriberRow) -> dict[str, Cell]:
    cells: tuple[Cell, ...] = (
        row.name,
        row.full_name,
        row.identity,
        IdentityKind(row.identity_kind).name.lower() if row.identity_kind is not None else None,
        ServiceState(row.state).name.lower() if row.state is not None else None,
        row.state_reason or None,
        row.plan,
        row.plan_version,
        row.static_ipv4,
        row.has_credential,
        row.valid_from,
        row.valid_until,
        row.learns_mac_since,
        row.currency,
        row.zone,
        row.created_at,
    )
    return dict(zip(_COLUMNS, cells, strict=True))


for _verb in (set_plan, keep_plan, block, unblock, set_, bind, unbind, import_, export):
    subscriber.add_command(_verb)
