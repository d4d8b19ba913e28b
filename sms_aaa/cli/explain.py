"""`sms-aaa explain`: from an amount down to the packets. The same tree for people, as JSON, and flat as CSV."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from sms_aaa.cli.caller import Caller, pass_caller
from sms_aaa.cli.exits import Exit, Failure
from sms_aaa.cli.options import listing_options
from sms_aaa.cli.output import Cell, Format, document, heading, listing, money, note, octets, say
from sms_aaa.cli.usage import cycle_options, exact, find_cycles
from sms_aaa.cli.verbs import Verb

if TYPE_CHECKING:
    from fractions import Fraction

    from sms_aaa.db.engine import Connection
    from sms_aaa.db.usage import DeltaRow
    from sms_aaa.flows.explaining import ExplainedLine, ExplainedSlice, Explanation, PacketAway, SeenPacket
    from sms_aaa.rules.pricing import PricePart
    from sms_aaa.rules.session import Place

_COLUMNS = (
    "component", "session_id", "acct_session_id", "nas", "seq", "slice", "from_at", "to_at", "is_cut", "slot",
    "band", "key", "quantity", "covered", "uncovered", "buckets", "generation", "run_kind", "total_before",
    "exact", "before_in", "before_out", "after_in", "after_out", "run", "wrapped",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Packets:
    """Finds packets by their place; `wanted` False: nobody asked for them."""

    caller: Caller
    wanted: bool
    database_id: bytes

    def find(self, place: Place) -> SeenPacket | PacketAway:
        from sms_aaa.flows.explaining import find_packet

        return find_packet(
            place,
            node=self.caller.settings.node.name,
            journal_folder=self.caller.journal_folder,
            database_id=self.database_id,
        )


@click.command(cls=Verb)
@click.argument("name")
@click.option("--component", metavar="NAME", help="Of one component of the tariff.")
@click.option("--session", "session_id", type=int, metavar="ID", help="Of one session, by the id of `sessions`.")
@cycle_options
@click.option("--packets", is_flag=True, help="Down to the packets, where this node's journal still has them.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=100, show_default=True, help="So many deltas.")
@click.option("--page", type=click.IntRange(1, 1_000_000), default=1, show_default=True, help="The next so many.")
@listing_options
@pass_caller
def explain(
    caller: Caller,
    name: str,
    component: str | None,
    session_id: int | None,
    at: str | None,
    cycle: int | None,
    *,
    packets: bool,
    limit: int,
    page: int,
    form: Format,
) -> None:
    """Explain what a subscriber's cycle comes to: total, slices, readings, packets.

    Each slice says which octets of which session fell into which slot, bucket and tier, by which rule. What is cut says
    so. A cycle's price goes from the exact sum by discount, cap and rounding to what is posted.

    Example: sms-aaa explain alice --component data --packets
    """
    from sms_aaa.db.feed import get_database_id

    with caller.connect() as connection:
        found = _explain(
            connection, name, at, cycle, component=component, session_id=session_id, limit=limit, page=page
        )
        database_id = get_database_id(connection)
    seen = _Packets(caller, packets, database_id)
    if form is Format.JSON:
        document([_document(one, seen) for one in found])
    elif form is Format.CSV:
        rows = [_row(line, part, one.usage.currency) for one in found for line in one.lines for part in line.slices]
        listing(_COLUMNS, rows, form)
    else:
        for one in found:
            _show(one, seen)
    if any(one.is_whole and not one.unrated and not one.adds_up for one in found):
        note("sms-aaa: the slices do not add up to the total: run `sms-aaa reconcile`")


def _explain(
    connection: Connection,
    name: str,
    at: str | None,
    cycle: int | None,
    *,
    component: str | None,
    session_id: int | None,
    limit: int,
    page: int,
) -> list[Explanation]:
    from sms_aaa.flows.explaining import explain as explain_cycle

    found = [
        explain_cycle(
            connection, one, component=component, session_id=session_id, limit=limit, offset=(page - 1) * limit
        )
        for one in find_cycles(connection, name, at, cycle)
    ]
    if component is not None and not any(one.lines for one in found):
        known = ", ".join(sorted({line.row.component for one in found for line in one.usage.lines}))
        raise Failure(Exit.NOT_FOUND, f"{name} has no component {component} in this cycle", f"known are {known}")
    return found


def _show(one: Explanation, seen: _Packets) -> None:
    usage = one.usage
    total = money(usage.total_minor, usage.currency).text
    heading(f"cycle {_time(usage.starts_at)} to {_time(usage.ends_at)}: {total}")
    for line in one.lines:
        _show_line(line, usage.currency, seen)
    for row in one.adjustments:
        amount = money(row.amount_minor, usage.currency).text
        of = f"corrects charge {row.charge_id}" if row.charge_id is not None else "adds a line"
        say(f"  adjustment {row.id} of {row.component}: {amount}, {row.reason}, {of}")
    for delta in one.unrated:
        say(f"  not rated yet: {_delta_text(delta)}")
    if not one.is_whole:
        say("  there is more: these are the deltas of one session, or a part of many (--limit, --page)")


def _show_line(line: ExplainedLine, currency: str, seen: _Packets) -> None:
    row = line.line.row
    posted = money(row.posted_minor, currency).text
    if line.line.component is None:
        what = "short of the minimum" if row.kind == "minimum" else "the fee" if row.kind != "bound" else "the bound"
        say(f"  {row.component}: {posted}, {what} of {row.plan}")
        return
    price = exact(int(row.numerator), line.line.denominator, currency).text
    counts = _measure(line)
    say(f"  {row.component}: {posted} posted, {price} exact, {row.quantity} {counts} by {row.plan}")
    if row.covered or row.carried:
        say(f"    and {row.covered} {counts} covered; {row.carried} were carried on from the plan before")
    steps = line.line.steps
    if len(steps) > 2:
        say(f"    {', then '.join(f'{step.name} {_step_text(step.amount, currency)}' for step in steps)}")
    for part in line.slices:
        _show_slice(line, part, currency, seen)


def _show_slice(line: ExplainedLine, part: ExplainedSlice, currency: str, seen: _Packets) -> None:
    rated, denominator = part.rated, line.line.denominator
    price = exact(int(rated.numerator), denominator, currency).text
    span = f"{_time(part.from_at)} to {_time(part.to_at)}"
    counts = _measure(line)
    say(f"    {span}: {rated.quantity} {counts} after {rated.total_before}: {price}")
    if part.is_cut:
        row, delta = line.line.row, part.delta
        crosses = delta.from_at < row.starts_at or delta.to_at > row.ends_at
        edge = "the edge of the cycle" if crosses else "an edge of a slot, band, plan or bucket"
        say(f"      cut at {edge} out of {_time(part.delta.from_at)} to {_time(part.delta.to_at)}")
    if (rule := _rule_text(part)) is not None:
        say(f"      {rule}")
    for use in part.uses:
        name = use.bucket or "that is gone"
        say(f"      bucket {use.bucket_id} {name}: covers {use.covered} {counts}, which takes {use.taken} of it")
    if rated.uncovered:
        say(f"      {rated.uncovered} {counts} behind a bucket that blocks: an overrun, at no price")
    if rated.generation > 1:
        say(f"      generation {rated.generation}, by run {rated.run_id} ({rated.run or 'unknown'})")
    for tier in part.parts:
        say(f"      {_tier_text(line, tier, currency)}")
    say(f"      {_delta_text(part.delta)}")
    if seen.wanted:
        _show_packets(part.delta, seen)


def _show_packets(delta: DeltaRow, seen: _Packets) -> None:
    from sms_aaa.flows.explaining import SeenPacket, readings_of

    for label, place in zip(("before", "after"), readings_of(delta), strict=True):
        if place is None:
            say(f"        {label}: nothing, the session began")
            continue
        packet = seen.find(place)
        where = f"{place.sequence}:{place.offset} of {place.node}"  # as `journal show` takes it
        if not isinstance(packet, SeenPacket):
            say(f"        {label}: {where}: {_away_text(packet)}")
            continue
        say(f"        {label}: {where}, from {packet.source} at {_time(_received_at(packet))}")
        for name, value in packet.attributes:
            say(f"          {name} = {value}")


def _document(one: Explanation, seen: _Packets) -> dict[str, object]:
    usage = one.usage
    return {
        "account_id": usage.account_id,
        "cycle": {"id": usage.cycle_id, "starts_at": usage.starts_at, "ends_at": usage.ends_at},
        "currency": usage.currency,
        "total_minor": usage.total_minor,
        "is_whole": one.is_whole,
        "adds_up": one.adds_up if one.is_whole else None,
        "components": [_line_document(line, usage.currency, seen) for line in one.lines],
        "adjustments": [
            {
                "id": row.id,
                "at": row.at,
                "component": row.component,
                "charge_id": row.charge_id,
                "run_id": row.run_id,
                "amount_minor": row.amount_minor,
                "reason": row.reason,
            }
            for row in one.adjustments
        ],
        "unrated": [_delta_document(delta, seen) for delta in one.unrated],
    }


def _line_document(line: ExplainedLine, currency: str, seen: _Packets) -> dict[str, object]:
    row = line.line.row
    is_usage = line.line.component is not None
    return {
        "component": row.component,
        "kind": row.kind,
        "plan": row.plan,
        "posted_minor": row.posted_minor,
        "quantity": row.quantity if is_usage else None,
        "carried": row.carried if is_usage else None,
        "covered": row.covered if is_usage else None,
        "numerator": int(row.numerator) if is_usage else None,
        "denominator": line.line.denominator if is_usage else None,
        "steps": [{"step": step.name, "amount": _step_text(step.amount, currency)} for step in line.line.steps],
        "slices": [
            {
                "slice": part.rated.slice,
                "from_at": part.from_at,
                "to_at": part.to_at,
                "is_cut": part.is_cut,
                "slot": part.slot,
                "band": part.band,
                "key": part.key,
                "quantity": part.rated.quantity,
                "covered": part.rated.covered,
                "uncovered": part.rated.uncovered,
                "priced": part.rated.priced,
                "uses": [
                    {"bucket_id": use.bucket_id, "bucket": use.bucket, "covered": use.covered, "taken": use.taken}
                    for use in part.uses
                ],
                "generation": part.rated.generation,
                "run": part.rated.run,
                "total_before": part.rated.total_before,
                "numerator": int(part.rated.numerator),
                "exact": exact(int(part.rated.numerator), line.line.denominator, currency),
                "run_id": part.rated.run_id,
                "tiers": [_tier_document(tier) for tier in part.parts],
                "delta": _delta_document(part.delta, seen),
            }
            for part in line.slices
        ],
    }


def _tier_document(tier: PricePart) -> dict[str, Cell]:
    return {
        "from_octets": tier.tier_from,
        "up_to": tier.tier_up_to,
        "octets": tier.quantity,
        "price_picounits": tier.price_picounits,
        "numerator": tier.numerator,
    }


def _delta_document(delta: DeltaRow, seen: _Packets) -> dict[str, object]:
    from sms_aaa.flows.explaining import readings_of

    before, after = readings_of(delta)
    return {
        "session_id": delta.session_id,
        "acct_session_id": delta.acct_session_id,
        "nas": delta.nas,
        "seq": delta.seq,
        "from_at": delta.from_at,
        "to_at": delta.to_at,
        "octets_up": delta.octets_in,
        "octets_down": delta.octets_out,
        "seconds": delta.seconds,
        "run": delta.run,
        "wrapped": delta.wrapped,
        "before": _reading_document(before, delta.before_in, delta.before_out, seen),
        "after": _reading_document(after, delta.after_in, delta.after_out, seen),
    }


def _reading_document(place: Place | None, octets_in: int, octets_out: int, seen: _Packets) -> dict[str, object]:
    reading: dict[str, object] = {"octets_up": octets_in, "octets_down": octets_out}
    if place is None:
        return reading
    reading |= {"node": place.node, "sequence": place.sequence, "offset": place.offset}
    return reading | {"packet": _packet_document(seen.find(place))} if seen.wanted else reading


def _packet_document(packet: SeenPacket | PacketAway) -> dict[str, object]:
    from sms_aaa.flows.explaining import SeenPacket

    if not isinstance(packet, SeenPacket):
        return {"away": packet.value}
    return {
        "source": packet.source,
        "received_at": _received_at(packet),
        "attributes": [{"name": name, "value": value} for name, value in packet.attributes],
    }


def _row(line: ExplainedLine, part: ExplainedSlice, currency: str) -> tuple[Cell, ...]:
    delta, rated = part.delta, part.rated
    price = exact(int(rated.numerator), line.line.denominator, currency)
    return (
        line.line.row.component, delta.session_id, delta.acct_session_id, delta.nas, delta.seq, rated.slice,
        part.from_at, part.to_at, part.is_cut, part.slot, part.band, part.key, rated.quantity, rated.covered,
        rated.uncovered, " ".join(f"{use.bucket_id}:{use.covered}:{use.taken}" for use in part.uses), rated.generation,
        rated.run, rated.total_before, price, delta.before_in,
        delta.before_out, delta.after_in, delta.after_out, delta.run, delta.wrapped,
    )  # fmt: skip


def _measure(line: ExplainedLine) -> str:
    return line.line.component.measure.kind.value if line.line.component is not None else ""


def _rule_text(part: ExplainedSlice) -> str | None:
    """Slot, band and key, where the tariff has more than the one that all usage is of."""
    from sms_aaa.rules.slots import ANY_BAND, ANYTIME
    from sms_aaa.rules.tariff import DEFAULT_KEY

    said = [("slot", part.slot, ANYTIME), ("band", part.band, ANY_BAND), ("key", part.key, DEFAULT_KEY)]
    told = [f"{word} {value}" for word, value, default in said if value not in {None, default}]
    return ", ".join(told) or None


def _step_text(amount: Fraction, currency: str) -> str:
    return str(exact(amount.numerator, amount.denominator, currency).value)


def _tier_text(line: ExplainedLine, tier: PricePart, currency: str) -> str:
    component = line.line.component
    assert component is not None
    bound = f"up to {octets(tier.tier_up_to).text}" if tier.tier_up_to is not None else "and beyond"
    price = exact(tier.price_picounits * component.rate_unit, component.denominator, currency).text
    cost = exact(tier.numerator, component.denominator, currency).text
    where = f"tier {octets(tier.tier_from).text} {bound}"
    return f"{where}: {tier.quantity} {component.measure.kind} at {price} per {component.unit.label}: {cost}"


def _delta_text(delta: DeltaRow) -> str:
    odd = f", counter run {delta.run}" if delta.run > 1 else ""
    odd += ", a counter wrapped" if delta.wrapped else ""
    return (
        f"session {delta.session_id} ({delta.acct_session_id} on {delta.nas}) delta {delta.seq}: "
        f"up {delta.before_in} -> {delta.after_in}, down {delta.before_out} -> {delta.after_out}{odd}"
    )


def _away_text(away: PacketAway) -> str:
    return {
        "other-node": "that node's journal has it, not this one's",
        "gone": "its journal file is gone, its retention is over",
        "unreadable": "it cannot be read there any more",
    }[away.value]


def _received_at(packet: SeenPacket) -> datetime:
    return datetime.fromtimestamp(packet.received_ns // 1_000_000_000, UTC)


def _time(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%SZ}"
