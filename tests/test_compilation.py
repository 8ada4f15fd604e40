"""Compiled programs on disk: a second process compiles nothing."""

import json
import os
import pathlib
import subprocess
import sys
import time
import zlib

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache

from ctl_jax import compilation, home
from ctl_jax.errors import UserError

# Counts what JAX says of its cache, as the last line.
PROGRAMS = """
import collections, json, sys
import jax
from ctl_jax import compilation

events = collections.Counter()
jax.monitoring.register_event_listener(lambda name, **_: events.update([name.split("/")[-1]]))
folder = compilation.enable_cache()
weights = jax.numpy.ones((8, 8))
jax.jit(lambda x: jax.nn.relu(x @ x).sum())(weights).block_until_ready()
(weights + 1).block_until_ready()
print(json.dumps({"folder": str(folder), **events}))
"""


def _start(cache, **env):
    env = {**os.environ, "JAX_PLATFORMS": "cpu", "CTL_JAX_CACHE": str(cache), **env}
    arguments = [sys.executable, "-c", PROGRAMS]
    return subprocess.Popen(
        arguments, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env
    )


def _events(process):
    output, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (0, "")
    return json.loads(output)


def test_a_second_process_compiles_nothing(tmp_path):
    # Two at once, of an empty cache.
    first, other = _start(tmp_path), _start(tmp_path)
    first, other = _events(first), _events(other)
    assert first["folder"] == other["folder"]
    assert pathlib.Path(first["folder"]).parent == tmp_path / "xla"
    assert first.get("cache_misses", 0) + other.get("cache_misses", 0) > 0

    # One that a killed process left half written, too.
    folder = pathlib.Path(first["folder"])
    damaged = max(folder.glob("*-cache"), key=lambda path: path.stat().st_size)
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[: len(whole) // 2])
    third = _events(_start(tmp_path))
    assert third["cache_misses"] == 1
    assert third["cache_hits"] == third["compile_requests_use_cache"] - 1
    assert compilation._is_whole(damaged.read_bytes())

    fourth = _events(_start(tmp_path))
    assert "cache_misses" not in fourth
    assert fourth["cache_hits"] == fourth["compile_requests_use_cache"] > 2


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache of the test's own, and JAX's settings as they were afterwards."""
    monkeypatch.setenv("CTL_JAX_CACHE", str(tmp_path))
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in names}
    jax.config.update("jax_compilation_cache_dir", None)
    yield tmp_path / "xla"
    for name, value in before.items():
        jax.config.update(name, value)


def test_the_cache_is_the_user_s_own(cache):
    folder = compilation.enable_cache()
    assert folder is not None
    assert folder.parent == cache
    assert folder.stat().st_mode & 0o777 == 0o700
    assert jax.config.jax_compilation_cache_dir == str(folder)
    assert jax.config.jax_persistent_cache_min_compile_time_secs == 0


def test_where_it_is_without_the_variable(monkeypatch, tmp_path):
    monkeypatch.delenv("CTL_JAX_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert compilation.cache_dir() == tmp_path / "ctl_jax" / "xla"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert compilation.cache_dir() == tmp_path / ".cache" / "ctl_jax" / "xla"


def test_the_user_s_choice_stays(cache, monkeypatch):
    jax.config.update("jax_compilation_cache_dir", "elsewhere")
    assert compilation.enable_cache() is None
    assert jax.config.jax_compilation_cache_dir == "elsewhere"

    jax.config.update("jax_compilation_cache_dir", None)
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        assert compilation.enable_cache() is None
    finally:
        jax.config.update("jax_enable_compilation_cache", True)
    assert jax.config.jax_compilation_cache_dir is None
    assert not cache.exists()

    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "7")
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 7.0)
    assert compilation.enable_cache() is not None
    assert jax.config.jax_persistent_cache_min_compile_time_secs == 7


def test_without_a_folder_there_is_a_warning_and_no_cache(cache, caplog):
    cache.write_text("a file in the way")
    assert compilation.enable_cache() is None
    assert jax.config.jax_compilation_cache_dir is None
    assert "compiled programs are not kept" in caplog.text
    assert "CTL_JAX_CACHE names another folder" in caplog.text


def test_without_a_home_or_temporary_files_there_is_a_warning_and_no_cache(
    cache, caplog, monkeypatch
):
    def homeless():
        raise UserError("HOME is '': expected a folder that can be written")

    monkeypatch.delenv("CTL_JAX_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(home, "writable", homeless)
    assert compilation.enable_cache() is None
    assert "not kept: HOME is '': expected a folder" in caplog.text


def test_a_read_only_cache_is_read(cache, caplog, monkeypatch):
    folder = compilation.enable_cache()
    jax.config.update("jax_compilation_cache_dir", None)

    def refuse(folder):
        raise OSError(30, "Read-only file system")

    # The tests may run as root, whom no permission stops.
    monkeypatch.setattr(compilation, "_check_writable", refuse)
    assert compilation.enable_cache() == folder
    assert "none is added: Read-only file system" in caplog.text
    # Nothing takes so long to compile: JAX does not try to write, and does not warn each time.
    assert jax.config.jax_persistent_cache_min_compile_time_secs > 1e6
    assert jax.config.jax_compilation_cache_dir == str(folder)


def test_a_folder_that_others_can_write_is_not_used(cache, caplog):
    folder = compilation.enable_cache()
    assert folder is not None
    jax.config.update("jax_compilation_cache_dir", None)
    folder.chmod(0o777)
    assert compilation.enable_cache() is None
    assert "another user can write to" in caplog.text
    assert jax.config.jax_compilation_cache_dir is None


def test_machines_are_told_apart(monkeypatch):
    here = compilation._machine()
    assert here == compilation._machine()
    assert jax.__version__ in here
    text = pathlib.Path("/proc/cpuinfo").read_text()
    for old, new in [("fpu", "fpu avx99"), ("asimd", "asimd sve99")]:
        if old in text:
            other = text.replace(old, new)
            with monkeypatch.context() as patch:
                patch.setattr(pathlib.Path, "read_text", lambda _, text=other: text)
                assert compilation._machine() != here
    # What changes while a machine runs does not count.
    faster = "\n".join(
        f"{line}9" if line.startswith(("cpu MHz", "microcode")) else line
        for line in text.split("\n")
    )
    monkeypatch.setattr(pathlib.Path, "read_text", lambda _: faster)
    assert compilation._machine() == here
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(999), raising=False)
    assert compilation._machine() != here


def test_an_entry_that_another_process_is_writing_is_no_news(cache):
    folder = compilation.enable_cache()
    assert folder is not None

    def compile_it():  # A new function each time, which JAX has not in memory.
        jax.jit(lambda x: x * 2.5).lower(1.0).compile()

    compilation_cache.reset_cache()
    try:
        compile_it()
        (entry,) = folder.glob("*-cache")
        entry.write_bytes(entry.read_bytes()[:-9])
        # JAX's warning would be an error here.
        compile_it()
    finally:
        compilation_cache.reset_cache()


def test_damaged_entries_go_and_are_looked_at_once(cache, monkeypatch):
    folder = compilation.enable_cache()
    assert folder is not None
    good = zlib.compress(b"program" * 100)
    (folder / "a-cache").write_bytes(good)
    (folder / "b-cache").write_bytes(good[:-5])
    (folder / "c-cache").write_bytes(b"")
    # Zstandard's magic number, and nothing behind it.
    (folder / "d-cache").write_bytes(b"\x28\xb5\x2f\xfd")
    compilation._remove_damaged(folder)
    assert [path.name for path in folder.glob("*-cache")] == ["a-cache"]

    old = time.time() - 3600
    os.utime(folder / "a-cache", (old, old))
    monkeypatch.setattr(compilation, "_is_whole", lambda _: pytest.fail("looked at again"))
    compilation._remove_damaged(folder)


def test_an_entry_by_zstandard_is_read():
    zstandard = pytest.importorskip("zstandard")
    entry = zstandard.compress(b"program" * 100)
    assert compilation._is_whole(entry)
    assert not compilation._is_whole(entry[:-5])


def test_the_size_is_bounded(cache):
    folder = compilation.enable_cache()
    assert folder is not None
    jax.config.update("jax_compilation_cache_dir", None)
    # A folder of an older version counts, and its programs are the first to go.
    old = cache / "jax-0.1"
    old.mkdir()
    for number in range(10):
        path = (old if number < 3 else folder) / f"{number}-cache"
        path.write_bytes(zlib.compress(os.urandom(1000)))
        os.utime(path, (1e9 + number, 1e9 + number))
    compilation.enable_cache(max_bytes=12_000)
    assert len(list(cache.rglob("*-cache"))) == 10
    jax.config.update("jax_compilation_cache_dir", None)
    compilation.enable_cache(max_bytes=6000)
    left = sorted(path.name for path in cache.rglob("*-cache"))
    assert left == [f"{number}-cache" for number in range(6, 10)]
