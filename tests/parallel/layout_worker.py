"""One process of a run of many cases: `layout_worker.py JSON`; see `layout_runs`."""

import hashlib
import json
import sys
from typing import Any

import jax

SPEC = json.loads(sys.argv[1])
jax.config.update("jax_num_cpu_devices", SPEC["devices"])

import numpy as np  # noqa: E402
from layout_cases import NETS, SINGLE, Case, make_layout  # noqa: E402

from dlcore import runtime  # noqa: E402
from dlcore.runtime import processes  # noqa: E402
from dlcore.train import gradient_step, guard  # noqa: E402


def bits(tree: Any) -> str:
    """A hash of what this process holds of the arrays of a tree."""
    found = hashlib.sha256()
    for leaf in jax.tree.leaves(tree):
        for shard in leaf.addressable_shards:
            found.update(np.asarray(shard.data).tobytes())
    return found.hexdigest()


def train(net: str, name: str, steps: int, runs: int) -> list[dict[str, Any]]:
    """Losses and the bits of the parameters of each of so many runs from the same start."""
    case = NETS[net](SPEC["features"])
    if name == SINGLE:
        return [_alone(case, steps)]
    layout = make_layout(name)
    step = runtime.compile_step(guard(gradient_step(case.loss_fn, case.tx)), layout)
    part, parts = layout.part
    found = []
    for _ in range(runs):
        state, losses = layout.initialise(case.make_state), []
        for number in range(steps):
            batch = case.batch(number)
            size = len(batch["weight"]) // parts
            rows = {key: leaf[part * size : (part + 1) * size] for key, leaf in batch.items()}
            state, metrics = step(state, rows)
            losses.append(float(metrics["loss"].compute()))
        assert step.traces == 1, f"{net} under {name} was compiled again"
        found.append({"losses": losses, "bits": bits((state.params, state.opt_state))})
    return found


def _alone(case: Case, steps: int) -> dict[str, Any]:
    """On one device, by nothing but `jax.jit`."""
    with jax.default_device(jax.local_devices()[0]):
        step = jax.jit(gradient_step(case.loss_fn, case.tx))
        state, losses = jax.jit(case.make_state)(), []
        for number in range(steps):
            state, metrics = step(state, case.batch(number))
            losses.append(float(metrics["loss"].compute()))
    return {"losses": losses, "bits": bits((state.params, state.opt_state))}


def main() -> None:
    runtime.configure()
    if SPEC["processes"] > 1:
        processes.initialize(SPEC["coordinator"], SPEC["processes"], SPEC["process"])
    if SPEC["task"] == "costs":
        from layout_costs import cost

        found = [cost(*case) for case in SPEC["cases"]]
    else:
        found = [train(*case, SPEC["steps"], SPEC["runs"]) for case in SPEC["cases"]]
    with open(SPEC["result"], "w") as file:
        json.dump(found, file)


if __name__ == "__main__":
    try:
        main()
    except BaseException as error:
        processes.fail(error)
