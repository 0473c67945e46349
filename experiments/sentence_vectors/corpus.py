"""The text of sentence vectors: scored pairs, and what else vectors are learnt from."""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from dlcore import launch
from dlcore.data.text import (
    ScoredPair,
    ScoredText,
    Vocabulary,
    load_corpus,
    load_scored_pairs,
    read_vectors,
    word_overlap,
)
from dlcore.data.text.words import find_words
from dlcore.launch.fields import FILES, column, number, switch, text
from dlcore.launch.text import encode

NO_CORPUS = "none"


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairsConfig(launch.Group):
    """The columns and the scores of the pairs."""

    title = "Pairs"

    first_column: int | str | None = column("column of a table's first sentences", when=FILES)
    second_column: int | str | None = column("column of a table's second sentences", when=FILES)
    score_column: int | str | None = column("column of a table's scores", when=FILES)
    lowest: float = number(0.0, -1e6, 1e6, "lowest possible score")
    highest: float = number(5.0, -1e6, 1e6, "highest possible score")


@dataclasses.dataclass(frozen=True, kw_only=True)
class CorpusConfig(launch.Group):
    """The text that vectors are learnt from without scores."""

    title = "Corpus"

    corpus: str = text(
        "python_docs",
        "text to learn from beside the training sentences: a data set, a file, or none",
    )
    test_sentences: bool = switch(False, "learn from the test sentences too, without their scores")


class Text(NamedTuple):
    """The sentences of a run.

    Attributes:
        pairs: the scored pairs.
        sentences: the different sentences of the training pairs.
        lines: what vectors are learnt from: `sentences`, and then others.
        row_of: the place of each sentence of the pairs among the lines, where it is there.
        vocabulary: of the lines.
    """

    pairs: ScoredText
    sentences: tuple[str, ...]
    lines: list[str]
    row_of: dict[str, int]
    vocabulary: Vocabulary


def load_text(config: Any) -> Text:
    """Reads the pairs and the corpus of a configuration, and says what was read.

    Raises:
        InputError: for data that cannot be read.
    """
    found = load_scored_pairs(
        config.dataset,
        data_dir=config.data_dir,
        data_path=config.data_path,
        first_column=config.first_column,
        second_column=config.second_column,
        score_column=config.score_column,
        lowest=config.lowest,
        highest=config.highest,
    )
    for note in found.notes:
        launch.say(note)
    pairs = found._replace(
        train=_thinned(config, found.train, 400),
        test=_thinned(config, found.test, 60),
        valid=found.valid and _thinned(config, found.valid, 60),
    )
    sentences = _different(pairs.train)
    known = [*sentences]
    if not config.unread("test_sentences") and config.test_sentences:
        held_out = [*pairs.test, *(pairs.valid or [])]
        known = [*dict.fromkeys([*known, *_different(held_out)])]
    lines = [*known, *_paragraphs(config)]
    vocabulary = config.build_vocabulary(lines)
    if config.embeddings is not None:
        # Words that no training sentence has are known by their vectors all the same.
        listed = {*vocabulary.tokens}
        more = [w for w in read_vectors(config.embeddings).words if w not in listed]
        tokens = (*vocabulary.tokens, *dict.fromkeys(more))[: config.vocab_size]
        vocabulary = dataclasses.replace(vocabulary, tokens=tokens)
    launch.say(
        f"{pairs.name}: {len(pairs.train):,} pairs to train on, {len(pairs.test):,} to test, "
        + (f"{len(pairs.valid):,} to validate with, " if pairs.valid else "")
        + f"{len(sentences):,} different sentences to train on, {len(lines):,} lines to learn "
        f"from, {len(vocabulary):,} words"
    )
    return Text(pairs, sentences, lines, {one: at for at, one in enumerate(known)}, vocabulary)


def _thinned(config: Any, pairs: list[ScoredPair], most: int) -> list[ScoredPair]:
    """Returns some pairs of a smoke test, from all over: neighbours may have equal scores."""
    return pairs[:: max(1, len(pairs) // most)] if config.smoke else pairs


def _different(pairs: Sequence[ScoredPair]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(sentence for pair in pairs for sentence in pair.sentences))


def _paragraphs(config: Any) -> list[str]:
    """Returns the lines of --corpus: the paragraphs of a data set, or the lines of a file."""
    if config.unread("corpus") or config.corpus == NO_CORPUS:
        return []
    own = pathlib.Path(config.corpus).expanduser()
    is_file = own.exists() or "/" in config.corpus
    text = load_corpus(
        config.corpus,
        data_dir=config.data_dir,
        data_path=own if is_file else None,
        valid_share=0,
        test_share=0,
    ).train
    text = config.cut(text, 50_000)
    lines = text.split("\n") if is_file else text.split("\n\n")
    return [line for line in (" ".join(part.split()) for part in lines) if line]


def ids_of(vocabulary: Vocabulary, pairs: Sequence[ScoredPair]) -> list[list[np.ndarray]]:
    """Returns the ids of the first and of the second sentences."""
    return [[encode(vocabulary, pair.sentences[side]) for pair in pairs] for side in (0, 1)]


def overlap_of(pairs: Sequence[ScoredPair]) -> np.ndarray:
    """Returns the share of different words that both sentences of each pair have, [N]."""
    return word_overlap(
        [(find_words(pair.first.lower()), find_words(pair.second.lower())) for pair in pairs]
    )
