"""One worker's view of the queue, the others played by hand; on a disk and in an object store."""

import contextlib
import threading
import time as real_time

import fsspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctl_jax import files, object_store
from ctl_jax.cluster import Worker
from ctl_jax.experiment import leases
from ctl_jax.experiment import store as stores
from ctl_jax.experiment.leases import RELEASED, Leases
from ctl_jax.experiment.processes import Process
from ctl_jax.experiment.queue import Queue, share_order
from ctl_jax.experiment.steps import KINDS, Kind, Step
from ctl_jax.experiment.store import Store
from ctl_jax.records import PretrainRecord

KIND = Kind(1, lambda *args: 1, lambda *args: None, lambda *args: None)
with pytest.MonkeyPatch.context() as _patch:
    _patch.setitem(KINDS, "fake", KIND)
    STEPS = [Step("fake", {"number": number}) for number in range(8)]
    IDS = [step.id for step in STEPS]
LEASE_S = 60.0


@pytest.fixture(autouse=True)
def kind(monkeypatch):
    monkeypatch.setitem(KINDS, "fake", KIND)


def line(author, weights=""):
    """A record that says whose it is."""
    return PretrainRecord(task=author, steps=1, flops=1, metric=None, weights=weights)


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
        assert self.store.save(lease.id, [line("far")])
        lease.remove()


@pytest.fixture
def far(store):
    return Far(store)


def make(store, time, *, index=0, count=2, **options):
    worker = Worker(index, count)
    strategy = options.pop("strategy", lambda finished: STEPS)
    flops = options.pop("flops", lambda step: 1.0)
    return Queue(store, strategy, flops, worker, LEASE_S, clock=time, sleep=time.sleep, **options)


def number_of(claim):
    return claim.step.params["number"]


def work(queue, each=lambda claim: None):
    """Takes everything there is and commits it; the order in which it came."""
    taken = []
    for claim in queue.take():
        with claim:
            each(claim)
            taken.append(number_of(claim))
            assert claim.commit([line("me")])
            assert claim.committed
    return taken


def authors(store):
    return [store.load(id)[0].task for id in IDS]


def test_a_single_worker_takes_all_in_their_order_and_leaves_nothing_behind(store, time):
    assert work(make(store, time, count=1)) == list(range(8))
    assert authors(store) == ["me"] * 8
    assert files.names(store.leases) == []
    assert work(make(store, time, count=1)) == []
    assert time.now == 0


def test_its_own_share_first_then_the_others_from_their_end(store, time):
    assert work(make(store, time, index=1)) == [4, 5, 6, 7, 3, 2, 1, 0]


def test_what_others_did_before_or_meanwhile_is_not_done_again(store, time, far):
    store.save(IDS[4], [line("far")])

    def meanwhile(claim):
        if number_of(claim) == 5:
            far.commits(far.takes(IDS[6]))
            far.commits(far.takes(IDS[0]))

    assert work(make(store, time, index=1), meanwhile) == [5, 7, 3, 2, 1]
    assert authors(store)[4] == authors(store)[6] == authors(store)[0] == "far"
    assert time.now == 0


def authors_of(store, id):
    (record,) = store.load(id)
    return record.task


def work_side_by_side(store, seconds):
    """What two workers that start together do, by worker; each trial takes so many seconds."""
    taken = {0: [], 1: []}
    together = threading.Barrier(2)

    def run(index):
        queue = Queue(store, lambda finished: STEPS, KIND.flops, Worker(index, 2), LEASE_S)
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
        if number_of(claim) == 7:
            time.now += LEASE_S
            for id in IDS[4:7]:
                far.commits(far.takes(id))
            monkeypatch.setattr(Leases, "take", lambda *args: tried.append(args) or take(*args))

    assert work(queue, busy) == [0, 1, 2, 3, 7]
    assert tried == []


def test_a_claim_is_renewed_until_it_is_given_back(store):
    queue = Queue(store, lambda finished: STEPS, KIND.flops, Worker(), lease_s=0.01)
    for claim in queue.take():
        path = store.leases / f"{claim.step.id}.0"
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
    assert files.names(store.leases) == [f"{IDS[0]}.0"]
    assert work(make(store, time)) == [1, 2, 3, 0, 7, 6, 5, 4]
    assert time.now == 0


def _fail(claim):
    raise MemoryError


def test_what_was_not_committed_comes_again_and_does_not_spin(store, time):
    seen = []
    for claim in make(store, time).take():
        seen.append(number_of(claim))
        if seen.count(number_of(claim)) == 3:
            claim.commit([line("me")])
    assert sorted(seen) == sorted(3 * list(range(8)))
    assert time.now > 0


