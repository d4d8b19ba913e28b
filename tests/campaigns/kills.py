"""Hundreds of random `kill -9` under load; then every answered record is looked for, once:

    python tests/campaigns/kills.py --kills 100 --seed 7

A real daemon with its own PostgreSQL, a NAS that keeps a ledger (load.py), and a killer who kills a worker, the
settler, any other process, the supervisor, PostgreSQL's postmaster, or all of them at once, in the order that the seed
gives. In the end an auditor holds the database against the ledger: whatever was answered is in effect, nothing is
counted twice, no session is there that nobody sent, deltas and rollups and rated usage add up, nothing is odd. The
moment of a kill is the machine's; the victims are the seed's.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent.parent))

from daemon import Daemon, FakeNas, wait_until
from load import USERS, Ledger
from make import make_nas, make_plan, make_subscriber

from sms_aaa.db.engine import Connection, Unavailable, connect
from sms_aaa.db.reconcile import list_violations
from sms_aaa.flows.reconciling import reconcile
from sms_aaa.flows.shelf import PlanShelf
from sms_aaa.node.board import Board
from sms_aaa.node.frames import FILE_HEADER_OCTETS
from sms_aaa.node.journal import Stream, stream_folder
from sms_aaa.node.journal_reader import list_files, readable_end

if TYPE_CHECKING:
    from collections.abc import Sequence

VICTIMS = {
    "accounting-1": 5, "accounting-2": 5, "access-1": 2, "settler": 6, "rater": 4, "replicator": 3, "recorder": 1,
    "places": 1, "supervisor": 3, "postgres": 3, "all": 2,
}  # fmt: skip
"""By weight."""
PASSWORD = b"password"
PAUSE_SECONDS = 0.7
"""Between two kills, on the average."""
UP_SECONDS_MAX = 60.0
SETTLE_SECONDS_MAX = 240.0
SETTINGS = {
    "SMS_AAA_ACCOUNTING_WORKERS": "2",
    "SMS_AAA_JOURNAL_FILE_OCTETS_MAX": "8388608",
}


@dataclass(slots=True)
class Killer:
    """Kills by name; whoever is not up yet is waited for, so that each kill kills somebody."""

    daemon: Daemon
    random: Random
    kills: Counter[str] = field(default_factory=Counter)

    def kill(self, victim: str) -> None:
        if victim == "postgres":
            self._kill_postmaster()
        elif victim in {"supervisor", "all"}:
            if victim == "all":
                self._kill_postmaster()
            self.daemon.kill_all()
            self.daemon.start(healthy=False)
        else:
            os.kill(self._pid(victim), signal.SIGKILL)
        if victim == "access-1":
            self._see_a_login()
        self.kills[victim] += 1

    def _see_a_login(self) -> None:
        """Whatever else is dead just now: the worker that takes its place answers from the node's replica."""
        with FakeNas(self.daemon, patience=0.5) as nas:
            wait_until(lambda: nas.login(b"user1", PASSWORD), "a login after the death of its worker", UP_SECONDS_MAX)

    def _pid(self, name: str) -> int:
        found: list[int] = []

        def is_up() -> bool:
            with suppress(AssertionError, IndexError):
                pid = self.daemon._pid_of(name)
                if pid and b"sms_aaa" in _command(pid):
                    found.append(pid)
            return bool(found)

        wait_until(is_up, f"{name} is up again", UP_SECONDS_MAX)
        return found[-1]

    def _kill_postmaster(self) -> None:
        path = self.daemon.folder / "postgres" / "postmaster.pid"
        found: list[int] = []

        def is_up() -> bool:
            with suppress(OSError, ValueError, IndexError):
                pid = int(path.read_text().splitlines()[0])
                if b"postgres" in _command(pid):
                    found.append(pid)
            return bool(found)

        wait_until(is_up, "PostgreSQL is up again", UP_SECONDS_MAX)
        os.kill(found[-1], signal.SIGKILL)

    def rest(self) -> None:
        time.sleep(min(self.random.expovariate(1 / PAUSE_SECONDS), 3.0))


def _command(pid: int) -> bytes:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def victims(seed: int, kills: int) -> list[str]:
    return Random(f"{seed} victims").choices(list(VICTIMS), list(VICTIMS.values()), k=kills)


