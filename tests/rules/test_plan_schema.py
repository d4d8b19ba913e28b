"""The schemas say of a file what its reader says; the documentation has every key; the samples use every one."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from schemas import violations
from tariffs import tariffs

from sms_aaa.rules.plan_keys import PLAN
from sms_aaa.rules.plan_schema import lines_schema, schema_of, table_schema
from sms_aaa.rules.plan_table import Form, Key, Section
from sms_aaa.rules.plan_writing import tables_of_tariff
from sms_aaa.rules.usage_line_keys import ACCOUNT, LINES

if TYPE_CHECKING:
    from sms_aaa.rules.tariff import Tariff

ROOT = Path(__file__).parents[2]
SAMPLES = sorted((ROOT / "policies").glob("*.toml"))
CASES = sorted((ROOT / "tests" / "golden" / "cases").glob("*.toml"))
DOCUMENTED = (ROOT / "docs" / "tariffs.md").read_text(encoding="utf-8")
DOOR = (ROOT / "docs" / "pricing-door.md").read_text(encoding="utf-8")
SCHEMA = schema_of(PLAN, "a plan")
LINE = lines_schema(LINES, "usage", "a line")


def sections(section: Section) -> list[Section]:
    inner = [key.section for key in section.keys if key.section is not None]
    return [section, *(found for each in inner for found in sections(each))]


def used_keys(section: Section, value: Any) -> set[tuple[str, str]]:
    if isinstance(value, list):
        return {found for each in value for found in used_keys(section, each)}
    found = {(section.title, name) for name in value}
    for key in section.keys:
        if key.section is not None and key.name in value:
            found |= used_keys(key.section, value[key.name])
    return found


def described(key: Key) -> str:
    """A key's row in the documentation."""
    form = key.form.words
    if key.form in {Form.CHOICE, Form.CHOICES}:
        form = f"{form} {', '.join(f'`{choice}`' for choice in key.choices)}"
    if key.form is Form.COUNT:
        form = f"{form}, {key.bounds[0]} to {key.bounds[1]}"
    default = "**obligatory**" if key.is_obligatory else key.absent or f"`{json.dumps(key.default).strip(chr(34))}`"
    return f"| `{key.name}` | {form} | {default} | `{key.sample}` | {key.says} |"


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_a_sample_keeps_the_schema(path: Path) -> None:
    assert violations(SCHEMA, tomllib.loads(path.read_text(encoding="utf-8"))) == []


@settings(max_examples=30, deadline=None)
@given(tariffs())
def test_whatever_a_tariff_is_written_as_keeps_the_schema(tariff: Tariff) -> None:
    assert violations(SCHEMA, json.loads(json.dumps({"tariff": tables_of_tariff(tariff)}))) == []


@pytest.mark.parametrize(
    ("tariff", "fault"),
    [
        ({"usages": []}, ".tariff.usages is unknown"),
        ({"switch": "middle"}, ".tariff.switch: "),
        ({"usage": [{"name": "a", "measure": "total"}]}, ".tariff.usage[0]: ['name', 'measure', 'per']"),
        ({"one_time": [{"name": "a", "amount": "1,00"}]}, ".tariff.one_time[0].amount: "),
        ({"one_time": [{"name": "a", "amount": -1}]}, ".tariff.one_time[0].amount: 0"),
        ({"one_time": [{"name": "A", "amount": 1}]}, ".tariff.one_time[0].name: "),
        ({"holidays": []}, ".tariff.holidays: few"),
    ],
)
def test_the_schema_finds_what_the_reader_refuses(tariff: dict[str, Any], fault: str) -> None:
    [found] = violations(SCHEMA, {"tariff": tariff})
    assert found.startswith(fault)


@pytest.mark.parametrize("section", sections(PLAN), ids=lambda section: section.title)
def test_the_documentation_has_every_key_as_it_is(section: Section) -> None:
    assert [key.name for key in section.keys if described(key) not in DOCUMENTED] == []
    properties: Any = table_schema(section)["properties"]
    for key in section.keys:
        if not key.sample.startswith(("[[", "[policy", "[tariff")):
            value = tomllib.loads(f"sample = {key.sample}")["sample"]
            assert (key.name, violations(properties[key.name], value)) == (key.name, [])


def test_the_samples_use_every_key_between_them() -> None:
    used = set[tuple[str, str]]()
    for path in SAMPLES:
        used |= used_keys(PLAN, tomllib.loads(path.read_text(encoding="utf-8")))
    assert {(section.title, key.name) for section in sections(PLAN) for key in section.keys} - used == set()


def blocks(suffix: str) -> list[str]:
    """The files of a kind that the page of the pricing door shows."""
    return re.findall(rf"^`[a-z-]+\.{suffix}`[^\n]*:\n\n```[a-z]+\n(.*?)```", DOOR, re.DOTALL | re.MULTILINE)


def test_the_lines_and_accounts_that_the_pricing_door_shows_keep_their_schemas() -> None:
    lines = [json.loads(line) for block in blocks("jsonl") for line in block.splitlines()]
    assert {line.get("kind", "usage") for line in lines} >= {"usage", "packet", "close", "reserve"}
    assert [fault for line in lines for fault in violations(LINE, line)] == []
    tables = [tomllib.loads(block) for block in blocks("toml")]
    accounts = [table for table in tables if "tariff" not in table]
    assert accounts
    assert [fault for table in accounts for fault in violations(schema_of(ACCOUNT, "an account"), table)] == []


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_every_golden_case_keeps_the_schemas(path: Path) -> None:
    document = tomllib.loads(path.read_text(encoding="utf-8"))
    faults = [fault for tariff in document["tariff"].values() for fault in violations(SCHEMA, {"tariff": tariff})]
    for case in document["case"]:
        lines = [json.loads(line) for line in case["usage"].splitlines() if line]
        faults += [fault for line in lines for fault in violations(LINE, line)]
        faults += violations(schema_of(ACCOUNT, "an account"), case.get("account", {}))
    assert faults == []


@pytest.mark.parametrize(
    "line",
    [
        {"kind": "use"},
        {"octets": 1},
        {"kind": "release"},
        {"kind": "release", "session": "a", "octets_in": 1},
        {"quantity": "1", "unit": "Gb"},
        {"events": "many"},
        {"kind": "packet", "attributes": []},
        {"kind": "grant", "amount": "5 GB", "blocks": 1},
        [],
    ],
)
def test_the_schema_of_a_line_finds_what_its_reader_refuses(line: object) -> None:
    assert violations(LINE, line)


@pytest.mark.parametrize("kind", LINES)
def test_each_key_of_a_line_is_in_the_page_of_the_pricing_door_with_a_sample_that_keeps_the_schema(kind: str) -> None:
    properties: Any = table_schema(Section(kind, LINES[kind]))["properties"]
    for key in LINES[kind]:
        assert f"`{key.name}`" in DOOR
        value = tomllib.loads(f"sample = {key.sample}")["sample"] if key.form is not Form.OBJECT else {}
        assert (key.name, violations(properties[key.name], value)) == (key.name, [])
