"""The same stored text, the same password: what FreeRADIUS's rlm_pap lets in we let in, and neither lets in another.

A migration rests on this: every text of `hashed.STORED` that FreeRADIUS has a form for is given to both.
"""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING, NamedTuple

import pytest
from daemon import Daemon, FakeNas, free_port, wait_until
from hashed import STORED, Stored
from make import SECRET, make_nas, make_plan, make_subscriber

from sms_aaa.flows.provisioning.credentials import read_credential, set_credential
from sms_aaa.radius.hashes import Form
from sms_aaa.radius.packet import Code, Packet, parse
from sms_aaa.rules.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.peers

FREERADIUS = shutil.which("freeradius") or "/usr/sbin/freeradius"
# FreeRADIUS 3.2 has neither argon2 nor scrypt, and of PBKDF2 not the ways of Django and OpenLDAP; of passlib's it wants
# a padding that passlib does not write.
FOREIGN = {"pbkdf2-django", "pbkdf2-openldap", "pbkdf2-passlib-1", "pbkdf2-passlib-256", "crypt-2a-django"}
KNOWN_TO_BOTH = [one for one in STORED if one.form not in (Form.ARGON2, Form.SCRYPT) and one.name not in FOREIGN]

CONFIG = """
prefix = /usr
logdir = {folder}
run_dir = {folder}
pidfile = {folder}/pid
libdir = /usr/lib/freeradius
proxy_requests = no
security {{
  allow_core_dumps = no
}}
thread pool {{
  start_servers = 1
  max_servers = 2
  min_spare_servers = 1
  max_spare_servers = 1
}}
client local {{
  ipaddr = 127.0.0.1
  secret = "{secret}"
}}
modules {{
  pap {{
    normalise = yes
  }}
  files {{
    usersfile = {folder}/users
  }}
}}
server plain {{
  listen {{
    type = auth
    ipaddr = 127.0.0.1
    port = {port}
  }}
  authorize {{
    files
    pap
  }}
  authenticate {{
    Auth-Type PAP {{
      pap
    }}
  }}
}}
"""


class Both(NamedTuple):
    us: Daemon
    freeradius_port: int


def users_line(one: Stored) -> str:
    has_header = one.text.startswith("{") or one.name == "ssha-in-base64"
    attribute = "Password-With-Header" if has_header or one.form is Form.PBKDF2 else "Crypt-Password"
    header = "" if has_header or one.form is not Form.PBKDF2 else "{X-PBKDF2}"
    return f'{one.name} {attribute} := "{header}{one.text}"\n'


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    us = Daemon(tmp_path_factory.mktemp("forms") / "state", dsn=None).start()
    folder, port = tmp_path_factory.mktemp("freeradius"), free_port()
    (folder / "radiusd.conf").write_text(CONFIG.format(folder=folder, secret=SECRET.decode(), port=port))
    (folder / "users").write_text("".join(map(users_line, KNOWN_TO_BOTH)))
    try:
        with us.desk() as desk:
            make_nas(desk)
            make_plan(desk, sessions=0)
            for one in KNOWN_TO_BOTH:
                make_subscriber(desk, name=one.name, password=b"something else")
                set_credential(desk, one.name, read_credential(Secret(one.text.encode()), None))
        with running_freeradius(folder), FakeNas(us, patience=0.3) as nas:
            last = KNOWN_TO_BOTH[-1]
            wait_until(lambda: nas.login(last.name.encode(), last.password), "the replica with the provisioned rows")
            yield Both(us, port)
    finally:
        us.stop()


class running_freeradius:  # noqa: N801 - used as a function
    def __init__(self, folder: Path) -> None:
        self.folder, self.log = folder, folder / "log"

    def __enter__(self) -> None:
        with self.log.open("wb") as out:
            self.process = subprocess.Popen(
                [FREERADIUS, "-d", self.folder, "-f", "-l", "stdout"], stdout=out, stderr=out
            )
        wait_until(lambda: "Ready to process" in self.log.read_text(), "FreeRADIUS to be ready")

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(20)


def codes(both: Both, name: str, password: bytes) -> list[int]:
    answered = []
    with FakeNas(both.us, patience=10) as nas:
        for port in (both.us.access_port, both.freeradius_port):
            nas.send(nas.login_request(name.encode(), password), port)
            reply = nas.receive()
            assert reply is not None, f"port {port} is silent"
            packet = parse(reply)
            assert isinstance(packet, Packet)
            answered.append(int(packet.code))
    return answered


@pytest.mark.parametrize("one", KNOWN_TO_BOTH, ids=lambda one: one.name)
def test_both_let_in_by_the_same_text_and_password_and_by_no_other(both: Both, one: Stored) -> None:
    assert codes(both, one.name, one.password) == [Code.ACCESS_ACCEPT] * 2
    assert codes(both, one.name, b"x" + one.password) == [Code.ACCESS_REJECT] * 2
    assert codes(both, one.name, one.password[1:]) == [Code.ACCESS_REJECT] * 2
