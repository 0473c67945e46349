"""Sentence vectors: means of word vectors, paragraph vectors, and a Siamese encoder.

By default SIF on pairs of sentences of the Python reference and of docstrings, which needs no
network. Nobody has scored these pairs: they show that everything works, not how well.
`--data_path` takes a TSV or CSV file of two sentences and a score a line, such as the STS
benchmark, or a folder with train and test (or dev) files. A model is judged by the rank
correlation of its similarities with the scores, beside that of the plain overlap of words.

average and sif learn word vectors from the training sentences and `--corpus` by skip-gram, pv_dbow
and pv_dm vectors of all lines; the scores train siamese alone. `--embeddings=FILE` starts from
word vectors, such as the vectors.txt that a run of average or sif has written.
`--predict=FILE --workdir=DIR` gives the vector of each line and the nearest training sentences.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dlcore import launch, runtime
from dlcore.data.text import (
    PairSplit,
    ScoredPair,
    Vectors,
    Vocabulary,
    write_vectors,
)
from dlcore.data.text.vectors import check_words
from dlcore.evaluation.statistics import pearson, spearman
from dlcore.launch.fields import LARGEST, LARGEST_NUMBER, choice, integer, number, switch
from dlcore.launch.text import (
    EncoderConfig,
    StackConfig,
    VocabularyConfig,
    answer_batches,
    cut_off,
    encode,
    not_read,
)
from dlcore.models.embedding import PARAGRAPH_MODELS, TENSOR_PARALLEL
from dlcore.models.text import HEADS, SIAMESE_POOLINGS
from dlcore.report import Section
from dlcore.train.logs import writing
from dlcore.types import (
    Aux,
    Batch,
    Mean,
    Measures,
    Params,
    PyTree,
    Rows,
    Step,
    TrainState,
    Variables,
)

from .corpus import CorpusConfig, PairsConfig, Text, ids_of, load_text, overlap_of
from .learners import (
    SPECIALS,
    Learner,
    ParagraphLearner,
    SiameseLearner,
    TextLearner,
    WordLearner,
    as_vectors,
)
from .report import sections

MODELS = ("average", "sif", *PARAGRAPH_MODELS, "siamese")
_SIAMESE = {"model": ("siamese",)}
_OF_TEXT = {"model": tuple(model for model in MODELS if model != "siamese")}
_OF_WORDS = {"model": ("average", "sif", "siamese")}
_PARAGRAPHS = {"model": PARAGRAPH_MODELS}
_ENCODER = "layers", "hidden", "dropout", "embedding_dropout", "cell", "bidirectional"
_FITTED = 20_000  # training sentences of which SIF's common direction is found
_ANSWERED = 256  # rows whose similarities to an input are computed at once, and evaluated at once


@dataclasses.dataclass(frozen=True, kw_only=True)
class WordsGroup(launch.Group):
    """The windows, the noise and the updates of word2vec."""

    title = "word2vec"

    window: int = integer(5, 1, 10_000, "largest number of words on either side in a window")
    negatives: int = integer(5, 1, 10_000, "samples of noise for each word")
    samples: int = integer(32, 1, 1 << 20, "samples of noise that some 128 words share")
    exponent: float = number(0.75, 0, 1, "exponent of the counts in the distribution of the noise")
    subsample: float = number(
        1e-3, 0, 1, "frequency above which occurrences of a word are left out; 0 keeps all"
    )
    micro_batch: int = integer(1024, 1, LARGEST, "about how many words lie between two updates")
    words: int = integer(16_384, 1, LARGEST, "words of a step")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(
    PairsConfig,
    CorpusConfig,
    WordsGroup,
    launch.Config,
    VocabularyConfig,
    EncoderConfig,
    dataset="python_docs",
    steps=None,
    eval_every=None,
    batch_size=64,
    learning_rate=None,
    schedule="linear",
    min_count=2,
    lower=True,
    hidden=50,
    embedding_size=100,
    dropout=0.2,
):
    """The configuration of sentence vectors.

    Without `steps` there are as many as `epochs` take. Without `eval_every` an evaluation ends each
    epoch of siamese, and the run of the others. Without `learning_rate` and `epochs` they are those
    that suit the model.
    """

    group_conditions: ClassVar = {
        CorpusConfig: _OF_TEXT,
        WordsGroup: _OF_TEXT,
        "window": {"model": ("average", "sif", "pv_dm")},
        launch.OptimizerConfig: _SIAMESE,
        **dict.fromkeys((*StackConfig.defaults(), *_ENCODER), _SIAMESE),
        # The final outputs of both directions lie at the two ends of a text.
        "merge": {**_SIAMESE, "pooling": lambda pooling: pooling != "last"},
        "embeddings": _OF_WORDS,
    }

    model: str = choice("sif", MODELS, "how vectors are made")
    epochs: float | None = number(
        None, 0, 1e6, "passes over the data, where --steps is not given", free=True
    )
    sif_a: float = number(
        1e-3,
        1e-12,
        LARGEST_NUMBER,
        "relative frequency at which a word counts half",
        when={"model": ("sif",)},
    )
    passes: int = integer(
        20, 1, LARGEST, "number of updates that infer the vector of a sentence", when=_PARAGRAPHS
    )
    infer_rate: float = number(
        0.37, 0, LARGEST_NUMBER, "first learning rate of these updates", when=_PARAGRAPHS
    )
    pooling: str = choice(
        "mean", SIAMESE_POOLINGS, "how the steps become one vector", when=_SIAMESE
    )
    head: str = choice("manhattan", HEADS, "how two vectors are compared", when=_SIAMESE)
    shortcut: bool = switch(
        False, "put the mean of the embeddings beside the pooled outputs", when=_SIAMESE
    )
    top: int = integer(5, 1, LARGEST, "training sentences that --predict lists", free=True)

    def for_check(self) -> "Config":
        # The checks take more steps with their one batch than a schedule may have.
        return super().for_check().changed(schedule="constant", warmup_steps=0)

    def shrunk(self) -> "Config":
        shrunk = super().shrunk()
        if shrunk.unread("words"):
            return shrunk
        return dataclasses.replace(shrunk, words=1024, micro_batch=512)


@dataclasses.dataclass(frozen=True)
class Info:
    """The facts about its data that a model of sentences remembers.

    Attributes:
        vocabulary: of the sentences.
        lines: how many lines it was learnt from.
        sentences: the different training sentences, which answers are looked for among.
        counts: how often each word occurs in the lines, int [V].
    """

    vocabulary: Vocabulary
    lines: int
    sentences: tuple[str, ...] = dataclasses.field(compare=False)
    counts: np.ndarray = dataclasses.field(compare=False)


class Answer(NamedTuple):
    """The answer to a sentence.

    Attributes:
        vector: float32 [D].
        nearest: training sentences and their similarities, the most similar first.
    """

    vector: np.ndarray
    nearest: list[tuple[str, float]]


class SentenceVectors(launch.Task[Config, Info]):
    """Vectors of sentences."""

    metric: tuple[str, Literal["min", "max"]] = ("spearman", "max")
    reads = "lines"
    rules = TENSOR_PARALLEL
    table: np.ndarray | None = None  # pre-trained vectors that a new run starts from

    def __init__(self, config: Config):
        if config.learning_rate is None:
            config = dataclasses.replace(config, learning_rate=_learner_of(config).rate)
        super().__init__(config)
        self._cached: tuple[Any, np.ndarray] | None = None

    def data(self) -> launch.Data[Info]:
        config = self.config
        text = load_text(config)
        vocabulary = text.vocabulary
        check_words(vocabulary.tokens, "word2vec")
        self.table = config.pretrained(vocabulary, config.seed)
        lines = [vocabulary.encode(line) for line in text.lines]
        counts = np.bincount(np.concatenate(lines), minlength=len(vocabulary))[SPECIALS:]
        self.info = info = Info(vocabulary, len(text.lines), text.sentences, counts)
        splits = {"train": text.pairs.train, "test": text.pairs.test}
        if text.pairs.valid:
            splits["validation"] = text.pairs.valid
        found = {name: self._split(text, pairs) for name, pairs in splits.items()}
        self.tested = text.pairs.test
        if note := cut_off(found, config.limit):
            launch.say(note.removeprefix("; "))
        self._say_unknown(text)
        shuffled = self.split_data(
            found["train"], found["test"], info, validation=found.get("validation")
        )
        if not isinstance(self.learner, TextLearner):
            return self._settled(shuffled, -(-len(found["train"]) // config.batch_size))
        feed = self.learner.feed([ids - SPECIALS for ids in lines])
        launch.say(f"{feed.words:,} known words, {feed.epoch_steps:,} steps in an epoch")
        fed = dataclasses.replace(
            shuffled,
            train=lambda start: self.divided(feed.train(start)),
            per_step={"words": feed.words // feed.epoch_steps},
        )
        return self._settled(fed, feed.epoch_steps)

    def _settled(self, data: launch.Data[Info], epoch_steps: int) -> launch.Data[Info]:
        """Settles the steps of the configuration, and returns the data."""
        config = self.config
        steps, eval_every = config.steps, config.eval_every
        if steps is None:
            epochs = self.learner.epochs if config.epochs is None else config.epochs
            steps = max(1, round(epochs * epoch_steps))
        if eval_every is None:
            eval_every = 0 if isinstance(self.learner, TextLearner) else epoch_steps
        self.config = dataclasses.replace(config, steps=steps, eval_every=eval_every)
        return data

    def _split(self, text: Text, pairs: list[ScoredPair]) -> PairSplit:
        config = self.config
        scores = np.array([pair.score for pair in pairs])
        further = {}
        rows = [[text.row_of.get(sentence, -1) for sentence in pair.sentences] for pair in pairs]
        if np.min(rows) >= 0:
            further["rows"] = np.array(rows, np.int32)
        first, second = ids_of(text.vocabulary, pairs)
        return PairSplit(
            first,
            second,
            (scores - config.lowest) / (config.highest - config.lowest),
            limit=config.limit,
            further=further,
        )

    def _say_unknown(self, text: Text) -> None:
        """Says how many test sentences have no known word, which the models cannot tell apart."""
        sentences = {sentence for pair in self.tested for sentence in pair.sentences}
        unknown = sum(not (text.vocabulary.encode(one) >= SPECIALS).any() for one in sentences)
        if unknown:
            launch.say(
                f"{unknown:,} of {len(sentences):,} test sentences have unknown words only: "
                + (
                    "all have one vector"
                    if self.config.model == "siamese"
                    else "their vector is 0, and so is their similarity to any other"
                )
            )

    @functools.cached_property
    def learner(self) -> Learner:
        """The model."""
        config, info = self.config, self.info
        kind = _learner_of(config)
        if kind is SiameseLearner:
            return SiameseLearner(config, info.vocabulary, self.table)
        if kind is ParagraphLearner:
            return ParagraphLearner(config, info.counts, info.lines)
        fitted = np.full((1, 1), -1)
        if config.model == "sif":
            every = -(-len(info.sentences) // _FITTED)
            fitted = _padded(
                [info.vocabulary.encode(one)[: config.limit] for one in info.sentences[::every]]
            )
        table = None if self.table is None else self.table[SPECIALS:]
        return WordLearner(config, info.counts, fitted, table)

    def init(self, key: jax.Array) -> Variables:
        return self.learner.init(key)

    def optimizer(self) -> optax.GradientTransformation:
        if isinstance(self.learner, TextLearner):
            return self.learner.optimizer()
        return super().optimizer()

    def frozen(self) -> tuple[tuple[str, bool], ...]:
        return self.config.frozen_table()

    def step(self) -> Step:
        if isinstance(self.learner, TextLearner):
            return runtime.on_each_device(self.learner.step(self.config))
        return super().step()

    def loss(
        self, params: Params, model_state: PyTree, batch: Batch, rng: jax.Array
    ) -> tuple[Mean, Aux]:
        assert isinstance(self.learner, SiameseLearner)
        return self.learner.loss(params, model_state, batch, rng)

    def metrics(self, state: TrainState, batch: Batch) -> Measures:
        variables = {"params": state.params, **state.model_state}
        found = self.learner.measures(variables, batch)
        loss = {"loss": Mean.of(found.pop("loss"), batch["weight"])} if "loss" in found else {}
        rows = Rows({**found, "score": batch["score"]}, batch["weight"])
        return {**loss, "pairs": rows}

    def summarise(self, measures: dict[str, Any], split: str) -> dict[str, float]:
        pairs = {name: np.asarray(x, np.float64) for name, x in measures.pop("pairs").items()}
        score = pairs.pop("score")
        found = {
            "spearman": spearman(pairs["similarity"], score),
            "pearson": pearson(pairs["similarity"], score),
        }
        if "learnt" in pairs:
            found["learnt_spearman"] = spearman(pairs["learnt"], score)
        return {**_defined(found), **measures}

    def checks(self, data: launch.Data[Info]) -> launch.Check:
        if not isinstance(self.learner, SiameseLearner):
            return launch.Check()
        model = self.learner.model

        def forward(variables: Variables, tokens: jax.Array) -> Any:
            lengths = jnp.full(tokens.shape[:2], tokens.shape[2], jnp.int32)
            return model.apply(variables, tokens, lengths)

        return launch.Check(forward, "tokens")

    def finish(self, outcome: launch.Outcome) -> launch.Outcome:
        variables = self.computing(outcome.variables)
        with writing(self.workdir):
            table = self.learner.word_vectors(variables)
            if table is not None:
                path = self.workdir / "vectors.txt"
                write_vectors(path, as_vectors(self.info.vocabulary, table.astype(np.float32)))
                launch.say(f"vectors of words: {path}")
            numbers = [str(1 + row) for row in range(len(self.info.sentences))]
            path = self.workdir / "sentence_vectors.txt"
            write_vectors(path, Vectors(numbers, self.known(variables)))
            lines = "".join(f"{' '.join(one.split())}\n" for one in self.info.sentences)
            (self.workdir / "sentences.txt").write_text(lines, encoding="utf-8")
            launch.say(
                f"vectors of sentences, by the number of their line in sentences.txt: {path}"
            )
        scores = np.array([pair.score for pair in self.tested])
        overlap = spearman(overlap_of(self.tested), scores)
        return outcome.extended(_defined({"overlap_spearman": overlap}))

    @functools.cached_property
    def _encode(self) -> Callable[[Variables, Batch], jax.Array]:
        """Maps variables and a batch of sentences to their vectors."""

        def encoded(variables: Variables, batch: Batch) -> jax.Array:
            return self.learner.encode(variables, batch["tokens"], batch["length"])

        return jax.jit(encoded)

    @functools.cached_property
    def _compare(self) -> Callable[[Variables, Any, Any], jax.Array]:
        """Maps variables, a vector [D] and others [B, D] to similarities [B]."""

        def compared(variables: Variables, u: jax.Array, v: jax.Array) -> jax.Array:
            return self.learner.compare(variables, jnp.broadcast_to(u[None], v.shape), v)

        return jax.jit(compared)

    def encode(self, variables: Variables, sentences: Sequence[str]) -> np.ndarray:
        """Returns the vectors of sentences, float32 [n, D]; one of unknown words only is 0.

        Of a Siamese encoder it is that of an unknown word.
        """
        ids = [encode(self.info.vocabulary, sentence) for sentence in sentences]
        order = np.argsort([len(one) for one in ids], kind="stable")
        batches = answer_batches([ids[at] for at in order], self.config.limit)
        found = [np.asarray(self._encode(variables, batch), np.float32) for batch in batches]
        vectors = np.concatenate(found)[: len(ids)]
        return vectors[np.argsort(order)]

    def known(self, variables: Variables) -> np.ndarray:
        """Returns the vectors of the training sentences, made once for the same variables."""
        first = jax.tree.leaves(variables["params"])[0]
        if self._cached is None or self._cached[0] is not first:
            self._cached = first, self.encode(variables, self.info.sentences)
        return self._cached[1]

    def predict(self, variables: Variables, inputs: Sequence[str]) -> list[Answer]:
        """Returns the vector of each sentence and the training sentences nearest to it.

        A sentence of unknown words only has the vector 0 and no neighbours; a Siamese encoder
        reads unknown words as one word.
        """
        if not inputs:
            return []
        known, sentences = self.known(variables), self.info.sentences
        answers = []
        for vector in self.encode(variables, inputs):
            if not vector.any():
                answers.append(Answer(vector, []))
                continue
            found = np.asarray(self._compare(variables, vector, known), np.float64)
            best = np.argsort(-found, kind="stable")[: self.config.top]
            answers.append(Answer(vector, [(sentences[at], float(found[at])) for at in best]))
        return answers

    def remark(self, inputs: Sequence[str]) -> str | None:
        return not_read([self.info.vocabulary.encode(one) for one in inputs], self.config.limit)

    def answers(self, inputs: Sequence[str], outputs: list[Answer]) -> list[dict[str, Any]]:
        rows = []
        for vector, nearest in outputs:
            listed = [{"neighbour": one, "similarity": value} for one, value in nearest]
            first = listed[0] if listed else {"neighbour": None, "similarity": None}
            rows.append({**first, "neighbours": listed, "vector": vector.tolist()})
        return rows

    def report(self, outcome: launch.Outcome) -> Sequence[Section]:
        variables = self.computing(outcome.variables)
        first, second = (
            self.encode(variables, [pair.sentences[side] for pair in self.tested])
            for side in (0, 1)
        )
        similarities = np.asarray(jax.jit(self.learner.compare)(variables, first, second))
        shown = [self.tested[at].first for at in range(0, len(self.tested), len(self.tested) // 5)]
        nearest = [answer.nearest for answer in self.predict(variables, shown[:5])]
        return sections(
            self.tested,
            similarities,
            overlap_of(self.tested),
            (self.config.lowest, self.config.highest),
            dict(zip(shown, nearest, strict=False)),
        )


def _learner_of(config: Config) -> type[WordLearner | ParagraphLearner | SiameseLearner]:
    if config.model == "siamese":
        return SiameseLearner
    return ParagraphLearner if config.model in PARAGRAPH_MODELS else WordLearner


def _defined(correlations: dict[str, float]) -> dict[str, float]:
    """Returns correlations, those with values that are all equal, which rank nothing, as 0."""
    return {name: value if np.isfinite(value) else 0.0 for name, value in correlations.items()}


def _padded(lines: Sequence[np.ndarray]) -> np.ndarray:
    """Returns the rows of the words of lines, int32 [n, L], -1 at unknown ones and padding."""
    found = np.full((len(lines), max(map(len, lines), default=1) or 1), -1, np.int32)
    for row, ids in zip(found, lines, strict=True):
        row[: len(ids)] = np.maximum(ids - SPECIALS, -1)
    return found
