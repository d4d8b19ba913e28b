"""`sms-aaa journal`: how the node's journal stands and what is in it. It needs neither server nor PostgreSQL."""

from __future__ import annotations

import shutil
from collections import deque
from typing import TYPE_CHECKING

import click

from sms_aaa.cli.caller import Caller, pass_caller
from sms_aaa.cli.exits import Exit, Failure
from sms_aaa.cli.journal_place import READABLE, journal_place, perhaps_connected
from sms_aaa.cli.journal_replay import replay
from sms_aaa.cli.journal_verify import verify
from sms_aaa.cli.options import listing_options, parse_instant
from sms_aaa.cli.output import Cell, Format, Shown, document, facts, heading, json_line, listing, note, octets, say
from sms_aaa.cli.record_view import RECORD_COLUMNS, record_cells, record_document, show_record
from sms_aaa.cli.verbs import Verbs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sms_aaa.flows.reading_records import ReadRecord, Sought
    from sms_aaa.flows.surveying import FileState, JournalPlace
    from sms_aaa.node.journal_survey import Look

SHOWN_MAX = 20
_FILE_COLUMNS = (
    "stream", "file", "writer", "octets", "end", "position", "finished", "backlog_octets", "backlog_records",
    "oldest_at", "deletable_at", "fault",
)  # fmt: skip
_STATUSES = {"start": "Start", "stop": "Stop", "interim": "Interim-Update", "on": "Accounting-On",
             "off": "Accounting-Off"}  # fmt: skip


@click.group(cls=Verbs)
def journal() -> None:
    """The node's journal: what was answered is in it, before PostgreSQL has it and for some days after.

    Two streams, accounting and decisions, each a folder of files. A place in it is FILE:OFFSET, as `explain`,
    `anomalies` and `quarantine` print it.

    Example: sms-aaa journal status
    """


journal.add_command(verify)
journal.add_command(replay)


@journal.command()
@click.option("--unsettled", is_flag=True, help="Only files of which something is not settled.")
@listing_options
@pass_caller
def status(caller: Caller, form: Format, *, unsettled: bool) -> None:
    """Say how the journal stands: each file, who writes it, how far it is settled, what waits, when it may go.

    Writers are alive, or have closed their file; an orphan's writer died. `end` is how far a file may be read: of a
    live one, what is on disk. A settled file goes when its retention is over; where room is short, earlier, but never
    before `retention_hours_min`. It answers while PostgreSQL is away, without positions, and while no server runs. The
    exit code is 1 when a file is missing or cannot be read.

    Example: sms-aaa journal status --unsettled
    """
    from sms_aaa.flows.surveying import survey
    from sms_aaa.node.journal import JournalFault

    retention_days = caller.settings.journal.retention_days
    with journal_place(caller) as place, perhaps_connected(caller, "positions are not known") as connection:
        found = survey(connection, place, retention_days=retention_days)
    if isinstance(found, JournalFault):
        raise Failure(Exit.UNAVAILABLE, found.detail, READABLE)
    shown = [state for state in found if not unsettled or not state.finished]
    totals = _totals(caller, found, is_known=connection is not None)
    if form is Format.JSON:
        document({**totals, "files": [dict(zip(_FILE_COLUMNS, _file_cells(one), strict=True)) for one in shown]})
    elif form is Format.CSV:
        listing(_FILE_COLUMNS, [_file_cells(one) for one in shown], form)
    else:
        facts(totals, form)
        heading("files")
        listing(_FILE_COLUMNS[:-1], [_file_cells(one)[:-1] for one in shown], form, empty="none")
        for one in found:
            if one.fault is not None:
                note(f"sms-aaa: {one.stream.name.lower()} {one.sequence:020d}: {one.fault}")
    if any(one.fault is not None for one in found):
        raise click.exceptions.Exit(Exit.DIFFERENT)


