"""A run that was cut after its commit, and someone who removes what it has left in `redo/`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from runs import Heard, LargeNights, change_pages
from trees import Tree, describe, require_same

from mirrorback.engine.rebuild import RebuildOptions, rebuild
from mirrorback.errors import Damaged
from mirrorback.store import clearing, supersede


class Cut(Exception):
    """As a kill would."""


def cut_after(monkeypatch: pytest.MonkeyPatch, given: int, act: Callable[[], object]) -> None:
    """A run that ends when so many dated folders have got their new files."""
    left = [given]
    replace = supersede._replace

    def replaced(*arguments: Any) -> None:
        if not left[0]:
            raise Cut
        left[0] -= 1
        replace(*arguments)

    def begun(*_arguments: object, **_more: object) -> None:
        raise Cut

    with monkeypatch.context() as patched:
        patched.setattr(supersede, "_replace", replaced)
        patched.setattr(supersede, "patch", begun)
        patched.setattr(clearing, "clear", begun)
        with pytest.raises(Cut):
            act()


def lose(large: LargeNights) -> None:
    """Someone tidies up."""
    [path] = (large.repository / ".mirrorback/redo").glob("*.undo")
    path.unlink()


def require_exact(large: LargeNights, trees: dict[str, Tree], tmp_path: Path) -> None:
    """Every snapshot is what it was, restored; and nothing is wrong."""
    assert large.problems() == []
    for name, tree in trees.items():
        large.restore(tmp_path / name, at=name)
        require_same(tree, describe(tmp_path / name))


@pytest.mark.parametrize("given", [0, 1, 2])
def test_a_delta_that_is_gone(
    large: LargeNights, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: int
) -> None:
    """Two folders are to show it; every version is still exact, and what comes after it too."""
    trees: dict[str, Tree] = {}
    night(large, trees)
    change_pages(image, 1)
    night(large, trees)
    night(large, trees)
    change_pages(image, 2)
    cut_after(monkeypatch, given, large.backup)
    lose(large)
    change_pages(image, 3)
    night(large, trees)
    require_exact(large, trees, tmp_path)


def night(large: LargeNights, trees: dict[str, Tree]) -> None:
    """A backup, remembered."""
    name = large.backup(always=True).summary.snapshot
    assert name is not None
    trees[name] = describe(large.source)


@pytest.mark.parametrize("given", [0, 1, 2])
@pytest.mark.parametrize("whole", [False, True])
def test_what_a_removal_gives_is_gone(
    large: LargeNights,
    image: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    given: int,
    whole: bool,
) -> None:
    """What depends on the folder that goes is to have a new delta, or to become whole."""
    trees: dict[str, Tree] = {}
    night(large, trees)
    night(large, trees)
    change_pages(image, 1)
    night(large, trees)
    victim = max(trees)
    change_pages(image, 2)
    if whole:
        image.unlink()
    night(large, trees)
    cut_after(monkeypatch, given, lambda: large.delete(victim))
    lose(large)
    (large.source / "other").write_text("other")
    if not given:
        # The removal cannot be gone on with; nothing is lost, and there is a way out.
        for _ in range(2):
            with pytest.raises(Damaged, match="rebuild --force"):
                large.backup()
        rebuild(str(large.repository), RebuildOptions(force=True), large.now, Heard())
    else:
        del trees[victim]
    night(large, trees)
    require_exact(large, trees, tmp_path)
    assert [f.name for f in large.folders()] == sorted(trees)[:-1]


@pytest.mark.parametrize("change", [False, True])
@pytest.mark.parametrize("gone", [False, True])
def test_the_changes_of_the_mirror_are_gone(
    large: LargeNights,
    image: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: bool,
    gone: bool,
) -> None:
    """Or damaged: its file stays as it was; the next night copies it anew, and what was before
    is exact."""
    trees: dict[str, Tree] = {}
    night(large, trees)
    change_pages(image, 1)
    image.write_bytes(image.read_bytes() + b"longer")
    cut_after(monkeypatch, 9, large.backup)
    [path] = (large.repository / ".mirrorback/redo").glob("*.redo")
    if gone:
        path.unlink()
    else:
        path.write_bytes(b"damaged")
    if change:
        change_pages(image, 2)
    large.backup()
    require_same(describe(large.source), describe(large.current))
    first = min(trees)
    large.restore(tmp_path / "first", at=first)
    require_same(trees[first], describe(tmp_path / "first"))
    for problem in large.problems():
        assert first not in problem.snapshots
