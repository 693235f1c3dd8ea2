"""Two drives that take turns at one place, as one of them is always out of the house."""

from __future__ import annotations

from pathlib import Path

import pytest
from program import complaint, run


class Drives:
    """Two drives for one mount point, each with a backup of its own."""

    def __init__(self, top: Path) -> None:
        self.file, self.place = top / "config.toml", top / "media"
        self._shelf = top
        (top / "source").mkdir()
        (top / "source" / "a").write_text("a")
        for name in ("blue", "red"):
            wishes = ["--name", name, "--schedule", "daily 02:00", "--config", self.file]
            run("init", self.place / "home", "--source", top / "source", *wishes)
            self.take_away(name)

    def take_away(self, name: str) -> None:
        """Unplug a drive."""
        self.place.rename(self._shelf / name)

    def bring(self, name: str) -> None:
        """Plug a drive in."""
        (self._shelf / name).rename(self.place)

    def made(self) -> bool:
        """Whether the drive that is there has a mirror."""
        return (self.place / "home" / "current" / "a").exists()


@pytest.fixture
def drives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Drives:
    monkeypatch.setenv("MIRRORBACK_STATE_DIR", str(tmp_path / "state"))
    return Drives(tmp_path)


def test_each_is_backed_up_to_when_it_is_there(drives: Drives) -> None:
    assert "no mistakes" in run("config", "check", "--config", drives.file).out
    drives.bring("red")
    done = run("run", "--if-present", "--config", drives.file)
    assert "red: ok" in done.out and "blue" not in done.out + done.err
    assert drives.made()
    drives.take_away("red")
    drives.bring("blue")
    assert not drives.made()
    done = run("run", "--if-present", "--config", drives.file)
    assert "blue: ok" in done.out and "red" not in done.out + done.err
    assert drives.made()


def test_each_is_overdue_by_itself(drives: Drives) -> None:
    drives.bring("red")
    run("run", "--if-present", "--config", drives.file)
    blue, red = run("status", "--json", "--config", drives.file, code=3).json
    assert blue["overdue"] and blue["last_success"] is None
    assert not red["overdue"] and red["last_success"] is not None
    assert "that of red" in run("status", "--config", drives.file, code=3).out
    drives.take_away("red")
    _blue, red = run("status", "--json", "--config", drives.file, code=3).json
    assert not red["overdue"] and red["last_success"] is not None


@pytest.mark.parametrize(
    "command",
    [
        ["run", "blue"],
        ["backup", "blue"],
        ["backup", "--init", "blue"],
        ["backup", "--dry-run", "blue"],
        ["snapshots", "blue"],
    ],
)
def test_the_one_that_is_away_is_away_not_wrong(drives: Drives, command: list[str]) -> None:
    drives.bring("red")
    told = complaint(*command, "--config", drives.file, code=10)
    assert "the drive of blue is not there" in told and "that of red" in told
    assert not drives.made()


def test_a_third_drive_is_refused(drives: Drives, tmp_path: Path) -> None:
    run("init", drives.place / "home", "--source", tmp_path / "source")
    told = complaint("run", "--if-present", "blue", "--config", drives.file, code=5)
    assert "another repository" in told


def test_a_second_entry_beside_one_without_an_id_makes_no_repository(
    drives: Drives, tmp_path: Path
) -> None:
    text = drives.file.read_text()
    lines = [line for line in text.splitlines() if not line.startswith("repository-id")]
    drives.file.write_text("\n".join(lines[: len(lines) // 2]) + "\n")
    run("config", "check", "--config", drives.file)
    before = drives.file.read_text()
    wishes = ["--source", tmp_path / "source", "--name", "green", "--config", drives.file]
    told = complaint("init", drives.place / "home", *wishes, code=2)
    assert "take turns" in told
    assert not drives.place.exists() and drives.file.read_text() == before
