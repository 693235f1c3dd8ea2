"""A repository that an attacker has written to, and what no command may do with it.

Each command runs as root in a process of its own, a copy of one that has imported the program
already: it ends, in time and in little memory, with a code that is documented and in plain words,
and whatever lies outside of the repository and of a restore's target is as it was, and unread.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import shutil
import socket
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from program import environment
from runs import LARGE, LargeNights, change_pages, noise

from mirrorback.store import encoding, schema, sealing

MEMORY_KB = 256 << 10
LONGEST_S = 60
ENDS = (0, 1, 2, 3, 4, 5, 10, 11, 12)  # all that are documented, but of signals
SECRET = b"what lies outside of the repository is nobody's business"
READING = (
    "snapshots REPO",
    "ls REPO",
    "ls REPO -R --json",
    "ls REPO d --at OLD",
    "versions REPO d/image --follow",
    "find REPO *",
    "diff REPO OLD",
    "cat REPO d/a",
    "cat REPO d/image --at OLD",
    "stats REPO",
    "verify REPO",
    "doctor REPO",
    "log REPO",
    "__complete REPO",
)
RESTORING = (
    "restore REPO --to BACK",
    "restore REPO --at OLD --to BACK",
    "restore REPO d/image d/a --at OLD --to BACK",
    "restore REPO --to BACK --delete --no-keep --overwrite always",
)
WRITING = (
    "backup SOURCE REPO",
    "backup SOURCE REPO --always --checksum",
    "delete REPO OLD",
    "pin REPO OLD",
    "unpin REPO OLD",
    "prune REPO --keep-last 1",
    "repair REPO",
    "rebuild REPO",
)
ALL = READING + RESTORING + WRITING

# Runs commands on request: a line of JSON in, a line of JSON out.  It has one thread, and little
# memory of its own, so that what a child takes is the program's.
_STARTER = """
import json, os, select, signal, sys, time
import mirrorback.cli.app
from mirrorback.engine import (backup, delete, doctor, history, prune, rebuild, repair, restore,
    stats, verify, pins)
from mirrorback.store import catalog
longest = float(sys.argv[1])

def child(asked):
    code = 99
    try:
        os.setsid()
        fd = os.open(asked["out"], os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600)
        null = os.open(os.devnull, os.O_RDONLY)
        err = os.open(asked["out"] + ".err", os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600)
        os.dup2(null, 0); os.dup2(fd, 1); os.dup2(err, 2)
        sys.stdout = os.fdopen(1, "w", closefd=False)
        sys.stderr = os.fdopen(2, "w", closefd=False)
        sys.argv = ["mirrorback", *asked["words"]]
        mirrorback.cli.app.main()
        code = 0
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException:
        import traceback
        traceback.print_exc()
    finally:
        sys.stdout.flush(); sys.stderr.flush()
        os._exit(code)

