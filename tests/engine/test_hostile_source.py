"""A source in which others play while it is backed up: nothing from outside of it is taken,
nothing hangs, and history stays sound.

MIRRORBACK_HOSTILE_S says for how many seconds (`make hostile`: some minutes).
"""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import racing
import zstandard
from program import environment, run
from racing import LARGE_FROM, MARK, SECRET_NAME, SECRET_USER
from trees import describe, require_same

SECONDS = float(os.environ.get("MIRRORBACK_HOSTILE_S", "12"))
RACERS = 8
LONGEST_S = 100  # of one backup of a few megabytes, on a busy machine
# Helper processes and the scout take part, as in a large source.
EAGER = """
import sys
from mirrorback.engine import backup, walking
walking.SCOUT_FROM, walking.FEWEST_SENT = 0, 1
backup.COPIES_FOR_HELPERS = backup.NAMES_FOR_HELPERS = 0
from mirrorback.cli.app import main
main()
"""


@contextlib.contextmanager
def players(source: Path, aside: Path, secret: Path) -> Iterator[None]:
    """Processes that play with the source, for a while."""
    running = [
        subprocess.Popen([sys.executable, racing.__file__, source, aside, secret, str(seed)])
        for seed in range(RACERS)
    ]
    try:
        yield
        assert all(one.poll() is None for one in running), "a player has given up"
    finally:
        for one in running:
            one.kill()
            one.wait()


def backed_up(source: Path, repository: Path, chance: random.Random) -> None:
    """One backup, in one of several ways; it ends as it should."""
    form = chance.choice(("delta", "auto", "whole"))
    more = chance.choice(([], ["--checksum"], ["--always"], ["-x"]))
    command = ["backup", source, repository, "--init", "--large-files", form, *more]
    if (repository / "README.txt").exists():
        command.remove("--init")
    program = chance.choice((["-m", "mirrorback"], ["-c", EAGER]))
    done = subprocess.run(
        [sys.executable, *program, *command, f"--delta-min-size={LARGE_FROM}", "--exclude=r"],
        capture_output=True,
        text=True,
        errors="surrogateescape",
        env=environment(),
        timeout=LONGEST_S,
    )
    assert done.returncode in (0, 3), (done.returncode, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr and "internal" not in done.stderr, done.stderr


def require_nothing_of(secret: bytes, top: Path) -> None:
    """Fail if a file below a folder, or what is packed in it, holds a secret."""
    for folder, names, files in os.walk(os.fsencode(top)):
        assert os.fsencode(SECRET_NAME) not in names + files, folder
        for name in files:
            path = os.path.join(folder, name)
            st = os.lstat(path)
            assert SECRET_USER not in (st.st_uid, st.st_gid), path
            if os.path.isfile(path) and not os.path.islink(path):
                with open(path, "rb") as file:
                    content = file.read()
                assert secret not in content, path
                assert secret not in unpacked(content), path
                assert b"user.mark" not in b"".join(map(os.fsencode, os.listxattr(path)))


def unpacked(content: bytes) -> bytes:
    """What frames of zstd hold."""
    if not content.startswith(b"\x28\xb5\x2f\xfd"):
        return b""
    found = zstandard.ZstdDecompressor().stream_reader(content, read_across_frames=True)
    return found.read()


def test_nothing_from_outside_while_others_play(tmp_path: Path) -> None:
    source, repository, secret = (tmp_path / name for name in ("source", "drive", "secret"))
    racing.fill(source, b"ours\n")
    racing.fill_secret(secret)
    told = describe(secret)
    chance = random.Random(1)
    until = time.monotonic() + SECONDS
    runs = 0
    with players(source, tmp_path / "aside", secret):
        while time.monotonic() < until or runs < 2:
            backed_up(source, repository, chance)
            runs += 1
            if runs % 10 == 0:
                run("prune", repository, "--keep-last", "5")
    assert describe(secret) == told  # else they have moved it into the source
    assert run("verify", repository, "--json").json == []
    run("backup", source, repository)
    require_same(describe(source), describe(repository / "current"))
    names = [s["name"] for s in run("snapshots", repository, "--json").json]
    assert len(names) > 1
    require_nothing_of(MARK, repository)
    for name in names[-6:]:
        out = tmp_path / "out"
        run("restore", repository, "--at", name, "--to", out)
        require_nothing_of(MARK, out)
        subprocess.run(["rm", "-r", out], check=True)
    if len(names) > 2:
        run("delete", repository, *names[1:-1])
    assert run("verify", repository, "--json").json == []
    run("rebuild", repository, "--force")
    assert run("verify", repository, "--json").json == []


def test_the_search_finds_what_is_secret(tmp_path: Path) -> None:
    racing.fill_secret(tmp_path / "secret")
    with pytest.raises(AssertionError):
        require_nothing_of(MARK, tmp_path / "secret")
    (tmp_path / "packed").mkdir()
    packed = zstandard.compress(b"x") + zstandard.compress(MARK)
    (tmp_path / "packed" / "f.rdiff.zst").write_bytes(packed)
    with pytest.raises(AssertionError):
        require_nothing_of(MARK, tmp_path / "packed")
