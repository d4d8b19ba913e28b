"""`sms-aaa tariff rate`: the worked examples of docs/pricing-door.md are run as they stand there."""

from __future__ import annotations

import json
import os
import re
import shlex
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


def test_there_are_examples() -> None:
    assert len(examples()) >= 5