for line in sys.stdin:
    asked = json.loads(line)
    pid = os.fork()
    if pid == 0:
        child(asked)
    handle = os.pidfd_open(pid)
    ended = bool(select.select([handle], [], [], longest)[0])
    os.close(handle)
    if not ended:
        os.killpg(pid, signal.SIGKILL)
    _pid, status, usage = os.wait4(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    print(json.dumps([code, usage.ru_maxrss, not ended]), flush=True)
"""


class End(NamedTuple):
    """Of a command: its exit code, memory in KiB, whether it had to be ended, what it gave out
    and what it said."""

    command: str
    code: int
    memory: int
    hung: bool
    out: bytes
    err: bytes

    @property
    def said(self) -> bytes:
        """All for a person to read: what `cat` gives out is a file."""
        return self.err if self.command.startswith("cat") else self.out + self.err

    def fault(self) -> str | None:
        """What is wrong with how it ended."""
        if self.hung:
            return "does not end"
        if b"Traceback" in self.said or b"internal error" in self.said:
            return "is not in plain words"
        if self.code not in ENDS:
            return "has no such exit code"
        if self.memory > MEMORY_KB:
            return f"takes {self.memory >> 10} MiB"
        if any(byte < 32 and byte not in b"\n\t" for byte in self.said) or b"\x7f" in self.said:
            return "prints what a terminal obeys"
        return None


class Starter:
    """Starts commands, one after the other."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _STARTER, str(LONGEST_S)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment(),
            text=True,
        )

    def run(self, command: str, words: list[str], out: Path) -> End:
        """Run a command to its end."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps({"words": words, "out": str(out)}) + "\n")
        self._process.stdin.flush()
        code, memory, hung = json.loads(self._process.stdout.readline())
        err = Path(f"{out}.err")
        return End(command, code, memory, hung, out.read_bytes(), err.read_bytes())

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)
        assert self._process.stdout is not None
        self._process.stdout.close()


def lived(top: Path) -> LargeNights:
    """A repository with deltas, moves, links, attributes, odd names, and a source that is not
    the mirror any more."""
    nights = LargeNights(top / "source", top / "drive")
    folder = nights.source / "d"
    (folder / "sub").mkdir(parents=True)
    image = folder / "image"
    image.write_bytes(noise(2 * LARGE, 1))
    for name in ("a", "b", "c", "sub/e", "sub/\udcff", "sub/new\nline", "sub/\x1b[31mred"):
        (folder / name).write_text(name.encode("utf-8", "replace").decode() * 20)
    os.setxattr(folder / "a", "user.mood", b"good")
    (folder / "link").hardlink_to(folder / "b")
    (folder / "symlink").symlink_to("a")
    os.mkfifo(folder / "fifo")
    nights.backup()
    change_pages(image, 3, 2)
    (folder / "sub").rename(nights.source / "moved")
    nights.backup()
    change_pages(image, 4, 2)
    (folder / "a").write_text("another text")
    nights.backup()
    (folder / "a").rename(folder / "a2")
    (folder / "a").write_text("a third text")
    (folder / "b").chmod(0o600)
    (folder / "c").unlink()
    (nights.source / "new").write_text("new")
    change_pages(image, 5, 2)
    return nights


def state_of(top: Path) -> dict[str, tuple[object, ...]]:
    """All that one can see of a tree."""
    found: dict[str, tuple[object, ...]] = {}
    for path in [top, *sorted(top.rglob("*"))]:
        st = path.lstat()
        content = target = None
        if stat.S_ISREG(st.st_mode):
            content = hashlib.sha256(path.read_bytes()).hexdigest()
        elif stat.S_ISLNK(st.st_mode):
            target = os.readlink(path)
        names = os.listxattr(path, follow_symlinks=False)
        found[str(path)] = (
            *(st.st_ino, st.st_mode, st.st_uid, st.st_gid, st.st_size),
            *(st.st_mtime_ns, content, target),
            tuple((name, os.getxattr(path, name, follow_symlinks=False)) for name in names),
        )
    return found


class Attack:
    """A copy of a repository for an attacker, and what lies around it."""

    def __init__(self, nights: LargeNights, starter: Starter, folder: Path) -> None:
        self._nights = nights
        self._starter = starter
        self._folder = folder
        self.repository = folder / "drive"
        self.back = folder / "back"
        self.outside = folder / "outside"
        self.inner = self.repository / ".mirrorback"
        self.fresh()

    def fresh(self) -> None:
        """Begin anew."""
        for place in (self.repository, self.back, self.outside):
            if place.is_symlink():
                place.unlink()
            shutil.rmtree(place, ignore_errors=True)
        subprocess.run(["cp", "-a", self._nights.repository, self.repository], check=True)
        self.outside.mkdir()
        (self.outside / "secret").write_bytes(SECRET)
        (self.outside / "secret").chmod(0o400)
        (self.outside / "run").write_bytes(b"#!/bin/sh\n" + SECRET)
        (self.outside / "run").chmod(0o6755)
        with contextlib.suppress(OSError):
            os.setxattr(self.outside / "run", "user.mood", b"good")
        (self.outside / "d").mkdir()
        for name in ("a", "b", "image", "image.rdiff.zst", "link", "0", "1.undo", "incoming-1"):
            (self.outside / "d" / name).write_bytes(SECRET)
            (self.outside / name).write_bytes(SECRET)
        for name in ("incoming-000009", "2026-11-02-030000"):
            (self.outside / name).mkdir()
            (self.outside / name / "a").write_bytes(SECRET)
        with contextlib.closing(sqlite3.connect(self.outside / "database")) as db:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("CREATE TABLE snapshot (id, secret)")
            db.execute("INSERT INTO snapshot VALUES (1, ?)", (SECRET.decode(),))
            db.commit()
        for path in sorted(self.outside.rglob("*")):
            os.utime(path, ns=(10**18, 10**18))
        os.utime(self.outside, ns=(10**18, 10**18))

    @property
    def catalog(self) -> Path:
        """Its file."""
        return self.inner / "catalog.db"

    @property
    def folders(self) -> list[str]:
        """Names of the dated folders, oldest first."""
        return [folder.name for folder in self._nights.folders()]

    @contextlib.contextmanager
    def database(self) -> Iterator[sqlite3.Connection]:
        """The catalog, to be written to; then it has a right seal."""
        with contextlib.closing(sqlite3.connect(self.catalog, isolation_level=None)) as db:
            db.create_function("row_check", -1, encoding.row_check)
            yield db
        self.seal()

    def seal(self) -> None:
        """Seal the catalog as it is: whoever can write to it can do that, too."""
        seal = self.inner / "catalog.blake3"
        seal.unlink(missing_ok=True)
        file = sealing.SealedFile(os.fsencode(self.catalog))
        file.write()
        file.close()

    def words(self, command: str) -> list[str]:
        """A command's arguments."""
        names = {
            "REPO": str(self.repository),
            "SOURCE": str(self._nights.source),
            "OLD": self.folders[0],
            "BACK": str(self.back),
            "OUTSIDE": str(self.outside),
        }
        return [names.get(word, word) for word in command.split()]

    def end(self, command: str) -> End:
        """Run a command to its end."""
        return self._starter.run(command, self.words(command), self._folder / "said")

    def faults(self, *commands: str) -> Iterator[str]:
        """What some commands do that they must not."""
        for command in commands:
            before = self.around()
            end = self.end(command)
            fault = end.fault()
            if fault is not None:
                yield f"{command}: {fault}: {end.code} {end.said[-1500:]!r}"
            after = self.around()
            changed = [p for p in before.keys() | after.keys() if before.get(p) != after.get(p)]
            if changed:
                yield f"{command}: changed {changed}: {end.said[-1500:]!r}"
            if SECRET in end.out + end.err or self._is_given_away():
                yield f"{command}: gives away what is outside: {end.said[-1500:]!r}"

    def around(self) -> dict[str, tuple[object, ...]]:
        """All that must stay as it is."""
        return state_of(self.outside) | state_of(self._nights.source)

    def _is_given_away(self) -> bool:
        if not self.back.is_dir():
            return False
        return any(
            SECRET in path.read_bytes()
            for path in self.back.rglob("*")
            if stat.S_ISREG((st := path.lstat()).st_mode) and st.st_size < 1 << 20
        )

    def require_harmless(self, *commands: str) -> None:
        """None of some commands, of all where none is named, does what it must not; those
        that write leave what the next finds."""
        wrong = list(self.faults(*(commands or ALL)))
        assert not wrong, "\n".join(wrong)


