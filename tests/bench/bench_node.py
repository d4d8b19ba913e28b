"""What the node's disk costs: journal appends, replica reads, live-set changes, in microseconds.

Run by hand: `python tests/bench/bench_node.py [folder]`; the folder decides which disk is measured.
"""

from __future__ import annotations

import itertools
import statistics
import sys
import tempfile
import time
from pathlib import Path

from sms_aaa.node.board import Board
from sms_aaa.node.journal import Appended, Stream, Writer, make_folder
from sms_aaa.node.journal_reader import list_files, read, readable_end
from sms_aaa.node.live import LiveSet
from sms_aaa.node.live_change import OnlineSession, Reserved
from sms_aaa.node.replica import Replica
from sms_aaa.node.replica_filler import ReplicaFiller
from sms_aaa.node.replica_scrub import Scrubber, Slice
from sms_aaa.node.replica_writer import EntitlementChange, ReplicaWriter
from sms_aaa.rules.entitlement import Entitlement, IdentityKind, ServiceState

DATABASE_ID = bytes(range(16))
PAYLOAD = bytes(range(256)) + bytes(44)
SERVICES = 100_000
LIVE_SERVICES = 1_000_000
PAGE = 5_000
NOW = 1_800_000_000


def main() -> None:
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as name:
        root = Path(name)
        bench_journal(root)
        bench_replica(root)
        bench_live(root)


def microseconds(action, rounds: int) -> list[float]:
    taken = []
    for _ in range(rounds):
        begun = time.perf_counter_ns()
        action()
        taken.append((time.perf_counter_ns() - begun) / 1000)
    return sorted(taken)


def bench_journal(root: Path) -> None:
    board = Board.create(root / "board", slots=1, now_ns=1)
    print("journal append, 300 octets a payload: median us a batch (us a record), p99; share of fdatasync")
    for batch, rounds in ((1, 500), (64, 500), (1024, 100)):
        medians = {}
        for stream, synced in ((Stream.DECISIONS, False), (Stream.ACCOUNTING, True)):
            folder = make_folder(root, stream)
            writer = Writer(folder, stream, DATABASE_ID, board.slot(0), synced=synced)
            payloads = [PAYLOAD] * batch
            assert isinstance(writer.append(payloads, time.time_ns()), Appended)
            taken = microseconds(lambda w=writer, p=payloads: w.append(p, time.time_ns()), rounds)
            medians[synced] = statistics.median(taken)
            p99 = taken[int(len(taken) * 0.99)]
            kind = "synced" if synced else "unsynced"
            print(f"  {batch:5} {kind:9} {medians[synced]:9.1f} ({medians[synced] / batch:7.2f})  p99 {p99:9.1f}")
            writer.close()
        print(f"  {batch:5} fdatasync is {100 * (1 - medians[False] / medians[True]):.0f} % of it")
    folder = root / "accounting"
    records = 0
    begun = time.perf_counter_ns()
    for file in list_files(folder):
        end, offset = readable_end(file, stream=Stream.ACCOUNTING, board=board), 0
        while True:
            found = read(file, stream=Stream.ACCOUNTING, database_id=DATABASE_ID, offset=offset, end=end)
            records, offset = records + len(found.records), found.next_offset
            if found.at_end:
                break
    taken = (time.perf_counter_ns() - begun) / 1000
    print(f"journal read: {taken / records:.2f} us a record ({records} records)")
    board.close()


def rights(number: int) -> EntitlementChange:
    entitlement = Entitlement(number + 1, number + 1, 1, ServiceState.ACTIVE, bytes(48))
    return EntitlementChange(IdentityKind.USERNAME, b"user%d@example.net" % number, entitlement)


def bench_replica(root: Path) -> None:
    filler = ReplicaFiller.begin(root, database_id=DATABASE_ID, schema_version=1)
    assert isinstance(filler, ReplicaFiller)
    changes = sorted((rights(number) for number in range(SERVICES)), key=lambda change: change.identity)
    begun = time.perf_counter()
    for first in range(0, SERVICES, PAGE):
        filler.put_records(changes[first : first + PAGE])
    changes.sort(key=lambda change: change.entitlement.service_id)
    for first in range(0, SERVICES, PAGE):
        page = changes[first : first + PAGE]
        filler.put_keys([(change.entitlement.service_id, change.kind, change.identity) for change in page])
    writer = filler.finish(cursor="1:1:", refreshed_ns=1, dated_us=1)
    assert isinstance(writer, ReplicaWriter)
    print(f"replica fill: {SERVICES / (time.perf_counter() - begun):,.0f} services/s, without PostgreSQL's part")
    scrubber = Scrubber(writer.databases)
    begun = time.perf_counter()
    while isinstance(looked := scrubber.look(16), Slice) and not looked.ends_pass:
        pass
    print(f"replica scrub: {SERVICES / (time.perf_counter() - begun):,.0f} services/s")
    writer.make_current()
    writer.close()
    replica = Replica.open(root)
    names = [b"user%d@example.net" % (number * 7919 % SERVICES) for number in range(64)]

    def batch() -> None:
        with replica.read() as view:
            for name in names:
                view.entitlement(1, name)

    print(
        f"replica read: {statistics.median(microseconds(batch, 2000)) / len(names):.2f} us an entitlement, 64 a batch"
    )
    replica.close()


def bench_live(root: Path) -> None:
    live = LiveSet.open(root, boot_id="bench", octets=256 * 1024**2)
    begun = time.perf_counter()
    held: list[int] = []

    def pause() -> None:
        held.append(time.perf_counter_ns())

    live.load(
        (OnlineSession(number, b"%08d" % number, b"%08d" % number, 1, NOW + 900) for number in range(LIVE_SERVICES)),
        pause=pause,
    )
    print(f"live load: {LIVE_SERVICES / (time.perf_counter() - begun):,.0f} sessions/s", end="")
    changes = sorted((after - before) / 1e6 for before, after in itertools.pairwise(held))
    print(f"; a change took {statistics.median(changes):.2f} ms, p99 {changes[int(len(changes) * 0.99)]:.2f}")
    services = iter(range(10**9))

    def taken_by(step, count: int) -> float:
        """Median us of a transaction; its logins are made up beforehand."""
        taken = []
        for _ in range(2000):
            numbers = [next(services) * 7919 % LIVE_SERVICES for _ in range(count)]
            batch = [(number, b"%08d" % number) for number in numbers]
            begun = time.perf_counter_ns()
            with live.write() as change:
                for number, device in batch:
                    step(change, number, device)
            taken.append((time.perf_counter_ns() - begun) / 1000)
            assert change.fault is None
        return statistics.median(taken)

    def reserve(change, number: int, device: bytes) -> None:
        got = change.reserve(
            number, device=device, nas_id=1, sessions_max=1, token=device[::-1], now=NOW, until=NOW + 60
        )
        assert isinstance(got, Reserved)

    def promote(change, number: int, device: bytes) -> None:
        change.promote(number, device[::-1], device=device, nas_id=1, until=NOW + 900, session=7)

    def release(change, number: int, device: bytes) -> None:
        change.release(number, device[::-1], session=7)

    for step in (reserve, promote, release):
        services = iter(range(10**9))
        for count in (1, 64):
            taken = taken_by(step, count)
            print(f"live {step.__name__}: {taken:.1f} us a transaction of {count} ({taken / count:.2f} us a login)")
    taken = statistics.median(microseconds(lambda: live.counts(NOW), 5))
    print(f"live counts over {LIVE_SERVICES:,} services: {taken / 1000:.1f} ms")
    live.close()


if __name__ == "__main__":
    main()
