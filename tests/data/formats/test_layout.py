"""SPLIT/CLASS/file: which files count, and how missing splits are cut."""

from collections.abc import Sequence

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from ctl_jax.data.formats import layout
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


def tree(pattern: str, count: int = 30, classes: Sequence[str] = "ab") -> list[str]:
    """Paths by a pattern with {c}, the class, and {i}, a number."""
    return [pattern.format(c=name, i=i) for i in range(count) for name in classes]


TEST = tree("test/{c}/{i}.png", 5)


@pytest.mark.parametrize(
    ("train", "test", "notes"),
    [
        ("train/train", "test", 1),
        ("train/train", "test/test", 2),
        ("Train/train", "TEST/Testing", 2),
        ("train/training", "test/test", 2),
        ("train/data/train", "test", 1),
        ("train/images", "test/images", 2),
        ("train", "test/imgs", 1),
        ("train/train_images", "test/test-images", 2),
        ("train/pacs", "test/PACS_test", 2),
        ("train/train/train", "test/data/images", 2),
        ("data/train/train", "data/test/test", 2),
        ("train/train", "train/test", 1),
        ("./train", ".//test", 0),
        ("training", "testing", 0),
    ],
)
def test_folders_between_splits_and_classes(train: str, test: str, notes: int) -> None:
    wanted = layout.arrange("/data/pacs", [*tree("train/{c}/{i}.png"), *TEST])
    names = [*tree(f"{train}/{{c}}/{{i}}.png"), *tree(f"{test}/{{c}}/{{i}}.png", 5)]
    plan = layout.arrange("/data/pacs", names)
    assert plan.class_names == ("a", "b")
    for split in SPLITS:
        # The same examples, as if the folders were not there.
        np.testing.assert_array_equal(plan.splits[split], wanted.splits[split])
    np.testing.assert_array_equal(plan.labels, wanted.labels)
    assert len(plan.notes) == notes
    for note in plan.notes:
        assert "is taken for" in note


def test_only_what_is_no_class_is_skipped() -> None:
    deeper = layout.arrange("pacs", [*tree("train/{c}/images/{i}.png"), *TEST])
    assert deeper.class_names == ("a", "b")
    assert deeper.notes == ()
    # The only class of a split, even where its name may be another thing's.
    names = [*tree("train/{c}/x/{i}.png", classes=("data", "photo")), *tree("val/data/x/{i}.png")]
    assert layout.arrange("pacs", names).class_names == ("data", "photo")
    # A class of vehicles.
    names = tree("train/{c}/{i}.png", classes=("cat", "train"))
    names += tree("test/{c}/{i}.png", classes=("cat", "train"))
    assert layout.arrange("pacs", names).class_names == ("cat", "train")


