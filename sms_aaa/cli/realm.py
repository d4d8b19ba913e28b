r"""`sms-aaa realm`: the realms of user names, as in user@realm or REALM\user, and what each means."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from sms_aaa.cli.caller import Caller, pass_caller
from sms_aaa.cli.options import confirm, listing_options, ticket_option, yes_option
from sms_aaa.cli.output import Cell, Format, facts, listing, say
from sms_aaa.cli.verbs import Verbs

if TYPE_CHECKING:
    from sms_aaa.db.realms import RealmRow

_COLUMNS = ("name", "names", "plan", "nases", "created_at")


@click.group(cls=Verbs)
def realm() -> None:
    r"""The realms of user names, as user@realm or REALM\user.

    Without any, a name is looked up as it was sent. What becomes of a realm that is none of these is set by
    access.unknown_realm.

    Example: sms-aaa realm list
    """


_strip = click.option(
    "--strip/--keep", "is_stripped", default=None, help="Look its names up as the bare user, or as user@realm."
)
_plan = click.option("--plan", metavar="NAME", help="For services that are added in it without a plan.")
_nases = click.option("--nas", "nases", multiple=True, metavar="NAME", help="Its services may log in only here.")


@realm.command()
@click.argument("name")
@_strip
@_plan
@_nases
@ticket_option
@pass_caller
def add(
    caller: Caller,
    name: str,
    *,
    is_stripped: bool | None,
    plan: str | None,
    nases: tuple[str, ...],
    ticket: str | None,
) -> None:
    r"""Say that a realm is one of ours, and how its names are looked up.

    A name is looked up as it was sent; if nobody has it, a kept realm's as user@realm in lower case (so ISP-A\alice
    and alice@ISP-A are alice@isp-a), a stripped one's as the bare user. Kept unless --strip is given. --nas may be
    given several times; a service that is bound to access servers itself keeps to those.

    Example: sms-aaa realm add isp-a.example --plan home-100 --nas bng1
    """
    from sms_aaa.flows.provisioning.realms import add_realm

    with caller.connect() as connection:
        add_realm(caller.desk(connection, ticket), name, is_stripped=bool(is_stripped), plan=plan, nases=nases)
    say(f"realm {name.lower()} added")


@realm.command("list")
@listing_options
@pass_caller
def list_(caller: Caller, form: Format) -> None:
    """List the realms.

    Example: sms-aaa realm list --json
    """
    from sms_aaa.db.realms import list_realms

    with caller.connect() as connection:
        rows = list_realms(connection)
    empty = "no realm: names are looked up as they were sent"
    listing(_COLUMNS, [_cells(row) for row in rows], form, empty=empty)


@realm.command()
@click.argument("name")
@listing_options
@pass_caller
def show(caller: Caller, name: str, form: Format) -> None:
    """Show one realm.

    Example: sms-aaa realm show isp-a.example
    """
    from sms_aaa.flows.provisioning.realms import get_realm

    with caller.connect() as connection:
        row = get_realm(connection, name)
    facts(dict(zip(_COLUMNS, _cells(row), strict=True)), form)


@realm.command("set")
@click.argument("name")
@_strip
@_plan
@click.option("--no-plan", is_flag=True, help="Every service that is added in it names its plan.")
@_nases
@click.option("--any-nas", is_flag=True, help="Its services may log in anywhere.")
@ticket_option
@pass_caller
def set_(
    caller: Caller,
    name: str,
    *,
    is_stripped: bool | None,
    plan: str | None,
    no_plan: bool,
    nases: tuple[str, ...],
    any_nas: bool,
    ticket: str | None,
) -> None:
    """Change a realm; what is not given stays. --nas replaces the access servers that were given before.

    Example: sms-aaa realm set isp-a.example --strip
    """
    from sms_aaa.flows.provisioning.realms import set_realm

    if (plan is not None and no_plan) or (nases and any_nas):
        raise click.UsageError("--no-plan excludes --plan, --any-nas excludes --nas.")
    if is_stripped is None and plan is None and not (no_plan or nases or any_nas):
        raise click.UsageError("Nothing to change: give at least one option.")
    with caller.connect() as connection:
        set_realm(
            caller.desk(connection, ticket),
            name,
            is_stripped=is_stripped,
            plan="" if no_plan else plan,
            nases=nases if nases or any_nas else None,
        )
    say(f"realm {name.lower()} changed")


@realm.command()
@click.argument("name")
@yes_option
@ticket_option
@pass_caller
def remove(caller: Caller, name: str, *, yes: bool, ticket: str | None) -> None:
    """Forget a realm; its services stay, and its names are those of an unknown realm from now on.

    Example: sms-aaa realm remove isp-a.example --ticket CHG-19
    """
    from sms_aaa.flows.provisioning.realms import get_realm, remove_realm

    with caller.connect() as connection:
        row = get_realm(connection, name)
        connection.commit()  # nothing stays locked while somebody thinks
        how = "the bare user" if row.is_stripped else "user@realm"
        confirm(f"Names of {row.name} are looked up as {how} now, and as sent afterwards. Remove?", yes=yes)
        remove_realm(caller.desk(connection, ticket), name)
    say(f"realm {name.lower()} removed")


def _cells(row: RealmRow) -> tuple[Cell, ...]:
    return row.name, "stripped" if row.is_stripped else "kept", row.plan, ", ".join(row.nases) or None, row.created_at
