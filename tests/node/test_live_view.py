"""A look at the live set: what it knows need not be written, whoever changed it since the last look."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sms_aaa.node.live import LiveSet

NOW = 1_800_000_000
SERVICE = 42
DEVICE = b"device-1"


@pytest.fixture
def live(tmp_path):
    opened = LiveSet.open(tmp_path, boot_id="boot-1")
    yield opened
    opened.close()


def token(number: int) -> bytes:
    return number.to_bytes(8, "big")


def promote(live, number: int, *, until: int = NOW + 900, device: bytes = DEVICE, session: int = 7) -> None:
    with live.write() as change:
        change.promote(SERVICE, token(number), device=device, nas_id=1, until=until, session=session)
    assert change.fault is None


def reserve(live, number: int, *, device: bytes = DEVICE, until: int = NOW + 60) -> None:
    with live.write() as change:
        change.reserve(
            SERVICE, device=device, nas_id=1, sessions_max=0, token=token(number), now=NOW, until=until, replaces=True
        )
    assert change.fault is None


def release(live, number: int, *, session: int = 7, is_settled: bool = False) -> None:
    with live.write() as change:
        change.release(SERVICE, token(number), session=session, is_settled=is_settled)


def knows(live, number: int, *, until: int = NOW + 900, nas_id: int = 1, session: int = 7, service: int = SERVICE):
    with live.look() as view:
        return view.knows(service, token(number), nas_id=nas_id, until=until, session=session)


def test_a_login_that_is_online_long_enough_is_known(live):
    promote(live, 1)
    assert knows(live, 1)
    assert knows(live, 1, until=NOW + 100)


@pytest.mark.parametrize("other", [{"until": NOW + 901}, {"nas_id": 2}, {"session": 8}, {"service": 43}])
def test_whatever_a_promotion_would_change_is_news(live, other):
    promote(live, 1)
    assert not knows(live, 1, **other)
    assert not knows(live, 2)


def test_a_reservation_a_neighbours_session_and_one_without_device_are_news(live):
    reserve(live, 1)
    assert not knows(live, 1, until=NOW, session=0)
    with live.write() as change:
        change.promote_neighbour(SERVICE, token(2), device=DEVICE, nas_id=1, until=NOW + 900, session=7)
    assert not knows(live, 2)
    promote(live, 3, device=b"")
    assert not knows(live, 3)


def test_a_place_that_was_given_back_or_taken_over_is_news_at_once(live):
    promote(live, 1)
    release(live, 1)
    assert not knows(live, 1)
    promote(live, 1)
    release(live, 1, is_settled=True)  # as after an Accounting-On, by the settler
    assert not knows(live, 1)
    promote(live, 1)
    reserve(live, 2)  # the same device logged in again, at another worker perhaps
    assert not knows(live, 1)


def test_a_look_that_cannot_be_had_knows_nothing(live):
    promote(live, 1)
    with live._env.begin(write=True) as transaction:
        transaction.put(SERVICE.to_bytes(8, "big"), token(1) + bytes(33), db=live._services)
    assert not knows(live, 1, until=0)
    live.close()
    assert not knows(live, 1)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["reserve", "promote", "release", "settled", "neighbour"]),
        st.integers(1, 3),  # token
        st.integers(0, 2),  # device
        st.integers(0, 2),  # session
        st.integers(0, 3),  # until
    ),
    max_size=25,
)


@given(STEPS)
@settings(max_examples=60, deadline=None)
def test_what_is_known_would_change_nothing(steps):
    with tempfile.TemporaryDirectory() as name:
        live = LiveSet.open(Path(name), boot_id="boot-1", octets=1 << 20)
        for step, number, device, session, intervals in steps:
            key, until = b"device-%d" % device if device else b"", NOW + 300 * intervals
            if step == "reserve":
                reserve(live, number, device=key, until=until)
            elif step == "neighbour":
                with live.write() as change:
                    change.promote_neighbour(SERVICE, token(number), device=key, nas_id=1, until=until, session=session)
            elif step == "promote":
                was_known, before = knows(live, number, until=until, session=session), live.entries(SERVICE)
                promote(live, number, until=until, device=key, session=session)
                assert not was_known or live.entries(SERVICE) == before
            else:
                release(live, number, session=session, is_settled=step == "settled")
        live.close()
