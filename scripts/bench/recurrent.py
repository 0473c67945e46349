"""Benchmarks of recurrent nets: `.venv/bin/python scripts/bench/recurrent.py [--sections=...]`.

Each contender is a process of its own; they take turns, a few steps each, and what is printed is
the median of the ratios of neighbouring turns, so that what else the machine does hits all alike.
PyTorch takes part where it is installed. Sections:

    speed       language models 2 x 200 and 2 x 650, batch 20, 35 steps, 10,000 words, clipping and
                SGD: tokens/s, and how many times as long Flax's RNN and PyTorch take; wanted: 1.15
                for Flax, 1.2 for the better one of PyTorch eager and compiled
    length      ms per token at windows of 64 to 4,096, which should be level, and the memory of a
                process over a long stream, which should not grow
    softmax     how many times as long the full softmax takes at 50,000 words; wanted: 2
    perplexity  test perplexity of the ways to train the softmax at 10,000 words; wanted: within
                10 % of the full one (20 minutes)
    adding      the adding problem at length 100 by LSTM and tanh net, as a picture
    gradients   gradients by distance in time of nets that let them vanish, explode or pass, and
                what clipping does to training with those that explode, as pictures
"""

import dataclasses
import functools
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from absl import app, flags, logging

FLAGS = flags.FLAGS
SECTIONS = ["speed", "length", "softmax", "perplexity", "adding", "gradients"]
flags.DEFINE_list("sections", SECTIONS, "which to run")
flags.DEFINE_integer("rounds", 9, "turns of each contender")
flags.DEFINE_integer("perplexity_steps", 1500, "training steps of the section perplexity")
flags.DEFINE_string("pictures", ".", "folder for the pictures")

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))
VOCABULARY, BATCH, WINDOW, CLIP = 10_000, 20, 35, 5.0
AVERAGED = 50  # steps that a point of a picture is the mean of
Step = Callable[[], None]


def words(shape: tuple[int, int], vocabulary: int = VOCABULARY) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and targets, drawn with the frequencies of words: 1 / (rank + 10)."""
    random = np.random.default_rng(0)
    shares = 1 / (np.arange(vocabulary) + 10)
    drawn = random.choice(vocabulary, (2, *shape), p=shares / shares.sum())
    return drawn[0].astype(np.int32), drawn[1].astype(np.int32)


def ours(cell: str, width: int, *, window: int = WINDOW, vocabulary: int = VOCABULARY,
         softmax: str = "full", samples: int = 1024) -> Step:  # fmt: skip
    """A training step of the language model of experiments/language_model.py."""
    import jax
    import jax.numpy as jnp

    from dlcore import optim, runtime
    from dlcore.losses.output import output_layer
    from dlcore.metrics import Mean
    from dlcore.models.text import LanguageModel
    from dlcore.nn import recurrent
    from dlcore.train import Aux, TrainState, gradient_step
    from dlcore.train.steps import guard

    runtime.configure()
    inputs, targets = words((BATCH, window), vocabulary)
    counts = 1e6 / (np.arange(vocabulary) + 10)
    body = recurrent.RecurrentStack(tuple(recurrent.cell(cell, width) for _ in range(2)))
    model = LanguageModel(output_layer(softmax, counts, samples=samples), body, width)

    def loss_fn(params, model_state, batch, rng):
        carry, readout = model.apply(
            {"params": params}, batch["inputs"], batch["reset"],
            carry=batch["carry"], train=True, method="window",
        )  # fmt: skip
        losses = model.output.losses(rng, readout, batch["targets"].reshape(-1))
        return Mean.of(losses), Aux(model_state, {}, carry)

    tx = optim.optimizer("sgd", 1.0, clip=optim.clip_by_global_norm(CLIP))
    variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 1), jnp.int32))
    state = TrainState.create(variables, tx, jax.random.key(1), model.initial_carry(BATCH))
    step = runtime.compile_step(guard(gradient_step(loss_fn, tx)), runtime.layout("jit"))
    batch = {"inputs": inputs, "targets": targets, "reset": np.zeros(BATCH, bool)}

    def run() -> None:
        nonlocal state
        state, metrics = step(state, batch)
        metrics["loss"].total.block_until_ready()

    return run


def flax_rnn(cell: str, width: int) -> Step:
    """The same model of Flax's own layers and Optax, compiled, as its users write it."""
    import flax.linen as nn
    import jax
    import jax.numpy as jnp
    import optax

    make = {"lstm": nn.OptimizedLSTMCell, "gru_after": nn.GRUCell}[cell]

    class Model(nn.Module):
        @nn.compact
        def __call__(self, tokens, carries):
            x, new = nn.Embed(VOCABULARY, width)(tokens), []
            for carry in carries:
                carry, x = nn.RNN(make(width), return_carry=True)(x, initial_carry=carry)
                new.append(carry)
            return new, nn.Dense(VOCABULARY)(x)

    inputs, targets = words((BATCH, WINDOW))
    zeros = jnp.zeros((BATCH, width))
    carries = [(zeros, zeros) if cell == "lstm" else zeros for _ in range(2)]
    params = jax.jit(Model().init)(jax.random.key(0), inputs, carries)
    tx = optax.chain(optax.clip_by_global_norm(CLIP), optax.sgd(1.0))

    @functools.partial(jax.jit, donate_argnums=(0, 1, 2))
    def step(params, opt_state, carries):
        def loss(params):
            new, logits = Model().apply(params, inputs, carries)
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
            return losses.mean(), new

        (value, new), grads = jax.value_and_grad(loss, has_aux=True)(params)
        updates, opt_state = tx.update(grads, opt_state)
        return optax.apply_updates(params, updates), opt_state, new, value

    # Buffers that are given away must not be one and the same.
    state = [params, tx.init(params), jax.tree.map(jnp.copy, carries)]

    def run() -> None:
        *state[:], value = step(*state)
        value.block_until_ready()

    return run


