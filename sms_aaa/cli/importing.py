"""`sms-aaa subscriber import`: many subscribers out of a file, a batch a transaction."""

from __future__ import annotations

import sys
import time
from collections import Counter
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from sms_aaa.cli.caller import Caller, pass_caller
from sms_aaa.cli.exits import Exit, Failure
from sms_aaa.cli.options import listing_options, ticket_option
from sms_aaa.cli.output import Cell, Format, facts, note
from sms_aaa.cli.verbs import Verb

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sms_aaa.cli.importfiles import RejectsFile, Source
    from sms_aaa.db.imports import ImportRun
    from sms_aaa.flows.import_reading import Order
    from sms_aaa.flows.provisioning.desk import Desk
    from sms_aaa.rules.tabular import Record

TRIES_MAX = 5
SAID_EVERY_SECONDS = 5.0
"""How often the progress is a line in a log; a terminal has a bar."""


@click.command("import", cls=Verb)
@click.argument("file", metavar="FILE.csv")
@click.option("--dry-run", is_flag=True, help="Check everything, report the same, and store nothing.")
@click.option("--update", is_flag=True, help="A subscriber that exists becomes what its row says; else it is rejected.")
@click.option("--rejects", metavar="FILE", help="Where rejected rows go; else FILE.csv.rejects.csv.")
@click.option("--again", is_flag=True, help="Import a file that was imported to its end before.")
@ticket_option
@listing_options
@pass_caller
def import_(
    caller: Caller,
    file: str,
    *,
    dry_run: bool,
    update: bool,
    rejects: str | None,
    again: bool,
    ticket: str | None,
    form: Format,
) -> None:
    """Add subscribers out of a CSV file (UTF-8, commas; `-` is standard input).

    Its first line names the columns, in any order: name, and any of username, mac, password, password_form (as --form
    of `subscriber add`), plan, plan_version, full_name, email, phone, state (active, suspended, blocked), state_reason,
    static_ipv4, valid_from, valid_until, bind_mac, bind_nas, bind_port (each thing on a line of its own), currency,
    zone, anchor_day. An empty cell means the default: the name as user name, cleartext, the plan of the name's realm in
    its newest version, active, rating.zone, rating.anchor_day.

    A row that cannot be is rejected alone, into a file with its line, field, reason and remedy, which can be mended and
    imported itself. That file has the rows' passwords: its mode is 0600. The exit code is 1 if any row is rejected.

    An import that was stopped, or killed, goes on where it was when the same command is given again. A file that was
    imported to its end is not imported twice.

    With --update, an empty cell leaves what is stored; but contacts, static_ipv4, dates and bindings are emptied by it.
    A change of plan takes effect at once, and the new plan's fee is charged beside the old one's.

    Example: sms-aaa subscriber import customers.csv --dry-run
    """
    from sms_aaa.cli.importfiles import RejectsFile, open_source, rejects_path
    from sms_aaa.flows.importing import begin_import

    path = rejects_path(rejects, file)
    began = time.monotonic()
    fields: Counter[str] = Counter()
    with open_source(file) as source, caller.connect() as connection:
        order = _order(caller, source, updates=update, is_dry=dry_run)
        with closing(RejectsFile(path)) as rejected:
            desk = caller.desk(connection, ticket)
            run = begin_import(desk, order, now=datetime.now(UTC), again=again)
            connection.commit()
            if run.finished_at is None:
                with _progress(run, source.lines) as say:
                    run = _import(desk, order, source, run, rejected, fields, say)
                rejected.close(keep=run.rejected > 0)
            else:
                note(f"import {run.id} of this file ended at {run.finished_at:%Y-%m-%d %H:%M:%SZ}; --again repeats it")
    _report(run, form, rejects=str(path), seconds=time.monotonic() - began, is_dry=dry_run)
    for field, count in fields.most_common():
        note(f"rejected for {field}: {count}")
    if run.rejected:
        note(f"{path} has the rejected rows, passwords included; remove it when they are mended")
        raise click.exceptions.Exit(Exit.DIFFERENT)


