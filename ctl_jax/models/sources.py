"""Finding weights: a file, a folder or the Hub, with the JSON files that stand beside them."""

import importlib
import json
import os
import pathlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict

from ctl_jax import files, home, object_store
from ctl_jax.errors import UserError, causes, naming
from ctl_jax.models import _checkpoint, formats
from ctl_jax.models.preprocess import PREPROCESS, Interpolation, Preprocess

# What a folder's weights are called at the Hub, the best first.
_NAMES = ("model.safetensors", "pytorch_model.bin")
_CONFIG, _PREPROCESSOR = "config.json", "preprocessor_config.json"
# Of a file of our own export: what `model.json` says.
OWN_METADATA = "ctl_jax"

# Hugging Face's numbers are PIL's.
_RESAMPLE = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}


@dataclass(frozen=True)
class Source:
    """Arrays, and all that is said of them.

    Attributes:
      path: as the user gave it.
      arrays: by the names that they have there.
      own: the names are paths in our variables.
      config: of config.json, of both libraries' kinds; {} without it.
      hint: the file's name and the architecture that the config says.
      preprocess, image_size, classes: what the config says, None or () where it does not.
      license: of the weights, as the config or a model card beside them says it; or "".
      exported: what our own export wrote beside the arrays.
      remarks: what was chosen among what there was.
    """

    path: str
    arrays: Mapping[str, np.ndarray]
    own: bool = False
    config: Mapping[str, Any] = field(default_factory=dict)
    hint: str = ""
    preprocess: Preprocess | None = None
    image_size: int | None = None
    classes: tuple[str, ...] = ()
    license: str = ""
    exported: Mapping[str, Any] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()

    @property
    def library(self) -> str:
        """Whose kind of config.json there is; "" without one."""
        if "model_type" in self.config:
            return "huggingface"
        return "timm" if self.config else ""


def open_source(path: str | os.PathLike[str]) -> Source:
    """Reads what is at a path.

    Args:
      path: of a file, of a folder that holds one, of a checkpoint's folder (also in an object
        store), or "hf:REPOSITORY", "hf:REPOSITORY/FILE".

    Raises:
      UserError: nothing there, or nothing that can be read.
    """
    with naming(f"weights {path}"):
        text = home.expand(path)
    if text.startswith("hf:"):
        return _open_local(str(path), _from_hub(text.removeprefix("hf:")))
    if files.is_remote(text) or _is_checkpoint(text):
        arrays = flatten_dict(_checkpoint.load_checkpoint(text), sep="/")
        return Source(str(path), {k: np.asarray(v) for k, v in arrays.items()}, own=True)
    return _open_local(str(path), pathlib.Path(text))


def _is_checkpoint(path: str) -> bool:
    """Whether a folder is one that `save_checkpoint` wrote; an error where there is nothing."""
    return formats.is_folder(path) and os.path.exists(os.path.join(path, _checkpoint.SUMS))


def _open_local(path: str, local: pathlib.Path) -> Source:
    file = _weights_in(local) if formats.is_folder(local) else local
    content = formats.read(file)
    beside = _beside(file)
    config = _json(beside.get(_CONFIG), path) or _json_text(content.metadata.get("config"), path)
    processor = _json(beside.get(_PREPROCESSOR), path)
    told: dict[str, Any] = {}
    with naming(f"weights {path}: config.json"):
        told = _of_huggingface(config, processor) if "model_type" in config else _of_timm(config)
    architecture = [config.get("architecture"), *(config.get("architectures") or ())]
    return Source(
        path,
        content.arrays,
        own=any(name.startswith("params/") for name in content.arrays),
        config=config,
        hint=" ".join(map(str, filter(None, [local.stem, *architecture]))),
        license=_license(file, config),
        exported=_json_text(content.metadata.get(OWN_METADATA), path),
        remarks=content.remarks,
        **told,
    )


def _weights_in(folder: pathlib.Path) -> pathlib.Path:
    """The file of a folder that holds the weights."""
    found = _files(folder)
    for name in _NAMES:
        if folder / name in found:
            return folder / name
    if not found:
        raise UserError(
            f"weights {folder}: no weights in this folder; expected a file such as {_NAMES[0]}, or "
            "what save_checkpoint wrote"
        )
    if len(found) > 1:
        names = ", ".join(path.name for path in found[:5]) + (", ..." if len(found) > 5 else "")
        raise UserError(f"weights {folder}: a folder of {len(found)} files ({names}); expected one")
    return found[0]


def _files(folder: pathlib.Path) -> list[pathlib.Path]:
    """The files of a folder whose names are those of weights."""
    try:
        inside = sorted(folder.iterdir())
    except OSError as error:
        raise UserError(f"weights {folder}: cannot be read ({error.strerror})") from None
    return [path for path in inside if path.suffix.lower() in formats.suffixes()]


def _beside(file: pathlib.Path) -> dict[str, pathlib.Path]:
    """The JSON files beside weights that are the only ones in their folder, or have its name."""
    folder = file.parent
    beside = {name: folder / name for name in (_CONFIG, _PREPROCESSOR) if (folder / name).is_file()}
    if not beside or file.name in _NAMES:
        return beside
    return beside if _files(folder) in ([file], []) else {}


def _license(file: pathlib.Path, config: Mapping[str, Any]) -> str:
    """The licence that timm's config or the head of a Hub's model card says; "" where none does."""
    inner = config.get("pretrained_cfg")
    for said in (config, inner if isinstance(inner, Mapping) else {}):
        if isinstance(found := said.get("license"), str):
            return found
    card = file.parent / "README.md"
    if not (_beside(file) and card.is_file()):
        return ""
    try:
        head = card.read_text(encoding="utf-8").split("---")[1:2]
    except (OSError, UnicodeDecodeError):
        return ""
    match = re.search(r"^license: *(\S+) *$", "".join(head), re.MULTILINE)
    return match[1] if match else ""


