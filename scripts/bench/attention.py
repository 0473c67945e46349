"""Benchmarks of attention: `.venv/bin/python scripts/bench/attention.py [step recipes ...]`.

They keep to two cores. Contenders are processes that take turns, and their ratios are medians over
neighbouring turns; what is asked stands beside what was measured. PyTorch's threads wait for each
other at every operation, so where other work takes the cores its times say nothing. Sections:

    step         ms of a training step of nanoGPT's character model for a CPU (4 layers, 4 heads,
                 width 128, context 64, batch 12), against PyTorch's eager mode where it is
                 installed
    recipes      seconds and test loss of the two recipes for tiny Shakespeare, from a cold start,
                 and of nanoGPT's training on a CPU by PyTorch where it is installed; needs --text
    cache        decoding of 256 tokens with the cache of keys and values, against reading all again
                 at each step, for each kind of position
    memory       of attention and its gradients in chunks, against the full form
    beam         sentences per second of beam search, and its time beside that of its model's steps
    translation  scores and errors of a finished run of the job translation; needs --run
"""

import functools
import importlib.util
import json
import os
import pathlib
import statistics
import tempfile
import time
from typing import Any

import numpy as np
from absl import app, flags
from attention_contenders import (
    CHANNELS,
    DECODED,
    TRANSLATED,
    VOCABULARY,
    attend,
    decode,
    decoder,
    ours,
    pytorch,
    search,
    train_nanogpt,
)
from contenders import Contender, Failed, alone, experiment, ratio, run, table, take_turns

FLAGS = flags.FLAGS
flags.DEFINE_integer("rounds", 9, "turns of each contender")
flags.DEFINE_string("text", None, "tiny Shakespeare, for the section recipes")
flags.DEFINE_string("run", None, "folder of a run, for the section translation")

CORES = 2
CHUNK, LENGTHS, MEGABYTES = 512, (2048, 4096, 8192), 2048  # of the section memory
LOSSES = {"shakespeare_fast": (1.88, 15), "shakespeare_90s": (1.60, 90)}  # nats within seconds
BLEU = 33


def milliseconds(times: list[float]) -> str:
    return f"{1e3 * statistics.median(times):.2f}"


def step() -> None:
    """A training step of nanoGPT's character model for a CPU."""
    makers = {"ours": ours} | ({"PyTorch": pytorch} if importlib.util.find_spec("torch") else {})
    contenders = {name: Contender(make) for name, make in makers.items()}
    times = take_turns(contenders, rounds=FLAGS.rounds)
    rows = [("", "asked", "measured")]
    rows += [(f"{name}, ms", "", milliseconds(times[name])) for name in makers]
    if "PyTorch" in makers:
        rows.append(("PyTorch / ours", ">= 1", f"{ratio(times, 'PyTorch'):.2f}"))
    table(rows)


def recipes() -> None:
    """Language models of tiny Shakespeare from a cold start."""
    if FLAGS.text is None:
        print("left out: --text=input.txt names the text")
        return
    text = pathlib.Path(FLAGS.text).resolve()
    rows = [("recipe", "s asked", "s", "test loss asked", "test loss")]
    for name, (loss, seconds) in LOSSES.items():
        with tempfile.TemporaryDirectory() as cache:
            summary = experiment(
                "language_model", f"--recipe={name}", f"--data_path={text}", cache=cache
            )
        found = summary["metrics"]["loss"]
        taken = summary["wall_seconds"]
        rows.append((name, f"<= {seconds}", f"{taken:.1f}", f"<= {loss:.2f}", f"{found:.4f}"))
    if importlib.util.find_spec("torch") is None:
        print("  no PyTorch")
    else:
        start = time.perf_counter()
        found = alone(train_nanogpt, text=str(text))
        taken = time.perf_counter() - start
        rows.append(("nanoGPT by PyTorch", "", f"{taken:.1f}", "", f"{found:.4f}"))
    table(rows)


