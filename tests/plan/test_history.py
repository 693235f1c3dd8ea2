"""Differences between two snapshots, and versions of a path."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirrorback.model import Change, ChangeKind, Digest, Kind, Metadata, Owner
from mirrorback.plan.history import Run, State, changes, unbroken

ADDED, REMOVED = ChangeKind.ADDED, ChangeKind.REMOVED
MODIFIED, METADATA = ChangeKind.MODIFIED, ChangeKind.METADATA
MOVED, RETYPED = ChangeKind.MOVED, ChangeKind.RETYPED
OWNER = Owner(1000, 1000, "alice", "alice")


def file(
    path: bytes, lineage: int, text: bytes = b"text", links: tuple[int, ...] = (), **told: Any
) -> State:
    """A file with some content; `links` are the lineages it is hard-linked to."""
    metadata = Metadata(Kind.FILE, 0o644, OWNER, mtime=5, size=len(text))
    return State(
        path,
        lineage,
        object=lineage,
        metadata=replace(metadata, **told),
        digest=Digest(text.ljust(32, b"\0")),
        others=frozenset({lineage, *links}) if links else frozenset(),
    )


def other(kind: Kind, path: bytes, lineage: int, **told: Any) -> State:
    """An entry without content."""
    metadata = replace(Metadata(kind, 0o755, OWNER, mtime=5), **told)
    return State(path, lineage, object=lineage, metadata=metadata, digest=None)


def folder(path: bytes, lineage: int, **told: Any) -> State:
    """A directory."""
    return other(Kind.DIRECTORY, path, lineage, **told)


def test_nothing_changed_is_nothing() -> None:
    states = [file(b"a", 1), folder(b"d", 2), other(Kind.SYMLINK, b"l", 3, target=b"a")]
    assert changes(states, states) == []
    assert changes([], []) == []


def test_what_came_and_went() -> None:
    olds = [file(b"gone", 1), file(b"stays", 2), folder(b"old", 3)]
    news = [file(b"stays", 2), file(b"new", 4), folder(b"young", 5)]
    assert changes(olds, news) == [
        Change(b"gone", REMOVED),
        Change(b"new", ADDED),
        Change(b"old", REMOVED),
        Change(b"young", ADDED),
    ]


CHANGED_FILES: list[tuple[State, ChangeKind | None]] = [
    (file(b"a", 1), None),
    (file(b"a", 1, b"TEXT"), MODIFIED),
    (file(b"a", 1, b"longer text"), MODIFIED),
    (file(b"a", 1, b"TEXT", mode=0o600), MODIFIED),
    (file(b"a", 1, b"TEXT", links=(9,)), MODIFIED),
    (file(b"a", 1, mode=0o600), METADATA),
    (file(b"a", 1, mtime=6), METADATA),
    (file(b"a", 1, owner=Owner(0, 1000)), METADATA),
    (file(b"a", 1, owner=Owner(1000, 0)), METADATA),
    (file(b"a", 1, owner=Owner(1000, 1000, "bob", None)), None),
    (file(b"a", 1, xattrs=((b"user.a", b"1"),)), METADATA),
    (file(b"a", 1, flags=16), METADATA),
    (file(b"a", 1, btime=7), None),
    (file(b"a", 1, links=(9,)), METADATA),
    (replace(file(b"a", 1), object=99), None),
    (folder(b"a", 1), RETYPED),
    (other(Kind.SYMLINK, b"a", 1, target=b"x"), RETYPED),
    (other(Kind.FIFO, b"a", 1), RETYPED),
    # Another file of that name, which was made anew.
    (file(b"a", 2), None),
    (file(b"a", 2, b"TEXT"), MODIFIED),
    (file(b"a", 2, mtime=6), METADATA),
    (folder(b"a", 2), RETYPED),
]


@pytest.mark.parametrize(("new", "kind"), CHANGED_FILES)
def test_what_a_change_of_a_file_is_called(new: State, kind: ChangeKind | None) -> None:
    old = file(b"a", 1)
    wanted = [] if kind is None else [Change(b"a", kind)]
    assert changes([old], [new]) == wanted
    assert changes([new], [old]) == wanted


@pytest.mark.parametrize(
    ("old", "new", "kind"),
    [
        (folder(b"a", 1), folder(b"a", 1, mtime=6), None),
        (folder(b"a", 1), folder(b"a", 1, mode=0o700), METADATA),
        (folder(b"a", 1), folder(b"a", 1, mode=0o700, mtime=6), METADATA),
        (folder(b"a", 1), folder(b"a", 1, owner=Owner(0, 0)), METADATA),
        (folder(b"a", 1), folder(b"a", 1, xattrs=((b"user.a", b"1"),)), METADATA),
        (
            other(Kind.SYMLINK, b"a", 1, target=b"x"),
            other(Kind.SYMLINK, b"a", 1, target=b"y"),
            MODIFIED,
        ),
        (
            other(Kind.SYMLINK, b"a", 1, target=b"x"),
            other(Kind.SYMLINK, b"a", 1, target=b"x", mtime=6),
            METADATA,
        ),
        (other(Kind.CHAR, b"a", 1, rdev=1), other(Kind.CHAR, b"a", 1, rdev=2), MODIFIED),
        (other(Kind.CHAR, b"a", 1, rdev=1), other(Kind.BLOCK, b"a", 1, rdev=1), RETYPED),
        (other(Kind.FIFO, b"a", 1), other(Kind.FIFO, b"a", 1, mode=0o600), METADATA),
        (other(Kind.FIFO, b"a", 1), other(Kind.SOCKET, b"a", 1), RETYPED),
        (folder(b"", 1), folder(b"", 1, mtime=6), None),
        (folder(b"", 1), folder(b"", 1, mode=0o700), METADATA),
    ],
)
def test_what_a_change_of_another_entry_is_called(
    old: State, new: State, kind: ChangeKind | None
) -> None:
    assert changes([old], [new]) == ([] if kind is None else [Change(new.path, kind)])


def test_digests_of_two_forms_are_two_contents() -> None:
    old = file(b"a", 1)
    assert old.digest is not None
    new = replace(old, digest=Digest(old.digest.value, sparse=True))
    assert changes([old], [new]) == [Change(b"a", MODIFIED)]


def test_a_move_is_one_change_and_no_removal() -> None:
    assert changes([file(b"a", 1)], [file(b"b", 1)]) == [Change(b"b", MOVED, b"a")]


@pytest.mark.parametrize(
    "new",
    [
        file(b"b", 1, b"TEXT"),
        file(b"b", 1, b"TEXT", mode=0o600),
        file(b"b", 1, mtime=6),
        file(b"b", 1, links=(9,)),
    ],
)
def test_what_moved_and_changed_is_moved(new: State) -> None:
    assert changes([file(b"a", 1)], [new]) == [Change(b"b", MOVED, b"a")]


def test_a_swap_is_two_moves() -> None:
    olds = [file(b"a", 1, b"one"), file(b"b", 2, b"two")]
    news = [file(b"a", 2, b"two"), file(b"b", 1, b"one")]
    assert changes(olds, news) == [Change(b"a", MOVED, b"b"), Change(b"b", MOVED, b"a")]


def test_a_swap_of_equal_files_is_two_moves_all_the_same() -> None:
    olds = [file(b"a", 1), file(b"b", 2)]
    news = [file(b"a", 2), file(b"b", 1)]
    assert changes(olds, news) == [Change(b"a", MOVED, b"b"), Change(b"b", MOVED, b"a")]


def test_a_move_onto_another_file_is_no_removal_of_that() -> None:
    olds = [file(b"a", 1, b"one"), file(b"b", 2, b"two")]
    assert changes(olds, [file(b"b", 1, b"one")]) == [Change(b"b", MOVED, b"a")]


@pytest.mark.parametrize(
    ("copy", "left"),
    [
        (file(b"a", 2), []),
        (file(b"a", 2, b"TEXT"), [Change(b"a", MODIFIED)]),
        (file(b"a", 2, mtime=6), [Change(b"a", METADATA)]),
        (folder(b"a", 2), [Change(b"a", RETYPED)]),
    ],
)
def test_what_takes_the_place_of_a_moved_file_is_compared_with_it(
    copy: State, left: list[Change]
) -> None:
    assert changes([file(b"a", 1)], [copy, file(b"b", 1)]) == [*left, Change(b"b", MOVED, b"a")]


def test_every_file_in_a_moved_directory_is_moved() -> None:
    olds = [folder(b"d", 1), file(b"d/a", 2), folder(b"d/e", 3), file(b"d/e/b", 4)]
    news = [folder(b"x", 1, mtime=6), file(b"x/a", 2), folder(b"x/e", 3), file(b"x/e/b", 4)]
    assert changes(olds, news) == [
        Change(b"x", MOVED, b"d"),
        Change(b"x/a", MOVED, b"d/a"),
        Change(b"x/e", MOVED, b"d/e"),
        Change(b"x/e/b", MOVED, b"d/e/b"),
    ]


def test_a_chain_of_moves() -> None:
    olds = [file(b"a", 1), file(b"b", 2), file(b"c", 3)]
    news = [file(b"b", 1), file(b"c", 2), file(b"d", 3)]
    assert changes(olds, news) == [
        Change(b"b", MOVED, b"a"),
        Change(b"c", MOVED, b"b"),
        Change(b"d", MOVED, b"c"),
    ]


def test_names_that_come_together_or_part_are_a_change_of_metadata() -> None:
    apart = [file(b"a", 1), file(b"b", 2)]
    together = [file(b"a", 1, links=(2,)), file(b"b", 2, links=(1,))]
    wanted = [Change(b"a", METADATA), Change(b"b", METADATA)]
    assert changes(apart, together) == wanted
    assert changes(together, apart) == wanted
    assert changes(together, together) == []


def test_a_new_link_is_a_change_of_metadata_of_the_old_name() -> None:
    old = [file(b"a", 1)]
    new = [file(b"a", 1, links=(2,)), file(b"b", 2, links=(1,))]
    assert changes(old, new) == [Change(b"a", METADATA), Change(b"b", ADDED)]
    assert changes(new, old) == [Change(b"a", METADATA), Change(b"b", REMOVED)]


def test_a_name_that_is_linked_to_none_may_say_so_either_way() -> None:
    alone = file(b"a", 1)
    assert changes([alone], [replace(alone, others=frozenset({1}))]) == []


def test_changes_come_by_path_as_bytes() -> None:
    news = [file(path, i) for i, path in enumerate([b"b", b"\xff", b"a/b", b"a", b"a-", b"B"])]
    assert [change.path for change in changes([], news)] == [
        b"B",
        b"a",
        b"a-",
        b"a/b",
        b"b",
        b"\xff",
    ]


@given(st.permutations(range(7)))
def test_any_exchange_of_names_is_as_many_moves(order: list[int]) -> None:
    names = [b"%d" % i for i in range(7)]
    olds = [file(name, i) for i, name in enumerate(names)]
    news = [file(name, origin) for name, origin in zip(names, order, strict=True)]
    assert changes(olds, news) == [
        Change(names[i], MOVED, names[origin]) for i, origin in enumerate(order) if i != origin
    ]


TREES = st.dictionaries(
    st.integers(0, 5),  # lineage
    st.tuples(st.sampled_from([b"a", b"b", b"c", b"d", b"e"]), st.sampled_from([b"x", b"y"])),
    max_size=5,
).filter(lambda tree: len({path for path, _text in tree.values()}) == len(tree))


@given(TREES, TREES)
def test_the_changes_lead_from_one_snapshot_to_the_other(
    old: dict[int, tuple[bytes, bytes]], new: dict[int, tuple[bytes, bytes]]
) -> None:
    olds = [file(path, lineage, text) for lineage, (path, text) in old.items()]
    news = [file(path, lineage, text) for lineage, (path, text) in new.items()]
    before, after = ({state.path: state for state in states} for states in (olds, news))
    found = {change.path: change for change in changes(olds, news)}
    for path in before.keys() | after.keys():
        change = found.pop(path, None)
        origin = old.get(after[path].lineage, (None, b""))[0] if path in after else None
        if origin not in (None, path):
            assert change == Change(path, MOVED, origin)
        elif path not in before:
            assert change == Change(path, ADDED)
        elif path not in after:
            moved_on = before[path].lineage in new
            assert change == (None if moved_on else Change(path, REMOVED))
        elif before[path].digest != after[path].digest:
            assert change == Change(path, MODIFIED)
        else:
            assert change is None
    assert found == {}


# --- versions ------------------------------------------------------------------------

Row = tuple[State, int, int | None, bytes | None]
ONE, TWO = file(b"a", 1, b"one"), file(b"a", 1, b"two")


@pytest.mark.parametrize(
    ("rows", "snapshots", "runs"),
    [
        ([], [1, 2], []),
        ([(ONE, 1, None, None)], [1, 2, 3], [Run(ONE, 1, 3)]),
        ([(ONE, 2, 2, None)], [1, 2, 3], [Run(ONE, 2, 2)]),
        ([(ONE, 1, 1, None), (TWO, 2, None, None)], [1, 2, 3], [Run(ONE, 1, 1), Run(TWO, 2, 3)]),
        # Removed and created again: two, however alike.
        ([(ONE, 1, 1, None), (ONE, 3, None, None)], [1, 2, 3], [Run(ONE, 1, 1), Run(ONE, 3, 3)]),
        # Nothing between them is left that did not have it.
        ([(ONE, 1, 1, None), (ONE, 3, None, None)], [1, 3], [Run(ONE, 1, 3)]),
        ([(ONE, 1, 1, None), (ONE, 2, None, None)], [1, 2], [Run(ONE, 1, 2)]),
        # Changed, and changed back.
        (
            [(ONE, 1, 1, None), (TWO, 2, 2, None), (ONE, 3, None, None)],
            [1, 2, 3],
            [Run(ONE, 1, 1), Run(TWO, 2, 2), Run(ONE, 3, 3)],
        ),
        ([(ONE, 1, 1, None), (TWO, 2, 2, None), (ONE, 3, None, None)], [1, 3], [Run(ONE, 1, 3)]),
        # Cut to the snapshots there are, whose numbers have gaps.
        ([(ONE, 1, 8, None), (TWO, 9, None, None)], [4, 7, 9], [Run(ONE, 4, 7), Run(TWO, 9, 9)]),
        ([(ONE, 1, 3, None)], [4, 7, 9], []),
        ([(ONE, 5, 6, None)], [4, 7, 9], []),
        ([(ONE, 1, 5, None), (TWO, 6, 6, None)], [9, 7, 4], [Run(ONE, 4, 4)]),
        # Moved here, away, and here again.
        ([(ONE, 2, None, b"z")], [1, 2, 3], [Run(ONE, 2, 3, b"z")]),
        (
            [(ONE, 1, 1, None), (ONE, 3, None, b"z")],
            [1, 3],
            [Run(ONE, 1, 1), Run(ONE, 3, 3, b"z")],
        ),
        ([(ONE, 1, 1, b"z"), (ONE, 2, 3, None)], [1, 2, 3], [Run(ONE, 1, 3, b"z")]),
        (
            [(ONE, 1, 1, b"z"), (TWO, 2, None, None)],
            [1, 2],
            [Run(ONE, 1, 1, b"z"), Run(TWO, 2, 2)],
        ),
    ],
)
def test_the_versions_of_a_path(rows: list[Row], snapshots: list[int], runs: list[Run]) -> None:
    assert unbroken(rows, snapshots, max(snapshots)) == runs


@pytest.mark.parametrize(
    ("old", "new", "joined"),
    [
        (folder(b"d", 1), folder(b"d", 1, mtime=6), True),
        (folder(b"d", 1), folder(b"d", 2, mtime=6), True),
        (folder(b"d", 1), folder(b"d", 1, mode=0o700), False),
        (folder(b"d", 1), file(b"d", 2), False),
        (file(b"d", 1), file(b"d", 1, mtime=6), False),
        (file(b"d", 1), file(b"d", 1, mode=0o600), False),
        (file(b"d", 1), file(b"d", 1, btime=6), True),
        (
            other(Kind.SYMLINK, b"d", 1, target=b"x"),
            other(Kind.SYMLINK, b"d", 1, target=b"y"),
            False,
        ),
    ],
)
def test_only_the_time_stamp_of_a_folder_makes_no_version(
    old: State, new: State, joined: bool
) -> None:
    found = unbroken([(old, 1, 1, None), (new, 2, None, None)], [1, 2], 2)
    # The newer state is shown of what was joined.
    assert found == ([Run(new, 1, 2)] if joined else [Run(old, 1, 1), Run(new, 2, 2)])


def test_three_time_stamps_of_a_folder_are_one_version() -> None:
    states = [folder(b"d", 1, mtime=time) for time in (1, 2, 3)]
    rows: list[Row] = [(states[0], 1, 2, None), (states[1], 3, 3, None), (states[2], 4, None, None)]
    assert unbroken(rows, [1, 2, 3, 4], 4) == [Run(states[2], 1, 4)]


@given(
    st.lists(st.sampled_from([None, ONE, TWO]), min_size=1, max_size=9),
    st.lists(st.booleans(), min_size=9, max_size=9),
    st.lists(st.booleans(), min_size=9, max_size=9),
)
def test_versions_are_the_unbroken_runs_of_what_was_shown(
    timeline: list[State | None], splits: list[bool], deleted: list[bool]
) -> None:
    mirror = len(timeline) - 1
    rows: list[Row] = []
    for number, state in enumerate(timeline):
        if state is None:
            continue
        if number and timeline[number - 1] is state and not splits[number]:
            rows[-1] = (state, rows[-1][1], number, None)
        else:
            rows.append((state, number, number, None))
    if rows and rows[-1][2] == mirror:
        rows[-1] = (rows[-1][0], rows[-1][1], None, None)
    kept = [number for number in range(mirror) if not deleted[number]] + [mirror]
    wanted = []
    for state, group in itertools.groupby(kept, key=lambda number: timeline[number]):
        numbers = list(group)
        if state is not None:
            wanted.append(Run(state, numbers[0], numbers[-1]))
    assert unbroken(rows, kept, mirror) == wanted
