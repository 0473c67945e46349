"""Word vectors: word2vec, with n-grams of characters or without, and GloVe.

By default skip-gram with negative sampling learns from the docstrings of installed packages, which
needs no network. `--data_path` takes a text file, a folder or a pattern of files of any size. A
batch is of --batch_size words; the learning rate is 0.37 by default, and 0.1 for GloVe.

Several devices or processes divide the words between two updates, or the cells of a square of
GloVe's matrix, and send each other the gradients of their rows: the vectors are those of one
device. Process 0 makes the corpus of ids and the counts, which the others read from its folder.

`--vectors=FILE` evaluates vectors of any program on `--analogies` and `--similarities`, and shows
`--neighbours`; with `--workdir=DIR` of a run that has ended, these questions are answered by its
vectors. `--predict=FILE --workdir=DIR` lists the words nearest to the word on each line.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import jax
import numpy as np
import optax

from dlcore import launch, runtime
from dlcore.data.text import Vectors, write_vectors
from dlcore.data.text.vectors import FORMATS, check_words
from dlcore.launch import workdir as folders
from dlcore.launch.fields import choice, integer, number
from dlcore.launch.loading import trained_by
from dlcore.models.embedding import ARCHITECTURES, TENSOR_PARALLEL
from dlcore.models.embedding.vectors import Answer, WordSpace
from dlcore.report import Section
from dlcore.runtime import processes
from dlcore.train.logs import writing
from dlcore.types import Batch, Metrics, Step, TrainState, Variables

from . import corpus, evaluation
from .corpus import CorpusConfig
from .evaluation import EvaluationConfig
from .glove import GloveGroup, GloveLearner
from .learner import Learner
from .word2vec import Word2VecGroup, Word2VecLearner

_WORD2VEC = {"model": ARCHITECTURES}
_NEAREST = 10  # words that --predict lists


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(
    EvaluationConfig,
    GloveGroup,
    Word2VecGroup,
    CorpusConfig,
    launch.ScheduleConfig,
    launch.DevicesConfig,
    launch.DataConfig,
    launch.RunConfig,
    dataset="python_docs",
    steps=None,
    batch_size=32_768,
    learning_rate=None,
    schedule="linear",
    validation=0.02,
    eval_every=None,
):
    """The configuration of word vectors.

    Without `steps` there are as many as `epochs` take, without `eval_every` an evaluation ends each
    of them, and without `learning_rate` it is that which suits the model.
    """

    group_conditions = {
        Word2VecGroup: _WORD2VEC,
        GloveGroup: {"model": ("glove",)},
        "batch_size": _WORD2VEC,
        "validation": _WORD2VEC,
        "schedule": _WORD2VEC,
        "warmup_steps": _WORD2VEC,
    }

    model: str = choice("skip_gram", (*ARCHITECTURES, "glove"), "how vectors are learnt")
    features: int = integer(100, 1, 1 << 20, "numbers of a vector")
    window: int = integer(5, 1, 10_000, "largest number of words on either side in a window")
    epochs: float = number(
        5.0, 0, 1e6, "passes over the corpus, where --steps is not given", free=True
    )
    format: str = choice("word2vec", sorted(FORMATS), "format of the vectors written", free=True)

    def for_check(self) -> "Config":
        # The checks take more steps with their one batch than a schedule may have.
        checked = super().for_check()
        if self.unread("schedule"):
            return checked
        return checked.changed(schedule="constant", warmup_steps=0)


@dataclasses.dataclass(frozen=True)
class Info:
    """The words that the rows of the tables stand for.

    Attributes:
        corpus_size: the number of words of the text, those too rare for a vector included.
        words: those with a vector, V of them, the most frequent first.
        counts: how often each occurs, int [V].
    """

    corpus_size: int
    words: tuple[str, ...]
    counts: np.ndarray = dataclasses.field(compare=False)


class WordVectors(launch.Task[Config, Info]):
    """Vectors of words, learnt from the words around them."""

    reads = "lines"
    asks = ("predict", "neighbours", "analogies", "similarities")
    rules = TENSOR_PARALLEL

    def __init__(self, config: Config):
        if config.learning_rate is None:
            rate = (GloveLearner if config.model == "glove" else Word2VecLearner).rate
            config = dataclasses.replace(config, learning_rate=rate)
        super().__init__(config)
        self._cached: tuple[Any, WordSpace] | None = None
        self._has_told = False

    def data(self) -> launch.Data[Info]:
        evaluation.check_questions(self.config)
        tokens = corpus.load_tokens(self.config, self.workdir)
        check_words(tokens.words, self.config.format)
        self.info = Info(tokens.raw_words, tokens.words, tokens.counts)
        neighbours = evaluation.known_neighbours(self.config, tokens.words)
        folder = corpus.folder(self.config, self.workdir)
        feed = self.learner.feed(self.config, tokens, folder)
        steps, eval_every = self.config.steps, self.config.eval_every
        if steps is None:
            steps = max(1, round(self.config.epochs * feed.epoch_steps))
        if eval_every is None:
            eval_every = feed.epoch_steps
        self.config = dataclasses.replace(
            self.config, steps=steps, eval_every=eval_every, neighbours=neighbours
        )
        return launch.Data(
            lambda start: self.divided(feed.train(start)),
            lambda: self.divided(feed.test()),
            self.info,
            per_step=feed.per_step,
        )

    @functools.cached_property
    def learner(self) -> Learner:
        """The model of --model for the words."""
        if self.config.model == "glove":
            return GloveLearner(self.config, self.info.words)
        return Word2VecLearner(self.config, self.info.words, self.info.counts)

    def init(self, key: jax.Array) -> Variables:
        return {"params": self.learner.init(key)}

    def optimizer(self) -> optax.GradientTransformation:
        return self.learner.optimizer()

    def step(self) -> Step:
        return runtime.on_each_device(self.learner.step(self.config))

    def metrics(self, state: TrainState, batch: Batch) -> Metrics:
        return self.learner.metrics(state.params, batch)

    def finish(self, outcome: launch.Outcome) -> launch.Outcome:
        vectors = self.vectors(outcome.variables)
        self.write(vectors)
        self.evaluated = self.with_unseen(vectors, outcome.variables)
        self.scores = evaluation.evaluate(self.config, self.evaluated)
        return outcome.extended(self.scores.metrics)

    def write(self, vectors: Vectors) -> pathlib.Path:
        """Writes the vectors into the workdir; returns the path of their file."""
        binary = self.config.format == "word2vec_binary"
        path = self.workdir / ("vectors.bin" if binary else "vectors.txt")
        with writing(self.workdir):
            write_vectors(path, vectors, format=self.config.format)
        launch.say(f"vectors: {path}")
        return path

    def report(self, outcome: launch.Outcome) -> Sequence[Section]:
        return evaluation.sections(self.evaluated, self.scores)

    def vectors(self, variables: Variables) -> Vectors:
        """Returns the vectors of all words, the most frequent word first."""
        return Vectors(list(self.info.words), self.learner.vectors(variables["params"]))

    def unseen(self, variables: Variables, words: Iterable[str]) -> dict[str, np.ndarray]:
        """Returns the vectors of words without a row, by the words as the corpus would have them.

        Only n-grams make some, of words that have any.
        """
        spelt = map(str.lower, words) if self.config.lower else words
        new = [word for word in dict.fromkeys(spelt) if word not in self._known]
        found = self.learner.unseen(variables["params"], new) if new else None
        if found is None:
            return {}
        return {word: vector for word, vector in zip(new, found, strict=True) if vector.any()}

    @functools.cached_property
    def _known(self) -> frozenset[str]:
        return frozenset(self.info.words)

    def with_unseen(self, vectors: Vectors, variables: Variables) -> Vectors:
        """Returns the vectors, and those of the words asked for that have only n-grams."""
        if not self.config.subwords:
            return vectors
        found = self.unseen(variables, evaluation.words_asked_for(self.config))
        if not found:
            return vectors
        launch.say(
            f"{len(found):,} of the words asked for are unseen; their n-grams stand for them"
        )
        matrix = np.concatenate([vectors.matrix, np.stack([*found.values()])])
        return Vectors([*vectors.words, *found], matrix)

    @classmethod
    def use(cls, config: Config, given: Collection[str]) -> bool:
        if config.vectors is not None:
            evaluation.evaluate_file(config, cls.name())
            return True
        if not {"analogies", "similarities", "neighbours"} & {*given}:
            return False
        if not _has_ended(config, given):
            return False
        evaluation.check_questions(config)
        trained = trained_by(cls, config, given)
        task, variables = trained.task, trained.variables
        assert isinstance(task, cls)
        evaluation.evaluate(task.config, task.with_unseen(task.vectors(variables), variables))
        return True

    def predict(self, variables: Variables, inputs: Sequence[str]) -> list[list[Answer]]:
        """Returns the words nearest to each word, with their cosines, the nearest first.

        A word that the corpus lacks has the vector of its n-grams under --subwords; without any it
        has no neighbours, which is said once.
        """
        space, words = self._space(variables), [word.strip() for word in inputs]
        known = [word for word in words if word in space]
        answers = dict(zip(known, space.neighbours(known, count=_NEAREST), strict=True))
        others = [word for word in words if word not in answers]
        made = self.unseen(variables, others)
        for word in dict.fromkeys(others):
            vector = made.get(word.lower() if self.config.lower else word)
            answers[word] = [] if vector is None else _nearest(space, vector)
            if vector is None and not self._has_told:
                self._has_told = True
                launch.say(
                    f"{word!r} is not among the {len(space):,} words of the run: such words have "
                    "no neighbours" + ("" if self.config.subwords else " without --subwords")
                )
        return [answers[word] for word in words]

    def _space(self, variables: Variables) -> WordSpace:
        """Returns the space of all words, made once for the same variables."""
        first = jax.tree.leaves(variables["params"])[0]
        if self._cached is None or self._cached[0] is not first:
            space = evaluation.word_space(self.config, self.vectors(variables))
            self._cached = first, space
        return self._cached[1]

    def answers(self, inputs: Sequence[str], outputs: list[list[Answer]]) -> list[dict[str, Any]]:
        rows = []
        for nearest in outputs:
            listed = [{"neighbour": word, "cosine": float(cosine)} for word, cosine in nearest]
            first = listed[0] if listed else {"neighbour": None, "cosine": None}
            rows.append({**first, "neighbours": listed})
        return rows


def _nearest(space: WordSpace, vector: np.ndarray) -> list[Answer]:
    """Returns the words of a space nearest to a vector that is not 0."""
    cosines = space.units @ (vector / np.linalg.norm(vector))
    order = np.argsort(-cosines, kind="stable")[:_NEAREST]
    return [Answer(space.words[row], float(cosines[row])) for row in order]


def _has_ended(config: Config, given: Collection[str]) -> bool:
    """Returns whether --workdir holds a run that has ended, and the command asks no more of it.

    More are further steps, a report, and whatever else only training gives.
    """
    if config.workdir is None or config.smoke or config.report or config.resume == "never":
        return False
    folder = pathlib.Path(config.workdir)
    if not (folder / "summary.json").exists() or processes.is_distributed():
        return False
    was = folders.read_config(folder)
    steps = "steps" in given and config.steps > was.get("steps", 0)
    return not (steps or ("epochs" in given and config.epochs > was.get("epochs", 0)))
