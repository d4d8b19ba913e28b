"""Options that several commands share: the format of a listing, tickets, questions, secrets and instants.

A secret is asked for without echo, or comes by standard input. As an argument it is possible, for scripts that have
no other way, but everybody on the machine can read a process's arguments.
"""

from __future__ import annotations

import re
import sys
from datetime import datetime, timedelta
from functools import wraps
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import click

from sms_aaa.cli.output import Format

if TYPE_CHECKING:
    from collections.abc import Callable

    from sms_aaa.radius.hashes import Form
    from sms_aaa.rules.secret import Secret

SECRET_QUANTITY_MAX = 4096
"""As much as is read of standard input for a secret; far more than any may have."""

_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}

ticket_option = click.option("--ticket", metavar="TEXT", help="Your reference, kept in the audit trail.")
yes_option = click.option("--yes", is_flag=True, help="Do not ask.")


def listing_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds --json and --csv; the command gets `form`."""

    @wraps(command)
    def with_format(*args: Any, as_json: bool, as_csv: bool, **kwargs: Any) -> Any:
        if as_json and as_csv:
            raise click.UsageError("--json and --csv exclude each other: give one.")
        form = Format.JSON if as_json else Format.CSV if as_csv else Format.TABLE
        return command(*args, form=form, **kwargs)

    as_csv = click.option("--csv", "as_csv", is_flag=True, help="CSV, with exact values.")
    as_json = click.option("--json", "as_json", is_flag=True, help="JSON, with exact values.")
    return as_json(as_csv(with_format))


_FORMS = (
    "cleartext", "auto", "nt", "md5", "smd5", "sha", "ssha", "sha224", "ssha224", "sha256", "ssha256", "sha384",
    "ssha384", "sha512", "ssha512", "pbkdf2", "scrypt", "argon2", "crypt",
)  # fmt: skip
form_option = click.option(
    "--form",
    type=click.Choice(_FORMS, case_sensitive=False),
    default="cleartext",
    show_default=True,
    metavar="FORM",
    help=f"What the password is; auto: its {{header}} or its beginning tells. One of {', '.join(_FORMS)}.",
)


def parse_form(name: str) -> Form | None:
    """The form of a --form; None for auto."""
    from sms_aaa.radius.hashes import Form

    return None if name == "auto" else Form[name.upper()]


def confirm(question: str, *, yes: bool) -> None:
    """Goes on if the user says so, or said --yes; Abort otherwise."""
    if not yes:
        click.confirm(question, abort=True, err=True)


def read_secret(label: str, *, given: str | None, from_stdin: bool) -> Secret | None:
    """The secret as given, from standard input, or typed twice without echo; None where nobody can be asked."""
    from sms_aaa.rules.secret import Secret

    if given is not None and from_stdin:
        raise click.UsageError(f"--{label} and --{label}-stdin exclude each other: give one.")
    if given is not None:
        return Secret(given.encode())
    if from_stdin:
        return Secret(sys.stdin.buffer.read(SECRET_QUANTITY_MAX).rstrip(b"\r\n"))
    if not sys.stdin.isatty():
        return None
    typed = click.prompt(label.capitalize(), hide_input=True, confirmation_prompt=True, err=True)
    return Secret(str(typed).encode())


def parse_since(text: str, zone: str, now: datetime, *, option: str = "--since") -> datetime:
    """As long before `now` as 90s, 30m, 12h or 7d say, or an instant as parse_instant() reads it."""
    if (ago := _duration(text)) is not None:
        return now - timedelta(seconds=ago)
    return parse_instant(text, zone, option=option)


def parse_duration(text: str, *, option: str) -> int:
    """90s, 30m, 12h or 7d, in seconds."""
    if (found := _duration(text)) is None:
        raise click.BadParameter(f"{text!r} is no duration; write it as 90s, 30m, 12h or 7d.", param_hint=f"'{option}'")
    return found


def _duration(text: str) -> int | None:
    found = re.fullmatch(r"(\d{1,5})([smhd])", text)
    return int(found[1]) * _SECONDS[found[2]] if found is not None else None


def parse_octets(text: str, *, option: str) -> int:
    """1500000 or a volume such as "10 GB"."""
    from sms_aaa.rules.measure import quantity_of

    if re.fullmatch(r"\d{1,18}", text):
        return int(text)
    spaced = re.sub(r"(?<=\d)(?=[A-Za-z])", " ", text)
    try:
        return quantity_of(spaced)
    except ValueError as error:
        raise click.BadParameter(f"{error}.", param_hint=f"'{option}'") from None


def parse_stations(text: str) -> tuple[str, ...]:
    """Calling-Station-Ids: of a hardware address all its notations, else the very text."""
    from sms_aaa.rules.identity import canonical_mac, mac_notations

    device = canonical_mac(text.encode())
    return (text,) if device is None else tuple(mac_notations(device.decode()))


def parse_instant(text: str, zone: str, *, option: str = "--at") -> datetime:
    """2026-01-31 or 2026-01-31T12:00, by the clock of `zone` unless it names an offset."""
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        raise click.BadParameter(
            f"{text!r} is not a date; write it as 2026-01-31, 2026-01-31T12:00 or 2026-01-31T12:00Z.",
            param_hint=f"'{option}'",
        ) from None
    return instant if instant.tzinfo is not None else instant.replace(tzinfo=ZoneInfo(zone))
