"""Tariffs as files: transcripts of `sms-aaa tariff`."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from tariffs import tariffs

from sms_aaa.cli.exits import Exit
from sms_aaa.cli.main import main
from sms_aaa.rules.instants import instant_us
from sms_aaa.rules.measure import Measure, quantity_of, quantity_text
from sms_aaa.rules.plan import read_plan
from sms_aaa.rules.plan_writing import tables_of_tariff
from sms_aaa.rules.slots import Calendar, band_segments, slot_segments

PLAN_FILE = str(Path(__file__).parents[2] / "policies" / "home-100.toml")
TARIFF = """
[tariff]
currency = "EUR"
[[tariff.usage]]
name = "data"
measure = "total"
price = "0.50"
per = "GB"
[[example]]
usage = { download = "3 GB" }
expect = { total = "1.50" }
"""


def test_each_example_is_shown_with_its_outcome(lonely, tmp_path):
    file = tmp_path / "tariff.toml"
    file.write_text(TARIFF)
    assert lonely.type("tariff", "check", str(file)).lines == [
        "example  component  expected  priced    holds",
        "      0  data       -         1.50 EUR  yes",
        "      0  total      1.50 EUR  1.50 EUR  yes",
    ]
    file.write_text(TARIFF.replace('"1.50"', '"1.60"'))
    answer = lonely.type("tariff", "check", str(file), "--csv")
    assert answer.code == Exit.INVALID
    assert answer.out.splitlines()[-1] == "0,total,1.60 EUR,1.50 EUR,false"
    assert answer.err == (
        f"sms-aaa: {file}: example[0].expect.total: is 1.60 EUR, the tariff makes it 1.50 EUR; correct one of them\n"
    )


def test_a_plan_is_a_tariff_too_and_its_json_is_the_same(lonely, tmp_path):
    assert lonely.type("tariff", "check", PLAN_FILE, "--json").json()[-1]["holds"] is True
    file = tmp_path / "tariff.json"
    file.write_text('{"tariff": {"usage": [{"name": "a", "measure": "total", "per": "GB", "price": 0.1}]}}')
    assert lonely.done("tariff", "check", str(file)) == f"{file}: a tariff without examples\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is not JSON: "),
        ("[]", "is not JSON: it is no object; correct that line"),
        ('{"tariff": {}, "tariff": {}}', "is not JSON: 'tariff' stands twice in one object"),
        ('{"tariff": NaN}', "is not JSON: NaN is no number"),
        ("[" * 100_000, "is not JSON: "),
        ('{"tariff": {"currency": 1}}', "tariff.currency: is of type int; write a text in quotes"),
        ('{"policy": {}}', "tariff: is missing"),
    ],
)
def test_a_json_file_is_read_as_strictly(lonely, tmp_path, text, said):
    file = tmp_path / "tariff.json"
    file.write_text(text)
    answer = lonely.type("tariff", "check", str(file))
    assert (answer.code, answer.out) == (Exit.INVALID, "")
    assert answer.err.startswith(f"sms-aaa: {file}: ")
    assert said in answer.err


def test_the_schemas_are_json_schema(lonely):
    schemas = lonely.type("tariff", "schema").json()
    assert {schema["$schema"] for schema in schemas.values()} == {"https://json-schema.org/draft/2020-12/schema"}
    assert {name: lonely.type("tariff", "schema", name).json() for name in schemas} == schemas
    assert schemas["tariff"]["required"] == ["tariff"]
    kinds = [line["properties"]["kind"]["const"] for line in schemas["usage"]["oneOf"]]
    assert kinds[:3] == ["usage", "packet", "grant"]
    assert "anchor" in schemas["account"]["properties"]
    assert schemas["answer"]["required"][:2] == ["schema_version", "currency"]
    assert lonely.type("tariff", "schema", "invoice").code == Exit.INVALID


AMOUNTS = st.dictionaries(
    st.sampled_from(["octets_in", "octets_out", "seconds", "events"]),
    st.sampled_from([0, 1, 999, 10**6, 5 * 10**9]),
    min_size=1,
)
WORDS = {
    "octets_in": ("upload", "octet"),
    "octets_out": ("download", "octet"),
    "seconds": ("seconds", "s"),
    "events": ("events", "event"),
}


@settings(max_examples=25, deadline=None)
@given(tariffs(), st.lists(st.tuples(AMOUNTS, st.integers(0, 9)), min_size=1, max_size=3))
def test_an_example_costs_what_tariff_rate_makes_it(tariff, usage):
    begin = datetime(2001, 1, 1, tzinfo=UTC)
    at = instant_us(begin)
    [(_, slot)] = slot_segments(Calendar("UTC", tariff.slots, tariff.holidays), at, at)
    [(_, band)] = band_segments(tariff.bands, at, at, at)
    keys = ["default", *dict.fromkeys(rule.name for rule in tariff.keys)]
    rows, lines = [], []
    for number, (amounts, key) in enumerate(usage):
        place = {"key": keys[key % len(keys)], "session": f"s{number}"}
        rows.append({WORDS[name][0]: f"{amount} {WORDS[name][1]}" for name, amount in amounts.items()} | place)
        rows[-1] |= {"slot": slot, "band": band}
        lines.append({"from": begin.isoformat(), "to": begin.isoformat(), **amounts, **place})
    nothing = {terms.name: quantity_text(0, terms.measure.kind) if terms.measure else 0 for terms in tariff.buckets}
    example = {"usage": rows, "expect": {"total": 0}, "buckets": nothing}
    document = {"tariff": tables_of_tariff(tariff), "example": [example]}
    _, [outcome] = read_plan(document, default_currency="EUR", is_sold=False)
    with TemporaryDirectory() as folder:
        Path(folder, "tariff.json").write_text(json.dumps(document))
        close = {"kind": "close", "at": "2001-02-01T00:00:00Z"}
        Path(folder, "usage.jsonl").write_text("\n".join(json.dumps(line) for line in [*lines, close]))
        files = ("--tariff", f"{folder}/tariff.json", "--usage", f"{folder}/usage.jsonl")
        done = CliRunner().invoke(main, ["tariff", "rate", *files, "--json"])
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    [cycle] = result["cycles"]
    priced = {each.place.partition(".")[2]: each.found for each in outcome.comparisons}
    rated = {f"expect.{part['name']}": Decimal(part["amount_rounded"]) for part in cycle["components"]}
    rated["expect.total"] = Decimal(cycle["amount_rounded"])
    amounts = {place: Decimal(found.split()[0]) for place, found in priced.items() if place.startswith("expect")}
    assert {place: amount for place, amount in amounts.items() if amount} == {p: a for p, a in rated.items() if a}
    for bucket in [each for each in result["buckets"] if each["from"] == "2001-01-01T00:00:00Z" and each["measure"]]:
        found = priced[f"buckets.{bucket['name']}"]
        assert quantity_of(found, Measure(bucket["measure"]).kind) == Decimal(bucket["used"])
