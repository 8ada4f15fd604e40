"""One worker's view of the queue, the others played by hand; on a disk and in an object store."""

import contextlib
import threading
import time as real_time

import pytest

from ctl_jax import files
from ctl_jax.cluster import Worker
from ctl_jax.experiment import leases
from ctl_jax.experiment.leases import FINISHED, RELEASED, Leases
from ctl_jax.experiment.processes import Process
from ctl_jax.experiment.queue import Queue
from ctl_jax.experiment.store import Store

IDS = [f"trial{number}" for number in range(8)]
LEASE_S = 60.0


@pytest.fixture(params=["local", "bucket"])
def store(request, tmp_path):
    place = tmp_path if request.param == "local" else request.getfixturevalue("bucket")
    store = Store(f"{place}/run", {"seed": 1})
    store.create()
    return store


class Time:
    """A clock that runs while somebody sleeps, and what happens meanwhile."""

    def __init__(self):
        self.now = 0.0
        self.meanwhile = lambda: None

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        assert self.now < 1000, "waits for ever"
        assert 0 < seconds <= LEASE_S / 6
        self.now += seconds
        self.meanwhile()


@pytest.fixture
def time():
    return Time()


class Far:
    """A worker on another machine, of which nothing but its leases can be known here."""

    def __init__(self, store, name="far"):
        self.store = store
        self.process = Process(name, name, 1, 1)

    @contextlib.contextmanager
    def acts(self):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(leases, "this_process", lambda: self.process)
            yield

    def takes(self, id, generation=0):
        with self.acts():
            lease = Leases(self.store.leases, LEASE_S).take(id, generation)
        assert lease is not None
        return lease

    def renews(self, lease):
        with self.acts():
            lease.renew()

    def commits(self, lease):
        assert lease.is_held()
        assert self.store.save_trial(lease.id, [{"by": "far"}])
        lease.remove()


@pytest.fixture
def far(store):
    return Far(store)


def make(store, time, *, index=0, count=2, **options):
    worker = Worker(index, count)
    return Queue(store, IDS, [1.0] * 8, worker, LEASE_S, clock=time, sleep=time.sleep, **options)


def work(queue, each=lambda claim: None):
    """Takes everything there is and commits it; the order in which it came."""
    taken = []
    for claim in queue.take():
        with claim:
            each(claim)
            taken.append(claim.index)
            assert claim.id == IDS[claim.index]
            assert claim.commit([{"by": "me", "id": claim.id}])
            assert claim.committed
    return taken


def authors(store):
    return [store.load_trial(id)[0]["by"] for id in IDS]


def test_a_single_worker_takes_all_in_their_order_and_leaves_nothing_behind(store, time):
    assert work(make(store, time, count=1)) == list(range(8))
    assert authors(store) == ["me"] * 8
    assert files.names(store.leases) == []
    assert work(make(store, time, count=1)) == []
    assert time.now == 0


def test_its_own_share_first_then_the_others_from_their_end(store, time):
    assert work(make(store, time, index=1)) == [4, 5, 6, 7, 3, 2, 1, 0]


def test_what_others_did_before_or_meanwhile_is_not_done_again(store, time, far):
    store.save_trial(IDS[4], [{"by": "far"}])

    def meanwhile(claim):
        if claim.index == 5:
            far.commits(far.takes(IDS[6]))
            far.commits(far.takes(IDS[0]))

    assert work(make(store, time, index=1), meanwhile) == [5, 7, 3, 2, 1]
    assert authors(store)[4] == authors(store)[6] == authors(store)[0] == "far"
    assert time.now == 0


def work_side_by_side(store, seconds):
    """What two workers that start together do, by worker; each trial takes so many seconds."""
    taken = {0: [], 1: []}
    together = threading.Barrier(2)

    def run(index):
        queue = Queue(store, IDS, [1.0] * 8, Worker(index, 2), LEASE_S)
        together.wait()
        taken[index] = work(queue, lambda claim: real_time.sleep(seconds))

    threads = [threading.Thread(target=run, args=(index,)) for index in taken]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return taken


def test_two_at_once_share_without_doing_anything_twice(store):
    taken = work_side_by_side(store, 0.005)
    assert sorted(taken[0] + taken[1]) == list(range(8))
    assert taken[0][0] == 0
    assert taken[1][0] == 4
    assert files.names(store.leases) == []


def test_does_not_try_what_others_did_while_it_was_busy(store, time, far, monkeypatch):
    queue, tried, take = make(store, time), [], Leases.take

    def busy(claim):
        if claim.index == 7:
            time.now += LEASE_S
            for id in IDS[4:7]:
                far.commits(far.takes(id))
            monkeypatch.setattr(Leases, "take", lambda *args: tried.append(args) or take(*args))

    assert work(queue, busy) == [0, 1, 2, 3, 7]
    assert tried == []


