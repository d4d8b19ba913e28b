"""The rater as a process of its own: started on a folder and a database, and killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from msgspec.structs import replace

from sms_aaa.config import Settings
from sms_aaa.node.board import Board
from sms_aaa.rules.secret import Secret
from sms_aaa.server.worker import Order, encode_order

if TYPE_CHECKING:
    from pathlib import Path

    from sms_aaa.metrics import Word


class Node:
    """A folder for a rater, and whatever rater runs in it."""

    def __init__(self, folder: Path, dsn: str, *, bulk_min: int = 10_000) -> None:
        folder.mkdir()
        board = Board.create(folder / "board", slots=1, now_ns=time.time_ns())
        assert isinstance(board, Board)
        self._counters = board.slot(0).counters
        settings = Settings()
        self._order = Order(
            name="rater",
            slot=0,
            sockets=[],
            settings=replace(
                settings,
                node=replace(settings.node, state_folder=str(folder)),
                rating=replace(settings.rating, bulk_min=bulk_min),
            ),
            dsn=Secret(dsn.encode()),
            supervisor_pid=os.getpid(),
        )
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen([sys.executable, "-m", "sms_aaa.server.rater"], stdin=subprocess.PIPE)
        assert self._process.stdin is not None
        self._process.stdin.write(encode_order(self._order))
        self._process.stdin.close()

    def counter(self, word: Word) -> int:
        """What all raters of this folder have counted."""
        return int(self._counters[word])

    def freeze(self) -> None:
        """It does nothing from now on, and is no more than killed after."""
        if self._process is not None:
            self._process.send_signal(signal.SIGSTOP)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