@journal.command()
@click.argument("place", metavar="[FILE[:OFFSET]]", required=False)
@click.option("--stream", type=click.Choice(["accounting", "decisions"]), default="accounting", show_default=True)
@click.option("--nas", "nas_name", metavar="NAME", help="Of one access server.")
@click.option("--user", metavar="NAME", help="Of this user name, as the NAS sent it.")
@click.option("--session", metavar="ID", help="Of this Acct-Session-Id.")
@click.option("--status", metavar="WORD", help="start, stop, interim, on, off; of decisions their reason.")
@click.option("--from", "since", metavar="TIME", help="Received from then on.")
@click.option("--to", "until", metavar="TIME", help="Received before.")
@click.option("--limit", type=click.IntRange(1, 100_000), help="So many; 20, or 1 where an OFFSET is given.")
@click.option("--raw", is_flag=True, help="The packet's octets too, in hex.")
@click.option("--lines", is_flag=True, help="JSON, one record a line, as they are read.")
@listing_options
@pass_caller
def show(
    caller: Caller,
    place: str | None,
    stream: str,
    nas_name: str | None,
    user: str | None,
    session: str | None,
    status: str | None,
    since: str | None,
    until: str | None,
    limit: int | None,
    *,
    raw: bool,
    lines: bool,
    form: Format,
) -> None:
    """Show records as they came: every attribute by its name, a vendor's too. Secrets read ***.

    FILE is a file's number or its path; from FILE:OFFSET on the first records are shown, otherwise the last ones. What
    is shown need not be settled yet. The names of NASes come from PostgreSQL, or from the node's replica.

    Example: sms-aaa journal show --user alice --status stop --from 2026-01-31T12:00

    Example: sms-aaa journal show 1795000000000000000:64 --raw
    """
    from sms_aaa.flows.reading_records import Sought

    names = _nas_names(caller)
    zone = caller.settings.rating.zone
    sought = Sought(
        nas_id=_nas_id(names, nas_name) if nas_name is not None else None,
        username=user,
        session=session,
        status=_STATUSES.get(status, status) if status is not None else None,
        since=parse_instant(since, zone, option="--from") if since is not None else None,
        until=parse_instant(until, zone, option="--to") if until is not None else None,
    )
    with journal_place(caller) as where:
        found = _records(where, place, stream, sought, limit)
        if lines:
            for one in found:
                json_line(record_document(one, names, raw=raw))
            return
        _tell(list(found), names, form, raw=raw)


def _totals(caller: Caller, found: list[FileState], *, is_known: bool) -> dict[str, Cell]:
    from sms_aaa.node.journal import Stream

    root = caller.journal_folder
    totals: dict[str, Cell] = {"node": caller.settings.node.name, "folder": str(root)}
    for stream in Stream:
        files = [one for one in found if one.stream is stream]
        backlogs = [one.backlog for one in files if one.backlog is not None]
        counts = [backlog.records for backlog in backlogs]
        waiting = [backlog.oldest_at for backlog in backlogs if backlog.oldest_at is not None]
        name = stream.name.lower()
        totals[f"{name}_files"] = len(files)
        totals[f"{name}_octets"] = octets(sum(one.look.file.octets for one in files if one.look is not None))
        unknown = Shown(None, "not known")
        totals[f"{name}_backlog_octets"] = octets(sum(one.octets for one in backlogs)) if is_known else unknown
        totals[f"{name}_backlog_records"] = (
            sum(count for count in counts if count is not None) if is_known and None not in counts else unknown
        )
        totals[f"{name}_oldest_at"] = min(waiting, default=None)
    existing = next(folder for folder in (root, *root.parents) if folder.exists())
    totals["disk_free_octets"] = octets(shutil.disk_usage(existing).free)
    settings = caller.settings.journal
    bound = settings.accounting_octets_max
    totals["accounting_octets_max"] = octets(bound) if bound else Shown(0, "the disk")
    totals["decisions_octets_max"] = octets(settings.decisions_octets_max)
    totals["retention_days"] = settings.retention_days
    totals["retention_hours_min"] = settings.retention_hours_min
    return totals


