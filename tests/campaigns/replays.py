"""Worlds of the simulation, settled and then replayed: a replay may find nothing that it would settle, in none of them.

    python tests/campaigns/replays.py --seeds 500

Each world's records go into the journals of two nodes as its bad network delivered them, late, doubled and out of
order, from NASes with odd clocks and counters, and are settled in batches that alternate between the nodes. Whatever
state that left, each record then has to be known, idle or in quarantine; so nothing can be counted again.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parent.parent))
sys.path.insert(0, str(Path(__file__).parent.parent / "simulation"))

from network import NODES, carry
from pure import BASE
from speech import attributes_of
from world import make_world

from sms_aaa.db.engine import connect
from sms_aaa.db.feed import get_database_id
from sms_aaa.db.partitions import create_ahead
from sms_aaa.db.schema import upgrade
from sms_aaa.flows.replaying import Fate, look_up, plan
from sms_aaa.flows.settling import settle_accounting
from sms_aaa.node.journal import Appended, Stream, Writer, make_folder
from sms_aaa.node.journal_reader import JournalFile, list_files
from sms_aaa.node.journal_survey import Look, look, walk
from sms_aaa.node.records import AccountingRecord, pack_accounting, unpack_accounting
from sms_aaa.rules.session import Place
from sms_aaa.server.postgres import EmbeddedPostgres

if TYPE_CHECKING:
    from network import Delivery
    from world import World

    from sms_aaa.db.engine import Connection

NASES_MAX = 8
BATCH_MAX = 12


@dataclass(frozen=True, slots=True)
class Found:
    """What a replay of one world would do, over both nodes."""

    seed: int
    records: int
    new: int
    known: int


def replay_world(connection: Connection, folder: Path, seed: int) -> Found:
    """Settles the world of a seed and asks what a replay of it would settle. The caller rolls back."""
    world = make_world(seed)
    deliveries, _ = carry(world)
    nases = _nases(connection, seed)
    files = {node: _write(connection, folder / f"{seed}" / node, _of(deliveries, node), world, nases) for node in NODES}
    single = {nas_id: not by_prefix for nas_id, by_prefix in _prefixes(deliveries, nases).items()}
    _settle(connection, files, deliveries, single, Random(f"{seed} batches"))
    counts = dict.fromkeys(Fate, 0)
    for node, seen in files.items():
        made = plan(connection, look_up(connection, seen, node=node, may_move=True), single_nas=single)
        for fate, count in made.counts.items():
            counts[fate] += count
    return Found(seed, sum(counts.values()), counts[Fate.NEW], counts[Fate.KNOWN])


def _of(deliveries: list[Delivery], node: str) -> list[Delivery]:
    return [delivery for delivery in deliveries if delivery.node == node]


def _nases(connection: Connection, seed: int) -> list[int]:
    """Ids of NASes of this world's own."""
    rows = connection.execute(
        """insert into nas (name, prefix, dialect, message_authenticator, coa_port)
           select 'w' || %s || '-' || n, ('10.' || %s / 250 || '.' || %s %% 250 || '.' || n)::cidr, 'generic',
                  'auto', 3799
           from generate_series(1, %s) n returning id""",
        (seed, seed, seed, NASES_MAX),
    )
    return [int(row[0]) for row in rows]


def _prefixes(deliveries: list[Delivery], nases: list[int]) -> dict[int, bool]:
    return {nases[delivery.nas.place]: delivery.nas.by_prefix for delivery in deliveries}


def _write(connection: Connection, root: Path, deliveries: list[Delivery], world: World, nases: list[int]) -> Look:
    folder = make_folder(root, Stream.ACCOUNTING)
    assert isinstance(folder, Path)
    writer = Writer(folder, Stream.ACCOUNTING, get_database_id(connection), None, synced=False, file_octets_max=1 << 22)
    payloads = [_payload(world, delivery, nases) for delivery in deliveries]
    appended = writer.append(payloads, BASE * 10**9)
    writer.close()
    assert isinstance(appended, Appended)
    files = list_files(folder)
    assert isinstance(files, list)
    [file] = files
    assert isinstance(file, JournalFile)
    return look(file, stream=Stream.ACCOUNTING, board=None)


def _payload(world: World, delivery: Delivery, nases: list[int]) -> bytes:
    attributes = attributes_of(world, delivery, base=BASE, services=[101, 102, 103])
    packet = bytes([4, delivery.identifier]) + (20 + len(attributes)).to_bytes(2, "big") + bytes(16) + attributes
    received_ns = BASE * 10**9 + delivery.received * 1000
    return pack_accounting(AccountingRecord(received_ns, nases[delivery.nas.place], "127.0.0.1", 4000, packet))


def _settle(
    connection: Connection, files: dict[str, Look], deliveries: list[Delivery], single: dict[int, bool], random: Random
) -> None:
    """In the order in which the settlers came to it; the positions move with it."""
    records = {node: iter(_records(node, seen)) for node, seen in files.items()}
    for node, group in groupby(deliveries, key=lambda delivery: delivery.node):
        left = len(list(group))
        while left:
            size = min(left, random.randint(1, BATCH_MAX))
            left -= size
            settle_accounting(connection, [next(records[node]) for _ in range(size)], single_nas=single)
    for node, seen in files.items():
        connection.execute(
            "insert into journal_position (node, stream, sequence, position, finished) values (%s, 1, %s, %s, true)",
            (node, seen.file.sequence, seen.end),
        )


def _records(node: str, seen: Look) -> list[tuple[Place, AccountingRecord]]:
    found = []
    assert seen.header is not None
    for batch in walk(seen.file, stream=Stream.ACCOUNTING, database_id=seen.header.database_id, offset=0, end=seen.end):
        for record in batch.records:
            unpacked = unpack_accounting(record.payload)
            assert isinstance(unpacked, AccountingRecord)
            found.append((Place(node, seen.file.sequence, record.offset), unpacked))
    return found


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Worlds of the simulation, settled and replayed.")
    parser.add_argument("--seeds", type=int, default=200, help="how many (default 200)")
    parser.add_argument("--from", type=int, default=1, dest="first", help="the first of them (default 1)")
    asked = parser.parse_args(words)
    found = []
    with tempfile.TemporaryDirectory(prefix="sms-aaa-replays-") as folder:
        server = EmbeddedPostgres.start(Path(folder) / "postgres", options={"fsync": "off"})
        try:
            upgrade(server.dsn)
            with connect(server.dsn, name="replays") as connection:
                create_ahead(connection, datetime.fromtimestamp(BASE, UTC))
                connection.commit()
                for seed in range(asked.first, asked.first + asked.seeds):
                    found.append(replay_world(connection, Path(folder), seed))
                    connection.rollback()
        finally:
            server.stop()
    wrong = [one for one in found if one.new]
    print(f"{len(found)} worlds, {sum(one.records for one in found):,} records, {len(wrong)} worlds with new ones")
    for one in wrong[:20]:
        print(f"  seed {one.seed}: a replay would settle {one.new} of {one.records} records again")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
