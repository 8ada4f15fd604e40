"""The columns of `results.csv` as docs/columns.md shows them.

    python -m ctl_jax.records.reference > docs/columns.md

writes that page.
"""

from ctl_jax.records import COLUMNS


def reference() -> str:
    """docs/columns.md."""
    lines = [
        "# Columns of results.csv",
        "",
        "A line is a task, method, budget and seed: the trial that won the search over learning",
        "rates. Null is an empty field.",
        "",
        "Made by `python -m ctl_jax.records.reference > docs/columns.md`.",
        "",
        "| column | values | unit | what |",
        "|---|---|---|---|",
        *(f"| `{c.name}` | {c.words} | {c.unit or '-'} | {c.help} |" for c in COLUMNS),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(reference(), end="")
