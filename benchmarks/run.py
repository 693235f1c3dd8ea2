"""Measures mirrorback against its peers and prints a table: python benchmarks/run.py --help."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from drive import drive, size
from ground import Grounds, Sizes
from large_nights import database, image, mailbox, memory
from large_reads import OldVersions, encoder
from log import Log, say
from measure import Failed, sync
from nights import Bench
from peers import Mirrorback, Tool, all_peers, remove
from report import Report
from source import Source

BACKUPS = ("first", "unchanged", "one-percent")  # in the order in which they are run
BIG = (*BACKUPS, "restore", "verify", "rebuild", "stats", "delete")
SMALL = (
    "unchanged",
    "one-percent",
    "first",
    "restore",
    "verify",
    "rebuild",
    "stats",
    "delete",
    "prune",
    "history",
    "memory",
)
LARGE = ("image", "mailbox", "database", "encoder", "oldest", "mount", "large-memory")
NIGHTS = (*SMALL, *LARGE)
PEERED = {*BIG, "image"}  # with other tools
FILE_SIZES = {
    "image": ("1G", "of the image"),
    "mailbox": ("256M", "of the mailbox"),
    "database": ("200M", "of the database"),
    "history": ("256M", "of the file with many versions"),
    "huge": ("4G", "of the file that memory is measured with"),
}


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Time mirrorback against other backup tools.")
    add = parser.add_argument
    add("--files", type=_positive, default=200_000, help="files in the source (%(default)s)")
    add("--folders", type=_positive, default=10_000, help="folders in it (%(default)s)")
    add("--rounds", type=_positive, default=3, help="rounds of each night (%(default)s)")
    add("--work", type=Path, metavar="DIR", help="where to work: $TMPDIR or /var/tmp")
    add("--drive", choices=("auto", "none"), default="auto", help="an image of its own, if root")
    add("--drive-size", type=size, default="20G", metavar="SIZE", help="its size (20G)")
    add("--only", choices=NIGHTS, action="append", default=[], help="this night; repeatable")
    for name, (usual, what) in FILE_SIZES.items():
        text = f"{what} ({usual})"
        add(f"--{name}-size", type=size, default=usual, metavar="SIZE", help=text)
    add("--versions", type=_several, default=128, help="of that file (%(default)s)")
    add("--mirrorback", metavar="PATH", help="the program: beside this Python, or in $PATH")
    add("--rsync", metavar="PATH", action="append", default=[], help="one more; repeatable")
    add("--json", type=Path, metavar="FILE", help="write all figures there as well")
    return parser.parse_args()


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def _several(text: str) -> int:
    number = int(text)
    if number < 2:
        raise ValueError
    return number


def _program(given: str | None) -> str:
    """The mirrorback to measure."""
    if given is None:
        beside = Path(sys.executable).parent / "mirrorback"
        given = str(beside) if beside.exists() else "mirrorback"
    found = shutil.which(given)
    if found is None:
        raise SystemExit(f"no mirrorback at {given}: give --mirrorback PATH")
    return os.path.abspath(found)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _ignore_signals() -> None:
    """Let nothing stop the clearing up."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def _workplace(given: Path | None) -> Path:
    """A new folder to work in, below the one given."""
    parent = given or Path(os.environ.get("TMPDIR") or "/var/tmp")
    parent.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix="mirrorback-benchmark-", dir=parent.resolve()))


def measure(
    options: argparse.Namespace, chosen: Sequence[str], stack: ExitStack
) -> tuple[Report, bool]:
    """Make the source and the drive, and run the nights; whether any failed."""
    work = _workplace(options.work)
    stack.callback(remove, work)
    place = stack.enter_context(drive(work, options.drive, options.drive_size))
    stack.callback(_ignore_signals)
    log = Log(place, work)
    source = Source(work / "source", options.files, options.folders)
    program = _program(options.mirrorback)
    mirrorback = Mirrorback(source.root, place / "repository", work / "cache", program)
    peers: list[Tool] = []
    if set(chosen) & PEERED:
        peers = all_peers(source.root, place, work / "cache", options.rsync)
    bench = Bench(source, mirrorback, peers, log, options.rounds)
    nights = set(chosen) & set(SMALL)
    if "memory" in nights and not nights - {"memory", "history"}:
        nights |= set(BIG)
    if nights & set(BIG):
        say(f"making {options.files:,} files in {options.folders:,} folders")
        total = source.make()
        sync([work])
        say(f"{total / 1e6:,.0f} MB")
    failed = _run(_steps(bench, nights))
    sizes = Sizes(
        **{name: getattr(options, f"{name}_size") for name in FILE_SIZES}, versions=options.versions
    )
    grounds = Grounds(log, options.rounds, sizes, program, options.rsync)
    with ExitStack() as made:
        failed |= _run(_large_steps(grounds, set(chosen), made))
    return Report(log, peers, chosen, options.files), failed


def _steps(bench: Bench, nights: set[str]) -> dict[str, Callable[[], None]]:
    """The nights of many small files, the first backup first, for the others need it."""
    steps: dict[str, Callable[[], None]] = {
        "first": bench.first,
        "unchanged": bench.unchanged,
        "one-percent": bench.one_percent,
        "restore": bench.restore,
        "verify": bench.verify,
        "rebuild": bench.rebuild,
        "stats": bench.stats,
        "delete": bench.delete,
        "prune": bench.prune,
        "history": bench.history,
    }
    if nights & set(BIG) and "first" not in nights:
        bench.base(nights & set(BIG))
    return {night: step for night, step in steps.items() if night in nights}


def _large_steps(
    grounds: Grounds, nights: set[str], stack: ExitStack
) -> dict[str, Callable[[], None]]:
    """The nights of large files; what several of them use is gone when `stack` is closed."""
    old = OldVersions(grounds, stack)
    steps: dict[str, Callable[[], None]] = {
        "image": partial(image, grounds),
        "mailbox": partial(mailbox, grounds),
        "database": partial(database, grounds),
        "encoder": partial(encoder, grounds),
        "oldest": old.oldest,
        "mount": old.mount,
        "large-memory": partial(memory, grounds),
    }
    return {night: step for night, step in steps.items() if night in nights}


def _run(steps: dict[str, Callable[[], None]]) -> bool:
    """Take the steps one after the other; whether any failed."""
    failed = False
    for step in steps.values():
        try:
            step()
        except Failed as error:
            say(str(error))
            failed = True
    return failed


def _write(file: Path, options: argparse.Namespace, report: Report) -> None:
    settings = {name: str(value) for name, value in vars(options).items()}
    runs = [dataclasses.asdict(run) for run in report.runs]
    shape = {"settings": settings, **report.shape(), "runs": runs}
    file.write_text(json.dumps(shape, indent=1) + "\n", encoding="utf-8")


def main() -> int:
    """All of it; 1 if a run of mirrorback failed, 130 if interrupted."""
    options = arguments()
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # as under nohup
            signal.signal(number, _interrupt)
    chosen = [night for night in NIGHTS if not options.only or night in options.only]
    try:
        with ExitStack() as stack:
            report, failed = measure(options, chosen, stack)
            if report.runs or report.figures:
                print(report.text(), flush=True)
            if options.json:
                _write(options.json, options, report)
    except Failed as error:
        say(str(error))
        return 1
    except KeyboardInterrupt:
        return 130
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
