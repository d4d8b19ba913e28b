"""The replicator: keeps the node's replica equal to PostgreSQL, within two seconds of each change.

It waits for a notification, or a second, and reads the feed from the replica's own cursor. When there is no replica, or
it is damaged, of another database, or older than the feed reaches back, a new generation is filled and switched to;
workers serve from the old one meanwhile, if there is one.
"""

from __future__ import annotations

import time

from sms_aaa.db import feed as db_feed
from sms_aaa.db.engine import Connection, begin_snapshot, connect, listen, wait_for_notification
from sms_aaa.db.schema import KNOWN_REVISIONS, SchemaState, find_status
from sms_aaa.flows.replicating import fill, follow
from sms_aaa.metrics import Word
from sms_aaa.node.replica import ReplicaFault
from sms_aaa.node.replica_writer import ReplicaWriter
from sms_aaa.server.database import work_with_database
from sms_aaa.server.worker import Child, run_child

WAIT_SECONDS = 1.0
HEARTBEAT_SECONDS = 5.0
"""How often the replica's date is written when nothing changed: each write is a sync."""


class Replicator:
    def __init__(self, child: Child) -> None:
        self._child = child
        self._dsn = child.order.dsn.reveal().decode()
        self._written = 0.0

    def run(self) -> None:
        work_with_database(self._child, self._work, repeatable=False)

    def _work(self, connection: Connection) -> None:
        with connect(self._dsn, name=self._child.order.name) as ears:
            if self._wait_for_schema(connection):
                listen(ears, db_feed.CHANNEL)
                self._follow_on(connection, ears)

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

    def _follow_on(self, connection: Connection, ears: Connection) -> None:
        writer = self._open(connection)
        while not self._child.stopping:
            self._child.beat()
            if not self._follow(connection, writer):
                writer.close()
                writer = self._rebuild(connection)
            wait_for_notification(ears, WAIT_SECONDS)
        writer.close()

    def _open(self, connection: Connection) -> ReplicaWriter:
        database_id = db_feed.get_database_id(connection)
        connection.commit()
        writer = ReplicaWriter.open(self._child.state_folder, database_id=database_id)
        if isinstance(writer, ReplicaFault):
            self._child.log.warning("replica-unusable", reason=writer.detail)
            return self._rebuild(connection)
        return writer

    def _follow(self, connection: Connection, writer: ReplicaWriter) -> bool:
        """False: the replica is to be built anew."""
        meta = writer.meta()
        if isinstance(meta, ReplicaFault):
            self._child.log.error("replica-unusable", reason=meta.detail)
            return False
        now_ns = time.time_ns()
        begin_snapshot(connection)
        if not db_feed.covers(connection, meta.cursor):
            connection.commit()
            self._child.log.warning("replica-too-old", reason="the change feed does not reach back to it")
            return False
        changed: int | ReplicaFault = 0
        if db_feed.has_changes(connection, meta.cursor) or time.monotonic() - self._written > HEARTBEAT_SECONDS:
            changed = follow(connection, writer, meta.cursor, now_ns=now_ns)
            self._written = time.monotonic()
        connection.commit()
        if isinstance(changed, ReplicaFault):
            self._child.log.error("replica-unusable", reason=changed.detail)
            return False
        self._child.counters[Word.REPLICA_REFRESHED_NS] = now_ns
        if changed:
            self._child.log.info("replicated", changes=changed)
        return True

    def _rebuild(self, connection: Connection) -> ReplicaWriter:
        database_id = db_feed.get_database_id(connection)
        connection.commit()
        writer = ReplicaWriter.new_generation(
            self._child.state_folder, database_id=database_id, schema_version=int(KNOWN_REVISIONS[-1])
        )
        if isinstance(writer, ReplicaFault):
            self._child.fail("replica", writer.detail)
        began, now_ns = time.monotonic(), time.time_ns()
        begin_snapshot(connection)
        filled = fill(connection, writer, now_ns=now_ns, progress=self._say)
        connection.commit()
        fault = filled if isinstance(filled, ReplicaFault) else writer.make_current()
        if fault is not None:
            self._child.fail("replica", fault.detail)
        self._child.counters[Word.REPLICA_REBUILDS] += 1
        self._child.log.info("replica-built", services=filled, seconds=round(time.monotonic() - began, 1))
        return writer

    def _say(self, done: int, of: int) -> None:
        self._child.beat()
        if done % 100_000 == 0:
            self._child.log.info("replica-filling", services=done, of=of)


def main(child: Child) -> None:
    Replicator(child).run()


if __name__ == "__main__":
    run_child(main)
