"""The bench itself works: a moment of it, with the generator in C where it can be built, and with the Python one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).with_name("bench_access.py")


@pytest.mark.parametrize(("methods", "generator"), [("pap,chap,mschap2,acct", []), ("mschap2,acct", ["--python"])])
def test_the_bench_measures_every_method_and_finds_nothing_but_acceptance(methods: str, generator: list[str]) -> None:
    words = ["--subscribers", "300", "--rounds", "1", "--seconds", "0.3", "--warm-up", "0.1", "--no-peer", *generator]
    done = subprocess.run(
        [sys.executable, str(BENCH), *words, "--methods", methods],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "FLAWED" not in done.stdout
    assert "lost 0" in done.stdout
    *_, row = (line for line in done.stdout.splitlines() if line.startswith("sms-aaa  "))
    assert all(int(cell.replace(",", "")) > 100 for cell in row.split()[1:]), done.stdout
