"""The commands beside a running server: its embedded database, its state, and no secret anywhere on the screen."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from daemon import Daemon, FakeNas, wait_until

from sms_aaa.cli.exits import Exit

ROOT = Path(__file__).parents[2]
MARKS = ("MARKED-password", "MARKED-secret")
EVERYTHING = (
    "why alice", "why alice --json", "nas list", "nas show bng1 --json", "plan list", "plan show home-100 --json",
    "subscriber list --csv", "subscriber show alice", "subscriber show alice --json", "sessions", "usage alice",
    "explain alice", "reconcile", "config show", "config check", "db status", "db check", "status", "status --json",
)  # fmt: skip


@pytest.fixture(scope="module")
def daemon(tmp_path_factory):
    environ = {name: value for name, value in os.environ.items() if not name.startswith("SMS_AAA_")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "environ", environ)
        daemon = Daemon(tmp_path_factory.mktemp("cli") / "state", dsn=None).start()
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

    def finally_succeeds(self, line: str) -> bool:
        """The rater and the replicator may be a moment behind."""
        wait_until(lambda: self.run(*line.split())[0] == 0, line, 15)
        return True


def test_the_whole_way_on_the_embedded_database(daemon):
    shell = Shell(daemon)
    password, secret = MARKS
    assert shell.run("nas", "add", "bng1", "127.0.0.1", "--secret-stdin", typed=secret)[0] == 0
    assert shell.run("plan", "add", str(ROOT / "policies" / "home-100.toml"))[0] == 0
    assert shell.run("subscriber", "add", "alice", "--plan", "home-100", "--password-stdin", typed=password)[0] == 0
    with FakeNas(daemon, secret=secret.encode()) as nas:
        wait_until(lambda: nas.login(b"alice", password.encode()), "a login")
    wait_until(lambda: shell.run("why", "alice")[0] == 0, "a decision")
    for line in EVERYTHING:
        assert shell.finally_succeeds(line), line
    assert "accepted" in shell.screen
    for mark in MARKS:
        assert mark not in shell.screen
        assert mark not in daemon.log.read_text()


def test_status_tells_of_every_process_and_lag(daemon):
    shell = Shell(daemon)
    code, out, _ = shell.run("status")
    assert code == 0
    for line in ("node ", "database ", "live sessions", "journal backlog octets", "settle lag ms", "rating lag ms",
                 "replica age ms", "access-1", "accounting-1", "settler", "rater", "replicator"):  # fmt: skip
        assert line in out
    assert "embedded, up" in out
    assert '"unknown-nas": ' in shell.run("status", "--json")[1]
    assert shell.run("status", "--csv")[1].startswith("node,version,pid")


def test_a_second_server_in_the_same_folder_is_a_conflict(daemon):
    code, out, err = Shell(daemon).run("serve")
    assert (code, out) == (Exit.CONFLICT, "")
    assert err.startswith("sms-aaa: another `sms-aaa serve` runs in ")
    assert len(err.splitlines()) == 1
