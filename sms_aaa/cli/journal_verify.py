"""`sms-aaa journal verify`: whether every octet of the journal is accounted for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from sms_aaa.cli.caller import Caller, pass_caller
from sms_aaa.cli.exits import Exit, Failure
from sms_aaa.cli.journal_place import journal_place, perhaps_connected
from sms_aaa.cli.options import listing_options
from sms_aaa.cli.output import Cell, Format, document, listing, note, octets
from sms_aaa.cli.progress import progress_of
from sms_aaa.cli.verbs import Verb

if TYPE_CHECKING:
    from sms_aaa.flows.checking_journal import Checked, Finding

_COLUMNS = ("stream", "place", "octets", "finding", "damage", "detail", "remedy")
_MEGABYTE = 1_000_000


@click.command(cls=Verb)
@click.argument("files", metavar="[FILE]...", nargs=-1)
@listing_options
@pass_caller
def verify(caller: Caller, files: tuple[str, ...], form: Format) -> None:
    """Check the journal's files, all of them or each FILE, and compare them with PostgreSQL's positions.

    Each header, each record's checksum, what stands between records, each file that must be there. A finding has its
    place and its remedy. What a writer's death leaves at the end of its file (torn-tail) is told, but is no damage:
    it was never answered. The exit code is 1 when there is damage. Without PostgreSQL the files are checked alone.

    Example: sms-aaa journal verify

    Example: sms-aaa journal verify /mnt/node2/journal/accounting/01795000000000000000.journal --json
    """
    from sms_aaa.flows.checking_journal import check_journal
    from sms_aaa.node.journal import JournalFault

    with (
        journal_place(caller) as place,
        perhaps_connected(caller, "the files are checked alone") as connection,
        progress_of("MB") as progress,
    ):
        found = check_journal(
            connection, place, files, progress=lambda done, of: progress(done // _MEGABYTE, of // _MEGABYTE)
        )
    if isinstance(found, JournalFault):
        raise Failure(Exit.NOT_FOUND, found.detail, "see `sms-aaa journal status`")
    _tell(found, form)
    if found.damages:
        raise click.exceptions.Exit(Exit.DIFFERENT)


def _tell(found: Checked, form: Format) -> None:
    rows = [_cells(one) for one in found.findings]
    if form is Format.JSON:
        document({
            "files": found.files,
            "records": found.records,
            "octets": found.octets,
            "positions_compared": found.knows_positions,
            "damages": found.damages,
            "findings": [dict(zip(_COLUMNS, row, strict=True)) for row in rows],
        })  # fmt: skip
        return
    listing(_COLUMNS, rows, form, empty="nothing is damaged")
    note(f"{found.files} files, {found.records} records, {octets(found.octets).text}: {found.damages} damages")


def _cells(one: Finding) -> tuple[Cell, ...]:
    place = f"{one.sequence:020d}" if one.offset is None else f"{one.sequence:020d}:{one.offset}"
    return one.stream.name.lower(), place, one.octets, one.kind, one.is_damage, one.detail, one.remedy
