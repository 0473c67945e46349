"""Benchmarks of the core: `.venv/bin/python scripts/bench/core.py [loop loader ...]`.

Each section pairs us with a peer in one run, in turn, and prints medians and ratios; machines are
shared and noisy. Sections:

    loop    steps/s of `fit`, with logs, guard and asynchronous checkpoints (one every few seconds),
            against the same step, unguarded, in a bare loop with donated state; wanted: >= 0.97
    loader  rows/s of the seekable loader, against a plain gather; wanted: >= 1 million, and a
            resumed loader's first batch in < 50 ms at any step
    norms   batch and layer normalisation with its gradient, by two passes, against Flax's by one,
            which is not stable; wanted: as fast; beside it the errors at a mean of 1,000 deviations
    start   seconds from the command to the first step of each job as it is without flags (--jobs
            chooses some): with an empty compilation cache, and with a full one (wanted: < 3); the
            share of the imports in the latter, and how many programs were compiled. The embedded
            data must be prepared, by a run before
    waiting whether contenders that wait slow the one whose turn it is: a step of the 2 x 650 LSTM,
            by itself and between the turns of others; wanted: as fast
    digits  test accuracy and seconds of the default job over 3 seeds (wanted: mean >= 98.5 %, 60 s
            each), against scikit-learn's support vector machine on the same split
"""

import functools
import importlib.util
import itertools
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from absl import flags
from contenders import Contender, experiment, run, table

FLAGS = flags.FLAGS
flags.DEFINE_integer("rounds", 5, "pairs of measurements in the section loop")
flags.DEFINE_list("jobs", [], "jobs of the section start; all that train by default")


def loop() -> None:
    """`fit` against a bare loop."""
    import jax
    import jax.numpy as jnp
    import optax

    from dlcore import runtime
    from dlcore.data import Arrays, Loader
    from dlcore.models import image_model
    from dlcore.train import Checkpointing, Logging, StopOnSignal, fit, gradient_step
    from dlcore.train.checkpoint import Checkpoints
    from dlcore.train.logs import RunLog
    from dlcore.types import Aux, Mean, TrainState

    rng = np.random.default_rng(0)
    rows = [("model", "batch", "steps", "bare steps/s", "fit steps/s", "fit / bare", "range")]
    runtime.configure()  # as every experiment does
    layout = runtime.layout("jit")
    for name, side, channels, size, steps in (
        ("mlp", 28, 1, 128, 20_000), ("lenet5", 32, 1, 128, 1600), ("resnet20", 32, 3, 64, 80),
    ):  # fmt: skip
        image = rng.integers(0, 256, (2000, side, side, channels), np.uint8)
        label = rng.integers(0, 10, 2000).astype(np.int32)
        loader = Loader(Arrays({"image": image, "label": label}), size, seed=0)
        model, tx = image_model(name, num_classes=10), optax.adamw(1e-3)

        def loss_fn(params, model_state, batch, rng, model=model):
            x = batch["image"].astype(jnp.float32) / 255
            (logits, _), new = model.apply(
                {"params": params, **model_state}, x, train=True, mutable=list(model_state)
            )
            loss = optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"])
            right = (logits.argmax(-1) == batch["label"]).astype(jnp.float32)
            metrics = {"accuracy": Mean.of(right, batch["weight"])}
            return Mean.of(loss, batch["weight"]), Aux(dict(new), metrics)

        def make_state(model=model, tx=tx, shape=image.shape[1:]):
            variables = model.init(jax.random.key(0), jnp.zeros((1, *shape)))
            return TrainState.create(variables, tx, jax.random.key(1))

        plain = gradient_step(loss_fn, tx)
        bare_step = jax.jit(plain, donate_argnums=0)
        jax.block_until_ready(bare_step(layout.initialise(make_state), loader.batch(0)))

        def bare(steps=steps, step=bare_step, make_state=make_state, loader=loader) -> float:
            state = layout.initialise(make_state)
            batches = loader.batches()
            state, _ = step(state, next(batches))
            jax.block_until_ready(state)
            start = time.perf_counter()
            for batch in itertools.islice(batches, steps - 1):
                state, _ = step(state, batch)
            jax.block_until_ready(state)
            return (steps - 1) / (time.perf_counter() - start)

        def ours(steps=steps, step=plain, make_state=make_state, loader=loader) -> float:
            with tempfile.TemporaryDirectory() as folder:
                workdir = pathlib.Path(folder)
                log = RunLog(workdir, steps=steps)
                checkpoints = Checkpoints(workdir / "checkpoints", {})
                hooks = [
                    Logging(log),
                    StopOnSignal(),
                    Checkpointing(checkpoints, every=steps // 2),
                ]
                state = layout.initialise(make_state)
                result = fit(step, state, loader.batches, steps=steps, hooks=hooks)
                log.close()
                checkpoints.close()
                return (steps - 1) / result.seconds

        pairs = [(bare(), ours()) for _ in range(FLAGS.rounds)]
        ratios = [ours / bare for bare, ours in pairs]
        rates = [statistics.median(rates) for rates in zip(*pairs, strict=True)]
        rows.append(
            (
                name,
                str(size),
                str(steps),
                f"{rates[0]:.1f}",
                f"{rates[1]:.1f}",
                f"{statistics.median(ratios):.3f}",
                f"{min(ratios):.3f}..{max(ratios):.3f}",
            )  # fmt: skip
        )
    table(rows)


def per_second(work: Callable[[], object], count: int, seconds: float = 1.0) -> float:
    """Returns how many of `count` per call are done in a second, over about `seconds`."""
    calls, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        work()
        calls += 1
    return calls * count / (time.perf_counter() - start)


def loader() -> None:
    """28 x 28 uint8 rows in batches of 128."""
    from dlcore.data import Arrays, Loader

    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (60_000, 28, 28, 1), np.uint8)
    split = Arrays({"image": image, "label": rng.integers(0, 10, 60_000).astype(np.int32)})
    batches = Loader(split, 128, seed=0).batches()
    indices = rng.permutation(60_000)[:128]
    pairs = [
        (per_second(lambda: image[indices], 128), per_second(lambda: next(batches), 128))
        for _ in range(5)
    ]
    plain, ours = (statistics.median(values) for values in zip(*pairs, strict=True))
    rows = [
        ("plain gather of one batch, rows/s", f"{plain:,.0f}"),
        ("loader, rows/s", f"{ours:,.0f}"),
        ("loader / plain", f"{ours / plain:.2f}"),
    ]
    for step in (0, 1_000, 1_000_000, 1_000_000_000):
        start = time.perf_counter()
        next(Loader(split, 128, seed=0).batches(step))
        rows.append(
            (f"first batch at step {step:,}", f"{1e3 * (time.perf_counter() - start):.1f} ms")
        )
    table(rows)


