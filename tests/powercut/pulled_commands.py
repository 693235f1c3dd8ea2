"""Pulls the drive while an installed command works on it, and looks at what a person sees.

    pulled_commands.py pulled|read-only|commit-cut|unmounted|told-by-night KIND FOLDER [COMMAND]

It has mounts of its own, which are gone when it is, however it ends.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from powercut import devices
from powercut.devices import KINDS
from powercut.disk import Served, served
from program import PROGRAM, complaint, environment, python, run
from trees import describe, require_same

SOON_S = 20  # with the start of the program, on a busy machine
FILES = 60
CUT_SHORT = "a run was cut short while it wrote the catalog"


@dataclass
class Drive:
    """A drive with a repository that has two snapshots, which can be pulled."""

    top: Path
    kind: str
    disk: Served | None = None

    @property
    def point(self) -> Path:
        """Where it is mounted."""
        return self.top / "drive"

    @property
    def repository(self) -> Path:
        """On the drive."""
        return self.point / "home"

    @property
    def source(self) -> Path:
        """What is backed up."""
        return self.top / "source"

    @property
    def config(self) -> Path:
        """The configuration of a night."""
        return self.top / "config.toml"

    def make(self) -> None:
        """Two nights, and changes since."""
        (self.source / "d").mkdir(parents=True)
        for number in range(FILES):
            (self.source / "d" / str(number)).write_bytes(os.urandom(20_000))
        devices.make(KINDS[self.kind], self.top / "image")
        self.config.write_text(
            f'[backup.home]\nsource = "{self.source}"\nrepository = "{self.repository}"\n'
            'keep-last = 1\nverify = "1m"\n'
        )
        with self.mounted():
            run("backup", "--init", self.source, self.repository)
            for _night in range(2):
                (self.source / "d" / "0").write_bytes(os.urandom(20_000))
                run("backup", self.source, self.repository)
        for number in range(0, FILES, 2):
            (self.source / "d" / str(number)).write_bytes(os.urandom(20_000))

    @contextlib.contextmanager
    def mounted(self, *, read_only: bool = False) -> Iterator[None]:
        """It is there."""
        image, log = self.top / "image", self.top / "log"
        with contextlib.ExitStack() as stack:
            self.disk = stack.enter_context(served(image, log, self.top / "served"))
            stack.callback(self.disk.recover)
            file = self.disk.block_file
            kind = KINDS[self.kind]
            stack.enter_context(
                devices.mounted(kind, file, self.point, direct=True, read_only=read_only)
            )
            yield

    def snapshots(self) -> list[str]:
        """Their names."""
        return [one["name"] for one in run("snapshots", "--json", self.repository).json]


def tried(*words: str | Path, **more: str) -> subprocess.CompletedProcess[str]:
    """Run the program, to whatever end."""
    return subprocess.run(
        [PROGRAM, *words],
        capture_output=True,
        text=True,
        env=environment(**more),
        timeout=90,
    )


def copied(image: Path) -> Callable[[], None]:
    """Bring an image back to what it is now."""
    kept = image.with_suffix(".kept")
    devices.copy_sparse(image, kept)
    return lambda: devices.copy_sparse(kept, image)


def command(drive: Drive, name: str) -> list[str | Path]:
    """A command that needs the drive."""
    oldest = sorted(path.name for path in drive.repository.glob("2*"))[:1]
    return {
        "backup": ["backup", drive.source, drive.repository],
        "restore": ["restore", drive.repository, "--to", drive.top / "back"],
        "verify": ["verify", drive.repository],
        "prune": ["prune", "--keep-last", "1", drive.repository],
        "delete": ["delete", drive.repository, *oldest],
        "run": ["run", "--config", drive.config],
    }[name]


def pulled(drive: Drive, name: str) -> None:
    """A command ends soon, and says why; after that the next run is well."""
    again = copied(drive.top / "image")
    with drive.mounted():
        assert drive.disk is not None
        words = command(drive, name)
        before = drive.disk.requests()
        run(*words)
        needed = drive.disk.requests() - before
    failures = 0
    for part in (2, 7):
        again()
        subprocess.run(["rm", "-rf", drive.top / "back"], check=True)
        with drive.mounted():
            assert drive.disk is not None
            old = {path.name: describe(path) for path in drive.repository.glob("2*")}
            mirror = describe(drive.repository / "current")
            drop_caches(drive)
            drive.disk.fail(errno.EIO, needed * part // 10)
            began = time.monotonic()
            done = tried(*words)
            assert time.monotonic() - began < SOON_S
            told(name, done)
            failures += done.returncode != 0
            second = tried("verify", drive.repository)
            assert second.returncode in (1, 10), second  # and not 11: nobody holds it
        recovered(drive, old, mirror)
    assert failures, needed


def drop_caches(drive: Drive) -> None:
    """Let the system forget what it has read of the drive: it is mounted anew."""
    for path in drive.repository.rglob("*"):
        if path.is_file() and not path.is_symlink():
            fd = os.open(path, os.O_RDONLY)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(fd)


def told(name: str, done: subprocess.CompletedProcess[str]) -> None:
    """One line, and a code that says that the drive has failed."""
    assert "Traceback" not in done.stderr and "internal error" not in done.stderr, done.stderr
    assert done.returncode in (0, 1), done
    lines = done.stderr.splitlines()
    if done.returncode:
        assert len(lines) <= 3 if name in ("run", "restore") else len(lines) == 1, done.stderr
        assert lines[-1].startswith("mirrorback: "), done.stderr


def recovered(drive: Drive, old: dict[str, object], mirror: object) -> None:
    """The drive is back: the next run needs no help, and all is exact."""
    with drive.mounted():
        run("backup", drive.source, drive.repository)
        require_same(describe(drive.source), describe(drive.repository / "current"))
        for path in drive.repository.glob("2*"):
            wanted = old.get(path.name)
            assert describe(path) in ([wanted] if wanted else [mirror, describe(drive.source)])
        assert run("verify", "--json", drive.repository).json == []
        for folder in ("trash", "redo"):
            assert list((drive.repository / ".mirrorback" / folder).iterdir()) == []


def read_only(drive: Drive) -> None:
    """What was published can be read, with the program unless a commit was cut, which it says;
    a backup says that it cannot be written."""
    with drive.mounted():
        assert drive.disk is not None
        mirror = describe(drive.repository / "current")
        drive.disk.fail(errno.EIO, 40)
        done = tried("backup", drive.source, drive.repository)
        assert done.returncode == 1, done
    with drive.mounted(read_only=True):
        require_same(mirror, describe(drive.repository / "current"))
        inner = drive.repository / ".mirrorback"
        oldest = min(path.name for path in drive.repository.glob("2*"))
        for words in (
            ["backup", drive.source, drive.repository],
            ["delete", drive.repository, oldest],
        ):
            line = complaint(*words, code=1)
            assert "ead-only file system" in line or CUT_SHORT in line, line
        done = tried("snapshots", drive.repository)
        if done.returncode:
            assert CUT_SHORT in done.stderr and (inner / "catalog.db-journal").stat().st_size, done
            return
        assert len(drive.snapshots()) == 3
        run("restore", drive.repository, "--to", drive.top / "back")
        require_same(mirror, describe(drive.top / "back"))
        assert run("verify", "--json", drive.repository).json == []


KILLED_IN_A_COMMIT = """
import os, sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("PRAGMA cache_size = 1")
db.execute("BEGIN")
db.execute("CREATE TABLE filler (bytes)")
db.executemany("INSERT INTO filler VALUES (?)", [(bytes(1000),)] * 3000)
os._exit(0)
"""


def commit_cut(drive: Drive) -> None:
    """It is told of where it cannot be undone."""
    with drive.mounted():
        python(KILLED_IN_A_COMMIT, str(drive.repository / ".mirrorback/catalog.db"))
    with drive.mounted(read_only=True):
        for words in (["snapshots"], ["verify"], ["ls"]):
            assert CUT_SHORT in complaint(*words, drive.repository, code=1)
    with drive.mounted():
        assert len(drive.snapshots()) == 3
        assert run("verify", "--json", drive.repository).json == []


def unmounted(drive: Drive) -> None:
    """By `umount --lazy`: nothing is written where the drive was, and the next run is well."""
    with drive.mounted():
        assert drive.disk is not None
        process = subprocess.Popen(
            [PROGRAM, "backup", drive.source, drive.repository],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
        )
        incoming = drive.repository / ".mirrorback" / "incoming"
        until = time.monotonic() + SOON_S
        while not incoming.exists() and process.poll() is None and time.monotonic() < until:
            time.sleep(0.001)
        subprocess.run(["umount", "--lazy", drive.point], check=True)
        out, err = process.communicate(timeout=90)
        told("backup", subprocess.CompletedProcess([], process.returncode, out, err))
        assert list(drive.point.iterdir()) == []
    with drive.mounted():
        run("backup", drive.source, drive.repository)
        require_same(describe(drive.source), describe(drive.repository / "current"))
        assert run("verify", "--json", drive.repository).json == []


def told_by_night(drive: Drive) -> None:
    """The diary, which is not on the drive, says what happened."""
    diary = str(drive.top / "diary")
    with drive.mounted():
        assert drive.disk is not None
        drive.disk.fail(errno.EIO, 40)
        done = tried("run", "--config", drive.config, MIRRORBACK_STATE_DIR=diary)
        assert done.returncode == 1, done
    state = environment(MIRRORBACK_STATE_DIR=diary)
    status = run("status", "--json", "--config", drive.config, code=3, env=state).json
    assert json.dumps(status[0]["last_result"]) == '"failed"', status


def main() -> None:
    """See above."""
    devices.die_with_parent()
    devices.own_mounts()
    name, kind, folder, *words = sys.argv[1:]
    drive = Drive(Path(folder), kind)
    drive.make()
    {
        "pulled": pulled,
        "read-only": read_only,
        "commit-cut": commit_cut,
        "unmounted": unmounted,
        "told-by-night": told_by_night,
    }[name](drive, *words)


if __name__ == "__main__":
    main()
