"""Folders of a repository that someone has removed, renamed, or put things into; odd names, odd
clocks, and signals."""

from __future__ import annotations

import os
import pty
import shutil
import signal
import subprocess
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from program import NOBODY, PROGRAM, complaint, environment, run, start
from runs import LargeNights, Nights, change_pages
from trees import Tree, describe, require_same

NAMES = [f"2026-11-0{day}-020000" for day in (2, 3, 4, 5)]


@pytest.fixture
def four(nights: Nights) -> Nights:
    """Four nights; `f` changes each time, `same` never."""
    (nights.source / "d" / "e").mkdir(parents=True)
    (nights.source / "d" / "same").write_text("the same")
    (nights.source / "d" / "e" / "deep").write_text("deep")
    for night in ("one", "two", "three", "four"):
        (nights.source / "f").write_text(night)
        (nights.source / night).write_text(night)
        time.sleep(0.03)
        nights.backup()
    return nights


def kept(nights: Nights, *names: str) -> dict[str, Tree]:
    """What some snapshots are, as their folders show it."""
    return {name: describe(nights.repository / name) for name in names}


def require_around(nights: Nights, then: dict[str, Tree], tmp_path: Path) -> None:
    """Every command finds the snapshots around as they were, and a backup goes on."""
    top = nights.repository
    listed = [s["name"] for s in run("snapshots", top, "--json").json]
    for name, tree in then.items():
        assert name in listed
        require_same(tree, describe(top / name))
        out = tmp_path / f"out-{name}"
        run("restore", top, "--at", name, "--to", out)
        require_same(tree, describe(out))
        shutil.rmtree(out)
        assert "f" in [e["path"] for e in run("ls", top, "--at", name, "--json").json]
    first, *_rest, last = then
    changed = {c["path"]: c["change"] for c in run("diff", top, first, last, "--json").json}
    assert changed["f"] == "modified"
    assert run("versions", top, "f", "--json").json
    (nights.source / "after").write_text("x")
    nights.now += timedelta(days=1)
    done = nights.backup()
    assert done.summary.files_new == 1 and done.summary.files_unmodified > 3
    require_same(describe(nights.source), describe(nights.current))
    for name, tree in then.items():
        require_same(tree, describe(top / name))


def aside(nights: Nights, name: str) -> list[str]:
    """What was set aside of a snapshot, by path."""
    top = nights.repository / f"{name}.set-aside"
    return sorted(str(p.relative_to(top)) for p in top.rglob("*"))


# --- dated folders that are gone, or somewhere else ----------------------------------------


def test_a_removed_folder_is_dropped(four: Nights, tmp_path: Path) -> None:
    then = kept(four, NAMES[0], NAMES[2])
    shutil.rmtree(four.repository / NAMES[1])
    done = run("delete", four.repository, NAMES[1])
    assert "not there any more" in done.err and len(done.err.splitlines()) == 1
    assert NAMES[1] in done.out
    assert run("verify", four.repository, "--json").json == []
    require_around(four, then, tmp_path)


def test_what_a_removed_folder_still_says(four: Nights, tmp_path: Path) -> None:
    then = kept(four, NAMES[0], NAMES[2])
    shutil.rmtree(four.repository / NAMES[1])
    to = tmp_path / "to"
    said = complaint("restore", four.repository, "--at", NAMES[1], "--to", to, code=4)
    assert NAMES[1] in said and "missing" in said
    assert not to.exists()
    complaint("cat", four.repository, "f", "--at", NAMES[1], code=4)
    require_around(four, then, tmp_path)


def test_a_renamed_folder_is_left_to_whom_renamed_it(four: Nights, tmp_path: Path) -> None:
    then = kept(four, NAMES[0], NAMES[2])
    (four.repository / NAMES[1]).rename(four.repository / "keep this")
    was = describe(four.repository / "keep this")
    done = run("delete", four.repository, NAMES[1])
    assert "keep this" in done.err and "left as it is" in done.err
    require_same(was, describe(four.repository / "keep this"))
    require_around(four, then, tmp_path)
    require_same(was, describe(four.repository / "keep this"))


