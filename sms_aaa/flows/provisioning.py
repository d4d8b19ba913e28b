"""What operators change: NASes, plans, subscribers. Every flow takes an Actor and leaves an audit row and an event.

Values come from a door as text; what is wrong with one is said with place, reason and remedy (Invalid). What cannot be
done as things stand is a Refused. Neither leaves anything half done: the door rolls back.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from ipaddress import IPv4Address, ip_network
from typing import TYPE_CHECKING

from sms_aaa.db import audit as db_audit
from sms_aaa.db import nas as db_nas
from sms_aaa.db import plans as db_plans
from sms_aaa.db import subscribers as db_subscribers
from sms_aaa.db.engine import UniqueViolation
from sms_aaa.db.sessions import count_live_of_nas
from sms_aaa.rules.cycle import ZoneUnknownError, cycle_at
from sms_aaa.rules.entitlement import Dialect, IdentityKind, MessageAuthenticatorPolicy, ServiceState
from sms_aaa.rules.identity import canonical_mac
from sms_aaa.rules.plan import parse_plan, plan_digest, plan_to_document

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sms_aaa.db.engine import Connection
    from sms_aaa.db.nas import NasRow
    from sms_aaa.db.subscribers import SubscriberRow
    from sms_aaa.flows.vault import Vault
    from sms_aaa.rules.actor import Actor
    from sms_aaa.rules.secret import Secret

SECRET_OCTETS_MIN = 8
SECRET_OCTETS_ADVISED = 16
NAME_OCTETS_MAX = 253
PASSWORD_OCTETS_MAX = 128  # RFC 2865 section 5.2: what User-Password can carry


class RefusedKind(StrEnum):
    NOT_FOUND = "not-found"
    CONFLICT = "conflict"


@dataclass(slots=True, eq=False)  # not frozen: contextlib sets the traceback of what passes through
class Refused(Exception):  # noqa: N818 - an outcome that a door turns into an exit code, not a program's error
    """It cannot be done as things stand: the thing is not there, or something is in its way."""

    kind: RefusedKind
    reason: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.reason}; {self.remedy}"


@dataclass(slots=True, eq=False)
class Invalid(Exception):  # noqa: N818 - as above
    """A value is wrong: where, why, what to do."""

    place: str
    reason: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.place}: {self.reason}; {self.remedy}"


@dataclass(frozen=True, slots=True)
class Desk:
    """What a provisioning flow works with: an open transaction, who asks, the vault, randomness."""

    connection: Connection
    actor: Actor
    vault: Vault
    nonce: Callable[[], bytes]

    def record(
        self, action: str, kind: str, object_id: int, *, before: Mapping[str, object] | None, after: object
    ) -> None:
        assert after is None or isinstance(after, dict)
        db_audit.insert_change(
            self.connection,
            self.actor,
            action=action,
            object_kind=kind,
            object_id=object_id,
            before=before,
            after=after,
        )


def add_nas(
    desk: Desk,
    *,
    name: str,
    prefix: str,
    secret: Secret,
    dialect: Dialect,
    message_authenticator: MessageAuthenticatorPolicy,
    coa_port: int,
) -> int:
    """The id of a new NAS. Its secret is sealed before it reaches the database."""
    _check_name("name", name)
    canonical = _prefix(prefix)
    _check_secret(secret)
    try:
        nas_id = db_nas.insert_nas(
            desk.connection,
            name=name,
            prefix=canonical,
            dialect=dialect,
            message_authenticator=message_authenticator,
            coa_port=coa_port,
        )
    except UniqueViolation as taken:
        raise Refused(
            RefusedKind.CONFLICT,
            f"a NAS {name} or a NAS at {canonical} exists",
            "see `sms-aaa nas list`, and remove or change that one",
        ) from taken
    db_nas.replace_secret(desk.connection, nas_id, desk.vault.seal_nas_secret(secret, nas_id, nonce=desk.nonce()))
    after = {
        "name": name,
        "prefix": canonical,
        "dialect": dialect.value,
        "message_authenticator": message_authenticator.value,
        "coa_port": coa_port,
    }
    desk.record("added", "nas", nas_id, before=None, after=after)
    return nas_id


def set_nas(
    desk: Desk,
    name: str,
    *,
    prefix: str | None = None,
    secret: Secret | None = None,
    dialect: Dialect | None = None,
    message_authenticator: MessageAuthenticatorPolicy | None = None,
    coa_port: int | None = None,
) -> None:
    """Changes what is given and leaves the rest."""
    nas = get_nas(desk.connection, name)
    if prefix is not None:
        _check_same_kind(desk.connection, nas, _prefix(prefix))
    after = {
        "prefix": _prefix(prefix) if prefix is not None else nas.prefix,
        "dialect": (dialect or Dialect(nas.dialect)).value,
        "message_authenticator": (message_authenticator or MessageAuthenticatorPolicy(nas.message_authenticator)).value,
        "coa_port": coa_port or nas.coa_port,
    }
    try:
        db_nas.update_nas(
            desk.connection,
            nas.id,
            prefix=str(after["prefix"]),
            dialect=Dialect(str(after["dialect"])),
            message_authenticator=MessageAuthenticatorPolicy(str(after["message_authenticator"])),
            coa_port=int(after["coa_port"]),
        )
    except UniqueViolation as taken:
        raise Refused(RefusedKind.CONFLICT, f"another NAS is at {after['prefix']}", "see `sms-aaa nas list`") from taken
    if secret is not None:
        _check_secret(secret)
        sealed = desk.vault.seal_nas_secret(secret, nas.id, nonce=desk.nonce())
        db_nas.replace_secret(desk.connection, nas.id, sealed)
    before = {
        "prefix": nas.prefix,
        "dialect": nas.dialect,
        "message_authenticator": nas.message_authenticator,
        "coa_port": nas.coa_port,
    }
    desk.record("changed", "nas", nas.id, before=before, after={**after, "secret_changed": secret is not None})


def _check_same_kind(connection: Connection, nas: NasRow, prefix: str) -> None:
    """A NAS by one address and a NAS by prefix name their sessions differently: none may run while that changes."""
    before, after = ip_network(nas.prefix), ip_network(prefix)
    live = count_live_of_nas(connection, nas.id)
    if live and (before.num_addresses == 1) != (after.num_addresses == 1):
        raise Refused(
            RefusedKind.CONFLICT,
            f"{nas.name} has {live} live sessions, which would be counted anew under {prefix}",
            "add another NAS for it, or change it when none is online",
        )


def remove_nas(desk: Desk, name: str) -> None:
    """Its packets are those of a stranger from now on; its sessions stay on record."""
    nas = get_nas(desk.connection, name)
    db_nas.mark_removed(desk.connection, nas.id)
    desk.record("removed", "nas", nas.id, before={"name": nas.name, "prefix": nas.prefix}, after=None)


def get_nas(connection: Connection, name: str) -> NasRow:
    nas = db_nas.find_nas(connection, name)
    if nas is None:
        raise Refused(RefusedKind.NOT_FOUND, f"there is no NAS {name}", "see `sms-aaa nas list`")
    return nas


def add_plan(desk: Desk, document: Mapping[str, object], *, default_currency: str) -> tuple[str, int, bool]:
    """(name, version, whether it is new) of the plan in a file's document.

    A document equal to the newest version makes no new one. PlanInvalidError when it is wrong.
    """
    plan = parse_plan(document, default_currency=default_currency)
    digest = plan_digest(plan)
    latest = db_plans.find_latest(desk.connection, plan.name)
    if latest is not None and latest.digest == digest:
        return plan.name, latest.version, False
    components = [(fee.name, "recurring") for fee in plan.tariff.recurring]
    components += [(component.name, "usage") for component in plan.tariff.usage]
    version_id, version = db_plans.insert_version(
        desk.connection, plan.name, document=plan_to_document(plan), digest=digest, components=components
    )
    after = {"name": plan.name, "version": version, "digest": digest}
    desk.record("added", "plan", version_id, before=None, after=after)
    return plan.name, version, True


@dataclass(frozen=True, slots=True, kw_only=True)
class NewSubscriber:
    """A subscriber with one service, as a door read it. `mac` makes the device the identity, not the name."""

    name: str
    plan: str
    full_name: str = ""
    email: str = ""
    phone: str = ""
    username: str | None = None
    mac: str | None = None
    password: Secret | None = None
    static_ipv4: str | None = None
    zone: str
    anchor_day: int


def add_subscriber(desk: Desk, new: NewSubscriber) -> int:
    """The id of a new subscriber: with its account, and its service active and on the plan's newest version."""
    _check_name("name", new.name)
    kind, identity = _identity(new)
    if kind is IdentityKind.USERNAME and new.password is None:
        raise Invalid("password", "a service that logs in by user name needs one", "give a password, or a MAC address")
    plan = db_plans.find_latest(desk.connection, new.plan)
    if plan is None:
        raise Refused(RefusedKind.NOT_FOUND, f"there is no plan {new.plan}", "see `sms-aaa plan list`")
    static_ipv4 = _static_ipv4(new.static_ipv4)
    _check_cycle(new.zone, new.anchor_day)
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
            kind=kind,
            identity=identity,
            static_ipv4=static_ipv4,
            account_id=account_id,
            plan_version_id=plan.id,
        )
    except UniqueViolation as taken:
        what = {
            "subscriber_name": f"a subscriber {new.name} exists",
            "service_identity": f"a service {identity} exists",
            "service_static_ipv4": f"another service has the address {static_ipv4}",
        }.get(taken.diag.constraint_name or "", "something of this exists")
        raise Refused(RefusedKind.CONFLICT, what, "choose another, or see `sms-aaa subscriber list`") from taken
    if new.password is not None:
        _store_password(desk, service_id, new.password)
    after = {"name": new.name, "identity": identity, "plan": plan.name, "version": plan.version, "service": service_id}
    desk.record("added", "subscriber", subscriber_id, before=None, after=after)
    return subscriber_id


