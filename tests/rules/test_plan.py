"""Plan files are read strictly, with the place of each fault; documents read back to the same plan."""

from __future__ import annotations

import json
import tomllib
from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tariffs import tariffs

from sms_aaa.rules.entitlement import Policy, SessionsPolicy
from sms_aaa.rules.measure import Measure, Unit
from sms_aaa.rules.plan import Plan, parse_plan, plan_digest, plan_from_document, plan_to_document
from sms_aaa.rules.plan_table import PlanInvalidError
from sms_aaa.rules.plan_writing import tables_of_tariff
from sms_aaa.rules.tariff import Period, RecurringComponent, Tariff, Tier, UsageComponent, complete_usage

PLAN = """
name = "home"
description = "At home"
[policy]
rate_up = "1.5 Mbit/s"
rate_down = "1 Gbit/s"
session_timeout = "24h"
idle_timeout = "10m"
interim = "90s"
sessions = 2
[tariff]
currency = "EUR"
[[tariff.recurring]]
name = "fee"
amount = "29.90"
period = "month"
[[tariff.usage]]
name = "data"
measure = "total"
included = "50 GB"
price = "0.50"
per = "GB"
[[example]]
usage = { upload = "10 GB", download = "60 GB" }
expect = { fee = "29.90", data = "10.00", total = "39.90" }
"""


def parse(text: str, default_currency: str = "EUR") -> Plan:
    return parse_plan(tomllib.loads(text, parse_float=Decimal), default_currency=default_currency)


def fault_of(text: str) -> PlanInvalidError:
    with pytest.raises(PlanInvalidError) as caught:
        parse(text)
    assert str(caught.value) == f"{caught.value.place}: {caught.value.reason}; {caught.value.remedy}"
    assert str(caught.value).isprintable()
    return caught.value


def test_a_plan_file_becomes_a_policy_and_a_tariff() -> None:
    assert parse(PLAN) == Plan(
        name="home",
        description="At home",
        policy=Policy(
            rate_up_kbps=1_500,
            rate_down_kbps=1_000_000,
            session_timeout_seconds=86_400,
            idle_timeout_seconds=600,
            interim_seconds=90,
            sessions_max=2,
        ),
        tariff=Tariff(
            "EUR",
            (RecurringComponent("fee", 2990, Period.MONTH),),
            (UsageComponent("data", Measure.TOTAL, Unit.GB.size, (Tier(50 * 10**9, 0), Tier(None, 500_000_000_000))),),
        ),
    )


def test_what_happens_at_the_limit_of_sessions_is_part_of_the_plan() -> None:
    plan = parse(PLAN.replace("sessions = 2", 'sessions_policy = "reject-new"\nsessions_strict = true'))
    assert (plan.policy.sessions_policy, plan.policy.sessions_strict) == (SessionsPolicy.REJECT_NEW, True)
    assert plan_from_document(json.loads(json.dumps(plan_to_document(plan)))) == plan


def test_a_plan_that_says_nothing_of_it_keeps_the_digest_that_it_had_before_it_could() -> None:
    said = PLAN.replace(
        "sessions = 2", 'sessions = 2\nsessions_policy = "replace-same-device"\nsessions_strict = false'
    )
    assert plan_digest(parse(said)) == plan_digest(parse(PLAN))
    assert plan_digest(parse(PLAN)) == "8b16ed0f3e9b548f004cc54a86f8eb12c57cccba131f899672b2b0b6600490ab"
    assert plan_digest(parse(said.replace("false", "true"))) != plan_digest(parse(PLAN))


def test_what_is_left_out_has_the_policy_s_defaults_and_costs_nothing() -> None:
    plan = parse('name = "free"\n[policy]\n[tariff]', default_currency="JPY")
    assert plan == Plan("free", "", Policy(), Tariff("JPY", (), complete_usage(())))


def test_included_and_price_are_short_for_two_tiers() -> None:
    tiers = 'tiers = [{ up_to = "50 GB", price = "0" }, { price = 0.50 }]'
    assert parse(PLAN.replace('included = "50 GB"\nprice = "0.50"', tiers)) == parse(PLAN)


def test_an_included_volume_of_nothing_is_no_tier() -> None:
    text = PLAN.split("[[example]]", maxsplit=1)[0].replace("50 GB", "0 GB")
    assert parse(text).tariff.usage[0].tiers == (Tier(None, 500_000_000_000),)


@pytest.mark.parametrize("price", ['"0.50"', "0.50", "5e-1"])
def test_a_price_may_be_text_or_a_toml_decimal(price: str) -> None:
    assert parse(PLAN.replace('"0.50"', price)) == parse(PLAN)


