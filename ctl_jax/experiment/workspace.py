"""The workspace of a run in a process: the network, the tasks, and what was computed of them."""

import collections
import functools
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict

from ctl_jax import finetune, models, pruning, records
from ctl_jax.compute import Ledger
from ctl_jax.data import balance
from ctl_jax.errors import UserError
from ctl_jax.experiment import build
from ctl_jax.experiment.array_files import read as read_arrays
from ctl_jax.experiment.config import Config
from ctl_jax.experiment.method_costs import Cost, cost_by_classes, forward_flops, params_along
from ctl_jax.experiment.progress import Progress
from ctl_jax.experiment.step_files import Damaged
from ctl_jax.experiment.steps import KINDS, Step
from ctl_jax.experiment.store import Store
from ctl_jax.experiment.tasks import TaskInfo, TaskLoader
from ctl_jax.finetune import Recipe, multihost
from ctl_jax.trees import Tree

# Variables of steps that stay in memory: those of a run's networks, and a few trained ones.
_MOST_VARIABLES = 16
# What stands for the whole network where no step made its weights.
_WHOLE = ""

T = TypeVar("T")


class DamagedModel(Exception):
    """Variables of a finished step that cannot be read back: it has to be done again.

    Attributes:
      step: which.
    """

    def __init__(self, step: Step, reason: object):
        super().__init__(f"model of step {step.id}: {reason}")
        self.step = step
        self.reason = reason