def with_gradient(apply: Callable[..., Any], state: Any) -> Callable[..., Any]:
    """Compiles (params, x, g) -> the layer's outputs, and the gradients of both by g of these."""
    import jax

    def norm(params, x):
        y = apply({"params": params, **state}, x, mutable=list(state))
        return y[0] if isinstance(y, tuple) else y

    def both(params, x, g):
        y, vjp = jax.vjp(norm, params, x)
        return y, vjp(g)

    return jax.jit(both)


def norms() -> None:
    """The images of ResNet-20's stages, and the vectors of transformers."""
    import flax.linen
    import jax
    import jax.numpy as jnp

    from dlcore import nn, runtime

    runtime.configure()
    rows = [("layer", "shape", "Flax ms", "ours ms", "Flax / ours", "Flax error", "our error")]
    batch = (
        flax.linen.BatchNorm(use_running_average=False, epsilon=1e-5),
        functools.partial(nn.BatchNorm(epsilon=1e-5).apply, train=True),
    )
    layer = flax.linen.LayerNorm(), nn.LayerNorm().apply
    for name, (peer, own), axes, shape in (
        ("batch", batch, (0, 1, 2), (64, 32, 32, 16)),
        ("batch", batch, (0, 1, 2), (64, 16, 16, 32)),
        ("batch", batch, (0, 1, 2), (64, 8, 8, 64)),
        ("batch", batch, (0,), (128, 512)),
        ("layer", layer, (-1,), (12, 64, 128)),
        ("layer", layer, (-1,), (8, 256, 768)),
    ):
        x, g = (jax.random.normal(jax.random.key(seed), shape) for seed in (0, 1))
        variables = peer.init(jax.random.key(0), x)
        state = {key: value for key, value in variables.items() if key != "params"}
        far = x + 1000
        wide = np.asarray(far, np.float64)
        exact = (wide - wide.mean(axes, keepdims=True)) / wide.std(axes, keepdims=True)

        def milliseconds(function, params=variables["params"], x=x, g=g) -> float:
            start = time.perf_counter()
            for _ in range(5):
                jax.block_until_ready(function(params, x, g))
            return (time.perf_counter() - start) / 5 * 1e3

        functions = with_gradient(peer.apply, state), with_gradient(own, state)
        errors = [
            float(jnp.abs(function(variables["params"], far, g)[0] - exact).max())
            for function in functions
        ]
        pairs = [tuple(map(milliseconds, functions)) for _ in range(FLAGS.rounds + 1)][1:]
        theirs, ours = (statistics.median(values) for values in zip(*pairs, strict=True))
        ratio = statistics.median(first / second for first, second in pairs)
        rows.append(
            (name, str(shape), f"{theirs:.2f}", f"{ours:.2f}", f"{ratio:.2f}",
             f"{errors[0]:.0e}", f"{errors[1]:.0e}")
        )  # fmt: skip
    table(rows)


