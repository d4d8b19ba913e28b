"""Rating set-wise is the rules evaluated at once: SQL against rules/charging.py, to the digit."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec
import pytest
from flows.test_charging import MB, NIGHT, NOW, STORIES, TIERS, Given, Story, Used, World, mixed, stories
from hypothesis import given, settings
from hypothesis import strategies as st
from psycopg.types.json import Jsonb

from sms_aaa.db import bulk_storing
from sms_aaa.db.engine import connect
from sms_aaa.db.rating_queue import queue_length
from sms_aaa.rules.buckets import BucketTerms, Overage
from sms_aaa.rules.measure import Kind, Measure
from sms_aaa.rules.pricing import price_numerator
from sms_aaa.rules.set_wise import steps_of
from sms_aaa.rules.slots import Slot
from sms_aaa.rules.tariff import (
    Model,
    Rounding,
    Scope,
    Shape,
    Switch,
    Tariff,
    Tier,
    UsageComponent,
    complete_usage,
    places,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sms_aaa.db.engine import Connection

pytestmark = pytest.mark.months(NOW)


@st.composite
def components(draw: st.DrawFn, name: str, measure: Measure) -> UsageComponent:
    """Of every model and scope, with all that may stand before and behind the tiers."""
    model = draw(st.sampled_from(tuple(Model)))
    tiers = draw(TIERS)
    if model is Model.PACKAGE:
        tiers = (replace(tiers[-1], flat_picounits=0),)
    if model is Model.STAIRSTEP:
        tiers = tuple(replace(tier, price_picounits=0) for tier in tiers)
    scope = draw(st.sampled_from((Scope.CYCLE, Scope.CYCLE, Scope.SESSION)))
    dear = draw(st.sampled_from((1, 1, 10**7)))  # beyond what a bigint can count, over the factor too
    tiers = tuple(replace(tier, price_picounits=tier.price_picounits * dear + dear // 10**7 * 7) for tier in tiers)
    if model is Model.STAIRSTEP:
        tiers = tuple(Tier(tier.up_to, 0, tier.flat_picounits) for tier in tiers)
    return UsageComponent(
        name,
        measure,
        draw(st.sampled_from((MB, 1, 2**20, 10**9))) if measure.kind is Kind.OCTETS else 1,
        tiers,
        model,
        scope,
        free_quantity=draw(st.integers(0, 9)) * MB if model is Model.PACKAGE else 0,
        initial_increment=draw(st.sampled_from((1, 1, 7_001))),
        following_increment=draw(st.sampled_from((1, 1, 5_000))),
        minimum_quantity=draw(st.sampled_from((0, 0, 2 * MB))),
        grace_quantity=draw(st.sampled_from((0, 0, MB))),
        connect_fee_picounits=draw(st.sampled_from((0, 0, 10**11))),
        session_maximum_picounits=10**13 if scope is Scope.SESSION and draw(st.booleans()) else None,
        shape=Shape(
            discount_billionths=draw(st.sampled_from((0, 0, 123_456_789))),
            maximum_picounits=draw(st.sampled_from((None, None, 15 * 10**12 + 1))),
            rounding_scale=draw(st.sampled_from((None, 0, 4))),
            rounding=draw(st.sampled_from(tuple(Rounding))),
        ),
    )


@st.composite
def tariffs(draw: st.DrawFn) -> Tariff:
    slots = draw(st.sampled_from(((), (NIGHT,), (NIGHT,))))
    usage = [draw(components("down", Measure.DOWNLOAD)), draw(components("up", Measure.UPLOAD))]
    if draw(st.booleans()):
        usage = [draw(components("all", Measure.TOTAL))]
    if slots:
        name = usage[0].name
        usage = [
            replace(usage[0], slots=("night",)),
            replace(draw(components(f"{name}-day", usage[0].measure)), slots=("anytime",)),
            *usage[1:],
        ]
        if len(usage) == 3 and draw(st.booleans()):
            usage = mixed(usage[0], usage[2])
    usage += [draw(components("time", Measure.SECONDS)), draw(components("calls", Measure.EVENTS))][
        draw(st.integers(0, 2)) :
    ]
    bare = Tariff("EUR", (), complete_usage(()), slots=slots)
    return Tariff(
        draw(st.sampled_from(("EUR", "EUR"))),
        (),
        complete_usage(tuple(usage), places(bare)),
        slots=slots,
        switch=draw(st.sampled_from(tuple(Switch))),
    )


@st.composite
def buckets(draw: st.DrawFn, number: int, tariff: Tariff) -> Given:
    blocks = draw(st.sampled_from((False, False, True)))
    terms = BucketTerms(
        f"bucket-{number}",
        draw(st.sampled_from((Measure.TOTAL, Measure.DOWNLOAD, Measure.UPLOAD))),
        draw(st.integers(1, 80)) * MB // 2,
        priority=draw(st.integers(1, 3)),
        slots=draw(st.sampled_from(((), ("night",)))) if tariff.slots else (),
        blocks=blocks,
        overage=draw(st.sampled_from(tuple(Overage))) if blocks else Overage.CHARGE,
    )
    # Of a cycle or longer than the story: an edge within it is for the other way.
    begins, ends = draw(st.sampled_from(((-9000, 0), (0, 9000), (-9000, 9000))))
    return Given(terms, draw(st.integers(0, 1)), begins, ends)


@st.composite
def set_wise(draw: st.DrawFn) -> Story:
    """A story of tariffs and buckets that are set-wise, in a few batches and any order."""
    story, tariff = draw(stories()), draw(tariffs())
    given_ = tuple(draw(buckets(number, tariff)) for number in range(draw(st.integers(0, 3))))
    batches = tuple(size * 3 for size in story.batches)
    return replace(story, tariff=tariff, is_group=False, buckets=given_, batches=batches)


@pytest.fixture
def connection(database_dsn: str) -> Iterator[Connection]:
    with connect(database_dsn, name="test") as opened:
        yield opened
        opened.rollback()


def bulk_world(connection: Connection, story: Story) -> World:
    """Its cycles are open, and whatever waits is rated in bulk."""
    world = World(connection, story, bulk_min=1)
    world.open_cycles()
    return world


def told(connection: Connection, story: Story) -> World:
    """What comes of a story, rated in bulk where it fits, is what the rules say."""
    connection.rollback()
    world = bulk_world(connection, story)
    world.run(story.arrival)
    world.clean()
    world.again()
    assert world.stored_of_use() == world.expected()
    world.assert_books()
    return world


@STORIES
@given(set_wise())
def test_sql_rates_as_the_rules_do(connection: Connection, story: Story) -> None:
    world = told(connection, story)
    world.assert_lawful()
    assert world.again() == 0
    assert any(one.from_minute == -9000 and one.until_minute == 9000 for one in story.buckets) or not world.not_set_wise


@settings(STORIES, max_examples=4)
@given(stories())
def test_what_does_not_fit_set_wise_is_rated_beside_what_does(connection: Connection, story: Story) -> None:
    told(connection, story)


@STORIES
@given(components("down", Measure.DOWNLOAD), st.lists(st.integers(0, 10**9), max_size=20))
def test_prices_in_closed_form_are_the_prices(part: UsageComponent, quantities: list[int]) -> None:
    steps = steps_of(part)
    bounds = [tier.up_to for tier in part.tiers if tier.up_to is not None]
    assert steps.begins == (0, *bounds)
    assert all(each % steps.factor == 0 for each in (*steps.units, *steps.bases, steps.connect))
    assert price_numerator(part, 0) % steps.factor == 0
    for quantity in quantities:
        assert price_numerator(part, quantity) % steps.factor == 0


FIRST = Used(0, 1, 1, -90, 30, 3 * MB, 7 * MB)


def test_nothing_of_a_batch_is_there_that_ended_between_two_statements(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = UsageComponent("all", Measure.TOTAL, MB, (Tier(None, 10**12),))
    given_ = (Given(BucketTerms("data", Measure.TOTAL, 5 * MB), 0, -9000, 0),)
    world = bulk_world(connection, Story(Tariff("EUR", (), (part,)), False, given_, (FIRST,), (0,), (1,)))
    world.rate_all()
    connection.commit()
    before = world.stored()
    for name in ("insert_rated_usage", "move_totals", "use_buckets", "note_order"):

        def dies(*_: object, **__: object) -> int:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(bulk_storing, name, dies)
            with pytest.raises(KeyboardInterrupt):
                world.run((0,))
        connection.rollback()
        assert world.stored() == before
        assert queue_length(connection)[0] == 0
    world.run((0,))
    assert world.not_set_wise == 0
    assert world.stored_of_use() == world.expected()
    world.assert_books()
    world.assert_lawful()
    connection.rollback()


def test_a_calendar_that_is_too_long_for_a_row_is_no_fault(connection: Connection) -> None:
    """Every second hour is another slot, and usage of five weeks waits."""
    slots = tuple(Slot("odd", (), hour * 3600, (hour + 1) * 3600) for hour in range(1, 24, 2))
    parts = tuple(
        UsageComponent(name, Measure.TOTAL, MB, (Tier(None, price),), slots=(name,))
        for name, price in (("odd", 10**12), ("anytime", 10**11))
    )
    usage = tuple(
        replace(FIRST, session=n, from_minute=at, to_minute=at + 90) for n, at in enumerate((-43_200, 0, 600), 1)
    )
    story = Story(Tariff("EUR", (), parts, slots=slots), False, (), usage, (0, 1, 2), (3,))
    world = bulk_world(connection, story)
    world.run(story.arrival)
    assert world.not_set_wise == 3
    assert world.stored_of_use() == world.expected()


def test_a_money_bucket_of_more_than_a_bigint_counts_stays_out_and_pays(connection: Connection) -> None:
    part = UsageComponent("all", Measure.TOTAL, MB, (Tier(None, 10**12),))
    world = bulk_world(connection, Story(Tariff("EUR", (), (part,)), False, (), (FIRST,), (0,), (1,)))
    terms = BucketTerms("money", None, 10**20)
    connection.execute(
        """insert into bucket (account_id, name, kind, currency, terms, priority, from_at, granted)
           values (%s, 'money', 'top-up', 'EUR', %s, 1, '2026-09-01', %s)""",
        (world.accounts[0], Jsonb(msgspec.to_builtins(terms)), terms.amount),
    )
    world.run((0,))
    assert world.not_set_wise == 1
    assert connection.execute("select used::text from bucket").fetchone() == (str(10 * 10**12),)


def test_a_money_bucket_that_is_spent_gets_back_what_a_price_that_falls_gives_back(connection: Connection) -> None:
    """Of 10 MB each costs 1.00, of 20 MB 0.10: the second delta brings 8.00 back."""
    part = UsageComponent("all", Measure.TOTAL, MB, (Tier(10 * MB, 10**12), Tier(None, 10**11)), model=Model.VOLUME)
    usage = (replace(FIRST, from_minute=0), replace(FIRST, seq=2, from_minute=30, to_minute=40))
    world = bulk_world(connection, Story(Tariff("EUR", (), (part,)), False, (), usage, (0, 1), (1, 1)))
    terms = BucketTerms("money", None, 10 * 10**12)
    connection.execute(
        """insert into bucket (account_id, name, kind, currency, terms, priority, from_at, granted)
           values (%s, 'money', 'top-up', 'EUR', %s, 1, '2026-09-01', %s)""",
        (world.accounts[0], Jsonb(msgspec.to_builtins(terms)), terms.amount),
    )
    world.run((0,))
    assert connection.execute("select used::text from bucket").fetchone() == (str(10 * 10**12),)
    world.run((1,))
    assert connection.execute("select used::text from bucket").fetchone() == (str(2 * 10**12),)


def test_a_bucket_in_steps_covers_the_rest_of_its_last_step(connection: Connection) -> None:
    """3 kB in steps of 1 kB: 2.5 kB take all of it, and 0.4 kB more of the session lie in the third step."""
    part = UsageComponent("all", Measure.TOTAL, 1, (Tier(None, 10**10),))
    terms = BucketTerms("bucket-0", Measure.TOTAL, 3_000, increment=1_000)
    usage = (Used(0, 1, 1, -200, -140, 0, 2_500), Used(0, 1, 2, -140, -80, 0, 400), Used(0, 2, 1, -70, -60, 0, 1))
    story = Story(Tariff("EUR", (), (part,)), False, (Given(terms, 0, -9000, 9000),), usage, (0, 1, 2), (1, 1, 1))
    world = bulk_world(connection, story)
    world.run(story.arrival)
    world.clean()
    assert world.stored_of_use() == world.expected()
