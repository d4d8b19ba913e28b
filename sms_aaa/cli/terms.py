"""`sms-aaa subscriber block|unblock|set|bind|unbind`: on which terms a service may be used."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from sms_aaa.cli.caller import Caller, pass_caller
from sms_aaa.cli.options import parse_instant, ticket_option
from sms_aaa.cli.output import say
from sms_aaa.cli.verbs import Verb
from sms_aaa.rules.entitlement import BindingKind, ServiceState

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from typing import Any

    from sms_aaa.flows.provisioning.terms import Bonds

NEVER = "none"
"""What an instant is given as to have no bound."""


@click.command(cls=Verb)
@click.argument("name")
@click.option("--reason", required=True, metavar="TEXT", help="Kept with the state, for whoever asks why.")
@ticket_option
@pass_caller
def block(caller: Caller, name: str, reason: str, ticket: str | None) -> None:
    """Refuse a subscriber's logins for abuse or fraud; sessions that are live go on.

    Unlike a suspension a block is not lifted by `restore`, nor by what restores after a payment: only by `unblock`.

    Example: sms-aaa subscriber block alice --reason "spam, case 4711"
    """
    from sms_aaa.flows.provisioning.subscribers import set_state

    with caller.connect() as connection:
        changed = set_state(caller.desk(connection, ticket), name, ServiceState.BLOCKED, reason)
    say(f"{name} is blocked" if changed else f"{name} was blocked already")


@click.command(cls=Verb)
@click.argument("name")
@ticket_option
@pass_caller
def unblock(caller: Caller, name: str, ticket: str | None) -> None:
    """Put a blocked subscriber back into the state that it was blocked in.

    Example: sms-aaa subscriber unblock alice --ticket ABUSE-12
    """
    from sms_aaa.flows.provisioning import terms

    with caller.connect() as connection:
        state = terms.unblock(caller.desk(connection, ticket), name)
    say(f"{name} was not blocked" if state is None else f"{name} is {state.name.lower()}")


@click.command("set", cls=Verb)
@click.argument("name")
@click.option("--valid-from", metavar="INSTANT", help="The first instant of its service, or `none`.")
@click.option("--valid-until", metavar="INSTANT", help="The first instant after its service, or `none`.")
@ticket_option
@pass_caller
def set_(caller: Caller, name: str, valid_from: str | None, valid_until: str | None, ticket: str | None) -> None:
    """Set from when and until when a subscriber may log in; what is not given stays.

    An INSTANT is 2026-01-31 (its first moment) or 2026-01-31T12:00, by the clock of the subscriber's account unless it
    names an offset. No session is let in for longer than to the end.

    Example: sms-aaa subscriber set alice --valid-until 2027-01-01
    """
    from sms_aaa.flows.provisioning.subscribers import get_subscriber
    from sms_aaa.flows.provisioning.terms import set_validity

    if valid_from is None and valid_until is None:
        raise click.UsageError("Nothing to change: give --valid-from or --valid-until.")
    with caller.connect() as connection:
        row = get_subscriber(connection, name)[0]
        zone = row.zone or caller.settings.rating.zone
        since = _instant(valid_from, zone, "--valid-from") if valid_from is not None else row.valid_from
        until = _instant(valid_until, zone, "--valid-until") if valid_until is not None else row.valid_until
        changed = set_validity(caller.desk(connection, ticket), name, valid_from=since, valid_until=until)
    said = f"valid from {_shown(since, 'the beginning')} until {_shown(until, 'further notice')}"
    say(f"{name} is {said}" if changed else f"{name} was {said} already")


def _bond_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("--port", "ports", multiple=True, metavar="TEXT", help="A line, as NAS-Port-Id or a circuit id."),
        click.option("--nas", "nases", multiple=True, metavar="NAME", help="An access server."),
        click.option("--mac", "macs", multiple=True, metavar="ADDRESS", help="A device's hardware address."),
    ):
        command = option(command)
    return command


@click.command(cls=Verb)
@click.argument("name")
@_bond_options
@click.option("--learn-mac", is_flag=True, help="The device of the next login, while it is bound to none.")
@ticket_option
@pass_caller
def bind(
    caller: Caller,
    name: str,
    macs: tuple[str, ...],
    nases: tuple[str, ...],
    ports: tuple[str, ...],
    *,
    learn_mac: bool,
    ticket: str | None,
) -> None:
    """Let a subscriber log in only with these devices, at these access servers, on these lines.

    Each option may be given several times, and adds to what is bound already: of one kind any will do, of several
    kinds each must fit. A line is what the NAS says in NAS-Port-Id, NAS-Port, ADSL-Agent-Circuit-Id or -Remote-Id; an
    id that is no text is written as 0x and hex digits. `sms-aaa why NAME` shows what came.

    Example: sms-aaa subscriber bind alice --mac 00:11:22:33:44:55 --nas bng1
    """
    from sms_aaa.flows.provisioning import terms

    bonds = _bonds(macs, nases, ports, otherwise=learn_mac)
    with caller.connect() as connection:
        desk = caller.desk(connection, ticket)
        done = terms.bind(desk, name, bonds)
        learns = learn_mac and terms.set_learning(desk, name, learns=True)
    if learns:
        say(f"{name} will be bound to the device of its first login from now on")
    if done or not learns:
        say(f"{name}: {done} bound" if done else f"{name} was bound so already")


@click.command(cls=Verb)
@click.argument("name")
@_bond_options
@click.option("--all", "everything", is_flag=True, help="Whatever it is bound to.")
@click.option("--all-macs", is_flag=True, help="Every device, as after an exchange of the modem.")
@click.option("--learn-mac", is_flag=True, help="Learn no device any more.")
@ticket_option
@pass_caller
def unbind(
    caller: Caller,
    name: str,
    macs: tuple[str, ...],
    nases: tuple[str, ...],
    ports: tuple[str, ...],
    *,
    everything: bool,
    all_macs: bool,
    learn_mac: bool,
    ticket: str | None,
) -> None:
    """Undo what `bind` did. A subscriber bound to nothing of a kind may log in with, at or on any.

    One that learns its device is bound to that of its next login, unless --learn-mac is given here too.

    Example: sms-aaa subscriber unbind alice --all-macs --ticket CPE-9
    """
    from sms_aaa.flows.provisioning import terms

    if everything or all_macs:
        if macs or nases or ports:
            raise click.UsageError("--all and --all-macs are given alone.")
        kinds = list(BindingKind) if everything else [BindingKind.MAC]
    else:
        kinds = []
    bonds = _bonds(macs, nases, ports, otherwise=bool(kinds) or learn_mac)
    with caller.connect() as connection:
        desk = caller.desk(connection, ticket)
        done = terms.unbind_all(desk, name, kinds) if kinds else terms.unbind(desk, name, bonds)
        if learn_mac:
            done += terms.set_learning(desk, name, learns=False)
    say(f"{name}: {done} unbound" if done else f"{name} was not bound so")


def _bonds(macs: tuple[str, ...], nases: tuple[str, ...], ports: tuple[str, ...], *, otherwise: bool) -> Bonds:
    """`otherwise`: something else is to be done, so that none may be named."""
    from sms_aaa.flows.provisioning.terms import Bonds

    if not (macs or nases or ports or otherwise):
        raise click.UsageError("Nothing is named: give --mac, --nas or --port.")
    return Bonds(macs=macs, nases=nases, ports=ports)


def _instant(text: str, zone: str, option: str) -> datetime | None:
    return None if text == NEVER else parse_instant(text, zone, option=option).replace(microsecond=0)


def _shown(at: datetime | None, otherwise: str) -> str:
    from datetime import UTC

    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ") if at is not None else otherwise
