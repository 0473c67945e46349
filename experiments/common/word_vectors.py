"""The flags of word vectors, their corpus, and what the vectors are worth."""

import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from absl import flags

from dlcore.data.text import (
    Lines,
    Phrases,
    TokenFile,
    Vectors,
    build_token_file,
    find_phrases,
    load_corpus,
    read_vectors,
    sentences,
    write_vectors,
)
from dlcore.data.text.vectors import FORMATS
from dlcore.errors import InputError
from dlcore.evaluation import (
    evaluate_analogies,
    evaluate_similarities,
    read_analogies,
    read_similarities,
)
from dlcore.models.embedding import (
    ARCHITECTURES,
    CASES,
    OBJECTIVES,
    WordSpace,
    compose,
    subword_ids,
)
from dlcore.report import Section, write_report
from dlcore.report.word_vectors import Neighbours, word_vector_sections
from dlcore.train.logs import writing
from experiments.common.flags import adopt, say
from experiments.common.glove import NOT_OF_GLOVE, OF_GLOVE, define_glove_flags
from experiments.common.runs import few
from experiments.common.transformer import refuse

FLAGS = flags.FLAGS
_UNREAD = (
    "optimizer", "hyper", "rate_factor", "weight_decay", "clip_norm", "ema", "accumulate",
    "precision", "check",
)  # fmt: skip
# What is asked of finished vectors.
EVALUATION = (
    "analogies", "similarities", "neighbours", "most_words", "method", "ignore_case", "format",
    "vectors",
)  # fmt: skip


class Scores(NamedTuple):
    """What vectors are worth, by the names of the files that say so."""

    analogies: dict[str, Any]
    similarities: dict[str, Any]
    neighbours: list[Neighbours]

    @property
    def metrics(self) -> dict[str, float]:
        """One number for each file."""
        return {
            **{f"analogies_{name}": one.total.accuracy for name, one in self.analogies.items()},
            **{f"similarity_{name}": one.spearman for name, one in self.similarities.items()},
        }


def define_word_flags() -> None:
    """Defines the flags of the corpus, the model and the evaluation."""
    flags.DEFINE_enum("model", "skip_gram", [*ARCHITECTURES, "glove"], "how they are learnt")
    flags.DEFINE_enum("objective", "negative_sampling", OBJECTIVES, "what is maximised")
    flags.DEFINE_integer("features", 100, "numbers of a vector", 1)
    flags.DEFINE_integer("window", 5, "words on either side that a window has at most", 1)
    flags.DEFINE_bool("fixed_window", False, "all windows are that wide; else 1 to --window, drawn")
    flags.DEFINE_bool("original_gradient", False, "of cbow_mean, as the first program has it")
    flags.DEFINE_bool("subwords", False, "vectors are made of character n-grams too, as fastText's")
    flags.DEFINE_integer("shortest", 3, "n-gram of --subwords", 1)
    flags.DEFINE_integer("longest", 6, "n-gram of --subwords", 1)
    flags.DEFINE_integer("buckets", 100_000, "rows of the table that n-grams share", 1)
    flags.DEFINE_integer("negatives", 5, "samples of noise for each pair", 1)
    flags.DEFINE_integer("samples", 32, "of noise, which some 128 words share", 1)
    flags.DEFINE_float("exponent", 0.75, "of the counts, in the distribution of the noise", 0, 1)
    flags.DEFINE_float("subsample", 1e-3, "frequency above which words are left out; 0 keeps all")
    flags.DEFINE_enum("subsampling", "program", ["paper", "program"], "by which formula")
    flags.DEFINE_integer("micro_batch", 1024, "words between two updates, about", 1)
    flags.DEFINE_float("epochs", 5.0, "passes over the corpus, where --steps is not given", 0)
    flags.DEFINE_integer("min_count", 5, "rarest word with a vector", 1)
    flags.DEFINE_integer("max_words", None, "most words with a vector; default all", 1)
    flags.DEFINE_string("splitter", "words", "space, words, letters, or regex:PATTERN")
    flags.DEFINE_bool("lower", True, "lower-case the text")
    flags.DEFINE_integer("phrases", 0, "passes that join frequent pairs of words to phrases", 0)
    flags.DEFINE_float("phrase_threshold", 100.0, "least score of a phrase")
    flags.DEFINE_string("corpus_dir", None, "folder of the corpus as ids; default in the workdir")
    flags.DEFINE_integer("pairs", 5000, "held-out pairs to measure with", 1)
    flags.DEFINE_string("vectors", None, "file of vectors to evaluate, instead of training some")
    flags.DEFINE_enum("format", "word2vec", sorted(FORMATS), "of the vectors that are written")
    flags.DEFINE_multi_string("analogies", [], "file of questions a b c d, with sections")
    flags.DEFINE_multi_string("similarities", [], "file of two words and a number a line")
    flags.DEFINE_list("neighbours", [], "words whose nearest ones are shown")
    flags.DEFINE_integer("most_words", 30_000, "most frequent words that are asked and answered", 1)
    flags.DEFINE_enum("method", "3cosadd", ["3cosadd", "3cosmul"], "of analogies")
    flags.DEFINE_bool("ignore_case", True, "of words in questions")
    adopt(__name__)
    define_glove_flags()


