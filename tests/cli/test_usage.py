"""`usage NAME --by` and `usage export`: when what was used, and everybody's usage as a file that is known whole."""

from __future__ import annotations

import csv
import hashlib
import importlib.util
import json
import stat
from datetime import UTC, datetime, timedelta

import pytest
from make import Said

from sms_aaa.cli.exits import Exit
from sms_aaa.db.engine import connect

KB, MB = 10**3, 10**6
NOON = datetime(2026, 3, 27, 11, 0, tzinfo=UTC)  # of Berlin; two days later its clocks are put forward
pytestmark = pytest.mark.months(NOON)


@pytest.fixture
def used(stocked, node):
    """Alice over two days with a delta across an hour and a midnight; cam once; somebody whom nobody knows."""
    night = NOON + timedelta(hours=11, minutes=50)  # 23:50 in Berlin
    node.account(
        Said(status="start", at=NOON, seconds=0),
        Said(status="interim", at=NOON + timedelta(minutes=30), seconds=1800, octets_in=MB, octets_out=10 * MB),
        Said(status="stop", at=NOON + timedelta(minutes=90), seconds=5400, octets_in=3 * MB, octets_out=30 * MB),
        Said(status="start", at=night, seconds=0, session="s-2"),
        Said(status="stop", at=night + timedelta(minutes=20), seconds=1200, octets_in=0, octets_out=9, session="s-2"),
        Said(status="start", at=NOON, seconds=0, session="s-3", username=b"001122334455"),
        Said(
            status="stop", at=NOON + timedelta(minutes=1), seconds=60, octets_in=7, octets_out=8, session="s-3",
            username=b"001122334455",
        ),
        Said(status="stop", at=NOON, seconds=60, octets_in=5, octets_out=6, session="s-4", username=b"stranger"),
        rate=False,
    )  # fmt: skip
    return stocked


SPAN = ("--from", "2026-03-27", "--to", "2026-03-29")


def test_usage_by_hour_is_told_by_the_clock_of_the_account(used):
    out = used.done("usage", "alice", "--by", "hour", "--from", "2026-03-27T12:00", "--to", "2026-03-27T14:10")
    assert out.splitlines()[1:] == [
        "account 1, 2026-03-27 12:00 +0100 to 2026-03-27 15:00 +0100, Europe/Berlin",
        "hour                    octets up  octets down      both   seconds",
        "2026-03-27 12:00 +0100    2.00 MB     20.00 MB  22.00 MB  01:00:00  ##############################",
        "2026-03-27 13:00 +0100    1.00 MB     10.00 MB  11.00 MB  00:30:00  ###############",
        "2026-03-27 14:00 +0100        0 B          0 B       0 B  00:00:00",
        "total 3.00 MB up, 30.00 MB down, 33.00 MB both, online 01:30:00",
    ]


def test_usage_by_day_and_month_shares_what_goes_over_midnight(used):
    [account] = used.type("usage", "alice", "--by", "day", *SPAN, "--json").json()
    assert [(row["day"], row["octets_down"]) for row in account["usage"]] == [
        ("2026-03-27", 30 * MB + 5),
        ("2026-03-28", 4),
    ]
    assert account["total"] == {"octets_up": 3 * MB, "octets_down": 30 * MB + 9, "octets": 33 * MB + 9, "seconds": 6600}
    [month] = used.type("usage", "alice", "--by", "month", *SPAN, "--csv").csv()
    assert (month["month"], month["octets"]) == ("2026-03", str(33 * MB + 9))
    assert "2026-03-28" in used.done("usage", "alice", "--by", "day", *SPAN)


def test_a_day_whose_clocks_are_put_forward_has_23_hours(used):
    lines = used.done("usage", "alice", "--by", "hour", "--from", "2026-03-27", "--to", "2026-03-30").splitlines()
    assert len([line for line in lines if line.startswith("2026-03-29")]) == 23
    assert not [line for line in lines if line.startswith("2026-03-29 02:")]


