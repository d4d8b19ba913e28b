"""A batch of an import's records read: each by itself, and with what the database knows of its name, plans and NASes.

What is wrong with a row is an Invalid with the column, and becomes a Reject; the other rows go on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sms_aaa.db import imports as db_imports
from sms_aaa.db import nas as db_nas
from sms_aaa.db import realms as db_realms
from sms_aaa.db.imports import Claim, ClaimKind
from sms_aaa.flows.provisioning.desk import Invalid, Refused
from sms_aaa.flows.provisioning.subscribers import check_has_proof, check_subscriber
from sms_aaa.flows.provisioning.terms import BINDINGS_MAX, bond_values
from sms_aaa.flows.roster import Column, merged, read_entry, read_row, write_row
from sms_aaa.rules.entitlement import BindingKind, ServiceState
from sms_aaa.rules.realms import Realms

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sms_aaa.db.engine import Connection
    from sms_aaa.db.imports import SoldPlan, StoredSubscriber
    from sms_aaa.flows.provisioning.subscribers import Checked
    from sms_aaa.flows.roster import Defaults, Entry, Header, Row
    from sms_aaa.rules.tabular import Record


@dataclass(frozen=True, slots=True)
class Reject:
    """A record that was not imported: which cell, why, what to do. It holds the row, so it may hold a password."""

    record: Record
    field: str
    reason: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Order:
    """What is imported how. `digest`: SHA-256 of the file. `is_dry`: nothing is stored."""

    digest: bytes
    octets: int
    header: Header
    header_record: Record
    defaults: Defaults
    updates: bool
    is_dry: bool


@dataclass(frozen=True, slots=True)
class Candidate:
    """A row that is right by itself. `stored`: whom it changes; None: it is a new one."""

    record: Record
    entry: Entry
    checked: Checked
    plan: SoldPlan
    bonds: list[tuple[BindingKind, str, str]]
    stored: StoredSubscriber | None
    changes: bool

    def claims(self) -> list[Claim]:
        checked = self.checked
        claims = [Claim(ClaimKind.NAME, self.entry.new.name), Claim(ClaimKind(checked.kind), checked.identity)]
        address = checked.static_ipv4
        return [*claims, Claim(ClaimKind.ADDRESS, address)] if address is not None else claims


@dataclass(frozen=True, slots=True)
class ReadRow:
    """A record with what it is by itself. `name` None: it cannot be cut into cells."""

    record: Record
    name: str | None
    found: Candidate | Invalid


def read_rows(connection: Connection, order: Order, import_id: int, records: Sequence[Record]) -> list[ReadRow]:
    """The records of a batch, in their order."""
    cut = [(record, _cut(order.header, record)) for record in records]
    reader = _Reader(connection, order, import_id, {row[Column.NAME] for _, row in cut if not isinstance(row, Invalid)})
    return [
        ReadRow(record, None, row)
        if isinstance(row, Invalid)
        else ReadRow(record, row[Column.NAME], reader.read(record, row))
        for record, row in cut
    ]


def _cut(header: Header, record: Record) -> Row | Invalid:
    try:
        return read_row(header, record)
    except Invalid as fault:
        return fault


class _Reader:
    """Reads the rows of one batch with what the database knows of their names, of plans, realms and NASes."""

    def __init__(self, connection: Connection, order: Order, import_id: int, names: set[str]) -> None:
        self._order = order
        self._plans: dict[tuple[str, int | None], SoldPlan] = {}
        for plan in db_imports.list_sold(connection):
            self._plans.setdefault((plan.name, None), plan)  # the newest of each comes first
            self._plans[plan.name, plan.version] = plan
        self._realms = Realms(db_realms.list_node_realms(connection, None))
        self._realm_plans = {realm.id: realm.plan for realm in db_realms.list_realms(connection)}
        self._nas_ids = {nas.name: nas.id for nas in db_nas.list_nas(connection)}
        self._holders = db_imports.find_holders(connection, import_id, [Claim(ClaimKind.NAME, name) for name in names])
        self._stored: dict[str, list[StoredSubscriber]] = {}
        if order.updates:
            for stored in db_imports.list_stored(connection, list(names)):
                self._stored.setdefault(stored.name, []).append(stored)

    def read(self, record: Record, row: Row) -> Candidate | Invalid:
        """Invalid when it cannot be imported, whatever the other rows say."""
        try:
            return self._read(record, row)
        except Invalid as fault:
            return fault

    def _read(self, record: Record, row: Row) -> Candidate:
        name = row[Column.NAME]
        holder = self._holders.get(Claim(ClaimKind.NAME, name))
        if holder is not None and (holder.line is not None or not self._order.updates):
            raise taken(Claim(ClaimKind.NAME, name), holder.line)
        stored = self._stored.get(name)
        return self._new(record, row) if stored is None else self._changed(record, row, stored)

    def _new(self, record: Record, row: Row) -> Candidate:
        candidate = self._candidate(record, row)
        check_has_proof(candidate.checked)
        return candidate

    def _changed(self, record: Record, row: Row, all_stored: list[StoredSubscriber]) -> Candidate:
        [stored, *others] = all_stored
        if others or stored.service_id is None or stored.account_id is None:
            raise Invalid(Column.NAME, f"it has {len(all_stored) if others else 0} services", "change it by itself")
        candidate = self._candidate(record, merged(row, write_row(stored)))
        _check_change(stored, candidate)
        return replace(candidate, stored=stored, changes=_differs(stored, candidate))

    def _candidate(self, record: Record, row: Row) -> Candidate:
        entry = read_entry(row, self._order.defaults)
        try:
            checked = check_subscriber(entry.new, self._name_service)
        except Invalid as fault:
            raise Invalid(_COLUMNS.get(fault.place, fault.place), fault.reason, fault.remedy) from None
        return Candidate(record, entry, checked, self._plan(entry, checked), self._bonds(entry), None, changes=True)

    def _name_service(self, username: str) -> tuple[str, str | None]:
        named = self._realms.find(username.encode())
        if named is None or named.realm is None:
            return username, None
        return named.identity.decode(), self._realm_plans[named.realm.realm_id]

    def _plan(self, entry: Entry, checked: Checked) -> SoldPlan:
        name = entry.new.plan or checked.default_plan
        if name is None:
            raise Invalid(Column.PLAN, "none is given, and the user name is in no realm that has one", "name a plan")
        plan = self._plans.get((name, entry.plan_version))
        if plan is None:
            version = f" version {entry.plan_version}" if entry.plan_version is not None else ""
            raise Invalid(Column.PLAN, f"there is no plan {name!r}{version}", "see `sms-aaa plan list`")
        if entry.currency not in {None, plan.currency}:
            raise Invalid(Column.CURRENCY, f"the plan is sold in {plan.currency}", "leave it empty")
        return plan

    def _bonds(self, entry: Entry) -> list[tuple[BindingKind, str, str]]:
        try:
            bonds = bond_values(entry.bonds, self._nas_ids.get)
        except Invalid as fault:
            raise Invalid(f"bind_{fault.place}", fault.reason, fault.remedy) from None
        except Refused as fault:
            raise Invalid(Column.BIND_NAS, fault.reason, fault.remedy) from None
        for kind in BindingKind:
            count = sum(bond[0] is kind for bond in bonds)
            if count > BINDINGS_MAX:
                column = f"bind_{kind.name.lower()}"
                raise Invalid(column, f"it has {count} bindings, {BINDINGS_MAX} is the most", "leave some out")
        return bonds


_COLUMNS = {
    "credential": Column.PASSWORD,
    "anchor day": Column.ANCHOR_DAY,
    "static address": Column.STATIC_IPV4,
}
"""The columns of what provisioning names otherwise."""


def _differs(stored: StoredSubscriber, candidate: Candidate) -> bool:
    """Whether an update changes anything. A password is a new one: what it is like is not looked at."""
    entry, new, checked = candidate.entry, candidate.entry.new, candidate.checked
    bound = {
        *((BindingKind.MAC, value) for value in stored.bound_macs),
        *((BindingKind.NAS, name) for name in stored.bound_nases),
        *((BindingKind.PORT, value) for value in stored.bound_ports),
    }
    shown = {(kind, name if kind is BindingKind.NAS else value) for kind, value, name in candidate.bonds}
    before = (
        stored.full_name, stored.email, stored.phone, stored.identity, stored.state, stored.state_reason,
        stored.static_ipv4, stored.valid_from, stored.valid_until, stored.plan_version_id, bound,
    )  # fmt: skip
    after = (
        new.full_name, new.email, new.phone, checked.identity, int(entry.state), entry.state_reason,
        checked.static_ipv4, entry.valid_from, entry.valid_until, candidate.plan.plan_version_id, shown,
    )  # fmt: skip
    return before != after or checked.stored is not None


def _check_change(stored: StoredSubscriber, candidate: Candidate) -> None:
    """What an update does not change."""
    new = candidate.entry.new
    if int(candidate.checked.kind) != stored.identity_kind:
        raise Invalid(
            Column.MAC, "a device does not become a user name, nor the other way", "remove the subscriber before"
        )
    if (new.zone, new.anchor_day) != (stored.zone, stored.anchor_day):
        raise Invalid(
            Column.ZONE,
            f"its cycles begin on day {stored.anchor_day} in {stored.zone}, and go on so",
            "leave zone and anchor_day out",
        )
    if candidate.plan.currency != stored.currency:
        raise Invalid(
            Column.PLAN,
            f"it is sold in {candidate.plan.currency}, the account is in {stored.currency}",
            "choose another",
        )
    if stored.changes_at is not None and candidate.plan.plan_version_id != stored.plan_version_id:
        raise Invalid(
            Column.PLAN,
            f"it is to change at {stored.changes_at} already",
            "wait until it has, or take that back: `sms-aaa subscriber keep-plan`",
        )
    if stored.state == ServiceState.BLOCKED and candidate.entry.state is not ServiceState.BLOCKED:
        raise Invalid(
            Column.STATE, f"it is blocked ({stored.state_reason})", "`sms-aaa subscriber unblock` ends a block"
        )


_FIELDS = {
    ClaimKind.NAME: (Column.NAME, "a subscriber of this name exists", "choose another, or import with --update"),
    ClaimKind.USERNAME: (Column.USERNAME, "a service of this user name exists", "choose another"),
    ClaimKind.MAC: (Column.MAC, "a service of this device exists", "is the address right?"),
    ClaimKind.ADDRESS: (Column.STATIC_IPV4, "another service has this address", "choose another"),
}


def taken(claim: Claim, line: int | None) -> Invalid:
    field, reason, remedy = _FIELDS[claim.kind]
    if line is not None:
        return Invalid(field, f"line {line} of the file has it already", "decide which of the two is right")
    return Invalid(field, reason, remedy)
