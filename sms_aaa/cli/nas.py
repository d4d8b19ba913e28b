"""`sms-aaa nas`: the access servers that may ask, each with its shared secret."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import click

from sms_aaa.cli.caller import Caller, pass_caller
from sms_aaa.cli.options import confirm, listing_options, read_secret, ticket_option, yes_option
from sms_aaa.cli.output import Cell, Format, facts, listing, say
from sms_aaa.cli.verbs import Verbs
from sms_aaa.rules.entitlement import Dialect, MessageAuthenticatorPolicy

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from sms_aaa.db.nas import NasRow
    from sms_aaa.rules.secret import Secret

GENERATED_OCTETS = 16
"""Of randomness in a generated secret, which is shown as twice as many hex digits."""

_COLUMNS = ("name", "address", "dialect", "message_authenticator", "coa_port", "created_at")


@click.group(cls=Verbs)
def nas() -> None:
    """The access servers (BNG, hotspot, Wi-Fi controller) that may ask.

    A packet from anywhere else is dropped in silence, and counted.

    Example: sms-aaa nas list
    """


def _secret_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("--generate", is_flag=True, help="Make a random secret and show it, this once."),
        click.option("--secret-stdin", is_flag=True, help="Read the secret from standard input."),
        click.option("--secret", metavar="TEXT", help="The secret; others can see it in the list of processes."),
    ):
        command = option(command)
    return command


_dialect = click.option("--dialect", type=click.Choice(Dialect, case_sensitive=False), help="How it wants rights said.")
_policy = click.option(
    "--message-authenticator",
    type=click.Choice(MessageAuthenticatorPolicy, case_sensitive=False),
    help="Must its logins be signed? auto: from the first signed one on.",
)
_coa_port = click.option("--coa-port", type=click.IntRange(1, 65535), help="Where it hears Change-of-Authorization.")


@nas.command()
@click.argument("name")
@click.argument("address")
@_dialect
@_policy
@_coa_port
@_secret_options
@ticket_option
@pass_caller
def add(
    caller: Caller,
    name: str,
    address: str,
    dialect: Dialect | None,
    message_authenticator: MessageAuthenticatorPolicy | None,
    coa_port: int | None,
    *,
    secret: str | None,
    secret_stdin: bool,
    generate: bool,
    ticket: str | None,
) -> None:
    """Let an access server ask, at an ADDRESS or any of a prefix.

    The secret is typed without echo, read from standard input or generated. A generated one is shown once, and nothing
    shows it again: put it into the NAS at once.

    Example: sms-aaa nas add bng1 192.0.2.1 --dialect mikrotik --generate
    """
    from sms_aaa.flows.provisioning.desk import Invalid
    from sms_aaa.flows.provisioning.nas import add_nas

    given = _secret(secret, from_stdin=secret_stdin, generate=generate)
    if given is None:
        raise Invalid("secret", "there is none", "give --secret-stdin or --generate")
    with caller.connect() as connection:
        add_nas(
            caller.desk(connection, ticket),
            name=name,
            prefix=address,
            secret=given,
            dialect=dialect or Dialect.GENERIC,
            message_authenticator=message_authenticator or MessageAuthenticatorPolicy.AUTO,
            coa_port=coa_port or 3799,
        )
    say(f"NAS {name} added")
    _show_generated(given, generate=generate)


@nas.command("list")
@listing_options
@pass_caller
def list_(caller: Caller, form: Format) -> None:
    """List the access servers.

    Example: sms-aaa nas list --json
    """
    from sms_aaa.db.nas import list_nas

    with caller.connect() as connection:
        rows = list_nas(connection)
    listing(_COLUMNS, [_cells(row) for row in rows], form, empty="no NAS yet: sms-aaa nas add NAME ADDRESS")


@nas.command()
@click.argument("name")
@listing_options
@pass_caller
def show(caller: Caller, name: str, form: Format) -> None:
    """Show one access server, and how many sessions are live on it.

    Example: sms-aaa nas show bng1
    """
    from sms_aaa.db.sessions import count_live_of_nas
    from sms_aaa.flows.provisioning.nas import get_nas

    with caller.connect() as connection:
        row = get_nas(connection, name)
        live = count_live_of_nas(connection, row.id)
    facts({**dict(zip(_COLUMNS, _cells(row), strict=True)), "live_sessions": live}, form)


@nas.command("set")
@click.argument("name")
@click.option("--address", help="Its new address or prefix.")
@_dialect
@_policy
@_coa_port
@_secret_options
@click.option("--change-secret", is_flag=True, help="Ask for a new secret.")
@ticket_option
@pass_caller
def set_(
    caller: Caller,
    name: str,
    address: str | None,
    dialect: Dialect | None,
    message_authenticator: MessageAuthenticatorPolicy | None,
    coa_port: int | None,
    *,
    secret: str | None,
    secret_stdin: bool,
    generate: bool,
    change_secret: bool,
    ticket: str | None,
) -> None:
    """Change an access server; what is not given stays.

    Example: sms-aaa nas set bng1 --message-authenticator yes
    """
    from sms_aaa.flows.provisioning.nas import set_nas

    wants_secret = change_secret or secret is not None or secret_stdin or generate
    given = _secret(secret, from_stdin=secret_stdin, generate=generate) if wants_secret else None
    if given is None and not any((address, dialect, message_authenticator, coa_port)):
        raise click.UsageError("Nothing to change: give at least one option.")
    with caller.connect() as connection:
        set_nas(
            caller.desk(connection, ticket),
            name,
            prefix=address,
            secret=given,
            dialect=dialect,
            message_authenticator=message_authenticator,
            coa_port=coa_port,
        )
    say(f"NAS {name} changed")
    _show_generated(given, generate=generate)


@nas.command()
@click.argument("name")
@yes_option
@ticket_option
@pass_caller
def remove(caller: Caller, name: str, *, yes: bool, ticket: str | None) -> None:
    """Let an access server ask no more; its sessions stay on record.

    Example: sms-aaa nas remove bng1 --ticket CHG-17
    """
    from sms_aaa.db.sessions import count_live_of_nas
    from sms_aaa.flows.provisioning.nas import get_nas, remove_nas

    with caller.connect() as connection:
        row = get_nas(connection, name)
        live = count_live_of_nas(connection, row.id)
        connection.commit()  # nothing stays locked while somebody thinks
        confirm(
            f"NAS {name} ({row.prefix}) has {live} live sessions; their usage from now on is not counted. Remove?",
            yes=yes,
        )
        remove_nas(caller.desk(connection, ticket), name)
    say(f"NAS {name} removed; it had {live} live sessions")


def _secret(given: str | None, *, from_stdin: bool, generate: bool) -> Secret | None:
    from sms_aaa.rules.secret import Secret

    if not generate:
        return read_secret("secret", given=given, from_stdin=from_stdin)
    if given is not None or from_stdin:
        raise click.UsageError("--generate makes the secret: give it alone.")
    return Secret(secrets.token_hex(GENERATED_OCTETS).encode())


def _show_generated(secret: Secret | None, *, generate: bool) -> None:
    if generate and secret is not None:
        say(f"secret: {secret.reveal().decode()}")


def _cells(row: NasRow) -> tuple[Cell, ...]:
    return row.name, row.prefix, row.dialect, row.message_authenticator, row.coa_port, row.created_at
