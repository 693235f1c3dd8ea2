"""Real shells on a terminal, in which keys are pressed."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import shutil
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

COMPLETIONS = Path(__file__).parents[1] / "completions"
SHOW = b"\x18p"  # Ctrl-X p writes the line into a file
LONGEST_S = 20.0

# What each shell reads first: our script, and the key that shows the line.
_START = {
    "bash": """
bind 'set enable-bracketed-paste off'
bind 'set completion-query-items 0'
bind 'set page-completions off'
PS1='ready> '
source {completions}/mirrorback.bash
show() {{ printf %s "$READLINE_LINE" > {shown}.new; mv {shown}.new {shown}; }}
bind -x '"\\C-xp": show'
""",
    "zsh": """
PS1='ready> '
unsetopt zle_bracketed_paste prompt_cr prompt_sp beep
fpath=({completions} $fpath)
autoload -Uz compinit; compinit -u -D
setopt no_always_last_prompt no_list_beep
show() {{ print -rn -- "$BUFFER" > {shown}.new; command mv {shown}.new {shown} }}
zle -N show; bindkey '^Xp' show
""",
    "fish": """
function fish_prompt; echo -n 'ready> '; end
function fish_greeting; end
source {completions}/mirrorback.fish
function show; commandline | string collect > {shown}.new; command mv {shown}.new {shown}; end
bind \\cxp show
""",
}


class Shell:
    """One interactive shell."""

    def __init__(self, name: str, folder: Path, env: Mapping[str, str], cwd: Path) -> None:
        path = shutil.which(name)
        if path is None:
            pytest.fail(f"{name} is not installed; .ci/run lists what the tests need")
        self._shown = folder / "shown"
        home = folder / "shell-home"
        home.mkdir(exist_ok=True)
        start = home / "start"
        start.write_text(_START[name].format(completions=COMPLETIONS, shown=self._shown))
        arguments = {
            "bash": ["--noprofile", "--rcfile", str(start), "-i"],
            "zsh": ["-f", "-i"],
            "fish": ["--no-config", "-i", "-C", f"source {start}"],
        }[name]
        more = {"HOME": str(home), "TERM": "xterm", "HISTFILE": "", "LC_ALL": "C.UTF-8"}
        self._pid, self._terminal = pty.fork()
        if self._pid == 0:
            os.chdir(cwd)
            os.execve(path, [path, *arguments], {**env, **more})
        self.printed = b""
        if name == "zsh":
            self.press(b" source " + str(start).encode() + b"\r")
        self._wait_until(lambda: self.printed.count(b"ready> ") > 0)

    def press(self, keys: bytes) -> None:
        """Press keys."""
        os.write(self._terminal, keys)

    def completed(self, line: str) -> str:
        """What becomes of a line when Tab is pressed at its end."""
        with contextlib.suppress(FileNotFoundError):
            self._shown.unlink()
        self.press(b"\x15" + line.encode() + b"\t")
        self.press(SHOW)
        self._wait_until(self._shown.exists)
        return self._shown.read_text()

    def close(self) -> None:
        """End it."""
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        os.close(self._terminal)

    def _wait_until(self, done: object) -> None:
        until = time.monotonic() + LONGEST_S
        while not done():  # type: ignore[operator]
            assert time.monotonic() < until, self.printed
            if select.select([self._terminal], [], [], 0.02)[0]:
                with contextlib.suppress(OSError):
                    self.printed += os.read(self._terminal, 1 << 16)


@contextlib.contextmanager
def shell(name: str, folder: Path, env: Mapping[str, str], cwd: Path) -> Iterator[Shell]:
    """An interactive shell in a folder, which has our completion; `folder` is for its files."""
    found = Shell(name, folder, env, cwd)
    try:
        yield found
    finally:
        found.close()
