"""What is dropped in silence is on record: by source and fault, in PostgreSQL, and in the node's files without it."""

from __future__ import annotations

import json
import socket
import time
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner
from daemon import Daemon, FakeNas, started, wait_until
from make import SECRET, Said, make_nas, make_plan, make_subscriber, packet_of, utc

from sms_aaa.cli.main import main
from sms_aaa.node.drops import Drop, DropWindow, list_windows, write_window
from sms_aaa.server.drops import STRANGERS_MAX

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NAS, STRANGER = "127.1.0.1", "127.3.0.9"


@pytest.fixture(scope="module")
def daemon(new_database: Callable[[], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    for running in started(tmp_path_factory.mktemp("drops") / "state", new_database()):
        with running.desk() as desk:
            make_nas(desk, prefix=NAS)
            make_plan(desk, sessions=0)
            make_subscriber(desk)
        with FakeNas(running, address=NAS) as nas:
            wait_until(lambda: nas.login(b"alice", b"wonderland"), "the provisioned rows in the replica")
        yield running


def drops(daemon: Daemon, *words: str, **environ: str) -> dict[tuple[str, str], dict[str, Any]]:
    """`nas drops --json`, by source and fault."""
    runner = CliRunner(env={**daemon.environ, **environ})
    result = runner.invoke(main, ["nas", "drops", *words, "--json"], prog_name="sms-aaa")
    assert result.exit_code == 0, result.output
    return {(row["source"], row["fault"]): row for row in json.loads(result.stdout)}


def test_a_wrong_secret_a_stranger_and_garbage_are_told_by_source_and_fault(daemon: Daemon) -> None:
    with FakeNas(daemon, secret=b"not the secret", patience=0.1, address=NAS) as wrong:
        for _ in range(3):
            assert wrong.login(b"alice", b"wonderland") is None
        assert wrong.account(packet_of(Said(status="start", at=utc("2026-01-31T12:00")))[:-1] + b"x") is None
        port = wrong.socket.getsockname()[1]
    with FakeNas(daemon, patience=0.1, address=STRANGER) as stranger:
        assert stranger.login(b"alice", b"wonderland") is None
        stranger.send(b"garbage", daemon.access_port)
        assert stranger.receive() is None
    expected = {
        (NAS, "message-authenticator-invalid"),
        (NAS, "bad-request-authenticator"),
        (STRANGER, "unknown-nas"),
        (STRANGER, "too-short"),
    }
    wait_until(lambda: expected <= set(drops(daemon)), "the drop log", 10)
    told = drops(daemon)[NAS, "message-authenticator-invalid"]
    assert (told["nas"], told["packets"], told["last_port"]) == ("bng1", 3, port)
    assert drops(daemon)[STRANGER, "unknown-nas"]["nas"] is None
    assert set(drops(daemon, "bng1")) == {key for key in expected if key[0] == NAS}
    stored = "select address, fault from nas_drop"
    wait_until(lambda: expected <= set(daemon.query(stored)), "the drops in the database", 10)
    labels = [name for name in daemon.metrics() if STRANGER in name or "127.3" in name]
    assert labels == [], "an address that anybody can make up is no label"
    away = drops(daemon, SMS_AAA_DATABASE_DSN="postgresql://nobody@127.0.0.1:9/none")
    assert {key: row["packets"] for key, row in away.items()} == {k: r["packets"] for k, r in drops(daemon).items()}


def test_what_was_dropped_while_the_database_was_away_is_stored_later_and_its_file_goes(
    daemon: Daemon,
) -> None:
    [(database_id,)] = daemon.query("select replace(database_id::text, '-', '') from installation")
    began_at = int(time.time()) - 3_600
    drop = Drop("203.0.113.9", "unknown-nas", 0, 4, began_at * 10**9, (began_at + 60) * 10**9, 1812)
    foreign = DropWindow("another database", "access-9", began_at, [drop])
    for window in (DropWindow(str(database_id), "access-1", began_at, [drop]), foreign):
        assert write_window(daemon.folder, window) is None
    told = "select node, worker, packets, last_port from nas_drop where address = '203.0.113.9'"
    wait_until(lambda: daemon.query(told) == [("node1", "access-1", 4, 1812)], "the old window in the database", 10)
    wait_until(lambda: all(key[0] != began_at for key in list_windows(daemon.folder)), "its file to go", 10)
    assert drops(daemon, "203.0.113.9", "--since", "2h")["203.0.113.9", "unknown-nas"]["packets"] == 4


def test_a_flood_from_many_addresses_is_bounded_and_the_nas_is_still_named(daemon: Daemon) -> None:
    for number in range(600):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as flood:
            flood.bind((f"127.4.{number >> 8}.{number & 255}", 0))
            flood.sendto(b"flood", ("127.0.0.1", daemon.access_port))
    with FakeNas(daemon, secret=b"not the secret", patience=0.1, address=NAS) as wrong:
        assert wrong.login(b"alice", b"wonderland") is None

    def floods() -> list[dict[str, Any]]:
        garbage = [row for row in drops(daemon, "--limit", "9999").values() if row["fault"] == "too-short"]
        return [row for row in garbage if row["source"] != STRANGER]

    wait_until(lambda: sum(row["packets"] for row in floods()) == 600, "all of them", 10)
    wait_until(lambda: drops(daemon, NAS), "the NAS by its name", 10)
    named = [row for row in floods() if row["source"] != "others"]
    assert len(named) <= 2 * STRANGERS_MAX, "so many of each worker are named, and no more"
    assert sum(row["packets"] for row in named) < 600
    with FakeNas(daemon, secret=SECRET, address=NAS) as nas:
        assert nas.login(b"alice", b"wonderland") is not None
