"""Whatever stands in a usage file, it is priced or its wrong line named; and no bucket gives more than it has."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st
from tariffs import tariffs

from sms_aaa.radius.dictionary import ATTRIBUTES
from sms_aaa.rules.buckets import BucketTerms, Rollover
from sms_aaa.rules.evaluation import Account, Evaluation
from sms_aaa.rules.evaluation_result import component_totals
from sms_aaa.rules.measure import Measure
from sms_aaa.rules.rated_rows import rows_of
from sms_aaa.rules.tariff import Tariff, Tier, UsageComponent
from sms_aaa.rules.usage_line_keys import LINES
from sms_aaa.rules.usage_line_reading import LineReader, dated, first_instant
from sms_aaa.rules.usage_lines import LineInvalidError, Subscribe, session_begins

if TYPE_CHECKING:
    from sms_aaa.rules.evaluation_result import Result

NAMES = frozenset(attribute.name for attribute in ATTRIBUTES.values())
BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)
INSTANTS = st.integers(0, 100 * 86_400).map(lambda second: (BEGINNING + timedelta(seconds=second)).isoformat())
TEXTS = st.sampled_from(["a", "b", "bob", "roaming", "b0", "other.toml"])
NUMBERS = st.sampled_from([0, 1, 60, 10**6, 10**10, "1.5", "0.25"])
COUNTERS = st.integers(0, 2**32 - 1)
PACKETS = st.fixed_dictionaries(
    {
        "Acct-Status-Type": st.sampled_from(["Start", "Interim-Update", "Stop", "Accounting-On"]),
        "Acct-Session-Id": st.sampled_from(["1", "2"]),
        "Acct-Session-Time": st.integers(0, 10**6),
        "Acct-Input-Octets": COUNTERS,
        "Acct-Output-Octets": COUNTERS,
    }
)
VALUES = {
    "from": INSTANTS, "to": INSTANTS, "at": INSTANTS, "until": INSTANTS, "session_from": INSTANTS,
    "session": TEXTS, "member": TEXTS, "key": st.just("default"), "bucket": st.just("b0"), "tariff": TEXTS, "of": TEXTS,
    "seq": st.integers(0, 3), "id": st.integers(0, 20).map(str), "unit": st.sampled_from(["GB", "s", "event", "unit"]),
    "measure": st.sampled_from(["upload", "download", "total", "seconds"]), "attributes": PACKETS,
    "final": st.booleans(), "shared": st.booleans(), "blocks": st.booleans(), "priority": st.integers(0, 9),
    "valid": st.just("3d"), "name": st.just("g"),
}  # fmt: skip
USUAL = {
    "usage": ["from", "octets_in", "octets_out", "session"],
    "packet": ["at", "attributes"],
    "grant": ["at", "quantity", "unit"],
    "reserve": ["at", "session", "octets_out"],
    "settle": ["from", "session", "octets_out"],
    "release": ["session"],
    "payment": ["amount"],
    "subscribe": ["at"],
    "change": ["at", "tariff"],
    "cancel": ["at"],
    "rerate": [],
    "reset": ["at"],
    "close": [],
}


@st.composite
def documents(draw: st.DrawFn) -> dict[str, object]:
    kind = draw(st.sampled_from(sorted(LINES)))
    known = [key.name for key in LINES[kind]]
    names = {*USUAL[kind], *draw(st.lists(st.sampled_from(known), max_size=1))}
    return {"kind": kind, **{name: draw(VALUES.get(name, NUMBERS)) for name in sorted(names)}}


def price(tariff: Tariff, texts: list[dict[str, object]], account: Account, *, looks: bool = False) -> Result:
    """As cli/tariff_rate.py does; any tariff that a line names is this one. `looks`: at the result after each line."""
    reader = LineReader(tariff, lambda _: tariff, NAMES)
    read = [line for number, text in enumerate(texts, 1) if (line := reader.read(number, text)) is not None]
    reader.finish()
    first_us = first_instant(read, None)
    lines = list(dated(read, first_us))
    is_subscribed = not any(isinstance(line, Subscribe) for line in lines)
    evaluation = Evaluation(
        account, tariff, first_us=first_us, begins=session_begins(lines), is_subscribed=is_subscribed
    )
    for line in lines:
        evaluation.hear(line)
        if looks:
            assert_within(evaluation.result())
    return evaluation.result()


def came(result: Result) -> tuple:
    """All but what adjustments it came by."""
    totals = [(line.name, line.amount, line.amount_rounded, line.quantity) for line in component_totals(result)]
    buckets = [
        (held.bucket.terms.name, held.granted, held.bucket.used, held.bucket.held, held.rolled, held.bucket.overrun)
        for held in result.buckets
    ]
    return sorted(line for line in totals if any(line[1:])), buckets, result.money, result.holds, result.duplicates


def assert_within(result: Result) -> None:
    for held in result.buckets:
        assert 0 <= held.bucket.held <= held.granted
        assert held.bucket.used + held.bucket.held + held.rolled <= held.granted


@settings(max_examples=50, deadline=None)
@given(tariffs(), st.lists(documents(), min_size=1, max_size=8), st.booleans())
def test_any_lines_are_priced_or_refused(tariff: Tariff, texts: list[dict[str, object]], is_prepaid: bool) -> None:
    account = Account(is_prepaid=is_prepaid, credit_limit=Fraction(0) if is_prepaid else None, money=Fraction(5))
    try:
        result = price(tariff, texts, account)
    except LineInvalidError as wrong:
        refused = wrong
    else:
        assert_within(result)
        assert_adds_up(result)
        assert came(price(tariff, texts, account, looks=True)) == came(result)
        return
    assert 1 <= refused.line <= len(texts)
    assert refused.reason
    assert refused.remedy


def test_what_rolled_over_at_the_close_stays_granted_to_who_cancels_before_it() -> None:
    terms = BucketTerms("money", None, 10**10, is_prorated=True, rollover=Rollover(0, None, 1))
    texts: list[dict[str, object]] = [
        {"kind": "payment", "at": "2026-01-01T00:00:00+00:00", "amount": "1"},
        {"kind": "close"},
        {"kind": "cancel", "at": "2026-01-01T00:00:01+00:00"},
    ]
    part = UsageComponent("all", Measure.TOTAL, 1, (Tier(None, 1),))
    result = price(Tariff("EUR", (), (part,), buckets=(terms,)), texts, Account())
    assert_within(result)
    [first] = [held for held in result.buckets if held.rolled]
    assert (first.granted, first.rolled) == (10**10, 10**10)


def assert_adds_up(result: Result) -> None:
    for line in component_totals(result):
        assert line.quantity == line.covered + line.priced + line.uncovered
    for cycle in result.cycles:
        assert all(row.quantity >= 0 for row in rows_of(cycle.run))
