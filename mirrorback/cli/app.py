"""The program: finds the command that was asked for, and turns its end into an exit code."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterable, Sequence
from importlib import import_module

import typer

from mirrorback.cli import completing
from mirrorback.cli.command import Group, Version
from mirrorback.cli.ending import told
from mirrorback.cli.output import complain
from mirrorback.engine import interrupt

HELP = "Dated snapshots of a folder: plain folders of hard links, the newest one a mirror."

# In the order of the help; each is registered by its module in `commands`.
COMMANDS = {
    "backup": "backup",
    "init": "init",
    "snapshots": "snapshots",
    "ls": "ls",
    "versions": "versions",
    "find": "versions",
    "diff": "diff",
    "restore": "restore",
    "cat": "cat",
    "mount": "mount",
    "verify": "verify",
    "repair": "repair",
    "rebuild": "rebuild",
    "delete": "delete",
    "pin": "pin",
    "unpin": "pin",
    "prune": "prune",
    "stats": "stats",
    "doctor": "doctor",
    "run": "run",
    "status": "status",
    "log": "log",
    "schedule": "schedule",
    "config": "config",
}


GARBAGE_EVERY = 20_000  # objects: the many that a survey makes are hardly ever in cycles


def build(names: Iterable[str] = COMMANDS) -> typer.Typer:
    """An app with these commands; only their modules are imported."""
    app = typer.Typer(
        cls=Group,
        help=HELP,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        add_completion=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    for module in dict.fromkeys(COMMANDS[name] for name in names):
        import_module(f"mirrorback.cli.commands.{module}").register(app)
    return app


def main() -> None:
    """The entry point: never returns, and never shows a traceback unasked."""
    _hold_descriptors()
    gc.set_threshold(GARBAGE_EVERY)
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # closed by who started us
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        interrupt.install()
        code = run(sys.argv[1:])
    except Exception as error:
        message, code = told(error)
        complain(message)
    sys.exit(code)


def run(arguments: Sequence[str]) -> int:
    """Run the command line; the exit code.  Raises what typer itself may raise, except
    for errors of usage."""
    if list(arguments[:1]) == [completing.WORD]:
        return completing.main(arguments[1:])
    known = [name for name in arguments[:1] if name in COMMANDS]
    command = typer.main.get_command(build(known or COMMANDS))
    try:
        code = command.main(list(arguments), prog_name="mirrorback", standalone_mode=False)
    except Exception as error:
        message = _usage(error)
        if message is None:
            raise
        complain(message)
        return 2
    return code if isinstance(code, int) else 0


def _root(version: Version = False) -> None:
    """The program without a command."""


def _usage(error: Exception) -> str | None:
    """The line for an error of usage found by typer; None for any other.  Its classes
    live elsewhere in each typer, the method is the same."""
    told_by_typer = getattr(error, "format_message", None)
    if told_by_typer is None:
        return None
    context = getattr(error, "ctx", None)
    path = "mirrorback" if context is None else context.command_path
    message = " ".join(str(told_by_typer()).split()).rstrip(".")
    return f"{message[:1].lower()}{message[1:]}: see `{path} --help`"


def _hold_descriptors() -> None:
    """Where standard descriptors are closed, keep their numbers from files of a backup,
    into which a complaint would then be written."""
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