# Ends a command with its first step: hooks are called when that was computed.
TO_FIRST_STEP = """
import os, sys
from dlcore.launch import process
process.settle_environment()
import jax
from dlcore.launch import running
from dlcore.launch.command import command
programs = []
jax.monitoring.register_event_duration_secs_listener(
    lambda event, seconds, **which: programs.append(which) if "backend_compile" in event else None
)
def end(hook, loop):
    print(len(programs), flush=True)
    os._exit(0)
running.StopOnSignal.after_step = end
command(sys.argv[1:])
"""


def to_first_step(job: str, cache: str, *options: str) -> tuple[float, int, str]:
    """Runs a job to its first step.

    Args:
        job: its name.
        cache: the folder of compiled programs.
        options: of Python.

    Returns:
        Seconds, the count of compiled programs, those of the cache included, and standard error.
    """
    # Users have the modules of their installation compiled to byte code.
    environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": cache}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, *options, "-c", TO_FIRST_STEP, job, f"--workdir={folder}/run"]
        start = time.perf_counter()
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        return time.perf_counter() - start, int(done.stdout.split()[-1]), done.stderr


def start() -> None:
    """One run with an empty cache, three with a full one of which the median counts."""
    from dlcore.launch import jobs

    trained = [job for job in jobs.names() if job != "comparison"]
    rows = [("job", "cold s", "warm s", "imports", "programs")]
    for job in FLAGS.jobs or trained:
        with tempfile.TemporaryDirectory() as cache:
            cold, _, _ = to_first_step(job, cache)
            runs = [to_first_step(job, cache) for _ in range(3)]
            seconds, programs, log = to_first_step(job, cache, "-X", "importtime")
        lines = re.findall(r"^import time: +(\d+) \|", log, re.MULTILINE)
        share = sum(map(int, lines)) / 1e6 / seconds
        warm = statistics.median(run[0] for run in runs)
        rows.append((job, f"{cold:.2f}", f"{warm:.2f}", f"{share:.0%}", str(programs)))
    table(rows)


def waiting() -> None:
    """A step of the 2 x 650 LSTM alone, and in turn with others that wait meanwhile."""
    import recurrent_contenders as make

    options = {"cell": "lstm", "width": 650}
    alone = Contender(make.ours, **options)
    seconds = {"alone": [alone.turn(4) for _ in range(FLAGS.rounds)], "beside others": []}
    others = [Contender(make.flax_rnn, **options)]
    if importlib.util.find_spec("torch"):
        others += [Contender(make.pytorch, **options, compiled=kind) for kind in (False, True)]
    for _ in range(FLAGS.rounds):
        for other in others:
            other.turn(4)
        seconds["beside others"].append(alone.turn(4))
    for contender in (alone, *others):
        contender.end()
    medians = {name: statistics.median(found) for name, found in seconds.items()}
    rows = [(name, f"{1e3 * median:.1f} ms") for name, median in medians.items()]
    table([*rows, ("beside / alone", f"{medians['beside others'] / medians['alone']:.3f}")])


def digits() -> None:
    """1,500 to train on, 297 held out."""
    from sklearn.svm import SVC

    from dlcore.data import load_images

    data = load_images("digits")
    everything = {
        split: getattr(data, split).gather(np.arange(len(getattr(data, split))))
        for split in ("train", "test")
    }
    x = {
        split: arrays["image"].reshape(len(arrays["image"]), -1) / 16
        for split, arrays in everything.items()
    }
    peer = SVC(gamma=0.001, C=10).fit(x["train"], everything["train"]["label"])
    rows = [("what", "test accuracy", "seconds")]
    rows.append(
        ("SVC(gamma=0.001, C=10)", f"{peer.score(x['test'], everything['test']['label']):.4f}", "")
    )
    accuracies = []
    for seed in range(3):
        summary = experiment("image_classification", f"--seed={seed}")
        accuracies.append(summary["metrics"]["accuracy"])
        rows.append(
            (f"default job, seed {seed}", f"{accuracies[-1]:.4f}", f"{summary['seconds']:.1f}")
        )
    rows.append(("default job, mean", f"{statistics.mean(accuracies):.4f}", ""))
    table(rows)


if __name__ == "__main__":
    run(loop, loader, norms, start, waiting, digits)
