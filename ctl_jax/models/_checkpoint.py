"""Our own checkpoints: variables of any widths, written by orbax, verified when read."""

import contextlib
import hashlib
import os
import pathlib
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from ctl_jax import files, home
from ctl_jax.errors import UserError

# Orbax notices a damaged index, but not a damaged array. As `sha256sum --check` reads it.
SUMS = "SHA256SUMS"
_SUM_LINE = re.compile(r"([0-9a-f]{64})  (.+)")


def content_hash(variables: Mapping[str, Any]) -> str:
    """SHA-256 over paths, shapes, dtypes and bytes of all arrays, in the order of their paths.

    Args:
      variables: a tree of arrays.

    Returns:
      64 hexadecimal digits; equal trees have equal ones, on every machine.
    """
    digest = hashlib.sha256()
    leaves, _ = jax.tree_util.tree_flatten_with_path(variables)
    named = {jax.tree_util.keystr(path): leaf for path, leaf in leaves}
    for path, leaf in sorted(named.items(), key=lambda item: item[0]):
        array = np.asarray(leaf)
        # Little-endian, row by row, whatever the machine and the layout in memory.
        array = array.astype(array.dtype.newbyteorder("<"), order="C")
        digest.update(f"{path} {array.shape} {array.dtype.name}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def save_checkpoint(
    path: str | os.PathLike[str],
    variables: Mapping[str, Any],
    *,
    beside: Mapping[str, bytes] | None = None,
) -> None:
    """Writes variables into a new directory `path`; one that is there already is replaced.

    The directory appears with its content complete or not at all.

    Args:
      path: of the directory, local or `gs://bucket/path`; its parent is made.
      variables: nested dicts of arrays, of any widths. In a group of processes each has all of
        them, and one calls this.
      beside: names and contents of files that belong to it.
    """
    if not files.is_remote(path):
        _save(path, variables, beside or {})
        return
    with tempfile.TemporaryDirectory() as folder:
        local = pathlib.Path(folder) / "checkpoint"
        _save(local, variables, beside or {})
        _upload(local, files.path(path))


def _save(
    path: str | os.PathLike[str], variables: Mapping[str, Any], beside: Mapping[str, bytes]
) -> None:
    final = pathlib.Path(path).absolute()
    final.parent.mkdir(parents=True, exist_ok=True)
    final = home.in_utf8(final.parent) / final.name
    # Orbax takes no name that is not UTF-8.
    name = final.name.encode(errors="ignore").decode()
    temporary = final.with_name(f".{name}.tmp")
    arrays = jax.tree.map(np.asarray, jax.device_get(dict(variables)))
    with _checkpointer() as checkpointer:
        checkpointer.save(temporary, args=ocp.args.PyTreeSave(arrays), force=True)
    for file, content in beside.items():
        (temporary / file).write_bytes(content)
    sums = [f"{digest}  {name}\n" for name, digest in _checksums(temporary).items()]
    (temporary / SUMS).write_text("".join(sums))
    if final.exists():
        old = final.with_name(f".{final.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        final.rename(old)
        temporary.rename(final)
        shutil.rmtree(old)
    else:
        temporary.rename(final)


def load_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The variables that `save_checkpoint` wrote to `path`; no template is needed.

    Args:
      path: of the directory, local or `gs://bucket/path`.

    Returns:
      Nested dicts of arrays on the default device.

    Raises:
      UserError: no such directory, no checkpoint, or a damaged one.
    """
    with verified(path) as directory:
        return read(path, directory)


@contextlib.contextmanager
def verified(path: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
    """The local directory of a checkpoint whose files are all as they were written.

    Args:
      path: of the directory, local or `gs://bucket/path`: then it is downloaded for as long as the
        context lasts.

    Raises:
      UserError: no such directory, no checkpoint, or a damaged one.
    """
    with contextlib.ExitStack() as stack:
        directory = pathlib.Path(path).absolute()
        if files.is_remote(path):
            directory = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
            _download(files.path(path), directory)
        if not directory.is_dir():
            raise UserError(f"checkpoint {path}: no such directory")
        if not (directory / SUMS).is_file():
            raise UserError(f"checkpoint {path}: no {SUMS}; expected what save_checkpoint wrote")
        _verify(path, directory)
        yield directory


def read(path: str | os.PathLike[str], directory: pathlib.Path) -> dict[str, Any]:
    """The arrays of a checkpoint `path` whose files are in the local `directory`."""
    directory = home.in_utf8(directory)
    with _checkpointer() as checkpointer:
        saved = getattr(checkpointer.metadata(directory).item_metadata, "tree", None)
        if not isinstance(saved, dict):
            raise UserError(f"checkpoint {path}: no variables; expected what save_checkpoint wrote")
        # As numpy arrays: orbax would ask for the devices that the arrays were saved from.
        types = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), saved)
        restored = checkpointer.restore(directory, args=ocp.args.PyTreeRestore(restore_args=types))
    return jax.tree.map(jnp.asarray, restored)


def _upload(local: pathlib.Path, remote: files.Path) -> None:
    """Directories cannot be renamed there: the list of sums comes last and makes it complete."""
    files.remove_tree(remote)

    def put(name: str) -> None:
        files.write_bytes(remote / name, (local / name).read_bytes())

    files.at_once(put, _checksums(local))
    put(SUMS)


def _download(remote: files.Path, local: pathlib.Path) -> None:
    def get(name: str) -> None:
        # An object's name may be anything; none leads out of the directory.
        if ".." not in name.split("/"):
            files.write_bytes(local / name, files.read_bytes(remote / name))

    files.at_once(get, files.tree(remote))


def _checkpointer() -> ocp.Checkpointer:
    """Of this process alone: in a group Orbax would wait for the others to call it too."""
    me = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(
        primary_host=me, active_processes={me}, barrier_sync_key_prefix=f"checkpoint{me}"
    )
    handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=alone)
    return ocp.Checkpointer(handler, multiprocessing_options=alone)


def _checksums(directory: pathlib.Path) -> dict[str, str]:
    """SHA-256 of every file but the list of them, by its path in the directory, sorted."""
    found = {name: _sha256(directory / name) for name in sorted(files.tree(directory))}
    found.pop(SUMS, None)
    return found


def _sha256(path: pathlib.Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _verify(path: str | os.PathLike[str], directory: pathlib.Path) -> None:
    """Sees whether each file that is listed is as it was; others are what sync tools leave."""
    *lines, end = (directory / SUMS).read_bytes().decode(errors="replace").split("\n")
    expected = [_SUM_LINE.fullmatch(line) for line in lines]
    if end or not expected or None in expected:
        raise UserError(f"checkpoint {path} is damaged: its file {SUMS!r} is not what was written")
    for digest, name in (match.groups() for match in expected if match):
        file = directory / name
        if not file.is_file() or _sha256(file) != digest:
            raise UserError(
                f"checkpoint {path} is damaged: its file {name!r} is not the one in {SUMS}"
            )
