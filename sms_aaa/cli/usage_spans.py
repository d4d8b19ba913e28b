"""`sms-aaa usage NAME --by`: when a subscriber used what, by the clock of the account."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import wraps
from typing import TYPE_CHECKING, Any

import click

from sms_aaa.cli.exits import Exit, Failure
from sms_aaa.cli.options import parse_since
from sms_aaa.cli.output import Cell, Format, Shown, document, heading, listing, octets, say, seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from zoneinfo import ZoneInfo

    from sms_aaa.cli.caller import Caller
    from sms_aaa.db.engine import Connection
    from sms_aaa.db.usage_spans import AccountRow
    from sms_aaa.flows.spanning import Span, SpanUsage

BYS = ("hour", "day", "month", "session")
BAR_LETTERS = 30

_BACK = {"hour": timedelta(hours=24), "day": timedelta(days=30), "month": timedelta(days=365)}
_FIGURES = ("octets_up", "octets_down", "octets", "seconds")
_SESSION_COLUMNS = ("session_id", "acct_session_id", "nas", "username", "started_at", "stopped_at")


@dataclass(frozen=True, slots=True)
class AskedSpan:
    """The options as they were typed."""

    by: str | None
    start: str | None
    end: str | None
    service: str | None

    def check_unused(self) -> None:
        if self.start or self.end or self.service:
            raise click.UsageError("--from, --to and --service go with --by hour, day, month or session.")


def span_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds --by, --from, --to and --service; the command gets `asked`."""

    @wraps(command)
    def with_asked(*args: Any, by: str, start: str, end: str, service: str, **kwargs: Any) -> Any:
        return command(*args, asked=AskedSpan(by, start, end, service), **kwargs)

    options = (
        click.option("--by", type=click.Choice(BYS), help="By hour (of 24), day (of 30), month (of 12) or session."),
        click.option("--from", "start", metavar="WHEN", help="With --by: from then on; a date, or 12h or 7d ago."),
        click.option("--to", "end", metavar="WHEN", help="With --by: up to then, which is not in it; else up to now."),
        click.option("--service", metavar="IDENTITY", help="With --by: of one service, by its user name or device."),
    )
    for option in reversed(options):
        option(with_asked)
    return with_asked


def show_spans(caller: Caller, name: str, asked: AskedSpan, form: Format) -> None:
    """Every account of the subscriber in its own zone; an account without usage then has no row."""
    from sms_aaa.flows.spanning import By, list_usage_by

    assert asked.by is not None
    by = By(asked.by)
    with caller.connect() as connection:
        spans = _spans(connection, name, asked, by)
        found = [(span, list_usage_by(connection, span, by)) for span in spans]
    if form is Format.JSON:
        document([_document(span, parts, by) for span, parts in found])
    elif form is Format.CSV:
        columns = ("account_id", *_columns(by), *_FIGURES)
        rows = [(span.account.id, *_labels(span, part, by), *_figures(part)) for span, parts in found for part in parts]
        listing(columns, rows, form)
    else:
        for span, parts in found:
            _show(span, parts, by)


def _spans(connection: Connection, name: str, asked: AskedSpan, by: str) -> list[Span]:
    from sms_aaa.db.usage_spans import list_accounts, list_services
    from sms_aaa.flows.provisioning.subscribers import get_subscriber

    subscriber_id = get_subscriber(connection, name)[0].subscriber_id
    service_id = None
    if asked.service is not None:
        services = {identity: service_id for service_id, identity in list_services(connection, subscriber_id)}
        service_id = services.get(asked.service)
        if service_id is None:
            known = ", ".join(services) or "none"
            raise Failure(Exit.NOT_FOUND, f"{name} has no service {asked.service}", f"it has {known}")
    return [_span(account, service_id, asked, by) for account in list_accounts(connection, subscriber_id)]