class Workspace:
    """What the steps of a run share in a process, each computed when it is first needed.

    Attributes:
      config: the run's.
      tasks: those of the stream, by name.
      source: the task to pretrain on.
      loader: of their images.
      store: the run's folder.
      progress: shown meanwhile; None in a plan.
      watch: called with what a step says of itself while it trains; None where nobody watches.
      warn: called with a line about what is wrong and yet no reason to stop.
    """

    def __init__(
        self,
        config: Config,
        loader: TaskLoader,
        store: Store,
        warn: Callable[[str], None] = lambda line: None,
    ):
        self.config = config
        self.tasks: dict[str, TaskInfo] = {}
        self.source: TaskInfo | None = None
        self.loader = loader
        self.store = store
        self.progress: Progress | None = None
        self.watch: Callable[[records.Record], None] | None = None
        self.warn = warn
        # One compiled step a recipe; within it jax keeps one program an architecture.
        self.compiled = functools.cache(lambda recipe: finetune.make_step(self.module, recipe))
        self._variables: collections.OrderedDict[str, Tree] = collections.OrderedDict()
        self._memory: dict[Any, Any] = {}

    def show(self, updates: int) -> None:
        """Shows how many updates the step at hand has made."""
        if self.progress is not None:
            self.progress.step(updates)

    def tell(self, make: Callable[[], records.Record]) -> None:
        """Tells those that watch, if there are any, what the step at hand says of itself."""
        if self.watch is not None:
            self.watch(make())

    @functools.cached_property
    def network(self) -> build.Network:
        """What is trained.

        Raises:
          UserError: it or its weights cannot be had, see `networks.find`.
        """
        return build.find(self.config)

    @property
    def module(self) -> nn.Module:
        """The network's Linen module."""
        return self.network.module

    @property
    def given(self) -> Tree | None:
        """Variables that `config.weights` names; None where none are given."""
        return self.network.given

    @functools.cached_property
    def whole(self) -> Tree:
        """Shapes of the whole network's variables, with one output."""
        if self.given is not None:
            return jax.eval_shape(lambda: self.given)
        return build.abstract_variables(self.network, self.config.data.image_size)

    @functools.cached_property
    def groups(self) -> pruning.Groups:
        """Channel groups of the whole network."""
        return build.trace_groups(self.module, self.whole, self.config.data.image_size)

    def flops(self, step: Step) -> int:
        """What a step costs."""
        return self.once(("flops", step.id), lambda: KINDS[step.kind].flops(step, self))

    def shapes(self, step: Step | None) -> Tree:
        """Shapes of the variables that a step makes; of the whole network without one."""
        if step is None:
            return self.whole
        return self.once(("shapes", step.id), lambda: KINDS[step.kind].shapes(step, self))

    def variables(self, step: Step | None) -> Tree:
        """The variables that a finished step made, or those that were given.

        They are read back from the folder also where they were made here: an interrupted run and an
        undisturbed one go on from the same numbers.

        Raises:
          DamagedModel: they cannot be read back.
        """
        if step is None:
            if self.given is None:
                raise UserError("config.weights='': expected weights to start from")
            return self.given
        # All processes of a group ask for the same ones, in the same order.
        if step.id not in self._variables:
            found = _of_first(self.local_variables, step)
            self._variables[step.id] = multihost.tree_of_first(found, self.shapes(step))
            if len(self._variables) > _MOST_VARIABLES:
                self._variables.popitem(last=False)
        self._variables.move_to_end(step.id)
        return self._variables[step.id]

    def local_variables(self, step: Step | None) -> Tree:
        """As `variables`, in this process alone, which reads the folder."""
        if step is None or step.id in self._variables:
            return self.variables(step)
        restore = KINDS[step.kind].restore
        if restore is not None:
            return restore(step, self)
        try:
            found = models.load(self.store.model(step.id)).variables
            # Of a model that is not this step's, or of another program.
            expected = getattr(self.store.result(step.id), "weights", None)
            if expected and models.content_hash(found) != expected:
                raise UserError("they are not those of its record")
            return fitted(found, self.shapes(step))
        except UserError as error:
            raise DamagedModel(step, error) from None

    def result(self, step: Step) -> records.Record:
        """What a finished step came to; in a group the first process reads it."""
        found = records.to_json(self.store.result(step.id)) if multihost.is_first() else None
        record = records.from_json(multihost.json_of_first(found))
        assert record is not None
        return record

    def charge(self, start: Step | None, task: str, *, done: bool) -> Ledger:
        """What a trial that starts from a step's product is charged for it, as if it were alone.

        Args:
          start: the step, whose own start counts too; weights that are trained cost nothing here.
          task: the trial's; what was done for one before it costs nothing here, either.
          done: whether the steps are, so that their records tell what was not known before.
        """
        ledger = Ledger()
        while start is not None and (charge := KINDS[start.kind].charge) is not None:
            if start.params.get("task", {}).get("name", task) != task:
                break
            ledger += charge(start, self, self.result(start) if done else None)
            start = start.inputs.get("weights")
        return ledger

    def order(self, task: str, labels: np.ndarray, seed: int, half: int = 0) -> np.ndarray:
        """A task's training images as `balance.order` has them."""
        key = ("order", task, seed, half)
        return self.once(key, lambda: balance.order(labels, seed, half))

    def arrays(self, step: Step) -> Mapping[str, np.ndarray]:
        """The arrays that a finished step made, by name; not to be changed.

        Raises:
          DamagedModel: they cannot be read back.
        """
        return multihost.arrays_of_first(_of_first(self.local_arrays, step))

    def local_arrays(self, step: Step) -> Mapping[str, np.ndarray]:
        """As `arrays`, in this process alone, which reads the folder."""
        try:
            return read_arrays(self.store.arrays(step.id), step.id)
        except (FileNotFoundError, Damaged) as error:
            raise DamagedModel(step, error) from None

    def changed(self, step: Step, start: Step | None) -> Tree:
        """The variables of `start`, with a finished step's arrays in the place of theirs, by path.

        In this process alone, as `local_variables`.
        """
        leaves = flatten_dict(self.local_variables(start), sep="/")
        leaves |= {path: np.asarray(array) for path, array in self.local_arrays(step).items()}
        return unflatten_dict(leaves, sep="/")

    def costs(
        self, recipe: Recipe, start: Step | None, batch_size: int, image_size: int, head: str = ""
    ) -> Callable[[int], Cost]:
        """What a network costs, by the number of classes.

        Args:
          recipe: how it is trained.
          start: the step that made its weights, as for `shapes`.
          batch_size: images an update.
          image_size: side of the images in pixels.
          head: what a new head reads, "last" or "taps"; "" is the head that `start` made.
        """
        # Networks of one architecture, such as those of dense and scratch, share a count.
        key = (recipe, batch_size, image_size, self._architecture(start, head, image_size))
        return self.once(
            key,
            lambda: cost_by_classes(
                self.module,
                recipe,
                self.headed(start, head, image_size),
                batch_size=batch_size,
                image_size=image_size,
                forward=self._forward(start, head, image_size),
            ),
        )

    def divided(
        self, recipe: Recipe, start: Step | None, image_size: int, head: str = ""
    ) -> Recipe:
        """See `maps.divided`; the arguments are as for `costs`."""
        if not recipe.phase.cached:
            return recipe
        key = ("divided", recipe, image_size, self._architecture(start, head, image_size))
        return self.once(
            key,
            lambda: finetune.feature_maps.divided(
                self.module, recipe, self.headed(start, head, image_size), image_size
            ),
        )

    def forward(self, start: Step | None, num_classes: int, image_size: int, head: str = "") -> int:
        """FLOPs of a forward pass of one image; the arguments are as for `costs`."""
        fixed, each = self._forward(start, head, image_size)
        return fixed + num_classes * each

    def params(self, start: Step | None, num_classes: int, image_size: int, head: str = "") -> int:
        """Number of parameters; the arguments are as for `costs`."""
        key = ("params", self._architecture(start, head, image_size))
        fixed, each = self.once(key, lambda: params_along(self.headed(start, head, image_size)))
        return fixed + num_classes * each

    def headed(self, start: Step | None, head: str, image_size: int) -> Tree:
        """Shapes of a network's variables with a head of one output; see `costs`."""

        def make(tree: Tree) -> Tree:
            if head == "":
                return models.with_head(tree, 1)
            return self.with_new_head(tree, start, head, image_size, 1)

        return jax.eval_shape(make, self.shapes(start))

    def features(self, start: Step | None, head: str, image_size: int) -> int:
        """How many numbers a head reads, "last" or "taps"."""

        def count() -> int:
            image = jax.ShapeDtypeStruct((1, image_size, image_size, 3), jnp.float32)
            read: Any = functools.partial(models.representation, self.module)
            read = functools.partial(read, head=head)
            return int(jax.eval_shape(read, self.shapes(start), image).shape[-1])

        return self.once(("features", head, image_size, start.id if start else _WHOLE), count)

    def with_new_head(
        self, variables: Tree, start: Step | None, head: str, image_size: int, outputs: int
    ) -> Tree:
        """Variables with a head of zeros that reads "last" or "taps"; see `costs`."""
        if head == "last":
            return models.with_head(variables, outputs)
        return _with_linear_head(variables, self.features(start, head, image_size), outputs)

    def _forward(self, start: Step | None, head: str, image_size: int) -> tuple[int, int]:
        return self.once(
            ("forward", image_size, self._architecture(start, head, image_size)),
            lambda: forward_flops(self.module, self.headed(start, head, image_size), image_size),
        )

    def architecture(self, start: Step | None) -> Any:
        """What tells the network of a step's variables from others, whatever its head."""

        def described() -> Any:
            leaves = flatten_dict(self.shapes(start)["params"], sep="/").items()
            return tuple((p, leaf.shape) for p, leaf in leaves if not p.startswith("head/"))

        return self.once(("widths", start.id if start else _WHOLE), described)

    def _architecture(self, start: Step | None, head: str, image_size: int) -> Any:
        def described() -> Any:
            leaves, structure = jax.tree.flatten(self.headed(start, head, image_size))
            return structure, tuple((leaf.shape, leaf.dtype) for leaf in leaves)

        size = image_size if head == "taps" else 0
        return self.once(("architecture", head, size, start.id if start else _WHOLE), described)

    def once(self, key: Any, make: Callable[[], T]) -> T:
        """What `make` gave when it was first called for this key."""
        if key not in self._memory:
            self._memory[key] = make()
        return self._memory[key]


