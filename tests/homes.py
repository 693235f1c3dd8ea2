"""A configured backup, and its nights."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from program import run
from runs import Heard

from mirrorback.engine.night import diary
from mirrorback.engine.night.configuration import load
from mirrorback.engine.night.diary import Page
from mirrorback.engine.night.outcome import Outcome
from mirrorback.engine.night.running import Run
from mirrorback.engine.night.standing import Status, status

NOW = datetime(2026, 11, 25, 2, 0, 5, tzinfo=UTC)


class Home:
    """A configured backup, its repository made."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.source, self.repository = top / "source", top / "drive"
        self.file, self.state = top / "config.toml", top / "state"
        self.now = NOW
        self.heard = Heard()
        self.source.mkdir()
        (self.source / "a").write_text("a")
        run(
            "init",
            self.repository,
            "--source",
            self.source,
            "--name",
            "home",
            "--config",
            self.file,
        )

    def add(self, text: str) -> None:
        """Lines of its configuration."""
        with self.file.open("a") as opened:
            opened.write(text + "\n")

    def night(self, name: str = "home", **options: Any) -> Outcome:
        """What comes of one, a day after the one before."""
        self.now += timedelta(days=1)
        return self.again(name, **options)

    def again(self, name: str = "home", **options: Any) -> Outcome:
        """What comes of one, at the same time as the one before."""
        found = load(str(self.file), self.now)
        found.require_sound()
        backup = found.named(name)
        assert backup is not None
        self.heard = Heard()
        return Run(lambda: self.now, str(self.state), **options).one(backup, self.heard)

    def page(self) -> Page:
        """What the diary knows."""
        return diary.read(str(self.state), "home")

    def status(self) -> Status:
        """What `status` says."""
        found = load(str(self.file), self.now)
        return status(found.backups, self.now, str(self.state))[0]

    def logs(self) -> list[str]:
        """The logs on the drive."""
        return [p.read_text() for p in sorted((self.repository / ".mirrorback/log").iterdir())]
