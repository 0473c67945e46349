"""What a step costs on devices that are not there: compiled for as many virtual ones, never run."""

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

# XLA's CPU compiler takes the barriers of `jax.checkpoint` out before it last looks for common
# subexpressions, finds the recomputation equal to the first one, and drops it. Without the pass
# that takes them out, the recomputation stays, as it does on accelerators.
_KEEP_BARRIERS: dict[str, str | bool] = {"xla_disable_hlo_passes": "cse_barrier_expander"}


@dataclasses.dataclass(frozen=True)
class Plan:
    """The cost of one step on each device.

    Attributes:
        devices: how many there are.
        axes: names and sizes of the mesh; empty for a single device.
        parameter_bytes: of the parameters that the device holds.
        optimizer_bytes: of the optimizer's state.
        other_bytes: of the rest of the state.
        batch_bytes: of its rows of the batch.
        temporary_bytes: of all that lives only within the step: activations, gradients, gathered
            parameters.
        peak_bytes: all of these together, and of the results what is not written over the state.
        flops: floating-point operations, in all rounds of loops.
        model_flops: of them, what the model needs, without what is computed twice.
        traffic_bytes: between memory and processor, as this compiler fuses operations.
        least_traffic_bytes: every argument read, every result written and every temporary byte
            written and read once.
        collectives: what the devices send each other, each with the axes along which it does.
        known: whether the compiler knows the rounds of all loops; another loop counts one round.
        platform: of the compiler that this is read from.
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
        """What each device sends in a step."""
        return sum(one.sent_bytes for one, _ in self.collectives)


class Expected(NamedTuple):
    """How long a step takes by the roofline (Williams et al. 2009), no device ever waiting.

    Attributes:
        compute: seconds at the chip's peak.
        memory: seconds for the traffic as this compiler fuses operations.
        communication: seconds for what each device sends.
        slow: seconds of a step in which nothing is sent while anything is computed.
        fast: seconds of a step whose communication is hidden behind the computation as far as
            possible and whose memory traffic is the least.
        efficiency: the share of the chip's peak that the model's FLOPs use, in the slow step.
        best_efficiency: the same in the fast one.
        fits: whether the peak of memory is within the chip's.
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
    state: Any,
    batch: Any,
    *,
    mesh: Mesh | None = None,
    model_flops: float | None = None,
) -> Plan:
    """Compiles a step and reads its cost; nothing is run and no array is made.

    Args:
        lowered: of `jax.jit(step, donate_argnums=0, ...).lower(state, batch)`.
        state: has `params` and `opt_state`; leaves are ShapeDtypeStructs with shardings.
        batch: a tree of ShapeDtypeStructs with shardings.
        mesh: that the shardings are of; None for a single device.
        model_flops: of the whole step on all devices, see `step_flops`; by default those that the
            compiled program spends on products, what it computes twice included.
    """
    platform = (mesh.devices.flat[0] if mesh else jax.devices()[0]).platform
    compiled: Any = lowered.compile(_KEEP_BARRIERS if platform == "cpu" else None)
    program, memory = parse(compiled.as_text()), compiled.memory_analysis()
    executions = program.executions(_traffic_of(program))
    products = sum(2.0 * one.runs * multiply_adds(one.instruction) for one in executions)
    # The compiler counts the body of a loop once, however often it runs.
    again = sum(2.0 * (one.runs - 1) * multiply_adds(one.instruction) for one in executions)
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
        collectives=tuple((one, one.axes(mesh) if mesh else ()) for one in collectives_of(program)),
        known=all(one.known for one in executions),
        platform=platform,
    )


def _traffic_of(program: Program) -> Callable[[Execution], float]:
    def traffic(one: Execution) -> float:
        return 0.0 if one.fused else one.runs * program.traffic(one.instruction)

    return traffic


def step_flops(step: Callable[..., Any], state: Any, batch: Any) -> float:
    """The FLOPs of the model in a step on the whole batch, see `cost.model_flops`.

    Args:
        step: for a single device.
        state: arrays or ShapeDtypeStructs.
        batch: arrays or ShapeDtypeStructs.
    """
    return flops_of_model(jax.make_jaxpr(step)(state, batch))


def bytes_per_device(tree: Any) -> int:
    """The bytes that the fullest device holds of a tree of arrays or ShapeDtypeStructs."""
    return sum(map(leaf_bytes, jax.tree.leaves(tree)))


def expect(plan: Plan, chip: Chip) -> Expected:
    """How long the step takes on such chips, and whether it fits."""
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
