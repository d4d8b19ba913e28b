"""`sms-aaa config`: what is set, and whether it can work."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from sms_aaa.cli.caller import Caller, pass_caller
from sms_aaa.cli.exits import Exit, Failure
from sms_aaa.cli.options import listing_options
from sms_aaa.cli.output import Format, document, listing, say
from sms_aaa.cli.verbs import Verbs

if TYPE_CHECKING:
    from collections.abc import Iterator

_GROUP_AND_OTHERS = 0o077


@click.group(cls=Verbs)
def config() -> None:
    """The settings: one file and the environment, which wins.

    Example: sms-aaa config show
    """


@config.command()
@listing_options
@pass_caller
def show(caller: Caller, form: Format) -> None:
    """Show every setting as it holds now; passwords are masked.

    Example: sms-aaa config show --json
    """
    from sms_aaa.config import masked

    shown = masked(caller.settings)
    if form is Format.JSON:
        document({section: {key: _value(value) for key, value in keys.items()} for section, keys in shown.items()})
        return
    rows = [(f"{section}.{key}", _text(value)) for section, keys in shown.items() for key, value in keys.items()]
    listing(("setting", "value"), rows, form)


@config.command()
@listing_options
@pass_caller
def check(caller: Caller, form: Format) -> None:
    """Check that the settings are right and that this machine is as they say.

    The exit code is 2 when a setting cannot be, 1 when something on the machine does not fit.

    Example: sms-aaa --config new.toml config check
    """
    findings = [*_of_folder(caller), *_of_key(caller), *_of_database(caller)]
    if form is not Format.TABLE:
        listing(("place", "finding", "remedy"), findings, form)
    elif not findings:
        say("the settings are right, and the machine fits them")
    for place, finding, remedy in findings if form is Format.TABLE else ():
        say(f"{place}: {finding}; {remedy}")
    if findings:
        raise click.exceptions.Exit(Exit.DIFFERENT)


def _of_folder(caller: Caller) -> Iterator[tuple[str, str, str]]:
    folder = caller.state_folder
    existing = next(place for place in (folder, *folder.parents) if place.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        yield "node.state_folder", f"this user cannot write in {existing}", "give it to the user of the server"


def _of_key(caller: Caller) -> Iterator[tuple[str, str, str]]:
    from sms_aaa.config import key_path

    path = key_path(caller.settings)
    if path.exists() and path.stat().st_mode & _GROUP_AND_OTHERS:
        yield "database.key_file", f"others may read {path}", f"chmod 600 {path}"


def _of_database(caller: Caller) -> Iterator[tuple[str, str, str]]:
    if caller.settings.database.embedded:
        return  # it is there when the server runs
    try:
        caller.connect().close()
    except Failure as unfit:
        yield "database.dsn", unfit.reason, unfit.remedy


def _value(value: object) -> str | int | list[str]:
    """A number with a fraction is shown as text: JSON's own would be binary."""
    if isinstance(value, list | tuple):
        return [str(item) for item in value]
    return value if isinstance(value, int) else str(value)


def _text(value: object) -> str:
    shown = _value(value)
    return ", ".join(shown) if isinstance(shown, list) else str(shown)
