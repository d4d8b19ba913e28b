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
from sms_aaa.db.imports import Claim, ClaimKind, Holder, ImportRun, StagedRow
from sms_aaa.flows.provisioning.desk import Desk, Invalid, Refused, RefusedKind
from sms_aaa.flows.provisioning.subscribers import check_subscriber
from sms_aaa.flows.roster import Column, merged, read_entry, read_row, write_row
from sms_aaa.rules.entitlement import IdentityKind

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime

    from sms_aaa.db.imports import SoldPlan, StoredSubscriber
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
    plan: SoldPlan
    identity: tuple[IdentityKind, str, str | None]
    stored: StoredSubscriber | None
    changes: bool

    def claims(self) -> list[Claim]:
        kind, text, address = self.identity
        claims = [Claim(ClaimKind.NAME, self.entry.new.name), Claim(ClaimKind(kind), text)]
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
    run = db_imports.insert_run(
        desk.connection,
        digest=order.digest,
        updates=order.updates,
        actor=desk.actor.name,
        octets_total=order.octets,
        octets=head.end,
        line=head.next_line - 1,
    )
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
        db_imports.store_batch(desk.connection, run.id, _stage(desk, accepted))
    return after, rejects


def commit_batch(desk: Desk, run: ImportRun, after: ImportRun) -> None:
    """Moves the import's position, with its audit row; to be called when the rejects of the batch are on the disk."""
    if not db_imports.move_run(desk.connection, run, after):
        raise _in_other_hands(run)
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
        raise _in_other_hands(run)
    counts = {"added": run.added, "updated": run.updated, "unchanged": run.unchanged, "rejected": run.rejected}
    desk.record("finished", "import", run.id, before=None, after={"lines": run.line, **counts})


def _in_other_hands(run: ImportRun) -> Refused:
    return Refused(
        RefusedKind.CONFLICT, f"import {run.id} of this file is at work in another process", "let that one finish"
    )


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
    """Reads the rows of one batch with what the database knows of their names and plans."""

    def __init__(self, desk: Desk, order: Order, run: ImportRun, names: set[str]) -> None:
        self._order = order
        self._plans: dict[tuple[str, int | None], SoldPlan] = {}
        for plan in db_imports.list_sold(desk.connection):
            self._plans.setdefault((plan.name, None), plan)  # the newest of each comes first
            self._plans[plan.name, plan.version] = plan
        self._holders = db_imports.find_holders(
            desk.connection, run.id, [Claim(ClaimKind.NAME, name) for name in names]
        )
        self._stored: dict[str, list[StoredSubscriber]] = {}
        if order.updates:
            for stored in db_imports.list_stored(desk.connection, list(names)):
                self._stored.setdefault(stored.name, []).append(stored)

    def read(self, record: Record, row: Row) -> _Candidate:
        """Invalid when it cannot be imported, whatever the other rows say."""
        name = row[Column.NAME]
        holder = self._holders.get(Claim(ClaimKind.NAME, name))
        if holder is not None and (holder.line is not None or not self._order.updates):
            raise _taken(Claim(ClaimKind.NAME, name), holder.line)
        stored = self._stored.get(name)
        return self._new(record, row) if stored is None else self._changed(record, row, stored)

    def _new(self, record: Record, row: Row) -> _Candidate:
        entry = read_entry(row, self._order.defaults)
        identity = check_subscriber(entry.new)
        if identity[0] is IdentityKind.USERNAME and entry.new.password is None:
            raise Invalid(Column.PASSWORD, "a service that logs in by user name needs one", "give one, or a mac")
        return _Candidate(record, entry, self._plan(entry), identity, None, changes=True)

    def _changed(self, record: Record, row: Row, all_stored: list[StoredSubscriber]) -> _Candidate:
        [stored, *others] = all_stored
        if others or stored.service_id is None or stored.account_id is None:
            raise Invalid(Column.NAME, f"it has {len(all_stored) if others else 0} services", "change it by itself")
        before = write_row(stored)
        whole = merged(row, before)
        entry = read_entry(whole, self._order.defaults)
        identity = check_subscriber(entry.new)
        if int(identity[0]) != stored.identity_kind:
            raise Invalid(
                Column.MAC, "a device does not become a user name, nor the other way", "remove the subscriber before"
            )
        if (entry.new.zone, entry.new.anchor_day) != (stored.zone, stored.anchor_day):
            raise Invalid(
                Column.ZONE,
                f"its cycles begin on day {stored.anchor_day} in {stored.zone}, and go on so",
                "leave zone and anchor_day out",
            )
        plan = self._plan(entry)
        if plan.currency != stored.currency:
            raise Invalid(
                Column.PLAN, f"it is sold in {plan.currency}, the account is in {stored.currency}", "choose another"
            )
        changes = whole != before or entry.new.password is not None
        return _Candidate(record, entry, plan, identity, stored, changes=changes)

    def _plan(self, entry: Entry) -> SoldPlan:
        plan = self._plans.get((entry.new.plan, entry.plan_version))
        if plan is None:
            version = f" version {entry.plan_version}" if entry.plan_version is not None else ""
            raise Invalid(Column.PLAN, f"there is no plan {entry.new.plan!r}{version}", "see `sms-aaa plan list`")
        if entry.currency not in {None, plan.currency}:
            raise Invalid(Column.CURRENCY, f"the plan is sold in {plan.currency}", "leave it empty")
        return plan


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
    kind, text, address = candidate.identity
    form = sealed = None
    if new.password is not None:
        form, sealed = 1, desk.vault.seal_password(new.password, ids[2], nonce=desk.nonce())
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
        identity_kind=int(kind),
        identity=text,
        state=int(entry.state),
        state_reason=entry.state_reason,
        static_ipv4=address,
        plan_version_id=candidate.plan.plan_version_id,
        currency=candidate.plan.currency,
        zone=new.zone,
        anchor_day=new.anchor_day,
        form=form,
        sealed=sealed,
    )
