"""`sms-aaa nas`: the access servers that may ask, each with its shared secret."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from sms_aaa.cli.caller import Caller, pass_caller
from sms_aaa.cli.drops import drops
from sms_aaa.cli.nas_secret import given_secret, rotate_secret, secret_options, show_generated, warn_of_weakness
from sms_aaa.cli.options import confirm, listing_options, ticket_option, yes_option
from sms_aaa.cli.output import Cell, Format, facts, listing, say
from sms_aaa.cli.verbs import Verbs
from sms_aaa.rules.entitlement import Dialect, MessageAuthenticatorPolicy

if TYPE_CHECKING:
    from sms_aaa.db.engine import Connection
    from sms_aaa.db.nas import NasRow

_COLUMNS = ("name", "address", "dialect", "message_authenticator", "secret_strength", "coa_port", "created_at")


@click.group(cls=Verbs)
def nas() -> None:
    """The access servers (BNG, hotspot, Wi-Fi controller) that may ask.

    A packet from anywhere else is dropped in silence, and counted.

    Example: sms-aaa nas list
    """


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
@secret_options
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
    allow_weak: bool,
    ticket: str | None,
) -> None:
    """Let an access server ask, at an ADDRESS or any of a prefix.

    The secret is typed without echo, read from standard input or generated. A generated one is shown once, and nothing
    shows it again: put it into the NAS at once.

    Example: sms-aaa nas add bng1 192.0.2.1 --dialect mikrotik --generate
    """
    from sms_aaa.flows.provisioning.desk import Invalid
    from sms_aaa.flows.provisioning.nas import add_nas, get_nas

    given = given_secret(secret, from_stdin=secret_stdin, generate=generate)
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
            allow_weak=allow_weak,
        )
        strength = get_nas(connection, name).secret_strength
    warn_of_weakness(name, strength)
    say(f"NAS {name} added")
    show_generated(given, generate=generate)


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
    """Show one access server: its sessions, how its requests are signed, how its secret does.

    Before you require a Message-Authenticator, or end the rotation of a secret, look here whether that is safe.

    Example: sms-aaa nas show bng1
    """
    from sms_aaa.cli.nas_evidence import evidence_cells
    from sms_aaa.db.session_lists import count_live_of_nas
    from sms_aaa.flows.provisioning.nas import get_nas

    with caller.connect() as connection:
        row = get_nas(connection, name)
        live = count_live_of_nas(connection, row.id)
        evidence = evidence_cells(connection, row)
    facts({**dict(zip(_COLUMNS, _cells(row), strict=True)), "zone": row.zone, "live_sessions": live, **evidence}, form)


@nas.command("set")
@click.argument("name")
@click.option("--address", help="Its new address or prefix.")
@_dialect
@_policy
@_coa_port
@click.option("--zone", help='Where it is, for rating keys of tariffs; "" for nowhere.')
@secret_options
@click.option("--change-secret", is_flag=True, help="Ask for a new secret.")
@yes_option
@ticket_option
@pass_caller
def set_(
    caller: Caller,
    name: str,
    address: str | None,
    dialect: Dialect | None,
    message_authenticator: MessageAuthenticatorPolicy | None,
    coa_port: int | None,
    zone: str | None,
    *,
    secret: str | None,
    secret_stdin: bool,
    generate: bool,
    allow_weak: bool,
    change_secret: bool,
    yes: bool,
    ticket: str | None,
) -> None:
    """Change an access server; what is not given stays.

    A new secret is valid at once, and the one before it no more: see rotate-secret for the gentle way. Another
    address, or --message-authenticator auto given again, makes it forget what the server sent before.

    Example: sms-aaa nas set bng1 --message-authenticator yes
    """
    from sms_aaa.flows.provisioning.nas import get_nas, set_nas

    wants_secret = change_secret or secret is not None or secret_stdin or generate
    given = given_secret(secret, from_stdin=secret_stdin, generate=generate) if wants_secret else None
    if given is None and zone is None and not any((address, dialect, message_authenticator, coa_port)):
        raise click.UsageError("Nothing to change: give at least one option.")
    with caller.connect() as connection:
        if message_authenticator is MessageAuthenticatorPolicy.YES:
            _ask_about_unsigned(connection, name, yes=yes)
        set_nas(
            caller.desk(connection, ticket),
            name,
            prefix=address,
            secret=given,
            dialect=dialect,
            message_authenticator=message_authenticator,
            coa_port=coa_port,
            zone=zone,
            allow_weak=allow_weak,
        )
        strength = get_nas(connection, name).secret_strength
    if given is not None:
        warn_of_weakness(name, strength)
    say(f"NAS {name} changed")
    show_generated(given, generate=generate)


@nas.command()
@click.argument("name")
@yes_option
@ticket_option
@pass_caller
def remove(caller: Caller, name: str, *, yes: bool, ticket: str | None) -> None:
    """Let an access server ask no more; its sessions stay on record.

    Example: sms-aaa nas remove bng1 --ticket CHG-17
    """
    from sms_aaa.db.session_lists import count_live_of_nas
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


def _ask_about_unsigned(connection: Connection, name: str, *, yes: bool) -> None:
    """Requiring what some of its logins do not have cuts those off."""
    from sms_aaa.cli.nas_evidence import signature_sentence
    from sms_aaa.db.evidence import get_evidence
    from sms_aaa.flows.provisioning.nas import get_nas

    row = get_nas(connection, name)
    seen = get_evidence(connection, row.id, row.secret_id)
    connection.commit()  # nothing stays locked while somebody thinks
    if seen.unsigned:
        confirm(
            f"A Message-Authenticator of {name} was {signature_sentence(seen)}: such logins get no answer then. Go on?",
            yes=yes,
        )


def _cells(row: NasRow) -> tuple[Cell, ...]:
    return (
        row.name, row.prefix, row.dialect, row.message_authenticator, row.secret_strength, row.coa_port, row.created_at,
    )  # fmt: skip


nas.add_command(rotate_secret)
nas.add_command(drops)
