"""`why`: decisions from PostgreSQL and from the node's own stream, told with their checks."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from make import Said, make_replica

from sms_aaa.cli.exits import Exit
from sms_aaa.db.engine import connect
from sms_aaa.db.subscribers import find_by_name
from sms_aaa.node.records import DecisionBatch, DecisionRecord
from sms_aaa.radius.credentials import Method
from sms_aaa.rules.reasons import Reason

SAW = "020000000007; bound to 020000000008"
NOW_NS = int(datetime.now(UTC).timestamp()) * 10**9
AWAY = {"SMS_AAA_DATABASE_DSN": "host=127.0.0.1 port=1"}


def decided(reason: Reason, *, username: bytes = b"alice", age: int = 0, **values: object) -> DecisionBatch:
    known = {"service_id": 1, "plan_version_id": 1, "calling_station_id": b"02-00-00-00-00-07", "method": Method.PAP}
    known |= {"nas_id": 1, "sessions_seen": 0, "nas_port": b"ge-0/0/1"} | values
    record = DecisionRecord(
        reason_code=reason.code,
        username=username,
        token=b"",
        sessions_max=1,
        **known,
    )
    return DecisionBatch(NOW_NS - age * 10**9, 0, [record])


def stranger(**values: object) -> DecisionBatch:
    return decided(Reason.UNKNOWN_USER, username=b"eve", service_id=0, plan_version_id=0, **values)


def test_a_refusal_is_told_with_its_checks_in_order_and_the_next_command(stocked, node):
    node.decide(decided(Reason.SUSPENDED), settle=True)
    assert stocked.type("why", "alice").lines == [
        "",
        "TIME  suspended  alice from 02-00-00-00-00-07 on bng1 port ge-0/0/1",
        "check        verdict      saw",
        "limits       passed",
        "realm        passed       none",
        "method       passed       pap",
        "identity     passed       alice",
        "credential   passed",
        "state        failed       suspended",
        "plan         not reached",
        "place        not reached",
        "device       not reached",
        "concurrency  not reached",
        "",
        "next: sms-aaa subscriber restore alice",
    ]


@pytest.mark.parametrize(
    ("reason", "following"),
    [
        (Reason.ACCEPTED, "sms-aaa sessions alice"),
        (Reason.BAD_PASSWORD, "sms-aaa credential set alice"),
        (Reason.NO_CREDENTIAL, "sms-aaa credential set alice"),
        (Reason.UNSUPPORTED_METHOD, "sms-aaa nas show bng1"),
        (Reason.UNKNOWN_USER, "sms-aaa subscriber add alice --plan PLAN"),
        (Reason.NO_PLAN, "sms-aaa subscriber show alice"),
        (Reason.CONCURRENT_LIMIT, "sms-aaa sessions alice"),
        (Reason.REALM_UNKNOWN, "sms-aaa realm add REALM"),
        (Reason.BLOCKED, "sms-aaa subscriber unblock alice"),
        (Reason.NOT_YET_ACTIVE, "sms-aaa subscriber set alice --valid-from none"),
        (Reason.EXPIRED, "sms-aaa subscriber set alice --valid-until none"),
        (Reason.NAS_NOT_ALLOWED, "sms-aaa subscriber bind alice --nas bng1"),
        (Reason.PORT_MISMATCH, "sms-aaa subscriber bind alice --port ge-0/0/1"),
        (Reason.MAC_NOT_BOUND, "sms-aaa subscriber bind alice --mac 02-00-00-00-00-07"),
        (Reason.BACKEND_UNAVAILABLE, "sms-aaa status"),
    ],
)
def test_every_reason_has_a_next_command(stocked, node, reason, following):
    node.decide(decided(reason), settle=True)
    assert stocked.type("why", "alice", "--json").json()["next"] == following


@pytest.mark.parametrize("reason", list(Reason))
def test_no_reason_is_without_a_next_command(stocked, node, reason):
    node.decide(decided(reason), settle=False)
    assert stocked.type("why", "alice", "--json").json()["next"].startswith("sms-aaa ")


def test_what_is_to_be_typed_next_is_safe_to_type_whatever_a_nas_sent(stocked, node):
    sent = decided(Reason.PORT_MISMATCH, nas_port=b"$(reboot)")
    node.decide(sent, settle=True)
    following = stocked.type("why", "alice", "--json").json()["next"]
    assert following == "sms-aaa subscriber bind alice --port '$(reboot)'"


def test_what_a_check_saw_is_told_and_the_reason_of_a_state_is_the_one_of_its_time(stocked, node):
    node.decide(decided(Reason.MAC_NOT_BOUND, saw=SAW.encode()), settle=True)
    [check] = [one for one in checks(stocked, "alice") if one["verdict"] == "failed"]
    assert check == {"check": "device", "verdict": "failed", "saw": f"mac-not-bound: {SAW}"}
    stocked.done("subscriber", "suspend", "alice", "--reason", "unpaid")
    with connect(stocked.environ["SMS_AAA_DATABASE_DSN"], name="test") as connection:
        [[now_ns]] = connection.execute("select (extract(epoch from clock_timestamp()) * 1e9)::bigint").fetchall()
    stocked.done("subscriber", "restore", "alice")
    stocked.done("subscriber", "suspend", "alice", "--reason", "moved away")
    node.decide(DecisionBatch(now_ns, 0, decided(Reason.SUSPENDED).decisions), settle=True)
    assert [one["saw"] for one in checks(stocked, "alice") if one["verdict"] == "failed"] == ["suspended: unpaid"]


def checks(terminal, name: str) -> list[dict[str, str]]:
    return terminal.type("why", name, "--json").json()["decisions"][0]["checks"]


@pytest.mark.parametrize("asked", ["alice", "alice@isp-a", "ISP-A\\alice"])
@pytest.mark.parametrize("settle", [True, False])
def test_a_service_is_found_by_any_spelling_of_its_realm(stocked, node, asked, settle):
    stocked.done("realm", "add", "isp-a", "--strip")
    sent = [b"alice", b"alice@isp-a", b"alice@ISP-A", b"ISP-A\\alice"]
    for age, username in enumerate(sent):
        node.decide(decided(Reason.BAD_PASSWORD, username=username, age=age), settle=settle)
    told = stocked.type("why", asked, "--json", "--last", "9").json()
    assert told["next"] == "sms-aaa credential set alice"
    assert [decision["username"].encode() for decision in told["decisions"]] == sent
    realms = [check["saw"] for one in told["decisions"] for check in one["checks"] if check["check"] == "realm"]
    assert realms == ["none", "isp-a", "isp-a", "isp-a"]


def test_of_a_name_that_was_removed_it_is_said_when(stocked, node):
    stocked.done("subscriber", "remove", "alice", "--yes")
    answer = stocked.type("why", "alice")
    assert answer.code == Exit.NOT_FOUND
    assert "(the subscriber alice was removed on 20" in answer.err
    gone = decided(Reason.UNKNOWN_USER, service_id=0, plan_version_id=0)
    node.decide(gone, settle=True)
    assert stocked.type("why", "alice").lines[-2:] == [
        "note: the subscriber alice was removed on TIME",
        "next: sms-aaa subscriber add alice --plan PLAN",
    ]
    stocked.done("subscriber", "add", "alice", "--plan", "home-100", "--password", "x")
    assert stocked.type("why", "alice", "--json").json()["hint"] is None


def test_of_a_name_without_decisions_it_is_said_when_and_where_it_was_last_heard(stocked, node):
    for session, username in (("s-1", b"wanderer"), ("s-2", b"alice")):
        said = Said(status="start", at=datetime.now(UTC), session=session, username=username)
        node.account(said, rate=False)
    for name in ("wanderer", "alice"):
        answer = stocked.type("why", name)
        assert answer.code == Exit.NOT_FOUND
        assert f"(accounting of {name} was last heard at 20" in answer.err
        assert " by bng1)" in answer.err


def test_decisions_that_are_settled_and_decisions_that_are_not_are_one_list_without_repeats(stocked, node):
    node.decide(decided(Reason.BAD_PASSWORD, age=9), settle=True)  # in both: its file is not gone yet
    node.decide(decided(Reason.ACCEPTED, age=5), stranger(age=3), settle=False)
    told = stocked.type("why", "alice", "--json", "--last", "9").json()["decisions"]
    assert [(one["decision"], one["settled"]) for one in told] == [("accepted", False), ("bad-password", True)]
    assert [row["decision"] for row in stocked.type("why", "alice", "--csv").csv()] == ["accepted", "bad-password"]
    assert len(stocked.type("why", "alice", "--last", "1", "--json").json()["decisions"]) == 1
    assert stocked.type("subscriber", "show", "alice", "--json").json()["last_decision"]["decision"] == "accepted"


def test_of_the_stream_only_what_is_not_settled_is_read(stocked, node):
    node.decide(stranger(), settle=False)
    assert stocked.type("why", "eve").code == 0
    node.mark_settled(1 << 16)
    assert stocked.type("why", "eve").code == Exit.NOT_FOUND


@pytest.mark.parametrize("name", ["cam", "001122334455", "00:11:22:33:44:55", "0011.2233.4455", "00-11-22-33-44-55"])
@pytest.mark.parametrize("settle", [True, False])
def test_a_device_is_found_in_any_notation(stocked, node, name, settle):
    by_device = {"service_id": 2, "calling_station_id": b"00-11-22-33-44-55", "method": Method.MAC}
    node.decide(decided(Reason.ACCEPTED, username=b"00-11-22-33-44-55", **by_device), settle=settle)
    told = stocked.type("why", name, "--json").json()
    assert told["next"] == "sms-aaa sessions cam"
    checks = {check["check"]: check for check in told["decisions"][0]["checks"]}
    assert checks["credential"]["saw"] == "the device itself"


def test_a_device_is_found_under_the_user_name_of_somebody(stocked, node):
    node.decide(decided(Reason.BAD_PASSWORD), settle=True)
    assert stocked.type("why", "02:00:00:00:00:07", "--json").json()["next"] == "sms-aaa credential set alice"


def test_a_subscriber_that_goes_by_another_user_name_is_found_by_either(stocked, node, database_dsn):
    stocked.done("subscriber", "add", "bob", "--plan", "home-100", "--username", "bob@example", "--password", "x")
    with connect(database_dsn, name="test") as connection:
        [row] = find_by_name(connection, "bob")
    refused = decided(Reason.BAD_PASSWORD, username=b"bob@example", service_id=row.service_id)
    node.decide(refused, settle=True)
    for name in ("bob", "bob@example"):
        assert stocked.type("why", name, "--json").json()["next"] == "sms-aaa credential set bob"


def test_a_name_of_a_stranger_is_quoted_and_escaped(stocked, node):
    node.decide(decided(Reason.UNKNOWN_USER, username=b"a b\x1b[2J", service_id=0, plan_version_id=0), settle=False)
    answer = stocked.type("why", "a b\\x1b[2J")
    assert answer.code == 0
    assert "\x1b" not in answer.out
    assert "next: sms-aaa subscriber add 'a b\\x1b[2J' --plan PLAN" in answer.out


def test_nothing_known_says_whether_the_name_is_anybodys(stocked):
    answer = stocked.type("why", "nobody")
    assert answer.code == Exit.NOT_FOUND
    assert "and no subscriber or service of that name" in answer.err
    answer = stocked.type("why", "alice")
    assert answer.code == Exit.NOT_FOUND
    assert "no NAS that we know has asked for it" in answer.err


def test_while_postgresql_is_away_the_node_answers_with_the_names_of_its_replica(stocked, node, database_dsn):
    with connect(database_dsn, name="test") as connection:
        make_replica(connection, node.folder, database_id=node.database_id).close()
    node.decide(decided(Reason.CONCURRENT_LIMIT, sessions_seen=1), settle=False)
    answer = stocked.type("why", "alice", **AWAY)
    assert answer.code == 0
    assert "this node's own decisions answer alone" in answer.err
    assert "concurrency  failed   concurrent-limit: 1 of 1" in answer.out
    assert "home-100 version 1" in answer.out
    assert " on bng1 " in answer.out
    assert stocked.type("why", "eve", **AWAY).code == Exit.UNAVAILABLE


def test_without_database_and_replica_nothing_can_be_said(lonely):
    answer = lonely.type("why", "alice", **AWAY)
    assert answer.code == Exit.UNAVAILABLE
    assert "try again with the database" in answer.err


def test_a_vault_is_not_needed_to_ask_why(stocked, node):
    node.decide(decided(Reason.ACCEPTED), settle=True)
    (node.folder / "key").unlink()
    assert stocked.type("why", "alice").code == 0
