"""`sms-aaa credential`: passwords of services that log in by user name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from sms_aaa.cli.caller import Caller, pass_caller
from sms_aaa.cli.options import form_option, listing_options, parse_form, read_secret, ticket_option
from sms_aaa.cli.output import Cell, Format, listing, say
from sms_aaa.cli.verbs import Verbs

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sms_aaa.flows.provisioning.credentials import KnownCredential
    from sms_aaa.radius.credentials import Method

_COLUMNS = ("username", "form", "cost", "since", "serves", "does_not_serve", "verified")


@click.group(cls=Verbs)
def credential() -> None:
    """Passwords, in the clear or hashed. They are stored sealed, and no command shows one.

    Example: sms-aaa credential set alice
    """


@credential.command("set")
@click.argument("name")
@click.option("--password", metavar="TEXT", help="The password or hash; others can see it in the list of processes.")
@click.option("--password-stdin", is_flag=True, help="Read the password or hash from standard input.")
@form_option
@ticket_option
@pass_caller
def set_(
    caller: Caller, name: str, password: str | None, *, password_stdin: bool, form: str, ticket: str | None
) -> None:
    """Give a subscriber a new password; it is typed twice without echo.

    A password in the clear serves every method. A hash that another server stored can be taken as it is with --form
    and then serves PAP alone, an NT hash MS-CHAP too. Sessions that are live go on; the next login needs the new one.

    Example: sms-aaa credential set alice --form auto --password-stdin < hash.txt
    """
    from sms_aaa.flows.provisioning.credentials import read_credential, set_credential
    from sms_aaa.flows.provisioning.desk import Invalid

    given = read_secret("password", given=password, from_stdin=password_stdin)
    if given is None:
        raise Invalid("password", "there is none", "give --password-stdin, or run it on a terminal")
    stored = read_credential(given, parse_form(form))
    with caller.connect() as connection:
        set_credential(caller.desk(connection, ticket), name, stored)
    say(f"the password of {name} is changed")
    if stored.cleartext is None:
        say(f"as {stored.form.name.lower()} it serves {_words(stored.methods)} alone")


@credential.command()
@click.argument("name")
@listing_options
@pass_caller
def show(caller: Caller, name: str, form: Format) -> None:
    """Say in what form a password is stored, since when, and which methods it can serve; never the password.

    Example: sms-aaa credential show alice
    """
    from sms_aaa.flows.provisioning.credentials import find_credentials

    with caller.connect() as connection:
        found = find_credentials(caller.desk(connection, None), name)
    listing(_COLUMNS, [_cells(one) for one in found], form, empty=f"none: sms-aaa credential set {name}")


def _words(methods: Iterable[Method]) -> str:
    return " ".join(method.name.lower() for method in methods)


def _cells(one: KnownCredential) -> tuple[Cell, ...]:
    from sms_aaa.radius.credentials import Method

    serves = one.methods
    by_password = (Method.PAP, Method.CHAP, Method.MSCHAP, Method.MSCHAP2)
    how = "beside the loop" if one.is_slow else "at once"
    return (
        one.identity,
        one.form.name.lower(),
        one.cost or None,
        one.changed_at,
        _words(serves),
        _words(method for method in by_password if method not in serves) or None,
        how if one.stored is not None else "never: this node's key does not open it",
    )
