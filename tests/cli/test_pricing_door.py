"""`sms-aaa tariff rate`: the worked examples of docs/pricing-door.md are run as they stand there."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from sms_aaa.cli.main import main

ROOT = Path(__file__).parents[2]
FILE = re.compile(r"`([a-z-]+\.(?:toml|jsonl))`[:,][^`]*?(?:`[^`]*`[^`]*?)?\n\n```[a-z]+\n(.*?)```", re.DOTALL)
PAGE = (ROOT / "docs" / "pricing-door.md").read_text()


def rate(folder: Path, *args: str, code: int = 0) -> str:
    """The answer to a command in a folder, as whoever types it there sees it."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        done = CliRunner().invoke(main, ["tariff", "rate", *args])
    finally:
        os.chdir(before)
    assert done.exit_code == code, done.output
    return done.stdout if code == 0 else done.stderr


def write_files(folder: Path, text: str) -> None:
    """Each file that a page shows: its name in backquotes with a colon, or before `, with`, and then its block."""
    for name, block in FILE.findall(text):
        (folder / name).write_text(block)


def examples() -> list[tuple[str, str]]:
    return re.findall(r"`sms-aaa (tariff rate [^`]*)`:\n\n```json\n(.*?)```", PAGE, re.DOTALL)


def is_within(shown: object, found: object, place: str = "") -> None:
    """What is shown is there: each field of an object, and each item of a list in its place."""
    if isinstance(shown, dict):
        assert isinstance(found, dict), place
        for name, value in shown.items():
            assert name in found, f"{place}.{name}"
            is_within(value, found[name], f"{place}.{name}")
    elif isinstance(shown, list):
        assert isinstance(found, list), place
        assert len(shown) == len(found), (place, found)
        for number, (one, other) in enumerate(zip(shown, found, strict=True)):
            is_within(one, other, f"{place}[{number}]")
    else:
        assert shown == found, (place, found)


@pytest.mark.parametrize(("command", "answer"), examples())
def test_the_examples_of_the_page(tmp_path: Path, command: str, answer: str) -> None:
    write_files(tmp_path, PAGE)
    is_within(json.loads(answer), json.loads(rate(tmp_path, *shlex.split(command)[2:])))


TARIFF = """
[tariff]
currency = "EUR"
[[tariff.usage]]
name = "time"
measure = "seconds"
per = "min"
price = "1.00"
"""


def priced(folder: Path, lines: list[object], *args: str, code: int = 0) -> str:
    """The answer for lines, by one price of time and whatever else the arguments say."""
    (folder / "t.toml").write_text(TARIFF)
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    (folder / "u.jsonl").write_text(text + "\n")
    return rate(folder, "--tariff", "t.toml", "--usage", "u.jsonl", *args, code=code)


def test_an_amount_without_a_finite_decimal_has_its_fraction_beside_it(tmp_path: Path) -> None:
    answer = json.loads(priced(tmp_path, [{"seconds": 20}], "--json"))
    assert answer["amount_exact"] == "0.333333333333333333"
    assert answer["amount_exact_fraction"] == "1/3"
    assert answer["amount_minor"] is None
    closed = json.loads(priced(tmp_path, [{"seconds": 20}, {"kind": "close"}], "--json"))
    assert (closed["amount_exact_fraction"], closed["amount_rounded"], closed["amount_minor"]) == ("1/3", "0.33", 33)


def test_a_person_reads_a_table(tmp_path: Path) -> None:
    shown = priced(tmp_path, [{"session": "a", "seconds": 90, "octets_out": 5_000_000}])
    rows = [line.split() for line in shown.splitlines()]
    assert ["time", "usage", "90", "0", "0", "90", "1.50", "EUR", "1.50", "EUR"] in rows
    assert ["unmetered", "usage", "5.00", "MB", "0", "B", "0", "B", "5.00", "MB", "0.00", "EUR", "0.00", "EUR"] in rows
    assert "total    1.50 EUR" in shown


def test_a_summary_leaves_the_slices_out(tmp_path: Path) -> None:
    whole, summary = (json.loads(priced(tmp_path, [{"seconds": 90}], "--json", *more)) for more in ((), ("--summary",)))
    assert whole.pop("rated")
    assert whole == summary