def _json(file: pathlib.Path | None, path: str) -> dict[str, Any]:
    if file is None:
        return {}
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"weights {path}: {file.name} cannot be read ({error})") from None
    return _json_text(text, path, file.name)


def _json_text(text: str | None, path: str, name: str = "metadata") -> dict[str, Any]:
    if not text:
        return {}
    try:
        found = json.loads(text)
    except ValueError as error:
        raise UserError(f"weights {path}: its {name} is no JSON ({error})") from None
    if not isinstance(found, dict):
        raise UserError(f"weights {path}: its {name} holds {found!r}; expected an object")
    return found


def _of_timm(config: Mapping[str, Any]) -> dict[str, Any]:
    """What timm's `pretrained_cfg` says."""
    inner = config.get("pretrained_cfg")
    config = {**config, **(inner if isinstance(inner, Mapping) else {})}
    labels = config.get("label_names") or ()
    words = config.get("label_descriptions") or {}
    size = list(config.get("input_size") or ())
    return {
        "preprocess": _preprocess(
            config.get("mean"), config.get("std"), config.get("interpolation"), 255.0
        ),
        "image_size": int(size[-1]) if len(size) == 3 else None,
        "classes": tuple(str(words.get(label, label)) for label in labels),
    }


def _of_huggingface(config: Mapping[str, Any], processor: Mapping[str, Any]) -> dict[str, Any]:
    """What config.json and preprocessor_config.json of a Transformers model say."""
    names = config.get("id2label") or {}
    classes = tuple(str(names[key]) for key in sorted(names, key=int))
    if all(re.fullmatch(r"LABEL_\d+", name) for name in classes):
        classes = ()
    if not processor:
        return {"image_size": _size(config.get("image_size")), "classes": classes}
    factor = processor.get("rescale_factor", 1 / 255) if processor.get("do_rescale", True) else 1.0
    normalised = processor.get("do_normalize", True)
    preprocess = _preprocess(
        processor.get("image_mean") if normalised else (0, 0, 0),
        processor.get("image_std") if normalised else (1, 1, 1),
        _RESAMPLE.get(processor.get("resample", 2)),
        1 / factor,
        bgr=bool(processor.get("do_flip_channel_order")),
    )
    crop = processor.get("crop_size") if processor.get("do_center_crop", True) else None
    size = _size(crop) or _size(processor.get("size")) or _size(config.get("image_size"))
    return {"preprocess": preprocess, "image_size": size, "classes": classes}


def _size(value: Any) -> int | None:
    """The side of images in one of the forms that Transformers had."""
    if isinstance(value, Mapping):
        value = value.get("height") or value.get("shortest_edge")
    if isinstance(value, Sequence) and not isinstance(value, str) and value:
        value = value[0]
    return int(value) if isinstance(value, int | float) and value else None


def _preprocess(
    mean: Any, std: Any, interpolation: Any, scale: float, bgr: bool = False
) -> Preprocess | None:
    """None where there is no mean or no standard deviation."""
    if mean is None or std is None:
        return None
    # timm's "random" is bilinear or bicubic at each image.
    how: Interpolation = interpolation if interpolation in _RESAMPLE.values() else "bilinear"
    # 1 / 0.00392156862745098 is 255 but for rounding.
    scale = float(round(scale)) if abs(scale - round(scale)) < 1e-6 * scale else scale
    means, stds = _triple("mean", mean), _triple("std", std)
    found = Preprocess(scale, means, stds, "bgr" if bgr else "rgb", how)
    return next((known for known in PREPROCESS.values() if known == found), found)


def _triple(name: str, values: Any) -> tuple[float, float, float]:
    values = values if isinstance(values, Sequence) else [values] * 3
    if len(values) != 3 or not all(isinstance(value, int | float) for value in values):
        raise UserError(f"{name} is {values!r}; expected 3 numbers")
    first, second, third = map(float, values)
    return first, second, third


def _from_hub(name: str) -> pathlib.Path:
    """The folder, or the file, of a repository of the Hub, from the cache where it is there."""
    try:
        hub = importlib.import_module("huggingface_hub")
    except ImportError:
        raise UserError(f"weights hf:{name}: {formats.needs('huggingface_hub', 'hf')}") from None
    owner, _, rest = name.partition("/")
    repository, _, file = rest.partition("/")
    if not owner or not repository:
        raise UserError(
            f"weights hf:{name}: expected hf:OWNER/REPOSITORY or hf:OWNER/REPOSITORY/FILE"
        )
    wanted = [file] if file else list(_NAMES)
    for weights in wanted:
        folder = _snapshot(hub, f"{owner}/{repository}", weights)
        if (folder / weights).is_file():
            return folder / weights
    expected = " or ".join(wanted)
    raise UserError(f"weights hf:{name}: no {expected} in that repository")


def _snapshot(hub: Any, repository: str, weights: str) -> pathlib.Path:
    patterns = [weights, _CONFIG, _PREPROCESSOR]
    try:
        return pathlib.Path(hub.snapshot_download(repository, allow_patterns=patterns))
    # Whatever stands between here and there: no network, no such repository, no right to it.
    except Exception as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        line = f"weights hf:{repository}: cannot be downloaded and is not in the cache ({reason})"
        # That it is not in the cache is an error of its own, which the network's has caused.
        if any(map(object_store.may_pass, causes(error))):
            raise object_store.Unreachable(line) from error
        raise UserError(line) from None
