"""What a drive may have left of metadata."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mirrorback.model import Kind, Metadata, Owner
from mirrorback.plan.holding import may_hold

SOURCE = Metadata(Kind.FILE, 0o644, Owner(5, 6), 1_700_000_000_123_456_789, size=3)


@pytest.mark.parametrize("grain", [1, 100, 1_000, 1_000_000_000, 2_000_000_000])
def test_times_are_rounded_down(grain: int) -> None:
    held = replace(SOURCE, mtime=SOURCE.mtime - SOURCE.mtime % grain)
    assert may_hold(held, SOURCE, root=True)


def test_another_time_is_another_time() -> None:
    assert not may_hold(replace(SOURCE, mtime=SOURCE.mtime + 1), SOURCE, root=False)
    assert not may_hold(replace(SOURCE, mtime=SOURCE.mtime - 5), SOURCE, root=False)


def test_flags_and_birth_are_never_held() -> None:
    assert may_hold(SOURCE, replace(SOURCE, flags=64, btime=7), root=True)


def test_root_gives_everything_else() -> None:
    for other in (
        replace(SOURCE, mode=0o600),
        replace(SOURCE, owner=Owner(5, 7)),
        replace(SOURCE, xattrs=((b"user.a", b"1"),)),
    ):
        assert not may_hold(other, SOURCE, root=True)


def test_another_user_cannot_give_files_away() -> None:
    wanted = replace(SOURCE, mode=0o4755)
    held = replace(SOURCE, mode=0o755, owner=Owner(1000, 1000))
    assert may_hold(held, wanted, root=False)
    assert not may_hold(replace(held, owner=wanted.owner), wanted, root=False)
    assert not may_hold(replace(held, mode=0o700), wanted, root=False)


def test_folders_stay_open_for_another_user() -> None:
    wanted = replace(SOURCE, kind=Kind.DIRECTORY, size=0, mode=0o555)
    assert may_hold(replace(wanted, mode=0o755), wanted, root=False)
    assert not may_hold(replace(wanted, mode=0o755), wanted, root=True)


def test_only_some_attributes_may_be_missing() -> None:
    wanted = replace(SOURCE, xattrs=((b"security.capability", b"1"), (b"user.a", b"1")))
    assert may_hold(replace(wanted, xattrs=((b"user.a", b"1"),)), wanted, root=False)
    assert not may_hold(replace(wanted, xattrs=()), wanted, root=False)
    assert not may_hold(replace(wanted, xattrs=((b"user.b", b"1"),)), SOURCE, root=False)


@pytest.mark.parametrize(
    "other",
    [{"size": 4}, {"kind": Kind.FIFO}, {"rdev": 1}, {"target": b"x"}],
)
def test_what_it_is_must_be_the_same(other: dict[str, object]) -> None:
    assert not may_hold(replace(SOURCE, **other), SOURCE, root=False)  # type: ignore[arg-type]
