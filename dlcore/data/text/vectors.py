"""Reads and writes pre-trained word vectors in the formats of word2vec, GloVe and fastText.

    word2vec text      "n D", then one line per word: the word and D decimal numbers
    word2vec binary    "n D", then per word: the word, a space and D little-endian float32
    GloVe text         the lines of word2vec's text without the first

Models of fastText (`fasttext`) are read, not written. Words are UTF-8; other bytes are kept as
surrogates, so that they are written as they were read.

Shapes: n words of a file, D numbers of a vector, V tokens of a vocabulary.
"""

import codecs
import collections
import contextlib
import gzip
import io
import itertools
import os
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from typing import IO, NamedTuple

import numpy as np
import tqdm

from dlcore.data.text.fasttext import MAGIC, open_fasttext
from dlcore.data.text.vector_lines import Block, describe, fault, parse_block, parse_lines
from dlcore.errors import InputError, pick
from dlcore.files import open_file, unpacked

_HEADER = re.compile(rb"(\d+)[ \t]+(\d+)[ \t]*\r?\n?")
_LOOKED_AT = 50  # first lines that tell the layout
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1f]")
_BLOCK = 1 << 22  # bytes read and parsed at once
FORMATS = {"glove": False, "word2vec": True, "word2vec_binary": True}  # True: with a header


class Vectors(NamedTuple):
    """Vectors of words.

    Attributes:
        words: n words, in the order of the file: usually the most frequent first.
        matrix: float32 [n, D].
        notes: lines for the log about the parts of the file that were not read.
    """

    words: list[str]
    matrix: np.ndarray
    notes: tuple[str, ...] = ()


def read_vectors(
    path: str | os.PathLike[str],
    *,
    wanted: AbstractSet[str] | None = None,
    limit: int | None = None,
    strict: bool = False,
) -> Vectors:
    """Reads a file of word vectors and recognises its format, and gzip, by its content.

    Published files have faults: a wrong number of vectors in the first line, a line with a value
    too few, an empty line at the end. All readable vectors are read, and the notes say what was
    not.

    Args:
        path: the file.
        wanted: the words to keep; the others take neither memory nor the time to parse them, and
            their faults are not looked for. None keeps all words.
        limit: the number of vectors after which reading stops; None reads the whole file.
        strict: whether any fault is an error.

    Raises:
        InputError: when the file is damaged or empty or none of its vectors can be read, and in
            strict reading for any fault: a vector that is not D finite numbers, or a number of
            vectors that differs from the first line. The message names the file, the line or word,
            and the fault.
    """
    name = os.fspath(path)
    words: list[str] = []
    faults: dict[str, str] = {}
    keep = None if wanted is None else {_encoded(word) for word in wanted}
    try:
        with open_file(name) as packed:
            file = unpacked(packed)
            layout = _layout(file, name, strict)
            matrix = np.empty((0, layout.dimension), np.float32)
            for block in layout.read(file, layout, keep, limit):
                faults |= block.faults
                none_yet = keep is None and not (words or block.words)
                if faults and (strict or none_yet):  # no vectors, but perhaps gigabytes of text
                    break
                # The matrix grows in place, because it may take half of the memory; the size in
                # the header cannot be trusted.
                matrix.resize((len(words) + len(block.words), layout.dimension), refcheck=False)
                matrix[len(words) :] = block.vectors
                words += map(_decoded, block.words)
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"cannot read word vectors from {name}: {reason}") from None
    if faults and (strict or not (words or keep)):
        raise fault(name, *next(iter(faults.items())))
    notes = (f"{name}: not read as it should be: {describe(faults)}",) if faults else ()
    return Vectors(words, matrix, notes)


def check_words(words: Iterable[str], format: str) -> None:
    """Checks that words can be written in a format; see `write_vectors`.

    Raises:
        InputError: when the format is unknown, or one of the words cannot be written.
    """
    pick("format of word vectors", format, FORMATS)
    wrong = {name: re.compile(r"[ \n]|^$" if FORMATS[name] else r"\n|^ | $|^$") for name in FORMATS}
    for word in filter(wrong[format].search, words):
        glove = not wrong["glove"].search(word)
        other = ", choose the format glove, which has spaces inside of words" if glove else ""
        raise InputError(
            f"the word {word!r} cannot be written in the format {format}, which separates words by "
            f"spaces and lines; split, rename or drop it{other}"
        )


