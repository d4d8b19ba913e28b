"""Importing subscribers: a batch of a file's records is checked, sealed and stored, and its position moves with it.

A row that cannot be is a Reject, and the others go on. What only one may have (name, identity, address) goes to the
first row that asks for it. A dry run does the same and stores nothing but, in a temporary table, what its rows took.

A batch writes one audit row and one event, which name the import and count: import_row says which line made or changed
which subscriber. (A hundred thousand audit rows that all say "imported" would bury what people did.)
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sms_aaa.db import imports as db_imports
from sms_aaa.db import nas as db_nas
from sms_aaa.db import realms as db_realms
from sms_aaa.db.engine import Poison, UniqueViolation
from sms_aaa.db.imports import Claim, ClaimKind, Holder, ImportRun, StagedBond, StagedRow
from sms_aaa.flows.provisioning.desk import Desk, Invalid, Refused, RefusedKind
from sms_aaa.flows.provisioning.subscribers import check_has_proof, check_subscriber
from sms_aaa.flows.provisioning.terms import BINDINGS_MAX, bond_values
from sms_aaa.flows.roster import Column, merged, read_entry, read_row, write_row
from sms_aaa.rules.entitlement import BindingKind, ServiceState
from sms_aaa.rules.realms import Realms

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime

    from sms_aaa.db.imports import SoldPlan, StoredSubscriber
    from sms_aaa.flows.provisioning.subscribers import Checked
    from sms_aaa.flows.roster import Defaults, Entry, Header, Row
    from sms_aaa.rules.tabular import Record

BATCH_RECORDS = 2000
"""In one transaction: logins and provisioning wait for no more than that, and a killed import repeats no more."""

BATCH_OCTETS = 4_194_304
"""More than so many rows have, unless there is something wrong with them: the memory that a batch takes is bounded."""


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
class _Candidate:
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


def begin_import(desk: Desk, order: Order, *, now: datetime, again: bool) -> ImportRun:
    """The import of this file: the last one, unless it is finished and is wanted `again`, or a new one.

    To be committed before the first batch.
    """
    db_imports.create_stage(desk.connection)
    head = order.header_record
    if order.is_dry:
        return ImportRun(0, head.end, head.next_line - 1, 0, 0, 0, 0, 0, now, None)
    found = db_imports.find_last_run(desk.connection, digest=order.digest, updates=order.updates)
    if found is not None and (found.finished_at is None or not again):
        return found
    try:
        run = db_imports.insert_run(
            desk.connection,
            digest=order.digest,
            updates=order.updates,
            actor=desk.actor.name,
            octets_total=order.octets,
            octets=head.end,
            line=head.next_line - 1,
        )
    except UniqueViolation as taken:
        raise _in_other_hands() from taken
    after = {"sha256": order.digest.hex(), "octets": order.octets, "updates": order.updates}
    desk.record("started", "import", run.id, before=None, after=after)
    return run


def batches(records: Iterator[Record]) -> Iterator[list[Record]]:
    """The same cuts whenever a file is read from one of them on: a resumed import ends as one that was not killed."""
    batch: list[Record] = []
    octets = 0
    for record in records:
        batch.append(record)
        octets += len(record.raw)
        if len(batch) == BATCH_RECORDS or octets >= BATCH_OCTETS:
            yield batch
            batch, octets = [], 0
    if batch:
        yield batch


def import_batch(desk: Desk, order: Order, run: ImportRun, records: Sequence[Record]) -> tuple[ImportRun, list[Reject]]:
    """Where the import stands after these records, and what of them was rejected.

    UniqueViolation when somebody took something of it meanwhile: the same again will reject that row.
    """
    _lock(desk, order, run)
    return _import(desk, order, run, records)


def _lock(desk: Desk, order: Order, run: ImportRun) -> None:
    """Another process with the same file waits, and then finds that it is not its turn."""
    if not order.is_dry and not db_imports.lock_run(desk.connection, run):
        raise _in_other_hands()


def _import(desk: Desk, order: Order, run: ImportRun, records: Sequence[Record]) -> tuple[ImportRun, list[Reject]]:
    candidates, rejects = _read_all(desk, order, run, records)
    holders = db_imports.find_holders(
        desk.connection, run.id, (claim for candidate in candidates for claim in candidate.claims())
    )
    accepted, refused = _choose(candidates, holders)
    rejects = sorted([*rejects, *refused], key=lambda reject: reject.record.line)
    after = replace(
        run,
        octets=records[-1].end,
        line=records[-1].next_line - 1,
        added=run.added + sum(candidate.stored is None for candidate in accepted),
        updated=run.updated + sum(candidate.stored is not None and candidate.changes for candidate in accepted),
        unchanged=run.unchanged + sum(not candidate.changes for candidate in accepted),
        rejected=run.rejected + len(rejects),
    )
    if order.is_dry:
        _remember(desk, accepted)
    elif accepted:
        rows = _stage(desk, accepted)
        bonds = [
            StagedBond(row.service_id, int(kind), value)
            for row, candidate in zip(rows, accepted, strict=True)
            for kind, value, _ in candidate.bonds
        ]
        db_imports.store_batch(desk.connection, run.id, rows, bonds)
    return after, rejects


def import_one_by_one(
    desk: Desk, order: Order, run: ImportRun, records: Sequence[Record]
) -> tuple[ImportRun, list[Reject]]:
    """The same for a batch that PostgreSQL refused: only what it refuses alone is rejected."""
    _lock(desk, order, run)
    rejects = []
    after = run
    for record in records:
        try:
            with desk.connection.transaction():
                after, rejected = _import(desk, order, after, [record])
                rejects += rejected
        except Poison as refusal:
            reason = f"the database refuses it ({type(refusal).__name__})"
            rejects.append(Reject(record, "row", reason, "please report it: it should have been found before"))
            after = replace(after, octets=record.end, line=record.next_line - 1, rejected=after.rejected + 1)
    return after, rejects


def commit_batch(desk: Desk, run: ImportRun, after: ImportRun) -> None:
    """Moves the import's position, with its audit row; to be called when the rejects of the batch are on the disk."""
    if not db_imports.move_run(desk.connection, run, after):
        raise _in_other_hands()
    counts = {
        "lines": [run.line + 1, after.line],
        "added": after.added - run.added,
        "updated": after.updated - run.updated,
        "unchanged": after.unchanged - run.unchanged,
        "rejected": after.rejected - run.rejected,
    }
    desk.record("batch-stored", "import", run.id, before=None, after=counts)


