"""Anybody's weights as a model: what network a file is of, and what it expects of images."""

import dataclasses
import os
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict

from ctl_jax.errors import UserError, naming
from ctl_jax.models import _weights, heads, matching, model
from ctl_jax.models.matching import Match
from ctl_jax.models.model import Model
from ctl_jax.models.names import Entry, Naming, Network, Shape, Shapes, namings, of_module
from ctl_jax.models.preprocess import PREPROCESS, Preprocess
from ctl_jax.models.registry import create
from ctl_jax.models.sources import Source, open_source

# Of networks of which nobody says it.
_IMAGE_SIZE = 224
# Exceptions of a family's table where it is asked about another family's arrays.
_FOREIGN = (LookupError, TypeError, ValueError, AttributeError, StopIteration)


def load_pretrained(
    path: str | os.PathLike[str],
    *,
    name: str = "",
    options: Mapping[str, Any] | None = None,
    image_size: int | None = None,
) -> Model:
    """A model of a file's or a folder's weights, with their own classifier where there is one.

    What network it is, its options and what it expects of an image follow from names, shapes, the
    file's name, and a config.json beside it (timm's, or Hugging Face's with
    preprocessor_config.json).

    Args:
      path: of a file (safetensors, .npz, Keras's .h5, PyTorch's, Flax's msgpack), of a folder with
        one, of a model's or a checkpoint's folder of ours, or "hf:OWNER/REPOSITORY".
      name: the network, one of `NAMES`, in place of what the file seems to be of.
      options: of the network, as for `create`, in place of those that the file seems to have.
      image_size: side of the images that it is to be used on, in pixels. Position embeddings are
        resized for it. Without it, what the weights are for.

    Returns:
      The model. Its head is the original classifier; where there is none, one output of zeros. Its
      notes say where the weights are from, whose names they have, and in "remarks" what was done
      that is not plain.

    Raises:
      UserError: nothing there, or nothing that can be read; a network that is not known; names that
        are missing, unmatched or mis-shaped, all at once; or an array that is no float, not finite,
        or a variance below 0.

    Example:
      >>> pretrained = load_pretrained("resnet50.a1_in1k.safetensors")
      >>> pretrained.architecture, pretrained.image_size
      ('resnet50', 224)
      >>> logits = pretrained(images)
    """
    chosen = dict(options or {})
    if model.is_model(path):
        return _ours(path, name, chosen, image_size)
    source = open_source(path)
    with naming(f"weights {path}"):
        network, found = _find(source, name, chosen, image_size)
        result = _model(source, network, found, image_size)
        if source.own or source.exported:
            size = network.image_size if source.exported else result.image_size
            matching.check_widths(result.module, result.variables, size)
        if source.exported and image_size not in (None, network.image_size):
            result = _resized(result, image_size)
    return result


def _model(source: Source, network: Network, found: Match, image_size: int | None) -> Model:
    outputs, exported = found.shapes["params/head/bias"][-1], source.exported
    remarks = [*source.remarks, *network.remarks, *found.remarks]
    classes = source.classes or tuple(exported.get("classes", ()))
    if classes and len(classes) != outputs:
        remarks.append(f"{len(classes)} names of classes were left out: it has {outputs}")
        classes = ()
    notes = {"weights": source.path, "library": found.naming.library}
    notes |= {"license": source.license} if source.license else {}
    return Model(
        network.name,
        network.options,
        matching.variables_of(found),
        network.preprocess,
        image_size or network.image_size,
        classes,
        exported.get("compute_dtype", "float32"),
        {**exported.get("notes", {}), **notes, **({"remarks": remarks} if remarks else {})},
        multi_label=exported.get("multi_label", False),
    )


def _ours(
    path: str | os.PathLike[str], name: str, options: Mapping[str, Any], image_size: int | None
) -> Model:
    """A model's folder of ours."""
    found = model.load(path)
    with naming(f"weights {path}"):
        if name not in ("", found.architecture):
            raise UserError(f"they are of {found.architecture}; expected {name}")
        for key, value in options.items():
            if (own := getattr(found.module, key, None)) != value:
                raise UserError(f"their {key} is {own!r}; expected {value!r}")
        return found if image_size in (None, found.image_size) else _resized(found, image_size)


def _resized(found: Model, image_size: int) -> Model:
    """A model for images of another size: what depends on it is made as of a library's file."""
    flat = {path: np.asarray(a) for path, a in flatten_dict(found.variables, sep="/").items()}
    wanted = matching.shapes_of(found.module, image_size)
    # The head, whatever its form, depends on no size.
    shapes = {
        path: shape if path.startswith("params/head/") else flat[path].shape
        for path, shape in wanted.items()
    }
    for known in of_module(found.module)[:1]:
        for entry in known.entries(shapes):
            if not entry.fits:
                for second in ("", f"{heads.ENSEMBLE}/"):
                    _resize(entry, flat, wanted, second)
    variables = matching.unflatten(flat)
    return dataclasses.replace(found, variables=variables, image_size=image_size)


def _resize(entry: Entry, flat: dict[str, np.ndarray], wanted: Shapes, second: str) -> None:
    """Replaces the arrays of an entry, of the first or the second network of an ensemble."""
    kind, _, rest = entry.ours[0].partition("/")
    if f"{kind}/{second}{rest}" not in flat:
        return
    ours = [path.replace("/", f"/{second}", 1) for path in entry.ours]
    theirs = entry.write([flat[path] for path in ours])
    flat |= zip(ours, entry.read(theirs, [wanted[path] for path in entry.ours]), strict=True)


