"""Entries of what transformers alone have: tokens, positions, heads, and blocks that are a loop."""

import math
from collections.abc import Callable, Sequence

import numpy as np

from ctl_jax.models.names import Entry, Shape
from ctl_jax.models.vit import resized_position


def split(ours: str, theirs: Sequence[str], axis: int) -> Entry:
    """One array of ours as several of theirs, of one entry along an axis each."""
    return Entry(
        (ours,),
        tuple(theirs),
        lambda arrays, _: [np.concatenate(arrays, axis)],
        lambda arrays: np.split(arrays[0], len(theirs), axis),
    )


def each_token(ours: str, theirs: Sequence[str]) -> Entry:
    """The heads of both tokens, kernels [2, inputs, outputs] or biases [2, outputs]."""
    return Entry(
        (ours,),
        tuple(theirs),
        lambda arrays, _: [np.stack([array.T for array in arrays])],
        lambda arrays: [array.T for array in arrays[0]],
    )


def position(ours: str, theirs: str, tokens: int) -> Entry:
    """Position embeddings, [1, positions, channels] in both; of another size they are resized."""
    return Entry(
        (ours,),
        (theirs,),
        lambda arrays, shapes: [resized_position(arrays[0], shapes[0][1], tokens)],
        lambda arrays: arrays,
        fits=False,
    )


def _rows(array: np.ndarray) -> np.ndarray:
    """[inputs, heads, width] as [heads * width, inputs], [heads, width] as [heads * width]."""
    return array.reshape(*array.shape[:-2], -1).T


def _unrows(array: np.ndarray, width: int) -> np.ndarray:
    return array.T.reshape(*array.shape[1:], -1, width)


def attention(query: str, name: Callable[[str], str]) -> list[Entry]:
    """Queries, keys and values: kernels [inputs, heads, width], or biases [heads, width]."""
    layer, _, array = query.removeprefix("params/").partition("/query/")
    paths = tuple(query.replace("/query/", f"/{part}/") for part in ("query", "key", "value"))
    suffix = "weight" if array == "kernel" else array
    try:
        theirs = [name(f"{layer}/qkv") + suffix]
    except KeyError:
        theirs = [name(f"{layer}/{part}") + suffix for part in ("query", "key", "value")]
        return [
            Entry(
                (path,),
                (their,),
                lambda arrays, shapes: [_unrows(arrays[0], shapes[0][-1])],
                lambda arrays: [_rows(arrays[0])],
            )
            for path, their in zip(paths, theirs, strict=True)
        ]

    def read(arrays: Sequence[np.ndarray], shapes: Sequence[Shape]) -> list[np.ndarray]:
        # Of a file whose heads are cut, each has as many as the others.
        rows = [math.prod(shape[-2:]) for shape in shapes]
        ends = np.cumsum(rows) * len(arrays[0]) // sum(rows)
        parts = np.split(arrays[0], ends[:-1])
        return [_unrows(part, shape[-1]) for part, shape in zip(parts, shapes, strict=True)]

    return [Entry(paths, tuple(theirs), read, lambda a: [np.concatenate([_rows(x) for x in a])])]


def out(ours: str, theirs: str) -> Entry:
    """The output's kernel, [heads, width, channels], theirs [channels, heads * width]."""
    return Entry(
        (ours,),
        (theirs,),
        lambda arrays, shapes: [arrays[0].T.reshape(-1, shapes[0][1], len(arrays[0]))],
        lambda arrays: [arrays[0].reshape(-1, arrays[0].shape[-1]).T],
    )


def stacked(blocks: Sequence[Entry]) -> Entry:
    """The same entry of each block as one of the loop over them, whose arrays are [depth, ...]."""
    each = len(blocks[0].theirs)

    def read(arrays: Sequence[np.ndarray], shapes: Sequence[Shape]) -> list[np.ndarray]:
        inner = [shape[1:] for shape in shapes]
        parts = [
            block.read(arrays[i * each : (i + 1) * each], inner) for i, block in enumerate(blocks)
        ]
        return [np.stack(part) for part in zip(*parts, strict=True)]

    return Entry(
        tuple(path.replace("/block1/", "/blocks/") for path in blocks[0].ours),
        tuple(name for block in blocks for name in block.theirs),
        read,
        lambda arrays: [
            array
            for i, block in enumerate(blocks)
            for array in block.write([array[i] for array in arrays])
        ],
    )
