"""Benchmarks of recurrent nets: `.venv/bin/python scripts/bench/recurrent.py [speed length ...]`.

Each contender is a process of its own; they take turns, a few steps each, and what is printed is
the median of the ratios of neighbouring turns, so that what else the machine does hits all alike.
PyTorch takes part where it is installed. Sections:

    speed       language models 2 x 200 and 2 x 650, batch 20, 35 steps, 10,000 words, clipping and
                SGD: tokens/s, and how many times as long Flax's RNN and PyTorch take; wanted: 1.15
                for Flax, 1.2 for the better one of PyTorch eager and compiled
    length      ms per token at windows of 64 to 4,096, which should be level, and the memory of a
                process over a long stream, which should not grow
    softmax     how many times as long the full softmax takes at 50,000 words; wanted: 2
    perplexity  test perplexity of the ways to train the softmax at 10,000 words; wanted: within 8 %
                of the full one (20 minutes)
    adding      the adding problem at length 100 by LSTM and tanh net, as a picture
    gradients   gradients by distance in time of nets that let them vanish, explode or pass, and
                what clipping does to training with those that explode, as pictures
"""

import dataclasses
import functools
import importlib.util
import pathlib
import statistics
from typing import Any

import numpy as np
from absl import flags
from contenders import Contender, experiment, ratio, run, take_turns
from recurrent_contenders import BATCH, WINDOW, flax_rnn, ours, pytorch

FLAGS = flags.FLAGS
flags.DEFINE_integer("rounds", 9, "turns of each contender")
flags.DEFINE_integer("perplexity_steps", 1500, "training steps of the section perplexity")
flags.DEFINE_string("pictures", ".", "folder for the pictures")

AVERAGED = 50  # steps that a point of a picture is the mean of


def speed() -> None:
    """Tokens per second of language models, batch 20, 35 steps, 10,000 words."""
    peers: dict[str, Any] = {"ours": ours, "flax": flax_rnn}
    if importlib.util.find_spec("torch"):
        peers["eager"] = functools.partial(pytorch, compiled=False)
        peers["compiled"] = functools.partial(pytorch, compiled=True)
    print(f"{'':16}{'tokens/s':>10}{'/ Flax RNN':>12}{'/ eager':>10}{'/ compiled':>12}")
    for cell in ("lstm", "gru_after"):
        for width in (200, 650):
            contenders = {
                name: Contender(make, cell=cell, width=width) for name, make in peers.items()
            }
            times = take_turns(contenders, rounds=FLAGS.rounds)
            tokens = BATCH * WINDOW / statistics.median(times["ours"])
            row = "".join(f"{ratio(times, name):12.2f}" for name in list(peers)[1:])
            print(f"{cell:10} 2x{width:<5}{tokens:9,.0f}{row}", flush=True)


