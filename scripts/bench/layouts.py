"""Layouts of devices: `.venv/bin/python scripts/bench/layouts.py [equality cost]`.

Eight virtual devices of the processor, small nets with all that layouts can get wrong. Sections:

    equality  20 steps in each layout by 1, 2 and 4 processes; wanted: losses within 1e-5 of those
              of the plain step on one device, and two starts of the same run equal bit for bit
    cost      what the compiled programs send, by axis of the mesh, and what a device holds
"""

import os
import sys
import tempfile

from contenders import ROOT, run, table

sys.path.insert(0, str(ROOT / "tests" / "parallel"))

import layout_runs  # noqa: E402
import tqdm  # noqa: E402
from layout_cases import LAYOUTS, SINGLE  # noqa: E402

STEPS, DEVICES = 20, 8
NETS = ("cnn", "lstm", "transformer")
COSTS = (
    ("transformer", "data=8", "step", 1), ("transformer", "data=8", "step", 2),
    ("lstm", "data=8", "step", 1), ("cnn", "data=8", "step", 1),
    ("transformer", "fsdp=8", "step", 1), ("lstm", "fsdp=8", "step", 1),
    ("transformer", "model=8", "step", 1), ("transformer", "model=8", "evaluation", 1),
    ("lstm", "model=8", "step", 1), ("lstm", "model=8", "evaluation", 1),
    ("sampled softmax", "model=8", "step", 1),
    ("transformer", "data=2,fsdp=2,model=2", "step", 1),
    ("transformer", "data=2,fsdp=2,model=2", "evaluation", 1),
    ("word2vec", "model=8", "step", 1), ("glove", "model=8", "step", 1),
)  # fmt: skip


def equality() -> None:
    """Every layout against one device."""
    head = ("net", "layout", "processes x devices", "largest difference", "bit for bit")
    reference: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as cache:
        # The second start finds what the first one compiled.
        os.environ |= {
            "JAX_COMPILATION_CACHE_DIR": cache, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }  # fmt: skip
        for processes in tqdm.tqdm((1, 2, 4), desc="sets of processes", leave=False):
            rows = [head]
            layouts = (SINGLE, *LAYOUTS) if processes == 1 else LAYOUTS[1:]
            cases = [(net, layout) for net in NETS for layout in layouts]
            how = {"processes": processes, "devices": DEVICES // processes, "steps": STEPS}
            first, second = (layout_runs.losses_of(cases, **how) for _ in range(2))
            for (net, layout), (one,), (again,) in zip(cases, first, second, strict=True):
                reference.setdefault(net, one["losses"])
                pairs = zip(one["losses"], reference[net], strict=True)
                worst = max(abs(loss - wanted) for loss, wanted in pairs)
                size = f"{processes} x {DEVICES // processes}"
                rows.append((net, layout, size, f"{worst:.1e}", "yes" if one == again else "NO"))
            table(rows)


def cost() -> None:
    """Bytes that each device sends in one step, and holds."""
    found = layout_runs.costs_of([(*case[:3], 128, case[3]) for case in COSTS])
    rows = [("net", "mesh", "program", "axes", "collective", "runs", "kB in or out", "kB sent")]
    for (net, mesh, program, accumulate), one in zip(COSTS, found, strict=True):
        sums: dict[tuple[str, str], list[float]] = {}
        for collective in one["collectives"]:
            key = "+".join(collective["axes"]), collective["kind"]
            so_far = sums.setdefault(key, [0, 0.0, 0.0])
            so_far[0] += collective["runs"]
            so_far[1] += collective["runs"] * collective["bytes"] / 1e3
            so_far[2] += collective["sent"] / 1e3
        name = f"{program} of {accumulate}" if accumulate > 1 else program
        for (axes, kind), (runs, size, sent) in sums.items():
            rows.append((net, mesh, name, axes, kind, f"{runs}", f"{size:,.1f}", f"{sent:,.1f}"))
        share = one["held"] / one["whole"]
        held = f"{one['held'] / 1e3:,.1f} of {one['whole'] / 1e3:,.1f} kB held, {share:.2%}"
        rows.append((net, mesh, name, held, "", "", "", ""))
    table(rows)


if __name__ == "__main__":
    run(equality, cost)
