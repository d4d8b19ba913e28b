"""Subscribers with their services: who may log in, with what proof, on which plan, in which state."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache, partial
from ipaddress import IPv4Address
from typing import TYPE_CHECKING

from sms_aaa.db import plans as db_plans
from sms_aaa.db import subscribers as db_subscribers
from sms_aaa.db.engine import UniqueViolation
from sms_aaa.flows.provisioning.credentials import read_credential, store_credential
from sms_aaa.flows.provisioning.desk import Desk, Invalid, Refused, RefusedKind, check_name
from sms_aaa.flows.provisioning.planned_changes import take_back
from sms_aaa.flows.provisioning.realms import name_service
from sms_aaa.radius.hashes import Form
from sms_aaa.rules.cycle import ZoneUnknownError, cycle_at
from sms_aaa.rules.entitlement import IdentityKind, ServiceState
from sms_aaa.rules.identity import canonical_mac

if TYPE_CHECKING:
    from collections.abc import Callable

    from sms_aaa.db.engine import Connection
    from sms_aaa.db.plans import PlanVersionRow
    from sms_aaa.db.subscribers import SubscriberRow
    from sms_aaa.radius.credentials import StoredPassword
    from sms_aaa.rules.secret import Secret

_VERBS = {ServiceState.SUSPENDED: "suspended", ServiceState.ACTIVE: "restored", ServiceState.BLOCKED: "blocked"}


@dataclass(frozen=True, slots=True, kw_only=True)
class NewSubscriber:
    """A subscriber with one service, as a door read it. `mac` makes the device the identity, not the name.

    `form`: what `password` is, see read_credential(). `plan` None: the default of the realm that the user name is in.
    """

    name: str
    plan: str | None = None
    full_name: str = ""
    email: str = ""
    phone: str = ""
    username: str | None = None
    mac: str | None = None
    password: Secret | None = None
    form: Form | None = Form.CLEARTEXT
    static_ipv4: str | None = None
    zone: str
    anchor_day: int


@dataclass(frozen=True, slots=True)
class Checked:
    """What a new service is recognised by, in canonical form, its realm's plan, its address and its credential."""

    kind: IdentityKind
    identity: str
    default_plan: str | None
    static_ipv4: str | None
    stored: StoredPassword | None


def add_subscriber(desk: Desk, new: NewSubscriber) -> int:
    """The id of a new subscriber: with its account, and its service active and on the plan's newest version."""
    checked = check_subscriber(new, partial(name_service, desk.connection))
    check_has_proof(checked)
    plan = _plan(desk.connection, new.plan or checked.default_plan)
    try:
        subscriber_id = db_subscribers.insert_subscriber(
            desk.connection, name=new.name, full_name=new.full_name, email=new.email, phone=new.phone
        )
        account_id = db_subscribers.insert_account(
            desk.connection,
            subscriber_id,
            currency=str(plan.document["tariff"]["currency"]),
            zone=new.zone,
            anchor_day=new.anchor_day,
        )
        service_id = db_subscribers.insert_service(
            desk.connection,
            subscriber_id,
            kind=checked.kind,
            identity=checked.identity,
            static_ipv4=checked.static_ipv4,
            account_id=account_id,
            plan_version_id=plan.id,
        )
    except UniqueViolation as taken:
        what = {
            "subscriber_name": f"a subscriber {new.name} exists",
            "service_identity": f"a service {checked.identity} exists",
            "service_static_ipv4": f"another service has the address {checked.static_ipv4}",
        }.get(taken.diag.constraint_name or "", "something of this exists")
        raise Refused(RefusedKind.CONFLICT, what, "choose another, or see `sms-aaa subscriber list`") from taken
    if checked.stored is not None:
        store_credential(desk, service_id, checked.stored)
    after = {
        "name": new.name,
        "identity": checked.identity,
        "plan": plan.name,
        "version": plan.version,
        "service": service_id,
    }
    desk.record("added", "subscriber", subscriber_id, before=None, after=after)
    return subscriber_id


def set_state(desk: Desk, name: str, state: ServiceState, reason: str) -> int:
    """Suspends, restores or blocks every service of a subscriber; how many that were. One that is so already stays.

    What is blocked is neither suspended nor restored: only provisioning.terms.unblock ends a block.
    """
    changed = 0
    for row in get_subscriber(desk.connection, name):
        if row.service_id is None or row.state == int(state):
            continue
        if row.state == int(ServiceState.BLOCKED):
            raise Refused(
                RefusedKind.CONFLICT,
                f"{name} is blocked ({row.state_reason})",
                "`sms-aaa subscriber unblock` puts it back into the state that it was blocked in",
            )
        change_state(desk, row, state, reason, verb=_VERBS[state])
        changed += 1
    return changed


