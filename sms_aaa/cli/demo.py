"""`sms-aaa demo`: the whole way on one screen, with a real server, real packets and the real commands.

It starts a server of its own in a folder of its own. Settings come from a file there and from nowhere else, so that a
demo beside a configured server never meets that one's database. Then it creates a small operator, plays a NAS on an
eventful evening, checks every answer, and runs the commands that a newcomer wants next.

The evening is told by Event-Timestamps: three hours of it pass in a second. What does not come out as it should ends
the demo with its reason. However it ends, what it started ends before it.
"""

from __future__ import annotations

import json
import os
import select
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import tomllib
import urllib.error
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sms_aaa.cli.evening import (
    BUSINESS,
    CAMERA,
    CAMERA_MAC,
    HEAVY,
    NAS_NAME,
    NAS_WAIT_TRIES,
    SPARE,
    STATIC_ADDRESS,
    SUSPENDED,
    Evening,
    device_of,
    expect,
    name_of,
    try_wrong_secret,
    wait_for_nas,
)
from sms_aaa.cli.exits import Exit, Failure
from sms_aaa.cli.output import heading, say
from sms_aaa.cli.simulator import Simulator
from sms_aaa.cli.verbs import Verb
from sms_aaa.rules.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

    from sms_aaa.db.engine import Connection
    from sms_aaa.flows.provisioning.desk import Desk
    from sms_aaa.flows.provisioning.subscribers import NewSubscriber

NAS_SECRET = "demo-shared-secret"  # noqa: S105 - of a server that hears loopback alone, while a demo runs
WRONG_SECRET = "not-the-shared-secret"  # noqa: S105 - it is to be refused
SUBSCRIBERS, SUBSCRIBERS_QUICK = 200, 20
ZONES = ("Europe/Berlin", "Europe/Lisbon", "America/New_York", "Asia/Tokyo")

START_SECONDS_MAX = 120.0
STOP_SECONDS_MAX = 90.0
COMMAND_SECONDS_MAX = 60.0
HEAD_LINES, TAIL_LINES = 14, 10
"""What is shown of a long answer: how it begins, and what it comes to."""

LOG_LINES_SHOWN = 5
SETTINGS_NAME = "demo.toml"
_COMMAND = (sys.executable, "-P", "-c", "from sms_aaa.cli.main import main; main(prog_name='sms-aaa')")
_METRICS = (
    "sms_aaa_access_decisions_total",
    "sms_aaa_packet_drops_total",
    "sms_aaa_journal_records_total",
    "sms_aaa_deltas_rated_total",
    "sms_aaa_sessions_online",
)


