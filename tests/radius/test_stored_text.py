"""Stored passwords as text: what is wrong with one is said when it is set, and nothing that is written raises."""

from __future__ import annotations

import pytest
from hashed import STORED
from hypothesis import given, settings
from hypothesis import strategies as st

from sms_aaa.radius.credentials import Method, StoredPassword
from sms_aaa.radius.hashes import Form
from sms_aaa.radius.slow_text import TextFault
from sms_aaa.radius.stored_text import parse_stored

B64_20 = "W6ph5Mm5Pz8GgiULbPgzG37mj9g="
KEY_32 = "bQk8UB/VmZZF4Oo79iDXuL5/0ttZwg2f/5U52iv1cDc"


@pytest.mark.parametrize(
    ("form", "text", "reason"),
    [
        (Form.NT, "8846f7eaee8fb117ad06bdd830b758", "has 16 octets in hex or base64, this one 22 octets"),
        (Form.NT, "31d6cfe0d16ae931b73c59d7e0c089c0", "the NT hash of the empty password"),
        (Form.MD5, "5f4dcc3b5aa765d61d8327deb882cf9900", "has 16 octets in hex or base64, this one 17 octets"),
        (Form.MD5, "not a hash!", "has 16 octets in hex or base64, this one something else"),
        (Form.SHA256, B64_20, "has 32 octets in hex or base64, this one 20 octets"),
        (Form.SSHA, B64_20, "a salt of 1 to 1024, this one 20 octets in all"),
        (Form.SSHA512, KEY_32, "a salt of 1 to 1024, this one 32 octets in all"),
        (None, f"{{sha2}}{B64_20}", "has 32 octets in hex or base64, this one 20 octets"),
        (None, "{lm}E52CAC67419A9A224A3B108F3FA6CB6D", "its header is none that is known"),
        (None, "secret", "neither a {header} nor its beginning tells what it is"),
        (None, "{clear}", "it has 0 octets"),
        (None, "$9$unknown", "not written as a whole hash of crypt(3)"),
        (None, "$apr1$salt$qixPiG5b8ukD0Bs/6QSRy/", "not written as a whole hash of crypt(3)"),
        (Form.CRYPT, "$6$salt$tooshort", "not written as a whole hash of crypt(3)"),
        (Form.CRYPT, "$2b$31$" + "a" * 53, "its cost is beyond what a login may take"),
        (Form.CRYPT, "$2b$03$" + "a" * 53, "its cost is beyond what a login may take"),
        (Form.CRYPT, "$5$rounds=99999999$salt$" + "a" * 43, "its cost is beyond what a login may take"),
        (Form.CRYPT, "$y$jZT$salt$" + "a" * 43, "not written as a whole hash of crypt(3)"),
        (Form.CRYPT, "twelve-chars", "not written as a whole hash of crypt(3)"),
        (Form.PBKDF2, "$pbkdf2-md5$1000$c2FsdA$xxxx", "it is not written as PBKDF2 is"),
        (Form.PBKDF2, f"HMACMD5:AAAD6A==:c2FsdA==:{B64_20}", "it is not written as PBKDF2 is"),
        (Form.PBKDF2, f"HMACSHA9+1:AAAD6A==:c2FsdA==:{B64_20}", "its digest is none that is known"),
        (Form.PBKDF2, f"HMACSHA1:AAAAAA==:c2FsdA==:{B64_20}", "its rounds are not a number from 1 to 10000000"),
        (Form.PBKDF2, f"HMACSHA1:AAA=:c2FsdA==:{B64_20}", "its rounds are not a number from 1 to 10000000"),
        (Form.PBKDF2, f"$pbkdf2$4294967295$c2FsdA${B64_20}", "its rounds are not a number from 1 to 10000000"),
        (Form.PBKDF2, f"$pbkdf2-sha256$1000$c2FsdA${B64_20}", "not base64 of 32 octets, as sha256 has"),
        (Form.PBKDF2, f"$pbkdf2$1000$c{B64_20}", "it is not written as PBKDF2 is"),
        (Form.PBKDF2, f"$pbkdf2$1000$a${B64_20}", "its salt is not base64"),
        (Form.SCRYPT, f"$scrypt$ln=30,r=8,p=1$c2FsdA${KEY_32}", "its cost is beyond what a login may take"),
        (Form.SCRYPT, f"scrypt$1000$salt$8$1${KEY_32}", "its cost is beyond what a login may take"),
        (Form.SCRYPT, f"scrypt$1024$salt$0$1${KEY_32}", "its cost is beyond what a login may take"),
        (Form.SCRYPT, f"scrypt$1024$salt$8$99${KEY_32}", "its cost is beyond what a login may take"),
        (Form.SCRYPT, "scrypt$1024$salt$8$1$c2hvcnQ", "its hash of 16 to 64 octets is not whole"),
        (Form.SCRYPT, "$scrypt$nothing", "it is not written as scrypt is"),
        (Form.ARGON2, f"$argon2id$v=16$m=256,t=2,p=1$c29tZXNhbHQ${KEY_32}", "of another version of argon2 than 19"),
        (Form.ARGON2, f"$argon2id$v=19$m=9999999,t=1,p=1$c29tZXNhbHQ${KEY_32}", "its cost cannot be"),
        (Form.ARGON2, f"$argon2id$v=19$m=7,t=1,p=1$c29tZXNhbHQ${KEY_32}", "its cost cannot be"),
        (Form.ARGON2, f"$argon2id$v=19$m=256,t=0,p=1$c29tZXNhbHQ${KEY_32}", "its cost cannot be"),
        (Form.ARGON2, f"$argon2id$v=19$m=256,t=1,p=0$c29tZXNhbHQ${KEY_32}", "its cost cannot be"),
        (Form.ARGON2, f"$argon2id$v=19$m=262144,t=99,p=1$c29tZXNhbHQ${KEY_32}", "its m * t is above 4194304"),
        (Form.ARGON2, f"$argon2id$v=19$m=256,t=1,p=1$c2FsdA${KEY_32}", "is not whole"),
        (Form.ARGON2, "$argon2id$m=256", "it is not written as argon2 is"),
        (Form.CLEARTEXT, "", "it has 0 octets"),
        (Form.CLEARTEXT, "x" * 129, "it has 129 octets"),
        (Form.MD5, f"{{sha}}{B64_20}", "its header says sha, not md5"),
    ],
)
def test_what_no_login_could_match_is_refused_with_the_reason(form: Form | None, text: str, reason: str) -> None:
    found = parse_stored(text.encode(), form)
    assert isinstance(found, TextFault)
    assert reason in found.reason
    assert found.remedy