def _of_first(read: Callable[[Step], T], step: Step) -> T | None:
    """What a group's first process reads of a step; None in the others.

    Raises:
      DamagedModel: in all of them, where it cannot be read back.
    """
    found, problem = None, None
    try:
        found = read(step) if multihost.is_first() else None
    except DamagedModel as error:
        problem = error
    if multihost.of_first(int(problem is not None)):
        raise problem or DamagedModel(step, "found by the first process")
    return found


def _with_linear_head(variables: Tree, rows: int, outputs: int) -> Tree:
    """The variables with a head of zeros that reads so many numbers."""
    head = {"kernel": jnp.zeros((rows, outputs)), "bias": jnp.zeros(outputs)}
    return models.set_head(variables, head)


def fitted(variables: Tree, like: Tree) -> Tree:
    """The variables with as many outputs as `like` has, whose shapes the others must have.

    Raises:
      UserError: they are of another network.
    """
    try:
        outputs = like["params"]["head"]["kernel"].shape[-1]
        if variables["params"]["head"]["kernel"].shape[-1] != outputs:
            variables = models.with_head(variables, outputs)
    except LookupError:
        raise UserError("they have no head") from None
    if _described(variables) != _described(like):
        raise UserError("they are of another network")
    return variables


def _described(variables: Tree) -> Mapping[str, Any]:
    """Shape and type of each array by its path."""
    leaves = jax.tree_util.tree_leaves_with_path(variables)
    return {
        jax.tree_util.keystr(path): (tuple(leaf.shape), leaf.dtype.name) for path, leaf in leaves
    }
