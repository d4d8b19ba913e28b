"""What an accounting record costs in its worker, part by part: microseconds a record, and the share of the disk.

`python tests/bench/bench_record.py [--folder DIR] [--batch N]`. In this process over a loopback socket, with a journal
that is really synced in DIR (default: a temporary folder; on a tmpfs the syncs cost nothing). The records carry our
Class: Start, Interim and Stop of many sessions, as a NAS sends them. Compare figures of one run only: a machine's speed
is another the next minute.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from sms_aaa.flows.access import encode_class
from sms_aaa.flows.accounting import (
    AccountingRequest,
    apply_to_live_set,
    find_logins,
    leave_out_known,
    pack_requests,
    reply_to,
)
from sms_aaa.flows.tables import Tables
from sms_aaa.flows.vault import Vault
from sms_aaa.node.board import COUNTERS_PER_SLOT
from sms_aaa.node.frames import pack_records
from sms_aaa.node.journal import Appended, Stream, Writer, make_folder
from sms_aaa.node.live import ENTRIES_PER_CHANGE, LiveSet
from sms_aaa.radius import dictionary
from sms_aaa.radius.digest import SecretDigests, verify
from sms_aaa.radius.packet import Code, attribute, integer, parse
from sms_aaa.rules.entitlement import Dialect, MessageAuthenticatorPolicy, NodeNas
from sms_aaa.rules.secret import Secret
from sms_aaa.server.dispatch import Asked, Dispatcher
from sms_aaa.server.drops import DropLog
from sms_aaa.server.duplicates import DuplicateCache
from sms_aaa.server.gate import Admitted, Gate
from sms_aaa.server.signers import Signers
from sms_aaa.server.sockets import Endpoint

SECRET = b"testing123"
SESSIONS, ROUNDS, PORTS = 8_192, 5, 16
_START, _STOP, _INTERIM = 1, 2, 3


def make_records() -> list[bytes]:
    """Start, then two Interims, then Stop of each session; many sessions at once."""
    digests = SecretDigests(SECRET)
    return [
        digests.request(
            Code.ACCOUNTING_REQUEST,
            session // PORTS & 255,
            bytes(16),
            _attributes(session, status, step),
            message_authenticator=False,
        )
        for step, status in enumerate((_START, _INTERIM, _INTERIM, _STOP))
        for session in range(SESSIONS)
    ]


def _attributes(session: int, status: int, step: int) -> bytes:
    number = b"%02X-%02X" % (session >> 8 & 255, session & 255)
    said = [
        (dictionary.USER_NAME, b"user%07d" % session),
        (dictionary.NAS_IP_ADDRESS, bytes((127, 0, 0, 1))),
        (dictionary.NAS_PORT, integer(session)),
        (dictionary.SERVICE_TYPE, integer(2)),
        (dictionary.FRAMED_PROTOCOL, integer(1)),
        (dictionary.FRAMED_IP_ADDRESS, (0x0A000000 + session).to_bytes(4, "big")),
        (dictionary.CLASS, encode_class(session + 1, session.to_bytes(8, "big"))),
        (dictionary.CALLING_STATION_ID, b"02-00-00-00-" + number),
        (dictionary.NAS_IDENTIFIER, b"bench-nas"),
        (dictionary.ACCT_STATUS_TYPE, integer(status)),
        (dictionary.ACCT_SESSION_ID, b"%016x" % session),
        (dictionary.EVENT_TIMESTAMP, integer(int(time.time()) + 300 * step)),
        (dictionary.ACCT_SESSION_TIME, integer(300 * step)),
        (dictionary.ACCT_INPUT_OCTETS, integer(1_000_000 * step)),
        (dictionary.ACCT_OUTPUT_OCTETS, integer(5_000_000 * step)),
    ]
    return b"".join(attribute(key, value) for key, value in said)


class Bench:
    """The pieces of an accounting worker, without its loop."""

    def __init__(self, root: Path) -> None:
        vault = Vault(bytes(32))
        sealed = vault.seal_nas_secret(Secret(SECRET), 1, nonce=os.urandom(12))
        nas = NodeNas(1, "bench", "127.0.0.1/32", [sealed], Dialect.MIKROTIK, MessageAuthenticatorPolicy.AUTO, 3799)
        self.tables = Tables([nas], (), vault)
        live, folder = LiveSet.open(root, boot_id="bench"), make_folder(root / "journal", Stream.ACCOUNTING)
        assert isinstance(live, LiveSet)
        assert isinstance(folder, Path)
        self.root, self.live = root, live
        self.journal = Writer(folder, Stream.ACCOUNTING, bytes(16), None, synced=True)
        self.counters = memoryview(bytearray(8 * COUNTERS_PER_SLOT)).cast("Q")
        server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 24)
        server.bind(("127.0.0.1", 0))
        self.endpoint = Endpoint(server)
        self.peers = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(PORTS)]
        for peer in self.peers:
            peer.connect(server.getsockname())

    def run(self, records: list[bytes], batch: int) -> dict[str, float]:
        """Seconds by part."""
        cache = DuplicateCache(10)
        gate = Gate(
            code=Code.ACCOUNTING_REQUEST,
            tables=self.tables,
            cache=cache,
            counters=self.counters,
            signers=Signers(self.counters, self.root, name="bench", database_id=bytes(16)),
            drops=DropLog(self.root, name="bench", database_id=bytes(16)),
        )
        gate.use(self.tables)
        dispatcher, spent = Dispatcher(cache), defaultdict[str, float](float)
        for start in range(0, len(records), batch):
            for at, record in enumerate(records[start : start + batch]):
                self.peers[at % PORTS].send(record)
            self._batch(gate, dispatcher, spent)
            for peer in self.peers:
                _empty(peer)
        return spent

    def _batch(self, gate: Gate, dispatcher: Dispatcher, spent: dict[str, float]) -> None:
        marks = [time.perf_counter()]
        arrivals = self.endpoint.drain(1024)
        marks.append(time.perf_counter())
        asked = []
        for data, source, way_back in arrivals:
            admitted = gate.admit(data, source)
            assert isinstance(admitted, Admitted)
            asked.append(Asked(admitted, way_back))
        marks.append(time.perf_counter())
        requests = [
            AccountingRequest(one.packet, one.nas, one.digests, one.entry.key[0], one.entry.key[1])
            for one in (one.admitted for one in asked)
        ]
        payloads = pack_requests(requests, now_ns=time.time_ns())
        marks.append(time.perf_counter())
        synced = _Watched()
        with synced:
            assert isinstance(self.journal.append(payloads, time.time_ns()), Appended)
        marks.append(time.perf_counter())
        logins, now = find_logins(requests), int(time.time())
        marks.append(time.perf_counter())
        with self.live.look() as view:
            logins = leave_out_known(logins, view, until=now + 900)
        marks.append(time.perf_counter())
        for at in range(0, len(logins), ENTRIES_PER_CHANGE):
            with self.live.write() as change:
                apply_to_live_set(logins[at : at + ENTRIES_PER_CHANGE], change, until=now + 1350)
            assert change.fault is None
        marks.append(time.perf_counter())
        replies = [(one, reply_to(request)) for one, request in zip(asked, requests, strict=True)]
        marks.append(time.perf_counter())
        dispatcher.answer_all(self.endpoint, replies)
        marks.append(time.perf_counter())
        steps = (
            "drain",
            "gate",
            "payloads",
            "journal, but the sync",
            "find logins",
            "look",
            "live set",
            "replies",
            "send",
        )
        for step, began, ended in zip(steps, marks, marks[1:], strict=False):
            spent[step] += ended - began
        spent["journal, but the sync"] -= synced.seconds
        spent["fdatasync"] += synced.seconds


class _Watched:
    """How long fdatasync took inside the block."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._real = os.fdatasync

    def __enter__(self) -> None:
        def fdatasync(fd: int) -> None:
            began = time.perf_counter()
            self._real(fd)
            self.seconds += time.perf_counter() - began

        os.fdatasync = fdatasync  # type: ignore[assignment] # a bench's own stopwatch

    def __exit__(self, *_: object) -> None:
        os.fdatasync = self._real


