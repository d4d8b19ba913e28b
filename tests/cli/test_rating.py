"""`rating` as typed: how far it is, rating again, a changed tariff over past usage, suspense with its way out."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from make import Said

from sms_aaa.cli.exits import Exit
from sms_aaa.db.engine import connect

GB = 10**9
BEGAN = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=2)
pytestmark = pytest.mark.months(BEGAN)
USED = Said(status="interim", at=BEGAN, seconds=600, octets_in=0, octets_out=60 * GB)

PLAN_FILE = Path(__file__).parents[2] / "policies" / "home-100.toml"
CHANGED = """
name = "home-100"
[policy]
[tariff]
currency = "EUR"
[[tariff.usage]]
name = "data"
measure = "total"
included = "{included}"
price = "{price}"
per = "GB"
"""
BOUNDS = """
[[tariff.recurring]]
name = "line"
amount = "30.00"
period = "month"
[[tariff.bound]]
name = "cap"
components = ["data"]
maximum = "4.20"
[[tariff.bound]]
name = "all"
components = ["data", "line"]
maximum = "1.00"
"""


def query(node, statement: str) -> list[tuple]:
    with connect(node.dsn, name="test") as connection:
        found = connection.execute(statement)
        return found.fetchall() if found.description else []


@pytest.fixture
def used(stocked, node):
    """60 GB of alice's, of 50 included."""
    node.account(USED)
    return node


def dry_run(stocked, file, *more: str):
    at = (BEGAN - timedelta(days=40)).date().isoformat()
    to = (BEGAN + timedelta(days=2)).date().isoformat()
    return stocked.type("rating", "dry-run", str(file), "--from", at, "--to", to, *more)


def test_status_says_what_waits_and_what_was_done(stocked, used):
    told = stocked.type("rating", "status", "--json").json()
    assert (told["waiting"], told["in_suspense"], told["dirty_groups"]) == (0, 0, 0)
    assert [(run["kind"], run["deltas"]) for run in told["runs"]] == [("live", 1)]
    assert "waiting" in stocked.done("rating", "status")
    assert stocked.type("rating", "status", "--csv").csv()[0]["waiting"] == "0"


def test_rating_again_finds_nothing_and_asks_before_it_looks(stocked, used):
    assert stocked.type("rating", "rerate", "alice", typed="n\n").code != 0
    assert "no amount differs" in stocked.done("rating", "rerate", "alice", "--yes")
    told = stocked.type("rating", "rerate", "alice", "--dry-run", "--json").json()
    assert told == {"dry_run": True, "deltas": 1, "rows": 0, "moved": [], "paid": []}
    assert stocked.type("rating", "rerate", "nobody", "--dry-run").code == Exit.NOT_FOUND


def test_a_dry_re_rating_says_what_would_move_and_moves_nothing(stocked, used):
    # A bucket that somebody granted in retrospect: 4 of the 10 GB beyond what is included.
    query(
        used,
        """insert into bucket (account_id, name, kind, measure, terms, priority, from_at, granted)
           select id, 'gift', 'promotion', 'total', '{"name": "gift", "measure": "total", "amount": 54000000000}', 1,
                  now() - interval '1 year', 54000000000 from account where id = 1""",
    )
    before = query(used, "select quantity, posted_minor from usage_total")
    told = stocked.type("rating", "rerate", "alice", "--dry-run", "--json").json()
    assert [row["difference"] for row in told["moved"]] == [-before[0][1]]
    assert query(used, "select quantity, posted_minor from usage_total") == before
    stocked.done("rating", "rerate", "alice", "--yes")
    assert query(used, "select quantity, covered, posted_minor from usage_total") == [(6 * GB, 54 * GB, 0)]
    assert query(used, "select used::bigint from bucket") == [(54 * GB,)]
    assert "no amount differs" in stocked.done("rating", "rerate", "alice", "--yes")


def test_money_in_retrospect_is_said_and_paid_once(stocked, used):
    posted = query(used, "select posted_minor from usage_total")[0][0]
    began = f"{BEGAN - timedelta(hours=1):%Y-%m-%dT%H:%MZ}"
    stocked.done("bucket", "grant", "alice", "1.50", "--money", "--from", began)
    told = stocked.type("rating", "rerate", "alice", "--dry-run", "--json").json()
    assert (told["rows"], [(row["bucket_id"], row["paid"]) for row in told["paid"]]) == (0, [(1, min(150, posted))])
    assert "1.50 EUR" in stocked.done("rating", "rerate", "alice", "--yes")
    assert "1.50 EUR" not in stocked.done("rating", "rerate", "alice", "--yes")


def test_a_changed_tariff_over_past_usage_says_its_revenue_effect(stocked, used, tmp_path):
    posted = query(used, "select posted_minor from usage_total")[0][0]
    file = tmp_path / "changed.toml"
    file.write_text(CHANGED.format(included="10 GB", price="0.10"))
    told = dry_run(stocked, file, "--json").json()
    assert [(row["subscriber"], row["old"], row["new"]) for row in told["accounts"]] == [("alice", posted, 500)]
    assert (told["old"], told["new"], told["difference"]) == (posted, 500, 500 - posted)
    # By the tariff that it was rated by, it costs what it did.
    assert dry_run(stocked, PLAN_FILE, "--json").json()["difference"] == 0
    shown = dry_run(stocked, file).out
    assert "total: old" in shown
    assert "left out of old and new: fees, bounds over fees," in shown
    assert told["left_out"][:2] == ["fees", "bounds over fees"]
    assert dry_run(stocked, file, "--csv").csv()[0]["new"] == "500"
    # A bound over usage alone is looked at; one that has a fee in it is not, nor is the fee.
    file.write_text(CHANGED.format(included="10 GB", price="0.10") + BOUNDS)
    assert dry_run(stocked, file, "--json").json()["new"] == 420
    assert dry_run(stocked, file, "--plan", "nobodys").code == Exit.NOT_FOUND
    file.write_text(CHANGED.format(included="10 GB", price="-1"))
    assert dry_run(stocked, file).code == Exit.INVALID


def test_usage_in_suspense_is_listed_and_is_rated_once_it_is_mended(stocked, node):
    query(node, "create table kept as select * from subscription")
    query(node, "delete from subscription")
    node.account(USED)
    [row] = stocked.type("rating", "suspense", "list", "--json").json()
    assert (row["reason"], row["subscriber"], row["octets_down"]) == ("no-subscription", "alice", 60 * GB)
    assert "give its service a plan" in stocked.done("rating", "suspense", "list")
    still = stocked.type("rating", "suspense", "retry", "--all", "--yes", "--json")
    assert still.code == Exit.DIFFERENT
    assert still.json() == [{"reason": "no-subscription", "queued": 0, "left": 1}]
    query(node, "insert into subscription overriding system value select * from kept")
    done = stocked.type("rating", "suspense", "retry", "--reason", "no-subscription", "--yes", "--csv").csv()
    assert done == [{"reason": "no-subscription", "queued": "1", "left": "0"}]
    node.rate(BEGAN)
    assert query(node, "select quantity from usage_total where quantity > 0") == [(60 * GB,)]
    assert stocked.done("rating", "suspense", "list") == "nothing is in suspense\n"
