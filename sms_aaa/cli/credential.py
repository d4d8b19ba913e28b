"""`sms-aaa credential`: passwords of services that log in by user name."""

from __future__ import annotations

import click

from sms_aaa.cli.caller import Caller, pass_caller
from sms_aaa.cli.options import read_secret, ticket_option
from sms_aaa.cli.output import say
from sms_aaa.cli.verbs import Verbs


@click.group(cls=Verbs)
def credential() -> None:
    """Passwords. They are stored sealed, and no command shows one.

    Example: sms-aaa credential set alice
    """


@credential.command("set")
@click.argument("name")
@click.option("--password", metavar="TEXT", help="The password; others can see it in the list of processes.")
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")
@ticket_option
@pass_caller
def set_(caller: Caller, name: str, password: str | None, *, password_stdin: bool, ticket: str | None) -> None:
    """Give a subscriber a new password; it is typed twice without echo.

    Sessions that are live go on; the next login needs the new one.

    Example: sms-aaa credential set alice --password-stdin < password.txt
    """
    from sms_aaa.flows.provisioning.desk import Invalid
    from sms_aaa.flows.provisioning.subscribers import set_password

    given = read_secret("password", given=password, from_stdin=password_stdin)
    if given is None:
        raise Invalid("password", "there is none", "give --password-stdin, or run it on a terminal")
    with caller.connect() as connection:
        set_password(caller.desk(connection, ticket), name, given)
    say(f"the password of {name} is changed")
