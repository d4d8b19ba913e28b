"""`sms-aaa demo` from beginning to end: a real server, its own PostgreSQL, real packets, the real commands.

The demo checks every answer and every octet itself and ends with 1 if one is not as it should be; here its exit code,
what a reader sees, and above all that nothing is left running, however it ends.
"""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SMS_AAA = str(Path(sys.executable).with_name("sms-aaa"))
DEMO_SECONDS_MAX = 120

# One after the other: each brings up a server with a database, and they would share two cores.


def left_running(folder: Path) -> list[str]:
    """Command lines of processes that know the folder by argument or environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            known = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
            if str(folder).encode() in known and int(process.name) != os.getpid():
                found.append((process / "cmdline").read_text())
        except OSError:
            continue  # it ended meanwhile
    return found


def run_demo(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [SMS_AAA, "demo", "--quick", "--folder", folder],
        stdin=subprocess.DEVNULL,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=DEMO_SECONDS_MAX,
    )


def test_the_demo_shows_the_whole_way_can_be_run_again_and_stays_for_a_reader_until_ctrl_c(tmp_path):
    folder = tmp_path / "demo"
    first = run_demo(folder)
    assert first.returncode == 0, first.stdout + first.stderr
    assert left_running(folder) == []
    for expected in (
        "MS-CHAPv2  customer003        accepted",
        'suspended: "Your service is suspended. Please contact support."',
        "an unknown user, who learns no more than that",
        "$ sms-aaa why customer007",
        "next: sms-aaa subscriber restore customer007",
        "12.50 EUR",
        "everything adds up",
        'sms_aaa_packet_drops_total{fault="message-authenticator-invalid"} 1.0',
    ):
        assert expected in first.stdout
    # Settings of another server are not the demo's: were they read, it could not start.
    terminal = Terminal(folder, SMS_AAA_DATABASE_DSN="postgresql://nobody@192.0.2.1/none", SMS_AAA_NO_SUCH="setting")
    terminal.read_until("Ctrl-C ends it.")
    assert "0 subscribers created, 21 were there" in terminal.seen
    # The same evening once more: 150 GB, of which 50 are included.
    assert "50.00 EUR" in terminal.seen
    _serves_the_reader(folder)
    terminal.type(b"\x03")
    assert terminal.wait() == 0
    assert left_running(folder) == []


def _serves_the_reader(folder: Path) -> None:
    """At a terminal the server stays when the show is over."""
    second = run_demo(folder)
    assert second.returncode == 4
    assert "a server runs in" in second.stderr
    ports = re.findall(r"127\.0\.0\.1:(\d+)", (folder / "demo.toml").read_text())
    load = subprocess.run(
        [
            *(SMS_AAA, "load", "--profile", "session", "--count", "60", "--subscribers", "20", "--json"),
            *("--auth-port", ports[0], "--acct-port", ports[1], "--secret", "demo-shared-secret"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert load.returncode == 0, load.stderr
    # 19 of 20 subscribers come in; the suspended one does not.
    assert json.loads(load.stdout)["access_accept"] == 57


class Terminal:
    """A demo at a terminal of its own."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.seen = ""
        self._descriptor, theirs = pty.openpty()
        # --ctty: the terminal controls the new session, so that Ctrl-C typed there becomes SIGINT.
        self._process = subprocess.Popen(
            ["setsid", "--ctty", SMS_AAA, "demo", "--quick", "--folder", folder],
            env={**os.environ, **environment},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        )
        os.close(theirs)

    def read_until(self, text: str) -> None:
        until = time.monotonic() + DEMO_SECONDS_MAX
        while text not in self.seen:
            assert time.monotonic() < until, self.seen
            if select.select([self._descriptor], [], [], 1.0)[0]:
                try:
                    self.seen += os.read(self._descriptor, 65_536).decode(errors="replace")
                except OSError:  # the other side is closed: it ended
                    pytest.fail(self.seen)

    def type(self, keys: bytes) -> None:
        os.write(self._descriptor, keys)

    def wait(self) -> int:
        self.read_until("have ended")
        status = self._process.wait(DEMO_SECONDS_MAX)
        os.close(self._descriptor)
        return status


@pytest.mark.parametrize("line", ["the server is being started", "4  Accounting"])
def test_ctrl_c_in_the_middle_leaves_nothing_running(tmp_path, line):
    folder = tmp_path / "demo"
    terminal = Terminal(folder)
    terminal.read_until(line)
    terminal.type(b"\x03")
    assert terminal.wait() == 6
    assert left_running(folder) == []


def test_a_demo_that_is_killed_takes_its_server_with_it(tmp_path):
    folder = tmp_path / "demo"
    with subprocess.Popen(
        [SMS_AAA, "demo", "--quick", "--folder", folder], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "The operator" in line:
                break
        process.send_signal(signal.SIGKILL)
    until = time.monotonic() + 60
    while left_running(folder):
        assert time.monotonic() < until, left_running(folder)
        time.sleep(0.1)


def test_a_folder_of_somebody_else_is_not_touched(tmp_path):
    (tmp_path / "letter.txt").write_text("dear reader")
    refused = run_demo(tmp_path)
    assert refused.returncode == 4
    assert "name another --folder" in refused.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]
