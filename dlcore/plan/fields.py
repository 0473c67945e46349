"""Receptive fields in graph form: the inputs that each output of an operation can depend on.

Along one spatial axis of the input, the output at index (i_1, ..., i_n) of an array depends on

    start + sum_d strides[d] * i_d  ...  start + sum_d strides[d] * i_d + size - 1

(Araujo et al. 2019, "Computing receptive fields of convolutional neural networks"; there is one
stride in all, here one for each dimension of the array, so that fields pass reshapes and
transposes).
`rule` carries such a field through one operation of a jaxpr; where paths meet, `join` takes the
smallest field that covers both. An operation without a rule depends on the whole input: the answer
may then be too large, never too small.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

from jax.extend import core

Shape = tuple[int, ...]
Atom: TypeAlias = core.Var | core.Literal


@dataclasses.dataclass(frozen=True)
class Field:
    """The receptive field of an array along one spatial axis of the input.

    Attributes:
        start: the first input position that the element at index 0 depends on, in pixels; negative
            where it lies in the padding.
        size: the number of consecutive positions that one element depends on, in pixels.
        strides: for each dimension of the array, the distance that one step of the index moves the
            field.
    """

    start: int
    size: int
    strides: tuple[int, ...]

    @property
    def stride(self) -> int:
        """The distance between neighbouring units' fields in pixels; 0 if all are equal."""
        return min((abs(s) for s in self.strides if s), default=0)

    def interval(self, index: Sequence[int]) -> tuple[int, int]:
        """Returns the half-open interval of the input that the element at `index` depends on."""
        start = self.start + sum(s * i for s, i in zip(self.strides, index, strict=True))
        return start, start + self.size

    def reach(self, dim: int, first: int, last: int, stride: int = 0) -> "Field":
        """Returns the field of an array whose elements read several indices of one dimension.

        Args:
            dim: the dimension that is reduced or windowed.
            first: the first index that output index 0 reads.
            last: the last index that output index 0 reads.
            stride: the number of indices between the first reads of neighbouring outputs; 0 when
                the dimension is reduced.
        """
        step = self.strides[dim]
        strides = self.strides[:dim] + (step * stride,) + self.strides[dim + 1 :]
        start = self.start + min(step * first, step * last)
        return Field(start, self.size + abs(step) * (last - first), strides)

    def pick(self, dims: Sequence[int | None]) -> "Field":
        """Returns the field with dimensions rearranged: `dims[d]` is an old dimension or None."""
        picked = tuple(0 if d is None else self.strides[d] for d in dims)
        return Field(self.start, self.size, picked)

    def flat(self, shape: Shape, rank: int) -> "Field":
        """Returns the union of all elements' fields, as the field of an array of `rank`."""
        field = self
        for dim, extent in enumerate(shape):
            field = field.reach(dim, 0, extent - 1)
        return Field(field.start, field.size, (0,) * rank)

    def within(self, extent: int) -> "Field":
        """Clips a field that all elements share to the input; other fields keep their padding."""
        if any(self.strides):
            return self
        start = min(max(self.start, 0), extent)
        return Field(start, max(min(self.start + self.size, extent) - start, 0), self.strides)


def whole(extent: int, rank: int) -> Field:
    """Returns the field of an array of `rank` that depends on the whole axis of `extent` pixels."""
    return Field(0, extent, (0,) * rank)


def join(fields: Sequence[Field], shape: Shape) -> Field:
    """Returns the smallest field that covers all of `fields`, which belong to one array."""
    if len({field.strides for field in fields}) > 1:
        fields = [field.flat(shape, len(shape)) for field in fields]
    start = min(field.start for field in fields)
    end = max(field.start + field.size for field in fields)
    return Field(start, end - start, fields[0].strides)


def shape_of(atom: Atom) -> Shape:
    """Returns the shape of a value in a jaxpr; () for a value that is no array, such as a token."""
    return getattr(atom.aval, "shape", ())


