"""Runs under kills and faults: `.venv/bin/python scripts/bench/endurance.py [faults] [kills]`.

Each fault strikes a ResNet-20 on the digits, in one process or two, under the supervisor. Told are
what became of it, the seconds until the fault was noticed, the steps that were computed again, and
whether all reports and the parameters at the end are, bit for bit, those of an undisturbed run.
Sections:

    faults  each fault once
    kills   kill -9 at random moments, --kills of them in runs of one process and in runs of two
"""

import contextlib
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

from absl import flags
from contenders import run, table
from endurance_runs import EVERY, LIMIT, STEPS, STRIKE, Run, Story, damage, kill, live, small_disk
from tqdm import tqdm

FLAGS = flags.FLAGS
KILLED_STEPS = 600  # of a run that is killed again and again
flags.DEFINE_integer("kills", 50, "of `kills`, in runs of one process and in runs of two", 1)


def row(
    name: str, run: Run, story: Story, reference: tuple[object, object], starts: int
) -> tuple[str, ...]:
    """A line of the table."""
    noticed = (
        story.after("supervise: status") or story.after("saved step") or story.after("skipped")
    )
    resumed = story.after("continuing")
    lost = story.struck_at - int(resumed[1].rsplit(" ", 1)[1]) if resumed else 0
    outcome = "finished" if story.status == 0 else f"status {story.status}"
    try:
        equal = "yes" if run.end() == reference else "NO"
    except OSError:
        equal = "not finished"
    seconds = f"{noticed[0] - story.struck:.1f}" if noticed and story.struck else "-"
    return name, str(run.processes), str(starts), outcome, seconds, str(max(lost, 0)), equal


