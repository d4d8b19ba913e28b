"""`sms-aaa nas drops`: what was met with silence, from where and why. It answers while PostgreSQL is away too."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from sms_aaa.cli.caller import Caller, pass_caller
from sms_aaa.cli.exits import Failure
from sms_aaa.cli.options import listing_options, parse_since
from sms_aaa.cli.output import Cell, Format, listing, note, say
from sms_aaa.cli.verbs import Verb

if TYPE_CHECKING:
    from ipaddress import IPv4Network, IPv6Network

    from sms_aaa.db.engine import Connection
    from sms_aaa.flows.listing_drops import Dropped

_COLUMNS = ("source", "nas", "fault", "packets", "first_at", "last_at", "last_port")


@click.command(cls=Verb)
@click.argument("source", metavar="[NAS|ADDRESS]", required=False)
@click.option("--since", metavar="WHEN", default="1h", show_default=True, help="As 30m, 12h, 7d, or a date.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="So many lines.")
@listing_options
@pass_caller
def drops(caller: Caller, source: str | None, since: str, limit: int, form: Format) -> None:
    """List what was dropped without an answer, by source and fault, the latest first.

    A RADIUS server is silent towards whoever breaks the protocol, is not known or has the wrong secret: here is what
    came. Counts are of windows of ten minutes. Sources that nobody knows are named up to a bound; others are summed up.

    Example: sms-aaa nas drops 192.0.2.0/24 --since 12h
    """
    moment = parse_since(since, caller.settings.rating.zone, datetime.now(UTC))
    network = _network(source) if source is not None else None
    name = source if network is None else None
    try:
        connection = caller.connect()
    except Failure as away:
        note(f"sms-aaa: {away.reason}: this node's own log answers alone")
        found = _list(caller, None, moment, name, network)
    else:
        with connection:
            found = _list(caller, connection, moment, name, network)
    listing(_COLUMNS, [_cells(one) for one in found[:limit]], form, empty="nothing was dropped")
    if form is Format.TABLE:
        _explain(found[:limit])


def _list(
    caller: Caller,
    connection: Connection | None,
    since: datetime,
    nas: str | None,
    network: IPv4Network | IPv6Network | None,
) -> list[Dropped]:
    from sms_aaa.flows.listing_drops import list_drops
    from sms_aaa.flows.provisioning.nas import get_nas

    if nas is not None and connection is not None:
        get_nas(connection, nas)  # a name that nobody has is said
    node = caller.settings.node.name
    return list_drops(connection, caller.state_folder, node=node, since=since, nas=nas, network=network)


def _network(text: str) -> IPv4Network | IPv6Network | None:
    from ipaddress import ip_network

    try:
        return ip_network(text, strict=False)
    except ValueError:
        return None


def _cells(one: Dropped) -> tuple[Cell, ...]:
    total = one.total
    return (
        total.address or "others", one.nas, total.fault, total.packets, total.first_at, total.last_at, total.last_port,
    )  # fmt: skip


def _explain(found: list[Dropped]) -> None:
    """A sentence for each fault that occurs."""
    from sms_aaa.radius.faults import PacketFault

    sentences = {fault.label: fault.sentence for fault in PacketFault}
    faults = sorted({one.total.fault for one in found})
    if faults:
        say()
    for fault in faults:
        say(f"{fault}: {sentences.get(fault, 'a fault that this version does not know')}")
