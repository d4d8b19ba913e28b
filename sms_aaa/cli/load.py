"""`sms-aaa load`: the NAS simulator as an operator's tool. How fast, how late, what was lost.

It is bounded in count and in time, and keeps to this machine unless somebody says yes to more: what it sends looks
like subscribers, and a server that takes it for them writes sessions and money.
"""

from __future__ import annotations

import ipaddress
import sys
import time
from array import array
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import islice
from os import urandom
from typing import TYPE_CHECKING, Any

import click

from sms_aaa.cli.exits import Exit, Failure
from sms_aaa.cli.options import confirm, listing_options, read_secret
from sms_aaa.cli.output import Cell, Format, facts, note
from sms_aaa.cli.simulator import (
    IDENTIFIERS,
    SOURCE_PORTS,
    Device,
    Outcome,
    Report,
    Script,
    Simulator,
    accounting,
    login,
)
from sms_aaa.cli.verbs import Verb
from sms_aaa.radius.credentials import Method
from sms_aaa.radius.dictionary import CLASS
from sms_aaa.radius.packet import Code
from sms_aaa.radius.values import AcctStatusType, AcctTerminateCause

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sms_aaa.radius.digest import SecretDigests

COUNT_MAX = 10_000_000
SECONDS_MAX = 86_400
WINDOW_MAX = IDENTIFIERS * SOURCE_PORTS
SECRET_VARIABLE = "RADIUS_SECRET"  # noqa: S105 - the name of a variable; SMS_AAA_ would make it a setting
NAS_IDENTIFIER = "sms-aaa-load"
INTERIM_SECONDS = 300
OCTETS_PER_INTERIM = 1_000_000


class Profile(StrEnum):
    LOGIN = "login"
    ACCOUNTING = "accounting"
    SESSION = "session"


_SENDS = {
    Profile.LOGIN: "logins (PAP)",
    Profile.ACCOUNTING: "sessions of Start, Interim-Update and Stop, without a login",
    Profile.SESSION: "sessions of a login (PAP), Start, Interim-Update and Stop",
}


