"""`sms-aaa sessions --watch`: the live sessions again and again, on a terminal in one place."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from sms_aaa.cli.exits import Failure
from sms_aaa.cli.output import Cell, Format, listing, rich_table, say, seconds
from sms_aaa.cli.session_cells import session_cells
from sms_aaa.cli.session_filter import Asked, session_filter

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Group

    from sms_aaa.cli.caller import Caller
    from sms_aaa.db.engine import Connection
    from sms_aaa.db.session_lists import SessionOrder, SessionRow

_COLUMNS = ("id", "username", "nas", "framed_ip", "online", "octets_up", "octets_down", "rate_up", "rate_down", "heard")
_LINES_BESIDE = 5  # of a screen: the first line, the head of the table and what is around it


@dataclass(frozen=True, slots=True)
class Watch:
    """How to watch; `looks` None: until somebody ends it."""

    order: SessionOrder
    limit: int
    every_seconds: float
    looks: int | None


@dataclass(frozen=True, slots=True)
class Look:
    """What there was at an instant; `away`: why there is nothing newer."""

    at: datetime
    online: int
    change: int
    rows: tuple[SessionRow, ...]
    away: str | None = None


def watch_sessions(caller: Caller, asked: Asked, name: str | None, watch: Watch) -> None:
    """Ends with Ctrl-C, or after as many looks as were asked for. The database may go and come back meanwhile."""
    try:
        if sys.stdout.isatty():
            _watch_terminal(caller, asked, name, watch)
        else:
            for look in _looks(caller, asked, name, watch):
                say(_headline(look))
                listing(_COLUMNS, [_cells(row, look.at) for row in look.rows], Format.TABLE, empty="no session")
                say()
    except KeyboardInterrupt:
        return


def _watch_terminal(caller: Caller, asked: Asked, name: str | None, watch: Watch) -> None:
    from rich.console import Console
    from rich.live import Live

    console = Console()
    with Live(console=console, screen=True, auto_refresh=False) as live:
        for look in _looks(caller, asked, name, watch):
            live.update(_screen(look, console.height - _LINES_BESIDE), refresh=True)


def _screen(look: Look, lines: int) -> Group:
    from rich.console import Group
    from rich.text import Text

    rows = [_cells(row, look.at) for row in look.rows[: max(lines, 1)]]
    return Group(Text(_headline(look)), rich_table(_COLUMNS, rows))


def _looks(caller: Caller, asked: Asked, name: str | None, watch: Watch) -> Iterator[Look]:
    """The first look fails as any command would; later ones tell that they failed, and try again."""
    connection: Connection | None = caller.connect()
    look: Look | None = None
    taken = 0
    try:
        while watch.looks is None or taken < watch.looks:
            if taken:
                time.sleep(watch.every_seconds)
            taken += 1
            try:
                connection = connection or caller.connect()
                look = _look(caller, connection, asked, name, watch, look)
            except Exception as error:  # all but a lost database is raised again
                _hang_up(connection)
                connection = None
                if look is None or (why := _away(error)) is None:
                    raise
                look = Look(look.at, look.online, 0, look.rows, why)
            yield look
    finally:
        _hang_up(connection)


def _look(
    caller: Caller, connection: Connection, asked: Asked, name: str | None, watch: Watch, before: Look | None
) -> Look:
    from sms_aaa.db.session_lists import count_sessions, list_sessions

    wanted = session_filter(connection, asked, name, zone=caller.settings.rating.zone)
    [counted] = count_sessions(connection, wanted, None)
    rows = list_sessions(connection, wanted, limit=watch.limit, order=watch.order)
    connection.commit()
    change = counted.sessions - before.online if before is not None else 0
    return Look(datetime.now(UTC), counted.sessions, change, tuple(rows))


def _away(error: Exception) -> str | None:
    """Why the database does not answer; None when it is something else that went wrong."""
    from sms_aaa.db.engine import Unavailable

    if isinstance(error, Failure):
        return error.reason
    return "the database does not answer" if isinstance(error, Unavailable) else None


def _hang_up(connection: Connection | None) -> None:
    if connection is not None:
        connection.close()


def _headline(look: Look) -> str:
    change = f" ({look.change:+d})" if look.change else ""
    told = f"{look.at:%Y-%m-%d %H:%M:%SZ}  {look.online} sessions{change}"
    return told if look.away is None else f"{told}: the last look that there was; {look.away}; trying again"


def _cells(row: SessionRow, at: datetime) -> list[Cell]:
    known = session_cells(row)
    heard = max(0, int((at - row.received_at).total_seconds()))
    known |= {
        "online": known["seconds"],
        "rate_up": known["rate_up_kbps"],
        "rate_down": known["rate_down_kbps"],
        "heard": seconds(heard),
    }
    return [known[column] for column in _COLUMNS]
