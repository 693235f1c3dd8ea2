"""Running the installed program as a process, as a person or a script does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROGRAM = str(Path(sysconfig.get_path("scripts")) / "mirrorback")
NOBODY = 65534
# The interpreter may lie where nobody else may go: all is imported before we become
# another user, and the program's own entry is called.
AS_USER = """
import importlib, os, pkgutil, sys, traceback, xattr
import mirrorback
for module in pkgutil.walk_packages(mirrorback.__path__, "mirrorback."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
uid = int(sys.argv.pop(1))
os.setgroups([])
os.setgid(uid)
os.setuid(uid)
from mirrorback.cli.app import main
main()
"""
LONGEST_S = 120


@dataclass(frozen=True)
class Done:
    """What a run has left."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output, which is to be one JSON value."""
        return json.loads(self.out)

    @property
    def messages(self) -> list[dict[str, Any]]:
        """Standard output, which is to be a JSON value a line."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def summary(self) -> dict[str, Any]:
        """The last message of a backup."""
        last = self.messages[-1]
        assert last["message_type"] == "summary"
        return last


def environment(**more: str) -> dict[str, str]:
    """The environment of a run: ours, without what would make it another person's."""
    kept = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "NO_COLOR", "FORCE_COLOR")}
    return kept | {"TZ": "Europe/Berlin", "LC_ALL": "C.UTF-8"} | more


def run(
    *arguments: str | bytes | Path,
    code: int = 0,
    uid: int | None = None,
    cwd: Path | None = None,
    env: dict[str, str] | None = None,
    **more: Any,
) -> Done:
    """Run the program to its end, which is to be `code`, with no traceback."""
    program = [PROGRAM] if uid is None else [sys.executable, "-c", AS_USER, str(uid)]
    done = subprocess.run(
        [*program, *arguments],
        capture_output=True,
        cwd=cwd,
        env=env or environment(),
        timeout=LONGEST_S,
        **more,
    )
    out = done.stdout.decode("utf-8", "surrogateescape")
    err = done.stderr.decode("utf-8", "surrogateescape")
    assert "Traceback" not in err, err
    assert done.returncode == code, (done.returncode, out, err)
    return Done(done.returncode, out, err)


def complaint(*arguments: str | bytes | Path, code: int, **more: Any) -> str:
    """Run what is to fail with `code`; the one line it says, and nothing else."""
    done = run(*arguments, code=code, **more)
    lines = done.err.splitlines()
    assert len(lines) == 1, done.err
    assert done.out == ""
    assert lines[0].startswith("mirrorback: "), lines[0]
    return lines[0].removeprefix("mirrorback: ")


def start(*arguments: str | bytes | Path, **more: Any) -> subprocess.Popen[bytes]:
    """Start the program, and go on."""
    return subprocess.Popen(
        [PROGRAM, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
        **more,
    )


def python(code: str, *arguments: str, **more: Any) -> subprocess.CompletedProcess[bytes]:
    """Run some Python in a process of its own, which must succeed."""
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], check=True, capture_output=True, **more
    )