def set_state(desk: Desk, name: str, state: ServiceState, reason: str) -> int:
    """Suspends or restores every service of a subscriber; how many that were. One that is so already stays."""
    changed = 0
    for row in get_subscriber(desk.connection, name):
        if row.service_id is None or row.state == int(state):
            continue
        db_subscribers.update_state(desk.connection, row.service_id, state, reason)
        before = {"state": ServiceState(row.state or 0).name.lower(), "reason": row.state_reason}
        after = {"state": state.name.lower(), "reason": reason}
        verb = "suspended" if state is ServiceState.SUSPENDED else "restored"
        desk.record(verb, "service", row.service_id, before=before, after=after)
        changed += 1
    return changed


def remove_subscriber(desk: Desk, name: str) -> None:
    """Ends its services and subscriptions from now on; usage and money stay on record."""
    rows = get_subscriber(desk.connection, name)
    for row in rows:
        if row.service_id is not None:
            db_subscribers.update_state(desk.connection, row.service_id, ServiceState.CANCELLED, "removed")
    db_subscribers.mark_removed(desk.connection, rows[0].subscriber_id)
    desk.record("removed", "subscriber", rows[0].subscriber_id, before={"name": name}, after=None)


def set_password(desk: Desk, name: str, password: Secret) -> None:
    """Replaces the credential of a subscriber's service that logs in by user name."""
    services = [
        row
        for row in get_subscriber(desk.connection, name)
        if row.service_id is not None and row.identity_kind == int(IdentityKind.USERNAME)
    ]
    if not services:
        raise Refused(
            RefusedKind.CONFLICT, f"{name} has no service that logs in by user name", "its device is its credential"
        )
    for row in services:
        assert row.service_id is not None
        _store_password(desk, row.service_id, password)
        desk.record("credential-set", "service", row.service_id, before=None, after={})


