"""PostgreSQL -> the node's replica: the whole once, then what the change feed says.

A copy is read in one REPEATABLE READ transaction, whose snapshot becomes the cursor: what commits later is not visible
in it and comes with the feed. Reading something twice does no harm; nothing is missed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sms_aaa.db import feed as db_feed
from sms_aaa.db import nas as db_nas
from sms_aaa.db import plans as db_plans
from sms_aaa.db import realms as db_realms
from sms_aaa.db import subscribers as db_subscribers
from sms_aaa.node.replica import ReplicaFault
from sms_aaa.node.replica_writer import CHANGES_MAX, EntitlementChange, ReplicaChanges, ReplicaWriter
from sms_aaa.rules.entitlement import NodePlan
from sms_aaa.rules.plan import plan_from_document

if TYPE_CHECKING:
    from collections.abc import Callable

    from sms_aaa.db.engine import Connection

PAGE_SERVICES = 5_000
assert PAGE_SERVICES <= CHANGES_MAX


def fill(
    connection: Connection, writer: ReplicaWriter, *, now_ns: int, progress: Callable[[int, int], None]
) -> ReplicaFault | int:
    """Copies everything into an empty generation; how many services it was. `progress(done, of)` after each page."""
    cursor = db_feed.get_cursor(connection)
    of = db_subscribers.count_services(connection)
    plans = _node_plans(connection, None)
    nases = db_nas.list_node_nas(connection, None)
    realms = db_realms.list_node_realms(connection, None)
    changes = ReplicaChanges(cursor=cursor, refreshed_ns=now_ns, plans=plans, nases=nases, realms=realms)
    applied = writer.apply(changes)
    done = last = 0
    while not isinstance(applied, ReplicaFault):
        page = db_subscribers.list_entitlements_after(connection, last, limit=PAGE_SERVICES)
        if not page:
            return done
        applied = writer.apply(
            ReplicaChanges(
                cursor=cursor, refreshed_ns=now_ns, entitlements=[EntitlementChange(*entry) for entry in page]
            )
        )
        done += len(page)
        last = page[-1][2].service_id
        progress(done, of)
    return applied


def follow(connection: Connection, writer: ReplicaWriter, cursor: str, *, now_ns: int) -> ReplicaFault | int:
    """Brings the replica from `cursor` to now; how many objects changed."""
    changes = db_feed.list_changes(connection, cursor)
    nases = db_nas.list_node_nas(connection, changes.nas) if changes.nas else []
    gone = set(changes.nas) - {nas.nas_id for nas in nases}
    plans = _node_plans(connection, changes.plans) if changes.plans else []
    realms = db_realms.list_node_realms(connection, changes.realms) if changes.realms else []
    gone_realms = set(changes.realms) - {realm.realm_id for realm in realms}
    # The cursor moves with the last page only: after a crash in between all of it is read again.
    pages = [changes.services[at : at + PAGE_SERVICES] for at in range(0, len(changes.services), PAGE_SERVICES)] or [[]]
    for index, page in enumerate(pages):
        entitlements = db_subscribers.list_entitlements(connection, page) if page else []
        ended = set(page) - {entitlement.service_id for _, _, entitlement in entitlements}
        first, last = index == 0, index == len(pages) - 1
        applied = writer.apply(
            ReplicaChanges(
                cursor=changes.cursor if last else cursor,
                refreshed_ns=now_ns,
                entitlements=[EntitlementChange(*entry) for entry in entitlements],
                removed_services=sorted(ended),
                plans=plans if first else (),
                nases=nases if first else (),
                removed_nases=sorted(gone) if first else (),
                realms=realms if first else (),
                removed_realms=sorted(gone_realms) if first else (),
            )
        )
        if isinstance(applied, ReplicaFault):
            return applied
    return len(changes.services) + len(changes.nas) + len(changes.plans) + len(changes.realms)


def _node_plans(connection: Connection, ids: list[int] | None) -> list[NodePlan]:
    return [
        NodePlan(row.id, row.name, row.version, plan_from_document(row.document).policy)
        for row in db_plans.list_versions(connection, ids)
    ]
