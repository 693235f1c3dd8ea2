"""Whole commands, by the program's own entry, judged by what a person sees of them."""

from __future__ import annotations

import json
import os
import re
from datetime import timedelta
from pathlib import Path

from crash.cutting import DAMAGED, KILL, KILLED, NEVER, UNEXPECTED, Ended, Fault, in_child
from crash.scenario import Scenario, change, fill
from trees import require_same

from mirrorback.cli import app, clock

WARNING = "mirrorback: warning: "
HELD = "mirrorback: "


class _Command(Scenario):
    """A command of a person who has a configuration, a diary, and a scheduler."""

    def __init__(self, top: Path) -> None:
        super().__init__(top)
        self.file = top / "config.toml"
        self.state = top / "state"

    def words(self) -> tuple[str, ...]:
        """What is typed."""
        raise NotImplementedError

    def run(self) -> int | None:
        return self.command(*self.words())

    def command(self, *words: str) -> int:
        """Run one, as this process, to its end; the exit code."""
        os.environ |= {
            "MIRRORBACK_STATE_DIR": str(self.state),
            "XDG_CONFIG_HOME": str(self.top / "home"),
            "HOME": str(self.top / "home"),
            "TMPDIR": str(self.top),
            "DBUS_SESSION_BUS_ADDRESS": "unix:path=/nonexistent",
        }
        clock.now = lambda: self.nights.now
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        return app.run([*words, "--config", str(self.file)])

    def done(self, *words: str, codes: tuple[int, ...] = (0,)) -> Ended:
        """Run one in a process of its own, which is to end so."""
        ended = in_child(lambda: self.command(*words), NEVER, Fault(KILL), self.top)
        assert ended.code in codes, ended
        return ended

    def require_said(self, ended: Ended) -> None:
        lines = ended.said.splitlines()
        assert ended.code != UNEXPECTED and all(line.startswith(HELD) for line in lines), ended
        errors = [line for line in lines if not line.startswith(WARNING)]
        failed = ended.code not in (0, KILLED)
        assert len(errors) == failed or (ended.code == DAMAGED and not errors), ended
        assert "internal error" not in ended.said, ended


class RunNight(_Command):
    """The night of a configured backup, with hooks, thinning, and a slice of verification."""

    def prepare(self) -> None:
        fill(self.nights.source)
        repository = str(self.nights.repository)
        init = ("init", repository, "--source", str(self.nights.source), "--name", "home")
        self.done(*init, "--schedule", "daily 02:00", "--keep-last", "2")
        with self.file.open("a") as file:
            file.write(f'verify = "30m"\nbefore = "echo begins >> {self.top}/hooks"\n')
            file.write(f'on-failure = "echo failed >> {self.top}/hooks"\n')
        for number in range(3):
            self._changed(number)
            self._night()
        change(self.nights.source)

    def _changed(self, number: int) -> None:
        (self.nights.source / "small").write_text(f"night {number}")

    def _night(self) -> None:
        self.nights.now += timedelta(days=1)
        self.done("run")
        names = self._names()
        self.then[names[-1]] = self.seen(self.nights.source)

    def words(self) -> tuple[str, ...]:
        self.nights.now += timedelta(days=1)
        return ("run",)

    def after(self) -> None:
        wanted = self.seen(self.nights.source)
        self._require_published(wanted)
        self._require_whole_pages()
        self._changed(9)
        self.nights.now += timedelta(days=2)
        self._night()
        newest = max(self.then)
        names = self._names()
        assert names[-1] == newest and len(names) == 2
        self.then = {name: self.then.get(name, wanted) for name in names}
        self._require_all(self.then[newest])
        self._require_whole_pages()
        page = json.loads((self.state / "home.json").read_text())
        assert page["last_result"] == "ok"
        assert self.done("status").said == ""
        assert {p.name for p in self.state.iterdir()} <= {"home.json", "log", "turns", "lock"}
        for log in (self.nights.repository / ".mirrorback/log", self.state / "log/home"):
            assert all(path.suffix == ".log" for path in log.iterdir())

    def removable(self) -> set[str]:
        return set(sorted(self.then)[:-1])

    def _require_whole_pages(self) -> None:
        """A page of the diary is the old one, or the new one."""
        pages = list(self.state.glob("*.json"))
        assert all(json.loads(page.read_text())["name"] == "home" for page in pages)
        assert pages


class FirstByCommand(_Command):
    """A first backup by the command line, into nothing."""

    def prepare(self) -> None:
        fill(self.nights.source)

    def words(self) -> tuple[str, ...]:
        self.nights.now += timedelta(days=1)
        return ("backup", "--init", str(self.nights.source), str(self.nights.repository))

    def after(self) -> None:
        wanted = self.seen(self.nights.source)
        self._require_published(wanted)
        self.nights.now += timedelta(hours=1)
        self.done(*self.words())
        self._require_all(wanted)


class InitNamed(_Command):
    """A new repository that is written into the configuration."""

    def prepare(self) -> None:
        fill(self.nights.source)
        self.file.write_text("# mine\n")

    def words(self) -> tuple[str, ...]:
        source = str(self.nights.source)
        return ("init", str(self.nights.repository), "--source", source, "--name", "home")

    def after(self) -> None:
        text = self.file.read_text()
        assert text.startswith("# mine\n")
        if "repository-id" not in text:
            assert text == "# mine\n"
            self.done(*self.words())
        self.nights.now += timedelta(days=1)
        self.done("run")
        self._require_all(self.seen(self.nights.source))
        assert {p.name for p in self.top.iterdir()} <= {"config.toml", "source", "drive", "state"}


