"""Convolutions: every stride, padding, dilation and group, forward and both gradients."""

import jax
import jax.numpy as jnp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from ctl_jax import compute

LAYOUT = ("NHWC", "HWIO", "NHWC")


def three_costs(fn, x, kernel):
    """FLOPs of fn(x, kernel), of its input gradient, of its kernel gradient."""
    out = jax.eval_shape(fn, x, kernel)
    forward = compute.flops(fn, x, kernel)
    costs = [forward]
    for i in (0, 1):

        def pullback(x, kernel, cotangent, i=i):
            args = [x, kernel]

            def of_one(arg):
                return fn(*args[:i], arg, *args[i + 1 :])

            return jax.vjp(of_one, args[i])[1](cotangent)

        costs.append(compute.flops(pullback, x, kernel, out) - forward)
    return costs


def floats(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


@st.composite
def convolutions(draw):
    """Keyword arguments of `lax.conv_general_dilated`, image and kernel; output never empty."""
    pair = lambda low, high: st.tuples(*[st.integers(low, high)] * 2)  # noqa: E731
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    size = draw(pair(1, 12))
    kernel = draw(pair(1, 9))
    stride = draw(pair(1, 3))
    dilation = draw(pair(1, 3))
    # Enough padding for the (dilated) kernel to fit at least once, or more.
    padding = []
    for n, k, d in zip(size, kernel, dilation, strict=True):
        missing = max(0, (k - 1) * d + 1 - n)
        low = draw(st.integers(0, missing + 2))
        padding.append((low, max(0, missing - low) + draw(st.integers(0, 2))))
    channels = groups * draw(st.integers(1, 3))
    features = groups * draw(st.integers(1, 3))
    x = floats(draw(st.integers(1, 3)), *size, channels)
    k = floats(*kernel, channels // groups, features)
    options = {
        "window_strides": stride,
        "padding": padding,
        "rhs_dilation": dilation,
        "feature_group_count": groups,
    }
    return options, x, k


@settings(max_examples=60, deadline=None)
@given(convolutions())
def test_a_gradient_costs_what_its_forward_costs(case):
    options, x, k = case

    def fn(x, k):
        return lax.conv_general_dilated(x, k, dimension_numbers=LAYOUT, **options)

    out = jax.eval_shape(fn, x, k)
    n, height, width, features = out.shape
    expected = 2 * n * height * width * features * k.shape[0] * k.shape[1] * k.shape[2]
    assert three_costs(fn, x, k) == [expected] * 3


@settings(max_examples=30, deadline=None)
@given(convolutions())
def test_equals_xla(case):
    """XLA leaves out what is padded, and the convolutions here have none."""
    options, x, k = case
    height, width = x.shape[1:3]
    low_high = options["padding"]
    x = floats(x.shape[0], height + sum(low_high[0]), width + sum(low_high[1]), x.shape[3])
    options = options | {"padding": "VALID"}

    def fn(x, k):
        return lax.conv_general_dilated(x, k, dimension_numbers=LAYOUT, **options)

    assert compute.flops(fn, x, k) == jax.jit(fn).lower(x, k).cost_analysis()["flops"]


@settings(max_examples=40, deadline=None)
@given(convolutions())
def test_equals_torch(case):
    """Forward and backward as torch's counter has it; torch takes symmetric padding only."""
    torch = pytest.importorskip("torch")
    options, x, k = case
    padding = [max(pair) for pair in options["padding"]]

    def fn(x, k):
        symmetric = options | {"padding": [(p, p) for p in padding]}
        return lax.conv_general_dilated(x, k, dimension_numbers=LAYOUT, **symmetric)

    groups = options["feature_group_count"]
    n, height, width, channels = x.shape
    image = torch.empty((n, channels, height, width), device="meta", requires_grad=True)
    layer = torch.nn.Conv2d(
        channels,
        k.shape[-1],
        k.shape[:2],
        options["window_strides"],
        padding,
        options["rhs_dilation"],
        groups,
        bias=False,
        device="meta",
    )
    forward, backward = torch_flops(torch, layer, image)
    costs = three_costs(fn, x, k)
    assert costs[0] == forward
    # torch's formula of the kernel gradient forgets the groups: it counts each group's product
    # with the channels of all groups.
    assert costs[1] + groups * costs[2] == backward


def torch_flops(torch, layer, image):
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        out = layer(image)
    forward = counter.get_total_flops()
    with FlopCounterMode(display=False) as counter:
        out.sum().backward()
    return forward, counter.get_total_flops()


@pytest.mark.parametrize("stride", [(2, 2), (3, 2)])
@pytest.mark.parametrize("kernel", [(1, 1), (3, 3), (4, 5), (9, 9)])
@pytest.mark.parametrize("flipped", [False, True])
def test_transposed_equals_torch(stride, kernel, flipped):
    torch = pytest.importorskip("torch")
    image = torch.empty((2, 3, 5, 4), device="meta", requires_grad=True)
    layer = torch.nn.ConvTranspose2d(3, 6, kernel, stride, bias=False, device="meta")
    forward, backward = torch_flops(torch, layer, image)
    k = floats(*kernel, 6, 3) if flipped else floats(*kernel, 3, 6)

    def fn(x, k):
        return lax.conv_transpose(
            x, k, stride, "VALID", dimension_numbers=LAYOUT, transpose_kernel=flipped
        )

    costs = three_costs(fn, floats(2, 5, 4, 3), k)
    assert costs == [forward] * 3
    assert costs[1] + costs[2] == backward


def test_transposed_of_stride_one_and_flipped_kernel_equals_torch():
    """The kernel's reversal tells it from an ordinary convolution."""
    x, k = floats(2, 5, 4, 3), floats(3, 3, 6, 3)

    def fn(x, k):
        return lax.conv_transpose(
            x, k, (1, 1), "VALID", dimension_numbers=LAYOUT, transpose_kernel=True
        )

    assert three_costs(fn, x, k) == [2 * 2 * 5 * 4 * 9 * 3 * 6] * 3


@pytest.mark.parametrize("layout", [LAYOUT, ("NCHW", "OIHW", "NCHW"), ("NCHW", "IOHW", "NCHW")])
@pytest.mark.parametrize("stride", [1, 2])
def test_layouts_and_flipped_results(layout, stride):
    """A reversed cotangent is not taken for a reversed kernel."""
    shapes = {"NHWC": (2, 9, 9, 3), "NCHW": (2, 3, 9, 9)}
    kernels = {"HWIO": (4, 4, 3, 5), "OIHW": (5, 3, 4, 4), "IOHW": (3, 5, 4, 4)}
    x, k = floats(*shapes[layout[0]]), floats(*kernels[layout[1]])
    spatial = (1, 2) if layout[0] == "NHWC" else (2, 3)

    def fn(x, k):
        y = lax.conv_general_dilated(x, k, [stride] * 2, "VALID", dimension_numbers=layout)
        return lax.rev(y, spatial)

    area = {1: 36, 2: 9}[stride]
    assert three_costs(fn, x, k) == [2 * 2 * area * 16 * 3 * 5] * 3


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
def test_transposed_of_stride_one_counts_as_ordinary(padding):
    x, k = floats(2, 5, 4, 3), floats(3, 3, 3, 6)

    def fn(x, k):
        return lax.conv_transpose(x, k, (1, 1), padding, dimension_numbers=LAYOUT)

    area = {"SAME": 5 * 4, "VALID": 7 * 6}[padding]
    assert three_costs(fn, x, k) == [2 * 2 * area * 9 * 3 * 6] * 3


@pytest.mark.parametrize("rank", [1, 3])
def test_any_number_of_spatial_axes(rank):
    layout = {1: ("NHC", "HIO", "NHC"), 3: ("NDHWC", "DHWIO", "NDHWC")}[rank]
    x, k = floats(2, *[9] * rank, 3), floats(*[3] * rank, 3, 4)

    def fn(x, k):
        return lax.conv_general_dilated(x, k, [2] * rank, "VALID", dimension_numbers=layout)

    assert three_costs(fn, x, k) == [2 * 2 * 4**rank * 3**rank * 3 * 4] * 3


def test_batch_groups():
    x, k = floats(6, 8, 8, 4), floats(3, 3, 4, 6)

    def fn(x, k):
        return lax.conv_general_dilated(
            x, k, (1, 1), "VALID", dimension_numbers=LAYOUT, batch_group_count=3
        )

    # 2 images of output; each of the 6 channels reads the 4 channels of one image.
    assert three_costs(fn, x, k) == [2 * 2 * 6 * 6 * 6 * 9 * 4] * 3


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel_axis", [None, 0])
def test_gradients_of_each_example(stride, kernel_axis):
    """vmap puts reshapes between a kernel's reversal and its convolution."""

    def fn(x, k):
        return lax.conv_general_dilated(x, k, [stride] * 2, "VALID", dimension_numbers=LAYOUT)

    def gradients(x, k):
        return jax.grad(lambda x, k: jnp.sum(fn(x, k) ** 2), argnums=(0, 1))(x, k)

    x, k = floats(5, 2, 9, 9, 3), floats(3, 3, 3, 4)
    each = compute.flops(fn, floats(2, 9, 9, 3), k)
    if kernel_axis == 0:
        k = floats(5, *k.shape)
    got = compute.flops(jax.vmap(gradients, in_axes=(0, kernel_axis)), x, k)
    assert got == 5 * 3 * each


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision(dtype):
    x, k = floats(2, 9, 9, 3), floats(3, 3, 3, 4)

    def fn(x, k):
        return lax.conv_general_dilated(
            x.astype(dtype), k.astype(dtype), (1, 1), "VALID", dimension_numbers=LAYOUT
        )

    assert three_costs(fn, x, k) == [2 * 2 * 49 * 9 * 3 * 4] * 3


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2), st.integers(0, 2), st.integers(0, 2), st.data())
def test_dot_general(batch, contracted, free, data):
    sizes = st.lists(st.integers(1, 5), min_size=batch, max_size=batch)
    b = data.draw(sizes)
    c = data.draw(st.lists(st.integers(1, 5), min_size=contracted, max_size=contracted))
    m = data.draw(st.lists(st.integers(1, 5), min_size=free, max_size=free))
    n = data.draw(st.lists(st.integers(1, 5), min_size=free, max_size=free))
    axes_b = tuple(range(batch))
    axes_c = tuple(range(batch, batch + contracted))

    def fn(x, y):
        return lax.dot_general(x, y, ((axes_c, axes_c), (axes_b, axes_b)))

    product = 2
    for size in b + c + m + n:
        product *= size
    assert three_costs(fn, floats(*b, *c, *m), floats(*b, *c, *n)) == [product] * 3


def test_dense_layer_equals_torch():
    torch = pytest.importorskip("torch")
    image = torch.empty((7, 30), device="meta", requires_grad=True)
    forward, backward = torch_flops(torch, torch.nn.Linear(30, 11, device="meta"), image)
    costs = three_costs(lambda x, k: x @ k, floats(7, 30), floats(30, 11))
    assert costs[0] == forward
    assert costs[1] + costs[2] == backward