def test_what_is_held_is_nobody_elses(tmp_path: Path) -> None:
    """5 of 10 s are held, beside 4 that the same session used before; so another one finds 1."""
    lines = [
        {"kind": "grant", "at": "2026-01-01T00:00:00Z", "name": "card", "quantity": 10, "unit": "s"},
        {"session": "a", "from": "2026-01-01T01:00:00Z", "seconds": 4},
        {"kind": "reserve", "session": "a", "seconds": 5},
        {"session": "b", "from": "2026-01-01T01:10:00Z", "seconds": 6},
        {"kind": "settle", "session": "a", "from": "2026-01-01T02:00:00Z", "seconds": 5},
    ]
    for count, used, held in ((4, 5, 5), (5, 10, 0)):
        answer = json.loads(priced(tmp_path, lines[:count], "--json"))
        assert [(row["used"], row["reserved"]) for row in answer["buckets"]] == [(str(used), str(held))]
        covered = {row["line"]: row["quantity"] for row in answer["rated"] if row["what"] == "bucket"}
        assert covered == {2: "4", 4: "1", **({5: "5"} if count == 5 else {})}


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([{"seconds": 1}, "{"], "u.jsonl:2: line: is no JSON: Input data was truncated; write one object a line"),
        (["[]"], "u.jsonl:1: line: is no JSON object; write one object a line"),
        ([{"kind": "usages"}], "u.jsonl:1: kind: is 'usages'; write one of usage, packet,"),
        ([{"octets": 5}], "u.jsonl:1: octets: is no field of usage; known are at, events, from,"),
        ([{}], "u.jsonl:1: quantity: is missing, and every other quantity too; write what was used"),
        ([{"octets_in": 0.5}], "u.jsonl:1: octets_in: is 0.5, not a whole number; write whole octets"),
        ([{"seconds": -1}], "u.jsonl:1: seconds: is -1, out of bounds; write 0 to"),
        ([{"quantity": "0.0000000001", "unit": "GB"}], "u.jsonl:1: quantity: is 0.0000000001 GB, not a whole number;"),
        ([{"quantity": 1, "unit": "Gb"}], "u.jsonl:1: unit: 'Gb' is not one of the units octet, kB,"),
        ([{"seconds": 1, "from": "2026-01-01"}], "u.jsonl:1: from: is '2026-01-01', no instant of RFC 3339; write an"),
        ([{"seconds": 1, "from": "2026-02-30T00:00:00Z"}], "u.jsonl:1: from: is '2026-02-30T00:00:00Z': day is out of"),
        ([{"from": "2026-01-02T00:00:00Z", "to": "2026-01-01T00:00:00Z"}], "u.jsonl:1: to: lies before from; write"),
        ([{"seconds": 1, "key": "gold"}], "u.jsonl:1: key: is 'gold', which no tariff here has; write one of default"),
        ([{"kind": "change", "tariff": "none.toml"}], "u.jsonl:1: tariff: is 'none.toml', which is not there; name a"),
        ([{"seconds": 1, "at": "2026-01-05T00:00:00Z", "to": "2026-01-05T00:00:00Z"}],
         "u.jsonl:1: at: stands beside to; write either at"),
        ([{"seconds": 1, "from": "9999-01-01T00:00:00Z"}], "u.jsonl:1: from: is 9999-01-01T00:00:00Z, out of bounds"),
        ([{"octets_in": 2**62, "octets_out": 2**62}], "u.jsonl:1: line: makes more usage in all than can be counted"),
        (['{"seconds": 1, "seconds": 2}'], "u.jsonl:1: line: is no JSON: 'seconds' stands twice in one object"),
        ([{"kind": "reset", "bucket": "gold"}], "u.jsonl:1: bucket: is 'gold', which nothing here has; there are no"),
        ([{"kind": "subscribe"}, {"kind": "subscribe"}], "u.jsonl:2: kind: a subscription runs already; write change"),
        ([{"kind": "packet", "attributes": {"Acct-Octets": 1}}], "u.jsonl:1: attributes.Acct-Octets: is no attribute"),
        ([{"kind": "grant", "amount": "5 GB"}], "u.jsonl:1: measure: is missing"),
        ([{"kind": "grant", "quantity": 5, "unit": "h", "shares": 1}], "u.jsonl:1: shares: is no field of grant"),
        ([{"seconds": 1, "from": "2026-01-05T00:00:00Z"}, {"kind": "close", "at": "2026-01-09T00:00:00Z"}],
         "u.jsonl:2: at: lies before the end of the first cycle; write 2026-02-01T00:00:00Z"),
    ],
)  # fmt: skip
def test_what_is_invalid_is_named_with_its_place_and_remedy(tmp_path: Path, lines: list[object], said: str) -> None:
    shown = priced(tmp_path, lines, "--json", code=2)
    assert said in shown
    assert shown.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('zone = "Berlin"', "a.toml: zone: is 'Berlin', no zone of the tz database"),
        ("anchor = 32", "a.toml: anchor: is not a whole number in bounds; write a number from 1 to 31"),
        ("anker = 3", "a.toml: anker: is not a key of this table; known are name, zone,"),
        ('[totals]\ntimes = "3 s"', "a.toml: totals.times: is no component of the tariff; it has time, unmetered"),
        ('[[bucket]]\nmeasure = "seconds"', "a.toml: bucket[0].amount: is missing"),
    ],
)
def test_an_account_file_is_read_strictly(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "a.toml").write_text(text + "\n")
    assert said in priced(tmp_path, [{"seconds": 1}], "--account", "a.toml", code=2)


def test_it_needs_nothing_but_its_files(tmp_path: Path) -> None:
    """An empty environment, and no module that speaks to a database or a network is even loaded."""
    write_files(tmp_path, PAGE)
    program = (
        "import sys\n"
        "from sms_aaa.cli.main import main\n"
        "main(['tariff', 'rate', '--tariff', 'tiers.toml', '--usage', '-', '--json'], standalone_mode=False)\n"
        "assert not {'psycopg', 'sqlalchemy', 'lmdb', 'socket', 'asyncio'} & set(sys.modules), sys.modules.keys()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={},
        input=(tmp_path / "tiers-closed.jsonl").read_bytes(),
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    assert json.loads(done.stdout)["amount_minor"] == 1103


def test_there_are_examples() -> None:
    assert len(examples()) >= 5