@pytest.mark.parametrize(
    ("old", "new", "place", "said"),
    [
        ('name = "home"', 'nam = "home"', "nam", "known are name, description, policy, tariff, example"),
        ('name = "home"', '"a\\nb" = 1', "'a\\nb'", "is not a key"),
        ('name = "home"', "", "name", "is missing"),
        ('name = "home"', "name = 1", "name", "is of type int; write a text in quotes"),
        ('name = "home"', 'name = "Home"', "name", "lower-case"),
        ("At home", "a\\nb", "description", "not printable"),
        ("At home", "a" * 201, "description", "at most 200 characters"),
        ("[policy]", "[polic]", "polic", "is not a key"),
        ("1.5 Mbit/s", "1.5 MB/s", "policy.rate_up", 'write a rate such as "20 Mbit/s"'),
        ("1.5 Mbit/s", "0 Mbit/s", "policy.rate_up", "leave it out for no limit"),
        ("1.5 Mbit/s", "0.5 kbit/s", "policy.rate_up", "whole number of kbit/s"),
        ("1 Gbit/s", "1001 Gbit/s", "policy.rate_down", "from 1 to 1000000000"),
        ('"24h"', '"1 day"', "policy.session_timeout", "is not a time in s, m, h or d"),
        ('"24h"', "86400", "policy.session_timeout", "is of type int"),
        ('"10m"', '"366d"', "policy.idle_timeout", "is not from 1 to"),
        ('"90s"', '"59s"', "policy.interim", "write a time from 60s to 86400s"),
        ("sessions = 2", "sessions = -1", "policy.sessions", "write a number from 0 to 10000"),
        ("sessions = 2", "sessions = true", "policy.sessions", "write a number"),
        (
            "sessions = 2",
            'sessions_policy = "kick-oldest"',
            "policy.sessions_policy",
            "does not send any yet; write one",
        ),
        ("sessions = 2", 'sessions_policy = "none"', "policy.sessions_policy", "replace-same-device, reject-new"),
        ("sessions = 2", "sessions_strict = 1", "policy.sessions_strict", "is of type int; write true or false"),
        ('"EUR"', '"EURO"', "tariff.currency", "such as EUR"),
        ('"29.90"', '"29.905"', "tariff.recurring[0].amount", "which has 2 decimals"),
        ('"29.90"\nperiod', '"-1"\nperiod', "tariff.recurring[0].amount", "negative"),
        ('"month"', '"day"', "tariff.recurring[0].period", "write one of week, month, quarter, year"),
        ('measure = "total"', 'measure = "both"', "tariff.usage[0].measure", "write one of upload, download, total"),
        ('price = "0.50"', 'price = "-0.50"', "tariff.usage[0].price", "is negative"),
        ('price = "0.50"', 'price = "0,50"', "tariff.usage[0].price", "write the price per unit"),
        ('price = "0.50"', 'price = "0.0000000000001"', "tariff.usage[0].price", "12 decimals"),
        ('price = "0.50"', "price = nan", "tariff.usage[0].price", "out of bounds"),
        ('price = "0.50"', "price = true", "tariff.usage[0].price", "not an exact number"),
        ('price = "0.50"', "", "tariff.usage[0].price", "is missing"),
        (
            'price = "0.50"',
            'prize = "0.50"',
            "tariff.usage[0].prize",
            "known are name, measure, per, model, scope, price",
        ),
        ('"50 GB"', '"50 gigabyte"', "tariff.usage[0].included", "write a volume"),
        ('per = "GB"', 'per = "gb"', "tariff.usage[0].per", "is not one of the units"),
        ('per = "GB"', 'per = "GB"\ntiers = []', "tariff.usage[0].included", "write either tiers, or included"),
        ('name = "data"', 'name = "fee"', "tariff.usage[0].name", "is 'fee', as an earlier component is"),
        ('data = "10.00"', 'data = "10.01"', "example[0].expect.data", "is 10.01 EUR, the tariff makes it 10.00 EUR"),
        ('total = "39.90"', 'total = "39.91"', "example[0].expect.total", "the tariff makes it 39.90 EUR"),
        (', total = "39.90"', "", "example[0].expect.total", "is missing"),
        ('data = "10.00"', 'date = "10.00"', "example[0].expect.date", "known are fee, data, total"),
        ("[[example]]", "[example]", "example", "write at most 100 tables"),
    ],
)
def test_a_fault_is_named_with_its_place_and_remedy(old: str, new: str, place: str, said: str) -> None:
    text = PLAN.replace(old, new, 1)
    assert text != PLAN
    fault = fault_of(text)
    assert fault.place == place
    assert said in str(fault)
    assert f"{place}:" not in fault.reason


@pytest.mark.parametrize(
    ("tiers", "place", "said"),
    [
        ("[]", "tariff.usage[0].tiers", "last tier is not open"),
        ('[{ up_to = "50 GB", price = "1" }]', "tariff.usage[0].tiers", "leave up_to out of the last one only"),
        (
            '[{ up_to = "2 GB", price = 1 }, { up_to = "1 GB", price = 1 }, { price = 1 }]',
            "tariff.usage[0].tiers",
            "ascend",
        ),
        ('[{ up_to = "2 GB" }, { price = "1" }]', "tariff.usage[0].tiers[0].price", "is missing"),
        ('[{ price = "1" }, 7]', "tariff.usage[0].tiers[1]", "write a table"),
        ('[{ price = "1", flut = "1" }]', "tariff.usage[0].tiers[0].flut", "known are up_to, price, flat, per"),
    ],
)
def test_tiers_are_read_as_strictly(tiers: str, place: str, said: str) -> None:
    fault = fault_of(PLAN.replace('included = "50 GB"\nprice = "0.50"', f"tiers = {tiers}"))
    assert fault.place == place
    assert said in str(fault)


