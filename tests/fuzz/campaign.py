"""A million mutated packets against a real daemon, each answer judged: `make fuzz`, or

    python tests/fuzz/campaign.py --packets 1000000 --seed 7

Three NASes send: one that must sign, one that need not, and one that nobody knows; half to the access port, half to the
accounting port. After every few packets each of their ports asks something right and must be answered, which shows
that nothing hangs and paces the flood. In the end the same processes must run, none much bigger than after the first
quarter, no bug in the log, and all records settled. A violation ends the campaign and names the seed and the round:
`--seed S --first-round R` sends the same octets again.
"""

from __future__ import annotations

import argparse
import select
import signal
import socket
import sys
import tempfile
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).parent.parent))

import wire
from daemon import Daemon, wait_until
from drafts import DEVICES, TIMESTAMP, USERS, Draft, Drafts, integer, mutate
from judge import Judge, Sender
from make import make_nas, make_plan, make_subscriber

from sms_aaa.rules.entitlement import MessageAuthenticatorPolicy

STRICT = Sender("127.0.0.1", b"the secret of the strict", must_sign=True)
LAX = Sender("127.0.0.2", b"the secret of the lax", must_sign=False)
STRANGER = Sender("127.0.0.3", None)
KNOCKER = b"knocker", b"a password that is always right"
LINES_EACH = 3
"""Source ports of a NAS to each port of the server."""
PACKETS_A_ROUND = 24
REMEMBERED = 4  # datagrams per Identifier whose answer may still come
PATIENCE_SECONDS = 2.0
TRIES_MAX = 10
SETTLE_SECONDS_MAX = 600.0
GROWTH_OCTETS_MAX = 48 * 1024 * 1024
"""Beyond the first quarter. The caches of duplicates and tables are full by then."""
PROGRESS_SECONDS = 10.0
GAUGE_SECONDS = 2.0  # how old a gauge may be

WIDE_LIMITS = {
    f"SMS_AAA_LIMITS_{name}": "1000000"
    for name in ("USER_LOGINS", "LOCKOUT_FAILURES", "LOCKOUT_USER_FAILURES", "LOCKOUT_DEVICE_FAILURES")
}
"""They work, but let everything through: what is refused for its number goes no deeper."""


class ViolationError(Exception):
    """The server did what it must not."""


@dataclass(slots=True)
class Line:
    """One source port of a NAS to one port of the server."""

    sender: Sender
    port: str
    socket: socket.socket
    identifier: int = 0
    sent: dict[int, deque[bytes]] = field(default_factory=dict)
    knock: bytes = b""

    def send(self, datagram: bytes) -> None:
        if len(datagram) > 1:
            self.sent.setdefault(datagram[1], deque(maxlen=REMEMBERED)).append(datagram)
        try:
            self.socket.send(datagram)
        except ConnectionRefusedError as refused:
            raise ViolationError(f"nobody listens on the {self.port} port any more") from refused

    def next_identifier(self) -> int:
        self.identifier = (self.identifier + 1) % 256
        return self.identifier


