"""The user's home, folders that follow from it, and what stands in where there is none."""

import os
import pathlib
import stat
import tempfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctl_jax import compilation, data, home
from ctl_jax.data import cache
from ctl_jax.data.sources import dm_nevis, imported, synthetic, tfds
from ctl_jax.errors import UserError


@pytest.fixture
def alone(tmp_path, monkeypatch):
    """A user with a home, a folder for temporary files, and no variable that names another."""
    for name in home._VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name in ("home", "tmp"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    monkeypatch.setattr(home, "_replaced", [])
    home._stand_in.cache_clear()
    yield tmp_path
    home._stand_in.cache_clear()


@pytest.fixture
def homeless(alone, monkeypatch):
    """One without HOME, whom the list of users does not have either."""
    pwd = pytest.importorskip("pwd")

    def unknown(number):
        raise KeyError(f"getpwuid(): uid not found: {number}")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.delenv("HOME")
    return alone


@pytest.fixture
def unwritable(alone, monkeypatch):
    """One whose home can only be read; root could write to any folder."""
    monkeypatch.setattr(
        os, "access", lambda folder, mode: not (alone / "home" == folder and mode & os.W_OK)
    )
    return alone


def test_the_home_and_what_follows(alone):
    folder = alone / "home"
    assert home.home() == home.writable() == folder
    assert home.expand("~") == str(folder)
    assert home.expand("~/x/~") == f"{folder}/x/~"
    assert home.cache() == folder / ".cache/ctl_jax"
    assert home.remark() == ""
    assert compilation.cache_dir() == folder / ".cache/ctl_jax/xla"
    assert cache.cache_dir() == folder / ".cache/ctl_jax/images"
    assert synthetic.default_dir() == folder / ".cache/ctl_jax/tfds"
    assert imported.default_dir() == folder / ".local/share/ctl_jax/imported"
    assert tfds.default_dir() == folder / "tensorflow_datasets"


@pytest.mark.parametrize("text", ["", "x", "/x/~", "./~/x", "x/~y", "-~", "é/\udce9"])
def test_other_paths_stay_as_they_are(alone, text):
    assert home.expand(text) == text


def test_a_path_may_be_an_object(alone):
    assert home.expand(pathlib.Path("~/x")) == f"{alone}/home/x"


def test_the_root_may_be_a_home(alone, monkeypatch):
    monkeypatch.setenv("HOME", "/")
    assert (home.expand("~"), home.expand("~/x")) == ("/", "/x")


@pytest.mark.parametrize("stated", ["", "relative/home", "."])
def test_a_home_that_is_none_is_looked_up(alone, monkeypatch, stated):
    """With an empty one "~/x" would be /x, with a relative one it would follow the program."""
    pwd = pytest.importorskip("pwd")
    monkeypatch.setenv("HOME", stated)
    assert str(home.home()) == pwd.getpwuid(os.getuid()).pw_dir


def test_another_user(alone):
    pwd = pytest.importorskip("pwd")
    user = pwd.getpwall()[0]
    assert home.expand(f"~{user.pw_name}/x") == f"{user.pw_dir.rstrip('/')}/x"
    with pytest.raises(UserError, match=r"^~nobody-here/x: there is no user 'nobody-here'; .*\./~"):
        home.expand("~nobody-here/x")


def test_a_file_may_be_called_so(alone, monkeypatch):
    monkeypatch.chdir(alone)
    (alone / "~nobody-here").mkdir()
    assert home.expand("~nobody-here/x") == "~nobody-here/x"


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("CTL_JAX_CACHE", cache.cache_dir),
        ("CTL_JAX_CACHE", lambda: compilation.cache_dir().parent),
        ("CTL_JAX_DATA", synthetic.default_dir),
        ("CTL_JAX_IMPORTED", imported.default_dir),
        ("TFDS_DATA_DIR", tfds.default_dir),
        ("NEVIS_DATA_DIR", lambda: dm_nevis.default_dirs()[0]),
        ("XDG_CACHE_HOME", lambda: home.cache().parent),
        ("XDG_DATA_HOME", lambda: home.data().parent),
    ],
)
def test_variables_are_expanded(alone, monkeypatch, name, folder):
    monkeypatch.setenv(name, "~/x")
    assert folder() == alone / "home/x"
    monkeypatch.setenv(name, "~nobody-here/x")
    with pytest.raises(UserError, match=f"^variable {name}: ~nobody-here/x: there is no user"):
        folder()


def test_without_a_home_a_private_folder_holds_caches(homeless):
    folder = homeless / "tmp" / f"ctl_jax-{os.getuid()}"
    assert home.home() is None
    assert home.writable() == home.writable() == folder
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert home.cache() == folder / ".cache/ctl_jax"
    assert home.remark().startswith(f"there is no home folder; caches are in {folder}")
    with pytest.raises(UserError, match=r"^~/x: '~' is the home folder, but HOME is '' and this"):
        home.expand("~/x")
    # Nor is anything made of the defaults that need one.
    assert data.find_set(data.stream("mnist")[0]) is None


