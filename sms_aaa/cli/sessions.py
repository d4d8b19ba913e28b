"""`sms-aaa sessions`: who is online, or was."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from sms_aaa.cli.caller import Caller, pass_caller
from sms_aaa.cli.exits import Exit, Failure
from sms_aaa.cli.options import listing_options
from sms_aaa.cli.output import Format, listing, note, octets, say
from sms_aaa.cli.session_cells import session_listing, totals
from sms_aaa.cli.session_filter import Asked, bounded, filter_options, session_filter
from sms_aaa.cli.verbs import Verb
from sms_aaa.rules.session import State

if TYPE_CHECKING:
    from sms_aaa.db.engine import Connection
    from sms_aaa.db.session_lists import SessionFilter, SessionRow

ORDERS = ("started", "heard", "octets", "seconds", "rate")
GROUPS = ("nas", "plan", "realm", "state")


@click.command(cls=Verb)
@click.argument("name", required=False)
@filter_options
@click.option("--sort", type=click.Choice(ORDERS), default="started", help="What stands first: the newest, the most.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=100, show_default=True, help="The first so many.")
@click.option("--count", is_flag=True, help="Only how many there are.")
@click.option("--by", type=click.Choice(GROUPS), help="How many there are by NAS, plan, realm or state.")
@click.option("--watch", is_flag=True, help="Show them again and again, until Ctrl-C.")
@click.option(
    "--every",
    "every_seconds",
    type=click.FloatRange(0.2, 3600),
    default=2.0,
    show_default=True,
    help="Seconds, for --watch.",
)
@click.option("--looks", type=click.IntRange(1), metavar="N", help="End --watch after so many looks.")
@listing_options
@pass_caller
def sessions(
    caller: Caller,
    name: str | None,
    *,
    asked: Asked,
    sort: str,
    limit: int,
    count: bool,
    by: str | None,
    watch: bool,
    every_seconds: float,
    looks: int | None,
    form: Format,
) -> None:
    """List the live sessions, or those of a subscriber or user NAME.

    Octets up are from the subscriber, octets down to the subscriber. Rates are over the last interim. Of the sessions
    that have ended, those of the last 7 days are searched unless --since, a name, a device or an address says more.

    Example: sms-aaa sessions alice --all

    Example: sms-aaa sessions --nas bng1 --sort rate --watch

    Example: sms-aaa sessions --by nas
    """
    from sms_aaa.db.session_lists import SessionOrder

    order = SessionOrder(sort)
    if watch:
        from sms_aaa.cli.watching import Watch, watch_sessions

        if form is not Format.TABLE or count or by:
            raise click.UsageError("--watch is for people: it takes no --json, --csv, --count or --by.")
        watch_sessions(caller, asked, name, Watch(order, limit, every_seconds, looks))
        return
    with _connect(caller) as connection:
        wanted = session_filter(connection, asked, name, zone=caller.settings.rating.zone)
        searched = bounded(wanted, newest_first=order is SessionOrder.STARTED and not (count or by))
        if searched is not wanted:
            note(f"sms-aaa: since {searched.since:%Y-%m-%d %H:%M:%SZ}: --since looks further back")
        if count or by:
            _count(connection, searched, by, form)
            return
        rows = _list(connection, searched, order, limit + 1)
        if name is not None and not rows:
            check_known(connection, name)
    session_listing(rows[:limit], form)
    if form is Format.TABLE and rows:
        say()
        say(totals(rows, limit))


def _connect(caller: Caller) -> Connection:
    """With the database away, what this node counted last is said beside it."""
    try:
        return caller.connect()
    except Failure as away:
        if away.code is Exit.UNAVAILABLE and (online := _counted_online(caller)) is not None:
            note(f"sms-aaa: {online} sessions were online when this node last counted (`sms-aaa status`)")
        raise


def _counted_online(caller: Caller) -> int | None:
    from sms_aaa.metrics import count_online
    from sms_aaa.node.board import Board
    from sms_aaa.server.runfile import find_running

    running = find_running(caller.state_folder)
    board = Board.open(caller.state_folder / "board") if running is not None else None
    if running is None or not isinstance(board, Board):
        return None
    try:
        return count_online([board.slot(process.slot).counters for process in running.processes])
    finally:
        board.close()


def _list(connection: Connection, wanted: SessionFilter, order: object, limit: int) -> list[SessionRow]:
    from sms_aaa.db.session_lists import SessionOrder, list_sessions

    assert isinstance(order, SessionOrder)
    return list_sessions(connection, wanted, limit=limit, order=order)


def _count(connection: Connection, wanted: SessionFilter, by: str | None, form: Format) -> None:
    from sms_aaa.db.session_lists import SessionGroup, count_sessions

    counted = count_sessions(connection, wanted, SessionGroup(by) if by is not None else None)
    figures = [(one.sessions, octets(one.octets_in), octets(one.octets_out)) for one in counted]
    columns = ("sessions", "octets_up", "octets_down")
    if by is None:
        listing(columns, figures, form)
        return
    rows = [(one.value, *cells) for one, cells in zip(counted, figures, strict=True)]
    listing((by, *columns), rows, form, empty="no session")


def check_known(connection: Connection, name: str) -> None:
    """Refused for a name that is no subscriber's, and under which no session ever was."""
    from sms_aaa.db.session_lists import ENDED, SessionFilter, list_sessions
    from sms_aaa.flows.provisioning.subscribers import get_subscriber

    every = SessionFilter(states=(State.OPEN, *ENDED), name=name)
    if not list_sessions(connection, every, limit=1):
        get_subscriber(connection, name)
