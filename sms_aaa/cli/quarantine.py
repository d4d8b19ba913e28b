"""`sms-aaa quarantine`: records that could not be settled: what they are, why, and their way out.

It is no part of `journal`: a journal is a node's, the quarantine is the whole house's, in PostgreSQL; what is in it can
be settled from any node, when the journal file behind it is long gone.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

import click

from sms_aaa.cli.caller import Caller, pass_caller
from sms_aaa.cli.exits import Exit, Failure
from sms_aaa.cli.journal_place import release_places
from sms_aaa.cli.options import confirm, listing_options, ticket_option, yes_option
from sms_aaa.cli.output import Cell, Format, document, facts, listing, note, say
from sms_aaa.cli.record_view import record_document, show_record
from sms_aaa.cli.verbs import Verbs

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sms_aaa.db.engine import Connection
    from sms_aaa.db.quarantine import AsideRow
    from sms_aaa.flows.quarantining import Tried
    from sms_aaa.flows.reading_records import ReadRecord
    from sms_aaa.node.journal import Stream
    from sms_aaa.rules.session import Place

CONFLICT_TRIES_MAX = 5
CONFLICT_PAUSE_SECONDS = 0.2
_COLUMNS = (
    "id", "at", "node", "stream", "place", "reason", "username", "session", "tries", "resolution", "resolved_at",
    "resolved_by", "note",
)  # fmt: skip
_TABLE_COLUMNS = ("id", "at", "node", "place", "reason", "username", "session", "tries")
_REMEDIES = {
    "unknown-nas": "this database has no such NAS: was it restored from an older state?",
    "no-acct-session-id": "the NAS sent no Acct-Session-Id: mend the NAS, then dismiss it",
    "implausible-counters": "no port counts that much: mend the NAS, then dismiss it",
    "too-late": "its session ended long ago and lies in the history: dismiss it",
    "version": "written by another version of this program: retry it with that one or a newer",
    "refused": "PostgreSQL refused it: see its log, mend that, then retry",
    "damaged": "the disk changed it: restore its file from a copy, `sms-aaa journal replay` it, then retry",
}


@click.group(cls=Verbs)
def quarantine() -> None:
    """Records that could not be settled. Their octets are in no session, until they are settled after all.

    A record has a reason. Mend what it says, then retry; or dismiss it, saying why.

    Example: sms-aaa quarantine list
    """


@quarantine.command("list")
@click.option("--reason", metavar="REASON", help="With this reason.")
@click.option("--node", metavar="NAME", help="Of this node's journal.")
@click.option("--all", "every", is_flag=True, help="Those that were settled or dismissed, too.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=50, show_default=True, help="The newest so many.")
@listing_options
@pass_caller
def list_records(
    caller: Caller, reason: str | None, node: str | None, limit: int, form: Format, *, every: bool
) -> None:
    """List the records that wait, the newest first, with their reasons and what helps.

    Example: sms-aaa quarantine list --reason unknown-nas
    """
    from sms_aaa.db.quarantine import count_waiting, list_aside

    with caller.connect() as connection:
        rows = list_aside(connection, reason=reason, node=node, resolved=every, limit=limit)
        counts = count_waiting(connection)
    columns = _TABLE_COLUMNS if form is Format.TABLE and not every else _COLUMNS
    cells = [dict(zip(_COLUMNS, _cells(row), strict=True)) for row in rows]
    listing(columns, [[one[name] for name in columns] for one in cells], form, empty="nothing waits")
    if form is not Format.TABLE:
        return
    if counts:
        say()
    for kind, count in counts:
        say(f"{kind}: {count}; {_REMEDIES.get(kind.partition(':')[0], 'see `quarantine show`')}")


@quarantine.command()
@click.argument("row_id", metavar="ID", type=int)
@click.option("--raw", is_flag=True, help="The packet's octets too, in hex.")
@listing_options
@pass_caller
def show(caller: Caller, row_id: int, form: Format, *, raw: bool) -> None:
    """Show a record with all that it says, and what became of it. Secrets read ***.

    Example: sms-aaa quarantine show 17 --raw
    """
    from sms_aaa.db.nas import list_nas_names
    from sms_aaa.db.quarantine import find_aside

    with caller.connect() as connection:
        row = find_aside(connection, row_id, lock=False)
        names = list_nas_names(connection)
    if row is None:
        raise _not_found(row_id)
    told = dict(zip(_COLUMNS, _cells(row), strict=True))
    records = _decoded(row)
    if form is Format.JSON:
        document({**told, "records": [record_document(one, names, raw=raw) for one in records]})
        return
    facts(told, form)
    if form is Format.TABLE:
        for one in records:
            show_record(one, names, raw=raw)


@quarantine.command()
@click.argument("row_ids", metavar="[ID]...", type=int, nargs=-1)
@click.option("--reason", metavar="REASON", help="Every one with this reason.")
@click.option("--all", "every", is_flag=True, help="Every one that waits.")
@yes_option
@ticket_option
@listing_options
@pass_caller
def retry(
    caller: Caller,
    row_ids: tuple[int, ...],
    reason: str | None,
    ticket: str | None,
    form: Format,
    *,
    every: bool,
    yes: bool,
) -> None:
    """Settle records after all: each ID, all of a REASON, or all. What fails again stays, with its new reason.

    It is counted and rated as if it had been settled when it came. The exit code is 1 when one stays.

    Example: sms-aaa quarantine retry --reason "refused: CheckViolation" --ticket INC-42
    """
    from sms_aaa.db.nas import list_single
    from sms_aaa.flows.quarantining import Ending
    from sms_aaa.flows.quarantining import retry as retry_one

    with caller.connect() as connection:
        chosen = _choose(connection, row_ids, reason, every=every)
        if chosen:
            confirm(f"{len(chosen)} records are settled as if they came now. Retry?", yes=yes)
        single_nas, actor = list_single(connection), caller.actor(ticket)
        connection.commit()
        find = partial(_find, caller)
        tried = [
            _committed(connection, at, partial(retry_one, actor=actor, single_nas=single_nas, find=find))
            for at in chosen
        ]
    release_places(caller, [release for one in tried for release in one.releases])
    _tell(tried, form)
    if any(one.ending in {Ending.FAILED, Ending.UNREADABLE} for one in tried):
        raise click.exceptions.Exit(Exit.DIFFERENT)


@quarantine.command()
@click.argument("row_ids", metavar="[ID]...", type=int, nargs=-1)
@click.option("--reason", metavar="REASON", help="Every one with this reason.")
@click.option("--because", metavar="TEXT", required=True, help="Why; it is kept with the record.")
@yes_option
@ticket_option
@listing_options
@pass_caller
def dismiss(
    caller: Caller,
    row_ids: tuple[int, ...],
    reason: str | None,
    because: str,
    ticket: str | None,
    form: Format,
    *,
    yes: bool,
) -> None:
    """End the wait of records that are not to be settled. Their octets stay uncounted; the records stay on record.

    Example: sms-aaa quarantine dismiss 17 --because "a test of the vendor" --ticket INC-42
    """
    from sms_aaa.flows.quarantining import dismiss as dismiss_one

    with caller.connect() as connection:
        chosen = _choose(connection, row_ids, reason, every=False)
        if chosen:
            confirm(f"{len(chosen)} records will never be counted. Dismiss?", yes=yes)
        actor = caller.actor(ticket)
        connection.commit()
        tried = [_committed(connection, at, partial(dismiss_one, actor=actor, note=because)) for at in chosen]
    _tell(tried, form, done="dismissed")


def _choose(connection: Connection, row_ids: Sequence[int], reason: str | None, *, every: bool) -> list[int]:
    from sms_aaa.db.quarantine import list_waiting_ids

    ways = bool(row_ids) + (reason is not None) + every
    if ways != 1:
        raise click.UsageError("say which: by ID, or by --reason, or --all where that is possible.")
    return list(row_ids) or list_waiting_ids(connection, reason)


def _committed(connection: Connection, row_id: int, work: Callable[[Connection, int], Tried | None]) -> Tried:
    """Each record for itself: what is done stays when a later one fails."""
    from sms_aaa.db.engine import Conflict

    for attempt in range(CONFLICT_TRIES_MAX):
        try:
            tried = work(connection, row_id)
            connection.commit()
        except Conflict:
            connection.rollback()
            if attempt == CONFLICT_TRIES_MAX - 1:
                raise
            time.sleep(CONFLICT_PAUSE_SECONDS * (attempt + 1))
            continue
        if tried is None:
            raise _not_found(row_id)
        return tried
    raise AssertionError("unreachable")


def _find(caller: Caller, stream: Stream, place: Place) -> bytes | None:
    """What stands there in this node's journal."""
    from sms_aaa.node.journal import stream_folder
    from sms_aaa.node.journal_survey import read_at

    if place.node != caller.settings.node.name:
        return None
    return read_at(stream_folder(caller.journal_folder, stream), stream, place.sequence, place.offset)