def test_a_claim_is_renewed_until_it_is_given_back(store):
    queue = Queue(store, IDS, [1.0] * 8, Worker(), lease_s=0.01)
    for claim in queue.take():
        path = store.leases / f"{claim.id}.0"
        seen = {files.read_bytes(path)}
        deadline = real_time.monotonic() + 10
        while len(seen) < 3 and real_time.monotonic() < deadline:
            seen.add(files.read_bytes(path))
        assert len(seen) == 3
        break
    claim.release()
    last = files.read_bytes(path)
    assert b"released" in last
    real_time.sleep(0.03)
    assert files.read_bytes(path) == last


def test_waits_for_a_live_worker_and_says_so_once(store, time, far):
    lines, lease = [], far.takes(IDS[2])
    queue = make(store, time, on_wait=lines.append)

    def meanwhile():
        if time.now < 5 * LEASE_S:
            far.renews(lease)
        elif not store.is_done(IDS[2]):
            far.commits(lease)

    time.meanwhile = meanwhile
    assert sorted(work(queue)) == [0, 1, 3, 4, 5, 6, 7]
    assert authors(store)[2] == "far"
    assert time.now >= 5 * LEASE_S
    assert lines == ["waiting for what other workers hold: far:1 (1)"]


def test_takes_over_from_a_silent_worker_after_its_lease_and_not_before(store, time, far):
    lease = far.takes(IDS[2])
    assert work(make(store, time))[-1] == 2
    assert LEASE_S <= time.now <= LEASE_S * 1.2
    assert authors(store) == ["me"] * 8
    assert not lease.is_held()
    assert files.names(store.leases) == []


def test_takes_over_at_once_what_was_given_back(store, time, far):
    far.takes(IDS[2]).end(RELEASED)
    assert work(make(store, time)) == [0, 1, 3, 2, 7, 6, 5, 4]
    assert time.now == 0


def test_what_fails_is_given_back(store, time):
    with pytest.raises(MemoryError):
        work(make(store, time), _fail)
    assert files.names(store.leases) == ["trial0.0"]
    assert work(make(store, time)) == [1, 2, 3, 0, 7, 6, 5, 4]
    assert time.now == 0


def _fail(claim):
    raise MemoryError


def test_what_was_not_committed_comes_again_and_does_not_spin(store, time):
    seen = []
    for claim in make(store, time).take():
        seen.append(claim.index)
        if seen.count(claim.index) == 3:
            claim.commit([])
    assert sorted(seen) == sorted(3 * list(range(8)))
    assert time.now > 0


def test_a_paused_worker_that_lost_its_claim_saves_nothing(store, time, far):
    taken = []
    for claim in make(store, time, count=1).take():
        with claim:
            taken.append(claim.index)
            if claim.index != 3:
                assert claim.commit([{"by": "me"}])
                continue
            other = far.takes(IDS[3], generation=1)
            time.meanwhile = lambda other=other: store.is_done(IDS[3]) or far.commits(other)
            assert not claim.lost
            assert not claim.commit([{"by": "me"}])
            assert claim.lost
            assert not claim.committed
    assert taken == list(range(8))
    assert authors(store)[3] == "far"


def test_a_worker_that_is_paused_while_it_commits_replaces_nothing(store, time, far, monkeypatch):
    """It asked whether it still holds the claim, and then another was faster."""
    claim = next(taking := make(store, time, count=1).take())
    other = far.takes(IDS[0], generation=1)
    monkeypatch.setattr(claim._lease, "is_held", lambda: True)
    far.commits(other)
    assert not claim.commit([{"by": "me"}])
    assert store.load_trial(IDS[0]) == [{"by": "far"}]
    taking.close()


def test_scratch_goes_with_the_commit_and_stays_without(store, time, far):
    queue = make(store, time)
    for claim in queue.take():
        with claim:
            files.write_text(store.scratch(claim.id) / "1" / "state", "checkpoint")
            if claim.index == 2:
                break
            claim.commit([])
    assert store.scratches() == {IDS[2]}
    # A worker that was killed just after its trial was saved.
    store.save_trial(IDS[7], [])
    far.takes(IDS[7])
    files.write_text(store.scratch(IDS[7]) / "state", "checkpoint")
    found = {}
    work(
        make(store, time),
        lambda claim: found.update({claim.index: files.names(store.scratch(claim.id))}),
    )
    assert found == {2: ["1"], 3: [], 4: [], 5: [], 6: []}
    assert store.scratches() == set()
    assert files.names(store.leases) == []


def _damage(store, *ids):
    for id in ids:
        files.write_bytes(store.workdir / "trials" / f"{id}.jsonl", b'{"type": "tri')


