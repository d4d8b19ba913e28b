"""The worker's state of the limits, with times that the test says: what is counted, for whom, and how much of it."""

from __future__ import annotations

import importlib
import os
import re
from typing import TYPE_CHECKING

import msgspec
import pytest
from make import make_vault

from sms_aaa import config
from sms_aaa.config import LimitsSettings
from sms_aaa.flows.access import AccessRequest, Case
from sms_aaa.flows.tables import Tables
from sms_aaa.metrics import Word
from sms_aaa.node.board import COUNTERS_PER_SLOT
from sms_aaa.node.lockouts import Lockouts
from sms_aaa.radius import dictionary
from sms_aaa.radius.credentials import Method, Pap
from sms_aaa.radius.packet import Packet, attribute, parse
from sms_aaa.radius.request import access_request
from sms_aaa.rules.entitlement import Dialect, MessageAuthenticatorPolicy, NodeNas, NodeRealm
from sms_aaa.rules.limits import Scope
from sms_aaa.rules.realms import Realms
from sms_aaa.rules.reasons import Reason
from sms_aaa.rules.secret import Secret
from sms_aaa.server import defence as defence_module
from sms_aaa.server.defence import PROVEN_CELLS, Defence
from sms_aaa.server.dispatch import Asked
from sms_aaa.server.duplicates import Entry
from sms_aaa.server.gate import Admitted

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NOW = 1_800_000_000
LIMITS = LimitsSettings(
    nas_requests_per_second=10,
    nas_burst=5,
    user_logins=3,
    user_window_seconds=10,
    lockout_failures=3,
    lockout_user_failures=6,
    lockout_device_failures=6,
    lockout_window_seconds=60,
    lockout_seconds=300,
)
UNLIMITED = LimitsSettings(
    user_logins=0, lockout_failures=0, lockout_user_failures=0, lockout_device_failures=0, nas_requests_per_second=0
)


class World:
    """A worker's defence, and its neighbour's over the same table."""

    def __init__(self, folder: Path, limits: LimitsSettings = LIMITS) -> None:
        table = Lockouts.open_or_create(folder, fresh=os.urandom(16))
        neighbour_table = Lockouts.open(folder)
        assert isinstance(table, Lockouts)
        assert isinstance(neighbour_table, Lockouts)
        self.table = table
        self.counters = memoryview(bytearray(8 * COUNTERS_PER_SLOT)).cast("Q")
        self.defence = Defence(limits, table, self.counters)
        self.neighbour = Defence(limits, neighbour_table, self.counters)
        vault = make_vault()
        sealed = vault.seal_nas_secret(Secret(b"secret"), 1, nonce=os.urandom(12))
        nas = NodeNas(1, "bng1", "127.0.0.1/32", [sealed], Dialect.GENERIC, MessageAuthenticatorPolicy.AUTO, 3799)
        found = Tables([nas], [], vault).find_nas("127.0.0.1")
        assert found is not None
        self.nas = found
        self.realms: Realms | None = None

    def request(self, user: bytes, device: bytes | None = b"02-01", line: bytes = b"") -> AccessRequest:
        attributes = attribute(dictionary.USER_NAME, user)
        if device is not None:
            attributes += attribute(dictionary.CALLING_STATION_ID, device)
        if line:
            attributes += attribute(dictionary.NAS_PORT_ID, line)
        packet = parse(access_request(1, os.urandom(16), attributes, self.nas.digests))
        assert isinstance(packet, Packet)
        return AccessRequest(packet, self.nas, self.nas.digests, None)

    def asked(self, user: bytes = b"alice", device: bytes = b"02-01") -> Asked:
        request = self.request(user, device)
        entry = Entry(("127.0.0.1", 1645, b"\1\1"), 0)
        return Asked(Admitted(request.packet, self.nas, self.nas.digests, None, entry), ("127.0.0.1", 1645))

    def decide(self, *decided: tuple[bytes, bytes, Reason], now: int = NOW, at: Defence | None = None) -> list[Reason]:
        """A batch of (user, device, reason if it is looked at) through screen and note; the reasons in the end."""
        defence = at or self.defence
        asked = [self.asked(user, device) for user, device, _ in decided]
        requests, refused = defence.screen(asked, float(now), now, self.realms)
        cases = [
            Case(request, Pap(b""), None, None, None, Method.PAP, reason, b"", b"")
            for request, (_, _, reason) in zip(requests, decided, strict=True)
        ]
        for at_index, (reason, _, _) in refused.items():
            cases[at_index].reason = reason
        defence.note([(self.asked(), case) for i, case in enumerate(cases) if i not in refused], now, is_late=False)
        return [case.reason for case in cases]

    def fail(self, user: bytes, device: bytes, times: int = 1, *, at: Defence | None = None, now: int = NOW) -> None:
        for _ in range(times):
            assert self.decide((user, device, Reason.BAD_PASSWORD), at=at, now=now) == [Reason.BAD_PASSWORD]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path, msgspec.structs.replace(LIMITS, user_logins=0))
    yield made
    made.table.close()


