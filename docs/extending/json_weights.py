"""Weights as JSON: {"NAME": {"shape": [...], "values": [...]}, ...}."""

import json
import pathlib

import numpy as np

from ctl_jax.models.formats import File, Format


def matches(path: pathlib.Path, head: bytes) -> bool:
    """Whether a file's content is such: it begins with a brace, as no other format's does."""
    return head.lstrip().startswith(b"{")


def read(path: pathlib.Path) -> File:
    """The arrays of a file. What it raises where one is damaged becomes one line."""
    content = json.loads(path.read_text("utf-8"))
    return File(
        {
            name: np.asarray(array["values"], np.float32).reshape(array["shape"])
            for name, array in content.items()
        }
    )


FORMAT = Format("JSON file of weights", (".json",), matches, read, (KeyError, TypeError))