@dataclass(frozen=True, slots=True)
class Stage:
    """Where the demo plays. Everything it keeps lies in `folder`."""

    folder: Path
    access_port: int
    accounting_port: int
    metrics: str

    @property
    def state_folder(self) -> Path:
        return self.folder.absolute() / "state"

    @property
    def settings_file(self) -> Path:
        return self.folder / SETTINGS_NAME

    @property
    def log_file(self) -> Path:
        return self.folder / "serve.log"

    def environment(self) -> dict[str, str]:
        """Ours, without settings that were meant for another server."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("SMS_AAA_")}
        return {**kept, "SMS_AAA_CONFIG": str(self.settings_file)}

    def simulator(self, *, secret: str = NAS_SECRET, timeout_seconds: float = 2.0, tries_max: int = 3) -> Simulator:
        return Simulator(
            "127.0.0.1",
            Secret(secret.encode()),
            access_port=self.access_port,
            accounting_port=self.accounting_port,
            timeout_seconds=timeout_seconds,
            tries_max=tries_max,
        )


class Interrupts:
    """Ctrl-C, a SIGTERM and a closed terminal end the demo, but not between a start and the note of what was started.

    While it is `held` a signal waits; after `ignore` none is heard any more, for the end is under way.
    """

    def __init__(self) -> None:
        self._held = False
        self._came = False
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._on_signal)

    @contextmanager
    def held(self) -> Iterator[None]:
        self._held = True
        try:
            yield
        finally:
            self._held = False
        if self._came:
            raise KeyboardInterrupt

    def ignore(self) -> None:
        self._held = True

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._came = True
        if not self._held:
            raise KeyboardInterrupt


@click.command(cls=Verb)
@click.option(
    "--folder", type=click.Path(file_okay=False, path_type=Path), default=".demo", show_default=True, help="Its state."
)
@click.option("--quick", is_flag=True, help=f"{SUBSCRIBERS_QUICK} subscribers instead of {SUBSCRIBERS}.")
def demo(*, folder: Path, quick: bool) -> None:
    """Show the whole way on one screen: logins, usage, money.

    Starts a server with its own PostgreSQL in a folder, creates a small operator, plays a NAS, and runs the commands
    that show what came of it. Nothing outside of the folder is touched; remove it to begin anew.

    Example: sms-aaa demo --folder .demo
    """
    interrupts = Interrupts()
    stage = _set_stage(folder)
    server = None
    try:
        with interrupts.held():
            server = _start(stage)
        _wait_until_healthy(stage, server)
        _perform(stage, SUBSCRIBERS_QUICK if quick else SUBSCRIBERS)
        _stay(server)
    except KeyboardInterrupt:
        raise Failure(Exit.ABORTED, "the demo was stopped", "its folder is kept: run it again when you like") from None
    finally:
        interrupts.ignore()
        if server is not None:
            _stop(server)


def _set_stage(folder: Path) -> Stage:
    """The folder with its settings, and ports that are free."""
    from sms_aaa.server.runfile import find_running, is_held

    if folder.exists() and any(folder.iterdir()) and not (folder / SETTINGS_NAME).exists():
        raise Failure(Exit.CONFLICT, f"{folder} is not empty and no demo was there", "name another --folder")
    heading("1  The server")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if is_held(folder / "state"):
        running = find_running(folder / "state")
        who = f" (pid {running.pid})" if running is not None else ""
        raise Failure(Exit.CONFLICT, f"a server runs in {folder} already{who}", "stop it, or name another --folder")
    probes = (_probe(socket.SOCK_DGRAM, 1812), _probe(socket.SOCK_DGRAM, 1813), _probe(socket.SOCK_STREAM, 9812))
    access_port, accounting_port, metrics_port = (probe.getsockname()[1] for probe in probes)
    for probe in probes:
        probe.close()
    stage = Stage(folder, access_port, accounting_port, f"127.0.0.1:{metrics_port}")
    stage.settings_file.write_text(
        "# Written by `sms-aaa demo` at each run.\n"
        f'[node]\nname = "demo"\nstate_folder = {json.dumps(str(stage.state_folder), ensure_ascii=False)}\n'
        f'[access]\nlisten = ["127.0.0.1:{access_port}"]\n'
        f'[accounting]\nlisten = ["127.0.0.1:{accounting_port}"]\n'
        f'[metrics]\nlisten = "{stage.metrics}"\n',
        encoding="utf-8",
    )
    return stage


def _probe(kind: socket.SocketKind, port: int) -> socket.socket:
    """A socket at that port of loopback, else at a free one. It does not share, as the server's own sockets would."""
    probe = socket.socket(socket.AF_INET, kind)
    if kind is socket.SOCK_STREAM:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections of the last demo may still linger
    try:
        probe.bind(("127.0.0.1", port))
    except OSError:
        probe.bind(("127.0.0.1", 0))
        say(f"Port {port} is taken; {probe.getsockname()[1]} serves instead.")
    return probe


