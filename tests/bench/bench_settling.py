"""Settling alone: a journal of N records into PostgreSQL, once of short sessions and once of long ones.

    python tests/bench/bench_settling.py [--records N] [--users N] [--batch N] [--mix short|long|both] [--dsn DSN]
        [--history SESSIONS]

`short` is what tests/bench/radload/load.c plays, without our Class: Start, Interim-Update and Stop of one session
after the other in each of its 256 places, so a third of the records are new sessions. `long` is a network's day:
nearly all records are interims of sessions that stay; one in fifty begins or ends one. Of each: records a second,
microseconds of processor a record here and in PostgreSQL (all its processes), and octets of its log a record. With
--history the database holds a year of so many sessions before (fill_history.py).
"""

from __future__ import annotations

import argparse
import gc
import os
import random
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parent.parent))

from crowd import SECRET, provision
from effort import server_cpu_seconds
from fill_history import fill, year_of
from make import make_desk, make_vault

from sms_aaa.config import load_settings
from sms_aaa.db.engine import connect
from sms_aaa.db.feed import get_database_id
from sms_aaa.db.partitions import create_ahead
from sms_aaa.db.schema import upgrade
from sms_aaa.flows.hearing import Listened, listen
from sms_aaa.flows.memory import Memory
from sms_aaa.flows.settling import Settled, settle_listened
from sms_aaa.node.board import Board
from sms_aaa.node.journal import Appended, Stream, Writer, make_folder
from sms_aaa.node.records import AccountingRecord, pack_accounting, unpack_accounting
from sms_aaa.radius import dictionary as d
from sms_aaa.radius.digest import SecretDigests
from sms_aaa.radius.packet import attribute, integer
from sms_aaa.radius.request import accounting_request
from sms_aaa.rules.secret import Secret
from sms_aaa.rules.session import Place
from sms_aaa.server.postgres import EmbeddedPostgres
from sms_aaa.server.stream import StreamSettler
from sms_aaa.server.worker import Child, Order

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sms_aaa.db.engine import Connection
    from sms_aaa.node.frames import Record
    from sms_aaa.server.ahead import Portion

PLACES = 256
SESSIONS_LONG = 20_000
JOURNAL_BATCH = 64
START, STOP, INTERIM = 1, 2, 3
INTERIM_SECONDS = 300
GRACE = timedelta(days=8)
"""Nothing of the past ended later: what is measured has begun since, as in the life of a network."""


@dataclass(slots=True)
class Playing:
    """A session as a NAS has it."""

    user: int
    number: int
    began_at: int
    told: int = 0