def test_a_renamed_folder_that_comes_back(four: Nights, tmp_path: Path) -> None:
    then = kept(four, *NAMES[:3])
    (four.repository / NAMES[1]).rename(tmp_path / "elsewhere")
    four.backup(always=True)
    (tmp_path / "elsewhere").rename(four.repository / NAMES[1])
    require_around(four, then, tmp_path)
    run("delete", four.repository, NAMES[1])
    assert run("verify", four.repository, "--json").json == []


@pytest.mark.parametrize("removed", [True, False])
def test_someones_folder_of_that_name_is_not_deleted(
    four: Nights, tmp_path: Path, removed: bool
) -> None:
    then = kept(four, NAMES[0], NAMES[2])
    folder = four.repository / NAMES[1]
    if removed:
        shutil.rmtree(folder)  # so that the drive may give its inode number out again
    else:
        folder.rename(four.repository / "away")
    folder.mkdir()
    (folder / "thesis").write_text("mine")
    (folder / "two").mkdir()
    (folder / "two" / "mine").write_text("mine, too")
    for more in ([], ["-n"]):
        said = complaint("delete", four.repository, *more, NAMES[0], NAMES[1], code=5)
        assert NAMES[1] in said and "move it away" in said
        assert ("away back" in said) is not removed
    assert (four.repository / NAMES[0]).exists()
    folder.rename(tmp_path / "mine")
    if removed:
        run("delete", four.repository, NAMES[1])
    assert (tmp_path / "mine" / "thesis").read_text() == "mine"
    require_around(four, then, tmp_path)


@pytest.mark.parametrize("kind", ["file", "link"])
def test_no_folder_at_all(four: Nights, tmp_path: Path, kind: str) -> None:
    then = kept(four, NAMES[0], NAMES[2])
    folder = four.repository / NAMES[1]
    folder.rename(tmp_path / "was")
    if kind == "file":
        folder.write_text("mine")
    else:
        folder.symlink_to(tmp_path / "was")
    was = describe(tmp_path / "was")
    complaint("delete", four.repository, NAMES[1], code=5)
    complaint("restore", four.repository, "--at", NAMES[1], "--to", tmp_path / "o", code=4)
    require_same(was, describe(tmp_path / "was"))
    assert os.path.lexists(folder)
    require_around(four, then, tmp_path)


def test_a_folder_that_was_replaced_after_the_commit(four: Nights, tmp_path: Path) -> None:
    """Killed once it was recorded; then someone has made a folder of that name."""
    from mirrorback.store import record
    from mirrorback.store.catalog import Catalog

    then = kept(four, NAMES[0], NAMES[2])
    catalog = Catalog.open(os.fsencode(four.repository / ".mirrorback/catalog.db"), write=True)
    record.deleting(catalog, catalog.snapshots()[1].id, ())
    catalog.close()
    shutil.rmtree(four.repository / NAMES[1])
    (four.repository / NAMES[1]).mkdir()
    (four.repository / NAMES[1] / "thesis").write_text("mine")
    four.backup(always=True)
    assert (four.repository / NAMES[1] / "thesis").read_text() == "mine"
    require_around(four, then, tmp_path)


@pytest.mark.parametrize("command", [["cp", "-a"], ["rsync", "-aH"]])
def test_in_a_copied_repository_all_can_be_deleted(
    four: Nights, tmp_path: Path, command: list[str]
) -> None:
    """There all inode numbers are others."""
    if shutil.which(command[0]) is None:
        pytest.skip("no rsync")
    bigger = tmp_path / "bigger"
    more = "/" if command[0] == "rsync" else ""
    subprocess.run([*command, f"{four.repository}{more}", bigger], check=True)
    four.repository = bigger
    done = run("delete", bigger, *NAMES[:2])
    assert done.err == ""
    assert [p.name for p in four.folders()] == [NAMES[2]]
    assert run("verify", bigger, "--json").json == []


def test_an_emptied_folder_goes(four: Nights) -> None:
    for path in (four.repository / NAMES[1]).iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert run("delete", four.repository, NAMES[1]).err == ""
    assert not (four.repository / NAMES[1]).exists()


# --- things put into them -------------------------------------------------------------------