def checked(db: sqlite3.Connection) -> None:
    """Give every row a right check."""
    for table, columns in schema.CHECKED.items():
        db.execute(f"UPDATE {table} SET digest_of_row = {schema.check(columns)}")


HOSTILE_NAMES: tuple[object, ...] = (
    *(b"..", b".", b"", b"/etc/passwd", b"a/b", b"../../outside/secret", b"a\0b", b"d", b"a"),
    *(b"n" * 256, b"n" * 10_000_000, b"\x1b]0;owned\x07\x1b[31m", b"\xff\xfe", "text", 7, 1.5),
)
HOSTILE_NUMBERS: tuple[object, ...] = (
    *(0, 1, 2, 3, 4, 5, 7, 9, -1, -2, 255, 0o4777, 0o170000, 0o104755, 1 << 31, (1 << 32) - 1),
    *(1 << 32, 1 << 40, 1 << 62, (1 << 62) - 1, (1 << 63) - 1, -(1 << 63), 1e300, float("inf")),
    *("12", "\x1b[31m", b"", b"\xff" * 16, b"\x7f" + b"\xff" * 15, b"\1" * 32, b"\1" * 4000),
)
HOSTILE_TEXTS: tuple[object, ...] = (
    *(None, "", "x" * 1_000_000, "\x1b]0;owned\x07", "2026-11-02-020000", "2026-11-02-020000-2"),
    *("../outside", "/etc", "9999-99-99-999999", "a\nb", "\ud7ff\u202e", 5, -1, 1.5, b"\xff"),
)
_NAMES = ("name", "from_name", "target", "fingerprint", "digest", "value", "attributes")
_TEXTS = ("user", "grp", "pinned", "problem", "key")


