"""How far a run is, seen from outside."""

import csv
import io

import pytest
import rich.console

from ctl_jax import experiment
from ctl_jax.errors import UserError
from ctl_jax.experiment.leases import Leases
from ctl_jax.status import lines, main, status


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a finished run of three trials."""
    config = experiment.default_config()
    config.stream.variant = "digits"
    config.data.image_size, config.data.max_eval_examples = 16, 40
    config.model.name, config.model.stages, config.model.width = "resnet18", (1, 1), 8
    config.methods = ("scratch",)
    config.budgets.min_flops, config.budgets.max_flops, config.budgets.num = 4e7, 1e8, 3
    config.finetune.batch_size, config.finetune.learning_rates = 8, (0.1,)
    folder = tmp_path_factory.mktemp("run")
    experiment.run(config, folder, rich.console.Console(file=io.StringIO()))
    return folder


def _trials(folder):
    with open(folder / "results.csv", newline="") as file:
        return sorted(csv.DictReader(file), key=lambda row: float(row["dev"]))


def test_a_finished_run(run):
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    found = status(run)
    assert (found.done, found.left_flops, found.work, found.seconds) == (found.steps, 0, {}, None)
    assert found.steps >= 3
    (best,) = found.best
    assert best.dev == float(_trials(run)[-1]["dev"])
    said = "\n".join(lines(found))
    assert f"{found.steps} of {found.steps} steps done, 100% of" in said
    assert "Nobody" not in said
    assert f"digits  {best.dev:.3f}  scratch, " in said
    # It is somebody else's run.
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_a_run_on_the_way(run, capsys):
    """Its best trial is not done, and this process works on it."""
    *others, best = _trials(run)
    step = run / "steps" / f"{best['trial']}.jsonl"
    content = step.read_bytes()
    step.unlink()
    try:
        found = status(run)
        assert found.done == found.steps - 1
        assert 0 < found.left_flops < found.flops
        assert found.best[0].id != best["trial"]
        assert found.best[0].dev == float(others[-1]["dev"])
        assert found.seconds is None
        assert "Nobody works on a step at this moment; the run's command" in "\n".join(lines(found))
        lease = Leases(run / "leases", 60).take(best["trial"], 0)
        found = status(run)
        ((who, what),) = found.work.items()
        assert (what, found.seconds > 0) == (["Digits, scratch"], True)
        assert main([str(run)]) == 0
        assert f"At work:\n  {who}  Digits, scratch\n" in capsys.readouterr().out
        lease.remove()
    finally:
        step.write_bytes(content)


def test_what_is_no_run(tmp_path, capsys):
    with pytest.raises(UserError, match=r"no config.json; expected the --workdir of a run"):
        status(tmp_path)
    (tmp_path / "config.json").write_text("{")
    assert main([str(tmp_path)]) == 2
    assert "config.json is not JSON" in capsys.readouterr().err
