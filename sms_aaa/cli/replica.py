"""`sms-aaa replica`: the node's own copy of what a login needs: how it is, whether it is right, and a new one."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeVar

import click

from sms_aaa.cli.caller import Caller, pass_caller
from sms_aaa.cli.exits import Exit, Failure
from sms_aaa.cli.options import confirm, listing_options, ticket_option, yes_option
from sms_aaa.cli.output import Cell, Format, Shown, document, facts, listing, note, octets, say
from sms_aaa.cli.progress import progress_of
from sms_aaa.cli.status import Counts, age, filling
from sms_aaa.cli.verbs import Verbs

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sms_aaa.flows.verifying import Difference, Suspects
    from sms_aaa.node.replica import Replica, ReplicaFault, ReplicaMeta

VERIFY_STATEMENT_SECONDS = 3600
FOLLOW_SECONDS_MAX = 20.0
"""How long a check waits for the replicator to have been once more at what PostgreSQL is."""

AWAY_SECONDS_MAX = 30.0
"""How long the replicator may be away while somebody waits for its work: it is started again when it dies."""

LOOK_SECONDS = 0.2
Got = TypeVar("Got")
_COLUMNS = ("kind", "name", "id", "difference", "fields")


@click.group(cls=Verbs)
def replica() -> None:
    """The node's own copy of NASes, plans and services, from which logins are answered.

    It follows PostgreSQL within two seconds, and serves on while PostgreSQL is away.

    Example: sms-aaa replica status
    """


@replica.command()
@listing_options
@pass_caller
def status(caller: Caller, form: Format) -> None:
    """Say how old and how big it is, what it waits for, and when it was last looked through.

    It answers without the server and without PostgreSQL too; what only these know is then left open. `waiting_changes`
    are in PostgreSQL and not here yet. The exit code is 5 when there is no replica to answer logins from.

    Example: sms-aaa replica status
    """
    from sms_aaa.node.replica import Replica

    opened = Replica.open(caller.state_folder)
    counts = _counts(caller)
    if not isinstance(opened, Replica):
        facts({"state": opened.kind.value, **_server_facts(counts)}, form)
        raise Failure(Exit.UNAVAILABLE, opened.detail, "while it is being filled, `filling` says how far it is")
    try:
        facts({"state": "readable", **_replica_facts(caller, opened), **_server_facts(counts)}, form)
    finally:
        opened.close()


@replica.command()
@listing_options
@pass_caller
def verify(caller: Caller, form: Format) -> None:
    """Compare it with PostgreSQL, and name every difference.

    Every service, plan, NAS and realm is compared, field by field, while the server goes on. What changes meanwhile is
    looked at again until both sides agree. A difference is missing-here, stale (with the names of the fields, never
    their values), not-in-postgresql, or damaged. The exit code is 1 when there is any: see `sms-aaa replica rebuild`.

    Example: sms-aaa replica verify --json
    """
    watched = _Watched(caller)
    try:
        suspects, differences = _compare(caller, watched)
        _keep(caller, watched.replica.generation, suspects.services, len(differences))
    finally:
        watched.replica.close()
    _tell(suspects, differences, form)
    if differences or suspects.is_cut:
        raise click.exceptions.Exit(Exit.DIFFERENT)


@replica.command()
@click.option("--no-wait", is_flag=True, help="Ask for it and return.")
@yes_option
@ticket_option
@pass_caller
def rebuild(caller: Caller, *, no_wait: bool, yes: bool, ticket: str | None) -> None:
    """Fill a new one from PostgreSQL beside the old one, and switch to it when it is whole.

    Logins go on from the old one meanwhile, and changes still reach it. The server does it by itself when it finds
    damage; so this is for when you do not trust what `replica verify` says.

    Example: sms-aaa replica rebuild --ticket CHG-17
    """
    from sms_aaa.node.replica_notes import RebuildRequest, ask_rebuild

    pid = _replicator_pid(caller)
    if not pid:
        raise Failure(
            Exit.UNAVAILABLE,
            "the replicator does not run: there is no server, or it has no database",
            "see `sms-aaa status`",
        )
    confirm("A new replica is read from PostgreSQL; logins go on from the old one meanwhile. Rebuild?", yes=yes)
    before = _generation(caller)
    ask_rebuild(caller.state_folder, RebuildRequest(caller.actor(ticket).name, ticket))
    if no_wait:
        say("asked for; see `sms-aaa replica status`")
        return
    try:
        with progress_of("services") as progress:
            generation = _wait_for_another(caller, before, progress)
    except KeyboardInterrupt:
        raise Failure(Exit.ABORTED, "not waited for any longer", "the rebuild goes on: `replica status`") from None
    opened = _open(caller)
    size = _unless_fault(opened.size())
    opened.close()
    say(f"{generation} is current: {size.services} services, {size.plans} plans, {size.nases} NASes")


class _Watched:
    """The replica that is current, opened again after a switch."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller
        self.replica = _open(caller)

    def wait(self) -> tuple[Replica, bool]:
        """The replica once it was what PostgreSQL is, again; False when it is not within FOLLOW_SECONDS_MAX."""
        since_ns, until = time.time_ns(), time.monotonic() + FOLLOW_SECONDS_MAX
        while time.monotonic() < until:
            if self.replica.switched(time.time_ns()):
                self.replica.close()
                self.replica = _open(self._caller)
            if _unless_fault(self.replica.meta()).refreshed_ns > since_ns:
                return self.replica, True
            time.sleep(LOOK_SECONDS)
        note("it is not being brought up to date: what differs now is told; see `sms-aaa replica status`")
        return self.replica, False


