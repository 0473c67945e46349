"""--plan: the cost of a job's step on devices that this machine need not have."""

import contextlib
import dataclasses
import itertools
import math
import pathlib
import sys
import tempfile
import threading
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from dlcore import native, runtime
from dlcore.errors import InputError
from dlcore.launch.process import say
from dlcore.launch.running import prepare
from dlcore.launch.task import Task, make_state
from dlcore.plan.chips import parse_chip
from dlcore.plan.placement import render_placement
from dlcore.plan.step import Plan, expect, plan, step_flops
from dlcore.plan.table import render
from dlcore.runtime.layout import Jit
from dlcore.runtime.mesh import OnMesh
from dlcore.runtime.sharding import mesh_sizes
from dlcore.train import guard
from dlcore.types import Batch, TrainState

# Of batches of several shapes so many are looked at for the largest.
_LOOKED_AT = 8


def settle(config: Any) -> Any:
    """Checks the flags about devices, and for a plan makes JAX see --devices virtual devices.

    Call this before anything touches a device.

    Returns:
        The configuration, with the layout that is planned.

    Raises:
        InputError: for flags that contradict each other.
    """
    if config.chip is not None:
        parse_chip(config.chip)
    if config.devices is not None and not config.plan:
        raise InputError("--devices is for --plan: a run uses the devices that exist")
    sizes = mesh_sizes(config.mesh) if config.mesh else {}
    if not config.plan:
        return config
    if others := [name for name in ("check", "smoke", "coordinator") if getattr(config, name)]:
        raise InputError(f"--plan and --{others[0]} cannot be combined; leave one of them out")
    count = config.devices or math.prod(sizes.values())
    if config.layout == "jit" and count > 1:
        raise InputError(f"--layout=jit uses one device; for --devices={count} plan --layout=mesh")
    if config.layout == "pmap":
        say(
            "pmap computes and sends the same as a mesh with the axis data, so that mesh is planned"
        )
    if count > 1 or config.layout == "pmap":
        config = dataclasses.replace(config, layout="mesh")
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", count)
    return config


def print_plan(task: Task[Any, Any]) -> bool:
    """Prints the plan of a task's step; returns False if --chip is too small for it."""
    runtime.configure()
    with tempfile.TemporaryDirectory(prefix="dlcore-plan-") as folder:
        # What jobs write before they train.
        task.workdir = pathlib.Path(folder)
        batch = _largest_batch(prepare(task).train(0))
    layout = task.layout()
    for name, leaf in batch.items():
        if leaf.shape[0] % layout.data_size:
            raise InputError(
                f"the batches of this job ({name} of {leaf.shape[0]}) do not divide among "
                f"{layout.data_size} devices; plan --mesh=model=N"
            )
    state = layout.abstract(lambda: make_state(task))
    many = "1 device" if jax.device_count() == 1 else f"{jax.device_count()} devices"
    with _waiting(f"compiling the step for {many}"):
        found = _plan(task, layout, state, batch)
    chip = parse_chip(task.config.chip) if task.config.chip is not None else None
    print(f"Parameters\n{render_placement(state.params)}\n\n{render(found, chip)}")
    return chip is None or expect(found, chip).fits


def _plan(task: Task[Any, Any], layout: runtime.Layout, state: TrainState, batch: Batch) -> Plan:
    precision = runtime.precision(task.config.precision)
    # A plan counts operations, and sees none in a C function.
    with native.only_xla():
        flops = step_flops(task.step(), state, batch)
        step = guard(task.step())
        if isinstance(layout, OnMesh):
            rows = layout.abstract_batch(batch)
            lowered = runtime.lower_step(step, layout, state, rows, precision=precision)
            return plan(lowered, state, rows, mesh=layout.mesh, model_flops=flops)
        lowered = runtime.lower_step(step, Jit(), state, batch, precision=precision)
    return plan(lowered, state, batch, model_flops=flops)


def _largest_batch(batches: Iterator[Batch]) -> Batch:
    """Returns the shapes of a batch: where they differ, of the largest of the first batches."""
    looked_at = [_shapes(batch) for batch in itertools.islice(batches, 2)]
    if looked_at[0] != looked_at[-1]:
        looked_at += map(_shapes, itertools.islice(batches, _LOOKED_AT - 2))
        say(
            "the batches differ in shape; the plan is for the largest of the first "
            f"{len(looked_at)}"
        )

    def size(batch: Batch) -> int:
        return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(batch))

    return max(looked_at, key=size)


def _shapes(batch: Batch) -> dict[str, jax.ShapeDtypeStruct]:
    dtype = jax.dtypes.canonicalize_dtype
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(np.shape(leaf), dtype(np.asarray(leaf).dtype)),
        dict(batch),
    )


@contextlib.contextmanager
def _waiting(what: str) -> Iterator[None]:
    """Shows how long a piece of work has taken so far, if it cannot report its progress."""
    over = threading.Event()

    def show() -> None:
        form = "{desc} {elapsed}"
        with tqdm(desc=what, bar_format=form, delay=2, leave=False, file=sys.stderr) as bar:
            while not over.wait(0.5):
                bar.update()

    shown = threading.Thread(target=show, daemon=True)
    shown.start()
    try:
        yield
    finally:
        over.set()
        shown.join()
