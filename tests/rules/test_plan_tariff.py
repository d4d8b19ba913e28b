"""The whole format of tariffs: what each key means, and where and how each fault is told."""

from __future__ import annotations

import tomllib
from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tariffs import tariffs

from sms_aaa.rules.buckets import BucketKind, BucketTerms, Overage, Rollover
from sms_aaa.rules.measure import Measure, Unit
from sms_aaa.rules.plan import read_plan
from sms_aaa.rules.plan_table import PlanInvalidError
from sms_aaa.rules.plan_writing import tables_of_tariff
from sms_aaa.rules.slots import Band, Day, Holiday, Slot
from sms_aaa.rules.tariff import (
    Anchor,
    Bound,
    Carry,
    Due,
    KeyRule,
    Model,
    OneTimeComponent,
    Period,
    Proration,
    RecurringComponent,
    Rounding,
    Scope,
    SessionLimit,
    Shape,
    Switch,
    Tariff,
    Tier,
    UsageComponent,
)

GB, EUR = 10**9, 10**12

WHOLE = """
[tariff]
currency = "EUR"
switch = "start"
carry = "on"
holidays = ["2026-12-25", "05-01"]
[[tariff.slot]]
name = "night"
days = ["sat", "holiday"]
from = "22:00"
to = "06:00"
[[tariff.band]]
name = "first"
to = "60 min"
[[tariff.key]]
name = "roaming"
nas_zone = ["abroad"]
service_class = ["data"]
called_station = ["apn"]
realm = ["partner.example"]
[[tariff.recurring]]
name = "fee"
amount = "10.00"
period = "quarter"
due = "arrears"
prorate = "day"
anchor = "subscription"
quantity = 2
trial = "14d"
[[tariff.one_time]]
name = "setup"
amount = 49
[[tariff.usage]]
name = "data"
measure = "total"
per = "GB"
model = "volume"
keys = ["default"]
tiers = [{ up_to = "10 GB", price = "1", flat = "2" }, { price = "0.5", per = "100 MB", increment = "1 MB" }]
discount = "12.5"
maximum = "50.00"
minimum_charge = "5.00"
prorate_minimum = false
round = "up"
decimals = 4
[[tariff.usage]]
name = "roaming-data"
measure = "total"
per = "100 MB"
model = "package"
keys = ["roaming"]
price = "3"
free = "1 GB"
[[tariff.usage]]
name = "time"
measure = "seconds"
per = "min"
model = "per-unit"
scope = "session"
price = "0.1"
initial_increment = "60 s"
increment = "10 s"
minimum = "30 s"
grace = "5 s"
connect_fee = "0.05"
session_maximum = "2"
session_limit = "disconnect"
slots = ["night"]
bands = ["first"]
[[tariff.usage]]
name = "calls"
measure = "events"
per = "event"
model = "stairstep"
tiers = [{ up_to = 100, flat = "10" }, { flat = "15" }]
[[tariff.bound]]
name = "cap"
components = ["fee", "data"]
maximum = "60.00"
minimum = "10.00"
prorate_minimum = false
[[tariff.bucket]]
name = "night-data"
measure = "total"
amount = "50 GB"
kind = "promotion"
priority = 10
components = ["data"]
keys = ["default"]
slots = ["night"]
increment = "1 MB"
factor = "0.5"
connect_fee = "1 kB"
blocks = true
overage = "absorb"
keeps_overage = true
shared = true
member_maximum = "10 GB"
prorate = true
valid = "30d"
rollover = { minimum = "1 GB", maximum = "20 GB", periods = 3 }
[[tariff.bucket]]
name = "credit"
money = true
amount = "10.00"
rollover = { maximum = "5.00" }
[[example]]
usage = [
    { key = "roaming", download = "1.1 GB" },
    { slot = "night", download = "4 GB", upload = "2 MB", session = "a" },
    { slot = "night", band = "first", seconds = "61 s", session = "a" },
    { events = 101 },
]
expect = { fee = "0", setup = 49, data = "5.00", roaming-data = 3, time = "0.17", calls = 15, cap = 5, total = "77.17" }
buckets = { night-data = "2001.001 MB", credit = "8.17" }
"""