def length() -> None:
    """Time against the length of the window, and memory against the length of the stream."""
    print("window   ms/token (2 x 200, batch 20, 100 words)")
    for window in (64, 256, 1024, 4096):
        contender = Contender(ours, cell="lstm", width=200, window=window, vocabulary=100)
        turns = [contender.turn(max(1, 4096 // window)) for _ in range(FLAGS.rounds)]
        print(f"{window:6}   {1e3 * statistics.median(turns) / (window * BATCH):8.4f}", flush=True)
        contender.end()
    contender = Contender(ours, cell="lstm", width=200, vocabulary=100)
    contender.turn(200)
    before = contender.memory()
    contender.turn(5000)
    print(f"memory of the process after 200 and 5,200 windows: {before:.0f} and "
          f"{contender.memory():.0f} MB")  # fmt: skip
    contender.end()


def softmax() -> None:
    """The step at 50,000 words, the full softmax against its substitutes."""
    print("2 x 200, 50,000 words   ms/step   full / this")
    kinds = ("full", "sampled", "nce", "hierarchical")
    options = {"cell": "lstm", "width": 200, "vocabulary": 50_000}
    times = take_turns(
        {kind: Contender(ours, softmax=kind, **options) for kind in kinds}, rounds=FLAGS.rounds
    )
    for kind in kinds:
        seconds = statistics.median(times[kind])
        print(f"{kind:20}{1e3 * seconds:12.1f}{ratio(times, 'full', kind):12.2f}", flush=True)


def perplexity() -> None:
    """Test perplexities after the same number of steps of the default language model."""
    print("10,000 words   perplexity per token   / full")
    found: dict[str, float] = {}
    for kind in ("full", "sampled", "nce", "hierarchical"):
        summary = experiment(
            "language_model", f"--softmax={kind}", f"--steps={FLAGS.perplexity_steps}",
            "--eval_every=0", "--checkpoint_every=0", "--generate=0", "--notie",
        )  # fmt: skip
        found[kind] = summary["metrics"]["perplexity_per_token"]
        print(f"{kind:20}{found[kind]:12.1f}{found[kind] / found['full']:14.3f}", flush=True)


def adding_task(cell: Any, *, steps: int, clip: float | None) -> tuple[np.ndarray, np.ndarray]:
    """Losses and gradient norms of training on the adding problem: the sum of two marked numbers
    out of 100 (Hochreiter & Schmidhuber 1997), 64 sequences in a step."""
    import jax
    import jax.numpy as jnp
    import optax

    from dlcore import optim
    from dlcore.nn import recurrent

    length, rows, half = 100, 64, 50
    init_key, out_key, key = jax.random.split(jax.random.key(0), 3)
    params = {
        "cell": cell.init(init_key, 2),
        "output": jax.random.normal(out_key, (cell.features,)) / cell.features**0.5,
        "bias": jnp.zeros(()),
    }
    tx = optim.optimizer("adam", 2e-3, clip=clip and optim.clip_by_global_norm(clip))

    def loss(params: Any, key: jax.Array) -> jax.Array:
        number_key, first_key, second_key = jax.random.split(key, 3)
        numbers = jax.random.uniform(number_key, (length, rows))
        first = jax.random.randint(first_key, (1, rows), 0, half)
        second = jax.random.randint(second_key, (1, rows), half, length)
        at = jnp.arange(length)[:, None]
        marks = ((at == first) | (at == second)).astype(jnp.float32)
        prepared = cell.project(params["cell"], jnp.stack([numbers, marks], -1))
        _, y = recurrent.scan(cell, params["cell"], cell.initial_carry(rows), prepared)
        found = y[-1] @ params["output"] + params["bias"]
        return jnp.mean((found - (numbers * marks).sum(0)) ** 2)

    def step(state: Any, key: jax.Array) -> tuple[Any, Any]:
        params, opt_state = state
        value, grads = jax.value_and_grad(loss)(params, key)
        updates, opt_state = tx.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), (value, optax.tree.norm(grads))

    keys = jax.random.split(key, steps)
    _, found = jax.jit(lambda state: jax.lax.scan(step, state, keys))((params, tx.init(params)))
    losses, norms = (np.asarray(part).reshape(-1, AVERAGED).mean(1) for part in found)
    return losses, norms


def adding() -> None:
    """The LSTM solves it, the tanh net does not."""
    from dlcore.nn import recurrent
    from dlcore.report.plots import plot_lines

    curves = {}
    for name in ("lstm", "rnn"):
        losses, _ = adding_task(recurrent.cell(name, 64), steps=4000, clip=1.0)
        curves[name] = (AVERAGED * np.arange(1, len(losses) + 1), losses)
        print(f"{name}: mean squared error {losses[0]:.3f} at first, {losses[-1]:.4f} at last; "
              "0.167 for who always says 1", flush=True)  # fmt: skip
    path = pathlib.Path(FLAGS.pictures) / "adding.png"
    plot_lines(
        curves, path, title="Adding problem, 100 steps", x="step", y="mean squared error",
        levels={"always 1": 1 / 6},
    )  # fmt: skip
    print(f"picture: {path}")


def gradients() -> None:
    """Vanishing, exploding and passing gradients, and clipping."""
    import jax

    from dlcore.check import gradient_by_distance
    from dlcore.nn import recurrent
    from dlcore.report.plots import plot_gradient_by_distance, plot_gradient_norms, plot_lines

    folder = pathlib.Path(FLAGS.pictures)
    x = 0.1 * jax.random.normal(jax.random.key(1), (16, 100, 2))
    curves = {}
    cells = {"tanh, orthogonal x 0.8": ("rnn", 0.8), "ReLU, identity x 1.1": ("irnn", 1.1),
             "LSTM": ("lstm", 1.0), "GRU": ("gru", 1.0)}  # fmt: skip
    for title, (name, scale) in cells.items():
        cell = recurrent.cell(name, 64)
        params = cell.init(jax.random.key(0), 2)
        first = cell.recurrent[0]
        params = {**params, first: scale * params[first]}
        curves[title] = gradient_by_distance(cell, params, x, key=jax.random.key(2))
        print(f"{title}: {curves[title][-1]:.1e} of the gradient is left 100 steps before")
    plot_gradient_by_distance(curves, folder / "distance.png")

    @dataclasses.dataclass(frozen=True)
    class Exploding(recurrent.Vanilla):
        """A rectifier net that starts with 1.1 times the identity."""

        activation: str = "relu"

        def init(self, key: jax.Array, inputs: int) -> dict[str, Any]:
            params = super().init(key, inputs)
            return {**params, "recurrent_kernel": 1.1 * params["recurrent_kernel"]}

    losses = {}
    for title, clip in (("no clipping", None), ("clipped to norm 1", 1.0)):
        found, norms = adding_task(Exploding(64), steps=1500, clip=clip)
        steps = AVERAGED * np.arange(1, len(found) + 1)
        losses[title] = (steps, found)
        if clip is not None:
            plot_gradient_norms(steps, norms, folder / "norms.png", threshold=clip)
        print(f"{title}: gradient norm {norms[0]:.1e} at first, mean squared error {found[-1]:.4f} "
              "at last", flush=True)  # fmt: skip
    plot_lines(
        losses, folder / "clipping.png", title="A net whose gradients explode",
        x="step", y="mean squared error", levels={"always 1": 1 / 6},
    )  # fmt: skip
    print(f"pictures: distance.png, norms.png and clipping.png in {folder}")


if __name__ == "__main__":
    run(speed, length, softmax, perplexity, adding, gradients)