def test_a_paused_worker_that_lost_its_claim_saves_nothing(store, time, far):
    taken = []
    for claim in make(store, time, count=1).take():
        with claim:
            taken.append(number_of(claim))
            if number_of(claim) != 3:
                assert claim.commit([line("me")])
                continue
            other = far.takes(IDS[3], generation=1)
            time.meanwhile = lambda other=other: store.is_done(IDS[3]) or far.commits(other)
            assert not claim.lost
            assert not claim.commit([line("me")])
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
    assert not claim.commit([line("me")])
    assert authors_of(store, IDS[0]) == "far"
    taking.close()


class Requests(list):
    """How many requests to come fail; and how many were made."""

    def __init__(self, *args):
        super().__init__(*args)
        # One each; threads make some at once.
        self.made = []


@pytest.fixture
def away(bucket, monkeypatch):
    """Makes the next so many requests to the store fail, and counts all; no time passes."""
    left = Requests([0])

    def failing(call):
        def request(*args, **kwargs):
            left.made.append(call)
            if left[0]:
                left[0] -= 1
                raise ConnectionError("no network")
            return call(*args, **kwargs)

        return request

    store = fsspec.get_filesystem_class("gs")
    for name in ("pipe_file", "cat_file", "ls", "rm_file", "rm"):
        monkeypatch.setattr(store, name, failing(getattr(store, name)))
    monkeypatch.setattr(object_store, "_FIRST_S", 0)
    return left


def test_what_is_finished_while_the_store_is_away_is_kept(bucket, time, away):
    store = Store(f"{bucket}/run", {})
    queue = make(store, time, count=1, strategy=lambda finished: STEPS[:3])

    def goes_away(claim):
        away[0] = 5

    assert work(queue, goes_away) == [0, 1, 2]
    assert [store.load(id)[0].task for id in IDS[:3]] == ["me"] * 3


def test_how_often_an_object_store_is_asked(bucket, time, away):
    store = Store(f"{bucket}/run", {})
    wanted = {"strategy": lambda finished: STEPS[:3]}
    before = store.finished()
    assert len(away.made) == 5
    queue = make(store, time, count=1, before=before, **wanted)
    assert len(away.made) == 5
    assert work(queue) == [0, 1, 2]
    # Its lease twice, its records twice, whether it is held, its scratch folder; and a last look.
    assert len(away.made) == 5 + 3 * 6 + 5 + 3
    # Nothing is asked twice of what is finished.
    before = store.finished()
    assert work(make(store, time, count=1, before=before, **wanted)) == []
    assert len(away.made) == 5 + 3 * 6 + 5 + 3 + 5


def test_a_store_that_stays_away_ends_the_work_without_more_waiting(
    bucket, time, away, monkeypatch
):
    store = Store(f"{bucket}/run", {})
    monkeypatch.setattr(object_store, "PATIENCE_S", 0)

    def goes_away(claim):
        away[0] = 2

    # One request to commit, and one to give back.
    with pytest.raises(object_store.Unreachable):
        work(make(store, time, count=1), goes_away)
    assert away == [0]


def test_scratch_goes_with_the_commit_and_stays_without(store, time, far):
    queue = make(store, time)
    for claim in queue.take():
        with claim:
            files.write_text(store.scratch(claim.step.id) / "1" / "state", "checkpoint")
            if number_of(claim) == 2:
                break
            claim.commit([line("me")])
    assert store.finished().scratches == {IDS[2]}
    # A worker that was killed just after its trial was saved.
    store.save(IDS[7], [line("far")])
    far.takes(IDS[7])
    files.write_text(store.scratch(IDS[7]) / "state", "checkpoint")
    found = {}
    work(
        make(store, time),
        lambda claim: found.update({number_of(claim): files.names(store.scratch(claim.step.id))}),
    )
    assert found == {2: ["1"], 3: [], 4: [], 5: [], 6: []}
    assert store.finished().scratches == set()
    assert files.names(store.leases) == []


def _damage(store, *ids):
    """Damages records; the folder as another command finds it."""
    for id in ids:
        files.write_bytes(store.workdir / "steps" / f"{id}.jsonl", b'{"type": "tri')
    return Store(store.workdir, {})


def test_what_is_damaged_is_taken_again(store, time, far):
    work(make(store, time))
    store = _damage(store, IDS[2], IDS[6])
    assert work(make(store, time)) == [2, 6]
    assert authors(store) == ["me"] * 8
    assert files.names(store.leases) == []


def test_damage_that_another_worker_sees_to_is_left_to_it(store, time, far):
    work(make(store, time))
    store = _damage(store, IDS[2], IDS[6])
    lease = far.takes(IDS[6])

    def meanwhile():
        if not store.is_done(IDS[6]):
            store.set_aside(IDS[6])
            far.commits(lease)

    time.meanwhile = meanwhile
    assert work(make(store, time)) == [2]
    assert authors(store)[6] == "far"