def _compare(caller: Caller, watched: _Watched) -> tuple[Suspects, list[Difference]]:
    from sms_aaa.db.engine import begin_snapshot
    from sms_aaa.db.feed import get_database_id
    from sms_aaa.flows.verifying import confirm as confirm_differences
    from sms_aaa.flows.verifying import find_suspects

    with caller.connect(statement_timeout_seconds=VERIFY_STATEMENT_SECONDS) as connection:
        if get_database_id(connection) != _unless_fault(watched.replica.meta()).database_id:
            raise Failure(
                Exit.CONFLICT,
                "the replica is of another database",
                "see database.dsn; the server builds it anew by itself",
            )
        connection.commit()
        begin_snapshot(connection)
        with progress_of("services") as progress:
            suspects = _unless_fault(find_suspects(connection, watched.replica, progress=progress))
        connection.commit()
        connection.autocommit = True  # from now on each look sees what is then
        found = confirm_differences(connection, watched.replica, suspects.keys, wait=watched.wait)
        differences = _unless_fault(found)
        connection.autocommit = False
    return suspects, differences


def _tell(suspects: Suspects, differences: Sequence[Difference], form: Format) -> None:
    rows = [(one.kind, one.name, one.object_id, one.fault.value, ", ".join(one.fields) or None) for one in differences]
    if form is Format.JSON:
        document(
            {
                "services": suspects.services,
                "complete": not suspects.is_cut,
                "differences": [dict(zip(_COLUMNS, row, strict=True)) for row in rows],
            }
        )
        return
    listing(_COLUMNS, rows, form, empty="no difference")
    if suspects.is_cut:
        note(f"so much differs that only the first {len(suspects.keys)} were looked at: `sms-aaa replica rebuild`")
    note(f"{suspects.services} services compared, {len(differences)} differences")


def _replica_facts(caller: Caller, opened: Replica) -> dict[str, Cell]:
    from sms_aaa.node.replica_notes import read_verified

    meta, size = _unless_fault(opened.meta()), _unless_fault(opened.size())
    verified = read_verified(caller.state_folder)
    settings = caller.settings.replica
    limit = settings.age_seconds_max
    return {
        "generation": opened.generation,
        "services": size.services,
        "plans": size.plans,
        "nases": size.nases,
        "disk_octets": octets(size.disk_octets),
        "refreshed_at": _instant(meta.refreshed_ns),
        "age_ms": age(meta.refreshed_ns),
        "age_seconds_max": Shown(limit, f"{limit} s, then {settings.when_too_old.value}" if limit else "no limit"),
        "waiting_changes": _waiting_changes(caller, meta),
        "verified_at": _instant(verified.at_ns) if verified is not None else Shown(None, "never"),
        "verified_differences": verified.differences if verified is not None else None,
    }


