"""Benchmarks of word vectors: `.venv/bin/python scripts/bench/word_vectors.py [speed quality ...]`.

They keep to two cores. A turn is a training in a new process, from the text file to the vectors,
without the imports; contenders take turns, and their ratios are medians over neighbouring ones.
The corpus is the embedded one, or --corpus: words between spaces, one sentence in a line. gensim
must be installed for speed and quality, gcc for glove. Sections:

    speed    words/s of skip-gram and of CBOW with negative sampling, against gensim's best of
             sentences and corpus_file by 1 and 2 workers
    quality  held-out loss and analogies of word forms, mean and spread over seeds
    memory   of training on --megabytes of text, beyond the two tables
    glove    cells/s of GloVe, and its cost after each number of passes, against a C program
"""

import contextlib
import functools
import itertools
import os
import pathlib
import statistics
import tempfile
from collections.abc import Mapping
from typing import Any

import numpy as np
import tqdm
import word_vectors_contenders as peers
from absl import flags
from contenders import Times, alone, ratio, run, table

FASTER = {"skip_gram": 3, "cbow_mean": 1}  # times gensim's best, asked

FLAGS = flags.FLAGS
flags.DEFINE_string("corpus", None, "text file to train on; default: the embedded text")
flags.DEFINE_integer("sentences", None, "train on the first ones only")
flags.DEFINE_multi_enum("architecture", list(FASTER), list(FASTER), "of speed and quality")
flags.DEFINE_integer("rounds", 3, "turns of each contender", 1)
flags.DEFINE_integer("epochs", 5, "passes over the corpus", 1)
flags.DEFINE_integer("seeds", 3, "trainings that the section quality averages", 1)
flags.DEFINE_integer("megabytes", 1000, "of text, for the section memory", 1)
flags.DEFINE_integer("distinct", 1_000_000, "words that this text draws from", 1)
flags.DEFINE_integer("memory_steps", 200, "of training, for the section memory", 1)
flags.DEFINE_integer("passes", 15, "over the cells, for the section glove", 1)
flags.DEFINE_float("glove_rate", 0.1, "our learning rate, for the section glove", 0)
flags.DEFINE_float("learning_rate", None, "ours", 0)
flags.DEFINE_integer("batch_size", None, "ours", 1)
flags.DEFINE_integer("micro_batch", None, "ours", 1)
flags.DEFINE_integer("samples", None, "ours", 1)

CORES = 2
# As the job word_vectors and its recipe docs_cbow have them: skip-gram's noise serves six
# times as many pairs.
SETTINGS: dict[str, dict[str, Any]] = {
    "skip_gram": dict(learning_rate=0.37, batch_size=32_768, micro_batch=1024, samples=32),
    "cbow_mean": dict(learning_rate=0.6, batch_size=32_768, micro_batch=2048, samples=16),
}
GENSIM = {
    f"gensim, {source} x {workers}": {"source": source, "workers": workers}
    for source in ("sentences", "corpus_file")
    for workers in (1, 2)
}
PEER = "gensim, sentences x 2"  # of the section quality
HELD_OUT = 0.02  # share of the sentences
PAIRS = 50_000  # held-out ones, to measure with
FREQUENT = 50  # least count of a word in a question
ASKED = 10  # questions of each pair of words
CELLS = "2,500,000"  # a second, asked where gensim's skip-gram does 380,000 words/s


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="word_vectors.")


@functools.cache
def corpus() -> tuple[dict[str, pathlib.Path], int]:
    """The files of "all" sentences, those to "train" on and "held_out" ones; the words of all."""
    paths = {name: pathlib.Path(_folder().name) / name for name in ("all", "train", "held_out")}
    lines = open(FLAGS.corpus, encoding="utf-8") if FLAGS.corpus else peers.embedded_corpus()
    some = tqdm.tqdm(itertools.islice(lines, FLAGS.sentences), desc="corpus", delay=2, leave=False)
    rng, words = np.random.default_rng(0), 0
    with contextlib.ExitStack() as stack:
        files = {
            name: stack.enter_context(path.open("w", encoding="utf-8"))
            for name, path in paths.items()
        }
        for line in some:
            part = "held_out" if rng.random() < HELD_OUT else "train"
            for name in ("all", part):
                files[name].write(line.rstrip("\n") + "\n")
            words += len(line.split())
    print(f"  corpus: {words:,} words", flush=True)
    return paths, words


def settings(architecture: str) -> dict[str, Any]:
    given = {name: FLAGS[name].value for name in SETTINGS[architecture]}
    return SETTINGS[architecture] | {name: x for name, x in given.items() if x is not None}


def train(name: str, *, corpus: pathlib.Path, architecture: str, seed: int) -> peers.Trained:
    """Returns what "ours" or one of `GENSIM` learns in a new process."""
    options = {"corpus": corpus, "architecture": architecture, "epochs": FLAGS.epochs, "seed": seed}
    if name == "ours":
        return alone(peers.ours, **options, settings=settings(architecture))
    return alone(peers.gensim, **options, **GENSIM[name])


