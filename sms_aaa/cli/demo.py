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

from sms_aaa.cli.exits import Exit, Failure
from sms_aaa.cli.output import heading, say
from sms_aaa.cli.simulator import (
    Device,
    Login,
    Outcome,
    Report,
    Simulator,
    accounting,
    find_flaw,
    login,
    nas_report,
    status_server,
)
from sms_aaa.cli.verbs import Verb
from sms_aaa.radius import dictionary as names
from sms_aaa.radius.credentials import Method
from sms_aaa.radius.packet import Code, as_ipv4, as_text
from sms_aaa.radius.values import AcctStatusType, AcctTerminateCause
from sms_aaa.rules.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    from sms_aaa.db.engine import Connection
    from sms_aaa.db.sessions import SessionRow
    from sms_aaa.flows.provisioning import Desk, NewSubscriber

NAS_NAME = "demo-nas"
NAS_SECRET = "demo-shared-secret"  # noqa: S105 - of a server that hears loopback alone, while a demo runs
WRONG_SECRET = "not-the-shared-secret"  # noqa: S105 - it is to be refused
SUBSCRIBERS, SUBSCRIBERS_QUICK = 200, 20
ZONES = ("Europe/Berlin", "Europe/Lisbon", "America/New_York", "Asia/Tokyo")
CAMERA, CAMERA_MAC = "camera-gate", "02-00-00-00-CA-FE"
STATIC_ADDRESS = "198.51.100.10"

HEAVY, SUSPENDED, METERED, SPARE, BUSINESS = 1, 7, 8, 9, 10
"""Subscribers with a part: beyond the included volume, suspended, priced by direction, the reader's, with an address."""

LOST = (4, 5)
ONLINE = (2, 3, BUSINESS, 11, 12, 13)

START_SECONDS_MAX = 120.0
STOP_SECONDS_MAX = 90.0
SETTLE_SECONDS_MAX = 30.0
COMMAND_SECONDS_MAX = 60.0
LINES_SHOWN_MAX = 24
LOG_LINES_SHOWN = 5
_MINUTE = 60
_GB = 10**9
_INTERIM = 5 * _MINUTE
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
        return self.folder / "sms-aaa.toml"

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
        yield
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