def _empty(peer: socket.socket) -> None:
    try:
        while True:
            peer.recv(4096, socket.MSG_DONTWAIT)
    except BlockingIOError:
        pass


def time_pieces(records: list[bytes]) -> dict[str, float]:
    """Seconds of what the parts are made of."""
    digests = SecretDigests(SECRET)
    marks = [time.perf_counter()]
    packets = [parse(record) for record in records]
    marks.append(time.perf_counter())
    faults = [verify(packet, digests, message_authenticator_required=False) for packet in packets]  # type: ignore[arg-type] # all are sound
    marks.append(time.perf_counter())
    pack_records(records, offset=64, seed=1)
    marks.append(time.perf_counter())
    assert not any(faults)
    steps = ("gate: parse", "gate: verify", "journal: framing")
    return {step: ended - began for step, began, ended in zip(steps, marks, marks[1:], strict=False)}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", help="where the journal is written and synced")
    parser.add_argument("--batch", type=int, default=256, help="records that are drained at once (default 256)")
    words = parser.parse_args()
    records = make_records()
    best: dict[str, float] = {}
    with tempfile.TemporaryDirectory(dir=words.folder) as folder:
        bench = Bench(Path(folder))
        for _ in range(ROUNDS):
            spent = bench.run(records, words.batch)
            whole = sum(spent.values())
            spent |= {"all": whole, "all but fdatasync": whole - spent["fdatasync"], **time_pieces(records)}
            for step, seconds in spent.items():
                best[step] = min(best.get(step, seconds), seconds)
    for step, seconds in best.items():
        sys.stdout.write(f"record, {step:<22} {seconds / len(records) * 1e6:7.2f} us\n")


if __name__ == "__main__":
    main()