def put_things(folder: Path) -> None:
    """What no backup has put there."""
    (folder / "thesis").write_text("mine")
    (folder / "own" / "below").mkdir(parents=True)
    (folder / "own" / "below" / "x").write_text("mine, too")
    (folder / "d" / "e" / "new\n").write_text("deep")
    (folder / "d" / "link").symlink_to("/etc")
    (folder / "d" / "same.rdiff.zst").write_text("no delta of ours")
    (folder / "one").unlink()  # a file becomes a folder
    (folder / "one").mkdir()
    (folder / "one" / "y").write_text("mine")


THINGS = ["d", "d/e", "d/e/new\n", "d/link", "d/same.rdiff.zst", "one", "one/y", "own",
          "own/below", "own/below/x", "thesis"]  # fmt: skip


def test_what_someone_has_put_there_is_set_aside(four: Nights, tmp_path: Path) -> None:
    then = kept(four, NAMES[0], NAMES[2])
    put_things(four.repository / NAMES[1])
    done = run("delete", four.repository, NAMES[1], "--json")
    assert [fate["keep"] for fate in done.json] == [False]
    assert len(done.err.splitlines()) == 1
    assert "6 in the folder" in done.err and f"{NAMES[1]}.set-aside/" in done.err
    assert not (four.repository / NAMES[1]).exists()
    assert aside(four, NAMES[1]) == THINGS
    top = four.repository / f"{NAMES[1]}.set-aside"
    assert (top / "own/below/x").read_text() == "mine, too"
    assert os.readlink(top / "d/link") == "/etc"
    require_around(four, then, tmp_path)
    assert aside(four, NAMES[1]) == THINGS


def test_where_such_a_name_is_taken(four: Nights) -> None:
    (four.repository / f"{NAMES[1]}.set-aside").write_text("mine")
    (four.repository / NAMES[1] / "thesis").write_text("mine, too")
    run("delete", four.repository, NAMES[1])
    assert (four.repository / f"{NAMES[1]}.set-aside").read_text() == "mine"
    assert (four.repository / f"{NAMES[1]}.set-aside-2" / "thesis").read_text() == "mine, too"


