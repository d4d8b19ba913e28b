"""`sms-aaa session show`: everything of one session, down to the records that it was counted from."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from sms_aaa.cli.anomalies import explain_kinds
from sms_aaa.cli.caller import Caller, pass_caller
from sms_aaa.cli.exits import Exit, Failure
from sms_aaa.cli.options import listing_options
from sms_aaa.cli.output import Cell, Format, document, facts, heading, listing, octets, say, seconds
from sms_aaa.cli.session_cells import cause
from sms_aaa.cli.verbs import Verbs
from sms_aaa.rules.session import State

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sms_aaa.db.engine import Connection
    from sms_aaa.db.session_story import ToldSession
    from sms_aaa.db.usage import DeltaRow
    from sms_aaa.flows.recounting import Cost, Story

_DELTA_COLUMNS = ("seq", "from_at", "to_at", "octets_up", "octets_down", "seconds", "run", "wrapped", "before", "after")
_LIFE_COLUMNS = (
    "id",
    "life",
    "state",
    "nas",
    "acct_session_id",
    "started_at",
    "stopped_at",
    "octets_up",
    "octets_down",
)


@click.group(cls=Verbs)
def session() -> None:
    """One session: show."""


@session.command()
@click.argument("which", metavar="ID")
@click.option("--nas", "nas_name", metavar="NAME", help="The access server that calls it so.")
@click.option("--deltas", type=click.IntRange(1, 100_000), default=20, show_default=True, help="The last so many.")
@listing_options
@pass_caller
def show(caller: Caller, which: str, nas_name: str | None, *, deltas: int, form: Format) -> None:
    """Show everything of a session: how it ended, what was counted from which records, what was odd.

    ID is that of `sessions`, or the Acct-Session-Id of the NAS. Where the NAS used that more than once, the last life
    is shown and the others are listed. A record's place is what `journal show` takes, on the node that it names.

    Example: sms-aaa session show 8000001f --nas bng1
    """
    from sms_aaa.flows.recounting import recount

    with caller.connect() as connection:
        told = _find(connection, which, nas_name)
        story = recount(connection, told, deltas_max=deltas)
    if form is Format.JSON:
        document(_document(story))
    elif form is Format.CSV:
        listing(_DELTA_COLUMNS, [_delta_cells(delta) for delta in story.deltas], form)
    else:
        _show(story)


def _find(connection: Connection, which: str, nas_name: str | None) -> ToldSession:
    """The newest; Failure when there is none, or when several NASes call one so."""
    from sms_aaa.flows.provisioning.nas import get_nas
    from sms_aaa.flows.recounting import find_sessions

    nas_id = get_nas(connection, nas_name).id if nas_name is not None else None
    found = find_sessions(connection, which, nas_id=nas_id)
    if not found:
        where = f" on {nas_name}" if nas_name is not None else ""
        raise Failure(Exit.NOT_FOUND, f"there is no session {which}{where}", "see `sms-aaa sessions --all`")
    if len({told.nas_id for told in found}) > 1:
        named = ", ".join(sorted({told.nas for told in found}))
        raise Failure(Exit.CONFLICT, f"{named} have a session {which} each", "name the one with --nas")
    return found[0]


def _show(story: Story) -> None:
    facts(_own_cells(story), Format.TABLE)
    heading("what its records say")
    facts(_fact_cells(story.session), Format.TABLE)
    if story.former:
        heading("addresses that it had before")
        rows = [(one.kind, one.address, one.from_at, one.heard_at, one.to_at) for one in story.former]
        listing(("kind", "address", "from_at", "heard_at", "to_at"), rows, Format.TABLE)
    if story.deltas:
        left = story.session.deltas - len(story.deltas)
        heading(f"usage by records{f', the last of {story.session.deltas} (--deltas)' if left else ''}")
        listing(_DELTA_COLUMNS, [_delta_cells(delta) for delta in story.deltas], Format.TABLE)
    if story.anomalies:
        heading("anomalies")
        rows_ = [(one.id, one.kind, one.event_at, f"{one.sequence}:{one.record_offset}") for one in story.anomalies]
        listing(("id", "kind", "event_at", "record"), rows_, Format.TABLE)
        explain_kinds(one.kind for one in story.anomalies)
    _show_lives("other lives under this id", story.others)
    _show_lives("of the same login", story.siblings)
    _show_next(story)


def _show_lives(title: str, lives: Sequence[ToldSession]) -> None:
    if lives:
        heading(title)
        listing(_LIFE_COLUMNS, [_life_cells(one) for one in lives], Format.TABLE)


def _show_next(story: Story) -> None:
    told = story.session
    say()
    place = f"{told.reading_sequence}:{told.reading_offset}"
    say(f"next: sms-aaa journal show {place}   (its newest reading, on {told.reading_node})")
    if told.subscriber is not None:
        say(f"next: sms-aaa explain {told.subscriber} --session {told.id}")


def _own_cells(story: Story) -> dict[str, Cell]:
    told, login = story.session, story.login
    words = story.ending.value
    ended = f"{words}, {cause(told.terminate_cause)}" if told.terminate_cause is not None else words
    entered = f"{login.at:%Y-%m-%d %H:%M:%SZ} on {login.node} as {login.username}" if login is not None else None
    return {
        "id": told.id,
        "nas": told.nas,
        "acct_session_id": told.acct_session_id,
        "life": told.life,
        "state": State(told.state).name.lower(),
        "end": ended,
        "end_is_estimated": told.estimated,
        "subscriber": told.subscriber,
        "plan": told.plan,
        "excluded": told.excluded,
        "started_at": told.started_at,
        "updated_at": told.updated_at,
        "stopped_at": told.stopped_at,
        "received_at": told.received_at,
        "seconds": seconds(told.seconds),
        "octets_up": octets(told.octets_in),
        "octets_down": octets(told.octets_out),
        "counter_runs": told.run,
        "login": entered,
        "cost": _cost_text(story),
    }


def _cost_text(story: Story) -> str:
    if story.session.account_id is None:
        return "none: it belongs to no account"
    if story.costs is None:
        return "see `explain`: it has very many deltas"
    waiting = f"{story.unrated} records wait for the rater" if story.unrated else ""
    return (
        ", ".join(filter(None, [*(f"{_cost(one)} for {one.component}" for one in story.costs), waiting])) or "nothing"
    )


def _cost(one: Cost) -> str:
    from sms_aaa.rules.money import format_exact

    return format_exact(one.numerator, one.denominator, one.currency)


def _fact_cells(told: ToldSession) -> dict[str, Cell]:
    """What is there, numbers by their names; vendors' attributes each on a line of its own."""
    from sms_aaa.radius import values

    names = {
        "nas_port_type": values.NasPortType,
        "acct_authentic": values.AcctAuthentic,
        "service_type": values.ServiceType,
        "framed_protocol": values.FramedProtocol,
    }
    cells: dict[str, Cell] = {}
    for name, value in told.facts.items():
        if value is None:
            continue
        if name == "vendor_attributes":
            cells |= {attribute: _vendor_text(text) for attribute, text in json.loads(value).items()}
        elif name in names:
            cells[name] = names[name].name_of(value)
        else:
            cells[name] = bytes(value).hex() if isinstance(value, bytes | memoryview) else value
    return cells


