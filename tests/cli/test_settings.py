"""`config` and `db`."""

from __future__ import annotations

import pytest

from sms_aaa.cli.exits import Exit
from sms_aaa.db import positions
from sms_aaa.db.engine import connect


def test_every_setting_is_shown_and_passwords_are_masked(lonely):
    dsn = "postgresql://sms:MARKED@db.example.net/sms"
    shown = lonely.type("config", "show", "--json", SMS_AAA_DATABASE_DSN=dsn).json()
    assert shown["database"]["dsn"] == "postgresql://sms:***@db.example.net/sms"
    assert shown["access"]["listen"] == ["0.0.0.0:1812", "[::]:1812"]
    rows = {
        row["setting"]: row["value"] for row in lonely.type("config", "show", "--csv", SMS_AAA_DATABASE_DSN=dsn).csv()
    }
    assert rows["access.listen"] == "0.0.0.0:1812, [::]:1812"
    assert rows["database.dsn"] == shown["database"]["dsn"]
    assert "rating.currency " in lonely.done("config", "show", SMS_AAA_DATABASE_DSN=dsn)
    assert "MARKED" not in "".join(lonely.transcript)


def test_settings_that_fit_the_machine_pass(terminal, lonely):
    assert terminal.done("config", "check") == "the settings are right, and the machine fits them\n"
    assert lonely.type("config", "check", "--json").json() == []


def test_a_state_folder_that_cannot_be_is_found(lonely, tmp_path):
    (tmp_path / "file").write_text("")
    answer = lonely.type("config", "check", SMS_AAA_NODE_STATE_FOLDER=str(tmp_path / "file" / "state"))
    assert answer.code == Exit.DIFFERENT
    assert answer.out.startswith("node.state_folder: this user cannot write in ")


def test_the_schema_is_upgraded_once(lonely, postgres):
    with connect(postgres.dsn, name="test") as connection:
        connection.autocommit = True
        connection.execute("create database upgraded")
    environ = {"SMS_AAA_DATABASE_DSN": postgres.dsn_for("upgraded")}
    try:
        assert lonely.done("db", "upgrade", **environ) == "the schema is 0004 now; it was empty\n"
        assert lonely.done("db", "upgrade", **environ) == "the schema is 0004 already\n"
        with connect(postgres.dsn_for("upgraded"), name="test") as connection:
            connection.execute("update alembic_version set version_num = '9999'")
        answer = lonely.type("db", "upgrade", **environ)
        assert answer.code == Exit.CONFLICT
        assert "schema 9999, which this program does not know" in answer.err
    finally:
        with connect(postgres.dsn, name="test") as connection:
            connection.autocommit = True
            connection.execute("drop database upgraded with (force)")


def test_a_record_in_quarantine_fails_the_check(terminal, database_dsn):
    assert terminal.done("db", "status").splitlines()[0] == "schema    current"
    assert {row["holds"] for row in terminal.type("db", "check", "--csv").csv()} == {"true"}
    with connect(database_dsn, name="test") as connection:
        positions.insert_quarantine(connection, "node1", 1, 7, 64, reason="unknown-nas", raw=b"x")
    answer = terminal.type("db", "check")
    assert answer.code == Exit.DIFFERENT
    assert "quarantine    no     1 records" in answer.out


def test_a_table_that_cannot_be_read_fails_the_check(terminal, database_dsn):
    with connect(database_dsn, name="test") as connection:
        connection.execute("alter table rating_queue rename to elsewhere")
    rows = {row["check"]: row for row in terminal.type("db", "check", "--json").json()}
    assert (rows["rating queue"]["holds"], rows["rating queue"]["found"]) == (False, "cannot be read")
    assert rows["quarantine"]["holds"]


@pytest.mark.parametrize("words", [["config"], ["db"], ["nas"], ["plan"], ["subscriber"], ["credential"]])
def test_a_group_without_a_verb_shows_its_verbs(lonely, words):
    answer = lonely.type(*words)
    assert answer.code == Exit.INVALID
    assert "Commands:" in answer.err