@dataclass(slots=True)
class Campaign:
    """The flood and what came of it."""

    daemon: Daemon
    seed: int
    answers: Counter[str] = field(default_factory=Counter)
    sent: int = 0
    repeated: int = 0
    drafts: Drafts = field(init=False)
    judge: Judge = field(init=False)
    lines: list[Line] = field(init=False)

    def __post_init__(self) -> None:
        self.drafts = Drafts(Random(f"{self.seed} drafts"))
        devices = frozenset(device.decode().replace("-", "").lower() for device in DEVICES)
        self.judge = Judge(USERS | dict([KNOCKER]), devices, self.drafts.proofs)
        ports = {"access": self.daemon.access_port, "accounting": self.daemon.accounting_port}
        self.lines = [
            self._line(sender, port, number)
            for sender, each in ((STRICT, LINES_EACH), (LAX, LINES_EACH), (STRANGER, 1))
            for port, number in ports.items()
            for _ in range(each)
        ]

    def _line(self, sender: Sender, port: str, number: int) -> Line:
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.bind((sender.address, 0))
        made.connect(("127.0.0.1", number))
        made.setblocking(False)
        return Line(sender, port, made)

    def close(self) -> None:
        for line in self.lines:
            line.socket.close()

    def play_round(self, number: int) -> None:
        """Some mutants from every line, then a request that must be answered."""
        random = Random(f"{self.seed} {number}")
        for line in self.lines:
            secret = line.sender.secret or random.choice((STRICT.secret, LAX.secret)) or b""
            make = self.drafts.access if line.port == "access" else self.drafts.accounting
            for _ in range(PACKETS_A_ROUND if line.sender.secret else 2):
                datagram = mutate(random, make(random, secret), line.next_identifier())
                for _ in range(2 if random.random() < 0.05 else 1):
                    line.send(datagram)
                    self.sent += 1
        waiting = [line for line in self.lines if line.sender.secret is not None]
        for line in waiting:
            line.knock = self._knock(random, line)
            line.send(line.knock)
        self._hear(waiting, number)

    def _knock(self, random: Random, line: Line) -> bytes:
        """What must be answered: a right login, a right record."""
        secret, authenticator, (user, password) = line.sender.secret or b"", random.randbytes(16), KNOCKER
        pairs = [(wire.USER_NAME, user)]
        if line.port == "access":
            pairs += [(wire.USER_PASSWORD, wire.hide(password, authenticator, secret))]
            pairs += [(wire.MESSAGE_AUTHENTICATOR, wire.ZEROS)]
            return Draft(wire.ACCESS_REQUEST, pairs, authenticator, secret).encode(line.next_identifier())
        pairs += [(40, integer(3)), (44, b"knock-%d" % random.getrandbits(40)), (55, integer(TIMESTAMP))]
        return Draft(wire.ACCOUNTING_REQUEST, pairs, authenticator, secret).encode(line.next_identifier())

    def _hear(self, waiting: list[Line], number: int) -> None:
        """Until all that knocked were answered; what else comes meanwhile is judged as well."""
        by_descriptor = {line.socket.fileno(): line for line in self.lines}
        tries, due = 1, time.monotonic() + PATIENCE_SECONDS
        waiting = list(waiting)
        while waiting:
            ready, _, _ = select.select(list(by_descriptor), [], [], max(due - time.monotonic(), 0))
            for descriptor in ready:
                line = by_descriptor[descriptor]
                if self._hear_line(line, number) and line in waiting:
                    waiting.remove(line)
            if waiting and time.monotonic() >= due:
                tries, due = tries + 1, time.monotonic() + PATIENCE_SECONDS
                if tries > TRIES_MAX:
                    raise ViolationError(
                        f"round {number}: the {waiting[0].port} port is silent to {waiting[0].sender.address}, "
                        f"which asked something right: {waiting[0].knock.hex()}"
                    )
                self.repeated += len(waiting)
                for line in waiting:
                    line.send(line.knock)

    def _hear_line(self, line: Line, number: int) -> bool:
        """Judges what is there; whether the knock was answered."""
        is_heard = False
        while True:
            try:
                answer = line.socket.recv(65_536)
            except BlockingIOError:
                return is_heard
            except ConnectionRefusedError as refused:
                raise ViolationError(f"round {number}: nobody listens on the {line.port} port any more") from refused
            found = self._question(line, answer, number)
            self.answers[f"code {answer[0]} on the {line.port} port"] += 1
            if found == line.knock:
                if answer[0] not in {wire.ACCESS_ACCEPT, wire.ACCOUNTING_RESPONSE}:
                    raise ViolationError(f"round {number}: a right login was refused: {line.knock.hex()}")
                is_heard = True

    def _question(self, line: Line, answer: bytes, number: int) -> bytes:
        """Which datagram it answers: one with its Identifier of which the judge has nothing to complain."""
        asked = line.sent.get(answer[1], deque()) if len(answer) > 1 else deque()
        complaints = []
        for datagram in reversed(asked):
            complaint = self.judge.complaint(datagram, line.sender, line.port, answer)
            if complaint is None:
                return datagram
            complaints.append(f"  {complaint}: {datagram.hex()}")
        told = "\n".join(complaints) or "  nothing with this Identifier was asked"
        raise ViolationError(
            f"round {number}, from {line.sender.address} to the {line.port} port\n{told}\n  answer: {answer.hex()}"
        )


def own_octets(pids: dict[str, int]) -> dict[str, int]:
    """Anonymous memory of the processes by name. ViolationError when one has died."""
    try:
        maps = {name: Path(f"/proc/{pid}/smaps_rollup").read_text() for name, pid in pids.items()}
    except OSError as gone:
        raise ViolationError(f"a process died: {gone}") from gone
    lines = {
        name: next(line for line in text.splitlines() if line.startswith("Anonymous:")) for name, text in maps.items()
    }
    return {name: int(line.split()[1]) * 1024 for name, line in lines.items()}


def provision(daemon: Daemon) -> None:
    with daemon.desk() as desk:
        nas_ids = [
            make_nas(desk, name=f"fuzz-{number}", prefix=sender.address, secret=sender.secret or b"")
            for number, sender in enumerate((STRICT, LAX))
        ]
        make_plan(desk, sessions=0)
        for user, password in (USERS | dict([KNOCKER])).items():
            make_subscriber(desk, name=user.decode(), password=password)
        for device in DEVICES:
            make_subscriber(desk, name=f"device-{device.decode()}", password=None, mac=device.decode())
        for nas_id, policy in zip(
            nas_ids, (MessageAuthenticatorPolicy.YES, MessageAuthenticatorPolicy.NO), strict=True
        ):
            desk.connection.execute("update nas set message_authenticator = %s where id = %s", (policy.value, nas_id))