def finish_import(desk: Desk, run: ImportRun) -> None:
    if not db_imports.finish_run(desk.connection, run):
        raise _in_other_hands()
    counts = {"added": run.added, "updated": run.updated, "unchanged": run.unchanged, "rejected": run.rejected}
    desk.record("finished", "import", run.id, before=None, after={"lines": run.line, **counts})


def _in_other_hands() -> Refused:
    return Refused(RefusedKind.CONFLICT, "the import of this file is at work in another process", "let that one finish")


def _read_all(
    desk: Desk, order: Order, run: ImportRun, records: Sequence[Record]
) -> tuple[list[_Candidate], list[Reject]]:
    rejects = []
    rows: list[tuple[Record, Row]] = []
    for record in records:
        try:
            rows.append((record, read_row(order.header, record)))
        except Invalid as fault:
            rejects.append(Reject(record, fault.place, fault.reason, fault.remedy))
    names = {row[Column.NAME] for _, row in rows}
    reader = _Reader(desk, order, run, names)
    candidates = []
    for record, row in rows:
        try:
            candidates.append(reader.read(record, row))
        except Invalid as fault:
            rejects.append(Reject(record, fault.place, fault.reason, fault.remedy))
    return candidates, rejects


class _Reader:
    """Reads the rows of one batch with what the database knows of their names, of plans, realms and NASes."""

    def __init__(self, desk: Desk, order: Order, run: ImportRun, names: set[str]) -> None:
        connection = desk.connection
        self._order = order
        self._plans: dict[tuple[str, int | None], SoldPlan] = {}
        for plan in db_imports.list_sold(connection):
            self._plans.setdefault((plan.name, None), plan)  # the newest of each comes first
            self._plans[plan.name, plan.version] = plan
        self._realms = Realms(db_realms.list_node_realms(connection, None))
        self._realm_plans = {realm.id: realm.plan for realm in db_realms.list_realms(connection)}
        self._nas_ids = {nas.name: nas.id for nas in db_nas.list_nas(connection)}
        self._holders = db_imports.find_holders(connection, run.id, [Claim(ClaimKind.NAME, name) for name in names])
        self._stored: dict[str, list[StoredSubscriber]] = {}
        if order.updates:
            for stored in db_imports.list_stored(connection, list(names)):
                self._stored.setdefault(stored.name, []).append(stored)

    def read(self, record: Record, row: Row) -> _Candidate:
        """Invalid or Refused when it cannot be imported, whatever the other rows say."""
        name = row[Column.NAME]
        holder = self._holders.get(Claim(ClaimKind.NAME, name))
        if holder is not None and (holder.line is not None or not self._order.updates):
            raise _taken(Claim(ClaimKind.NAME, name), holder.line)
        stored = self._stored.get(name)
        return self._new(record, row) if stored is None else self._changed(record, row, stored)

    def _new(self, record: Record, row: Row) -> _Candidate:
        candidate = self._candidate(record, row)
        check_has_proof(candidate.checked)
        return candidate

    def _changed(self, record: Record, row: Row, all_stored: list[StoredSubscriber]) -> _Candidate:
        [stored, *others] = all_stored
        if others or stored.service_id is None or stored.account_id is None:
            raise Invalid(Column.NAME, f"it has {len(all_stored) if others else 0} services", "change it by itself")
        candidate = self._candidate(record, merged(row, write_row(stored)))
        _check_change(stored, candidate)
        return replace(candidate, stored=stored, changes=_differs(stored, candidate))

    def _candidate(self, record: Record, row: Row) -> _Candidate:
        entry = read_entry(row, self._order.defaults)
        try:
            checked = check_subscriber(entry.new, self._name_service)
        except Invalid as fault:
            raise Invalid(_COLUMNS.get(fault.place, fault.place), fault.reason, fault.remedy) from None
        return _Candidate(record, entry, checked, self._plan(entry, checked), self._bonds(entry), None, changes=True)

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