def test_cleartext_that_is_named_is_taken_as_it_stands() -> None:
    for password in (b"{SSHA}no-hash", b"$6$salt$", b" spaces ", "pässword".encode()):
        found = parse_stored(password, Form.CLEARTEXT)
        assert isinstance(found, StoredPassword)
        assert found.cleartext == password
        assert found.methods == (Method.PAP, Method.CHAP, Method.MSCHAP, Method.MSCHAP2)


def test_cleartext_behind_a_header_keeps_its_octets() -> None:
    for header in (b"{clear}", b"{ClearText}"):
        found = parse_stored(header + "pässword} ".encode(), None)
        assert isinstance(found, StoredPassword)
        assert found.cleartext == "pässword} ".encode()


def test_a_password_that_is_not_utf_8_is_refused_because_ms_chap_could_not_use_it() -> None:
    found = parse_stored(b"p\xe4ssword", Form.CLEARTEXT)
    assert isinstance(found, TextFault)
    assert found.reason == "it is not UTF-8"


def test_an_nt_hash_serves_ms_chap_too() -> None:
    found = parse_stored(b"0x8846F7EAEE8FB117AD06BDD830B7586C\n", Form.NT)
    assert isinstance(found, StoredPassword)
    assert found.methods == (Method.PAP, Method.MSCHAP, Method.MSCHAP2)
    assert found == parse_stored(b"{nt}iEb36u6PsRetBr3YMLdYbA", None)


FORMS = st.sampled_from([None, *Form])
LIKE_A_HASH = st.text(alphabet="{}$:=,.+/argon2idcryptHMACSHA0123456789", max_size=120).map(str.encode)


@given(
    FORMS,
    st.binary(max_size=200) | st.text(alphabet="{}$:=,.+/argon2idcryptHMACSHA0123456789", max_size=120).map(str.encode),
)
def test_whatever_is_written_is_a_password_or_a_fault(form: Form | None, text: bytes) -> None:
    assert isinstance(parse_stored(text, form), StoredPassword | TextFault)


@settings(max_examples=300)
@given(st.data())
def test_a_damaged_hash_is_another_one_or_a_fault_that_does_not_quote_it(data: st.DataObject) -> None:
    # The costly ones stay out: a change of a digit would have to be computed.
    one = data.draw(st.sampled_from([one for one in STORED if one.form not in (Form.CRYPT, Form.SCRYPT)]))
    octets = bytearray(one.text.encode())
    at = data.draw(st.integers(0, len(octets) - 1))
    how = data.draw(st.sampled_from(["cut", "drop", "change"]))
    if how == "cut":
        del octets[at:]
    elif how == "drop":
        del octets[at]
    else:
        octets[at] = data.draw(st.integers(0, 255))
    found = parse_stored(bytes(octets), data.draw(st.sampled_from([None, one.form])))
    if isinstance(found, TextFault):
        assert one.text[-12:] not in found.reason + found.remedy
    else:
        assert found.form in Form