@pytest.mark.parametrize(
    ("names", "named"),
    [
        ([*tree("train/test/{c}/{i}.png"), *TEST], "folder 'test' among the classes of 'train'"),
        ([*tree("train/train/{c}/{i}.png"), *tree("train/{c}/{i}.png"), *TEST], "folder 'train'"),
        (tree("train/{c}/{i}.png", classes=("train", "test")), "folder 't"),
        (tree("train/{c}/{i}.png", classes=("cat", "train")), "folder 'train'"),
        ([*tree("train/{c}/{i}.png", classes=("a", "b", "train", "test")), *TEST], "folder 'test'"),
        ([*tree("train/images/{c}/{i}.png"), *tree("train/{c}/{i}.png")], "folder 'images'"),
        ([*tree("train/{c}/test/{i}.png"), *TEST], "'a/test' in 'train'; expected no other split"),
        (tree("train/animals/{c}/{i}.png"), "one class folder, 'animals'"),
        ([*tree("train/animals/{c}/{i}.png"), *TEST], "train lacks 2 of 2 classes of test"),
        ([*tree("train/cat/{c}/{i}.png"), *tree("test/dog/{c}/{i}.png")], "train lacks 1 of 1"),
        (
            [*tree("train/{c}/{i}.png"), *tree("val/{c}/{i}.png", 3, "cd"), *TEST],
            "of val: 'c', 'd'",
        ),
        ([*tree("train/{c}/{i}.png"), *tree("pacs/train/{c}/{i}.png")], "folders 'pacs' beside"),
        (tree("train/images_{c}/{i}.png", classes="12"), "'images_1', 'images_2', none of which"),
        (tree("train/part{c}/a/{i}.png", classes="12"), "none of which is named like a class"),
        (tree("train/{c}/a/{i}.png", classes=("images", "masks")), "none of which is named"),
        (
            ["train/a/._1.png", "train/a/x.txt"],
            r"no image \(files passed over: 1 hidden, 1 notes\)",
        ),
    ],
)
def test_what_is_not_clear_is_an_error(names: list[str], named: str) -> None:
    with pytest.raises(UserError, match=named) as caught:
        layout.arrange("/data/pacs", names)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("file", "kind"),
    [
        ("train/a/._0.png", "hidden"),
        (".git/objects/0a/0.png", "hidden"),
        ("train/.ipynb_checkpoints/0.png", "hidden"),
        ("train/a/.picasaoriginals/0.png", "hidden"),
        ("@eaDir/a/0.png", "system"),
        ("train/a/@eaDir/0.png/SYNOPHOTO_THUMB_M.jpg", "system"),
        ("__MACOSX/train/a/0.png", "system"),
        ("$RECYCLE.BIN/S-1/0.png", "system"),
        ("System Volume Information/0.png", "system"),
        ("lost+found/0.png", "system"),
        ("train/a/Desktop.ini", "system"),
        ("train/a/Thumbs.db", "thumbnails"),
        ("train/a/ZbThumbnail.info", "thumbnails"),
        ("train/a/0.THM", "thumbnails"),
        ("train/thumbnails/0.png", "thumbnails"),
        ("train/a/thumbs/0.jpg", "thumbnails"),
        ("train/a/0_thumb.jpg", "thumbnails"),
        ("train/a/0-150x150.png", "thumbnails"),
        ("train/a/TN_0.png", "thumbnails"),
        ("train/a/0.png.json", "sidecars"),
        ("train/a/0.xmp", "sidecars"),
        ("train/a/0.AAE", "sidecars"),
        ("train/a/0.jpg.crdownload", "unfinished"),
        ("train/a/0.png.part", "unfinished"),
        ("train/a/0.png~", "unfinished"),
        ("train/a/labels.csv", "notes"),
        ("LICENSE", "outside"),
    ],
)
def test_files_that_are_passed_over_are_counted(file: str, kind: str) -> None:
    names = [*tree("train/{c}/{i}.png"), *TEST]
    plan = layout.arrange("pacs", [*names, file])
    assert plan.passed_over == {kind: 1}
    assert plan.labels[-1] == -1
    assert sizes(plan) == sizes(layout.arrange("pacs", names))
    assert sum(sizes(plan)) == len(names)


def test_thumbs_may_be_a_class_or_all_there_is() -> None:
    names = [*tree("train/{c}/thumbs/{i}.png"), *tree("train/thumbs/{i}.png"), *TEST]
    plan = layout.arrange("pacs", names)
    assert plan.class_names == ("a", "b", "thumbs")
    assert plan.passed_over == {}


def test_class_folders_without_an_image_are_named() -> None:
    names = [*tree("train/{c}/{i}.png"), *TEST, "train/q/Thumbs.db"]
    folders = ["train", "train/a", "train/a/inner", "train/empty", "test/empty", "train/.x", "y"]
    plan = layout.arrange("pacs", names, folders)
    (note,) = plan.notes
    assert note == "3 class folders have no image: 'test/empty', 'train/empty', 'train/q'"


def test_what_may_not_be_what_was_meant_is_mentioned() -> None:
    names = [*tree("train/{c}/{i}.png", classes=("text", "images")), "train/text/alone_thumb.png"]
    plan = layout.arrange("pacs", [*names, "train/text/0.JPG", "train/text/2.bmp"])
    assert plan.notes == (
        "taken for classes, in spite of their names: 'images'",
        "pictures that may be there in several formats, by their names: 2",
    )
    assert plan.passed_over == {}


def test_classes_that_may_be_groups_of_classes_are_mentioned() -> None:
    names = [
        name
        for split in ("train", "test")
        for domain in ("photo", "sketch")
        for name in tree(f"{split}/{domain}/{{c}}/{{i}}.png")
    ]
    (note,) = layout.arrange("pacs", names).notes
    assert note.startswith(
        "the classes are 'photo', 'sketch', and each holds the same folders, 'a'"
    )


def test_train_and_dev_beside_train_and_dev_is_counted() -> None:
    names = [*tree("train/{c}/{i}.png"), *tree("dev/{c}/{i}.png", 3), *TEST]
    both = tree("train_and_dev/{c}/{i}.png", 33)
    plan = layout.arrange("pacs", [*both, *names])
    assert plan.passed_over == {"train_and_dev": 66}
    assert plan.notes == ()
