"""--plan: what a job's step would cost on devices that are not there."""

import atexit
import contextlib
import itertools
import math
import pathlib
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator
from typing import Any, NoReturn

import jax
import numpy as np
from absl import flags
from tqdm import tqdm

from dlcore.errors import InputError
from dlcore.plan.chips import parse_chip
from dlcore.plan.placement import render_placement
from dlcore.plan.step import Plan, expect, plan, step_flops
from dlcore.plan.table import render
from dlcore.runtime.layout import Jit
from dlcore.runtime.mesh import OnMesh
from dlcore.runtime.sharding import mesh_sizes
from dlcore.train import guard
from dlcore.types import Batch
from experiments.common.flags import say
from experiments.common.training import Job, make_layout, make_optimizer, make_state, make_step

FLAGS = flags.FLAGS
# Of batches of several shapes so many are looked at for the largest.
_LOOKED_AT = 8


def settle() -> None:
    """Checks the flags about devices; for a plan makes JAX see --devices virtual ones.

    Call it before anything touches a device.

    Raises:
        InputError: for flags that do not go together.
    """
    if FLAGS.chip is not None:
        parse_chip(FLAGS.chip)
    if FLAGS.devices is not None and not FLAGS.plan:
        raise InputError("--devices is for --plan: a run uses the devices that are there")
    sizes = mesh_sizes(FLAGS.mesh) if FLAGS.mesh else {}
    if not FLAGS.plan:
        return
    if others := [name for name in ("check", "smoke", "coordinator") if FLAGS[name].value]:
        raise InputError(f"--plan and --{others[0]} do not go together; leave one of them away")
    count = FLAGS.devices or math.prod(sizes.values())
    if FLAGS.layout == "jit" and count > 1:
        raise InputError(f"--layout=jit is one device; for --devices={count} plan --layout=mesh")
    if FLAGS.layout == "pmap":
        say("pmap computes and sends what a mesh of the axis data does, which is planned")
    if count > 1 or FLAGS.layout == "pmap":
        FLAGS.layout = "mesh"
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", count)


def scratch() -> pathlib.Path:
    """A folder in the place of the workdir, for what jobs write before they train; soon gone."""
    folder = tempfile.mkdtemp(prefix="dlcore-plan-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return pathlib.Path(folder)


def print_plan(job: Job) -> NoReturn:
    """Prints the plan of a job's step and leaves: with status 1 if --chip is too small, else 0."""
    layout, tx = make_layout(job.rules), job.tx or make_optimizer(job)
    batch = _largest_batch(job.feed.train(0))
    for name, leaf in batch.items():
        if leaf.shape[0] % layout.data_size:
            raise InputError(
                f"the batches of this job ({name} of {leaf.shape[0]}) do not divide among "
                f"{layout.data_size} devices; plan --mesh=model=N"
            )
    state = layout.abstract(lambda: make_state(job, tx))
    many = "1 device" if jax.device_count() == 1 else f"{jax.device_count()} devices"
    with _waiting(f"compiling the step for {many}"):
        found = _plan(job, tx, layout, state, batch)
    chip = parse_chip(FLAGS.chip) if FLAGS.chip is not None else None
    print(f"Parameters\n{render_placement(state.params)}\n\n{render(found, chip)}")
    sys.exit(0 if chip is None or expect(found, chip).fits else 1)


def _plan(job: Job, tx: Any, layout: Any, state: Any, batch: Batch) -> Plan:
    flops = step_flops(make_step(job, tx, Jit()), state, batch)
    step = guard(make_step(job, tx, layout))
    if isinstance(layout, OnMesh):
        rows = layout.abstract_batch(batch)
        lowered = layout.lower_step(step, state, rows)
        return plan(lowered, state, rows, mesh=layout.mesh, model_flops=flops)
    lowered = jax.jit(step, donate_argnums=0).lower(state, batch)
    return plan(lowered, state, batch, model_flops=flops)


def _largest_batch(batches: Iterator[Batch]) -> Batch:
    """The shapes of a batch; of the largest of the first ones where they differ."""
    looked_at = [_shapes(batch) for batch in itertools.islice(batches, 2)]
    if looked_at[0] != looked_at[-1]:
        looked_at += map(_shapes, itertools.islice(batches, _LOOKED_AT - 2))
        say(f"the batches differ in shape; planned is the largest of the first {len(looked_at)}")

    def size(batch: Any) -> int:
        return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(batch))

    return max(looked_at, key=size)


def _shapes(batch: Batch) -> Any:
    dtype = jax.dtypes.canonicalize_dtype
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(np.shape(leaf), dtype(np.asarray(leaf).dtype)),
        dict(batch),
    )


@contextlib.contextmanager
def _waiting(what: str) -> Iterator[None]:
    """Shows for how long something takes that cannot tell how far it is."""
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
