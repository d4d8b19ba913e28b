"""The replica against PostgreSQL: every service, plan, NAS and realm, and the name of each difference.

Both are read in the order of the identities, PostgreSQL in one snapshot, the replica page by page. What changes
meanwhile differs and is no fault: what differs is looked at again, from both sides, until it agrees or the replica has
been brought up to a later instant and differs still. A difference names fields and never a value.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import asdict

from sms_aaa.db import nas as db_nas
from sms_aaa.db import plans as db_plans
from sms_aaa.db import realms as db_realms
from sms_aaa.db import replica as db_replica
from sms_aaa.db import subscribers as db_subscribers
from sms_aaa.flows.replicating import node_plans
from sms_aaa.node.replica import ReplicaFault, identity_key
from sms_aaa.node.replica_audit import ReplicaAudit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from sms_aaa.db.engine import Connection
    from sms_aaa.node.replica import Replica
    from sms_aaa.node.replica_audit import Held
    from sms_aaa.rules.entitlement import Entitlement

PAGE_SERVICES = 5_000
LOOKS_MAX = 5
"""A thing that changes between any two looks is not looked at for ever; it is told as it was at the last."""

SUSPECTS_MAX = 100_000
"""More differences than this are not looked at again one by one: the replica is of something else altogether."""


class Fault(StrEnum):
    """How a thing differs."""

    MISSING = "missing-here"
    STALE = "stale"
    FOREIGN = "not-in-postgresql"
    DAMAGED = "damaged"


class Difference(Struct, frozen=True):
    """`kind` is service, plan, nas or realm; `name` its identity or name; `fields` are those that are stale."""

    kind: str
    name: str
    object_id: int
    fault: Fault
    fields: tuple[str, ...] = ()


class Suspects(Struct, frozen=True):
    """What differed at a first look: services by their keys. `services`: how many were compared."""

    services: int
    keys: tuple[bytes, ...]
    is_cut: bool


class Finding(Struct, frozen=True):
    """A difference, and what PostgreSQL had when it was seen."""

    wanted: Struct | None
    difference: Difference


Look = dict[tuple[str, bytes | int], Finding]
"""What differs at a look, by kind and key (of a service) or id."""


def find_suspects(
    connection: Connection, replica: Replica, *, progress: Callable[[int, int], None]
) -> Suspects | ReplicaFault:
    """The services that are not the same on both sides. To be called first in a REPEATABLE READ transaction."""
    audit, of, done = ReplicaAudit(replica), db_subscribers.count_services(connection), 0
    db_replica.prepare_to_read_all(connection)
    keys: list[bytes] = []
    last = b""
    for page in db_subscribers.stream_entitlements(connection, page=PAGE_SERVICES):
        wanted = {identity_key(kind, identity): entitlement for kind, identity, entitlement in page}
        end = identity_key(page[-1][0], page[-1][1])
        held = _hold(audit, last, end)
        if isinstance(held, ReplicaFault):
            return held
        keys += _differing(wanted, held)
        last = end
        done += len(page)
        progress(done, of)
        if len(keys) > SUSPECTS_MAX:
            return Suspects(done, tuple(keys[:SUSPECTS_MAX]), is_cut=True)
    held = _hold(audit, last, None)
    if isinstance(held, ReplicaFault):
        return held
    keys += held
    return Suspects(done, tuple(keys[:SUSPECTS_MAX]), is_cut=len(keys) > SUSPECTS_MAX)


def confirm(
    connection: Connection, replica: Replica, keys: Sequence[bytes], *, wait: Callable[[], tuple[Replica, bool]]
) -> list[Difference] | ReplicaFault:
    """What really differs of the services with these keys, and of the plans, NASes and realms.

    To be called on a connection that commits each statement. `wait` waits until the replica was once more what
    PostgreSQL is, and gives it (after a rebuild it is another one); False: it is not brought up to date, so what
    differs now does. A difference is one if it is there before and after that, and PostgreSQL said the same both times.
    """
    look = _look(connection, replica, keys)
    for _ in range(LOOKS_MAX):
        if isinstance(look, ReplicaFault) or not look:
            break
        replica, is_followed = wait()
        again = _look(connection, replica, [key for _, key in look if isinstance(key, bytes)])
        if isinstance(again, ReplicaFault) or not is_followed:
            look = again
            break
        sure = {one: found for one, found in again.items() if one in look and look[one].wanted == found.wanted}
        look = again
        if len(sure) == len(again):
            break
    if isinstance(look, ReplicaFault):
        return look
    return [found.difference for _, found in sorted(look.items(), key=lambda item: (item[0][0], str(item[0][1])))]


def _look(connection: Connection, replica: Replica, keys: Sequence[bytes]) -> Look | ReplicaFault:
    services = _look_at_services(connection, replica, keys)
    tables = _look_at_tables(connection, replica)
    if isinstance(services, ReplicaFault) or isinstance(tables, ReplicaFault):
        return services if isinstance(services, ReplicaFault) else tables
    return services | tables


def _look_at_services(connection: Connection, replica: Replica, keys: Sequence[bytes]) -> Look | ReplicaFault:
    audit = ReplicaAudit(replica)
    look: Look = {}
    for at in range(0, len(keys), PAGE_SERVICES):
        part = keys[at : at + PAGE_SERVICES]
        held = audit.list_of(part)
        if isinstance(held, ReplicaFault):
            return held
        wanted = _wanted(connection, part)
        for key in _differing(wanted, held):
            difference = _service_difference(key, wanted.get(key), held.get(key))
            look["service", key] = Finding(wanted.get(key), difference)
    return look


def _look_at_tables(connection: Connection, replica: Replica) -> Look | ReplicaFault:
    look: Look = {}
    for kind, held, wanted in (
        ("plan", replica.plans(), node_plans(db_plans.list_versions(connection, None))),
        ("nas", replica.nas_list(), db_nas.list_node_nas(connection, None)),
        ("realm", replica.realms(), db_realms.list_node_realms(connection, None)),
    ):
        if isinstance(held, ReplicaFault):
            return held
        look |= _table_look(kind, wanted, held)
    return look


def _hold(audit: ReplicaAudit, after: bytes, last: bytes | None) -> dict[bytes, Held] | ReplicaFault:
    """What the replica has in a stretch of keys. What of it is not in PostgreSQL is bounded page by page."""
    found: dict[bytes, Held] = {}
    while len(found) <= SUSPECTS_MAX:
        part = audit.list_between(after, last, limit=PAGE_SERVICES)
        if isinstance(part, ReplicaFault):
            return part
        found.update((one.key, one) for one in part)
        if len(part) < PAGE_SERVICES:
            break
        after = part[-1].key
    return found


def _wanted(connection: Connection, keys: Sequence[bytes]) -> dict[bytes, Entitlement]:
    ids = db_subscribers.list_service_ids(connection, [(key[0], key[1:].decode("utf-8", "replace")) for key in keys])
    return {
        identity_key(kind, identity): entitlement
        for kind, identity, entitlement in db_subscribers.list_entitlements(connection, ids)
    }


def _differing(wanted: dict[bytes, Entitlement], held: dict[bytes, Held]) -> list[bytes]:
    differing = [
        key
        for key, entitlement in wanted.items()
        if (one := held.get(key)) is None or one.entitlement != entitlement or not one.is_listed
    ]
    return differing + [key for key in held if key not in wanted]


def _service_difference(key: bytes, wanted: Entitlement | None, held: Held | None) -> Difference:
    name = key[1:].decode("utf-8", "backslashreplace")
    if held is None:
        assert wanted is not None
        return Difference("service", name, wanted.service_id, Fault.MISSING)
    if held.entitlement is None:
        return Difference("service", name, wanted.service_id if wanted is not None else 0, Fault.DAMAGED)
    if wanted is None:
        return Difference("service", name, held.entitlement.service_id, Fault.FOREIGN)
    fields = _fields(wanted, held.entitlement)
    return Difference("service", name, wanted.service_id, Fault.STALE if fields else Fault.DAMAGED, fields)


def _table_look(kind: str, wanted: Iterable[Struct], held: Iterable[Struct]) -> Look:
    here, there = ({_id_of(one): one for one in side} for side in (held, wanted))
    look: Look = {}
    for object_id in here.keys() | there.keys():
        mine, theirs = here.get(object_id), there.get(object_id)
        if mine == theirs:
            continue
        name = _name_of(mine if theirs is None else theirs)
        fault = Fault.MISSING if mine is None else Fault.FOREIGN if theirs is None else Fault.STALE
        fields = _fields(mine, theirs) if mine is not None and theirs is not None else ()
        look[kind, object_id] = Finding(theirs, Difference(kind, name, object_id, fault, fields))
    return look


def _fields(one: Struct, other: Struct) -> tuple[str, ...]:
    """The names of the fields that differ."""
    values = asdict(other)
    return tuple(name for name, value in asdict(one).items() if value != values[name])


def _id_of(thing: Struct) -> int:
    """The first field of each is its id."""
    return int(getattr(thing, thing.__struct_fields__[0]))


def _name_of(thing: Struct | None) -> str:
    version = getattr(thing, "version", None)
    name = str(getattr(thing, "name", ""))
    return name if version is None else f"{name} version {version}"
