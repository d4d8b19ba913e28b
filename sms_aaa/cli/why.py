"""`sms-aaa why`: the last decisions about somebody, each with the checks behind it and what to do next.

It answers while PostgreSQL is away, from this node's own decision stream: three in the morning is when it is.
"""

from __future__ import annotations

import shlex
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import click

from sms_aaa.cli.caller import Caller, pass_caller
from sms_aaa.cli.exits import Exit, Failure
from sms_aaa.cli.options import listing_options
from sms_aaa.cli.output import Cell, Format, document, heading, listing, note, say
from sms_aaa.cli.verbs import Verb

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sms_aaa.db.engine import Connection
    from sms_aaa.flows.recalling import Recalled, Recollection

DEVICE_SEARCH = timedelta(days=1)
"""How far back a device is looked for under user names that are not its own."""

_COLUMNS = (
    "at", "decision", "username", "calling_station_id", "nas", "nas_port", "method", "sessions_seen", "sessions_max",
    "service_id", "plan_version_id", "node", "sequence", "record_offset", "settled",
)  # fmt: skip


@click.command(cls=Verb)
@click.argument("name")
@click.option("--last", type=click.IntRange(1, 1000), default=3, show_default=True, help="So many decisions.")
@listing_options
@pass_caller
def why(caller: Caller, name: str, last: int, form: Format) -> None:
    """Say why a login was let in or refused.

    NAME is a user name as the NAS sent it, a device's hardware address, or a subscriber. The checks stand in their
    order: they end at the first that fails.

    Example: sms-aaa why alice --last 1
    """
    found = _recall(caller, name, last)
    for fault in found.faults:
        note(f"sms-aaa: {fault}")
    if found.is_cut:
        note("sms-aaa: the node's decision stream is long: older decisions in it were not searched")
    if not found.decisions:
        raise _nothing_known(name, found)
    following, hint = next_command(found, name), _hint(found)
    if form is Format.JSON:
        decisions = [{**decision_cells(one), "checks": _check_documents(one)} for one in found.decisions]
        document({"name": name, "decisions": decisions, "hint": hint, "next": following})
        return
    if form is Format.CSV:
        listing(_COLUMNS, [list(decision_cells(one).values()) for one in found.decisions], form)
        return
    for one in found.decisions:
        _show(one)
    say()
    if hint is not None:
        say(f"note: {hint}")
    say(f"next: {following}")


def recall_for(caller: Caller, connection: Connection | None, name: str, *, last: int) -> Recollection:
    """The last decisions about a name; without a connection, from this node alone."""
    from sms_aaa.flows.decision_stream import NodeTrace
    from sms_aaa.flows.recalling import recall
    from sms_aaa.node.board import Board

    board = Board.open(caller.state_folder / "board")
    known = board if isinstance(board, Board) else None
    try:
        trace = NodeTrace(caller.state_folder, caller.settings.node.name, known)
        return recall(connection, trace, name, last=last, device_since=datetime.now(UTC) - DEVICE_SEARCH)
    finally:
        if known is not None:
            known.close()


def decision_cells(one: Recalled) -> dict[str, Cell]:
    """A decision by column."""
    decision = one.decision
    cells: tuple[Cell, ...] = (
        decision.at, one.reason.label, decision.username, decision.calling_station_id or None, one.nas,
        decision.nas_port or None, one.method.name.lower(), decision.sessions_seen, decision.sessions_max,
        decision.service_id, decision.plan_version_id, decision.node, decision.sequence, decision.record_offset,
        one.is_settled,
    )  # fmt: skip
    return dict(zip(_COLUMNS, cells, strict=True))


def next_command(found: Recollection, name: str) -> str:
    """What to type next, by the newest decision."""
    newest = found.decisions[0]
    whose = next((row.name for row in found.subscribers if row.service_id == newest.decision.service_id), None)
    subscriber = whose or (found.subscribers[0].name if found.subscribers else name)
    return f"sms-aaa {_next(newest, shlex.quote(subscriber))}"


