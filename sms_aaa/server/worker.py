"""What every child process has in common: how it is told what to be, how it dies with its supervisor, how it ends.

The supervisor execs `python -m sms_aaa.server.ROLE` and writes the Order to the child's standard input: settings with
their secrets do not show in a process list or an environment. SIGTERM asks for an orderly end.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import msgspec

from sms_aaa.config import Settings, key_path
from sms_aaa.flows.tables import Tables
from sms_aaa.flows.vault import Vault
from sms_aaa.metrics import Word
from sms_aaa.node.board import Board, BoardFault, Slot
from sms_aaa.node.journal import JournalFault, Stream, make_folder
from sms_aaa.node.key import KeyFault, read_or_create_key
from sms_aaa.node.live import LiveSet
from sms_aaa.node.live_change import LiveFault
from sms_aaa.node.lockouts import Lockouts, LockoutsFault
from sms_aaa.node.nas_rows import assign_rows
from sms_aaa.node.replica import Replica, ReplicaFault
from sms_aaa.rules.realms import Realms
from sms_aaa.rules.secret import Secret
from sms_aaa.server.log import Log
from sms_aaa.server.runfile import find_running

if TYPE_CHECKING:
    from collections.abc import Callable

    from sms_aaa.node.replica import ReplicaMeta

_PR_SET_PDEATHSIG = 1
REPLICA_LOOK_SECONDS = 0.1
LOCK_YIELDED_SECONDS = 0.0005


FIRST_RATER = "rater"
"""The name of a node's first."""


def rater_names(count: int) -> list[str]:
    return [FIRST_RATER, *(f"{FIRST_RATER}-{number}" for number in range(2, count + 1))]


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What a child is to be. `sockets`: descriptors that it inherits; `dsn`: b"" while there is no database."""

    name: str
    slot: int
    sockets: list[int]
    settings: Settings
    dsn: Secret
    supervisor_pid: int


def _encode_secret(value: object) -> str:
    assert isinstance(value, Secret)
    return value.reveal().decode()


def _decode_secret(kind: type, value: object) -> object:
    assert kind is Secret
    assert isinstance(value, str)
    return Secret(value.encode())


def encode_order(order: Order) -> bytes:
    return msgspec.json.encode(order, enc_hook=_encode_secret)


class Child:
    """A child's surroundings: order, log, board slot, whether it was asked to end."""

    def __init__(self, order: Order) -> None:
        self.order = order
        self.settings = order.settings
        self.log = Log(order.name, order.settings.log.level)
        self.state_folder = Path(order.settings.node.state_folder)
        board = Board.open(self.state_folder / "board")
        if isinstance(board, BoardFault):
            self.fail("board", board.detail)
        self._board = board
        self.slot: Slot = board.slot(order.slot)
        self.slot.claim(os.getpid(), time.monotonic_ns())
        self.counters = self.slot.counters
        self.stopping = False

    @property
    def board(self) -> Board:
        return self._board

    def beat(self) -> None:
        """Says that this process is alive; in monotonic time, so that a step of the clock makes nobody look dead."""
        self.slot.beat(time.monotonic_ns())

    def fail(self, what: str, reason: str) -> NoReturn:
        """Ends the process; the supervisor says so and tries again, later each time."""
        self.log.error("cannot-run", what=what, reason=reason)
        sys.exit(1)

    def vault(self) -> Vault:
        key = read_or_create_key(key_path(self.settings), fresh=os.urandom(32))
        if isinstance(key, KeyFault):
            self.fail("key", f"{key.reason}; {key.remedy}")
        return Vault(key)

    def wait_for_replica(self) -> Replica:
        """The node's replica; on the very first start it is there when the replicator has built it."""
        said = False
        while not self.stopping:
            replica = Replica.open(self.state_folder)
            if isinstance(replica, Replica):
                return replica
            if not said:
                self.log.warning("waiting-for-replica", reason=replica.detail)
                said = True
            self.beat()
            time.sleep(REPLICA_LOOK_SECONDS)
        sys.exit(0)

    def journal_folder(self, stream: Stream) -> Path:
        """The stream's folder, made if need be."""
        folder = make_folder(self.state_folder / "journal", stream)
        if isinstance(folder, JournalFault):
            self.fail("journal", folder.detail)
        return folder

    def lockouts(self) -> Lockouts:
        table = Lockouts.open(self.state_folder)
        if isinstance(table, LockoutsFault):
            self.fail("lockouts", table.detail)
        return table

    def find_dsn(self) -> str:
        """Where PostgreSQL is; "" while an embedded one is not up yet. For those who start without one."""
        if not self.settings.database.embedded:
            return self.settings.database.dsn.reveal().decode()
        running = find_running(self.state_folder)
        return running.embedded_dsn if running is not None else ""

    def live_set(self) -> LiveSet:
        node = self.settings.node
        live = LiveSet.open(Path(node.live_folder), boot_id=boot_id(), octets=node.live_octets)
        if isinstance(live, LiveFault):
            self.fail("live-set", live.detail)
        if not live.is_allocated:
            self.log.warning("live-set-not-allocated", folder=node.live_folder, remedy="make room for node.live_octets")
        if live.was_discarded:
            self.log.warning("live-set-discarded", reason="the machine was booted since, or it was damaged")
        return live