def _vendor_text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _delta_cells(delta: DeltaRow) -> tuple[Cell, ...]:
    before = None if delta.before_sequence is None else f"{delta.before_sequence}:{delta.before_offset}"
    return (
        delta.seq, delta.from_at, delta.to_at, octets(delta.octets_in), octets(delta.octets_out),
        seconds(delta.seconds), delta.run, delta.wrapped, before, f"{delta.after_sequence}:{delta.after_offset}",
    )  # fmt: skip


def _life_cells(told: ToldSession) -> tuple[Cell, ...]:
    return (
        told.id, told.life, State(told.state).name.lower(), told.nas, told.acct_session_id, told.started_at,
        told.stopped_at, octets(told.octets_in), octets(told.octets_out),
    )  # fmt: skip


def _document(story: Story) -> dict[str, object]:
    told = story.session
    vendor = told.facts.get("vendor_attributes")
    plain = {name: cell for name, cell in _fact_cells(told).items() if name in told.facts}
    return {
        **_own_cells(story),
        "terminate_cause": cause(told.terminate_cause),
        "facts": {**dict.fromkeys(told.facts), **plain, "vendor_attributes": json.loads(vendor) if vendor else {}},
        "former_addresses": [
            {
                "kind": one.kind,
                "address": one.address,
                "from_at": one.from_at,
                "heard_at": one.heard_at,
                "to_at": one.to_at,
            }
            for one in story.former
        ],
        "deltas": [
            {
                **dict(zip(_DELTA_COLUMNS, _delta_cells(delta), strict=True)),
                "before_node": delta.before_node,
                "after_node": delta.after_node,
            }
            for delta in story.deltas
        ],
        "anomalies": [
            {"id": one.id, "kind": one.kind, "event_at": one.event_at, "record": f"{one.sequence}:{one.record_offset}"}
            for one in story.anomalies
        ],
        "costs": [
            {"component": one.component, "currency": one.currency, "octets": one.octets, "exact": _cost(one)}
            for one in story.costs or ()
        ],
        "unrated": story.unrated,
        "other_lives": [dict(zip(_LIFE_COLUMNS, _life_cells(one), strict=True)) for one in story.others],
        "siblings": [dict(zip(_LIFE_COLUMNS, _life_cells(one), strict=True)) for one in story.siblings],
    }
