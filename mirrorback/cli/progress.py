"""Progress on a terminal: files, bytes, rate and time left, on standard error."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column
from rich.text import Text

from mirrorback.cli import clock, words
from mirrorback.cli.escape import plain
from mirrorback.cli.events import Shown

if TYPE_CHECKING:
    from mirrorback.cli.session import Session
    from mirrorback.engine.events import Phase

REFRESH = 0.1  # seconds
WORDS = {
    "recover": "recovering",
    "survey": "looking",
    "plan": "planning",
    "build": "copying",
    "settle": "settling",
    "publish": "publishing",
    "restore": "restoring",
    "verify": "reading back",
    "delete": "deleting",
    "repair": "repairing",
    "rebuild": "rebuilding",
}


class Bars(Shown):
    """Shows a bar where it is known how much there is to do, else a spinner and counts."""

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        console = Console(file=sys.stderr, highlight=False, markup=False)
        # Standard output may be a file: rich must not redirect it to the terminal.
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True)),
            _Bar(bar_width=None),
            _Counts(table_column=Column(no_wrap=True)),
            _Left(table_column=Column(no_wrap=True)),
            console=console,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
            expand=True,
            get_time=clock.ticks,
        )
        self._task = self._progress.add_task(
            "starting", total=None, done=0, size=0, files=None, bytes=None
        )
        self._files = self._bytes = 0
        self._by_files = False  # the end is known in files, not in bytes
        self._next = 0.0

    def __enter__(self) -> Bars:
        self._progress.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._progress.stop()

    def phase(self, phase: Phase, files: int | None = None, size: int | None = None) -> None:
        """Another part begins."""
        with self.lock:
            self._files = self._bytes = 0
            self._by_files = size is None and files is not None
            self._progress.reset(
                self._task,
                total=(files if self._by_files else size) or None,
                description=WORDS[phase.value],
                done=0,
                size=0,
                files=files,
                bytes=size,
            )

    def advance(self, files: int = 0, size: int = 0) -> None:
        """So many files and bytes were done.  Called often: the screen hears of it seldom."""
        with self.lock:
            self._files += files
            self._bytes += size
            now = clock.ticks()
            if now >= self._next:
                self._next = now + REFRESH
                done = self._files if self._by_files else self._bytes
                self._progress.update(
                    self._task, completed=done, done=self._files, size=self._bytes
                )

    def result(self, line: str) -> None:
        """Write a line above the bar, or to the file that standard output is."""
        if self.session.out.is_terminal:
            self._progress.console.print(Text(line), soft_wrap=True)
        else:
            super().result(line)

    def complain(self, line: str) -> None:
        """Write a line above the bar."""
        self._progress.console.print(Text(f"mirrorback: {plain(line)}"), soft_wrap=True)


class _Bar(BarColumn):
    def render(self, task: Task) -> Text:  # type: ignore[override]
        """Nothing while there is no end to see."""
        return Text() if task.total is None else super().render(task)  # type: ignore[return-value]


class _Counts(ProgressColumn):
    def render(self, task: Task) -> Text:
        """`1,200 of 3,000 files, 1.2 of 3.4 GiB, 80 MiB/s`."""
        done, files, size, total = (task.fields[key] for key in ("done", "files", "size", "bytes"))
        text = f"{done:,} of {files:,} files" if files else words.number(done, "file")
        if size or total:
            text += f", {words.size(size)}" + (f" of {words.size(total)}" if total else "")
        if total and task.speed:
            text += f", {words.size(int(task.speed))}/s"
        return Text(text)


class _Left(TimeRemainingColumn):
    def render(self, task: Task) -> Text:
        """Nothing while there is no end to see."""
        return Text() if task.total is None else super().render(task)