def test_of_two_workers_that_see_the_same_damage_one_does_it_again(store):
    work(Queue(store, lambda finished: STEPS, KIND.flops, Worker(), LEASE_S))
    store = _damage(store, *IDS)
    taken = work_side_by_side(store, 0.002)
    assert sorted(taken[0] + taken[1]) == list(range(8))
    assert authors(store) == ["me"] * 8


def test_what_was_left_half_written_goes(store, time):
    rubbish = [store.workdir / name / ".a.12-0123abcd.tmp.x" for name in ("steps", "", "figures")]
    for path in rubbish:
        files.write_text(path, "half")
    queue = make(store, time)
    work(queue)
    assert [files.exists(path) for path in rubbish] == [False, True, True]
    with queue.reporting(complete=True):
        assert [files.exists(path) for path in rubbish] == [False, False, False]


PRETRAIN, CUT = "pretrain", "cut"


def graph(monkeypatch, *, keep=False):
    """A strategy of a pretraining, and of trials from it and from what was cut of it."""
    nothing = lambda *args: None  # noqa: E731
    monkeypatch.setitem(KINDS, CUT, Kind(1, nothing, nothing, nothing, restore=nothing))
    source = Step("fake", {"number": PRETRAIN})
    cut = Step(CUT, {"number": CUT}, {"weights": source})
    whole, small = (
        Step("fake", {"number": i}, {"weights": w}) for i, w in enumerate((source, cut))
    )
    wanted = [whole.kept() if keep else whole, small]
    return lambda finished: wanted


class Model:
    """What `save_model` is given here: its name becomes a folder with a file."""

    def __init__(self, name):
        self.name = name


@pytest.fixture
def saved(monkeypatch):
    """Models are folders with their name."""
    monkeypatch.setattr(
        stores.models, "save", lambda folder, model: files.write_text(folder / "name", model.name)
    )


def work_on_graph(queue, store, weights="w"):
    """Takes everything there is; (what, whether its model was needed) in the order of coming."""
    taken = []
    for claim in queue.take():
        with claim:
            taken.append((number_of(claim), claim.needed))
            for each in claim.step.inputs.values():
                assert store.is_done(each.id)
            model = Model(str(number_of(claim))) if claim.needed else None
            assert claim.commit([line("me", weights)], model)
    return taken


def test_what_others_need_is_done_first_and_its_model_is_kept(store, time, monkeypatch, saved):
    queue = make(store, time, count=1, strategy=graph(monkeypatch))
    assert work_on_graph(queue, store) == [(PRETRAIN, True), (CUT, False), (0, False), (1, False)]
    assert len(store.finished().products) == 1
    assert work_on_graph(queue, store) == []


def test_a_model_that_is_gone_is_made_again_where_it_is_needed(store, time, monkeypatch, saved):
    strategy = graph(monkeypatch)
    first = make(store, time, count=1, strategy=strategy)
    work_on_graph(first, store)
    _, small = strategy(None)
    before = files.read_bytes(store.workdir / "steps" / f"{small.inputs['weights'].id}.jsonl")
    files.remove_tree(store.workdir / "models")
    # Nothing is left to do, so nobody needs it.
    assert work_on_graph(first, store) == []
    files.remove(store.workdir / "steps" / f"{small.id}.jsonl")
    assert work_on_graph(first, store) == [(PRETRAIN, True), (1, False)]
    after = files.read_bytes(store.workdir / "steps" / f"{small.inputs['weights'].id}.jsonl")
    assert before == after


def test_other_variables_than_before_are_told_of(store, time, monkeypatch, saved):
    lines = []
    monkeypatch.setattr(store, "_on_damage", lines.append)
    strategy = graph(monkeypatch)
    work_on_graph(make(store, time, count=1, strategy=strategy), store)
    source = strategy(None)[0].inputs["weights"]
    files.remove_tree(store.workdir / "models")
    files.remove(store.workdir / "steps" / f"{strategy(None)[1].id}.jsonl")
    again = make(store, time, count=1, strategy=strategy)
    assert work_on_graph(again, store, "other") == [(PRETRAIN, True), (1, False)]
    assert lines == [
        f"the variables of step {source.id} are not those of before; steps that were done before "
        f"started from others"
    ]
    assert store.result(source.id).weights == "other"


def test_a_model_that_is_asked_for_later_is_made_and_the_record_stays(
    store, time, monkeypatch, saved
):
    work_on_graph(make(store, time, count=1, strategy=graph(monkeypatch)), store)
    files.remove_tree(store.workdir / "models")
    names = files.names(store.workdir / "steps")
    before = {name: files.read_bytes(store.workdir / "steps" / name) for name in names}
    kept = make(store, time, count=1, strategy=graph(monkeypatch, keep=True))
    assert work_on_graph(kept, store) == [(PRETRAIN, True), (0, True)]
    assert {n: files.read_bytes(store.workdir / "steps" / n) for n in names} == before


