"""The worth of word vectors: analogies, similarities and neighbours, of a run or of any file."""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from dlcore import launch
from dlcore.data.text import Vectors, read_vectors
from dlcore.errors import InputError
from dlcore.evaluation import (
    evaluate_analogies,
    evaluate_similarities,
    read_analogies,
    read_similarities,
)
from dlcore.evaluation.word_vectors import AnalogyScores, SimilarityScore
from dlcore.launch import workdir as folders
from dlcore.launch.fields import LARGEST, choice, integer, names, path, paths, switch
from dlcore.models.embedding import ANALOGIES, CASES, WordSpace
from dlcore.report import Section, write_page
from dlcore.train.logs import writing

from .report import Neighbours, word_vector_sections

_VECTORS = {"vectors": lambda path: path is not None}


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationConfig(launch.Group):
    """The questions to finished vectors, of a run or of a file."""

    title = "Evaluation"

    vectors: str | None = path(
        None, "file of vectors to evaluate, of any program, instead of training", free=True
    )
    limit: int | None = integer(
        None,
        1,
        LARGEST,
        "read only this many of --vectors, from the first on",
        free=True,
        when=_VECTORS,
    )
    strict: bool = switch(
        False,
        "refuse --vectors with any fault, instead of reading the rest",
        free=True,
        when=_VECTORS,
    )
    analogies: tuple[str, ...] = paths("file of questions a b c d, with sections", free=True)
    similarities: tuple[str, ...] = paths("file of two words and a number a line", free=True)
    neighbours: tuple[str, ...] = names("words whose nearest ones are shown", free=True)
    most_words: int = integer(
        30_000, 1, LARGEST, "most frequent words that analogies ask for and answer", free=True
    )
    method: str = choice("3cosadd", ANALOGIES, "how analogies are answered", free=True)
    ignore_case: bool = switch(True, "take words in questions in any case", free=True)


class Scores(NamedTuple):
    """The worth of vectors, by the names of the files of questions.

    Attributes:
        analogies: of each file of analogies.
        similarities: of each file of similarities.
        neighbours: of each of --neighbours.
    """

    analogies: dict[str, AnalogyScores]
    similarities: dict[str, SimilarityScore]
    neighbours: list[Neighbours]

    @property
    def metrics(self) -> dict[str, float]:
        """One number for each file."""
        return {
            **{f"analogies_{name}": one.total.accuracy for name, one in self.analogies.items()},
            **{f"similarity_{name}": one.spearman for name, one in self.similarities.items()},
        }


def check_questions(config: Any) -> None:
    """Raises InputError when a file of questions is not there."""
    for name in (*config.analogies, *config.similarities):
        if not pathlib.Path(name).is_file():
            raise InputError(f"there is no file {name}; give one of questions")


def known_neighbours(config: Any, words: Sequence[str]) -> tuple[str, ...]:
    """Returns the --neighbours to show: all of them, but in a smoke test, which has few words.

    Args:
        config: the configuration.
        words: of the corpus.

    Raises:
        InputError: when the corpus lacks one of them, which have no n-grams either.
    """
    fold = CASES[_case(config)]
    known = {*map(fold, words)}
    unknown = [word for word in config.neighbours if fold(word) not in known]
    if config.smoke:
        return tuple(word for word in config.neighbours if word not in unknown)
    if unknown and not config.subwords:
        raise InputError(
            f"--neighbours: {unknown[0]!r} is not among the {len(words):,} words of the corpus; "
            "choose others, lower --min_count, or give --subwords"
        )
    return tuple(config.neighbours)


def words_asked_for(config: Any) -> list[str]:
    """Returns the words of all questions, each once."""
    asked = [*config.neighbours]
    for name in config.analogies:
        asked += [word for part in read_analogies(name).values() for four in part for word in four]
    for name in config.similarities:
        asked += [word for first, second, _ in read_similarities(name) for word in (first, second)]
    return [*dict.fromkeys(asked)]


def word_space(config: Any, vectors: Vectors) -> WordSpace:
    """Returns the space of vectors, with --ignore_case."""
    return WordSpace(vectors.words, vectors.matrix, case=_case(config))


def evaluate(config: Any, vectors: Vectors) -> Scores:
    """Answers the questions of a configuration, and prints the scores.

    Raises:
        InputError: for a file that is not one of questions, or a word without a vector.
    """
    space = word_space(config, vectors)
    asked = space.restrict(config.most_words)
    scores = Scores({}, {}, [])
    for name in config.analogies:
        found = evaluate_analogies(asked, read_analogies(name), method=config.method)
        scores.analogies[pathlib.Path(name).stem] = found
        print(f"{name}:\n{found.describe()}")
    for name in config.similarities:
        score = evaluate_similarities(space, read_similarities(name))
        scores.similarities[pathlib.Path(name).stem] = score
        print(f"{name}: {score.describe()}")
    nearest_of = space.neighbours(config.neighbours)
    for word, nearest in zip(config.neighbours, nearest_of, strict=True):
        scores.neighbours.append(Neighbours(word, nearest))
        print(f"{word}: " + ", ".join(f"{other} {cosine:.2f}" for other, cosine in nearest))
    return scores


def sections(vectors: Vectors, scores: Scores) -> list[Section]:
    """Returns the sections of the report."""
    return word_vector_sections(
        words=vectors.words,
        vectors=vectors.matrix,
        neighbours=scores.neighbours,
        analogies=scores.analogies,
        similarities=scores.similarities,
    )


def evaluate_file(config: Any, job: str) -> None:
    """Evaluates the file --vectors alone.

    Raises:
        InputError: when it holds no vectors, as `evaluate`, and for a report into the folder of a
            run.
    """
    folder = pathlib.Path(config.workdir) if config.workdir else folders.new_folder(job)
    if config.report and folders.holds_run(folder):
        raise InputError(
            f"{folder} holds a run, whose report that of {config.vectors} would replace; choose "
            "another --workdir"
        )
    vectors = read_vectors(config.vectors, limit=config.limit, strict=config.strict)
    for note in vectors.notes:
        launch.say(note)
    launch.say(
        f"{config.vectors}: {len(vectors.words):,} vectors of {vectors.matrix.shape[1]} numbers"
    )
    scores = evaluate(config, vectors)
    if config.report:
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        page = write_page(folder / "report", config.vectors, sections(vectors, scores))
        launch.say(f"report: {page}")


def _case(config: Any) -> str:
    return "ignored" if config.ignore_case else "exact"