def pytorch(cell: str, width: int, *, compiled: bool) -> Step:
    """The same model of PyTorch's own layers."""
    import torch

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.manual_seed(0)

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = torch.nn.Embedding(VOCABULARY, width)
            layer = torch.nn.LSTM if cell == "lstm" else torch.nn.GRU
            self.recurrent = layer(width, width, num_layers=2)
            self.output = torch.nn.Linear(width, VOCABULARY)

        def forward(self, tokens, carry):
            y, carry = self.recurrent(self.embedding(tokens), carry)
            return self.output(y), carry

    model = Model()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    inputs, targets = (torch.from_numpy(part.T.astype(np.int64).copy()) for part in
                       words((BATCH, WINDOW)))  # fmt: skip
    zeros = torch.zeros(2, BATCH, width)
    carry = (zeros, zeros.clone()) if cell == "lstm" else zeros
    forward = torch.compile(model) if compiled else model

    def run() -> None:
        nonlocal carry
        optimizer.zero_grad()
        logits, new = forward(inputs, carry)
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        carry = tuple(part.detach() for part in new) if cell == "lstm" else new.detach()

    return run


CONTENDERS: dict[str, Callable[..., Step]] = {
    "ours": ours,
    "flax": flax_rnn,
    "eager": functools.partial(pytorch, compiled=False),
    "compiled": functools.partial(pytorch, compiled=True),
}


def contend(name: str, options: str) -> None:
    """A contender: for each line on standard input one turn of so many steps."""
    logging.set_verbosity(logging.ERROR)
    step = CONTENDERS[name](**json.loads(options))
    for _ in range(3):
        step()
    print("ready", flush=True)
    for line in sys.stdin:
        start = time.perf_counter()
        for _ in range(int(line)):
            step()
        print(time.perf_counter() - start, flush=True)


