"""The commands beside a running server: its embedded database, its state, and no secret anywhere on the screen."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from daemon import Daemon, FakeNas, wait_until

from sms_aaa.cli.exits import Exit
from sms_aaa.radius import dictionary
from sms_aaa.radius.packet import Code, Packet, attribute, integer
from sms_aaa.radius.request import accounting_request

ROOT = Path(__file__).parents[2]
MARKS = ("MARKED-password", "MARKED-secret")
EVERYTHING = (
    "why alice", "why alice --json", "nas list", "nas show bng1 --json", "plan list", "plan show home-100 --json",
    "subscriber list --csv", "subscriber show alice", "subscriber show alice --json", "sessions", "usage alice",
    "usage alice --by hour", "explain alice", "reconcile", "sessions --by nas", "session show s-1", "stale",
    "anomalies", "config show", "config check", "db status", "db check", "status", "status --json",
)  # fmt: skip


@pytest.fixture(scope="module")
def daemon(tmp_path_factory):
    environ = {name: value for name, value in os.environ.items() if not name.startswith("SMS_AAA_")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "environ", environ)
        daemon = Daemon(tmp_path_factory.mktemp("cli") / "state", dsn=None, SMS_AAA_RATING_WORKERS="2").start()
    yield daemon
    assert daemon.stop() == 0


class Shell:
    """The installed program, as a shell runs it."""

    def __init__(self, daemon: Daemon) -> None:
        self.environ = daemon.environ
        self.screen = ""

    def run(self, *arguments: str, typed: str = "") -> tuple[int, str, str]:
        program = Path(sys.executable).with_name("sms-aaa")
        done = subprocess.run(
            [program, *arguments], env=self.environ, input=typed, capture_output=True, text=True, check=False
        )
        self.screen += done.stdout + done.stderr
        return done.returncode, done.stdout, done.stderr

    def run_away(self, *arguments: str) -> tuple[int, str, str]:
        """With a database that is not there."""
        self.environ = {**self.environ, "SMS_AAA_DATABASE_DSN": "postgresql://nobody@127.0.0.1:1/none"}
        return self.run(*arguments)

    def finally_succeeds(self, line: str) -> bool:
        """The rater and the replicator may be a moment behind."""
        wait_until(lambda: self.run(*line.split())[0] == 0, line)
        return True


def start_of(login: Packet, nas: FakeNas) -> bytes:
    """The Start of the session that a login was let into."""
    attributes = [
        attribute(dictionary.USER_NAME, b"alice"),
        attribute(dictionary.ACCT_STATUS_TYPE, integer(1)),
        attribute(dictionary.ACCT_SESSION_ID, b"s-1"),
        attribute(dictionary.CLASS, login.attributes[dictionary.CLASS]),
    ]
    return accounting_request(nas.next_identifier(), b"".join(attributes), nas.digests)


def test_the_whole_way_on_the_embedded_database(daemon):
    shell = Shell(daemon)
    password, secret = MARKS
    assert shell.run("nas", "add", "bng1", "127.0.0.1", "--secret-stdin", typed=secret)[0] == 0
    assert shell.run("plan", "add", str(ROOT / "policies" / "home-100.toml"))[0] == 0
    assert shell.run("subscriber", "add", "alice", "--plan", "home-100", "--password-stdin", typed=password)[0] == 0
    with FakeNas(daemon, secret=secret.encode()) as nas:
        accepted = []

        def is_accepted() -> bool:
            reply = nas.login(b"alice", password.encode())
            accepted.extend([reply] if reply is not None and reply.code == Code.ACCESS_ACCEPT else [])
            return bool(accepted)

        wait_until(is_accepted, "an accept")
        assert nas.account(start_of(accepted[0], nas)) is not None
    wait_until(lambda: shell.run("why", "alice")[0] == 0, "a decision")
    for line in EVERYTHING:
        assert shell.finally_succeeds(line), line
    assert "accepted" in shell.screen
    # The recorder brings the decision, the settler the session: each on its own.
    wait_until(lambda: json.loads(shell.run(*["session", "show", "s-1", "--json"])[1])["login"], "the session's login")
    away = shell.run_away("sessions")
    assert away[0] == Exit.UNAVAILABLE
    assert " sessions were online when this node last counted" in away[2]
    for mark in MARKS:
        assert mark not in shell.screen
        assert mark not in daemon.log.read_text()


def test_status_tells_of_every_process_and_lag(daemon):
    shell = Shell(daemon)
    code, out, _ = shell.run("status")
    assert code == 0
    for line in ("node ", "database ", "live sessions", "journal backlog octets", "settle lag ms", "rating lag ms",
                 "replica age ms", "access-1", "accounting-1", "settler", "rater", "rater-2",
                 "replicator"):  # fmt: skip
        assert line in out
    assert "embedded, up" in out
    assert '"unknown-nas": ' in shell.run("status", "--json")[1]
    assert shell.run("status", "--csv")[1].startswith("node,version,pid")


def test_a_second_server_in_the_same_folder_is_a_conflict(daemon):
    code, out, err = Shell(daemon).run("serve")
    assert (code, out) == (Exit.CONFLICT, "")
    assert err.startswith("sms-aaa: another `sms-aaa serve` runs in ")
    assert len(err.splitlines()) == 1
    assert daemon.is_healthy()