def change_state(desk: Desk, row: SubscriberRow, state: ServiceState, reason: str, *, verb: str) -> None:
    """One service's state from now on, on record as `verb`."""
    assert row.service_id is not None
    db_subscribers.update_state(desk.connection, row.service_id, state, reason)
    before = {"state": ServiceState(row.state or 0).name.lower(), "reason": row.state_reason}
    after = {"state": state.name.lower(), "reason": reason}
    desk.record(verb, "service", row.service_id, before=before, after=after)


def remove_subscriber(desk: Desk, name: str) -> None:
    """Ends its services and subscriptions from now on; usage and money stay on record.

    A change of plan that was to come is taken back before.
    """
    rows = get_subscriber(desk.connection, name)
    for row in rows:
        if row.service_id is not None:
            take_back(desk, row)
            db_subscribers.update_state(desk.connection, row.service_id, ServiceState.CANCELLED, "removed")
    db_subscribers.mark_removed(desk.connection, rows[0].subscriber_id)
    desk.record("removed", "subscriber", rows[0].subscriber_id, before={"name": name}, after=None)


def get_subscriber(connection: Connection, name: str) -> list[SubscriberRow]:
    rows = db_subscribers.find_by_name(connection, name)
    if not rows:
        raise Refused(RefusedKind.NOT_FOUND, f"there is no subscriber {name}", "see `sms-aaa subscriber list`")
    return rows


def check_subscriber(new: NewSubscriber, name_service: Callable[[str], tuple[str, str | None]]) -> Checked:
    """What a new one says by itself; Invalid when a value cannot be. `name_service`: see provisioning.realms."""
    check_name("name", new.name)
    kind, identity, default_plan = _identity(new, name_service)
    stored = read_credential(new.password, new.form) if new.password is not None else None
    _check_cycle(new.zone, new.anchor_day)
    return Checked(kind, identity, default_plan, _static_ipv4(new.static_ipv4), stored)


def check_has_proof(checked: Checked) -> None:
    if checked.kind is IdentityKind.USERNAME and checked.stored is None:
        raise Invalid("password", "a service that logs in by user name needs one", "give a password, or a MAC address")


def _plan(connection: Connection, name: str | None) -> PlanVersionRow:
    if name is None:
        raise Invalid("plan", "none is given, and the user name is in no realm that has one", "name a plan")
    return get_sold(connection, name)


def get_sold(connection: Connection, name: str, at: datetime | None = None) -> PlanVersionRow:
    """The version of a plan that is sold at an instant to come (None, or before the plan was: now)."""
    plan = db_plans.find_in_force(connection, name, at) or db_plans.find_in_force(connection, name)
    if plan is None:
        is_not_yet = db_plans.find_latest(connection, name) is not None
        what = f"not yet in force is plan {name}" if is_not_yet else f"there is no plan {name}"
        raise Refused(RefusedKind.NOT_FOUND, what, "see `sms-aaa plan list`")
    return plan


def _identity(
    new: NewSubscriber, name_service: Callable[[str], tuple[str, str | None]]
) -> tuple[IdentityKind, str, str | None]:
    """(kind, identity, default plan)."""
    if new.mac is not None:
        canonical = canonical_mac(new.mac.encode())
        if canonical is None:
            raise Invalid("mac", f"{new.mac!r} is not a hardware address", "write it as 00:11:22:33:44:55")
        return IdentityKind.MAC, canonical.decode(), None
    username = new.username or new.name
    check_name("username", username)
    return IdentityKind.USERNAME, *name_service(username)


@lru_cache(maxsize=1024)  # an import asks of a few pairs, a hundred thousand times
def _check_cycle(zone: str, anchor_day: int) -> None:
    """The account's cycles must be such that they can be reckoned."""
    try:
        cycle_at(datetime(2000, 1, 1, tzinfo=UTC), zone, anchor_day)
    except ZoneUnknownError as unknown:
        raise Invalid("zone", str(unknown), "see the tz database") from unknown
    except ValueError as fault:
        raise Invalid("anchor day", str(fault), "give the day of the month on which cycles begin") from fault


def _static_ipv4(text: str | None) -> str | None:
    if text is None:
        return None
    try:
        return str(IPv4Address(text))
    except ValueError as fault:
        raise Invalid("static address", str(fault), "give an IPv4 address such as 198.51.100.7") from fault
