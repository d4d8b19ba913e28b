"""`sms-aaa tariff rate`: the pricing door for everybody. docs/pricing-door.md is its specification."""

from __future__ import annotations

import gc
import sys
from codecs import BOM_UTF8
from contextlib import contextmanager, nullcontext
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from sms_aaa.cli.caller import Caller, pass_caller
from sms_aaa.cli.exits import Exit, Failure
from sms_aaa.cli.output import note
from sms_aaa.cli.plan_file import load_document
from sms_aaa.cli.verbs import Verb

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from sms_aaa.rules.cycle_setting import Kernel
    from sms_aaa.rules.evaluation import Account
    from sms_aaa.rules.evaluation_result import Result
    from sms_aaa.rules.tariff import Tariff
    from sms_aaa.rules.usage_lines import Line

DEFAULT_CURRENCY = "EUR"
LINE_OCTETS_MAX = 1_000_000
_FILE = click.Path(exists=True, dir_okay=False, readable=True, path_type=Path)


@click.command(cls=Verb)
@click.option("--tariff", "tariff_file", type=_FILE, required=True, help="A plan file: TOML, or .json.")
@click.option(
    "--usage",
    "usage_file",
    type=click.Path(exists=True, dir_okay=False, readable=True, allow_dash=True, path_type=Path),
    required=True,
    help="JSON Lines in arrival order; - for standard input.",
)
@click.option("--account", "account_file", type=_FILE, help="Zone, anchor day, money, buckets and more.")
@click.option("--engine", type=click.Choice(["python", "sql"]), default="python", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.option("--summary", is_flag=True, help="Without what each slice came to.")
@pass_caller
def rate(
    caller: Caller,
    tariff_file: Path,
    usage_file: Path,
    account_file: Path | None,
    engine: str,
    as_json: bool,
    summary: bool,
) -> None:
    """Price a file of usage by a tariff, by the daemon's own rules: without daemon, settings, network or clock.

    docs/pricing-door.md tells the formats. Exit code 2 names file, line, field and remedy of what is invalid.

    Example: sms-aaa tariff rate --tariff policies/metered.toml --usage usage.jsonl --json
    """
    from sms_aaa.cli.tariff_rate_tables import write_tables
    from sms_aaa.cli.tariff_rate_view import write_json

    # A million lines are millions of objects that stay to the end: looking for garbage among them would take a third.
    gc.disable()
    with _kernel(caller, engine) as kernel:
        result = _evaluate(tariff_file, usage_file, account_file, kernel, keeps_charged=not summary)
    if as_json:
        write_json(result, with_rated=not summary)
    else:
        write_tables(result, with_rated=not summary)


def _evaluate(
    tariff_file: Path, usage_file: Path, account_file: Path | None, kernel: Kernel, *, keeps_charged: bool
) -> Result:
    from sms_aaa.radius.dictionary import ATTRIBUTES
    from sms_aaa.rules.evaluation import Evaluation
    from sms_aaa.rules.usage_line_reading import LineReader, dated, first_instant
    from sms_aaa.rules.usage_lines import LineInvalidError, Subscribe, session_begins

    account_document = None if account_file is None else load_document(account_file)
    tariffs = _Tariffs(tariff_file, usage_file, account_document)
    account = _account(account_file, account_document, tariffs.main)
    names = frozenset(attribute.name for attribute in ATTRIBUTES.values())
    reader = LineReader(tariffs.main, tariffs.load, names, (given.terms.name for given in account.buckets))
    try:
        read = [line for line in _lines(usage_file, reader) if line is not None]
        reader.finish()
        first_us = first_instant(read, account.start_us)
        lines = list(dated(read, first_us))
        del read
        evaluation = Evaluation(
            account,
            tariffs.main,
            first_us=first_us,
            begins=session_begins(lines),
            is_subscribed=not any(isinstance(line, Subscribe) for line in lines),
            kernel=kernel,
            keeps_charged=keeps_charged,
            rate_kbps=tariffs.rate_kbps,
            duplicates=reader.duplicates,
        )
        for line in lines:
            evaluation.hear(line)
        return evaluation.result()
    except LineInvalidError as wrong:
        raise Failure(
            Exit.INVALID, f"{usage_file}:{wrong.line}: {wrong.field}: {wrong.reason}", wrong.remedy
        ) from wrong


@contextmanager
def _kernel(caller: Caller, engine: str) -> Iterator[Kernel]:
    """The pricing kernel; that of SQL needs the database, and says what it did not price."""
    from sms_aaa.rules.cycle_setting import charge_each

    if engine == "python":
        yield charge_each
        return
    from sms_aaa.db.bulk_scratch import open_scratch
    from sms_aaa.flows.sql_kernel import SqlKernel

    with caller.connect_anyhow() as connection, open_scratch(connection):
        kernel = SqlKernel(connection)
        yield kernel
        for reason, slices in kernel.refused.items():
            note(f"{slices} slices were priced without SQL: {reason}")


def _account(file: Path | None, document: dict[str, Any] | None, tariff: Tariff) -> Account:
    from sms_aaa.rules.account_reading import read_account
    from sms_aaa.rules.plan_table import PlanInvalidError

    try:
        return read_account(document or {}, tariff)
    except PlanInvalidError as wrong:
        raise Failure(Exit.INVALID, f"{file}: {wrong.place}: {wrong.reason}", wrong.remedy) from wrong


def _lines(file: Path, reader: Any) -> Iterator[Line | None]:
    import msgspec

    from sms_aaa.cli.plan_file import refuse_twice
    from sms_aaa.rules.usage_lines import LineInvalidError

    decoder = msgspec.json.Decoder(float_hook=Decimal)
    with _opened(file) as opened:
        number = 0
        while text := opened.readline(LINE_OCTETS_MAX + 1):
            number += 1
            if number == 1:
                text = text.removeprefix(BOM_UTF8)  # as editors of Windows write it
            if len(text) > LINE_OCTETS_MAX:
                raise LineInvalidError(number, "line", f"is longer than {LINE_OCTETS_MAX} octets", "break it up")
            if text.isspace():
                continue
            try:
                document = decoder.decode(text)
                if isinstance(document, dict) and text.count(b'":') != len(document):
                    refuse_twice(text)  # most lines are flat, and need no second look
            except (msgspec.DecodeError, ValueError, RecursionError) as fault:
                raise LineInvalidError(number, "line", f"is no JSON: {fault}", "write one object a line") from fault
            yield reader.read(number, document)


def _opened(file: Path) -> AbstractContextManager[BinaryIO]:
    return nullcontext(sys.stdin.buffer) if str(file) == "-" else file.open("rb")


class _Tariffs:
    """The tariff of the command line, and those that lines name: each file is read once."""

    def __init__(self, file: Path, usage_file: Path, account: dict[str, Any] | None) -> None:
        from sms_aaa.rules.account_reading import read_currency

        self._folder = Path() if str(usage_file) == "-" else usage_file.parent
        self._currency = read_currency(account or {}) or DEFAULT_CURRENCY
        self._by_path: dict[Path, Tariff] = {}
        self.rate_kbps = 0
        self.main = self._read(file)

    def load(self, path: str) -> Tariff:
        """A tariff by its path as a line of the usage file names it; FileNotFoundError."""
        file = self._folder / path
        if not file.is_file():
            raise FileNotFoundError(file)
        return self._read(file)

    def _read(self, file: Path) -> Tariff:
        from sms_aaa.rules.plan import read_plan
        from sms_aaa.rules.plan_table import PlanInvalidError

        known = self._by_path.get(file.resolve())
        if known is not None:
            return known
        try:
            plan, _ = read_plan(load_document(file), default_currency=self._currency, is_sold=False)
        except PlanInvalidError as wrong:
            raise Failure(Exit.INVALID, f"{file}: {wrong.place}: {wrong.reason}", wrong.remedy) from wrong
        self.rate_kbps = self.rate_kbps or max(plan.policy.rate_up_kbps, plan.policy.rate_down_kbps)
        self._by_path[file.resolve()] = plan.tariff
        return plan.tariff
