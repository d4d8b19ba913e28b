"""`sms-aaa stale`: who misses interims, and which NAS is silent altogether."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import click

from sms_aaa.cli.caller import Caller, pass_caller
from sms_aaa.cli.options import listing_options, parse_duration
from sms_aaa.cli.output import Cell, Format, document, heading, listing, say, seconds
from sms_aaa.cli.verbs import Verb
from sms_aaa.rules.session import State, silence_seconds

if TYPE_CHECKING:
    from sms_aaa.db.silence import SilentNas, SilentRow

_NAS_COLUMNS = ("nas", "open", "silent", "lapsed", "last_heard_at", "note")
_COLUMNS = (
    "id", "state", "username", "subscriber", "nas", "acct_session_id", "started_at", "heard_at", "silent_seconds",
    "interim_seconds", "lapses_at",
)  # fmt: skip
_TABLE_COLUMNS = ("id", "state", "username", "nas", "heard_at", "silent", "interim", "lapses_at")


@click.command(cls=Verb)
@click.option("--nas", "nas_name", metavar="NAME", help="On one access server.")
@click.option("--older-than", metavar="DURATION", help="Not heard for so long: 10m, 2h; else for 1.5 interims.")
@click.option("--lapsed", metavar="DURATION", default="24h", show_default=True, help="How far back those that lapsed.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=50, show_default=True, help="The last so many.")
@listing_options
@pass_caller
def stale(caller: Caller, nas_name: str | None, older_than: str | None, lapsed: str, limit: int, form: Format) -> None:
    """List the sessions that say nothing, by NAS and one by one.

    A session is silent when nothing of it was received for one and a half of its plan's interim intervals; it lapses,
    and its place is free, after session.stale_multiple of them. A late record opens it again. A NAS all of whose
    sessions are silent is dead, or does not reach us.

    Example: sms-aaa stale --nas bng1 --older-than 30m
    """
    from sms_aaa.db.silence import SilenceFilter, list_silent, list_silent_nas
    from sms_aaa.flows.provisioning.nas import get_nas

    now = datetime.now(UTC)
    multiple = caller.settings.session.stale_multiple
    with caller.connect() as connection:
        wanted = SilenceFilter(
            now=now,
            lapsed_since=now - timedelta(seconds=parse_duration(lapsed, option="--lapsed")),
            nas_id=get_nas(connection, nas_name).id if nas_name is not None else None,
            older_than_seconds=parse_duration(older_than, option="--older-than") if older_than else None,
        )
        by_nas = list_silent_nas(connection, wanted)
        rows = list_silent(connection, wanted, limit=limit)
    nases = [_nas_cells(one) for one in by_nas]
    cells = [_cells(row, now, multiple) for row in rows]
    if form is Format.JSON:
        document({
            "nas": [dict(zip(_NAS_COLUMNS, row, strict=True)) for row in nases],
            "sessions": [{column: row[column] for column in _COLUMNS} for row in cells],
        })  # fmt: skip
        return
    if form is Format.CSV:
        listing(_COLUMNS, [[row[column] for column in _COLUMNS] for row in cells], form)
        return
    if not nases:
        say("nobody is silent, and no session lapsed")
        return
    listing(_NAS_COLUMNS, nases, form)
    heading(f"sessions, the last {len(cells)} heard of")
    listing(_TABLE_COLUMNS, [[row[column] for column in _TABLE_COLUMNS] for row in cells], form)


def _nas_cells(one: SilentNas) -> tuple[Cell, ...]:
    is_dead = one.silent == one.open
    words = ("all are silent: is it dead?" if one.silent else "none is left") if is_dead else None
    return one.nas, one.open, one.silent, one.lapsed, one.heard_at, words


def _cells(row: SilentRow, now: datetime, multiple: int) -> dict[str, Cell]:
    silent = max(0, int((now - row.received_at).total_seconds()))
    is_open = row.state == State.OPEN
    lapses_at = row.received_at + timedelta(seconds=silence_seconds(row.interim_seconds, multiple))
    return {
        "id": row.id,
        "state": "silent" if is_open else "lapsed",
        "username": row.username,
        "subscriber": row.subscriber,
        "nas": row.nas,
        "acct_session_id": row.acct_session_id,
        "started_at": row.started_at,
        "heard_at": row.received_at,
        "silent_seconds": silent,
        "silent": seconds(silent),
        "interim_seconds": row.interim_seconds,
        "interim": seconds(row.interim_seconds),
        "lapses_at": lapses_at if is_open else None,
    }
