"""What the verbs of the journal share: where this node's journal is, and PostgreSQL if it is there."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sms_aaa.cli.exits import Failure
from sms_aaa.cli.output import note

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sms_aaa.cli.caller import Caller
    from sms_aaa.db.engine import Connection
    from sms_aaa.flows.surveying import JournalPlace
    from sms_aaa.node.live_change import Release

READABLE = "run it as the user that the daemon runs as"


@contextmanager
def journal_place(caller: Caller) -> Iterator[JournalPlace]:
    """The journal of this node, with the board if a server runs."""
    from sms_aaa.flows.surveying import JournalPlace
    from sms_aaa.node.board import Board

    board = Board.open(caller.state_folder / "board")
    known = board if isinstance(board, Board) else None
    try:
        yield JournalPlace(caller.journal_folder, caller.settings.node.name, known)
    finally:
        if known is not None:
            known.close()


@contextmanager
def perhaps_connected(caller: Caller, without: str) -> Iterator[Connection | None]:
    """PostgreSQL if it is there; else it is said what is done `without` it."""
    try:
        connection = caller.connect()
    except Failure as away:
        note(f"sms-aaa: {away.reason}: {without}")
        yield None
        return
    with connection:
        yield connection


def release_places(caller: Caller, releases: Sequence[Release]) -> None:
    """The places of sessions that ended are free on this node too, if it has a live set."""
    from sms_aaa.node.live import LiveSet
    from sms_aaa.server.worker import boot_id, yield_lock

    node = caller.settings.node
    folder = Path(node.live_folder)
    if not releases or not (folder / "live" / "data.mdb").exists():
        return
    live = LiveSet.open(folder, boot_id=boot_id(), octets=node.live_octets)
    if not isinstance(live, LiveSet) or live.release(releases, pause=yield_lock) is not None:
        note("sms-aaa: places of sessions that ended could not be freed here: they lapse by themselves")
    if isinstance(live, LiveSet):
        live.close()
