"""The one printer: cells as people and as programs read them."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from datetime import UTC, datetime

import pytest

from sms_aaa.cli.output import Format, Shown, listing, money, octets, seconds

ROW = ("alice", 7, octets(1_200_000_000), money(2990, "EUR"), datetime(2026, 1, 2, 3, 4, 5, 600, UTC), None, True)
COLUMNS = ("name", "count", "volume", "amount_minor", "at", "gone", "is_live")


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.00 kB"), (50 * 10**9, "50.00 GB"), (1_234_567_890, "1.23 GB"),
     (10**12 - 1, "1000.00 GB"), (10**12, "1.00 TB"), (5 * 10**15, "5000.00 TB")],
)  # fmt: skip
def test_octets_are_shown_in_decimal_units_and_kept_exactly(count, text):
    assert octets(count) == Shown(count, text)


@pytest.mark.parametrize(("count", "text"), [(0, "00:00:00"), (3661, "01:01:01"), (90_061, "1d 01:01:01")])
def test_seconds_are_shown_as_a_clock(count, text):
    assert seconds(count) == Shown(count, text)


def test_a_table_elsewhere_than_on_a_terminal_is_plain_and_cuts_nothing(capsys):
    long = "x" * 300
    listing(COLUMNS, [ROW, (long, *ROW[1:])], Format.TABLE)
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert long in out
    assert "1.20 GB" in out
    assert "29.90 EUR" in out
    assert "2026-01-02 03:04:05Z" in out


def test_numbers_stand_at_the_right(capsys):
    listing(("name", "count"), [("a", 5), ("b", 12345)], Format.TABLE)
    assert capsys.readouterr().out == "name  count\na         5\nb     12345\n"


def test_json_is_typed_and_exact(capsys):
    listing(COLUMNS, [ROW], Format.JSON)
    assert json.loads(capsys.readouterr().out) == [
        {
            "name": "alice",
            "count": 7,
            "volume": 1_200_000_000,
            "amount_minor": 2990,
            "at": "2026-01-02T03:04:05.000600Z",
            "gone": None,
            "is_live": True,
        }
    ]


def test_csv_is_exact_and_has_one_header(capsys):
    listing(COLUMNS, [ROW], Format.CSV)
    assert capsys.readouterr().out == (
        "name,count,volume,amount_minor,at,gone,is_live\n"
        "alice,7,1200000000,2990,2026-01-02T03:04:05.000600Z,,true\n"
    )  # fmt: skip


def test_an_empty_listing_says_so_to_people_and_stays_empty_for_programs(capsys):
    listing(("name",), [], Format.TABLE, empty="nobody")
    listing(("name",), [], Format.JSON)
    listing(("name",), [], Format.CSV)
    assert capsys.readouterr().out == "nobody\n[]\nname\n"


def test_what_cannot_be_printed_is_escaped(capsys):
    listing(("name",), [("a\x1b[2Jb\nc\x9bd",)], Format.TABLE)
    assert capsys.readouterr().out == "name\na\\x1b[2Jb\\nc\\x9bd\n"


def test_on_a_terminal_a_value_is_not_taken_for_markup():
    program = "from sms_aaa.cli.output import Format, listing\nlisting(('name',), [('[red]x[/red]',)], Format.TABLE)\n"
    ours, theirs = pty.openpty()
    subprocess.run([sys.executable, "-c", program], stdout=theirs, check=True, env={**os.environ, "TERM": "xterm"})
    os.close(theirs)
    assert b"[red]x[/red]" in os.read(ours, 4096)
    os.close(ours)
