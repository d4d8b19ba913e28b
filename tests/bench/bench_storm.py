"""A NAS reboots with all its sessions: how soon they are closed, and how soon everybody is online again.

`python tests/bench/bench_storm.py --help`. A real daemon, its own PostgreSQL, one NAS. Its subscribers log in and start
sessions; then comes an Accounting-On, and everybody logs in and starts again as fast as the NAS can send. What counts
is what PostgreSQL says: when the last of the old sessions is closed, and when the last of the new ones is open.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parent.parent))

import crowd
from bench_access import Bench
from generator import make_generator

from sms_aaa.cli.profiles import Drill, Profile, accounting_on
from sms_aaa.cli.simulator import Simulator
from sms_aaa.db.engine import connect
from sms_aaa.db.reconcile import list_violations
from sms_aaa.radius.credentials import Method
from sms_aaa.radius.packet import Code
from sms_aaa.rules.secret import Secret
from sms_aaa.server.postgres import EmbeddedPostgres

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sms_aaa.cli.simulator import Outcome, Script
    from sms_aaa.db.engine import Connection

WINDOW = 1024
SOURCE_PORTS = 16
LOOK_SECONDS = 0.05
SECONDS_MAX = 300.0

COUNT = """
select count(*) filter (where id <= %(last)s), count(*) filter (where id > %(last)s) from session where state = 1
"""


def read_arguments(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sessions", type=int, default=20_000, help="of the NAS, default 20,000")
    parser.add_argument("--rounds", type=int, default=1, help="storms, one after the other (default 1)")
    parser.set_defaults(methods="acct", python=False, unsigned=False, workers=2, window=WINDOW, seconds=1, warm_up=0)
    asked = parser.parse_args(words)
    asked.subscribers = asked.sessions + 1  # the bench itself logs in as the last one
    return asked


class Storm:
    """One NAS that plays, and a look into the database meanwhile."""

    def __init__(self, simulator: Simulator, connection: Connection, count: int) -> None:
        self._simulator = simulator
        self._connection = connection
        self._count = count
        self._flaws: Counter[str] = Counter()
        self._drill = Drill(
            profile=Profile.REBOOT_STORM, method=Method.PAP, is_signed=True, users="user%07d", passwords="pw%07d",
            subscribers=count, count=count, seconds=SECONDS_MAX, flawed=lambda flaw: self._flaws.update([flaw]),
        )  # fmt: skip

    def come_up(self) -> None:
        took, answers = self._play(self._drill.scripts_before(self._simulator.digests))
        self._wait(lambda: self._open(0)[1] == self._count, "all sessions open")
        print(f"{self._count:,} sessions up after {took:.1f} s: {dict(answers)}")

    def reboot(self) -> None:
        last = self._query("select max(id) from session")
        time.sleep(1.1)  # the Accounting-On must be later than the Starts, in whole seconds
        assert self._open(last)[0] == self._count
        began = time.monotonic()
        on = self._simulator.ask(accounting_on())
        assert on.reply is not None, "the Accounting-On was not answered"
        print(f"Accounting-On answered after {on.seconds * 1000:.1f} ms")
        with ThreadPoolExecutor(1) as beside:
            storm = beside.submit(self._play, self._drill.scripts(self._simulator.digests))
            closed = self._wait(lambda: self._open(last)[0] == 0, "the old sessions closed") - began
            print(f"the {self._count:,} old sessions are closed {closed:.2f} s after the Accounting-On", flush=True)
            back = self._wait(lambda: self._open(last)[1] == self._count, "the new sessions open") - began
            took, answers = storm.result()
        print(f"all {self._count:,} are online again {back:.2f} s after it")
        print(f"the NAS was done after {took:.1f} s: {dict(answers)}")
        assert not self._flaws, self._flaws

    def _play(self, scripts: Iterable[Script]) -> tuple[float, Counter[str]]:
        answers: Counter[str] = Counter()

        def note(outcome: Outcome) -> None:
            answers["lost" if outcome.reply is None else Code(outcome.reply.code).name] += 1
            answers["sent again"] += outcome.tries - 1

        began = time.monotonic()
        self._simulator.run(scripts, window=WINDOW, rate=0, note=note)
        return time.monotonic() - began, answers

    def _open(self, last: int) -> tuple[int, int]:
        """Sessions that are open: of those up to id `last`, and of those after it."""
        row = self._connection.execute(COUNT, {"last": last}).fetchone()
        assert row is not None
        return row[0], row[1]

    def _query(self, statement: str) -> int:
        row = self._connection.execute(statement).fetchone()
        assert row is not None
        return int(row[0])

    def _wait(self, condition: Callable[[], bool], what: str) -> float:
        until = time.monotonic() + SECONDS_MAX
        while not condition():
            assert time.monotonic() < until, f"{what}: not within {SECONDS_MAX:.0f} s; {self._open(0)}"
            time.sleep(LOOK_SECONDS)
        return time.monotonic()


def main(words: list[str]) -> None:
    asked = read_arguments(words)
    with tempfile.TemporaryDirectory(prefix="sms-aaa-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        server = EmbeddedPostgres.start(folder / "postgres")
        stack.callback(server.stop)
        bench = Bench(asked, folder, make_generator(folder, crowd.SECRET))
        stack.callback(lambda: bench.daemon and bench.daemon.stop())
        ours = bench.serve_ours(server.dsn)
        simulator = stack.enter_context(
            Simulator(
                "127.0.0.1", Secret(crowd.SECRET), access_port=ours.port, accounting_port=ours.accounting_port,
                source_ports=SOURCE_PORTS,
            )
        )  # fmt: skip
        connection = stack.enter_context(connect(server.dsn, name="bench"))
        connection.autocommit = True
        storm = Storm(simulator, connection, asked.sessions)
        storm.come_up()
        for _ in range(asked.rounds):
            storm.reboot()
        broken = [(law, len(rows)) for law, rows in list_violations(connection) if rows]
        print(f"laws that do not hold: {broken or 'none'}")


if __name__ == "__main__":
    main(sys.argv[1:])
