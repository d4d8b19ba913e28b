"""The text of a DSN: whether libpq can read it, and how to show it without a piece of its password."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import unquote

if TYPE_CHECKING:
    from sms_aaa.rules.secret import Secret

_SECRET_WORDS = {"password", "sslpassword", "oauth_client_secret", "scram_client_key", "scram_server_key"}
_URL_PASSWORD = re.compile(r"(postgres(?:ql)?://[^:@/?]*:).*@", re.DOTALL)
_KEYWORD_PASSWORD = re.compile(rf"\b({'|'.join(_SECRET_WORDS)})\s*=\s*('(?:\\.|[^'\\])*(?:'|\Z)|(?:\\.|[^\s\\])*)")


def masked_dsn(dsn: str) -> str:
    """`dsn` with *** for each password, in both of libpq's forms. In doubt it hides too much."""
    hidden = _URL_PASSWORD.sub(r"\1***@", dsn)
    if not hidden.startswith(("postgresql://", "postgres://")):
        return _KEYWORD_PASSWORD.sub(r"\1=***", hidden)
    address, mark, query = hidden.partition("?")
    return address + mark + "&".join(_masked_parameter(parameter) for parameter in query.split("&"))


def _masked_parameter(parameter: str) -> str:
    word, equals, _ = parameter.partition("=")
    return f"{word}=***" if equals and unquote(word).strip() in _SECRET_WORDS else parameter


# libpq's grammars. A URL here is stricter in one thing: libpq takes what follows an @ or / of an
# unescaped password for the host, the port or the name, and would then tell it to everybody who cannot connect.
_DSN_PAIR = re.compile(r"\s*\w+\s*=\s*(?:'(?:\\.|[^'\\])*'|(?!')(?:\\.|[^\s\\])*\\?)", re.DOTALL)
_DSN_HOST = r"(?:\[[^\]\s]+\]|[^\[:/?,@\s]*)(?::[0-9]*)?"
_DSN_PARAMETER = r"[^=&@\s]+=[^=&@\s]*"  # libpq takes what is before an @ for the user, were it behind the ?
_DSN_URL = re.compile(
    r"postgres(?:ql)?://(?:[^:@/\s]*(?::[^@/\s]*)?@)?"
    rf"{_DSN_HOST}(?:,{_DSN_HOST})*(?:/[^?@\s]*)?(?:\?(?:{_DSN_PARAMETER}(?:&{_DSN_PARAMETER})*&?)?)?"
)
_DSN_BAD_PERCENT = re.compile(r"%(?!(?!00)[0-9A-Fa-f]{2})")


def _is_percent_encoded(text: str) -> bool:
    try:
        unquote(text, errors="strict")
    except UnicodeDecodeError:
        return False
    return not _DSN_BAD_PERCENT.search(text)


def _are_pairs(text: str) -> bool:
    """Whether it is `key=value` after `key=value` to its end."""
    at = 0
    while text[at:].strip():
        pair = _DSN_PAIR.match(text, at)
        if pair is None:
            return False
        at = pair.end()
    return True


def check_dsn(dsn: Secret) -> None:
    """Whether libpq can read it. What is wrong is said without a piece of it: any piece may be one of the password."""
    text = dsn.reveal().decode()
    if not text:
        return
    if "\0" in text:
        raise ValueError("it holds the character 0")
    if text.startswith(("postgresql://", "postgres://")):
        if not _DSN_URL.fullmatch(text) or not _is_percent_encoded(text):
            raise ValueError(
                "it is not postgresql://user:password@host:port/name?option=value; "
                "in a name or password write %40 for @, %2F for /, %3A for :, %25 for %, %20 for a space"
            )
    elif "=" not in text:
        raise ValueError("it is neither postgresql://user@host/name nor host=... user=... dbname=...")
    elif not _are_pairs(text):
        raise ValueError("it is not host=... user=... dbname=...; a value with spaces stands in single quotes")
