"""`sms-aaa anomalies`: what was odd about records, what it means, and how it was counted."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from sms_aaa.cli.caller import Caller, pass_caller
from sms_aaa.cli.exits import Exit, Failure
from sms_aaa.cli.options import listing_options, parse_since
from sms_aaa.cli.output import Cell, Format, facts, heading, listing, octets, say
from sms_aaa.cli.verbs import DefaultVerbs
from sms_aaa.rules.anomalies import meaning_of
from sms_aaa.rules.session import AnomalyKind

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sms_aaa.db.anomalies import AnomalyFilter, AnomalyRow
    from sms_aaa.db.engine import Connection

_COLUMNS = (
    "id", "at", "kind", "nas", "session_id", "acct_session_id", "username", "subscriber", "event_at", "octets_up",
    "octets_down", "node", "sequence", "record_offset",
)  # fmt: skip
_TABLE_COLUMNS = ("id", "at", "kind", "nas", "session_id", "username", "event_at")


@click.group(cls=DefaultVerbs, default="list", subcommand_metavar="[COMMAND] [ARGS]...")
def anomalies() -> None:
    """Oddities of accounting records, each named once. `anomalies` is `anomalies list`, with all its options."""


@anomalies.command("list")
@click.option("--kind", type=click.Choice([kind.value for kind in AnomalyKind]), help="Of one kind.")
@click.option("--nas", "nas_name", metavar="NAME", help="Of one access server.")
@click.option("--subscriber", "name", metavar="NAME", help="Of one subscriber, or user name.")
@click.option("--since", metavar="WHEN", default="7d", show_default=True, help="Named since: 30m, 12h, 7d, a date.")
@click.option("--by", type=click.Choice(("kind", "nas", "day")), help="How many, by kind, NAS or day (of UTC).")
@click.option("--limit", type=click.IntRange(1, 100_000), default=50, show_default=True, help="The last so many.")
@listing_options
@pass_caller
def list_(
    caller: Caller,
    kind: str | None,
    nas_name: str | None,
    name: str | None,
    since: str,
    by: str | None,
    limit: int,
    form: Format,
) -> None:
    """List what was odd about records, the newest first, with what each kind means.

    Example: sms-aaa anomalies list --kind counter-reset --nas bng1

    Example: sms-aaa anomalies --by nas --since 24h
    """
    from sms_aaa.db.anomalies import AnomalyFilter, list_anomalies
    from sms_aaa.flows.provisioning.nas import get_nas

    with caller.connect() as connection:
        wanted = AnomalyFilter(
            since=parse_since(since, caller.settings.rating.zone, datetime.now(UTC)),
            kind=kind,
            nas_id=get_nas(connection, nas_name).id if nas_name is not None else None,
            name=name,
        )
        if by is not None:
            _count(connection, wanted, by, form)
            return
        rows = list_anomalies(connection, wanted, limit=limit)
    columns = _TABLE_COLUMNS if form is Format.TABLE else _COLUMNS
    cells = [_cells(row) for row in rows]
    listing(columns, [[row[column] for column in columns] for row in cells], form, empty="nothing odd was seen")
    if form is Format.TABLE and rows:
        explain_kinds(row.kind for row in rows)
        say()
        say("next: sms-aaa anomalies show ID")


@anomalies.command()
@click.argument("anomaly_id", metavar="ID", type=click.IntRange(1))
@listing_options
@pass_caller
def show(caller: Caller, anomaly_id: int, form: Format) -> None:
    """Show one: the reading that was odd, what it means, how it was counted, what to do.

    Example: sms-aaa anomalies show 12
    """
    from sms_aaa.db.anomalies import AnomalyFilter, list_anomalies

    with caller.connect() as connection:
        rows = list_anomalies(connection, AnomalyFilter(anomaly_id=anomaly_id), limit=1)
    if not rows:
        raise Failure(Exit.NOT_FOUND, f"there is no anomaly {anomaly_id}", "see `sms-aaa anomalies`")
    [row] = rows
    meaning = meaning_of(row.kind)
    words = {"happened": meaning.happened, "counted": meaning.counted, "remedy": meaning.remedy}
    facts({**_cells(row), **words}, form)
    if form is Format.TABLE:
        say()
        if row.session_id is not None:
            say(f"next: sms-aaa session show {row.session_id}")
        say(f"next: sms-aaa journal show {row.sequence}:{row.record_offset}   (on {row.node})")


def explain_kinds(kinds: Iterable[str]) -> None:
    """A line for each kind that occurs."""
    heading("what they mean")
    for kind in sorted(set(kinds)):
        meaning = meaning_of(kind)
        say(f"{kind}: {meaning.happened}; {meaning.counted}")


def _count(connection: Connection, wanted: AnomalyFilter, by: str, form: Format) -> None:
    from sms_aaa.db.anomalies import AnomalyGroup, count_anomalies

    counted = count_anomalies(connection, wanted, AnomalyGroup(by))
    rows = [(one.value, one.anomalies, one.sessions, one.last_at) for one in counted]
    listing((by, "anomalies", "sessions", "last_at"), rows, form, empty="nothing odd was seen")
    if by == "kind" and form is Format.TABLE and counted:
        explain_kinds(one.value for one in counted)


def _cells(row: AnomalyRow) -> dict[str, Cell]:
    cells: tuple[Cell, ...] = (
        row.id, row.at, row.kind, row.nas, row.session_id, row.acct_session_id, row.username, row.subscriber,
        row.event_at, octets(row.octets_in), octets(row.octets_out), row.node, row.sequence, row.record_offset,
    )  # fmt: skip
    return dict(zip(_COLUMNS, cells, strict=True))
