"""CVE-2024-3596: once a NAS signs its logins it must, in every worker, after a restart, on every node. Real UDP."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner
from daemon import Daemon, FakeNas, started, wait_until
from make import SECRET, make_plan, make_subscriber

from sms_aaa.cli.main import main
from sms_aaa.flows.provisioning.nas import add_nas, set_nas
from sms_aaa.radius import dictionary
from sms_aaa.radius.packet import Code, attribute
from sms_aaa.rules.entitlement import Dialect, MessageAuthenticatorPolicy
from sms_aaa.rules.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SIGNS, NEVER, ALWAYS, LAX, PREFIX = "127.1.0.1", "127.1.0.2", "127.1.0.3", "127.1.0.4", "127.2.0.7"
PROXIED, MODERN, MISTAKEN = "127.1.0.5", "127.1.0.6", "127.1.0.7"
AUTO, YES, NO = MessageAuthenticatorPolicy
NASES = {
    "signs": (SIGNS, AUTO), "never": (NEVER, AUTO), "always": (ALWAYS, YES), "lax": (LAX, NO),
    "proxied": (PROXIED, AUTO), "modern": (MODERN, AUTO), "mistaken": (MISTAKEN, AUTO),
}  # fmt: skip
"""One daemon serves all stories, so each has its own."""
LIMITED = 'sms_aaa_packet_drops_total{fault="proxy-state-limit"}'
SILENCE_SECONDS, PATIENCE_SECONDS = 0.5, 20.0
SOCKETS = 12
"""Source ports: the kernel spreads them over both workers."""


def provision(daemon: Daemon) -> None:
    with daemon.desk() as desk:
        for name, (prefix, policy) in {**NASES, "prefix": ("127.2.0.0/24", AUTO)}.items():
            add_nas(
                desk,
                name=name,
                prefix=prefix,
                secret=Secret(SECRET),
                dialect=Dialect.GENERIC,
                message_authenticator=policy,
                coa_port=3799,
            )
        make_plan(desk, sessions=0)
        make_subscriber(desk)
    wait_until(lambda: answers(daemon, ALWAYS, signed=True) == SOCKETS, "the provisioned rows in the replica")


@pytest.fixture(scope="module")
def daemon(new_database: Callable[[], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    for running in started(tmp_path_factory.mktemp("signing") / "state", new_database()):
        provision(running)
        yield running


def answers(
    daemon: Daemon, address: str, *, signed: bool, extra: bytes = b"", patience: float = SILENCE_SECONDS
) -> int:
    """How many of SOCKETS logins from as many ports are accepted; the others get no answer."""
    nases = [FakeNas(daemon, address=address) for _ in range(SOCKETS)]
    for nas in nases:
        nas.send(nas.login_request(b"alice", b"wonderland", extra=extra, signed=signed), daemon.access_port)
    until = time.monotonic() + patience
    heard = [nas.receive(max(until - time.monotonic(), 0.001)) for nas in nases]
    for nas in nases:
        nas.socket.close()
    replies = [reply for reply in heard if reply is not None]
    assert all(reply[0] == Code.ACCESS_ACCEPT for reply in replies)
    return len(replies)


def sign_once(daemon: Daemon, address: str) -> None:
    with FakeNas(daemon, address=address) as nas:
        wait_until(lambda: nas.login(b"alice", b"wonderland"), "an answer to who signs")


def show(daemon: Daemon, name: str) -> str:
    result = CliRunner(env=daemon.environ).invoke(main, ["nas", "show", name], prog_name="sms-aaa")
    assert result.exit_code == 0, result.output
    return str(result.stdout)


def test_one_signed_login_makes_it_required_in_every_worker_after_a_restart_and_in_the_database(daemon: Daemon) -> None:
    assert answers(daemon, SIGNS, signed=False, patience=PATIENCE_SECONDS) == SOCKETS
    sign_once(daemon, SIGNS)
    wait_until(lambda: answers(daemon, SIGNS, signed=False) == 0, "both workers to know")
    assert answers(daemon, SIGNS, signed=True, patience=PATIENCE_SECONDS) == SOCKETS
    assert answers(daemon, NEVER, signed=False, patience=PATIENCE_SECONDS) == SOCKETS
    daemon.kill_all()
    daemon.start()
    assert answers(daemon, SIGNS, signed=False) == 0
    assert answers(daemon, NEVER, signed=False, patience=PATIENCE_SECONDS) == SOCKETS
    wait_until(lambda: daemon.query("select name from nas where signs_since is not null") != [], "the database to know")
    # A node that was set up anew has no file of its own: it knows by its replica.
    daemon.stop()
    for path in daemon.folder.glob("signers-*.json"):
        path.unlink()
    daemon.start()
    assert answers(daemon, SIGNS, signed=False) == 0


def test_the_policy_yes_and_no_and_a_prefix_are_as_they_are_set(daemon: Daemon) -> None:
    assert answers(daemon, ALWAYS, signed=False) == 0
    for address in (LAX, PREFIX):
        sign_once(daemon, address)
        assert answers(daemon, address, signed=False, patience=PATIENCE_SECONDS) == SOCKETS
    with daemon.desk() as desk:
        set_nas(desk, "lax", message_authenticator=YES)
    wait_until(lambda: answers(daemon, LAX, signed=False) == 0, "the new policy on the workers")


def test_proxy_state_is_limited_in_a_login_that_is_not_signed(daemon: Daemon) -> None:
    before = daemon.metrics()[LIMITED]
    little, much = (attribute(dictionary.PROXY_STATE, bytes(octets)) for octets in (16, 200))
    assert answers(daemon, PROXIED, signed=False, extra=much) == 0
    assert answers(daemon, PROXIED, signed=False, extra=little, patience=PATIENCE_SECONDS) == SOCKETS
    assert answers(daemon, ALWAYS, signed=True, extra=much, patience=PATIENCE_SECONDS) == SOCKETS
    wait_until(lambda: daemon.metrics()[LIMITED] - before == SOCKETS, "the count of them")
    drops = daemon.metrics()
    assert drops['sms_aaa_nas_drops_total{nas="proxied"}'] == SOCKETS


def test_the_evidence_says_which_nas_signs_and_which_would_be_cut_off(daemon: Daemon) -> None:
    assert answers(daemon, MODERN, signed=True, patience=PATIENCE_SECONDS) == SOCKETS
    assert answers(daemon, MISTAKEN, signed=False, patience=PATIENCE_SECONDS) == SOCKETS
    wait_until(lambda: f"sent in {SOCKETS} of {SOCKETS} Access-Requests since " in show(daemon, "modern"), "evidence")
    assert ": safe to require\n" in show(daemon, "modern")
    wait_until(
        lambda: f"missing in {SOCKETS} of {SOCKETS} Access-Requests since " in show(daemon, "mistaken"), "evidence"
    )
    assert " from port " in show(daemon, "mistaken")
    sign_once(daemon, MISTAKEN)
    wait_until(lambda: answers(daemon, MISTAKEN, signed=False) == 0, "both workers to know")
    found = daemon.metrics()
    assert found['sms_aaa_nas_access_requests_total{nas="modern",signature="signed"}'] == SOCKETS
    assert found['sms_aaa_nas_access_requests_total{nas="mistaken",signature="unsigned"}'] >= 2 * SOCKETS
    # It was a mistake of the box: the operator begins anew, and its logins are let in again.
    with daemon.desk() as desk:
        set_nas(desk, "mistaken", message_authenticator=AUTO)
    wait_until(lambda: answers(daemon, MISTAKEN, signed=False) == SOCKETS, "a new observation on the workers")
    wait_until(lambda: "since" in show(daemon, "mistaken") and "missing in" in show(daemon, "mistaken"), "new evidence")
