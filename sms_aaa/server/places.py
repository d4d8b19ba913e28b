"""The keeper of the live set: rebuilds it after a boot, and brings other nodes' sessions into it.

After a boot the set is empty and limits would hold for nobody. With PostgreSQL it is rebuilt from the open sessions of
all nodes and from what of this node's journal is not settled; without, from the journal alone, where every session
that this node serves has reported within the time after which it would count as silent. Then the set is whole for this
node, and other nodes' sessions are brought in as soon as PostgreSQL is there.

From then on the changes that settling writes (db/places.py) are read twice a second: what began at another node takes
its place here, what ended gives it back. When the changes do not reach back far enough, and twice a day, all open
sessions are looked at. This process starts without PostgreSQL, as the workers do.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from sms_aaa.db import feed as db_feed
from sms_aaa.db import places as db_places
from sms_aaa.db import plans as db_plans
from sms_aaa.db import positions as db_positions
from sms_aaa.db.engine import begin_snapshot
from sms_aaa.db.schema import SchemaState, find_status
from sms_aaa.flows.places import NEIGHBOUR_SECONDS, JournalSessions, list_changes, list_online
from sms_aaa.metrics import Word
from sms_aaa.node.journal import JournalFault, Stream
from sms_aaa.node.journal_reader import list_files, read, readable_end
from sms_aaa.node.live_change import LiveFault
from sms_aaa.node.records import AccountingRecord, unpack_accounting
from sms_aaa.node.replica import Replica, ReplicaFault
from sms_aaa.rules.session import silence_seconds
from sms_aaa.server.database import work_with_database
from sms_aaa.server.worker import Child, run_child, yield_lock

if TYPE_CHECKING:
    from sms_aaa.db.engine import Connection
    from sms_aaa.node.journal_reader import JournalFile

LOOK_SECONDS = 0.5
LOOK_AT_ALL_SECONDS = 12 * 3600
SCHEMA_SECONDS = 1.0
READ_AGAIN_MAX = 10
"""How often the journal's new end is read before the set counts as rebuilt: each time it is shorter."""