def _differs(stored: StoredSubscriber, candidate: _Candidate) -> bool:
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


def _check_change(stored: StoredSubscriber, candidate: _Candidate) -> None:
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
    if stored.state == ServiceState.BLOCKED and candidate.entry.state is not ServiceState.BLOCKED:
        raise Invalid(
            Column.STATE, f"it is blocked ({stored.state_reason})", "`sms-aaa subscriber unblock` ends a block"
        )


def _choose(candidates: Sequence[_Candidate], holders: Mapping[Claim, Holder]) -> tuple[list[_Candidate], list[Reject]]:
    """Who gets what only one can have: whoever has it, else the first in the file."""
    taken: dict[Claim, int] = {}
    accepted, rejects = [], []
    for candidate in candidates:
        claims = candidate.claims()
        fault = next(filter(None, (_fault_of(claim, candidate, taken, holders) for claim in claims)), None)
        if fault is None:
            accepted.append(candidate)
            taken.update(dict.fromkeys(claims, candidate.record.line))
        else:
            rejects.append(Reject(candidate.record, fault.place, fault.reason, fault.remedy))
    return accepted, rejects


def _fault_of(
    claim: Claim, candidate: _Candidate, taken: Mapping[Claim, int], holders: Mapping[Claim, Holder]
) -> Invalid | None:
    if claim in taken:
        return _taken(claim, taken[claim])
    holder = holders.get(claim)
    if holder is None or (candidate.stored is not None and holder.subscriber_id == candidate.stored.subscriber_id):
        return None
    return _taken(claim, holder.line)


_FIELDS = {
    ClaimKind.NAME: (Column.NAME, "a subscriber of this name exists", "choose another, or import with --update"),
    ClaimKind.USERNAME: (Column.USERNAME, "a service of this user name exists", "choose another"),
    ClaimKind.MAC: (Column.MAC, "a service of this device exists", "is the address right?"),
    ClaimKind.ADDRESS: (Column.STATIC_IPV4, "another service has this address", "choose another"),
}


def _taken(claim: Claim, line: int | None) -> Invalid:
    field, reason, remedy = _FIELDS[claim.kind]
    if line is not None:
        return Invalid(field, f"line {line} of the file has it already", "decide which of the two is right")
    return Invalid(field, reason, remedy)


def _remember(desk: Desk, accepted: Sequence[_Candidate]) -> None:
    taken = []
    for candidate in accepted:
        subscriber_id = candidate.stored.subscriber_id if candidate.stored is not None else None
        holder = Holder(subscriber_id, candidate.record.line)
        taken += [(claim, holder) for claim in candidate.claims()]
    db_imports.insert_dry(desk.connection, taken)


def _stage(desk: Desk, accepted: Sequence[_Candidate]) -> list[StagedRow]:
    fresh = iter(db_imports.take_ids(desk.connection, sum(candidate.stored is None for candidate in accepted)))
    return [_staged(desk, candidate, _ids(candidate.stored) or next(fresh)) for candidate in accepted]


def _ids(stored: StoredSubscriber | None) -> tuple[int, int, int] | None:
    if stored is None:
        return None
    assert stored.account_id is not None
    assert stored.service_id is not None
    return stored.subscriber_id, stored.account_id, stored.service_id


def _staged(desk: Desk, candidate: _Candidate, ids: tuple[int, int, int]) -> StagedRow:
    entry, new = candidate.entry, candidate.entry.new
    checked = candidate.checked
    stored = checked.stored
    return StagedRow(
        line=candidate.record.line,
        is_new=candidate.stored is None,
        subscriber_id=ids[0],
        account_id=ids[1],
        service_id=ids[2],
        name=new.name,
        full_name=new.full_name,
        email=new.email,
        phone=new.phone,
        identity_kind=int(checked.kind),
        identity=checked.identity,
        state=int(entry.state),
        state_reason=entry.state_reason,
        static_ipv4=checked.static_ipv4,
        valid_from=entry.valid_from,
        valid_until=entry.valid_until,
        plan_version_id=candidate.plan.plan_version_id,
        currency=candidate.plan.currency,
        zone=new.zone,
        anchor_day=new.anchor_day,
        form=int(stored.form) if stored is not None else None,
        sealed=desk.vault.seal_stored(stored, ids[2], nonce=desk.nonce()) if stored is not None else None,
    )
