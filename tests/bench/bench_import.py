"""Subscribers in bulk through the command line: rows a second and memory; what a login costs while an import runs.

Run by hand: `python tests/bench/bench_import.py [rows]`. Everything is there: sealed passwords with their NT hash, an
address, contacts, a synced PostgreSQL. The daemon and its NAS share the machine with the import.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from daemon import Daemon, FakeNas, wait_until
from make import make_nas, make_plan, make_subscriber

from sms_aaa.radius.packet import Code

ROWS = 100_000
BEFORE_SECONDS = 5.0
PAUSE_SECONDS = 0.005
"""Between two logins, one after the other: it is the latency that is looked at."""


def main() -> None:
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else ROWS
    with tempfile.TemporaryDirectory() as folder:
        daemon = Daemon(Path(folder) / "state", dsn=None).start()
        try:
            with daemon.desk() as desk:
                make_nas(desk)
                make_plan(desk, sessions=0)
                make_subscriber(desk, name="bob", password=b"bob-password")
            bench(daemon, Path(folder), rows)
        finally:
            daemon.stop()


def bench(daemon: Daemon, folder: Path, rows: int) -> None:
    file, out = folder / "customers.csv", folder / "out.csv"
    write_file(file, rows)
    with FakeNas(daemon) as nas:
        wait_until(lambda: login(nas, b"bob", b"bob-password")[1], "the replica with bob")
        time_logins("logins before", nas)
        run(daemon, "import --dry-run", rows, str(file), "--dry-run")
        time_logins("logins meanwhile", nas, command(daemon, "import", str(file)), rows)
        began, last = time.monotonic(), rows - 1
        wait_until(lambda: login(nas, f"s{last:07d}".encode(), f"Pass-word{last}".encode())[1], "the last", 300)
        print(f"{'the last is let in after':28} {time.monotonic() - began:8.2f} s")
    run(daemon, "import --update", rows, str(file), "--update")
    run(daemon, "export", rows, str(out), "--with-passwords", "--yes")


def write_file(file: Path, rows: int) -> None:
    with file.open("w") as out:
        out.write("name,password,plan,full_name,email,phone,static_ipv4,zone,anchor_day\n")
        for n in range(rows):
            address = f"10.{n >> 16 & 255}.{n >> 8 & 255}.{n & 255}"
            contact = f"Somebody Number {n},s{n}@example.org,+49 30 {n}"
            out.write(f"s{n:07d},Pass-word{n},home-100,{contact},{address},Europe/Berlin,{n % 28 + 1}\n")


def command(daemon: Daemon, verb: str, *words: str) -> subprocess.Popen[bytes]:
    program = Path(sys.executable).with_name("sms-aaa")
    return subprocess.Popen(
        [program, "subscriber", verb, *words], env=daemon.environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def run(daemon: Daemon, title: str, rows: int, *words: str) -> None:
    began = time.monotonic()
    report(title, rows, began, command(daemon, title.partition(" ")[0], *words))


def report(title: str, rows: int, began: float, process: subprocess.Popen[bytes]) -> None:
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, f"{title} ended with {process.returncode}"
    took = time.monotonic() - began
    print(f"{title:28} {took:8.1f} s  {rows / took:8.0f} rows/s  peak memory {usage.ru_maxrss / 1024:.0f} MB")


def login(nas: FakeNas, name: bytes, password: bytes) -> tuple[float, bool]:
    began = time.perf_counter()
    reply = nas.login(name, password)
    return time.perf_counter() - began, reply is not None and reply.code == Code.ACCESS_ACCEPT


def time_logins(title: str, nas: FakeNas, process: subprocess.Popen[bytes] | None = None, rows: int = 0) -> None:
    """For some seconds, or until the process has ended."""
    began, logins = time.monotonic(), []
    while is_on(process, began):
        logins.append(login(nas, b"bob", b"bob-password"))
        time.sleep(PAUSE_SECONDS)
    if process is not None:
        report("import", rows, began, process)
    spans = sorted(span for span, _ in logins)
    lost = sum(not accepted for _, accepted in logins)
    middle, late = spans[len(spans) // 2], spans[len(spans) * 99 // 100]
    print(f"{title:28} {len(spans):8} of them, {lost} lost, p50 {middle * 1000:.2f} ms, p99 {late * 1000:.2f} ms")


def is_on(process: subprocess.Popen[bytes] | None, began: float) -> bool:
    if process is None:
        return time.monotonic() - began < BEFORE_SECONDS
    # Not reaped: report() asks what it used.
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


if __name__ == "__main__":
    main()
