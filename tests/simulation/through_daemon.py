"""Worlds through real daemons over real UDP, while processes are killed, PostgreSQL goes away and the disk is full.

Several worlds share a run: one or two nodes on one PostgreSQL. When everything was answered and settled, the auditor
reads the tables. What takes real hours does not occur (world.py, `compressed`); that silence ends sessions is seen by
asking for it as if a day had passed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
import tomllib
from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from random import Random
from typing import TYPE_CHECKING, Self

from auditor import Counted, Outcome, audit, judge_quarantine
from daemon import Daemon, wait_until
from faults import Fault
from make import make_nas, make_subscriber
from network import NODES, carry
from rollups import judge_rollups
from sending import Play, Sender
from world import SPAN_SECONDS, make_world

from sms_aaa.db.engine import Unavailable, connect
from sms_aaa.db.reconcile import list_violations
from sms_aaa.db.schema import upgrade
from sms_aaa.flows.provisioning.plans import add_plan
from sms_aaa.flows.settling import close_stale_sessions
from sms_aaa.node.board import Board
from sms_aaa.node.journal import Stream, stream_folder
from sms_aaa.node.journal_reader import list_files, readable_end
from sms_aaa.rules.session import State
from sms_aaa.server.postgres import EmbeddedPostgres

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from world import World

PLAN = """
name = "world"
[policy]
rate_up = "1 Gbit/s"
rate_down = "1 Gbit/s"
interim = "5m"
sessions = 0
[tariff]
currency = "EUR"
[[tariff.usage]]
name = "data"
measure = "total"
included = "1 GB"
price = "0.50"
per = "GB"
"""
SUBSCRIBERS = 3
SPAN_AGO_SECONDS = SPAN_SECONDS + 2 * 3600
"""The worlds begin so long ago: nothing of them lies in the future, whatever is held back."""

DISK_OCTETS = 192 * 1024 * 1024
TROUBLES = (
    *[Fault.WORKER_KILLED] * 3, *[Fault.SETTLER_KILLED] * 3, *[Fault.NODE_KILLED] * 2, *[Fault.POSTGRES_STOPPED] * 2,
    Fault.DISK_FULL,
)  # fmt: skip
SETTLED_SECONDS_MAX = 120.0


@dataclass
class Stage:
    """Where a run plays. `stop_database` takes the database away and gives what brings it back."""

    daemons: dict[str, Daemon]
    stop_database: Callable[[], Callable[[], None]]
    disk: Path | None = None
    faults: Counter[Fault] = field(default_factory=Counter)

    @property
    def first(self) -> Daemon:
        return self.daemons[NODES[0]]


class SmallDisk:
    """A file system of its own, to be filled; `folder` is None where this user cannot mount one."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_OCTETS}", "none", str(folder)]
        done = subprocess.run(mount, check=False, capture_output=True)
        self.folder = folder if done.returncode == 0 else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.folder is not None:
            subprocess.run(["umount", "--lazy", str(self.folder)], check=True)


def provision(daemon: Daemon, worlds: list[World]) -> list[Play]:
    """Every world's NASes, at addresses of its own, and subscribers; before the daemons start."""
    plays = []
    with daemon.desk() as desk:
        add_plan(desk, tomllib.loads(PLAN, parse_float=Decimal), default_currency="EUR")
        for number, world in enumerate(worlds):
            addresses = {}
            for place in sorted({nas.place for nas in world.nases}):
                boxes = [nas for nas in world.nases if nas.place == place]
                network = f"127.{64 + number // 64}.{number % 64 * 4 + place}"
                prefix = f"{network}.0/24" if boxes[0].by_prefix else f"{network}.1"
                make_nas(desk, name=f"w{world.seed}-{place}", prefix=prefix)
                addresses |= {nas.name: f"{network}.{box}" for box, nas in enumerate(boxes, 1)}
            services = [
                make_subscriber(desk, name=f"w{world.seed}-user{who}", plan="world") for who in range(SUBSCRIBERS)
            ]
            plays.append(Play(world, carry(world)[0], services, addresses))
    return plays


def play(stage: Stage, plays: list[Play], *, base: int, seed: int, troubles: tuple[Fault, ...], rate: float) -> Sender:
    """Everything sent, answered and settled. The daemons run before and after it."""
    ports = {name: daemon.accounting_port for name, daemon in stage.daemons.items()}
    sender = Sender(plays, ports=ports, base=base, rate=rate, seed=seed)
    sender.start()
    _make_trouble(stage, sender, Random(f"trouble {seed}"), troubles)
    while sender.is_alive():
        sender.join(1.0)
    if sender.failed is not None:
        raise sender.failed
    stage.faults.update(sender.faults)
    for name, daemon in stage.daemons.items():
        wait_until(lambda d=daemon: _has_settled(d), f"everything of {name} settled", SETTLED_SECONDS_MAX)
    return sender


