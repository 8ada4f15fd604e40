"""What is done on a TPU VM: shell texts for `gcloud ... ssh --command`, and the code that it runs.

The program is started apart from the connection, so that neither a broken connection nor the end
of the launcher ends it. Its process number and exit status lie in memory: a VM that was rebooted
has none, and is started again.
"""

import gzip
import hashlib
import io
import pathlib
import shlex
import tarfile
from collections.abc import Sequence

from ctl_jax.errors import UserError
from launch import arguments

# What a launcher copies: what `pip install` and the configs need.
_SOURCES = ("ctl_jax", "configs", "pyproject.toml", "setup.py", "README.md")
_LEFT_OUT = ("__pycache__", ".pyc")

# Relative to the home folder on the VM.
ARCHIVE = "ctl_jax.tar.gz"
_FOLDER = "ctl_jax"
_STATE = "/dev/shm/ctl_jax"
# How a line of `poll` starts.
MARK = "ctl_jax status:"


def archive(source: pathlib.Path, config: str) -> bytes:
    """The code as a .tar.gz, the same bytes for the same code.

    Args:
      source: the checkout.
      config: the program's config file, relative to the checkout, with or without arguments.

    Raises:
      UserError: the checkout or the config file is not there.
    """
    names = list(_SOURCES)
    path = arguments.check_config(config, source)
    if path.parts[0] not in names:
        names.append(str(path))
    buffer = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for name in names:
            if not (source / name).exists():
                raise UserError(f"--source={source}: expected a checkout with {name!r} in it")
            # `add` goes through a folder's files in the order of their names.
            tar.add(source / name, arcname=name, filter=_plain)
    return buffer.getvalue()


def _plain(info: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Without what differs from one checkout to the next."""
    if info.name.endswith(_LEFT_OUT):
        return None
    info.mtime = info.uid = info.gid = 0
    info.uname = info.gname = ""
    return info


def key(*parts: bytes | str) -> str:
    """Tells one piece of work from another: its code, its set-up, its arguments."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(f"{len(data)} ".encode() + data)
    return digest.hexdigest()[:16]


def setup(work: str, install: str | None, command: str) -> str:
    """Installs the code that was copied to ARCHIVE, once for each `work`.

    Args:
      work: a key.
      install: what pip installs instead of the copied code; None for that.
      command: the user's own shell command, run at the end; "" for none.
    """
    package = "./code[gcs]" if install is None else install
    lines = [
        "set -e",
        f"mkdir -p {_FOLDER} && cd {_FOLDER}",
        f'if [ "$(cat ready 2>/dev/null)" = {work} ]; then exit 0; fi',
        *_stop(),
        "rm -rf code && mkdir code",
        f"tar -xzf ../{ARCHIVE} -C code",
        # The system's Python is older than 3.11 on most TPU VMs; uv brings one.
        'export PATH="$HOME/.local/bin:$PATH"',
        "command -v uv >/dev/null ||",
        "  { curl -LsSf https://astral.sh/uv/install.sh -o uv.sh && sh uv.sh; }",
        "uv venv --quiet --allow-existing --python 3.12 venv",
        f"uv pip install --quiet --python venv/bin/python 'jax[tpu]' {shlex.quote(package)}",
    ]
    if command:
        # In a shell of its own: its `cd` or `exit` is its own too.
        lines.append(f"bash -c {shlex.quote(command)}")
    lines.append(f"echo {work} > ready")
    return "\n".join(lines)


def _stop() -> list[str]:
    """Lines that tell a running program to stop and wait for it; it saves its work."""
    return [
        f'pid="$(cat {_STATE}/pid 2>/dev/null || true)"',
        'if [ -n "$pid" ] && kill -TERM "$pid" 2>/dev/null; then',
        "  for i in $(seq 180); do",
        '    kill -0 "$pid" 2>/dev/null || break; sleep 1',
        "  done",
        '  kill -KILL "$pid" 2>/dev/null || true',
        "fi",
    ]


def start(work: str, flags: Sequence[str]) -> str:
    """Starts the program, unless it runs already; another that was started here stops.

    Args:
      work: a key.
      flags: of `ctl_jax.main`.
    """
    program = shlex.join(["../venv/bin/python", "-m", "ctl_jax.main", *flags])
    ending = f"echo $? > {_STATE}/{work}.new; mv {_STATE}/{work}.new {_STATE}/{work}.status"
    # Background and `wait`: the number in `pid` is the program's, and the shell outlives it.
    begin = f"echo $$ > {_STATE}/shell; {program} & echo $! > {_STATE}/pid"
    inner = shlex.quote(f"{begin}; wait $!; {ending}")
    return "\n".join(
        [
            "set -e",
            f"mkdir -p {_STATE} && cd {_FOLDER}/code",
            f'if [ "$(cat {_STATE}/key 2>/dev/null)" = {work} ] &&',
            f"  [ ! -f {_STATE}/{work}.status ] &&",
            f'  kill -0 "$(cat {_STATE}/shell)" 2>/dev/null; then exit 0; fi',
            # Two programs cannot have the TPU.
            *_stop(),
            f"rm -f {_STATE}/shell {_STATE}/pid {_STATE}/{work}.status",
            f"echo {work} > {_STATE}/key",
            f"setsid nohup bash -c {inner} >> ../log 2>&1 < /dev/null &",
            f"for i in $(seq 100); do if [ -s {_STATE}/pid ]; then exit 0; fi; sleep 0.1; done; "
            f"echo 'no process number in {_STATE} after 10 s' >&2; exit 1",
        ]
    )


def poll(work: str) -> str:
    """Prints MARK and how `work` is: running, its exit status, "gone", or "other".

    With "other" the VM does other work, or none, e.g. since it was rebooted. The last line of the
    log follows.
    """
    return "\n".join(
        [
            # The shell first: once it has ended the status is there, unless the VM was rebooted.
            f'if kill -0 "$(cat {_STATE}/shell)" 2>/dev/null; then s=running; else s=gone; fi',
            f"if [ -f {_STATE}/{work}.status ]; then s=$(cat {_STATE}/{work}.status); fi",
            f'if [ "$(cat {_STATE}/key 2>/dev/null)" != {work} ]; then s=other; fi',
            f'echo "{MARK} $s"',
            f"tail -n 1 {_FOLDER}/log 2>/dev/null || true",
        ]
    )


def tail(lines: int) -> str:
    """Prints the end of the log."""
    return f"tail -n {lines} {_FOLDER}/log"
