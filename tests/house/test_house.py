"""Laws about the code and its outer house that no linter knows. None of them has a list of exemptions."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

from sms_aaa import config
from sms_aaa.config import load_settings

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "sms_aaa"
ROOMS = sorted(path.parent for path in PACKAGE.glob("*/__init__.py"))
MODULES = sorted(path for path in PACKAGE.rglob("*.py"))

PRINTER = "sms_aaa/cli/output.py"
DOORS = ("sms_aaa/server/", "sms_aaa/cli/")
FUNCTION_LINES_MAX = 60
MODULE_LINES_MAX = 500
FORBIDDEN_NAMES = {"utils", "common", "helpers", "core", "base", "manager", "models", "services"}
# What building, testing and running leave behind; a tree that was unpacked has no git to ask.
LEFT_BEHIND = {"__pycache__", "dist", "node_modules"}


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), filename=str(path))


def called_names(path: Path) -> set[str]:
    calls = (node.func for node in ast.walk(tree(path)) if isinstance(node, ast.Call))
    return {function.id for function in calls if isinstance(function, ast.Name)}


def imported_names(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


def our_texts() -> dict[str, str]:
    """Every text file that belongs to the project, by its path in it."""
    texts = {}
    for path in sorted(ROOT.rglob("*")):
        parts = path.relative_to(ROOT).parts
        is_ours = not any((part.startswith(".") and part != ".ci") or part in LEFT_BEHIND for part in parts)
        if is_ours and path.is_file() and not any(part.endswith(".egg-info") for part in parts):
            texts[name(path)] = path.read_text(errors="replace")
    return texts


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_a_module_and_its_functions_stay_readable(path):
    assert len(path.read_text().splitlines()) <= MODULE_LINES_MAX
    functions = (node for node in ast.walk(tree(path)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    long = [node.name for node in functions if (node.end_lineno or 0) - node.lineno + 1 > FUNCTION_LINES_MAX]
    assert long == []


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_a_module_says_what_lives_in_it(path):
    assert ast.get_docstring(tree(path))


@pytest.mark.parametrize("room", ROOMS, ids=name)
def test_a_room_has_its_sign_and_nothing_else_at_its_door(room):
    module = tree(room / "__init__.py")
    sign = ast.get_docstring(module) or ""
    assert sign.startswith(f"{room.name}/: ")
    assert "\n" not in sign
    assert len(module.body) == 1


def test_no_module_is_named_so_that_everybody_may_add_to_it():
    assert [name(path) for path in MODULES if FORBIDDEN_NAMES & {path.stem, *path.relative_to(ROOT).parts}] == []


def test_only_the_printer_prints():
    assert [name(path) for path in MODULES if "print" in called_names(path) and name(path) != PRINTER] == []


def test_only_the_doors_log():
    rooms = [path for path in MODULES if not name(path).startswith(DOORS)]
    assert [name(path) for path in rooms if "logging" in imported_names(path)] == []


def test_the_sample_names_every_setting_with_its_default(monkeypatch, tmp_path):
    sample = ROOT / "etc" / "sms-aaa.toml"
    written = {(section, key) for section, table in tomllib.loads(sample.read_text()).items() for key in table}
    assert written == {(section, key) for section, keys in config._FIELDS.items() for key in keys}
    monkeypatch.setattr(config, "DEFAULT_PATH", str(tmp_path / "none"))
    assert load_settings(str(sample), {}) == load_settings(None, {})


def test_the_kernel_is_allowed_to_give_what_the_sockets_ask_for():
    text = (ROOT / "etc" / "sysctl.d" / "90-sms-aaa.conf").read_text()
    limit = re.search(r"^net\.core\.rmem_max = (\d+)$", text, re.MULTILINE)
    loaded = config.Settings()
    assert limit
    assert int(limit[1]) >= max(loaded.access.receive_buffer_octets, loaded.accounting.receive_buffer_octets)


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-dev.lock"])
def test_a_lock_pins_by_hash_and_names_no_place(lock):
    text = (ROOT / lock).read_text()
    assert "://" not in text
    assert "--index-url" not in text
    requirements = re.split(r"\n(?=\S)", text.strip())
    assert len(requirements) > 20
    for requirement in requirements:
        assert re.match(r"[a-z0-9-]+==\S+ (; [^\\]+)?\\\n    --hash=sha256:", requirement), requirement[:60]


def test_the_lock_of_the_runtime_is_part_of_the_lock_of_the_developer():
    def pins(lock: str) -> set[str]:
        return set(re.findall(r"^\S+==\S+", (ROOT / lock).read_text(), re.MULTILINE))

    assert pins("requirements.lock") <= pins("requirements-dev.lock")


def test_no_file_knows_the_machine_that_it_was_written_on():
    foreign = [".." + "/shared"]
    if len(ROOT.parts) > 2:  # a path as short as /app may stand anywhere by accident
        foreign.append(str(ROOT))
    assert [path for path, text in our_texts().items() if any(place in text for place in foreign)] == []


def test_every_make_command_of_the_readme_is_a_target_with_its_line_of_help():
    makefile = (ROOT / "Makefile").read_text()
    helped = set(re.findall(r"^([a-z]+):.*## \S", makefile, re.MULTILINE))
    phony = re.search(r"^\.PHONY: (.+)$", makefile, re.MULTILINE)
    assert phony
    assert set(phony[1].split()) == helped
    code = "\n".join(re.findall(r"```.*?```|`[^`\n]+`", (ROOT / "README.md").read_text(), re.DOTALL))
    named = set(re.findall(r"(?:^|[`$&;] ?)make ([a-z]+)", code, re.MULTILINE))
    assert named <= helped


def test_the_runner_runs_what_the_makefile_offers():
    commands = re.findall(r"^make ([a-z]+)$", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)
    assert commands == ["check", "test"]
