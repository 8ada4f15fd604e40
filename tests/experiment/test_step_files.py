"""The file of a step gives its records back, or says that it cannot."""

import json

import hypothesis
import pytest
from hypothesis import strategies as st

from ctl_jax.experiment.step_files import Damaged, seal, unseal

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
    with pytest.raises(Damaged, match="of another step, 'ab12'"):
        unseal("ab13", content)


def lines(*records):
    return "".join(json.dumps(record) + "\n" for record in records).encode()


@pytest.mark.parametrize("content", [lines({"type": "trial"}), lines(3), lines([])])
def test_what_has_no_seal(content):
    with pytest.raises(Damaged, match="lacks its last line"):
        unseal("ab12", content)
