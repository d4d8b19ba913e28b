"""The command line as it is typed: a terminal whose transcript is kept, and a node whose journal is real."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner
from make import SECRET, Said, packet_of, rate_all

from sms_aaa import config
from sms_aaa.cli.main import main
from sms_aaa.db import feed, positions
from sms_aaa.db.engine import connect
from sms_aaa.db.nas import list_single
from sms_aaa.db.partitions import create_ahead
from sms_aaa.flows.cycles import open_cycles
from sms_aaa.flows.recording import settle_decisions
from sms_aaa.flows.settling import settle_accounting
from sms_aaa.flows.shelf import PlanShelf
from sms_aaa.node.board import Board
from sms_aaa.node.journal import Stream, Writer, make_folder
from sms_aaa.node.journal_reader import Batch, list_files, read
from sms_aaa.node.records import (
    AccountingRecord,
    DecisionBatch,
    pack_accounting,
    pack_decisions,
    unpack_accounting,
    unpack_decisions,
)
from sms_aaa.rules.session import Place

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROOT = Path(__file__).parents[2]
PLAN_FILE = str(ROOT / "policies" / "home-100.toml")
PASSWORD = "wonder-MARKED-land"
NODE = "node1"


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str

    def json(self) -> Any:
        assert self.code in {0, 1}, self
        return json.loads(self.out)

    def csv(self) -> list[dict[str, str]]:
        assert self.code in {0, 1}, self
        return list(csv.DictReader(io.StringIO(self.out)))

    @property
    def lines(self) -> list[str]:
        """With instants blotted out."""
        return [re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ", "TIME", line) for line in self.out.splitlines()]


@dataclass
class Terminal:
    """Types commands. `transcript` keeps all that ever came to the screen."""

    environ: dict[str, str]
    transcript: list[str] = field(default_factory=list)

    def type(self, *arguments: str, typed: str | None = None, **environ: str) -> Answer:
        runner = CliRunner(env={**self.environ, **environ})
        result = runner.invoke(main, arguments, input=typed, prog_name="sms-aaa")
        self.transcript.append(result.output)
        assert "Traceback" not in result.output
        return Answer(result.exit_code, result.stdout, result.stderr)

    def done(self, *arguments: str, typed: str | None = None, **environ: str) -> str:
        """What a command that must succeed says."""
        answer = self.type(*arguments, typed=typed, **environ)
        assert answer.code == 0, answer
        return answer.out


@pytest.fixture(autouse=True)
def _no_settings_of_this_machine(monkeypatch, tmp_path):
    monkeypatch.setattr(config, "DEFAULT_PATH", str(tmp_path / "etc.toml"))
    for name in [name for name in os.environ if name.startswith("SMS_AAA_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def lonely(tmp_path) -> Terminal:
    """Neither a daemon nor a database."""
    return Terminal({"SMS_AAA_NODE_STATE_FOLDER": str(tmp_path / "state")})


@pytest.fixture
def terminal(tmp_path, database_dsn) -> Iterator[Terminal]:
    """Whatever a test types, no password or secret may have come to the screen in the end."""
    terminal = Terminal({"SMS_AAA_NODE_STATE_FOLDER": str(tmp_path / "state"), "SMS_AAA_DATABASE_DSN": database_dsn})
    yield terminal
    screen = "".join(terminal.transcript)
    assert PASSWORD not in screen
    assert SECRET.decode() not in screen


@pytest.fixture
def stocked(terminal) -> Terminal:
    """With a NAS, a plan, alice by password and cam by device."""
    terminal.done("nas", "add", "bng1", "127.0.0.1", "--secret-stdin", typed=SECRET.decode())
    terminal.done("plan", "add", PLAN_FILE)
    # No test may run at the edge of a cycle, whatever the day is.
    anchor_day = (datetime.now(UTC).day + 13) % 28 + 1
    alice = ("subscriber", "add", "alice", "--plan", "home-100", "--password-stdin")
    terminal.done(*alice, "--zone", "Europe/Berlin", "--anchor-day", str(anchor_day), typed=f"{PASSWORD}\n")
    terminal.done("subscriber", "add", "cam", "--plan", "home-100", "--mac", "00:11:22:33:44:55")
    return terminal


class Node:
    """Writes a journal as the workers do and settles it as the settler does, when it is told to."""

    def __init__(self, folder: Path, dsn: str) -> None:
        self.folder = folder
        self.dsn = dsn
        folder.mkdir(parents=True, exist_ok=True)
        board = Board.create(folder / "board", slots=1, now_ns=1)
        assert isinstance(board, Board)
        self.board = board
        with connect(dsn, name="test") as connection:
            self.database_id = feed.get_database_id(connection)
            self.nas_id = next(iter(list_single(connection)))

    def _append(self, stream: Stream, payloads: Sequence[bytes]) -> list[tuple[Place, bytes]]:
        folder = make_folder(self.folder / "journal", stream)
        assert isinstance(folder, Path)
        slot = self.board.slot(0)
        synced = stream is Stream.ACCOUNTING
        writer = Writer(
            folder, stream, self.database_id, slot, synced=synced, file_octets_max=65_536, folder_octets_max=1 << 21
        )
        writer.append(payloads, 1_000)
        writer.close()
        files = list_files(folder)
        assert isinstance(files, list)
        batch = read(files[-1], stream=stream, database_id=self.database_id, offset=0, end=files[-1].octets)
        assert isinstance(batch, Batch)
        return [(Place(NODE, files[-1].sequence, record.offset), record.payload) for record in batch.records]

    def account(self, *said: Said, rate: bool = True) -> None:
        """Records on their way to money; without `rate` they wait in the queue."""
        payloads = [
            pack_accounting(
                AccountingRecord(int(one.at.timestamp()) * 10**9, self.nas_id, "127.0.0.1", 40_000, packet_of(one))
            )
            for one in said
        ]
        records = []
        for place, payload in self._append(Stream.ACCOUNTING, payloads):
            record = unpack_accounting(payload)
            assert isinstance(record, AccountingRecord)
            records.append((place, record))
        with connect(self.dsn, name="test") as connection:
            create_ahead(connection, said[0].at)
            settle_accounting(connection, records, single_nas={self.nas_id: True})
        if rate:
            self.rate(said[-1].at)

    def rate(self, now: datetime) -> None:
        with connect(self.dsn, name="test") as connection:
            open_cycles(connection, PlanShelf(), now=now, limit=100)
            rate_all(connection, PlanShelf(), now=now)

    def decide(self, *batches: DecisionBatch, settle: bool) -> None:
        """Decisions in the node's stream, and in PostgreSQL too if they are settled."""
        written = self._append(Stream.DECISIONS, [payload for batch in batches for payload in pack_decisions(batch)])
        if not settle:
            return
        with connect(self.dsn, name="test") as connection:
            records = []
            for place, payload in written:
                unpacked = unpack_decisions(payload)
                assert isinstance(unpacked, DecisionBatch)
                records.append((place, unpacked))
            settle_decisions(connection, records)

    def mark_settled(self, position: int) -> None:
        """Moves the newest decision file's position, as the settler would have."""
        files = list_files(self.folder / "journal" / "decisions")
        assert isinstance(files, list)
        with connect(self.dsn, name="test") as connection:
            positions.insert_position(connection, NODE, int(Stream.DECISIONS), files[-1].sequence, position)


@pytest.fixture
def node(stocked, tmp_path, database_dsn) -> Node:
    return Node(tmp_path / "state", database_dsn)
