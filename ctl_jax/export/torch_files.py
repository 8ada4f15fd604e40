"""For PyTorch: safetensors with a library's names, and a small program that runs them."""

import json
import pathlib
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict
from safetensors.numpy import save

from ctl_jax.export import views
from ctl_jax.export.graph import Graph, Node, trace
from ctl_jax.models import names
from ctl_jax.models.model import Model

_LOADER = pathlib.Path(__file__).with_name("load_torch.py")


def files(model: Model) -> dict[str, bytes]:
    """The files of the export, by name.

    model.safetensors holds the arrays by the names of the library that the weights came from, else
    of the likeliest one that has the family, at the widths that the model has; by our own paths,
    "params/head/kernel", in our layout, where no library has it. graph.json is the forward pass,
    which load_torch.py runs.

    Raises:
      UserError: the network does something that the graph has no form for.
    """
    ours = {
        path: np.asarray(array)
        for path, array in flatten_dict(dict(model.variables), sep="/").items()
    }
    graph = trace(model, named=True)
    naming = _naming(model)
    theirs, nodes = ours, []
    if naming is not None:
        theirs = names.write(naming, ours)
        shapes = {path: array.shape for path, array in ours.items()}
        nodes = views.nodes(naming, shapes, {name: array.shape for name, array in theirs.items()})
    return {
        "model.safetensors": save(theirs, metadata={"format": "pt"}),
        "graph.json": _to_json(graph, nodes).encode(),
        _LOADER.name: _LOADER.read_bytes(),
    }


def _naming(model: Model) -> names.Naming | None:
    """The names that its arrays get."""
    module = model.module
    known = [
        naming
        for naming in names.of_module(module)
        if all(getattr(module, field) == value for field, value in naming.requires.items())
        and naming.library != "keras"
    ]
    came_from = [naming for naming in known if naming.library == model.notes.get("library")]
    return next(iter([*came_from, *known]), None)


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
