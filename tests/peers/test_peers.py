"""Real peers against a real daemon: Debian's radclient, eapol_test, and FreeRADIUS as a proxy in front of us.

`make peers` runs them and names the Debian packages that they want.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from typing import TYPE_CHECKING

import pytest
from daemon import Daemon, FakeNas, free_port, wait_until
from make import SECRET, make_nas, make_plan, make_subscriber

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.peers

FREERADIUS = shutil.which("freeradius") or "/usr/sbin/freeradius"
PLAN_ATTRIBUTES = ('Mikrotik-Rate-Limit = "20M/100M"', "Session-Timeout = 86400", "Acct-Interim-Interval = 300")


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    running = Daemon(tmp_path_factory.mktemp("peers") / "state", dsn=None).start()
    try:
        with running.desk() as desk:
            make_nas(desk)
            make_plan(desk, sessions=0, included="1 GB")
            make_subscriber(desk)
        with FakeNas(running, patience=0.3) as nas:
            wait_until(lambda: nas.login(b"alice", b"wonderland"), "the replica with the provisioned rows")
        yield running
    finally:
        running.stop()


def radclient(port: int, kind: str, text: str, secret: str = SECRET.decode(), tries: int = 2) -> str:
    """What radclient prints; its exit code says whether the answer was an acceptance."""
    done = subprocess.run(
        ["radclient", "-x", "-r", str(tries), "-t", "1", f"127.0.0.1:{port}", kind, secret],
        input=text, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    return done.stdout + done.stderr


@pytest.mark.parametrize("password", ["User-Password", "CHAP-Password", "MS-CHAP-Password"])
def test_radclient_is_let_in_with_the_attributes_of_the_plan(daemon: Daemon, password: str) -> None:
    request = f'User-Name = "alice", {password} = "wonderland", Message-Authenticator = 0x00'
    said = radclient(daemon.access_port, "auth", request)
    assert "Received Access-Accept" in said
    assert all(attribute in said for attribute in PLAN_ATTRIBUTES), said
    assert ("MS-CHAP-MPPE-Keys" in said) == (password == "MS-CHAP-Password")


@pytest.mark.parametrize("password", ["User-Password", "CHAP-Password", "MS-CHAP-Password"])
def test_radclient_is_refused_with_a_wrong_password(daemon: Daemon, password: str) -> None:
    request = f'User-Name = "alice", {password} = "wrong", Message-Authenticator = 0x00'
    assert "Received Access-Reject" in radclient(daemon.access_port, "auth", request)


def test_radclient_hears_nothing_with_a_wrong_secret(daemon: Daemon) -> None:
    login = 'User-Name = "alice", User-Password = "wonderland", Message-Authenticator = 0x00'
    record = 'User-Name = "alice", Acct-Session-Id = "x", Acct-Status-Type = Start'
    for port, kind, text in ((daemon.access_port, "auth", login), (daemon.accounting_port, "acct", record)):
        said = radclient(port, kind, text, secret="another secret", tries=1)
        assert "No reply from server" in said
        assert "Received" not in said


def test_radclient_gets_its_status_answered_on_both_ports(daemon: Daemon) -> None:
    for port, answer in ((daemon.access_port, "Access-Accept"), (daemon.accounting_port, "Accounting-Response")):
        assert f"Received {answer}" in radclient(port, "status", "Message-Authenticator = 0x00")


def test_radclients_accounting_becomes_exactly_its_octets_and_its_price(daemon: Daemon) -> None:
    now = int(time.time())
    for status, at, counters in (
        ("Start", now - 600, ""),
        ("Interim-Update", now - 300, "Acct-Session-Time = 300, Acct-Input-Octets = 1000, Acct-Output-Octets = 2000"),
        (
            "Stop",
            now,
            (
                "Acct-Session-Time = 600, Acct-Input-Octets = 500000000, Acct-Output-Octets = 705032704, "
                "Acct-Output-Gigawords = 1"
            ),
        ),
    ):
        extra = f", {counters}" if counters else ""
        text = (
            f'User-Name = "alice", Acct-Session-Id = "radclient-1", Acct-Status-Type = {status}, '
            f"Event-Timestamp = {at}{extra}"
        )
        assert "Received Accounting-Response" in radclient(daemon.accounting_port, "acct", text)
    wait_until(lambda: daemon.query("select 1 from session where state = 2"), "the session")
    wait_until(lambda: not daemon.query("select 1 from rating_queue"), "an empty rating queue")
    assert daemon.query("select octets_in, octets_out from session") == [(500_000_000, 5_000_000_000)]
    # 5.5 GB, 1 included, 0.50 EUR each beyond.
    assert daemon.query("select posted_minor from usage_total where quantity > 0") == [(225,)]


def test_eapol_test_is_refused_in_good_order(daemon: Daemon, tmp_path: Path) -> None:
    """EAP is not spoken yet: a supplicant is told so by a Reject and is not left waiting."""
    config = tmp_path / "eap.conf"
    config.write_text('network={\n key_mgmt=IEEE8021X\n eap=MD5\n identity="alice"\n password="wonderland"\n}\n')
    done = subprocess.run(
        ["eapol_test", "-c", config, "-a", "127.0.0.1", "-p", str(daemon.access_port), "-s", SECRET.decode(), "-t5"],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert "Access-Reject" in done.stdout or "code=3" in done.stdout, done.stdout[-2000:]
    wait_until(lambda: daemon.query("select 1 from decision where reason = 10"), "the decision")


PROXY = """
prefix = /usr
logdir = {folder}
run_dir = {folder}
pidfile = {folder}/pid
libdir = /usr/lib/freeradius
proxy_requests = yes
security {{
  allow_core_dumps = no
}}
thread pool {{
  start_servers = 1
  max_servers = 2
  min_spare_servers = 1
  max_spare_servers = 1
}}
home_server us {{
  type = auth
  ipaddr = 127.0.0.1
  port = {access_port}
  secret = "{secret}"
  status_check = status-server
  response_window = 5
}}
home_server_pool us {{
  home_server = us
}}
realm DEFAULT {{
  auth_pool = us
}}
client local {{
  ipaddr = 127.0.0.1
  secret = "{secret}"
}}
modules {{
}}
server proxy {{
  listen {{
    type = auth
    ipaddr = 127.0.0.1
    port = {port}
  }}
  authorize {{
    update control {{
      Proxy-To-Realm := DEFAULT
    }}
  }}
}}
"""


def test_a_freeradius_proxy_in_front_of_us_passes_our_answers_on(daemon: Daemon, tmp_path: Path) -> None:
    port = free_port()
    (tmp_path / "radiusd.conf").write_text(
        PROXY.format(folder=tmp_path, access_port=daemon.access_port, secret=SECRET.decode(), port=port)
    )
    log = tmp_path / "proxy.log"
    with log.open("wb") as out:
        proxy = subprocess.Popen([FREERADIUS, "-d", tmp_path, "-f", "-l", "stdout"], stdout=out, stderr=out)
    try:
        wait_until(lambda: "Ready to process" in log.read_text(), log.read_text() or "FreeRADIUS to be ready")
        good = 'User-Name = "alice", User-Password = "wonderland", Message-Authenticator = 0x00'
        said = radclient(port, "auth", good)
        assert "Received Access-Accept" in said, log.read_text()
        assert all(attribute in said for attribute in PLAN_ATTRIBUTES)
        assert "Received Access-Reject" in radclient(port, "auth", good.replace("wonderland", "wrong"))
    finally:
        proxy.terminate()
        proxy.wait(20)