def yield_lock() -> None:
    """Between two changes of the live set: whoever waits for its lock, a login perhaps, is to have it."""
    time.sleep(LOCK_YIELDED_SECONDS)


def boot_id() -> str:
    """Which boot of the machine this is: the live set does not outlive it."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def run_child(main: Callable[[Child], None]) -> NoReturn:
    """The entry of a role's module: reads the order, dies with the supervisor, ends at SIGTERM."""
    order = msgspec.json.decode(sys.stdin.buffer.read(), type=Order, dec_hook=_decode_secret)
    _die_with(order.supervisor_pid)
    child = Child(order)

    def stop(*_: object) -> None:
        child.stopping = True

    signal.signal(signal.SIGTERM, stop)
    # Ctrl-C goes to the whole foreground group; the supervisor decides who ends when.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        main(child)
    except Exception:  # noqa: BLE001 - the door's last resort: our bug is said, and the supervisor starts us again
        child.log.bug("bug")
        sys.exit(1)
    sys.exit(0)


def _die_with(supervisor_pid: int) -> None:
    """The kernel kills this process when the supervisor dies, however it dies: nobody serves unseen."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != supervisor_pid:  # it died before that
        sys.exit(1)


class NodeReader:
    """A worker's replica with the tables made from it; both are renewed between batches when they changed."""

    def __init__(self, child: Child) -> None:
        self._child = child
        self._vault = child.vault()
        self.replica = child.wait_for_replica()
        self._version = -1
        self._age_ns_max = child.settings.replica.age_seconds_max * 1_000_000_000
        self.is_too_old = False
        """Whether the replica is older than replica.age_seconds_max; only accesses care."""

        self.tables = Tables((), (), self._vault)
        self.refresh(time.time_ns())

    @property
    def vault(self) -> Vault:
        return self._vault

    def meta(self) -> ReplicaMeta:
        meta = self.replica.meta()
        if isinstance(meta, ReplicaFault):
            self._child.fail("replica", meta.detail)
        return meta

    def refresh(self, now_ns: int) -> bool:
        """True when the tables are new ones."""
        if self.replica.switched(now_ns):
            opened = Replica.open(self._child.state_folder)
            if isinstance(opened, Replica):
                before = self.meta().database_id
                self.replica.close()
                self.replica, self._version = opened, -1
                if self.meta().database_id != before:
                    # J8: what this worker journals is bound to the old database; its successor begins with the new.
                    self._child.log.warning("database-changed", reason="the replica is of another database now")
                    self._child.stopping = True
        self._look_at_replica(now_ns)
        with self.replica.read() as view:
            version = view.tables_version()
        if version == self._version:
            return False
        nases, plans, realms = self.replica.nas_list(), self.replica.plans(), self.replica.realms()
        if isinstance(nases, ReplicaFault) or isinstance(plans, ReplicaFault) or isinstance(realms, ReplicaFault):
            return False  # the old tables serve on until the replicator has mended it
        rows = assign_rows(self._child.counters, nases)
        known = Realms(realms, self._child.settings.access.unknown_realm)
        self.tables = Tables(nases, plans, self._vault, rows=rows, realms=known, before=self.tables)
        self._version = version
        for name in self.tables.unreadable:
            self._child.log.error(
                "nas-secret-unreadable", nas=name, remedy="is the key file the one it was sealed with?"
            )
        return True

    def _look_at_replica(self, now_ns: int) -> None:
        if self.replica.is_cut():  # the next look at a page that is gone would kill this process
            self.replica.close()
            self.replica, self._version = self._child.wait_for_replica(), -1
        meta = self.replica.meta()
        if isinstance(meta, ReplicaFault):
            return
        self._child.counters[Word.REPLICA_REFRESHED_NS] = meta.refreshed_ns
        self.is_too_old = 0 < self._age_ns_max < now_ns - meta.refreshed_ns