def _start(stage: Stage) -> subprocess.Popen[bytes]:
    """`sms-aaa serve`, in a session of its own, so that Ctrl-C reaches us alone and we end it in order.

    Should we die without a chance to do that, the kernel tells it to end.
    """
    say(f"$ export SMS_AAA_CONFIG={shlex.quote(str(stage.settings_file))}")
    say(f"$ sms-aaa serve 2>> {shlex.quote(str(stage.log_file))} &")
    with stage.log_file.open("ab") as log:
        return subprocess.Popen(
            ["setpriv", "--pdeathsig", "TERM", *_COMMAND, "serve"],
            env=stage.environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def _wait_until_healthy(stage: Stage, server: subprocess.Popen[bytes]) -> None:
    began, said = time.monotonic(), ""
    while (problem := _problem(stage)) is not None:
        if server.poll() is not None:
            last = stage.log_file.read_text(errors="replace").splitlines()[-LOG_LINES_SHOWN:]
            raise Failure(Exit.DIFFERENT, f"the server ended: {' '.join(last)}", f"see {stage.log_file}")
        expect(time.monotonic() - began < START_SECONDS_MAX, f"the server is not well: {problem}")
        if problem != said:
            say(f"  {problem} ...")
            said = problem
        time.sleep(0.1)
    say(f"  It is well, after {time.monotonic() - began:.1f} s: http://{stage.metrics}/healthz")


def _problem(stage: Stage) -> str | None:
    """What /healthz complains about last, which is what the rest waits for; None when all is well."""
    try:
        with urllib.request.urlopen(f"http://{stage.metrics}/healthz", timeout=5) as answer:
            health = json.load(answer)
    except urllib.error.HTTPError as unwell:
        health = json.load(unwell)
    except OSError:
        return "the server is being started"
    return None if health["status"] == "ok" else str(health["problems"][-1])


def _stop(server: subprocess.Popen[bytes]) -> None:
    """In order, with its PostgreSQL."""
    server.terminate()
    try:
        server.wait(STOP_SECONDS_MAX)
    except subprocess.TimeoutExpired:
        server.kill()  # the kernel ends its children, PostgreSQL among them
        server.wait()
    say("The server and its PostgreSQL have ended.")


def _stay(server: subprocess.Popen[bytes]) -> None:
    """At a terminal until Enter or Ctrl-C, so that the reader can try things; else not at all."""
    if not sys.stdin.isatty():
        say("Without a terminal the demo ends here; at one, its server stays for this.")
        return
    heading("The server runs on. Enter or Ctrl-C ends it.")
    try:
        while not select.select([sys.stdin], [], [], 1.0)[0]:
            expect(server.poll() is None, "the server ended by itself")
    except KeyboardInterrupt:
        say()


def _perform(stage: Stage, subscribers: int) -> None:
    from sms_aaa.config import key_path, load_settings
    from sms_aaa.db.engine import connect
    from sms_aaa.server.runfile import find_running

    running = find_running(stage.state_folder)
    assert running is not None, "it has just been healthy"
    settings = load_settings(str(stage.settings_file), {})
    with connect(running.embedded_dsn, name="demo") as connection:
        connection.autocommit = True
        heading("2  The operator")
        with connection.transaction():
            _provision(connection, key_path(settings), subscribers)
        with stage.simulator(timeout_seconds=0.25, tries_max=NAS_WAIT_TRIES) as patient:
            wait_for_nas(patient)
        with stage.simulator() as nas:
            evening = Evening(nas, connection)
            heading(f"3  Logins at {NAS_NAME}, by UDP to 127.0.0.1:{stage.access_port}")
            evening.boot()
            evening.log_in()
            with stage.simulator(secret=WRONG_SECRET, timeout_seconds=0.5, tries_max=1) as misconfigured:
                try_wrong_secret(misconfigured)
            heading(f"4  Accounting to 127.0.0.1:{stage.accounting_port}: three hours of an evening")
            evening.pass_by()
            evening.wait_until_settled()
    heading("5  What came of it")
    _show_commands(stage)
    _say_what_next(stage)


def _provision(connection: Connection, key_file: Path, subscribers: int) -> None:
    """Creates what is not there yet; the NAS last, so that whoever is answered finds all the rest."""
    from sms_aaa.db.nas import find_nas
    from sms_aaa.db.subscribers import list_subscribers
    from sms_aaa.flows.provisioning.nas import add_nas
    from sms_aaa.flows.provisioning.plans import add_plan
    from sms_aaa.flows.provisioning.subscribers import add_subscriber, set_state
    from sms_aaa.rules.entitlement import Dialect, MessageAuthenticatorPolicy, ServiceState

    desk = _desk(connection, key_file)
    for path in sorted(_plans_folder().glob("*.toml")):
        document = tomllib.loads(path.read_text(encoding="utf-8"), parse_float=Decimal)
        name, version, _ = add_plan(desk, document, default_currency="EUR")
        say(f"  plan {name}, version {version}: {document['description']}")
    known = {row.name for row in list_subscribers(connection, limit=100 * SUBSCRIBERS)}
    new = [one for one in _people(subscribers) if one.name not in known]
    for one in new:
        add_subscriber(desk, one)
    say(f"  {len(new)} subscribers created, {len(known)} were there; their passwords: customer042 has password-042")
    set_state(desk, name_of(SUSPENDED), ServiceState.SUSPENDED, "unpaid invoice")
    say(f"  {name_of(SUSPENDED)} suspended, {name_of(BUSINESS)} at {STATIC_ADDRESS}, {CAMERA} known by its MAC address")
    if find_nas(connection, NAS_NAME) is None:
        add_nas(
            desk,
            name=NAS_NAME,
            prefix="127.0.0.1",
            secret=Secret(NAS_SECRET.encode()),
            dialect=Dialect.GENERIC,
            message_authenticator=MessageAuthenticatorPolicy.AUTO,
            coa_port=3799,
        )
    say(f"  NAS {NAS_NAME} at 127.0.0.1, shared secret {NAS_SECRET}")


def _desk(connection: Connection, key_file: Path) -> Desk:
    from sms_aaa.flows.provisioning.desk import Desk
    from sms_aaa.flows.vault import NONCE_OCTETS, Vault
    from sms_aaa.node.key import KeyFault, read_or_create_key
    from sms_aaa.rules.actor import Actor, Door

    key = read_or_create_key(key_file, fresh=os.urandom(32))
    if isinstance(key, KeyFault):
        raise Failure(Exit.INVALID, key.reason, key.remedy)
    return Desk(connection, Actor("demo", Door.CLI), Vault(key), lambda: os.urandom(NONCE_OCTETS))


def _plans_folder() -> Path:
    """Beside the package in a checkout, inside it when installed from a wheel."""
    package = Path(__file__).resolve().parent.parent
    inside = package / "_policies"
    return inside if inside.is_dir() else package.parent / "policies"


def _people(subscribers: int) -> Iterator[NewSubscriber]:
    from sms_aaa.flows.provisioning.subscribers import NewSubscriber

    # Ten days into a cycle: the evening does not fall on its edge.
    anchor_day = min((datetime.now(UTC) - timedelta(days=10)).day, 28)
    for number in range(1, subscribers + 1):
        yield NewSubscriber(
            name=name_of(number),
            plan="business-1g" if number % 10 == 0 else "metered" if number % 10 >= 8 else "home-100",
            full_name=f"Customer No. {number}",
            password=Secret(device_of(number).password.encode()),
            static_ipv4=STATIC_ADDRESS if number == BUSINESS else None,
            zone=ZONES[number % len(ZONES)],
            anchor_day=anchor_day,
        )
    yield NewSubscriber(name=CAMERA, plan="metered", mac=CAMERA_MAC, zone=ZONES[0], anchor_day=anchor_day)


def _show_commands(stage: Stage) -> None:
    """Each command as it is typed, and what it says."""
    _show(stage, "sessions")
    _show(stage, "why", name_of(SUSPENDED), "--last", "1")
    _show(stage, "usage", name_of(HEAVY))
    _show(stage, "explain", name_of(HEAVY), "--packets", "--limit", "1")
    _show(stage, "reconcile")
    say(f"$ curl -s http://{stage.metrics}/metrics")
    with urllib.request.urlopen(f"http://{stage.metrics}/metrics", timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    told = [line for line in lines if line.startswith(_METRICS) and not line.endswith(" 0.0")]
    for line in told:
        say(line)
    say(f"... and {len(lines) - len(told)} lines more")


def _show(stage: Stage, *arguments: str) -> None:
    say(f"$ sms-aaa {shlex.join(arguments)}")
    answer = subprocess.run(
        [*_COMMAND, *arguments],
        env=stage.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=COMMAND_SECONDS_MAX,
    )
    lines = answer.stdout.strip().splitlines()
    hidden = len(lines) - HEAD_LINES - TAIL_LINES
    if hidden > 1:
        lines[HEAD_LINES:-TAIL_LINES] = [f"... {hidden} lines more ..."]
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for line in lines:
        say(line[:width])
    say()
    expect(answer.returncode == 0, f"`sms-aaa {shlex.join(arguments)}` ended with {answer.returncode}")


def _say_what_next(stage: Stage) -> None:
    spare = device_of(SPARE)
    # With a device, so that trying it again is the same login again; signed, because this NAS has signed before and the
    # server insists on it from then on.
    request = ",".join(
        (
            f"User-Name={spare.username}",
            f"User-Password={spare.password}",
            f"Calling-Station-Id={spare.station}",
            "Message-Authenticator=0x00",
        )
    )
    heading("6  Now you, from another terminal")
    say(f"$ echo '{request}' | radclient -x 127.0.0.1:{stage.access_port} auth {NAS_SECRET}")
    say(f"$ export SMS_AAA_CONFIG={shlex.quote(str(stage.settings_file))}")
    say(f"$ sms-aaa why {spare.username}")
    say("$ sms-aaa --help")
