"""Files of plans and tariffs as they come from disk: TOML, or the JSON of the same tables."""

from __future__ import annotations

import json
import tomllib
from codecs import BOM_UTF8
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from sms_aaa.cli.exits import Exit, Failure

if TYPE_CHECKING:
    from pathlib import Path

PLAN_FILE_OCTETS_MAX = 1_000_000


def load_document(file: Path) -> dict[str, Any]:
    """The tables of FILE: JSON if its name ends so or it begins with a brace, else TOML; decimals are Decimal.

    Failure names what is wrong.
    """
    with file.open("rb") as opened:
        octets_read = opened.read(PLAN_FILE_OCTETS_MAX + 1)
    if len(octets_read) > PLAN_FILE_OCTETS_MAX:
        raise Failure(Exit.INVALID, f"{file}: has more than {PLAN_FILE_OCTETS_MAX} octets", "name a plan file")
    octets_read = octets_read.removeprefix(BOM_UTF8)
    # Of TOML nothing begins so, and a file that comes out of a pipe has no telling name.
    is_json = file.suffix.lower() == ".json" or octets_read.lstrip().startswith(b"{")
    try:
        text = octets_read.decode()
        return _read_json(text) if is_json else tomllib.loads(text, parse_float=Decimal)
    except (ValueError, RecursionError) as fault:  # both readers' own faults are ValueErrors
        form = "JSON" if is_json else "TOML"
        raise Failure(Exit.INVALID, f"{file}: is not {form}: {fault}", "correct that line") from fault


def refuse_twice(text: bytes) -> None:
    """ValueError if an object of a JSON text has a key twice."""
    json.loads(text, object_pairs_hook=_once)


def _read_json(text: str) -> dict[str, Any]:
    document = json.loads(text, parse_float=Decimal, parse_constant=_refused, object_pairs_hook=_once)
    if not isinstance(document, dict):
        raise ValueError("it is no object")  # noqa: TRY004 - the fault of a file, told as the readers tell theirs
    return document


def _refused(constant: str) -> object:
    raise ValueError(f"{constant} is no number")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """As TOML does: of a key that stands twice nobody knows which is meant. What is null is left out."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice[:80]!r} stands twice in one object")
    return {name: value for name, value in pairs if value is not None}
