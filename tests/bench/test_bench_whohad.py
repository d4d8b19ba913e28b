"""The bench of whohad works: a small year of history is filled, and whoever is asked for in it is found."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def test_a_year_of_history_is_filled_and_every_answer_about_it_is_right(database_dsn: str) -> None:
    fill = ["--dsn", database_dsn, "--sessions", "4000", "--addresses", "200", "--services", "100"]
    for words in (["fill_history.py", *fill], ["bench_whohad.py", "--dsn", database_dsn, "--count", "5"]):
        done = subprocess.run(
            [sys.executable, str(HERE / words[0]), *words[1:]], capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr
    assert "4,000 sessions on 200 addresses" in done.stdout
    assert "nobody  5 asked" in done.stdout