ALICE = (b"alice", b"02-01", Reason.ACCEPTED)
GUESS = (b"alice", b"02-01", Reason.BAD_PASSWORD)


def test_within_one_batch_the_lockout_sets_in_at_the_very_failure(world: World) -> None:
    reasons = world.decide(GUESS, GUESS, GUESS, GUESS, ALICE, (b"alice", b"02-02", Reason.ACCEPTED))
    assert reasons == [Reason.BAD_PASSWORD] * 3 + [Reason.LOCKED_OUT] * 2 + [Reason.ACCEPTED]


def test_no_other_spelling_of_a_realm_gives_a_guesser_a_fresh_count(world: World) -> None:
    world.realms = Realms([NodeRealm(1, "isp-a", True, ())])
    spellings = (b"alice@isp-a", b"alice@ISP-A", b"Isp-A\\alice")
    assert world.decide(*((name, b"02-01", Reason.BAD_PASSWORD) for name in spellings)) == [Reason.BAD_PASSWORD] * 3
    for name in (*spellings, b"alice", b"alice@iSP-a"):
        assert world.decide((name, b"02-01", Reason.ACCEPTED)) == [Reason.LOCKED_OUT]
    assert world.decide((b"Alice@isp-a", b"02-01", Reason.ACCEPTED)) == [Reason.ACCEPTED]


def test_two_workers_count_together(world: World) -> None:
    world.fail(b"alice", b"02-01", 2)
    world.fail(b"alice", b"02-01", 1, at=world.neighbour)
    assert world.decide(ALICE) == [Reason.LOCKED_OUT]
    assert world.decide(ALICE, at=world.neighbour) == [Reason.LOCKED_OUT]
    assert world.decide(ALICE, now=NOW + 300) == [Reason.ACCEPTED]


def test_a_success_before_the_limit_sets_the_count_back_through_any_worker(world: World) -> None:
    for _ in range(3):
        world.fail(b"alice", b"02-01", 2)
        assert world.decide(ALICE, at=world.neighbour) == [Reason.ACCEPTED]


def test_what_was_worked_on_beside_the_loop_comes_too_late_when_others_failed_meanwhile(world: World) -> None:
    case = Case(world.request(b"alice"), Pap(b""), None, None, None, Method.PAP, Reason.ACCEPTED, b"", b"")
    world.fail(b"alice", b"02-01", 3)
    world.defence.note([(world.asked(), case)], NOW, is_late=True)
    assert case.reason is Reason.LOCKED_OUT


def test_an_unknown_name_counts_for_the_device_alone(world: World) -> None:
    for number in range(6):
        assert world.decide((b"nobody%d" % number, b"02-01", Reason.UNKNOWN_USER)) == [Reason.UNKNOWN_USER]
    assert {entry.scope for entry in world.table.entries()} == {Scope.DEVICE}
    assert world.decide(ALICE) == [Reason.LOCKED_OUT]
    assert world.decide((b"alice", b"02-02", Reason.ACCEPTED)) == [Reason.ACCEPTED]


def test_who_has_logged_in_here_is_spared_what_others_do_to_his_name_or_device(world: World) -> None:
    assert world.decide(ALICE) == [Reason.ACCEPTED]
    for number in range(6):
        world.fail(b"alice", b"03-%02d" % number)
    for number in range(6):
        world.decide((b"nobody%d" % number, b"02-01", Reason.UNKNOWN_USER))
    assert {entry.scope for entry in world.table.entries() if entry.tally.until} == {Scope.USER, Scope.DEVICE}
    assert world.decide(ALICE) == [Reason.ACCEPTED]
    assert world.decide((b"alice", b"02-02", Reason.ACCEPTED)) == [Reason.LOCKED_OUT]
    assert world.decide((b"bob", b"02-01", Reason.ACCEPTED)) == [Reason.LOCKED_OUT]