_REPLIES = (Code.ACCESS_ACCEPT, Code.ACCESS_REJECT, Code.ACCESS_CHALLENGE, Code.ACCOUNTING_RESPONSE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Drill:
    """What is to be sent. `users`, `passwords` are formats of one number, 1 to `subscribers`, over and over."""

    profile: Profile
    users: str
    passwords: str
    subscribers: int
    count: int
    seconds: float

    def scripts(self, digests: SecretDigests) -> Iterator[Script]:
        """`count` scripts, or as many as are begun within `seconds`."""
        until = time.monotonic() + self.seconds
        for number in islice(self._numbers(), self.count):
            if time.monotonic() >= until:
                return
            yield _script(self.profile, self._device(number), digests)

    def _numbers(self) -> Iterator[int]:
        while True:
            yield from range(1, self.subscribers + 1)

    def _device(self, number: int) -> Device:
        return Device(
            username=_filled(self.users, number),
            password=_filled(self.passwords, number),
            station=f"02-00-{number.to_bytes(4, 'big').hex('-').upper()}",  # 02: administered locally, nobody's own
            port=number,
            nas_identifier=NAS_IDENTIFIER,
        )


def _filled(text: str, number: int) -> str:
    return text % number if "%" in text else text


def _script(profile: Profile, device: Device, digests: SecretDigests) -> Script:
    classes: tuple[bytes, ...] = ()
    if profile is not Profile.ACCOUNTING:
        outcome = yield login(device, Method.PAP, digests).question
        if outcome.reply is None or outcome.reply.code != Code.ACCESS_ACCEPT:
            return
        classes = tuple(outcome.reply.all(CLASS))
    if profile is not Profile.LOGIN:
        yield from _session(device, classes)


def _session(device: Device, classes: tuple[bytes, ...]) -> Script:
    """Two interims' time of usage, that ends now."""
    session_id, start = urandom(8).hex(), int(time.time()) - 2 * INTERIM_SECONDS
    statuses = (AcctStatusType.START, AcctStatusType.INTERIM_UPDATE, AcctStatusType.STOP)
    for interims, status in enumerate(statuses):
        stops = status is AcctStatusType.STOP
        yield accounting(
            device,
            Report(
                status=status,
                session_id=session_id,
                at=start + interims * INTERIM_SECONDS,
                seconds=interims * INTERIM_SECONDS,
                octets_in=interims * OCTETS_PER_INTERIM // 10,
                octets_out=interims * OCTETS_PER_INTERIM,
                terminate_cause=AcctTerminateCause.USER_REQUEST if stops else None,
                classes=classes,
            ),
        )


@dataclass(slots=True)
class Tally:
    """What was measured. `seconds` is without Rejects, which a server sends late on purpose; 8 octets each."""

    answers: dict[int, int] = field(default_factory=dict)
    seconds: array[float] = field(default_factory=lambda: array("d"))
    retransmissions: int = 0
    lost: int = 0

    def note(self, outcome: Outcome) -> None:
        self.retransmissions += outcome.tries - 1
        if outcome.reply is None:
            self.lost += 1
            return
        self.answers[outcome.reply.code] = self.answers.get(outcome.reply.code, 0) + 1
        if outcome.reply.code != Code.ACCESS_REJECT:
            self.seconds.append(outcome.seconds)

    @property
    def answered(self) -> int:
        return sum(self.answers.values())

    def quantile_us(self, percent: int) -> int | None:
        """Within what time after the first try so many percent of the answers came; None without any."""
        ordered = sorted(self.seconds)
        return round(ordered[min(len(ordered) * percent // 100, len(ordered) - 1)] * 1e6) if ordered else None


@click.command(cls=Verb)
@click.option("--server", default="127.0.0.1", show_default=True, help="IP address to send to.")
@click.option("--auth-port", type=click.IntRange(1, 65_535), default=1812, show_default=True)
@click.option("--acct-port", type=click.IntRange(1, 65_535), default=1813, show_default=True)
@click.option(
    "--secret", envvar=SECRET_VARIABLE, help=f"Shared secret; {SECRET_VARIABLE} serves too, else it is asked."
)
@click.option("--secret-stdin", is_flag=True, help="Read the shared secret from the input.")
@click.option("--profile", type=click.Choice([one.value for one in Profile]), default="login", show_default=True)
@click.option("--users", default="customer%03d", show_default=True, metavar="FORMAT", help="User names, by number.")
@click.option("--password", default="password-%03d", show_default=True, metavar="FORMAT", help="Their passwords.")
@click.option(
    "--subscribers", type=click.IntRange(1, COUNT_MAX), default=200, show_default=True, help="Numbers 1 to N."
)
@click.option("--count", type=click.IntRange(1, COUNT_MAX), default=1000, show_default=True, help="Logins or sessions.")
@click.option(
    "--seconds", type=click.FloatRange(0.1, SECONDS_MAX), default=30, show_default=True, help="Begin none after this."
)
@click.option("--rate", type=click.FloatRange(0), default=0, show_default=True, help="Requests a second; 0: no limit.")
@click.option("--window", type=click.IntRange(1, WINDOW_MAX), default=64, show_default=True, help="At a time.")
@click.option("--yes-really", is_flag=True, help="Send to another machine without asking.")
@listing_options
def load(
    *,
    server: str,
    auth_port: int,
    acct_port: int,
    secret: str | None,
    secret_stdin: bool,
    rate: float,
    window: int,
    yes_really: bool,
    form: Format,
    **drill: Any,
) -> None:
    """Play a NAS against a server: send logins or whole sessions, check every reply, report rate and loss.

    A request that is not answered within a second is sent again, up to three times in all. What is sent counts:
    sessions are recorded and rated like any other, so use subscribers made for it. This machine must be a NAS of the
    server.

    Example: sms-aaa load --profile session --count 1000 --secret-stdin < secret
    """
    address = _address(server)
    planned = _drill(**drill)
    if not address.is_loopback:
        _ask_whether_really(f"{server} ports {auth_port}, {acct_port}", planned, rate, yes_really=yes_really)
    shared = read_secret("secret", given=secret, from_stdin=secret_stdin)
    if shared is None or not shared.reveal():
        raise click.UsageError(f"there is no shared secret: give --secret-stdin, --secret or {SECRET_VARIABLE}.")
    tally, began = Tally(), time.monotonic()
    with Simulator(str(address), shared, access_port=auth_port, accounting_port=acct_port) as simulator:
        try:
            simulator.run(planned.scripts(simulator.digests), window=window, rate=rate, note=tally.note)
        except KeyboardInterrupt:
            note("stopped; this is what was measured until then")
    _report(tally, time.monotonic() - began, planned.profile, form)
    _judge(tally)


def _drill(*, profile: str, users: str, password: str, subscribers: int, count: int, seconds: float) -> Drill:
    for option, text in (("--users", users), ("--password", password)):
        try:
            _filled(text, 1)
        except (TypeError, ValueError) as fault:
            remedy = "write one number as in customer%03d, and %% for a percent sign."
            raise click.BadParameter(f"{text!r}: {fault}; {remedy}", param_hint=option) from fault
    return Drill(
        profile=Profile(profile),
        users=users,
        passwords=password,
        subscribers=subscribers,
        count=count,
        seconds=seconds,
    )


def _address(server: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    try:
        return ipaddress.ip_address(server)
    except ValueError as fault:
        raise click.BadParameter(f"{fault}; give one such as 127.0.0.1 or ::1.", param_hint="--server") from fault


def _ask_whether_really(where: str, drill: Drill, rate: float, *, yes_really: bool) -> None:
    pace = f"{rate:g} requests a second" if rate else "as fast as it answers"
    note(f"This sends up to {drill.count} {_SENDS[drill.profile]} to {where}, {pace}, for up to {drill.seconds:g} s.")
    note("The server takes them for subscribers: what they use is recorded and rated.")
    if not yes_really and not sys.stdin.isatty():
        raise click.UsageError("that is another machine: give --yes-really if it is meant, or send to 127.0.0.1.")
    confirm("Send it?", yes=yes_really)


def _report(tally: Tally, elapsed_seconds: float, profile: Profile, form: Format) -> None:
    values: dict[str, Cell] = {
        "profile": profile.value,
        "asked": tally.answered + tally.lost,
        "answered": tally.answered,
        **{code.name.lower(): tally.answers[code] for code in _REPLIES if code in tally.answers},
        "retransmissions": tally.retransmissions,
        "lost": tally.lost,
        "elapsed_ms": round(elapsed_seconds * 1000),
        "answered_per_second": round(tally.answered / elapsed_seconds),
        "p50_us": tally.quantile_us(50),
        "p99_us": tally.quantile_us(99),
    }
    facts(values, form)
    if Code.ACCESS_REJECT in tally.answers:
        note(
            "Rejects come late on purpose (access.reject_delay_seconds): asked again meanwhile, and not in p50 and p99."
        )


def _judge(tally: Tally) -> None:
    if not tally.answered and tally.lost:
        raise Failure(
            Exit.UNAVAILABLE,
            "nothing was answered",
            "see that the server runs, that this machine is a NAS of it (`sms-aaa nas list`), and the shared secret",
        )
    if tally.lost:
        raise Failure(Exit.DIFFERENT, f"{tally.lost} requests were not answered", "see `sms-aaa status` for drops")
