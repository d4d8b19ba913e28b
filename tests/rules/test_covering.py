"""Buckets by themselves: used and held never exceed the grant, and no cut of usage changes what is taken."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from sms_aaa.rules.buckets import BucketTerms, Grant
from sms_aaa.rules.covering import Bucket
from sms_aaa.rules.measure import Measure
from sms_aaa.rules.pricing import price_numerator
from sms_aaa.rules.reserving import Hold, Want, affordable, funds_of, hold_money, promise, spread
from sms_aaa.rules.tariff import Tier, UsageComponent

PART = UsageComponent("data", Measure.TOTAL, 10**6, (Tier(5_000, 0), Tier(None, 10**10)))

terms = st.builds(
    BucketTerms,
    st.just("b"),
    st.just(Measure.TOTAL),
    st.just(0),
    increment=st.sampled_from((1, 1, 7, 100)),
    factor_parts=st.sampled_from((10**6, 10**6, 2 * 10**6, 333_333, 0)),
    connect_fee=st.sampled_from((0, 0, 13)),
    is_shared=st.just(True),
    member_maximum=st.sampled_from((None, None, 250)),
)
portions = st.lists(st.tuples(st.integers(0, 300), st.integers(0, 2), st.integers(0, 1)), max_size=12)


def bucket_of(kind: BucketTerms, granted: int, bucket_id: int = 1, until_us: int | None = None) -> Bucket:
    return Bucket(Grant(bucket_id, kind, granted, 0, until_us, 0))


@given(terms, st.integers(0, 1_000), portions, st.dictionaries(st.integers(0, 2), st.integers(0, 100)))
def test_used_and_held_never_exceed_the_grant_nor_a_member_its_share(kind, granted, wanted, held):
    bucket = bucket_of(kind, max(granted, sum(held.values())))
    bucket.reserved = dict(held)
    for quantity, session, member in wanted:
        before, was_held = bucket.used, dict(bucket.reserved)
        use = bucket.use(quantity, session, member)
        assert 0 <= use.quantity <= quantity
        assert use.taken >= 0
        assert bucket.used == before + use.taken
        assert bucket.used + bucket.held <= bucket.grant.granted
        # Nobody uses what another session holds, and one's own hold goes first.
        assert all(bucket.reserved[other] == was_held[other] for other in was_held if other != session)
        if session in was_held:
            assert bucket.reserved[session] == max(was_held[session] - use.taken, 0)
        assert kind.member_maximum is None or bucket.taken.get(member, 0) <= kind.member_maximum


@given(terms, st.integers(0, 2_000), st.lists(st.integers(0, 300), max_size=8))
def test_no_cut_of_a_session_changes_what_is_covered_or_taken(kind, granted, parts):
    cut, whole = bucket_of(kind, granted), bucket_of(kind, granted)
    covered = sum(cut.use(part, "s", 1).quantity for part in parts)
    assert whole.use(sum(parts), "s", 1).quantity == covered
    assert whole.used == cut.used


@given(terms, st.integers(0, 1_000), st.integers(0, 3_000))
def test_a_bucket_covers_all_that_it_can(kind, granted, quantity):
    """One octet more than it covers would take more than there is."""
    kind = replace(kind, member_maximum=None)
    bucket = bucket_of(kind, granted)
    use = bucket.use(quantity, "s", 1)
    if use.quantity < quantity:
        rich = bucket_of(kind, 10**9)
        assert rich.use(use.quantity + 1, "s", 1).taken > granted


@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from((None, 5, 9)), st.integers(0, 2)), max_size=6))
def test_the_order_is_priority_then_expiry_then_age_then_id(several):
    grants = [
        Grant(number, BucketTerms("b", Measure.TOTAL, 1, priority=priority), 1, 0, until, created)
        for number, (priority, until, created) in enumerate(several)
    ]
    ordered = sorted(grants, key=lambda grant: grant.order)
    keys = [(g.terms.priority, g.until_us is None, g.until_us or 0, g.created_us, g.bucket_id) for g in ordered]
    assert keys == sorted(keys)


@given(
    st.integers(0, 10**6),
    st.none() | st.integers(0, 10**6),
    st.lists(st.tuples(st.integers(-(10**6), 10**6), st.integers(0, 1)), max_size=10),
)
def test_money_is_paid_and_given_back_exactly_within_the_grant_and_a_members_share(granted, maximum, amounts):
    bucket = bucket_of(BucketTerms("m", None, 0, is_shared=True, member_maximum=maximum), granted)
    paid = {0: Fraction(0), 1: Fraction(0)}
    for amount, member in amounts:
        wanted, before = Fraction(amount, 3), sum(paid.values())
        share = bucket.pay(wanted, "s", member)
        if wanted >= 0:
            most = [wanted, granted - before] + ([] if maximum is None else [maximum - paid[member]])
            assert share == min(most)
        else:
            assert share == -min(-wanted, before if maximum is None else paid[member])
        paid[member] += share
        assert bucket.used == sum(paid.values())


def test_a_member_is_promised_no_more_money_than_its_share():
    """What its sessions hold is a part of it (flows/reserving.py and rules/reservations.py note it as taken)."""
    bucket = bucket_of(BucketTerms("m", None, 0, is_shared=True, member_maximum=3 * 10**12), 10 * 10**12)
    bucket.taken = {1: Fraction(10**12)}
    assert [funds_of([bucket], Fraction(0), member) for member in (1, 2)] == [2, 3]
    assert hold_money([bucket], Fraction(5), 1) == ([Hold(1, 2 * 10**12)], 3 * 10**12)


@given(st.lists(st.tuples(terms, st.integers(0, 500)), max_size=4), st.lists(st.integers(0, 600), max_size=6))
def test_promises_are_held_by_what_is_there_and_each_can_be_used(kinds, asked):
    """Whatever sessions ask one after the other: what they are promised of buckets, they can use of them."""
    buckets = [bucket_of(replace(kind, member_maximum=None), size, number) for number, (kind, size) in enumerate(kinds)]
    promised = []
    for session, quantity in enumerate(asked):
        want = Want(PART, quantity, session, 1, "default", "anytime", 1)
        made = promise(want, buckets, lambda _: Fraction(1), Fraction(0))
        for hold in made.holds:
            bucket = buckets[hold.bucket_id]
            bucket.reserved[session] = bucket.reserved.get(session, 0) + hold.quantity
            assert bucket.used + bucket.held <= bucket.grant.granted
        promised.append(made.granted)
    for session, quantity in enumerate(promised):
        left = quantity
        for bucket in sorted(buckets, key=lambda bucket: bucket.grant.order):
            left -= bucket.use(left, session, 1).quantity
        assert left == 0


@given(st.integers(0, 20_000), st.integers(0, 10**9))
def test_money_affords_the_most_that_it_pays(quantity, billionths):
    funds = Fraction(billionths, 10**13)

    def cost(more: int) -> Fraction:
        return Fraction(price_numerator(PART, more), PART.denominator)

    most = affordable(quantity, funds, cost)
    assert cost(most) <= funds
    assert most == quantity or cost(most + 1) > funds


@given(st.integers(0, 100), st.lists(st.integers(0, 30)))
def test_what_is_settled_is_spread_over_holds_in_their_order(quantity, held):
    shares = spread(quantity, held)
    assert sum(shares) == min(quantity, sum(held))
    assert all(share <= each for share, each in zip(shares, held, strict=True))
    assert all(share == each for share, each in zip(shares, held, strict=True) if sum(shares) < quantity)
