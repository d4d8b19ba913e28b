"""The supervisor: `sms-aaa serve`. Binds the sockets, starts the others, starts them again, ends them in order.

It does no work of theirs and so has little to die of; if it does, the kernel takes its children with it. A child that
dies is started again, after a pause that doubles while it keeps dying; one that is stuck is killed first. Its sockets
stay open here meanwhile: the kernel keeps what arrives.
"""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from sms_aaa import __version__
from sms_aaa.config import Settings, SettingsError, WhenTooOld
from sms_aaa.metrics import Collector, Names, ProcessView, Word, journal_fault
from sms_aaa.node.board import Board, BoardFault
from sms_aaa.node.live import LiveSet
from sms_aaa.node.live_change import LiveFault
from sms_aaa.node.lockouts import KEY_OCTETS, Lockouts, LockoutsFault
from sms_aaa.node.replica import Replica
from sms_aaa.rules.secret import Secret
from sms_aaa.server.database import Database
from sms_aaa.server.http import Health, Watchman
from sms_aaa.server.log import Log
from sms_aaa.server.notify import notify
from sms_aaa.server.runfile import Running, RunningProcess, hold, write_running
from sms_aaa.server.sockets import bind
from sms_aaa.server.worker import Order, boot_id, encode_order, rater_names

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterable
    from types import FrameType

LOOP_SECONDS = 0.1
PAUSE_SECONDS_MIN = 0.2
PAUSE_SECONDS_MAX = 10.0
STEADY_SECONDS = 30.0
"""A child that ran this long is not dying again and again: the next pause is short."""

SILENT_SECONDS = 10.0
"""A child that says nothing for this long is named by /healthz; for STUCK_SECONDS, it is killed."""

STUCK_SECONDS = 60.0
NAMES_SECONDS = 2.0
RUNNING_RETRY_SECONDS = 1.0
WORKERS_END_SECONDS = 5.0
SETTLER_END_SECONDS = 30.0
OTHERS_END_SECONDS = 10.0


class StartError(Exception):
    """Why it cannot run, and what to do."""

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(f"{reason}; {remedy}")