def run(folder: Path, *, packets: int, seed: int, first_round: int, dsn: str | None = None) -> Campaign:
    """The whole campaign against a daemon of its own. ViolationError tells what was wrong, and how to see it again."""
    settings = {"SMS_AAA_ACCESS_DUPLICATE_SECONDS": "5", "SMS_AAA_ACCOUNTING_DUPLICATE_SECONDS": "5", **WIDE_LIMITS}
    daemon = Daemon(folder / "state", dsn=dsn, **settings)
    campaign = Campaign(daemon, seed)
    try:
        daemon.start()
        provision(daemon)
        _wait_for_knock(campaign)
        _flood(campaign, packets, first_round)
    except ViolationError as violation:
        again = f"python tests/fuzz/campaign.py --packets {packets} --seed {seed}"
        raise ViolationError(f"{violation}\nagain: {again} --first-round R, with the round above") from None
    finally:
        campaign.close()
        daemon.stop()
    return campaign


def _wait_for_knock(campaign: Campaign) -> None:
    """The replica has the NASes and the knocker once every line is answered."""
    lines = [line for line in campaign.lines if line.sender.secret is not None]
    for line in lines:
        line.knock = campaign._knock(Random(0), line)

    def are_answered() -> bool:
        for line in lines:
            line.send(line.knock)
        time.sleep(0.2)
        heard = [campaign._hear_line(line, 0) for line in lines]
        return all(heard)

    wait_until(are_answered, "the replica with the provisioned rows")


def _flood(campaign: Campaign, packets: int, first_round: int) -> None:
    daemon, number = campaign.daemon, first_round
    began = said = time.monotonic()
    pids = {process.name: process.pid for process in daemon.running().processes}
    sizes = own_octets(pids)
    is_warm = False
    while campaign.sent < packets:
        campaign.play_round(number)
        number += 1
        if not is_warm and campaign.sent >= packets // 4:
            is_warm, sizes = True, own_octets(pids)
        if time.monotonic() - said > PROGRESS_SECONDS:
            said = time.monotonic()
            print(f"  {campaign.sent:,} packets, {campaign.sent / (said - began):,.0f}/s, round {number}", flush=True)
    print(f"{campaign.sent:,} packets in {time.monotonic() - began:.0f} s; {campaign.repeated} knocks were repeated")
    _check_the_house(daemon, pids, sizes)


def _check_the_house(daemon: Daemon, pids: dict[str, int], sizes: dict[str, int]) -> None:
    """The same processes, no bigger, no bug, and everything that was answered is settled."""
    if {process.name: process.pid for process in daemon.running().processes} != pids:
        raise ViolationError(f"a process died: {daemon.log.read_text()[-3000:]}")
    if '"trace"' in daemon.log.read_text():
        raise ViolationError(f"a bug in the log: {daemon.log.read_text()[-3000:]}")
    if daemon.metrics()["sms_aaa_our_faults_total"]:
        raise ViolationError("requests met a fault of the server's own: sms_aaa_our_faults_total")
    for name, after in own_octets(pids).items():
        before = sizes[name]
        print(f"  memory of {name}: {before / 1e6:.0f} MB after the first quarter, {after / 1e6:.0f} MB at the end")
        if after - before > GROWTH_OCTETS_MAX:
            raise ViolationError(f"{name} grew from {before:,} to {after:,} octets")
    began = time.monotonic()
    time.sleep(GAUGE_SECONDS)
    wait_until(
        lambda: daemon.metrics()["sms_aaa_journal_backlog_octets"] == 0,
        "all records settled, whatever is in them",
        SETTLE_SECONDS_MAX,
    )
    if {process.name: process.pid for process in daemon.running().processes} != pids:
        raise ViolationError(f"a process died while it settled: {daemon.log.read_text()[-3000:]}")
    settled, aside = (daemon.query(f"select count(*) from {table}")[0][0] for table in ("session", "quarantine"))
    print(f"  all settled {time.monotonic() - began:.0f} s later: {settled:,} sessions, {aside:,} records put aside")


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(description="A campaign of mutated packets against a real daemon.")
    parser.add_argument("--packets", type=int, default=1_000_000, help="how many (default 1,000,000)")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000, help="of the mutations (default: new)")
    parser.add_argument("--first-round", type=int, default=1, help="begin here, to see a violation again")
    asked = parser.parse_args(words)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # and what was started is stopped on the way
    print(f"seed {asked.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="sms-aaa-fuzz-") as folder:
        try:
            campaign = run(Path(folder), packets=asked.packets, seed=asked.seed, first_round=asked.first_round)
        except ViolationError as violation:
            print(f"VIOLATION, seed {asked.seed}: {violation}")
            return 1
    for kind, times in sorted(campaign.answers.items()):
        print(f"  {times:,} answers of {kind}")
    print("no answer that an RFC forbids, no death, no bug, no growth")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
