"""A real `sms-aaa serve` for the tests, on loopback ports of its own, and a NAS that speaks to it over real UDP."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Self

from make import SECRET, make_desk, make_vault

from sms_aaa.config import key_path, load_settings
from sms_aaa.db.engine import connect
from sms_aaa.node.key import read_or_create_key
from sms_aaa.radius import dictionary
from sms_aaa.radius.digest import SecretDigests
from sms_aaa.radius.packet import Packet, attribute, parse
from sms_aaa.radius.request import (
    access_request,
    chap_attributes,
    mschap2_attributes,
    mschap_attributes,
    pap_attributes,
    reply_is_authentic,
)
from sms_aaa.server.runfile import Running, find_running

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from sms_aaa.db.engine import Connection
    from sms_aaa.flows.provisioning.desk import Desk

WAIT_SECONDS = 60.0  # for a machine that does other things, too: who is told sooner waits no longer


def free_port(kind: int = socket.SOCK_DGRAM) -> int:
    """Below those that the kernel gives away: no client of another test takes it while the daemon is stopped."""
    while True:
        port = random.randrange(10_000, 32_000)
        with socket.socket(socket.AF_INET, kind) as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def wait_until(condition: Callable[[], object], what: str, seconds: float = WAIT_SECONDS) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"{what}: not within {seconds} s"
        time.sleep(0.05)


class Daemon:
    """`serve` with a state folder and, by DSN, the test's database; without a DSN on the embedded one."""

    def __init__(self, folder: Path, *, dsn: str | None, **settings: str) -> None:
        self.folder = folder
        self.access_port = free_port()
        self.accounting_port = free_port()
        self.metrics_port = free_port(socket.SOCK_STREAM)
        self.environ = {
            **{name: value for name, value in os.environ.items() if not name.startswith("SMS_AAA_")},
            "SMS_AAA_NODE_STATE_FOLDER": str(folder),
            "SMS_AAA_ACCESS_LISTEN": f"127.0.0.1:{self.access_port}",
            "SMS_AAA_ACCOUNTING_LISTEN": f"127.0.0.1:{self.accounting_port}",
            "SMS_AAA_METRICS_LISTEN": f"127.0.0.1:{self.metrics_port}",
            "SMS_AAA_ACCESS_REJECT_DELAY_SECONDS": "0",
            # A test asks again until a change is live; those of the limits set their own.
            "SMS_AAA_LIMITS_USER_LOGINS": "0",
            "SMS_AAA_LIMITS_LOCKOUT_FAILURES": "0",
            "SMS_AAA_NODE_LIVE_OCTETS": "16777216",
            **settings,
        }
        if dsn is not None:
            self.environ["SMS_AAA_DATABASE_DSN"] = dsn
        self.log = folder.parent / f"{folder.name}.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *, healthy: bool = True) -> Daemon:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [Path(sys.executable).with_name("sms-aaa"), "serve"], env=self.environ, stdout=log, stderr=log
            )
        if healthy:
            self.wait_healthy()
        return self

    def wait_healthy(self) -> None:
        wait_until(self.is_healthy, f"healthy daemon ({self.log.read_text()[-3000:]})", 60)

    def is_healthy(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text()[-3000:]
        try:
            return self.health()[1] == "ok"
        except OSError:
            return False

    def health(self) -> tuple[int, str, list[str]]:
        """What /healthz says: HTTP status, status in words, problems. OSError while nobody listens."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/healthz", timeout=5) as answer:
                code, said = answer.status, json.load(answer)
        except urllib.error.HTTPError as unwell:
            with unwell:
                code, said = unwell.code, json.load(unwell)
        return code, said["status"], said["problems"]

    def metrics(self) -> dict[str, float]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
        pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        return {name: float(value) for name, value in pairs}

    def running(self) -> Running:
        found: list[Running] = []
        wait_until(lambda: found.append(r) or True if (r := find_running(self.folder)) else False, "running.json")
        return found[-1]

    def pid_of(self, name: str) -> int:
        wait_until(lambda: self._pid_of(name), f"a process {name}")
        return self._pid_of(name)

    def _pid_of(self, name: str) -> int:
        return next((process.pid for process in self.running().processes if process.name == name), 0)

    def kill(self, name: str) -> None:
        """kill -9 of a child by its name."""
        os.kill(self.pid_of(name), signal.SIGKILL)

    def kill_all(self) -> None:
        """kill -9 of the supervisor; the kernel takes the children with it."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        assert self.process is not None
        if self.process.poll() is None:
            self.process.terminate()
        return self.process.wait(90)

    def desk(self) -> AbstractContextManager[Desk]:
        return _desk(self)

    @property
    def dsn(self) -> str:
        return self.environ.get("SMS_AAA_DATABASE_DSN") or self.running().embedded_dsn

    def execute(self, statement: str) -> None:
        with connect(self.dsn, name="test") as connection:
            connection.execute(statement)

    def query(self, statement: str) -> list[tuple[object, ...]]:
        with connect(self.dsn, name="test") as connection:
            return connection.execute(statement).fetchall()


class _desk:  # noqa: N801 - used as a function
    """A provisioning desk with the daemon's own key; committed at the end."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._connection: Connection | None = None

    def __enter__(self) -> Desk:
        settings = load_settings(None, self._daemon.environ)
        key = read_or_create_key(key_path(settings), fresh=os.urandom(32))
        assert isinstance(key, bytes), key
        self._connection = connect(self._daemon.dsn, name="test")
        return make_desk(self._connection, make_vault(key))

    def __exit__(self, kind: object, *_: object) -> None:
        assert self._connection is not None
        if kind is None:
            self._connection.commit()
        self._connection.close()


class FakeNas:
    """A NAS on a socket of its own. Methods return the parsed reply, or None for silence."""

    def __init__(
        self, daemon: Daemon, *, secret: bytes = SECRET, patience: float = 1.5, address: str = "127.0.0.1"
    ) -> None:
        self.daemon = daemon
        self.digests = SecretDigests(secret)
        self.patience = patience
        self.identifier = 0
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((address, 0))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, datagram: bytes, port: int) -> None:
        self.socket.sendto(datagram, ("127.0.0.1", port))

    def receive(self, patience: float | None = None) -> bytes | None:
        self.socket.settimeout(self.patience if patience is None else patience)
        try:
            return self.socket.recv(4096)
        except TimeoutError:
            return None

    def ask(self, datagram: bytes, port: int) -> Packet | None:
        """Sends once; its reply must be authentic. What comes late to an earlier request is passed over."""
        self.send(datagram, port)
        until = time.monotonic() + self.patience
        while (left := until - time.monotonic()) > 0 and (reply := self.receive(left)) is not None:
            if reply[1] == datagram[1]:
                assert reply_is_authentic(reply, datagram[4:20], self.digests), "the reply's authenticator is wrong"
                packet = parse(reply)
                assert isinstance(packet, Packet)
                return packet
        return None

    def next_identifier(self) -> int:
        self.identifier = (self.identifier + 1) % 256
        return self.identifier

    def login_request(
        self, username: bytes, password: bytes, method: str = "pap", extra: bytes = b"", *, signed: bool = True
    ) -> bytes:
        identifier, authenticator = self.next_identifier(), os.urandom(16)
        if method == "pap":
            proof = pap_attributes(password, authenticator, self.digests)
        elif method == "chap":
            proof = chap_attributes(identifier, password, authenticator)
        elif method == "mschap":
            proof = mschap_attributes(identifier, password, os.urandom(8))
        else:
            self.challenge, self.peer_challenge = os.urandom(16), os.urandom(16)
            proof = mschap2_attributes(
                identifier, username, password, challenge=self.challenge, peer_challenge=self.peer_challenge
            )
        attributes = attribute(dictionary.USER_NAME, username) + proof + extra
        return access_request(identifier, authenticator, attributes, self.digests, message_authenticator=signed)

    def ask_again(self, datagram: bytes, port: int, *, times: int = 3, patience: float = 1.0) -> Packet | None:
        """As a NAS does: a reply that is not authentic is passed over, and who hears nothing asks again."""
        for _ in range(times):
            self.send(datagram, port)
            until = time.monotonic() + patience
            while (left := until - time.monotonic()) > 0 and (reply := self.receive(left)) is not None:
                if reply[1] == datagram[1] and reply_is_authentic(reply, datagram[4:20], self.digests):
                    packet = parse(reply)
                    assert isinstance(packet, Packet)
                    return packet
        return None

    def login(self, username: bytes, password: bytes, method: str = "pap", extra: bytes = b"") -> Packet | None:
        return self.ask(self.login_request(username, password, method, extra), self.daemon.access_port)

    def account(self, datagram: bytes) -> Packet | None:
        return self.ask(datagram, self.daemon.accounting_port)


def started(folder: Path, dsn: str | None, **settings: str) -> Iterator[Daemon]:
    """For fixtures: started and healthy, gone at the end. In order only where its own PostgreSQL is to be spared."""
    daemon = Daemon(folder, dsn=dsn, **settings).start()
    try:
        yield daemon
    finally:
        if dsn is None:
            daemon.stop()
        else:
            daemon.kill_all()