class Places:
    """One node's."""

    def __init__(self, child: Child) -> None:
        self._child = child
        self._node = child.settings.node.name
        self._live = child.live_set()
        self._said = False

    def run(self) -> None:
        self._count()
        work_with_database(self._child, self._work, repeatable=False, while_away=self._rebuild_alone)
        self._live.close()

    def _work(self, connection: Connection) -> None:
        if not self._has_schema(connection):
            self._rebuild_alone()
            time.sleep(SCHEMA_SECONDS)
            return
        cursor = self._look_at_all(connection)
        looked_at = time.monotonic()
        while not self._child.stopping:
            self._child.beat()
            time.sleep(LOOK_SECONDS)
            following = self._follow(connection, cursor)
            if following is None or time.monotonic() - looked_at > LOOK_AT_ALL_SECONDS:
                following, looked_at = self._look_at_all(connection), time.monotonic()
            cursor = following

    def _has_schema(self, connection: Connection) -> bool:
        status = find_status(connection)
        connection.commit()
        return status.state is SchemaState.CURRENT

    def _follow(self, connection: Connection, cursor: str) -> str | None:
        """The next cursor; None: changes were lost."""
        begin_snapshot(connection)
        if not db_places.covers(connection, cursor):
            connection.commit()
            self._child.log.warning("neighbours-lost", reason="the changes of sessions do not reach back far enough")
            return None
        began, ended = list_changes(connection, cursor, node=self._node, now=int(time.time()))
        following = db_feed.get_cursor(connection)
        connection.commit()
        self._check(self._live.load(began, pause=self._pause))
        self._check(self._live.release(ended, pause=self._pause))
        self._child.counters[Word.NEIGHBOUR_CHANGES] += len(began) + len(ended)
        return following

    def _look_at_all(self, connection: Connection) -> str:
        """All open sessions; after a boot those of this node, too. The cursor from which changes are to be read."""
        is_rebuilt = self._live.is_rebuilt()
        silence = self._silence(db_plans.get_longest_interim(connection))
        connection.commit()
        now = int(time.time())
        begin_snapshot(connection)
        cursor = db_feed.get_cursor(connection)
        database_id = db_feed.get_database_id(connection)
        positions = db_positions.list_positions(connection, self._node, int(Stream.ACCOUNTING))
        online = list_online(connection, node=self._node, now=now, own_until=None if is_rebuilt else now + silence)
        loaded = self._check(self._live.load(online, pause=self._pause))
        connection.commit()
        if not is_rebuilt:
            offsets = {sequence: None if finished else at for sequence, (at, finished) in positions.items()}
            self._apply_journal(database_id, offsets, silence=silence)
            self._mark_rebuilt(database_sessions=loaded)
        before = now + NEIGHBOUR_SECONDS
        self._check(self._live.forget_neighbours(before=before, pause=self._pause))
        return cursor

    def _rebuild_alone(self) -> None:
        """From the journal, while PostgreSQL is away; nothing happens when that cannot make the set whole."""
        replica = None if self._live.is_rebuilt() else Replica.open(self._child.state_folder)
        if not isinstance(replica, Replica):
            return
        try:
            meta, plans = replica.meta(), replica.plans()
            files = list_files(self._child.journal_folder(Stream.ACCOUNTING))
        finally:
            replica.close()
        if not isinstance(plans, list) or not isinstance(files, list) or isinstance(meta, ReplicaFault):
            return
        silence = self._silence(max((plan.policy.interim_seconds for plan in plans), default=0))
        if silence > self._child.settings.journal.retention_days * 86_400:
            self._say_not_whole("journal.retention_days is shorter than a session may be silent")
            return
        horizon = time.time() - silence
        # A file that was last written before the horizon speaks of nobody who is online now.
        offsets: dict[int, int | None] = {file.sequence: None for file in files if file.written_at < horizon}
        if self._apply_journal(meta.database_id, offsets, silence=silence):
            self._mark_rebuilt(database_sessions=0)
        else:
            self._say_not_whole("a file of the journal cannot be read")

    def _apply_journal(self, database_id: bytes, offsets: dict[int, int | None], *, silence: int) -> bool:
        """Reads from `offsets` (None: nothing of this file), which it moves; False: there was something unreadable.

        What workers write meanwhile they have applied to the set themselves, but perhaps before an older record was
        applied here: so the new end is read again, until there is none.
        """
        is_whole = True
        for _ in range(READ_AGAIN_MAX):
            sessions = JournalSessions()
            records = self._read_journal(sessions, database_id, offsets)
            self._check(self._live.load(sessions.online(silence_seconds=silence), pause=self._pause))
            self._check(self._live.release(sessions.ended(), pause=self._pause, is_settled=False))
            is_whole = is_whole and records is not None
            if not records:
                break
        return is_whole

    def _read_journal(
        self, sessions: JournalSessions, database_id: bytes, offsets: dict[int, int | None]
    ) -> int | None:
        """How many records there were; None when some could not be read."""
        files = list_files(self._child.journal_folder(Stream.ACCOUNTING))
        if isinstance(files, JournalFault):
            return None
        read_so_far: int | None = 0
        for file in files:
            records = self._read_file(sessions, database_id, file, offsets)
            read_so_far = None if records is None or read_so_far is None else read_so_far + records
        return read_so_far

    def _read_file(
        self, sessions: JournalSessions, database_id: bytes, file: JournalFile, offsets: dict[int, int | None]
    ) -> int | None:
        offset = offsets.get(file.sequence, 0)
        end = readable_end(file, stream=Stream.ACCOUNTING, board=self._child.board)
        if offset is None:
            return 0
        count = 0
        while isinstance(end, int) and offset < end:
            batch = read(file, stream=Stream.ACCOUNTING, database_id=database_id, offset=offset, end=end)
            if isinstance(batch, JournalFault):
                end = batch
                break
            for record in batch.records:
                unpacked = unpack_accounting(record.payload)
                if isinstance(unpacked, AccountingRecord):
                    sessions.note(unpacked)
            count += len(batch.records)
            offset = offsets[file.sequence] = batch.next_offset
            self._child.beat()
        if isinstance(end, JournalFault):
            self._child.log.error("journal-file", fault=end.kind.value, detail=end.detail)
            offsets[file.sequence] = None
            return None
        return count

    def _mark_rebuilt(self, *, database_sessions: int) -> None:
        self._check(self._live.mark_rebuilt())
        self._count()
        counts = self._live.counts(int(time.time()))
        online = counts.online if not isinstance(counts, LiveFault) else 0
        self._child.log.info("live-set-rebuilt", online=online, from_database=database_sessions)

    def _say_not_whole(self, reason: str) -> None:
        if not self._said:
            self._child.log.warning("live-set-not-rebuilt", reason=f"PostgreSQL is away, and {reason}")
        self._said = True

    def _silence(self, interim_seconds: int) -> int:
        return silence_seconds(interim_seconds, self._child.settings.session.stale_multiple)

    def _count(self) -> None:
        self._child.counters[Word.LIVE_REBUILT] = int(self._live.is_rebuilt())

    def _pause(self) -> None:
        self._child.beat()
        yield_lock()

    def _check(self, told: int | LiveFault | None) -> int:
        if isinstance(told, LiveFault):
            self._child.counters[Word.LIVE_FAULTS] += 1
            self._child.fail("live-set", told.detail)
        return told or 0


def main(child: Child) -> None:
    Places(child).run()


if __name__ == "__main__":
    run_child(main)
