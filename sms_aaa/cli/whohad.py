"""`sms-aaa whohad`: whose address, prefix or port it was at an instant, how sure that is, and where it is on record."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import click

from sms_aaa.cli.caller import Caller, pass_caller
from sms_aaa.cli.exits import Exit
from sms_aaa.cli.options import listing_options, parse_instant
from sms_aaa.cli.output import Cell, Format, document, facts, heading, listing, note, say
from sms_aaa.cli.verbs import Verb

if TYPE_CHECKING:
    from datetime import datetime
    from ipaddress import IPv4Network, IPv6Network

    from sms_aaa.flows.whohad import Answer, Answers

PORT_MAX = 65_535
_KINDS = {
    "framed_ip": "Framed-IP-Address",
    "framed_ipv6_address": "Framed-IPv6-Address",
    "framed_ipv6_prefix": "Framed-IPv6-Prefix",
    "delegated_ipv6_prefix": "Delegated-IPv6-Prefix",
    "port_block": "ports behind NAT",
}
_COLUMNS = (
    "subscriber", "username", "service_id", "service", "calling_station_id", "address", "kind", "port_from", "port_to",
    "protocol", "from", "to", "sure", "doubts", "nas", "nas_ip", "nas_identifier", "nas_port", "nas_port_id",
    "circuit_id", "acct_session_id", "session_id", "session_from", "session_to", "last_heard", "terminate_cause",
    "evidence_node", "evidence_sequence", "evidence_offset",
)  # fmt: skip


@click.command(cls=Verb)
@click.argument("address", metavar="ADDRESS[:PORT]")
@click.option("--at", "when", required=True, metavar="TIME", help="2026-01-31T12:00+01:00, or without offset.")
@click.option(
    "--tolerance", type=click.IntRange(0, 86_400), default=0, metavar="SECONDS", help="How far off TIME may be."
)
@listing_options
@pass_caller
def whohad(caller: Caller, address: str, when: str, tolerance: int, form: Format) -> None:
    """Say whose an address was at an instant.

    ADDRESS is IPv4 or IPv6, or a prefix of either; [2001:db8::1]:443 with a port. Behind a NAT the port says whose it
    was, as far as the NAT reports its port blocks in accounting. A TIME without an offset is by rating.zone's clock.

    Where nobody had it, the nearest before and after are shown, and the exit code is 3.

    Example: sms-aaa whohad 100.64.0.7 --at 2026-01-31T12:00:00+01:00

    Example: sms-aaa whohad 203.0.113.9:40123 --at 2026-01-31T12:00Z --tolerance 5 --json
    """
    from sms_aaa.flows.whohad import find_holders

    asked, port = _parse(address)
    zone = caller.settings.rating.zone
    at = parse_instant(when, zone)
    with caller.connect() as connection:
        answers = find_holders(connection, asked, port, at, tolerance_seconds=tolerance)
    if answers.is_cut:
        note(f"sms-aaa: only the first {len(answers.held)} are shown; ask for a narrower prefix or with a port")
    if port is not None and asked.version == 6:
        note("sms-aaa: an IPv6 address is not shared by ports: the port does not matter")
    if form is Format.JSON:
        _document(address, at, tolerance, answers)
    elif form is Format.CSV:
        listing(_COLUMNS, [list(_cells(one).values()) for one in answers.held], form)
    else:
        _show(address, at, answers)
    if not answers.held:
        raise click.exceptions.Exit(Exit.NOT_FOUND)


def _parse(text: str) -> tuple[IPv4Network | IPv6Network, int | None]:
    from sms_aaa.db.whohad import network_of

    found = re.fullmatch(r"\[(?P<six>[^\]]+)\](?::(?P<port6>\d{1,5}))?|(?P<four>[0-9./]+)(?::(?P<port>\d{1,5}))?", text)
    written, port = (text, None) if found is None else (found["six"] or found["four"], found["port6"] or found["port"])
    try:
        asked = network_of(written)
    except ValueError:
        asked = None
    if asked is None or int(port or 0) > PORT_MAX:
        raise click.BadParameter(
            f"{text!r} is no address; write it as 100.64.0.7, 203.0.113.9:40123, 2001:db8::/56 or [2001:db8::1]:443.",
            param_hint="'ADDRESS'",
        )
    return asked, int(port) if port is not None else None


def _cells(one: Answer) -> dict[str, Cell]:
    found, holder = one.found, one.holder
    cells: tuple[Cell, ...] = (
        holder.subscriber, holder.username, holder.service_id, holder.identity, holder.calling_station_id,
        found.address, found.kind, found.port_from, found.port_to, found.protocol or None, one.holding.from_at,
        one.holding.to_at, one.is_sure, " ".join(one.doubts) or None, holder.nas, holder.nas_ip, holder.nas_identifier,
        holder.nas_port, holder.nas_port_id, holder.circuit_id, holder.acct_session_id, holder.session_id,
        holder.started_at, holder.stopped_at, holder.updated_at, holder.terminate_cause, holder.node, holder.sequence,
        holder.record_offset,
    )  # fmt: skip
    return dict(zip(_COLUMNS, cells, strict=True))


def _document(address: str, at: datetime, tolerance: int, answers: Answers) -> None:
    document(
        {
            "asked": address,
            "at": at,
            "tolerance_seconds": tolerance,
            "holders": [_cells(one) for one in answers.held],
            "before": _cells(answers.before) if answers.before is not None else None,
            "after": _cells(answers.after) if answers.after is not None else None,
        }
    )


def _show(address: str, at: datetime, answers: Answers) -> None:
    from sms_aaa.rules.holding import DOUBTS

    say(_question(address, at))
    for number, one in enumerate(answers.held, 1):
        heading(f"{number}. {one.holder.subscriber or one.holder.username or 'nobody we know'}")
        facts(_facts(one), Format.TABLE)
        for doubt in one.doubts:
            say(f"note: {DOUBTS[doubt]}")
    if answers.held:
        return
    say("nobody had it, as far as records tell")
    for relation, near in (("before", answers.before), ("after", answers.after)):
        if near is None:
            say(f"{relation}: nobody")
            continue
        heading(f"{relation}: {near.holder.subscriber or near.holder.username or 'nobody we know'}")
        facts(_facts(near), Format.TABLE)


def _question(address: str, at: datetime) -> str:
    from datetime import UTC

    local = at.isoformat()
    utc = f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%SZ}"
    return f"{address} at {utc}, which is {local}; times are UTC"


def _facts(one: Answer) -> dict[str, Cell]:
    found, holder = one.found, one.holder
    ports = f" {found.port_from}-{found.port_to}" if found.port_from is not None else ""
    return {
        "username": holder.username or None,
        "service": f"{holder.service_id} ({holder.identity})" if holder.service_id is not None else None,
        "device": holder.calling_station_id,
        "had": f"{found.address}{ports} ({_KINDS[found.kind]})",
        "from": one.holding.from_at,
        "to": one.holding.to_at or "still",
        "certainty": "sure" if one.is_sure else "not sure",
        "nas": holder.nas,
        "port": holder.nas_port_id or holder.nas_port,
        "line": holder.circuit_id,
        "session": f"{holder.acct_session_id} (id {holder.session_id})",
        "last heard": holder.updated_at,
        "evidence": f"{holder.node}, journal record {holder.sequence}:{holder.record_offset}",
    }