class _Configured(_Command):
    """A change of what a person has written, who keeps it elsewhere."""

    entry = ""  # the table of the backup, if it has one already
    changed = ""  # the text that the change makes, but for the repository's id

    @property
    def kept(self) -> Path:
        """The file that the configuration is a link to."""
        return self.top / "dotfiles" / "config.toml"

    @property
    def text(self) -> str:
        """What it says before."""
        other = '[backup.other]  # of another drive\nsource="/a"\nrepository  =  "/b"\n# not yet:\n'
        return f"# mine\n\n{other}# keep-daily = 7\n\n{self.entry}# the end\n"

    def prepare(self) -> None:
        fill(self.nights.source)
        self.kept.parent.mkdir()
        self.kept.write_text(self.text)
        self.kept.chmod(0o640)
        os.chown(self.kept, 0, 34)
        self.file.symlink_to("dotfiles/config.toml")

    def measure(self) -> None:
        self.done(*self.words())
        type(self).changed = self._found()

    def _found(self) -> str:
        st = self.kept.stat()
        assert (st.st_mode & 0o7777, st.st_uid, st.st_gid) == (0o640, 0, 34)
        assert self.file.is_symlink()
        return re.sub(
            r'repository-id = "[0-9a-f]{32}"', 'repository-id = "ID"', self.file.read_text()
        )

    def require_done(self) -> None:
        assert self._found() == self.changed

    def after(self) -> None:
        comments = [line for line in self.text.splitlines() if "#" in line]
        assert "ID" in self.changed and set(comments) <= set(self.changed.splitlines())
        found = self._found()
        assert found in (self.text, self.changed), found
        self.nights.now += timedelta(days=1)
        if found == self.text:
            self.done(*self.words())
        assert self._found() == self.changed
        assert [path.name for path in self.kept.parent.iterdir()] == ["config.toml"]
        self.done("run", "home")
        self._require_all(self.seen(self.nights.source))
        assert self._found() == self.changed


class InitSecond(_Configured):
    """A second backup that is written into a configuration."""

    def words(self) -> tuple[str, ...]:
        source = str(self.nights.source)
        return ("init", str(self.nights.repository), "--source", source, "--name", "home")


class FillInId(_Configured):
    """A first backup of one that is configured, which gets the repository's id."""

    @property
    def entry(self) -> str:  # type: ignore[override]
        """See there."""
        source, repository = self.nights.source, self.nights.repository
        return f"[backup.home]\nsource = '{source}' # mine\nrepository = '{repository}'\n"

    def words(self) -> tuple[str, ...]:
        return ("backup", "--init", "home")


class Pin(_Command):
    """A snapshot that is pinned."""

    def prepare(self) -> None:
        fill(self.nights.source)
        self.night()
        (self.nights.source / "small").write_text("other")
        self.night()

    def words(self) -> tuple[str, ...]:
        return ("pin", str(self.nights.repository), min(self.then), "--reason", "why")

    def after(self) -> None:
        with self.nights.history() as history:
            pins = [snapshot.pinned for snapshot in history.snapshots()]
        assert pins in ([None, None], ["why", None]), pins
        self.done("pin", str(self.nights.repository), min(self.then))
        super().after()
        assert self.done("delete", str(self.nights.repository), min(self.then), codes=(5,)).said


class Schedule(_Command):
    """Timers that are installed in the place of others."""

    def prepare(self) -> None:
        fill(self.nights.source)
        for name in ("systemctl", "crontab", "loginctl"):
            fake = self.top / "bin" / name
            fake.parent.mkdir(exist_ok=True)
            fake.write_text(f"#!/bin/sh\nexit {int(name != 'crontab')}\n")
            fake.chmod(0o755)
        self._write("daily 02:00", "one", "two")
        self.done("schedule", "install", "--backend", "systemd")
        self._write("daily 03:00", "two", "three")

    def _write(self, when: str, *names: str) -> None:
        entries = [
            f'[backup.{name}]\nsource = "/a"\nrepository = "/b/{name}"\nschedule = "{when}"\n'
            for name in names
        ]
        self.file.write_text("\n".join(entries))

    def command(self, *words: str) -> int:
        from mirrorback.engine.night import systemd

        os.environ["PATH"] = f"{self.top}/bin:{os.environ['PATH']}"
        systemd.home = lambda: str(self.top / "units")
        return super().command(*words)

    def words(self) -> tuple[str, ...]:
        return ("schedule", "install", "--backend", "systemd")

    def after(self) -> None:
        self.done(*self.words())
        units = self.top / "units"
        kinds = ("service", "timer")
        wanted = {f"mirrorback-{name}.{kind}" for name in ("two", "three") for kind in kinds}
        assert {p.name for p in units.iterdir()} == wanted | {"timers.target.wants"}
        assert {p.name for p in (units / "timers.target.wants").iterdir()} == {
            name for name in wanted if name.endswith(".timer")
        }
        for name in wanted:
            assert (units / name).stat().st_mode & 0o777 == 0o644
            assert "02:00" not in (units / name).read_text()
        self.done("schedule", "remove", "--backend", "systemd")
        assert list(units.iterdir()) == []


class Verify(_Command):
    """A look at everything, of which nothing is damaged."""

    def prepare(self) -> None:
        fill(self.nights.source)
        self.night()
        change(self.nights.source)
        self.night()

    def words(self) -> tuple[str, ...]:
        return ("verify", str(self.nights.repository))

    def after(self) -> None:
        for folder in (*self.nights.folders(), self.nights.current):
            name = max(self.then) if folder.name == "current" else folder.name
            require_same(self.then[name], self.seen(folder))
        self.done(*self.words())  # what was marked is well
        assert self.nights.marked() == []
        super().after()
