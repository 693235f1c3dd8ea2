"""What is damaged, and is mended; and what is restored."""

from __future__ import annotations

import shutil
import time
from datetime import timedelta
from pathlib import Path

from crash.nightly import Large
from crash.scenario import AfterCut, Scenario, fill, is_plain, overwrite
from trees import require_same


class Repair(Scenario):
    """Mending some of every damage."""

    DAMAGED = (b"flipped by the drive", b"an editor's own")

    alters_source = True

    def prepare(self) -> None:
        fill(self.nights.source)
        for count in range(3):
            (self.nights.source / "small").write_text(str(count))
            time.sleep(0.03)
            self.night()
        old, older = self.nights.folders()
        mirror = self.nights.current
        overwrite(mirror / "d" / "deep" / "g", self.DAMAGED[0])
        (older / "large").unlink()
        (older / "large").write_bytes(self.DAMAGED[1])
        (old / "s").unlink()
        (old / "s").symlink_to("elsewhere")
        (mirror / "d" / "f").chmod(0o777)
        shutil.rmtree(older / "d" / "deep")
        self.nights.mark()

    def run(self) -> None:
        self.nights.repair()

    def require_done(self) -> None:
        assert self.nights.marked() == [] and self.nights.problems() == []

    def recover(self) -> None:
        self.run()

    def after(self) -> None:
        wanted = self.seen(self.nights.source)
        self._require_kept()
        self._require_sound_names()
        self._next()
        result = self.nights.repair()
        assert result.left == 0, result
        assert self.nights.marked() == []
        (self.nights.source / "small").write_text("last")
        self.nights.now += timedelta(hours=1)
        self.backup()
        wanted = self.seen(self.nights.source)
        self._require_all(wanted)
        self._require_kept()

    def _next(self) -> None:
        """The next command, which ends what was begun."""

    def _require_kept(self) -> None:
        """What was damaged is not lost."""
        top = self.nights.repository
        found = {path.read_bytes() for path in top.rglob("*") if is_plain(path)}
        assert set(self.DAMAGED) <= found

    def _require_sound_names(self) -> None:
        """What was not damaged is as it was, and what was is so, or mended."""
        for folder in [*self.nights.folders(), self.nights.current]:
            then = self.then.get(folder.name, self.then[max(self.then)])
            found = self.seen(folder)
            for path, node in then.items():
                if path not in found:
                    assert path.startswith(b"d/deep") or path in (b"large", b"s"), path
                elif node.content != found[path].content:
                    assert path in (b"d/deep/g", b"large", b"s"), path


class RepairThenBackup(Repair):
    """The same, after which a night comes first."""

    def _next(self) -> None:
        (self.nights.source / "small").write_text("next")
        time.sleep(0.03)
        self.nights.now += timedelta(hours=1)
        self.night()
        require_same(self.seen(self.nights.source), self.seen(self.nights.current))


class GoneFolder(Repair):
    """Making a dated folder anew, of which only the name is left, at something else."""

    DAMAGED = (b"someone's own",)

    def prepare(self) -> None:
        fill(self.nights.source)
        self.night()
        (self.nights.source / "small").write_text("second")
        (self.nights.source / "twin").write_text("second")  # where that is found
        (self.nights.source / "d" / "deep").rename(self.nights.source / "deep")
        time.sleep(0.03)
        self.night()
        (self.nights.source / "small").write_text("third")
        (self.nights.source / "d" / "f").chmod(0o600)
        time.sleep(0.03)
        self.night()
        self.gone = sorted(self.then)[1]
        folder = self.nights.repository / self.gone
        shutil.rmtree(folder)
        folder.write_bytes(*self.DAMAGED)

    def require_done(self) -> None:
        super().require_done()
        require_same(self.then[self.gone], self.seen(self.nights.repository / self.gone))

    def _require_sound_names(self) -> None:
        """The others are as they were, and of the one that is gone nothing is wrong."""
        for folder in [*self.nights.folders(), self.nights.current]:
            then = self.then.get(folder.name, self.then[max(self.then)])
            if folder.name != self.gone:
                require_same(self._settled(then), self._settled(self.seen(folder)))
            elif folder.is_dir():
                for path, node in self.seen(folder).items():
                    found = (node.format, node.content)
                    assert found == (then[path].format, then[path].content), path


class GoneFolderThenBackup(GoneFolder, RepairThenBackup):
    """The same, after which a night comes first."""


class GoneFolderRecovery(AfterCut, GoneFolder):
    """The repair after one that was cut, itself cut."""

    def first(self) -> object:
        return self.run()


class LargeRepair(Large):
    """Mending a reverse delta, and the large file that it is over."""

    alters_source = True

    def prepare(self) -> None:
        super().prepare()
        source = self.nights.source
        shutil.copy2(source / "d/pages", source / "twin")
        self.night()
        self._change(4)
        self.night()
        old = self.nights.folders()[-1]
        for path in (old / "d/pages.rdiff.zst", self.nights.current / "d/pages"):
            overwrite(path, b"damaged", at=100)
        self.nights.mark()

    def run(self) -> None:
        self.nights.repair()

    def require_done(self) -> None:
        assert self.nights.marked() == [] and self.nights.problems() == []

    def recover(self) -> None:
        self.run()

    def after(self) -> None:
        assert self.nights.repair().left == 0
        assert self.nights.marked() == []
        self._change(5)
        self.nights.now += timedelta(hours=1)
        self.backup()
        self._require_all(self.seen(self.nights.source))


class Restore(Scenario):
    """A restore over files that someone has changed, on the drive."""

    @property
    def target(self) -> Path:
        """Where to."""
        return self.place / "target"

    def prepare(self) -> None:
        fill(self.nights.source)
        self.night()
        target = self.target
        target.mkdir()
        (target / "small").write_text("precious")
        (target / "mine").write_text("mine")

    def run(self) -> int | None:
        self.nights.restore(self.target)
        return 0

    def require_done(self) -> None:
        self._require_restored(self.target)

    def recover(self) -> None:
        self.run()

    def after(self) -> None:
        target = self.target
        assert (target / "mine").read_text() == "mine"
        found = [path.read_text() for path in target.glob("small*")]
        assert "precious" in found
        for path in target.rglob("*"):
            # Until all is synced a power cut may leave what is no file of anybody's yet.
            if path.is_file() and path.name == "large" and not self.lenient:
                assert path.read_bytes() == (self.nights.source / "large").read_bytes()
        self.run()
        unfinished = [p for p in target.rglob(".mirrorback-*") if p.is_symlink() or p.is_file()]
        assert unfinished == []
        self._require_restored(target)

    def _require_restored(self, target: Path) -> None:
        wanted = self.seen(self.nights.source)
        left = {p: n for p, n in self.seen(target).items() if p in wanted and p}
        assert set(left) == set(wanted) - {b""}
        for path, node in left.items():
            assert node == wanted[path], path


class RestoreElsewhere(Restore):
    """The same on another disk, which is not cut."""

    @property
    def target(self) -> Path:
        """Where to."""
        return self.top / "target"
