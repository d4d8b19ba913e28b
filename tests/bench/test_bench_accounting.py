"""The bench of accounting works: a moment of it, and what it says of a rate that any machine carries."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

BENCH = Path(__file__).with_name("bench_accounting.py")


def test_the_bench_answers_and_carries_records_to_the_end() -> None:
    words = ["--subscribers", "100", "--rounds", "1", "--seconds", "0.3", "--warm-up", "0.1", "--no-peer"]
    done = subprocess.run(
        [sys.executable, str(BENCH), *words, "--rates", "200", "--sustain", "1", "--prove"],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "FLAWED" not in done.stdout
    assert "fdatasync" in done.stdout
    assert "\nCARRIED to the end: 200 records/s" in done.stdout, done.stdout
    assert "laws that do not hold: none" in done.stdout