def test_a_folder_that_is_not_private_does_not_stand_in(homeless):
    folder = homeless / "tmp" / f"ctl_jax-{os.getuid()}"
    folder.mkdir()
    folder.chmod(0o777)
    other = home.writable()
    assert other.parent == folder.parent != other != folder
    assert stat.S_IMODE(other.stat().st_mode) == 0o700
    home._stand_in.cache_clear()
    folder.rmdir()
    folder.symlink_to(homeless / "home")
    assert home.writable() not in (folder, homeless / "home")


def test_nothing_can_be_written(homeless, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(homeless / "nowhere"))
    with pytest.raises(
        UserError, match=r"^HOME is '': expected a folder that can be written; "
    ) as e:
        home.cache()
    assert "\n" not in str(e.value)


def test_a_home_that_cannot_be_written_is_read(unwritable):
    assert home.expand("~/x") == f"{unwritable}/home/x"
    assert home.cache().is_relative_to(unwritable / "tmp")
    assert home.remark().startswith(f"the home {unwritable}/home cannot be written; caches are in")
    assert tfds.default_dir() == unwritable / "home/tensorflow_datasets"


def test_libraries_find_an_environment_that_is_fit(unwritable, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", "~/config")
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "gs://bucket/~")
    monkeypatch.setenv("MPLCONFIGDIR", "")
    monkeypatch.delenv("MPLCONFIGDIR")
    home.prepare()
    stand_in = unwritable / "tmp" / f"ctl_jax-{os.getuid()}"
    assert os.environ["HOME"] == str(stand_in)
    assert os.environ["MPLCONFIGDIR"] == str(stand_in / "matplotlib")
    assert os.environ["XDG_CONFIG_HOME"] == f"{unwritable}/home/config"
    assert os.environ["JAX_COMPILATION_CACHE_DIR"] == "gs://bucket/~"
    # What the user wrote is the user's home nevertheless.
    assert home.expand("~/x") == f"{unwritable}/home/x"
    assert home.cache() == stand_in / ".cache/ctl_jax"


@pytest.mark.parametrize("stated", ["", "relative"])
def test_libraries_find_a_home_that_is_one(alone, monkeypatch, stated):
    monkeypatch.setenv("HOME", stated)
    home.prepare()
    assert os.environ["HOME"] == str(home.writable())
    assert os.path.isabs(os.environ["HOME"])


def test_a_home_that_is_there_stays(alone):
    home.prepare()
    assert os.environ["HOME"] == f"{alone}/home"
    assert "MPLCONFIGDIR" not in os.environ


def test_a_folder_that_is_not_utf8_has_a_link_that_is(alone):
    assert home.in_utf8("x/é") == pathlib.Path("x/é")
    folder = alone / "caf\udce9"
    link = home.in_utf8(folder)
    str(link).encode()
    assert home.in_utf8(folder) == link
    assert home.in_utf8(alone / "caf\udce8") != link
    (link / "x").write_text("é")
    assert (folder / "x").read_text() == "é"


@pytest.mark.parametrize("text", ["x" * 256, f"/a/{'é' * 128}/b", f"~/{'x' * 300}"])
def test_a_name_that_no_file_system_takes(alone, text):
    with pytest.raises(
        UserError, match=r"\.\.\.: a name of \d{3} bytes; expected at most 255"
    ) as e:
        home.expand(text)
    assert len(str(e.value)) < 200
    # Objects have longer ones.
    assert home.expand(f"gs://b/{'x' * 300}") == f"gs://b/{'x' * 300}"


def test_what_is_temporary(alone, homeless):
    assert home.is_temporary(imported.default_dir())
    assert not home.is_temporary(alone / "home")


def test_what_lasts(alone):
    assert not home.is_temporary(imported.default_dir())
    assert not home.is_temporary(alone / "tmp")


def test_a_home_that_cannot_be_entered(alone, monkeypatch):
    """Nothing is looked for in it: each look would fail."""
    monkeypatch.setattr(os, "access", lambda folder, mode: alone / "home" != folder)
    assert imported.default_dir().is_relative_to(alone / "tmp")
    assert tfds.default_dir().is_relative_to(alone / "tmp")


def test_a_home_that_is_yet_to_be_made(alone, monkeypatch):
    monkeypatch.setenv("HOME", f"{alone}/home/new")
    assert home.writable() == home.readable() == alone / "home/new"


@given(st.text(st.characters(exclude_characters="\0")), st.text("~/.ax \udce9", max_size=9))
def test_any_home_and_any_path(stated, path):
    """Only a path that begins with "~" changes, or is refused."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "environ", {**os.environ, "HOME": stated})
        patch.setattr(home, "_replaced", [])
        try:
            found = home.expand(path)
        except UserError:
            found = ""
    assert found == path or path.startswith("~")
