"""`sms-aaa load`: the NAS simulator as an operator's tool. How fast, how late, what was lost.

It is bounded in count and in time, and keeps to this machine unless somebody says yes to more: what it sends looks
like subscribers, and a server that takes it for them writes sessions and money.
"""

from __future__ import annotations

import ipaddress
import sys
import time
from array import array
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

from sms_aaa.cli.exits import Exit, Failure
from sms_aaa.cli.options import confirm, listing_options, read_secret
from sms_aaa.cli.output import Cell, Format, facts, note
from sms_aaa.cli.profiles import SENDS, Drill, Profile, accounting_off, accounting_on, filled
from sms_aaa.cli.simulator import IDENTIFIERS, SOURCE_PORTS, SOURCE_PORTS_MAX, Simulator
from sms_aaa.cli.verbs import Verb
from sms_aaa.radius.credentials import Method
from sms_aaa.radius.packet import Code

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sms_aaa.cli.simulator import Outcome, Script

COUNT_MAX = 10_000_000
SECONDS_MAX = 86_400
WINDOW_MAX = IDENTIFIERS * SOURCE_PORTS_MAX
SECRET_VARIABLE = "RADIUS_SECRET"  # noqa: S105 - the name of a variable; SMS_AAA_ would make it a setting
METHODS = {"pap": Method.PAP, "chap": Method.CHAP, "mschap2": Method.MSCHAP2}
NEXT_SECOND_SECONDS = 1.0

_REPLIES = (Code.ACCESS_ACCEPT, Code.ACCESS_REJECT, Code.ACCESS_CHALLENGE, Code.ACCOUNTING_RESPONSE)
_KINDS = {Code.ACCESS_REQUEST: "login", Code.ACCOUNTING_REQUEST: "record"}


@dataclass(slots=True)
class Tally:
    """What was measured. `seconds` by kind of request, without Rejects, which a server sends late on purpose."""

    answers: Counter[int] = field(default_factory=Counter)
    seconds: defaultdict[Code, array[float]] = field(default_factory=lambda: defaultdict(lambda: array("d")))
    retransmissions: int = 0
    lost: int = 0
    flaws: Counter[str] = field(default_factory=Counter)

    def note(self, outcome: Outcome) -> None:
        self.retransmissions += outcome.tries - 1
        if outcome.reply is None:
            self.lost += 1
            return
        self.answers[outcome.reply.code] += 1
        if outcome.reply.code != Code.ACCESS_REJECT:
            self.seconds[outcome.question.code].append(outcome.seconds)

    def note_flaw(self, flaw: str) -> None:
        self.flaws[flaw] += 1

    @property
    def answered(self) -> int:
        return self.answers.total()

    def latencies(self) -> dict[str, Cell]:
        """From the first try to the answer; of logins and records apart as well, when there are both."""
        found = _quantiles("", array("d", [taken for kind in self.seconds.values() for taken in kind]))
        if len(self.seconds) > 1:
            for code, kind in _KINDS.items():
                found |= _quantiles(f"{kind}_", self.seconds[code])
        return found


def _quantiles(prefix: str, seconds: array[float]) -> dict[str, Cell]:
    ordered = sorted(seconds)
    at = {"p50_us": len(ordered) // 2, "p99_us": len(ordered) * 99 // 100, "max_us": len(ordered) - 1}
    return {f"{prefix}{name}": round(ordered[place] * 1e6) if ordered else None for name, place in at.items()}


@click.command(cls=Verb)
@click.option("--server", default="127.0.0.1", show_default=True, help="IP address to send to.")
@click.option("--auth-port", type=click.IntRange(1, 65_535), default=1812, show_default=True)
@click.option("--acct-port", type=click.IntRange(1, 65_535), default=1813, show_default=True)
@click.option(
    "--secret", envvar=SECRET_VARIABLE, help=f"Shared secret; {SECRET_VARIABLE} serves too, else it is asked."
)
@click.option("--secret-stdin", is_flag=True, help="Read the shared secret from the input.")
@click.option("--profile", type=click.Choice([one.value for one in Profile]), default="login", show_default=True)
@click.option(
    "--method", type=click.Choice(list(METHODS)), default="pap", show_default=True, help="How logins prove it."
)
@click.option(
    "--message-authenticator/--no-message-authenticator",
    "is_signed",
    default=True,
    show_default=True,
    help="Sign Access-Requests, or play an old NAS.",
)
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
@click.option(
    "--source-ports",
    type=click.IntRange(1, SOURCE_PORTS_MAX),
    default=SOURCE_PORTS,
    show_default=True,
    help="UDP ports to send from, for logins and for records each; a worker of the server serves some of them.",
)
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
    source_ports: int,
    yes_really: bool,
    form: Format,
    **drill: Any,
) -> None:
    """Play a NAS against a server: send logins, records or whole sessions, check every reply, report rate and loss.

    A request that is not answered within a second is sent again, up to three times in all. What is sent counts:
    sessions are recorded and rated like any other, so use subscribers made for it. This machine must be a NAS of the
    server.

    login: Access-Requests. accounting: Start, Interim-Update and Stop. session: a login and these three. reboot-storm:
    --count subscribers log in and start; then the NAS has lost its power and comes back: one Accounting-On, and
    everybody logs in and starts again, from ports numbered anew. That return is what is measured. An Accounting-Off
    closes what is open at the end.

    The exit code is 1 when a request was lost or a reply was flawed, 5 when nothing was answered at all.

    Example: sms-aaa load --profile reboot-storm --count 5000 --subscribers 5000 --window 256 --secret-stdin < secret
    """
    address = _address(server)
    if window > source_ports * IDENTIFIERS:
        raise click.BadParameter(
            f"{source_ports} source ports have {source_ports * IDENTIFIERS} identifiers; give more --source-ports.",
            param_hint="--window",
        )
    tally = Tally()
    planned = _drill(**drill, flawed=tally.note_flaw)
    if not address.is_loopback:
        _ask_whether_really(f"{server} ports {auth_port}, {acct_port}", planned, rate, yes_really=yes_really)
    shared = read_secret("secret", given=secret, from_stdin=secret_stdin)
    if shared is None or not shared.reveal():
        raise click.UsageError(f"there is no shared secret: give --secret-stdin, --secret or {SECRET_VARIABLE}.")
    with Simulator(
        str(address), shared, access_port=auth_port, accounting_port=acct_port, source_ports=source_ports
    ) as simulator:
        _play(simulator, planned, Pace(window, rate), tally, form)


