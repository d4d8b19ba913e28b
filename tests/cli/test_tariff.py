"""Tariffs as files: transcripts of `sms-aaa tariff`."""

from __future__ import annotations

from pathlib import Path

import pytest

from sms_aaa.cli.exits import Exit

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


def test_the_schema_of_a_tariff_is_json_schema(lonely):
    schema = lonely.type("tariff", "schema").json()
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["required"] == ["tariff"]
    assert lonely.type("tariff", "schema", "tariff").json() == schema
    kinds = [line["properties"]["kind"]["const"] for line in lonely.type("tariff", "schema", "usage").json()["oneOf"]]
    assert kinds[:3] == ["usage", "packet", "grant"]
    assert "anchor" in lonely.type("tariff", "schema", "account").json()["properties"]
    assert lonely.type("tariff", "schema", "invoice").code == Exit.INVALID
