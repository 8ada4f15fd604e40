"""The same pictures in every form that a user's own set may have."""

import csv
import io
import json
import pathlib
import tarfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import pyarrow
from pyarrow import parquet


class Picture(NamedTuple):
    """A picture of a set; its split is "" where the set has none."""

    split: str
    label: str
    name: str
    content: bytes

    @property
    def path(self) -> str:
        return "/".join(filter(None, (self.split, self.label, self.name)))


Pictures = Sequence[Picture]


def folder(root: pathlib.Path, pictures: Pictures) -> pathlib.Path:
    for picture in pictures:
        path = root / "flowers" / picture.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture.content)
    return root / "flowers"


def zipped(root: pathlib.Path, pictures: Pictures) -> pathlib.Path:
    with zipfile.ZipFile(root / "flowers.zip", "w") as archive:
        for picture in reversed(pictures):
            archive.writestr(f"flowers/{picture.path}", picture.content)
    return root / "flowers.zip"


def tarred(root: pathlib.Path, pictures: Pictures, suffix: str = "tar") -> pathlib.Path:
    path = root / f"flowers.{suffix}"
    with tarfile.open(path, f"w:{suffix[4:]}") as archive:
        for picture in reversed(pictures):
            info = tarfile.TarInfo(f"./{picture.path}")
            info.size = len(picture.content)
            archive.addfile(info, io.BytesIO(picture.content))
    return path


def delimited(root: pathlib.Path, pictures: Pictures, delimiter: str = ",") -> pathlib.Path:
    folder(root, pictures)
    path = root / ("flowers.tsv" if delimiter == "\t" else "flowers.csv")
    with path.open("w", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(["file", "species", "remark", *(["part"] if pictures[0].split else [])])
        for picture in pictures:
            row = [f"flowers/{picture.path}", picture.label, "x"]
            writer.writerow(row + ([picture.split] if picture.split else []))
    return path


def json_lines(root: pathlib.Path, pictures: Pictures) -> pathlib.Path:
    # Only the ends of the paths, as if the table had been made elsewhere.
    folder(root / "images", pictures)
    rows = [
        {"image": picture.path, "label": picture.label, "split": picture.split}
        for picture in pictures
    ]
    for row in rows:
        if not row["split"]:
            del row["split"]
    path = root / "flowers.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def _arrow(pictures: Pictures, names: Sequence[str]) -> Any:
    return pyarrow.table(
        {
            "image": [{"bytes": one.content, "path": one.name} for one in pictures],
            "label": [names.index(one.label) for one in pictures],
        }
    )


def _features(names: Sequence[str]) -> dict[str, Any]:
    # Not in their order, as `datasets` may have them.
    return {
        "image": {"_type": "Image"},
        "label": {"names": list(names), "_type": "ClassLabel"},
    }


def _by_split(pictures: Pictures) -> Mapping[str, Pictures]:
    splits = dict.fromkeys(picture.split for picture in pictures)
    return {split: [one for one in pictures if one.split == split] for split in splits}


def one_parquet(root: pathlib.Path, pictures: Pictures) -> pathlib.Path:
    columns = {
        "jpg": [picture.content for picture in pictures],
        "class": [picture.label for picture in pictures],
    }
    if pictures[0].split:
        columns["split"] = [picture.split for picture in pictures]
    parquet.write_table(pyarrow.table(columns), root / "flowers.parquet", row_group_size=7)
    return root / "flowers.parquet"


def hub(root: pathlib.Path, pictures: Pictures) -> pathlib.Path:
    names = sorted({picture.label for picture in pictures})
    about = json.dumps({"info": {"features": _features(names)}})
    data = root / "flowers" / "data"
    data.mkdir(parents=True)
    for split, found in _by_split(pictures).items():
        for number, part in enumerate((found[: len(found) // 2], found[len(found) // 2 :])):
            table = _arrow(part, names).replace_schema_metadata({"huggingface": about})
            parquet.write_table(table, data / f"{split or 'train'}-{number:05}-of-00002.parquet")
    return root / "flowers"


def saved(root: pathlib.Path, pictures: Pictures) -> pathlib.Path:
    names = sorted({picture.label for picture in pictures})
    path = root / "flowers"
    by_split = _by_split(pictures)
    for split, found in by_split.items():
        (path / split).mkdir(parents=True)
        table = _arrow(found, names)
        file = str(path / split / "data-00000-of-00001.arrow")
        with pyarrow.ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table, max_chunksize=5)
        state = {"_data_files": [{"filename": "data-00000-of-00001.arrow"}], "_split": split}
        (path / split / "state.json").write_text(json.dumps(state))
        info = {"features": _features(names)}
        (path / split / "dataset_info.json").write_text(json.dumps(info))
    if "" not in by_split:
        (path / "dataset_dict.json").write_text(json.dumps({"splits": list(by_split)}))
    return path


FORMS: dict[str, Callable[[pathlib.Path, Pictures], pathlib.Path]] = {
    "folder": folder,
    "zip": zipped,
    "tar": tarred,
    "tar.gz": lambda root, pictures: tarred(root, pictures, "tar.gz"),
    "tar.bz2": lambda root, pictures: tarred(root, pictures, "tar.bz2"),
    "tar.xz": lambda root, pictures: tarred(root, pictures, "tar.xz"),
    "csv": delimited,
    "csv of semicolons": lambda root, pictures: delimited(root, pictures, ";"),
    "tsv": lambda root, pictures: delimited(root, pictures, "\t"),
    "jsonl": json_lines,
    "parquet": one_parquet,
    "hub": hub,
    "hf": saved,
}
