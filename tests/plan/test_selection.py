"""Which entries of the source are backed up."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirrorback.errors import UsageError
from mirrorback.plan.selection import Selection, is_cache_tag, read_patterns

if TYPE_CHECKING:
    from pyfakefs.fake_filesystem import FakeFilesystem

TAG = b"Signature: 8a477f597d28d172789f06886806bc55"


def writable(name: bytes) -> bool:
    """Whether a line of a file of patterns can name it to the end: of white space only
    the space survives there."""
    spaces = [char for char in os.fsdecode(name) if char.isspace() and char != " "]
    return not spaces and not set(name) & set(b"/\0") and name not in (b".", b"..")


NAME = st.binary(min_size=1, max_size=6).filter(writable)
PATH = st.lists(NAME, min_size=1, max_size=4).map(b"/".join)


def excluded(patterns: list[str], path: bytes) -> bool:
    """Whether an entry is left out, or a folder above it; a slash at the end is a folder."""
    selection = Selection(patterns)
    names = path.rstrip(b"/").split(b"/")
    folders = [b"/".join(names[:count]) for count in range(1, len(names))]
    return any(selection.excludes(folder, True, 0, False) for folder in folders) or (
        selection.excludes(b"/".join(names), path.endswith(b"/"), 0, not path.endswith(b"/"))
    )


def quoted(path: bytes) -> str:
    """A pattern of which every character stands for itself."""
    return "".join(c if c == "/" else "\\" + c for c in os.fsdecode(path))


@pytest.mark.parametrize(
    ("patterns", "path", "out"),
    [
        # Without a slash inside: at any depth.
        (["a"], b"a", True),
        (["a"], b"a/", True),
        (["a"], b"x/y/a", True),
        (["a"], b"ab", False),
        (["a"], b"ba", False),
        (["a"], b"A", False),
        (["*.tmp"], b"a.tmp", True),
        (["*.tmp"], b"x/.tmp", True),
        (["*.tmp"], b"a.tmp/", True),
        (["*.tmp"], b"a.tmp.txt", False),
        (["a?c"], b"abc", True),
        (["a?c"], b"a/c", False),
        (["[ab]x"], b"bx", True),
        (["[!ab]x"], b"bx", False),
        (["[!ab]x"], b"cx", True),
        (["[a-c]x"], b"bx", True),
        (["a.b"], b"axb", False),
        (["..."], b"...", True),
        (["*"], b"a", True),
        (["*"], b"x/", True),
        # With one: from the source on.
        (["/a"], b"a", True),
        (["/a"], b"x/a", False),
        (["a/b"], b"a/b", True),
        (["a/b"], b"x/a/b", False),
        (["/a/*"], b"a/b", True),
        (["/*"], b"a", True),
        (["a/*/c"], b"a/b/c", True),
        (["a/*/c"], b"a/b/x/c", False),
        (["a/*/c"], b"a/c", False),
        # Two stars.
        (["**/a"], b"a", True),
        (["**/a"], b"x/y/a", True),
        (["**/a/b"], b"x/a/b", True),
        (["a/**/b"], b"a/b", True),
        (["a/**/b"], b"a/x/y/b", True),
        (["a/**/b"], b"x/a/b", False),
        (["a/**"], b"a/b", True),
        (["a/**"], b"a/x/y", True),
        (["a/**"], b"x/a/b", False),
        (["a**b"], b"axxb", True),
        # A slash at the end: directories only.
        (["a/"], b"a/", True),
        (["a/"], b"a", False),
        (["a/"], b"x/a/", True),
        (["a/"], b"x/a", False),
        (["/a/"], b"a/", True),
        (["/a/"], b"x/a/", False),
        (["a/b/"], b"a/b/", True),
        (["a/b/"], b"a/b", False),
        (["*/"], b"x/", True),
        (["*/"], b"x", False),
        # The last that matches decides.
        (["a", "!a"], b"a", False),
        (["!a", "a"], b"a", True),
        (["*.log", "!keep.log"], b"x.log", True),
        (["*.log", "!keep.log"], b"keep.log", False),
        (["*.log", "!keep.log"], b"x/keep.log", False),
        (["*.log", "!/keep.log"], b"x/keep.log", True),
        (["*.log", "!keep.log", "keep.*"], b"keep.log", True),
        (["!a"], b"a", False),
        (["!a"], b"b", False),
        (["/*", "!/a"], b"a/", False),
        # What is brought back is only what the pattern itself means.
        (["*", "!*/", "!*.txt"], b"d/", False),
        (["*", "!*/", "!*.txt"], b"d/a.txt", False),
        (["*", "!*/", "!*.txt"], b"d/a.doc", True),
        (["a/**", "!a/keep"], b"a/", False),
        (["a/**", "!a/keep"], b"a/keep", False),
        (["a/**", "!a/keep"], b"a/b/keep", True),
        (["**/a/**"], b"b/a/", False),
        (["**/a/**"], b"b/a/c", True),
        (["foo"], b"foo\n", False),
        (["foo"], b"a\nb/foo", True),
        (["*.tmp"], b"x.tmp\n", False),
        (["[[:alpha:]]x"], b"ax", True),
        (["[[:alpha:]]x"], b"1x", False),
        (["a**b"], b"axxb", True),
        (["a**b"], b"a/b", False),
        (["/*", "!/a"], b"b/", True),
        (["/*", "!/a"], b"a/b", False),
        (["a/*", "!a/keep"], b"a/", False),
        (["a/*", "!a/keep"], b"a/keep", False),
        (["a/*", "!a/keep"], b"a/lose", True),
        (["a/", "!a"], b"a/", False),
        (["*.d", "!keep.d/"], b"keep.d/", False),
        (["*.d", "!keep.d/"], b"keep.d", True),
        (["*.d", "!keep.d/"], b"x.d/", True),
        # What has to be quoted.
        (["\\#a"], b"#a", True),
        (["\\!a"], b"!a", True),
        (["a\\*"], b"a*", True),
        (["a\\*"], b"ab", False),
        (["a\\?"], b"ab", False),
        (["a\\[b]"], b"a[b]", True),
        (["a\\\\b"], b"a\\b", True),
        (["a\\ "], b"a ", True),
        (["a\\ "], b"a", False),
        (["a "], b"a", True),
        (["a b"], b"a b", True),
        ([" a"], b" a", True),
        ([" a"], b"a", False),
        # Nothing at all.
        ([], b"a", False),
        ([""], b"a", False),
        (["# a"], b"# a", False),
        (["#a"], b"#a", False),
        (["/"], b"a/", False),
    ],
)
def test_patterns_are_those_of_gitignore(patterns: list[str], path: bytes, out: bool) -> None:
    assert excluded(patterns, path) is out


@pytest.mark.parametrize(
    ("patterns", "path", "out"),
    [
        (["*"], b"\xff", True),
        (["?"], b"\xff", True),
        (["??"], b"\xff", False),
        (["*.tmp"], b"\xff\xfe.tmp", True),
        (["a"], b"\xff/a", True),
        (["/*/a"], b"\xff/a", True),
        (["\udcff"], b"\xff", True),
        (["\udcff"], b"\xfe", False),
        (["\u00ff"], b"\xff", False),
        (["\u00ff"], "\u00ff".encode(), True),
        (["\udcff/"], b"x/\xff/", True),
        (["*", "!\udcff"], b"\xff", False),
        (["gr\u00fc*"], "grüße".encode(), True),
        (["?"], "ü".encode(), True),
        (["a\\\\b"], b"a/b", False),
    ],
)
def test_names_that_are_no_text_are_matched_all_the_same(
    patterns: list[str], path: bytes, out: bool
) -> None:
    assert excluded(patterns, path) is out


@pytest.mark.parametrize("pattern", ["!", "a\\", "x/a\\"])
def test_a_pattern_that_does_not_parse_is_a_usage_error(pattern: str) -> None:
    with pytest.raises(UsageError) as caught:
        Selection(["*.tmp", pattern, "a"])
    assert repr(pattern) in str(caught.value)


@given(PATH, PATH)
def test_a_quoted_path_leaves_out_itself_and_what_is_below(one: bytes, other: bytes) -> None:
    pattern = "/" + quoted(one)
    assert excluded([pattern], one)
    assert excluded([pattern], one + b"/")
    assert excluded([pattern], one + b"/" + other)
    assert excluded([pattern], other) is (other + b"/").startswith(one + b"/")
    assert excluded([pattern + "/"], one) is False


@given(NAME, PATH)
def test_a_quoted_name_is_left_out_in_every_folder(name: bytes, folder: bytes) -> None:
    pattern = quoted(name)
    assert excluded([pattern], name)
    assert excluded([pattern], folder + b"/" + name)
    assert excluded([pattern, "!" + pattern], folder + b"/" + name) is False
    assert excluded([pattern + "/"], name) is False
    assert excluded([pattern + "/"], name + b"/")


@pytest.mark.parametrize(
    ("limit", "size", "is_file", "out"),
    [
        (100, 100, True, False),
        (100, 101, True, True),
        (100, 101, False, False),
        (0, 0, True, False),
        (0, 1, True, True),
        (None, 2**62, True, False),
    ],
)
def test_files_larger_than_the_limit_are_left_out(
    limit: int | None, size: int, is_file: bool, out: bool
) -> None:
    selection = Selection(larger_than=limit)
    assert selection.excludes(b"a", not is_file, size, is_file) is out


def test_a_pattern_cannot_bring_back_what_is_too_large() -> None:
    selection = Selection(["!a"], larger_than=10)
    assert selection.excludes(b"a", False, 11, True) is True
    assert selection.excludes(b"a", False, 10, True) is False


@pytest.mark.parametrize(
    ("selection", "everything"),
    [
        (Selection(), True),
        (Selection([]), True),
        (Selection(["a"]), False),
        (Selection(larger_than=0), False),
        (Selection(if_present=[b".nobackup"]), False),
        (Selection(caches=True), False),
    ],
)
def test_whether_nothing_is_ever_left_out(selection: Selection, everything: bool) -> None:
    assert selection.everything is everything


@pytest.mark.parametrize(
    ("if_present", "caches", "markers"),
    [
        ([], False, set()),
        ([], True, {b"CACHEDIR.TAG"}),
        ([b".nobackup", b"\xff"], False, {b".nobackup", b"\xff"}),
        ([b".nobackup"], True, {b".nobackup", b"CACHEDIR.TAG"}),
        ([b"CACHEDIR.TAG"], False, {b"CACHEDIR.TAG"}),
    ],
)
def test_which_names_may_leave_out_their_folder(
    if_present: list[bytes], caches: bool, markers: set[bytes]
) -> None:
    selection = Selection(if_present=if_present, caches=caches)
    assert selection.marker_names() == markers
    assert selection.caches is caches


@pytest.mark.parametrize(
    ("head", "valid"),
    [
        (TAG, True),
        (TAG + b"\n# made by a cache\n", True),
        (TAG + b"0", True),
        (TAG[:-1], False),
        (b"", False),
        (b"\n" + TAG, False),
        (TAG.lower(), False),
        (TAG[:-1] + b"6", False),
    ],
)
def test_a_cache_tag_is_known_by_its_first_43_bytes(head: bytes, valid: bool) -> None:
    assert is_cache_tag(head) is valid


@pytest.mark.parametrize(
    ("text", "patterns"),
    [
        ("", []),
        ("\n\n", []),
        ("a", ["a"]),
        ("a\n", ["a"]),
        ("a\r\n/b/\r\n", ["a", "/b/"]),
        ("# of old\na\n#b\n", ["a"]),
        (" \t\na\n   \n", ["a"]),
        ("\\#a\n!b\n", ["\\#a", "!b"]),
        (" # a\n", [" # a"]),
        ("a\\ \n", ["a\\ "]),
        ("a\x0cb\u2028c\x85d\n", ["a\x0cb\u2028c\x85d"]),
        ("\udcff\n", ["\udcff"]),
    ],
)
def test_the_patterns_in_a_file_are_its_lines(text: str, patterns: list[str]) -> None:
    assert read_patterns(text) == patterns


def test_a_file_of_patterns_leaves_out_what_it_lists(fs: FakeFilesystem) -> None:
    fs.create_file("/patterns", contents=b"# caches\n*.tmp\n!keep.tmp\n\n/gone\xff/\n")
    with open("/patterns", encoding="utf-8", errors="surrogateescape") as file:
        selection = Selection(read_patterns(file.read()))
    assert selection.excludes(b"x/a.tmp", False, 0, True) is True
    assert selection.excludes(b"x/keep.tmp", False, 0, True) is False
    assert selection.excludes(b"gone\xff", True, 0, False) is True
    assert selection.excludes(b"gone\xff", False, 0, True) is False
    assert selection.excludes(b"# caches", False, 0, True) is False