def test_a_symlink_of_such_a_name_leads_nowhere(four: Nights, tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    (four.repository / f"{NAMES[1]}.set-aside").symlink_to(tmp_path / "target")
    (four.repository / NAMES[1] / "thesis").write_text("mine")
    run("delete", four.repository, NAMES[1])
    assert list((tmp_path / "target").iterdir()) == []
    assert (four.repository / f"{NAMES[1]}.set-aside-2" / "thesis").exists()


def test_what_was_set_aside_before_is_not_replaced(four: Nights) -> None:
    place = four.repository / f"{NAMES[1]}.set-aside"
    place.mkdir()
    (place / "thesis").write_text("earlier")
    (four.repository / NAMES[1] / "thesis").write_text("later")
    run("delete", four.repository, NAMES[1])
    assert (place / "thesis").read_text() == "earlier"
    assert (place / "thesis-2").read_text() == "later"


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_closed_folders_of_another_user(tmp_path: Path) -> None:
    place = tmp_path / "nobody"
    place.mkdir()
    for path in (place, *place.parents):
        if path != Path("/"):
            path.chmod(path.stat().st_mode | 0o005)
    os.chown(place, NOBODY, NOBODY)
    nights = Nights(place / "source", place / "drive")
    (nights.source / "d").mkdir(parents=True)
    (nights.source / "d" / "f").write_text("x")
    (nights.source / "d").chmod(0o500)
    for path in (nights.source, *nights.source.rglob("*")):
        os.chown(path, NOBODY, NOBODY)
    run("backup", "--init", nights.source, nights.repository, uid=NOBODY)
    run("backup", "--always", nights.source, nights.repository, uid=NOBODY)
    [old] = nights.folders()
    (old / "d" / "own").mkdir()
    (old / "d" / "own" / "x").write_text("mine")
    (old / "d" / "g").write_text("mine")
    for path in (old / "d" / "own", old / "d" / "own" / "x", old / "d" / "g"):
        os.chown(path, NOBODY, NOBODY)
    (old / "d" / "own").chmod(0o500)
    run("delete", nights.repository, old.name, uid=NOBODY)
    assert not old.exists()
    top = nights.repository / f"{old.name}.set-aside" / "d"
    assert (top / "own" / "x").read_text() == "mine" and (top / "g").exists()
    assert oct((top / "own").stat().st_mode & 0o777) == "0o500"


def test_deltas_are_ours_and_what_was_made_of_them_is_not(large: LargeNights, image: Path) -> None:
    """As README.txt tells how to."""
    for night in range(4):
        change_pages(image, night)
        large.backup()
    folders = large.folders()
    assert (folders[1] / "d" / "image.rdiff.zst").exists()
    (folders[1] / "d" / "image").write_bytes(b"got back")
    large.delete(folders[1].name)
    top = large.repository / f"{folders[1].name}.set-aside"
    assert [str(p.relative_to(top)) for p in top.rglob("*") if p.is_file()] == ["d/image"]
    large.delete(folders[0].name, folders[2].name)
    assert [p.name for p in large.folders()] == [top.name]
    assert large.problems() == []


# --- large files whose base someone has removed ------------------------------------------------


def test_a_renamed_folder_that_large_files_need_is_to_come_back(
    large: LargeNights, image: Path, tmp_path: Path
) -> None:
    contents = []
    for night in range(4):
        change_pages(image, night)
        contents.append(image.read_bytes())
        large.backup()
    name = large.folders()[1].name
    (large.repository / name).rename(large.repository / "keep")
    for more in ([], ["-n"]):
        said = complaint("delete", large.repository, *more, name, code=5)
        assert "keep" in said and "rename it back" in said
    (large.repository / "keep").rename(large.repository / name)
    large.delete(name)
    large.restore(tmp_path / "out", at=large.folders()[0].name)
    assert (tmp_path / "out" / "d" / "image").read_bytes() == contents[0]
    assert large.problems() == []


def test_a_removed_folder_that_large_files_needed_can_be_forgotten(
    large: LargeNights, image: Path, tmp_path: Path
) -> None:
    """What was before it is lost, and told; all else is well, and nothing stands in the way."""
    contents = []
    for night in range(4):
        change_pages(image, night)
        contents.append(image.read_bytes())
        large.backup()
    names = [folder.name for folder in large.folders()]
    shutil.rmtree(large.repository / names[1])
    run("delete", large.repository, names[1])
    assert [p.path for p in large.problems()] == [b"d/image"]
    large.restore(tmp_path / "out", at=names[2])
    assert (tmp_path / "out" / "d" / "image").read_bytes() == contents[2]
    change_pages(image, 9)
    large.backup()
    large.delete(names[0])
    assert large.problems() == []
    with large.history() as history:
        unseen = "SELECT count(*) FROM object WHERE id NOT IN (SELECT object FROM entry)"
        assert history.catalog.db.execute(unseen).fetchone()[0] == 0


# --- the mirror ------------------------------------------------------------------------------


LISTINGS = [
    ["snapshots"],
    ["ls"],
    ["ls", "--at", "1B"],
    ["versions", "f"],
    ["find", "f"],
    ["diff", "1B"],
]


def with_repository(command: list[str], top: Path) -> list[str | Path]:
    return [command[0], top, *command[1:]]


def test_a_missing_mirror_is_told_by_every_command(four: Nights, tmp_path: Path) -> None:
    shutil.rmtree(four.current)
    for command in LISTINGS:
        done = run(*with_repository(command, four.repository))
        [line] = done.err.splitlines()
        assert "current, is missing" in line and "next backup" in line
        assert done.out
    said = complaint("restore", four.repository, "--to", tmp_path / "to", code=4)
    assert "current" in said and "missing" in said
    complaint("cat", four.repository, "f", code=4)
    run("restore", four.repository, "--at", "1B", "--to", tmp_path / "back")
    require_same(describe(four.repository / NAMES[2]), describe(tmp_path / "back"))
    run("delete", four.repository, NAMES[1])


@pytest.mark.parametrize("change", [True, False])
def test_a_missing_mirror_is_made_anew(four: Nights, tmp_path: Path, change: bool) -> None:
    then = kept(four, *NAMES[:3])
    shutil.rmtree(four.current)
    if change:
        (four.source / "f").write_text("five")
    done = run("backup", four.source, four.repository, "--json")
    assert done.summary["unchanged"] is False
    assert len(done.err.splitlines()) == 1 and "current, is missing" in done.err
    assert NAMES[3] in done.err  # it has no folder now
    require_same(describe(four.source), describe(four.current))
    assert run("ls", four.repository).err == ""
    run("delete", four.repository, NAMES[3])
    require_around(four, then, tmp_path)
    four.delete(*NAMES[:3])
    assert four.problems() == []


def test_a_missing_mirror_of_many_files(nights: Nights) -> None:
    """So many that helpers link and copy."""
    for folder in range(40):
        (nights.source / f"d{folder}").mkdir()
        for number in range(100):
            (nights.source / f"d{folder}" / f"{number}").write_text(f"{folder} {number}")
    time.sleep(0.03)
    nights.backup()
    shutil.rmtree(nights.current)
    nights.backup()
    assert len(nights.heard.warnings) == 1
    require_same(describe(nights.source), describe(nights.current))
    assert nights.backup().summary.unchanged


def test_a_missing_mirror_with_large_files(large: LargeNights, image: Path, tmp_path: Path) -> None:
    (large.source / "other").write_bytes(image.read_bytes()[::-1])
    for night in range(2):
        change_pages(image, night)
        large.backup()
    shutil.rmtree(large.current)
    change_pages(image, 5)
    large.backup()
    require_same(describe(large.source), describe(large.current))
    large.restore(tmp_path / "out")
    require_same(describe(large.source), describe(tmp_path / "out"))


def test_a_renamed_mirror_gets_its_name_back(four: Nights, tmp_path: Path) -> None:
    then = kept(four, *NAMES[:3])
    was = describe(four.current)
    four.current.rename(four.repository / "mine")
    done = run("ls", four.repository)
    assert "renamed to mine" in done.err and "rename it back" in done.err
    run("backup", four.source, four.repository, "--dry-run")
    assert (four.repository / "mine").exists()
    done = run("backup", four.source, four.repository, "--json")
    assert done.summary["unchanged"] is True and "renamed back" in done.err
    require_same(was, describe(four.current))
    assert not (four.repository / "mine").exists()
    require_around(four, then, tmp_path)


def test_a_mirror_that_was_moved_to_another_place(four: Nights, tmp_path: Path) -> None:
    then = kept(four, *NAMES[:3])
    four.current.rename(tmp_path / "mine")
    was = describe(tmp_path / "mine")
    four.backup()
    require_same(was, describe(tmp_path / "mine"))
    require_same(describe(four.source), describe(four.current))
    require_around(four, then, tmp_path)


# --- names, clocks, signals ---------------------------------------------------------------------


def test_a_name_twice_and_by_its_path(four: Nights) -> None:
    top = four.repository
    done = run("delete", top, NAMES[0], top / NAMES[0], f"{top.name}/{NAMES[1]}/", "--json",
               cwd=top.parent)  # fmt: skip
    assert [fate["name"] for fate in done.json] == NAMES[:2]
    assert [p.name for p in four.folders()] == NAMES[2:3]


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("current", 5), ("latest", 5), ("now", 5), (NAMES[3], 5), ("current/", 5),
        ("1B", 1), ("2026-11-02", 1), ("", 1), ("/", 1), ("..", 1), (".mirrorback", 1),
        ("a\nb\x1b[2J\u202e", 1), (os.fsdecode(b"\xff"), 1), (f"/none/{NAMES[0]}", 1),
        ("x" * 5000, 1),
    ],
)  # fmt: skip
def test_one_bad_name_and_nothing_is_deleted(four: Nights, name: str, code: int) -> None:
    before = sorted(os.listdir(four.repository))
    said = complaint("delete", four.repository, NAMES[0], name, NAMES[1], code=code)
    assert said.isprintable()
    assert complaint("delete", "-n", four.repository, NAMES[0], name, code=code) == said
    assert sorted(os.listdir(four.repository)) == before


