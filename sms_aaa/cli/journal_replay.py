"""`sms-aaa journal replay`: settles records again, from kept files. Repeated, it changes nothing."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sms_aaa.cli.caller import Caller, pass_caller
from sms_aaa.cli.exits import Exit, Failure
from sms_aaa.cli.journal_place import READABLE, journal_place, release_places
from sms_aaa.cli.options import confirm, listing_options, parse_instant, ticket_option, yes_option
from sms_aaa.cli.output import Cell, Format, document, facts, heading, listing, note, octets
from sms_aaa.cli.progress import progress_of
from sms_aaa.cli.verbs import Verb

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sms_aaa.db.engine import Connection
    from sms_aaa.flows.replaying import Plan, Replayed
    from sms_aaa.flows.surveying import JournalPlace
    from sms_aaa.node.journal_reader import Batch, JournalFile

STATEMENT_TIMEOUT_SECONDS = 600
CONFLICT_TRIES_MAX = 5
CONFLICT_PAUSE_SECONDS = 0.2
_MEGABYTE = 1_000_000
_COLUMNS = (
    "node", "file", "position", "records", "received_from", "received_to", "known", "idle", "in_quarantine",
    "waiting", "to_settle", "damaged",
)  # fmt: skip


@click.command(cls=Verb)
@click.argument("files", metavar="[FILE]...", nargs=-1)
@click.option("--from", "since", metavar="TIME", help="Every file with records received from then on.")
@click.option("--to", "until", metavar="TIME", help="And before.")
@click.option("--folder", metavar="DIR", help="A copied journal folder, of a node that is dead.")
@click.option("--node", "node", metavar="NAME", help="Whose that is: the node.name it had.")
@click.option("--dry-run", is_flag=True, help="Say what would be settled, and end.")
@yes_option
@ticket_option
@listing_options
@pass_caller
def replay(
    caller: Caller,
    files: tuple[str, ...],
    since: str | None,
    until: str | None,
    folder: str | None,
    node: str | None,
    *,
    dry_run: bool,
    yes: bool,
    ticket: str | None,
    form: Format,
) -> None:
    """Settle accounting records again: each FILE, or those with records of a time, or a dead node's folder.

    What was settled already is recognised by its place and stays as it is, so a replay may be repeated, and files are
    replayed whole. What is left: records that a mended decoder understands now, a damaged stretch that was restored,
    what a dead node did not settle any more. After a rewind of PostgreSQL a running server settles again by itself,
    since its positions were rewound too.

    What you see before it asks is what it will do. Known: it was settled, or would change nothing. Idle: it says
    nothing that is settled, as an unknown Acct-Status-Type. In quarantine: see `sms-aaa quarantine`. Waiting: the
    running server settles it. To settle: it is settled now.

    Example: sms-aaa journal replay --from 2026-01-31T12:00 --to 2026-01-31T14:00 --dry-run

    Example: sms-aaa journal replay --folder /mnt/node2/journal --node node2 --ticket INC-42
    """
    from sms_aaa.db.nas import list_single

    _check_usage(files, since=since, until=until, folder=folder, node=node)
    zone = caller.settings.rating.zone
    span = (
        parse_instant(since, zone, option="--from") if since is not None else None,
        parse_instant(until, zone, option="--to") if until is not None else None,
    )
    with (
        journal_place(caller) as place,
        caller.connect(statement_timeout_seconds=STATEMENT_TIMEOUT_SECONDS) as connection,
    ):
        single_nas = list_single(connection)
        chosen = _choose(place, files, span, Path(folder) if folder is not None else None)
        plans = _plan(caller, connection, place, chosen, node, single_nas)
        if form is Format.TABLE:
            listing(_COLUMNS, [_cells(one) for one in plans], form, empty="no file")
        done = None
        if _is_anything(plans) and not dry_run:
            confirm(_question(plans), yes=yes)
            done = _replay(caller, connection, plans, single_nas, ticket)
    _tell(plans, done, form, dry_run=dry_run)


def _check_usage(
    files: Sequence[str], *, since: str | None, until: str | None, folder: str | None, node: str | None
) -> None:
    if folder is None and node is not None:
        raise click.UsageError("--node names whose --folder it is: give both.")
    if folder is not None and node is None:
        raise click.UsageError("a folder does not say whose it is: give --node too.")
    if not files and since is None and until is None and folder is None:
        raise click.UsageError("say what to replay: a FILE, --from and --to, or --folder.")


def _choose(
    place: JournalPlace, names: Sequence[str], span: tuple[datetime | None, datetime | None], folder: Path | None
) -> list[JournalFile]:
    """Accounting files by name, else those of the folder whose records may lie in the span."""
    from sms_aaa.node.journal import JournalFault, Stream, stream_folder
    from sms_aaa.node.journal_reader import list_files
    from sms_aaa.node.journal_survey import find_file

    root = folder or place.root
    accounting = stream_folder(root, Stream.ACCOUNTING)
    if folder is not None and not accounting.is_dir():
        accounting = folder  # the stream's own folder was copied
    if not names:
        listed = list_files(accounting)
        if isinstance(listed, JournalFault):
            raise Failure(Exit.NOT_FOUND, listed.detail, "see `sms-aaa journal status`")
        return [file for file in listed if _lies_in(file, span)]
    chosen = []
    for name in names:
        found = find_file(root, name)
        if isinstance(found, JournalFault):
            raise Failure(Exit.NOT_FOUND, found.detail, "see `sms-aaa journal status`")
        stream, file = found
        if stream is not Stream.ACCOUNTING:
            raise Failure(Exit.INVALID, f"{file.path} is of the stream of decisions", "only accounting is replayed")
        chosen.append(file)
    return chosen


def _lies_in(file: JournalFile, span: tuple[datetime | None, datetime | None]) -> bool:
    """A file's name is when it was begun, its time when it was written last."""
    since, until = span
    return (since is None or file.written_at >= since.timestamp()) and (
        until is None or file.sequence < until.timestamp() * 1e9
    )


