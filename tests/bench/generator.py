"""The load generator of the benches: our own C program when it can be built here, else the simulator of `sms-aaa load`.

Python asks some 10,000 times a second and cannot tell fast servers apart: then the figures are marked as the
generator's limit.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

SOURCES = Path(__file__).parent / "radload"
SMS_AAA = Path(sys.executable).with_name("sms-aaa")
WINDOW = 256
WARM_UP_SECONDS = 1.0
BUILD_SECONDS_MAX = 60
OVERTIME_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Measured:
    """One run. Latencies from the first try of a request; `behind_ms`: how late the generator itself was at worst."""

    rate: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    accepted: int
    rejected: int
    lost: int
    retransmissions: int
    unverified: int = 0
    behind_ms: float = 0.0
    cpu_seconds: float = 0.0

    @property
    def flaw(self) -> str | None:
        """What makes the run worthless as a measurement: something else than acceptance was answered."""
        if self.rejected or self.unverified or not self.accepted:
            return f"{self.accepted} accepted, {self.rejected} rejected, {self.unverified} unverified"
        return None


class CGenerator:
    """radload/load.c. Methods: pap, chap, mschap2, acct."""

    name = "radload (C)"

    def __init__(self, folder: Path, secret: bytes) -> None:
        self._folder = folder
        self._secret = secret.decode()

    def run(
        self,
        port: int,
        method: str,
        *,
        users: int,
        seconds: float,
        rate: float = 0.0,
        window: int = WINDOW,
        signed: bool = True,
        warm_up: float = WARM_UP_SECONDS,
        interims: int = 1,
    ) -> Measured:
        words = ["-p", port, "-s", self._secret, "-m", method, "-u", users, "-d", seconds, "-x", warm_up]
        words += ["-w", window, "-r", rate, "-i", interims, *([] if signed else ["-n"])]
        done = subprocess.run(
            [str(self._folder / "load"), *map(str, words)],
            capture_output=True,
            text=True,
            check=True,
            timeout=warm_up + seconds + OVERTIME_SECONDS,
        )
        said = json.loads(done.stdout)
        return Measured(**{name: said[name] for name in Measured.__dataclass_fields__})

    @contextmanager
    def floor(self, port: int, workers: int) -> Iterator[None]:
        """A responder that only signs, on `port` while the block runs."""
        process = subprocess.Popen([str(self._folder / "floor"), str(port), str(workers), self._secret])
        try:
            yield
        finally:
            process.kill()  # its own children die with it
            process.wait()


class SimulatorGenerator:
    """`sms-aaa load`, where no C compiler or no libcrypto is there to build against."""

    name = "sms-aaa load (Python: its own limit is near 10,000/s)"

    def __init__(self, secret: bytes) -> None:
        self._secret = secret.decode()

    def run(
        self,
        port: int,
        method: str,
        *,
        users: int,
        seconds: float,
        rate: float = 0.0,
        window: int = WINDOW,
        signed: bool = True,
        warm_up: float = WARM_UP_SECONDS,
        interims: int = 1,
    ) -> Measured:
        """There is no warm-up to leave out: the simulator is the slower one anyway; its sessions have one interim."""
        words = ["--profile", "accounting" if method == "acct" else "login", "--count", 10_000_000]
        words += [] if method == "acct" else ["--method", method]
        words += ["--auth-port", port, "--acct-port", port, "--users", "user%07d", "--password", "pw%07d"]
        words += ["--subscribers", users - 1, "--seconds", seconds, "--window", window, "--rate", rate]
        words += [] if signed else ["--no-message-authenticator"]
        done = subprocess.run(
            [SMS_AAA, "load", "--json", "--secret-stdin", *map(str, words)],
            input=self._secret,
            capture_output=True,
            text=True,
            check=False,
            timeout=seconds + OVERTIME_SECONDS,
        )
        if not done.stdout:
            raise RuntimeError(f"sms-aaa load: {done.stderr}")
        said = json.loads(done.stdout)
        return Measured(
            rate=said["answered_per_second"],
            p50_ms=(said["p50_us"] or 0) / 1000,
            p99_ms=(said["p99_us"] or 0) / 1000,
            max_ms=(said["max_us"] or 0) / 1000,
            accepted=said.get("access_accept", 0) + said.get("accounting_response", 0),
            rejected=said.get("access_reject", 0),
            lost=said["lost"],
            retransmissions=said["retransmissions"],
        )


def make_generator(folder: Path, secret: bytes) -> CGenerator | SimulatorGenerator:
    """Builds the C programs into `folder`; says on the way what it has to do without."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        print("no C compiler here (Debian: gcc): measuring with the Python simulator")
        return SimulatorGenerator(secret)
    for program in ("load", "floor"):
        built = subprocess.run(
            [compiler, "-O2", "-Wall", str(SOURCES / f"{program}.c"), "-lcrypto", "-o", str(folder / program)],
            capture_output=True,
            text=True,
            check=False,
            timeout=BUILD_SECONDS_MAX,
        )
        if built.returncode != 0:
            first = next((line for line in built.stderr.splitlines() if "error" in line), built.stderr[:200])
            print(f"radload cannot be built (Debian: libssl-dev): {first}\nmeasuring with the Python simulator")
            return SimulatorGenerator(secret)
    return CGenerator(folder, secret)