def fill(nights: Nights, count: int = 3000) -> None:
    for folder in range(30):
        (nights.source / f"d{folder}").mkdir()
        for number in range(count // 30):
            (nights.source / f"d{folder}" / f"{number}").touch()
    (nights.source / "f").write_text("one")
    nights.backup()
    (nights.source / "f").write_text("two")
    nights.backup()


def stopped_delete(nights: Nights) -> subprocess.Popen[bytes]:
    """A delete, stopped in the middle of its removal."""
    trash = nights.repository / ".mirrorback" / "trash" / NAMES[0]
    process = start("delete", nights.repository, NAMES[0])
    until = time.monotonic() + 60
    while time.monotonic() < until and process.poll() is None:
        process.send_signal(signal.SIGSTOP)
        if trash.exists() and len(os.listdir(trash)) < 31:
            return process
        process.send_signal(signal.SIGCONT)
        time.sleep(0.001)
    process.kill()
    pytest.fail("the removal was not caught in its middle")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_interrupted_in_the_middle(nights: Nights, number: signal.Signals) -> None:
    fill(nights)
    (nights.repository / NAMES[0] / "d7" / "mine").write_text("mine")
    process = stopped_delete(nights)
    process.send_signal(number)
    process.send_signal(signal.SIGCONT)
    out, err = process.communicate(timeout=60)
    if number is signal.SIGKILL:
        assert process.returncode == -9
    else:
        assert process.returncode == 128 + number
        assert out == b"" and len(err.splitlines()) == 1 and b"next run" in err
    assert [s["name"] for s in run("snapshots", nights.repository, "--json").json] == NAMES[1:2]
    run("pin", nights.repository, "latest")  # any command that writes
    assert list((nights.repository / ".mirrorback" / "trash").iterdir()) == []
    assert aside(nights, NAMES[0]) == ["d7", "d7/mine"]
    run("delete", nights.repository, NAMES[0], code=1)
    assert nights.problems() == []


def test_two_at_once(nights: Nights) -> None:
    fill(nights)
    process = stopped_delete(nights)
    complaint("delete", nights.repository, NAMES[0], code=11)
    complaint("delete", nights.repository, NAMES[1], code=11)
    process.send_signal(signal.SIGCONT)
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert nights.problems() == []


def test_progress_on_a_terminal(nights: Nights) -> None:
    fill(nights)
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [PROGRAM, "delete", nights.repository, NAMES[0]],
        stdout=subprocess.DEVNULL,
        stderr=theirs,
        env=environment(TERM="xterm"),
    )
    os.close(theirs)
    said = b""
    while True:
        try:
            data = os.read(ours, 4096)
        except OSError:
            break
        if not data:
            break
        said += data
    os.close(ours)
    assert process.wait(60) == 0
    assert b"deleting" in said


