"""The flags that all experiments share. Only the experiments read flags; dlcore takes arguments."""

import pathlib
import sys
from typing import Any

from absl import flags

from dlcore import optim
from dlcore.nn.remat import POLICIES
from dlcore.plan.chips import CHIPS
from dlcore.runtime import processes
from dlcore.train.logs import write_json, writing

FLAGS = flags.FLAGS

# Flags that may change when a run continues. All but --steps say where and how it runs, not what it
# computes; more steps go on by the schedule of the new number.
FREE = {
    "workdir", "data_dir", "steps", "layout", "mesh", "shard", "coordinator", "num_processes",
    "process_id", "stall_seconds", "skip_spikes", "checkpoint_every", "eval_every", "log_every",
    "patience", "checkpoint_dir", "resume", "check", "plan", "devices", "chip", "profile", "smoke",
    "report",
}  # fmt: skip

_MODULES: set[str] = set()  # whose flags are the script's own


def define_flags(
    *,
    dataset: str,
    steps: int,
    batch_size: int,
    learning_rate: float,
    optimizer: str = "adamw",
    schedule: str = "constant",
    warmup_steps: int = 0,
    weight_decay: float = 0.0,
    eval_every: int = 0,
    clip_norm: float | None = None,
    validation: float = 0.0,
    free: tuple[str, ...] = (),
) -> None:
    """Defines the common flags with a job's defaults; the script adds its own.

    Those of its own that may change when a run continues are `free`.
    """
    FREE.update(free)
    flags.DEFINE_string("workdir", None, "folder of the run; default runs/JOB/TIME")
    flags.DEFINE_integer("seed", 0, "of parameters, data order and noise", lower_bound=0)
    flags.DEFINE_string("dataset", dataset, "embedded or prepared TFDS data set")
    flags.DEFINE_string("data_dir", None, "folder of prepared data sets; default that of TFDS")
    flags.DEFINE_string("data_path", None, "your own data instead of --dataset")
    flags.DEFINE_integer("steps", steps, "training steps; a continued run may have more", 1)
    flags.DEFINE_integer("batch_size", batch_size, "examples per step, over all devices")
    flags.DEFINE_string("optimizer", optimizer, f"one of {', '.join(optim.OPTIMIZERS)}")
    flags.DEFINE_multi_string(
        "hyper", [], "hyperparameter of the optimizer, such as beta=0.9 or b2=0.95"
    )
    flags.DEFINE_float("learning_rate", learning_rate, "largest learning rate", lower_bound=0.0)
    flags.DEFINE_multi_string(
        "rate_factor", [], "REGEX:FACTOR of the learning rate of the parameters found by REGEX"
    )
    flags.DEFINE_string("schedule", schedule, f"one of {', '.join(optim.SCHEDULES)}")
    flags.DEFINE_multi_integer("boundary", [], "step at which --schedule=step divides by 10")
    flags.DEFINE_float("decay_share", 0.2, "last part of the run in which --schedule=wsd decays")
    flags.DEFINE_integer("warmup_steps", warmup_steps, "linear warm-up", lower_bound=0)
    flags.DEFINE_float("weight_decay", weight_decay, "of matrices and kernels", lower_bound=0.0)
    flags.DEFINE_float("clip_norm", clip_norm, "largest global norm of the gradient")
    flags.DEFINE_float("ema", None, "decay of a moving average of the weights to evaluate")
    flags.DEFINE_bool(
        "skip_spikes", False, "skip steps whose loss is 6 standard deviations above the last 128"
    )
    flags.DEFINE_integer("accumulate", 1, "micro-batches per step", lower_bound=1)
    flags.DEFINE_enum("precision", "float32", ["float32", "bfloat16"], "of the computation")
    flags.DEFINE_string("layout", None, "jit (one device), pmap (all) or mesh; default by --mesh")
    flags.DEFINE_string("mesh", None, "axes of --layout=mesh, such as data=2,fsdp=2,model=2")
    flags.DEFINE_multi_string("shard", [], "REGEX:-,model for the leaves found by REGEX")
    flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0; a cluster tells it by itself")
    flags.DEFINE_integer("num_processes", None, "of the run; a cluster tells it by itself", 1)
    flags.DEFINE_integer("process_id", None, "from 0 on; a cluster tells it by itself", 0)
    flags.DEFINE_integer("stall_seconds", 1800, "without a step end the process; 0 never", 0)
    only_end = "; 0 at the end only"
    flags.DEFINE_integer("checkpoint_every", 1000, f"steps between checkpoints{only_end}", 0)
    flags.DEFINE_string(
        "checkpoint_dir", None, "folder of checkpoints, also on gs://; default in --workdir"
    )
    flags.DEFINE_integer("eval_every", eval_every, f"steps between evaluations{only_end}", 0)
    flags.DEFINE_integer("log_every", 100, "steps between reports", lower_bound=1)
    flags.DEFINE_float(
        "validation", validation, "share of the training data held out for evaluations"
    )
    flags.DEFINE_integer("patience", None, "evaluations without a new best that end the run", 1)
    flags.DEFINE_enum("resume", "auto", ["auto", "never", "must"], "continue the run in --workdir")
    flags.DEFINE_bool("check", False, "check model, data and step instead of training")
    flags.DEFINE_bool("plan", False, "print what the step would cost on --devices, and end")
    flags.DEFINE_integer("devices", None, "of --plan; default those of --mesh", 1)
    flags.DEFINE_string("chip", None, f"of the devices: {', '.join(CHIPS)}, or its figures")
    flags.DEFINE_string("profile", None, "FROM:TO, steps to trace into WORKDIR/profile")
    flags.DEFINE_bool("smoke", False, "two tiny steps of everything")
    flags.DEFINE_bool("report", False, "write WORKDIR/report/index.html")
    adopt(__name__)


