"""No float in the money's way: what counts, prices, posts or shows money and quantities is whole numbers and fractions.

Which modules those are is not a list that somebody has to keep, it follows from what they import: whoever imports one
of the rules of money X SQL and in the schema, no column or cast of the money's tables is a float.
"""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import psycopg
import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "sms_aaa"
ROOTS = frozenset(
    f"sms_aaa.rules.{name}"
    for name in ("money", "measure", "tariff", "pricing", "ledger", "buckets", "covering", "charging", "cycle", "slots")
)
PRINTERS = frozenset(("sms_aaa.cli.output.money", "sms_aaa.cli.usage.exact"))
CARRYING = ("rules", "db", "flows")

FLOAT_WORDS = frozenset(
    ("float", "Float", "Double", "REAL", "DOUBLE_PRECISION", "float32", "float64", "fsum", "timestamp")
)
EXACT_WORDS = ("Fraction", "Decimal", "Path")
FLOAT_SQL = re.compile(r"\b(double precision|float[48]?|real|random)\b|/ *[0-9]+\.[0-9]|[0-9]e-?[0-9]", re.IGNORECASE)
MONEY_SQL = re.compile(
    r"\b(from|into|update|join|copy|table|only)\s+(usage_delta|rating_queue|rated_usage|usage_total|session_total|bucket"
    r"|bucket_\w+|reservation|charge|adjustment|earning|entry)\b"
)


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@cache
def modules() -> dict[str, Path]:
    paths = sorted(PACKAGE.rglob("*.py"))
    return {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in paths}


@cache
def imported(path: Path) -> set[str]:
    """Modules and names that it imports, within functions and for its types too."""
    names = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@cache
def statements_in(path: Path) -> dict[int, str]:
    """Texts of a module that work on a table of money or usage, by their lines."""
    constants = (node for node in ast.walk(tree_of(path)) if isinstance(node, ast.Constant))
    return {one.lineno: one.value for one in constants if isinstance(one.value, str) and MONEY_SQL.search(one.value)}


@cache
def money_way() -> list[str]:
    known = modules()
    imports = {name: imported(path) for name, path in known.items()}
    way = {*ROOTS, *(name for name in known if name.startswith("sms_aaa.db.") and statements_in(known[name]))}
    carrying = {name for name in known if name.split(".")[1] in CARRYING}
    while new := {name for name in carrying - way if imports[name] & way}:
        way |= new
    rules = {name for name in way if name.startswith("sms_aaa.rules.")} - {"sms_aaa.rules.cycle", "sms_aaa.rules.plan"}
    doors = {name for name in known if name.startswith("sms_aaa.cli.") and imports[name] & (PRINTERS | rules)}
    return sorted(way | doors)


def floats_in(text: str) -> list[str]:
    """Every way by which a float may come into a Python text, with its line.

    A division by `/` is exact where an operand is written or annotated as a Fraction or a Decimal.
    """
    tree = ast.parse(text)
    exact = _exact_names(tree)
    found = []
    for node in ast.walk(tree):
        said = _said_of(node, exact)
        if said is not None:
            found.append(f"{node.lineno}: {said}: {text.splitlines()[node.lineno - 1].strip()}")  # type: ignore[attr-defined]
    return found


def _exact_names(tree: ast.Module) -> set[str]:
    """Names and attributes that are annotated as, or assigned from, something exact."""
    names = set(EXACT_WORDS)
    for node in ast.walk(tree):
        if isinstance(node, ast.arg) and node.annotation and _says_exact(node.annotation):
            names.add(node.arg)
        elif isinstance(node, ast.AnnAssign) and _says_exact(node.annotation):
            names |= _names(node.target)
        elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Call) and _says_exact(node.value.func):
            names |= {name for target in node.targets for name in _names(target)}
        elif isinstance(node, ast.FunctionDef) and node.returns and _says_exact(node.returns):
            names.add(node.name)
    return names


def _says_exact(node: ast.expr) -> bool:
    return any(word in ast.unparse(node) for word in EXACT_WORDS)


def _names(node: ast.AST) -> set[str]:
    return {one.id if isinstance(one, ast.Name) else one.attr for one in ast.walk(node)
            if isinstance(one, ast.Name | ast.Attribute)}  # fmt: skip


def _said_of(node: ast.AST, exact: set[str]) -> str | None:
    match node:
        case ast.Constant(value=float()):
            return "a float"
        case ast.Name(id=word) | ast.Attribute(attr=word) if word in FLOAT_WORDS:
            return f"{word}"
        case ast.Call(func=ast.Name(id="round")):
            return "round() rounds halves to even, and floats"
        case ast.BinOp(op=ast.Div()) | ast.AugAssign(op=ast.Div()):
            joins_path = any("folder" in name or name in {"package", "parent"} for name in _names(node))
            return None if joins_path or _names(node) & exact else "a division of what is not said to be exact"
        case ast.BinOp(op=ast.Pow(), right=ast.UnaryOp(op=ast.USub())):
            return "a power below zero"
    return None


@pytest.mark.parametrize("name", money_way())
def test_no_float_is_in_the_way_of_money(name: str) -> None:
    assert floats_in(modules()[name].read_text()) == []


def test_the_way_is_found_by_its_imports() -> None:
    way = set(money_way())
    assert {
        "sms_aaa.db.ledger",
        "sms_aaa.db.cycles",
        "sms_aaa.flows.rating",
        "sms_aaa.flows.reconciling",
        "sms_aaa.cli.usage",
    } <= way


@pytest.mark.parametrize(
    "planted",
    [
        "amount = 0.1",
        "amount = float(text)",
        "def price(amount: float) -> int: ...",
        "share = amount_minor / 3",
        "amount_minor /= 3",
        "amount = 10 ** -2 * count",
        "amount = round(amount * 1)",
        "at = when.timestamp()",
        "table = numpy.float64",
    ],
)
def test_a_planted_float_is_found(planted: str) -> None:
    assert floats_in(planted)


@pytest.mark.parametrize(
    "exact",
    [
        "amount_minor // 3",
        "def share(amount: Fraction) -> Fraction:\n    return amount / 3",
        "share = Fraction(1) / 3",
        "where = state_folder / 'journal'",
    ],
)
def test_what_is_exact_is_let_through(exact: str) -> None:
    assert floats_in(exact) == []


def test_no_statement_about_money_says_float() -> None:
    """Of each text in the room of SQL, and of the migrations, that names one of the money's tables."""
    texts = {
        f"{path.name}:{line}": text
        for folder in (PACKAGE / "db", ROOT / "migrations")
        for path in sorted(folder.rglob("*.py"))
        for line, text in statements_in(path).items()
    }
    assert len(texts) > 20
    assert {where: FLOAT_SQL.findall(text) for where, text in texts.items() if FLOAT_SQL.search(text)} == {}
    assert FLOAT_SQL.search("alter table charge add column amount double precision")
    assert FLOAT_SQL.search("select sum(amount_minor)::float8 from entry")
    assert FLOAT_SQL.search("select amount_minor * 1e-2 from entry")


def test_no_column_of_the_schema_is_a_float(database_dsn: str) -> None:
    query = """select table_name || '.' || column_name from information_schema.columns
               where table_schema = 'public' and data_type in ('real', 'double precision', 'money') order by 1"""
    with psycopg.connect(database_dsn) as connection:
        assert connection.execute(query).fetchall() == []
        connection.execute("alter table charge add column share real")
        assert connection.execute(query).fetchall() == [("charge.share",)]