def test_snapshots_from_the_future(nights: Nights, tmp_path: Path) -> None:
    """The clock was far ahead for a while."""
    (nights.source / "f").write_text("one")
    nights.backup()
    right = nights.now
    nights.now = datetime(2087, 5, 1, 2, 0, 0, tzinfo=UTC)
    for text in ("two", "three"):
        (nights.source / "f").write_text(text)
        nights.backup()
    nights.now = right - timedelta(days=1)  # and the same second once more
    (nights.source / "f").write_text("four")
    nights.backup()
    nights.now = right
    (nights.source / "f").write_text("five")
    nights.backup()
    names = [s["name"] for s in run("snapshots", nights.repository, "--json").json]
    assert names == [NAMES[0], "2087-05-02-020000", "2087-05-03-020000", f"{NAMES[0]}-2", NAMES[1]]
    texts = ["one", "two", "three", "four", "five"]
    for name, text in zip(names, texts, strict=True):
        run("restore", nights.repository, "--at", name, "--to", tmp_path / name)
        assert (tmp_path / name / "f").read_text() == text
    run("delete", nights.repository, names[2], names[0])
    left = [s["name"] for s in run("snapshots", nights.repository, "--json").json]
    assert left == [names[1], names[3], names[4]]
    assert run("snapshots", nights.repository, "--json").json[-1]["current"] is True
    versions = run("versions", nights.repository, "f", "--json").json
    assert [v["first_snapshot"] for v in versions] == left
    (nights.source / "f").write_text("six")
    nights.backup()
    assert [s["name"] for s in run("snapshots", nights.repository, "--json").json][:3] == left
    assert nights.problems() == []