def read(text: str, *, is_sold: bool = False) -> Tariff:
    document = tomllib.loads(text, parse_float=Decimal)
    plan, outcomes = read_plan(document, default_currency="EUR", is_sold=is_sold)
    assert [str(outcome.broken) for outcome in outcomes if outcome.broken] == []
    return plan.tariff


def test_every_key_has_its_meaning() -> None:
    assert read(WHOLE) == Tariff(
        "EUR",
        (
            RecurringComponent(
                "fee", 1000, Period.QUARTER, Due.ARREARS, Proration.DAY, Anchor.SUBSCRIPTION, quantity=2, trial_days=14
            ),
        ),
        (
            UsageComponent(
                "data",
                Measure.TOTAL,
                GB,
                (Tier(10 * GB, EUR, 2 * EUR), Tier(None, EUR // 2, rate_unit=10**8, increment=10**6)),
                Model.VOLUME,
                keys=("default",),
                shape=Shape(
                    125_000_000, 50 * EUR, 5 * EUR, is_minimum_prorated=False, rounding_scale=4, rounding=Rounding.UP
                ),
            ),
            UsageComponent(
                "roaming-data", Measure.TOTAL, 1, (Tier(None, 3 * EUR, rate_unit=10**8),), Model.PACKAGE,
                free_quantity=GB, keys=("roaming",),
            ),
            UsageComponent(
                "time", Measure.SECONDS, Unit.MINUTE.size, (Tier(None, EUR // 10),), scope=Scope.SESSION,
                initial_increment=60, following_increment=10, minimum_quantity=30, grace_quantity=5,
                connect_fee_picounits=EUR // 20, session_maximum_picounits=2 * EUR,
                session_limit=SessionLimit.DISCONNECT, slots=("night",), bands=("first",),
            ),
            UsageComponent(
                "calls", Measure.EVENTS, 1, (Tier(100, 0, 10 * EUR), Tier(None, 0, 15 * EUR)), Model.STAIRSTEP
            ),
        ),
        one_time=(OneTimeComponent("setup", 4900),),
        bounds=(Bound("cap", ("fee", "data"), 60 * EUR, 10 * EUR, is_minimum_prorated=False),),
        buckets=(
            BucketTerms(
                "night-data", Measure.TOTAL, 50 * GB, BucketKind.PROMOTION, 10, ("data",), ("default",), ("night",),
                10**6, 500_000, 1000, blocks=True, overage=Overage.ABSORB, keeps_overage=True, is_shared=True,
                member_maximum=10 * GB, is_prorated=True, valid_seconds=30 * 86_400,
                rollover=Rollover(GB, 20 * GB, 3),
            ),
            BucketTerms("credit", None, 10 * EUR, rollover=Rollover(maximum=5 * EUR)),
        ),
        slots=(Slot("night", (Day.SATURDAY, Day.HOLIDAY), 22 * 3600, 6 * 3600),),
        holidays=(Holiday(12, 25, 2026), Holiday(5, 1)),
        bands=(Band("first", 0, 3600),),
        keys=(KeyRule("roaming", ("data",), ("abroad",), ("apn",), ("partner.example",)),),
        switch=Switch.START,
        carry=Carry.ON,
    )  # fmt: skip


def test_a_number_of_a_unit_that_is_another_unit_is_that_unit() -> None:
    thousand = WHOLE.replace('per = "GB"', 'per = "1000 MB"')
    assert read(thousand) == read(WHOLE)


def test_units_in_full_and_days_and_times_of_day_as_toml_has_them_mean_the_same() -> None:
    other = WHOLE
    for old, new in (
        ('"2026-12-25"', "2026-12-25"), ('from = "22:00"', "from = 22:00:00"), ('per = "min"', 'per = "minute"'),
        ('"60 s"', '"60 seconds"'),
    ):  # fmt: skip
        assert old in other
        other = other.replace(old, new)
    assert read(other) == read(WHOLE)


USAGE = "tariff.usage"


@pytest.mark.parametrize(
    ("old", "new", "place", "said"),
    [
        ('switch = "start"', 'switch = "middle"', "tariff.switch", "write one of linear, start, end"),
        ('"05-01"', '"02-30"', "tariff.holidays[1]", 'write days such as "2026-12-25", or "12-25" for every year'),
        ('["2026-12-25", "05-01"]', "[]", "tariff.holidays", "is not a list of 1 to 1000"),
        ('["2026-12-25", "05-01"]', "[2026]", "tariff.holidays[0]", "is of type int; write a text in quotes"),
        ('"sat"', '"saturday"', "tariff.slot[0].days[0]", "write some of mon, tue"),
        ('from = "22:00"', 'from = "24:00"', "tariff.slot[0]", 'write from "00:00" to before "24:00"'),
        ('from = "22:00"', 'from = "9:00"', "tariff.slot[0].from", "is not a time of day"),
        ('name = "night"\ndays', 'name = "anytime"\ndays', "tariff.slot[0]", "needs no description"),
        ('to = "60 min"', 'to = "0 min"', "tariff.band[0]", "let `to` be later"),
        ('to = "60 min"', 'to = "60 GB"', "tariff.band[0].to",
         "counts octets, where seconds are counted; write a time"),
        ('name = "roaming"', 'name = "default"', "tariff.key[0].name", "needs no description"),
        ('nas_zone = ["abroad"]', "nas_zone = [1]", "tariff.key[0].nas_zone[0]", "is of type int"),
        ("quantity = 2", "quantity = 1000001", "tariff.recurring[0].quantity", "write a number from 0 to 1000000"),
        ('amount = "10.00"\nperiod', "amount = 9999999999999\nperiod", "tariff.recurring[0].quantity", "too large"),
        ('trial = "14d"', 'trial = "36h"', "tariff.recurring[0].trial", "is not a number of whole days"),
        ("amount = 49", "amount = -49", "tariff.one_time[0].amount", "a fee is negative"),
        ('model = "volume"', 'model = "volumes"', f"{USAGE}[0].model", "per-unit, graduated, volume, package"),
        ('flat = "2" }', 'flat = "-2" }', f"{USAGE}[0].tiers[0].flat", "is negative"),
        ('per = "100 MB", ', 'per = "100 s", ', f"{USAGE}[0].tiers[1].per", "where octets are counted"),
        ('increment = "1 MB" }', 'increment = "0 MB" }', f"{USAGE}[0].tiers[1].increment", "is 0"),
        ('discount = "12.5"', 'discount = "100.5"', f"{USAGE}[0].discount", "write percent from 0 to 100"),
        ('minimum_charge = "5.00"', 'minimum_charge = "51"', f"{USAGE}[0].minimum_charge", "not above the maximum"),
        ('maximum = "50.00"', 'maximum = "50.001"', f"{USAGE}[0].maximum", "finer than the minor unit of EUR"),
        ("decimals = 4", "decimals = 13", f"{USAGE}[0].decimals", "from 0 to 12"),
        ('keys = ["default"]\ntiers', 'keys = ["defautl"]\ntiers', f"{USAGE}[0].keys[0]", "known are default, roaming"),
        ('keys = ["default"]\ntiers', "tiers", USAGE,
         "with key roaming in slot anytime and band whole-session is counted"),
        ('free = "1 GB"', 'included = "1 GB"', f"{USAGE}[1].included", "stands beside model package"),
        ('model = "package"', 'model = "graduated"', f"{USAGE}[1].free", "is for packages"),
        ('price = "3"', 'tiers = [{ price = "3" }]', f"{USAGE}[1].tiers", "stands beside model package"),
        ('per = "min"', 'per = "0 min"', f"{USAGE}[2].per", "is no unit"),
        ('per = "min"', 'per = "GB"', f"{USAGE}[2].per", "counts octets, where seconds are counted"),
        ('scope = "session"', "", f"{USAGE}[2].session_maximum", "stands beside scope cycle"),
        ('price = "0.1"', 'tiers = [{ price = "0.1" }]', f"{USAGE}[2].tiers", "stands beside model per-unit"),
        ('slots = ["night"]\nbands', 'slots = ["night", "night"]\nbands', f"{USAGE}[2].slots[1]", "name each once"),
        ('bands = ["first"]', "bands = []", f"{USAGE}[2].bands", "or leave it out"),
        ('{ flat = "15" }', '{ flat = "15", price = "1" }', f"{USAGE}[3].tiers[1].price", "flat fees only"),
        ('tiers = [{ up_to = 100, flat = "10" }, { flat = "15" }]', 'price = "1"', f"{USAGE}[3].tiers",
         "made of tiers"),
        ("up_to = 100", "up_to = 100.5", f"{USAGE}[3].tiers[0].up_to", "write a count such as"),
        ('components = ["fee", "data"]', "components = []", "tariff.bound[0].components", "is not a list of 1"),
        ('components = ["fee", "data"]', "", "tariff.bound[0].components", "is missing"),
        ('"fee", "data"', '"fee", "setup"', "tariff.bound[0].components[1]", "known are fee, data, roaming-data"),
        ('maximum = "60.00"\nminimum = "10.00"\n', "", "tariff.bound[0]", "bounds nothing"),
        ('minimum = "10.00"', 'minimum = "61"', "tariff.bound[0].minimum", "not above the maximum"),
        ('name = "credit"', 'name = "night-data"', "tariff.bucket[1].name", "as an earlier bucket is"),
        ('components = ["data"]', 'components = ["time"]', "tariff.bucket[0].components[0]",
         "counts seconds, not total"),
        ('measure = "total"\namount', 'measure = "units"\namount', "tariff.bucket[0].amount",
         "where units are counted"),
        ('kind = "promotion"', 'kind = "top-up"', "tariff.bucket[0].kind", "write one of allowance, promotion"),
        ('factor = "0.5"', 'factor = "1001"', "tariff.bucket[0].factor", "from 0 to 1000"),
        ("blocks = true\n", "", "tariff.bucket[0].overage", "write blocks = true"),
        ("shared = true\n", "", "tariff.bucket[0].member_maximum", "write shared = true"),
        ("money = true", "", "tariff.bucket[1].measure", "is missing"),
        ("money = true", 'money = true\nmeasure = "total"', "tariff.bucket[1].measure", "stands beside money"),
        ("money = true", 'money = true\nfactor = "2"', "tariff.bucket[1].factor", "stands beside money"),
        ('amount = "10.00"\nrollover', 'amount = "10 GB"\nrollover', "tariff.bucket[1].amount",
         "is not a plain decimal"),
        ("periods = 3", "periods = 0", "tariff.bucket[0].rollover.periods", "from 1 to 120"),
        ('valid = "30d"', 'valid = "1M"', "tariff.bucket[0].valid", "is not a time in s, m, h or d"),
        ('key = "roaming", d', 'key = "home", d', "example[0].usage[0].key", "known are default, roaming"),
        ("events = 101", "events = -1", "example[0].usage[3].events", "is not a number of events"),
        ("events = 101", 'events = "9223372036854775807 event"', "example[0].usage[3]", "more than can be counted"),
        ("night-data = ", "night-dota = ", "example[0].buckets.night-dota", "known are night-data, credit"),
    ],
)  # fmt: skip
def test_a_fault_is_named_with_its_place_and_remedy(old: str, new: str, place: str, said: str) -> None:
    text = WHOLE.replace(old, new, 1)
    assert text != WHOLE
    with pytest.raises(PlanInvalidError) as caught:
        read(text)
    assert caught.value.place == place
    assert said in str(caught.value)


def test_an_example_in_abstract_units_is_compared_to_twelve_decimals() -> None:
    text = """
    tariff = { currency = "XXX", usage = [{ name = "a", measure = "seconds", per = "h", price = 1 }] }
    example = [{ usage = { seconds = "20 min" }, expect = { a = "0.333333333333", total = "0.333333333333" } }]
    """
    assert read(text).currency == "XXX"
    with pytest.raises(PlanInvalidError, match=r"example\[0\].expect.a: has more than 12 decimals"):
        read(text.replace('a = "0.333333333333"', 'a = "0.3333333333333"'))


def test_combinations_of_keys_slots_and_bands_have_a_bound() -> None:
    rows = {"slot": [{"name": f"s{at}"} for at in range(40)], "band": [{"name": f"b{at}"} for at in range(24)]}
    with pytest.raises(PlanInvalidError, match="tariff: has 1025 combinations"):
        read_plan({"tariff": rows}, default_currency="EUR", is_sold=False)


def test_a_bucket_that_nothing_uses_is_refused() -> None:
    bucket = '[tariff]\n[[tariff.bucket]]\nname = "a"\nmeasure = "events"\namount = 5\n'
    with pytest.raises(PlanInvalidError, match=r"tariff.bucket\[0\].measure: is events, which no component counts"):
        read(bucket)


def test_what_is_sold_has_a_name_a_policy_and_a_currency() -> None:
    text = '[tariff]\ncurrency = "XXX"\n[[tariff.key]]\nname = "any"\n'
    assert read(text).currency == "XXX"
    for place, text_of_it in (
        ("name", text),
        ("policy", f'name = "a"\n{text}'),
        ("tariff.currency", f'name = "a"\npolicy = {{}}\n{text}'),
        ("tariff.key[0]", f'name = "a"\npolicy = {{}}\n{text.replace("XXX", "EUR")}'),
    ):
        with pytest.raises(PlanInvalidError) as caught:
            read(text_of_it, is_sold=True)
        assert caught.value.place == place


JUNK = st.sampled_from([
    None, True, 0, -1, 10**30, Decimal("NaN"), Decimal("1E+999999"), Decimal("0.1"), 0.5, "", "0", "-1", "1e3",
    "a" * 300, "9223372.036854775807 TB", "9223372036854775807 event",
    "anytime", "total", "\x00", "9999999999999999 TB", "0.0000000000000001 s", "99:99", "00-00",
    [], [[]], [None], ["a", "a"], {}, {"name": "a"}, {"": 1}, [{}], date(2026, 1, 1),
])  # fmt: skip


def leaves(value: object, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """The ways to everything in a document, itself and its tables too."""
    inner: list[tuple[str | int, object]] = []
    if isinstance(value, dict):
        inner = list(value.items())
    elif isinstance(value, list):
        inner = list(enumerate(value))
    return [path, *(found for key, part in inner for found in leaves(part, (*path, key)))]


@settings(max_examples=80, deadline=None)
@given(tariffs(), st.data())
def test_whatever_stands_where_is_read_or_refused_with_its_place(tariff: Tariff, data: st.DataObject) -> None:
    usage = {"upload": "1 GB", "seconds": "5 min", "events": 3, "units": "1.5"}
    document = {"tariff": tables_of_tariff(tariff), "example": [{"usage": usage, "expect": {"total": 0}}]}
    path = data.draw(st.sampled_from([way for way in leaves(document) if way]))
    inner: Any = document
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = data.draw(JUNK)
    fault = fault_in(document)
    assert fault is None or (fault.place.startswith(str(path[0])) and str(fault).isprintable())


def fault_in(document: dict[str, object]) -> PlanInvalidError | None:
    try:
        read_plan(document, default_currency="EUR", is_sold=False)
    except PlanInvalidError as fault:
        return fault
    return None