def _server_facts(counts: Counts | None) -> dict[str, Cell]:
    """What only the running server knows; counted since its start."""
    from sms_aaa.metrics import Word

    if counts is None:
        return dict.fromkeys(("filling", "looked_through_at", "damages", "read_faults", "rebuilds"))
    known = {
        "filling": filling(counts),
        "looked_through_at": _instant(counts.highest(Word.REPLICA_SCRUBBED_NS)),
        "damages": counts.sum(Word.REPLICA_DAMAGES),
        "read_faults": counts.sum(Word.REPLICA_READ_FAULTS),
        "rebuilds": counts.sum(Word.REPLICA_REBUILDS),
    }
    counts.board.close()
    return known


def _waiting_changes(caller: Caller, meta: ReplicaMeta) -> Cell:
    from sms_aaa.db.feed import count_changes, covers

    try:
        with caller.connect() as connection:
            return count_changes(connection, meta.cursor) if covers(connection, meta.cursor) else Shown(None, "all")
    except Failure:
        return Shown(None, "not known: the database is away")


def _counts(caller: Caller) -> Counts | None:
    from sms_aaa.node.board import Board
    from sms_aaa.server.runfile import find_running

    running = find_running(caller.state_folder)
    board = Board.open(caller.state_folder / "board") if running is not None else None
    if running is None or not isinstance(board, Board):
        return None
    return Counts(board, tuple(process.slot for process in running.processes))


def _replicator_pid(caller: Caller) -> int:
    """0: it does not run."""
    from sms_aaa.server.runfile import find_running

    running = find_running(caller.state_folder)
    return next((one.pid for one in running.processes if one.name == "replicator"), 0) if running is not None else 0


def _wait_for_another(caller: Caller, before: str | None, progress: Callable[[int, int], None]) -> str:
    """The name of the generation that took the place of `before`."""
    from sms_aaa.metrics import Word

    counts = _counts(caller)
    until = time.monotonic() + AWAY_SECONDS_MAX
    while (generation := _generation(caller)) in {before, None}:
        if counts is not None and (of := counts.highest(Word.REPLICA_FILL_OF)):
            progress(counts.highest(Word.REPLICA_FILL_DONE), of)
        if _replicator_pid(caller):
            until = time.monotonic() + AWAY_SECONDS_MAX
        elif time.monotonic() > until:
            raise Failure(Exit.UNAVAILABLE, "the replicator ended meanwhile", "see the server's log")
        time.sleep(LOOK_SECONDS)
    if counts is not None:
        counts.board.close()
    assert generation is not None
    return generation


def _generation(caller: Caller) -> str | None:
    from sms_aaa.node.replica import read_current

    current = read_current(caller.state_folder)
    return current if isinstance(current, str) else None


def _open(caller: Caller) -> Replica:
    from sms_aaa.node.replica import Replica

    opened = Replica.open(caller.state_folder)
    if not isinstance(opened, Replica):
        raise Failure(Exit.UNAVAILABLE, opened.detail, "see `sms-aaa replica status`")
    return opened


def _unless_fault(got: Got | ReplicaFault) -> Got:
    from sms_aaa.node.replica import ReplicaFault

    if isinstance(got, ReplicaFault):
        raise Failure(Exit.UNAVAILABLE, got.detail, "see `sms-aaa replica status`")
    return got


def _keep(caller: Caller, generation: str, services: int, differences: int) -> None:
    """What was found is shown by `replica status`; where it cannot be kept, it was told all the same."""
    from sms_aaa.node.replica_notes import Verified, write_verified

    try:
        write_verified(caller.state_folder, Verified(time.time_ns(), generation, services, differences))
    except OSError as fault:
        note(f"not kept for `replica status`: {fault.strerror}")


def _instant(at_ns: int) -> Cell:
    return datetime.fromtimestamp(at_ns // 1_000_000_000, UTC) if at_ns else Shown(None, "never")
