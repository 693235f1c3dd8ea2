"""A catalog made anew: of folders alone, whatever has become of the old one."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from mounts import let_others_in
from program import NOBODY, run
from rebuilding import CATALOG, changes, inodes, rebuilt, told, versions
from runs import LargeNights, Nights, change_pages
from trees import SUFFIX, describe, require_same

from mirrorback.engine.view import View
from mirrorback.errors import Damaged, MirrorbackError, NoRepository, Refused, UsageError
from mirrorback.model import Change
from mirrorback.store import audit, gathering, replaced, schema
from mirrorback.store.catalog import Catalog
from mirrorback.store.sealing import Seal


def settle() -> None:
    time.sleep(0.03)


@pytest.fixture
def some(nights: Nights) -> Nights:
    """Three nights with moves, links, changes, odd names."""
    source = nights.source
    (source / "d" / "e").mkdir(parents=True)
    (source / "d" / "f").write_text("one")
    (source / "d" / "e" / "g").write_text("deep")
    (source / "a").write_text("a" * 5000)
    (source / "gone").write_text("gone")
    os.link(source / "a", source / "d" / "linked")
    (source / "s").symlink_to("nowhere")
    os.mkfifo(source / "p")
    Path(os.fsdecode(os.fsencode(source) + b"/\xff\xfe")).write_text("odd")
    settle()
    nights.backup()
    (source / "d" / "f").write_text("two")
    (source / "d").rename(source / "moved")
    (source / "gone").unlink()
    settle()
    nights.backup()
    (source / "a").rename(source / "b")
    (source / "new").write_text("new")
    settle()
    nights.backup()
    return nights


def unchanged(nights: Nights) -> None:
    """The next backup copies nothing, and makes nothing."""
    before = inodes(nights.repository)
    summary = nights.backup().summary
    assert summary.unchanged and summary.bytes_copied == summary.bytes_written == 0
    assert inodes(nights.current) <= before
    assert nights.heard.warnings == nights.heard.errors == []


def test_all_is_told_as_before(some: Nights) -> None:
    before = told(some), changes(some), versions(some, b"b"), versions(some, b"moved/f")
    made = rebuilt(some)
    assert (len(made.snapshots), made.problems, made.kept) == (3, 0, None)
    assert (told(some), changes(some), versions(some, b"b"), versions(some, b"moved/f")) == before
    assert some.problems() == []
    unchanged(some)
    assert some.problems() == []


def test_digests_are_learnt_by_the_next_backup(some: Nights) -> None:
    known = told(some, digests=True)["entries"]
    rebuilt(some)
    newest = list(known)[-1]
    assert told(some, digests=True)["entries"][newest] != known[newest]
    unchanged(some)
    assert told(some, digests=True)["entries"][newest] == known[newest]


def test_digests_are_taken_at_once_if_wanted(some: Nights) -> None:
    known = told(some, digests=True)
    rebuilt(some, digests=True)
    assert told(some, digests=True) == known
    unchanged(some)


def test_the_night_after_can_change_everything(some: Nights) -> None:
    rebuilt(some)
    source = some.source
    (source / "b").rename(source / "moved" / "c")  # and its hard link stays
    (source / "new").rename(source / "newer")
    (source / "moved" / "f").write_text("six")
    (source / "moved" / "e").rename(source / "e")
    settle()
    before = inodes(some.repository)
    summary = some.backup().summary
    assert summary.bytes_copied == 3
    assert (summary.files_changed, summary.files_new, summary.files_removed) == (1, 0, 0)
    assert len(inodes(some.current) - before) == 1
    require_same(describe(source), describe(some.current))
    assert some.problems() == []


def test_what_has_no_content_is_found_where_it_went(nights: Nights) -> None:
    """The first night after a rebuild has neither inodes nor digests to go by."""
    source = nights.source
    (source / "d").mkdir()
    (source / "s").symlink_to("nowhere")
    (source / "d" / "t").symlink_to("nowhere")
    for name in ("empty", "d/__init__", "d/x", "d/y"):
        (source / name).touch()
        os.utime(source / name, ns=(7, len(name) * 10**9 + 7))
    os.mkfifo(source / "p")
    settle()
    nights.backup()
    rebuilt(nights)
    (source / "s").rename(source / "d" / "other")  # another than "t", by its time
    (source / "d" / "t").rename(source / "t")
    (source / "p").rename(source / "q")
    (source / "empty").rename(source / "d" / "hollow")
    (source / "d" / "x").rename(source / "x")  # of two that are alike the name tells
    (source / "d" / "y").rename(source / "y")
    before = inodes(nights.repository)
    summary = nights.backup().summary
    assert (summary.files_moved, summary.files_new, summary.files_removed) == (6, 0, 0)
    assert inodes(nights.current) <= before
    moved = {c.path: c.from_path for c in nights_changes(nights) if c.change == "moved"}
    assert moved == {
        b"d/other": b"s", b"t": b"d/t", b"q": b"p", b"d/hollow": b"empty", b"x": b"d/x",
        b"y": b"d/y",
    }  # fmt: skip
    require_same(describe(source), describe(nights.current))
    assert nights.problems() == []


def test_what_only_looks_like_it_has_not_moved(nights: Nights) -> None:
    source = nights.source
    for name in ("one", "two"):
        (source / name).touch()
        os.utime(source / name, ns=(7, 7))
    (source / "s").symlink_to("nowhere")
    settle()
    nights.backup()
    rebuilt(nights)
    for name in ("one", "two", "s"):
        (source / name).unlink()
    (source / "three").touch()
    os.utime(source / "three", ns=(7, 7))
    (source / "r").symlink_to("elsewhere")
    os.utime(
        source / "r", ns=(7, (nights.current / "s").lstat().st_mtime_ns), follow_symlinks=False
    )
    (source / "e").touch()
    summary = nights.backup().summary
    assert (summary.files_moved, summary.files_new, summary.files_removed) == (0, 3, 3)
    require_same(describe(source), describe(nights.current))


def nights_changes(nights: Nights) -> list[Change]:
    """What the newest snapshot changed."""
    with nights.history() as history:
        return list(history.diff(history.snapshots()[-2].name, "latest"))


def test_links_that_were_broken_meanwhile_are_told_apart(some: Nights) -> None:
    rebuilt(some)
    source = some.source
    linked = source / "moved" / "linked"
    subprocess.run(["cp", "-p", linked, source / "copy"], check=True)
    (source / "copy").rename(linked)
    settle()
    some.backup()
    require_same(describe(source), describe(some.current))


def test_restore_compares_content_without_digests(some: Nights, tmp_path: Path) -> None:
    rebuilt(some)
    target = tmp_path / "back"
    some.restore(target)
    st = (target / "new").stat()
    (target / "new").write_text("NEW")
    os.utime(target / "new", ns=(st.st_mtime_ns, st.st_mtime_ns))
    some.restore(target)
    assert (target / "new").read_text() == "new"
    assert len(list(target.glob("*.before-restore-*"))) == 1


def test_metadata_that_root_gave_the_drive_is_exact(some: Nights) -> None:
    """What differs is a change; only flags are learnt."""
    rebuilt(some)
    (some.source / "new").chmod(0o600)
    summary = some.backup().summary
    assert (summary.files_metadata, summary.bytes_copied) == (1, 0)


# --- the old catalog ----------------------------------------------------------------------------


def test_a_sound_catalog_is_refused_and_can_be_forced(some: Nights) -> None:
    before = told(some)
    with pytest.raises(Refused, match="--force"):
        rebuilt(some, lose=False)
    assert told(some) == before
    made = rebuilt(some, lose=False, force=True)
    assert made.kept is not None and Path(os.fsdecode(made.kept)).exists()
    assert told(some) == before
    assert sqlite3.connect(os.fsdecode(made.kept)).execute("SELECT count(*) FROM entry")


@pytest.mark.parametrize("content", [b"", b"garbage" * 1000, None, "folder", "link", "fifo"])
def test_a_broken_catalog_is_kept_aside(some: Nights, content: bytes | str | None) -> None:
    before = told(some)
    path = some.repository / CATALOG
    if content is None:  # a page in the middle is lost
        with path.open("r+b") as file:
            file.seek(path.stat().st_size // 2)
            file.write(b"\xff" * 9000)
    else:
        path.unlink()
        if content == "folder":
            path.mkdir()
        elif content == "link":
            path.symlink_to("nowhere")
        elif content == "fifo":
            os.mkfifo(path)
        else:
            assert isinstance(content, bytes)
            path.write_bytes(content)
    (some.repository / (CATALOG + "-journal")).write_bytes(b"left")
    made = rebuilt(some, lose=False)
    assert made.kept is not None and os.path.lexists(made.kept)
    assert told(some) == before
    assert not (some.repository / (CATALOG + "-journal")).exists()
    unchanged(some)


def test_one_of_a_newer_format_is_refused(some: Nights) -> None:
    db = sqlite3.connect(some.repository / CATALOG)
    db.execute("PRAGMA user_version = 7")
    db.close()
    with pytest.raises(Refused, match="newer"):
        rebuilt(some, lose=False)
    assert len(rebuilt(some, lose=False, force=True).snapshots) == 3


def test_pins_survive_in_a_readable_catalog(some: Nights) -> None:
    mark_oldest(some)
    shutil.rmtree(some.folders()[1])  # by hand: the catalog disagrees
    made = rebuilt(some, lose=False)
    assert len(made.snapshots) == 2
    require_marked(some)


def mark_oldest(nights: Nights) -> None:
    """Pin the oldest snapshot, and take it to be incomplete, and of another time than its
    name says: what no folder tells."""
    catalog = Catalog.open(os.fsencode(nights.repository / CATALOG), write=True)
    with contextlib.closing(catalog), catalog.transaction() as db:
        db.execute("UPDATE snapshot SET pinned = 'why', incomplete = 1, time = 5 WHERE id = 1")


def require_marked(nights: Nights) -> None:
    with nights.history() as history:
        oldest = history.snapshots()[0]
    assert (oldest.pinned, oldest.incomplete, oldest.time) == ("why", True, 5)


def overwrite(path: Path, at: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


def damage_unused_byte(path: Path) -> None:
    overwrite(path, 73, b"!")  # of the header, reserved for the future


def damage_row(path: Path) -> None:
    overwrite(path, path.read_bytes().index(b"nowhere"), b"somewhe")  # where a symlink leads


def damage_page(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as db:
        (page,) = db.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'entry'").fetchone()
    overwrite(path, (page - 1) * schema.PAGE_SIZE, b"\xff" * 900)


def damage_schema(path: Path) -> None:
    overwrite(path, path.read_bytes().index(b"CREATE INDEX entry_last"), b"CREATE \0NDEX")


@pytest.mark.parametrize("sealed", [True, False])
@pytest.mark.parametrize("damage", [damage_unused_byte, damage_row, damage_page, damage_schema])
def test_a_damaged_catalog_leads_to_a_new_one_that_knows_what_it_knew(
    some: Nights, damage: Callable[[Path], None], sealed: bool
) -> None:
    """What stops the nights says what to do, and that can be done as it stands there."""
    mark_oldest(some)
    some.mark("new")
    before = told(some, digests=True), changes(some)
    path = some.repository / CATALOG
    damage(path)
    if sealed:
        with pytest.raises(Damaged, match="`mirrorback rebuild`"):
            some.backup()
    else:
        path.with_name("catalog.blake3").unlink()
        if damage is damage_unused_byte:
            return  # it is as good as any
    made = rebuilt(some, lose=False)
    assert len(made.snapshots) == 3 and made.kept is not None and made.problems == 0
    require_marked(some)
    rows_are_kept = damage in (damage_unused_byte, damage_row)
    assert (told(some, digests=rows_are_kept), changes(some)) == (
        before if rows_are_kept else (without_digests(before[0]), before[1])
    )
    assert len(some.marked()) == int(rows_are_kept)
    if rows_are_kept:
        some.repair()  # nothing is wrong with it
    assert some.problems() == []
    unchanged(some)


@pytest.mark.parametrize("sealed", [True, False])
def test_a_restore_deletes_nothing_for_a_damaged_catalog(
    some: Nights, tmp_path: Path, sealed: bool
) -> None:
    """It may have lost the name of what is to be kept."""
    target, path = tmp_path / "back", some.repository / CATALOG
    some.restore(target)
    (target / "mine").touch()
    before = describe(target)
    if sealed:
        damage_unused_byte(path)
    else:
        damage_row(path)
        path.with_name("catalog.blake3").unlink()
    with pytest.raises(Damaged, match="--delete"):
        some.restore(target, delete=True)
    require_same(before, describe(target))
    (target / "new").unlink()
    some.restore(target)
    assert (target / "new").read_text() == "new"
    rebuilt(some, lose=False)
    some.restore(target, delete=True)
    assert not (target / "mine").exists()


def without_digests(told: dict[str, Any]) -> dict[str, Any]:
    entries = told["entries"].items()
    return told | {"entries": {name: [(*e[:-1], None) for e in all_] for name, all_ in entries}}


def test_what_a_damaged_catalog_knew_of_files_that_rot_is_kept(some: Nights) -> None:
    """Else a rebuild would take whatever there is now for what was backed up."""
    old = some.folders()[0] / "gone"
    st = old.stat()
    old.write_text("GONE")
    os.utime(old, ns=(st.st_atime_ns, st.st_mtime_ns))
    damage_row(some.repository / CATALOG)
    made = rebuilt(some, lose=False)
    assert made.kept is not None
    (found,) = some.problems()
    assert found.path == b"gone" and "content" in found.problem
    unchanged(some)


def test_nothing_is_taken_over_where_the_folder_shows_something_else(some: Nights) -> None:
    """By size, time, or mode: then the old catalog speaks of something that is gone."""
    for path, change in (
        ("gone", lambda p: p.chmod(0o611)),
        ("a", lambda p: os.utime(p, ns=(5, 5))),
        ("d/e/g", lambda p: p.write_text("deeper")),
    ):
        change(some.folders()[0] / path)
    damage_row(some.repository / CATALOG)
    rebuilt(some, lose=False)
    with some.history() as history:
        digests = {v.path: v.digest for v in history.listing(None, some.folders()[0].name, True)}
    assert [digests[p] for p in (b"gone", b"a", b"d/linked", b"d/e/g")] == [None] * 4
    assert digests[b"d/f"] is not None


@pytest.mark.parametrize(
    ("column", "value"),
    [("digest", "'text'"), ("digest", "x'00'"), ("ino", "x'01'"), ("btime", "'a'")],
)
def test_values_that_cannot_be_are_not_taken_over(some: Nights, column: str, value: str) -> None:
    """Whoever wrote them could give them a check."""
    with (
        contextlib.closing(
            Catalog.open(os.fsencode(some.repository / CATALOG), write=True)
        ) as catalog,
        catalog.transaction() as db,
    ):
        db.execute(f"UPDATE object SET {column} = {value}")
        db.execute(f"UPDATE object SET digest_of_row = {schema.check(schema.OBJECT)}")
    rebuilt(some, lose=False, force=True)
    with contextlib.closing(Catalog.open(os.fsencode(some.repository / CATALOG))) as catalog:
        assert list(audit.faults(catalog)) == []
        (count,) = catalog.db.execute(
            f"SELECT count(*) FROM object WHERE {column} IS {value}"
        ).fetchone()
    assert count == 0
    unchanged(some)


def test_rebuilding_a_sound_catalog_in_vain_leaves_it_sealed(
    some: Nights, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    for module, name in ((replaced, "take_place"), (gathering.Gatherer, "run")):
        with monkeypatch.context() as patched:
            patched.setattr(module, name, interrupted)
            with pytest.raises(KeyboardInterrupt):
                rebuilt(some, lose=False, force=True)
        with contextlib.closing(Catalog.open(os.fsencode(some.repository / CATALOG))) as catalog:
            assert catalog.seal() is Seal.HOLDS
    left = [p.name for p in (some.repository / CATALOG).parent.glob("catalog*")]
    assert sorted(left) == ["catalog.blake3", "catalog.db"]


def test_the_new_catalog_is_sealed(some: Nights) -> None:
    rebuilt(some)
    with contextlib.closing(Catalog.open(os.fsencode(some.repository / CATALOG))) as catalog:
        assert catalog.seal() is Seal.HOLDS
    left = [p.name for p in (some.repository / CATALOG).parent.glob("catalog*")]
    assert sorted(left) == ["catalog.blake3", "catalog.db"]


def test_a_dry_run_writes_nothing(some: Nights) -> None:
    (some.repository / CATALOG).unlink()
    before = describe(some.repository)
    made = rebuilt(some, lose=False, dry_run=True)
    assert len(made.snapshots) == 3
    require_same(before, describe(some.repository))


# --- settings, names, times ---------------------------------------------------------------------


def test_an_empty_repository(nights: Nights) -> None:
    (nights.source / "f").write_text("f")
    nights.backup()
    shutil.rmtree(nights.current)
    (nights.repository / ".mirrorback" / "mirror.toml").unlink()
    assert rebuilt(nights).snapshots == ()
    nights.backup()
    assert nights.problems() == []


def test_the_mirror_must_be_there(some: Nights) -> None:
    some.current.rename(some.repository / "elsewhere")
    with pytest.raises(Damaged, match="current"):
        rebuilt(some)


def test_settings_made_anew(some: Nights) -> None:
    before = told(some)
    path = some.repository / ".mirrorback" / "repository.toml"
    with pytest.raises(UsageError):
        rebuilt(some, source=str(some.source))
    for damage in (lambda: path.write_text("x ="), path.unlink):
        damage()
        (some.repository / CATALOG).touch()
        with pytest.raises((Damaged, NoRepository), match="--source"):
            rebuilt(some)
        (some.repository / CATALOG).touch()
        rebuilt(some, source=str(some.source))
        assert told(some) == before
    unchanged(some)


def test_all_of_the_inner_folder_lost(some: Nights) -> None:
    before = told(some)
    shutil.rmtree(some.repository / ".mirrorback")
    made = rebuilt(some, lose=False, source=str(some.source))
    assert made.snapshots[:2] == tuple(s[0] for s in before["snapshots"][:2])
    assert list(told(some)["entries"].values()) == list(before["entries"].values())
    with some.history() as history:
        times = [snapshot.time for snapshot in history.snapshots()]
    assert times == sorted(times)
    unchanged(some)


def test_folders_that_are_no_snapshots(some: Nights) -> None:
    (some.repository / "2026-99-99-020000").mkdir()
    (some.repository / "2026-01-01-020000").write_text("a file")
    (some.repository / "mine").mkdir()
    assert len(rebuilt(some).snapshots) == 3
    assert len(some.heard.warnings) == 2


def test_what_someone_has_put_into_a_folder_is_taken_in(some: Nights) -> None:
    (some.folders()[0] / "mine").write_text("mine")
    rebuilt(some)
    with some.history() as history:
        (found,) = history.find("mine")
    assert (found.first.name, found.last.name) == (some.folders()[0].name,) * 2


def test_an_hour_that_came_twice(nights: Nights) -> None:
    zone = ZoneInfo("Europe/Berlin")
    nights.now = datetime(2026, 10, 24, 0, 0, tzinfo=ZoneInfo("UTC"))
    for minutes in (0, 30, 60, 90):
        moment = datetime(2026, 10, 25, 0, minutes % 60, tzinfo=ZoneInfo("UTC"))
        moment += timedelta(hours=minutes // 60)
        (nights.source / "f").write_text(f"{minutes:03}")
        settle()
        nights.now = moment.astimezone(zone) - timedelta(days=1)
        nights.now = moment.astimezone(zone)
        from mirrorback.engine.backup import backup
        from mirrorback.engine.backup_options import BackupOptions

        backup(
            str(nights.source), str(nights.repository), BackupOptions(init=True), nights.now,
            nights.heard,
        )  # fmt: skip
    before = told(nights)
    rebuilt(nights)
    assert told(nights) == before


# --- what is hard to reach ----------------------------------------------------------------------


def test_long_paths(nights: Nights) -> None:
    folder = os.open(nights.source, os.O_RDONLY)
    for number in range(40):
        name = f"{number:02}" * 100
        os.mkdir(name, dir_fd=folder)
        below = os.open(name, os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = below
    os.close(os.open("deep", os.O_CREAT | os.O_WRONLY, dir_fd=folder))
    os.close(folder)
    settle()
    nights.backup()
    before = told(nights)
    rebuilt(nights)
    assert told(nights) == before
    summary = nights.backup().summary
    assert summary.unchanged and summary.bytes_copied == 0


def test_a_folder_that_cannot_be_read_is_told(some: Nights) -> None:
    """By somebody whom permissions concern: root reads everything."""
    (some.folders()[0] / "d").chmod(0)
    if os.geteuid() != 0:
        assert rebuilt(some).problems == 1
        return
    for path in (some.repository, *some.repository.rglob("*")):
        os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
    let_others_in(some.repository.parent)
    done = run("rebuild", some.repository, "--force", "--json", uid=NOBODY, code=4)
    assert done.json["problems"] == 1


def test_folders_where_none_should_be(some: Nights) -> None:
    """Someone has put them among what is to be cleared away."""
    inner = some.repository / ".mirrorback"
    for name in ("signatures", "redo"):
        (inner / name / "1" / "deep").mkdir(parents=True)
        (inner / name / "1" / "f").touch()
    rebuilt(some)
    assert list((inner / "signatures").iterdir()) == list((inner / "redo").iterdir()) == []
    unchanged(some)


# --- large files --------------------------------------------------------------------------------


@pytest.fixture
def chain(large: LargeNights, image: Path) -> LargeNights:
    """Four versions of a large file, three of them deltas; one of them moved with a change."""
    large.backup()
    for seed in range(3):
        change_pages(image, seed)
        if seed == 1:
            image = image.rename(image.with_name("renamed"))
        settle()
        large.backup()
    return large


def test_deltas_are_found(chain: LargeNights, tmp_path: Path) -> None:
    before = told(chain), changes(chain), versions(chain, b"d/renamed")
    trees = {}
    for name in [*(folder.name for folder in chain.folders()), "latest"]:
        chain.restore(tmp_path / name, at=name)
        trees[name] = describe(tmp_path / name)
    made = rebuilt(chain)
    assert (made.deltas, made.problems) == (3, 0)
    assert told(chain) == before[0]
    assert changes(chain)[0] == before[1][0]
    for name, tree in trees.items():
        chain.restore(tmp_path / "again" / name, at=name)
        require_same(tree, describe(tmp_path / "again" / name))
    assert chain.problems() == []
    unchanged(chain)
    middle = chain.folders()[1]
    chain.delete(middle.name)
    assert chain.problems() == []


def test_a_large_file_that_changes_next_becomes_a_delta(chain: LargeNights) -> None:
    rebuilt(chain)
    change_pages(chain.source / "d" / "renamed", 9)
    settle()
    before = (chain.current / "d" / "renamed").stat().st_ino
    summary = chain.backup().summary
    assert 0 < summary.bytes_written < 1 << 18
    assert (chain.current / "d" / "renamed").stat().st_ino == before
    assert chain.problems() == []


def test_a_damaged_delta_is_told_and_stays(chain: LargeNights) -> None:
    victim = chain.folders()[1] / "d" / ("image" + SUFFIX.decode())
    with victim.open("r+b") as file:
        file.seek(-60, os.SEEK_END)
        file.write(b"\xff\xff\xff")
    made = rebuilt(chain)
    assert made.problems == len(chain.heard.errors) == 2  # and the one over it
    assert made.deltas == 1
    with chain.history() as history:
        assert len(history.find("image.rdiff.zst")) == 2


def test_a_delta_whose_base_is_damaged_is_told(chain: LargeNights) -> None:
    with (chain.current / "d" / "renamed").open("r+b") as file:
        file.write(b"rot")
    assert rebuilt(chain).problems == 3


def test_files_that_only_have_the_name_of_a_delta(chain: LargeNights) -> None:
    source = chain.source
    delta = chain.folders()[0] / "d" / ("image" + SUFFIX.decode())
    shutil.copy(delta, source / ("own" + SUFFIX.decode()))  # a real one, but of the source's
    (source / ("text" + SUFFIX.decode())).write_text("text")
    (source / "text").write_text("beside")
    (source / SUFFIX.decode()).write_text("nothing but a suffix")
    settle()
    chain.backup()
    before = told(chain)
    made = rebuilt(chain)
    assert (made.deltas, made.problems) == (3, 0)
    assert told(chain) == before


# --- copies -------------------------------------------------------------------------------------


def copied(nights: Nights, to: Path, *how: str) -> None:
    """Go on in a copy, made by a command; `cp` where none is named."""
    command = how if how[0] == "rsync" else ("cp", *how)
    if shutil.which(command[0]) is None:
        pytest.skip(f"no {command[0]}")
    origin: str | Path = nights.repository
    if how[0] == "rsync":
        origin = f"{origin}/"
        time.sleep(1.1)  # of a folder it sets no time that is the same second's
    subprocess.run([*command, origin, to], check=True)
    shutil.rmtree(nights.repository)
    nights.repository = to


@pytest.mark.parametrize("how", [("-a",), ("rsync", "-aH")])
@pytest.mark.parametrize("lose", [False, True])
def test_a_copy_goes_on(
    chain: LargeNights, tmp_path: Path, lose: bool, how: tuple[str, ...]
) -> None:
    before = told(chain)
    copied(chain, tmp_path / "copy", *how)
    if lose:
        rebuilt(chain)
    assert told(chain) == before
    assert chain.problems() == []
    unchanged(chain)
    chain.delete(chain.folders()[0].name)
    change_pages(chain.source / "d" / "renamed", 9)
    settle()
    chain.backup()
    assert chain.problems() == []
    require_same(describe(chain.source), describe(chain.current))


def test_a_copy_without_hard_links(some: Nights, tmp_path: Path) -> None:
    before = versions(some, b"new")
    copied(some, tmp_path / "copy", "-r", "--preserve=mode,ownership,timestamps,xattr")
    made = rebuilt(some)
    assert (len(made.snapshots), made.problems) == (3, 0)
    assert [v[:3] for v in versions(some, b"new")] == [v[:3] for v in before]
    assert some.problems() == []
    some.backup()
    require_same(describe(some.source), describe(some.current))
    assert some.problems() == []


# --- publications that were cut -----------------------------------------------------------------


class Cut(Exception):
    pass


CUTS = ["exchange", "rename_new", "note"]


def cut_night(nights: Nights, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """A backup that is killed within its publication."""
    from mirrorback.store import publish, record, supersede, system

    def stop(*_: object, **__: object) -> None:
        raise Cut

    with monkeypatch.context() as patch:
        if where == "exchange":
            patch.setattr(publish, "_exchange", stop)
        elif where == "rename_new":
            patch.setattr(system, "rename_new", stop)
        elif where == "give":
            patch.setattr(supersede, "give", stop)
        elif where == "patch":
            patch.setattr(supersede, "patch", stop)
        else:
            patch.setattr(record, "published", stop)
        with pytest.raises(Cut):
            nights.backup()


@pytest.mark.parametrize("copy", [False, True])
@pytest.mark.parametrize("lose", [False, True])
@pytest.mark.parametrize("where", CUTS)
def test_a_publication_that_was_cut(
    some: Nights,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    where: str,
    lose: bool,
    copy: bool,
) -> None:
    then = {f.name: describe(f) for f in (*some.folders(), some.current)}
    (some.source / "new").write_text("newer")
    (some.source / "b").unlink()
    (some.source / "more").mkdir()
    settle()
    cut_night(some, monkeypatch, where)
    if copy:
        copied(some, tmp_path / "copy", "-a")
    if copy and not lose and where != "note":
        with pytest.raises(MirrorbackError, match="rebuild"):
            some.backup()
    made = rebuilt(some, lose=lose, force=True)
    assert made.problems == 0
    assert len(made.snapshots) == (3 if where == "exchange" and (lose or copy) else 4)
    newest = sorted(f.name for f in some.folders())
    for name in newest:
        found = describe(some.repository / name)
        wanted = then.get(name, then["current"])
        require_same(wanted, found)
    some.backup()
    require_same(describe(some.source), describe(some.current))
    assert some.problems() == []
    assert {s[0] for s in told(some)["snapshots"]} >= set(newest)


@pytest.mark.parametrize("where", ["exchange", "rename_new", "give", "patch", "note"])
def test_large_files_whose_publication_was_cut(
    chain: LargeNights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    chain.restore(tmp_path / "then")
    image = chain.source / "d" / "renamed"
    change_pages(image, 9)
    settle()
    cut_night(chain, monkeypatch, where)
    made = rebuilt(chain)
    assert made.problems == 0
    if where != "exchange":
        require_same(describe(chain.source), describe(chain.current))
    chain.backup()
    require_same(describe(chain.source), describe(chain.current))
    assert chain.problems() == []
    name = sorted(f.name for f in chain.folders())[-1]
    chain.restore(tmp_path / "back", at=name)
    require_same(describe(tmp_path / "then"), describe(tmp_path / "back"))


def test_who_reads_through_the_old_catalog_is_told(chain: LargeNights) -> None:
    """It does not say when the mirror's large files get the next changes."""
    image = chain.source / "d" / "renamed"
    wanted = image.read_bytes()
    with chain.history() as history:
        view = View(history)
        shown = view.look(b"current/d/renamed")
        with contextlib.closing(view.open(shown)) as version:
            assert version.pread(0, len(wanted)) == wanted
            rebuilt(chain, lose=False, force=True)
            change_pages(image, 9)
            settle()
            chain.backup()
            with pytest.raises(MirrorbackError, match="again"):
                version.pread(0, len(wanted))
        with pytest.raises(MirrorbackError, match="again"):
            history.refreshed()