def _has_settled(daemon: Daemon) -> bool:
    try:
        return _is_settled(daemon)
    except Unavailable:
        return False  # the database is on its way back


def _is_settled(daemon: Daemon) -> bool:
    """By the journal and the database themselves: a gauge may be a second old."""
    board = Board.open(daemon.folder / "board")
    files = list_files(stream_folder(daemon.folder / "journal", Stream.ACCOUNTING))
    assert isinstance(board, Board)
    assert isinstance(files, list)
    node, stream = daemon.environ.get("SMS_AAA_NODE_NAME", NODES[0]), int(Stream.ACCOUNTING)
    settled = dict(
        daemon.query(f"select sequence, position from journal_position where node = '{node}' and stream = {stream}")
    )
    return all(
        settled.get(file.sequence, 0) >= readable_end(file, stream=Stream.ACCOUNTING, board=board) for file in files
    )


def _make_trouble(stage: Stage, sender: Sender, random: Random, troubles: tuple[Fault, ...]) -> None:
    """One after the other, each when its share of the records was answered."""
    kinds = random.sample(troubles, len(troubles))
    for number, kind in enumerate(kinds, 1):
        share = (number - 0.5 + random.uniform(-0.3, 0.3)) / len(kinds) * 0.9
        while sender.done < share * sender.total and sender.is_alive():
            time.sleep(0.01)
        daemon = stage.daemons[random.choice(sorted(stage.daemons))]
        if kind is Fault.WORKER_KILLED:
            _kill(daemon, "accounting-1")
        elif kind is Fault.SETTLER_KILLED:
            _kill(daemon, "settler")
        elif kind is Fault.NODE_KILLED:
            daemon.kill_all()
            time.sleep(random.uniform(0, 0.5))
            daemon.start(healthy=False)
        elif kind is Fault.POSTGRES_STOPPED:
            bring_back = stage.stop_database()
            time.sleep(random.uniform(0.3, 2.0))
            bring_back()
        elif stage.disk is not None:
            _fill_disk(stage, random)
        else:
            continue
        stage.faults[kind] += 1


def _kill(daemon: Daemon, name: str) -> None:
    with contextlib.suppress(ProcessLookupError):  # it has just died of something else
        daemon.kill(name)


def _fill_disk(stage: Stage, random: Random) -> None:
    """Full; the worker that dies then finds no room for a new file."""
    assert stage.disk is not None
    pid = stage.first.pid_of("accounting-1")  # what is told of the processes is on this disk as well
    filling = stage.disk / "filling"
    with filling.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(65536))
    with filling.open("ab", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(512))
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    time.sleep(random.uniform(0.5, 2.0))
    filling.unlink()


def judge(daemon: Daemon, plays: list[Play], base: int) -> list[str]:
    """What the auditor says of the tables, a day after."""
    with connect(daemon.dsn, name="auditor") as connection:
        close_stale_sessions(connection, now=datetime.now(UTC) + timedelta(days=1), multiple=1, limit=1_000_000)
        connection.commit()
        complaints = [f"law: {law}: {found}" for law, violations in list_violations(connection) for found in violations]
    nas_ids = {str(name): int(nas_id) for nas_id, name in daemon.query("select id, name from nas")}
    lives = _lives(daemon)
    seen: set[int] = set()
    for one in plays:
        ids = {nas_ids[f"w{one.world.seed}-{nas.place}"]: nas.place for nas in one.world.nases}
        of_it = [replace(life, key=(ids[life.key[0]] + 1, *life.key[1:])) for life in lives if life.key[0] in ids]
        seen |= ids.keys()
        outcome = Outcome(of_it, {}, datetime.fromtimestamp(base, UTC), tried=one.tried, services=one.services)
        complaints += [f"seed {one.world.seed}: {said}" for said in audit(one.world, one.answered, outcome)]
    complaints += judge_rollups(
        daemon.query(
            "select service_id, from_at, to_at, octets_in, octets_out from usage_delta where account_id is not null"
        ),
        daemon.query("select service_id, hour_at, octets_in, octets_out from usage_hour"),
        daemon.query("select service_id, day, octets_in, octets_out from usage_day"),
    )
    complaints += [f"phantom: {life.key}" for life in lives if life.key[0] not in seen]
    quarantined = {
        str(reason): int(count) for reason, count in daemon.query("select reason, count(*) from quarantine group by 1")
    }
    complaints += judge_quarantine([one for each in plays for one in each.answered], quarantined, at_least_once=True)
    return complaints


