"""A run from the outside: how it starts, its folder, and how it ends."""

import datetime
import fcntl
import json
import pathlib
import sys
import tempfile
import time
from collections.abc import Callable
from typing import IO, Any, TypeVar

import jax
from absl import app, flags, logging

from dlcore import runtime
from dlcore.errors import InputError
from dlcore.runtime import processes
from dlcore.runtime.provenance import provenance
from dlcore.train.fingerprint import difference
from dlcore.train.logs import write_json, writing
from experiments import START
from experiments.common import planning, training, upkeep
from experiments.common.flags import config, say
from experiments.common.training import Job, Outcome

FLAGS = flags.FLAGS
S = TypeVar("S", str, list[Any])
_claimed: IO[str] | None = None  # open while the process lives, and with it the lock


def launch(main: Callable[[list[str]], None]) -> None:
    """Runs a script's main: an error in the input is one line and status 2, no traceback."""

    def guarded(argv: list[str]) -> None:
        try:
            if argv[1:]:
                raise InputError(f"arguments {argv[1:]} are not flags; see --help")
            main(argv)
        except InputError as error:
            print("error:", " ".join(str(error).split()), file=sys.stderr)
            processes.exit_process(2)
        except KeyboardInterrupt:  # before training, or the second one during it
            print("interrupted; what was saved before stays", file=sys.stderr)
            processes.exit_process(130)
        except Exception as error:
            processes.fail(error)

    # Orbax logs the life of each checkpoint and the traceback of each failure that it also raises.
    # When one of its writes fails, it closes the event loop under the others, which complain.
    logging.set_verbosity(logging.FATAL)
    sys.unraisablehook = _without_leftovers
    app.run(guarded, flags_parser=_parse)


def _parse(argv: list[str]) -> list[str]:
    """What flags leave of the arguments; a flag that cannot be read is an error in the input."""
    try:
        return FLAGS(argv)
    except flags.Error as error:
        print("error:", " ".join(str(error).split()), "(see --help)", file=sys.stderr)
        sys.exit(2)


