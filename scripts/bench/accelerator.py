"""Measures our jobs on an accelerator: `scripts/bench/accelerator.py [resnet gpt2 ...]`.

    resnet       ResNet-50, images of 224 x 224, batch 256
    gpt2         GPT-2 small, 16 rows of 1,024 tokens
    lstm         language model of 2 x 650 LSTM units, 10,000 words, 64 rows of 35 tokens
    translation  the base transformer, 32,000 tokens, 128 pairs of 64 tokens
    word2vec     skip-gram with negative sampling, 100,000 words, 300 features, 32,768 words a step

All but word2vec compute in bfloat16 (PyTorch does on accelerators alone). Each is trained by the
step and the loop of its job on one batch of drawn data: under jit on one device, on a mesh of all
devices (with the batch of one device for each; word2vec divides its tables instead), and there with
XLA's flags that hide the latency of communication; and by PyTorch, compiled, on one device, where
it is installed. Each contender is a process of its own, one after the other, so that no two share
an accelerator; what fails is said in its row. The table goes to standard output and, as Markdown,
to --table:

    a second   units per second of each device, and how many times those of PyTorch that is
    ms         of a step
    MFU        model FLOP utilisation: the model's FLOPs, without what is computed again, by the
               peak of the device, which --chip tells where its name does not
    GB         the most memory that a device held; of a CPU, that the process did
    first      seconds from the start of the process to the end of the first step, compilation
               included; nothing is cached

--smoke takes tiny models, to see that everything runs.
"""

import os
import pathlib
import sys
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from absl import app, flags, logging
from accelerator_contenders import UNITS, Figures, ours, pytorch
from contenders import Failed, alone, processor, table

FLAGS = flags.FLAGS
flags.DEFINE_float("seconds", 20.0, "seconds of timed steps of each contender", 0)
flags.DEFINE_string("chip", None, "the device, as jobs take it; by default by its name")
flags.DEFINE_string("table", "accelerator.md", "file for the table, in Markdown")
flags.DEFINE_bool("smoke", False, "tiny models, two steps of each")

WORKLOADS: dict[str, dict[str, Any]] = {
    "resnet": {"model": "resnet50", "side": 224, "batch": 256, "classes": 1000},
    "gpt2": {"layers": 12, "heads": 12, "width": 768, "vocabulary": 50_257, "window": 1024,
             "batch": 16},
    "lstm": {"layers": 2, "width": 650, "vocabulary": 10_000, "window": 35, "batch": 64},
    "translation": {"layers": 6, "heads": 8, "width": 512, "vocabulary": 32_000, "length": 64,
                    "batch": 128},
    "word2vec": {"vocabulary": 100_000, "features": 300, "batch": 32_768},
}  # fmt: skip
TINY: dict[str, dict[str, Any]] = {
    "resnet": {"model": "resnet8", "side": 8, "batch": 4, "classes": 10},
    "gpt2": {"layers": 1, "heads": 2, "width": 8, "vocabulary": 50, "window": 8, "batch": 2},
    "lstm": {"layers": 2, "width": 8, "vocabulary": 50, "window": 4, "batch": 2},
    "translation": {"layers": 1, "heads": 2, "width": 8, "vocabulary": 50, "length": 6,
                    "batch": 2},
    "word2vec": {"vocabulary": 100, "features": 8, "batch": 2048},
}  # fmt: skip
# Names and values of environment variables. The scheduler of collectives is on by default for TPUs,
# where these flags let it fuse and overlap more of them.
HIDING = {
    "XLA_FLAGS": "--xla_gpu_enable_latency_hiding_scheduler=true",
    "LIBTPU_INIT_ARGS": "--xla_tpu_enable_async_collective_fusion=true "
    "--xla_tpu_enable_async_collective_fusion_fuse_all_gather=true "
    "--xla_tpu_enable_async_collective_fusion_multiple_steps=true "
    "--xla_tpu_overlap_compute_collective_tc=true --xla_enable_async_all_gather=true",
}
PEER = "PyTorch, compiled"
CONTENDERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "jit": (ours, {"layout": "jit"}),
    "mesh": (ours, {"layout": "mesh"}),
    "mesh, latency hiding": (ours, {"layout": "mesh", "environment": HIDING}),
    PEER: (pytorch, {}),
}
HEAD = ("workload", "contender", "devices", "a second", "/ PyTorch", "ms", "MFU", "GB", "first, s")


def measured(workload: str) -> dict[str, Figures | str]:
    """Returns the figures of all contenders, or why there are none."""
    found: dict[str, Figures | str] = {}
    settings = (TINY if FLAGS.smoke else WORKLOADS)[workload]
    for name, (contender, options) in CONTENDERS.items():
        if contender is ours:
            options = {**options, "chip": FLAGS.chip}
        try:
            found[name] = alone(
                contender, workload=workload, settings=settings,
                seconds=0.0 if FLAGS.smoke else FLAGS.seconds, **options,
            )  # fmt: skip
        except Failed as failure:
            found[name] = str(failure)
        except BrokenProcessPool:
            found[name] = "its process ended, as by a flag that XLA does not know"
        except Exception as error:  # such as one that has no memory left
            found[name] = f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
    return found


def rows_of(workload: str, found: dict[str, Figures | str]) -> list[tuple[str, ...]]:
    """Returns the rows of the table, of cells as in `HEAD`.

    PyTorch's FLOPs are not counted: the model is the same, so they are those of ours for as many
    units.
    """
    mine, peer = found["jit"], found[PEER]
    rows = []
    for name, one in found.items():
        if isinstance(one, str):
            rows.append((workload, name, "-", *["-"] * 5, one))
            continue
        ratio = f"{one.rate / peer.rate:.2f}" if isinstance(peer, Figures) else "-"
        used = "-"
        if isinstance(mine, Figures) and mine.flops and mine.peak_flops:
            used = f"{one.rate * mine.flops / mine.per_step / mine.peak_flops:.1%}"
        rows.append(
            (workload, name, f"{one.devices} {one.device}",
             f"{one.rate:,.0f} {UNITS[workload]}", ratio, f"{1e3 * one.seconds / one.steps:.2f}",
             used, f"{one.memory / 1e9:.2f}", f"{one.first_step:.1f}")
        )  # fmt: skip
    return rows


def markdown(rows: list[tuple[str, ...]]) -> str:
    """Returns rows, of which the first is the head, as a table in Markdown."""
    lines = [f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows]
    return "\n".join([lines[0], f"|{' --- |' * len(rows[0])}", *lines[1:], ""])


def main(arguments: list[str]) -> None:
    logging.set_verbosity(logging.ERROR)
    names = arguments[1:] or list(WORKLOADS)
    for name in names:
        if name not in WORKLOADS:
            raise app.UsageError(f"unknown workload {name!r}; choose of: {', '.join(WORKLOADS)}")
    if FLAGS.chip is not None:
        from dlcore.plan.chips import parse_chip  # It brings JAX, which contenders time.

        parse_chip(FLAGS.chip)
    print(processor(), flush=True)
    rows = [HEAD]
    for name in names:
        rows += rows_of(name, measured(name))
        # A machine may be taken away before the end.
        pathlib.Path(FLAGS.table).write_text(markdown(rows), encoding="utf-8")
        print(f"{name} is measured", file=sys.stderr, flush=True)
    table(rows)


if __name__ == "__main__":
    os.environ.setdefault("TQDM_DISABLE", "1")
    app.run(main)
