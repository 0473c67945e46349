"""Convolution in 1, 2 and 3 dimensions, with a gradient that is fast on a CPU, also inside loops.

As everywhere in the field, the layer computes the cross-correlation of the input with its filters:
it does not mirror them (LeCun et al. 1989).

XLA's CPU compiler has fast kernels for convolutions whose axes are ordered as in a forward pass.
The gradients that JAX derives have another order. XLA transposes them in the main program only;
inside a loop (`jax.lax.scan`) they run up to a hundred times slower (jax-ml/jax#12868). While XLA
transposes, it also recomputes the layers before the convolution, element by element. So here the
gradients are forward convolutions of transposed arrays, and a fence keeps XLA from recomputing the
layers below. This holds on CPUs only: for other devices the compilers know JAX's own forms.
Where oneDNN is installed, its kernels take the place of both on a CPU (`onednn.py`).

Shapes: B batch, I... image, O... output, F... window, C channels, K filters, G groups.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Initializer
from jax import lax

from dlcore.nn import onednn
from dlcore.nn.windows import (
    Padding,
    PerDimension,
    output_size,
    pad_sizes,
    per_dimension,
    transposed_windows,
)

Pads = tuple[tuple[int, int], ...]
# The input and the kernel, saved for the backward pass.
Residuals = tuple[jax.Array, jax.Array]


class Windows(NamedTuple):
    """The strides, (start, end) pads and dilation of the windows in each spatial dimension."""

    strides: tuple[int, ...]
    pads: Pads
    dilation: tuple[int, ...]


def conv_general_dilated(
    x: jax.Array,
    kernel: jax.Array,
    strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    *,
    rhs_dilation: Sequence[int],
    feature_group_count: int,
    **kwargs: Any,
) -> jax.Array:
    """Replaces `jax.lax.conv_general_dilated` in Flax's `Conv`.

    It calls `convolve` where there are no groups, and JAX's function where there are.
    """
    if feature_group_count == 1:
        pads = tuple((start, end) for start, end in padding)
        return convolve(x, kernel, Windows(tuple(strides), pads, tuple(rhs_dilation)))
    return lax.conv_general_dilated(
        x,
        kernel,
        strides,
        padding,
        rhs_dilation=rhs_dilation,
        feature_group_count=feature_group_count,
        **kwargs,
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def convolve(x: jax.Array, kernel: jax.Array, windows: Windows) -> jax.Array:
    """Maps (B, I..., C) by a kernel (F..., C, K) to (B, O..., K).

    It is differentiable in reverse mode, and its gradient in both modes (`jax.hessian`), but not by
    `jax.jvp`.
    """
    return _to_output(windows, x, kernel)


def _to_output(windows: Windows, x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Returns the convolution's output."""

    def plain(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return _correlate(x, kernel, *windows)

    if not onednn.takes(x, kernel, *windows):
        return plain(x, kernel)
    output = jax.eval_shape(plain, x, kernel).shape
    fast = functools.partial(onednn.forward, output=output, **windows._asdict())
    return _on_cpu(fast, plain, x, kernel)


def _on_cpu(
    fast: Callable[..., jax.Array], plain: Callable[..., jax.Array], *arrays: jax.Array
) -> jax.Array:
    """Returns `fast` of the arrays on a CPU, else `plain`, with the derivatives of `plain`."""

    @jax.custom_jvp
    def choose(*arrays: jax.Array) -> jax.Array:
        return lax.platform_dependent(*arrays, cpu=fast, default=plain)

    @choose.defjvp
    def derivative(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
        return choose(*primals), jax.jvp(plain, primals, tangents)[1]

    return choose(*arrays)


def _correlate(
    x: jax.Array,
    kernel: jax.Array,
    strides: tuple[int, ...],
    pads: Pads,
    dilation: tuple[int, ...],
    expansion: tuple[int, ...] | None = None,
) -> jax.Array:
    """Correlates the kernel with x after putting `expansion` - 1 zeros between its pixels."""
    last = x.ndim - 1
    image = (0, last, *range(1, last))
    axes = lax.ConvDimensionNumbers(image, (last, last - 1, *range(last - 1)), image)
    return lax.conv_general_dilated(
        x,
        kernel,
        strides,
        pads,
        lhs_dilation=expansion,
        rhs_dilation=dilation,
        dimension_numbers=axes,
    )


def _forward(x: jax.Array, kernel: jax.Array, windows: Windows) -> tuple[jax.Array, Residuals]:
    return _to_output(windows, x, kernel), (x, kernel)


def _backward(windows: Windows, residuals: Residuals, g: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = residuals
    by_image = _image_gradient(windows, x.shape[1:-1], kernel, g)
    return by_image, _kernel_gradient(windows, x, kernel, g)


def _image_gradient(
    windows: Windows, sizes: Sequence[int], kernel: jax.Array, g: jax.Array
) -> jax.Array:
    """Returns the gradient with respect to an image of these sizes, by the device's own form."""
    x = jax.ShapeDtypeStruct((len(g), *sizes, kernel.shape[-2]), g.dtype)

    def derived(kernel: jax.Array, g: jax.Array) -> jax.Array:
        return jax.linear_transpose(lambda x: _correlate(x, kernel, *windows), x)(g)[0]

    if onednn.takes(x, kernel, *windows):
        fast = functools.partial(onednn.to_image, image=x.shape, **windows._asdict())
        return _on_cpu(fast, derived, kernel, g)
    mirrored = functools.partial(_to_image, windows, sizes)
    return lax.platform_dependent(kernel, g, cpu=mirrored, default=derived)


def _kernel_gradient(windows: Windows, x: jax.Array, kernel: jax.Array, g: jax.Array) -> jax.Array:
    """Returns the gradient with respect to the kernel, by the device's own form."""

    def derived(x: jax.Array, g: jax.Array) -> jax.Array:
        return jax.linear_transpose(lambda kernel: _correlate(x, kernel, *windows), kernel)(g)[0]

    if onednn.takes(x, kernel, *windows):
        fast = functools.partial(onednn.to_kernel, kernel=kernel.shape, **windows._asdict())
        return _on_cpu(fast, derived, x, g)
    return lax.platform_dependent(
        x,
        kernel,
        g,
        cpu=functools.partial(_to_kernel, windows),
        default=lambda x, kernel, g: derived(x, g),
    )


def _to_image(windows: Windows, sizes: Sequence[int], kernel: jax.Array, g: jax.Array) -> jax.Array:
    """Returns the gradient with respect to an image of these sizes.

    It slides the mirrored kernel over g, with zeros filling the strides of g. Through position f of
    its window, output o sees the pixel i = o stride + f dilation - start.
    """
    pads = []
    for axis, (stride, (start, _), step) in enumerate(zip(*windows, strict=True)):
        outputs, reach = (g.shape[axis + 1] - 1) * stride + 1, (kernel.shape[axis] - 1) * step
        pads.append((reach - start, sizes[axis] + start - outputs))
    mirrored = jnp.flip(kernel, range(len(sizes))).swapaxes(-1, -2)
    ones = (1,) * len(sizes)
    return _correlate(g, mirrored, ones, tuple(pads), windows.dilation, windows.strides)


def _to_kernel(windows: Windows, x: jax.Array, kernel: jax.Array, g: jax.Array) -> jax.Array:
    """Returns the gradient with respect to the kernel.

    It is x correlated with g dilated by the stride. The batch takes the role of the channels, over
    which a convolution sums.
    """
    pads = []
    for axis, (stride, (start, _), step) in enumerate(zip(*windows, strict=True)):
        pixels, outputs = x.shape[axis + 1], (g.shape[axis + 1] - 1) * stride + 1
        pads.append((start, outputs + (kernel.shape[axis] - 1) * step - pixels - start))
    images = _fence(x, kernel) if math.prod(kernel.shape[:-2]) > 1 else x
    to_kernel = _correlate(
        images.swapaxes(0, -1),
        jnp.moveaxis(g, 0, -2),
        windows.dilation,
        tuple(pads),
        windows.strides,
    )
    return jnp.moveaxis(to_kernel, 0, -2)


def _fence(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Returns x in a form that XLA does not recompute where it is used.

    XLA drops `lax.optimization_barrier` on a CPU, but it fuses nothing across a branch. The
    predicate must be unknown at compile time; a kernel of NaN has no gradient anyway.
    """
    first = kernel.ravel()[0]
    return lax.cond(first == first, lambda x: x, lambda x: jnp.full_like(x, jnp.nan), x)


convolve.defvjp(_forward, _backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def convolve_transposed(
    x: jax.Array, kernel: jax.Array, sizes: tuple[int, ...], windows: Windows
) -> jax.Array:
    """Maps (B, I..., C) by a kernel (F..., K, C) to (B, O..., K): the transpose of `convolve`.

    It is the linear map from the gradient of a convolution's output to the gradient of its input;
    the convolution has this kernel and these windows and maps the sizes O to I. It is
    differentiable in the same modes as `convolve`.
    """
    return _transposed(windows, sizes, kernel, x)


def _transposed(
    windows: Windows, sizes: tuple[int, ...], kernel: jax.Array, x: jax.Array
) -> jax.Array:
    output = jax.ShapeDtypeStruct((len(x), *sizes, kernel.shape[-2]), x.dtype)
    if onednn.takes(output, kernel, *windows):
        return _image_gradient(windows, sizes, kernel, x)
    return _to_image(windows, sizes, kernel, x)


def _transposed_forward(
    x: jax.Array, kernel: jax.Array, sizes: tuple[int, ...], windows: Windows
) -> tuple[jax.Array, Residuals]:
    return _transposed(windows, sizes, kernel, x), (x, kernel)


def _transposed_backward(
    sizes: tuple[int, ...], windows: Windows, residuals: Residuals, g: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, kernel = residuals
    return _to_output(windows, g, kernel), _kernel_gradient(windows, g, kernel, x)


convolve_transposed.defvjp(_transposed_forward, _transposed_backward)


class Conv(nn.Module):
    """K filters that slide over the input; a filter is a stack of one kernel per channel.

    Parameters: `kernel` (F..., C / G, K) and `bias` (K,).

    Attributes:
        features: K.
        kernel_size: F, the size of the window in each spatial dimension; their number is the
            dimension of the convolution.
        stride: the step of the window; one number stands for all dimensions.
        padding: "valid", "same", "full" (see `windows.pad_sizes`) or ((start, end), ...).
        dilation: the distance of neighbouring inputs in a window.
        groups: G; the filters of a group see only the channels of that group.
        use_bias: whether each filter adds a learned bias.
        kernel_init: draws the kernel.
        bias_init: draws the bias.
    """

    features: int
    kernel_size: tuple[int, ...]
    stride: PerDimension = 1
    padding: Padding = "valid"
    dilation: PerDimension = 1
    groups: int = 1
    use_bias: bool = True
    kernel_init: Initializer = nn.initializers.lecun_normal()
    bias_init: Initializer = nn.initializers.zeros_init()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (B, I..., C) to (B, O..., K), O by `windows.output_size`.

        Raises:
            InputError: when the input is too small for the window.
            ValueError: when the rank of the input or the groups do not fit.
        """
        n = len(self.kernel_size)
        if x.ndim != n + 2:
            raise ValueError(f"a {n}-d convolution needs {n + 2} axes (B, {n}, C), got {x.shape}")
        if x.shape[-1] % self.groups or self.features % self.groups:
            raise ValueError(
                f"{self.groups} groups do not divide {x.shape[-1]} channels and "
                f"{self.features} filters"
            )
        sizes = x.shape[1:-1]
        stride = per_dimension(self.stride, n, "stride")
        dilation = per_dimension(self.dilation, n, "dilation")
        pads = pad_sizes(
            sizes, self.kernel_size, stride=stride, padding=self.padding, dilation=dilation
        )
        for i, f, s, p, d in zip(sizes, self.kernel_size, stride, pads, dilation, strict=True):
            output_size(i, f, stride=s, padding=p, dilation=d)
        conv = nn.Conv(
            self.features,
            self.kernel_size,
            strides=stride,
            padding=pads,
            kernel_dilation=dilation,
            feature_group_count=self.groups,
            use_bias=self.use_bias,
            kernel_init=self.kernel_init,
            bias_init=self.bias_init,
            conv_general_dilated=conv_general_dilated,
        )
        nn.share_scope(self, conv)
        return conv(x)


class ConvTranspose(nn.Module):
    """The transpose of a convolution: each input adds a multiple of K kernels to an output window.

    The sources are Zeiler et al. 2010 and Dumoulin & Visin 2016, chapter 4. Through position f of
    its window, input i adds to the output o = i S + f - Ps. This is the gradient of a convolution
    with that window, stride and padding with respect to its input. If the stride S divides the
    window, it covers all outputs equally often; other windows leave a chequered pattern (Odena et
    al. 2016).

    Parameters: `kernel` (F..., C, K) and `bias` (K,).

    Attributes:
        features: K.
        kernel_size: F in each spatial dimension.
        stride: S, the distance of the windows of neighbouring inputs in the output; one number
            stands for all dimensions.
        padding: the padding of the convolution that this one transposes; it cuts off the edges of
            the output.
        output_size: O in each dimension, where it differs from `windows.transposed_windows`.
        use_bias: whether each of the K features adds a learned bias.
        kernel_init: draws the kernel.
        bias_init: draws the bias.
    """

    features: int
    kernel_size: tuple[int, ...]
    stride: PerDimension = 1
    padding: Padding = "valid"
    output_size: tuple[int, ...] | None = None
    use_bias: bool = True
    kernel_init: Initializer = nn.initializers.lecun_normal()
    bias_init: Initializer = nn.initializers.zeros_init()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (B, I..., C) to (B, O..., K).

        Raises:
            InputError: when no convolution leads from O to I.
            ValueError: when the rank of the input does not fit.
        """
        n = len(self.kernel_size)
        if x.ndim != n + 2:
            raise ValueError(
                f"a transposed {n}-d convolution needs {n + 2} axes (B, {n}, C), got {x.shape}"
            )
        stride = per_dimension(self.stride, n, "stride")
        sizes, pads = transposed_windows(
            x.shape[1:-1],
            self.kernel_size,
            stride=stride,
            padding=self.padding,
            output=self.output_size,
        )
        shape = (*self.kernel_size, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape)
        windows = Windows(stride, pads, (1,) * n)
        y = convolve_transposed(x, kernel.swapaxes(-1, -2), sizes, windows)
        if not self.use_bias:
            return y
        bias = self.param("bias", self.bias_init, (self.features,))
        return y + bias.reshape((1,) * (n + 1) + bias.shape)