def _plan(
    caller: Caller,
    connection: Connection,
    place: JournalPlace,
    chosen: Sequence[JournalFile],
    node: str | None,
    single_nas: dict[int, bool],
) -> list[Plan]:
    from sms_aaa.db.feed import get_database_id
    from sms_aaa.flows.replaying import look_up, plan
    from sms_aaa.node.journal import Stream
    from sms_aaa.node.journal_survey import look
    from sms_aaa.server.runfile import find_running

    database_id = get_database_id(connection)
    name = node or place.node
    is_settled_by_server = name == place.node and find_running(caller.state_folder) is not None
    plans, of = [], sum(file.octets for file in chosen)
    with progress_of("MB read") as progress:
        done = 0
        for file in chosen:
            seen = look(file, stream=Stream.ACCOUNTING, board=place.board)
            if seen.fault is not None or seen.header is None:
                detail = seen.fault.detail if seen.fault is not None else str(file.path)
                raise Failure(Exit.UNAVAILABLE, detail, READABLE)
            if seen.header.database_id != database_id:
                raise Failure(Exit.CONFLICT, f"{file.path} was written for another database", "settle it there (J8)")
            looked = look_up(connection, seen, node=name, may_move=not is_settled_by_server)
            plans.append(plan(connection, looked, single_nas=single_nas))
            connection.commit()
            done += file.octets
            progress(done // _MEGABYTE, of // _MEGABYTE)
    return plans


def _is_anything(plans: Sequence[Plan]) -> bool:
    """Whether there is a record to settle, or a position to move behind what says nothing."""
    from sms_aaa.flows.replaying import Fate

    return any(
        one.counts[Fate.NEW] or (one.file.may_move and (one.file.position or 0) < one.file.seen.end and one.records)
        for one in plans
    )


def _question(plans: Sequence[Plan]) -> str:
    from sms_aaa.flows.replaying import Fate

    new = sum(one.counts[Fate.NEW] for one in plans)
    moving = sum(one.file.may_move and (one.file.position or 0) < one.file.seen.end for one in plans)
    return f"{new} records are settled, the positions of {moving} files move. Replay?"


def _replay(
    caller: Caller, connection: Connection, plans: Sequence[Plan], single_nas: dict[int, bool], ticket: str | None
) -> Replayed:
    from sms_aaa.db.audit import insert_change
    from sms_aaa.flows.replaying import Replayed, batches, moves

    total, of = Replayed(), sum(one.file.seen.end for one in plans)
    with progress_of("MB replayed") as progress:
        before = 0
        for plan in plans:
            done, position = Replayed(), plan.file.position
            for batch in batches(plan):
                step = _replay_batch(connection, plan, batch, position, single_nas)
                if moves(plan, batch, position):
                    position = batch.next_offset
                done.add(step)
                release_places(caller, step.releases)
                progress((before + batch.next_offset) // _MEGABYTE, of // _MEGABYTE)
            before += plan.file.seen.end
            told = {"node": plan.file.node, "records": done.records, "deltas": done.deltas, "position": position}
            insert_change(
                connection, caller.actor(ticket), action="replayed", object_kind="journal",
                object_id=plan.file.sequence, before={"position": plan.file.position}, after=told,
            )  # fmt: skip
            connection.commit()
            total.add(done)
    return total


def _replay_batch(
    connection: Connection, plan: Plan, batch: Batch, position: int | None, single_nas: dict[int, bool]
) -> Replayed:
    """Committed, or nothing of it: somebody else may be at work on the same sessions."""
    from sms_aaa.db.engine import Conflict
    from sms_aaa.flows.replaying import Outpaced, replay_batch

    for attempt in range(CONFLICT_TRIES_MAX):
        try:
            done = replay_batch(connection, plan, batch, position=position, single_nas=single_nas)
            connection.commit()
        except Outpaced:
            connection.rollback()
            raise Failure(
                Exit.CONFLICT,
                f"somebody else settles file {plan.file.sequence} of {plan.file.node}",
                "leave it to that settler; what was done here is done",
            ) from None
        except Conflict:
            connection.rollback()
            if attempt == CONFLICT_TRIES_MAX - 1:
                raise
            time.sleep(CONFLICT_PAUSE_SECONDS * (attempt + 1))
        else:
            return done
    raise AssertionError("unreachable")


def _tell(plans: Sequence[Plan], done: Replayed | None, form: Format, *, dry_run: bool) -> None:
    told = _done_cells(done) if done is not None else None
    if form is Format.JSON:
        rows = [dict(zip(_COLUMNS, _cells(one), strict=True)) for one in plans]
        document({"dry_run": dry_run, "files": rows, "done": told})
        return
    if form is Format.CSV:
        listing(_COLUMNS, [_cells(one) for one in plans], form)
    elif told is not None:
        heading("done")
        facts(told, form)
        return
    note("nothing was changed" if told is None else f"{told['records_settled']} records settled")


def _done_cells(done: Replayed) -> dict[str, Cell]:
    return {
        "records_settled": done.records,
        "deltas": done.deltas,
        "octets_up": octets(done.octets_in),
        "octets_down": octets(done.octets_out),
        "anomalies": done.anomalies,
        "quarantined": done.quarantined,
    }


def _cells(one: Plan) -> tuple[Cell, ...]:
    from sms_aaa.flows.replaying import Fate

    counts, file = one.counts, one.file
    return (
        file.node, f"{file.sequence:020d}", file.position, one.records, one.first_at, one.last_at, counts[Fate.KNOWN],
        counts[Fate.IDLE], counts[Fate.ASIDE], counts[Fate.WAITING], counts[Fate.NEW], one.damaged,
    )  # fmt: skip
