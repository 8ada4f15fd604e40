"""The user's home and the folders that follow from it, and paths that begin with "~".

Containers and clusters run programs as users whose home is not there, cannot be written, or is not
known at all. Then a private folder among the temporary files stands in for it: for caches, never
for a path that the user wrote. This module imports no library, so that what it says of the
environment holds while others are imported.
"""

import contextlib
import functools
import hashlib
import os
import pathlib
import stat
import tempfile

from ctl_jax.errors import UserError

# Variables that name a folder, of this program and of the libraries below it.
_VARIABLES = (
    *("CTL_JAX_CACHE", "CTL_JAX_DATA", "CTL_JAX_IMPORTED", "NEVIS_DATA_DIR", "TFDS_DATA_DIR"),
    *("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "JAX_COMPILATION_CACHE_DIR"),
    *("MPLCONFIGDIR", "TMPDIR"),
)

# Of a name on nearly all file systems; and what a message shows of a longer path.
_MOST_BYTES, _SHOWN = 255, 80

# The home before `prepare` let another folder stand in for it.
_replaced: list[pathlib.Path | None] = []


def home() -> pathlib.Path | None:
    """The folder that "~" stands for: HOME, else that of the list of users; None if neither is."""
    if _replaced:
        return _replaced[0]
    # An empty or relative one would make "~/x" a folder of the root or of the current folder.
    if os.path.isabs(stated := os.environ.get("HOME", "")):
        return pathlib.Path(stated)
    try:
        import pwd  # Not on Windows.

        listed = pwd.getpwuid(os.getuid()).pw_dir
    except (ImportError, KeyError):
        return None
    return pathlib.Path(listed) if os.path.isabs(listed) else None


def expand(path: str | os.PathLike[str]) -> str:
    """A path with the home in place of a leading "~", and that of a user in place of "~user".

    Raises:
      UserError: there is no such home or user, or the path is longer than a system allows.
    """
    text = os.fspath(path)
    _check_length(text)
    first, slash, rest = text.partition("/")
    if not first.startswith("~"):
        return text
    if first == "~":
        if (folder := home()) is None:
            raise UserError(
                f"{text}: '~' is the home folder, but HOME is {os.environ.get('HOME', '')!r} and "
                f"this user has no other; expected a path without '~', or HOME set"
            )
        return f"{os.fspath(folder).rstrip('/')}{slash}{rest}" or "/"
    found = os.path.expanduser(first)
    if found != first:
        return f"{found}{slash}{rest}"
    # Shells leave such a name as it is, too, and files may be called so.
    if os.path.lexists(first):
        return text
    raise UserError(
        f"{text}: there is no user {first[1:]!r}; expected the name of one after '~', or "
        f"./{text} for a folder of that name"
    )


def in_utf8(folder: str | os.PathLike[str]) -> pathlib.Path:
    """The path of a folder, in UTF-8: its own, or else that of a link to it.

    TensorStore, ArrayRecord and XLA take no others. The folder is made where a link is needed.

    Raises:
      OSError: it cannot be made.
    """
    path = os.path.abspath(folder)
    try:
        path.encode()
        return pathlib.Path(folder)
    except UnicodeEncodeError:
        os.makedirs(path, exist_ok=True)
    name = hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
    link = _stand_in() / "links" / name
    link.parent.mkdir(mode=0o700, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        link.symlink_to(path, target_is_directory=True)
    return link


def from_variable(name: str) -> pathlib.Path | None:
    """The folder that a variable of the environment names, "~" expanded; None if it names none.

    Raises:
      UserError: there is no such home or user.
    """
    value = os.environ.get(name)
    if not value:
        return None
    try:
        return pathlib.Path(expand(value))
    except UserError as error:
        raise UserError(f"variable {name}: {error}") from None


def cache() -> pathlib.Path:
    """This program's part of the user's cache: ctl_jax in $XDG_CACHE_HOME, or .cache of the home.

    Raises:
      UserError: there is no home, and no folder for temporary files either.
    """
    return (from_variable("XDG_CACHE_HOME") or writable() / ".cache") / "ctl_jax"


def data() -> pathlib.Path:
    """This program's part of the user's data: ctl_jax in $XDG_DATA_HOME, or .local/share."""
    return (from_variable("XDG_DATA_HOME") or readable() / ".local/share") / "ctl_jax"


def readable() -> pathlib.Path:
    """The home where it can be read, else the private folder that stands in for it.

    Raises:
      UserError: there is no folder for temporary files either.
    """
    folder = home()
    if folder is not None and os.access(folder, os.R_OK | os.X_OK):
        return folder
    # It may be one that is yet to be made.
    return writable()


def writable() -> pathlib.Path:
    """The home where it can be written, else the private folder that stands in for it.

    Raises:
      UserError: there is no folder for temporary files either.
    """
    folder = home()
    return folder if folder is not None and _can_be_written(folder) else _stand_in()


def prepare() -> None:
    """Makes the environment fit for libraries that look at it; a program calls it before all else.

    Some of them take "~" in a variable for a folder of that name, and complain where they cannot
    write to the home.

    Raises:
      UserError: a variable names a home or a user that is not there, or nothing can be written.
    """
    for name in _VARIABLES:
        if os.environ.get(name, "").startswith("~"):
            os.environ[name] = str(from_variable(name))
    known = home()
    if (folder := writable()) != known:
        _replaced.append(known)
        os.environ.setdefault("MPLCONFIGDIR", str(folder / "matplotlib"))
    os.environ["HOME"] = str(folder)


def remark() -> str:
    """What a user should know of the home: one line, or nothing."""
    if (folder := writable()) == home() or from_variable("XDG_CACHE_HOME"):
        return ""
    why = "there is no home folder" if home() is None else f"the home {home()} cannot be written"
    return f"{why}; caches are in {folder}, for as long as temporary files last"


def is_temporary(folder: pathlib.Path) -> bool:
    """Whether a folder lies in the one that stands in for a home."""
    return writable() != home() and folder.is_relative_to(_stand_in())


def _check_length(text: str) -> None:
    """Sees whether each name of a path is as short as file systems want it."""
    longest = max(text.split("/"), key=len)
    if "://" not in text and len(os.fsencode(longest)) > _MOST_BYTES:
        raise UserError(
            f"{text[:_SHOWN]}...: a name of {len(os.fsencode(longest))} bytes; expected at most "
            f"{_MOST_BYTES} between two '/'"
        )


def _can_be_written(folder: pathlib.Path) -> bool:
    """Whether the folder is there and can be written, or can be made."""
    while not os.path.lexists(folder):
        folder = folder.parent
    return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)


@functools.cache
def _stand_in() -> pathlib.Path:
    """A folder of this user alone among the temporary files, the same each time if possible."""
    user = os.getuid() if hasattr(os, "getuid") else 0
    try:
        path = pathlib.Path(tempfile.gettempdir()) / f"ctl_jax-{user}"
        path.mkdir(mode=0o700, exist_ok=True)
        about = path.lstat()
        if stat.S_ISDIR(about.st_mode) and about.st_uid == user and not about.st_mode & 0o077:
            return path
        # Somebody else has taken the name, or may write to it.
        return pathlib.Path(tempfile.mkdtemp(prefix="ctl_jax-"))
    except OSError as error:
        raise UserError(
            f"HOME is {os.environ.get('HOME', '')!r}: expected a folder that can be written; "
            f"neither can one for temporary files be made ({error.strerror or error})"
        ) from None