def rule(field: Field, eqn: core.JaxprEqn, operand: int) -> Field | None:
    """Returns the field of the equation's outputs through one operand alone.

    Args:
        field: the operand's field.
        eqn: an equation of a jaxpr.
        operand: which of `eqn.invars` the field belongs to.

    Returns:
        The field, or None where the operation can mix the whole array.
    """
    name = eqn.primitive.name
    if name in ELEMENTWISE:
        return Field(field.start, field.size, field.strides or (0,) * len(shape_of(eqn.outvars[0])))
    if name in _REDUCTIONS:
        return _reduce(field, eqn, operand)
    return _RULES[name](field, eqn, operand) if name in _RULES else None


def _reduce(field: Field, eqn: core.JaxprEqn, operand: int) -> Field:
    shape = shape_of(eqn.invars[operand])
    for dim in eqn.params["axes"]:
        field = field.reach(dim, 0, shape[dim] - 1)
    return field.pick([d for d in range(len(shape)) if d not in eqn.params["axes"]])


def _windows(field: Field, eqn: core.JaxprEqn, operand: int) -> Field | None:
    params = eqn.params
    if any(dilation != 1 for dilation in params["base_dilation"]):
        return None
    for dim, size in enumerate(params["window_dimensions"]):
        first = -params["padding"][dim][0]
        last = first + (size - 1) * params["window_dilation"][dim]
        field = field.reach(dim, first, last, params["window_strides"][dim])
    return field


def _convolution(field: Field, eqn: core.JaxprEqn, operand: int) -> Field | None:
    params, numbers = eqn.params, eqn.params["dimension_numbers"]
    if operand != 0 or any(dilation != 1 for dilation in params["lhs_dilation"]):
        return None
    kernel = shape_of(eqn.invars[1])
    for axis, dim in enumerate(numbers.lhs_spec[2:]):
        first = -params["padding"][axis][0]
        last = first + (kernel[numbers.rhs_spec[2 + axis]] - 1) * params["rhs_dilation"][axis]
        field = field.reach(dim, first, last, params["window_strides"][axis])
    features = numbers.lhs_spec[1]
    field = field.reach(features, 0, shape_of(eqn.invars[0])[features] - 1)
    return field.pick([numbers.lhs_spec[numbers.out_spec.index(d)] for d in range(len(kernel))])


def _dot(field: Field, eqn: core.JaxprEqn, operand: int) -> Field:
    contracted, batch = (pair[operand] for pair in eqn.params["dimension_numbers"])
    other_batch = eqn.params["dimension_numbers"][1][1 - operand]
    shapes = [shape_of(v) for v in eqn.invars]
    for dim in contracted:
        field = field.reach(dim, 0, shapes[operand][dim] - 1)
    own = [d for d in range(len(shapes[operand])) if d not in (*contracted, *batch)]
    others: list[None] = [None] * (len(shapes[1 - operand]) - len(contracted) - len(other_batch))
    return field.pick([*batch, *own, *others] if operand == 0 else [*batch, *others, *own])


def _broadcast(field: Field, eqn: core.JaxprEqn, operand: int) -> Field:
    source = dict(zip(eqn.params["broadcast_dimensions"], range(len(field.strides)), strict=True))
    shape = shape_of(eqn.invars[operand])
    # A dimension of size 1 has only index 0: what is copied from it has stride 0.
    sources = [source.get(d) for d in range(len(eqn.params["shape"]))]
    return field.pick([None if d is None or shape[d] == 1 else d for d in sources])


def _reshape(field: Field, eqn: core.JaxprEqn, operand: int) -> Field | None:
    """Regroups strides where the index of the new array is linear in the index of the old array."""
    old, new = shape_of(eqn.invars[operand]), shape_of(eqn.outvars[0])
    if math.prod(old) == 0 or eqn.params["dimensions"] is not None:
        return None
    strides: list[int] = []
    i = j = 0
    while i < len(old) or j < len(new):
        # The shortest runs of dimensions, old[i:i_end] and new[j:j_end], of the same product.
        i_end, j_end = min(i + 1, len(old)), min(j + 1, len(new))
        while (left := math.prod(old[i:i_end])) != (right := math.prod(new[j:j_end])):
            i_end, j_end = (i_end + 1, j_end) if left < right else (i_end, j_end + 1)
        step = _linear_stride(field.strides[i:i_end], old[i:i_end])
        if step is None:
            for dim in range(i, i_end):
                field = field.reach(dim, 0, old[dim] - 1)
            step = 0
        strides += [step * math.prod(new[d + 1 : j_end]) for d in range(j, j_end)]
        i, j = i_end, j_end
    return Field(field.start, field.size, tuple(strides))