class Contender:
    """A running contender."""

    def __init__(self, name: str, **options: object):
        command = [sys.executable, __file__, name, json.dumps(options)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        if self._process.stdout.readline().strip() != "ready":
            sys.exit(f"{name} {options} did not start")

    def turn(self, steps: int) -> float:
        """Seconds per step."""
        self._process.stdin.write(f"{steps}\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline()) / steps

    def memory(self) -> float:
        """Resident megabytes."""
        status = pathlib.Path(f"/proc/{self._process.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
        return int(line.split()[1]) / 1024

    def end(self) -> None:
        self._process.stdin.close()
        self._process.wait()


def take_turns(contenders: dict[str, Contender], *, seconds: float = 1.0) -> dict[str, list[float]]:
    """Seconds per step of each contender in each round."""
    steps = {name: max(1, int(seconds / one.turn(2))) for name, one in contenders.items()}
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(FLAGS.rounds):
        for name, one in contenders.items():
            times[name].append(one.turn(steps[name]))
    for one in contenders.values():
        one.end()
    return times


def ratio(times: dict[str, list[float]], peer: str, base: str = "ours") -> float:
    """How many times as long the peer takes."""
    pairs = zip(times[peer], times[base], strict=True)
    return statistics.median(theirs / mine for theirs, mine in pairs)


def speed() -> None:
    """Tokens per second of language models, batch 20, 35 steps, 10,000 words."""
    print(f"{'':16}{'tokens/s':>10}{'/ Flax RNN':>12}{'/ eager':>10}{'/ compiled':>12}")
    for cell in ("lstm", "gru_after"):
        for width in (200, 650):
            names = ["ours", "flax"] + ["eager", "compiled"] * has_pytorch()
            times = take_turns({n: Contender(n, cell=cell, width=width) for n in names})
            tokens = BATCH * WINDOW / statistics.median(times["ours"])
            row = "".join(f"{ratio(times, name):12.2f}" for name in names[1:])
            print(f"{cell:10} 2x{width:<5}{tokens:9,.0f}{row}", flush=True)


def has_pytorch() -> bool:
    import importlib.util

    return importlib.util.find_spec("torch") is not None


def length() -> None:
    """Time against the length of the window, and memory against the length of the stream."""
    print("window   ms/token (2 x 200, batch 20, 100 words)")
    for window in (64, 256, 1024, 4096):
        contender = Contender("ours", cell="lstm", width=200, window=window, vocabulary=100)
        turns = [contender.turn(max(1, 4096 // window)) for _ in range(FLAGS.rounds)]
        print(f"{window:6}   {1e3 * statistics.median(turns) / (window * BATCH):8.4f}", flush=True)
        contender.end()
    contender = Contender("ours", cell="lstm", width=200, vocabulary=100)
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
    times = take_turns({kind: Contender("ours", softmax=kind, **options) for kind in kinds})
    for kind in kinds:
        seconds = statistics.median(times[kind])
        print(f"{kind:20}{1e3 * seconds:12.1f}{ratio(times, 'full', kind):12.2f}", flush=True)


def perplexity() -> None:
    """Test perplexities after the same number of steps of the default language model."""
    print("10,000 words   perplexity per token   / full")
    found: dict[str, float] = {}
    for kind in ("full", "sampled", "nce", "hierarchical"):
        with tempfile.TemporaryDirectory() as folder:
            command = [
                sys.executable, "-m", "experiments.language_model", f"--softmax={kind}",
                f"--steps={FLAGS.perplexity_steps}", "--eval_every=0", "--checkpoint_every=0",
                "--generate=0", "--notie", f"--workdir={folder}",
            ]  # fmt: skip
            subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
            summary = json.loads((pathlib.Path(folder) / "summary.json").read_text())
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
    from dlcore.analysis import plot_lines
    from dlcore.nn import recurrent

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

    from dlcore.analysis import (
        gradient_by_distance,
        plot_gradient_by_distance,
        plot_gradient_norms,
        plot_lines,
    )
    from dlcore.nn import recurrent

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


def main(arguments: list[str]) -> None:
    if arguments[1:]:
        contend(*arguments[1:])
        return
    for section in FLAGS.sections:
        if section not in SECTIONS:
            raise app.UsageError(f"unknown section {section!r}; there are {', '.join(SECTIONS)}")
    for section in FLAGS.sections:
        print(f"\n{section}", flush=True)
        globals()[section]()


if __name__ == "__main__":
    app.run(main)
