"""`sms-aaa lockouts`: who is kept out after failed logins, on this node, and how to let somebody in again.

It reads and changes the node's own file, so it works while PostgreSQL is away.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from sms_aaa.cli.caller import Caller, pass_caller
from sms_aaa.cli.exits import Exit, Failure
from sms_aaa.cli.options import confirm, listing_options, ticket_option, yes_option
from sms_aaa.cli.output import Cell, Format, listing, note, say
from sms_aaa.cli.verbs import Verbs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sms_aaa.node.lockouts import LockoutEntry, Lockouts

_COLUMNS = ("user", "device", "scope", "failures", "since", "until")


@click.group(cls=Verbs, invoke_without_command=True)
@click.pass_context
def lockouts(ctx: click.Context) -> None:
    """Who is kept out on this node after too many failed logins: without more words, the list.

    Each node counts for itself. How many failures and for how long: [limits] in the settings.

    Example: sms-aaa lockouts
    """
    if ctx.invoked_subcommand is None:
        ctx.invoke(list_)


@lockouts.command("list")
@click.option("--all", "with_failing", is_flag=True, help="Also those who have failed and may still try.")
@listing_options
@pass_caller
def list_(caller: Caller, form: Format, *, with_failing: bool) -> None:
    """List who is locked out: a user on a device, a user on any device, or a device whatever user it names.

    Example: sms-aaa lockouts list --all
    """
    now = int(time.time())
    window = caller.settings.limits.lockout_window_seconds
    table = _open(caller)
    try:
        entries = table.entries()
    finally:
        table.close()
    shown = [
        entry
        for entry in entries
        if entry.tally.is_locked(now)
        or (with_failing and not entry.tally.until and entry.tally.first_at <= now < entry.tally.first_at + window)
    ]
    shown.sort(key=lambda entry: (-entry.tally.until, -entry.last_at, entry.user, entry.device))
    listing(_COLUMNS, [_cells(entry) for entry in shown], form, empty="nobody is locked out on this node")


@lockouts.command()
@click.argument("name", required=False)
@click.option("--all", "everybody", is_flag=True, help="Everybody: after a NAS had the wrong secret, for one.")
@yes_option
@ticket_option
@pass_caller
def clear(caller: Caller, name: str | None, *, everybody: bool, yes: bool, ticket: str | None) -> None:
    """Let somebody try again at once: NAME is the user name or the device (Calling-Station-Id) as the list shows it.

    Example: sms-aaa lockouts clear alice --ticket INC-42
    """
    if everybody == (name is not None):
        raise click.UsageError("Give a NAME, or --all.")
    if everybody:
        confirm("Let everybody try again on this node, those who guess passwords too?", yes=yes)
    table = _open(caller)
    try:
        gone = table.forget_name(name.encode() if name is not None else None)
    finally:
        table.close()
    if not gone and name is not None:
        raise Failure(Exit.NOT_FOUND, f"nobody called {name} has failed on this node", "see `sms-aaa lockouts list`")
    entries = "1 entry" if len(gone) == 1 else f"{len(gone)} entries"
    say(f"{name or 'everybody'} may try again: {entries} forgotten on this node")
    _record(caller, gone, ticket)


def _open(caller: Caller) -> Lockouts:
    from sms_aaa.node.lockouts import Lockouts, LockoutsFault

    table = Lockouts.open(caller.state_folder)
    if isinstance(table, LockoutsFault):
        raise Failure(Exit.UNAVAILABLE, table.detail, "name the node's state folder")
    return table


def _record(caller: Caller, gone: Sequence[LockoutEntry], ticket: str | None) -> None:
    """In the audit trail, if the database is there: who is locked out must not have to wait for it."""
    from sms_aaa.flows.provisioning.lockouts import record_clearing

    try:
        with caller.connect() as connection:
            record_clearing(caller.desk(connection, ticket), caller.settings.node.name, gone)
    except Failure as away:
        note(f"sms-aaa: {away.reason}: it does not stand in the audit trail")


def _cells(entry: LockoutEntry) -> tuple[Cell, ...]:
    from sms_aaa.radius.packet import as_text

    tally = entry.tally
    return (
        as_text(entry.user) or None,
        as_text(entry.device) or None,
        entry.scope.label,
        tally.failures,
        datetime.fromtimestamp(tally.locked_at or tally.first_at, UTC),
        datetime.fromtimestamp(tally.until, UTC) if tally.until else None,
    )