def check_flags() -> None:
    """Refuses flags that this job does not read.

    Raises:
        InputError: for such a flag.
    """
    if given := [name for name in _UNREAD if FLAGS[name].present]:
        raise InputError(f"word_vectors does not read --{given[0]}; leave it away")
    refuse(NOT_OF_GLOVE if FLAGS.model == "glove" else OF_GLOVE, "model")
    for name in (*FLAGS.analogies, *FLAGS.similarities):
        if not pathlib.Path(name).is_file():
            raise InputError(f"there is no file {name}; give one of questions")


def load_tokens(workdir: pathlib.Path) -> TokenFile:
    """The corpus that the flags describe, as ids.

    Raises:
        InputError: as `build_token_file`.
    """
    source: Any = FLAGS.data_path
    if source is None:
        corpus = load_corpus(FLAGS.dataset, data_dir=FLAGS.data_dir, valid_share=0, test_share=0)
        text = few("".join(part for part in (corpus.train, corpus.valid, corpus.test)), 100_000)
        # A paragraph is a sentence: lines end in the middle of one.
        lines = [" ".join(paragraph.split()) for paragraph in text.split("\n\n")]
        source = Lines(f"{corpus.name} {len(text)}", lambda: ["\n".join(lines)])
    found: Phrases | None = None
    for _ in range(FLAGS.phrases):
        words = sentences(source, splitter=FLAGS.splitter, lower=FLAGS.lower, title="phrases")
        found = find_phrases(words, threshold=FLAGS.phrase_threshold, before=found)
    corpus_file = build_token_file(
        source, FLAGS.corpus_dir or workdir / "corpus", splitter=FLAGS.splitter,
        min_count=FLAGS.min_count, max_words=FLAGS.max_words, lower=FLAGS.lower, phrases=found,
    )  # fmt: skip
    say(
        f"{corpus_file.raw_words:,} words, {corpus_file.size:,} of them frequent enough, "
        f"{len(corpus_file.words):,} different ones"
    )
    _check_neighbours(corpus_file.words)
    return corpus_file


def _check_neighbours(words: Sequence[str]) -> None:
    """Refuses --neighbours that the corpus does not know before training; a smoke test has few."""
    fold = CASES["ignored" if FLAGS.ignore_case else "exact"]
    known = {*map(fold, words)}
    unknown = [word for word in FLAGS.neighbours if fold(word) not in known]
    if FLAGS.smoke:
        FLAGS.neighbours = [word for word in FLAGS.neighbours if word not in unknown]
    elif unknown and not FLAGS.subwords:
        raise InputError(
            f"--neighbours: {unknown[0]!r} is not among the {len(words):,} words of the corpus; "
            "choose others, lower --min_count, or give --subwords"
        )


