"""What a backup refuses, and what it leaves out."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from program import complaint, run
from runs import Nights

from mirrorback.errors import NoSpace, Refused
from mirrorback.store import probe, settings
from mirrorback.store.repository import Repository


def test_a_repository_is_never_made_in_passing(source: Path, repository: Path) -> None:
    said = complaint("backup", source, repository, code=10)
    assert "--init" in said and "mounted" in said
    assert not repository.exists()


@pytest.mark.parametrize("command", ["snapshots", "ls", "verify", "doctor"])
def test_no_repository_is_ten_for_every_command(command: str, repository: Path) -> None:
    complaint(command, repository, code=10)


def test_a_repository_that_is_a_file(source: Path, repository: Path) -> None:
    repository.write_text("x")
    complaint("backup", source, repository, code=10)
    complaint("backup", "--init", source, repository, code=1)
    assert repository.read_text() == "x"


def test_a_foreign_folder_is_not_taken(source: Path, repository: Path) -> None:
    repository.mkdir()
    (repository / "thesis.txt").write_text("x")
    assert "--force" in complaint("backup", "--init", source, repository, code=5)
    complaint("snapshots", repository, code=10)
    assert sorted(p.name for p in repository.iterdir()) == ["thesis.txt"]


@pytest.mark.parametrize("place", ["", "current", ".mirrorback", "current/deep/er"])
def test_no_repository_is_made_inside_another(nights: Nights, place: str) -> None:
    (nights.source / "f").write_text("x")
    nights.backup()
    before = sorted(nights.repository.rglob("*"))
    inner = nights.repository / place / "inner"
    said = complaint("init", inner, "--source", nights.source, code=5)
    assert "--force" in said and str(nights.repository) in said
    complaint("backup", "--init", nights.source, inner, code=5)
    assert sorted(nights.repository.rglob("*")) == before


def test_a_symlink_hides_no_repository(nights: Nights, tmp_path: Path) -> None:
    (nights.source / "f").write_text("x")
    nights.backup()
    (tmp_path / "way").symlink_to(nights.repository)
    complaint("init", tmp_path / "way" / "inner", "--source", nights.source, code=5)
    run("init", tmp_path / "way" / "inner", "--source", nights.source, "--force")


def test_a_source_that_is_missing_or_a_file(source: Path, repository: Path) -> None:
    complaint("backup", "--init", source / "none", repository, code=1)
    (source / "f").write_text("x")
    complaint("backup", "--init", source / "f", repository, code=1)
    assert not repository.exists()


def test_an_empty_source_is_refused_when_the_mirror_is_not(nights: Nights) -> None:
    (nights.source / "f").write_text("x")
    nights.backup()
    (nights.source / "f").unlink()
    assert "--allow-empty-source" in complaint("backup", nights.source, nights.repository, code=5)
    assert (nights.current / "f").exists()
    run("backup", "--allow-empty-source", nights.source, nights.repository)
    assert not (nights.current / "f").exists()


def test_a_locked_repository(nights: Nights) -> None:
    (nights.source / "f").write_text("x")
    nights.backup()
    with (nights.repository / ".mirrorback" / "lock").open("r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        complaint("backup", nights.source, nights.repository, code=11)
        complaint("delete", nights.repository, "2026-01-01-000000", code=11)
        run("snapshots", nights.repository)
    run("backup", nights.source, nights.repository)


def test_a_newer_format_is_refused(nights: Nights) -> None:
    (nights.source / "f").write_text("x")
    nights.backup()
    path = nights.repository / ".mirrorback" / "repository.toml"
    lines = path.read_text().splitlines(keepends=True)
    text = "".join(line for line in lines if not line.startswith(("#", "check")))
    text = text.replace("format = 1", "format = 2")
    assert "format = 2" in text
    path.write_bytes(settings.seal(text))
    said = complaint("backup", nights.source, nights.repository, code=1)
    assert "newer" in said


def test_a_bit_flipped_in_the_settings_is_noticed(nights: Nights) -> None:
    (nights.source / "f").write_text("x")
    nights.backup()
    path = nights.repository / ".mirrorback" / "repository.toml"
    whole = path.read_bytes()
    for at in range(0, len(whole), 7):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        run("snapshots", nights.repository, code=4)
    path.write_bytes(whole)
    run("snapshots", nights.repository)


def test_the_source_inside_the_repository(nights: Nights) -> None:
    (nights.source / "f").write_text("x")
    nights.backup()
    complaint("backup", nights.current, nights.repository, code=5)
    with nights.history() as history:
        assert history.source == os.fsencode(nights.source)  # what was refused changed nothing


def test_the_repository_inside_the_source_is_left_out(source: Path) -> None:
    (source / "f").write_text("x")
    nights = Nights(source, source / "deep" / "drive")
    nights.repository.parent.mkdir()
    nights.backup()
    nights.backup()
    found = {str(p.relative_to(nights.current)) for p in nights.current.rglob("*")}
    assert found == {"f", "deep"}


def test_no_space_is_known_before_a_byte_is_copied(
    nights: Nights, monkeypatch: pytest.MonkeyPatch
) -> None:
    (nights.source / "f").write_text("x" * 5000)
    nights.backup()
    (nights.source / "g").write_text("x" * 50_000_000)
    before = sorted((nights.repository / ".mirrorback").iterdir())
    monkeypatch.setattr(probe, "free_space", lambda fd: (10_000_000, None))
    with pytest.raises(NoSpace):
        nights.backup()
    assert sorted((nights.repository / ".mirrorback").iterdir()) == before
    monkeypatch.setattr(probe, "free_space", lambda fd: (100_000_000_000, 0))
    with pytest.raises(NoSpace, match="more files"):
        nights.backup()
    monkeypatch.undo()
    nights.backup()


def many(folder: Path, count: int) -> None:
    folder.mkdir(exist_ok=True)
    for number in range(count):
        (folder / f"{number}").write_text(f"{number}")


def test_a_mass_change_pins_what_was_before(nights: Nights) -> None:
    many(nights.source / "d", 1100)
    time.sleep(0.03)
    first = nights.backup().summary.snapshot
    for number in range(600):
        (nights.source / "d" / f"{number}").write_text("encrypted!")
    nights.backup()
    assert any("pinned" in message for message, _path in nights.heard.warnings)
    with nights.history() as history:
        pins = {s.name: s.pinned for s in history.snapshots()}
    assert pins[first or ""] and "mass change" in (pins[first or ""] or "")
    assert list(pins.values())[1] is None
    with pytest.raises(Refused):
        nights.delete(first or "")


def test_fewer_than_half_pin_nothing(nights: Nights) -> None:
    many(nights.source / "d", 1100)
    time.sleep(0.03)
    nights.backup()
    for number in range(500):
        (nights.source / "d" / f"{number}").unlink()
    nights.backup()
    with nights.history() as history:
        assert [s.pinned for s in history.snapshots()] == [None, None]


def test_a_drive_without_hard_links_is_refused(
    source: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def link(*_names: object, **_options: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    (source / "f").write_text("x")
    monkeypatch.setattr(os, "link", link)
    with pytest.raises(Refused, match="hard links"):
        Nights(source, repository).backup()
    assert not repository.exists()


def test_a_mount_in_the_source_is_entered_unless_told_otherwise(nights: Nights, ext4: Path) -> None:
    inside = nights.source / "bound"
    inside.mkdir()
    (ext4 / "x").write_text("x")
    subprocess.run(["mount", "--bind", ext4, inside], check=True)
    try:
        nights.backup(one_file_system=True)
        assert list((nights.current / "bound").iterdir()) == []
        nights.backup()
        assert [p.name for p in (nights.current / "bound").iterdir()] == ["x"]
    finally:
        subprocess.run(["umount", inside], check=True)


def test_a_repository_that_was_copied_goes_on(nights: Nights, tmp_path: Path) -> None:
    (nights.source / "f").write_text("x")
    nights.backup()
    (nights.source / "g").write_text("x")
    nights.backup()
    subprocess.run(["cp", "-a", nights.repository, tmp_path / "bigger"], check=True)
    shutil.rmtree(nights.repository)
    nights.repository = tmp_path / "bigger"
    (nights.source / "h").write_text("y")
    assert nights.backup(init=False).summary.files_new == 1
    assert nights.problems() == []
    assert len(nights.folders()) == 2


def test_options_kept_in_the_repository(nights: Nights) -> None:
    (nights.source / "f").write_text("x")
    nights.backup(delta_min_size=5 << 20)
    nights.backup()
    repo = Repository.open(os.fsencode(nights.repository))
    try:
        assert repo.settings.delta_min_size == 5 << 20
    finally:
        repo.close()
