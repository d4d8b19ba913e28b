"""Every way a command can end badly: its code, one line, no secret."""

from __future__ import annotations

import pytest

from sms_aaa.cli.exits import Exit, Failure
from sms_aaa.cli.verbs import guarded
from sms_aaa.config import key_path, load_settings

MARK = "MARKED"


def one_line(answer) -> str:
    assert answer.out == ""
    [line] = answer.err.splitlines()
    assert line.startswith("sms-aaa: ")
    assert "; " in line
    return line


@pytest.mark.parametrize(
    "words",
    [["nas", "list"], ["plan", "list"], ["subscriber", "list"], ["sessions"], ["usage", "alice"], ["explain", "alice"],
     ["reconcile"], ["ledger", "list"], ["ledger", "balance"], ["db", "status"], ["db", "check"], ["db", "upgrade"]],
)  # fmt: skip
def test_without_daemon_and_dsn_the_remedy_is_to_start_it(lonely, words):
    answer = lonely.type(*words)
    assert answer.code == Exit.UNAVAILABLE
    assert "the embedded database runs while `sms-aaa serve` does; start it" in one_line(answer)


def test_status_without_a_daemon_is_unavailable(lonely):
    answer = lonely.type("status")
    assert answer.code == Exit.UNAVAILABLE
    assert "no server runs in " in one_line(answer)


@pytest.mark.parametrize(
    ("dsn", "code", "said"),
    [
        (f"host=127.0.0.1 port=1 password={MARK}", Exit.UNAVAILABLE, "Connection refused"),
        (f"postgresql://sms:p@{MARK}@db.invalid/sms", Exit.INVALID, "write %40 for @"),
        (f"postgresql://sms:{MARK}@127.0.0.1:1/sms", Exit.UNAVAILABLE, "Connection refused"),
        (f"host=/nowhere password={MARK}", Exit.UNAVAILABLE, "/nowhere/"),
        (f"host=127.0.0.1 password=two {MARK}", Exit.INVALID, "a value with spaces stands in single quotes"),
    ],
)
def test_a_database_that_cannot_be_had_says_so_without_the_password(lonely, dsn, code, said):
    answer = lonely.type("nas", "list", SMS_AAA_DATABASE_DSN=dsn)
    assert answer.code == code
    assert said in one_line(answer)
    assert MARK not in answer.err
    # What can be read is checked further and differs; what cannot be is refused at once.
    expected = Exit.DIFFERENT if code == Exit.UNAVAILABLE else Exit.INVALID
    assert lonely.type("config", "check", SMS_AAA_DATABASE_DSN=dsn).code == expected
    assert MARK not in "".join(lonely.transcript)


def test_a_database_without_schema_says_how_to_get_one(lonely, postgres):
    dsn = postgres.dsn_for("postgres")
    answer = lonely.type("nas", "list", SMS_AAA_DATABASE_DSN=dsn)
    assert answer.code == Exit.UNAVAILABLE
    assert "the database has no schema, needed is 0004; run `sms-aaa db upgrade`" in one_line(answer)
    status = lonely.type("db", "status", "--json", SMS_AAA_DATABASE_DSN=dsn).json()
    assert status == {"schema": "empty", "revision": None, "needed": "0004"}
    check = lonely.type("db", "check", "--csv", SMS_AAA_DATABASE_DSN=dsn)
    assert check.code == Exit.DIFFERENT
    assert {row["holds"] for row in check.csv()} == {"false"}
    assert "run `sms-aaa db upgrade`" in check.err


def test_a_setting_that_cannot_be_is_named_with_its_place(lonely, tmp_path):
    file = tmp_path / "sms-aaa.toml"
    file.write_text('[rating]\nzone = "Mars/Olympus"\n')
    answer = lonely.type("--config", str(file), "config", "check")
    assert answer.code == Exit.INVALID
    assert f"{file}: rating.zone" in one_line(answer)
    answer = lonely.type("nas", "list", SMS_AAA_RATING_ZON="UTC")
    assert answer.code == Exit.INVALID
    assert "did you mean SMS_AAA_RATING_ZONE?" in one_line(answer)


def test_a_key_that_others_may_read_is_refused(stocked):
    key = key_path(load_settings(None, stocked.environ))
    key.chmod(0o644)
    answer = stocked.type("credential", "set", "alice", "--password", MARK)
    assert answer.code == Exit.INVALID
    assert f"chmod 600 {key}" in one_line(answer)
    check = stocked.type("config", "check", "--json")
    assert check.code == Exit.DIFFERENT
    assert check.json()[0]["place"] == "database.key_file"


def test_what_nobody_expected_is_named_by_its_place_and_not_by_its_text():
    def stumble():
        raise AssertionError(MARK)

    with pytest.raises(Failure) as caught:
        guarded(stumble)()
    assert caught.value.exit_code == Exit.BUG
    assert "this is a bug: AssertionError at " in caught.value.message
    assert MARK not in caught.value.message


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, EOFError])
def test_an_interrupt_is_an_abort(interrupt):
    def wait():
        raise interrupt

    with pytest.raises(Failure) as caught:
        guarded(wait)()
    assert caught.value.exit_code == Exit.ABORTED
