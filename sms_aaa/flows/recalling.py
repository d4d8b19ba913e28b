"""What was decided about somebody: PostgreSQL's decisions, and those that stand in this node's journal alone.

A decision is in the node's decision stream at once and in PostgreSQL when the recorder brought it there, after which
its file goes. So both are asked: how far the stream is settled, then the stream from there, then PostgreSQL. In this
order a decision that is settled meanwhile is met twice, which its key (node, sequence, offset, item) undoes, and never
not at all. While PostgreSQL is away the stream and the names in the node's replica answer alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sms_aaa.db import decisions as db_decisions
from sms_aaa.db import nas as db_nas
from sms_aaa.db import plans as db_plans
from sms_aaa.db import realms as db_realms
from sms_aaa.db import session_lists as db_session_lists
from sms_aaa.db import subscribers as db_subscribers
from sms_aaa.db import terms as db_terms
from sms_aaa.flows.decision_stream import NodeTrace, Wanted, device_in, search_stream
from sms_aaa.node.replica import Replica
from sms_aaa.radius.credentials import Method
from sms_aaa.rules.access import Check, check_of, checks_of
from sms_aaa.rules.entitlement import Entitlement, IdentityKind
from sms_aaa.rules.identity import mac_notations
from sms_aaa.rules.realms import Realms, split_realm
from sms_aaa.rules.reasons import Reason

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from sms_aaa.db.decisions import DecisionRow
    from sms_aaa.db.engine import Connection
    from sms_aaa.db.session_lists import LastHeard
    from sms_aaa.db.subscribers import FormerSubscriber, SubscriberRow

_STATES = (Reason.SUSPENDED, Reason.BLOCKED)


@dataclass(frozen=True, slots=True)
class Recalled:
    """A decision with the ordered checks behind it. `is_settled`: PostgreSQL has it."""

    decision: DecisionRow
    reason: Reason
    method: Method
    nas: str
    checks: tuple[Check, ...]
    is_settled: bool


@dataclass(frozen=True, slots=True)
class Recollection:
    """The newest first. `subscribers`: whom they are about; `is_cut`: the stream is longer than was searched.

    `faults` say what of the stream could not be read, with its place. Where there is no subscriber, `former` is who had
    the name before; where there is no decision, `heard` is the last accounting under it.
    """

    decisions: tuple[Recalled, ...]
    subscribers: tuple[SubscriberRow, ...]
    faults: tuple[str, ...]
    is_cut: bool
    former: FormerSubscriber | None
    heard: LastHeard | None


@dataclass(frozen=True, slots=True)
class _Names:
    nas: dict[int, str]
    plans: dict[int, str]


def recall(
    connection: Connection | None, trace: NodeTrace, name: str, *, last: int, device_since: datetime
) -> Recollection:
    """The last decisions about a user name, a device or a subscriber's services.

    `connection` None: PostgreSQL is away. `device_since` bounds the search for a device under other user names.
    """
    if connection is None:
        return _recall_alone(trace, name, last)
    realms = Realms(db_realms.list_node_realms(connection, None))
    identities = _identities(name, realms)
    subscribers = db_subscribers.find_by_name(connection, name) or db_subscribers.find_by_identity(
        connection, sorted(identities)
    )
    services = frozenset(row.service_id for row in subscribers if row.service_id is not None)
    known = {name} | {row.identity for row in subscribers if row.identity is not None}
    spelled = {text.decode() for identity in known for text in realms.spellings(identity.encode())}
    wanted = _wanted(known | spelled, services)
    stream = search_stream(connection, None, trace, wanted)
    settled = _from_database(connection, wanted, last, device_since)
    found = {_key(decision): decision for decision in [*stream.decisions, *settled]}
    newest = _newest(list(found.values()), last)
    if not subscribers:
        # A device under the user name of somebody: whose name that is.
        subscribers = db_subscribers.find_by_identity(connection, [decision.username for decision in newest])
    names, states = _names(connection, newest), _state_reasons(connection, newest)
    keys = {_key(decision) for decision in settled}
    return Recollection(
        tuple(_recalled(d, names, states.get(_key(d), ""), is_settled=_key(d) in keys) for d in newest),
        tuple(subscribers),
        tuple(stream.faults),
        stream.is_cut,
        None if subscribers else db_subscribers.find_former(connection, sorted(identities)),
        None if newest else db_session_lists.find_last_heard(connection, sorted(wanted.usernames)),
    )


def _recall_alone(trace: NodeTrace, name: str, last: int) -> Recollection:
    """By this node's own stream, with what its replica knows of names."""
    opened = Replica.open(trace.state_folder)
    replica = opened if isinstance(opened, Replica) else None
    try:
        stream = search_stream(None, replica, trace, _wanted({name}, _services_alone(replica, name)))
        names = _names_alone(replica)
    finally:
        if replica is not None:
            replica.close()
    newest = _newest(stream.decisions, last)
    recalled = tuple(_recalled(decision, names, "", is_settled=False) for decision in newest)
    return Recollection(recalled, (), tuple(stream.faults), stream.is_cut, None, None)


