"""A NAS's shared secret at the command line: how it is given, and `sms-aaa nas rotate-secret`."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from sms_aaa.cli.caller import Caller, pass_caller
from sms_aaa.cli.options import read_secret, ticket_option
from sms_aaa.cli.output import note, say
from sms_aaa.cli.verbs import Verb

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from sms_aaa.rules.secret import Secret

GENERATED_OCTETS = 16
"""Of randomness in a generated secret, which is shown as twice as many hex digits."""


def secret_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds --secret, --secret-stdin, --generate and --allow-weak."""
    for option in (
        click.option("--allow-weak", is_flag=True, help="Take a secret that anybody would guess."),
        click.option("--generate", is_flag=True, help="Make a random secret and show it, this once."),
        click.option("--secret-stdin", is_flag=True, help="Read the secret from standard input."),
        click.option("--secret", metavar="TEXT", help="The secret; others can see it in the list of processes."),
    ):
        command = option(command)
    return command


def given_secret(given: str | None, *, from_stdin: bool, generate: bool) -> Secret | None:
    """As the options say; None where there is none and nobody can be asked."""
    from sms_aaa.rules.secret import Secret

    if not generate:
        return read_secret("secret", given=given, from_stdin=from_stdin)
    if given is not None or from_stdin:
        raise click.UsageError("--generate makes the secret: give it alone.")
    return Secret(secrets.token_hex(GENERATED_OCTETS).encode())


def show_generated(secret: Secret | None, *, generate: bool) -> None:
    if generate and secret is not None:
        say(f"secret: {secret.reveal().decode()}")


def warn_of_weakness(name: str, label: str | None) -> None:
    """A line beside the answer, if the secret could be guessed."""
    from sms_aaa.rules.secret import SecretStrength

    if label is not None and (sentence := SecretStrength.by_label(label).sentence):
        note(f"sms-aaa: the secret of {name} is weak: {sentence}; `sms-aaa nas rotate-secret {name} --generate`")


@click.command("rotate-secret", cls=Verb)
@click.argument("name")
@secret_options
@click.option("--finish", is_flag=True, help="The NAS has the new secret: retire the old one.")
@click.option("--cancel", is_flag=True, help="Give it up: retire the new secret.")
@click.option("--force", is_flag=True, help="Retire a secret that packets still come under.")
@ticket_option
@pass_caller
def rotate_secret(
    caller: Caller,
    name: str,
    *,
    secret: str | None,
    secret_stdin: bool,
    generate: bool,
    allow_weak: bool,
    finish: bool,
    cancel: bool,
    force: bool,
    ticket: str | None,
) -> None:
    """Replace the shared secret without refusing a packet.

    First make a new secret valid beside the old one. Then put it into the access server; `nas show` says which of the
    two its packets come under. When all come under the new one, --finish retires the old one.

    Example: sms-aaa nas rotate-secret bng1 --generate
    """
    gives = secret is not None or secret_stdin or generate
    if finish + cancel + gives > 1:
        raise click.UsageError("--finish and --cancel end a rotation: give one alone.")
    if finish or cancel:
        _end(caller, name, finish=finish, anyway=force, ticket=ticket)
    else:
        new = given_secret(secret, from_stdin=secret_stdin, generate=generate)
        _begin(caller, name, new, allow_weak=allow_weak, ticket=ticket)
        show_generated(new, generate=generate)
        say(f"next: put it into {name}, then `sms-aaa nas show {name}`")


def _begin(caller: Caller, name: str, new: Secret | None, *, allow_weak: bool, ticket: str | None) -> None:
    from sms_aaa.flows.provisioning.desk import Invalid
    from sms_aaa.flows.provisioning.nas import get_nas
    from sms_aaa.flows.provisioning.nas_secrets import rotate_secret as rotate

    if new is None:
        raise Invalid("secret", "there is none", "give --secret-stdin or --generate")
    with caller.connect() as connection:
        strength = rotate(caller.desk(connection, ticket), get_nas(connection, name), new, allow_weak=allow_weak)
    warn_of_weakness(name, strength.label)
    say(f"NAS {name} has two valid secrets now")


def _end(caller: Caller, name: str, *, finish: bool, anyway: bool, ticket: str | None) -> None:
    from sms_aaa.cli.nas_evidence import rotation_sentence
    from sms_aaa.flows.provisioning.nas import get_nas
    from sms_aaa.flows.provisioning.nas_secrets import cancel_rotation, finish_rotation

    now = datetime.now(UTC)
    end = finish_rotation if finish else cancel_rotation
    with caller.connect() as connection:
        rotation = end(caller.desk(connection, ticket), get_nas(connection, name), now=now, anyway=anyway)
    say(f"NAS {name} has the {'new' if finish else 'old'} secret alone now; {rotation_sentence(rotation, now)}")
