"""`rebuild`, as a person meets it."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

import pytest
from program import NOBODY, complaint, run
from runs import LARGE, Nights, change_pages

COMMANDS = (("snapshots",), ("ls", "-R"), ("versions", "f"), ("find", "*"))


@pytest.fixture
def two(nights: Nights) -> Nights:
    """Two backups by the program."""
    (nights.source / "d").mkdir()
    for night in ("one", "second"):
        (nights.source / "f").write_text(night)
        (nights.source / "d" / night).write_text(night)
        time.sleep(1.1)
        run("backup", nights.source, nights.repository, "--init" if night == "one" else "-v")
    return nights


def catalog(nights: Nights) -> Path:
    return nights.repository / ".mirrorback" / "catalog.db"


def everything(nights: Nights) -> list[object]:
    found = []
    for command, *more in COMMANDS:
        value = run(command, nights.repository, *more, "--json").json
        for row in value:
            row.pop("digest", None)
        found.append(value)
    return found


def test_a_lost_catalog(two: Nights) -> None:
    before = everything(two)
    catalog(two).unlink()
    assert "rebuild" in complaint("snapshots", two.repository, code=4)
    made = run("rebuild", two.repository, "--json").json
    assert made == {
        "snapshots": [s["name"] for s in run("snapshots", two.repository, "--json").json],
        "versions": 7,
        "files": 4,
        "deltas": 0,
        "problems": 0,
        "old_catalog": None,
    }
    after = everything(two)
    # The time of a dated folder is that of its name.
    assert [s["name"] for s in after[0]] == [s["name"] for s in before[0]]  # type: ignore[attr-defined]
    assert after[1:] == before[1:]
    assert all(v["digest"] is None for v in run("versions", two.repository, "f", "--json").json)
    summary = run("backup", two.source, two.repository, "--json").summary
    assert summary["unchanged"] is True and summary["bytes_copied"] == 0
    assert run("verify", two.repository, "--json").json == []
    assert run("versions", two.repository, "f", "--json").json[-1]["digest"].startswith("blake3:")
    assert run("cat", two.repository, "f", "--at", after[0][0]["name"]).out == "one"  # type: ignore[index]


def test_a_broken_one(two: Nights) -> None:
    catalog(two).write_text("garbage")
    done = run("rebuild", two.repository)
    assert "2 snapshots" in done.out
    old = done.out.split("the old one is ")[1].strip()
    assert Path(old).read_text() == "garbage"
    assert run("rebuild", two.repository, "--force", "-q").out == ""


def test_what_is_refused(two: Nights, tmp_path: Path) -> None:
    assert "--force" in complaint("rebuild", two.repository, code=5)
    assert "--force" in complaint("rebuild", two.repository, "-n", code=5)
    complaint("rebuild", tmp_path, code=10)
    complaint("rebuild", two.repository, "--source", two.source, code=2)
    complaint("rebuild", code=2)


def test_lost_settings(two: Nights) -> None:
    (two.repository / ".mirrorback" / "repository.toml").unlink()
    assert "--source" in complaint("rebuild", two.repository, code=10)
    assert "missing" not in run("rebuild", two.repository, "--source", two.source, "--force").out
    run("backup", two.source, two.repository)


def test_a_dry_run(two: Nights) -> None:
    catalog(two).unlink()
    assert run("rebuild", two.repository, "-n").out.startswith("would make a catalog of 2 snap")
    assert not catalog(two).exists()


def test_another_run_holds_it(two: Nights) -> None:
    import fcntl

    with (two.repository / ".mirrorback" / "lock").open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        complaint("rebuild", two.repository, "--force", code=11)


def test_digests(two: Nights) -> None:
    before = run("versions", two.repository, "f", "--json").json
    run("rebuild", two.repository, "--force", "--digests")
    assert run("versions", two.repository, "f", "--json").json == before


def test_a_damaged_delta_is_damage(two: Nights) -> None:
    image = two.source / "image"
    image.write_bytes(os.urandom(4 * LARGE))
    options = ("--delta-min-size", str(LARGE), "--large-files", "delta")
    for seed in (1, 2):
        time.sleep(1.1)
        run("backup", two.source, two.repository, *options)
        change_pages(image, seed)
    time.sleep(0.1)
    run("backup", two.source, two.repository)
    delta = next(two.repository.glob("20*/image.rdiff.zst"))
    os.truncate(delta, delta.stat().st_size - 5)
    catalog(two).unlink()
    done = run("rebuild", two.repository, code=4)
    assert "image.rdiff.zst" in done.err and "damaged" in done.err


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_what_the_drive_cannot_hold_for_another_user_is_learnt() -> None:
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        top = Path(folder)
        top.chmod(0o777)
        source, drive = top / "s", top / "drive"
        source.mkdir()
        (source / "roots").write_text("owned by root")
        (source / "roots").chmod(0o4755)
        (source / "closed").mkdir(mode=0o555)
        (source / "closed" / "f").write_text("f")
        os.utime(source, ns=(5, 5))
        time.sleep(0.1)
        run("backup", source, drive, "--init", uid=NOBODY)
        (drive / ".mirrorback" / "catalog.db").unlink()
        assert "owners may not" in run("rebuild", drive, uid=NOBODY).err
        summary = run("backup", source, drive, "--json", uid=NOBODY).summary
        assert summary["unchanged"] is True and summary["bytes_copied"] == 0
        run("restore", drive, "--to", top / "back")
        roots = (top / "back" / "roots").stat()
        assert (oct(roots.st_mode & 0o7777), roots.st_uid) == ("0o4755", 0)
        assert oct((top / "back" / "closed").stat().st_mode & 0o7777) == "0o555"
