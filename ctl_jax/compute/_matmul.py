"""Multiply-adds of one convolution or matrix product, exact for forward passes and gradients.

Zeros that padding inserts are multiplied, as torch's counter and the literature have it; zeros
that dilation inserts are not. The second half needs care, because JAX writes the gradients of a
convolution as other convolutions over dilated arrays: read at face value, the gradients of a
strided convolution would cost several times its forward pass.

Per spatial axis let L, R, O be the sizes of image, kernel and output, none of them dilated:

| convolution                                  | how it is told                    | costs |
|----------------------------------------------|-----------------------------------|-------|
| forward, and its kernel gradient             | otherwise                         | O R   |
| its input gradient                           | reversed kernel, no stride        | L R   |
| transposed                                   | dilated image                     | L R   |
| its input gradient                           | reversed kernel, stride           | O R   |
| its kernel gradient                          | kernel gradient, dilated image    | L O   |
| kernel gradient of one with a flipped kernel | kernel gradient, reversed output  | L O   |

JAX's transpose rule reverses the kernel of every input gradient, and swaps batch and channels in
every kernel gradient. Not to be told apart, each with its gradients costing the same again: a
transposed convolution of stride 1 counts as an ordinary one, and one whose kernel the program
itself reverses counts as an input gradient.
"""

import math

from jax import lax
from jax.extend.core import JaxprEqn

from ctl_jax.jaxprs import shape_of


def conv_multiply_adds(eqn: JaxprEqn, *, kernel_reversed: bool, output_reversed: bool) -> int:
    """Multiply-adds of a `conv_general_dilated` equation.

    Args:
      eqn: the equation.
      kernel_reversed: its kernel is another array back to front.
      output_reversed: its output is read back to front.
    """
    image, kernel = map(shape_of, eqn.invars)
    output = shape_of(eqn.outvars[0])
    numbers = eqn.params["dimension_numbers"]
    # Groups need no word: a kernel's input axis has the channels of one group.
    total = output[numbers.out_spec[0]] * output[numbers.out_spec[1]] * kernel[numbers.rhs_spec[1]]
    for axis, (stride, dilation) in enumerate(
        zip(eqn.params["window_strides"], eqn.params["lhs_dilation"], strict=True), start=2
    ):
        size_l = image[numbers.lhs_spec[axis]]
        size_r = kernel[numbers.rhs_spec[axis]]
        size_o = output[numbers.out_spec[axis]]
        if _is_kernel_gradient(numbers):
            total *= size_o * (size_l if dilation > 1 or output_reversed else size_r)
        elif kernel_reversed:
            total *= size_r * (size_o if stride > 1 else size_l)
        else:
            total *= size_r * (size_l if dilation > 1 else size_o)
    return total


def _is_kernel_gradient(numbers: lax.ConvDimensionNumbers) -> bool:
    """Image and cotangent have one layout, whose batch and channels JAX swaps for this gradient.

    So the batch axis comes after the channel axis, which no usual layout of images has.
    """
    batch, channel = numbers.lhs_spec[:2]
    return numbers.lhs_spec == numbers.rhs_spec and batch > channel


def dot_multiply_adds(eqn: JaxprEqn) -> int:
    """Multiply-adds of a `dot_general` equation: one per output element and contracted index."""
    (contracted, _), _ = eqn.params["dimension_numbers"]
    left = shape_of(eqn.invars[0])
    return math.prod(shape_of(eqn.outvars[0])) * math.prod(left[axis] for axis in contracted)
