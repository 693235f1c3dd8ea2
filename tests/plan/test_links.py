"""Which object each source inode is shown by, when hard links come and go."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirrorback.plan.links import Group, Member, assign

A, B, C = (1, 100), (1, 200), (1, 300)  # source inodes


def member(
    number: int,
    inode: tuple[int, int],
    candidate: int | None = None,
    own: bool = False,
    lineage: int | None = None,
    before: Iterable[int] = (),
) -> Member:
    """One name of a source inode."""
    return Member(number, inode, candidate, own, lineage, frozenset(before))


def given_to(groups: list[Group]) -> dict[tuple[int, int], int | None]:
    """The object of each inode."""
    return {group.members[0].inode: group.object for group in groups}


@pytest.mark.parametrize(
    ("members", "held", "objects"),
    [
        ([], {}, {}),
        ([member(1, A)], {}, {A: None}),
        ([member(1, A, 7)], {}, {A: 7}),
        ([member(1, A, 7, own=True)], {}, {A: 7}),
        # All names of an inode get what one of them can go on with.
        ([member(1, A), member(2, A, 7)], {}, {A: 7}),
        ([member(1, A, 7), member(2, A, 7)], {}, {A: 7}),
        ([member(1, A, 8), member(2, A, 7)], {}, {A: 8}),
        ([member(1, A, 8), member(2, A, 7, own=True)], {}, {A: 7}),
        # Two names that were one file are now two.
        ([member(1, A, 7), member(2, B, 7)], {}, {A: 7, B: None}),
        ([member(1, A, 7), member(2, B, 7, own=True)], {}, {A: None, B: 7}),
        ([member(1, A, 7, own=True), member(2, B, 7)], {}, {A: 7, B: None}),
        ([member(1, A, 7), member(2, B, 7), member(3, C, 8)], {}, {A: 7, B: None, C: 8}),
        # The loser has another name to go on from.
        ([member(1, A, 7), member(2, B, 7), member(3, B, 8)], {}, {A: 7, B: 8}),
        (
            [member(1, A, 7), member(2, A, 8), member(3, B, 7, own=True)],
            {},
            {A: 8, B: 7},
        ),
        # An inode takes its own, and leaves the other to who else asks.
        (
            [member(1, A, 7), member(2, A, 8, own=True), member(3, B, 7)],
            {},
            {A: 8, B: 7},
        ),
        # Two objects that were each other's.
        (
            [member(1, A, 8), member(2, B, 7), member(3, A, 7, own=True), member(4, B, 8, True)],
            {},
            {A: 7, B: 8},
        ),
        # An unchanged name goes on showing the object.
        ([member(1, A, 7)], {7: 200}, {A: None}),
        ([member(1, B, 7)], {7: 200}, {B: 7}),
        ([member(1, B, 7, own=True)], {7: 200}, {B: 7}),
        ([member(1, A, 7), member(2, B, 7)], {7: 200}, {A: None, B: 7}),
        ([member(1, A, 7, own=True), member(2, A, 8)], {7: 200}, {A: 8}),
        ([member(1, A, 7)], {8: 200}, {A: 7}),
        # Inode numbers repeat from one device to the next.
        ([member(1, (1, 5), 7), member(2, (2, 5), 7)], {}, {(1, 5): 7, (2, 5): None}),
        ([member(1, (1, 5)), member(2, (2, 5), 7)], {}, {(1, 5): None, (2, 5): 7}),
    ],
)
def test_which_object_each_inode_goes_on_with(
    members: list[Member], held: dict[int, int], objects: dict[tuple[int, int], int | None]
) -> None:
    assert given_to(assign(members, held)) == objects


def test_a_group_has_all_names_of_its_inode_in_order() -> None:
    one, two, three, four = member(4, A), member(3, B), member(2, A, 7), member(1, B)
    assert assign(iter([one, two, three, four]), {}) == [
        Group((one, three), 7),
        Group((two, four), None),
    ]


@pytest.mark.parametrize(
    ("members", "leader"),
    [
        ([member(1, A)], 1),
        ([member(2, A), member(1, A)], 1),
        ([member(1, A), member(2, A, 7)], 2),
        ([member(3, A, 7), member(1, A), member(2, A, 8)], 2),
    ],
)
def test_the_leader_is_the_first_name_whose_bytes_are_there(
    members: list[Member], leader: int
) -> None:
    assert Group(tuple(members), None).leader.id == leader


@pytest.mark.parametrize(
    ("members", "others", "relinked"),
    [
        # One name as before, and one that was linked to a second.
        ([member(1, A, lineage=10, before=[10])], [], []),
        ([member(1, A, lineage=10, before=[10, 11])], [], [1]),
        # Two that stay together, that come together, that lose a third.
        (
            [member(1, A, lineage=10, before=[10, 11]), member(2, A, lineage=11, before=[10, 11])],
            [],
            [],
        ),
        (
            [member(1, A, lineage=10, before=[10]), member(2, A, lineage=11, before=[11])],
            [],
            [1, 2],
        ),
        (
            [
                member(1, A, lineage=10, before=[10, 11, 12]),
                member(2, A, lineage=11, before=[10, 11, 12]),
            ],
            [],
            [1, 2],
        ),
        # The third has not changed and is still there.
        (
            [
                member(1, A, lineage=10, before=[10, 11, 12]),
                member(2, A, lineage=11, before=[10, 11, 12]),
            ],
            [12],
            [],
        ),
        ([member(1, A, lineage=10, before=[10])], [12], [1]),
        ([member(1, A, lineage=10, before=[10, 12])], [12], []),
        # A new name is a stranger to all, and is itself new, not linked anew.
        ([member(1, A)], [], []),
        ([member(1, A), member(2, A)], [10], []),
        ([member(1, A, lineage=10, before=[10]), member(2, A)], [], [1]),
        ([member(1, A, lineage=10, before=[10, 11]), member(2, A)], [11], [1]),
        # As many as before, but not the same.
        ([member(1, A, lineage=10, before=[10, 11])], [12], [1]),
    ],
)
def test_who_is_linked_to_others_than_before(
    members: list[Member], others: list[int], relinked: list[int]
) -> None:
    found = Group(tuple(members), None).relinked(frozenset(others))
    assert [one.id for one in found] == relinked


@st.composite
def situations(draw: st.DrawFn) -> tuple[list[Member], dict[int, int]]:
    """Names of a few inodes that want a few objects, each of one former inode."""
    inodes = [(1, number) for number in range(1, 5)]
    former = {number: draw(st.integers(1, 5)) for number in range(101, 106)}
    wanted = draw(
        st.lists(st.tuples(st.sampled_from(inodes), st.sampled_from([None, *former])), max_size=12)
    )
    members = [
        member(i, inode, candidate, candidate is not None and former[candidate] == inode[1], i)
        for i, (inode, candidate) in enumerate(wanted)
    ]
    held = draw(st.sets(st.sampled_from(sorted(former))))
    return members, {number: former[number] for number in held}


@given(situations())
def test_two_names_share_an_object_exactly_when_they_share_an_inode(
    situation: tuple[list[Member], dict[int, int]],
) -> None:
    members, held = situation
    groups = assign(members, held)
    shown = {
        one.id: ("old", group.object) if group.object is not None else ("new", group.leader.id)
        for group in groups
        for one in group.members
    }
    assert shown.keys() == {one.id for one in members}
    for one in members:
        for other in members:
            assert (shown[one.id] == shown[other.id]) is (one.inode == other.inode)


@given(situations())
def test_an_object_that_an_unchanged_name_shows_goes_to_no_other_inode(
    situation: tuple[list[Member], dict[int, int]],
) -> None:
    members, held = situation
    for inode, number in given_to(assign(members, held)).items():
        assert number is None or held.get(number, inode[1]) == inode[1]


@given(situations())
def test_an_inode_gets_only_what_one_of_its_names_has_and_its_own_first(
    situation: tuple[list[Member], dict[int, int]],
) -> None:
    members, held = situation
    for group in assign(members, held):
        has = {one.candidate for one in group.members} - {None}
        assert group.object is None or group.object in has
        own = {one.candidate for one in group.members if one.own}
        if own:
            assert group.object in own


@given(situations())
def test_nobody_goes_without_while_a_wanted_object_is_free(
    situation: tuple[list[Member], dict[int, int]],
) -> None:
    members, held = situation
    objects = given_to(assign(members, held))
    for one in members:
        if one.candidate is not None and objects[one.inode] is None:
            held_by_another = held.get(one.candidate, one.inode[1]) != one.inode[1]
            assert held_by_another or one.candidate in objects.values()
