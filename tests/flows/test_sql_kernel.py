"""`tariff rate --engine sql`: the kernel on PostgreSQL says what the reference says, and moves the state likewise."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING

import pytest
from flows.test_bulk_rating import buckets, tariffs
from flows.test_charging import STORIES, ZONE, Given, at_us, stories
from hypothesis import given
from hypothesis import strategies as st

from sms_aaa.db.bulk_scratch import open_scratch
from sms_aaa.db.engine import connect
from sms_aaa.flows.sql_kernel import SqlKernel
from sms_aaa.rules.buckets import BucketTerms, Grant
from sms_aaa.rules.charging import Charging, Fact, cut
from sms_aaa.rules.covering import Bucket
from sms_aaa.rules.cycle_setting import Placed, charge_each
from sms_aaa.rules.measure import Amounts, Measure
from sms_aaa.rules.slots import Calendar
from sms_aaa.rules.tariff import Tariff, Tier, UsageComponent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sms_aaa.db.engine import Connection


@pytest.fixture
def connection(database_dsn: str) -> Iterator[Connection]:
    with connect(database_dsn, name="test") as opened:
        yield opened


@st.composite
def batches(draw: st.DrawFn) -> tuple[Charging, list[list[Placed]]]:
    """A state and two batches of slices, in canonical order; buckets of members or shared begin and end in them."""
    story, tariff = draw(stories()), draw(tariffs())
    granted = [draw(buckets(number, tariff)) for number in range(draw(st.integers(0, 4)))]
    state = Charging([_bucket(number, one, draw) for number, one in enumerate(granted)])
    edges = [edge for bucket in state.buckets for edge in (bucket.grant.from_us, bucket.grant.until_us or 0)]
    pieces = []
    for used in story.usage:
        amounts = Amounts(used.upload, used.download, (used.to_minute - used.from_minute) * 60, int(used.seq == 1))
        begin, end = at_us(used.from_minute), at_us(used.to_minute)
        fact = Fact(used.service, f"s{used.session}", used.seq, begin, begin, end, "default", amounts)
        pieces += cut(fact, Calendar(ZONE, tariff.slots, ()), (), edges, tariff.switch)
    placed = [
        Placed(piece, tariff.usage, piece.fact.member, int(piece.from_us >= at_us(0)))
        for piece in sorted(pieces, key=lambda piece: piece.order)
    ]
    middle = draw(st.integers(0, len(placed)))
    return state, [placed[:middle], placed[middle:]]


def _bucket(number: int, one: Given, draw: st.DrawFn) -> Bucket:
    begin, until = draw(st.integers(-400, 100)), draw(st.sampled_from((None, 100, 300)))
    grant = Grant(number, one.terms, one.terms.amount, at_us(begin), None if until is None else at_us(until), 0)
    return Bucket(grant, owner=draw(st.sampled_from((None, 0, 1))))


def plain(state: Charging) -> object:
    """What there is of it; totals that were never moved are as if they were not there."""
    totals = {
        key: (total.quantity, total.numerator)
        for key, total in state.totals.items()
        if total.quantity or total.numerator
    }
    sessions = {key: quantity for key, quantity in state.session_totals.items() if quantity}
    return totals, sessions, [(bucket.used, bucket.overrun) for bucket in state.buckets]


@STORIES
@given(batches())
def test_the_kernel_says_what_the_reference_says(
    connection: Connection, story: tuple[Charging, list[list[Placed]]]
) -> None:
    state, parts = story
    reference = deepcopy(state)
    with open_scratch(connection):
        kernel = SqlKernel(connection)
        for batch in parts:
            assert list(kernel(state, batch)) == list(charge_each(reference, batch))
            assert plain(state) == plain(reference)
        assert not kernel.refused


def test_a_batch_that_is_not_set_wise_is_priced_by_the_reference_and_named(connection: Connection) -> None:
    part = UsageComponent("all", Measure.TOTAL, 1, (Tier(None, 10**12),))
    money = BucketTerms("money", None, 5 * 10**12)
    state = Charging([Bucket(Grant(1, money, money.amount, at_us(-10), None, 0))])
    fact = Fact(1, "s", 1, at_us(0), at_us(0), at_us(1), "default", Amounts(3, 4))
    pieces = cut(fact, Calendar(ZONE, (), ()), (), (), Tariff("EUR", (), (part,)).switch)
    placed = [Placed(piece, (part,), 1, 1) for piece in pieces]
    reference = deepcopy(state)
    with open_scratch(connection):
        kernel = SqlKernel(connection)
        assert list(kernel(state, placed)) == list(charge_each(reference, placed))
    assert kernel.refused == {"buckets of money, in steps, or bounded by the member": 1}
    assert state.buckets[0].used == 5 * 10**12
    row = connection.execute("select to_regnamespace('sms_aaa_scratch')").fetchone()
    assert row == (None,)


def test_a_bucket_in_steps_of_which_nothing_is_left_still_covers_its_last_step(connection: Connection) -> None:
    part = UsageComponent("all", Measure.TOTAL, 1, (Tier(None, 10**12),))
    terms = BucketTerms("steps", Measure.TOTAL, 3_000, increment=1_000)
    state = Charging([Bucket(Grant(1, terms, terms.amount, at_us(-10), None, 0))])
    reference = deepcopy(state)
    with open_scratch(connection):
        kernel = SqlKernel(connection)
        for seq, octets in ((1, 2_500), (2, 400)):
            fact = Fact(1, "s", seq, at_us(0), at_us(seq), at_us(seq + 1), "default", Amounts(0, octets))
            pieces = cut(fact, Calendar(ZONE, (), ()), (), (), Tariff("EUR", (), (part,)).switch)
            placed = [Placed(piece, (part,), 1, 1) for piece in pieces]
            assert list(kernel(state, placed)) == list(charge_each(reference, placed))
            assert plain(state) == plain(reference)
