"""Hundreds of nights on one repository, some of them killed: python benchmarks/soak.py --help.

Every night the source changes at random, is backed up and thinned.  Some runs are killed at a
random moment; the next one is to need no help.  Every tenth night each snapshot is compared with
what the source was, as it is restored and as it lies in the folders, and all is verified.  In the
end it is told whether a night takes more time, memory or room than it did near the beginning.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pickle
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median

from drive import drive, size
from log import say
from measure import Command, Failed, read, run
from peers import Mirrorback, remove
from random_change import RandomChange
from states import State

WORKER = Path(__file__).with_name("one_night.py")
FIRST_NIGHT = datetime(2025, 1, 1, 2, tzinfo=UTC)
COMPARED = 10  # nights from one comparison to the next
FIRST_WINDOW = slice(30, 60)  # of nights: by then the daily and weekly snapshots are complete
LAST_WINDOW = 30  # nights
TABLES = ("entry", "object", "delta", "snapshot", "directory")
EMPTY = ("trash", "redo")  # folders of the repository in which nothing stays
LIMITS = {  # the last window by the first
    "seconds a night": 1.5,
    "peak memory": 1.1,
    "bytes of the catalog for each of its rows": 1.2,
    "bytes on the drive for each byte of history": 1.2,
}


@dataclass(frozen=True)
class Night:
    """What one night took; bytes, and seconds."""

    number: int
    seconds: float
    memory: int  # peak RSS of the largest process
    catalog: int  # size of its file
    rows: int  # in its tables
    room: int  # that the repository takes on the drive
    history: int  # bytes of all different contents in all snapshots
    snapshots: int
    kills: int  # of its runs, before the one that was let be


class Soak:
    """A source, a repository, and what each snapshot should show."""

    def __init__(self, source: RandomChange, mirrorback: Mirrorback, work: Path) -> None:
        self.nights: list[Night] = []
        self.compared = 0
        self._source = source
        self._mirrorback = mirrorback
        self._restored = work / "restored"
        self._then = work / "then"  # the states, by the name of the snapshot: on disk, since a
        self._then.mkdir()  # run's peak memory is not told if it is less than our own
        self._contents: dict[str, dict[bytes, int]] = {}
        self._chance = random.Random(f"{source.seed}/kills")

    def night(self, number: int, kills: float) -> None:
        """A day's changes and the backup after it; raises Failed."""
        if number:
            self._source.change(number)
        else:
            self._source.make()
        state = State.of(self._source.root)
        now = FIRST_NIGHT + timedelta(days=number)
        killed = 0
        while number and self._chance.random() < kills:
            killed += self._kill(now)
        figures = run(self._command(now))
        rows = self._snapshots()
        self._contents[rows[-1]] = state.contents
        self._contents = {row: self._contents[row] for row in rows if row in self._contents}
        if unknown := set(rows) - self._contents.keys():
            raise Failed(f"night {number}: snapshots that nobody made: {unknown}")
        (self._then / rows[-1]).write_bytes(pickle.dumps(state))
        contents: dict[bytes, int] = {}
        for one in self._contents.values():
            contents |= one
        place = self._mirrorback.place
        self.nights.append(
            Night(
                number,
                figures.wall,
                figures.largest,
                (place / ".mirrorback/catalog.db").stat().st_size,
                self._rows(),
                int(read(Command(["du", "-s", "-B1", str(place)])).split()[0]),
                sum(contents.values()),
                len(rows),
                killed,
            )
        )

    def compare(self) -> None:
        """Each snapshot with what the source was; raises Failed."""
        place = self._mirrorback.place
        for name in self._contents:
            state = pickle.loads((self._then / name).read_bytes())
            folder = place / name
            if missing := state.missing(folder if folder.exists() else place / "current"):
                raise Failed(f"{name}: the folder shows something else: {missing[:5]}")
            run(self._mirrorback.restore(name, self._restored))
            if differs := state.differs(State.of(self._restored)):
                raise Failed(f"{name}: restored, it differs: {differs[:5]}")
            remove(self._restored)
            self.compared += 1
        run(self._mirrorback.command("verify", str(place), "-q"))
        inside = place / ".mirrorback"
        left = [path for name in EMPTY for path in (inside / name).iterdir()]
        left += [path for path in inside.iterdir() if path.name.startswith("incoming")]
        if left:
            raise Failed(f"left behind: {left[:5]}")

    def _kill(self, now: datetime) -> bool:
        """Start the night, and kill all of its processes at a random moment; whether it still
        ran then."""
        usual = median(night.seconds for night in self.nights[-20:])
        command = self._command(now)
        process = subprocess.Popen(
            command.argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        time.sleep(self._chance.uniform(0, usual))
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        return process.wait() == -signal.SIGKILL

    def _command(self, now: datetime) -> Command:
        words = [str(WORKER), str(self._source.root), str(self._mirrorback.place)]
        words += [now.isoformat(), str(self._source.large_size // 2)]
        return Command([self._mirrorback.interpreter(), *words])

    def _snapshots(self) -> list[str]:
        """The names of all snapshots, the mirror last."""
        text = read(self._mirrorback.command("snapshots", str(self._mirrorback.place), "--json"))
        return [row["name"] for row in json.loads(text)]

    def _rows(self) -> int:
        path = self._mirrorback.place / ".mirrorback/catalog.db"
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
            return sum(db.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in TABLES)


def growth(nights: Sequence[Night]) -> list[tuple[str, float, float]]:
    """What is limited, as it was in the first window and in the last."""
    early, late = nights[FIRST_WINDOW], nights[-LAST_WINDOW:]

    def both(what: str, of: Sequence[float], now: Sequence[float]) -> tuple[str, float, float]:
        return what, median(of), median(now)

    seconds, memory, catalog, room = LIMITS
    return [
        both(seconds, [n.seconds for n in early], [n.seconds for n in late]),
        both(memory, [n.memory for n in early], [n.memory for n in late]),
        both(catalog, [n.catalog / n.rows for n in early], [n.catalog / n.rows for n in late]),
        both(room, [n.room / n.history for n in early], [n.room / n.history for n in late]),
    ]


def table(nights: Sequence[Night], compared: int) -> str:
    """What is told in the end."""
    kills = sum(night.kills for night in nights)
    last = nights[-1]
    lines = [
        f"{len(nights)} nights, {kills} runs killed; {compared} snapshots compared, all exact",
        f"in the end {last.snapshots} snapshots, {last.rows:,} rows in the catalog of"
        f" {last.catalog / 1e6:.1f} MB, {last.room / 1e6:,.0f} MB on the drive"
        f" for {last.history / 1e6:,.0f} MB of different contents",
        "",
        f"| | nights 31-60 | last {LAST_WINDOW} | ratio | limit |",
        "|---|---|---|---|---|",
    ]
    for what, early, late in growth(nights):
        ratio, limit = late / early, LIMITS[what]
        verdict = "ok" if ratio <= limit else "over"
        lines.append(f"| {what} | {early:.4g} | {late:.4g} | {ratio:.2f} | {limit} {verdict} |")
    return "\n".join(lines)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Hundreds of nights on one repository.")
    add = parser.add_argument
    add("--nights", type=int, default=300, help="how many (%(default)s), 90 or more")
    add("--files", type=int, default=2000, help="about which their number stays (%(default)s)")
    add("--large", type=int, default=3, help="large files (%(default)s)")
    add("--large-size", type=size, default="4M", metavar="SIZE", help="of each (4M)")
    add("--kills", type=float, default=0.3, help="how likely a run is killed (%(default)s)")
    add("--seed", type=int, default=1, help="of the changes, and of when is killed")
    add("--work", type=Path, metavar="DIR", help="where to work: $TMPDIR or /var/tmp")
    add("--drive", choices=("auto", "none"), default="auto", help="an image of its own, if root")
    add("--drive-size", type=size, default="4G", metavar="SIZE", help="its size (4G)")
    add("--mirrorback", metavar="PATH", help="the program: beside this Python, or in $PATH")
    add("--json", type=Path, metavar="FILE", help="write the figures of all nights there")
    return parser.parse_args()


def main() -> int:
    """All nights; 1 where something is not as it should be."""
    options = arguments()
    beside = Path(sys.executable).parent / "mirrorback"
    program = options.mirrorback or (str(beside) if beside.exists() else "mirrorback")
    parent = options.work or Path(os.environ.get("TMPDIR") or "/var/tmp")
    parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix="mirrorback-soak-", dir=parent.resolve()))
    try:
        with drive(work, options.drive, options.drive_size) as place:
            source = RandomChange(
                work / "source", options.files, options.large, options.large_size, options.seed
            )
            mirrorback = Mirrorback(source.root, place / "repository", work, program)
            soak = Soak(source, mirrorback, work)
            for number in range(options.nights):
                soak.night(number, options.kills)
                if number % COMPARED == COMPARED - 1 or number == options.nights - 1:
                    soak.compare()
                    one = soak.nights[-1]
                    say(f"night {number + 1}: {one.snapshots} snapshots exact, {one.seconds:.2f} s")
        if options.json:
            options.json.write_text(json.dumps([asdict(night) for night in soak.nights], indent=1))
        print(table(soak.nights, soak.compared))
    except Failed as error:
        say(str(error))
        return 1
    finally:
        remove(work)
    return 0


if __name__ == "__main__":
    sys.exit(main())
