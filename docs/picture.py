"""Draw `docs/nights.svg`: three nights of a real run, as rich exports what a terminal shows.

`make picture` runs this; it writes only into a temporary folder, and the picture.
"""

from __future__ import annotations

import contextlib
import os
import pty
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

PICTURE = Path(__file__).with_name("nights.svg")
WIDTH = 94
PAGE = 4096
# Whoever looks at it is asked for no font that would have to be fetched.
FORMAT = re.sub(r"@font-face \{\{.*?\}\}", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)


class Screen:
    """A terminal in which commands run, one below the other."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._console = Console(
            record=True,
            width=WIDTH,
            file=open(os.devnull, "w"),  # noqa: SIM115
            force_terminal=True,
            color_system="truecolor",
        )

    def type(self, command: str, shown: str | None = None) -> None:
        """Run a command of the shell; what it writes stands below it."""
        self._console.print(Text.assemble(("$ ", "bold green"), (shown or command, "bold")))
        out = _on_terminal(command, self._home)
        if not out:
            return
        for line in out.replace("\r\n", "\n").rstrip("\n").split("\n"):
            self._console.print(Text.from_ansi(line), no_wrap=True)

    def say(self, what: str) -> None:
        """A remark of the one who types."""
        self._console.print(Text(f"# {what}", "italic bright_black"))

    def save(self, path: Path) -> None:
        """Write the picture."""
        svg = self._console.export_svg(title="mirrorback", theme=MONOKAI, code_format=FORMAT)
        path.write_text("\n".join(line.rstrip() for line in svg.splitlines()) + "\n")


def _on_terminal(command: str, folder: Path) -> str:
    ours, theirs = pty.openpty()
    program = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    env = {"PATH": program, "TERM": "xterm-256color", "COLUMNS": str(WIDTH), "HOME": str(folder)}
    process = subprocess.Popen(
        ["sh", "-c", command], cwd=folder, env=env, stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    written = b""
    with contextlib.suppress(OSError):  # EIO: nobody has the other end any more
        while data := os.read(ours, 65536):
            written += data
    os.close(ours)
    if process.wait():
        raise SystemExit(f"{command}: {written.decode(errors='replace')}")
    return written.decode()


def _make(source: Path) -> None:
    letters = source / "letters"
    letters.mkdir(parents=True)
    for name in ("anna.odt", "bank.odt", "school.odt"):
        (letters / name).write_bytes(os.urandom(20_000))
    (source / "disk.img").write_bytes(os.urandom(200 << 20))


def _work(source: Path) -> None:
    (source / "letters").rename(source / "post")
    (source / "post" / "bank.odt").write_bytes(os.urandom(21_000))
    with (source / "disk.img").open("r+b") as image:
        for page in (7, 4_000, 20_000):
            image.seek(page * PAGE)
            image.write(os.urandom(PAGE))


def main() -> None:
    """Draw it anew."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        _make(home / "Documents")
        (home / "Backup").mkdir()
        screen = Screen(home)
        backup = "mirrorback backup Documents Backup/documents"
        screen.type(f"{backup} --init --no-progress", f"{backup} --init")
        time.sleep(1.1)  # a second has one snapshot
        _work(home / "Documents")
        screen.say("a folder renamed, a letter written anew, 12 KiB of disk.img changed")
        screen.type(f"{backup} --no-progress", backup)
        screen.type(f"{backup} --no-progress", backup)
        first = min(p.name for p in (home / "Backup" / "documents").glob("2*"))
        screen.type("mirrorback diff Backup/documents 1B")
        screen.type(f"cd Backup/documents && ls && du -ch {first} current | tail -n 1")
        screen.say("the image as it was, without mirrorback")
        screen.type(
            f"cd Backup/documents && zstd -dcq {first}/disk.img.rdiff.zst"
            " | rdiff patch current/disk.img - ~/old.img",
            f"zstd -dc {first}/disk.img.rdiff.zst | rdiff patch current/disk.img - ~/old.img",
        )
        screen.say("or with it, every byte compared with its digest")
        screen.type(
            "mirrorback restore Backup/documents letters --at 1B --to ~/then --no-progress",
            "mirrorback restore Backup/documents letters --at 1B --to ~/then",
        )
        screen.save(PICTURE)


if __name__ == "__main__":
    main()
