"""PostgreSQL -> the node's replica: the whole once, then what the change feed says and what begins or ends by its date.

A copy is read in one REPEATABLE READ transaction, whose snapshot becomes the cursor: what commits later is not visible
in it and comes with the feed. Reading something twice does no harm; nothing is missed.

A step of the Follower reads the feed anew and applies one page, so a change need not wait for a bulk change before it:
NASes, plans and realms go at once, and of the services half a page is what changed last and half what waited longest.
The cursor on disk moves when nothing is pending; after a crash what was pending is read again.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from sms_aaa.db import feed as db_feed
from sms_aaa.db import nas as db_nas
from sms_aaa.db import plans as db_plans
from sms_aaa.db import realms as db_realms
from sms_aaa.db import replica as db_replica
from sms_aaa.db import subscribers as db_subscribers
from sms_aaa.node.replica import ReplicaFault
from sms_aaa.node.replica_writer import CHANGES_MAX, EntitlementChange, ReplicaChanges
from sms_aaa.rules.entitlement import NodePlan
from sms_aaa.rules.plan import plan_from_document

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sms_aaa.db.engine import Connection
    from sms_aaa.db.plans import PlanVersionRow
    from sms_aaa.node.replica import ReplicaMeta
    from sms_aaa.node.replica_filler import ReplicaFiller
    from sms_aaa.node.replica_writer import ReplicaWriter

FILL_PAGE_SERVICES = 5_000
PAGE_SERVICES = 1_000
assert PAGE_SERVICES < CHANGES_MAX

SERVICES_MAX = 100_000
"""Of one look at the feed. Following is slower than filling, service by service, and remembers what is pending."""

HEARTBEAT_NS = 5_000_000_000
"""How often the replica's date is written when nothing changed: each write is a sync."""


def fill(
    connection: Connection, filler: ReplicaFiller, *, now_ns: int, progress: Callable[[int, int], None]
) -> ReplicaWriter | ReplicaFault:
    """Copies everything into an empty generation. `progress(services done, of how many)` with each page."""
    cursor = db_feed.get_cursor(connection)
    db_replica.prepare_to_read_all(connection)
    dated_us = db_replica.get_instant(connection)
    of, done = db_subscribers.count_services(connection), 0
    progress(done, of)
    fault = filler.put_tables(
        node_plans(db_plans.list_versions(connection, None)),
        db_nas.list_node_nas(connection, None),
        db_realms.list_node_realms(connection, None),
    )
    for page in db_subscribers.stream_entitlements(connection, page=FILL_PAGE_SERVICES):
        fault = fault or filler.put_records([EntitlementChange(*entry) for entry in page])
        if fault is not None:
            return fault
        done += len(page)
        progress(done, of)
    for keys in db_subscribers.stream_identities(connection, page=FILL_PAGE_SERVICES):
        fault = fault or filler.put_keys(keys)
        if fault is not None:
            return fault
        progress(done, of)
    return fault or filler.finish(cursor=cursor, refreshed_ns=now_ns, dated_us=dated_us)


class Step(Struct, frozen=True):
    """What a step did. `pending`: services that changed and are not in the replica yet.

    `refused`: services that nobody can log in to. `refreshed_ns`: the replica is what PostgreSQL was then.
    """

    changed: int
    pending: int
    refused: tuple[int, ...]
    refreshed_ns: int


class Follower:
    """Keeps one generation equal to PostgreSQL, step by step. `meta`: what the generation says of itself.

    A step is `read` and then `apply`, and another one as long as something is pending. Once `read` raised (the
    database went away in it), the next one is a new Follower's.
    """

    def __init__(self, writer: ReplicaWriter, meta: ReplicaMeta) -> None:
        self.writer = writer
        self.cursor = meta.cursor
        """Up to here the feed was read; what was read up to `_whole.cursor` is all on disk."""

        self.is_swamped = False
        """More changed at once than was read: this generation is not whole any more, and another is to be filled."""

        self._dated_us = meta.dated_us
        self._whole = meta
        self._written_ns = 0
        self._pending: dict[int, int] = {}  # service id -> when it was read from the feed, the oldest first

    def read(self, connection: Connection, *, now_ns: int) -> ReplicaChanges:
        """What to apply next. To be called first in a REPEATABLE READ transaction of its own."""
        news = db_feed.list_changes(connection, self.cursor, services_max=SERVICES_MAX)
        self.is_swamped = self.is_swamped or len(news.services) == SERVICES_MAX
        instant_us = db_replica.get_instant(connection)
        due = db_replica.list_due(connection, self._dated_us)
        self.cursor, self._dated_us = news.cursor, instant_us
        for service_id in (*due, *news.services):
            self._pending.pop(service_id, None)
            self._pending[service_id] = now_ns
        page = self._next_page()
        nases = db_nas.list_node_nas(connection, news.nas) if news.nas else []
        realms = db_realms.list_node_realms(connection, news.realms) if news.realms else []
        entitlements = db_subscribers.list_entitlements(connection, page) if page else []
        ended = set(page) - {entitlement.service_id for _, _, entitlement in entitlements}
        whole = self._agreed(now_ns)
        return ReplicaChanges(
            cursor=whole.cursor,
            dated_us=whole.dated_us,
            refreshed_ns=whole.refreshed_ns,
            entitlements=[EntitlementChange(*entry) for entry in entitlements],
            removed_services=sorted(ended),
            plans=node_plans(db_plans.list_versions(connection, news.plans)) if news.plans else (),
            nases=nases,
            removed_nases=sorted(set(news.nas) - {nas.nas_id for nas in nases}),
            realms=realms,
            removed_realms=sorted(set(news.realms) - {realm.realm_id for realm in realms}),
        )

    def apply(self, changes: ReplicaChanges, *, now_ns: int) -> Step | ReplicaFault:
        """Writes what `read` brought, if there is anything, and the replica's date from time to time."""
        refused: tuple[int, ...] = ()
        if changes.count() or not 0 <= now_ns - self._written_ns < HEARTBEAT_NS:
            applied = self.writer.apply(changes)
            if isinstance(applied, ReplicaFault):
                return applied
            refused = applied.refused_services
            self._written_ns = now_ns
        return Step(changes.count(), len(self._pending), refused, changes.refreshed_ns)

    def _next_page(self) -> list[int]:
        newest = list(islice(reversed(self._pending), PAGE_SERVICES // 2))
        for service_id in newest:
            del self._pending[service_id]
        oldest = list(islice(self._pending, PAGE_SERVICES - len(newest)))
        for service_id in oldest:
            del self._pending[service_id]
        return newest + oldest

    def _agreed(self, now_ns: int) -> ReplicaMeta:
        """What the replica is a whole copy of once the page is in it: of now, or of before what is pending yet."""
        if self.is_swamped:
            return self._whole
        if not self._pending:
            self._whole = replace(self._whole, cursor=self.cursor, dated_us=self._dated_us, refreshed_ns=now_ns)
            return self._whole
        oldest_ns = next(iter(self._pending.values()))
        return replace(self._whole, refreshed_ns=max(self._whole.refreshed_ns, oldest_ns - 1))


def node_plans(rows: Iterable[PlanVersionRow]) -> list[NodePlan]:
    """The versions as the node needs them."""
    return [NodePlan(row.id, row.name, row.version, plan_from_document(row.document).policy) for row in rows]
