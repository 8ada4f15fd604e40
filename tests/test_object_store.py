"""Requests to a store that is away for a while: what may pass is waited for."""

import logging
import socket

import fsspec
import pytest

from ctl_jax import failures, files, interrupts, object_store
from ctl_jax.errors import UserError
from ctl_jax.object_store import Unreachable


class HttpError(Exception):
    """As gcsfs has it."""

    def __init__(self, code):
        super().__init__(f", {code}")
        self.code = code


class ClientConnectionError(Exception):
    """As aiohttp has it."""


class ClientConnectorDNSError(ClientConnectionError, OSError):
    """As aiohttp has it: an OSError whose number is no errno."""


class TransportError(Exception):
    """As google.auth has it: no answer from the server that gives credentials."""


class RefreshError(Exception):
    """As google.auth has it."""


def refused_by(cause):
    error = RefreshError("no token")
    error.__cause__ = cause
    return error


PASSING = [
    *map(HttpError, (408, 429, 500, 502, 503, 504)),
    ClientConnectorDNSError(-3, "Temporary failure in name resolution"),
    ClientConnectionError("Server disconnected"),
    socket.gaierror(-2, "Name or service not known"),
    TimeoutError(),
    ConnectionRefusedError(111, "Connection refused"),
    TransportError("metadata server"),
    refused_by(TransportError("metadata server")),
    ValueError("UNAVAILABLE: Error reading from TensorStore"),
]
LASTING = [
    *map(HttpError, (400, 401, 403, 412)),
    FileNotFoundError("bucket/x"),
    FileExistsError("bucket/x"),
    OSError("Forbidden: bucket/x"),
    ValueError("Bad Request: bucket/x"),
    refused_by(None),
    UserError("no"),
]


@pytest.mark.parametrize("error", PASSING, ids=repr)
def test_what_may_pass(error):
    assert object_store.may_pass(error)


@pytest.mark.parametrize("error", LASTING, ids=repr)
def test_what_does_not(error):
    assert not object_store.may_pass(error)


class Outage:
    """A store whose requests fail until some time; time passes only where something waits."""

    def __init__(self, patch, bucket):
        self.now, self.until, self.error, self.requests = 1000.0, 0.0, HttpError(503), 0
        store = fsspec.get_filesystem_class("gs")
        for name in ("pipe_file", "cat_file", "ls", "rm_file", "rm"):
            patch.setattr(store, name, self._failing(getattr(store, name)))
        patch.setattr(object_store.time, "monotonic", lambda: self.now)
        patch.setattr(object_store.time, "sleep", self._sleep)

    def _failing(self, call):
        def request(store, *args, **kwargs):
            self.requests += 1
            self.now += 0.1
            if self.now < self.until:
                raise self.error
            return call(store, *args, **kwargs)

        return request

    def _sleep(self, seconds):
        self.now += seconds

    def begins(self, seconds, error=None):
        self.until, self.error = self.now + seconds, error or HttpError(503)


@pytest.fixture
def outage(monkeypatch, bucket):
    return Outage(monkeypatch, bucket)


@pytest.mark.parametrize("error", [HttpError(503), TimeoutError()], ids=repr)
def test_what_is_asked_while_the_store_is_away_is_answered_later(outage, bucket, capsys, error):
    path = f"{bucket}/run/it"
    for ask, answer in (
        (lambda: files.create_bytes(path, b"mine"), True),
        (lambda: files.read_bytes(path), b"mine"),
        (lambda: files.exists(path), True),
        (lambda: files.names(f"{bucket}/run"), ["it"]),
        (lambda: files.tree(bucket), ["run/it"]),
        (lambda: files.remove(path), None),
        (lambda: files.claim(path, b"mine"), True),
        (lambda: files.remove_tree(bucket), None),
    ):
        outage.begins(100, error)
        assert ask() == answer
        assert outage.now >= outage.until
        first, last = capsys.readouterr().err.splitlines()
        told = object_store.reason(error)
        assert first == f"ctl_jax: gs://bucket: no answer ({told}); asking again"
        assert last.startswith("ctl_jax: gs://bucket: answers again, after 1")


def test_a_store_that_stays_away_is_given_up_in_one_line(outage, bucket):
    outage.begins(1e9)
    began = outage.now
    with pytest.raises(Unreachable) as error:
        files.read_bytes(f"{bucket}/run/it")
    assert 280 < outage.now - began < 310
    line = failures.explain(error.value)
    assert line.startswith("gs://bucket/run/it: no answer (HttpError: 503); see to the network")
    assert "\n" not in line
    assert failures.explain(OSError("could not save")) is None


def test_whoever_tries_again_later_or_has_to_stop_is_told_at_once(outage, bucket, monkeypatch):
    outage.begins(100)
    began = outage.now
    with pytest.raises(Unreachable):
        files.overwrite(f"{bucket}/run/it", b"")
    monkeypatch.setattr(interrupts, "requested", lambda: True)
    with pytest.raises(Unreachable):
        files.read_bytes(f"{bucket}/run/it")
    assert outage.now - began < 1


def test_since_when_there_are_answers(outage, bucket):
    assert object_store.answers_since() < 0
    outage.begins(100)
    with pytest.raises(Unreachable):
        files.overwrite(f"{bucket}/run/it", b"")
    outage.now += 50
    assert object_store.answers_since() == outage.now
    # That there is nothing is an answer, too.
    assert not files.exists(f"{bucket}/run/it")
    back = outage.now
    outage.now += 50
    assert object_store.answers_since() == back


def test_what_lasts_is_told_at_once(outage, bucket):
    outage.begins(100, HttpError(401))
    began = outage.now
    with pytest.raises(OSError, match=r"^gs://bucket/run: HttpError: 401$") as error:
        files.names(f"{bucket}/run")
    assert outage.now - began < 1
    line = failures.explain(error.value)
    assert line.startswith("gs://bucket/run: HttpError: 401; expected a place that this user may")


def test_a_bucket_that_does_not_exist_is_named(outage, bucket):
    """As gcsfs puts it, which says the same of an object."""
    outage.begins(100, FileNotFoundError("https://storage.googleapis.com/b/bucket/o"))
    for ask in (
        lambda: files.names(f"{bucket}/run"),
        lambda: files.tree(f"{bucket}/run"),
        lambda: files.claim(f"{bucket}/run/it", b""),
        lambda: files.write_bytes(f"{bucket}/run/it", b""),
    ):
        with pytest.raises(UserError, match=r"^gs://bucket/run.*: there is no bucket gs://bucket;"):
            ask()
    assert not files.exists(f"{bucket}/run/it")


def test_the_client_is_quiet(bucket, monkeypatch):
    """What it logs it raises as well; who asked for its log has it."""
    log = logging.getLogger("gcsfs")
    for level, expected in ((logging.NOTSET, logging.CRITICAL), (logging.DEBUG, logging.DEBUG)):
        monkeypatch.setattr(log, "level", level)
        files.path(bucket)
        assert log.level == expected
