"""The figures of a run about its devices: FLOPs, their utilisation, seconds of a step, memory."""

import pathlib
from typing import Any

import jax

from dlcore.launch.process import say
from dlcore.plan.chips import chip_of, parse_chip
from dlcore.plan.placement import render_placement
from dlcore.runtime import Layout, processes
from dlcore.runtime.mesh import OnMesh
from dlcore.train import Result
from dlcore.train.accounting import figures
from dlcore.train.profiling import Profile, parse_steps
from dlcore.types import TrainState


def profile(config: Any, workdir: pathlib.Path) -> Profile | None:
    """Returns the tracer of the steps of --profile, if any.

    Raises:
        InputError: for steps that the run does not have.
    """
    if config.profile is None:
        return None
    first, last = parse_steps(config.profile, config.steps)
    # Several on one machine would write the same files.
    return Profile(workdir / "profile", first, last) if processes.is_primary() else None


def say_places(layout: Layout, state: TrainState) -> None:
    """Prints on which devices each parameter lies, for layouts that may spread parameters."""
    if isinstance(layout, OnMesh):
        say(render_placement(state.params))


def peak_flops(state: TrainState, chip: str | None) -> float | None:
    """Returns the peak FLOPs per second of all devices that hold a state; None if not known."""
    devices = jax.tree.leaves(state)[0].sharding.device_set
    kind = next(iter(devices)).device_kind
    known = chip_of(kind) if chip is None else parse_chip(chip)
    return known and known.flops * len(devices)


def summary(result: Result, chip: str | None) -> dict[str, Any]:
    """Returns the entries of summary.json on speed, without the first step, and memory."""
    steps = result.steps - 1
    found: dict[str, Any] = dict(
        figures(steps, result.spent, result.flops, peak_flops(result.state, chip))
    )
    found.pop("steps_per_second", None)
    spent = {
        name.partition("/")[2]: found.pop(name)
        for name in list(found)
        if name.startswith("seconds_per_step/")
    }
    if result.flops:
        found = {"model_flops_per_step": result.flops / steps, **found}
    return {**found, "seconds_per_step": spent or None, "device_memory_peak_bytes": memory_peak()}


def memory_peak() -> int | None:
    """Returns the most bytes that a device of this process has held; None if it keeps no count."""
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    return max(
        (one["peak_bytes_in_use"] for one in stats if "peak_bytes_in_use" in one), default=None
    )
