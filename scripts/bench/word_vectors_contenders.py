"""The contenders of the benchmarks of word vectors: corpora, word2vec and GloVe, ours and theirs.

Shapes: V words, D features, n cells of a co-occurrence matrix.
"""

import os
import pathlib
import subprocess
import tempfile
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import tqdm
from contenders import megabytes

FEATURES, WINDOW, NEGATIVES, SAMPLE, MIN_COUNT = 100, 5, 5, 1e-3, 5
X_MAX, ALPHA, GLOVE_WINDOW = 100.0, 0.75, 10
PEER_RATE = 0.05  # of the GloVe paper
_BLOCK = 1 << 20  # words made at once
_CELLS = 1 << 16  # cells whose cost is computed at once


class Trained(NamedTuple):
    """The vectors that a contender learnt.

    Attributes:
        words: V of them.
        input: the vectors of words as queries, float32 [V, D].
        output: the vectors of what predicts, float32 [V, D].
        seconds: "all", and of ours "vocabulary" and "first step", which is compilation.
        megabytes: the most that ours ever took, by then: "vocabulary", "tables", "all".
    """

    words: list[str]
    input: np.ndarray
    output: np.ndarray
    seconds: dict[str, float]
    megabytes: dict[str, float]


def embedded_corpus() -> Iterator[str]:
    """The sentences of the embedded text, paragraphs in lower case, as words between spaces."""
    from dlcore.data.text import Lines, load_corpus, sentences

    corpus = load_corpus("python_docs", valid_share=0, test_share=0)
    text = "".join((corpus.train, corpus.valid, corpus.test))
    lines = [" ".join(paragraph.split()) for paragraph in text.split("\n\n")]
    source = Lines(corpus.name, lambda: ["\n".join(lines)])
    yield from map(" ".join, sentences(source, splitter="words", lower=True, title="the corpus"))