def _find(
    source: Source, name: str, options: Mapping[str, Any], image_size: int | None
) -> tuple[Network, Match]:
    """The network that a source is of, and how its arrays fit it."""
    if source.exported or source.own:
        network = _exported(source.exported) if source.exported else _of_own_names(source, name)
        network = _chosen(network, name, options)
        return network, _fitted(source, network, image_size)
    found = [
        (network, match)
        for candidate in _weights.recognised(source)
        if (network := _chosen(_told(source, candidate), name, options))
        and (match := _by_candidate(candidate, network, image_size))
    ]
    if not found and name:
        network = _told_nothing(name, options, source)
        return network, _fitted(source, network, image_size)
    if not found:
        known = sorted({each.family.__name__ for each in namings()})
        some = ", ".join(sorted(source.arrays)[:3]) or "no array at all"
        raise UserError(
            f"{len(source.arrays)} names of no network that is known, such as {some}; expected "
            f"those of one of {', '.join(known)}"
        )
    found.sort(key=lambda pair: (pair[1].problems, pair[1].naming.library != source.library))
    network, match = found[0]
    if match.problems:
        raise UserError(f"as {match.naming.library}'s {network.name}: {match.describe()}")
    fields = network[:2]
    others = [n for n, m in found if not m.problems and n[:2] != fields]
    if others and match.naming.library != source.library:
        both = " or ".join(f"{n.name} with {n.options}" for n in (network, *others))
        raise UserError(f"they may be of {both}; expected the options to say which")
    _weights.check_required(match.naming, create(network.name, 1, **network.options))
    return network, match


def _chosen(network: Network, name: str, options: Mapping[str, Any]) -> Network:
    """The network with what the user says in place of what was found."""
    if name in ("", network.name):
        return network._replace(options={**network.options, **options})
    return network._replace(name=name, options=dict(options))


def _told(source: Source, candidate: _weights.Candidate) -> Network:
    """The network by what stands beside its weights."""
    network = candidate.network
    if source.library == candidate.naming.library:
        network = candidate.naming.configure(network, source.config)
    return network._replace(
        preprocess=source.preprocess or network.preprocess,
        image_size=source.image_size or network.image_size,
        remarks=() if source.config else network.remarks,
    )


def _told_nothing(name: str, options: Mapping[str, Any], source: Source) -> Network:
    """A network of which the user says all that is known."""
    # Our own checkpoints are of trainings here.
    preprocess = source.preprocess or PREPROCESS["nevis" if source.own else "imagenet"]
    return Network(name, dict(options), preprocess, source.image_size or _IMAGE_SIZE)


def _by_candidate(
    candidate: _weights.Candidate, network: Network, image_size: int | None
) -> Match | None:
    """None where the network is of another family."""
    module = create(network.name, 1, **network.options)
    if type(module) is not candidate.naming.family:
        return None
    shapes = matching.shapes_of(module, image_size or network.image_size)
    spare = candidate.spare
    return matching.match(candidate.naming, module, shapes, candidate.named, spare=spare)


def _fitted(source: Source, network: Network, image_size: int | None) -> Match:
    module = create(network.name, 1, **network.options)
    if source.exported:
        shapes = _exported_shapes(source, matching.shapes_of(module, network.image_size))
    else:
        shapes = matching.shapes_of(module, image_size or network.image_size)
    return _weights.best_match(source, module, shapes)


def _exported_shapes(source: Source, whole: Shapes) -> Shapes:
    """Of a pruned network its own: a library may hold several layers in one array.

    A head of another form, and a second network, have arrays of their own.
    """
    try:
        shapes = {path: tuple(shape) for path, shape in dict(source.exported["shapes"]).items()}
        known = [path for path in whole if not path.startswith("params/head/")]
        same = all(len(shapes[path]) == len(whole[path]) for path in known)
    except (KeyError, TypeError, ValueError):
        same = False
    if not same:
        raise UserError("its metadata is not what export wrote: other shapes")
    return shapes


def _exported(content: Mapping[str, Any]) -> Network:
    """What our own export says that it wrote."""
    try:
        preprocess = Preprocess.parse(content["preprocess"])
        options, size = dict(content["options"]), int(content["image_size"])
        return Network(content["architecture"], options, preprocess, size)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"its metadata is not what export wrote ({error!r})") from None


def _of_own_names(source: Source, name: str) -> Network:
    """What network our own names are of: the one whose names in a library are recognised.

    Raises:
      UserError: none, or one whose library is not known here; the user has to say it.
    """
    shapes = {path: array.shape for path, array in source.arrays.items()}
    for known in namings():
        try:
            theirs = _written(known, shapes)
            network = known.recognise(theirs, source.hint)
            if network and _paths(network) == shapes.keys():
                return network
        except _FOREIGN:
            continue
    if name:
        return _told_nothing(name, {}, source)
    raise UserError("they do not say what network they are of; expected config.model.name")


def _written(known: Naming, shapes: Shapes) -> Shapes:
    """The shapes that a network's arrays have by a library's names."""
    theirs: dict[str, Shape] = {}
    for entry in known.entries(shapes):
        arrays = entry.write(matching.zeros([shapes[path] for path in entry.ours]))
        theirs |= {n: a.shape for n, a in zip(entry.theirs, arrays, strict=True)}
    return theirs


def _paths(network: Network) -> Collection[str]:
    module = create(network.name, 1, **network.options)
    return matching.shapes_of(module, network.image_size).keys()
