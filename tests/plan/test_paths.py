"""What a path that a person typed can mean in history."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirrorback.errors import UsageError
from mirrorback.plan.paths import Candidate, interpret, normalise, require_agreement

SOURCE = b"/home/alice"
REPOSITORY = b"/media/drive/Backup"
NAMES = frozenset({"2026-11-22-020000", "2026-11-22-020000-2"})
ELSEWHERE = b"/tmp"

NAME = st.binary(min_size=1, max_size=4).filter(
    lambda name: b"/" not in name and b"\0" not in name and name not in (b".", b"..")
)
PATH = st.lists(NAME, min_size=1, max_size=4).map(b"/".join)


def readings(path: bytes, cwd: bytes = ELSEWHERE) -> list[tuple[bytes, str | None]]:
    """The readings of what was typed, likeliest first."""
    found = interpret(path, source=SOURCE, repository=REPOSITORY, names=NAMES, cwd=cwd)
    return [(candidate.path, candidate.snapshot) for candidate in found]


@pytest.mark.parametrize(
    ("path", "plain"),
    [
        (b"", b""),
        (b".", b""),
        (b"/", b""),
        (b"//", b""),
        (b"./", b""),
        (b"a", b"a"),
        (b"/a/", b"a"),
        (b"a//b///c/", b"a/b/c"),
        (b"./a/./b/.", b"a/b"),
        (b"a/../b", b"b"),
        (b"a/b/../../c", b"c"),
        (b"a/..", b""),
        (b"...", b"..."),
        (b"a/.../b", b"a/.../b"),
        (b"..a/b..", b"..a/b.."),
        (b".hidden", b".hidden"),
        (b" / ", b" / "),
        (b"a\nb/\xff\\c", b"a\nb/\xff\\c"),
    ],
)
def test_a_path_is_made_plain(path: bytes, plain: bytes) -> None:
    assert normalise(path) == plain


@pytest.mark.parametrize("path", [b"..", b"/..", b"a/../..", b"../a", b"a/b/../../../a/b"])
def test_a_path_that_leads_out_is_a_usage_error(path: bytes) -> None:
    with pytest.raises(UsageError, match="leads out of the source"):
        normalise(path)


@pytest.mark.parametrize("path", [b"\0", b"a\0b", b"a/\0/..", b"/\0"])
def test_a_path_with_a_nul_is_a_usage_error(path: bytes) -> None:
    with pytest.raises(UsageError, match="NUL"):
        normalise(path)
    with pytest.raises(UsageError, match="NUL"):
        readings(path)


@given(PATH)
def test_a_plain_path_stays_as_it_is(path: bytes) -> None:
    assert normalise(path) == path
    assert normalise(b"/" + path + b"/") == path
    assert normalise(b"./" + path.replace(b"/", b"/.//")) == path


@given(PATH, NAME)
def test_dot_dot_takes_one_name_back(path: bytes, name: bytes) -> None:
    assert normalise(path + b"/" + name + b"/..") == path


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (b".", [(b"", None)]),
        (b"a/b", [(b"a/b", None)]),
        (b"a/../b/", [(b"b", None)]),
        (b"\xff\n", [(b"\xff\n", None)]),
        (b"current", [(b"current", None), (b"", "latest")]),
        (b"current/a", [(b"current/a", None), (b"a", "latest")]),
        (b"current.txt", [(b"current.txt", None)]),
        (b"Current/a", [(b"Current/a", None)]),
        (
            b"2026-11-22-020000/a/b",
            [(b"2026-11-22-020000/a/b", None), (b"a/b", "2026-11-22-020000")],
        ),
        (
            b"2026-11-22-020000-2",
            [(b"2026-11-22-020000-2", None), (b"", "2026-11-22-020000-2")],
        ),
        (b"2026-11-22-020001/a", [(b"2026-11-22-020001/a", None)]),
        (b"2026-11-22-02000\xff/a", [(b"2026-11-22-02000\xff/a", None)]),
        (b"a/current/b", [(b"a/current/b", None)]),
    ],
)
def test_a_relative_path_is_of_the_source_or_of_a_folder(
    path: bytes, found: list[tuple[bytes, str | None]]
) -> None:
    assert readings(path) == found


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (b"/home/alice", [(b"", None)]),
        (b"/home/alice/", [(b"", None)]),
        (b"/home/alice/a/b", [(b"a/b", None)]),
        (b"//home/./alice/x/../a", [(b"a", None)]),
        (b"/home/alice/current/a", [(b"current/a", None)]),
        (b"/media/drive/Backup/current", [(b"", "latest")]),
        (b"/media/drive/Backup/current/a/b", [(b"a/b", "latest")]),
        (b"/media/drive/Backup/2026-11-22-020000/a", [(b"a", "2026-11-22-020000")]),
        (b"/media/drive/Backup/current/../2026-11-22-020000-2", [(b"", "2026-11-22-020000-2")]),
    ],
)
def test_an_absolute_path_lies_in_the_source_or_in_a_folder(
    path: bytes, found: list[tuple[bytes, str | None]]
) -> None:
    assert readings(path) == found


@pytest.mark.parametrize(
    "path",
    [
        b"/",
        b"/etc",
        b"/home",
        b"/home/alice2",
        b"/home/alic",
        b"/home/alice/..",
        b"/home/ALICE/a",
        b"/media/drive/Backup",
        b"/media/drive/Backup/README.txt",
        b"/media/drive/Backup/.mirrorback/catalog.db",
        b"/media/drive/Backup/2026-11-22-020001/a",
        b"/media/drive/Backup2/current/a",
    ],
)
def test_an_absolute_path_elsewhere_is_a_usage_error(path: bytes) -> None:
    with pytest.raises(UsageError, match="neither in the source nor"):
        readings(path)


@pytest.mark.parametrize(
    ("cwd", "path", "found"),
    [
        (b"/home/alice", b"a", [(b"a", None)]),
        (b"/home/alice/docs", b"a", [(b"a", None), (b"docs/a", None)]),
        (b"/home/alice/docs", b".", [(b"", None), (b"docs", None)]),
        (b"/home/alice/docs", b"../a", [(b"a", None)]),
        (b"/home/alice/docs/deep", b"../../a", [(b"a", None)]),
        (b"/media/drive/Backup", b"a", [(b"a", None)]),
        (b"/media/drive/Backup", b"current/a", [(b"current/a", None), (b"a", "latest")]),
        (b"/media/drive/Backup/current", b"a", [(b"a", None), (b"a", "latest")]),
        (
            b"/media/drive/Backup/2026-11-22-020000/docs",
            b"a",
            [(b"a", None), (b"docs/a", "2026-11-22-020000")],
        ),
        (
            b"/media/drive/Backup/current",
            b"../2026-11-22-020000/a",
            [(b"a", "2026-11-22-020000")],
        ),
        (b"/", b"home/alice/a", [(b"home/alice/a", None), (b"a", None)]),
    ],
)
def test_a_relative_path_may_be_of_where_one_stands(
    cwd: bytes, path: bytes, found: list[tuple[bytes, str | None]]
) -> None:
    assert readings(path, cwd) == found


@pytest.mark.parametrize(
    ("cwd", "path"),
    [
        (b"/tmp", b".."),
        (b"/tmp/deep", b"../a"),
        (b"/home/alice", b"../bob"),
        (b"/media/drive/Backup/current", b".."),
        (b"/media/drive/Backup/current", b"../.mirrorback"),
    ],
)
def test_a_relative_path_that_leads_nowhere_known_is_a_usage_error(cwd: bytes, path: bytes) -> None:
    with pytest.raises(UsageError, match="leads out of the source"):
        readings(path, cwd)


def test_an_empty_path_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match=r"use \. for the whole source"):
        readings(b"")


def test_a_repository_in_the_source_is_read_as_folders_first() -> None:
    found = interpret(
        b"/home/alice/drive/current/a",
        source=SOURCE,
        repository=b"/home/alice/drive",
        names=NAMES,
        cwd=ELSEWHERE,
    )
    assert found == [Candidate(b"a", "latest"), Candidate(b"drive/current/a")]


def test_the_root_can_be_the_source() -> None:
    for path in (b"/etc/hosts", b"etc/hosts"):
        found = interpret(path, source=b"/", repository=REPOSITORY, names=NAMES, cwd=b"/")
        assert found == [Candidate(b"etc/hosts")]
    whole = interpret(b"/", source=b"/", repository=REPOSITORY, names=NAMES, cwd=b"/")
    assert whole == [Candidate(b"")]


@given(PATH)
def test_the_source_and_the_mirror_show_the_same_path(path: bytes) -> None:
    assert readings(SOURCE + b"/" + path) == [(path, None)]
    assert readings(REPOSITORY + b"/current/" + path) == [(path, "latest")]
    for name in NAMES:
        assert readings(REPOSITORY + b"/" + name.encode() + b"/" + path) == [(path, name)]


@given(PATH, st.sampled_from([SOURCE, REPOSITORY + b"/current", ELSEWHERE]))
def test_a_relative_path_is_of_the_source_first_and_no_reading_comes_twice(
    path: bytes, cwd: bytes
) -> None:
    found = readings(path, cwd)
    assert found[0] == (path, None)
    assert len(set(found)) == len(found)


def test_a_path_and_a_time_have_to_agree() -> None:
    require_agreement("2026-11-22-020000", "2026-11-22-020000")
    with pytest.raises(UsageError, match="2026-11-22-020000, --at says 2026-11-23-020000"):
        require_agreement("2026-11-22-020000", "2026-11-23-020000")