def test_but_not_what_he_does_himself(world: World) -> None:
    assert world.decide(ALICE) == [Reason.ACCEPTED]
    world.fail(b"alice", b"02-01", 3)
    assert world.decide(ALICE) == [Reason.LOCKED_OUT]


def test_a_refusal_for_another_reason_is_no_failure(world: World) -> None:
    for reason in set(Reason) - {Reason.BAD_PASSWORD, Reason.UNKNOWN_USER, Reason.ACCEPTED}:
        assert world.decide((b"alice", b"02-01", reason)) == [reason]
    assert world.table.entries() == []


def test_a_device_that_offers_no_password_guesses_none(world: World) -> None:
    case = Case(world.request(b"0201"), None, None, None, None, Method.MAC, Reason.UNKNOWN_USER, b"", b"")
    world.defence.note([(world.asked(), case)] * 10, NOW, is_late=False)
    assert world.table.entries() == []


def test_without_an_address_the_line_is_the_device_but_no_line_is_locked_as_a_whole(world: World) -> None:
    request = world.request(b"alice", None, b"eth1/2:7")
    case = Case(request, Pap(b""), None, None, None, Method.PAP, Reason.BAD_PASSWORD, b"", b"")
    world.defence.note([(world.asked(), case)], NOW, is_late=False)
    assert {(entry.scope, entry.device) for entry in world.table.entries()} == {
        (Scope.USER_AND_DEVICE, b"eth1/2:7"),
        (Scope.USER, b""),
    }


def test_what_is_off_is_off(tmp_path: Path) -> None:
    world = World(tmp_path, UNLIMITED)
    for _ in range(300):
        assert world.decide(GUESS) == [Reason.BAD_PASSWORD]
    assert world.decide(ALICE) == [Reason.ACCEPTED]
    assert world.table.entries() == []
    assert not world.defence.holds_rates


def test_a_user_on_a_device_gets_so_many_logins_in_a_window_and_one_refusal_a_second_is_told(tmp_path: Path) -> None:
    world = World(tmp_path)
    asked = [world.asked() for _ in range(8)] + [world.asked(b"bob")] * 2
    requests, refused = world.defence.screen(asked, 100.0, NOW)
    assert len(requests) == 10
    assert set(refused) == {3, 4, 5, 6, 7}
    assert [one.is_told for one in refused.values()] == [True] + [False] * 4
    assert refused[3].reason is Reason.RATE_LIMITED
    assert refused[3].saw == b"more than 3 logins in 10 s"
    assert world.counters[Word.DECISIONS_UNTOLD] == 4
    assert world.defence.screen([world.asked()], 109.9, NOW + 1)[1][0].is_told
    assert world.defence.screen([world.asked()], 110.1, NOW + 2)[1] == {}


def test_a_flood_of_names_is_counted_within_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(defence_module, "CALLERS_MAX", 100)
    monkeypatch.setattr(defence_module, "TOLD_MAX", 10)
    world = World(tmp_path)
    for number in range(0, 1000, 10):
        asked = [world.asked(b"user%d" % user) for user in range(number, number + 10) for _ in range(4)]
        assert len(world.defence.screen(asked, 100.0, NOW)[1]) == 10
    assert len(world.defence._logins) <= 110
    assert len(world.defence._told) == 10
    assert world.counters[Word.DECISIONS_UNTOLD] == 990
    assert len(world.defence._proven) == PROVEN_CELLS


def test_the_rate_of_a_nas_holds_over_all_workers(tmp_path: Path) -> None:
    world = World(tmp_path)
    second = 1_000_000_000
    one, other = world.defence, world.neighbour
    within, above = one.hold_rate([world.asked()] * 3, 5 * second)
    assert (len(within), len(above)) == (3, 0)
    within, above = other.hold_rate([world.asked()] * 4, 5 * second)
    assert (len(within), len(above)) == (2, 2)
    within, above = other.hold_rate([world.asked()] * 4, 5 * second + second // 5)
    assert (len(within), len(above)) == (2, 2)


def test_every_bound_that_is_told_of_is_there() -> None:
    told = re.findall(r"^\| [^|]+ \| (\S+) +\|", defence_module.__doc__ or "", re.MULTILINE)
    assert len(told) > 10
    for name in told:
        place, _, word = name.rpartition(".")
        if place and word not in config._FIELDS.get(place, {}):
            assert getattr(importlib.import_module(f"sms_aaa.{place}"), word) > 0, name