def test_a_direction_counted_twice_is_refused() -> None:
    second = '[[tariff.usage]]\nname = "up"\nmeasure = "upload"\nprice = 1\nper = "GB"\n'
    fault = fault_of(PLAN.replace("[[example]]", f"{second}[[example]]"))
    assert (fault.place, fault.reason) == ("tariff.usage", "upload is counted by data and up, not by exactly one")


def test_a_list_has_a_bound() -> None:
    fees = "".join(f'[[tariff.recurring]]\nname = "fee-{n}"\namount = 1\nperiod = "month"\n' for n in range(33))
    assert fault_of(f'name = "a"\n[policy]\n[tariff]\n{fees}').place == "tariff.recurring"


def test_a_binary_float_is_refused() -> None:
    document = tomllib.loads(PLAN.replace('price = "0.50"', "price = 0.50"))  # without parse_float
    with pytest.raises(PlanInvalidError, match="is of type float, which is not an exact number"):
        parse_plan(document, default_currency="EUR")


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    kinds = {SessionsPolicy: st.sampled_from(SessionsPolicy), bool: st.booleans(), int: st.integers(0, 2**31)}
    defaults = zip(Policy.__struct_fields__, Policy.__struct_defaults__, strict=True)
    policy = Policy(**{name: draw(kinds[type(default)]) for name, default in defaults})
    return Plan("any", draw(st.text(max_size=50)), policy, draw(tariffs()))


@settings(max_examples=100, deadline=None)
@given(tariffs())
def test_a_tariff_in_the_words_of_its_file_reads_as_that_tariff(tariff: Tariff) -> None:
    document = {"name": "any", "policy": {}, "tariff": tables_of_tariff(tariff)}
    assert parse_plan(document, default_currency="XXX").tariff == tariff
    assert parse_plan(json.loads(json.dumps(document)), default_currency="XXX").tariff == tariff


def leaves(value: object) -> list[object]:
    if isinstance(value, dict):
        return [leaf for item in value.values() for leaf in leaves(item)]
    if isinstance(value, list):
        return [leaf for item in value for leaf in leaves(item)]
    return [value]


@settings(max_examples=100, deadline=None)
@given(plans())
def test_a_document_reads_back_to_the_same_plan_also_through_json(plan: Plan) -> None:
    document = plan_to_document(plan)
    assert plan_from_document(document) == plan
    assert json.loads(json.dumps(document)) == document
    assert plan_to_document(plan_from_document(json.loads(json.dumps(document)))) == document
    assert {type(leaf) for leaf in leaves(document)} <= {int, str, bool, type(None)}


def test_the_document_s_form_is_stable() -> None:
    # Stored plans are read back for good: this form may grow, with defaults, but not change.
    assert plan_to_document(parse(PLAN)) == {
        "name": "home",
        "description": "At home",
        "policy": {
            "rate_up_kbps": 1_500,
            "rate_down_kbps": 1_000_000,
            "session_timeout_seconds": 86_400,
            "idle_timeout_seconds": 600,
            "interim_seconds": 90,
            "sessions_max": 2,
        },
        "tariff": {
            "currency": "EUR",
            "recurring": [{"name": "fee", "amount_minor": 2990, "period": "month"}],
            "usage": [
                {
                    "name": "data",
                    "measure": "total",
                    "unit_octets": 10**9,
                    "tiers": [
                        {"up_to_octets": 50 * 10**9, "price_picounits": 0},
                        {"up_to_octets": None, "price_picounits": 500_000_000_000},
                    ],
                }
            ],
        },
    }


def test_the_digest_is_of_the_content() -> None:
    plan = parse(PLAN)
    assert plan_digest(plan) == plan_digest(parse(PLAN + "\n# a comment"))
    assert plan_digest(plan) != plan_digest(replace(plan, description="In the house"))
    assert len(plan_digest(plan)) == 64


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"unit_octets": 7}, "no unit has 7 octets"),
        ({"unit_octets": "7"}, "Expected `int`"),
        ({"tiers": []}, "last tier is not open"),
        ({"measure": "upload"}, "download is counted by no component"),
    ],
)
def test_a_document_that_breaks_a_law_is_refused(change: dict[str, object], said: str) -> None:
    document = plan_to_document(parse(PLAN))
    document["tariff"]["usage"][0].update(change)
    with pytest.raises(PlanInvalidError, match=said):
        plan_from_document(document)


def test_an_older_document_lacks_a_right_and_gets_its_default() -> None:
    document = plan_to_document(parse(PLAN))
    del document["policy"]["sessions_max"]
    assert plan_from_document(document).policy.sessions_max == Policy().sessions_max