def speed() -> None:
    """Words/s from the text file to the vectors, the vocabulary and compilation included."""
    paths, words = corpus()
    for architecture in FLAGS.architecture:
        times: Times = {name: [] for name in ("ours", *GENSIM)}
        parts: Times = {"vocabulary": [], "first step": []}
        turns = [(seed, name) for seed in range(FLAGS.rounds) for name in times]
        for seed, name in tqdm.tqdm(turns, desc=architecture, delay=2, leave=False):
            found = train(name, corpus=paths["all"], architecture=architecture, seed=seed)
            times[name].append(found.seconds["all"])
            for part in parts if name == "ours" else ():
                parts[part].append(found.seconds[part])
        medians = {name: statistics.median(seconds) for name, seconds in times.items()}
        rows = [(architecture, "s", "words/s", "ours / this", "asked")]
        best = min(GENSIM, key=medians.__getitem__)
        for name, median in medians.items():
            rate, asked = f"{FLAGS.epochs * words / median:,.0f}", f">= {FASTER[architecture]}"
            faster = "" if name == "ours" else f"{ratio(times, name):.2f}"
            rows.append((name, f"{median:.2f}", rate, faster, asked if name == best else ""))
        for part, seconds in parts.items():
            rows.append((f"ours: {part}", f"{statistics.median(seconds):.2f}", "", "", ""))
        table(rows)


def questions(counts: Mapping[str, int]) -> dict[str, list[tuple[str, str, str, str]]]:
    """Analogies of word forms whose words are all frequent: s, ing and ed, by section."""
    known = {word for word, count in counts.items() if count >= FREQUENT and word.isalpha()}
    stems = sorted(word for word in known if len(word) > 2 and word[-1] != "s")

    def forms(ending: str) -> dict[str, str]:
        ends = {word: f"{word.removesuffix('e')}{ending}" for word in stems}
        return {word: form for word, form in ends.items() if form in known}

    with_s = {word: f"{word}s" for word in stems if f"{word}s" in known}
    ing, past = forms("ing"), forms("ed")
    pairs = {
        "gram plural": {word: with_s[word] for word in with_s if word not in ing | past},
        "gram verb s": {word: with_s[word] for word in with_s if word in ing},
        "gram verb ing": ing,
        "gram verb ed": past,
    }
    asked = {}
    for name, section in pairs.items():
        order = np.random.default_rng(0).permutation(sorted(section.items())).tolist()
        asked[name] = [
            (*pair, *order[(place + step) % len(order)])
            for place, pair in enumerate(order)
            for step in range(1, min(ASKED, len(order) - 1) + 1)
        ]
    return asked


def held_out(tokens: Any, path: pathlib.Path, *, together: bool) -> dict[str, np.ndarray]:
    """Fixed pairs of words of the sentences of a file, and noise, as `held_out_pairs` has them."""
    from dlcore.data.text import WordStream, held_out_pairs, keep_probabilities

    number = {word: place for place, word in enumerate(tokens.words)}
    ids: list[int] = []
    with open(path, encoding="utf-8") as file:
        for line in file:
            ids += [number[word] for word in line.split() if word in number] + [-1]
    keep = keep_probabilities(tokens.counts, threshold=peers.SAMPLE, rule="program")
    # So large a batch that it holds all.
    stream = WordStream(
        np.array(ids, np.int32), keep, size=2 * len(ids) + 16, window=peers.WINDOW, seed=0
    )
    return held_out_pairs(
        stream.stretch(0, epoch=0), window=peers.WINDOW, size=PAIRS, negatives=peers.NEGATIVES,
        noise=tokens.counts**0.75, together=together, seed=0,
    )  # fmt: skip


def held_out_loss(
    trained: peers.Trained, words: tuple[str, ...], pairs: Mapping[str, np.ndarray]
) -> float:
    """-log sigmoid(s(pair)) - sum of -log sigmoid(-s(noise)), the mean over pairs of these words.

    A query is the mean of the input vectors of its words.
    """
    row = {word: number for number, word in enumerate(trained.words)}
    order = [row[word] for word in words]
    inputs, outputs = trained.input[order], trained.output[order]
    real = (pairs["queries"] >= 0)[..., None]
    queries = np.where(real, inputs[pairs["queries"]], 0).sum(1) / real.sum(1)
    scores = np.einsum("nd,nd->n", queries, outputs[pairs["targets"]])
    noise = np.einsum("nd,nkd->nk", queries, outputs[pairs["noise"]])
    return float((np.logaddexp(0, -scores) + np.logaddexp(0, noise).sum(1)).mean())