def write_vectors(
    path: str | os.PathLike[str], vectors: Vectors, *, format: str = "word2vec"
) -> None:
    """Writes word vectors to a file that `read_vectors` reads back without loss.

    The file is packed by gzip if `path` ends in .gz. The text formats hold the shortest decimals
    that read as the same float32. The file appears only when it is complete, and the same vectors
    give the same bytes, packed ones too.

    Args:
        path: the file.
        vectors: the vectors of n words. No word may be empty or hold a line end or a space; only
            "glove" allows spaces inside a word, as in published files, which gensim cannot read.
        format: "word2vec", "word2vec_binary" or "glove".

    Raises:
        InputError: when the format is unknown, a word cannot be written, a vector is not finite or
            the file cannot be written.
        ValueError: when the matrix does not have a row for each word.
    """
    header, binary = pick("format of word vectors", format, FORMATS), format == "word2vec_binary"
    matrix, name = np.asarray(vectors.matrix, "<f4"), os.fspath(path)
    if matrix.ndim != 2 or len(matrix) != len(vectors.words):
        raise ValueError(f"a matrix {matrix.shape} has not {len(vectors.words)} word vectors")
    check_words(vectors.words, format)
    for row in np.flatnonzero(~np.isfinite(matrix).all(axis=1)):
        raise InputError(
            f"the vector of {vectors.words[row]!r} is not finite and could not be read again; its "
            "training has diverged"
        )
    partial = f"{name}.partial"
    try:
        with _packed(partial, name.endswith(".gz")) as file:
            if header:
                file.write(b"%d %d\n" % matrix.shape)
            rows = tqdm.tqdm(
                zip(vectors.words, matrix, strict=True),
                desc=f"writing {name}",
                total=len(matrix),
                unit=" words",
                delay=2,
                leave=False,
            )
            for word, row in rows:
                values = row.tobytes() if binary else " ".join(map(str, row)).encode()
                file.write(_encoded(word) + b" " + values + b"\n")
        os.replace(partial, name)
    except OSError as error:
        raise InputError(
            f"cannot write word vectors to {name}: {error.strerror or error}; make room there or "
            "give another path"
        ) from None
    finally:
        with contextlib.suppress(OSError):
            os.unlink(partial)


def embedding_matrix(
    vectors: Vectors, tokens: Sequence[str], *, seed: int
) -> tuple[np.ndarray, int]:
    """Makes an embedding matrix for the start of training from vectors of the tokens.

    Tokens without a vector get normal noise with the same standard deviation as the vectors used.
    If a word has several vectors, the first is used.

    Args:
        vectors: the vectors of some words.
        tokens: the V tokens of the vocabulary.
        seed: the seed of the noise.

    Returns:
        float32 [V, D], and the number of tokens that have a vector.

    Raises:
        InputError: when no token has a vector.

    >>> vectors = Vectors(["cat", "dog"], np.array([[1, 2], [3, 4]], np.float32))
    >>> matrix, known = embedding_matrix(vectors, ["<unk>", "dog"], seed=0)
    >>> matrix[1].tolist(), known
    ([3.0, 4.0], 1)
    """
    row_of = {word: row for row, word in reversed(list(enumerate(vectors.words)))}
    rows = np.array([row_of.get(token, -1) for token in tokens], np.int64)
    known = rows >= 0
    if not known.any():
        raise InputError(
            f"none of the {len(tokens)} tokens has one of the {len(vectors.words)} word vectors; "
            "give vectors of the same language, with words spelled as in the vocabulary"
        )
    used = vectors.matrix[rows[known]]
    shape = len(rows), used.shape[1]
    matrix = used.std() * np.random.default_rng(seed).standard_normal(shape, np.float32)
    matrix[known] = used
    return matrix, len(used)


class _Layout(NamedTuple):
    """The layout of a file by its first lines: n if there is a header, D, and the reader to use."""

    size: int | None
    dimension: int
    read: Callable[[io.BufferedReader, "_Layout", set[bytes] | None, int | None], Iterator[Block]]


def _encoded(word: str) -> bytes:
    return word.encode(errors="surrogateescape")


def _decoded(word: bytes) -> str:
    return word.decode(errors="surrogateescape")


@contextlib.contextmanager
def _packed(name: str, pack: bool) -> Iterator[IO[bytes] | gzip.GzipFile]:
    """Opens a file to write; a packed one holds no name and no time, which would differ."""
    with open(name, "wb") as file:
        if pack:
            with gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed:
                yield packed
        else:
            yield file


