"""How a session is shown, in a listing and beside other things."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sms_aaa.cli.output import Cell, Format, bit_rate, listing, octets, seconds
from sms_aaa.rules.session import State

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sms_aaa.db.session_lists import SessionRow

_COLUMNS = (
    "id", "state", "subscriber", "username", "nas", "acct_session_id", "framed_ip", "framed_ipv6_prefix",
    "delegated_ipv6_prefix", "calling_station_id", "nas_port_id", "plan", "started_at", "updated_at", "stopped_at",
    "seconds", "octets_up", "octets_down", "rate_up_kbps", "rate_down_kbps", "terminate_cause", "note",
)  # fmt: skip
_TABLE_COLUMNS = (
    "id", "state", "username", "nas", "framed_ip", "started_at", "seconds", "octets_up", "octets_down", "note",
)  # fmt: skip


def session_listing(rows: Iterable[SessionRow], form: Format) -> None:
    """Sessions: for programs with all that is known of them, for people in one line of a terminal."""
    columns = _TABLE_COLUMNS if form is Format.TABLE else _COLUMNS
    cells = (session_cells(row) for row in rows)
    listing(columns, [[known[column] for column in columns] for known in cells], form, empty="no session")


def session_cells(row: SessionRow) -> dict[str, Cell]:
    """A session by column."""
    cells: tuple[Cell, ...] = (
        row.id, State(row.state).name.lower(), row.subscriber, row.username, row.nas, row.acct_session_id,
        row.framed_ip, row.framed_ipv6_prefix, row.delegated_ipv6_prefix, row.calling_station_id, row.nas_port_id,
        row.plan, row.started_at, row.updated_at, row.stopped_at, seconds(row.seconds), octets(row.octets_in),
        octets(row.octets_out), bit_rate(row.rate_up_kbps), bit_rate(row.rate_down_kbps), cause(row.terminate_cause),
        _note(row),
    )  # fmt: skip
    return dict(zip(_COLUMNS, cells, strict=True))


def cause(number: int | None) -> str | None:
    """A Terminate-Cause by its name."""
    from sms_aaa.radius.values import AcctTerminateCause

    return None if number is None else AcctTerminateCause.name_of(number)


def totals(rows: Sequence[SessionRow], limit: int) -> str:
    """How many were found, `limit` of which are shown, and what these used."""
    shown = rows[:limit]
    up, down = sum(row.octets_in for row in shown), sum(row.octets_out for row in shown)
    more = ", and more (--limit)" if len(rows) > limit else ""
    return f"{len(shown)} session{'s'[: len(shown) != 1]}{more}: {octets(up).text} up, {octets(down).text} down"


def _note(row: SessionRow) -> str | None:
    notes = [f"excluded: {row.excluded}"] if row.excluded else []
    notes += ["end estimated"] if row.estimated else []
    notes += [f"life {row.life}"] if row.life > 1 else []
    return ", ".join(notes) or None
