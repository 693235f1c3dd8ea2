"""What verify finds of the repository's own small files, repair puts right, and nothing else."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from runs import LargeNights, Nights, change_pages


def flip(path: Path, at: int = 40) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 4
    path.write_bytes(data)


def agree(nights: Nights, path: str, origin: str) -> None:
    """Verify says that it can be mended, a dry run how, and after a repair it is."""
    [problem] = nights.problems()
    assert (problem.path, problem.repairable) == (path.encode(), True)
    [dry] = nights.repair(dry_run=True).repairs
    assert [one.path for one in nights.problems()] == [path.encode()]
    result = nights.repair()
    assert result.repairs == [dry]
    assert (dry.path, dry.repaired, dry.origin) == (path.encode(), True, origin)
    assert dry.location == problem.location and result.left == 0
    assert nights.problems() == []
    assert nights.repair().repairs == []


def test_a_damaged_signature_goes_and_is_made_anew(large: LargeNights, image: Path) -> None:
    large.backup()
    [signature] = (large.repository / ".mirrorback/signatures").iterdir()
    whole = signature.read_bytes()
    flip(signature, len(whole) // 2)
    agree(large, f".mirrorback/signatures/{signature.name}", "anew")
    assert not signature.exists()
    assert large.backup().summary.unchanged
    change_pages(image, 3)
    time.sleep(0.03)
    large.backup()
    assert (large.current / "d" / "image").read_bytes() == image.read_bytes()
    assert (large.folders()[0] / "d" / "image.rdiff.zst").exists()
    assert len(list(signature.parent.iterdir())) == 1
    assert large.problems() == []


@pytest.mark.parametrize("harm", ["flipped", "removed", "emptied", "replaced"])
def test_what_is_said_of_the_mirror(nights: Nights, harm: str) -> None:
    (nights.source / "f").write_text("x")
    nights.backup()
    path = nights.repository / ".mirrorback/mirror.toml"
    before = path.read_bytes()
    if harm == "flipped":
        flip(path)
    elif harm == "removed":
        path.unlink()
    else:
        path.write_text("" if harm == "emptied" else "snapshot = 7\n")
    agree(nights, ".mirrorback/mirror.toml", "catalog")
    assert path.read_bytes() == before


def test_a_damaged_seal_is_made_anew(nights: Nights) -> None:
    (nights.source / "f").write_text("x")
    nights.backup()
    seal = nights.repository / ".mirrorback/catalog.blake3"
    flip(seal, 20)
    [problem] = nights.problems()  # which writes what it has read, and seals that
    assert problem.path == b".mirrorback/catalog.blake3" and problem.repairable
    flip(seal, 20)
    [dry] = nights.repair(dry_run=True).repairs
    assert nights.repair().repairs == [dry]
    assert (dry.path, dry.repaired, dry.origin) == (problem.path, True, "catalog")
    assert nights.repair().repairs == []


def test_no_backup_yet_is_no_damage(nights: Nights) -> None:
    nights.backup(allow_empty_source=True)
    assert nights.problems() == []
