"""Records: the lines of `records.jsonl` as types, for those who write and those who read them.

    line = json.dumps(records.to_json(records.DevRecord(trial=id, step=3, ...)))
    record = records.from_json(json.loads(line))
    best = records.winner(trials)

docs/columns.md lists the columns of `results.csv`, which are fields of `records.TrialRecord`.
"""

from ctl_jax.records._columns import COLUMNS, Column, column, derived, row
from ctl_jax.records._computed import Computed, Hardware
from ctl_jax.records._prepared import (
    AdaptRecord,
    ExtractRecord,
    HeadAnswer,
    HeadOption,
    HeadRecord,
    LookedAt,
    LookRecord,
    NeighboursRecord,
    PruneRecord,
    RecalibrateRecord,
    RegrowRecord,
    RungRecord,
    ShortenRecord,
)
from ctl_jax.records._reading import TYPES, Record, from_json, is_product
from ctl_jax.records._schema import kind_of, to_json
from ctl_jax.records._trial import (
    PURPOSES,
    SEARCHED,
    TrialRecord,
    full_method,
    rank,
    searched,
    winner,
)
from ctl_jax.records._types import (
    DevRecord,
    EvaluateRecord,
    FinalRecord,
    MethodRecord,
    MissingTask,
    PaceRecord,
    PendingRecord,
    PredictRecord,
    PretrainRecord,
    RunRecord,
    RunTask,
    TaskRecord,
    TrainRecord,
)

__all__ = [
    "COLUMNS",
    "PURPOSES",
    "SEARCHED",
    "TYPES",
    "AdaptRecord",
    "Column",
    "Computed",
    "DevRecord",
    "EvaluateRecord",
    "ExtractRecord",
    "FinalRecord",
    "Hardware",
    "HeadAnswer",
    "HeadOption",
    "HeadRecord",
    "LookRecord",
    "LookedAt",
    "MethodRecord",
    "MissingTask",
    "NeighboursRecord",
    "PaceRecord",
    "PendingRecord",
    "PredictRecord",
    "PretrainRecord",
    "PruneRecord",
    "RecalibrateRecord",
    "Record",
    "RegrowRecord",
    "RunRecord",
    "RunTask",
    "RungRecord",
    "ShortenRecord",
    "TaskRecord",
    "TrainRecord",
    "TrialRecord",
    "column",
    "derived",
    "from_json",
    "full_method",
    "is_product",
    "kind_of",
    "rank",
    "row",
    "searched",
    "to_json",
    "winner",
]
