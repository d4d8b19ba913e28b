"""The sample plans are the documentation of their format, so each is read, and each has examples that hold."""

from __future__ import annotations

import tomllib
from decimal import Decimal
from pathlib import Path

import pytest

from sms_aaa.rules.plan import parse_plan, plan_from_document, plan_to_document
from sms_aaa.rules.plan_table import PlanInvalidError

SAMPLES = sorted((Path(__file__).parents[2] / "policies").glob("*.toml"))


def test_the_samples_are_where_we_look() -> None:
    assert {path.stem for path in SAMPLES} >= {"home-100", "business-1g", "metered"}


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_a_sample_is_a_plan_and_keeps_its_examples(path: Path) -> None:
    document = tomllib.loads(path.read_text(encoding="utf-8"), parse_float=Decimal)
    plan = parse_plan(document, default_currency="EUR")
    assert plan.name == path.stem
    assert plan.description
    assert plan_from_document(plan_to_document(plan)) == plan
    # The examples were priced above; this shows that they would have been noticed.
    assert document["example"]
    for example in document["example"]:
        broken = {**example, "expect": {**example["expect"], "total": "123456.78"}}
        with pytest.raises(PlanInvalidError, match="the tariff makes it"):
            parse_plan({**document, "example": [broken]}, default_currency="EUR")
