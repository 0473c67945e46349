"""Splits text of any size, read in blocks, into the words of its lines.

A line is a sentence; "\\n" and "\\r\\n" end one, and so does the end of a file.
"""

import codecs
import glob
import os
import pathlib
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import IO, NamedTuple

import numpy as np
import tqdm

from dlcore.data.text.files import Line, visible
from dlcore.data.text.spans import RULES, Words
from dlcore.data.text.words import find_letters, find_words
from dlcore.errors import InputError, choose
from dlcore.files import open_file, unpacked
from dlcore.patterns import Pattern

Splitter = Callable[[str], list[str]]  # the words of a line

SPLITTERS: dict[str, Splitter] = {
    "space": str.split,  # at white space
    "words": find_words,  # letters, digits, _; apostrophes inside
    "letters": find_letters,
}
_REGEX = "regex:"
# Bytes read at once: few enough for the words of a block to stay in the processor's cache until
# they are looked up.
_BLOCK = 1 << 16
_SLOTS = 1 << 19
_LONGEST_LINE = 1 << 20


class Lines(NamedTuple):
    """A text that does not come from a file, such as a data set.

    Attributes:
        name: the name of the text. Another text must have another name, because a token file
            built from a text of this name is reused.
        read: a function that returns the whole text, as strings of one or more lines, at each call.
    """

    name: str
    read: Callable[[], Iterable[str]]


Source = str | os.PathLike[str] | Lines


def find_splitter(name: str) -> Splitter:
    """Returns the function named in `SPLITTERS`, or one that follows "regex:PATTERN".

    A pattern finds the words of a line from left to right. If it has a group, the word is the part
    of the match that the group holds.

    Raises:
        InputError: for an unknown name, or a pattern that is invalid or has several groups; and,
            when a line is split, for a pattern that takes too long.

    >>> find_splitter("words")("Don't panic: 42!")
    ["Don't", 'panic', '42']
    >>> find_splitter(r"regex:(\\w+)/N")("dogs/N chase/V cats/N")
    ['dogs', 'cats']
    """
    if not name.startswith(_REGEX):
        if name not in SPLITTERS:
            raise choose("splitter", name, [*SPLITTERS, f"{_REGEX}PATTERN"])
        return SPLITTERS[name]
    pattern = Pattern(f"splitter {name!r}", name.removeprefix(_REGEX))
    if pattern.groups > 1:
        raise InputError(
            f"splitter {name!r} has {pattern.groups} groups; write all but one as (?:...)"
        )
    return lambda line: [word for word in pattern.findall(line) if word]


def fingerprint(source: Source) -> list[list[str | int]]:
    """Returns values that change with a source: name, size and time of each file, or a name.

    Raises:
        InputError: when there is no file.
    """
    if isinstance(source, Lines):
        return [[source.name]]
    infos = [(path, path.stat()) for path in _files(source)]
    return [[os.path.abspath(path), info.st_size, info.st_mtime_ns] for path, info in infos]


def sentences(
    source: Source, *, splitter: str, lower: bool = False, title: str = "reading"
) -> Iterator[list[str]]:
    """Yields the words of each line that has any.

    A line of more than a million characters becomes several sentences, divided at spaces.

    Args:
        source: a text file, a pattern such as "texts/*.txt", a folder, whose files are read in the
            order of their names, or `Lines`. Files are UTF-8, plain or compressed by gzip.
        splitter: see `find_splitter`.
        lower: whether text is lower-cased before it is split.
        title: the title of the progress bar.

    Raises:
        InputError: when there is no file, a file cannot be read or is not UTF-8 (the message names
            the line), or the splitter is unknown or invalid.
    """
    split = find_splitter(splitter)
    for block in _blocks(source, title):
        lines = (block.lower() if lower else block).replace("\r\n", "\n").split("\n")
        yield from filter(None, map(split, lines))


def words(
    source: Source, *, splitter: str, lower: bool = False, title: str = "reading"
) -> Iterator[Words]:
    """Yields the words of `sentences`, in blocks."""
    rule = RULES.get(splitter)
    if rule is None:
        return in_blocks(sentences(source, splitter=splitter, lower=lower, title=title))
    blocks = _blocks(source, title)
    return (rule.words(block.lower() if lower else block) for block in blocks)


def in_blocks(sentences: Iterable[list[str]]) -> Iterator[Words]:
    """Yields the words of sentences in blocks."""
    block: list[list[str]] = []
    size = 0
    for sentence in sentences:
        block.append(sentence)
        size += len(sentence)
        if size >= _BLOCK >> 3:
            yield Words.of_lists(block)
            block, size = [], 0
    yield Words.of_lists(block)


