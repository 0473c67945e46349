"""What a run reports of the devices: FLOPs, their utilisation, the time of a step, the memory."""

import pathlib
from typing import Any

import jax
from absl import flags

from dlcore.plan.chips import chip_of, parse_chip
from dlcore.plan.cost import model_flops
from dlcore.plan.placement import render_placement
from dlcore.runtime import Layout, processes
from dlcore.runtime.mesh import OnMesh
from dlcore.train.accounting import figures
from dlcore.train.loop import Result
from dlcore.train.profiling import Profile, parse_steps
from experiments.common.flags import say

FLAGS = flags.FLAGS


def options(state: Any, workdir: pathlib.Path) -> dict[str, Any]:
    """The arguments of `fit` that count FLOPs and trace the steps of --profile.

    Raises:
        InputError: for steps that there are not.
    """
    profile = None
    if FLAGS.profile is not None:
        first, last = parse_steps(FLAGS.profile, FLAGS.steps)
        # Several on one machine would write the same files.
        profile = Profile(workdir / "profile", first, last) if processes.is_primary() else None
    return {"count_flops": model_flops, "peak_flops": peak_flops(state), "profile": profile}


def say_places(layout: Layout, state: Any) -> None:
    """Tells where each parameter lies, where they may lie apart."""
    if isinstance(layout, OnMesh):
        say(render_placement(state.params))


def peak_flops(state: Any) -> float | None:
    """The most FLOPs per second of all the devices that hold a state; None if not known."""
    devices = jax.tree.leaves(state)[0].sharding.device_set
    kind = next(iter(devices)).device_kind
    chip = chip_of(kind) if FLAGS.chip is None else parse_chip(FLAGS.chip)
    return chip and chip.flops * len(devices)


def summary(result: Result) -> dict[str, Any]:
    """What summary.json says about the speed, the first step left out, and the memory."""
    steps = result.steps - 1
    found: dict[str, Any] = figures(steps, result.spent, result.flops, peak_flops(result.state))
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
    """The most bytes that one of the devices of this process has held; None if it does not tell."""
    known = [device.memory_stats() or {} for device in jax.local_devices()]
    return max(
        (one["peak_bytes_in_use"] for one in known if "peak_bytes_in_use" in one), default=None
    )