def _file_cells(one: FileState) -> tuple[Cell, ...]:
    seen, backlog = one.look, one.backlog
    records = Shown(None, "many") if backlog is not None and backlog.records is None else None
    return (
        one.stream.name.lower(), f"{one.sequence:020d}", one.writer.value,
        octets(seen.file.octets) if seen is not None else None, seen.end if seen is not None else None, one.position,
        one.finished, octets(backlog.octets) if backlog is not None else None,
        backlog.records if backlog is not None and records is None else records,
        backlog.oldest_at if backlog is not None else None, one.deletable_at, one.fault,
    )  # fmt: skip


def _records(
    where: JournalPlace, place: str | None, stream: str, sought: Sought, limit: int | None
) -> Iterator[ReadRecord]:
    """With a place the first of it, without one the last of the journal; in their order."""
    from itertools import islice

    from sms_aaa.flows.reading_records import read_records

    if place is not None:
        seen, offset = _file_at(where, place)
        yield from islice(read_records(seen, sought, offset=offset), limit or (1 if offset else SHOWN_MAX))
        return
    kept: deque[ReadRecord] = deque(maxlen=limit or SHOWN_MAX)
    for seen in _looks(where, stream):
        newest_first = list(deque(read_records(seen, sought), maxlen=(limit or SHOWN_MAX) - len(kept)))
        kept.extendleft(reversed(newest_first))
        if len(kept) == kept.maxlen:
            break
    yield from kept


def _looks(where: JournalPlace, name: str) -> Iterator[Look]:
    """The stream's files that can be read, the newest first."""
    from sms_aaa.node.journal import JournalFault, Stream
    from sms_aaa.node.journal_survey import files_of, look

    stream = Stream[name.upper()]
    files = files_of(where.root, stream)
    if isinstance(files, JournalFault):
        raise Failure(Exit.UNAVAILABLE, files.detail, READABLE)
    for file in reversed(files):
        seen = look(file, stream=stream, board=where.board)
        if seen.fault is not None:
            note(f"sms-aaa: {seen.fault.detail}")
        yield seen


def _file_at(where: JournalPlace, place: str) -> tuple[Look, int]:
    """The file that a place names, and the offset in it; 0: from its beginning."""
    from sms_aaa.node.journal import JournalFault
    from sms_aaa.node.journal_survey import find_file, look

    name, _, tail = place.rpartition(":")
    if not name or not (tail.isascii() and tail.isdigit()):
        name, tail = place, "0"
    found = find_file(where.root, name)
    if isinstance(found, JournalFault):
        raise Failure(Exit.NOT_FOUND, found.detail, "see `sms-aaa journal status`; another node's place is shown there")
    stream, file = found
    seen = look(file, stream=stream, board=where.board)
    if seen.fault is not None:
        raise Failure(Exit.UNAVAILABLE, seen.fault.detail, "see `sms-aaa journal verify`")
    return seen, int(tail)


def _tell(found: list[ReadRecord], names: dict[int, str], form: Format, *, raw: bool) -> None:
    if form is Format.JSON:
        document([record_document(one, names, raw=raw) for one in found])
        return
    if form is Format.CSV:
        listing(RECORD_COLUMNS, [record_cells(one, names) for one in found], form)
        return
    for one in found:
        show_record(one, names, raw=raw)
    if not found:
        say("nothing")


def _nas_id(names: dict[int, str], name: str) -> int:
    found = next((nas_id for nas_id, known in names.items() if known == name), None)
    if found is None:
        raise Failure(Exit.NOT_FOUND, f"there is no NAS {name}", "see `sms-aaa nas list`")
    return found


def _nas_names(caller: Caller) -> dict[int, str]:
    """By id: from PostgreSQL, else from the node's replica."""
    from sms_aaa.flows.recalling import nas_names

    try:
        connection = caller.connect()
    except Failure:
        return nas_names(None, caller.state_folder)
    with connection:
        return nas_names(connection, caller.state_folder)