def _order(caller: Caller, source: Source, *, updates: bool, is_dry: bool) -> Order:
    from sms_aaa.flows.import_reading import Order
    from sms_aaa.flows.provisioning.desk import Invalid
    from sms_aaa.flows.roster import Defaults, read_header
    from sms_aaa.rules.tabular import read_records

    head = next(read_records(source.file.readline), None)
    if head is None or head.fault is not None:
        reason = "there is none" if head is None else str(head.fault)
        raise Invalid("the first line", reason, "it names the columns, such as name,plan,password")
    rating = caller.settings.rating
    return Order(
        digest=source.digest,
        octets=source.octets,
        header=read_header(head.cells),
        header_record=head,
        defaults=Defaults(rating.zone, rating.anchor_day),
        updates=updates,
        is_dry=is_dry,
    )


def _import(
    desk: Desk,
    order: Order,
    source: Source,
    run: ImportRun,
    rejects: RejectsFile,
    fields: Counter[str],
    say: Callable[[ImportRun], None],
) -> ImportRun:
    """From where the import is to the end of the file; Failure says where it stopped."""
    from sms_aaa.db.engine import Unavailable
    from sms_aaa.flows.importing import batches, finish_import
    from sms_aaa.rules.tabular import read_records

    if run.octets > order.header_record.end:
        note(f"import {run.id} goes on behind line {run.line}")
    if not rejects.begin(order, run.rejects_octets) and run.rejected:
        note(f"the rejects file is not what it was: the {run.rejected} rows rejected so far are not in it")
    source.file.seek(run.octets)
    records = read_records(source.file.readline, line=run.line + 1, offset=run.octets)
    try:
        for batch in batches(records):
            run = _store(desk, order, run, batch, rejects, fields)
            source.check_unchanged()
            desk.connection.commit()
            say(run)
        if not order.is_dry:
            finish_import(desk, run)
            desk.connection.commit()
    except KeyboardInterrupt:
        raise _stopped(Exit.ABORTED, "stopped", order, run) from None
    except Unavailable as away:
        said = str(away).strip().partition("\n")[0]
        raise _stopped(Exit.UNAVAILABLE, f"the database: {said}", order, run) from None
    return run


def _store(
    desk: Desk, order: Order, run: ImportRun, batch: list[Record], rejects: RejectsFile, fields: Counter[str]
) -> ImportRun:
    """A batch and the new position in one transaction, which is not committed yet.

    When somebody took something of it meanwhile, it is done again: then that row is rejected.
    """
    from sms_aaa.db.engine import Conflict, Poison
    from sms_aaa.flows.importing import commit_batch, import_batch, import_one_by_one

    work = import_batch
    for attempt in range(TRIES_MAX):
        try:
            after, rejected = work(desk, order, run, batch)
            break
        except (*Conflict, *Poison) as refusal:
            desk.connection.rollback()
            if attempt + 1 == TRIES_MAX:
                raise
            work = import_batch if isinstance(refusal, Conflict) else import_one_by_one
    rejects.add(rejected)
    fields.update(reject.field for reject in rejected)
    after = replace(after, rejects_octets=rejects.octets)
    if not order.is_dry:
        commit_batch(desk, run, after)
    return after


def _stopped(code: Exit, reason: str, order: Order, run: ImportRun) -> Failure:
    if order.is_dry:
        return Failure(code, f"{reason} behind line {run.line}", "nothing was stored")
    return Failure(code, f"{reason}; import {run.id} is stored up to line {run.line}", "the same command goes on there")


@contextmanager
def _progress(run: ImportRun, lines: int) -> Iterator[Callable[[ImportRun], None]]:
    """A bar on a terminal, else a line now and then; on stderr."""
    if not sys.stderr.isatty():
        yield _lines(lines)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("lines", total=lines, completed=run.line)

        def show(now: ImportRun) -> None:
            bar.update(task, completed=min(now.line, lines), description=f"lines, {now.rejected} rejected")

        yield show


def _lines(lines: int) -> Callable[[ImportRun], None]:
    said_at = time.monotonic()

    def say(now: ImportRun) -> None:
        nonlocal said_at
        if time.monotonic() - said_at >= SAID_EVERY_SECONDS:
            said_at = time.monotonic()
            note(f"line {now.line} of {lines}, {now.rejected} rejected")

    return say


def _report(run: ImportRun, form: Format, *, rejects: str, seconds: float, is_dry: bool) -> None:
    values: dict[str, Cell] = {
        "import": run.id or None,
        "dry_run": is_dry,
        "lines": run.line,
        "added": run.added,
        "updated": run.updated,
        "unchanged": run.unchanged,
        "rejected": run.rejected,
        "rejects_file": rejects if run.rejected else None,
        "seconds": round(seconds),
    }
    facts(values, form)
