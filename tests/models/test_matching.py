"""How a file's arrays fit a network; test_pretrained has the files, names/ the families."""

import numpy as np
import pytest

from ctl_jax import models
from ctl_jax.errors import UserError
from ctl_jax.models import matching, names
from ctl_jax.models.names import Named


@pytest.fixture(scope="module")
def module():
    return models.create("resnet50", 3, stages=(1,), width=4, version="v1", conv_bias=True)


@pytest.fixture(scope="module")
def shapes(module):
    return matching.shapes_of(module, 32)


@pytest.fixture
def keras(module):
    return names.of_module(module, "keras")[0]


def written(naming, shapes):
    ours = {path: np.full(shape, 0.5, "f4") for path, shape in shapes.items()}
    return naming.arrays(names.write(naming, ours))


def test_folded_into_convolutions_that_have_biases_here_too(module, shapes, keras):
    named = {k: a for k, a in written(keras, shapes).items() if "_bn" not in k}
    found = matching.match(keras, module, shapes, named)
    assert not found.problems
    variables = matching.variables_of(found)
    block = variables["params"]["stage1_block1"]
    np.testing.assert_array_equal(block["conv1"]["bias"], 0.5)
    np.testing.assert_array_equal(block["bn1"]["bias"], 0)
    np.testing.assert_array_equal(block["bn1"]["scale"], 1)


def test_some_of_a_norm_is_missing(module, shapes, keras):
    named = written(keras, shapes)
    del named["conv2_block1_1_bn/beta"]
    found = matching.match(keras, module, shapes, named)
    assert found.describe() == "1 missing: conv2_block1_1_bn/beta"


def test_many_names_are_counted(module, shapes, keras):
    extra = {f"x{i:02}": Named(f"x{i:02}", np.ones(1, "f4")) for i in range(30)}
    found = matching.match(keras, module, shapes, written(keras, shapes) | extra)
    assert found.problems == 30
    assert found.describe().startswith("30 of nothing in the network: x00, x01, ")
    assert found.describe().endswith("x19 and 10 more")
    found = matching.match(keras, module, shapes, written(keras, shapes) | extra, spare=extra)
    assert not found.problems
    assert found.remarks[0].startswith("30 other arrays were passed over: x00, ")


@pytest.mark.parametrize("library", ["torchvision", "huggingface", "keras"])
def test_as_many_outputs_as_the_file_has(module, shapes, library):
    (naming,) = names.of_module(module, library)
    wide = {p: (*s[:-1], 11) if "/head/" in p else s for p, s in shapes.items()}
    found = matching.match(naming, module, shapes, written(naming, wide))
    assert not found.problems
    assert found.shapes == wide


def test_widths_that_do_not_fit(module, random_variables):
    variables = random_variables(module)
    matching.check_widths(module, variables, 32)
    kernel = variables["params"]["head"]["kernel"]
    variables["params"]["head"]["kernel"] = kernel[:-1]
    with pytest.raises(UserError, match="its widths do not fit one another"):
        matching.check_widths(module, variables, 32)