def _linear_stride(strides: Sequence[int], shape: Shape) -> int | None:
    """Returns the stride along the flattened dimensions; None when there is no single stride."""
    step, inner = None, 1
    for stride, extent in zip(reversed(strides), reversed(shape), strict=True):
        if extent == 1:
            continue
        if step is None:
            step = stride
        if stride != step * inner:
            return None
        inner *= extent
    # Dimensions of size 1 only: their nominal stride stays readable in the table.
    return max(strides, key=abs, default=0) if step is None else step


def _slice(field: Field, eqn: core.JaxprEqn, operand: int) -> Field:
    starts = eqn.params["start_indices"]
    for dim, stride in enumerate(eqn.params["strides"] or [1] * len(starts)):
        field = field.reach(dim, starts[dim], starts[dim], stride)
    return field


def _pad(field: Field, eqn: core.JaxprEqn, operand: int) -> Field | None:
    if operand != 0:
        return None
    for dim, (low, _, interior) in enumerate(eqn.params["padding_config"]):
        if interior and field.strides[dim]:
            return None
        field = field.reach(dim, -int(low), -int(low), 1)
    return field


def _concatenate(field: Field, eqn: core.JaxprEqn, operand: int) -> Field:
    dim = eqn.params["dimension"]
    before = sum(shape_of(v)[dim] for v in eqn.invars[:operand])
    return field.reach(dim, -before, -before, 1)


def _reverse(field: Field, eqn: core.JaxprEqn, operand: int) -> Field:
    for dim in eqn.params["dimensions"]:
        last = shape_of(eqn.invars[operand])[dim] - 1
        field = field.reach(dim, last, last, -1)
    return field


def _squeeze(field: Field, eqn: core.JaxprEqn, operand: int) -> Field:
    return field.pick([d for d in range(len(field.strides)) if d not in eqn.params["dimensions"]])


def _transpose(field: Field, eqn: core.JaxprEqn, operand: int) -> Field:
    return field.pick(eqn.params["permutation"])


def _split(field: Field, eqn: core.JaxprEqn, operand: int) -> Field | None:
    return None if field.strides[eqn.params["axis"]] else field


ELEMENTWISE = frozenset(
    "abs acos acosh add add_any and asin asinh atan atan2 atanh bessel_i0e bessel_i1e cbrt ceil "
    "clamp convert_element_type copy copy_p cos cosh digamma div eq erf erf_inv erfc exp exp2 "
    "expm1 floor ge gt imag integer_pow is_finite le lgamma log log1p logistic lt max min mul ne "
    "neg nextafter not optimization_barrier or pow real reduce_precision rem round rsqrt "
    "select_n sharding_constraint sign sin sinh sqrt square stop_gradient sub tan tanh xor".split()
)
_REDUCTIONS = frozenset(
    "argmax argmin reduce_and reduce_max reduce_min reduce_or reduce_prod reduce_sum".split()
)
_RULES: dict[str, Callable[[Field, core.JaxprEqn, int], Field | None]] = {
    "broadcast_in_dim": _broadcast,
    "concatenate": _concatenate,
    "conv_general_dilated": _convolution,
    "dot_general": _dot,
    "pad": _pad,
    "reduce_window": _windows,
    "reduce_window_max": _windows,
    "reduce_window_min": _windows,
    "reduce_window_sum": _windows,
    "reshape": _reshape,
    "rev": _reverse,
    "slice": _slice,
    "split": _split,
    "squeeze": _squeeze,
    "transpose": _transpose,
}
