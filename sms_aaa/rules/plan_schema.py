"""JSON Schemas (2020-12) of files, made of the sections that their readers use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sms_aaa.rules.plan_table import TEXT_LENGTH_MAX, Form, Section

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sms_aaa.rules.plan_table import Key

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_NAMES = r"^[a-z0-9][a-z0-9-]{0,63}$"
_SIGNED: dict[str, object] = {"type": ["string", "number"], "pattern": r"^-?[0-9]{1,16}(\.[0-9]{1,16})?$"}
_NUMBERS = (Form.AMOUNT, Form.PRICE, Form.PERCENT, Form.FACTOR, Form.QUANTITY)
"""Texts that may be numbers too."""


def schema_of(section: Section, title: str) -> dict[str, object]:
    """The schema of a file whose tables begin with this section."""
    return {"$schema": DIALECT, "title": title, **table_schema(section)}


def lines_schema(kinds: Mapping[str, tuple[Key, ...]], default: str, title: str) -> dict[str, object]:
    """The schema of a line that has the keys of its `kind`; one without is of the `default` kind."""
    lines = [_line_schema(kind, keys, is_default=kind == default) for kind, keys in kinds.items()]
    return {"$schema": DIALECT, "title": title, "oneOf": lines}


def table_schema(section: Section) -> dict[str, object]:
    """An object of a section's keys and no others."""
    schema: dict[str, object] = {
        "type": "object",
        "properties": {key.name: _described(key) for key in section.keys},
        "additionalProperties": False,
    }
    if obligatory := [key.name for key in section.keys if key.is_obligatory]:
        schema["required"] = obligatory
    return schema


def _line_schema(kind: str, keys: tuple[Key, ...], *, is_default: bool) -> dict[str, object]:
    schema = table_schema(Section(kind, keys))
    properties, required = schema["properties"], schema.get("required", [])
    assert isinstance(properties, dict)
    assert isinstance(required, list)
    told = {"const": kind, "default": kind} if is_default else {"const": kind}
    optional = {name: each if name in required else or_null(each) for name, each in properties.items()}
    return {
        **schema,
        "properties": {"kind": told, **optional},
        "required": required if is_default else ["kind", *required],
    }


def or_null(schema: dict[str, object]) -> dict[str, object]:
    """The schema, but null will do: programs write so what is not there."""
    types, choices = schema.get("type"), schema.get("enum")
    if isinstance(choices, list):
        return {**schema, "enum": [*choices, None]}
    return {**schema, "type": [*(types if isinstance(types, list) else [types]), "null"]}


def _described(key: Key) -> dict[str, object]:
    described = {**_schema(key), "description": key.says}
    if key.default is not None:
        described["default"] = key.default
    elif key.absent:
        described["description"] = f"{key.says} Left out: {key.absent}."
    return described


def _schema(key: Key) -> dict[str, object]:
    match key.form:
        case Form.TABLE | Form.TABLES | Form.TABLE_OR_TABLES:
            return _tables(key)
        case Form.TEXTS | Form.CHOICES | Form.NAMES | Form.HOLIDAYS:
            items = {"enum": list(key.choices)} if key.choices else _text(key.form)
            return {"type": "array", "items": items, "minItems": 1, "maxItems": key.bounds[1]}
        case Form.CHOICE:
            return {"enum": list(key.choices)}
        case Form.FLAG:
            return {"type": "boolean"}
        case Form.COUNT:
            return {"type": "integer", "minimum": key.bounds[0], "maximum": key.bounds[1]}
        case Form.AMOUNTS:
            return _named(_SIGNED)
        case Form.QUANTITIES:
            return _named(_text(Form.QUANTITY))
        case Form.OBJECT:
            return {"type": "object"}
        case _:
            return _text(key.form)


def _text(form: Form) -> dict[str, object]:
    if form is Form.INSTANT:
        return {"type": "string", "format": "date-time"}
    if form is Form.NUMBER:
        return _SIGNED
    if form.pattern is None:
        return {"type": "string", "maxLength": TEXT_LENGTH_MAX}
    pattern = f"^({form.pattern})$"
    if form in _NUMBERS:
        return {"type": ["string", "number"], "pattern": pattern, "minimum": 0}
    return {"type": "string", "pattern": pattern}


def _named(values: dict[str, object]) -> dict[str, object]:
    return {"type": "object", "propertyNames": {"pattern": _NAMES}, "additionalProperties": values}


def _tables(key: Key) -> dict[str, object]:
    assert key.section is not None
    table = table_schema(key.section)
    if key.form is Form.TABLE:
        return table
    rows: dict[str, object] = {"type": "array", "items": table, "maxItems": key.bounds[1]}
    return rows if key.form is Form.TABLES else {"oneOf": [table, rows]}
