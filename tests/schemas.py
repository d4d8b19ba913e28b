"""As much of JSON Schema 2020-12 as our schemas use."""

from __future__ import annotations

import re
from typing import Any

TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,), "array": (list,), "string": (str,), "boolean": (bool,), "integer": (int,),
    "number": (int, float), "null": (type(None),),
}  # fmt: skip
SAID_ONLY = {"$schema", "title", "description", "default", "format"}


def violations(schema: dict[str, Any], value: Any, place: str = "") -> list[str]:
    """What JSON Schema 2020-12 finds, for the words that our schemas use; any other word is a KeyError."""
    return [
        fault
        for word, wanted in schema.items()
        if word not in SAID_ONLY
        for fault in _WORDS[word](wanted, value, place, schema)
    ]


def _is(types: str | list[str], value: Any) -> bool:
    names = [types] if isinstance(types, str) else types
    return any(isinstance(value, TYPES[name]) and (name == "boolean" or not isinstance(value, bool)) for name in names)


def _of_properties(wanted: dict[str, Any], value: Any, place: str, _: Any) -> list[str]:
    pairs = [(key, part) for key, part in value.items() if key in wanted] if isinstance(value, dict) else []
    return [fault for key, part in pairs for fault in violations(wanted[key], part, f"{place}.{key}")]


def _of_others(wanted: Any, value: Any, place: str, schema: dict[str, Any]) -> list[str]:
    others = [key for key in value if key not in schema.get("properties", {})] if isinstance(value, dict) else []
    if wanted is False:
        return [f"{place}.{key} is unknown" for key in others]
    return [fault for key in others for fault in violations(wanted, value[key], f"{place}.{key}")]


def _of_items(wanted: Any, value: Any, place: str, _: Any) -> list[str]:
    parts = enumerate(value) if isinstance(value, list) else ()
    return [fault for index, part in parts for fault in violations(wanted, part, f"{place}[{index}]")]


def _unless(holds: bool, place: str, said: object) -> list[str]:
    return [] if holds else [f"{place}: {said}"]


_WORDS: dict[str, Any] = {
    "type": lambda wanted, value, place, _: _unless(_is(wanted, value), place, wanted),
    "const": lambda wanted, value, place, _: _unless(value == wanted, place, wanted),
    "enum": lambda wanted, value, place, _: _unless(value in wanted, place, wanted),
    "pattern": lambda wanted, value, place, _: _unless(
        not isinstance(value, str) or re.search(wanted, value) is not None, place, wanted
    ),
    "maxLength": lambda wanted, value, place, _: _unless(
        not isinstance(value, str) or len(value) <= wanted, place, wanted
    ),
    "minimum": lambda wanted, value, place, _: _unless(
        not isinstance(value, int | float) or value >= wanted, place, wanted
    ),
    "maximum": lambda wanted, value, place, _: _unless(
        not isinstance(value, int | float) or value <= wanted, place, wanted
    ),
    "minItems": lambda wanted, value, place, _: _unless(
        not isinstance(value, list) or len(value) >= wanted, place, "few"
    ),
    "maxItems": lambda wanted, value, place, _: _unless(
        not isinstance(value, list) or len(value) <= wanted, place, "many"
    ),
    "required": lambda wanted, value, place, _: _unless(set(wanted) <= set(value), place, wanted),
    "oneOf": lambda wanted, value, place, _: _unless(
        sum(not violations(each, value) for each in wanted) == 1, place, [violations(each, value) for each in wanted]
    ),
    "properties": _of_properties,
    "additionalProperties": _of_others,
    "items": _of_items,
    "propertyNames": lambda wanted, value, place, _: [
        fault for key in value for fault in violations(wanted, key, f"{place}.{key}")
    ],
}