def define_remat_flag() -> None:
    """Defines --remat, for jobs whose models have it; results do not depend on it."""
    FREE.add("remat")
    flags.DEFINE_enum("remat", "none", list(POLICIES), "what the gradient computes again")
    adopt(__name__)


def adopt(module: str) -> None:
    """Makes the flags that a module has defined the running script's own: --help shows them."""
    _MODULES.add(module)
    for flag in FLAGS.flags_by_module_dict()[module]:
        FLAGS.register_key_flag_for_module(sys.argv[0], flag)


def own_flags() -> dict[str, flags.Flag]:
    """The flags of the running script, by name."""
    by_module = FLAGS.flags_by_module_dict()
    modules = (*sorted(_MODULES), sys.argv[0], "__main__")
    return {flag.name: flag for module in modules for flag in by_module.get(module, [])}


def config() -> dict[str, Any]:
    """The flags that a run cannot change on its way."""
    return {name: flag.value for name, flag in own_flags().items() if name not in FREE}


def record_flags(job: str, workdir: pathlib.Path) -> None:
    """Writes flags.txt, which repeats the run, and config.json, which identifies it."""
    if not processes.is_primary():
        return
    path = workdir / "flags.txt"
    given = [flag for flag in own_flags().values() if flag.present and flag.name != "resume"]
    lines = [flag.serialize() for flag in given]
    with writing(workdir):
        command = f"# python -m experiments.{job} --flagfile={path}"
        path.write_text("\n".join([command, *lines]) + "\n")
    write_json(workdir / "config.json", config())


def checkpoint_folder(workdir: pathlib.Path) -> str:
    """Where the checkpoints of a run are."""
    return FLAGS.checkpoint_dir or str(workdir / "checkpoints")


def say(line: str) -> None:
    """A line about the run for the person at the terminal; standard output is for the result."""
    if processes.is_primary():
        print(line, file=sys.stderr)
