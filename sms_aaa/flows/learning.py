"""A service that is to be bound to the device of its first login learns it here: from decisions, when they are settled.

The worker cannot write PostgreSQL, and must not wait for it. So a second device that logs in within the seconds before
the binding is in the replica is let in too; its next login is not. Only logins after the order to learn count: a
decision that is settled late does not bring back a device that was unbound meanwhile.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from sms_aaa.db import audit as db_audit
from sms_aaa.db import terms as db_terms
from sms_aaa.rules.actor import Actor, Door
from sms_aaa.rules.entitlement import BindingKind
from sms_aaa.rules.identity import canonical_mac

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sms_aaa.db.engine import Connection
    from sms_aaa.node.records import DecisionBatch

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ACTOR = Actor("first-login", Door.SERVER)


def learn_devices(connection: Connection, batches: Iterable[DecisionBatch]) -> int:
    """Binds the services that learn to the device of their first accepted login; how many. In the order of the log."""
    if not db_terms.has_learning(connection):
        return 0
    logins = [
        (batch.at_ns, decision.service_id, mac)
        for batch in batches
        for decision in batch.decisions
        if decision.token and (mac := canonical_mac(decision.calling_station_id)) is not None
    ]
    learning = db_terms.list_learning(connection, sorted({service_id for _, service_id, _ in logins}))
    learned = 0
    for at_ns, service_id, mac in logins:
        since = learning.get(service_id)
        if since is None or _EPOCH + timedelta(microseconds=at_ns // 1000) < since:
            continue
        del learning[service_id]
        db_terms.insert_binding(connection, service_id, BindingKind.MAC, mac.decode())
        after = {"mac": mac.decode()}
        db_audit.insert_change(
            connection, _ACTOR, action="bound", object_kind="service", object_id=service_id, before=None, after=after
        )
        learned += 1
    return learned