def write(workdir: pathlib.Path, vectors: Vectors) -> pathlib.Path:
    """Writes the vectors into the workdir."""
    path = workdir / ("vectors.bin" if FLAGS.format == "word2vec_binary" else "vectors.txt")
    with writing(workdir):
        write_vectors(path, vectors, format=FLAGS.format)
    say(f"vectors: {path}")
    return path


def evaluate(vectors: Vectors) -> Scores:
    """Answers the questions of the flags, and prints the scores."""
    case = "ignored" if FLAGS.ignore_case else "exact"
    space = WordSpace(vectors.words, vectors.matrix, case=case)
    asked = space.restrict(FLAGS.most_words)
    analogies, similarities, neighbours = {}, {}, []
    for name in FLAGS.analogies:
        scores = evaluate_analogies(asked, read_analogies(name), method=FLAGS.method)
        analogies[pathlib.Path(name).stem] = scores
        print(f"{name}:\n{scores.describe()}")
    for name in FLAGS.similarities:
        score = evaluate_similarities(space, read_similarities(name))
        similarities[pathlib.Path(name).stem] = score
        print(f"{name}: {score.describe()}")
    for word, nearest in zip(FLAGS.neighbours, space.neighbours(FLAGS.neighbours), strict=True):
        neighbours.append(Neighbours(word, nearest))
        print(f"{word}: " + ", ".join(f"{other} {cosine:.2f}" for other, cosine in nearest))
    return Scores(analogies, similarities, neighbours)


def report(workdir: pathlib.Path, vectors: Vectors, scores: Scores) -> None:
    """Writes the report of the vectors."""
    sections: list[Section] = word_vector_sections(
        words=vectors.words, vectors=vectors.matrix, neighbours=scores.neighbours,
        analogies=scores.analogies, similarities=scores.similarities,
    )  # fmt: skip
    say(f"report: {write_report(workdir, sections)}")


def evaluate_file() -> None:
    """--vectors: evaluates a file alone."""
    vectors = read_vectors(FLAGS.vectors)
    say(f"{FLAGS.vectors}: {len(vectors.words):,} vectors of {vectors.matrix.shape[1]} numbers")
    scores = evaluate(vectors)
    if FLAGS.report:
        folder = pathlib.Path(FLAGS.workdir or "runs/word_vectors")
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        report(folder, vectors, scores)


def grams_of(words: Sequence[str]) -> np.ndarray:
    """The n-grams of words by the flags; see `subword_ids`."""
    return subword_ids(words, shortest=FLAGS.shortest, longest=FLAGS.longest, buckets=FLAGS.buckets)


def with_unseen(vectors: Vectors, params: Any) -> Vectors:
    """The vectors, and those of the words that are asked for and have only n-grams."""
    asked = [*FLAGS.neighbours]
    for name in FLAGS.analogies:
        asked += [word for part in read_analogies(name).values() for four in part for word in four]
    for name in FLAGS.similarities:
        asked += [word for first, second, _ in read_similarities(name) for word in (first, second)]
    known = {*vectors.words}
    words = [w for w in dict.fromkeys(map(str.lower, asked) if FLAGS.lower else asked)]
    unseen = [word for word in words if word not in known]
    if not unseen:
        return vectors
    grams = params["input"][len(vectors.words) :]
    made = compose(params["input"], grams, jnp.full(len(unseen), -1), jnp.asarray(grams_of(unseen)))
    say(f"{len(unseen):,} of the words asked for are unseen; their n-grams stand for them")
    return Vectors([*vectors.words, *unseen], np.concatenate([vectors.matrix, np.asarray(made)]))
