"""The corpus of word vectors: its options, and its text as ids on disk."""

import dataclasses
import pathlib
from typing import Any

from dlcore import launch
from dlcore.data.text import (
    Lines,
    Phrases,
    TokenFile,
    build_token_file,
    find_phrases,
    load_corpus,
    open_token_file,
    sentences,
)
from dlcore.launch.fields import LARGEST, LARGEST_NUMBER, integer, number, path, switch, text
from dlcore.runtime import processes


@dataclasses.dataclass(frozen=True, kw_only=True)
class CorpusConfig(launch.Group):
    """The words of the corpus."""

    title = "Corpus"

    min_count: int = integer(5, 1, LARGEST, "how often a word must occur to get a vector")
    max_words: int | None = integer(
        None, 1, LARGEST, "largest number of words with a vector; default all"
    )
    splitter: str = text("words", "rule that finds words: space, words, letters, or regex:PATTERN")
    lower: bool = switch(True, "lower-case the text")
    phrases: int = integer(0, 0, 100, "passes that join frequent pairs of words to phrases")
    phrase_threshold: float = number(
        100.0,
        0,
        LARGEST_NUMBER,
        "least score of a phrase",
        when={"phrases": lambda passes: passes > 0},
    )
    corpus_dir: str | None = path(
        None, "folder of the corpus as ids; default in the workdir", free=True
    )


def load_tokens(config: Any, workdir: pathlib.Path) -> TokenFile:
    """Returns the corpus of a configuration as ids, which process 0 makes.

    Args:
        config: the configuration.
        workdir: the folder of the run, in which the corpus is kept unless --corpus_dir says where.

    Raises:
        InputError: as `build_token_file`.
    """
    tokens = processes.made_once(
        lambda: _made(config, workdir), lambda: open_token_file(folder(config, workdir))
    )
    launch.say(
        f"{tokens.raw_words:,} words, {tokens.size:,} of them frequent enough, "
        f"{len(tokens.words):,} different ones"
    )
    return tokens


def _made(config: Any, workdir: pathlib.Path) -> TokenFile:
    source: Any = config.data_path
    if source is None:
        corpus = load_corpus(config.dataset, data_dir=config.data_dir, valid_share=0, test_share=0)
        parts = (corpus.train, corpus.valid, corpus.test)
        everything = config.cut("".join(part for part in parts if part), 100_000)
        # A paragraph is a sentence: lines end in the middle of one.
        lines = [" ".join(paragraph.split()) for paragraph in everything.split("\n\n")]
        source = Lines(f"{corpus.name} {len(everything)}", lambda: ["\n".join(lines)])
    found: Phrases | None = None
    for _ in range(config.phrases):
        words = sentences(source, splitter=config.splitter, lower=config.lower, title="phrases")
        found = find_phrases(words, threshold=config.phrase_threshold, before=found)
    return build_token_file(
        source,
        folder(config, workdir),
        splitter=config.splitter,
        min_count=config.min_count,
        max_words=config.max_words,
        lower=config.lower,
        phrases=found,
    )


def folder(config: Any, workdir: pathlib.Path) -> pathlib.Path:
    """Returns the folder of the corpus."""
    return pathlib.Path(config.corpus_dir or workdir / "corpus")