class Nas:
    """Makes records, each a packet as load.c makes it."""

    def __init__(self, users: int, first_session: int) -> None:
        self._users = users
        self._chance = random.Random(7)
        self._digests = SecretDigests(SECRET)
        self._sessions = first_session

    def begin(self, began_at: int) -> Playing:
        self._sessions += 1
        return Playing(self._chance.randrange(self._users), self._sessions, began_at)

    def packet(self, one: Playing, status: int) -> bytes:
        user, told = one.user, one.told
        parts = [
            attribute(d.USER_NAME, b"user%07d" % user),
            attribute(d.NAS_IP_ADDRESS, b"\x7f\0\0\1"),
            attribute(d.NAS_PORT, integer(user & 0xFFFF)),
            attribute(d.CALLING_STATION_ID, b"02-00-00-00-%02X-%02X" % (user >> 8 & 255, user & 255)),
            attribute(d.NAS_IDENTIFIER, b"bench-nas"),
            attribute(d.NAS_PORT_TYPE, integer(15)),
            attribute(d.FRAMED_IP_ADDRESS, integer(0x0A000000 + (user & 0xFFFFFF))),
            attribute(d.ACCT_STATUS_TYPE, integer(status)),
            attribute(d.ACCT_SESSION_ID, b"%08x%08x" % (one.number * 2_654_435_761 & 0xFFFFFFFF, one.number)),
            attribute(d.EVENT_TIMESTAMP, integer(one.began_at + INTERIM_SECONDS * told)),
        ]
        if status != START:
            for kind, value in (
                (d.ACCT_INPUT_OCTETS, 1_000_000 * told), (d.ACCT_OUTPUT_OCTETS, 5_000_000 * told),
                (d.ACCT_SESSION_TIME, INTERIM_SECONDS * told), (47, 1000 * told), (48, 4000 * told),
            ):  # fmt: skip
                parts.append(attribute(kind, integer(value & 0xFFFFFFFF)))
        return accounting_request(status, b"".join(parts), self._digests)

    def short(self, records: int, now: int) -> Iterator[tuple[int, bytes]]:
        """(received at, packet) of short sessions, as many places as load.c has."""
        places = [self.begin(now - 600) for _ in range(PLACES)]
        for record in range(records):
            at = record % PLACES
            one = places[at]
            yield now, self.packet(one, (START, INTERIM, STOP)[one.told])
            one.told += 1
            if one.told > STOP:
                places[at] = self.begin(now - 600)

    def long(self, records: int, now: int) -> Iterator[tuple[int, bytes]]:
        """All begin; then each tells in its turn, and one in a hundred ends and another begins instead."""
        rounds = max(records // SESSIONS_LONG, 1)
        began_at = now - INTERIM_SECONDS * rounds
        playing = [self.begin(began_at) for _ in range(SESSIONS_LONG)]
        for told in range(rounds):
            at = began_at + INTERIM_SECONDS * told
            for number, one in enumerate(playing):
                if told and number % 100 == told % 100:
                    one.told += 1
                    yield at, self.packet(one, STOP)
                    playing[number] = self.begin(at)
                    yield at, self.packet(playing[number], START)
                else:
                    one.told += told > 0
                    yield at, self.packet(one, INTERIM if told else START)


def fill_journal(folder: Path, database_id: bytes, packets: Iterator[tuple[int, bytes]], nas_id: int) -> int:
    """A folder of closed files; how many records it has."""
    writer = Writer(folder, Stream.ACCOUNTING, database_id, None, synced=False)
    payloads: list[bytes] = []
    count = 0
    for at, packet in packets:
        payloads.append(pack_accounting(AccountingRecord(at * 10**9, nas_id, "127.0.0.1", 40_000, packet)))
        count += 1
        if len(payloads) == JOURNAL_BATCH:
            assert isinstance(writer.append(payloads, time.time_ns()), Appended)
            payloads.clear()
    if payloads:
        assert isinstance(writer.append(payloads, time.time_ns()), Appended)
    writer.close()
    return count


class Keeper:
    """Settles as server/settler.py does, and nothing beside it."""

    def __init__(self, nas_id: int) -> None:
        self._single_nas = {nas_id: True}
        self._memory = Memory()

    def prepare(self, sequence: int, records: Sequence[Record]) -> list[Listened]:
        listened = []
        for one in records:
            record = unpack_accounting(one.payload)
            assert isinstance(record, AccountingRecord)
            listened.append(listen(Place("node1", sequence, one.offset), record, self._single_nas))
        return listened

    def store(self, connection: Connection, _sequence: int, portion: Portion[Listened]) -> Settled:
        return settle_listened(connection, portion.ready, memory=self._memory)

    def after(self, stored: Settled) -> None:
        self._memory.keep(stored.sessions)

    def refused(self) -> None:
        raise AssertionError("nobody else is at work here")


def settle_journal(connection: Connection, root: Path, database_id: bytes, nas_id: int, batch_max: int) -> None:
    """All that is in the journal of the state folder `root`."""
    settings = load_settings(None, {"SMS_AAA_NODE_STATE_FOLDER": str(root)})
    Board.create(root / "board", slots=1, now_ns=1)
    order = Order(name="bench", slot=0, sockets=[], settings=settings, dsn=Secret(b""), supervisor_pid=os.getpid())
    stream = StreamSettler(Child(order), Stream.ACCOUNTING, Keeper(nas_id), batch_max=batch_max)
    stream.begin(connection, database_id)
    while stream.settle(connection).worked:
        pass


def _data_folder(connection: Connection) -> Path:
    row = connection.execute("show data_directory").fetchone()
    connection.commit()
    assert row is not None
    return Path(row[0]).resolve()


def _wal_octets(connection: Connection) -> int:
    row = connection.execute("select pg_current_wal_insert_lsn() - '0/0'").fetchone()
    connection.commit()
    assert row is not None
    return int(row[0])


@contextmanager
def database(dsn: str | None, root: Path) -> Iterator[str]:
    if dsn is not None:
        yield dsn
        return
    server = EmbeddedPostgres.start(root / "postgres")
    try:
        yield server.dsn
    finally:
        server.stop()


def measure(dsn: str, root: Path, mix: str, records: int, users: int, batch_max: int) -> None:
    with connect(dsn, name="settler", repeatable=True) as connection:
        row = connection.execute("select max(id) from nas").fetchone()
        assert row is not None
        nas_id = int(row[0])
        database_id = get_database_id(connection)
        state = root / mix
        folder = make_folder(state / "journal", Stream.ACCOUNTING)
        assert isinstance(folder, Path)
        nas, now = Nas(users, 0 if mix == "short" else 1 << 30), int(time.time())
        packets = nas.short(records, now) if mix == "short" else nas.long(records, now)
        count = fill_journal(folder, database_id, packets, nas_id)
        server = _data_folder(connection)
        wal, postgres, own = _wal_octets(connection), server_cpu_seconds(server), time.process_time()
        gc.collect()
        gc.disable()  # as the settler has it
        began = time.perf_counter()
        settle_journal(connection, state, database_id, nas_id, batch_max)
        seconds = time.perf_counter() - began
        gc.enable()
        own = time.process_time() - own
        postgres = server_cpu_seconds(server) - postgres
        wal = _wal_octets(connection) - wal
        sys.stdout.write(
            f"{mix:<6} {count:7d} records {count / seconds:7.0f}/s   settler {own / count * 1e6:5.1f} us"
            f"   PostgreSQL {postgres / count * 1e6:5.1f} us   log {wal / count:5.0f} octets a record\n"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=150_000)
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--batch", type=int, default=5_000)
    parser.add_argument("--mix", choices=("short", "long", "both"), default="both")
    parser.add_argument("--dsn", help="an empty database; without it an embedded one is made for the run")
    parser.add_argument("--history", type=int, default=0, metavar="SESSIONS", help="of the past, before it is measured")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, database(asked.dsn, Path(folder)) as dsn:
        upgrade(dsn)
        if asked.history:
            with connect(dsn, name="fill") as connection:
                fill(
                    connection,
                    year_of(
                        asked.history,
                        max(asked.history // 20, 1),
                        max(asked.history // 100, 1),
                        datetime.now(UTC) - GRACE,
                    ),
                )
        with connect(dsn, name="bench") as connection:
            vault = make_vault()
            provision(make_desk(connection, vault), vault, asked.users)
            create_ahead(connection, datetime.now(UTC))
            connection.commit()
        for mix in ("short", "long") if asked.mix == "both" else (asked.mix,):
            measure(dsn, Path(folder), mix, asked.records, asked.users, asked.batch)


if __name__ == "__main__":
    main()