def _next(newest: Recalled, subscriber: str) -> str:
    from sms_aaa.rules.realms import split_realm
    from sms_aaa.rules.reasons import Reason

    decision, nas = newest.decision, shlex.quote(newest.nas)
    realm = split_realm(decision.username.encode())
    return {
        Reason.ACCEPTED: f"sessions {subscriber}",
        Reason.RATE_LIMITED: f"why {subscriber} --last 20",
        Reason.LOCKED_OUT: "lockouts list",
        Reason.REALM_UNKNOWN: f"realm add {shlex.quote(realm[1].decode()) if realm is not None else 'REALM'}",
        Reason.UNSUPPORTED_METHOD: f"nas show {nas}",
        Reason.UNKNOWN_USER: f"subscriber add {subscriber} --plan PLAN",
        Reason.NO_CREDENTIAL: f"credential set {subscriber}",
        Reason.BAD_PASSWORD: f"credential set {subscriber}",
        Reason.BLOCKED: f"subscriber unblock {subscriber}",
        Reason.SUSPENDED: f"subscriber restore {subscriber}",
        Reason.NOT_YET_ACTIVE: f"subscriber set {subscriber} --valid-from none",
        Reason.EXPIRED: f"subscriber set {subscriber} --valid-until none",
        Reason.NO_PLAN: f"subscriber show {subscriber}",
        Reason.NAS_NOT_ALLOWED: f"subscriber bind {subscriber} --nas {nas}",
        Reason.PORT_MISMATCH: f"subscriber bind {subscriber} --port {shlex.quote(decision.nas_port or 'PORT')}",
        Reason.MAC_NOT_BOUND: f"subscriber bind {subscriber} --mac {shlex.quote(decision.calling_station_id or 'MAC')}",
        Reason.CONCURRENT_LIMIT: f"sessions {subscriber}",
        Reason.BACKEND_UNAVAILABLE: "status",
    }[newest.reason]


def _recall(caller: Caller, name: str, last: int) -> Recollection:
    try:
        connection = caller.connect()
    except Failure as away:
        note(f"sms-aaa: {away.reason}: this node's own decisions answer alone")
        found = recall_for(caller, None, name, last=last)
        if not found.decisions:
            raise Failure(
                Exit.UNAVAILABLE, f"this node alone knows of no decision about {name}", "try again with the database"
            ) from away
        return found
    with connection:
        return recall_for(caller, connection, name, last=last)


def _hint(found: Recollection) -> str | None:
    """What else is known of the name that helps: whose it was, when it was last heard of."""
    parts = []
    if found.former is not None:
        parts.append(f"the subscriber {found.former.name} was removed on {found.former.removed_at:%Y-%m-%d %H:%M:%SZ}")
    if found.heard is not None:
        heard = found.heard
        parts.append(
            f"accounting of {heard.username} was last heard at {heard.received_at:%Y-%m-%d %H:%M:%SZ} by {heard.nas}"
        )
    return "; ".join(parts) or None


def _nothing_known(name: str, found: Recollection) -> Failure:
    hint = _hint(found)
    also = f" ({hint})" if hint is not None else ""
    if not found.subscribers:
        return Failure(
            Exit.NOT_FOUND,
            f"no decision about {name} is known, and no subscriber or service of that name{also}",
            "see `sms-aaa subscriber list`",
        )
    return Failure(
        Exit.NOT_FOUND,
        f"no decision about {name} is known: no NAS that we know has asked for it{also}",
        "see what is dropped in `sms-aaa status`, and who may ask in `sms-aaa nas list`",
    )


def _show(one: Recalled) -> None:
    decision = one.decision
    device = f" from {decision.calling_station_id}" if decision.calling_station_id else ""
    port = f" port {decision.nas_port}" if decision.nas_port else ""
    heading(f"{decision.at:%Y-%m-%d %H:%M:%SZ}  {one.reason.label}  {decision.username}{device} on {one.nas}{port}")
    listing(("check", "verdict", "saw"), [(c.name, c.verdict.value, c.saw) for c in one.checks], Format.TABLE)


def _check_documents(one: Recalled) -> Sequence[dict[str, str]]:
    return [{"check": check.name, "verdict": check.verdict.value, "saw": check.saw} for check in one.checks]