def _layout(file: io.BufferedReader, name: str, strict: bool) -> _Layout:
    """Finds the layout of a file, and leaves the file at the first vector."""
    start = len(codecs.BOM_UTF8) if file.peek(3)[:3] == codecs.BOM_UTF8 else 0
    file.seek(start)
    first = file.readline(_BLOCK)
    if first.startswith(MAGIC):
        file.seek(0)
        model = open_fasttext(file, name)
        return _Layout(
            len(model.words), model.dimension, lambda file, _, *which: model.read(file, *which)
        )
    while not strict and first.isspace():
        start += len(first)
        first = file.readline(_BLOCK)
    if not first.strip():
        raise fault(name, "line 1", "empty")
    header = _HEADER.fullmatch(first)
    if not header:
        file.seek(start)
        lines = [line for line in itertools.islice(file, _LOOKED_AT) if line.strip()]
        file.seek(start)
        looked_at = lines[:1] if strict else lines
        # The word of a line that begins with two spaces is a space.
        fields = [len(line.split()) + line.startswith(b"  ") for line in looked_at]
        dimension = max(1, collections.Counter(fields).most_common(1)[0][0] - 1)
        return _Layout(None, dimension, _read_text)
    count, dimension = int(header[1]), int(header[2])
    if not count or not dimension:
        raise fault(name, "line 1", f"{count} vectors of {dimension} values")
    start += len(first)
    lines = [file.readline(_BLOCK) for _ in range(_LOOKED_AT)]
    file.seek(start)
    # That the bytes of numbers look like as many decimals will not happen by chance.
    if parse_lines(dict(enumerate(lines)), dimension).words:
        return _Layout(count, dimension, _read_text)
    vector = file.read(_BLOCK).partition(b" ")[2][: 4 * dimension]
    file.seek(start)
    try:
        # The incremental decoder allows for a last character that is cut.
        codecs.getincrementaldecoder("utf-8")().decode(vector)
        binary = _CONTROL.search(vector) is not None
    except UnicodeDecodeError:
        binary = True
    return _Layout(count, dimension, _read_binary if binary else _read_text)


def _read_binary(
    file: io.BufferedReader, layout: _Layout, keep: set[bytes] | None, limit: int | None
) -> Iterator[Block]:
    """Yields the wanted words of a binary file block by block."""
    count, size = layout.size or 0, 4 * layout.dimension
    data, number, last = b"", 0, False
    while not last:
        more = file.read(_BLOCK)
        data += more
        words, vectors, faults, position = [], [], {}, 0
        while limit is None or number < limit:
            space = data.find(b" ", position)
            start, end = space + 1, space + 1 + size
            if space < 0 or end > len(data):
                break
            word = data[position:space].lstrip(b"\n")
            if keep is None or word in keep:
                words.append(word)
                vectors.append(data[start:end])
            position, number = end, number + 1
        data = data[position:]
        last = not more or number == limit
        block = np.frombuffer(b"".join(vectors), "<f4").reshape(-1, layout.dimension)
        finite = np.isfinite(block).all(1)
        for row in np.flatnonzero(~finite):
            faults[f"word {_decoded(words[row])!r}"] = "values that are not finite"
        if last and number != limit:
            if number < count:
                reason = f"the file ends here, it should hold {count}"
                faults[f"word {number + 1}"] = reason
            elif number > count or data.strip(b"\n"):
                faults[f"word {count + 1}"] = f"line 1 says that there are only {count}"
        yield Block([words[row] for row in np.flatnonzero(finite)], block[finite], faults)


def _read_text(
    file: io.BufferedReader, layout: _Layout, keep: set[bytes] | None, limit: int | None
) -> Iterator[Block]:
    """Yields the wanted words of a text file block by block."""
    # A word that holds spaces is known only once its line is parsed; until then its beginning
    # decides.
    beginnings = None if keep is None else {word.partition(b" ")[0] for word in keep}
    number = first = 1 if layout.size is None else 2
    empty = 0
    while lines := file.readlines(_BLOCK):
        if limit is not None:
            del lines[first + limit - number :]
        picked = {
            number + row: line
            for row, line in enumerate(lines)
            if beginnings is None or beginnings.intersection(line.split(None, 1)[:1])
        }
        if picked:
            found = parse_block(list(picked.values()), layout.dimension) or parse_lines(
                picked, layout.dimension
            )
            if keep is not None and not keep.issuperset(found.words):
                rows = [row for row, word in enumerate(found.words) if word in keep]
                words = [found.words[row] for row in rows]
                found = found._replace(words=words, vectors=found.vectors[rows])
            yield found
        number, empty = number + len(lines), empty + sum(map(bytes.isspace, lines))
        if limit is not None and number == first + limit:
            return
    count = number - first - empty
    if layout.size not in (None, count):
        reason = f"{layout.size} vectors, but {count} lines follow"
        yield Block([], np.empty((0, layout.dimension), np.float32), {"line 1": reason})
