"""Turns a corpus of any size into a memory-mapped file of word ids.

The text is read and split once, and each word is numbered by its first appearance. Then the numbers
are counted and written again as ids. So memory holds the distinct words and a few blocks, whatever
the size of the corpus. While the file is built, the disk holds 8 bytes per word.

A folder holds words.tsv (a word, a tab and its count on each line, in the order of the ids),
tokens.bin (ids, little-endian int32) and meta.json, which is written last: a folder without it is
incomplete.

Shapes: V words of the vocabulary, N tokens: the words of the corpus and the ends of sentences.
"""

import contextlib
import functools
import json
import os
import pathlib
import tempfile
import zlib
from collections.abc import Iterator
from typing import IO, Any, NamedTuple

import numpy as np
import tqdm

from dlcore.data.text.phrases import Phrases, join
from dlcore.data.text.splitting import (
    Lines,
    Source,
    WordNumbers,
    fingerprint,
    in_blocks,
    sentences,
    words,
)
from dlcore.errors import InputError
from dlcore.files import read_json

SENTENCE_END = -1
_RARE = -2
_FORMAT = 1
_CHUNK = 1 << 20  # words renumbered at once
_ID = np.dtype("<i4")
_WORDS, _TOKENS, _META = "words.tsv", "tokens.bin", "meta.json"


class TokenFile(NamedTuple):
    """A corpus as word ids.

    Words below the minimum count are left out, so that windows close over them, as in word2vec.

    Attributes:
        words: V words by falling count, ties in the order of their code points.
        counts: the number of occurrences of each word, int64 [V].
        tokens: int32 [N], a memory map: ids, and `SENTENCE_END` after each sentence. No sentence is
            empty.
        raw_words: the number of words of the text, including words too rare to be listed.
    """

    words: tuple[str, ...]
    counts: np.ndarray
    tokens: np.ndarray
    raw_words: int

    @property
    def size(self) -> int:
        """The number of words in `tokens`, without the ends of sentences."""
        return int(self.counts.sum())


def build_token_file(
    source: Source,
    directory: str | os.PathLike[str],
    *,
    splitter: str = "space",
    min_count: int = 5,
    max_words: int | None = None,
    lower: bool = False,
    max_sentence: int = 10_000,
    phrases: Phrases | None = None,
) -> TokenFile:
    """Builds the token file of a corpus, or opens it if it is in `directory` already.

    An existing token file is reused if it was built with the same options from files of the same
    names, sizes and times, or from `Lines` of the same name.

    Args:
        source: the text, see `sentences`. A line is a sentence.
        directory: a folder that is created if needed; a different token file in it is replaced.
        splitter: the rule that splits lines into words, see `find_splitter`.
        min_count: the smallest count of a listed word.
        max_words: the most words, V; None lists all frequent words.
        lower: whether text is lower-cased.
        max_sentence: the most listed words of a sentence; a longer sentence is cut into several.
        phrases: pairs of words to join, see `find_phrases`.

    Raises:
        InputError: when there is no text, it cannot be read or is not UTF-8, no word is frequent
            enough, an option is impossible, or the directory cannot be written. In these cases the
            directory keeps its content.
    """
    folder = pathlib.Path(directory).expanduser()
    options = {"min_count": min_count, "max_words": max_words, "max_sentence": max_sentence}
    for name, value in options.items():
        if value is not None and value < 1:
            raise InputError(f"{name} {value} is not possible; give 1 or more")
    request = {
        **options,
        "format": _FORMAT,
        "source": fingerprint(source),
        "splitter": splitter,
        "lower": lower,
        "phrases": phrases and phrases.fingerprint,
    }
    with contextlib.suppress(InputError):
        if _read_meta(folder)["request"] == request:
            return open_token_file(folder)
    title = "reading words"
    if phrases is None:
        blocks = words(source, splitter=splitter, lower=lower, title=title)
    else:
        lines = sentences(source, splitter=splitter, lower=lower, title=title)
        blocks = in_blocks(map(functools.partial(join, phrases=phrases), lines))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # The temporary file has no name, so it vanishes however the process ends.
        with (
            tempfile.TemporaryFile(dir=folder) as numbered,
            tempfile.TemporaryDirectory(dir=folder, prefix=".building-") as building,
        ):
            numbers = WordNumbers()
            for block in numbers.blocks(blocks):
                numbered.write(block.astype(_ID).tobytes())
            counts = np.zeros(len(numbers.words), np.int64)
            for ids in _chunks(numbered, "counting words"):
                counts += np.bincount(ids, minlength=len(counts))
            listed, order = _listed(numbers.words, counts, min_count, max_words, source)
            new_ids = np.full(len(counts), _RARE, _ID)
            new_ids[0], new_ids[order] = SENTENCE_END, np.arange(len(order))
            del numbers
            built = pathlib.Path(building)
            with open(built / _TOKENS, "wb") as file:
                before = 0
                for ids in _chunks(numbered, "writing ids"):
                    ids, before = _cut_sentences(new_ids[ids], before, max_sentence)
                    file.write(ids.tobytes())
            rows = zip(listed, counts[order].tolist(), strict=True)
            table = "".join(f"{word}\t{count}\n" for word, count in rows)
            (built / _WORDS).write_bytes(_encoded(table))
            raw_words = int(counts[1:].sum())
            meta = {
                "request": request,
                "raw_words": raw_words,
                "tokens_bytes": (built / _TOKENS).stat().st_size,
                "words_crc32": zlib.crc32(_encoded(table)),
            }
            (built / _META).write_text(json.dumps(meta, indent=1) + "\n", encoding="utf-8")
            (folder / _META).unlink(missing_ok=True)
            for name in (_WORDS, _TOKENS, _META):
                os.replace(built / name, folder / name)
            return TokenFile(listed, counts[order], _mapped(folder), raw_words)
    except OSError as error:
        raise InputError(
            f"cannot write a token file in {folder}: {error.strerror or error}; make room there or "
            "give another directory"
        ) from None


