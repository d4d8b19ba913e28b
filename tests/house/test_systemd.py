"""systemd itself reads the unit: every directive is known and the service stays locked up."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

UNIT = Path(__file__).parents[2] / "systemd" / "sms-aaa.service"
EXPOSURE_TENTHS_MAX = 20  # of 100; what is left is that a RADIUS server must be reachable

pytestmark = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit, with a program that exists on this machine."""
    text = UNIT.read_text()
    assert "ExecStart=/usr/bin/sms-aaa serve\n" in text
    copy = tmp_path / UNIT.name
    copy.write_text(text.replace("/usr/bin/sms-aaa", "/bin/true"))
    return copy


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["systemd-analyze", *arguments], check=False, capture_output=True, text=True)


def test_systemd_accepts_the_unit_without_a_word_about_it(unit):
    answer = analyze("verify", "--man=no", unit)
    # Other units of the machine may be complained about: ours may not.
    assert UNIT.name not in answer.stderr
    assert answer.returncode == 0, answer.stderr


def test_a_mistake_in_the_unit_would_be_seen(unit):
    unit.write_text(unit.read_text().replace("ProtectHome=", "ProtectHouse="))
    assert "ProtectHouse" in analyze("verify", "--man=no", unit).stderr


def test_the_service_is_locked_up(unit):
    answer = analyze("security", "--offline=true", f"--threshold={EXPOSURE_TENTHS_MAX}", unit)
    if "unrecognized option" in answer.stderr:
        pytest.skip("systemd before 250 cannot judge a file")
    assert answer.returncode == 0, answer.stdout
