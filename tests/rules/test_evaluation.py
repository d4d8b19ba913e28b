"""The pricing door's evaluation over random tariffs and usage: what must not matter does not, and all adds up."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace as changed
from tariffs import tariffs

from sms_aaa.rules.evaluation import Account, Evaluation
from sms_aaa.rules.evaluation_result import component_totals, minor_of
from sms_aaa.rules.instants import SECOND_US, instant_us
from sms_aaa.rules.measure import Amounts, Measure
from sms_aaa.rules.rated_rows import rows_of
from sms_aaa.rules.tariff import Model
from sms_aaa.rules.usage_lines import Close, Used, session_begins

if TYPE_CHECKING:
    import random

    from sms_aaa.rules.tariff import Tariff

START_US = instant_us(datetime(2026, 3, 20, tzinfo=UTC))
DAYS = 45 * 86_400
END_US = instant_us(datetime(2026, 6, 1, tzinfo=UTC))
ZONES = st.sampled_from(["UTC", "Europe/Berlin", "America/New_York"])
SMALL = st.integers(0, 10**5) | st.integers(0, 10**13)
AMOUNTS = st.builds(Amounts, SMALL, SMALL, st.integers(0, 10**5), st.integers(0, 3), SMALL)
TRAFFIC = {Measure.UPLOAD, Measure.DOWNLOAD, Measure.TOTAL}
LENGTHS = st.sampled_from([0, 0, 60, 3_600, 200_000])


@st.composite
def used(draw: st.DrawFn, *, instants: bool = False) -> list[Used]:
    """Usage lines; `instants`: none of them has length."""
    found = []
    for number in range(1, draw(st.integers(1, 8)) + 1):
        begin = START_US + draw(st.integers(0, DAYS)) * SECOND_US
        length = 0 if instants else draw(LENGTHS)
        found.append(
            Used(
                number,
                draw(st.sampled_from(["a", "b", None])),
                draw(st.sampled_from(["", "", "bob"])),
                draw(st.sampled_from([None, "roaming"])),
                begin,
                begin + length * SECOND_US,
                None,
                None,
                draw(AMOUNTS),
            )
        )
    return found


def evaluate(tariff: Tariff, lines: list, zone: str = "UTC") -> Evaluation:
    evaluation = Evaluation(Account(zone=zone), tariff, first_us=START_US, begins=session_begins(lines))
    for line in lines:
        evaluation.hear(line)
    return evaluation


def came(evaluation: Evaluation) -> tuple:
    """All that must not depend on arrival: lines, money and buckets."""
    result = evaluation.result()
    totals = [
        (line.name, line.amount, line.amount_rounded, line.quantity, line.priced)
        for line in component_totals(result)
        if line.amount or line.quantity  # of a bound that came and went again nothing is left but its name
    ]
    buckets = [
        (held.bucket.terms.name, held.granted, held.bucket.used, held.left, held.bucket.overrun)
        for held in result.buckets
    ]
    return sorted(totals), buckets, result.money, result.amount, result.amount_rounded


@settings(max_examples=25, deadline=None)
@given(tariffs(), used(), ZONES, st.randoms(use_true_random=False))
def test_the_order_of_arrival_does_not_matter(
    tariff: Tariff, lines: list[Used], zone: str, chance: random.Random
) -> None:
    shuffled = list(lines)
    chance.shuffle(shuffled)
    assert came(evaluate(tariff, shuffled, zone)) == came(evaluate(tariff, lines, zone))
    closed = [*shuffled, Close(100, END_US)]
    assert came(evaluate(tariff, closed, zone)) == came(evaluate(tariff, [*lines, Close(100, END_US)], zone))


@settings(max_examples=25, deadline=None)
@given(tariffs(), used(instants=True), st.data())
def test_any_cut_of_usage_comes_to_the_same(tariff: Tariff, lines: list[Used], data: st.DataObject) -> None:
    """At an instant no edge of any tariff lies between two parts.

    But what a money bucket paid for a price that falls again depends on the way: it gives back no more than it paid.
    """
    if any(part.model in {Model.VOLUME, Model.STAIRSTEP} for part in tariff.usage):
        tariff = replace(tariff, buckets=tuple(terms for terms in tariff.buckets if terms.measure is not None))
    whole = [changed(line, session=line.session or f"own-{line.line}") for line in lines]
    parts = []
    for line in whole:
        first = Amounts(*(data.draw(st.integers(0, amount)) for amount in amounts_of(line)))
        rest = Amounts(
            *(
                all_ - part
                for all_, part in zip(amounts_of(line), amounts_of(changed(line, amounts=first)), strict=True)
            )
        )
        parts += [changed(line, amounts=first), changed(line, amounts=rest, line=line.line + 1000)]
    close = Close(100_000, END_US)
    assert came(evaluate(tariff, [*parts, close])) == came(evaluate(tariff, [*whole, close]))


def is_mixed(tariff: Tariff) -> bool:
    """Whether it counts the total here and directions there: each is rounded by itself where usage is cut."""
    return len({part.measure is Measure.TOTAL for part in tariff.usage if part.measure in TRAFFIC}) > 1


def amounts_of(line: Used) -> tuple[int, ...]:
    amounts = line.amounts
    return amounts.upload, amounts.download, amounts.seconds, amounts.events, amounts.units


@settings(max_examples=25, deadline=None)
@given(tariffs(), used(), ZONES)
def test_what_repeats_counts_once(tariff: Tariff, lines: list[Used], zone: str) -> None:
    once = [changed(line, seq=number, session=line.session or "c") for number, line in enumerate(lines)]
    evaluation = evaluate(tariff, [*once, *once, once[0]], zone)
    assert came(evaluation) == came(evaluate(tariff, once, zone))
    assert evaluation.result().duplicates == len(once) + 1


@settings(max_examples=25, deadline=None)
@given(tariffs(), used(), ZONES)
def test_all_adds_up(tariff: Tariff, lines: list[Used], zone: str) -> None:
    result = evaluate(tariff, [*lines, Close(100, None)], zone).result()
    assert result.amount_rounded == sum(line.amount_rounded for line in component_totals(result))
    assert minor_of(result.amount_rounded, result.currency) is not None
    for cycle in result.cycles:
        assert cycle.is_closed
        rows = list(rows_of(cycle.run))
        quantities: Counter = Counter()
        prices: Counter = Counter()
        for row in rows:
            quantities[row.part.name] += row.quantity
            prices[row.part.name] += row.amount
        for line in cycle.sheet.lines:
            assert line.quantity == line.covered + line.priced + line.uncovered
            assert minor_of(line.amount_rounded, result.currency) is not None
            if line.measure is not None:
                assert (quantities[line.name], prices[line.name]) == (line.quantity, line.price)
    if not is_mixed(tariff):
        traffic = sum(line.amounts.upload + line.amounts.download for line in lines)
        counted = [line for line in component_totals(result) if line.measure in TRAFFIC]
        assert sum(line.quantity for line in counted) == traffic
    for held in result.buckets:
        assert held.bucket.used + held.bucket.held <= held.granted


@settings(max_examples=25, deadline=None)
@given(tariffs(), used(), used(), ZONES)
def test_late_usage_comes_to_what_it_would_have_come_to(
    tariff: Tariff, early: list[Used], late: list[Used], zone: str
) -> None:
    """But for what was rolled over meanwhile, which nobody takes back."""
    tariff = replace(tariff, buckets=tuple(replace(terms, rollover=None) for terms in tariff.buckets))
    late = [changed(line, line=line.line + 50) for line in late]
    close = Close(200, END_US)
    first, all_ = [*early, close, *late], [*early, *late, close]
    begins = session_begins(all_)
    found = []
    for lines in (first, all_):
        evaluation = Evaluation(Account(zone=zone), tariff, first_us=START_US, begins=begins)
        for line in lines:
            evaluation.hear(line)
        found.append(came(evaluation))
    assert found[0] == found[1]
