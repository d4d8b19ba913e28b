"""The replicator: keeps the node's replica equal to PostgreSQL, within two seconds of each change.

It waits for a notification, or a second, and reads the feed from the replica's own cursor; what begins or ends by its
date alone is looked for at the same time. When there is no replica, or it is damaged, of another database, older than
the feed reaches back, or the NOC asks for it, a new generation is filled in a thread and switched to; workers serve
from the old one meanwhile, and it is followed on, if there is one that can be.

It also goes through what it wrote, again and again, a slice every other second, and compares it with its digests.
While PostgreSQL is away nothing can be built anew, so nothing is looked for either: what reads well is served, and a
login that meets a damaged record is met with silence.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sms_aaa.db import feed as db_feed
from sms_aaa.db.engine import Connection, begin_snapshot, connect, listen, wait_for_notification
from sms_aaa.db.schema import SchemaState, find_status
from sms_aaa.flows.replicating import Follower, Step
from sms_aaa.metrics import Word
from sms_aaa.node.environment import StoreFaultKind
from sms_aaa.node.replica import ReplicaFault
from sms_aaa.node.replica_notes import take_request
from sms_aaa.node.replica_scrub import Scrubber
from sms_aaa.node.replica_writer import ReplicaWriter
from sms_aaa.server.database import work_with_database
from sms_aaa.server.rebuild import Rebuild
from sms_aaa.server.worker import Child, run_child

if TYPE_CHECKING:
    from collections.abc import Iterator

WAIT_SECONDS = 1.0
REBUILD_LOOK_SECONDS = 0.05
REBUILD_RETRY_SECONDS = 5.0
MEND_PAUSE_SECONDS = 60.0
"""From one rebuild because of damage to the next: what does not heal by it would keep the machine busy for nothing."""

SCRUB_SECONDS = 2.0
SCRUB_BUCKETS = 16
"""16,384 services every other second: 3 % of a core, and a million in two minutes."""

SAY_SERVICES = 100_000


class Replicator:
    """`_follower` is the generation that serves; `_rebuild` one that is to take its place."""

    def __init__(self, child: Child) -> None:
        self._child = child
        self._counters = child.counters
        self._dsn = child.order.dsn.reveal().decode()
        self._follower: Follower | None = None
        self._scrubber: Scrubber | None = None
        self._scrub_due = 0.0
        self._rebuild: Rebuild | None = None
        self._is_rebuild_wanted = False
        self._rebuild_due = 0.0
        self._is_mending = False
        self._mended_at = float("-inf")
        self._read_faults = 0
        self._changed = 0

    def run(self) -> None:
        work_with_database(self._child, self._work, repeatable=False)

    def _work(self, connection: Connection) -> None:
        with connect(self._dsn, name=self._child.order.name) as ears:
            if self._wait_for_schema(connection):
                listen(ears, db_feed.CHANNEL)
                self._keep(connection, ears)

    def _wait_for_schema(self, connection: Connection) -> bool:
        """False: asked to end before there was one."""
        said = False
        while not self._child.stopping:
            status = find_status(connection)
            connection.commit()
            if status.state is SchemaState.CURRENT:
                return True
            if not said:
                self._child.log.warning("waiting-for-schema", state=status.state.value, needed=status.needed)
                said = True
            time.sleep(0.2)
        return False

    def _keep(self, connection: Connection, ears: Connection) -> None:
        self._begin(connection)
        while not self._child.stopping:
            self._child.beat()
            is_busy = self._follow(connection)
            self._look_for_damage()
            self._take_request()
            self._tend_rebuild(connection)
            if not is_busy:
                wait_for_notification(ears, REBUILD_LOOK_SECONDS if self._rebuild is not None else WAIT_SECONDS)
        self._end()

    def _begin(self, connection: Connection) -> None:
        """With a new connection: what an earlier one had read is read again, if it still is the same database."""
        database_id = db_feed.get_database_id(connection)
        connection.commit()
        followed, self._follower = self._follower, None
        if followed is not None and followed.writer.database_id == database_id:
            self._adopt(followed.writer)
            return
        if followed is not None:
            followed.writer.close()
        if self._counters[Word.REPLICA_TOUCHED]:
            self._found_damaged("the replicator died while it was inside the replica")
            return
        writer = ReplicaWriter.open(self._child.state_folder, database_id=database_id)
        if isinstance(writer, ReplicaFault):
            self._want_rebuild("replica-unusable", writer.detail)
        else:
            self._adopt(writer)

    def _adopt(self, writer: ReplicaWriter) -> None:
        """From now on this is the generation to follow."""
        meta = writer.meta()
        if isinstance(meta, ReplicaFault):
            writer.close()
            self._want_rebuild("replica-unusable", meta.detail)
            return
        self._follower, self._scrubber = Follower(writer, meta), Scrubber(writer.databases)
        self._read_faults = self._count_read_faults()

    def _follow(self, connection: Connection) -> bool:
        """True: there is more to do at once."""
        if self._follower is None:
            return False
        step = self._step(connection, self._follower)
        if isinstance(step, ReplicaFault):
            self._follower.writer.close()
            self._follower = self._scrubber = None
            if step.kind is StoreFaultKind.DAMAGED:
                self._found_damaged(step.detail)
            else:
                self._want_rebuild("replica-unusable", step.detail)
            return False
        self._counters[Word.REPLICA_REFRESHED_NS] = step.refreshed_ns
        self._counters[Word.REPLICA_PENDING] = step.pending
        self._say_replicated(step)
        if self._follower.is_swamped and self._rebuild is None and not self._is_rebuild_wanted:
            self._want_rebuild("bulk-change", "so much changed at once that a new generation is there sooner")
        return step.pending > 0

    def _step(self, connection: Connection, follower: Follower) -> Step | ReplicaFault:
        cut = follower.writer.find_cut()
        if cut is not None:
            return cut
        begin_snapshot(connection)
        if not db_feed.covers(connection, follower.cursor):
            connection.commit()
            return ReplicaFault(StoreFaultKind.FORMAT, "the change feed does not reach back to the replica")
        now_ns = time.time_ns()
        changes = follower.read(connection, now_ns=now_ns)
        connection.commit()
        with self._touching():
            return follower.apply(changes, now_ns=now_ns)

    @contextmanager
    def _touching(self) -> Iterator[None]:
        """A damaged page can kill who reads it: the mark outlives this process, and its successor builds anew."""
        self._counters[Word.REPLICA_TOUCHED] = 1
        yield
        self._counters[Word.REPLICA_TOUCHED] = 0

    def _look_for_damage(self) -> None:
        now = time.monotonic()
        if self._scrubber is None or now < self._scrub_due:
            return
        self._scrub_due = now + SCRUB_SECONDS
        with self._touching():
            looked = self._scrubber.look(SCRUB_BUCKETS)
        if isinstance(looked, ReplicaFault):
            self._found_damaged(looked.detail)
        elif self._count_read_faults() > self._read_faults:
            self._found_damaged("a login met a damaged record")
        elif looked.ends_pass:
            self._counters[Word.REPLICA_SCRUBBED_NS] = time.time_ns()

    def _count_read_faults(self) -> int:
        board = self._child.board
        return sum(board.slot(slot).counters[Word.REPLICA_READ_FAULTS] for slot in range(board.slot_count))

    def _found_damaged(self, reason: str) -> None:
        """What still reads well is followed and serves until the new generation is there."""
        self._scrubber = None
        self._counters[Word.REPLICA_DAMAGES] += 1
        self._rebuild_due = self._mended_at + MEND_PAUSE_SECONDS
        self._is_mending = True
        self._want_rebuild("replica-damaged", reason)

    def _take_request(self) -> None:
        if self._rebuild is None and (request := take_request(self._child.state_folder)) is not None:
            self._rebuild_due = 0.0
            self._want_rebuild("rebuild-requested", f"by {request.by}, ticket {request.ticket or 'none'}")

    def _want_rebuild(self, event: str, reason: str) -> None:
        self._child.log.warning(event, reason=reason)
        self._is_rebuild_wanted = True

    def _tend_rebuild(self, connection: Connection) -> None:
        rebuild = self._rebuild
        if rebuild is None:
            if self._is_rebuild_wanted and time.monotonic() >= self._rebuild_due:
                self._is_rebuild_wanted = False
                self._rebuild = Rebuild(self._child.state_folder, self._dsn, name=self._child.order.name)
        elif not rebuild.is_over():
            self._say_filling(rebuild)
        elif rebuild.writer is None:
            self._rebuild, self._is_rebuild_wanted = None, True
            self._rebuild_due = time.monotonic() + REBUILD_RETRY_SECONDS
            self._child.log.error("rebuild-failed", reason=rebuild.problem, again_in_seconds=REBUILD_RETRY_SECONDS)
        else:
            self._switch_to(rebuild, rebuild.writer, connection)

    def _switch_to(self, rebuild: Rebuild, writer: ReplicaWriter, connection: Connection) -> None:
        """It is brought up to now first: nobody's rights may go back to what they were when its filling began."""
        self._say_filling(rebuild)
        fault = self._catch_up(writer, connection) or writer.make_current()
        self._rebuild, self._is_rebuild_wanted = None, False
        self._counters[Word.REPLICA_FILL_DONE] = self._counters[Word.REPLICA_FILL_OF] = 0
        if fault is not None:
            writer.close()
            self._rebuild_due = time.monotonic() + REBUILD_RETRY_SECONDS
            self._want_rebuild("rebuild-failed", fault.detail)
            return
        if self._follower is not None:
            self._follower.writer.close()
        self._adopt(writer)
        self._counters[Word.REPLICA_TOUCHED] = 0
        self._counters[Word.REPLICA_REBUILDS] += 1
        if self._is_mending:
            self._is_mending, self._mended_at = False, time.monotonic()
        seconds = round(time.monotonic() - rebuild.began, 1)
        self._child.log.info("replica-built", generation=writer.generation, services=rebuild.done, seconds=seconds)

    def _catch_up(self, writer: ReplicaWriter, connection: Connection) -> ReplicaFault | None:
        meta = writer.meta()
        if isinstance(meta, ReplicaFault):
            return meta
        if meta.database_id != db_feed.get_database_id(connection):
            return ReplicaFault(StoreFaultKind.FOREIGN_DATABASE, "it was filled from another database")
        connection.commit()
        follower = Follower(writer, meta)
        while not self._child.stopping:
            self._child.beat()
            step = self._step(connection, follower)
            if isinstance(step, ReplicaFault):
                return step
            if not step.pending:
                return None
            self._follow(connection)
        return ReplicaFault(StoreFaultKind.MISSING, "asked to end before it was there")

    def _end(self) -> None:
        if self._rebuild is not None:
            self._rebuild.abandon()
        if self._follower is not None:
            self._follower.writer.close()

    def _say_replicated(self, step: Step) -> None:
        """Once for all steps of a bulk change."""
        self._changed += step.changed
        if step.refused:
            self._child.log.error("identity-refused", services=list(step.refused), reason="no login can bring it")
        if self._changed and not step.pending:
            self._child.log.info("replicated", changes=self._changed)
            self._changed = 0

    def _say_filling(self, rebuild: Rebuild) -> None:
        before = self._counters[Word.REPLICA_FILL_DONE]
        self._counters[Word.REPLICA_FILL_DONE], self._counters[Word.REPLICA_FILL_OF] = rebuild.done, rebuild.of
        if rebuild.done // SAY_SERVICES > before // SAY_SERVICES:
            self._child.log.info("replica-filling", services=rebuild.done, of=rebuild.of)


def main(child: Child) -> None:
    Replicator(child).run()


if __name__ == "__main__":
    run_child(main)