def test_a_span_comes_to_the_same_whichever_way_it_is_asked_for(used):
    for span in (SPAN, ("--from", "2026-03-27", "--to", "2026-03-28"), ("--from", "2026-03-28", "--to", "2026-03-29")):
        totals = [
            used.type("usage", "alice", "--by", by, *span, "--json").json()[0]["total"]
            for by in ("hour", "day", "session")
        ]
        assert totals[0] == totals[1] == totals[2]
        assert totals[0]["octets"] > 0


def test_usage_by_session_names_the_sessions(used):
    sessions = used.type("usage", "alice", "--by", "session", *SPAN, "--json").json()[0]["usage"]
    assert [(row["acct_session_id"], row["octets"], row["seconds"]) for row in sessions] == [
        ("s-1", 33 * MB, 5400),
        ("s-2", 9, 1200),
    ]
    assert "total 3.00 MB up" in used.done("usage", "alice", "--by", "session", *SPAN)
    assert "nothing was used" in used.done("usage", "alice", "--by", "session", "--from", "1h")


def test_usage_of_one_service(used):
    asked = ("--by", "session", *SPAN, "--json")
    assert len(used.type("usage", "alice", "--service", "alice", *asked).json()[0]["usage"]) == 2
    answer = used.type("usage", "alice", "--service", "bob", *asked)
    assert answer.code == Exit.NOT_FOUND
    assert "it has alice" in answer.err


def test_options_that_do_not_go_together_are_refused(used):
    for line in (
        "usage alice --from 2026-01-01",
        "usage alice --by day --cycle -1",
        "usage alice --by day --from 2026-02-01 --to 2026-01-01",
        "usage export --from 2026-02-01 --to 2026-01-01",
        "usage export --from 2026-02-01 --to 2026-03-01 --by day --nas bng1",
        "usage export --from 2026-02-01",
        "usage",
    ):
        assert used.type(*line.split()).code == Exit.INVALID, line
    assert used.type("usage", "nobody", "--by", "day").code == Exit.NOT_FOUND


EXPORT = ("usage", "export", "--from", "2026-03-27", "--to", "2026-04-01")


def test_an_export_is_whole_and_says_so(used, tmp_path):
    path = tmp_path / "march.csv"
    answer = used.type(*EXPORT, "--output", str(path))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    octets = (3 * MB + 12, 30 * MB + 23)
    assert (answer.code, answer.out) == (0, "")
    assert answer.err.splitlines() == [
        f"5 rows, {octets[0]} octets up, {octets[1]} octets down: as the database counts them",
        f"sha256 {digest}",
    ]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    rows = list(csv.DictReader(path.read_text().splitlines()))
    assert sum(int(row["octets_up"]) for row in rows) == octets[0]
    assert {row["subscriber"] for row in rows} == {"alice", "cam", ""}
    assert {row["nas"] for row in rows} == {"bng1"}


def test_exports_that_adjoin_have_every_delta_once(used):
    edge = "2026-03-27T23:00"  # in the midst of a delta
    first = used.type(*EXPORT[:2], "--from", "2026-03-27", "--to", edge).csv()
    second = used.type(*EXPORT[:2], "--from", edge, "--to", "2026-04-01").csv()
    keys = [(row["session_id"], row["seq"]) for row in [*first, *second]]
    assert len(keys) == len(set(keys)) == 5
    assert [row["acct_session_id"] for row in second] == ["s-2"]


def test_an_export_by_session_hour_and_day(used):
    sessions = used.type(*EXPORT, "--by", "session", "--nas", "bng1").csv()
    assert {(row["acct_session_id"], row["octets_down"], row["deltas"]) for row in sessions} == {
        ("s-1", str(30 * MB), "2"), ("s-2", "9", "1"), ("s-3", "8", "1"), ("s-4", "6", "1"),
    }  # fmt: skip
    hours = used.type(*EXPORT, "--by", "hour", "--subscriber", "alice").csv()
    assert {row["hour_at"] for row in hours} >= {"2026-03-27T11:00:00Z", "2026-03-27T23:00:00Z"}
    assert len(hours) == 4
    days = used.type(*EXPORT, "--by", "day", "--format", "jsonl")
    assert {(row["username"], row["day"]) for row in map(json.loads, days.out.splitlines())} == {
        ("alice", "2026-03-27"), ("alice", "2026-03-28"), ("001122334455", "2026-03-27"),
    }  # fmt: skip


