"""The same pictures in several places, and classes that train does not have."""

import collections
import pathlib
from collections.abc import Sequence

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from ctl_jax.data import _duplicates
from ctl_jax.data.task import SPLITS
from ctl_jax.errors import UserError


def splits(*rows: list[int]) -> dict[str, np.ndarray]:
    return dict(zip(SPLITS, map(np.asarray, rows), strict=True))


LABELS = splits([0, 1, 0, 1], [0, 1], [0, 1], [0, 1])


@pytest.mark.parametrize(
    ("contents", "labels", "lines"),
    [
        (splits([1, 2, 3, 4], [5, 6], [7, 8], [9, 10]), LABELS, []),
        (
            splits([1, 2, 3, 4], [1, 6], [7, 8], [3, 2]),
            LABELS,
            ["the same files are in two splits: 1 of 2 dev, 2 of 2 test are in train too"],
        ),
        (
            splits([1, 2, 3, 4], [5, 6], [5, 8], [9, 8]),
            LABELS,
            [
                "the same files are in two splits: 1 of 2 dev_test are in dev too",
                "the same files are in two splits: 1 of 2 test are in dev_test too",
            ],
        ),
        (
            splits([1, 2, 1, 1], [5, 6], [7, 8], [9, 10]),
            LABELS,
            ["files repeat others of their split: 2 of train", "several labels: 1"],
        ),
        (
            splits([1, 2, 3, 4], [5, 6], [7, 8], [9, 10]),
            splits([0, 0, 0, 0], [0, 1], [0, 0], [1, 2]),
            [
                "train has no example of 1 classes that dev has, in 1 of 2 examples",
                "train has no example of 2 classes that test has, in 2 of 2 examples",
            ],
        ),
    ],
)
def test_notes(
    contents: dict[str, np.ndarray], labels: dict[str, np.ndarray], lines: list[str]
) -> None:
    found = _duplicates.notes(contents, labels, 3)
    assert len(found) == len(lines)
    for line, part in zip(found, lines, strict=True):
        assert part in line


def test_notes_of_several_labels() -> None:
    contents = splits([1, 2], [1], [3], [4])
    labels = {
        "train": np.asarray([[1, 0, 0], [0, 1, 0]], np.uint8),
        "dev": np.asarray([[1, 1, 0]], np.uint8),
        "dev_test": np.asarray([[0, 1, 1]], np.uint8),
        "test": np.asarray([[0, 0, 0]], np.uint8),
    }
    assert _duplicates.notes(contents, labels, 3) == (
        "the same files are in two splits: 1 of 1 dev are in train too",
        "files that come with several labels: 1",
        "train has no example of 1 classes that dev_test has, in 1 of 1 examples",
    )


@hypothesis.given(
    rows=st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=12), min_size=4, max_size=4)
)
def test_counts(rows: list[list[int]]) -> None:
    """Counted one by one."""
    found = " ".join(_duplicates.notes(splits(*rows), splits(*([0] * len(row) for row in rows)), 1))
    for place, split in enumerate(SPLITS):
        for other in range(place + 1, len(SPLITS)):
            count = sum(picture in rows[place] for picture in rows[other])
            part = f"{count} of {len(rows[other])} {SPLITS[other]}"
            sentences = [s for s in found.split("the same files") if f"are in {split} too" in s]
            assert any(part in sentence for sentence in sentences) == (count > 0)
        surplus = len(rows[place]) - len(set(rows[place]))
        repeated = found.partition("their split: ")[2]
        assert (f"{surplus} of {split}" in repeated.split(", ")) == (surplus > 0)


@hypothesis.given(
    contents=st.lists(
        st.tuples(st.binary(max_size=2), st.sampled_from([0, 5000]), st.binary(max_size=2)),
        max_size=30,
    )
)
def test_numbers_of_files(
    tmp_path_factory: pytest.TempPathFactory, contents: list[tuple[bytes, int, bytes]]
) -> None:
    folder = tmp_path_factory.mktemp("files")
    # Of equal size or not, different at the beginning or at the end.
    files = [first + bytes(between) + last for first, between, last in contents]
    paths = []
    for number, content in enumerate(files):
        paths.append(str(folder / str(number)))
        pathlib.Path(paths[-1]).write_bytes(content)
    found = _duplicates.number_files(paths)
    by_number: dict[int, set[bytes]] = collections.defaultdict(set)
    for number, content in zip(found.tolist(), files, strict=True):
        by_number[number].add(content)
    assert all(len(same) == 1 for same in by_number.values())
    assert len(by_number) == len(set(files))


def test_only_what_may_be_equal_is_looked_at(tmp_path: pathlib.Path) -> None:
    looked: list[int] = []

    def look(places: Sequence[int]) -> list[bytes]:
        looked.extend(places)
        return [b"y" if place == 4 else b"x" for place in places]

    first, one, second, other, third = _duplicates.number(np.asarray([3, 4, 3, 5, 3]), look)
    assert first == second
    assert len({first, one, other, third}) == 4
    assert looked == [0, 2, 4]
    with pytest.raises(UserError, match="nowhere' cannot be read"):
        _duplicates.number_files([str(tmp_path / "nowhere")])
