"""`sms-aaa rejects`: the last refusals with their reasons. It answers while PostgreSQL is away too, of this node."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from sms_aaa.cli.caller import Caller, pass_caller
from sms_aaa.cli.exits import Exit, Failure
from sms_aaa.cli.options import listing_options, parse_since
from sms_aaa.cli.output import Cell, Format, listing, note, say
from sms_aaa.cli.verbs import Verb
from sms_aaa.rules.reasons import Reason

if TYPE_CHECKING:
    from sms_aaa.db.engine import Connection
    from sms_aaa.flows.listing_decisions import Refusal, RefusalFilter, Refusals

_COLUMNS = ("at", "reason", "saw", "username", "calling_station_id", "nas", "nas_port", "method", "node", "settled")
_REASONS = {reason.label: reason for reason in Reason if reason is not Reason.ACCEPTED}


@click.command(cls=Verb)
@click.option("--nas", metavar="NAME", help="By this access server alone.")
@click.option("--user", metavar="NAME", help="Of this user name, as the NAS sent it.")
@click.option("--mac", metavar="ADDRESS", help="Of this device, in whatever notation.")
@click.option("--reason", type=click.Choice(list(_REASONS)), metavar="REASON", help="One that `status` lists.")
@click.option("--since", metavar="WHEN", default="24h", show_default=True, help="As 30m, 12h, 7d, or a date.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, show_default=True, help="So many refusals.")
@listing_options
@pass_caller
def rejects(
    caller: Caller,
    nas: str | None,
    user: str | None,
    mac: str | None,
    reason: str | None,
    since: str,
    limit: int,
    form: Format,
) -> None:
    """List the last refusals, the newest first, each with its reason.

    `why` tells of one name which checks it passed. What got no answer at all is in `nas drops`.

    Example: sms-aaa rejects --reason bad-password --since 1h
    """
    from sms_aaa.flows.listing_decisions import RefusalFilter

    wanted = RefusalFilter(
        since=parse_since(since, caller.settings.rating.zone, datetime.now(UTC)),
        nas=nas,
        username=user,
        device=_device(mac) if mac is not None else None,
        reason=_REASONS[reason] if reason is not None else None,
    )
    found = _find(caller, wanted, limit)
    if found is None:
        raise Failure(Exit.NOT_FOUND, f"there is no NAS {nas}", "see `sms-aaa nas list`")
    for fault in found.faults:
        note(f"sms-aaa: {fault}")
    if found.is_cut:
        note("sms-aaa: the node's decision stream is long: older decisions in it were not searched")
    listing(_COLUMNS, [_cells(one) for one in found.refusals], form, empty="nobody was refused")
    if form is Format.TABLE and found.refusals:
        say()
        say("next: sms-aaa why USERNAME")


def _device(text: str) -> str:
    from sms_aaa.rules.identity import canonical_mac

    device = canonical_mac(text.encode())
    if device is None:
        raise click.BadParameter(f"{text!r} is not a hardware address.", param_hint="'--mac'")
    return device.decode()


def _find(caller: Caller, wanted: RefusalFilter, limit: int) -> Refusals | None:
    try:
        connection = caller.connect()
    except Failure as away:
        note(f"sms-aaa: {away.reason}: this node's own decisions answer alone")
        return _list(caller, None, wanted, limit)
    with connection:
        return _list(caller, connection, wanted, limit)


def _list(caller: Caller, connection: Connection | None, wanted: RefusalFilter, limit: int) -> Refusals | None:
    from sms_aaa.flows.decision_stream import NodeTrace
    from sms_aaa.flows.listing_decisions import list_refusals
    from sms_aaa.node.board import Board

    board = Board.open(caller.state_folder / "board")
    known = board if isinstance(board, Board) else None
    try:
        trace = NodeTrace(caller.state_folder, caller.settings.node.name, known)
        return list_refusals(connection, trace, wanted, limit=limit)
    finally:
        if known is not None:
            known.close()


def _cells(one: Refusal) -> tuple[Cell, ...]:
    from sms_aaa.radius.credentials import Method

    decision = one.decision
    return (
        decision.at, one.reason.label, decision.saw or None, decision.username, decision.calling_station_id or None,
        one.nas, decision.nas_port or None, Method(decision.method).name.lower(), decision.node, one.is_settled,
    )  # fmt: skip