def quality() -> None:
    """Held-out loss, and the accuracy on analogies of word forms by 3CosAdd, over seeds."""
    from dlcore.data.text import build_token_file
    from dlcore.evaluation import evaluate_analogies
    from dlcore.models.embedding import WordSpace

    paths, _ = corpus()
    with tempfile.TemporaryDirectory() as folder:
        tokens = build_token_file(paths["train"], folder, min_count=peers.MIN_COUNT)
    asked = questions(dict(zip(tokens.words, tokens.counts.tolist(), strict=True)))
    sizes = ", ".join(f"{name} {len(section):,}" for name, section in asked.items())
    print(f"  {len(tokens.words):,} words; questions: {sizes}", flush=True)
    for architecture in FLAGS.architecture:
        pairs = held_out(tokens, paths["held_out"], together=architecture != "skip_gram")
        found: dict[str, dict[str, list[float]]] = {"ours": {}, PEER: {}}
        turns = [(seed, name) for seed in range(FLAGS.seeds) for name in found]
        for seed, name in tqdm.tqdm(turns, desc=architecture, delay=2, leave=False):
            trained = train(name, corpus=paths["train"], architecture=architecture, seed=seed)
            space = WordSpace(trained.words, trained.input)
            scores = evaluate_analogies(space, asked)
            values = {"held-out loss": held_out_loss(trained, tokens.words, pairs)}
            values |= {section.name: section.accuracy for section in scores.sections}
            values["analogies"] = scores.total.accuracy
            for what, value in values.items():
                found[name].setdefault(what, []).append(value)
        rows = [(architecture, "ours", PEER, "difference", "asked")]
        for what, mine in found["ours"].items():
            theirs = found[PEER][what]
            difference = statistics.mean(mine) - statistics.mean(theirs)
            wanted = {"held-out loss": "<= 0", "analogies": ">= 0"}.get(what, "")
            rows.append((what, spread(mine), spread(theirs), f"{difference:+.4f}", wanted))
        table(rows)


def spread(values: list[float]) -> str:
    """Mean and standard deviation."""
    return f"{statistics.mean(values):.4f} +- {np.std(values, ddof=min(1, len(values) - 1)):.4f}"


def memory() -> None:
    """The most memory that training on a long text takes, beyond the two tables."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "text"
        peers.zipf_corpus(path, megabytes=FLAGS.megabytes, distinct=FLAGS.distinct)
        words, peaks = alone(
            peers.memory_of_training, corpus=path, architecture="skip_gram", epochs=1, seed=0,
            settings=settings("skip_gram"), steps=FLAGS.memory_steps,
        )  # fmt: skip
    tables = 2 * words * peers.FEATURES * 4 / 2**20
    jax_alone = alone(peers.memory_of_tables, words=words) - tables
    rows = [
        (f"MB, {FLAGS.megabytes:,} MB of text, {words:,} words", "asked", "measured"),
        ("peak until the token file is built", "", f"{peaks['vocabulary']:,.0f}"),
        ("peak until the tables are made", "", f"{peaks['tables']:,.0f}"),
        (f"peak after {FLAGS.memory_steps} steps", "", f"{peaks['all']:,.0f}"),
        ("  the two tables", "", f"{tables:,.0f}"),
        ("  beyond the tables", "<= 2,048", f"{peaks['all'] - tables:,.0f}"),
        ("    JAX alone", "", f"{jax_alone:,.0f}"),
    ]
    table(rows)


def glove() -> None:
    """Non-zero cells/s of passes, and the cost after them by one function for all."""
    folder = pathlib.Path(_folder().name) / "glove"
    folder.mkdir()
    words, cells = peers.count_cells(corpus()[0]["all"], folder)
    programs = {f"C, {real}": peers.compile_peer(folder, real=real) for real in ("double", "float")}
    times: Times = {name: [] for name in ("ours", *programs)}
    prepared = []
    some = sorted({1, 2, 5, FLAGS.passes // 2, FLAGS.passes} & set(range(1, FLAGS.passes + 1)))
    costs: dict[str, list[float]] = {}
    turns = [(number, name) for number in range(FLAGS.rounds) for name in times]
    for number, name in tqdm.tqdm(turns, desc="glove", delay=2, leave=False):
        options = {"folder": folder, "passes": FLAGS.passes}
        if name == "ours":
            preparation, seconds = alone(peers.our_glove, rate=FLAGS.glove_rate, **options)
            prepared.append(preparation)
        else:
            seconds = peers.peer_glove(programs[name], words=words, threads=CORES, **options)
        times[name].append(sum(seconds) / FLAGS.passes)
        if number == 0:
            file = "ours" if name == "ours" else "peer"
            costs[name] = [
                peers.glove_cost(folder / f"{file}.{p}.bin", folder, words) for p in some
            ]
    medians = {name: statistics.median(seconds) for name, seconds in times.items()}
    before = statistics.median(prepared)
    print(f"  {cells:,} cells of {words:,} words", flush=True)
    rows = [("", "cells/s", "ours / this", *(f"cost, {p} passes" for p in some))]
    for name, median in medians.items():
        faster = "" if name == "ours" else f"{ratio(times, name):.2f}"
        rows.append(
            (name, f"{cells / median:,.0f}", faster, *(f"{cost:.5f}" for cost in costs[name]))
        )
    whole = cells * FLAGS.passes / (medians["ours"] * FLAGS.passes + before)
    rows.append((f"ours with {before:.1f} s before", f"{whole:,.0f}", "", *("" for _ in some)))
    table([*rows, ("asked", f">= {CELLS}", "", *("<= C's" for _ in some))])


if __name__ == "__main__":
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    run(speed, quality, memory, glove)