def _tell(tried: Sequence[Tried], form: Format, *, done: str | None = None) -> None:
    columns = ("id", "outcome", "reason", "deltas")
    rows: list[tuple[Cell, ...]] = [
        (one.row.id, done if done is not None and one.ending == "settled" else one.ending.value, one.reason, one.deltas)
        for one in tried
    ]
    listing(columns, rows, form, empty="nothing waits")
    for one in tried:
        if one.ending == "unreadable":
            note(f"sms-aaa: {one.row.id}: only octets of it are here: restore its file, replay it, retry")


def _not_found(row_id: int) -> Failure:
    return Failure(Exit.NOT_FOUND, f"there is no record {row_id} in the quarantine", "see `sms-aaa quarantine list`")


def _decoded(row: AsideRow) -> list[ReadRecord]:
    from sms_aaa.flows.reading_records import decode
    from sms_aaa.node.journal import Stream

    return decode(Stream(row.stream), row.sequence, row.record_offset, row.raw)


def _cells(row: AsideRow) -> tuple[Cell, ...]:
    from sms_aaa.node.journal import Stream

    first = next(iter(_decoded(row)), None)
    return (
        row.id, row.at, row.node, Stream(row.stream).name.lower(), f"{row.sequence}:{row.record_offset}", row.reason,
        first.username if first is not None else None, first.session or None if first is not None else None, row.tries,
        row.resolution, row.resolved_at, row.resolved_by, row.note or None,
    )  # fmt: skip
