"""Class names of several splits: which of them mean the same class."""

import collections
import unicodedata
from collections.abc import Collection, Iterable, Mapping

from ctl_jax.errors import UserError

_LISTED = 5


def unite(
    path: str, found: Mapping[str, Collection[str]], train: str
) -> tuple[dict[str, str], list[str]]:
    """One name for each class, however the splits spell it.

    Names that differ in Unicode form only (NFC, NFD) are one class. So are those that differ in
    case, in the width of letters, in spaces, in dots at their ends or in what cannot be seen, as
    long as they are in different splits: within one split they may be two, as "a" and "A" are of a
    set of letters. Names that are not UTF-8 are compared byte by byte.

    Args:
      path: the data set, for error messages.
      found: for each split folder the names of its class folders.
      train: which of them is train.

    Returns:
      For each name that of its class, which is a name of train; and a line about what was united.

    Raises:
      UserError: names of one split that differ in no more than that, unless they are single
        letters; or a class that train lacks.
    """
    exact = {name: _form(name) for names in found.values() for name in names}
    loose = {name: _loose(form) for name, form in exact.items()}
    # In a set that tells letters' cases apart, they are told apart everywhere.
    keys = exact if _tells_cases_apart(path, found, exact, loose) else loose
    spellings: dict[str, list[str]] = collections.defaultdict(list)
    for name in sorted(keys):
        spellings[keys[name]].append(name)
    chosen: dict[str, str] = {}
    for key, names in spellings.items():
        of_train = [name for name in names if name in found[train]]
        # Of two forms in train the composed one, which others than macOS write.
        if of_train:
            chosen[key] = min(of_train, key=lambda name: (name != exact[name], name))
    _check_train(path, found, train, keys, chosen)
    united = [names for names in spellings.values() if len(names) > 1]
    notes = []
    if united:
        one = "1 class is" if len(united) == 1 else f"{len(united)} classes are"
        some = "; ".join(" and ".join(map(ascii, names)) for names in united[:_LISTED])
        more = "; ..." if len(united) > _LISTED else ""
        notes.append(f"{one} spelt in several ways and taken as one each: {some}{more}")
    return {name: chosen[key] for name, key in keys.items()}, notes


def listed(names: Iterable[str]) -> str:
    """The first of some names, quoted."""
    found = sorted(names)
    return ", ".join(map(repr, found[:_LISTED])) + (" ..." if len(found) > _LISTED else "")


def same(one: str, other: str) -> bool:
    """Whether two names may mean the same class."""
    return _loose(_form(one)) == _loose(_form(other))


def _form(name: str) -> str:
    # Bytes that are not UTF-8 are surrogates, of which nothing is known.
    return unicodedata.normalize("NFC", name) if _is_text(name) else name


def _loose(name: str) -> str:
    if not _is_text(name):
        return name
    # Wide and narrow letters, and after it what folding has undone.
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKD", name).casefold())
    seen = "".join(letter for letter in folded if unicodedata.category(letter) != "Cf")
    # Windows drops spaces and dots at the end of a name.
    return " ".join(seen.split()).rstrip(" .") or name


def _is_text(name: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in name)


def _tells_cases_apart(
    path: str,
    found: Mapping[str, Collection[str]],
    exact: Mapping[str, str],
    loose: Mapping[str, str],
) -> bool:
    """Whether names of one split differ in nothing but case and the like, as letters may."""
    apart = False
    for split, names in found.items():
        seen: dict[str, str] = {}
        for name in sorted(names):
            other = seen.setdefault(loose[name], name)
            if exact[other] == exact[name]:
                continue
            if not len(exact[other]) == len(exact[name]) == 1:
                raise UserError(
                    f"{path!r} has class folders {other!a} and {name!a} in {split}; expected one "
                    "of them, or names of two classes that differ in more than case or spaces"
                )
            apart = True
    return apart


def _check_train(
    path: str,
    found: Mapping[str, Collection[str]],
    train: str,
    keys: Mapping[str, str],
    chosen: Mapping[str, str],
) -> None:
    """No class may be missing in train: a model can only fail at what it was never shown."""
    for split, names in found.items():
        lacking = {name for name in names if keys[name] not in chosen}
        if lacking:
            raise UserError(
                f"{path!r}: {train} lacks {len(lacking)} of {len(names)} classes of {split}: "
                f"{listed(lacking)}; expected classes of {train}, which are {listed(found[train])}"
            )