def _services_alone(replica: Replica | None, name: str) -> frozenset[int]:
    """The services of this user name or device, by the replica."""
    if replica is None:
        return frozenset()
    realms = replica.realms()
    identities = _identities(name, Realms(realms if isinstance(realms, list) else ()))
    with replica.read() as view:
        found = [view.entitlement(int(kind), text.encode()) for kind in IdentityKind for text in identities]
    return frozenset(one.service_id for one in found if isinstance(one, Entitlement))


def _identities(name: str, realms: Realms) -> set[str]:
    """Under which a service may be known that is asked for by this name."""
    device = device_in(name)
    found = {identity.decode() for identity in realms.identities(name.encode())}
    return found | {device} if device is not None else found


def _wanted(identities: set[str], services: frozenset[int]) -> Wanted:
    devices = {device for identity in identities if (device := device_in(identity)) is not None}
    notations = {notation for device in devices for notation in mac_notations(device)}
    return Wanted(frozenset(identities | notations), frozenset(devices), services)


def _from_database(connection: Connection, wanted: Wanted, last: int, device_since: datetime) -> list[DecisionRow]:
    found = [
        decision
        for username in sorted(wanted.usernames)
        for decision in db_decisions.list_decisions(connection, username, limit=last)
    ]
    for service_id in sorted(wanted.services):
        found += db_decisions.list_spelled_decisions(connection, service_id, limit=last)
    if wanted.devices:
        stations = [notation for device in sorted(wanted.devices) for notation in mac_notations(device)]
        found += db_decisions.list_device_decisions(connection, stations, since=device_since, limit=last)
    return found


def _newest(decisions: list[DecisionRow], last: int) -> list[DecisionRow]:
    return sorted(decisions, key=lambda decision: (decision.at, decision.item), reverse=True)[:last]


def _names(connection: Connection, decisions: list[DecisionRow]) -> _Names:
    """Of NASes and plans by id."""
    ids = sorted({d.plan_version_id for d in decisions if d.plan_version_id is not None})
    versions = db_plans.list_versions(connection, ids)
    plans = {row.id: f"{row.name} version {row.version}" for row in versions}
    return _Names(db_nas.list_nas_names(connection), plans)


def nas_names(connection: Connection | None, state_folder: Path) -> dict[int, str]:
    """By id: from PostgreSQL, else from the node's replica, else none."""
    if connection is not None:
        return db_nas.list_nas_names(connection)
    opened = Replica.open(state_folder)
    if not isinstance(opened, Replica):
        return {}
    try:
        return _names_alone(opened).nas
    finally:
        opened.close()


def _names_alone(replica: Replica | None) -> _Names:
    nases = replica.nas_list() if replica is not None else []
    plans = replica.plans() if replica is not None else []
    return _Names(
        {nas.nas_id: nas.name for nas in nases} if isinstance(nases, list) else {},
        {plan.plan_version_id: f"{plan.name} version {plan.version}" for plan in plans}
        if isinstance(plans, list)
        else {},
    )


def _state_reasons(connection: Connection, decisions: list[DecisionRow]) -> dict[tuple[str, int, int, int], str]:
    """Why the service was suspended or blocked when it was refused for that, as the operator said."""
    return {
        _key(decision): db_terms.find_state_reason(connection, decision.service_id, decision.at)
        for decision in decisions
        if decision.service_id is not None and Reason.by_code(decision.reason) in _STATES
    }


def _recalled(decision: DecisionRow, names: _Names, state_reason: str, *, is_settled: bool) -> Recalled:
    reason, method = Reason.by_code(decision.reason), Method(decision.method)
    nas = names.nas.get(decision.nas_id, f"NAS {decision.nas_id}")
    saw = _saw(decision, method, names, nas)
    failed = check_of(reason)
    if failed == "state":
        saw["state"] = decision.saw or state_reason
    elif failed is not None and decision.saw:
        saw[failed] = decision.saw
    return Recalled(decision, reason, method, nas, checks_of(reason, saw), is_settled)


def _saw(decision: DecisionRow, method: Method, names: _Names, nas: str) -> dict[str, str]:
    """What each check looked at, as far as the decision keeps it."""
    plan = decision.plan_version_id
    limit = str(decision.sessions_max) if decision.sessions_max else "any number"
    realm = split_realm(decision.username.encode())
    return {
        "realm": realm[1].decode() if realm is not None else "none",
        "method": method.name.lower(),
        "identity": decision.calling_station_id if method is Method.MAC else decision.username,
        "credential": "the device itself" if method is Method.MAC else "",
        "state": "active",
        "plan": names.plans.get(plan, f"plan version {plan}") if plan is not None else "",
        "place": f"{nas} port {decision.nas_port}" if decision.nas_port else nas,
        "device": decision.calling_station_id,
        "concurrency": f"{decision.sessions_seen} of {limit}",
    }


def _key(decision: DecisionRow) -> tuple[str, int, int, int]:
    return decision.node, decision.sequence, decision.record_offset, decision.item
