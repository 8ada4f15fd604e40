"""Files beside images that are not images: what systems and tools leave, and people's notes."""

import os
import re
from collections.abc import Mapping

# Kinds of files that are passed over, in the words that status and reports use.
HIDDEN = "hidden"
SYSTEM = "system"
THUMBNAILS = "thumbnails"
SIDECARS = "sidecars"
UNFINISHED = "unfinished"
NOTES = "notes"
# Outside of all class folders.
OUTSIDE = "outside"
# train_and_dev, where train and dev hold the same.
TWICE = "train_and_dev"

# Lower case, as all names below. Those of Apple, Synology, QNAP, NetApp, Windows, ext4 and Python.
_SYSTEM_FOLDERS = frozenset(
    {
        "__macosx",
        "network trash folder",
        "temporary items",
        "@eadir",
        "#recycle",
        "@recycle",
        "#snapshot",
        "~snapshot",
        "$recycle.bin",
        "recycler",
        "recycled",
        "system volume information",
        "found.000",
        "lost+found",
        "__pycache__",
    }
)
_THUMBNAIL_FOLDERS = frozenset({"thumbnails", "_thumbnails", "_thumbs", "@__thumb"})
# They may be classes too, so that they are only passed over where their originals are there.
_MAYBE_THUMBNAIL_FOLDERS = frozenset({"thumb", "thumbs", "thumbnail"})
# Names of a picture's thumbnail beside it: x_thumb, x-150x150, thumb_x, tn_x.
_THUMBNAIL_STEM = re.compile(
    r"(.+)[-_.](?:thumb|thumbnail|tn|\d{2,4}x\d{2,4})|(?:thumb|thumbnail|tn)[-_.](.+)", re.I
)

_SYSTEM_FILES = frozenset({"desktop.ini", "icon\r", "folder.htt", "autorun.inf"})
_THUMBNAIL_FILES = frozenset(
    {
        "thumbs.db",
        "thumbs.db:encryptable",
        "ehthumbs.db",
        "ehthumbs_vista.db",
        "zbthumbnail.info",
        "picasa.ini",
        "pspbrwse.jbf",
    }
)
_SUFFIXES = {
    THUMBNAILS: ".thm",
    SIDECARS: ".xmp .aae .pp3 .dop .cos .lrdata .jpg_original .jpeg_original .png_original "
    ".url .lnk .webloc .bak .old .orig",
    UNFINISHED: ".tmp .temp .part .partial .crdownload .download .opdownload .filepart .!ut .swp",
    # Whatever else is in a class folder is taken for an image.
    NOTES: ".txt .md .rst .csv .tsv .json .jsonl .xml .yaml .yml .html .htm .pdf .doc .docx .xls "
    ".xlsx .mat .db .ini .log .nfo .py .sh .bat .zip .tar .gz .tgz .bz2 .xz .7z .rar .md5 .sha1 "
    ".sha256 .sfv",
}
_KIND_OF_SUFFIX = {
    suffix: kind for kind, suffixes in _SUFFIXES.items() for suffix in suffixes.split()
}


def of_folder(name: str) -> str | None:
    """Of which kind a folder of this name is that holds no examples; None where it may."""
    name = name.casefold()
    # Also .git, .ipynb_checkpoints, .Trashes, .thumbnails, .dropbox and .AppleDouble.
    if name.startswith("."):
        return HIDDEN
    if name in _SYSTEM_FOLDERS:
        return SYSTEM
    return THUMBNAILS if name in _THUMBNAIL_FOLDERS else None


def of_file(name: str) -> str | None:
    """Of which kind a file of this name is that is no example; None where it may be one."""
    name = name.casefold()
    if name.startswith("."):
        return HIDDEN
    if name in _SYSTEM_FILES:
        return SYSTEM
    if name in _THUMBNAIL_FILES:
        return THUMBNAILS
    if name.endswith("~") or name.startswith("~$"):
        return UNFINISHED
    suffix = os.path.splitext(name)[1]
    kind = _KIND_OF_SUFFIX.get(suffix)
    if kind == NOTES:
        # Of an image's name and a suffix, as in Google's x.jpg.json or x.jpg.xmp.
        beside = os.path.splitext(name.removesuffix(suffix))[1] in (".jpg", ".jpeg", ".png")
        return SIDECARS if beside else NOTES
    return kind


def thumbnails(folders: Mapping[int, tuple[str, ...]], names: Mapping[int, str]) -> list[int]:
    """Which images are thumbnails of others: beside them, or in a folder "thumbs" of theirs.

    Args:
      folders: of each image, from its class's on.
      names: of each image in its folder.
    """
    originals: dict[int, tuple[tuple[str, ...], str]] = {}
    for index, parts in folders.items():
        stem = os.path.splitext(names[index])[0]
        if (match := _THUMBNAIL_STEM.fullmatch(stem)) is not None:
            originals[index] = parts, match[1] or match[2]
        elif len(parts) > 1 and parts[-1].casefold() in _MAYBE_THUMBNAIL_FOLDERS:
            originals[index] = parts[:-1], stem
    if not originals:
        return []
    pictures = {(parts, os.path.splitext(names[i])[0]) for i, parts in folders.items()}
    return [index for index, original in originals.items() if original in pictures]
