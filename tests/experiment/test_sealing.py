"""The file of a trial gives its records back, or says that it cannot."""

import json

import hypothesis
import pytest
from hypothesis import strategies as st

from ctl_jax.experiment.sealing import Damaged, seal, unseal

RECORDS = st.lists(
    st.dictionaries(st.text(max_size=5), st.none() | st.integers() | st.text(max_size=5)),
    max_size=4,
)


def damaged(draw, content):
    """Other bytes than they were, as accidents make them."""
    place = draw(st.integers(0, len(content) - 1))
    end = draw(st.integers(place + 1, len(content)))
    return draw(
        st.sampled_from(
            [
                content[:place],
                content[place + 1 :],
                content[:place] + content[end:],
                content[:place] + bytes(end - place) + content[end:],
                content[:place] + bytes([content[place] ^ 1 << place % 8]) + content[place + 1 :],
                content + content[place:],
                content + b"\0",
                content + b"\n",
                content.replace(b"\n", b"\r\n"),
            ]
        )
    )


@hypothesis.settings(max_examples=300)
@hypothesis.given(st.data(), RECORDS)
def test_what_was_sealed_comes_back_or_is_called_damaged(data, records):
    content = seal("ab12", records)
    assert unseal("ab12", content) == records
    try:
        # A space more in the last line, say.
        assert unseal("ab12", damaged(data.draw, content)) == records
    except Damaged as error:
        assert "\n" not in str(error)  # noqa: PT017
    with pytest.raises(Damaged, match="of another trial, 'ab12'"):
        unseal("ab13", content)


TRIAL = {
    **dict.fromkeys(("variant", "task", "dataset", "method", "metric"), "x"),
    **dict.fromkeys(("budget_flops", "learning_rate", "seed", "steps", "flops_per_step"), 1),
    **dict.fromkeys(("spent_flops", "forward_flops", "params", "wall_s"), 1),
    **dict.fromkeys(("domain", "year", "scope", "ratio", "dev_test_top5"), None),
    "type": "trial",
    "id": "ab12",
    "dev": 0.5,
    "dev_test": 0.5,
    "diverged": False,
    "ledger": dict.fromkeys(("train", "validate", "search", "prune", "pretrain"), 0),
}
STEP = {"type": "train", "trial": "ab12", "step": 1}
PRETRAIN = {"type": "pretrain", "flops": 1, "steps": 1, "metric": 0.5, "task": "x"}


def lines(*records):
    return "".join(json.dumps(record) + "\n" for record in records).encode()


@pytest.mark.parametrize("records", [[TRIAL], [STEP, STEP, TRIAL], [PRETRAIN]])
def test_what_was_written_without_a_seal_is_read(records):
    assert unseal("ab12", lines(*records)) == records


@pytest.mark.parametrize(
    ("records", "reason"),
    [
        ([STEP], "lacks its last record"),
        ([TRIAL, STEP], "lacks its last record"),
        ([TRIAL, 3], "lacks its last record"),
        ([STEP, TRIAL | {"id": "ab13"}], "is of another trial"),
        ([STEP | {"trial": "ab13"}, TRIAL], "is of another trial"),
        ([3, TRIAL], "is of another trial"),
        ([TRIAL | {"dev": None}], "is not what a trial writes .*dev is None"),
        ([TRIAL | {"steps": "3"}], "is not what a trial writes .*steps is '3'"),
        ([{"type": "trial", "id": "ab12"}], "is not what a trial writes .*no field"),
        ([PRETRAIN | {"flops": None}], "is not what a trial writes .*flops is None"),
    ],
)
def test_what_was_written_without_a_seal_is_looked_at(records, reason):
    with pytest.raises(Damaged, match=reason):
        unseal("ab12", lines(*records))
