"""Leases under any order of events: one holder at a time, and none for ever."""

import pathlib
import subprocess
import tempfile
import time
from collections.abc import Callable

import hypothesis
import pytest
from hypothesis import stateful
from hypothesis import strategies as st

from ctl_jax import files, object_store
from ctl_jax.experiment import leases, processes
from ctl_jax.experiment.leases import RELEASED, Heartbeat, Lease, Leases
from ctl_jax.experiment.processes import Process, this_process

LEASE_S = 9
WORKERS = st.integers(0, 2)


class Workers(stateful.RuleBasedStateMachine):
    """Three workers on three machines want one piece of work after the other; clocks differ."""

    def __init__(self):
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.patch = pytest.MonkeyPatch()
        self.now = 0
        self.paths = pathlib.Path(self.folder.name)
        (self.paths / "leases").mkdir()
        self.seen: list[Leases] = [self.observer(index) for index in range(3)]
        self.held: list[Lease | None] = [None] * 3
        self.paused = [False] * 3
        # Whether the worker ran without a break since it took the lease.
        self.healthy = [True] * 3
        self.commits = 0

    @property
    def work(self) -> str:
        return f"work{self.commits}"

    def observer(self, index: int) -> Leases:
        clock: Callable[[], float] = lambda: self.now + 86400.0 * index  # noqa: E731
        return Leases(self.paths / "leases", LEASE_S, clock)

    def acts(self, index: int) -> None:
        """What follows is done by that worker's process."""
        process = Process(f"machine{index}", f"boot{index}", 1, 1)
        self.patch.setattr(leases, "this_process", lambda: process)

    @stateful.rule(seconds=st.integers(1, 12))
    def time_passes(self, seconds):
        for _ in range(seconds):
            self.now += 1
            self.looks(self.now % 3)
            if self.now % (LEASE_S // 3) == 0:
                for index, lease in enumerate(self.held):
                    if lease is not None and not self.paused[index]:
                        self.acts(index)
                        lease.renew()

    @stateful.rule(index=WORKERS, work=st.none() | st.integers(0, 5))
    def looks(self, index, work=None):
        """Mostly for the work that is next, but also for what was done before."""
        if self.paused[index] or self.held[index] is not None:
            return
        self.acts(index)
        id = self.work if work is None else f"work{min(work, self.commits)}"
        newest = self.seen[index].newest().get(id, -1)
        if self.seen[index].holder(id, newest) is not None:
            return
        lease = self.seen[index].take(id, newest + 1)
        assert lease is not None
        if files.exists(self.paths / id):
            lease.remove()
        else:
            self.held[index], self.healthy[index] = lease, True

    @stateful.rule(index=WORKERS, paused=st.booleans())
    def pauses_or_goes_on(self, index, paused):
        self.paused[index] = paused
        if paused:
            self.healthy[index] = False

    @stateful.rule(index=WORKERS, seconds=st.integers(LEASE_S - 2, 2 * LEASE_S))
    def sleeps_for_long(self, index, seconds):
        self.pauses_or_goes_on(index, True)
        self.time_passes(seconds)
        self.pauses_or_goes_on(index, False)

    @stateful.rule(index=WORKERS)
    def dies_and_starts_again(self, index):
        self.held[index], self.paused[index], self.seen[index] = None, False, self.observer(index)

    @stateful.rule(index=WORKERS)
    def gives_back(self, index):
        lease = self.held[index]
        if lease is not None and not self.paused[index]:
            self.acts(index)
            lease.end(RELEASED)
            self.held[index] = None

    @stateful.rule(index=WORKERS)
    def commits_what_it_has(self, index):
        lease = self.held[index]
        if lease is None or self.paused[index]:
            return
        self.acts(index)
        held = lease.is_held()
        assert held or not self.healthy[index]
        # Nothing is lost by looking first: what is held is not done yet.
        assert held <= (not files.exists(self.paths / lease.id))
        if held:
            assert lease.id == self.work
            assert files.create_bytes(self.paths / lease.id, b"%d" % index)
            self.commits += 1
            lease.remove()
        self.held[index] = None

    @stateful.invariant()
    def one_holds_it(self):
        holders = [lease for lease in self.held if lease is not None and lease.is_held()]
        assert len(holders) <= 1
        for lease, healthy in zip(self.held, self.healthy, strict=True):
            assert lease is None or lease.is_held() or not healthy

    def teardown(self):
        try:
            # Whatever happened: once the others are gone, a lease later the work can be done.
            self.held, self.paused = [None] * 3, [False, True, True]
            self.looks(0)
            self.now += LEASE_S
            self.looks(0)
            before = self.commits
            self.commits_what_it_has(0)
            assert self.commits == before + 1
        finally:
            self.patch.undo()
            self.folder.cleanup()


Workers.TestCase.settings = hypothesis.settings(max_examples=40, stateful_step_count=40)
test_any_order_of_events = Workers.TestCase


@pytest.fixture
def now():
    return [0.0]


@pytest.fixture
def observer(tmp_path, now):
    return Leases(tmp_path, LEASE_S, lambda: now[0])


def test_ids_may_hold_dots_and_other_files_are_no_leases(observer, tmp_path):
    strays = ("c.\N{SUPERSCRIPT TWO}", "c.\N{ARABIC-INDIC DIGIT THREE}", "c.-1", f"c.{10**30}")
    for name in ("a.b.0", "a.b.12", "a.b.3", "c.0", "c", "c.x", ".c.1.tmp", *strays):
        (tmp_path / name).write_text("")
    assert observer.newest() == {"a.b": 12, "c": 0}


@pytest.mark.parametrize(
    "content",
    [
        *(b'{"state": "rele', b"", bytes(200), b"\xff\xfe", b"[]", b"3", b"{}", b"[" * 100_000),
        b'{"state": "held", "process": ["host", "boot", 1e999, 1]}',
        b'{"state": "held", "process": ["host", "boot"]}',
        b'{"state": "held", "process": 3}',
    ],
)
def test_a_half_written_lease_is_respected_for_its_time(observer, tmp_path, now, content):
    (tmp_path / "work.0").write_bytes(content)
    assert observer.holder("work", 0) == "unknown"
    now[0] = LEASE_S - 0.1
    assert observer.holder("work", 0) == "unknown"
    now[0] = LEASE_S
    assert observer.holder("work", 0) is None


def test_silence_tells_nothing_while_the_folder_was_out_of_reach(observer, now, monkeypatch):
    """Neither could the holder renew its lease, nor this observer see that it did."""
    observer.take("work", 0)
    with monkeypatch.context() as patch:
        patch.setattr(leases, "is_gone", lambda process: False)
        assert observer.holder("work", 0) is not None
        now[0] = 100.0
        patch.setattr(object_store, "answers_since", lambda: 99.0)
        assert observer.holder("work", 0) is not None
        now[0] = 99.0 + LEASE_S
        assert observer.holder("work", 0) is None


def test_what_is_no_file_is_respected_for_its_time_and_stays(observer, tmp_path, now):
    (tmp_path / "work.0").mkdir()
    assert observer.holder("work", 0) == "unknown"
    now[0] = LEASE_S
    assert observer.holder("work", 0) is None
    lease = observer.take("work", 1)
    assert lease.is_held()
    lease.remove()
    assert [path.name for path in tmp_path.iterdir()] == ["work.0"]


def test_a_foreign_number_takes_no_time(observer, tmp_path):
    """A copy that somebody has named after a day and an hour."""
    for name in ("work.0", "work.20240101101010", "other.1"):
        (tmp_path / name).write_bytes(b"")
    lease = observer.take("work", observer.newest()["work"] + 1)
    assert lease.is_held()
    lease.remove()
    assert [path.name for path in tmp_path.iterdir()] == ["other.1"]


def test_a_holder_that_was_killed_on_this_machine_is_known_at_once(observer, monkeypatch):
    with subprocess.Popen(["sleep", "60"]) as child:
        process = this_process()._replace(pid=child.pid, start=processes._started(child.pid))
        with monkeypatch.context() as patch:
            patch.setattr(leases, "this_process", lambda: process)
            observer.take("work", 0)
        assert observer.holder("work", 0) == str(process)
        child.kill()
    assert observer.holder("work", 0) is None


def test_of_two_that_see_it_free_one_takes_it(observer):
    assert observer.holder("work", -1) is None
    assert observer.take("work", 0) is not None
    assert observer.take("work", 0) is None


def test_a_holder_may_tell_more_than_that_it_gave_its_lease_back(observer):
    for generation, state in enumerate((RELEASED, "complete 1234")):
        lease = observer.take("report", generation)
        assert observer.state("report", generation) not in (RELEASED, "complete 1234")
        lease.end(state)
        assert observer.holder("report", generation) is None
    assert observer.state("report", 0) == RELEASED
    assert observer.state("report", 1) == "complete 1234"
    assert observer.state("report", 2) == ""


def test_what_is_given_back_is_not_renewed(observer, tmp_path):
    lease = observer.take("work", 0)
    lease.end(RELEASED)
    before = (tmp_path / "work.0").read_bytes()
    lease.renew()
    assert (tmp_path / "work.0").read_bytes() == before


def test_the_heartbeat_renews_until_told_otherwise_and_survives_a_folder_out_of_reach(
    observer, tmp_path, monkeypatch
):
    lease, other = observer.take("work", 0), observer.take("other", 0)
    overwrite, failures = files.overwrite, []

    def flaky(path, content):
        if len(failures) < 3:
            failures.append(path)
            raise OSError("out of reach")
        overwrite(path, content)

    monkeypatch.setattr(files, "overwrite", flaky)
    heartbeat = Heartbeat(0.005)
    for held in (lease, other):
        heartbeat.add(held)
    seen = set()
    _until(lambda: seen.add((tmp_path / "work.0").read_bytes()) or len(seen) >= 4)
    assert len(failures) == 3
    files.claim(tmp_path / "work.1", b"another's")
    _until(lambda: lease.lost)
    assert not other.lost
    for held in (lease, other):
        heartbeat.discard(held)
    _until(lambda: heartbeat._thread is None)
    heartbeat.add(other)
    before = (tmp_path / "other.0").read_bytes()
    _until(lambda: (tmp_path / "other.0").read_bytes() != before)
    heartbeat.discard(other)
    _until(lambda: heartbeat._thread is None)


def _until(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)