def mutate(db: sqlite3.Connection, chance: random.Random) -> str:
    """Change one value of a catalog to one that an attacker may like; what was changed."""
    table = chance.choice([*schema.CHECKED, "attributes"])
    column = chance.choice(list(schema.CHECKED.get(table, ("digest", "value"))))
    pool = HOSTILE_NUMBERS
    if column in _TEXTS or (table, column) == ("snapshot", "name"):
        pool = HOSTILE_TEXTS
    elif column in _NAMES:
        pool = HOSTILE_NAMES
    numbers = [row[0] for row in db.execute("SELECT id FROM entry UNION SELECT id FROM object")]
    value = chance.choice([*pool, None, chance.choice(numbers)])
    key = "digest" if table == "attributes" else schema.CHECKED[table][0]
    keys = [row[0] for row in db.execute(f"SELECT {key} FROM {table} ORDER BY 1")]
    if not keys:
        return f"{table} is empty"
    row = chance.choice(keys)
    try:
        db.execute(f"UPDATE {table} SET {column} = ? WHERE {key} = ?", (value, row))
    except sqlite3.IntegrityError as error:
        return str(error)
    return f"{table} {row!r}: {column} = {str(value)[:80]!r}"


def plant(path: Path, kind: str, outside: Path) -> None:
    """Put something else at a path; `kind` is among `KINDS`."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    path.parent.mkdir(exist_ok=True)
    if kind in ("secret", "run", "database", "d", "."):
        path.symlink_to(outside / kind)
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "dangling":
        path.symlink_to(outside / "made")
    elif kind == "zero":
        path.symlink_to("/dev/zero")
    elif kind == "device":
        os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(1, 5))
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "socket":
        with contextlib.closing(socket.socket(socket.AF_UNIX)) as made:
            here = os.getcwd()
            os.chdir(path.parent)
            try:
                made.bind(path.name)
            finally:
                os.chdir(here)
    elif kind == "directory":
        path.mkdir()
        (path / "in").write_text("it")
    elif kind == "huge":
        path.touch()
        os.truncate(path, 1 << 40)
    elif kind == "hard link":
        path.hardlink_to(outside / "run")
    elif kind == "empty":
        path.touch()
    elif kind == "noise":
        path.write_bytes(noise(100_000, 1))
    else:
        raise ValueError(kind)


KINDS = (
    *("secret", "run", "database", "d", ".", "loop", "dangling", "zero", "device", "fifo"),
    *("socket", "directory", "huge", "hard link", "empty", "noise"),
)
