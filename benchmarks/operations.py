"""Where the time of a training step goes, by kind of operation, from a trace of jax.profiler."""

import collections
import contextlib
import functools
import math
import pathlib
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple
from unittest import mock

import jax

from ctl_jax import finetune, models
from ctl_jax.finetune import step as step_module
from ctl_jax.models import resnet

FORWARD, BACKWARD, KERNELS, OUTSIDE = "forward", "backward", "kernels' gradients", "outside"
PARTS = (FORWARD, BACKWARD, KERNELS, OUTSIDE)
# What an operation computes, and in which part of the step.
Kind = tuple[str, str]
# Name of an instruction, start and end in nanoseconds.
Event = tuple[str, float, float]


class Instruction(NamedTuple):
    """One line of a compiled program.

    Attributes:
      shape: of its result, the first if there are several.
      op_name: the path of jax's operation that it comes from; "" where XLA made it up.
      calls: the computation that it runs, or "".
      operands: names of instructions, and of others things.
    """

    shape: tuple[int, ...]
    op_name: str
    calls: str
    operands: frozenset[str]


class Timing(NamedTuple):
    """Milliseconds of wall time a step.

    Attributes:
      kinds: by kind of operation. Where several run at once, each has its part of the time.
      instructions: by instruction, with its shape and where it comes from.
      waiting: time in which no operation ran.
    """

    kinds: Mapping[Kind, float]
    instructions: Mapping[str, float]
    waiting: float


def profile(
    module: Any, recipe: finetune.Recipe, variables: Any, batch: Any, hyper: Any, steps: int
) -> Timing:
    """Traces some steps.

    Args:
      module: the network, a ResNet.
      recipe: of the step.
      variables: to start from.
      batch: images and labels.
      hyper: values of the trial.
      steps: how many are averaged.
    """
    batch, hyper = jax.device_put((batch, hyper))
    state = finetune.init_state(recipe, variables, seed=0)
    with _named_scopes():
        step = jax.jit(
            models.tuned()(functools.partial(finetune.train_step, module, recipe)),
            donate_argnums=0,
            compiler_options=models.compiler_options(jax.default_backend()),
        )
        compiled = step.lower(state, *batch, hyper).compile()
    state, metrics = compiled(state, *batch, hyper)
    metrics.loss.block_until_ready()
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(steps):
                state, metrics = compiled(state, *batch, hyper)
            metrics.loss.block_until_ready()
        (path,) = pathlib.Path(folder).rglob("*.xplane.pb")
        program = Program(compiled.as_text() or "", variables["params"])
        shares, waiting = attribute(read_events(path, program.instructions))
    scale = 1 / steps / 1e6
    kinds: dict[Kind, float] = collections.defaultdict(float)
    for name, time in shares.items():
        kinds[program.kind(name)] += time * scale
    named = {program.describe(name): time * scale for name, time in shares.items()}
    return Timing(kinds, named, waiting * scale)


def print_kinds(kinds: Mapping[Kind, float]) -> None:
    """A table: kinds down, parts of the step across, with sums."""
    rows = {name: [kinds.get((name, part), 0.0) for part in PARTS] for name, _ in kinds}
    print(f"  {'':<20}" + "".join(f"{part:>20}" for part in PARTS) + f"{'sum':>12}")
    for name, row in sorted(rows.items(), key=lambda item: -sum(item[1])):
        cells = "".join(f"{value:>20.1f}" if value else " " * 20 for value in row)
        print(f"  {name:<20}{cells}{sum(row):>12.1f}")
    print(f"  {'sum':<100}{sum(kinds.values()):>12.1f}")


@contextlib.contextmanager
def _named_scopes() -> Iterator[None]:
    """Gives a name in the program to parts of the step that are no modules."""
    crops = jax.named_scope("crops")
    with contextlib.ExitStack() as stack:
        for owner, name, scope in (
            (step_module, "augment", crops),
            (models.Preprocess, "__call__", crops),
            (resnet, "max_pool", jax.named_scope("max_pool")),
        ):
            stack.enter_context(mock.patch.object(owner, name, scope(getattr(owner, name))))
        yield


