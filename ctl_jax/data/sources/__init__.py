"""The forms in which a data set may lie on disk, one module each.

Each offers

    find(spec: TaskSpec, places: Places) -> pathlib.Path | None    # cheap
    open(spec: TaskSpec, path: pathlib.Path) -> DataSet            # UserError if it is damaged
"""