def faults() -> None:
    """Each fault once."""
    rows = [("fault", "processes", "starts", "outcome", "seconds to notice", "steps lost", "equal")]
    with tempfile.TemporaryDirectory() as folder:
        place = pathlib.Path(folder)
        bar = tqdm(total=15, unit="run", file=sys.stderr)

        def told(name: str, run: Run, story: Story, tries: int | None = None) -> None:
            starts = 1 + sum("again in" in line for _, line in story.lines)
            rows.append(row(name, run, story, references[run.processes], tries or starts))
            bar.update()
            bar.set_description(name)

        references = {}
        for processes in (1, 2):
            undisturbed = Run(place / f"undisturbed{processes}", processes)
            live(undisturbed, None)
            references[processes] = undisturbed.end()
            bar.update()
        strikes = {
            "kill -9": {1: [0], 2: [1]},
            "kill -9 of the coordinator": {2: [0]},
        }
        for name, where in strikes.items():
            for processes, targets in where.items():
                one = Run(place / f"{name}{processes}", processes)
                told(name, one, live(one, kill(targets[0], signal.SIGKILL)))
        for processes in (1, 2):
            one = Run(place / f"term{processes}", processes)
            first = live(one, kill(processes - 1, signal.SIGTERM))
            left = one.step()
            second = live(one, None)
            first.lines += second.lines
            ok = first.status == second.status == 0 and left < STEPS
            first.status = 0 if ok else 1
            told("SIGTERM, and started again", one, first, 2)
        one = Run(place / "hung", 2, stall=30)
        told("a process hangs (SIGSTOP)", one, live(one, kill(1, signal.SIGSTOP)))
        for how in ("flip", "truncate", "remove"):
            for processes in (1, 2):
                one = Run(place / f"{how}{processes}", processes, steps=STRIKE // EVERY * EVERY)
                live(one, None)
                damage(one, how)
                one.steps = STEPS
                story = live(one, None)
                story.struck_at = STRIKE // EVERY * EVERY
                told(f"newest checkpoint: {how}", one, story, 2)
        disk = place / "disk"
        with small_disk(disk) as made:
            if made:
                one = Run(disk / "run")
                filler = disk / "filler"

                def fill(run: Run) -> None:
                    with contextlib.suppress(OSError), filler.open("wb") as file:
                        while True:
                            file.write(bytes(1 << 16))

                first = live(one, fill)
                filler.unlink()
                second = live(one, None)
                first.lines += second.lines
                stopped, first.status = first.status, second.status
                told(f"full disk (status {stopped}), freed, started again", one, first, 2)
        bar.close()
    rows += [bad_batch("NaN in a batch"), bad_batch("a loss spike, --skip_spikes")]
    table(rows)


def bad_batch(name: str) -> tuple[str, ...]:
    """A batch that spoils one step of linear regression: does the state before it stay?"""
    import jax
    import jax.numpy as jnp
    import numpy as np
    import optax

    from dlcore import runtime
    from dlcore.train import gradient_step, guard
    from dlcore.train.spikes import WINDOW, SpikeGuardedState
    from dlcore.types import Aux, Mean, TrainState

    runtime.configure()
    kind = SpikeGuardedState if "spike" in name else TrainState
    factor = 1e3 if "spike" in name else np.nan
    bad, layout, tx = 2 * WINDOW, runtime.layout("jit"), optax.adam(1e-3)

    def loss_fn(params: Any, model_state: Any, batch: Any, rng: Any) -> Any:
        errors = (batch["x"] @ params["w"] - batch["x"].sum(1)) ** 2
        return Mean(errors.sum(), jnp.float32(len(errors))), Aux(model_state, {})

    def batch(step: int) -> Any:
        x = np.random.default_rng(step).normal(size=(32, 8)).astype(np.float32)
        return {"x": x * (factor if step == bad else 1)}

    state = layout.initialise(
        lambda: kind.create({"params": {"w": jnp.zeros(8)}}, tx, jax.random.key(0))
    )
    step = runtime.compile_step(guard(gradient_step(loss_fn, tx)), layout)
    for number in range(3 * WINDOW):
        before = jax.tree.map(np.asarray, (state.params, state.opt_state))
        state, metrics = step(state, batch(number))
        if number == bad:
            after = jax.tree.map(np.asarray, (state.params, state.opt_state))
            same = jax.tree.all(jax.tree.map(np.array_equal, before, after))
            skipped = metrics["spikes" if "spike" in name else "skipped"].total
    finite = bool(np.isfinite(state.params["w"]).all()) and float(skipped) == 1
    outcome = "skipped, goes on" if finite else "NOT SKIPPED"
    return name, "1", "1", outcome, "0.0", "1", "state kept" if same else "NO"


def kills() -> None:
    """kill -9 at random moments, in as many runs as it takes."""
    rows = [("processes", "kills", "nothing lost", "runs", "steps", "steps lost", "runs equal")]
    rng = random.Random(0)
    for processes in (1, 2):
        with tempfile.TemporaryDirectory() as folder:
            place = pathlib.Path(folder)
            undisturbed = Run(place / "undisturbed", processes, KILLED_STEPS)
            live(undisturbed, None)
            made, lost, unharmed, runs, equal = 0, 0, 0, 0, 0
            bar = tqdm(total=FLAGS.kills, unit="kill", file=sys.stderr)
            while made < FLAGS.kills:
                one = Run(place / f"killed{runs}", processes, KILLED_STEPS, healthy=0)
                process = one.start(subprocess.DEVNULL)
                while made < FLAGS.kills and wait(one, process, rng):
                    before = one.step()
                    with contextlib.suppress(AssertionError, ProcessLookupError):
                        kill(rng.randrange(processes), signal.SIGKILL)(one)
                        made += 1
                        bar.update()
                        again = max(0, before - one.saved())
                        lost += again
                        unharmed += not again
                process.communicate(timeout=LIMIT)
                runs += 1
                equal += process.returncode == 0 and one.end() == undisturbed.end()
            bar.close()
            counts = processes, made, unharmed, runs, KILLED_STEPS, lost
            rows.append((*map(str, counts), f"{equal} of {runs}"))
    table(rows)


def wait(one: Run, process: subprocess.Popen[str], rng: random.Random) -> bool:
    """Waits for a moment of its start or, two times of three, of its steps; False if it ended."""
    now, steps = time.time(), rng.random() < 2 / 3
    begins: Callable[[], object] = (lambda: one.steps_since(now)) if steps else (lambda: one.pid(0))
    moment = None
    while process.poll() is None and (moment is None or time.monotonic() < moment):
        if moment is None and begins():
            moment = time.monotonic() + rng.uniform(0, 8)
        time.sleep(0.02)
    return process.poll() is None


if __name__ == "__main__":
    run(faults, kills)
