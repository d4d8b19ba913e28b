"""Each reason by a real login over UDP, explained by `why`: with PostgreSQL, and by the node's own stream without it.

A story is a line of STORIES: who logs in how, what each check must have seen, what is to be typed next. A reason that
no story has yet stands in ELSEWHERE with the test that has it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner
from daemon import FakeNas, started, wait_until
from make import make_nas, make_plan, make_subscriber

from sms_aaa.cli.main import main
from sms_aaa.db.engine import connect
from sms_aaa.db.schema import upgrade
from sms_aaa.flows.provisioning.credentials import read_credential, set_credential
from sms_aaa.flows.provisioning.realms import add_realm
from sms_aaa.flows.provisioning.subscribers import remove_subscriber, set_state
from sms_aaa.flows.provisioning.terms import Bonds, bind, set_validity
from sms_aaa.radius import dictionary
from sms_aaa.radius.packet import Code, Packet, as_integer, attribute
from sms_aaa.radius.request import access_request
from sms_aaa.rules.entitlement import ServiceState
from sms_aaa.rules.reasons import Reason
from sms_aaa.rules.secret import Secret
from sms_aaa.server.postgres import EmbeddedPostgres

if TYPE_CHECKING:
    from collections.abc import Iterator

    from daemon import Daemon

    from sms_aaa.flows.provisioning.desk import Desk

PASSWORD = b"wonder-MARKED-land"
STATION = b"02-00-00-00-00-07"
HERE = attribute(dictionary.CALLING_STATION_ID, STATION) + attribute(dictionary.NAS_PORT_ID, b"ge-0/0/1")
CIRCUIT = attribute(dictionary.ADSL_AGENT_CIRCUIT_ID, b"\x00\x04\x00\x64\x00\x01")
BEGUN, ENDED = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC)
FAR = datetime(2099, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Story:
    """`saw`: what `why` says that checks saw, by name, beside the reason. `alone`: other words without PostgreSQL."""

    reason: Reason
    name: str
    following: str
    saw: dict[str, str]
    alone: dict[str, str] | None = None
    method: str = "pap"
    password: bytes = PASSWORD
    where: bytes = HERE


STORIES = [
    Story(Reason.REALM_UNKNOWN, "eve@elsewhere", "realm add elsewhere", {"realm": "elsewhere"}),
    Story(Reason.UNSUPPORTED_METHOD, "plain", "nas show bng1", {"method": "none"}, method="none"),
    Story(Reason.UNKNOWN_USER, "stranger", "subscriber add stranger --plan PLAN", {"identity": "stranger"}),
    Story(Reason.NO_CREDENTIAL, "bare", "credential set bare", {"method": "pap", "credential": "nothing is stored"}),
    Story(
        Reason.NO_CREDENTIAL, "hashed", "credential set hashed", {"credential": "sha256 cannot serve chap"},
        method="chap",
    ),
    Story(Reason.BAD_PASSWORD, "plain", "credential set plain", {"credential": ""}, password=b"guess-MARKED"),
    Story(
        Reason.BLOCKED, "blocked", "subscriber unblock blocked", {"state": "spam, case 4711"}, alone={"state": ""}
    ),
    Story(
        Reason.SUSPENDED, "unpaid", "subscriber restore unpaid", {"state": "unpaid since May"}, alone={"state": ""}
    ),
    Story(
        Reason.NOT_YET_ACTIVE, "later", "subscriber set later --valid-from none",
        {"state": "valid from 2099-01-01 00:00:00Z"},
    ),
    Story(
        Reason.EXPIRED, "ended", "subscriber set ended --valid-until none",
        {"state": "valid until 2026-02-01 00:00:00Z"},
    ),
    Story(Reason.NO_PLAN, "planless", "subscriber show planless", {"state": "active", "plan": ""}),
    Story(
        Reason.NAS_NOT_ALLOWED, "elsewhere", "subscriber bind elsewhere --nas bng1",
        {"plan": "home-100 version 1", "place": "bng1; bound to bng2"},
    ),
    Story(
        Reason.NAS_NOT_ALLOWED, "bob@ISP-A", "subscriber bind bob@isp-a --nas bng1",
        {"realm": "isp-a", "identity": "bob@ISP-A", "place": "bng1; bound to bng2"},
    ),
    Story(
        Reason.PORT_MISMATCH, "line", "subscriber bind line --port ge-0/0/1",
        {"place": "ge-0/0/1, 0x000400640001; bound to 0x000400640002, ge-0/0/2"}, where=HERE + CIRCUIT,
    ),
    Story(
        Reason.MAC_NOT_BOUND, "modem", "subscriber bind modem --mac 02-00-00-00-00-07",
        {"place": "bng1 port ge-0/0/1", "device": "020000000007; bound to 020000000008"},
    ),
    Story(
        Reason.CONCURRENT_LIMIT, "family", "sessions family",
        {"concurrency": "1 of 1", "device": "02-00-00-00-00-07"},
    ),
    Story(
        Reason.BACKEND_UNAVAILABLE, "strict", "status",
        {"concurrency": "PostgreSQL did not say in time whether there is a place"},
    ),
    Story(
        Reason.ACCEPTED, "plain", "sessions plain",
        {"realm": "none", "method": "chap", "place": "bng1 port ge-0/0/1", "concurrency": "0 of 1"},
        method="chap",
    ),
]  # fmt: skip

ELSEWHERE = {Reason.RATE_LIMITED, Reason.LOCKED_OUT}  # test_attacks.py

ORDER = ["limits", "realm", "method", "identity", "credential", "state", "plan", "place", "device", "concurrency"]
FAILS_AT = {
    "limits": {Reason.RATE_LIMITED, Reason.LOCKED_OUT},
    "realm": {Reason.REALM_UNKNOWN},
    "method": {Reason.UNSUPPORTED_METHOD},
    "identity": {Reason.UNKNOWN_USER},
    "credential": {Reason.NO_CREDENTIAL, Reason.BAD_PASSWORD},
    "state": {Reason.BLOCKED, Reason.SUSPENDED, Reason.NOT_YET_ACTIVE, Reason.EXPIRED},
    "plan": {Reason.NO_PLAN},
    "place": {Reason.NAS_NOT_ALLOWED, Reason.PORT_MISMATCH},
    "device": {Reason.MAC_NOT_BOUND},
    "concurrency": {Reason.CONCURRENT_LIMIT, Reason.BACKEND_UNAVAILABLE},
}


SETTINGS = {
    "SMS_AAA_ACCESS_UNKNOWN_REALM": "reject",
    "SMS_AAA_ACCESS_STRICT_WHEN_AWAY": "reject",
    "SMS_AAA_ACCESS_STRICT_DEADLINE_MS": "300",
}
OLD_DECISION = """
create table decision_202001 partition of decision for values from ('2020-01-01 00:00Z') to ('2020-02-01 00:00Z');
insert into decision (at, node, sequence, record_offset, nas_id, reason, method, username, calling_station_id, nas_port,
                      sessions_seen, sessions_max, duration_us)
    values ('2020-01-02', 'node1', 1, 64, 1, 0, 1, 'plain', '', '', 0, 0, 0)
