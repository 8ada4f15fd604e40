"""The union-find against a plain one."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ctl_jax.pruning._union_find import FREE, UnionFind, elements, merged

LABELS = st.lists(st.integers(-1, 11), min_size=4, max_size=4).map(np.array)


@given(pairs=st.lists(st.tuples(LABELS, LABELS), max_size=8))
def test_join_agrees_with_sets(pairs):
    channels = UnionFind(12)
    sets = [{i} for i in range(12)]
    for a, b in pairs:
        changed = False
        for x, y in zip(a, b, strict=True):
            if x >= 0 and y >= 0 and sets[x] is not sets[y]:
                changed = True
                sets[x] |= sets[y]
                for i in sets[y]:
                    sets[i] = sets[x]
        assert channels.join(a, b) == changed
    roots = channels.find(np.arange(12))
    np.testing.assert_array_equal(
        roots[:, None] == roots, [[sets[i] is sets[j] for j in range(12)] for i in range(12)]
    )


def test_fixed_positions_freeze_what_they_meet():
    channels = UnionFind(4)
    wall = channels.fixed("wall")
    assert channels.fixed("wall") == wall != channels.fixed("other")
    assert not channels.join(np.array([0, 1, FREE]), np.array([wall, FREE, wall]))
    assert {reason: ids.tolist() for reason, ids in channels.frozen()} == {"wall": [0]}
    assert not channels.join(np.array([2, 3]), FREE)
    channels.join(np.array([2, 3]), wall)
    assert {reason: ids.tolist() for reason, ids in channels.frozen()} == {"wall": [0, 2, 3]}


def test_merged_prefers_elements_then_fixed():
    a, b = np.array([3, FREE, -2, FREE]), np.array([5, 6, FREE, FREE])
    np.testing.assert_array_equal(merged(a, b), [3, 6, -2, FREE])
    assert merged(FREE, -2) == merged(-2, FREE) == -2
    assert merged(FREE, b[:2]) is not None
    np.testing.assert_array_equal(elements(a, FREE, b), [3, 5, 6])
