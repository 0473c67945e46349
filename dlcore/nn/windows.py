"""The arithmetic of sliding windows that convolution and pooling share.

Along one dimension: I input size, F window (filter) size, S stride, D dilation, Ps and Pe the
padding at the start and the end, O output size. A dilated window covers D (F - 1) + 1 inputs.
"""

from collections.abc import Sequence

from dlcore import errors

PerDimension = int | tuple[int, ...]
Padding = str | Sequence[tuple[int, int]]
PADDINGS = ("valid", "same", "full")


def per_dimension(value: PerDimension, dimensions: int, name: str) -> tuple[int, ...]:
    """Returns `value` for each dimension; one number stands for all.

    Raises:
        ValueError: when the number of values is not `dimensions`, or a value is below 1.
    """
    values = (value,) * dimensions if isinstance(value, int) else tuple(value)
    if len(values) != dimensions or min(values) < 1:
        raise ValueError(f"{name} {value} is not {dimensions} positive numbers")
    return values


def pad_sizes(
    sizes: Sequence[int],
    window: Sequence[int],
    *,
    stride: Sequence[int],
    padding: Padding,
    dilation: Sequence[int],
) -> tuple[tuple[int, int], ...]:
    """Returns the padding (Ps, Pe) of each dimension.

    "valid" pads nothing. "same" pads so that O = ceil(I / S), an odd total being larger at the end:
    max(0, S ceil(I / S) - I + F - S). Without the maximum, which some sources omit, the total would
    be negative for F < S. "full" pads F - 1 at both ends, so that every partial overlap counts and
    O = I + F - 1 at stride 1. F here is the size that the dilated window covers.

    Args:
        sizes: I of each dimension.
        window: F of each dimension.
        stride: S of each dimension.
        padding: one of these names, or the explicit (Ps, Pe) pairs.
        dilation: D of each dimension.

    Raises:
        InputError: for an unknown name.
        ValueError: when explicit pairs do not fit the number of dimensions.

    >>> pad_sizes((7, 8), (3, 3), stride=(1, 2), padding="same", dilation=(1, 1))
    ((1, 1), (0, 1))
    """
    if not isinstance(padding, str):
        if len(padding) != len(sizes):
            raise ValueError(f"padding {padding} is not {len(sizes)} pairs of (start, end)")
        return tuple((start, end) for start, end in padding)
    if padding not in PADDINGS:
        raise errors.choose("padding", padding, PADDINGS)
    pads = []
    for i, f, s, d in zip(sizes, window, stride, dilation, strict=True):
        covered = d * (f - 1) + 1
        if padding == "same":
            total = max(0, s * -(-i // s) - i + covered - s)
            pads.append((total // 2, total - total // 2))
        else:
            pads.append((covered - 1, covered - 1) if padding == "full" else (0, 0))
    return tuple(pads)


def transposed_windows(
    sizes: Sequence[int],
    window: Sequence[int],
    *,
    stride: Sequence[int],
    padding: Padding,
    output: Sequence[int] | None = None,
) -> tuple[tuple[int, ...], tuple[tuple[int, int], ...]]:
    """Returns the sizes O of a transposed convolution and the padding (Ps, Pe) of its convolution.

    A transposed convolution from I to O has the windows of a convolution from O to I. A stride
    S > 1 leads S sizes O to the same I. By default this is the smallest of them,
    S (I - 1) + F - Ps - Pe, or for the padding "same" the largest, S I; `output` chooses another.

    Args:
        sizes: I of each dimension.
        window: F of each dimension.
        stride: S of each dimension.
        padding: the padding of the convolution, see `pad_sizes`.
        output: O of each dimension.

    Raises:
        InputError: for an unknown padding, or sizes O that no such convolution maps to I.
        ValueError: when explicit pairs or sizes do not fit the number of dimensions.

    >>> transposed_windows((4,), (3,), stride=(2,), padding="valid")
    ((9,), ((0, 0),))
    >>> transposed_windows((4,), (3,), stride=(2,), padding="same", output=(7,))
    ((7,), ((1, 1),))
    """
    ones = (1,) * len(sizes)
    if output is None and padding == "same":
        output = [s * i for s, i in zip(stride, sizes, strict=True)]
    elif output is None:
        pads = pad_sizes(sizes, window, stride=stride, padding=padding, dilation=ones)
        output = [
            s * (i - 1) + f - sum(p) for i, f, s, p in zip(sizes, window, stride, pads, strict=True)
        ]
    pads = pad_sizes(output, window, stride=stride, padding=padding, dilation=ones)
    for i, o, f, s, p in zip(sizes, output, window, stride, pads, strict=True):
        if o < 1 or o + sum(p) < f or output_size(o, f, stride=s, padding=p) != i:
            raise errors.InputError(
                f"no convolution with a window of {f}, stride {s} and padding {padding!r} leads "
                f"from a size of {o} to {i}, so none leads back; choose another size or padding"
            )
    return tuple(output), pads


def output_size(
    size: int,
    window: int,
    *,
    stride: int = 1,
    padding: str | tuple[int, int] = "valid",
    dilation: int = 1,
) -> int:
    """Returns O = floor((I - F + Ps + Pe) / S) + 1 of one dimension, F being the size covered.

    >>> output_size(32, 5), output_size(10, 2, stride=2), output_size(7, 3, padding="full")
    (28, 5, 9)

    Raises:
        InputError: when the window does not fit into the padded input.
    """
    pairs: Padding = padding if isinstance(padding, str) else (padding,)
    ((start, end),) = pad_sizes(
        (size,), (window,), stride=(stride,), padding=pairs, dilation=(dilation,)
    )
    room = size + start + end - dilation * (window - 1) - 1
    if room < 0:
        raise errors.InputError(
            f"input of size {size} is too small for a window of {window} with dilation {dilation} "
            f"and padding {padding!r}; the smallest size is {size - room}: enlarge the input or pad"
        )
    return room // stride + 1
