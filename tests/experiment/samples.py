"""Records that tests change to their need."""

from ctl_jax import compute, records

RECORD = records.TrialRecord(
    id="",
    variant="",
    task="",
    dataset="",
    domain="",
    year=None,
    method="dense",
    scope=None,
    ratio=None,
    budget="9 flops",
    budget_flops=9,
    spent_flops=9,
    flops_per_step=1,
    forward_flops=1,
    params=1,
    learning_rate=0.1,
    seed=0,
    steps=5,
    metric="accuracy",
    dev=0.0,
    dev_test=0.0,
    dev_test_top5=None,
    diverged=False,
    ledger=compute.Ledger(),
    wall_s=1.0,
)
