"""The search for splits and classes among the names of files; `layout` makes a data set of it."""

import collections
import os
import re
from collections.abc import Collection, Mapping, Sequence

from ctl_jax.data.formats import classes, cut, leftovers
from ctl_jax.data.formats.encoded import is_picture
from ctl_jax.errors import UserError

# Words that a folder between a split and its classes may be named with.
_WRAPPER_WORDS = frozenset(
    {
        "all",
        "class",
        "classes",
        "categories",
        "content",
        "contents",
        "data",
        "dataset",
        "datasets",
        "files",
        "folders",
        "image",
        "imagefolder",
        "images",
        "img",
        "imgs",
        "jpeg",
        "jpegimages",
        "jpegs",
        "jpg",
        "photo",
        "photos",
        "pics",
        "pictures",
        "png",
        "pngs",
        "raw",
        "set",
        "split",
    }
)
_Parts = tuple[str, ...]
# The folder of a set itself, as a split; no folder has this name.
_HERE = "."


class Search:
    """The search for splits and classes among the names of files.

    Attributes:
      expected: what a data set is expected to be, for messages.
      passed_over: how many files are no examples, by their kind.
      notes: a line for each thing that was put right, or that may not be what was meant.
      tops: of each split, the name of its folder.
    """

    def __init__(self, path: str, names: Sequence[str], *, of_user: bool = False) -> None:
        """Sorts out what are no examples, and finds the folders that enclose all others.

        Args:
          path: the data set, for messages; its name may be that of a folder to skip.
          names: paths of all files in it, with "/".
          of_user: whether the split folders may be missing, and pictures lie outside of classes.
        """
        self._path = path
        self._names = names
        self._of_user = of_user
        self.expected = "CLASS/file or SPLIT/CLASS/file" if of_user else "SPLIT/CLASS/file"
        self._set_words = _words(os.path.basename(path).removesuffix(".zip"))
        self.passed_over: collections.Counter[str] = collections.Counter()
        self.notes: list[str] = []
        self.tops: dict[str, str] = {}
        # Of each split, how many folders lie between it and its classes.
        self._depths: dict[str, int] = {}
        # Of each file that may be an example, the folders that it is in.
        self._parts: dict[int, _Parts] = {}
        self._collect()
        self._split_names = cut.user_names(self._parts.values()) if of_user else cut.SPLIT_NAMES
        self._skip = self._enclosing()
        deepest = max(self._parts.values(), key=len, default=())
        self._enclosing_folder = "/".join(deepest[: self._skip])
        # Whether there are no split folders; then all lies in one, as it were.
        self._one_split = of_user and self._has_classes_alone()
        if self._one_split:
            self._parts = {index: self._inserted(parts) for index, parts in self._parts.items()}

    def _split_of(self, folder: str) -> str | None:
        return self._split_names.get(folder.casefold())

    def _has_classes_alone(self) -> bool:
        """Whether the folders beside each other are classes and not splits.

        A class may be called "train": it has images of its own, and others are beside it.
        """
        below = [parts[self._skip :] for parts in self._parts.values() if len(parts) > self._skip]
        tops = {parts[0] for parts in below}
        deep = {parts[0] for parts in below if len(parts) > 1}
        splits = {top for top in tops if self._split_of(top) is not None}
        return not splits or (splits != tops and not splits & deep)

    def _inserted(self, parts: _Parts) -> _Parts:
        return (*parts[: self._skip], _HERE, *parts[self._skip :])

    def _collect(self) -> None:
        """The files that may be examples, in the order of their names."""
        folders: dict[str, tuple[_Parts, str | None]] = {}
        for index in sorted(range(len(self._names)), key=self._names.__getitem__):
            folder, _, file = self._names[index].rpartition("/")
            if folder not in folders:
                parts = _parts(folder)
                kinds = list(filter(None, map(leftovers.of_folder, parts)))
                folders[folder] = parts, kinds[0] if kinds else None
            parts, kind = folders[folder]
            if kind := kind or leftovers.of_file(file):
                self.passed_over[kind] += 1
            else:
                self._parts[index] = parts

    def _enclosing(self) -> int:
        """How many folders enclose all others that have something in them, down to the splits."""
        folders = set(self._parts.values())
        skip = 0
        while True:
            tops = {parts[skip] for parts in folders if len(parts) > skip}
            if len(tops) != 1:
                return skip
            (top,) = tops
            if self._split_of(top) is not None:
                inside = [parts[skip + 1 :] for parts in folders if len(parts) > skip]
                if not self._are_splits(inside):
                    return skip
                self.notes.append(f"the folder {top!r} around all splits is taken for none itself")
            skip += 1

    def _are_splits(self, folders: Collection[_Parts]) -> bool:
        """Whether all of these lie in folders of several splits, one of them train, and classes."""
        if min(map(len, folders)) < 2:
            return False
        splits = {self._split_of(parts[0]) for parts in folders}
        return None not in splits and len(splits) > 1 and bool(splits & {"train", "train_and_dev"})

    def groups(self) -> dict[str, list[int]]:
        """The files of each split that is there."""
        groups: dict[str, list[int]] = collections.defaultdict(list)
        unknown: set[str] = set()
        outside: collections.Counter[str] = collections.Counter()
        for index, parts in list(self._parts.items()):
            if len(parts) < self._skip + 2:
                # Beside the folder of all splits may be anything.
                # Others may be notes without a suffix.
                if len(parts) >= self._skip and is_picture(self._names[index]):
                    outside["/".join(parts[self._skip :])] += 1
                    self._check_shallow(index)
                self._pass_over(index, leftovers.OUTSIDE)
                continue
            top = parts[self._skip]
            split = "train" if self._one_split else self._split_of(top)
            if split is None:
                unknown.add(top)
            elif self.tops.setdefault(split, top) != top:
                raise UserError(
                    f"{self._path!r} has folders {self.tops[split]!r} and {top!r} for the same "
                    "split; expected one of them"
                )
            else:
                groups[split].append(index)
        self._check_outside(outside, groups)
        self._check_splits(groups, unknown)
        if "train_and_dev" in groups:
            if "train" not in groups:
                self.tops["train"] = self.tops["train_and_dev"]
            elif "dev" in groups:
                for index in groups["train_and_dev"]:
                    self._pass_over(index, leftovers.TWICE)
        return groups

    def unwrap(self, there: Mapping[str, list[int]]) -> dict[int, _Parts]:
        """Of each example the folders from its class on; those between split and classes skipped.

        Thumbnails are taken out of `there`.
        """
        inner: dict[int, _Parts] = {}
        known: set[str] = set()
        for split in sorted(there, key=lambda split: split != "train"):
            group = there[split]
            # Files of a folder share what it is cut down to.
            folders = {self._parts[index] for index in group}
            cut_down = {parts: parts[self._skip + 1 :] for parts in folders}
            depth = self._wrappers(split, set(cut_down.values()), known)
            cut_down = {parts: inside[depth:] for parts, inside in cut_down.items()}
            below = {index: cut_down[self._parts[index]] for index in group}
            names = {index: self._names[index].rpartition("/")[2] for index in group}
            for index in leftovers.thumbnails(below, names):
                self._pass_over(index, leftovers.THUMBNAILS)
                del below[index]
            group[:] = below
            self._depths[split] = depth
            if split == "train":
                known = {parts[0] for parts in below.values()}
            inner.update(below)
        return inner

    def _wrappers(self, split: str, below: set[_Parts], known: Collection[str]) -> int:
        """How many folders lie between a split and its classes; `known` are train's, if known."""
        depth = 0
        while True:
            tops = {parts[depth] for parts in below if len(parts) > depth}
            if len(tops) != 1 or min(map(len, below)) < depth + 2:
                break
            (top,) = tops
            if any(classes.same(top, name) for name in known) or not self._wraps(top, split):
                break
            depth += 1
        if depth:
            wrapper = "/".join([self.tops[split], *next(iter(below))[:depth]])
            self.notes.append(f"{wrapper!r} is taken for {self.tops[split]!r}: it has the classes")
        return depth

    def _wraps(self, name: str, split: str) -> bool:
        """Whether a folder that is alone in a split is no class, by its name."""
        this = self._split_of(self.tops[split])
        if (named := self._split_of(name)) is not None:
            return this == named
        own = {word for word, meant in self._split_names.items() if meant == this}
        words = _words(name)
        return bool(words) and words <= _WRAPPER_WORDS | own | self._set_words

    def check_class_folders(
        self, there: Mapping[str, list[int]], inner: Mapping[int, _Parts]
    ) -> None:
        """No class folder may be one that holds a split, or classes.

        A class "train" may be vehicles: it has images of its own, in every split.

        Raises:
          UserError: one is.
        """
        for split, group in there.items():
            folders = {inner[index] for index in group}
            names = {parts[0] for parts in folders}
            for parts in sorted(folders):
                others = {self._split_of(part) for part in parts[1:]} - {None, split}
                if others:
                    raise UserError(
                        f"{self._path!r} has a folder {'/'.join(parts)!r} in "
                        f"{self.tops[split]!r}; expected no other split in there"
                    )
            for name in sorted(names):
                if self._split_of(name) is None and not _words(name) <= _WRAPPER_WORDS:
                    continue
                below = {parts[1] for parts in folders if parts[0] == name and len(parts) > 1}
                vehicle = self._one_split or (
                    name.casefold() == "train"
                    and len(there) > 1
                    and all(any(inner[i] == (name,) for i in others) for others in there.values())
                )
                holds = any(classes.same(a, b) for a in below for b in names - {name})
                if holds or (self._split_of(name) is not None and (below or not vehicle)):
                    raise UserError(
                        f"{self._path!r} has a folder {name!r} among the classes of "
                        f"{self.tops[split]!r}; expected {self.expected}, with no class that is "
                        "named like a split or holds other classes"
                    )

    def empty(self, folders: Collection[str]) -> list[str]:
        """A line about class folders without an image."""
        full: set[_Parts] = set()
        for parts in set(self._parts.values()):
            full.update(parts[:end] for end in range(len(parts) + 1))
        depths = {self.tops[split]: self._skip + 2 + n for split, n in self._depths.items()}
        found = []
        for folder in {*folders, *(name.rpartition("/")[0] for name in self._names)}:
            parts = self._inserted(_parts(folder)) if self._one_split else _parts(folder)
            top = parts[self._skip] if len(parts) > self._skip else ""
            of_class = len(parts) == depths.get(top)
            if of_class and parts not in full and not any(map(leftovers.of_folder, parts)):
                found.append("/".join(_parts(folder)))
        if not found:
            return []
        one = "1 class folder has" if len(found) == 1 else f"{len(found)} class folders have"
        return [f"{one} no image: {classes.listed(found)}"]

    def _pass_over(self, index: int, kind: str) -> None:
        self.passed_over[kind] += 1
        del self._parts[index]

    def _check_shallow(self, index: int) -> None:
        if not self._of_user:
            raise UserError(
                f"{self._path!r} has the image {self._names[index]!r} in no class folder; "
                f"expected {self.expected}"
            )

    def _check_outside(self, outside: Mapping[str, int], groups: Mapping[str, list[int]]) -> None:
        """Few pictures of a user's set may be in no class folder, or all those of one split."""
        if outside and not groups and self._one_split and self._skip:
            alone = self._enclosing_folder
            raise UserError(
                f"{self._path!r} has one class folder, {alone!r}; expected {self.expected} with "
                "two classes or more"
            )
        for top, count in outside.items():
            split = None if top in ("", _HERE) else self._split_of(top)
            inside = sum(len(group) for name, group in groups.items() if split in (None, name))
            where = f"in {top!r} " if split else ""
            if count >= inside and (inside or split in (None, "train")):
                raise UserError(
                    f"{self._path!r} has {count:,} images {where}that are in no class folder; "
                    f"expected {self.expected}"
                )
            self.notes.append(f"images {where}in no class folder are left out: {count:,}")

    def _check_splits(self, found: Collection[str], unknown: Collection[str]) -> None:
        names = ", ".join(map(repr, cut.SPLIT_NAMES))
        if unknown:
            raise UserError(
                f"{self._path!r} has folders {classes.listed(unknown)} beside or instead of "
                f"splits; expected {self.expected} with SPLIT one of {names}"
            )
        if not found:
            others = ", ".join(f"{count} {kind}" for kind, count in self.passed_over.items())
            raise UserError(
                f"{self._path!r} has no image{f' (files passed over: {others})' if others else ''}"
                f"; expected {self.expected} with SPLIT one of {names}"
            )


def _parts(folder: str) -> _Parts:
    # Archives may have "./" and "//".
    return tuple(part for part in folder.split("/") if part not in ("", "."))


def _words(name: str) -> set[str]:
    return set(re.split(r"[\W_]+", name.casefold())) - {""}
