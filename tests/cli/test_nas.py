"""What `nas` says of secrets, evidence and drops, and `rejects` of refusals: transcripts."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from make import SECRET

from sms_aaa.cli.exits import Exit
from sms_aaa.db.audit import list_changes
from sms_aaa.db.engine import connect
from sms_aaa.db.evidence import EvidenceRow, fold_runs, mark_signing, upsert_evidence
from sms_aaa.db.nas import find_nas, list_node_nas
from sms_aaa.flows.observing import store_drops
from sms_aaa.flows.vault import Vault
from sms_aaa.node.drops import Drop, DropWindow, list_windows, write_window
from sms_aaa.node.key import read_or_create_key
from sms_aaa.node.records import DecisionBatch, DecisionRecord
from sms_aaa.radius.credentials import Method
from sms_aaa.rules.reasons import Reason

STRONG = "a shared secret 4 the tests"
T0 = datetime(2026, 1, 31, 12, tzinfo=UTC)


def dsn_of(terminal) -> str:
    return terminal.environ["SMS_AAA_DATABASE_DSN"]


def see(terminal, name: str = "bng1", *, node: str = "node1", run: int = 7, **counts: object) -> None:
    """As the recorder of a node stores what its workers counted."""
    with connect(dsn_of(terminal), name="test") as connection:
        row = find_nas(connection, name)
        assert row is not None
        nothing = {"last_unsigned_at": None, "last_unsigned_port": None, "last_old_at": None, "last_new_at": None}
        nothing |= {"signed": 0, "unsigned": 0, "old_secret": 0, "new_secret": 0}
        same = {"nas_id": row.id, "node": node, "run": run, "secret_id": row.secret_id}
        of = {"observed_from": int(row.observed_from.timestamp())}
        upsert_evidence(connection, [EvidenceRow(**{**same, **of, **nothing, **counts})])


def secrets_of(terminal, name: str = "bng1") -> list[str]:
    """As the nodes get them, the newest first."""
    with connect(dsn_of(terminal), name="test") as connection:
        [nas] = [nas for nas in list_node_nas(connection, None) if nas.name == name]
    key = read_or_create_key(Path(terminal.environ["SMS_AAA_NODE_STATE_FOLDER"]) / "key", fresh=bytes(32))
    assert isinstance(key, bytes)
    opened = [Vault(key).open_nas_secret(sealed, nas.nas_id) for sealed in nas.secrets]
    return [secret.reveal().decode() for secret in opened if secret is not None]


def line(terminal, field: str, name: str = "bng1") -> str:
    """One line of `nas show`, without its title and with instants blotted out."""
    [found] = [one for one in terminal.type("nas", "show", name).lines if one.startswith(f"{field}  ")]
    return found.removeprefix(field).strip()


@pytest.mark.parametrize(
    ("secret", "strength", "said"),
    [
        ("short enough", "short", "is weak: it has fewer than 16 octets"),
        ("onlylowercaseletters", "uniform", "is weak: it has one kind of character alone"),
        ("testing123", "guessable", "is weak: it is among the first that anybody tries"),
        (STRONG, "strong", None),
    ],
)
def test_a_weak_secret_is_warned_of_and_listed(terminal, secret, strength, said):
    answer = terminal.type("nas", "add", "lab", "127.0.0.1", "--secret-stdin", typed=secret)
    assert (answer.code, answer.out) == (0, "NAS lab added\n")
    assert (said is None and not answer.err) or said in answer.err
    assert terminal.type("nas", "list", "--json").json()[0]["secret_strength"] == strength
    with connect(dsn_of(terminal), name="test") as connection:
        [node_nas] = list_node_nas(connection, None)
    assert node_nas.is_weak is (strength != "strong")


@pytest.mark.parametrize(
    "secret", ["testing123", "Cisco2024!", "m1krotik", "RADIUS-secret", "aaaaaaaaaaaaaaaaaaaa", "12345678"]
)
def test_what_anybody_would_guess_is_refused_outside_loopback(terminal, secret):
    add = ("nas", "add", "bng1", "192.0.2.1", "--secret-stdin")
    answer = terminal.type(*add, typed=secret)
    if secret == "RADIUS-secret":
        assert answer.code == 0, "a word beside another one is short, and no more than that"
        return
    assert answer.code == Exit.INVALID
    assert "give --generate, or --allow-weak" in answer.err
    assert terminal.type(*add, "--allow-weak", typed=secret).code == 0
    assert terminal.type("nas", "set", "bng1", "--coa-port", "1700").code == Exit.INVALID
    assert terminal.type("nas", "set", "bng1", "--coa-port", "1700", "--allow-weak").code == 0


def test_a_loopback_nas_with_a_guessable_secret_cannot_move_out(terminal):
    terminal.done("nas", "add", "lab", "127.0.0.1", "--secret", "testing123")
    assert terminal.type("nas", "set", "lab", "--address", "192.0.2.1").code == Exit.INVALID


def test_a_secret_is_rotated_and_the_old_one_retired_when_nothing_uses_it(terminal):
    terminal.done("nas", "add", "bng1", "192.0.2.1", "--secret-stdin", typed=STRONG)
    assert line(terminal, "rotation") == "none under way"
    begun = terminal.done("nas", "rotate-secret", "bng1", "--generate", "--ticket", "CHG-1")
    found = re.fullmatch(
        r"NAS bng1 has two valid secrets now\nsecret: ([0-9a-f]{32})\n"
        r"next: put it into bng1, then `sms-aaa nas show bng1`\n",
        begun,
    )
    assert found
    assert secrets_of(terminal) == [found[1], STRONG]
    assert line(terminal, "rotation") == "no packet since TIME proved a secret"

    refused = terminal.type("nas", "rotate-secret", "bng1", "--finish")
    assert (refused.code, refused.out) == (Exit.CONFLICT, "")
    assert "0 of 0 packets used the new secret" in refused.err
    now = datetime.now(UTC)
    see(terminal, old_secret=3, new_secret=40, last_old_at=now, last_new_at=now)
    see(terminal, node="node2", new_secret=2, last_new_at=now)
    assert line(terminal, "rotation").startswith(
        "42 of 45 packets since TIME used the new secret, the old one was used"
    )
    refused = terminal.type("nas", "rotate-secret", "bng1", "--finish")
    assert "42 of 45 packets used the new secret, the last under the old came at" in refused.err
    assert secrets_of(terminal) == [found[1], STRONG]

    see(terminal, old_secret=3, new_secret=99, last_old_at=now - timedelta(hours=1), last_new_at=now)
    assert line(terminal, "rotation") == "101 of 104 packets since TIME used the new secret: safe to finish"
    finished = terminal.done("nas", "rotate-secret", "bng1", "--finish")
    assert finished.startswith("NAS bng1 has the new secret alone now; 101 of 104 packets")
    assert secrets_of(terminal) == [found[1]]
    assert STRONG not in "".join(terminal.transcript)
    with connect(dsn_of(terminal), name="test") as connection:
        row = find_nas(connection, "bng1")
        assert row is not None
        changes = list_changes(connection, "nas", row.id)
    assert [change.action for change in changes] == ["added", "rotation-begun", "rotation-finished"]
    assert changes[1].ticket == "CHG-1"


def test_a_rotation_is_given_up(terminal):
    terminal.done("nas", "add", "bng1", "192.0.2.1", "--secret-stdin", typed=STRONG)
    terminal.done("nas", "rotate-secret", "bng1", "--secret-stdin", typed=STRONG[::-1])
    see(terminal, new_secret=1, last_new_at=datetime.now(UTC))
    refused = terminal.type("nas", "rotate-secret", "bng1", "--cancel")
    assert refused.code == Exit.CONFLICT
    assert "1 packets used the new secret" in refused.err
    assert terminal.done("nas", "rotate-secret", "bng1", "--cancel", "--force").startswith(
        "NAS bng1 has the old secret"
    )
    assert secrets_of(terminal) == [STRONG]
    terminal.done("nas", "rotate-secret", "bng1", "--generate")
    assert line(terminal, "rotation") == "no packet since TIME proved a secret", "another rotation, other counts"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["bng1", "--finish"], Exit.CONFLICT, "bng1 has one secret: no rotation is under way"),
        (["bng1", "--cancel"], Exit.CONFLICT, "bng1 has one secret: no rotation is under way"),
        (["bng1", "--finish", "--cancel"], Exit.INVALID, "give one alone"),
        (["bng1", "--finish", "--generate"], Exit.INVALID, "give one alone"),
        (["bng1"], Exit.INVALID, "give --secret-stdin or --generate"),
        (["bng1", "--secret", "short"], Exit.INVALID, "fewer than 8 octets"),
        (["bng1", "--secret", SECRET.decode()], Exit.INVALID, "it is the one that bng1 has"),
        (["nosuch", "--generate"], Exit.NOT_FOUND, "there is no NAS nosuch"),
    ],
)
def test_what_cannot_be_rotated_says_why(stocked, words, code, said):
    answer = stocked.type("nas", "rotate-secret", *words)
    assert (answer.code, answer.out) == (code, "")
    assert said in answer.err


def test_a_second_rotation_waits_for_the_end_of_the_first(stocked):
    stocked.done("nas", "rotate-secret", "bng1", "--generate")
    answer = stocked.type("nas", "rotate-secret", "bng1", "--generate")
    assert answer.code == Exit.CONFLICT
    assert "bng1 has two secrets already" in answer.err
    assert len(secrets_of(stocked)) == 2
    stocked.done("nas", "set", "bng1", "--generate")
    assert len(secrets_of(stocked)) == 1, "set makes one valid at once"


def test_the_evidence_says_whether_a_signature_can_be_required(stocked):
    assert line(stocked, "signature evidence") == "seen in no Access-Request yet"
    see(stocked, signed=30)
    see(stocked, node="node2", signed=12)
    assert line(stocked, "signature evidence") == "sent in 42 of 42 Access-Requests since TIME: safe to require"
    assert stocked.done("nas", "set", "bng1", "--message-authenticator", "yes") == "NAS bng1 changed\n"
    see(stocked, signed=30, unsigned=2, last_unsigned_at=T0, last_unsigned_port=4711)
    assert (
        line(stocked, "signature evidence")
        == "missing in 2 of 44 Access-Requests since TIME, last at TIME from port 4711"
    )
    shown = stocked.type("nas", "show", "bng1", "--json").json()
    assert (shown["signed_requests"], shown["unsigned_requests"], shown["signature_evidence"]) == (42, 2, "not safe")
    assert (shown["last_unsigned_at"], shown["last_unsigned_port"]) == ("2026-01-31T12:00:00Z", 4711)


def test_requiring_what_some_logins_do_not_have_asks_first(stocked):
    see(stocked, signed=5, unsigned=2, last_unsigned_at=T0, last_unsigned_port=4711)
    require = ("nas", "set", "bng1", "--message-authenticator", "yes")
    answer = stocked.type(*require, typed="n\n")
    assert answer.code == Exit.ABORTED
    assert "missing in 2 of 7 Access-Requests" in answer.err
    assert stocked.type("nas", "show", "bng1", "--json").json()["message_authenticator"] == "auto"
    assert stocked.done(*require, "--yes") == "NAS bng1 changed\n"


def test_setting_auto_again_begins_a_new_observation(stocked):
    see(stocked, signed=5, unsigned=2, last_unsigned_at=T0)
    earlier = int(time.time())
    with connect(dsn_of(stocked), name="test") as connection:
        row = find_nas(connection, "bng1")
        assert row is not None
        mark_signing(connection, row.id, at=earlier)
    assert stocked.type("nas", "show", "bng1", "--json").json()["signs_since"] is not None
    stocked.done("nas", "set", "bng1", "--message-authenticator", "auto")
    shown = stocked.type("nas", "show", "bng1", "--json").json()
    assert (shown["signs_since"], shown["signed_requests"], shown["unsigned_requests"]) == (None, 0, 0)
    with connect(dsn_of(stocked), name="test") as connection:
        # A node that did not hear of it yet stores what it counted before: that is of another observation.
        mark_signing(connection, row.id, at=earlier)
        late = EvidenceRow(
            nas_id=row.id, node="node1", run=7, observed_from=int(row.observed_from.timestamp()), signed=6, unsigned=2,
            last_unsigned_at=T0, last_unsigned_port=1, secret_id=row.secret_id, old_secret=0, new_secret=0,
            last_old_at=None, last_new_at=None,
        )  # fmt: skip
        upsert_evidence(connection, [late])
    shown = stocked.type("nas", "show", "bng1", "--json").json()
    assert (shown["signs_since"], shown["signed_requests"]) == (None, 0)


def test_restarts_of_a_node_add_up_in_one_row(stocked):
    for run in (1, 2, 3):
        with connect(dsn_of(stocked), name="test") as connection:
            fold_runs(connection, "node1", run)
        see(stocked, run=run, signed=10, unsigned=run, last_unsigned_at=T0, last_unsigned_port=run)
    see(stocked, node="node2", run=3, signed=1)
    with connect(dsn_of(stocked), name="test") as connection:
        rows = connection.execute("select node, run, signed, unsigned from nas_evidence order by node, run").fetchall()
    assert rows == [("node1", 0, 20, 3), ("node1", 3, 10, 3), ("node2", 3, 1, 0)]
    assert line(stocked, "signature evidence").startswith("missing in 6 of 37")


def dropped(terminal, *drops: Drop, settle: bool, began_at: int, node: str = "node1", worker: str = "access-1") -> None:
    """As a worker writes its log, and the recorder stores it."""
    window = DropWindow("00", worker, began_at, list(drops))
    if settle:
        with connect(dsn_of(terminal), name="test") as connection:
            store_drops(connection, window, node=node)
    if node == "node1":
        root = Path(terminal.environ["SMS_AAA_NODE_STATE_FOLDER"])
        root.mkdir(exist_ok=True)
        assert write_window(root, window) is None


def drop(fault: str, *, ago: int, packets: int = 1, address: str = "127.0.0.1", nas_id: int = 1, port: int = 9) -> Drop:
    at_ns = int((time.time() - ago) * 1e9)
    return Drop(address, fault, nas_id, packets, at_ns - 10**9, at_ns, port)


def test_drops_are_listed_from_the_database_and_the_nodes_own_files_once(stocked):
    now = int(time.time())
    invalid, unknown = "message-authenticator-invalid", "unknown-nas"
    dropped(stocked, drop(invalid, ago=900, packets=5), settle=True, began_at=now - 900)
    dropped(stocked, drop(invalid, ago=30, packets=2, port=7), settle=False, began_at=now - 30, worker="access-2")
    dropped(
        stocked, drop(unknown, ago=60, address="203.0.113.9", nas_id=0), settle=True, began_at=now - 60, node="node2"
    )
    dropped(stocked, drop(unknown, ago=20, address="", nas_id=0, packets=9), settle=False, began_at=now - 20)
    dropped(stocked, drop(invalid, ago=9_000, packets=100), settle=True, began_at=now - 9_000, node="node2")
    assert [" ".join(one.split()) for one in stocked.type("nas", "drops").lines] == [
        "source nas fault packets first at last at last port",
        "others - unknown-nas 9 TIME TIME 9",
        "127.0.0.1 bng1 message-authenticator-invalid 7 TIME TIME 7",
        "203.0.113.9 - unknown-nas 1 TIME TIME 9",
        "",
        f"{invalid}: The Message-Authenticator is wrong: the secrets differ, or the packet was changed.",
        "unknown-nas: No NAS is known at the address that the datagram came from.",
    ]
    assert [row["packets"] for row in stocked.type("nas", "drops", "bng1", "--json").json()] == [7]
    assert [row["packets"] for row in stocked.type("nas", "drops", "bng1", "--since", "1d", "--json").json()] == [107]
    assert [row["source"] for row in stocked.type("nas", "drops", "203.0.113.0/24", "--csv").csv()] == ["203.0.113.9"]
    assert stocked.type("nas", "drops", "198.51.100.1").out == "nothing was dropped\n"
    assert stocked.type("nas", "drops", "nosuch").code == Exit.NOT_FOUND
    assert stocked.type("nas", "drops", "--since", "soon").code == Exit.INVALID


def test_drops_are_listed_while_the_database_is_away(stocked):
    dropped(
        stocked, drop("unknown-nas", ago=1, address="203.0.113.9", nas_id=0), settle=False, began_at=int(time.time())
    )
    away = {"SMS_AAA_DATABASE_DSN": "postgresql://nobody@127.0.0.1:9/none"}
    answer = stocked.type("nas", "drops", **away)
    assert answer.code == 0
    assert "this node's own log answers alone" in answer.err
    assert "203.0.113.9" in answer.out
    assert len(list_windows(Path(stocked.environ["SMS_AAA_NODE_STATE_FOLDER"]))) == 1


def decided(reason: Reason, *, ago: int, username: bytes = b"alice", method: Method = Method.PAP) -> DecisionBatch:
    station = b"02-00-00-00-00-07"
    record = DecisionRecord(1, 0, 0, reason.code, method, username, station, b"ge-0/0/1", b"", 0, 1)
    return DecisionBatch(time.time_ns() - ago * 10**9, 0, [record])


def test_refusals_are_listed_with_their_reasons_the_newest_first(node, stocked):
    stranger = decided(Reason.UNKNOWN_USER, ago=10, username=b"eve")
    node.decide(decided(Reason.BAD_PASSWORD, ago=30), decided(Reason.ACCEPTED, ago=20), settle=True)
    node.decide(stranger, decided(Reason.SUSPENDED, ago=5, method=Method.CHAP), settle=False)
    assert [" ".join(one.split()) for one in stocked.type("rejects").lines] == [
        "at reason saw username calling station id nas nas port method node settled",
        "TIME suspended - alice 02-00-00-00-00-07 bng1 ge-0/0/1 chap node1 no",
        "TIME unknown-user - eve 02-00-00-00-00-07 bng1 ge-0/0/1 pap node1 no",
        "TIME bad-password - alice 02-00-00-00-00-07 bng1 ge-0/0/1 pap node1 yes",
        "",
        "next: sms-aaa why USERNAME",
    ]

    def reasons(*words: str) -> list[str]:
        return [row["reason"] for row in stocked.type("rejects", *words, "--json").json()]

    assert reasons("--user", "alice") == ["suspended", "bad-password"]
    assert reasons("--reason", "bad-password") == ["bad-password"]
    assert reasons("--since", "8s") == ["suspended"]
    assert reasons("--limit", "2") == ["suspended", "unknown-user"]
    assert reasons("--mac", "0200.0000.0007", "--nas", "bng1") == ["suspended", "unknown-user", "bad-password"]
    assert reasons("--mac", "02:00:00:00:00:08") == []
    assert stocked.type("rejects", "--user", "nobody").out == "nobody was refused\n"
    assert stocked.type("rejects", "--nas", "nosuch").code == Exit.NOT_FOUND
    assert stocked.type("rejects", "--mac", "nonsense").code == Exit.INVALID
    assert stocked.type("rejects", "--reason", "accepted").code == Exit.INVALID


def test_refusals_are_listed_while_the_database_is_away(node, stocked):
    node.decide(decided(Reason.UNKNOWN_USER, ago=10), settle=False)
    answer = stocked.type("rejects", SMS_AAA_DATABASE_DSN="postgresql://nobody@127.0.0.1:9/none")
    assert "this node's own decisions answer alone" in answer.err
    # Without a replica nothing tells whose decisions these are: said, and none are shown.
    assert "this node has no replica" in answer.err
    assert answer.code == 0


def test_a_zone_is_for_rating_keys_and_can_be_taken_back(stocked):
    assert stocked.type("nas", "show", "bng1", "--json").json()["zone"] is None
    assert stocked.done("nas", "set", "bng1", "--zone", "abroad") == "NAS bng1 changed\n"
    assert stocked.type("nas", "show", "bng1", "--json").json()["zone"] == "abroad"
    stocked.done("nas", "set", "bng1", "--coa-port", "1700")
    assert stocked.type("nas", "show", "bng1", "--json").json()["zone"] == "abroad"
    stocked.done("nas", "set", "bng1", "--zone", "")
    assert stocked.type("nas", "show", "bng1", "--json").json()["zone"] is None