@dataclass(slots=True)
class Post:
    """A place that a child holds: role, slot and sockets stay; the processes in it come and go."""

    name: str
    module: str
    slot: int
    needs_database: bool
    sockets: list[socket.socket] = field(default_factory=list)
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    started_at: float = 0.0
    not_before: float = 0.0
    pause: float = PAUSE_SECONDS_MIN
    restarts: int = 0
    leaving: bool = False
    """It was asked to end, for a reload: its end is no death."""

    def is_up(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def put_off(self, now: float) -> None:
        """The next start waits, longer each time."""
        self.not_before = now + self.pause
        self.pause = min(self.pause * 2, PAUSE_SECONDS_MAX)


class Supervisor:
    """One a node. `load` reads the settings, now and at each reload."""

    def __init__(self, load: Callable[[], Settings]) -> None:
        self._load = load
        self._settings = load()
        self._log = Log("supervisor", self._settings.log.level)
        self._folder = Path(self._settings.node.state_folder)
        self._lock = hold(self._folder)
        if self._lock is None:
            raise StartError(
                f"another `sms-aaa serve` runs in {self._folder}", "stop that one, or set node.state_folder"
            )
        self._posts = _make_posts(self._settings)
        self._board = _make_board(self._folder, len(self._posts))
        self._live = _open_live_set(self._settings)
        _make_lockouts(self._folder)
        self._replica: Replica | None = None
        self._names = Names({}, {})
        self._names_due = 0.0
        self._database = Database(self._settings, self._log)
        self._since = time.time()
        self._stopping = False
        self._reloading = False
        self._written: list[RunningProcess] | None = None
        self._write_due = 0.0
        self._write_failed = False
        collector = Collector(self._board, self._views, lambda: self._names, time.time_ns)
        try:
            self._watchman = Watchman(self._settings.metrics.listen, collector, self._health)
        except OSError as taken:
            raise StartError(
                f"metrics.listen {self._settings.metrics.listen}: {taken.strerror}", "free the port or set another"
            ) from taken

    def run(self) -> None:
        """Until SIGTERM or SIGINT; SIGHUP reloads."""
        signal.signal(signal.SIGTERM, self._on_stop)
        signal.signal(signal.SIGINT, self._on_stop)
        signal.signal(signal.SIGHUP, self._on_reload)
        self._watchman.start()
        self._database.start()
        self._log.info("started", version=__version__, node=self._settings.node.name, folder=str(self._folder))
        try:
            self._keep()
        finally:
            self._end()

    def _keep(self) -> None:
        ready = False
        while not self._stopping:
            if self._reloading:
                self._reloading = False
                self._reload()
            for post in self._posts:
                self._look_after(post)
            self._refresh_names()
            self._write_running()
            if not ready and all(self._is_at_work(post) for post in self._posts if not post.needs_database):
                ready = True
                notify("READY=1")
            notify("WATCHDOG=1")
            time.sleep(LOOP_SECONDS)

    def _look_after(self, post: Post) -> None:
        now = time.monotonic()
        if post.process is not None and post.process.poll() is not None:
            self._bury(post, now)
        elif post.process is not None:
            self._kill_if_stuck(post, now)
        if post.process is None and now >= post.not_before and self._may_run(post):
            self._start(post)

    def _may_run(self, post: Post) -> bool:
        return not post.needs_database or self._database.dsn is not None

    def _bury(self, post: Post, now: float) -> None:
        assert post.process is not None
        status = post.process.returncode
        post.process = None
        if post.leaving:
            post.leaving, post.not_before = False, 0.0
            return
        post.restarts += 1
        if now - post.started > STEADY_SECONDS:
            post.pause = PAUSE_SECONDS_MIN
        post.put_off(now)
        self._log.error("process-died", name=post.name, status=status, again_in_seconds=post.not_before - now)
        # Its reader slots in the stores would keep old pages from being used again.
        self._live.reader_check()
        if self._replica is not None:
            self._replica.reader_check()

    def _kill_if_stuck(self, post: Post, now: float) -> None:
        assert post.process is not None
        alive_at = max(self._board.slot(post.slot).heartbeat_ns / 1e9, post.started)
        if now - alive_at > STUCK_SECONDS:
            self._log.error("process-stuck", name=post.name, silent_seconds=int(now - alive_at))
            post.process.kill()

    def _start(self, post: Post) -> None:
        """A machine without memory, processes or descriptors to spare may have them in a moment: it is tried again."""
        try:
            self._spawn(post)
        except OSError as fault:
            now = time.monotonic()
            post.put_off(now)
            again = post.not_before - now
            self._log.error("process-not-started", name=post.name, reason=fault.strerror, again_in_seconds=again)

    def _spawn(self, post: Post) -> None:
        order = Order(
            name=post.name,
            slot=post.slot,
            sockets=[bound.fileno() for bound in post.sockets],
            settings=self._settings,
            dsn=Secret((self._database.dsn or "").encode()),
            supervisor_pid=os.getpid(),
        )
        process = subprocess.Popen(
            [sys.executable, "-m", f"sms_aaa.server.{post.module}"],
            stdin=subprocess.PIPE,
            pass_fds=order.sockets,
            start_new_session=True,  # a Ctrl-C at the terminal is for the supervisor, who ends the others in order
        )
        assert process.stdin is not None
        try:
            process.stdin.write(encode_order(order))
            process.stdin.close()
        except BrokenPipeError:
            pass  # it died at once; the next look buries it
        post.process, post.started, post.started_at = process, time.monotonic(), time.time()

    def _reload(self) -> None:
        """New settings, then each child anew with them, in the same sockets; wrong settings change nothing."""
        try:
            settings = self._load()
        except SettingsError as wrong:
            self._log.error("reload-refused", reason=str(wrong))
            return
        fixed = _what_needs_a_restart(self._settings, settings)
        if fixed:
            self._log.error("reload-refused", reason=f"{', '.join(fixed)} cannot change while it runs: restart it")
            return
        notify("RELOADING=1")
        self._settings = settings
        for post in self._posts:
            if post.is_up():
                assert post.process is not None
                post.leaving = True
                post.process.terminate()
                self._wait_for([post], WORKERS_END_SECONDS)
                self._bury(post, time.monotonic())
            if self._may_run(post):
                self._start(post)
        self._log.info("reloaded")
        notify("READY=1")

    def _end(self) -> None:
        """Workers first, so that nothing more arrives; then those who empty the journal; then the rest."""
        notify("STOPPING=1")
        self._log.info("stopping")
        settling = ("settler", "recorder")
        others = ("rater", "replicator", "places")
        self._terminate([post for post in self._posts if post.module not in settling + others], WORKERS_END_SECONDS)
        self._terminate([post for post in self._posts if post.module in settling], SETTLER_END_SECONDS)
        self._terminate([post for post in self._posts if post.module in others], OTHERS_END_SECONDS)
        self._database.stop()
        self._watchman.stop()
        self._log.info("stopped")

    def _terminate(self, posts: list[Post], seconds: float) -> None:
        for post in posts:
            if post.process is not None:
                post.process.terminate()
        self._wait_for(posts, seconds)

    def _wait_for(self, posts: list[Post], seconds: float) -> None:
        """Waits for children that were asked to end; kills those that do not."""
        until = time.monotonic() + seconds
        while any(post.is_up() for post in posts) and time.monotonic() < until:
            notify("WATCHDOG=1")
            time.sleep(0.02)
        for post in posts:
            if post.process is not None and post.is_up():
                self._log.error("killed", name=post.name, reason="it did not end when asked")
                post.process.kill()
            if post.process is not None:
                post.process.wait()

    def _refresh_names(self) -> None:
        now = time.monotonic()
        if now < self._names_due:
            return
        self._names_due = now + (NAMES_SECONDS if self._replica is not None else 0.0)
        if self._replica is None or self._replica.switched(time.time_ns()):
            opened = Replica.open(self._folder)
            if not isinstance(opened, Replica):
                return
            if self._replica is not None:
                self._replica.close()
            self._replica = opened
        nases, plans = self._replica.nas_list(), self._replica.plans()
        if isinstance(nases, list) and isinstance(plans, list):
            self._names = Names(
                {nas.nas_id: nas.name for nas in nases}, {plan.plan_version_id: plan.name for plan in plans}
            )

    def _views(self) -> list[ProcessView]:
        return [ProcessView(post.name, post.slot, post.is_up(), post.restarts) for post in self._posts]

    def _health(self) -> Health:
        down = [post for post in self._posts if not post.is_up()]
        unanswered = [f"{post.name} is not running" for post in down if not post.needs_database]
        if self._replica is None:
            unanswered.append(f"there is no replica yet: logins are not answered{self._filling()}")
        faults = {journal_fault(self._board.slot(post.slot).counters) for post in self._posts}
        unanswered += [
            f"accounting is not answered: {fault.text}; {fault.remedy}" for fault in faults if fault is not None
        ]
        impaired = [f"{post.name} is not running" for post in down if post.needs_database]
        impaired += [f"{post.name} is starting" for post in self._posts if post.is_up() and not self._is_at_work(post)]
        if not self._live.is_rebuilt():
            impaired.append("it is not known yet who was online before the boot: see access.until_rebuilt")
        if self._database.problem:
            impaired.append(self._database.problem)
        settlers = [post for post in self._posts if post.module == "settler" and post.is_up()]
        if any(not self._board.slot(post.slot).counters[Word.DATABASE_UP] for post in settlers):
            impaired.append("the settler has no database: accounting waits in the journal")
        impaired += find_silent(self._posts, self._board, time.monotonic())
        if (age := self._age_problem()) is not None:
            answers = self._settings.replica.when_too_old is WhenTooOld.SERVE
            (impaired if answers else unanswered).append(age)
        return Health(tuple(unanswered), tuple(impaired))

    def _is_at_work(self, post: Post) -> bool:
        """Whether its process has begun: it takes its slot when it is loaded; what came before waits in its sockets."""
        return post.is_up() and post.process is not None and self._board.slot(post.slot).pid == post.process.pid

    def _filling(self) -> str:
        done, of = (self._highest(word) for word in (Word.REPLICA_FILL_DONE, Word.REPLICA_FILL_OF))
        return f" ({done:,} of {of:,} services are in it)" if of else ""

    def _age_problem(self) -> str | None:
        """In words when the replica is older than it may be; before there is one, that is the problem."""
        settings = self._settings.replica
        refreshed_ns = self._highest(Word.REPLICA_REFRESHED_NS)
        seconds = (time.time_ns() - refreshed_ns) // 1_000_000_000
        if not settings.age_seconds_max or not refreshed_ns or seconds <= settings.age_seconds_max:
            return None
        does = {
            WhenTooOld.SERVE: "logins are answered from it all the same",
            WhenTooOld.REJECT: "logins are refused",
            WhenTooOld.SILENCE: "logins are not answered",
        }[settings.when_too_old]
        return f"the replica is {seconds} s old, {settings.age_seconds_max} s are allowed: {does}"

    def _highest(self, word: Word) -> int:
        return max(int(self._board.slot(post.slot).counters[word]) for post in self._posts)

    def _write_running(self) -> None:
        processes = [
            RunningProcess(
                name=post.name,
                slot=post.slot,
                pid=post.process.pid if post.process is not None and post.is_up() else 0,
                restarts=post.restarts,
                since=post.started_at,
            )
            for post in self._posts
        ]
        # The database is told beside the processes that need it: when it is there, they start.
        if processes == self._written or time.monotonic() < self._write_due:
            return
        embedded = self._settings.database.embedded
        running = Running(
            pid=os.getpid(),
            version=__version__,
            node=self._settings.node.name,
            since=self._since,
            metrics=self._watchman.address,
            embedded_dsn=self._database.embedded_dsn if embedded else "",
            database="embedded" if embedded else "configured",
            access=list(self._settings.access.listen),
            accounting=list(self._settings.accounting.listen),
            processes=processes,
        )
        try:
            write_running(self._folder, running)
        except OSError as fault:
            # It is for the command line alone: no reason to end what answers NASes.
            self._write_due = time.monotonic() + RUNNING_RETRY_SECONDS
            if not self._write_failed:
                self._log.error("running-not-written", folder=str(self._folder), reason=fault.strerror)
            self._write_failed = True
        else:
            self._written, self._write_failed = processes, False

    def _on_stop(self, _signal: int, _frame: FrameType | None) -> None:
        self._stopping = True

    def _on_reload(self, _signal: int, _frame: FrameType | None) -> None:
        self._reloading = True


def find_silent(posts: Iterable[Post], board: Board, now: float) -> list[str]:
    """Children that run and say nothing, in words: a database that hangs is seen by those that wait for it."""
    silent = []
    for post in posts:
        seconds = now - max(board.slot(post.slot).heartbeat_ns / 1e9, post.started)
        if post.is_up() and seconds > SILENT_SECONDS:
            silent.append(f"{post.name} has said nothing for {int(seconds)} s: does what it waits for still answer?")
    return silent


def _make_posts(settings: Settings) -> list[Post]:
    posts: list[Post] = []
    for module, section in (("access", settings.access), ("accounting", settings.accounting)):
        for number in range(1, section.workers + 1):
            bound = (_bind(listen, module, section.receive_buffer_octets) for listen in section.listen)
            sockets = [passed for passed in bound if passed is not None]
            posts.append(Post(f"{module}-{number}", module, len(posts), needs_database=False, sockets=sockets))
    for name in ("replicator", "settler", "recorder", *rater_names(settings.rating.workers)):
        posts.append(Post(name, name.partition("-")[0], len(posts), needs_database=True))
    posts.append(Post("places", "places", len(posts), needs_database=False))
    return posts


def _bind(listen: str, section: str, receive_buffer_octets: int) -> socket.socket | None:
    """None for an IPv6 wildcard on a machine without IPv6: the defaults name one and must work there too."""
    try:
        return bind(listen, receive_buffer_octets=receive_buffer_octets)
    except OSError as fault:
        if listen.startswith("[::]:") and fault.errno in {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL}:
            return None
        raise StartError(
            f"{section}.listen {listen}: {fault.strerror}", "free the port or set another address"
        ) from fault


def _make_board(folder: Path, slots: int) -> Board:
    board = Board.create(folder / "board", slots=slots, now_ns=time.time_ns())
    if isinstance(board, BoardFault):
        raise StartError(board.detail, "see the folder's rights and the disk's space")
    return board


def _make_lockouts(folder: Path) -> None:
    table = Lockouts.open_or_create(folder, fresh=os.urandom(KEY_OCTETS))
    if isinstance(table, LockoutsFault):
        raise StartError(table.detail, "see the folder's rights and the disk's space")
    table.close()


def _open_live_set(settings: Settings) -> LiveSet:
    node = settings.node
    live = LiveSet.open(Path(node.live_folder), boot_id=boot_id(), octets=node.live_octets)
    if isinstance(live, LiveFault):
        raise StartError(live.detail, "see the folder's rights and the disk's space")
    return live


def _what_needs_a_restart(old: Settings, new: Settings) -> list[str]:
    """Settings that the supervisor itself lives by."""
    pairs = {
        "node": (old.node, new.node),
        "database": (old.database, new.database),
        "metrics": (old.metrics, new.metrics),
        "access.listen": (old.access.listen, new.access.listen),
        "access.workers": (old.access.workers, new.access.workers),
        "accounting.listen": (old.accounting.listen, new.accounting.listen),
        "accounting.workers": (old.accounting.workers, new.accounting.workers),
        "rating.workers": (old.rating.workers, new.rating.workers),
    }
    return [name for name, (before, after) in pairs.items() if before != after]
