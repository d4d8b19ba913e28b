"""Importing subscribers: a batch of a file's records is checked, sealed and stored, and its position moves with it.

A row that cannot be is a Reject, and the others go on. What only one may have (name, identity, address) goes to the
first row that asks for it. A dry run does the same and stores nothing but, in a temporary table, what its rows took.

A batch writes one audit row and one event, which name the import and count: import_row says which line made or changed
which subscriber. (A hundred thousand audit rows that all say "imported" would bury what people did.)
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from sms_aaa.db import imports as db_imports
from sms_aaa.db.engine import Poison, UniqueViolation
from sms_aaa.db.imports import Claim, ClaimKind, Holder, ImportRun, StagedBond, StagedRow
from sms_aaa.flows.import_reading import Candidate, Reject, read_rows, taken
from sms_aaa.flows.provisioning.desk import Desk, Invalid, Refused, RefusedKind

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime

    from sms_aaa.db.imports import StoredSubscriber
    from sms_aaa.flows.import_reading import Order, ReadRow
    from sms_aaa.rules.tabular import Record

BATCH_RECORDS = 2000
"""In one transaction: logins and provisioning wait for no more than that, and a killed import repeats no more."""

BATCH_OCTETS = 4_194_304
"""More than so many rows have, unless there is something wrong with them: the memory that a batch takes is bounded."""


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
    except UniqueViolation as begun:
        raise _in_other_hands() from begun
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
    rows = read_rows(desk.connection, order, run.id, records)
    claims = (claim for row in rows if isinstance(row.found, Candidate) for claim in row.found.claims())
    accepted, rejects = _choose(rows, db_imports.find_holders(desk.connection, run.id, claims))
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
        staged = _stage(desk, accepted)
        bonds = [
            StagedBond(row.service_id, int(kind), value)
            for row, candidate in zip(staged, accepted, strict=True)
            for kind, value, _ in candidate.bonds
        ]
        db_imports.store_batch(desk.connection, run.id, staged, bonds)
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


def _choose(rows: Sequence[ReadRow], holders: Mapping[Claim, Holder]) -> tuple[list[Candidate], list[Reject]]:
    """Who gets what only one can have: whoever has it, else the first in the file."""
    lines: dict[Claim, int] = {}
    accepted, rejects = [], []
    for row in rows:
        chosen = _chosen(row, lines, holders)
        if isinstance(chosen, Candidate):
            accepted.append(chosen)
            lines.update(dict.fromkeys(chosen.claims(), row.record.line))
        else:
            rejects.append(Reject(row.record, chosen.place, chosen.reason, chosen.remedy))
    return accepted, rejects


def _chosen(row: ReadRow, lines: Mapping[Claim, int], holders: Mapping[Claim, Holder]) -> Candidate | Invalid:
    """`lines`: which of this batch have what. A name that is there twice is said before anything else of the row."""
    if row.name is not None and (name := Claim(ClaimKind.NAME, row.name)) in lines:
        return taken(name, lines[name])
    candidate = row.found
    if isinstance(candidate, Invalid):
        return candidate
    own = candidate.stored.subscriber_id if candidate.stored is not None else None
    for claim in candidate.claims():
        holder = holders.get(claim)
        if claim in lines:
            return taken(claim, lines[claim])
        if holder is not None and (own is None or holder.subscriber_id != own):
            return taken(claim, holder.line)
    return candidate


def _remember(desk: Desk, accepted: Sequence[Candidate]) -> None:
    claims = []
    for candidate in accepted:
        subscriber_id = candidate.stored.subscriber_id if candidate.stored is not None else None
        holder = Holder(subscriber_id, candidate.record.line)
        claims += [(claim, holder) for claim in candidate.claims()]
    db_imports.insert_dry(desk.connection, claims)


def _stage(desk: Desk, accepted: Sequence[Candidate]) -> list[StagedRow]:
    fresh = iter(db_imports.take_ids(desk.connection, sum(candidate.stored is None for candidate in accepted)))
    return [_staged(desk, candidate, _ids(candidate.stored) or next(fresh)) for candidate in accepted]


def _ids(stored: StoredSubscriber | None) -> tuple[int, int, int] | None:
    if stored is None:
        return None
    assert stored.account_id is not None
    assert stored.service_id is not None
    return stored.subscriber_id, stored.account_id, stored.service_id


def _staged(desk: Desk, candidate: Candidate, ids: tuple[int, int, int]) -> StagedRow:
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
