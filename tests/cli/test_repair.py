"""`mirrorback repair`, as a person or a script runs it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from filesystems import mounted, require_root
from program import NOBODY, complaint, run
from runs import Nights

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture
def damaged(nights: Nights) -> Nights:
    """Two nights, after which someone has edited a file in the mirror, which is in both."""
    (nights.source / "letter").write_text("dear")
    (nights.source / "n\x1bame").write_text("one")
    nights.backup()
    nights.backup(always=True)
    (nights.current / "letter").write_text("edited")
    nights.mark("letter")
    return nights


def test_nothing_is_marked(nights: Nights) -> None:
    (nights.source / "f").write_text("x")
    nights.backup()
    done = run("repair", nights.repository)
    assert done.out == "nothing is marked as damaged; `mirrorback verify` looks\n"
    assert run("repair", nights.repository, "--json").json == []
    assert run("repair", nights.repository, "-q").out == ""


def test_mended(damaged: Nights) -> None:
    dry = run("repair", damaged.repository, "--dry-run")
    assert "would be mended from the source" in dry.out
    assert (damaged.current / "letter").read_text() == "edited"
    done = run("repair", damaged.repository)
    assert "letter: content is not what was backed up (in 2026-" in done.out
    assert ": mended from the source; what stood there is kept as " in done.out
    assert done.out.endswith("1 mended\n")
    for folder in (*damaged.folders(), damaged.current):
        assert (folder / "letter").read_text() == "dear"
    run("verify", damaged.repository)


def test_json(damaged: Nights) -> None:
    [found] = run("repair", damaged.repository, "--json").json
    apart = Path(found.pop("set_apart"))
    assert apart.read_text() == "edited"
    assert apart.parent == damaged.repository / ".mirrorback" / "damaged"
    assert found == {
        "path": "letter",
        "snapshots": ["2026-11-02-020000", "2026-11-03-020000"],
        "problem": "content is not what was backed up",
        "location": str(damaged.current / "letter"),
        "repaired": True,
        "from": "source",
    }


def test_something_is_left(damaged: Nights) -> None:
    (damaged.source / "letter").write_text("changed")
    done = run("repair", damaged.repository, code=4)
    assert "not mended, what it was is found nowhere" in done.out
    assert done.out.endswith("0 mended, 1 left as it is\n")
    [found] = run("repair", damaged.repository, "--json", code=4).json
    assert (found["repaired"], found["from"], found["set_apart"]) == (False, None, None)
    assert "letter" in run("repair", damaged.repository, "-q", code=4).out


def test_the_source_is_elsewhere(damaged: Nights, tmp_path: Path) -> None:
    damaged.source.rename(tmp_path / "elsewhere")
    run("repair", damaged.repository, code=4)
    run("repair", damaged.repository, "--source", tmp_path / "elsewhere")
    assert "not a folder" in complaint(
        "repair", damaged.repository, "--source", tmp_path / "nowhere", code=2
    )


def test_a_copied_repository(damaged: Nights, tmp_path: Path) -> None:
    subprocess.run(["cp", "-a", damaged.repository, tmp_path / "copy"], check=True)
    run("repair", tmp_path / "copy")
    assert (tmp_path / "copy/current/letter").read_text() == "dear"
    assert (damaged.current / "letter").read_text() == "edited"


def test_a_snapshot_without_its_folder(damaged: Nights) -> None:
    [folder] = damaged.folders()
    shutil.rmtree(folder)
    dry = run("repair", damaged.repository, "--dry-run")
    words = f"the folder of this snapshot is missing (in {folder.name}): would be mended by"
    assert f".: {words}" in dry.out
    [found, _letter] = run("repair", damaged.repository, "--json").json
    assert (found["snapshots"], found["location"]) == ([folder.name], str(folder))
    assert (folder / "letter").read_text() == "dear"
    run("verify", damaged.repository)


def test_the_mirror_without_its_folder(damaged: Nights) -> None:
    shutil.rmtree(damaged.current)
    done = run("repair", damaged.repository, code=4)
    assert f"the whole folder is missing: bring it back to {damaged.current}" in done.out


def test_no_repository(tmp_path: Path) -> None:
    complaint("repair", tmp_path / "none", code=10)


@as_root
def test_by_another_user(tmp_path: Path) -> None:
    for folder in (tmp_path, *tmp_path.parents):
        if folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o005)
    for name in ("theirs", "drive"):
        (tmp_path / name).mkdir()
        os.chown(tmp_path / name, NOBODY, NOBODY)
    nights = Nights(tmp_path / "theirs", tmp_path / "drive" / "r")
    (nights.source / "d").mkdir()
    (nights.source / "d" / "f").write_text("one")
    for path in (nights.source / "d" / "f", nights.source / "d"):
        os.chown(path, NOBODY, NOBODY)
        path.chmod(0o500)
    run("backup", "--init", nights.source, nights.repository, uid=NOBODY)
    (nights.current / "d" / "f").write_text("edited")
    nights.mark("d/f")
    for path in (nights.repository / ".mirrorback").iterdir():  # what the mark has written
        os.chown(path, NOBODY, NOBODY)
    run("repair", nights.repository, uid=NOBODY)
    assert (nights.current / "d" / "f").read_text() == "one"
    assert (nights.current / "d" / "f").stat().st_mode & 0o777 == 0o500
    run("verify", nights.repository)


def test_a_drive_that_cannot_be_written(source: Path, tmp_path: Path) -> None:
    require_root()
    with mounted("ext4", tmp_path, size=64 << 20) as drive:
        nights = Nights(source, drive / "r")
        (source / "f").write_text("one")
        nights.backup()
        (nights.current / "f").write_text("two")
        nights.mark("f")
        subprocess.run(["mount", "-o", "remount,ro", drive], check=True)
        assert "ead-only" in complaint("repair", nights.repository, code=1)
        assert "would be mended" in run("repair", nights.repository, "-n").out


def test_no_room(source: Path, tmp_path: Path) -> None:
    """What fits is mended; the rest is as it was, and is mended when there is room."""
    require_root()
    with mounted("ext4", tmp_path, size=96 << 20) as drive:
        nights = Nights(source, drive / "r")
        (source / "large").write_bytes(os.urandom(30 << 20))
        (source / "small").write_text("small")
        nights.backup()
        for name in ("large", "small"):
            with (nights.current / name).open("r+b") as file:
                file.write(b"edit")
        nights.mark("large", "small")
        free = os.statvfs(drive).f_bavail * os.statvfs(drive).f_frsize
        with (drive / "filler").open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, free - (20 << 20))
        done = run("repair", nights.repository, code=12)
        assert "small: " in done.out
        assert ": mended from the source" in done.out
        assert "not mended, since there is no room for what it was" in done.out
        assert "no room for 30.0 MiB" in done.err
        assert (nights.current / "small").read_text() == "small"
        assert (nights.current / "large").read_bytes()[:4] == b"edit"
        assert list((nights.repository / ".mirrorback/redo").iterdir()) == []
        (drive / "filler").unlink()
        assert run("repair", nights.repository).out.endswith("1 mended\n")
        run("verify", nights.repository)
