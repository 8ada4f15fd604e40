"""SPLIT/CLASS/file: which files count, and how missing splits are cut."""

from collections.abc import Sequence

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from ctl_jax.data.sources import layout
from ctl_jax.data.task import SPLITS
from ctl_jax.errors import UserError


def files(**counts: int) -> list[str]:
    """So many images in each split, of three classes in turn."""
    return [
        f"{split}/{'bac'[i % 3]}/{i:04d}.png"
        for split, count in counts.items()
        for i in range(count)
    ]


def sizes(plan: layout.Layout) -> list[int]:
    return [len(plan.splits[split]) for split in SPLITS]


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ({"train": 20, "dev": 3, "dev_test": 4, "test": 5}, [20, 3, 4, 5]),
        ({"train": 20, "val": 3, "dev-test": 4, "test": 5}, [20, 3, 4, 5]),
        ({"Train": 20, "VAL": 3, "Dev-Test": 4, "TEST": 5}, [20, 3, 4, 5]),
        ({"train": 101, "test": 7}, [70, 15, 16, 7]),
        ({"train_and_dev": 101, "test": 7}, [70, 15, 16, 7]),
        ({"train": 101, "validation": 6, "test": 7}, [80, 21, 6, 7]),
        ({"train": 101, "dev": 6, "test": 7}, [80, 21, 6, 7]),
        ({"train": 101, "dev_test": 6, "test": 7}, [80, 21, 6, 7]),
        ({"train_and_dev": 101, "dev_test": 6, "test": 7}, [80, 21, 6, 7]),
        ({"train": 101, "val": 7}, [90, 5, 6, 7]),
        ({"train": 101}, [56, 12, 12, 21]),
        ({"train": 20, "dev": 3, "train_and_dev": 23, "dev_test": 4, "test": 5}, [20, 3, 4, 5]),
        ({"train": 101, "dev": 3, "train_and_dev": 104, "test": 5}, [80, 21, 3, 5]),
    ],
)
def test_missing_splits_are_cut(counts: dict[str, int], expected: list[int]) -> None:
    names = files(**counts)
    plan = layout.arrange("set", names)
    assert sizes(plan) == expected
    assert plan.class_names == ("a", "b", "c")
    chosen = np.concatenate([plan.splits[split] for split in SPLITS])
    assert len(set(chosen.tolist())) == len(chosen)
    for index in chosen:
        assert plan.class_names[plan.labels[index]] == names[index].split("/")[1]


def test_given_splits_go_where_they_belong() -> None:
    names = files(train=100, validation=6, test=7)
    plan = layout.arrange("set", names)
    assert {names[i].split("/")[0] for i in plan.splits["dev_test"]} == {"validation"}
    assert {names[i].split("/")[0] for i in plan.splits["dev"]} == {"train"}
    assert {names[i].split("/")[0] for i in plan.splits["test"]} == {"test"}


@hypothesis.given(
    order=st.permutations(files(train=40, test=4)), prefix=st.sampled_from(["", "x/"])
)
def test_the_cut_hangs_on_names_alone(order: Sequence[str], prefix: str) -> None:
    plain = files(train=40, test=4)
    wanted = layout.arrange("set", plain)
    plan = layout.arrange("elsewhere", [prefix + name for name in order])
    for split in SPLITS:
        found = [order[i] for i in plan.splits[split]]
        assert found == [plain[i] for i in wanted.splits[split]]
        assert found == sorted(found)


def test_the_cut_is_the_same_for_ever() -> None:
    names = [f"train/{'ab'[i % 2]}/{i}.png" for i in range(10)]
    plan = layout.arrange("set", names)
    assert {split: [names[i][8:-4] for i in plan.splits[split]] for split in SPLITS} == {
        "train": ["0", "6", "1", "5", "7"],
        "dev": ["9"],
        "dev_test": ["4"],
        "test": ["2", "8", "3"],
    }


def test_the_cut_is_random() -> None:
    names = files(train=3000)
    plan = layout.arrange("set", names)
    for split in SPLITS:
        counts = np.bincount(plan.labels[plan.splits[split]], minlength=3)
        # Not all of one class, as a cut in order would have it.
        assert counts.min() > 0.8 * counts.mean()


def test_what_does_not_count() -> None:
    junk = [
        ".DS_Store",
        "train/.DS_Store",
        "train/a/.hidden.png",
        "train/.cache/x/y.png",
        "train/a/Thumbs.db",
        "train/a/desktop.ini",
        "__MACOSX/set/train/a/._0000.png",
        "README.md",
        "LICENSE",
        "train/labels.csv",
        "train/a/0000.xml",
        "annotations/a/0000.txt",
    ]
    names = files(train=30, test=5)
    plan = layout.arrange("set", [*junk, *names])
    assert sizes(plan) == sizes(layout.arrange("set", names))
    assert (plan.labels[: len(junk)] == -1).all()


def test_folders_around_and_below() -> None:
    names = [f"outer/set/{name}" for name in files(train=30, test=5)]
    deeper = [name.replace("/0", "/more/0") for name in names]
    assert sizes(layout.arrange("set", [*names, "README"])) == [21, 4, 5, 5]
    assert layout.arrange("set", deeper).class_names == ("a", "b", "c")
    # Formats without a suffix that Pillow knows are for Pillow to recognise.
    bare = [name.removesuffix(".png") for name in names]
    assert sizes(layout.arrange("set", bare)) == [21, 4, 5, 5]


def test_a_class_may_lack_in_a_split() -> None:
    names = [*files(train=30, test=5), "train/zebra/1.png", "train/1/1.png"]
    plan = layout.arrange("set", names)
    assert plan.class_names == ("1", "a", "b", "c", "zebra")
    assert plan.labels[-2:].tolist() == [4, 0]
    with pytest.raises(UserError, match="'set': train lacks 1 of 4 classes of test: 'zebra'"):
        layout.arrange("set", [*files(train=30, test=5), "test/zebra/1.png"])


@pytest.mark.parametrize(
    ("names", "named"),
    [
        ([], "no image; expected SPLIT/CLASS/file with SPLIT one of 'train'"),
        (["notes.txt"], "no image"),
        ([*files(train=30, test=5), "train/x.png"], "image 'train/x.png' in no class folder"),
        ([*files(train=30, test=5), "x.JPG"], "image 'x.JPG' in no class folder"),
        (["cat/1.png", "dog/1.png"], "image 'cat/1.png' in no class folder"),
        ([*files(train=30, test=5), "extra/a/1.png"], "folders 'extra' beside or instead"),
        (["cat/x/1.png", "dog/x/1.png"], "folders 'cat', 'dog' beside or instead"),
        ([*files(train=30, val=3, test=5), "dev/a/1.png"], "folders 'dev' and 'val' for the same"),
        (["train/images/1.png", "test/images/2.png"], "one class folder, 'images'"),
        (files(test=30), "has the splits test; expected train at least"),
        (files(train=30, dev_test=5), "has the splits dev_test, train; expected"),
        (files(train=30, train_and_dev=40, test=3), "has train_and_dev and train; expected"),
        (files(dev=30, train_and_dev=40, test=3), "has train_and_dev and dev; expected"),
        (files(train=5, test=5), "has 5 images in train, too few to cut dev"),
    ],
)
def test_other_layouts_are_errors(names: list[str], named: str) -> None:
    with pytest.raises(UserError, match=named) as caught:
        layout.arrange("/data/set", names)
    assert "'/data/set'" in str(caught.value)
    assert "\n" not in str(caught.value)
