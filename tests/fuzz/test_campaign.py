"""A short campaign in the suite; the long one is `make fuzz`. And the campaign finds what it is there to find."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import campaign
import pytest
import wire
from judge import Judge, Sender

if TYPE_CHECKING:
    from pathlib import Path

NAS = Sender("127.0.0.1", b"a secret")
JUDGE = Judge({b"ann": b"sesame"}, frozenset({"020000000001"}), set())
SIGNATURE = (wire.MESSAGE_AUTHENTICATOR, wire.ZEROS)


def test_some_thousand_mutated_packets_get_no_answer_that_an_rfc_forbids(database_dsn: str, tmp_path: Path) -> None:
    done = campaign.run(tmp_path, packets=6000, seed=1, first_round=1, dsn=database_dsn)
    assert {kind for kind, times in done.answers.items() if times > 200} == {
        "code 2 on the access port",
        "code 3 on the access port",
        "code 5 on the accounting port",
    }


def test_a_worker_that_dies_is_noticed(database_dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(one: campaign.Campaign, number: int) -> None:
        one.sent += 1
        if number == 2:
            os.kill(one.daemon.pid_of("access-1"), signal.SIGKILL)
            campaign.wait_until(lambda: one.daemon.pid_of("access-1"), "the next one")

    monkeypatch.setattr(campaign.Campaign, "play_round", die)
    with pytest.raises(campaign.ViolationError, match=r"a process died(.|\n)*--seed 3"):
        campaign.run(tmp_path, packets=3, seed=3, first_round=1, dsn=database_dsn)


def ask(pairs: wire.Pairs, code: int = wire.ACCESS_REQUEST) -> bytes:
    return wire.sign(code, 7, b"a" * 16, wire.join(pairs), NAS.secret or b"")


def answer(asked: bytes, code: int, pairs: wire.Pairs) -> bytes:
    """As a right server would sign it."""
    import hashlib

    data = wire.sign(code, asked[1], asked[4:20], wire.join(pairs), NAS.secret or b"")
    text = data[:4] + asked[4:20] + data[20:] + (NAS.secret or b"")
    return data[:4] + hashlib.md5(text).digest() + data[20:]


LOGIN = [(1, b"ann"), (2, wire.hide(b"sesame", b"a" * 16, b"a secret")), SIGNATURE]
WRONG = [(1, b"ann"), (2, wire.hide(b"Sesame", b"a" * 16, b"a secret")), SIGNATURE]
STATE = (wire.PROXY_STATE, b"one"), (wire.PROXY_STATE, b"two")


@pytest.mark.parametrize(
    ("asked", "code", "pairs", "complaint"),
    [
        (ask(LOGIN), 2, [SIGNATURE], None),
        (ask(LOGIN), 3, [SIGNATURE, (18, b"no")], None),
        (ask(LOGIN), 5, [SIGNATURE], "code 5 answers 1 on the access port"),
        (ask(LOGIN), 2, [], "the answer does not begin with a Message-Authenticator"),
        (ask(LOGIN), 2, [(18, b"yes"), SIGNATURE], "the answer does not begin with a Message-Authenticator"),
        (ask(WRONG), 2, [SIGNATURE], "an Accept to a login that proves nothing"),
        (ask([*LOGIN, (3, bytes(17))]), 2, [SIGNATURE], "an Accept to a login that proves nothing"),
        (ask([*LOGIN, (79, b"x")]), 2, [SIGNATURE], "an Accept without EAP-Message to a request with one"),
        (ask(LOGIN), 3, [SIGNATURE, (8, bytes(4))], "a Reject with attributes [8]"),
        (ask(LOGIN), 3, [SIGNATURE, (26, b"\0\0\x3a\x8c\x08\x03x")], "a Reject with a vendor's attribute"),
        (ask([*LOGIN, *STATE]), 2, [SIGNATURE, *STATE], None),
        (ask([*LOGIN, *STATE]), 2, [SIGNATURE, *reversed(STATE)], "Proxy-State did not come back"),
        (ask([*LOGIN, *STATE]), 3, [SIGNATURE], "Proxy-State did not come back"),
        (ask(LOGIN[:2]), 3, [SIGNATURE], "answered although this NAS signs its requests"),
        (ask([*LOGIN, SIGNATURE]), 3, [SIGNATURE], "answered although it has several Message-Authenticators"),
        (ask(LOGIN)[:-1] + b"x", 3, [SIGNATURE], "answered although its Message-Authenticator is wrong"),
        (ask(LOGIN) [:-1], 3, [SIGNATURE], "answered although it is malformed"),
        (ask([], wire.STATUS_SERVER), 2, [SIGNATURE], "answered although a Status-Server has no Message-Authenticator"),
        (ask([(79, b"x")]), 3, [SIGNATURE], "answered although it has EAP-Message and no Message-Authenticator"),
        (ask(LOGIN, 43), 3, [SIGNATURE], "answered although code 43 is not one of the access port"),
    ],
)  # fmt: skip
def test_the_judge_knows_a_right_answer_from_a_wrong_one(
    asked: bytes, code: int, pairs: wire.Pairs, complaint: str | None
) -> None:
    found = JUDGE.complaint(asked, NAS, "access", answer(asked, code, pairs))
    assert (found or "").startswith(complaint or ""), found
    assert (found is None) == (complaint is None)


def test_the_judge_checks_who_signed_the_answer() -> None:
    asked = ask(LOGIN)
    good = answer(asked, 2, [SIGNATURE])
    for forged in (
        good[:1] + b"\x08" + good[2:],
        good[:4] + bytes(16) + good[20:],
        good[:-1] + bytes((good[-1] ^ 1,)),
        good[:-1],
        good + b"\0",
    ):
        assert JUDGE.complaint(asked, NAS, "access", forged) is not None
    assert (
        JUDGE.complaint(asked, Sender("127.0.0.3", None), "access", good) == "answered although nobody knows the sender"
    )
