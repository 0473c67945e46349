"""One walk over the jaxpr of a forward pass, from which the layer table and the fields are read."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend import core

from dlcore.check.fields import Field, join, rule, whole

Fields = tuple[Field, ...]
ApplyFn = Callable[[Any, Any], Any]

_LOOPS = ("scan", "while")
_PARTS = "shard_map"
# JAX's name for what the backward pass of `jax.checkpoint` computes once more.
_AGAIN = "rematted_computation"


@dataclasses.dataclass(frozen=True)
class Operation:
    """One primitive operation of the forward pass.

    Attributes:
        path: the module that runs it, as in the parameter tree; "" for the model itself.
        primitive: JAX's name of the primitive.
        shape: of the (first) output.
        bytes: size of the (first) output.
        rounds: how often it runs, because of the loops around it.
        devices: how many run it, each on its part, where the mesh around it is explicit; else 1,
            and the shape is that of the whole.
        multiply_adds: of products and convolutions, in all rounds, on all these devices together.
        again: whether the backward pass repeats it (`jax.checkpoint`).
        fields: the output's receptive field per spatial axis; None if independent of the input.
        moved: whether the field's size or stride is none of its operands'.
    """

    path: str
    primitive: str
    shape: tuple[int, ...]
    bytes: int
    rounds: int
    devices: int
    multiply_adds: int
    again: bool
    fields: Fields | None
    moved: bool


@dataclasses.dataclass
class _Walker:
    extents: tuple[int, ...]
    operations: list[Operation]
    devices: int = 1

    def wholes(self, rank: int) -> Fields:
        return tuple(whole(extent, rank) for extent in self.extents)

    def run(
        self,
        jaxpr: core.Jaxpr,
        inputs: Sequence[Fields | None],
        scope: str,
        rounds: int,
        used: Sequence[bool] | None = None,
    ) -> list[Fields | None]:
        """The fields of the jaxpr's outputs; the operations of the used ones join the list."""
        known: dict[core.Var, Fields | None] = dict(zip(jaxpr.invars, inputs, strict=True))

        def read(atom: Any) -> Fields | None:
            return None if isinstance(atom, core.Literal) else known.get(atom)

        for eqn, read_later in _live(jaxpr, used):
            operands = [read(atom) for atom in eqn.invars]
            inner = "/".join(filter(None, [scope, str(eqn.source_info.name_stack)]))
            bodies = list(core.jaxprs_in_params(eqn.params))
            if eqn.primitive.name in (*_LOOPS, "cond", _PARTS):
                outputs = self.opaque(eqn, bodies, operands, inner, rounds, read_later)
            elif len(bodies) == 1 and _calls(eqn, bodies[0]):
                outputs = self.run(bodies[0], operands, inner, rounds, read_later)
            else:
                outputs = self.operation(eqn, operands, inner, rounds)
            known.update(zip(eqn.outvars, outputs, strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def opaque(
        self,
        eqn: Any,
        bodies: Sequence[core.Jaxpr],
        operands: Sequence[Fields | None],
        scope: str,
        rounds: int,
        used: Sequence[bool],
    ) -> list[Fields | None]:
        """Loops, conditions, parts: whatever meets the input in them may see all of it."""
        devices = self.devices
        if eqn.primitive.name == _PARTS:
            axes = eqn.params["newly_manual_axes"]
            devices *= math.prod(eqn.params["mesh"].shape[axis] for axis in axes)
        depends = any(fields is not None for fields in operands)

        def wholes(atoms: Sequence[Any]) -> list[Fields | None]:
            return [self.wholes(atom.aval.ndim) if depends else None for atom in atoms]

        # What a loop gives that nobody reads, its own next round may.
        needed = None if eqn.primitive.name in _LOOPS else used
        branches = []
        for body in bodies:
            walker = _Walker(self.extents, [], devices)
            each = rounds * eqn.params.get("length", 1)
            walker.run(body, wholes(body.invars), scope, each, needed)
            branches.append(walker.operations)
        # Only one branch of a cond runs: the costliest is counted. A while is counted once.
        if eqn.primitive.name == "cond":
            branches = [max(branches, key=lambda ops: sum(op.multiply_adds for op in ops))]
        self.operations += [op for branch in branches for op in branch]
        return wholes(eqn.outvars)

    def operation(
        self, eqn: Any, operands: Sequence[Fields | None], scope: str, rounds: int
    ) -> list[Fields | None]:
        outputs = [self.fields(eqn, operands, variable.aval.shape) for variable in eqn.outvars]
        sizes = [_sizes(fields) for fields in operands if fields is not None]
        aval = eqn.outvars[0].aval
        self.operations.append(
            Operation(
                path=_module_path(scope),
                primitive=eqn.primitive.name,
                shape=aval.shape,
                bytes=aval.size * aval.dtype.itemsize,
                rounds=rounds,
                devices=self.devices,
                multiply_adds=self.devices * rounds * _multiply_adds(eqn),
                again=_AGAIN in scope.split("/"),
                fields=outputs[0],
                moved=outputs[0] is not None and _sizes(outputs[0]) not in sizes,
            )
        )
        return outputs

    def fields(
        self, eqn: Any, operands: Sequence[Fields | None], shape: tuple[int, ...]
    ) -> Fields | None:
        """The fields of one output of `shape`."""
        if all(fields is None for fields in operands):
            return None
        joined = []
        for axis, extent in enumerate(self.extents):
            paths = [
                rule(fields[axis], eqn, operand) or whole(extent, len(shape))
                for operand, fields in enumerate(operands)
                if fields is not None
            ]
            joined.append(join(paths, shape).within(extent))
        return tuple(joined)


def walk(apply_fn: ApplyFn, variables: Any, inputs: Any) -> tuple[list[Operation], Any]:
    """Every operation of a forward pass in order of execution, and the fields of its outputs.

    Nothing is computed: the function is traced on shapes. Operations that no output needs are left
    out.

    Args:
        apply_fn: (variables, inputs) -> any pytree of arrays, in evaluation mode.
        variables: the model's variables, arrays or `jax.ShapeDtypeStruct`s.
        inputs: one array or ShapeDtypeStruct (B, spatial axes..., C).

    Returns:
        The operations, and the output pytree with a `Fields` (a tuple with one `Field` per spatial
        axis; None if independent of the input) in the place of each array.
    """
    inputs = jax.ShapeDtypeStruct(np.shape(inputs), inputs.dtype)
    closed, outputs = jax.make_jaxpr(apply_fn, return_shape=True)(variables, inputs)
    spatial = range(1, len(inputs.shape) - 1)
    pixels = tuple(
        Field(0, 1, tuple(int(d == axis) for d in range(len(inputs.shape)))) for axis in spatial
    )
    walker = _Walker(tuple(inputs.shape[axis] for axis in spatial), [])
    constants: list[Fields | None] = [None] * (len(closed.jaxpr.invars) - 1)
    fields = walker.run(closed.jaxpr, [*constants, pixels], "", 1)
    return walker.operations, jax.tree.unflatten(jax.tree.structure(outputs), fields)


def operations(fn: Callable[..., Any], *args: Any) -> list[Operation]:
    """Every operation of any call in order of execution, without fields.

    Args:
        fn: a function of arrays; only traced.
        *args: arrays or ShapeDtypeStructs.
    """
    return operations_of(jax.make_jaxpr(fn)(*args).jaxpr)


def operations_of(jaxpr: core.Jaxpr) -> list[Operation]:
    """Every operation of what was traced, see `operations`."""
    walker = _Walker((), [])
    walker.run(jaxpr, [None] * len(jaxpr.invars), "", 1)
    return walker.operations


def _live(jaxpr: core.Jaxpr, used: Sequence[bool] | None) -> list[tuple[Any, list[bool]]]:
    """The equations that the used outputs need, in order, and which of their outputs these need.

    The compiler drops the others too.
    """
    used = used or [True] * len(jaxpr.outvars)
    outputs = [atom for atom, wanted in zip(jaxpr.outvars, used, strict=True) if wanted]
    needed = {atom for atom in outputs if not isinstance(atom, core.Literal)}
    live = []
    for eqn in reversed(jaxpr.eqns):
        read_later = [variable in needed for variable in eqn.outvars]
        if any(read_later):
            needed.update(atom for atom in eqn.invars if not isinstance(atom, core.Literal))
            live.append((eqn, read_later))
    return live[::-1]


def _calls(eqn: Any, body: core.Jaxpr) -> bool:
    """Whether the equation just runs `body`, as jit, remat and custom derivatives do."""
    outer, inner = (
        [getattr(atom.aval, "shape", None) for atom in [*ends.invars, *ends.outvars]]
        for ends in (eqn, body)
    )
    return outer == inner


def _sizes(fields: Fields) -> list[tuple[int, int]]:
    return [(field.size, field.stride) for field in fields]


def _module_path(scope: str) -> str:
    """The path in the parameter tree from Flax's name stack, `Model/block/block.method/dense`."""
    names: list[str] = []
    for part in scope.split("/"):
        name = part.split(".")[0]
        formula = "->" in part  # of an einsum, which is no module
        if not formula and ("." not in part or names[-1:] != [name]):
            names.append(name)
    return "/".join(names[1:])


def _multiply_adds(eqn: Any) -> int:
    """Of a product: outputs times contracted size; of a convolution: outputs times filter size."""
    size = math.prod(eqn.outvars[0].aval.shape)
    if eqn.primitive.name == "dot_general":
        (contracted, _), _ = eqn.params["dimension_numbers"]
        return size * math.prod(eqn.invars[0].aval.shape[d] for d in contracted)
    if eqn.primitive.name == "conv_general_dilated":
        image, kernel = (atom.aval.shape for atom in eqn.invars)
        spec = eqn.params["dimension_numbers"]
        out = list(eqn.outvars[0].aval.shape)
        # A pixel meets each weight once at most: in the gradient of a stride or of an image without
        # a margin most outputs see holes and padding.
        for before, after in zip(spec.lhs_spec[2:], spec.out_spec[2:], strict=True):
            out[after] = min(out[after], image[before])
        return math.prod(out) * math.prod(kernel) // kernel[spec.rhs_spec[0]]
    return 0