class Program:
    """What the instructions of a compiled step are for."""

    def __init__(self, text: str, params: Any) -> None:
        """Parses a program as XLA prints it; `params` are the network's."""
        self.instructions: dict[str, Instruction] = {}
        self._bodies: dict[str, list[str]] = collections.defaultdict(list)
        self._users: dict[str, list[str]] = collections.defaultdict(list)
        self._kernels = {
            "/".join(key.key for key in path[:-1]): leaf.shape
            for path, leaf in jax.tree_util.tree_leaves_with_path(params)
            if path[-1].key == "kernel"
        }
        computation = ""
        for line in text.splitlines():
            if found := re.match(r"(?:ENTRY )?%([\w.-]+) \(.*\{$", line):
                computation = found[1]
            elif found := re.match(r"\s+(?:ROOT )?%([\w.-]+) = (.*)", line):
                self._add(computation, found[1], found[2])

    def _add(self, computation: str, name: str, rest: str) -> None:
        shape = re.search(r"\w\[([\d,]*)\]", rest)
        op_name = re.search(r'op_name="([^"]*)"', rest)
        calls = re.search(r"(?:calls|to_apply)=%([\w.-]+)", rest)
        operands = frozenset(re.findall(r"%([\w.-]+)", rest))
        self.instructions[name] = Instruction(
            tuple(int(size) for size in shape[1].split(",") if size) if shape else (),
            op_name[1] if op_name else "",
            calls[1] if calls else "",
            operands,
        )
        self._bodies[computation].append(name)
        for operand in operands:
            self._users[operand].append(name)

    def _own_origin(self, name: str) -> str:
        """The jax operation that an instruction, or the last named one inside it, comes from."""
        body = reversed(self._bodies.get(self.instructions[name].calls, []))
        return next(filter(None, (self.instructions[i].op_name for i in (name, *body))), "")

    def origin(self, name: str, depth: int = 5) -> str:
        """The jax operation that an instruction comes from, or else one that uses it."""
        if own := self._own_origin(name):
            return own
        if depth:
            for user in self._users[name]:
                if found := self.origin(user, depth - 1):
                    return found
        return ""

    def kind(self, name: str) -> Kind:
        """Kind of an instruction, by the layer and the part of the step that it belongs to."""
        origin, shape = self.origin(name), self.instructions[name].shape
        if not self._own_origin(name):
            # XLA:CPU forgets where its gradients of kernels come from.
            for same, kernel in self._kernels.items():
                if sorted(shape) == sorted(kernel):
                    return self._layer_kind(same), KERNELS
        if "jvp" not in origin:
            return ("crops" if "/crops/" in origin else "optimiser"), OUTSIDE
        part = BACKWARD if "transpose(" in origin else FORWARD
        if re.match("(copy|transpose)_", name):
            return "transposed copies", part
        layer = next((key for key in self._kernels if f"/{key}/" in f"{origin}/"), None)
        if layer is None:
            if "max_pool" in origin:
                return "pooling", part
            return ("BatchNorm" if re.search(r"bn\d?/", origin) else "element-wise"), part
        if part == BACKWARD and math.prod(shape) == math.prod(self._kernels[layer]):
            part = KERNELS
        return self._layer_kind(layer), part

    def _layer_kind(self, layer: str) -> str:
        size = self._kernels[layer][:2]
        return {"stem_conv": "stem", "head": "head"}.get(layer, f"{size[0]}x{size[1]}")

    def describe(self, name: str) -> str:
        """The instruction, its shape, and where it comes from."""
        shape = "x".join(map(str, self.instructions[name].shape))
        origin = self.origin(name).replace("jit(train_step)/", "")
        return f"{name} [{shape}] {origin}"


def read_events(path: pathlib.Path, known: Mapping[str, Instruction]) -> list[list[Event]]:
    """The known instructions' runs in a trace, for each line (a thread, or a GPU's stream)."""
    lines = []
    for plane in jax.profiler.ProfileData.from_file(str(path)).planes:
        for line in plane.lines:
            events = []
            for event in line.events:
                name = event.name or ""
                if name not in known and plane.name.startswith("/device"):
                    # A GPU's events are named after kernels.
                    name = str(dict(event.stats).get("hlo_op", ""))
                if name in known:
                    events.append((name, event.start_ns, event.start_ns + event.duration_ns))
            if events:
                lines.append(events)
    return lines


def attribute(lines: Sequence[Sequence[Event]]) -> tuple[dict[str, float], float]:
    """Divides wall time among what runs.

    Eigen convolves in threads of its own, and the event of a convolution ends where that begins:
    time in which nothing else ran is that of the convolution started last.

    Args:
      lines: events of each thread; those inside another one take their time from it.

    Returns:
      Nanoseconds by name, and those in which nothing ran.
    """
    changes = sorted(
        (time, is_start, line, name)
        for line, events in enumerate(lines)
        for name, start, end in events
        if end > start
        for time, is_start in ((start, True), (end, False))
    )
    shares: dict[str, float] = collections.defaultdict(float)
    running: dict[int, list[str]] = collections.defaultdict(list)
    waiting, before, convolution = 0.0, changes[0][0], ""
    for time, is_start, line, name in changes:
        innermost = [stack[-1] for stack in running.values() if stack]
        for running_name in innermost:
            shares[running_name] += (time - before) / len(innermost)
        if not innermost and convolution:
            shares[convolution] += time - before
        elif not innermost:
            waiting += time - before
        before = time
        if is_start:
            running[line].append(name)
            # A GPU's convolutions end where their events do.
            if jax.default_backend() == "cpu" and name.startswith("conv"):
                convolution = name
        else:
            running[line].remove(name)
    return dict(shares), waiting