def test_pseudonyms_are_stable_and_tell_nobody(used):
    once, again = (used.type(*EXPORT, "--pseudonyms").csv() for _ in range(2))
    assert {row["subscriber"] for row in once} == {row["subscriber"] for row in again}
    shown = {row["subscriber"] for row in once} | {row["username"] for row in once}
    assert not {"alice", "cam", "stranger"} & shown
    assert len({row["username"] for row in once}) == 3


def test_who_took_usage_out_is_on_record(used, database_dsn):
    used.done(*EXPORT, "--ticket", "FIN-3")
    with connect(database_dsn, name="test") as connection:
        rows = connection.execute("select ticket, after->>'by' from audit where object_kind = 'usage'").fetchall()
    assert rows == [("FIN-3", "delta")]


def test_a_file_that_cannot_be_written_leaves_nothing(used, tmp_path):
    assert used.type(*EXPORT, "--output", str(tmp_path)).code == Exit.INVALID
    assert used.type(*EXPORT, "--output", str(tmp_path / "no" / "such")).code == Exit.UNAVAILABLE


def test_parquet_is_written_where_pyarrow_is_and_else_said(used, tmp_path):
    path = tmp_path / "march.parquet"
    answer = used.type(*EXPORT, "--format", "parquet", "--output", str(path))
    if importlib.util.find_spec("pyarrow") is None:
        assert answer.code == Exit.UNAVAILABLE
        assert "pip install 'sms-aaa[parquet]'" in answer.err
        assert not list(tmp_path.glob("march*"))
        return
    assert answer.code == 0
    rows = importlib.import_module("pyarrow.parquet").read_table(path).to_pylist()
    assert sum(row["octets_down"] for row in rows) == 30 * MB + 23
    assert {row["from_at"] for row in rows} >= {NOON}
    assert f"sha256 {hashlib.sha256(path.read_bytes()).hexdigest()}" in answer.err


def test_a_session_of_70_days_is_right_per_month_per_day_and_in_total(stocked, node):
    """Over three ends of months, a change of clocks and a counter that began anew, with an interim every 30 hours."""
    began, step, resets_at = datetime(2026, 1, 25, 10, 7, tzinfo=UTC), timedelta(hours=30), 20
    said = [Said(status="start", at=began, seconds=0)]
    for count in range(1, 57):
        since = count if count < resets_at else count - resets_at + 1
        said.append(
            Said(
                status="stop" if count == 56 else "interim", at=began + count * step, seconds=count * 108_000,
                octets_in=since * 1_000_003, octets_out=since * 7_000_001,
            )
        )  # fmt: skip
    node.account(*said, rate=False)
    total = {"octets_up": 56 * 1_000_003, "octets_down": 56 * 7_000_001, "seconds": 56 * 108_000}
    total["octets"] = total["octets_up"] + total["octets_down"]
    span = ("--from", "2026-01-01", "--to", "2026-05-01", "--json")
    [months] = stocked.type("usage", "alice", "--by", "month", *span).json()
    assert [row["month"] for row in months["usage"]] == ["2026-01", "2026-02", "2026-03", "2026-04"]
    for by in ("hour", "day", "month", "session"):
        assert stocked.type("usage", "alice", "--by", by, *span).json()[0]["total"] == total, by
    march = ("--from", "2026-03-01", "--to", "2026-04-01", "--json")
    for by in ("hour", "day", "session"):
        found = stocked.type("usage", "alice", "--by", by, *march).json()[0]["total"]
        assert found == {name: months["usage"][2][name] for name in found}, by
    days = {
        row["day"]: row["octets"] for row in stocked.type("usage", "alice", "--by", "day", *span).json()[0]["usage"]
    }
    per_hour = total["octets"] / 56 / 30
    assert abs(days["2026-03-29"] - 23 * per_hour) < 2, "the clocks were put forward"
    assert abs(days["2026-02-03"] - 24 * per_hour) < 2
