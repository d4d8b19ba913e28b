"""Settings: every source, every refusal, and what `config show` may show."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict

from sms_aaa import config
from sms_aaa.config import (
    LogLevel,
    Settings,
    SettingsError,
    default_state_folder,
    key_path,
    load_settings,
    masked,
    parse_listen,
)
from sms_aaa.db.dsn import masked_dsn
from sms_aaa.rules.secret import Secret

HERE = {"SMS_AAA_NODE_STATE_FOLDER": "/srv/sms"}


@pytest.fixture(autouse=True)
def _no_file_of_this_machine(monkeypatch, tmp_path):
    monkeypatch.setattr(config, "DEFAULT_PATH", str(tmp_path / "etc.toml"))


def write(tmp_path: Path, text: str) -> str:
    path = tmp_path / "sms-aaa.toml"
    path.write_text(text)
    return str(path)


def refusal(path: str | None = None, **environ: str) -> SettingsError:
    with pytest.raises(SettingsError) as caught:
        load_settings(path, environ)
    assert str(caught.value) == f"{caught.value.place}: {caught.value.reason}; {caught.value.remedy}"
    return caught.value


def test_without_file_and_environment_all_defaults_hold():
    loaded = load_settings(None, {})
    assert loaded.access == Settings().access
    assert loaded.access.listen == ("0.0.0.0:1812", "[::]:1812")
    assert loaded.database.embedded
    assert loaded.log.level is LogLevel.INFO


def test_the_environment_wins_over_the_file_and_leaves_the_rest(tmp_path):
    path = write(tmp_path, '[access]\nworkers = 3\nduplicate_seconds = 20\n[node]\nname = "berlin-1"\n')
    loaded = load_settings(path, {"SMS_AAA_ACCESS_WORKERS": "4", "PATH": "/bin"})
    assert (loaded.access.workers, loaded.access.duplicate_seconds, loaded.node.name) == (4, 20, "berlin-1")


def test_the_file_is_the_argument_else_the_variable_else_the_default_path(tmp_path, monkeypatch):
    for name in ("argument", "variable", "default"):
        (tmp_path / name).write_text(f'[node]\nname = "{name}"\n')
    monkeypatch.setattr(config, "DEFAULT_PATH", str(tmp_path / "default"))
    variable = {"SMS_AAA_CONFIG": str(tmp_path / "variable")}
    assert load_settings(str(tmp_path / "argument"), variable).node.name == "argument"
    assert load_settings(None, variable).node.name == "variable"
    assert load_settings(None, {}).node.name == "default"


@pytest.mark.parametrize(
    ("variable", "text", "section", "key", "value"),
    [
        ("SMS_AAA_NODE_NAME", "7", "node", "name", "7"),
        ("SMS_AAA_NODE_NAME", '"quoted"', "node", "name", "quoted"),
        ("SMS_AAA_RATING_CURRENCY", "CHF", "rating", "currency", "CHF"),
        ("SMS_AAA_RATING_ZONE", "Europe/Berlin", "rating", "zone", "Europe/Berlin"),
        ("SMS_AAA_LOG_LEVEL", "debug", "log", "level", LogLevel.DEBUG),
        ("SMS_AAA_ACCESS_REJECT_DELAY_SECONDS", "2", "access", "reject_delay_seconds", 2.0),
        ("SMS_AAA_ACCESS_LISTEN", "127.0.0.1:0", "access", "listen", ("127.0.0.1:0",)),
        ("SMS_AAA_ACCESS_LISTEN", "[::1]:1812, 127.0.0.1:1812", "access", "listen", ("[::1]:1812", "127.0.0.1:1812")),
        ("SMS_AAA_ACCESS_LISTEN", '["[::1]:1812"]', "access", "listen", ("[::1]:1812",)),
        ("SMS_AAA_DATABASE_DSN", "host=db user=sms", "database", "dsn", Secret(b"host=db user=sms")),
        ("SMS_AAA_JOURNAL_FILE_OCTETS_MAX", "10_000_000", "journal", "file_octets_max", 10_000_000),
    ],
)
def test_a_variable_is_written_as_in_toml_or_plainly(variable, text, section, key, value):
    assert getattr(getattr(load_settings(None, {variable: text}), section), key) == value


@pytest.mark.parametrize(
    ("text", "place", "reason", "remedy"),
    [
        ("[acces]\nworkers = 1", "acces", "no such section", "did you mean access?"),
        ("[access]\nworker = 1", "access.worker", "no such key", "did you mean workers?"),
        ("workers = 1", "workers", "no such section", "known are: access, accounting"),
        ("access = 1", "access", "is not a section", "write [access]"),
        ("[access]\nworkers = 33", "access.workers", "<= 32", "workers = 2"),
        ("[access]\nworkers = true", "access.workers", "got `bool`", "workers = 2"),
        ("[access]\nworkers = '2'", "access.workers", "got `str`", "workers = 2"),
        ("[access]\nduplicate_seconds = 4", "access.duplicate_seconds", ">= 5", "duplicate_seconds = 10"),
        ("[access]\nreject_delay_seconds = nan", "access.reject_delay_seconds", ">= 0", "reject_delay_seconds = 1.0"),
        ("[access]\nlisten = []", "access.listen", "length >= 1", 'listen = ["0.0.0.0:1812", "[::]:1812"]'),
        ("[access]\nlisten = ['x:1']", "access.listen", "does not begin with an IP address", "listen = ["),
        ("[access]\nlisten = ['[::]:1', '[0::0]:1']", "access.listen", "twice", "listen = ["),
        ("[metrics]\nlisten = '127.0.0.1'", "metrics.listen", "does not end in a port", "127.0.0.1:9812"),
        ("[node]\nname = 'Berlin'", "node.name", "[a-z0-9-]", 'name = "node1"'),
        ('[node]\nname = "a\\n"', "node.name", "[a-z0-9-]", 'name = "node1"'),
        ("[rating]\ncurrency = 'eur'", "rating.currency", "[A-Z]{3}", 'currency = "EUR"'),
        ("[rating]\nzone = 'Mars/Base'", "rating.zone", "`Mars/Base` is not a time zone", 'zone = "UTC"'),
        ("[rating]\nzone = '../UTC'", "rating.zone", "is not a time zone", 'zone = "UTC"'),
        ("[rating]\nzone = 'Europe'", "rating.zone", "is not a time zone", 'zone = "UTC"'),
        ("[log]\nlevel = 'loud'", "log.level", "loud", '"debug", "info", "warning", "error"'),
        ("[journal]\nfile_octets_max = 8388607", "journal.file_octets_max", ">= 8388608", "file_octets_max = 67108864"),
        ("[database]\ndsn = 5", "database.dsn", "Expected `str`", 'dsn = ""'),
    ],
)
def test_what_the_file_says_wrong_is_named_with_its_remedy(tmp_path, text, place, reason, remedy):
    path = write(tmp_path, text)
    error = refusal(path)
    assert error.place == f"{path}: {place}"
    assert reason in error.reason
    assert remedy in error.remedy


def test_an_unknown_variable_is_refused_with_its_nearest_kin():
    error = refusal(SMS_AAA_ACESS_WORKERS="2")
    assert (error.place, error.remedy) == ("SMS_AAA_ACESS_WORKERS", "did you mean SMS_AAA_ACCESS_WORKERS?")


def test_a_bad_value_from_the_environment_names_its_variable():
    error = refusal(SMS_AAA_ACCESS_WORKERS="many")
    assert error.place == "SMS_AAA_ACCESS_WORKERS"
    assert "Expected `int`" in error.reason


def test_a_dsn_that_is_none_is_refused_without_showing_it():
    error = refusal(SMS_AAA_DATABASE_DSN="hunter2")
    assert "hunter2" not in str(error)
    assert "neither" in error.reason


@pytest.mark.parametrize(
    "dsn",
    [
        "host=db password=my hunter2",
        "host=db password='hunter2",
        "host=db =hunter2",
        " \t",
        "postgresql://sms:my hunter2@db/sms",
        "postgresql://sms:my@hunter2@db/sms",
        "postgresql://sms:my/hunter2@db/sms",
        "postgresql://sms:12/hunter2@db/sms",
        "postgresql://sms:hunter2%zz@db/sms",
        "postgresql://sms:hunter2%00@db/sms",
        "postgresql://sms:hunter2%a2@db/sms",
        "postgresql://db:hunter2/sms",
        "postgresql://[::1/hunter2",
        "postgresql://db/sms?hunter2",
        "postgresql://db/sms?password=my=hunter2",
        "host=hunter2\0",
        "host=hunter2\udcff",
    ],
)
def test_a_dsn_that_libpq_would_misread_is_refused_by_its_name_alone(tmp_path, dsn):
    error = refusal(SMS_AAA_DATABASE_DSN=dsn)
    assert error.place == "SMS_AAA_DATABASE_DSN"
    assert "hunter2" not in f"{error!s} {error.__cause__!s} {error.__context__!s}"


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://",
        "postgres://sms:p%40ss%2Fw%20rd?&:!@[::1]:5432,db2:,[fe80::1]/sms%20x?sslmode=verify-full&application_name=",
        "postgresql:///sms?host=/var/run/postgresql&connect_timeout=3",
        "postgresql://db?ssl=true",
        "host = db user='it'password = 'my \\'hunter2\\\\' port=5432 dbname=",
        "password=a=b=c'd\\ e\\",
        "dbname=postgresql://a@b/c",
    ],
)
def test_a_dsn_that_libpq_reads_is_taken(dsn):
    conninfo_to_dict(dsn)
    assert load_settings(None, {"SMS_AAA_DATABASE_DSN": dsn}).database.dsn == Secret(dsn.encode())


def _is_read_by_libpq(dsn):
    try:
        conninfo_to_dict(dsn)
    except ProgrammingError as error:
        # Which names it knows changes with its version.
        return str(error).startswith(("invalid connection option", "invalid URI query parameter"))
    return True


@given(st.text(alphabet="ab%2f4:/?@&=[],' \\", max_size=24), st.sampled_from(["", "host=a ", "postgresql://"]))
@settings(max_examples=500)
@example("?2=@?2", "postgresql://")
def test_what_is_taken_as_a_dsn_libpq_can_read_but_for_names_that_it_does_not_know(rest, start):
    text = (start + rest).strip()
    try:
        load_settings(None, {"SMS_AAA_DATABASE_DSN": json.dumps(text)})
    except SettingsError:
        return
    assert _is_read_by_libpq(text)


@given(st.text(alphabet="a=' \\", max_size=400))
@settings(max_examples=100)
def test_no_dsn_takes_long_to_read(text):
    """A pattern that tries again what it has read would need longer than the age of the world."""
    with contextlib.suppress(SettingsError):
        load_settings(None, {"SMS_AAA_DATABASE_DSN": json.dumps(text)})


def test_a_file_that_is_not_there_is_refused_only_if_it_was_named(tmp_path):
    missing = str(tmp_path / "missing.toml")
    assert refusal(missing).place == missing
    assert "SMS_AAA_CONFIG" in refusal(SMS_AAA_CONFIG=missing).remedy


def test_a_file_that_cannot_be_read_is_never_taken_for_absent(tmp_path, monkeypatch):
    monkeypatch.setattr(config, "DEFAULT_PATH", str(tmp_path))
    assert "cannot be read: Is a directory" in refusal().reason


@pytest.mark.parametrize("content", [b"[access\n", b"[access]\nworkers = \n", b"# \xff\n", b"a = 1\na = 1\n"])
def test_a_file_that_is_not_toml_is_refused(tmp_path, content):
    path = tmp_path / "bad.toml"
    path.write_bytes(content)
    assert "is not TOML" in refusal(str(path)).reason


@given(st.dictionaries(st.sampled_from(sorted(config._VARIABLES)), st.text(max_size=20)))
@settings(max_examples=200)
def test_any_environment_gives_settings_or_a_settings_error(environ):
    try:
        loaded = load_settings(None, environ)
    except SettingsError:
        return
    assert 1 <= loaded.access.workers <= 32


def test_the_state_folder_is_systemds_then_roots_then_the_users(monkeypatch):
    assert default_state_folder({"STATE_DIRECTORY": "/var/lib/a:/var/lib/b"}) == "/var/lib/a"
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert default_state_folder({"XDG_STATE_HOME": "/x"}) == "/var/lib/sms-aaa"
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert default_state_folder({"XDG_STATE_HOME": "/x"}) == "/x/sms-aaa"
    assert default_state_folder({"XDG_STATE_HOME": "relative"}) == str(Path.home() / ".local/state/sms-aaa")


def test_the_state_folder_is_always_a_full_path_and_the_key_lies_in_it():
    loaded = load_settings(None, {"SMS_AAA_NODE_STATE_FOLDER": ".run"})
    assert loaded.node.state_folder == str(Path.cwd() / ".run")
    assert key_path(loaded) == Path.cwd() / ".run/key"
    assert key_path(load_settings(None, {"SMS_AAA_DATABASE_KEY_FILE": "/k"})) == Path("/k")


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("0.0.0.0:1812", ("0.0.0.0", 1812)),
        ("[::]:1812", ("::", 1812)),
        ("[2001:DB8::1]:65535", ("2001:db8::1", 65535)),
        ("127.0.0.1:0", ("127.0.0.1", 0)),
    ],
)
def test_an_address_is_an_ip_and_a_port(text, address):
    assert parse_listen(text) == address


@pytest.mark.parametrize(
    "text",
    [
        *("", "1812", ":1812", "0.0.0.0", "0.0.0.0:", "0.0.0.0:65536", "0.0.0.0:-1", "0.0.0.0:1 ", "0.0.0.0:\u0661"),
        *("::1812", "::1:1812", "[127.0.0.1]:1812", "[::]1812", "[::1812", "localhost:1812", "*:1812"),
    ],
)
def test_what_is_not_an_address_is_refused(text):
    with pytest.raises(ValueError, match="`"):
        parse_listen(text)


@pytest.mark.parametrize(
    ("dsn", "shown"),
    [
        ("", ""),
        ("postgresql://sms@db/sms", "postgresql://sms@db/sms"),
        ("postgresql://sms:hunter2@db:5432/sms?sslmode=require", "postgresql://sms:***@db:5432/sms?sslmode=require"),
        ("postgres://:hunter2@db/sms", "postgres://:***@db/sms"),
        ("postgresql://sms:hun@ter2/x?y@db/sms", "postgresql://sms:***@db/sms"),
        ("postgresql://db/sms?user=a&password=hunter2&x=1", "postgresql://db/sms?user=a&password=***&x=1"),
        ("postgresql://db/sms?pass%77ord=hunter2", "postgresql://db/sms?pass%77ord=***"),
        ("host=db password=hunter2 user=sms", "host=db password=*** user=sms"),
        ("host=db password = 'hun ter\\'2' user=sms", "host=db password=*** user=sms"),
        ("host=db password='hunter2", "host=db password=***"),
        ("password=hun\\ ter2&x host=db", "password=*** host=db"),
        ("sslpassword=hunter2 host=db", "sslpassword=*** host=db"),
        ("dbname=postgresql://a:hunter2@b/c", "dbname=postgresql://a:***@b/c"),
        ("dbname=postgresql://a@b/c password=hunter2", "dbname=postgresql://a@b/c password=***"),
    ],
)
def test_a_dsn_is_shown_without_its_passwords(dsn, shown):
    assert masked_dsn(dsn) == shown


def test_what_is_shown_is_plain_and_masked():
    loaded = load_settings(None, HERE | {"SMS_AAA_DATABASE_DSN": "postgresql://sms:hunter2@db/sms"})
    shown = masked(loaded)
    assert shown["database"]["dsn"] == "postgresql://sms:***@db/sms"
    folders = {"state_folder": "/srv/sms", "live_folder": "/srv/sms"}
    assert shown["node"] == {"name": "node1", "live_octets": 268_435_456, **folders}
    assert shown["access"]["listen"] == ("0.0.0.0:1812", "[::]:1812")
    assert shown["log"] == {"level": "info"}
    assert "hunter2" not in repr(loaded)
