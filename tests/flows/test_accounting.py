"""What an accounting record means to its worker: its place in the live set, its answer."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest

from sms_aaa.flows.access import encode_class
from sms_aaa.flows.accounting import AccountingRequest, apply_to_live_set, find_logins, leave_out_known, reply_to
from sms_aaa.flows.tables import Tables
from sms_aaa.flows.vault import Vault
from sms_aaa.node.live import LiveSet
from sms_aaa.radius import dictionary
from sms_aaa.radius.digest import SecretDigests
from sms_aaa.radius.packet import Code, Packet, attribute, integer, parse
from sms_aaa.radius.request import accounting_request, reply_is_authentic
from sms_aaa.rules.entitlement import Dialect, MessageAuthenticatorPolicy, NodeNas
from sms_aaa.rules.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from sms_aaa.flows.tables import Nas

SECRET = b"testing123"
NOW = 1_800_000_000
SERVICE, TOKEN = 42, bytes(range(8))
START, STOP, INTERIM = 1, 2, 3
DEVICE_ATTRIBUTE = attribute(dictionary.CALLING_STATION_ID, b"02-00-00-00-00-01")


@pytest.fixture
def nas() -> Nas:
    vault = Vault(bytes(32))
    sealed = vault.seal_nas_secret(Secret(SECRET), 1, nonce=bytes(12))
    row = NodeNas(1, "bng1", "127.0.0.1/32", [sealed], Dialect.GENERIC, MessageAuthenticatorPolicy.AUTO, 3799)
    return Tables([row], (), vault).nases[0]


@pytest.fixture
def live(tmp_path: Path) -> Iterator[LiveSet]:
    opened = LiveSet.open(tmp_path, boot_id="boot-1")
    assert isinstance(opened, LiveSet)
    yield opened
    opened.close()


def request_of(nas: Nas, status: int, *, token: bytes = TOKEN, session: bytes = b"s1", more: bytes = b""):
    attributes = (
        attribute(dictionary.ACCT_STATUS_TYPE, integer(status))
        + attribute(dictionary.ACCT_SESSION_ID, session)
        + attribute(dictionary.CLASS, encode_class(SERVICE, token))
        + DEVICE_ATTRIBUTE
        + more
    )
    packet = parse(accounting_request(7, attributes, SecretDigests(SECRET)))
    assert isinstance(packet, Packet)
    return AccountingRequest(packet, nas, nas.digests, "127.0.0.1", 40_000)


def hear(live: LiveSet, requests: Sequence[AccountingRequest], *, at: int, silence: int = 900) -> int:
    """As the worker does; how many of the requests were written."""
    with live.look() as view:
        logins = leave_out_known(find_logins(requests), view, until=at + silence)
    with live.write() as change:
        apply_to_live_set(logins, change, until=at + silence + silence // 2)
    assert change.fault is None
    return len(logins)


def online(live: LiveSet) -> list[tuple[bytes, int]]:
    entries = live.entries(SERVICE)
    assert isinstance(entries, list)
    return [(entry.token, entry.until) for entry in entries]


def test_an_interim_is_written_only_when_the_time_that_is_put_down_runs_short(nas: Nas, live: LiveSet) -> None:
    assert hear(live, [request_of(nas, START)], at=NOW) == 1
    assert online(live) == [(TOKEN, NOW + 1_350)]
    assert hear(live, [request_of(nas, INTERIM)], at=NOW + 300) == 0
    assert hear(live, [request_of(nas, INTERIM)], at=NOW + 600) == 1
    assert online(live) == [(TOKEN, NOW + 600 + 1_350)]


def test_no_interim_that_is_left_out_shortens_what_a_silent_session_may_be(nas: Nas, live: LiveSet) -> None:
    hear(live, [request_of(nas, START)], at=NOW)
    for at in range(NOW, NOW + 5_000, 97):
        hear(live, [request_of(nas, INTERIM)], at=at)
        ((_, until),) = online(live)
        assert until >= at + 900


def test_a_stop_gives_the_place_back_at_once_whatever_came_before_it_in_the_batch(nas: Nas, live: LiveSet) -> None:
    hear(live, [request_of(nas, START)], at=NOW)
    hear(live, [request_of(nas, INTERIM), request_of(nas, STOP), request_of(nas, INTERIM)], at=NOW + 10)
    assert online(live) == []


def test_an_interim_of_a_session_that_was_closed_elsewhere_takes_its_place_again(nas: Nas, live: LiveSet) -> None:
    """The settler closed it after an Accounting-On, or as silent; or another worker heard a Stop that was not true."""
    hear(live, [request_of(nas, START)], at=NOW)
    with live.write() as change:
        change.release(SERVICE, TOKEN, is_settled=True)
    assert hear(live, [request_of(nas, INTERIM)], at=NOW + 1) == 1
    assert [token for token, _ in online(live)] == [TOKEN]


def test_a_place_that_the_device_took_over_at_another_worker_goes_to_the_new_login(nas: Nas, live: LiveSet) -> None:
    new = bytes(range(8, 16))
    hear(live, [request_of(nas, START)], at=NOW)
    entries = live.entries(SERVICE)
    assert isinstance(entries, list)
    with live.write() as change:
        change.reserve(
            SERVICE, device=entries[0].device, nas_id=1, sessions_max=1, token=new, now=NOW + 5, until=NOW + 65
        )
    assert hear(live, [request_of(nas, START, token=new, session=b"s2")], at=NOW + 6) == 1
    assert hear(live, [request_of(nas, INTERIM, token=new, session=b"s2")], at=NOW + 7) == 0
    assert hear(live, [request_of(nas, STOP)], at=NOW + 8) == 1  # the old session's, late
    assert [token for token, _ in online(live)] == [new]


def test_our_class_is_found_among_others(nas: Nas) -> None:
    others = attribute(dictionary.CLASS, b"another server's") + attribute(dictionary.CLASS, b"SMS")
    (login,) = find_logins([request_of(nas, START, more=others)])
    assert (login.service_id, login.token) == (SERVICE, TOKEN)
    packet = parse(accounting_request(7, others + attribute(dictionary.ACCT_STATUS_TYPE, integer(1)), nas.digests))
    assert isinstance(packet, Packet)
    assert find_logins([AccountingRequest(packet, nas, nas.digests, "127.0.0.1", 1)]) == []


def test_an_answer_is_authentic_with_the_proxy_states_in_order_and_nothing_else(nas: Nas) -> None:
    states = [b"first", b"second"]
    for more in (b"", b"".join(attribute(dictionary.PROXY_STATE, state) for state in states)):
        request = request_of(nas, INTERIM, more=more)
        reply = reply_to(request)
        assert reply_is_authentic(reply, request.packet.authenticator, nas.digests)
        assert reply[20:] == more
        assert struct.unpack(">BBH", reply[:4]) == (Code.ACCOUNTING_RESPONSE, 7, 20 + len(more))
