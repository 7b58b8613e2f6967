"""A view of a growing list is a list that does not change."""

import random

import pytest

from tenon.util.view import FirstOf


def test_a_view_is_what_the_list_was(seed):
    rng = random.Random(seed)
    items: list[int] = []
    taken = []
    for _ in range(30):
        taken.append((FirstOf(items), items.copy()))
        items += [rng.randrange(100) for _ in range(rng.randrange(4))]
    for view, was in taken:
        assert view == was
        assert was == view
        assert list(view) == was
        assert len(view) == len(was)
        assert repr(view) == repr(was)
        assert (99 in view) == (99 in was)
        assert list(reversed(view)) == was[::-1]
        for _ in range(10):
            part = slice(
                *(rng.choice([None, *range(-50, 50)]) for _ in range(2)), rng.choice([None, 1, 2, -1])
            )
            assert view[part] == was[part]
        for index in range(-len(was) - 2, len(was) + 2):
            if -len(was) <= index < len(was):
                assert view[index] == was[index]
            else:
                with pytest.raises(IndexError):
                    view[index]
    assert FirstOf([1]) == FirstOf([1])
    assert FirstOf([1]) != FirstOf([2])
    assert FirstOf([1]) != (1,)
