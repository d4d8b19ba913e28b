"""A service's terms: the end of a block, its dates, and the devices, NASes and lines that it is bound to.

What is changed is changed for every service of the subscriber, unless it was so already.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sms_aaa.db import nas as db_nas
from sms_aaa.db import terms as db_terms
from sms_aaa.flows.provisioning.desk import Desk, Invalid, Refused, RefusedKind, check_name
from sms_aaa.flows.provisioning.subscribers import change_state, get_subscriber
from sms_aaa.rules.entitlement import BindingKind, ServiceState
from sms_aaa.rules.identity import canonical_mac

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from sms_aaa.db.engine import Connection
    from sms_aaa.db.subscribers import SubscriberRow
    from sms_aaa.db.terms import BindingRow

BINDINGS_MAX = 32
"""Of one service and kind: what a login has to be compared with, and read, is bounded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bonds:
    """What to bind or unbind, as a door read it: MACs in any notation, NASes by name, lines as the NAS names them."""

    macs: Sequence[str] = ()
    nases: Sequence[str] = ()
    ports: Sequence[str] = ()


def unblock(desk: Desk, name: str) -> ServiceState | None:
    """Puts the blocked services of a subscriber back into the state that they were blocked in; None: none was."""
    back = None
    for row in _services(desk.connection, name):
        if row.state == int(ServiceState.BLOCKED):
            assert row.service_id is not None
            back, reason = db_terms.find_state_before_block(desk.connection, row.service_id)
            change_state(desk, row, back, reason, verb="unblocked")
    return back


def set_validity(desk: Desk, name: str, *, valid_from: datetime | None, valid_until: datetime | None) -> int:
    """From when (inclusive) to when (exclusive) the services may be used, None: no bound; how many that changed."""
    if valid_from is not None and valid_until is not None and valid_from >= valid_until:
        raise Invalid("valid until", "it is not after the beginning", "let it end later, or begin earlier")
    changed = 0
    for row in _services(desk.connection, name):
        assert row.service_id is not None
        if (row.valid_from, row.valid_until) == (valid_from, valid_until):
            continue
        db_terms.update_validity(desk.connection, row.service_id, valid_from=valid_from, valid_until=valid_until)
        before, after = (
            {"valid_from": _instant(since), "valid_until": _instant(until)}
            for since, until in ((row.valid_from, row.valid_until), (valid_from, valid_until))
        )
        desk.record("validity-set", "service", row.service_id, before=before, after=after)
        changed += 1
    return changed


def bind(desk: Desk, name: str, bonds: Bonds) -> int:
    """Binds the services to devices, NASes and lines, beside those that they are bound to; how many bonds are new."""
    done = 0
    values = _values(desk.connection, bonds)
    for row in _services(desk.connection, name):
        assert row.service_id is not None
        for kind, value, shown in values:
            if db_terms.insert_binding(desk.connection, row.service_id, kind, value):
                desk.record("bound", "service", row.service_id, before=None, after={kind.name.lower(): shown})
                done += 1
        _check_bounds(name, db_terms.list_bindings(desk.connection, [row.service_id]))
    return done


def unbind(desk: Desk, name: str, bonds: Bonds) -> int:
    """Undoes bonds; how many there were. A service that is bound to nothing of a kind may be used with any."""
    done = 0
    values = _values(desk.connection, bonds)
    for row in _services(desk.connection, name):
        assert row.service_id is not None
        for kind, value, shown in values:
            if db_terms.delete_binding(desk.connection, row.service_id, kind, value):
                desk.record("unbound", "service", row.service_id, before={kind.name.lower(): shown}, after=None)
                done += 1
        _learn_anew(desk, row)
    return done


def unbind_all(desk: Desk, name: str, kinds: Sequence[BindingKind]) -> int:
    """Undoes every bond of these kinds; how many there were."""
    services = _services(desk.connection, name)
    ids = [row.service_id for row in services if row.service_id is not None]
    bindings = [row for row in db_terms.list_bindings(desk.connection, ids) if BindingKind(row.kind) in kinds]
    for row in bindings:
        kind = BindingKind(row.kind)
        db_terms.delete_binding(desk.connection, row.service_id, kind, row.value)
        desk.record("unbound", "service", row.service_id, before={kind.name.lower(): row.nas or row.value}, after=None)
    for service in services:
        _learn_anew(desk, service)
    return len(bindings)


def set_learning(desk: Desk, name: str, *, learns: bool) -> int:
    """Whether a service that is bound to no MAC is bound to the device of its next login; how many that changed."""
    changed = 0
    for row in _services(desk.connection, name):
        assert row.service_id is not None
        if (row.learns_mac_since is not None) is not learns:
            db_terms.update_learning(desk.connection, row.service_id, learns=learns)
            before, after = {"learns_mac": not learns}, {"learns_mac": learns}
            desk.record("learning-set", "service", row.service_id, before=before, after=after)
            changed += 1
    return changed


def _learn_anew(desk: Desk, row: SubscriberRow) -> None:
    """After a device was unbound: a login of before, whose decision is settled late, must not bind it again."""
    assert row.service_id is not None
    if row.learns_mac_since is not None:
        db_terms.update_learning(desk.connection, row.service_id, learns=True)


def canonical_port(text: str) -> str:
    """A line as it is stored: octets that are no text are written as 0x and hex digits, in lower case."""
    return text.lower() if text[:2] in {"0x", "0X"} else text


def _services(connection: Connection, name: str) -> list[SubscriberRow]:
    return [row for row in get_subscriber(connection, name) if row.service_id is not None]


def bond_values(bonds: Bonds, nas_id_of: Callable[[str], int | None]) -> list[tuple[BindingKind, str, str]]:
    """(kind, value as it is stored, value as people write it). `nas_id_of`: the id of the NAS of a name."""
    found = []
    for mac in bonds.macs:
        canonical = canonical_mac(mac.encode())
        if canonical is None:
            raise Invalid("mac", f"{mac!r} is not a hardware address", "write it as 00:11:22:33:44:55")
        found.append((BindingKind.MAC, canonical.decode(), canonical.decode()))
    for name in bonds.nases:
        nas_id = nas_id_of(name)
        if nas_id is None:
            raise Refused(RefusedKind.NOT_FOUND, f"there is no NAS {name}", "see `sms-aaa nas list`")
        found.append((BindingKind.NAS, str(nas_id), name))
    for port in bonds.ports:
        check_name("port", port)
        found.append((BindingKind.PORT, canonical_port(port), port))
    return found


def _values(connection: Connection, bonds: Bonds) -> list[tuple[BindingKind, str, str]]:
    def nas_id_of(name: str) -> int | None:
        nas = db_nas.find_nas(connection, name)
        return nas.id if nas is not None else None

    return bond_values(bonds, nas_id_of)


def _check_bounds(name: str, bindings: Sequence[BindingRow]) -> None:
    for kind in BindingKind:
        count = sum(row.kind == kind for row in bindings)
        if count > BINDINGS_MAX:
            raise Refused(
                RefusedKind.CONFLICT,
                f"{name} would be bound to {count} of kind {kind.name.lower()}; {BINDINGS_MAX} is the most",
                "unbind what is not used any more",
            )


def _instant(at: datetime | None) -> str | None:
    return at.isoformat() if at is not None else None