def zipf_corpus(path: pathlib.Path, *, megabytes: int, distinct: int) -> None:
    """Writes so much text in lines of 20 words, where the r-th word has the frequency c / r."""
    rng, rank = np.random.default_rng(0), np.arange(1, distinct + 1)
    sums = np.cumsum(1 / rank)
    names = np.array([f"w{number:x}" for number in rank], object)
    with (
        tqdm.tqdm(
            total=megabytes << 20, desc="making text", unit="B", unit_scale=True, delay=2,
            leave=False,
        ) as bar,
        open(path, "w") as file,
    ):  # fmt: skip
        while bar.n < bar.total:
            drawn = names[np.searchsorted(sums, rng.random(_BLOCK // 20 * 20) * sums[-1])]
            bar.update(file.write("".join(f"{' '.join(row)}\n" for row in drawn.reshape(-1, 20))))


def ours(
    *,
    corpus: pathlib.Path,
    architecture: str,
    epochs: float,
    seed: int,
    settings: dict[str, Any],
    steps: int | None = None,
) -> Trained:
    """Does what the job word_vectors does, from the text file on, without a compilation cache.

    Args:
        corpus: words between spaces, one sentence in a line.
        architecture: one of `dlcore.models.embedding.ARCHITECTURES`.
        epochs: passes over the corpus.
        seed: of all that is drawn.
        settings: "learning_rate", "batch_size", "micro_batch" and "samples".
        steps: instead of `epochs`.
    """
    import jax
    import jax.numpy as jnp
    import optax

    from dlcore import optim, runtime
    from dlcore.data.text import WordStream, build_token_file, keep_probabilities
    from dlcore.models.embedding import Word2Vec, initial_sums, objective, word2vec_step
    from dlcore.train.loop import fit
    from dlcore.types import TrainState

    with tempfile.TemporaryDirectory() as folder:
        runtime.configure(compilation_cache=os.path.join(folder, "compilations"))
        start = time.perf_counter()
        tokens = build_token_file(corpus, folder, min_count=MIN_COUNT)
        built, built_peak = time.perf_counter(), megabytes(kind="VmHWM")
        keep = keep_probabilities(tokens.counts, threshold=SAMPLE, rule="program")
        stream = WordStream(
            tokens.tokens, keep, size=settings["batch_size"], window=WINDOW, seed=seed
        )
        total = steps or max(1, round(epochs * stream.steps_per_epoch))
        noise = objective(
            "negative_sampling", tokens.counts, negatives=NEGATIVES, samples=settings["samples"],
            exponent=0.75,
        )  # fmt: skip
        model = Word2Vec(noise, FEATURES, architecture, WINDOW)
        rate = optim.schedule("linear", settings["learning_rate"], steps=total)
        step = word2vec_step(
            model, learning_rate=lambda step: jnp.asarray(rate(step)),
            micro_batch=settings["micro_batch"],
        )  # fmt: skip
        tx = optax.GradientTransformation(initial_sums, optax.identity().update)
        init_key, key = jax.random.split(jax.random.key(seed))
        layout = runtime.layout("jit")
        state = layout.initialise(
            lambda: TrainState.create({"params": model.init(init_key)}, tx, key)
        )
        tables_peak = megabytes(kind="VmHWM")
        result = fit(step, state, stream.batches, steps=total, layout=layout)
        tables = jax.block_until_ready(result.state.params)
        end, most = time.perf_counter(), megabytes(kind="VmHWM")
    assert result.first_step is not None, "fit took no step"
    # Tables have a few rows more than words.
    inputs, outputs = (np.asarray(tables[name])[: len(keep)] for name in ("input", "output"))
    return Trained(
        list(tokens.words), inputs, outputs,
        {"vocabulary": built - start, "first step": result.first_step - built, "all": end - start},
        {"vocabulary": built_peak, "tables": tables_peak, "all": most},
    )  # fmt: skip


def gensim(
    *, corpus: pathlib.Path, architecture: str, epochs: int, seed: int, source: str, workers: int
) -> Trained:
    """gensim's Word2Vec, from the text file on.

    Args:
        corpus: as of `ours`.
        architecture: "skip_gram" or "cbow_mean".
        epochs: as of `ours`.
        seed: as of `ours`.
        source: "sentences" or "corpus_file".
        workers: threads that train.
    """
    from gensim.models.word2vec import LineSentence, Word2Vec

    text = LineSentence(str(corpus)) if source == "sentences" else str(corpus)
    start = time.perf_counter()
    model = Word2Vec(
        **{source: text}, sg=int(architecture == "skip_gram"), vector_size=FEATURES,
        window=WINDOW, negative=NEGATIVES, sample=SAMPLE, min_count=MIN_COUNT, epochs=epochs,
        seed=seed, workers=workers,
    )  # fmt: skip
    seconds = time.perf_counter() - start
    return Trained(
        list(model.wv.index_to_key), model.wv.vectors, model.syn1neg, {"all": seconds}, {}
    )


def memory_of_training(**options: Any) -> tuple[int, dict[str, float]]:
    """V, and the most megabytes that `ours` took."""
    trained = ours(**options)
    return len(trained.words), trained.megabytes


def memory_of_tables(*, words: int) -> float:
    """The most megabytes of a process that imports JAX and makes the two tables."""
    import jax
    import jax.numpy as jnp

    tables = [jnp.ones((words, FEATURES)) for _ in range(2)]
    jax.block_until_ready(tables)
    return megabytes(kind="VmHWM")


def count_cells(corpus: pathlib.Path, folder: pathlib.Path) -> tuple[int, int]:
    """Counts a corpus into a folder, in order for ours and shuffled for the C program: V and n."""
    from dlcore.data.text import build_token_file
    from dlcore.data.text.cooccurrence import count_cooccurrences

    tokens = build_token_file(corpus, folder, min_count=MIN_COUNT)
    cells = count_cooccurrences(
        tokens.tokens, vocabulary_size=len(tokens.words), directory=folder, window=GLOVE_WINDOW
    )
    order = np.random.default_rng(0).permutation(len(cells.values))
    for name in ("rows", "columns", "values"):
        getattr(cells, name)[order].tofile(folder / f"{name}.bin")
    return cells.vocabulary_size, len(order)


def our_glove(*, folder: pathlib.Path, passes: int, rate: float) -> tuple[float, list[float]]:
    """Seconds of the preparation, compilation included, and of each pass.

    After pass p the floats of w [V, D], b [V], c [V, D], d [V] are in ours.p.bin, as those of the C
    program are in peer.p.bin.
    """
    import jax
    import optax

    from dlcore import runtime
    from dlcore.data.text.cooccurrence import open_cooccurrences
    from dlcore.models import embedding
    from dlcore.train.health import guard
    from dlcore.types import TrainState

    with tempfile.TemporaryDirectory() as cache:
        runtime.configure(compilation_cache=cache)
        start = time.perf_counter()
        rows, columns, values, size = open_cooccurrences(folder)
        tiles = embedding.GloveTiles(rows, columns, values, vocabulary_size=size, seed=0)
        how: dict[str, Any] = {"x_max": X_MAX, "alpha": ALPHA}
        biases = embedding.fitted_biases(rows, columns, values, vocabulary_size=size, **how)
        tx = optax.GradientTransformation(embedding.initial_squares, optax.identity().update)
        sizes = {"vocabulary_size": size, "dimension": FEATURES}
        layout = runtime.layout("jit")

        def make_state() -> TrainState:
            tables = embedding.glove_tables(jax.random.key(0), biases=biases, **sizes)
            return TrainState.create({"params": tables}, tx, jax.random.key(1))

        step = runtime.compile_step(guard(embedding.glove_step(rate=rate, **how)), layout)
        kinds = {len(batch): batch for batch in map(tiles.batch, range(tiles.epoch_steps))}
        for batch in kinds.values():  # Tiles, and the rest: each is compiled.
            jax.block_until_ready(step(layout.initialise(make_state), batch))
        state = layout.initialise(make_state)
        prepared, seconds = time.perf_counter() - start, []
        for number in range(passes):
            start = time.perf_counter()
            for place in range(tiles.epoch_steps):
                state, _ = step(state, tiles.batch(number * tiles.epoch_steps + place))
            jax.block_until_ready(state)
            seconds.append(time.perf_counter() - start)
            word, context, word_bias, context_bias = map(np.asarray, state.params)
            with open(folder / f"ours.{number + 1}.bin", "wb") as file:
                for table in (word, word_bias, context, context_bias):
                    file.write(table.tobytes())
    return prepared, seconds


def compile_peer(folder: pathlib.Path, *, real: str) -> pathlib.Path:
    """Compiles glove_peer.c, whose numbers are "float" or "double"."""
    source = pathlib.Path(__file__).with_name("glove_peer.c")
    program = folder / f"glove_peer_{real}"
    options = ["-O3", "-march=native", "-ffast-math", "-pthread", f"-DREAL={real}"]
    subprocess.run(["gcc", *options, str(source), "-o", str(program), "-lm"], check=True)
    return program


def peer_glove(
    program: pathlib.Path, *, folder: pathlib.Path, words: int, passes: int, threads: int
) -> list[float]:
    """Seconds of each pass of the C program."""
    numbers = [words, FEATURES, passes, threads, PEER_RATE, X_MAX, ALPHA, 1]
    done = subprocess.run(
        [program, folder, *map(str, numbers)], check=True, capture_output=True, text=True
    )
    return [float(line.split()[2]) for line in done.stdout.splitlines()]


def glove_cost(path: pathlib.Path, folder: pathlib.Path, words: int) -> float:
    """The mean of 1/2 f error^2 over all cells, of the parameters in a file."""
    rows, columns = (
        np.memmap(folder / f"{name}.bin", np.int32, "r") for name in ("rows", "columns")
    )
    values = np.memmap(folder / "values.bin", np.float32, "r")
    sizes = [words * FEATURES, words, words * FEATURES, words]
    w, b, c, d = np.split(np.fromfile(path, np.float32), np.cumsum(sizes)[:-1])
    w, c, total = w.reshape(words, -1), c.reshape(words, -1), 0.0
    starts = range(0, len(values), _CELLS)
    for start in tqdm.tqdm(starts, desc=path.name, delay=2, leave=False):
        i, j, x = (part[start : start + _CELLS] for part in (rows, columns, values))
        error = np.einsum("nd,nd->n", w[i], c[j]) + b[i] + d[j] - np.log(x)
        total += float((0.5 * np.minimum(1, x / X_MAX) ** ALPHA * error**2).sum(dtype=float))
    return total / len(values)