def _without_leftovers(unraisable: "sys.UnraisableHookArgs") -> None:
    if str(unraisable.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(unraisable)


def start(job: str) -> pathlib.Path:
    """Settles JAX and makes the workdir, which --check and --plan do without.

    Raises:
        InputError: when the workdir cannot be written, holds another run, or is in use.
    """
    runtime.configure()
    planning.settle()
    if FLAGS.plan:
        return planning.scratch()
    processes.initialize(FLAGS.coordinator, FLAGS.num_processes, FLAGS.process_id)
    if processes.is_distributed() and (FLAGS.check or not FLAGS.workdir):
        raise InputError(
            "--check is for one process" if FLAGS.check else
            "several processes need a --workdir, a folder that all of them see"
        )  # fmt: skip
    if FLAGS.smoke:
        _shrink()
    workdir = pathlib.Path(FLAGS.workdir or new_workdir(job))
    if FLAGS.check or not processes.is_primary():
        return workdir
    if FLAGS.resume == "must" and not (workdir / "config.json").exists():
        raise InputError(f"--resume=must, but there is no run in {workdir}")
    with writing(workdir):
        workdir.mkdir(parents=True, exist_ok=True)
        _lock(workdir)
        if (workdir / "config.json").exists():
            _check_same_run(workdir)
    return workdir


def new_workdir(job: str) -> pathlib.Path:
    """The folder of a run that is given none."""
    return pathlib.Path("runs") / job / datetime.datetime.now().strftime("%Y%m%d-%H%M%S")


def few(items: S, most: int) -> S:
    """The first `most` items in a smoke test, else all: what is tried there should be quick."""
    return items[:most] if FLAGS.smoke else items


def settle_steps(epochs: float, steps_per_epoch: int) -> None:
    """Sets --steps to so many epochs and --eval_every to one, where they are not given."""
    if not (FLAGS["steps"].present or FLAGS.smoke):
        FLAGS.steps = max(1, round(epochs * steps_per_epoch))
    if not (FLAGS["eval_every"].present or FLAGS.smoke):
        FLAGS.eval_every = steps_per_epoch


def _shrink() -> None:
    FLAGS.steps, FLAGS.warmup_steps, FLAGS.boundary = 2, min(FLAGS.warmup_steps, 1), []
    if FLAGS.schedule == "step":
        FLAGS.schedule = "constant"
    FLAGS.batch_size = min(FLAGS.batch_size, 8)
    if "batch_tokens" in FLAGS and FLAGS.batch_tokens:
        FLAGS.batch_tokens = min(FLAGS.batch_tokens, 256)
    FLAGS.log_every = FLAGS.eval_every = FLAGS.checkpoint_every = 1
    FLAGS.report = True
    FLAGS.workdir = FLAGS.workdir or tempfile.mkdtemp(prefix="dlcore-smoke-")


def _lock(workdir: pathlib.Path) -> None:
    """Claims the folder for as long as this process lives."""
    global _claimed
    _claimed = (workdir / ".lock").open("w")
    try:
        fcntl.flock(_claimed, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InputError(
            f"another process is running in {workdir}; wait for it, or choose another --workdir"
        ) from None


def _check_same_run(workdir: pathlib.Path) -> None:
    if FLAGS.resume == "never":
        raise InputError(f"--resume=never, but {workdir} holds a run; choose another --workdir")
    try:
        was = json.loads((workdir / "config.json").read_text())
    except ValueError:
        raise InputError(
            f"{workdir}/config.json is not JSON, so the run there cannot be known; choose another "
            "--workdir"
        ) from None
    if was != config():
        raise InputError(
            f"{workdir} holds another run ({difference(was, config())}); choose another "
            f"--workdir, or repeat that run by --flagfile={workdir / 'flags.txt'}"
        )


def train(job: Job, workdir: pathlib.Path) -> Outcome:
    """Trains, or continues to (`training.train`).

    Several processes end here: what a job makes of the trained state, one process makes.
    """
    if FLAGS.plan:
        planning.print_plan(job)
    outcome = training.train(job, workdir)
    if processes.is_distributed():
        if processes.is_primary():
            finish(job, workdir, outcome)
            say("reports, exports and samples are made by the same command in one process")
        processes.all_agree(True)
        sys.exit(0)
    return outcome


def finish(job: Job, workdir: pathlib.Path, outcome: Outcome, **more: Any) -> None:
    """Writes summary.json, with `more` in it, and prints the result.

    Of a run that was finished before, the summary stays as it was.
    """
    result = outcome.result
    per_second = (result.steps - 1) / result.seconds if result.steps > 1 else None
    parameters = sum(leaf.size for leaf in jax.tree.leaves(outcome.state.params))
    summary = {
        "step": outcome.step,
        "metrics": outcome.metrics,
        "parameters": parameters,
        "stopped_by": result.reason,
        "seconds_to_first_step": result.first_step and result.first_step - START,
        **{
            f"{unit}_per_second": per_second and per_second * count
            for unit, count in job.per_step.items()
        },
        "recompilations": result.recompilations,
        **upkeep.summary(result),
        **more,
    }
    if result.steps or not (workdir / "summary.json").exists():
        summarise(job.name, workdir, summary)
    conclude(
        job.name, workdir, outcome.metrics, f"at step {outcome.step}, {parameters:,} parameters"
    )


def summarise(job: str, workdir: pathlib.Path, values: dict[str, Any]) -> None:
    """Writes summary.json: the values, the time taken and where the run came from."""
    if "plan" in FLAGS and FLAGS.plan:
        raise InputError("--plan is of a step on devices, and this command takes none")
    taken = {"seconds": time.perf_counter() - START}
    write_json(workdir / "summary.json", {"experiment": job, **values, **taken, **provenance()})


def conclude(job: str, workdir: pathlib.Path, metrics: dict[str, float], how: str) -> None:
    """Prints the result of a run."""
    found = ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())
    seconds = time.perf_counter() - START
    print(f"{job}: test {found} {how}, {seconds:.1f} s; written to {workdir}")