class WordNumbers:
    """A numbering of words in the order of their first appearance, from 1 on; 0 ends a sentence.

    Words are recognised by hashes of 64 bits: the chance that two of a million words share one is 3
    in 10^8.

    >>> numbers = WordNumbers()
    >>> [block.tolist() for block in numbers.blocks(in_blocks([["a", "b", "a"], ["c"]]))]
    [[1, 2, 1, 0, 3, 0]]
    >>> numbers.words
    ['\\n', 'a', 'b', 'c']

    Attributes:
        words: the word of each number; the word of 0 is "\\n".
    """

    def __init__(self) -> None:
        self.words = ["\n"]
        self._numbers: dict[int, int] = {}  # by hashes
        # Most words were seen lately, and found here by all of a block at once.
        self._slot_hashes = np.zeros(_SLOTS, np.uint64)
        self._slot_numbers = np.zeros(_SLOTS, np.int32)

    def blocks(self, blocks: Iterable[Words]) -> Iterator[np.ndarray]:
        """Yields the numbers of the words of blocks, int32, and 0 at the end of each sentence."""
        for block in blocks:
            yield np.insert(self._look_up(block), block.ends, 0)

    def _look_up(self, block: Words) -> np.ndarray:
        hashes = block.hashes()
        slots = (hashes & np.uint64(_SLOTS - 1)).astype(np.intp)
        numbers = self._slot_numbers[slots]
        # No number of a word is 0.
        unseen = np.flatnonzero((self._slot_hashes[slots] != hashes) | (numbers == 0))
        known = self._numbers
        for index, key in zip(unseen.tolist(), hashes[unseen].tolist(), strict=True):
            number = known.get(key)
            if number is None:
                number = known[key] = len(self.words)
                self.words.append(block.word(index))
            numbers[index] = number
        self._slot_hashes[slots[unseen]] = hashes[unseen]
        self._slot_numbers[slots[unseen]] = numbers[unseen]
        return numbers


def _files(source: str | os.PathLike[str]) -> list[pathlib.Path]:
    """Returns the files of a path or pattern, at least one."""
    path = pathlib.Path(source).expanduser()
    if source != "" and path.is_dir():
        return visible(path)
    names = [path] if path.is_file() else sorted(glob.glob(str(path), recursive=True))
    files = [path for path in map(pathlib.Path, names) if path.is_file()]
    if not files:
        raise InputError(
            f"there is no file {os.fspath(source)!r}; give a text file, a folder of them or a "
            "pattern such as 'texts/*.txt'"
        )
    return files


def _blocks(source: Source, title: str) -> Iterator[str]:
    """Yields the text in blocks that end at line ends, unless a line is too long."""
    if isinstance(source, Lines):
        yield from tqdm.tqdm(source.read(), desc=title, unit=" texts", delay=2, leave=False)
        return
    paths = _files(source)
    size = sum(path.stat().st_size for path in paths)
    with tqdm.tqdm(total=size, desc=title, unit="B", unit_scale=True, delay=2, leave=False) as bar:
        for path in paths:
            try:
                with open_file(path) as file:
                    before = bar.n
                    for block in _blocks_of_file(unpacked(file), path):
                        yield block
                        bar.update(before + file.tell() - bar.n)
            except (OSError, EOFError, zlib.error) as error:
                reason = getattr(error, "strerror", None) or error
                raise InputError(f"cannot read {path}: {reason}; give whole text files") from None


def _blocks_of_file(file: IO[bytes], path: pathlib.Path) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    rest, number = "", 1
    while data := file.read(_BLOCK):
        text = rest + _decoded(decoder, data, path, number)
        end = text.rfind("\n") + 1
        if not end and len(text) > _LONGEST_LINE:
            end = text.rfind(" ") + 1 or len(text)
        yield text[:end]
        rest, number = text[end:], number + data.count(b"\n")
    yield rest + _decoded(decoder, b"", path, number)


def _decoded(
    decoder: codecs.IncrementalDecoder, data: bytes, path: pathlib.Path, number: int
) -> str:
    """Decodes the next bytes of a file, which begin in line `number`."""
    try:
        return decoder.decode(data, final=not data)
    except UnicodeDecodeError as error:
        line = Line(path, number + error.object.count(b"\n", 0, error.start))
        raise InputError(
            f"{line} is not UTF-8 (byte 0x{error.object[error.start]:02x}); convert the file to "
            "UTF-8"
        ) from None