def _lives(daemon: Daemon) -> list[Counted]:
    lives = {
        session_id: Counted(
            (nas_id, nas_key, name), life, set(), State(state), octets_in, octets_out, started_at, stopped_at,
            estimated, service_id,
        )
        for session_id, nas_id, nas_key, name, life, state, octets_in, octets_out, started_at, stopped_at, estimated,
        service_id in daemon.query(
            """select id, nas_id, nas_key, acct_session_id, life, state, octets_in, octets_out, started_at, stopped_at,
                      estimated, service_id from session_all"""
        )
    }  # fmt: skip
    for session_id, *delta in daemon.query(
        "select session_id, octets_in, octets_out, from_at, to_at, late from usage_delta order by session_id, seq"
    ):
        lives[session_id].deltas.append(tuple(delta))
    for session_id, kind in daemon.query("select session_id, kind from anomaly where session_id is not null"):
        lives[session_id].names.add(kind)
    return list(lives.values())


@dataclass(frozen=True, slots=True)
class Run:
    """What a run did, and what the auditor said of it."""

    plays: list[Play]
    base: int
    asked_again: int
    faults: Counter[Fault]
    complaints: list[str]

    @property
    def sessions(self) -> int:
        return sum(len(one.world.sessions) for one in self.plays)

    @property
    def answered(self) -> int:
        return sum(len(one.answered) for one in self.plays)


def run(folder: Path, *, first: int, seeds: int, rate: float = 500.0) -> Run:
    """Worlds `first`, ... on one or two nodes and a PostgreSQL of their own, with all troubles; stopped at the end."""
    with SmallDisk(folder / "disk") as disk:
        options = {"fsync": "off", "full_page_writes": "off"}  # a process is killed here, not a machine
        server = EmbeddedPostgres.start(folder / "postgres", options=options)
        upgrade(server.dsn)

        def stop_database() -> Callable[[], None]:
            assert server.process is not None
            server.process.send_signal(signal.SIGQUIT)  # at once, without a checkpoint
            server.process.wait(60)

            def bring_back() -> None:
                nonlocal server
                server = EmbeddedPostgres.start(folder / "postgres", options=options)

            return bring_back

        nodes = NODES if Random(f"nodes {first}").random() < 0.6 else NODES[:1]
        daemons = _make_daemons(disk.folder or folder, folder, nodes, server.dsn)
        stage = Stage(daemons, stop_database, disk.folder)
        try:
            return play_worlds(stage, first=first, seeds=seeds, troubles=TROUBLES, rate=rate)
        finally:
            for daemon in daemons.values():
                if daemon.process is not None:
                    daemon.stop()
            server.stop()


def _make_daemons(first_folder: Path, folder: Path, nodes: tuple[str, ...], dsn: str) -> dict[str, Daemon]:
    daemons = {}
    for name in nodes:
        place = first_folder if name == NODES[0] else folder
        settings = {
            "SMS_AAA_NODE_NAME": name,
            "SMS_AAA_DATABASE_KEY_FILE": str(folder / "key"),
            "SMS_AAA_JOURNAL_FILE_OCTETS_MAX": "8388608",
        }
        daemons[name] = Daemon(place / name, dsn=dsn, **settings)
        daemons[name].log = folder / f"{name}.log"  # on another disk, to be read when that one is full
    return daemons


def play_worlds(stage: Stage, *, first: int, seeds: int, troubles: tuple[Fault, ...], rate: float) -> Run:
    """On daemons that have not started yet."""
    worlds = [make_world(seed, compressed=True) for seed in range(first, first + seeds)]
    plays = provision(stage.first, worlds)
    for daemon in stage.daemons.values():
        daemon.start(healthy=False)
    for daemon in stage.daemons.values():
        daemon.wait_healthy()
    base = int(time.time()) - SPAN_AGO_SECONDS
    sender = play(stage, plays, base=base, seed=first, troubles=troubles, rate=rate)
    for world in worlds:
        stage.faults.update(world.faults)
        stage.faults.update(carry(world)[1])
    return Run(plays, base, sender.asked_again, stage.faults, judge(stage.first, plays, base))
