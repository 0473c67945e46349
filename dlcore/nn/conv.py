"""Convolution in 1, 2 and 3 dimensions.

As everywhere in the field, what the layer computes is the cross-correlation of the input with its
filters: they are not mirrored (LeCun et al. 1989). Shapes: B batch, C input channels, K filters,
G groups; the dimensions between B and C are spatial.
"""

import flax.linen as nn
import jax
from flax.typing import Initializer

from dlcore.nn.convolution import conv_general_dilated
from dlcore.nn.windows import Padding, PerDimension, output_size, pad_sizes, per_dimension


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