def _span(account: AccountRow, service_id: int | None, asked: AskedSpan, by: str) -> Span:
    from sms_aaa.flows.spanning import By, Span, widen

    now = datetime.now(UTC)
    end = parse_since(asked.end, account.zone, now, option="--to") if asked.end is not None else now
    back = _BACK.get(by, timedelta(days=30))
    start = parse_since(asked.start, account.zone, now, option="--from") if asked.start is not None else end - back
    if start >= end:
        raise click.BadParameter(f"{start:%Y-%m-%d %H:%M} is not before --to.", param_hint="'--from'")
    return widen(Span(account, service_id, start, end), By(by))


def _show(span: Span, parts: Sequence[SpanUsage], by: str) -> None:
    from sms_aaa.flows.spanning import By, fill_gaps

    zone = span.zone
    heading(f"account {span.account.id}, {_local(span.start, zone)} to {_local(span.end, zone)}, {span.account.zone}")
    if not parts:
        say("nothing was used")
        return
    shown = parts if by == "session" else fill_gaps(parts, span, By(by))
    most = max(part.octets_in + part.octets_out for part in shown)
    rows = [(*_labels(span, part, by), *_figures(part), _bar(part, most)) for part in shown]
    hidden = {"acct_session_id", "stopped_at"}
    columns = (*_columns(by), *_FIGURES, "bar")
    kept = [at for at, column in enumerate(columns) if column not in hidden]
    titles = [{"octets": "both", "bar": ""}.get(columns[at], columns[at]) for at in kept]
    listing(titles, [[row[at] for at in kept] for row in rows], Format.TABLE)
    total = _total(parts)
    up, down, both, online = (cell.text for cell in _figures(total))
    say(f"total {up} up, {down} down, {both} both, online {online}")


def _document(span: Span, parts: Sequence[SpanUsage], by: str) -> dict[str, object]:
    names = (*_columns(by), *_FIGURES)
    return {
        "account_id": span.account.id,
        "zone": span.account.zone,
        "from_at": span.start,
        "to_at": span.end,
        "by": str(by),
        "usage": [dict(zip(names, (*_labels(span, part, by), *_figures(part)), strict=True)) for part in parts],
        "total": dict(zip(_FIGURES, _figures(_total(parts)), strict=True)),
    }


def _columns(by: str) -> tuple[str, ...]:
    return _SESSION_COLUMNS if by == "session" else (by,)


def _labels(span: Span, part: SpanUsage, by: str) -> tuple[Cell, ...]:
    session = part.session
    if session is not None:
        return (
            session.id, session.acct_session_id, session.nas, session.username, session.started_at, session.stopped_at,
        )  # fmt: skip
    local = part.from_at.astimezone(span.zone)
    if by == "hour":
        return (Shown(local.isoformat(), _local(part.from_at, span.zone)),)
    return (f"{local:%Y-%m-%d}" if by == "day" else f"{local:%Y-%m}",)


def _figures(part: SpanUsage) -> tuple[Shown, ...]:
    both = part.octets_in + part.octets_out
    return octets(part.octets_in), octets(part.octets_out), octets(both), seconds(part.seconds)


def _total(parts: Sequence[SpanUsage]) -> SpanUsage:
    from sms_aaa.flows.spanning import SpanUsage

    epoch = datetime.fromtimestamp(0, UTC)
    return SpanUsage(
        epoch,
        epoch,
        sum(part.octets_in for part in parts),
        sum(part.octets_out for part in parts),
        sum(part.seconds for part in parts),
    )


def _bar(part: SpanUsage, most: int) -> str:
    """What is not nothing has a letter at least."""
    both = part.octets_in + part.octets_out
    return "#" * max(int(both > 0), (both * BAR_LETTERS + most // 2) // most) if most else ""


def _local(at: datetime, zone: ZoneInfo) -> str:
    """With the offset: an hour that comes twice has two."""
    return f"{at.astimezone(zone):%Y-%m-%d %H:%M %z}"
