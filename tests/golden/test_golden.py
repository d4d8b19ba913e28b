"""Prices that were worked out by hand, through `sms-aaa tariff rate`: the files in cases/ are for reading.

Every case is run as a user would run it: a tariff file, a usage file, an account file, the command's JSON. What a case
expects is a part of the output: amounts compare as numbers, lists in order, and what is not named is not looked at. In
the place of a list, components may be a table of their amounts, buckets of what is left, uncovered the sum.
"""

from __future__ import annotations

import json
import tomllib
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from schemas import violations

from sms_aaa.cli.main import main
from sms_aaa.cli.tariff_rate_schema import answer_schema
from sms_aaa.cli.tariff_rate_view import SCHEMA_VERSION

CASES = Path(__file__).parent / "cases"
CASES_MIN = 293
SQL_MIN = 150
"""So many are priced by SQL to the last slice; the rules price the others' batches for both engines."""

NAMES = {"exact": "amount_exact", "rounded": "amount_rounded", "minor": "amount_minor"}
"""The short names that cases use; all others are those of the output."""


def read_cases() -> list[Any]:
    return [
        pytest.param(document["tariff"], case, id=f"{path.stem[:2]}: {case['name']}")
        for path in sorted(CASES.glob("*.toml"))
        for document in [tomllib.loads(path.read_text(), parse_float=Decimal)]
        for case in document["case"]
    ]


ALL = read_cases()


def closed(schema: Any) -> Any:
    """The schema, with no other fields than it names."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    found = {name: closed(each) for name, each in schema.items()}
    return {**found, "additionalProperties": False} if isinstance(schema.get("properties"), dict) else found


ANSWER = closed(answer_schema(SCHEMA_VERSION))


def test_there_are_enough_cases_and_each_has_a_name_of_its_own() -> None:
    names = [case.id for case in ALL]
    assert len(names) == len(set(names)) >= CASES_MIN


def price(
    folder: Path, tariffs: dict[str, Any], case: dict[str, Any], *options: str, dsn: str | None = None
) -> tuple[dict[str, Any], str]:
    """The command's JSON, and what it says beside.

    Each tariff lies in the folder as a file of its own: a change of plan names another.
    """
    for name, tariff in tariffs.items():
        (folder / f"{name}.json").write_text(json.dumps({"tariff": tariff}, default=str))
    (folder / "usage.jsonl").write_text(case["usage"])
    (folder / "account.json").write_text(json.dumps(case.get("account", {}), default=str))
    files = {"--tariff": f"{case['tariff']}.json", "--usage": "usage.jsonl", "--account": "account.json"}
    arguments = [word for option, name in files.items() for word in (option, str(folder / name))]
    done = CliRunner(env={"SMS_AAA_DATABASE_DSN": dsn}).invoke(main, ["tariff", "rate", *arguments, "--json", *options])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout), done.stderr


def compare(expected: dict[str, Any], found: dict[str, Any]) -> None:
    """AssertionError at the first difference."""
    for key, value in expected.items():
        if isinstance(value, list):
            # What a cycle opens with is the same in every case, and is in its amounts.
            parts = [part for part in found[key] if part.get("what") != "opening"]
            assert len(parts) == len(value), (key, parts)
            for wanted, part in zip(value, parts, strict=True):
                compare(wanted, part)
        elif key == "components":
            amounts = {part["name"]: part["amount_exact"] for part in found["components"]}
            assert {name: Decimal(amounts[name]) for name in value} == {n: Decimal(a) for n, a in value.items()}, key
        elif key == "buckets":
            left = {bucket["name"]: Decimal(bucket["left"]) for bucket in found["buckets"]}
            assert {name: left[name] for name in value} == {name: Decimal(amount) for name, amount in value.items()}, (
                key
            )
        elif key == "uncovered":
            assert sum(Decimal(part["quantity"]) for part in found[key]) == value, key
        elif isinstance(value, dict):
            compare(value, found[key])
        else:
            name = NAMES.get(key, key)
            assert same(value, found[name]), (name, value, found[name])


def same(expected: object, found: object) -> bool:
    if isinstance(found, str) and isinstance(expected, str | int) and not isinstance(expected, bool):
        try:
            return Decimal(expected) == Decimal(found)
        except ArithmeticError:
            return expected == found
    return expected == found


@pytest.mark.parametrize(("tariffs", "case"), ALL)
def test_a_price_is_what_was_worked_out_by_hand(tmp_path: Path, tariffs: dict[str, Any], case: dict[str, Any]) -> None:
    found, _ = price(tmp_path, tariffs, case)
    compare(case["expect"], found)
    assert violations(ANSWER, found) == []


def test_both_engines_give_the_same_answers_to_the_letter(tmp_path: Path, database_dsn: str) -> None:
    by_sql_alone = 0
    for param in ALL:
        tariffs, case = param.values
        by_python, _ = price(tmp_path, tariffs, case)
        by_sql, notes = price(tmp_path, tariffs, case, "--engine", "sql", dsn=database_dsn)
        assert by_sql == by_python, case["name"]
        compare(case["expect"], by_sql)
        by_sql_alone += "without SQL" not in notes
    assert by_sql_alone >= SQL_MIN