"""


def provision(desk: Desk) -> None:
    make_nas(desk)
    make_nas(desk, name="bng2", prefix="127.0.0.2")
    make_plan(desk)
    make_plan(desk, name="strictly", strict=True)
    add_realm(desk, "isp-a", is_stripped=False, plan=None, nases=["bng2"])
    add_realm(desk, "isp-b", is_stripped=True, plan=None, nases=())
    for name in (
        "plain", "bare", "blocked", "unpaid", "later", "ended", "soon", "planless", "elsewhere", "bob@isp-a", "line",
        "modem", "family", "carol", "gone", "last",
    ):  # fmt: skip
        make_subscriber(desk, name=name, password=PASSWORD)
    make_subscriber(desk, name="strict", password=PASSWORD, plan="strictly")
    hashed = read_credential(Secret(b"{SHA256}" + hashlib.sha256(PASSWORD).hexdigest().encode()), None)
    make_subscriber(desk, name="hashed", password=PASSWORD)
    set_credential(desk, "hashed", hashed)
    set_state(desk, "blocked", ServiceState.BLOCKED, "spam, case 4711")
    set_state(desk, "unpaid", ServiceState.SUSPENDED, "unpaid since May")
    set_validity(desk, "later", valid_from=FAR, valid_until=None)
    set_validity(desk, "ended", valid_from=BEGUN, valid_until=ENDED)
    set_validity(desk, "soon", valid_from=None, valid_until=datetime.now(UTC) + timedelta(hours=1))
    bind(desk, "elsewhere", Bonds(nases=["bng2"]))
    bind(desk, "line", Bonds(ports=["ge-0/0/2", "0x000400640002"]))
    bind(desk, "modem", Bonds(macs=["02:00:00:00:00:08"]))
    remove_subscriber(desk, "gone")
    # What no command does: a service without a credential, and one whose plan has run out.
    service = "(select id from service where identity = %s)"
    desk.connection.execute(f"delete from credential where service_id = {service}", ("bare",))
    desk.connection.execute(f"delete from subscription where service_id = {service}", ("planless",))


@dataclass
class World:
    daemon: Daemon
    nas: FakeNas
    postgres: EmbeddedPostgres
    said: list[str]

    def is_ready(self) -> bool:
        reply = self.nas.login(b"last", PASSWORD, extra=HERE)
        return reply is not None and reply.code == Code.ACCESS_ACCEPT

    def log_in(self, story: Story) -> Packet:
        name = story.name.encode()
        if story.reason is Reason.CONCURRENT_LIMIT:
            other = attribute(dictionary.CALLING_STATION_ID, b"02-00-00-00-00-99")
            assert self.nas.login(name, PASSWORD, extra=other) is not None
        if story.method == "none":
            attributes = attribute(dictionary.USER_NAME, name) + story.where
            request = access_request(self.nas.next_identifier(), bytes(16), attributes, self.nas.digests)
            reply = self.nas.ask(request, self.daemon.access_port)
        else:
            reply = self.nas.login(name, story.password, story.method, extra=story.where)
        assert reply is not None
        return reply

    def type(self, *words: str) -> str:
        runner = CliRunner(env={**self.daemon.environ, "SMS_AAA_DATABASE_DSN": self.postgres.dsn})
        result = runner.invoke(main, words, prog_name="sms-aaa")
        self.said.append(result.output)
        return result.stdout

    def why(self, name: str, *, last: int = 1) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.type("why", name, "--json", "--last", str(last)) or "{}")
        return found


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("reasons")
    postgres = EmbeddedPostgres.start(folder / "postgres")
    try:
        upgrade(postgres.dsn)
        with connect(postgres.dsn, name="test") as connection:
            connection.execute(OLD_DECISION)
        for daemon in started(folder / "state", postgres.dsn, **SETTINGS):
            with daemon.desk() as desk:
                provision(desk)
            with FakeNas(daemon) as nas:
                made = World(daemon, nas, postgres, [])
                wait_until(made.is_ready, "everybody in the replica")
                yield made
                assert "MARKED" not in "".join(made.said)
                assert "MARKED" not in daemon.log.read_text()
    finally:
        postgres.stop()


@pytest.fixture(scope="module")
def alone(world: World) -> World:
    """From here on PostgreSQL is gone."""
    world.postgres.stop()
    return world


def check_story(told: dict[str, Any], story: Story, saw: dict[str, str]) -> None:
    decision = told["decisions"][0]
    assert decision["decision"] == story.reason.label
    checks = decision["checks"]
    assert [check["check"] for check in checks] == ORDER
    failed = next((name for name, reasons in FAILS_AT.items() if story.reason in reasons), None)
    at = ORDER.index(failed) if failed is not None else len(ORDER)
    assert [check["verdict"] for check in checks] == (["passed"] * at + ["failed"] + ["not reached"] * 9)[: len(ORDER)]
    seen = {check["check"]: check["saw"] for check in checks}
    for name, words in saw.items():
        label = f"{story.reason.label}: {words}" if words else story.reason.label
        assert seen[name] == (label if name == failed else words)
    assert told["next"] == f"sms-aaa {story.following}"


def test_every_reason_has_its_story() -> None:
    assert {story.reason for story in STORIES} | ELSEWHERE == set(Reason)


@pytest.mark.parametrize("story", STORIES, ids=lambda story: f"{story.reason.label}-{story.name}")
def test_why_explains_a_real_login(world: World, story: Story) -> None:
    if story.reason is Reason.BACKEND_UNAVAILABLE:
        with connect(world.daemon.dsn, name="somebody") as connection:
            connection.execute("lock table place in access exclusive mode")
            reply = world.log_in(story)
    else:
        reply = world.log_in(story)
    assert (reply.code == Code.ACCESS_ACCEPT) is (story.reason is Reason.ACCEPTED)
    if story.reason is not Reason.ACCEPTED:
        assert reply.attributes[dictionary.REPLY_MESSAGE] == story.reason.text.encode()

    def is_settled() -> bool:
        decisions = world.why(story.name).get("decisions", [])
        return bool(decisions) and decisions[0]["settled"] and decisions[0]["decision"] == story.reason.label

    wait_until(is_settled, "the decision in PostgreSQL")
    check_story(world.why(story.name), story, story.saw)


def test_no_session_is_let_in_for_longer_than_its_service_lasts(world: World) -> None:
    reply = world.nas.login(b"soon", PASSWORD, extra=HERE)
    assert reply is not None
    seconds = as_integer(reply.attributes[dictionary.SESSION_TIMEOUT])
    assert seconds is not None
    assert 3000 < seconds <= 3600, "the plan has 24 hours"
    assert len(reply.all(dictionary.SESSION_TIMEOUT)) == 1


@pytest.mark.parametrize("sent", [b"carol@isp-b", b"carol@ISP-B", b"ISP-B\\carol"])
@pytest.mark.parametrize("method", ["pap", "mschap2"])
def test_a_name_of_a_stripped_realm_is_the_bare_user_in_either_notation(world: World, sent: bytes, method: str) -> None:
    reply = world.nas.login(sent, PASSWORD, method, extra=HERE)
    assert reply is not None
    assert reply.code == Code.ACCESS_ACCEPT
    name = sent.decode()

    def is_told() -> bool:
        decisions = world.why("carol").get("decisions", [])
        return bool(decisions) and decisions[0]["username"] == name and decisions[0]["method"] == method

    wait_until(is_told, "why carol, by the name as it was sent")
    assert world.why(name)["decisions"][0]["username"] == name
    assert world.why(name)["next"] == "sms-aaa sessions carol"


def test_octets_that_are_no_text_have_a_realm_all_the_same(world: World) -> None:
    reply = world.nas.login(b"\xff\x00\\x@\xc4.example\xfe", PASSWORD)
    assert reply is not None
    assert reply.attributes[dictionary.REPLY_MESSAGE] == Reason.REALM_UNKNOWN.text.encode()


def test_of_somebody_who_was_removed_why_says_when(world: World) -> None:
    reply = world.nas.login(b"gone", PASSWORD)
    assert reply is not None
    wait_until(lambda: world.why("gone").get("decisions"), "the decision")
    told = world.why("gone")
    assert told["decisions"][0]["decision"] == "unknown-user"
    assert told["hint"].startswith("the subscriber gone was removed on 20")
    assert "\nnote: the subscriber gone was removed on 20" in world.type("why", "gone")


def test_a_device_is_learned_by_its_first_login(world: World) -> None:
    other = attribute(dictionary.CALLING_STATION_ID, b"02-00-00-00-00-99")
    world.type("subscriber", "bind", "plain", "--learn-mac")
    assert world.nas.login(b"plain", PASSWORD, extra=HERE) is not None
    bound = "select value from service_binding b join service s on s.id = b.service_id where s.identity = 'plain'"
    wait_until(lambda: world.daemon.query(bound) == [("020000000007",)], "the device of the first login")

    def is_refused() -> bool:
        reply = world.nas.login(b"plain", PASSWORD, extra=other)
        assert reply is not None
        return reply.attributes.get(dictionary.REPLY_MESSAGE) == Reason.MAC_NOT_BOUND.text.encode()

    wait_until(is_refused, "the binding on the running workers", 10)
    world.type("subscriber", "unbind", "plain", "--all", "--learn-mac")


def test_a_change_of_terms_is_live_without_a_restart(world: World) -> None:
    for words, accepted in (
        (("block", "last", "--reason", "test"), False),
        (("unblock", "last"), True),
        (("bind", "last", "--nas", "bng2"), False),
        (("unbind", "last", "--nas", "bng2"), True),
        (("set", "last", "--valid-until", "2026-01-01"), False),
        (("set", "last", "--valid-until", "none"), True),
    ):
        world.type("subscriber", *words)
        wait_until(lambda accepted=accepted: world.is_ready() is accepted, f"{words} on the running workers", 10)


def test_no_decision_has_a_secret_in_it_and_those_past_their_retention_are_gone(world: World) -> None:
    rows = world.daemon.query("select d::text from decision d")
    assert len(rows) > len(STORIES)
    assert not [row for row in rows if "MARKED" in str(row)]
    assert not [row for row in rows if "2020-01-02" in str(row)]
    assert not world.daemon.query("select from pg_class where relname = 'decision_202001'")


@pytest.mark.parametrize("story", STORIES, ids=lambda story: f"{story.reason.label}-{story.name}")
def test_why_explains_a_real_login_while_postgresql_is_away(alone: World, story: Story) -> None:
    assert alone.log_in(story).code == (Code.ACCESS_ACCEPT if story.reason is Reason.ACCEPTED else Code.ACCESS_REJECT)
    wait_until(lambda: alone.why(story.name).get("decisions"), "the decision in the node's stream")
    told = alone.why(story.name)
    assert not told["decisions"][0]["settled"]
    # Whose name it is PostgreSQL alone knows: what was typed stands for it.
    typed = replace(story, following=story.following.replace("isp-a", "ISP-A"))
    check_story(told, typed, {**story.saw, **(story.alone or {})})


def test_by_the_replica_alone_a_service_is_found_by_any_spelling_of_its_realm(alone: World) -> None:
    assert alone.nas.login(b"ISP-B\\carol", PASSWORD, extra=HERE) is not None
    for name in ("carol", "carol@isp-b", "ISP-B\\carol"):
        assert alone.why(name)["decisions"][0]["username"] == "ISP-B\\carol"
