"""Predicts the cost of a step: compiles it for virtual devices and never runs it."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from dlcore.plan.chips import Chip
from dlcore.plan.collectives import Collective, collectives_of
from dlcore.plan.cost import model_flops as flops_of_model
from dlcore.plan.cost import peak_bytes
from dlcore.plan.hlo import Execution, Program, multiply_adds, parse
from dlcore.plan.placement import leaf_bytes
from dlcore.types import Batch, PyTree, TrainState

# XLA's CPU compiler takes the barriers of `jax.checkpoint` out before it last looks for common
# subexpressions, finds the recomputation equal to the first one, and drops it. Without the pass
# that takes them out, the recomputation stays, as it does on accelerators.
_KEEP_BARRIERS: dict[str, str | bool] = {"xla_disable_hlo_passes": "cse_barrier_expander"}


@dataclasses.dataclass(frozen=True)
class Plan:
    """The cost of one step on each device.

    Attributes:
        devices: the number of devices.
        axes: the names and sizes of the mesh's axes; empty for a single device.
        parameter_bytes: memory of the parameters that the device holds.
        optimizer_bytes: memory of the optimizer's state.
        other_bytes: memory of the rest of the state.
        batch_bytes: memory of the device's rows of the batch.
        temporary_bytes: memory of everything that lives only within the step: activations,
            gradients, gathered parameters.
        peak_bytes: all of these together, and the results that do not overwrite the state.
        flops: floating-point operations, in all rounds of loops.
        model_flops: the operations among them that the model needs, without repeated ones.
        traffic_bytes: bytes that move between memory and processor, with this compiler's fusion of
            operations.
        least_traffic_bytes: the same if every argument were read, every result written and every
            temporary byte written and read once.
        collectives: the collectives, each with the axes of the mesh along which it sends.
        known: whether the compiler knows the rounds of all loops; an unknown loop counts as one
            round.
        platform: the platform of the compiler that these figures come from.
    """

    devices: int
    axes: tuple[tuple[str, int], ...]
    parameter_bytes: int
    optimizer_bytes: int
    other_bytes: int
    batch_bytes: int
    temporary_bytes: int
    peak_bytes: int
    flops: float
    model_flops: float
    traffic_bytes: float
    least_traffic_bytes: float
    collectives: tuple[tuple[Collective, tuple[str, ...]], ...]
    known: bool
    platform: str

    @property
    def sent_bytes(self) -> float:
        """The bytes that each device sends in a step."""
        return sum(collective.sent_bytes for collective, _ in self.collectives)


class Expected(NamedTuple):
    """The expected time of a step by the roofline model (Williams et al. 2009), without waiting.

    Attributes:
        compute: seconds at the chip's peak.
        memory: seconds for the traffic as this compiler fuses operations.
        communication: seconds for sending between devices.
        slow: seconds of a step that never sends and computes at the same time.
        fast: seconds of a step that hides as much communication behind computation as possible and
            has the least memory traffic.
        efficiency: the share of the chip's peak that the model's FLOPs use, in the slow step.
        best_efficiency: the same share in the fast step.
        fits: whether the peak of memory fits into the chip's.
    """

    compute: float
    memory: float
    communication: float
    slow: float
    fast: float
    efficiency: float
    best_efficiency: float
    fits: bool


def plan(
    lowered: jax.stages.Lowered,
    state: TrainState,
    batch: Batch,
    *,
    mesh: Mesh | None = None,
    model_flops: float | None = None,
) -> Plan:
    """Compiles a step and reads its cost without running anything or making any array.

    Args:
        lowered: the result of `jax.jit(step, donate_argnums=0, ...).lower(state, batch)`.
        state: the state, whose leaves are ShapeDtypeStructs with shardings.
        batch: a batch of ShapeDtypeStructs with shardings.
        mesh: the mesh of the shardings; None for a single device.
        model_flops: the FLOPs of the whole step on all devices, see `step_flops`; by default the
            FLOPs of the products in the compiled program, including repeated ones.
    """
    platform = (mesh.devices.flat[0] if mesh else jax.devices()[0]).platform
    compiled: Any = lowered.compile(_KEEP_BARRIERS if platform == "cpu" else None)
    program, memory = parse(compiled.as_text()), compiled.memory_analysis()
    executions = program.executions(_traffic_of(program))
    products = sum(2.0 * run.runs * multiply_adds(run.instruction) for run in executions)
    # The compiler counts the body of a loop once, however often it runs.
    again = sum(2.0 * (run.runs - 1) * multiply_adds(run.instruction) for run in executions)
    devices = mesh.size if mesh else 1
    arguments, results = memory.argument_size_in_bytes, memory.output_size_in_bytes
    known = [bytes_per_device(tree) for tree in (state.params, state.opt_state, state)]
    return Plan(
        devices=devices,
        axes=tuple(mesh.shape.items()) if mesh else (),
        parameter_bytes=known[0],
        optimizer_bytes=known[1],
        other_bytes=known[2] - known[1] - known[0],
        batch_bytes=bytes_per_device(batch),
        temporary_bytes=memory.temp_size_in_bytes,
        peak_bytes=peak_bytes(memory),
        flops=compiled.cost_analysis().get("flops", 0.0) + again,
        model_flops=products if model_flops is None else model_flops / devices,
        traffic_bytes=sum(map(_traffic_of(program), executions)),
        least_traffic_bytes=float(arguments + results + 2 * memory.temp_size_in_bytes),
        collectives=tuple(
            (collective, collective.axes(mesh) if mesh else ())
            for collective in collectives_of(program)
        ),
        known=all(execution.known for execution in executions),
        platform=platform,
    )


def _traffic_of(program: Program) -> Callable[[Execution], float]:
    def traffic(execution: Execution) -> float:
        if execution.fused:
            return 0.0
        return execution.runs * program.traffic(execution.instruction)

    return traffic


def step_flops(step: Callable[..., PyTree], state: PyTree, batch: PyTree) -> float:
    """Counts the FLOPs of the model in a step on the whole batch, see `cost.model_flops`.

    Args:
        step: a step for a single device.
        state: arrays or ShapeDtypeStructs.
        batch: arrays or ShapeDtypeStructs.
    """
    return flops_of_model(jax.make_jaxpr(step)(state, batch))


def bytes_per_device(tree: PyTree) -> int:
    """Returns the bytes that the fullest device holds of a tree of arrays or ShapeDtypeStructs."""
    return sum(map(leaf_bytes, jax.tree.leaves(tree)))


def expect(plan: Plan, chip: Chip) -> Expected:
    """Predicts the time of the step on given chips, and whether it fits into their memory."""
    compute, memory = plan.flops / chip.flops, plan.traffic_bytes / chip.bandwidth
    communication = plan.sent_bytes / chip.link
    slow = max(compute, memory) + communication
    least = min(plan.least_traffic_bytes, plan.traffic_bytes) / chip.bandwidth
    fast = max(compute, least, communication)
    ideal = plan.model_flops / chip.flops
    return Expected(
        compute,
        memory,
        communication,
        slow,
        fast,
        ideal / slow,
        ideal / fast,
        plan.peak_bytes <= chip.memory,
    )