@dataclass(frozen=True, slots=True)
class Pace:
    """Up to `window` scripts at a time, up to `rate` requests a second; 0: as they are answered."""

    window: int
    rate: float

    def run(self, simulator: Simulator, scripts: Iterable[Script], tally: Tally) -> float:
        """How many seconds it took; what was measured until then when it was interrupted."""
        began = time.monotonic()
        try:
            simulator.run(scripts, window=self.window, rate=self.rate, note=tally.note)
        except KeyboardInterrupt:
            note("stopped; this is what was measured until then")
        return time.monotonic() - began


def _play(simulator: Simulator, drill: Drill, pace: Pace, tally: Tally, form: Format) -> None:
    before: dict[str, Cell] = {}
    if drill.profile is Profile.REBOOT_STORM:
        before = _reboot(simulator, drill, pace)
    elapsed_seconds = pace.run(simulator, drill.scripts(simulator.digests), tally)
    if drill.profile is Profile.REBOOT_STORM:
        time.sleep(NEXT_SECOND_SECONDS)  # sessions that began in the second of the Off would outlive it
        tally.lost += simulator.ask(accounting_off()).reply is None
    _report(tally, elapsed_seconds, drill, before, form)
    _judge(tally)


def _reboot(simulator: Simulator, drill: Drill, pace: Pace) -> dict[str, Cell]:
    """The sessions that are up, and the NAS that lost them; what there was to see until it is back."""
    up = Tally()
    pace.run(simulator, drill.scripts_before(simulator.digests), up)
    if up.lost or not up.answers[Code.ACCOUNTING_RESPONSE]:
        raise Failure(
            Exit.UNAVAILABLE,
            f"before the storm {up.answers[Code.ACCOUNTING_RESPONSE]} sessions came up, {up.lost} requests were lost",
            "try `--profile session` first: see that these subscribers can log in",
        )
    back = simulator.ask(accounting_on())
    if back.reply is None:
        raise Failure(Exit.UNAVAILABLE, "the Accounting-On was not answered", "see `sms-aaa status` for drops")
    return {
        "sessions_before": up.answers[Code.ACCOUNTING_RESPONSE],
        "accounting_on_us": round(back.seconds * 1e6),
    }


def _drill(*, profile: str, method: str, users: str, password: str, **other: Any) -> Drill:
    for option, text in (("--users", users), ("--password", password)):
        try:
            filled(text, 1)
        except (TypeError, ValueError) as fault:
            remedy = "write one number as in customer%03d, and %% for a percent sign."
            raise click.BadParameter(f"{text!r}: {fault}; {remedy}", param_hint=option) from fault
    return Drill(profile=Profile(profile), method=METHODS[method], users=users, passwords=password, **other)


def _address(server: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    try:
        return ipaddress.ip_address(server)
    except ValueError as fault:
        raise click.BadParameter(f"{fault}; give one such as 127.0.0.1 or ::1.", param_hint="--server") from fault


def _ask_whether_really(where: str, drill: Drill, rate: float, *, yes_really: bool) -> None:
    pace = f"{rate:g} requests a second" if rate else "as fast as it answers"
    note(f"This sends up to {drill.count} {SENDS[drill.profile]} to {where}, {pace}, for up to {drill.seconds:g} s.")
    note("The server takes them for subscribers: what they use is recorded and rated.")
    if not yes_really and not sys.stdin.isatty():
        raise click.UsageError("that is another machine: give --yes-really if it is meant, or send to 127.0.0.1.")
    confirm("Send it?", yes=yes_really)


def _report(tally: Tally, elapsed_seconds: float, drill: Drill, before: dict[str, Cell], form: Format) -> None:
    values: dict[str, Cell] = {
        "profile": drill.profile.value,
        **before,
        "asked": tally.answered + tally.lost,
        "answered": tally.answered,
        **{code.name.lower(): tally.answers[code] for code in _REPLIES if code in tally.answers},
        "retransmissions": tally.retransmissions,
        "lost": tally.lost,
        "flawed": tally.flaws.total(),
        "elapsed_ms": round(elapsed_seconds * 1000),
        "answered_per_second": round(tally.answered / elapsed_seconds),
        **tally.latencies(),
    }
    facts(values, form)
    if Code.ACCESS_REJECT in tally.answers:
        note("Rejects come late on purpose (access.reject_delay_seconds): asked again meanwhile, not in the latencies.")


def _judge(tally: Tally) -> None:
    if not tally.answered and tally.lost:
        raise Failure(
            Exit.UNAVAILABLE,
            "nothing was answered",
            "see that the server runs, that this machine is a NAS of it (`sms-aaa nas list`), and the shared secret",
        )
    if tally.lost:
        raise Failure(Exit.DIFFERENT, f"{tally.lost} requests were not answered", "see `sms-aaa status` for drops")
    for flaw, times in tally.flaws.most_common(1):
        raise Failure(Exit.DIFFERENT, f"{times} times: {flaw}", "see that nothing stands between here and the server")