def get_subscriber(connection: Connection, name: str) -> list[SubscriberRow]:
    rows = db_subscribers.find_by_name(connection, name)
    if not rows:
        raise Refused(RefusedKind.NOT_FOUND, f"there is no subscriber {name}", "see `sms-aaa subscriber list`")
    return rows


def _store_password(desk: Desk, service_id: int, password: Secret) -> None:
    length = len(password.reveal())
    if not 1 <= length <= PASSWORD_OCTETS_MAX:
        raise Invalid("password", f"it has {length} octets", f"give 1 to {PASSWORD_OCTETS_MAX}")
    sealed = desk.vault.seal_password(password, service_id, nonce=desk.nonce())
    db_subscribers.upsert_credential(desk.connection, service_id, sealed)


def _identity(new: NewSubscriber) -> tuple[IdentityKind, str]:
    if new.mac is not None:
        canonical = canonical_mac(new.mac.encode())
        if canonical is None:
            raise Invalid("mac", f"{new.mac!r} is not a hardware address", "write it as 00:11:22:33:44:55")
        return IdentityKind.MAC, canonical.decode()
    username = new.username or new.name
    _check_name("username", username)
    return IdentityKind.USERNAME, username


def _check_name(place: str, name: str) -> None:
    if not name or not name.isprintable() or len(name.encode()) > NAME_OCTETS_MAX or name != name.strip():
        raise Invalid(
            place, f"{name!r} is not a name", f"1 to {NAME_OCTETS_MAX} octets, printable, without space at either end"
        )


def _check_cycle(zone: str, anchor_day: int) -> None:
    """The account's cycles must be such that they can be reckoned."""
    try:
        cycle_at(datetime(2000, 1, 1, tzinfo=UTC), zone, anchor_day)
    except ZoneUnknownError as unknown:
        raise Invalid("zone", str(unknown), "see the tz database") from unknown
    except ValueError as fault:
        raise Invalid("anchor day", str(fault), "give the day of the month on which cycles begin") from fault


def _prefix(text: str) -> str:
    try:
        return str(ip_network(text))
    except ValueError as fault:
        raise Invalid("address", str(fault), "give an address or a prefix such as 192.0.2.0/24") from fault


def _check_secret(secret: Secret) -> None:
    if len(secret.reveal()) < SECRET_OCTETS_MIN:
        raise Invalid(
            "secret",
            f"it has fewer than {SECRET_OCTETS_MIN} octets",
            f"a shared secret wants {SECRET_OCTETS_ADVISED} random ones or more",
        )


def _static_ipv4(text: str | None) -> str | None:
    if text is None:
        return None
    try:
        return str(IPv4Address(text))
    except ValueError as fault:
        raise Invalid("static address", str(fault), "give an IPv4 address such as 198.51.100.7") from fault
