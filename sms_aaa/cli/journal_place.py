"""What the verbs of the journal share: where this node's journal is, and PostgreSQL if it is there."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from sms_aaa.cli.exits import Failure
from sms_aaa.cli.output import note

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sms_aaa.cli.caller import Caller
    from sms_aaa.db.engine import Connection
    from sms_aaa.flows.surveying import JournalPlace

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
