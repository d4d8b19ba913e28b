"""`sms-aaa status`: how the running server does, from its run file and its board. No process is asked, none waits."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from sms_aaa.cli.caller import Caller, pass_caller, schema_problem
from sms_aaa.cli.exits import Exit, Failure
from sms_aaa.cli.options import listing_options
from sms_aaa.cli.output import Cell, Format, Shown, document, facts, heading, listing, octets, say, seconds
from sms_aaa.cli.status_accounting import Accounting, accounting_cells, accounting_of, accounting_words, look
from sms_aaa.cli.verbs import Verb

if TYPE_CHECKING:
    from sms_aaa.node.board import Board
    from sms_aaa.server.runfile import Running

LOOK_SECONDS = 0.3
_PROCESS_COLUMNS = ("process", "pid", "up", "heartbeat_ms", "restarts", "since")


@dataclass(frozen=True, slots=True)
class Counts:
    """The board, summed over its slots where words count, the highest where they measure."""

    board: Board
    slots: tuple[int, ...]

    def sum(self, word: int) -> int:
        return sum(int(self.board.slot(slot).counters[word]) for slot in self.slots)

    def highest(self, word: int) -> int:
        return max((int(self.board.slot(slot).counters[word]) for slot in self.slots), default=0)


@click.command(cls=Verb)
@listing_options
@pass_caller
def status(caller: Caller, form: Format) -> None:
    """Say how the server on this machine does: accounting in words, processes, database, lags, drops.

    Counts are since its start. The exit code is 5 when no server runs.

    Example: sms-aaa status
    """
    from sms_aaa.node.board import Board
    from sms_aaa.server.runfile import find_running

    running = find_running(caller.state_folder)
    if running is None:
        raise Failure(
            Exit.UNAVAILABLE,
            f"no server runs in {caller.state_folder}",
            "start `sms-aaa serve`, or name its state folder",
        )
    board = Board.open(caller.state_folder / "board")
    if not isinstance(board, Board):
        raise Failure(Exit.UNAVAILABLE, board.detail, "look at its log")
    try:
        _tell(running, Counts(board, tuple(process.slot for process in running.processes)), caller, form)
    finally:
        board.close()


def _tell(running: Running, counts: Counts, caller: Caller, form: Format) -> None:
    accounting = _accounting(counts)
    known = _facts(running, counts, caller, accounting)
    processes = _processes(running, counts.board)
    drops = _drops(counts)
    decisions = _decisions(counts)
    if form is Format.JSON:
        document(
            {
                **known,
                "processes": [dict(zip(_PROCESS_COLUMNS, row, strict=True)) for row in processes],
                "drops": dict(drops),
                "decisions": dict(decisions),
                "anomalies_by_kind": dict(accounting.anomalies),
                "lapsed_by_cause": dict(accounting.lapsed),
            }
        )
        return
    facts(known, form)
    if form is Format.CSV:
        return
    heading("accounting")
    for line in accounting_words(accounting):
        say(line)
    heading("processes")
    listing(_PROCESS_COLUMNS, processes, form)
    heading("logins by decision")
    listing(("decision", "count"), [row for row in decisions if row[1]], form, empty="none yet")
    heading("packets dropped by fault")
    listing(("fault", "count"), [row for row in drops if row[1]], form, empty="none")


def _accounting(counts: Counts) -> Accounting:
    """Two looks at the board, with a moment in between: so many records a second."""
    from sms_aaa.metrics import journal_fault

    first = look(counts.sum, time.monotonic_ns())
    time.sleep(LOOK_SECONDS)
    faults = (journal_fault(counts.board.slot(slot).counters) for slot in counts.slots)
    unwritable = [fault for fault in faults if fault is not None]
    return accounting_of(counts.sum, counts.highest, unwritable, first, look(counts.sum, time.monotonic_ns()))


def _facts(running: Running, counts: Counts, caller: Caller, accounting: Accounting) -> dict[str, Cell]:
    from sms_aaa.metrics import SHED_WORDS, Word, count_online

    live = count_online([counts.board.slot(slot).counters for slot in counts.slots])
    refreshed_ns = counts.highest(Word.REPLICA_REFRESHED_NS)
    return {
        "node": running.node,
        "version": running.version,
        "pid": running.pid,
        "since": datetime.fromtimestamp(int(running.since), UTC),
        "access": ", ".join(running.access),
        "accounting": ", ".join(running.accounting),
        "metrics": running.metrics,
        "database": f"{running.database}, {_database_state(caller)}",
        "live_sessions": live,
        "journal": accounting.journal,
        "journal_octets": octets(accounting.journal_octets),
        "journal_room_octets": octets(accounting.journal_room_octets),
        "journal_backlog_octets": octets(counts.highest(Word.BACKLOG_OCTETS)),
        "decisions_backlog_octets": octets(counts.highest(Word.BACKLOG_DECISIONS_OCTETS)),
        "settle_lag_ms": _milliseconds(counts.highest(Word.SETTLE_LAG_MS)),
        "rating_queue": counts.highest(Word.RATING_QUEUE),
        "rating_lag_ms": _milliseconds(counts.highest(Word.RATING_LAG_MS)),
        "replica_age_ms": age(refreshed_ns),
        "replica_filling": filling(counts),
        "quarantined": counts.sum(Word.QUARANTINED),
        **accounting_cells(accounting),
        "decisions_dropped": counts.sum(Word.DECISIONS_DROPPED),
        "journal_faults": counts.sum(Word.JOURNAL_FAULTS),
        "our_faults": counts.sum(Word.OUR_FAULTS),
        "shed": sum(counts.sum(word) for word in SHED_WORDS),
        "kernel_drops": counts.sum(Word.KERNEL_DROPS),
        "nas_weak_secrets": counts.highest(Word.NAS_WEAK),
        "nas_unreadable_secrets": counts.highest(Word.NAS_UNREADABLE),
    }


def _database_state(caller: Caller) -> str:
    from sms_aaa.db.schema import SchemaState, find_status

    try:
        with caller.connect_anyhow() as connection:
            schema = find_status(connection)
    except Failure:
        return "away"
    return "up" if schema.state is SchemaState.CURRENT else schema_problem(schema)[0]


def _processes(running: Running, board: Board) -> list[tuple[Cell, ...]]:
    return [
        (
            process.name,
            process.pid or None,
            process.pid != 0,
            _since(board.slot(process.slot).heartbeat_ns, time.monotonic_ns()) if process.pid else None,
            process.restarts,
            datetime.fromtimestamp(int(process.since), UTC) if process.since else None,
        )
        for process in running.processes
    ]


def _drops(counts: Counts) -> list[tuple[str, int]]:
    from sms_aaa.metrics import fault_word
    from sms_aaa.radius.faults import PacketFault

    return [(fault.label, counts.sum(fault_word(fault))) for fault in PacketFault]


def _decisions(counts: Counts) -> list[tuple[str, int]]:
    from sms_aaa.metrics import reason_word
    from sms_aaa.rules.reasons import Reason

    return [(reason.label, counts.sum(reason_word(reason))) for reason in Reason]


def age(at_ns: int) -> Cell:
    """Since an instant of the epoch, in milliseconds; 0 was never."""
    return _since(at_ns, time.time_ns()) if at_ns else Shown(None, "never")


def filling(counts: Counts) -> Cell:
    """How far a new replica is, in services; None when none is being filled."""
    from sms_aaa.metrics import Word

    done, of = counts.highest(Word.REPLICA_FILL_DONE), counts.highest(Word.REPLICA_FILL_OF)
    return f"{done}/{of}" if of else None


def _since(at_ns: int, now_ns: int) -> Shown:
    return _milliseconds(max(0, (now_ns - at_ns) // 1_000_000))


def _milliseconds(count: int) -> Shown:
    return Shown(count, f"{count} ms" if count < 10_000 else seconds(count // 1000).text)
