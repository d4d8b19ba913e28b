"""How far long work is, on stderr: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sms_aaa.cli.output import note

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SAID_EVERY_SECONDS = 5.0


@contextmanager
def progress_of(unit: str) -> Iterator[Callable[[int, int], None]]:
    """Gives what is to be called with (done, of) as the work goes on; `unit`: of what, in the plural."""
    if not sys.stderr.isatty():
        yield _lines(unit)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(unit), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(unit, total=None)
        yield lambda done, of: bar.update(task, completed=done, total=of)


def _lines(unit: str) -> Callable[[int, int], None]:
    said_at = time.monotonic()

    def say_so(done: int, of: int) -> None:
        nonlocal said_at
        if time.monotonic() - said_at >= SAID_EVERY_SECONDS:
            said_at = time.monotonic()
            note(f"{done} of {of} {unit}")

    return say_so
