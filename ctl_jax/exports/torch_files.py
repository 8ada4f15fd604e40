"""For PyTorch: safetensors with a library's names, and a small program that runs them."""

import json
import pathlib
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict
from safetensors.numpy import save

from ctl_jax.exports import _views
from ctl_jax.exports._graph import Graph, Node, trace
from ctl_jax.models import names
from ctl_jax.models.functional import reads_last
from ctl_jax.models.model import Model, describe
from ctl_jax.models.sources import OWN_METADATA

_LOADER = pathlib.Path(__file__).with_name("load_torch.py")


def files(model: Model) -> dict[str, bytes]:
    """The files of the export, by name.

    model.safetensors holds the arrays by the names of the library that the weights came from, else
    of the likeliest one that has the family, at the widths that the model has; by our own paths,
    "params/head/kernel", in our layout, where no library has it or a head such as its. graph.json
    is the forward pass, which load_torch.py runs.

    Raises:
      UserError: the network does something that the graph has no form for.
    """
    ours = {
        path: np.asarray(array)
        for path, array in flatten_dict(dict(model.variables), sep="/").items()
    }
    graph = trace(model, named=True)
    naming = _naming(model)
    # For `load_pretrained`, which need not guess then.
    shapes = {path: array.shape for path, array in ours.items()}
    about = json.dumps({**describe(model), "shapes": shapes}, ensure_ascii=False)
    theirs, nodes = ours, []
    if naming is not None:
        theirs = names.write(naming, ours)
        nodes = _views.nodes(naming, shapes, {name: array.shape for name, array in theirs.items()})
    return {
        "model.safetensors": _to_safetensors(theirs, {"format": "pt", OWN_METADATA: about}),
        "graph.json": _to_json(graph, nodes).encode(),
        _LOADER.name: _LOADER.read_bytes(),
    }


def _naming(model: Model) -> names.Naming | None:
    """The names that its arrays get; no library has one for a head on taps, or a second network."""
    module = model.module
    if not reads_last(module, model.variables, model.image_size):
        return None
    known = [
        naming
        for naming in names.of_module(module)
        if all(getattr(module, field) == value for field, value in naming.requires.items())
    ]
    came_from = [naming for naming in known if naming.library == model.notes.get("library")]
    # Of the others Keras's are of no use to PyTorch.
    return next(iter([*came_from, *(each for each in known if each.library != "keras")]), None)


def _to_safetensors(arrays: dict[str, np.ndarray], metadata: dict[str, str]) -> bytes:
    """A file that is the same each time: the library writes metadata in any order."""
    content = save(arrays, metadata=metadata)
    # The header's length, the header, and arrays at places that count from its end.
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    text = json.dumps({**header, "__metadata__": metadata}, sort_keys=True)
    padded = text.encode() + b" " * (-len(text) % 8)
    return len(padded).to_bytes(8, "little") + padded + content[8 + length :]


def _to_json(graph: Graph, first: list[Node]) -> str:
    """The graph, after operations that make our arrays of the file's."""
    content: dict[str, Any] = {
        "output": graph.output,
        "static": len(first) + graph.static,
        "constants": {
            name: [value.dtype.name, value.tolist()] for name, value in graph.constants.items()
        },
    }
    lines = ",\n".join(json.dumps(node) for node in (*first, *graph.nodes))
    return f'{json.dumps(content)[:-1]}, "nodes": [\n{lines}\n]}}\n'
