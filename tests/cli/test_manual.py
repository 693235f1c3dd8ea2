"""The manual names every command and every option, and nothing that is not there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import typer

from mirrorback import __version__
from mirrorback.cli.app import COMMANDS, build
from mirrorback.plan.configuration import KEYS

MANUAL = Path(__file__).parents[2] / "man" / "mirrorback.1"
PROGRAM: Any = typer.main.get_command(build())
OPTIONS_OF_ALL = "OPTIONS OF EVERY COMMAND"


def sections() -> dict[str, str]:
    """Text below each heading; of the commands by their names."""
    found: dict[str, str] = {}
    heading = ""
    for line in MANUAL.read_text().replace("\\-", "-").splitlines():
        if match := re.match(r'\.S[HS] "?([^"]*)', line):
            heading = match[1]
            if command := re.match(r"mirrorback (\S+)", heading):
                heading = command[1]
        found[heading] = found.get(heading, "") + re.sub(r"\\f[BIRP]", "", line) + "\n"
    return found


def mentions(text: str, option: str) -> bool:
    return re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", text) is not None


def options(command: str) -> list[str]:
    params = PROGRAM.commands[command].params
    return [name for param in params for name in param.opts if name.startswith("-")]


def test_every_command_is_there() -> None:
    assert list(PROGRAM.commands) == list(COMMANDS)
    assert set(COMMANDS) <= set(sections())


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_is_in_the_manual(command: str) -> None:
    found = sections()
    text = found[command] + found[OPTIONS_OF_ALL]
    assert [name for name in options(command) if not mentions(text, name)] == []


@pytest.mark.parametrize("command", COMMANDS)
def test_the_manual_invents_no_option(command: str) -> None:
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", sections()[command]))
    assert named <= set(options(command))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_the_common_options(command: str) -> None:
    assert {"--json", "-v", "-q", "--no-progress", "--version"} <= set(options(command))


@pytest.mark.parametrize("command", COMMANDS)
def test_the_synopsis_has_every_command(command: str) -> None:
    assert f"mirrorback {command}" in sections()["SYNOPSIS"]


@pytest.mark.parametrize("code", [0, 1, 2, 3, 4, 5, 10, 11, 12, 130, 141, 143])
def test_every_exit_code_is_told(code: int) -> None:
    assert f"\n{code}@" in sections()["EXIT STATUS"]


def test_the_version_is_this_one() -> None:
    assert f'"mirrorback {__version__}"' in MANUAL.read_text()


def test_every_key_of_the_configuration_is_in_its_manual() -> None:
    text = MANUAL.with_name("mirrorback.toml.5").read_text().replace("\\-", "-")
    text = text.split(".SH KEYS")[1].split(".SH EXAMPLE")[0]
    assert [key for key in KEYS if not mentions(text, key)] == []
