"""An import into a database that a node serves from: logins go on, and what is imported is live."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from daemon import FakeNas, started, wait_until
from make import make_nas, make_plan, make_subscriber

from sms_aaa.radius.packet import Code

if TYPE_CHECKING:
    import pytest

ROWS = 6_000  # three batches


def test_logins_go_on_while_thousands_are_imported_who_are_let_in_then(
    tmp_path: Path, database_dsn: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path / "customers.csv"
    rows = "".join(f"s{number},password {number},home-100\n" for number in range(ROWS))
    file.write_text("name,password,plan\n" + rows)
    for daemon in started(tmp_path_factory.mktemp("daemon") / "state", database_dsn):
        with daemon.desk() as desk:
            make_nas(desk)
            make_plan(desk, sessions=0)
            make_subscriber(desk, name="bob", password=b"bob-password")
        with FakeNas(daemon) as nas:

            def accepted(name: bytes, password: bytes) -> bool:
                reply = nas.login(name, password)
                return reply is not None and reply.code == Code.ACCESS_ACCEPT

            wait_until(lambda: accepted(b"bob", b"bob-password"), "the replica with bob")
            command = [Path(sys.executable).with_name("sms-aaa"), "subscriber", "import", str(file)]
            with subprocess.Popen(command, env=daemon.environ, stdout=subprocess.DEVNULL) as importing:
                logins = [accepted(b"bob", b"bob-password")]
                while importing.poll() is None:
                    logins.append(accepted(b"bob", b"bob-password"))
            assert importing.returncode == 0
            assert all(logins), f"{logins.count(False)} of {len(logins)} logins were lost"
            assert len(logins) > 20
            for number in (0, ROWS // 2, ROWS - 1):
                wait_until(
                    lambda number=number: accepted(f"s{number}".encode(), f"password {number}".encode()),
                    "the imported on the running workers",
                    20,
                )
