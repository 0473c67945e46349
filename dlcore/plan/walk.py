"""Walks over the jaxpr of a function: lists its operations, their costs and receptive fields."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend import core

from dlcore.plan.fields import Atom, Field, join, rule, shape_of, whole
from dlcore.types import PyTree, Variables

Fields = tuple[Field, ...]
# (variables, inputs) -> outputs, usually a pair of outputs and activations by name.
ApplyFn = Callable[[Variables, jax.Array], Any]

_LOOPS = ("scan", "while")
_PARTS = "shard_map"
# JAX's name of the scope in which the backward pass of `jax.checkpoint` repeats operations.
_AGAIN = "rematted_computation"


@dataclasses.dataclass(frozen=True)
class Operation:
    """One primitive operation of the forward pass.

    Attributes:
        path: the module that runs it, as in the parameter tree; "" for the model itself.
        primitive: JAX's name of the primitive.
        shape: the shape of the (first) output.
        bytes: the size of the (first) output.
        rounds: how often it runs, because of the loops around it.
        devices: the number of devices that run it, each on its part, where the mesh around it is
            explicit; otherwise 1, and the shape is that of the whole array.
        multiply_adds: the multiply-adds of products and convolutions, in all rounds, on all these
            devices together.
        again: whether it is a repetition by the backward pass (`jax.checkpoint`).
        fields: the output's receptive field per spatial axis; None if independent of the input.
        moved: whether the field differs in size or stride from the fields of all operands.
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
        """Lists the operations that used outputs need, and returns the fields of all outputs."""
        known: dict[core.Var, Fields | None] = dict(zip(jaxpr.invars, inputs, strict=True))

        def read(atom: Atom) -> Fields | None:
            return None if isinstance(atom, core.Literal) else known.get(atom)

        for eqn, read_later in _live(jaxpr, used):
            operands = [read(atom) for atom in eqn.invars]
            inner = "/".join(filter(None, [scope, str(eqn.source_info.name_stack)]))
            bodies = list(core.jaxprs_in_params(eqn.params))
            if eqn.params.get("branches_platforms"):
                # All branches compute the same; the last one is that of other platforms.
                outputs = self.run(bodies[-1], operands[1:], inner, rounds, read_later)
            elif eqn.primitive.name in (*_LOOPS, "cond", _PARTS):
                outputs = self.opaque(eqn, bodies, operands, inner, rounds, read_later)
            elif len(bodies) == 1 and _calls(eqn, bodies[0]):
                outputs = self.run(bodies[0], operands, inner, rounds, read_later)
            else:
                outputs = self.operation(eqn, operands, inner, rounds)
            known.update(zip(eqn.outvars, outputs, strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def opaque(
        self,
        eqn: core.JaxprEqn,
        bodies: Sequence[core.Jaxpr],
        operands: Sequence[Fields | None],
        scope: str,
        rounds: int,
        used: Sequence[bool],
    ) -> list[Fields | None]:
        """Enters a loop, a condition or a mesh, where operations on the input see all of it."""
        devices = self.devices
        if eqn.primitive.name == _PARTS:
            axes = eqn.params["newly_manual_axes"]
            devices *= math.prod(eqn.params["mesh"].shape[axis] for axis in axes)
        depends = any(fields is not None for fields in operands)

        def wholes(atoms: Sequence[Atom]) -> list[Fields | None]:
            return [self.wholes(len(shape_of(atom))) if depends else None for atom in atoms]

        # A loop's next round may read an output that nobody reads after the loop.
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
        self, eqn: core.JaxprEqn, operands: Sequence[Fields | None], scope: str, rounds: int
    ) -> list[Fields | None]:
        outputs = [self.fields(eqn, operands, shape_of(variable)) for variable in eqn.outvars]
        sizes = [_sizes(fields) for fields in operands if fields is not None]
        aval: Any = eqn.outvars[0].aval
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
        self, eqn: core.JaxprEqn, operands: Sequence[Fields | None], shape: tuple[int, ...]
    ) -> Fields | None:
        """Returns the fields of one output of `shape`."""
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


def walk(
    apply_fn: ApplyFn, variables: Variables, inputs: jax.Array | jax.ShapeDtypeStruct
) -> tuple[list[Operation], PyTree]:
    """Lists the operations of a forward pass in order, and the fields of its outputs.

    The function is traced on shapes and computes nothing. Operations that no output needs are left
    out.

    Args:
        apply_fn: (variables, inputs) -> any pytree of arrays, in evaluation mode.
        variables: the model's variables, arrays or `jax.ShapeDtypeStruct`s.
        inputs: one array or ShapeDtypeStruct (B, spatial axes..., C).

    Returns:
        The operations, and the output pytree with a `Fields` (a tuple with one `Field` per spatial
        axis; None if independent of the input) in place of each array.
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


def operations(fn: Callable[..., PyTree], *args: PyTree) -> list[Operation]:
    """Lists the operations of any call in order of execution, without fields.

    Args:
        fn: a function of arrays; only traced.
        *args: arrays or ShapeDtypeStructs.
    """
    return operations_of(jax.make_jaxpr(fn)(*args).jaxpr)


def operations_of(jaxpr: core.Jaxpr) -> list[Operation]:
    """Lists the operations of a traced function, see `operations`."""
    walker = _Walker((), [])
    walker.run(jaxpr, [None] * len(jaxpr.invars), "", 1)
    return walker.operations


def _live(jaxpr: core.Jaxpr, used: Sequence[bool] | None) -> list[tuple[core.JaxprEqn, list[bool]]]:
    """Returns the equations that the used outputs need, in order, each with its needed outputs.

    The compiler drops the other equations too.
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


def _calls(eqn: core.JaxprEqn, body: core.Jaxpr) -> bool:
    """Returns whether the equation just runs `body`, as jit, remat and custom derivatives do."""
    outer, inner = (
        [getattr(atom.aval, "shape", None) for atom in [*ends.invars, *ends.outvars]]
        for ends in (eqn, body)
    )
    return outer == inner


def _sizes(fields: Fields) -> list[tuple[int, int]]:
    return [(field.size, field.stride) for field in fields]


def _module_path(scope: str) -> str:
    """Returns the path in the parameter tree from Flax's name stack.

    >>> _module_path("Model/block/block.method/dense")
    'block/dense'
    """
    names: list[str] = []
    for part in scope.split("/"):
        name = part.split(".")[0]
        formula = "->" in part  # of an einsum, which is no module
        if not formula and ("." not in part or names[-1:] != [name]):
            names.append(name)
    return "/".join(names[1:])


def _multiply_adds(eqn: core.JaxprEqn) -> int:
    """Counts the multiply-adds of a product or a convolution; any other operation has none."""
    size = math.prod(shape_of(eqn.outvars[0]))
    if eqn.primitive.name == "dot_general":
        (contracted, _), _ = eqn.params["dimension_numbers"]
        return size * math.prod(shape_of(eqn.invars[0])[d] for d in contracted)
    if eqn.primitive.name == "conv_general_dilated":
        image, kernel = (shape_of(atom) for atom in eqn.invars)
        spec = eqn.params["dimension_numbers"]
        out = list(shape_of(eqn.outvars[0]))
        # A pixel meets each weight once at most: in the gradient of a stride or of an image without
        # a margin most outputs see holes and padding.
        for before, after in zip(spec.lhs_spec[2:], spec.out_spec[2:], strict=True):
            out[after] = min(out[after], image[before])
        return math.prod(out) * math.prod(kernel) // kernel[spec.rhs_spec[0]]
    return 0
