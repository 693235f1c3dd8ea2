"""The rooms of the house know only those that ARCHITECTURE.md lets them know."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

TOP = Path(__file__).parents[1]
PACKAGE = TOP / "mirrorback"
MODULES = sorted(PACKAGE.rglob("*.py"))
MAY_KNOW = {
    "model": set(),
    "errors": set(),
    "plan": {"model", "errors"},
    "store": {"model", "errors"},
    "engine": {"model", "errors", "plan", "store"},
    "cli": {"model", "errors", "engine"},
}
# Where a package that only one room may use is used.
ONLY_IN = {
    "typer": "cli/",
    "rich": "cli/",
    "xattr": "store/xattrs.py",
    "sqlite3": "store/",
    "ctypes": "store/system.py",
    "fcntl": "store/",
    "mfusepy": "engine/fuse.py",
    "platformdirs": "engine/night/",
    "tomlkit": "engine/night/",
}
# What a pure room has no use for.
DISK_AND_CLOCK = {"time", "pathlib", "shutil", "tempfile", "subprocess", "socket", "threading"}
LONG = 450  # lines; a module beyond tells why it is one


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def room_of(path: Path) -> str:
    return name_of(path).split("/")[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    """All modules that a module imports, anywhere in it, for types only included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            if node.module == "mirrorback":
                found |= {f"mirrorback.{alias.name}" for alias in node.names}
            else:
                found.add(node.module)
    return found


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_room_knows_only_the_rooms_below(path: Path) -> None:
    room = room_of(path)
    if room in ("__init__", "__main__"):
        return
    rooms = {name.split(".")[1] for name in imports(path) if name.startswith("mirrorback.")}
    assert rooms - {room, "__version__"} <= MAY_KNOW[room]


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_packages_stay_in_their_room(path: Path) -> None:
    for name in {name.split(".")[0] for name in imports(path)}:
        if name in ONLY_IN:
            assert name_of(path).startswith(ONLY_IN[name]), name


@pytest.mark.parametrize("path", [p for p in MODULES if room_of(p) in ("plan", "model", "errors")])
def test_decisions_touch_neither_disk_nor_clock(path: Path) -> None:
    assert not {name.split(".")[0] for name in imports(path)} & DISK_AND_CLOCK
    text = path.read_text()
    assert not re.search(r"\b(?:datetime\.now|date\.today|open\(|os\.(?!path\b|fs))", text)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_the_clock_is_passed_in(path: Path) -> None:
    if name_of(path) != "cli/clock.py":
        assert "datetime.now(" not in path.read_text()


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_tells_its_purpose_and_is_not_long(path: Path) -> None:
    text = path.read_text()
    assert ast.get_docstring(ast.parse(text)), "no docstring"
    assert len(text.splitlines()) <= LONG


def public(path: Path) -> list[str]:
    """Public functions, classes and methods without a docstring."""
    bare = []

    def look(node: ast.AST, prefix: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.ClassDef) and not child.name.startswith("_"):
                if not ast.get_docstring(child):
                    bare.append(prefix + child.name)
                if isinstance(child, ast.ClassDef):
                    look(child, f"{child.name}.")

    look(ast.parse(path.read_text()), "")
    return bare


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_what_is_public_says_what_goes_in_and_comes_out(path: Path) -> None:
    assert public(path) == []


def test_every_file_of_a_project_is_there() -> None:
    for name in (
        "README.md",
        "ARCHITECTURE.md",
        "CHANGELOG.md",
        "LICENSE",
        "Makefile",
        "man/mirrorback.1",
        ".ci/run",
        "benchmarks/run.py",
    ):
        assert (TOP / name).is_file(), name


def test_the_readme_opens_with_two_commands() -> None:
    commands = re.findall(r"^    (.+)$", (TOP / "README.md").read_text(), re.MULTILINE)
    assert "mirrorback backup --init" in commands[0]
    assert commands[1].startswith("python3 -m venv .venv && ") and "pytest" in commands[1]
