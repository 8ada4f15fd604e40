"""What the benchmarks compute from times: shares of a trace, ratios of rounds, kinds of stacks."""

import importlib
import pathlib
import re
import time
from types import ModuleType

import jax
import jax.numpy as jnp
import pytest
from hypothesis import given
from hypothesis import strategies as st

_FOLDER = pathlib.Path(__file__).parents[2] / "benchmarks"


def _load(name: str) -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(_FOLDER)
        return importlib.import_module(name)


operations, sampling, turns = map(_load, ("operations", "sampling", "turns"))


def test_wall_time_is_divided_among_what_runs():
    lines = [
        # `inner` runs inside `outer`, and takes its time from it.
        [("outer", 0.0, 10.0), ("inner", 4.0, 6.0)],
        [("other", 8.0, 12.0), ("late", 20.0, 21.0)],
    ]
    shares, waiting = operations.attribute(lines)
    assert shares == {"outer": 8 - 2 + 1, "inner": 2, "other": 1 + 2, "late": 1}
    assert waiting == 8


@given(
    st.lists(
        st.lists(st.tuples(st.integers(0, 50), st.integers(1, 9)), max_size=5),
        min_size=1,
        max_size=3,
    ).filter(any)
)
def test_shares_and_waiting_are_all_of_the_time(threads):
    lines, first, last = [], 10**9, 0
    for thread, gaps in enumerate(threads):
        now, events = 0, []
        for number, (gap, length) in enumerate(gaps):
            events.append((f"{thread}.{number}", float(now + gap), float(now + gap + length)))
            first, now = min(first, now + gap), now + gap + length
            last = max(last, now)
        lines.append(events)
    shares, waiting = operations.attribute(lines)
    assert sum(shares.values()) + waiting == pytest.approx(last - first)
    assert all(share > 0 for share in shares.values())


def test_instructions_of_a_program_are_told_apart():
    params = {"stage1_block1": {"conv1": {"kernel": jnp.ones((1, 1, 4, 6))}}}
    text = """HloModule jit_step

%inside (p: f32[4,6]) -> f32[4,6] {
  ROOT %dot.1 = f32[4,6]{1,0} dot(%p), metadata={op_name="transpose(jvp(N))/stage1_block1/conv1/x"}
}

ENTRY %main (a: f32[32,4]) -> f32[4,6] {
  %forward = f32[32,6]{1,0} dot(%a), metadata={op_name="jvp(N)/stage1_block1/conv1/dot_general"}
  %nameless = s32[32,6]{1,0} iota(), iota_dimension=0
  %norm = f32[32,6]{1,0} add(%forward, %nameless), metadata={op_name="jvp(N)/stage1_block1/bn1/add"}
  %gradient = f32[4,6]{1,0} fusion(%norm), kind=kLoop, calls=%inside
  ROOT %update = f32[4,6]{1,0} subtract(%gradient), metadata={op_name="sub"}
}
"""
    program = operations.Program(text, params)
    assert program.kind("forward") == ("1x1", operations.FORWARD)
    assert program.kind("gradient") == ("1x1", operations.KERNELS)
    # By the one that uses it.
    assert program.kind("nameless") == ("BatchNorm", operations.FORWARD)
    assert program.kind("update") == ("optimiser", operations.OUTSIDE)
    assert program.describe("forward") == "forward [32x6] jvp(N)/stage1_block1/conv1/dot_general"


def test_only_quiet_rounds_count():
    ours = [turns.Turn(seconds, others) for seconds, others in ((1, 0), (9, 0.5), (1, 0), (1, 0))]
    peer = [turns.Turn(seconds, 0) for seconds in (2, 2, 2, 3)]
    assert turns.ratio(peer, ours) == turns.Summary(2, 2, 3, True)
    assert turns.ratio(peer[:3], ours[:3]) == turns.Summary(2, 2 / 9, 2, False)
    assert "disturbed" in str(turns.ratio(peer[:3], ours[:3]))


def test_contenders_take_turns():
    order = []
    contenders = {"a": lambda steps: order.append(("a", steps)), "b": lambda _: time.sleep(0.02)}
    found = turns.take_turns(contenders, rounds=2, steps=3)
    assert order[0] == ("a", 3)
    assert 2 <= len(found["a"]) == len(found["b"]) <= 2 * turns.PATIENCE
    assert turns.seconds(found["b"]).least >= 0.02 / 3
    busy = turns.take_turns(
        {"spin": _spin, "sleep": lambda _: time.sleep(0.03)}, rounds=1, steps=1, cpu=True
    )
    assert turns.seconds(busy["spin"]).median > 5 * turns.seconds(busy["sleep"]).median


def _spin(steps: int) -> None:
    until = time.process_time() + 0.03
    while time.process_time() < until:
        pass


@pytest.mark.parametrize(
    ("stack", "kind"),
    [
        (["_src/array.py:_value", "ctl_jax/finetune/_loop.py:fit"], sampling.TRAINING),
        (["_src/compiler.py:backend_compile", "ctl_jax/finetune/_loop.py:fit"], "compiling"),
        (
            ["ctl_jax/finetune/step.py:init_state", "ctl_jax/finetune/_loop.py:fit"],
            "a trial's start",
        ),
        (["ctl_jax/finetune/_evaluate.py:evaluate"], "evaluation"),
        (["ctl_jax/records/_schema.py:to_json", "ctl_jax/experiment/store.py:save"], "records"),
        (["ctl_jax/experiment/steps.py:pending"], "claims of work"),
        (["ctl_jax/experiment/kinds/finetune.py:plan", "experiment/plan.py:trial"], "planning"),
        (["lib/threading.py:wait", "ctl_jax/main.py:main"], sampling.REST),
    ],
)
def test_stacks_are_classified(stack, kind):
    assert sampling.classify(stack) == kind


def test_kinds_of_work_name_files_that_there_are():
    room = _FOLDER.parent / "ctl_jax"
    named = [
        f"{folder}/{name}.py"
        for _, pattern in sampling.KINDS
        for folder, names in re.findall(r"(finetune|experiment)/\(?([\w|]+)\)?\\\.py", pattern)
        for name in names.split("|")
    ]
    assert len(named) > 10
    assert [path for path in named if not (room / path).exists()] == []


def test_sampling_sees_where_the_time_goes():
    start = time.perf_counter()
    with sampling.Sampler() as sampler:
        jax.jit(lambda x: x + 1)(jnp.ones(3)).block_until_ready()
        time.sleep(0.1)
    whole = time.perf_counter() - start
    assert 0.05 < sampler.seconds[sampling.REST] <= whole
    assert whole / 2 < sum(sampler.seconds.values()) <= whole
