"""`sessions --watch` as a person has it: on a terminal, through a lost database, until Ctrl-C."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest
from make import Said

WAIT_SECONDS = 20.0


def heed_ctrl_c() -> None:
    """What a shell starts in the background ignores SIGINT, and all that it starts: the suite, perhaps."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Screen:
    """The installed program on a terminal of its own; what it showed so far."""

    def __init__(self, environ: dict[str, str], *arguments: str) -> None:
        self._master, slave = pty.openpty()
        program = Path(sys.executable).with_name("sms-aaa")
        known = {name: value for name, value in os.environ.items() if not name.startswith("SMS_AAA_")}
        self.process = subprocess.Popen(
            [program, *arguments], env={**known, **environ, "TERM": "xterm", "COLUMNS": "140", "LINES": "30"},
            stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
            preexec_fn=heed_ctrl_c,  # noqa: PLW1509 - this process has no other thread that holds a lock
        )  # fmt: skip
        os.close(slave)
        self.text = ""

    def wait_for(self, text: str) -> None:
        while text not in self.text:
            assert select.select([self._master], [], [], WAIT_SECONDS)[0], self.text[-2000:]
            self.text += os.read(self._master, 65_536).decode(errors="replace")

    def close(self) -> int:
        code = self.process.wait(WAIT_SECONDS)
        os.close(self._master)
        return code


@pytest.fixture
def screen(stocked, node):
    node.account(Said(status="start", at=datetime.now(UTC).replace(microsecond=0), seconds=0))
    screen = Screen(stocked.environ, "sessions", "--watch", "--every", "0.2")
    yield screen
    screen.process.kill()
    screen.process.wait()


def test_a_watch_goes_on_through_a_lost_database_and_ends_with_ctrl_c(screen, node, postgres, database_dsn):
    screen.wait_for("1 sessions")
    screen.wait_for("alice")
    node.account(Said(status="start", at=datetime.now(UTC), seconds=0, session="s-2", username=b"001122334455"))
    screen.wait_for("2 sessions (+1)")
    name = psycopg.conninfo.conninfo_to_dict(database_dsn)["dbname"]
    with psycopg.connect(postgres.dsn, autocommit=True) as connection:
        connection.execute(f"alter database {name} allow_connections false")
        connection.execute("select pg_terminate_backend(pid) from pg_stat_activity where datname = %s", (name,))
        screen.wait_for("trying again")
        screen.text = ""
        connection.execute(f"alter database {name} allow_connections true")
    screen.wait_for("2 sessions")
    screen.process.send_signal(signal.SIGINT)
    assert screen.close() == 0
    assert "Traceback" not in screen.text