def test_what_is_damaged_is_taken_again(store, time, far):
    work(make(store, time))
    _damage(store, IDS[2], IDS[6])
    assert work(make(store, time)) == [2, 6]
    assert authors(store) == ["me"] * 8
    assert files.names(store.leases) == []


def test_damage_that_another_worker_sees_to_is_left_to_it(store, time, far):
    work(make(store, time))
    _damage(store, IDS[2], IDS[6])
    lease = far.takes(IDS[6])

    def meanwhile():
        if not store.is_done(IDS[6]):
            store.set_aside(IDS[6])
            far.commits(lease)

    time.meanwhile = meanwhile
    assert work(make(store, time)) == [2]
    assert authors(store)[6] == "far"


def test_of_two_workers_that_see_the_same_damage_one_does_it_again(store):
    work(Queue(store, IDS, [1.0] * 8, Worker(), LEASE_S))
    _damage(store, *IDS)
    taken = work_side_by_side(store, 0.002)
    assert sorted(taken[0] + taken[1]) == list(range(8))
    assert authors(store) == ["me"] * 8


def test_exclusive_work_that_is_not_intact_is_done_again(store, time, far):
    store.save_trial("pretrain", [{"by": "far"}])
    intact = []
    queue = make(store, time)
    claim = queue.exclusively("pretrain", lambda: bool(intact))
    with claim:
        assert not store.is_done("pretrain")
        intact.append(1)
        assert claim.commit([{"by": "me"}])
    assert queue.exclusively("pretrain", lambda: bool(intact)) is None
    assert store.load_trial("pretrain") == [{"by": "me"}]


def test_what_was_left_half_written_goes(store, time):
    rubbish = [store.workdir / name / ".a.12-0123abcd.tmp.x" for name in ("trials", "", "figures")]
    for path in rubbish:
        files.write_text(path, "half")
    queue = make(store, time)
    work(queue)
    assert [files.exists(path) for path in rubbish] == [False, True, True]
    with queue.reporting(complete=True):
        assert [files.exists(path) for path in rubbish] == [False, False, False]


def test_exclusive_work_is_done_by_one_and_awaited_by_the_others(store, time, far):
    lines, lease = [], far.takes("pretrain")

    def meanwhile():
        if time.now > 2 * LEASE_S:
            far.commits(lease)
        else:
            far.renews(lease)

    time.meanwhile = meanwhile
    queue = make(store, time, on_wait=lines.append)
    assert queue.exclusively("pretrain") is None
    assert lines == ["waiting for what other workers hold: far:1 (1)"]
    waited = time.now
    assert waited > 2 * LEASE_S
    assert queue.exclusively("pretrain") is None
    with queue.exclusively("more") as claim:
        assert (claim.id, claim.index) == ("more", -1)
        assert claim.commit([{"by": "me"}])
    assert time.now == waited


def test_exclusive_work_of_a_dead_worker_is_taken_over(store, time, far):
    far.takes("pretrain")
    claim = make(store, time).exclusively("pretrain")
    assert time.now >= LEASE_S
    with claim:
        assert claim.commit([])


def test_one_worker_writes_the_complete_report(store, time, far):
    first, second = make(store, time), make(store, time, index=1)
    with first.reporting(complete=True) as mine:
        assert mine
        # Another one does not wait to write what is not complete.
        with second.reporting(complete=False) as its:
            assert not its
        assert time.now == 0
    with second.reporting(complete=True) as its:
        assert not its
    # The same command later writes it anew: it may have been deleted.
    for number in (1, 2):
        with make(store, time).reporting(complete=True) as mine:
            assert mine
        assert files.names(store.leases) == [f"report.{number}"]


def test_a_report_that_was_not_finished_is_written_by_the_next(store, time, far):
    with make(store, time).reporting(complete=False) as mine:
        assert mine
    queue = make(store, time)
    with pytest.raises(OSError, match="disk full"), queue.reporting(complete=True):
        raise OSError("disk full")
    with make(store, time).reporting(complete=True) as mine:
        assert mine
    assert time.now == 0
    queue, lease = make(store, time), far.takes("report", 3)
    with queue.reporting(complete=True) as mine:
        assert mine
    assert time.now >= LEASE_S
    assert not lease.is_held()


def test_a_complete_report_of_another_is_awaited(store, time, far):
    queue, lease = make(store, time), far.takes("report")
    time.meanwhile = lambda: lease.end(FINISHED)
    with queue.reporting(complete=True) as mine:
        assert not mine
    assert 0 < time.now < LEASE_S


def test_what_sleep_raises_ends_the_waiting(store, time, far):
    far.takes(IDS[2])

    def interrupt():
        raise KeyboardInterrupt

    time.meanwhile = interrupt
    with pytest.raises(KeyboardInterrupt):
        work(make(store, time))
    assert files.names(store.leases) == [f"{IDS[2]}.0"]