def open_token_file(directory: str | os.PathLike[str]) -> TokenFile:
    """Opens the token file that `build_token_file` built in a directory.

    Raises:
        InputError: when there is no token file, or it is damaged.
    """
    folder = pathlib.Path(directory).expanduser()
    meta = _read_meta(folder)
    try:
        table = (folder / _WORDS).read_bytes()
        whole = zlib.crc32(table) == meta["words_crc32"]
        whole &= (folder / _TOKENS).stat().st_size == meta["tokens_bytes"]
        if not whole:
            raise ValueError("it is damaged")
        # A word may hold tabs.
        rows = [line.rsplit("\t", 1) for line in _decoded(table).split("\n")[:-1]]
        counts = np.array([int(count) for _, count in rows], np.int64)
        return TokenFile(
            tuple(word for word, _ in rows), counts, _mapped(folder), meta["raw_words"]
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _not_whole(folder, error) from None


def _not_whole(folder: pathlib.Path, error: Exception) -> InputError:
    reason = getattr(error, "strerror", None) or error
    return InputError(
        f"{folder} holds no whole token file: {reason}; delete it and build the token file again"
    )


def _read_meta(folder: pathlib.Path) -> dict[str, Any]:
    try:
        meta = read_json(folder / _META)
        if "request" not in meta:
            raise ValueError(f"{_META} is not that of one")
    except (OSError, ValueError) as error:
        raise _not_whole(folder, error) from None
    return meta


def _mapped(folder: pathlib.Path) -> np.ndarray:
    return np.memmap(folder / _TOKENS, _ID, "r")


def _encoded(text: str) -> bytes:
    return text.encode(errors="surrogatepass")


def _decoded(data: bytes) -> str:
    return data.decode(errors="surrogatepass")


def _chunks(file: IO[bytes], title: str) -> Iterator[np.ndarray]:
    """Yields the numbers in a file from its beginning, int32, with a progress bar."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    with tqdm.tqdm(total=size, desc=title, unit="B", unit_scale=True, delay=2, leave=False) as bar:
        while data := file.read(_CHUNK * _ID.itemsize):
            yield np.frombuffer(data, _ID)
            bar.update(len(data))


def _listed(
    words: list[str],
    counts: np.ndarray,
    min_count: int,
    max_words: int | None,
    source: Source,
) -> tuple[tuple[str, ...], np.ndarray]:
    """Chooses the V words to list, most frequent first, and returns them and their numbers [V]."""
    name = source.name if isinstance(source, Lines) else os.fspath(source)
    if len(words) == 1:
        raise InputError(
            f"{name} has no words; give a text that has some, or a splitter that finds them"
        )
    enough = (np.flatnonzero(counts[1:] >= min_count) + 1).tolist()
    if not enough:
        most = counts[1:].argmax() + 1
        raise InputError(
            f"no word of {name} occurs {min_count} times, the minimum count; {words[most]!r}, the "
            f"most frequent, occurs {counts[most]} times: lower the minimum or give more text"
        )
    by_word = np.array(sorted(enough, key=words.__getitem__))
    order = by_word[np.argsort(-counts[by_word], kind="stable")][:max_words]
    return tuple(words[number] for number in order.tolist()), order


def _cut_sentences(ids: np.ndarray, before: int, longest: int) -> tuple[np.ndarray, int]:
    """Drops rare words and then empty sentences, and cuts sentences that are too long.

    Args:
        ids: consecutive ids of the corpus, with `SENTENCE_END` and `_RARE`.
        before: the number of words of the first sentence that came before `ids`.
        longest: the most words of a sentence.

    Returns:
        The tokens, and the number of words of the last sentence, 0 if it has ended.
    """
    ids = ids[ids != _RARE]
    ends = ids == SENTENCE_END
    ids = ids[~(ends & np.concatenate([[before == 0], ends])[: len(ends)])]
    # Where each sentence begins, the first one before `ids`, and where it stops.
    places = np.flatnonzero(ids == SENTENCE_END)
    starts, stops = np.append(-before, places + 1), np.append(places, len(ids))
    too_long = np.flatnonzero(stops - starts > longest)
    cuts = [np.arange(starts[one] + longest, stops[one], longest) for one in too_long.tolist()]
    if cuts:
        inside = np.concatenate(cuts)
        ids = np.insert(ids, inside[inside >= 0], SENTENCE_END)
    return ids, int(stops[-1] - starts[-1])
