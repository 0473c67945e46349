"""Reads and writes pre-trained word vectors in the formats of word2vec and GloVe.

    word2vec text      "n D", then one line per word: the word and D decimal numbers
    word2vec binary    "n D", then per word: the word, a space and D little-endian float32
    GloVe text         the lines of word2vec's text without the first

Words are UTF-8; other bytes are kept as surrogates, so that they are written as they were read.

Shapes: n words of a file, D numbers of a vector, V tokens of a vocabulary.
"""

import codecs
import contextlib
import gzip
import io
import os
import re
import zlib
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from typing import IO, NamedTuple

import numpy as np
import tqdm

from dlcore.data.text.vector_lines import Block, fault, parse_block, parse_lines
from dlcore.errors import InputError, pick
from dlcore.files import open_file, unpacked

_HEADER = re.compile(rb"(\d+) (\d+) ?\r?\n?")
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1f]")
_BLOCK = 1 << 22  # bytes read and parsed at once
FORMATS = {"glove": False, "word2vec": True, "word2vec_binary": True}  # True: with a header


class Vectors(NamedTuple):
    """Vectors of words.

    Attributes:
        words: n words, in the order of the file: usually the most frequent first.
        matrix: float32 [n, D].
    """

    words: list[str]
    matrix: np.ndarray


def read_vectors(
    path: str | os.PathLike[str], *, wanted: AbstractSet[str] | None = None
) -> Vectors:
    """Reads a file of word vectors; its content tells its format and whether gzip packed it.

    Args:
        path: the file.
        wanted: the words to keep; the others take neither memory nor the time to parse them. None
            keeps all words.

    Raises:
        InputError: when a vector is not D finite numbers, or the file is empty, damaged or ends too
            early. The message names the file, the line or word, and the fault.
    """
    name = os.fspath(path)
    words: list[str] = []
    keep = None if wanted is None else {_encoded(word) for word in wanted}
    try:
        with open_file(name) as packed:
            file = unpacked(packed)
            layout = _layout(file, name)
            matrix = np.empty((0, layout.dimension), np.float32)
            read = _read_binary if layout.binary else _read_text
            for block_words, block in read(file, name, layout, keep):
                # The matrix grows in place, because it may take half of the memory; the size in
                # the header cannot be trusted.
                matrix.resize((len(words) + len(block), layout.dimension), refcheck=False)
                matrix[len(words) :] = block
                words += map(_decoded, block_words)
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"cannot read word vectors from {name}: {reason}") from None
    return Vectors(words, matrix)


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
    wrong = re.compile(r"[ \n]|^$" if header else r"\n|^ | $|^$")
    for word in filter(wrong.search, vectors.words):
        raise InputError(
            f"the word {word!r} cannot be written in the format {format}, which separates words by "
            "spaces and lines; rename or drop it"
        )
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
    """Makes an embedding matrix to start training from out of the vectors of the tokens.

    Tokens without a vector get normal noise of the same standard deviation as the vectors that are
    used. Of several vectors of one word the first is used.

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
    """The layout of a file by its first lines: n, if there is a header, D, and the format."""

    size: int | None
    dimension: int
    binary: bool


def _encoded(word: str) -> bytes:
    return word.encode(errors="surrogateescape")


def _decoded(word: bytes) -> str:
    return word.decode(errors="surrogateescape")


@contextlib.contextmanager
def _packed(name: str, pack: bool) -> Iterator[IO[bytes] | gzip.GzipFile]:
    """Opens a file to write; a packed one does not hold its name and the time, which differ."""
    with open(name, "wb") as file:
        if pack:
            with gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed:
                yield packed
        else:
            yield file


def _layout(file: io.BufferedReader, name: str) -> _Layout:
    """Finds the layout of a file and leaves it at the first vector."""
    first = file.readline(_BLOCK)
    if not first.strip():
        raise fault(name, "line 1", "empty")
    header = _HEADER.fullmatch(first)
    if not header:
        dimension = max(1, len(first.split()) - 1)
        parse_lines({1: first}, dimension, name)
        file.seek(0)
        return _Layout(None, dimension, binary=False)
    count, dimension = int(header[1]), int(header[2])
    if not count or not dimension:
        raise fault(name, "line 1", f"{count} vectors of {dimension} values")
    vector = file.read(_BLOCK).partition(b" ")[2][: 4 * dimension]
    try:
        # The incremental decoder allows for a last character that is cut.
        codecs.getincrementaldecoder("utf-8")().decode(vector)
        binary = _CONTROL.search(vector) is not None
    except UnicodeDecodeError:
        binary = True
    file.seek(len(first))
    if not binary and (second := file.readline(_BLOCK)):
        parse_lines({2: second}, dimension, name)
        file.seek(len(first))
    return _Layout(count, dimension, binary)


def _read_binary(
    file: io.BufferedReader, name: str, layout: _Layout, keep: set[bytes] | None
) -> Iterator[Block]:
    """Yields the wanted words of a binary file block by block."""
    count, size = layout.size or 0, 4 * layout.dimension
    data, number = b"", 0
    while number < count:
        more = file.read(_BLOCK)
        if not more:
            raise fault(name, f"word {number + 1}", f"the file ends here, it should hold {count}")
        data += more
        words, vectors, position = [], [], 0
        while number < count:
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
        block = np.frombuffer(b"".join(vectors), "<f4").reshape(-1, layout.dimension)
        finite = np.isfinite(block).all(1)
        if not finite.all():
            word = words[int(finite.argmin())]
            raise fault(name, f"word {_decoded(word)!r}", "values that are not finite")
        yield words, block
    if (data + file.read(1)).strip(b"\n"):
        raise fault(name, f"word {count + 1}", f"line 1 says that there are only {count}")


def _read_text(
    file: io.BufferedReader, name: str, layout: _Layout, keep: set[bytes] | None
) -> Iterator[Block]:
    """Yields the wanted words of a text file block by block."""
    # A word that holds spaces is known only once its line is parsed; until then its beginning
    # decides.
    beginnings = None if keep is None else {word.partition(b" ")[0] for word in keep}
    number = first = 1 if layout.size is None else 2
    while lines := file.readlines(_BLOCK):
        picked = {
            number + row: line
            for row, line in enumerate(lines)
            if beginnings is None or beginnings.intersection(line.split(None, 1)[:1])
        }
        if picked:
            words, block = parse_block(list(picked.values()), layout.dimension) or parse_lines(
                picked, layout.dimension, name
            )
            if keep is not None and not keep.issuperset(words):
                rows = [row for row, word in enumerate(words) if word in keep]
                words, block = [words[row] for row in rows], block[rows]
            yield words, block
        number += len(lines)
    count = number - first
    if layout.size not in (None, count):
        raise fault(name, "line 1", f"{layout.size} vectors, but {count} lines follow")
