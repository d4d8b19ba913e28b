"""`sms-aaa tariff`: what plan files cost, without a daemon, a database or a clock."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from sms_aaa.cli.caller import Caller, pass_caller
from sms_aaa.cli.exits import Exit, Failure
from sms_aaa.cli.options import listing_options
from sms_aaa.cli.output import Cell, Format, document, listing
from sms_aaa.cli.plan_file import load_document
from sms_aaa.cli.tariff_rate import rate
from sms_aaa.cli.verbs import Verbs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sms_aaa.rules.plan_examples import Outcome
    from sms_aaa.rules.plan_table import PlanInvalidError


_SCHEMAS = ("tariff", "usage", "account", "answer")


@click.group(cls=Verbs)
def tariff() -> None:
    """Tariffs as files: check their examples, price usage with them, their JSON Schemas.

    Example: sms-aaa tariff check policies/home-100.toml
    """


tariff.add_command(rate)


@tariff.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, readable=True, path_type=Path))
@listing_options
@pass_caller
def check(caller: Caller, file: Path, form: Format) -> None:
    """Read the tariff in FILE, price its [[example]] cases, and compare.

    FILE is a plan, in which name and [policy] may be left out: TOML, or JSON if its name ends in .json. Exit code 2
    when an example does not come out.

    Example: sms-aaa tariff check policies/metered.toml
    """
    from sms_aaa.rules.plan import read_plan
    from sms_aaa.rules.plan_table import PlanInvalidError

    loaded = load_document(file)
    try:
        _, outcomes = read_plan(loaded, default_currency=caller.settings.rating.currency, is_sold=False)
    except PlanInvalidError as wrong:
        raise invalid(file, wrong) from wrong
    rows = [row for outcome in outcomes for row in _cells(outcome)]
    columns = ("example", "component", "expected", "priced", "holds")
    listing(columns, rows, form, empty=f"{file}: a tariff without examples")
    for outcome in outcomes:
        if (broken := outcome.broken) is not None:
            raise invalid(file, broken)


@tariff.command()
@click.argument("name", type=click.Choice(_SCHEMAS), required=False)
def schema(name: str | None) -> None:
    """Print the JSON Schema (2020-12) of a tariff file, a line of a usage file, an account file, or the answer.

    Without a name all four, in one object by these names. What a schema cannot say, such as that each octet is priced
    exactly once, `tariff check` and `tariff rate` say.

    Example: sms-aaa tariff schema usage
    """
    document({each: _schema_of(each) for each in _SCHEMAS} if name is None else _schema_of(name))


def _schema_of(name: str) -> dict[str, object]:
    from sms_aaa.rules.plan_keys import PLAN
    from sms_aaa.rules.plan_schema import lines_schema, schema_of
    from sms_aaa.rules.usage_line_keys import ACCOUNT, KIND, LINES

    if name == "usage":
        return lines_schema(LINES, str(KIND.default), "A line of usage for `sms-aaa tariff rate`")
    if name == "answer":
        from sms_aaa.cli.tariff_rate_schema import answer_schema
        from sms_aaa.cli.tariff_rate_view import SCHEMA_VERSION

        return answer_schema(SCHEMA_VERSION)
    if name == "account":
        return schema_of(ACCOUNT, "An account for `sms-aaa tariff rate`")
    return schema_of(PLAN, "A plan or tariff of sms-aaa")


def invalid(file: Path, wrong: PlanInvalidError) -> Failure:
    """What ends the command for a file that is refused."""
    return Failure(Exit.INVALID, f"{file}: {wrong.place}: {wrong.reason}", wrong.remedy)


def _cells(outcome: Outcome) -> Iterator[tuple[Cell, ...]]:
    for each in outcome.comparisons:
        yield outcome.number, each.name, each.expected, each.found, each.holds
