"""Tests mirror the package: `ctl_jax/a/b.py` is tested in `tests/a/test_b.py`.

Modules of one form may have one file, named as their package; what is private to a package
(`_b.py`) may be tested with the rest of it. All other exceptions are here.
"""

import pathlib

ROOT = pathlib.Path(__file__).parents[1]

# Parts of one thing, which is tested as a whole: each module, and where.
ELSEWHERE = {
    # What is in a folder is found and told apart by all of these together.
    "data/formats/cut.py": "data/formats/test_layout.py",
    "data/formats/doubts.py": "data/formats/test_layout.py",
    "data/formats/leftovers.py": "data/formats/test_listing.py",
    "data/formats/search.py": "data/formats/test_layout.py",
    "data/formats/image_files.py": "data/sources/test_folders.py",
    "data/formats/encoded.py": "data/sources/test_folders.py",
    "data/formats/tables.py": "data/sources/test_tables.py",
    "data/formats/table_files.py": "data/sources/test_tables.py",
    "data/formats/file_state.py": "data/sources/test_folders.py",
    "data/formats/remembered.py": "data/formats/test_tars.py",
    "data/sources/tfds/records.py": "data/sources/tfds/test_prepared.py",
    # Goes with what it reads.
    "exports/load_torch.py": "exports/test_torch_files.py",
    # A few lines that all who read tasks, trees or heads go through.
    "data/source.py": "docs/test_extending.py",
    "data/task.py": "data/test_loading.py",
    "errors.py": "test_main.py",
    "trees.py": "pruning/test_cutting.py",
    "heads/solver.py": "heads/test_fitting.py",
    "pruning/criteria/request.py": "pruning/test_scoring.py",
    # Linear algebra under every solver, whose tests compare with numpy and scikit-learn.
    "heads/calibration.py": "heads/solvers/test_logistic.py",
    "heads/least_squares.py": "heads/solvers/test_ridge.py",
    "heads/linalg_flops.py": "heads/test_fitting.py",
    "heads/shards.py": "heads/test_fitting.py",
    # Blocks and readings of networks, of which whole ones are compared with torch.
    "models/inverted_residual.py": "models/test_mobilenet_v2.py",
    "models/taps.py": "models/test_heads.py",
    "models/transformer.py": "models/test_vit.py",
    # What runs are made of, seen in whole runs.
    "experiment/cards.py": "experiment/test_runner.py",
    "experiment/config/sections.py": "experiment/config/test_checking.py",
    "experiment/finished.py": "experiment/test_store.py",
    "experiment/preparation.py": "experiment/test_probes.py",
    "experiment/kinds/neighbours.py": "experiment/learners/test_dynamic.py",
    "experiment/learners/previous.py": "experiment/test_chains.py",
    "experiment/predictions.py": "experiment/test_chains.py",
    "experiment/rungs.py": "experiment/kinds/test_rung.py",
    "experiment/stretches.py": "experiment/kinds/test_finetune.py",
    "experiment/training.py": "experiment/kinds/test_finetune.py",
    "experiment/workspace.py": "experiment/test_plan.py",
}

# Tests of no single module: what many of them do together. Their first lines say what.
ACROSS = {
    "data/sources/test_trees.py",
    "data/test_memory.py",
    "data/test_prepare_official.py",
    "experiment/test_damaged_runs.py",
    "experiment/test_kills.py",
    "experiment/test_own_network.py",
    "experiment/test_probes.py",
    "experiment/test_workers.py",
    "finetune/test_bfloat16.py",
    "finetune/test_chunks.py",
    "finetune/test_multi_label.py",
    "finetune/test_phases_torch.py",
    "finetune/test_resume.py",
    "finetune/test_several_phases.py",
    "finetune/test_streamed.py",
    "finetune/test_without_statistics.py",
    "models/test_bfloat16.py",
    "models/test_conventions.py",
    "models/test_cut_widths.py",
    "models/test_layer_widths.py",
    "models/test_linear_probe.py",
    "models/test_resnet_torch.py",
    "pruning/test_equinox.py",
    "pruning/test_exactness.py",
    "pruning/test_examples.py",
    "pruning/test_haiku.py",
    "pruning/test_linen.py",
    "pruning/test_models.py",
    "pruning/test_nnx.py",
    "pruning/test_real_weights.py",
    "pruning/test_sharding.py",
    "report/test_page_in_browser.py",
    "test_configs.py",
    "test_docs.py",
    "test_fuzz.py",
    "test_imports.py",
    "test_mirror.py",
}


def files(folder: str, pattern: str) -> set[pathlib.PurePath]:
    return {path.relative_to(ROOT / folder) for path in (ROOT / folder).rglob(pattern)}


MODULES, TESTS = files("ctl_jax", "*.py"), files("tests", "test_*.py")


def homes(module: pathlib.PurePath) -> set[pathlib.PurePath]:
    """The files of tests that a module may have by its name, and by its package's."""
    own = module.with_name(f"test_{module.stem.strip('_')}.py")
    package = module.parent
    whole = {each / f"test_{package.name}.py" for each in (package, package.parent)}
    return {own, *whole} & TESTS


def test_every_module_has_its_tests():
    public = {module for module in MODULES if not module.name.startswith("_")}
    assert {str(module) for module in public if not homes(module)} == set(ELSEWHERE)
    assert {pathlib.PurePath(test) for test in ELSEWHERE.values()} <= TESTS


def test_every_test_has_its_module():
    mirrors = set().union(*map(homes, MODULES))
    # Other folders have tests by what is done there.
    inside = {test for test in TESTS if test.parts[0] not in ("benchmarks", "docs", "launch")}
    assert set(map(str, inside - mirrors)) == ACROSS
