"""The laws of a tariff: units, tiers, names, and each direction counted exactly once."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sms_aaa.rules.buckets import BucketTerms
from sms_aaa.rules.measure import QUANTITY_MAX, Amounts, Kind, Measure, Unit, quantity_of
from sms_aaa.rules.tariff import Period, RecurringComponent, Tariff, Tier, UsageComponent, complete_usage, named

OPEN = (Tier(None, 1),)


def component(name: str, measure: Measure) -> UsageComponent:
    return UsageComponent(name, measure, Unit.GB.size, OPEN)


def test_upload_is_what_the_nas_received_from_the_user() -> None:
    # RFC 2866 sections 5.3 and 5.4, by names of the attributes.
    acct_input_octets, acct_output_octets = 3, 40
    counts = {
        measure: measure.of(Amounts(upload=acct_input_octets, download=acct_output_octets))
        for measure in (
            Measure.UPLOAD,
            Measure.DOWNLOAD,
            Measure.TOTAL,
        )
    }
    assert counts == {Measure.UPLOAD: 3, Measure.DOWNLOAD: 40, Measure.TOTAL: 43}


@pytest.mark.parametrize(
    ("volume", "octets"),
    [
        ("50 GB", 50 * 10**9),
        ("50GB", 50 * 10**9),
        ("1 GiB", 2**30),
        ("1.5 TiB", 3 * 2**39),
        ("0.5 kB", 500),
        ("1 KiB", 1024),
        ("7 octet", 7),
    ],
)
def test_decimal_and_binary_volumes_are_different_units(volume: str, octets: int) -> None:
    assert quantity_of(volume) == octets


@pytest.mark.parametrize(
    ("volume", "reason"),
    [
        ("50", "not a volume"),
        ("-1 GB", "not a volume"),
        ("1e3 GB", "not a volume"),
        ("50 GBit", "is not one of the units octet, kB, MB, GB, TB, KiB, MiB, GiB, TiB"),
        ("50 KB", "is not one of the units"),
        ("0.5 octet", "whole number of octets"),
        ("9999999999 TB", f"above {QUANTITY_MAX}"),
    ],
)
def test_what_is_not_a_volume_says_why(volume: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        quantity_of(volume)


def test_units_are_found_by_their_size() -> None:
    assert [Unit.by_size(unit.size, unit.kind) for unit in Unit] == list(Unit)
    with pytest.raises(ValueError, match="no unit has 7 octets"):
        Unit.by_size(7, Kind.OCTETS)


def test_a_component_knows_its_unit_and_denominator() -> None:
    data = component("data", Measure.TOTAL)
    assert data.unit is Unit.GB
    assert data.denominator == 10**9 * 10**12


@pytest.mark.parametrize(
    ("tiers", "reason"),
    [
        ((), "last tier is not open"),
        ((Tier(10, 0),), "last tier is not open"),
        ((Tier(0, 0), Tier(None, 1)), "do not ascend"),
        ((Tier(10, 0), Tier(10, 1), Tier(None, 2)), "do not ascend"),
        ((Tier(10, 0), Tier(5, 1), Tier(None, 2)), "do not ascend"),
        ((Tier(None, 0), Tier(None, 1)), "do not ascend"),
        ((Tier(10, -1), Tier(None, 1)), "negative"),
    ],
)
def test_tiers_that_break_a_law_cannot_be_made(tiers: tuple[Tier, ...], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        UsageComponent("data", Measure.TOTAL, Unit.GB.size, tiers)


@pytest.mark.parametrize(
    ("measures", "added"),
    [
        ([], [("unmetered", Measure.TOTAL)]),
        ([Measure.TOTAL], []),
        ([Measure.UPLOAD], [("download-unmetered", Measure.DOWNLOAD)]),
        ([Measure.DOWNLOAD], [("upload-unmetered", Measure.UPLOAD)]),
        ([Measure.UPLOAD, Measure.DOWNLOAD], []),
    ],
)
def test_what_no_component_counts_is_counted_at_a_price_of_zero(
    measures: list[Measure], added: list[tuple[str, Measure]]
) -> None:
    usage = tuple(component(f"data-{measure}", measure) for measure in measures)
    completed = complete_usage(usage)
    assert completed[: len(usage)] == usage
    assert [(free.name, free.measure) for free in completed[len(usage) :]] == added
    assert all(free.tiers == (Tier(None, 0),) for free in completed[len(usage) :])
    assert Tariff("EUR", (), completed).usage == completed
    assert complete_usage(completed) == completed


@pytest.mark.parametrize(
    ("usage", "reason"),
    [
        ((component("a", Measure.TOTAL), component("b", Measure.UPLOAD)), "upload is counted by a and b"),
        ((component("a", Measure.DOWNLOAD), component("b", Measure.DOWNLOAD)), "download is counted by a and b"),
        ((component("a", Measure.UPLOAD),), "download is counted by no component"),
        ((component("fee", Measure.TOTAL),), "two components are called 'fee'"),
        ((component("total", Measure.TOTAL),), "stands for the sum"),
    ],
)
def test_a_tariff_that_counts_an_octet_twice_or_not_at_all_cannot_be_made(
    usage: tuple[UsageComponent, ...], reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        Tariff("EUR", (RecurringComponent("fee", 100, Period.MONTH),), usage)


@pytest.mark.parametrize(
    ("measure", "components", "reason"),
    [
        (Measure.SECONDS, (), "bucket free counts seconds, which no component does"),
        (Measure.UPLOAD, ("up", "down"), "bucket free counts upload, and component down download"),
        (Measure.TOTAL, ("nothing",), "bucket free names 'nothing', which the tariff does not have"),
    ],
)
def test_a_bucket_covers_what_its_tariff_has_and_counts(
    measure: Measure, components: tuple[str, ...], reason: str
) -> None:
    usage = (component("up", Measure.UPLOAD), component("down", Measure.DOWNLOAD))
    Tariff("EUR", (), usage, buckets=(BucketTerms("free", Measure.TOTAL, 1, components=("up", "down")),))
    with pytest.raises(ValueError, match=reason):
        Tariff("EUR", (), usage, buckets=(BucketTerms("free", measure, 1, components=components),))


def test_what_is_left_uncounted_is_counted_by_few_components() -> None:
    grid = [(key, slot, "whole-session") for key in ("default", "tv") for slot in ("anytime", "night", "weekend")]
    at_night = replace(component("night", Measure.TOTAL), slots=("night",))
    [_, added] = complete_usage((at_night,), grid)
    assert (added.name, added.keys, added.slots, added.bands) == ("unmetered", (), ("anytime", "weekend"), ())
    of_tv = replace(at_night, keys=("tv",))
    added = complete_usage((of_tv,), grid)[1:]
    assert [(part.name, part.keys, part.slots) for part in added] == [
        ("unmetered-1", ("default",), ()),
        ("unmetered-2", ("tv",), ("anytime", "weekend")),
    ]


def test_a_fee_is_not_negative() -> None:
    with pytest.raises(ValueError, match="negative"):
        RecurringComponent("fee", -1, Period.MONTH)


@pytest.mark.parametrize("name", ["", "-a", "A", "a b", "a_b", "ä", "a\n", "a" * 65])
def test_a_name_is_of_lower_case_letters_digits_and_hyphens(name: str) -> None:
    assert named("home-100") == "home-100"
    with pytest.raises(ValueError, match="is not a name"):
        named(name)
