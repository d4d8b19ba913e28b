"""RFC 5080 over real UDP: a storm of retransmissions costs cache hits, a re-login from another port is no trouble."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from daemon import Daemon, FakeNas, started, wait_until
from make import make_nas, make_plan, make_subscriber

from sms_aaa.radius import dictionary
from sms_aaa.radius.packet import Code, attribute

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

STATION = attribute(dictionary.CALLING_STATION_ID, b"02-00-00-00-00-07")
USERS = ("alice", "bob", "carol")
"""One daemon serves all stories, so each has its own."""

OTHER_STATION = attribute(dictionary.CALLING_STATION_ID, b"02-00-00-00-00-08")


@pytest.fixture(scope="module")
def daemon(new_database: Callable[[], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    for running in started(tmp_path_factory.mktemp("again") / "state", new_database()):
        with running.desk() as desk:
            make_nas(desk)
            make_plan(desk, sessions=1)
            for name in USERS:
                make_subscriber(desk, name=name)
        with FakeNas(running) as nas:
            wait_until(lambda: nas.login(b"alice", b"wrong"), "the provisioned rows in the replica")
        yield running


def test_a_storm_of_retransmissions_is_one_decision_and_the_very_same_reply(daemon: Daemon) -> None:
    decided = "select count(*) from decision where reason = 0 and username = 'alice'"
    with FakeNas(daemon) as nas:
        request = nas.login_request(b"alice", b"wonderland", extra=STATION)
        for _ in range(300):  # the first ones fall into one batch: all but one find it pending
            nas.send(request, daemon.access_port)
        first = nas.receive()
        assert first is not None
        for _ in range(300):
            nas.send(request, daemon.access_port)
            assert nas.receive() == first
    by_nas = 'sms_aaa_requests_total{kind="duplicates",nas="bng1"}'
    wait_until(lambda: by_nas in daemon.metrics(), "the name of the NAS")
    found = daemon.metrics()
    counted = found["sms_aaa_duplicates_answered_total"] + found["sms_aaa_duplicates_pending_total"]
    assert counted >= 500
    assert found[by_nas] == counted
    wait_until(lambda: daemon.query(decided) == [(1,)], "the decision in the database")


def test_the_same_device_may_ask_again_from_any_port_and_another_one_may_not(daemon: Daemon) -> None:
    """Through both workers: a NAS asks from many sockets, and its retransmission need not come from the first."""
    for _ in range(12):
        with FakeNas(daemon) as nas:
            again = nas.login(b"bob", b"wonderland", extra=STATION)
            assert again is not None
            assert again.code == Code.ACCESS_ACCEPT
        with FakeNas(daemon) as nas:
            other = nas.login(b"bob", b"wonderland", extra=OTHER_STATION)
            assert other is not None
            assert other.code == Code.ACCESS_REJECT


def test_an_identifier_that_is_used_again_is_a_new_request(daemon: Daemon) -> None:
    with FakeNas(daemon) as nas:
        for password, code in ((b"wonderland", Code.ACCESS_ACCEPT), (b"wrong", Code.ACCESS_REJECT)) * 3:
            nas.identifier = 0  # as l2tpns and php-dapphp have it in nearly every packet
            reply = nas.login(b"carol", password, extra=STATION)
            assert reply is not None
            assert reply.code == code