def test_what_is_wanted_may_follow_from_what_is_finished(store, time):
    """Each number asks for the next one."""

    def strategy(finished):
        done = 0
        while done < 7 and STEPS[done] in finished:
            assert finished.record(STEPS[done]).task == "me"
            done += 1
        return STEPS[: done + 1]

    looks = []
    queue = make(
        store,
        time,
        strategy=strategy,
        on_look=lambda wanted, left, finished: looks.append((len(wanted), len(left))),
    )
    assert work(queue) == list(range(8))
    assert looks[0] == (1, 1)
    assert looks[-1] == (8, 0)
    assert time.now == 0


def test_what_is_ready_is_done_while_another_worker_does_what_is_awaited(
    store, time, far, monkeypatch, saved
):
    dependent = graph(monkeypatch)
    source = dependent(None)[0].inputs["weights"]
    lease = far.takes(source.id)

    def meanwhile():
        files.write_text(store.model(source.id) / "name", "far")
        far.commits(lease)

    time.meanwhile = meanwhile
    queue = make(store, time, count=1, strategy=lambda finished: [*dependent(finished), STEPS[7]])
    assert work_on_graph(queue, store) == [(7, False), (CUT, False), (0, False), (1, False)]


def test_inputs_of_another_worker_are_awaited(store, time, far, monkeypatch, saved):
    lines, strategy = [], graph(monkeypatch)
    source = strategy(None)[0].inputs["weights"]
    lease = far.takes(source.id)

    def meanwhile():
        if time.now > 2 * LEASE_S:
            files.write_text(store.model(source.id) / "name", "far")
            far.commits(lease)
        else:
            far.renews(lease)

    time.meanwhile = meanwhile
    queue = make(store, time, count=1, on_wait=lines.append, strategy=strategy)
    assert work_on_graph(queue, store) == [(CUT, False), (0, False), (1, False)]
    assert lines == ["waiting for what other workers hold: far:1 (1)"]
    assert time.now > 2 * LEASE_S


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
    # The same command later writes it again: it may have been deleted.
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
    queue, lease = make(store, time, key="key"), far.takes("report")
    time.meanwhile = lambda: lease.end("complete key")
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


def test_the_complete_report_of_another_config_is_not_this_ones(store, time):
    queue = make(store, time, key="one")
    with make(store, time, key="another").reporting(complete=True):
        pass
    with queue.reporting(complete=True) as mine:
        assert mine


def test_half_written_files_stay_while_another_config_is_at_work(store, time, far):
    rubbish = store.workdir / "steps" / ".a.12-0123abcd.tmp.x"
    files.write_text(rubbish, "half")
    lease = far.takes("0123456789abcdef")
    work(make(store, time))
    assert files.exists(rubbish)
    lease.end(RELEASED)
    work(make(store, time))
    assert not files.exists(rubbish)


COSTS = st.lists(st.integers(0, 10**17), max_size=60)


@given(COSTS, st.integers(1, 9))
def test_shares_cover_everything_once_in_stretches_of_equal_cost(costs, count):
    orders = [share_order(costs, Worker(index, count)) for index in range(count)]
    assert [index for own, _ in orders for index in own] == list(range(len(costs)))
    for own, others in orders:
        assert sorted(own + others) == list(range(len(costs)))
        amount = sum(costs[index] for index in own)
        assert amount <= sum(costs) / count + max(costs, default=0) * (1 + 1e-9)


def test_the_next_worker_is_helped_first_and_from_its_end():
    costs = [1] * 6
    assert share_order(costs, Worker(0, 3)) == ([0, 1], [3, 2, 5, 4])
    assert share_order(costs, Worker(1, 3)) == ([2, 3], [5, 4, 1, 0])
    assert share_order(costs, Worker(2, 3)) == ([4, 5], [1, 0, 3, 2])


@pytest.mark.parametrize("costs", [[0] * 4, [1] * 4])
def test_without_costs_the_numbers_are_equal(costs):
    assert [share_order(costs, Worker(index, 2))[0] for index in range(2)] == [[0, 1], [2, 3]]


def test_one_dear_trial_is_a_share():
    assert [share_order([1, 1, 1, 9, 1, 1], Worker(i, 2))[0] for i in range(2)] == [
        [0, 1, 2],
        [3, 4, 5],
    ]
    assert share_order([5], Worker(0, 2)) == ([], [0])
    assert share_order([5], Worker(1, 2)) == ([0], [])
    assert share_order([], Worker(1, 2)) == ([], [])