def difference(position: str) -> float:
    """The most that a log-probability differs between token by token and all tokens at once."""
    import jax
    import jax.numpy as jnp

    model, variables = decoder(position)
    tokens = np.random.default_rng(1).integers(0, VOCABULARY, (2, DECODED), np.int32)

    @jax.jit
    def largest(variables: Any, tokens: jax.Array) -> jax.Array:
        next_token = functools.partial(model.apply, variables, method="next_token")
        _, one_by_one = jax.lax.scan(next_token, model.initial_carry(2, DECODED), tokens.T)
        _, readout, _ = model.apply(variables, tokens)
        hidden = readout.hidden.swapaxes(0, 1)
        at_once = model.output.log_probs(readout._replace(hidden=hidden.reshape(-1, CHANNELS)))
        return jnp.abs(at_once.reshape(one_by_one.shape) - one_by_one).max()

    return float(largest(variables, tokens))


def cache() -> None:
    """Greedy decoding of 256 tokens by a model of the size of that of the section step."""
    from dlcore import runtime
    from dlcore.nn.attention.positions import POSITIONS

    runtime.configure()
    rows = [("position", "ms, cached", "without / cached, asked >= 10",
             "difference of log P, asked <= 1e-5")]  # fmt: skip
    for position in POSITIONS:
        contenders = {
            "ours": Contender(decode, position=position, cached=True),
            "without": Contender(decode, position=position, cached=False),
        }
        times = take_turns(contenders, rounds=FLAGS.rounds)
        times_longer, differs = ratio(times, "without"), difference(position)
        rows.append(
            (position, milliseconds(times["ours"]), f"{times_longer:.1f}", f"{differs:.1e}")
        )
    table(rows)


def peak(length: int, chunk: int | None) -> str:
    """The most megabytes that the process of an attention took."""
    contender = Contender(attend, length=length, chunk=chunk)
    most = contender.memory("VmHWM")
    contender.end()
    return f"{most:,.0f}"


def runs(length: int, chunk: int | None) -> str:
    """Returns whether attention runs in a process of so many megabytes."""
    try:
        Contender(attend, length=length, chunk=chunk, megabytes=MEGABYTES).end()
    except Failed as error:
        if "Out of memory" not in str(error):
            raise
        return "no"
    return "yes"


def memory() -> None:
    """Causal attention of 4 heads of 64 features, and its gradients, in chunks of 512."""
    chunk, longest = CHUNK, LENGTHS[-1]
    rows = [("", "asked", "in chunks", "full")]
    rows += [
        (f"peak MB, {what}", "", peak(length, chunk), peak(length, None))
        for length, what in [(1, "JAX itself"), *((n, f"length {n:,}") for n in LENGTHS)]
    ]
    rows.append(
        (f"length {longest:,} runs in {MEGABYTES:,} MB of address space", "yes, no",
         runs(longest, chunk), runs(longest, None))
    )  # fmt: skip
    table(rows)


def beam() -> None:
    """Beam search with a small transformer: 32 sentences of 32 tokens, 1,000 different ones."""
    rows = [("width", "ms", "sentences/s", "search / steps of its model")]
    for width in (1, 5, 10):
        times = take_turns(
            {"steps": Contender(search, width=width, searched=False),
             "search": Contender(search, width=width, searched=True)},
            rounds=FLAGS.rounds,
        )  # fmt: skip
        rate = TRANSLATED[0] / statistics.median(times["search"])
        share = ratio(times, "search", "steps")
        rows.append((str(width), milliseconds(times["search"]), f"{rate:.0f}", f"{share:.2f}"))
    table(rows)


def translation() -> None:
    """The test scores of a finished run, and whose fault its errors are."""
    if FLAGS.run is None:
        print("left out: --run=FOLDER names the run")
        return
    try:
        summary = json.loads((pathlib.Path(FLAGS.run) / "summary.json").read_text())
    except (OSError, ValueError) as error:
        raise app.UsageError(f"--run={FLAGS.run} holds no summary of a run: {error}") from None
    metrics, greedy = summary["metrics"], summary["greedy_bleu"]
    rows = [
        ("", "asked", "measured"),
        ("BLEU, beam", f">= {BLEU}", f"{metrics['bleu']:.2f}"),
        ("BLEU, beam - greedy", "> 0", f"{metrics['bleu'] - greedy:+.2f}"),
        ("chrF, beam", "", f"{metrics['chrf']:.2f}"),
        ("minutes in all", "<= 40 of training", f"{summary['seconds'] / 60:.1f}"),
    ]
    for verdict, share in summary["search_errors"].items():
        rows.append((f"outputs: {verdict}", "", f"{share:.1%}"))
    table(rows)


if __name__ == "__main__":
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    run(step, recipes, cache, memory, beam, translation)
