"""`sms-aaa sessions`: who is online, or was."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from sms_aaa.cli.caller import Caller, pass_caller
from sms_aaa.cli.options import listing_options
from sms_aaa.cli.output import Cell, Format, listing, octets, seconds
from sms_aaa.cli.verbs import Verb
from sms_aaa.rules.session import State

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sms_aaa.db.engine import Connection
    from sms_aaa.db.session_lists import SessionRow

_COLUMNS = (
    "id", "state", "subscriber", "username", "nas", "acct_session_id", "framed_ip", "calling_station_id", "plan",
    "started_at", "updated_at", "stopped_at", "seconds", "octets_up", "octets_down", "terminate_cause", "note",
)  # fmt: skip
_TABLE_COLUMNS = (
    "id", "state", "username", "nas", "framed_ip", "started_at", "seconds", "octets_up", "octets_down", "note",
)  # fmt: skip


@click.command(cls=Verb)
@click.argument("name", required=False)
@click.option("--all", "every", is_flag=True, help="Those that have ended, too.")
@click.option("--nas", "nas_name", metavar="NAME", help="Those on one NAS.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=100, show_default=True, help="The newest so many.")
@listing_options
@pass_caller
def sessions(caller: Caller, name: str | None, *, every: bool, nas_name: str | None, limit: int, form: Format) -> None:
    """List the live sessions, or those of a subscriber or user NAME.

    Octets up are from the subscriber, octets down to the subscriber.

    Example: sms-aaa sessions alice --all
    """
    from sms_aaa.db.session_lists import list_sessions
    from sms_aaa.flows.provisioning.nas import get_nas
    from sms_aaa.flows.provisioning.subscribers import get_subscriber

    states = [State.OPEN, State.CLOSED, State.LAPSED] if every else [State.OPEN]
    with caller.connect() as connection:
        if nas_name is not None:
            get_nas(connection, nas_name)
        rows = list_sessions(connection, states=states, subscriber=name, nas=nas_name, limit=limit)
        if name is not None and not rows and not _was_seen(connection, name):
            get_subscriber(connection, name)
    session_listing(rows, form)


def session_listing(rows: Iterable[SessionRow], form: Format) -> None:
    """Sessions: for programs with all that is known of them, for people in one line of a terminal."""
    columns = _TABLE_COLUMNS if form is Format.TABLE else _COLUMNS
    cells = (session_cells(row) for row in rows)
    listing(columns, [[known[column] for column in columns] for known in cells], form, empty="no session")


def session_cells(row: SessionRow) -> dict[str, Cell]:
    """A session by column."""
    cells: tuple[Cell, ...] = (
        row.id, State(row.state).name.lower(), row.subscriber, row.username, row.nas, row.acct_session_id,
        row.framed_ip, row.calling_station_id, row.plan, row.started_at, row.updated_at, row.stopped_at,
        seconds(row.seconds), octets(row.octets_in), octets(row.octets_out), _cause(row.terminate_cause), _note(row),
    )  # fmt: skip
    return dict(zip(_COLUMNS, cells, strict=True))


def _was_seen(connection: Connection, username: str) -> bool:
    """Whether a user name that belongs to no subscriber ever had a session."""
    from sms_aaa.db.session_lists import list_sessions

    return bool(list_sessions(connection, states=list(State), subscriber=username, nas=None, limit=1))


def _cause(cause: int | None) -> str | None:
    from sms_aaa.radius.values import AcctTerminateCause

    return None if cause is None else AcctTerminateCause.name_of(cause)


def _note(row: SessionRow) -> str | None:
    notes = [f"excluded: {row.excluded}"] if row.excluded else []
    notes += ["end estimated"] if row.estimated else []
    notes += [f"life {row.life}"] if row.life > 1 else []
    return ", ".join(notes) or None
