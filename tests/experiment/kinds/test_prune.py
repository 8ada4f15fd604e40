"""Cuts as steps: what stays, and that it is the same again."""

import chex
import numpy as np
import pytest

from ctl_jax import models, pruning
from ctl_jax.experiment.kinds import prune
from ctl_jax.experiment.place import Workplace
from ctl_jax.experiment.store import Store


@pytest.fixture
def cut(config, make_plan, tmp_path):
    """Runs the step of a cut; gives the step, its place and its output, which is stored."""

    def cut(name, **settings):
        config.methods = (name,)
        config.pruning.update(settings)
        plan = make_plan(config)
        plan.place.store = Store(tmp_path, {})
        (method,) = plan.methods.values()
        step = plan.start(method)
        output = prune.run(step, plan.place, None)
        plan.place.store.create()
        plan.place.store.save(step.id, output.records)
        return step, plan.place, output

    return cut


@pytest.mark.parametrize("name", ["filters@0.5", "channels@0.3", "all@0.25"])
def test_the_cut_network_is_made_again_from_the_record(cut, name):
    step, place, output = cut(name)
    assert output.model is None
    (record,) = output.records
    assert (record.id, record.cut, record.groups) == (step.id, name, len(place.groups))
    keep = pruning.Keep.from_json(record.keep)
    assert record.cut_groups == sum(len(keep[each]) < keep.sizes[each] for each in keep) > 0
    variables = place.variables(step)
    chex.assert_trees_all_equal(variables, pruning.prune(place.given, place.groups, keep))
    chex.assert_trees_all_equal_shapes_and_dtypes(variables, place.shapes(step))
    image = np.ones((1, 16, 16, 3), np.float32)
    assert models.apply(place.module, variables, image).shape == (1, 1)


def test_the_channels_with_the_highest_scores_stay(cut):
    _, place, output = cut("filters@0.5", criterion="l1")
    keep = pruning.Keep.from_json(output.records[-1].keep)
    for name, scores in pruning.score(place.groups, place.given, criterion="l1").items():
        kept = keep[name]
        if len(kept) < len(scores):
            others = np.delete(np.asarray(scores), kept)
            assert np.asarray(scores)[list(kept)].min() >= others.max()


def test_how_many_channels_stay_is_known_without_weights(cut):
    step, place, output = cut("channels@0.3")
    keep = pruning.Keep.from_json(output.records[-1].keep)
    planned = prune.planned(step, place)
    assert {name: len(kept) for name, kept in planned.items()} == {
        name: len(kept) for name, kept in keep.items()
    }
    assert prune.flops(step, place) == 0


def test_a_cut_of_a_cut_network_starts_from_its_input(cut):
    step, place, _ = cut("filters@0.5")
    seen = []

    class Place(Workplace):
        def local_variables(self, step):
            seen.append(step)
            return place.given

    other = Place(place.config, place.loader, place.store)
    source = prune.make(prune.Cut("all", 0.5), {"criterion": "l2", "round_to": 1}, {}, None)
    inputs = type(step)(step.kind, step.params, {"weights": source})
    place.store.save(inputs.id, place.store.load(step.id))
    chex.assert_trees_all_equal_structs(prune.restore(inputs, other), place.variables(step))
    assert seen == [source]


def test_notes_say_what_was_left_whole(config, make_plan):
    config.methods = ("filters@0.5", "filters@0.99", "channels@0.5")
    plan = make_plan(config)
    notes = {
        name: prune.notes(plan.place.groups, prune.planned(plan.start(method), plan.place))
        for name, method in plan.methods.items()
    }
    assert any("residual addition" in note for note in notes["filters@0.5"])
    assert notes["channels@0.5"] == []
    assert any("would empty group" in note for note in notes["filters@0.99"])