def provision(daemon: Daemon) -> None:
    with daemon.desk() as desk:
        make_nas(desk)
        make_plan(desk, sessions=0)
        for number in range(USERS):
            make_subscriber(desk, name=f"user{number}", password=PASSWORD)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the auditor counted; `complaints`: each with what it is about."""

    sessions: int
    deltas: int
    complaints: list[str]


def audit(connection: Connection, ledger: Ledger) -> Verdict:
    """Holds the database against the ledger and against itself."""
    complaints = [*_of_sessions(connection, ledger), *_of_sums(connection), *_of_oddities(connection)]
    deltas = connection.execute("select count(*) from usage_delta").fetchone()
    assert deltas is not None
    sessions = sum(session.answered > 0 for session in ledger.sessions)
    return Verdict(sessions, int(deltas[0]), complaints)


def _of_sessions(connection: Connection, ledger: Ledger) -> list[str]:
    """Each session once, with at least what was answered and at most what was sent."""
    rows = connection.execute("select acct_session_id, octets_in, octets_out, state from session_all").fetchall()
    stored: dict[str, list[tuple[int, int, int]]] = {}
    for name, octets_in, octets_out, state in rows:
        stored.setdefault(str(name), []).append((int(octets_in), int(octets_out), int(state)))
    sent = {session.name: session for session in ledger.sessions if session.sent}
    complaints = [f"phantom: {name} was never sent" for name in stored if name not in sent]
    for name, session in sent.items():
        lives = stored.get(name, [])
        if len(lives) > 1:
            complaints.append(f"double: {name} has {len(lives)} lives")
        elif not lives and session.least is not None:
            complaints.append(f"loss: {name} was answered {session.answered} times and is not there")
        elif lives:
            counted, state = lives[0][:2], lives[0][2]
            allowed = session.counters[max(session.answered - 1, 0) : max(session.sent, 1)]
            if counted not in allowed:
                kind = "loss" if counted < allowed[0] else "double"
                complaints.append(f"{kind}: {name} counts {counted}, {session.answered} of {session.sent} records "
                                  f"of {session.counters} were answered")  # fmt: skip
            if session.is_over and state != 2:
                complaints.append(f"loss: the Stop of {name} was answered, its state is {state}")
    return complaints


SUMS = {
    "deltas that are not their session's octets": """
        select s.acct_session_id, s.octets_in, s.octets_out, s.deltas, d.* from session_all s
        left join (select session_id, sum(octets_in) as i, sum(octets_out) as o, count(*) as n,
                          count(distinct seq) as seqs, max(seq) as last from usage_delta group by 1) d
          on d.session_id = s.id
        where (s.octets_in, s.octets_out, s.deltas::bigint, s.deltas::bigint, s.deltas)
              is distinct from (coalesce(i, 0), coalesce(o, 0), coalesce(n, 0), coalesce(d.seqs, 0),
                                coalesce(d.last, 0))""",
    "deltas of no session": """
        select d.session_id, d.seq from usage_delta d
        where not exists (select from session_all where id = d.session_id)""",
    "hours that are not their deltas": """
        select * from (select service_id, sum(octets_in) as i, sum(octets_out) as o from usage_hour group by 1) h
        full join (select service_id, sum(octets_in) as i, sum(octets_out) as o from usage_delta group by 1) d
          using (service_id) where (h.i, h.o) is distinct from (d.i, d.o)""",
    "days that are not their hours": """
        select * from (select service_id, sum(octets_in) as i, sum(octets_out) as o from usage_day group by 1) y
        full join (select service_id, sum(octets_in) as i, sum(octets_out) as o from usage_hour group by 1) h
          using (service_id) where (y.i, y.o) is distinct from (h.i, h.o)""",
    "records that wait for the rater": "select session_id, seq from queued_delta",
    "deltas not rated once": """
        select d.session_id, d.seq, sum(r.quantity), d.octets_in + d.octets_out from usage_delta d
        left join rated_usage r on r.session_id = d.session_id and r.seq = d.seq and r.to_at = d.to_at
        group by d.session_id, d.seq, d.to_at, d.octets_in, d.octets_out
        having sum(r.quantity) is distinct from d.octets_in + d.octets_out""",
}
ODDITIES = {
    "anomalies": "select kind, count(*) from anomaly group by 1",
    "quarantine": "select reason, count(*) from quarantine group by 1",
    "excluded": "select excluded, count(*) from session_all where excluded is not null group by 1",
}


def _of_sums(connection: Connection) -> list[str]:
    complaints = [f"{law}: {row}" for law, query in SUMS.items() for row in connection.execute(query).fetchmany(5)]
    complaints += [f"{law}: {row}" for law, rows in list_violations(connection) for row in rows]
    if not reconcile(connection, PlanShelf()).holds:
        complaints.append("the books do not add up: reconcile")
    return complaints


def _of_oddities(connection: Connection) -> list[str]:
    return [f"{what}: {row}" for what, query in ODDITIES.items() for row in connection.execute(query).fetchall()]


def _of_journal(daemon: Daemon) -> list[str]:
    """What the command line finds in the journal after all this: no damage, and nothing that a replay would settle."""
    verified = _typed(daemon, "journal", "verify", "--json")
    replayed = _typed(daemon, "journal", "replay", "--from", "2000-01-01", "--dry-run", "--json")
    complaints = [f"damage: {finding}" for finding in verified["findings"] if finding["damage"]]
    complaints += [
        f"a replay would settle: {file}" for file in replayed["files"] if file["to_settle"] or file["waiting"]
    ]
    return complaints


def _typed(daemon: Daemon, *words: str) -> dict[str, Any]:
    program = Path(sys.executable).with_name("sms-aaa")
    return dict(
        json.loads(subprocess.run([program, *words], env=daemon.environ, stdout=subprocess.PIPE, check=False).stdout)
    )


def is_settled(daemon: Daemon) -> bool:
    """By the journal and the database themselves: a gauge may be a second old."""
    try:
        board = Board.open(daemon.folder / "board")
        files = list_files(stream_folder(daemon.folder / "journal", Stream.ACCOUNTING))
        assert isinstance(board, Board)
        assert isinstance(files, list)
        ends = {file.sequence: readable_end(file, stream=Stream.ACCOUNTING, board=board) for file in files}
        board.close()
        query = "select sequence, position from journal_position where stream = 1"
        positions = {int(str(row[0])): int(str(row[1])) for row in daemon.query(query)}
        behind = [sequence for sequence, end in ends.items() if not isinstance(end, int)
                  or max(positions.get(sequence, 0), FILE_HEADER_OCTETS) < end]  # fmt: skip
        return not behind and not daemon.query("select 1 from rating_queue limit 1")
    except Unavailable:
        return False


@dataclass(frozen=True, slots=True)
class Outcome:
    kills: Counter[str]
    ledger: Ledger
    verdict: Verdict
    settled_after_seconds: float


def run(folder: Path, chosen: Sequence[str], *, seed: int, records_per_second: int, dsn: str | None = None) -> Outcome:
    """The whole campaign against a daemon of its own; without a `dsn` its PostgreSQL can be a victim too."""
    daemon = Daemon(folder / "state", dsn=dsn, **SETTINGS).start()
    killer = Killer(daemon, Random(f"{seed} pauses"))
    try:
        provision(daemon)
        with FakeNas(daemon, patience=0.3) as nas:
            wait_until(lambda: nas.login(b"user1", PASSWORD), "the replica with the provisioned rows", 60)
        ledger = Ledger(daemon.accounting_port, seed=seed, records_per_second=records_per_second)
        ledger.start()
        try:
            killer.rest()
            for victim in chosen:
                killer.kill(victim)
                killer.rest()
        finally:
            ledger.finish()
        daemon.wait_healthy()
        began = time.monotonic()
        wait_until(lambda: is_settled(daemon), "everything settled and rated", SETTLE_SECONDS_MAX)
        waited = time.monotonic() - began
        with FakeNas(daemon) as nas:
            assert nas.login(b"user1", PASSWORD) is not None, "a login is answered after all this"
        with connect(daemon.dsn, name="audit", statement_timeout_seconds=300) as connection:
            verdict = audit(connection, ledger)
        verdict.complaints.extend(_of_journal(daemon))
        assert daemon.stop() == 0, "the server ends in good order after all this"
    finally:
        daemon.stop()
    return Outcome(killer.kills, ledger, verdict, waited)


def tell(outcome: Outcome) -> None:
    ledger, verdict = outcome.ledger, outcome.verdict
    by_kind = ", ".join(f"{name} {count}" for name, count in sorted(outcome.kills.items()))
    print(f"{outcome.kills.total()} kills: {by_kind}")
    print(f"{ledger.records_sent:,} records sent in {ledger.datagrams:,} datagrams over {ledger.seconds:.0f} s, "
          f"{ledger.records_answered:,} answered; settled {outcome.settled_after_seconds:.0f} s later: "
          f"{verdict.sessions:,} sessions, {verdict.deltas:,} deltas")  # fmt: skip
    counts = Counter(complaint.partition(":")[0] for complaint in verdict.complaints)
    others = sum(count for name, count in counts.items() if name not in {"loss", "double", "phantom"})
    print(f"losses {counts['loss']}, doubles {counts['double']}, phantoms {counts['phantom']}, other {others}")
    for complaint in verdict.complaints[:20]:
        print(f"  {complaint}")


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Random kill -9 under load, and an audit of what was answered.")
    parser.add_argument("--kills", type=int, default=50, help="how many (default 50)")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000, help="of the victims (default: new)")
    parser.add_argument("--rate", type=int, default=2000, help="datagrams per second at most (default 2000)")
    asked = parser.parse_args(words)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # and what was started is stopped on the way
    print(f"seed {asked.seed}", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="sms-aaa-kills-"))
    outcome = run(folder, victims(asked.seed, asked.kills), seed=asked.seed, records_per_second=asked.rate)
    tell(outcome)
    if outcome.verdict.complaints:
        print(f"kept for a look: {folder}; again: python tests/campaigns/kills.py "
              f"--kills {asked.kills} --seed {asked.seed}")  # fmt: skip
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
