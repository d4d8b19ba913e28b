"""What `sms-aaa tariff rate` answers people: the components, the buckets and the sums."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

from sms_aaa.cli.output import Format, Shown, heading, listing, octets, say
from sms_aaa.cli.tariff_rate_text import amount_text, instant_text, quantity_text
from sms_aaa.rules.evaluation_result import component_totals
from sms_aaa.rules.instants import instant_us
from sms_aaa.rules.measure import Kind
from sms_aaa.rules.money import PICOUNITS
from sms_aaa.rules.rated_rows import rows_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sms_aaa.cli.output import Cell
    from sms_aaa.rules.evaluation_result import Result
    from sms_aaa.rules.measure import Measure

ROWS_MAX = 200
"""Rows of slices that a person is shown; --json has them all."""


def write_tables(result: Result, *, with_rated: bool) -> None:
    """The components, then what stands behind them, then the total."""
    columns = ("component", "kind", "quantity", "covered", "uncovered", "priced", "amount", "rounded")
    listing(columns, list(_components(result)), Format.TABLE, empty="no component")
    if with_rated:
        _write_rated(result)
    if result.buckets:
        heading("buckets")
        names = ("name", "source", "from", "until", "granted", "used", "rolled_over", "reserved", "left")
        listing(names, list(_buckets(result)), Format.TABLE)
    if result.holds:
        heading("reservations")
        listing(("line", "session", "asked", "granted", "held_money", "state"), list(_holds(result)), Format.TABLE)
    if result.adjustments:
        heading("adjustments of closed cycles")
        listing(("cycle", "component", "reason", "quantity", "amount"), list(_adjustments(result)), Format.TABLE)
    heading("cycles")
    listing(("from", "to", "state", "amount"), list(_cycles(result)), Format.TABLE)
    money = result.money
    say()
    say(f"total    {_money(result.amount_rounded, result.currency)}")
    say(f"balance  {_money(money.balance, result.currency)}")


def _write_rated(result: Result) -> None:
    rows: list[tuple[Cell, ...]] = []
    total = 0
    for each in result.cycles:
        for row in rows_of(each.run):
            total += 1
            if total > ROWS_MAX:
                continue
            piece = row.charged.slice if row.charged is not None else None
            rows.append(
                (
                    piece.fact.seq if piece is not None else None,
                    instant_text(piece.from_us if piece is not None else row.from_us),
                    row.part.name,
                    piece.slot if piece is not None else None,
                    row.what.value,
                    row.tier,
                    _quantity(row.quantity, row.part.measure),
                    _money(row.amount, result.currency),
                )
            )
    heading("rated" if total <= ROWS_MAX else f"rated: the first {ROWS_MAX} of {total}, --json has all")
    listing(("line", "from", "component", "slot", "what", "tier", "quantity", "amount"), rows, Format.TABLE)


def _components(result: Result) -> Iterator[tuple[Cell, ...]]:
    for line in component_totals(result):
        counts = (line.quantity, line.covered, line.uncovered, line.priced)
        shown = [_quantity(count, line.measure) if line.measure is not None else None for count in counts]
        amounts = (_money(line.amount, result.currency), _money(line.amount_rounded, result.currency))
        yield line.name, line.kind.value, *shown, *amounts


def _buckets(result: Result) -> Iterator[tuple[Cell, ...]]:
    for held in result.buckets:
        bucket, measure = held.bucket, held.bucket.terms.measure
        counts = (held.granted, bucket.used, held.rolled, bucket.held, held.left)
        shown = [
            _quantity(count, measure) if measure is not None else _money(Fraction(count) / PICOUNITS, result.currency)
            for count in counts
        ]
        period = (instant_text(bucket.grant.from_us), instant_text(bucket.grant.until_us))
        yield bucket.terms.name, bucket.terms.kind.value, *period, *shown


def _holds(result: Result) -> Iterator[tuple[Cell, ...]]:
    for hold in result.holds:
        asked, granted = (
            _quantity(count, hold.measure) if hold.measure is not None else _money(count / PICOUNITS, result.currency)
            for count in (hold.asked, hold.granted)
        )
        yield hold.line, hold.session, asked, granted, _money(hold.amount, result.currency), hold.state.value


def _adjustments(result: Result) -> Iterator[tuple[Cell, ...]]:
    for each in result.adjustments:
        line = each.line
        quantity = _quantity(line.quantity, line.measure) if line.measure is not None else None
        amount = _money(line.amount_rounded, result.currency)
        yield instant_text(instant_us(each.cycle.start)), line.name, each.reason.value, quantity, amount


def _cycles(result: Result) -> Iterator[tuple[Cell, ...]]:
    for each in result.cycles:
        begin, end = (instant_text(instant_us(edge)) for edge in (each.cycle.start, each.cycle.end))
        amount = _money(each.sheet.amount_rounded, result.currency)
        yield begin, end, "closed" if each.is_closed else "open", amount


def _quantity(count: int | Fraction, measure: Measure | None) -> Shown:
    if measure is not None and measure.kind is Kind.OCTETS and count >= 0:
        return Shown(int(count), octets(int(count)).text)
    return Shown(quantity_text(count, measure), quantity_text(count, measure))


def _money(amount: Fraction, currency: str) -> str:
    return f"{amount_text(amount, currency)} {currency}"
