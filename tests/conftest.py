"""Fixtures: a source, a drive, and nights between them."""

from __future__ import annotations

import contextlib
import itertools
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from filesystems import mounted, require_root
from hypothesis import settings
from runs import IMAGE, LargeNights, Nights

_numbers = itertools.count()
settings.register_profile("calm", deadline=None)  # machines are noisy
settings.load_profile("calm")


@pytest.fixture(autouse=True)
def nothing_outside(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whoever runs the tests finds nothing of them in their own diary, and on a desktop is not
    told of their failures."""
    diary = tmp_path_factory.getbasetemp() / f"diary-{next(_numbers)}"
    monkeypatch.setenv("MIRRORBACK_STATE_DIR", str(diary))
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", "unix:path=/nonexistent")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """An empty folder to back up."""
    folder = tmp_path / "source"
    folder.mkdir()
    return folder


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Where a repository may be made."""
    return tmp_path / "drive"


@pytest.fixture
def nights(source: Path, repository: Path) -> Nights:
    """Backups of `source` in `repository`."""
    return Nights(source, repository)


@pytest.fixture
def large(source: Path, repository: Path) -> LargeNights:
    """The same, where files are large from 256 KiB on, and a drive without reflinks."""
    return LargeNights(source, repository)


@pytest.fixture
def image(source: Path) -> Path:
    """A large file in the source."""
    path = source / "d" / "image"
    path.parent.mkdir()
    path.write_bytes(random.Random(1).randbytes(IMAGE))
    return path


@pytest.fixture(scope="session")
def mount(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Path]]:
    """A folder of its own on a mounted file system of the kind asked for; each is
    mounted once."""
    points: dict[str, Path] = {}
    with contextlib.ExitStack() as stack:

        def folder(kind: str) -> Path:
            require_root()
            if kind not in points:
                base = tmp_path_factory.mktemp("mounts")
                points[kind] = stack.enter_context(mounted(kind, base))
            place = points[kind] / f"test-{next(_numbers)}"
            place.mkdir()
            return place

        yield folder


@pytest.fixture
def ext4(mount: Callable[[str], Path]) -> Path:
    """A folder on an ext4 with large attributes."""
    return mount("ext4")
